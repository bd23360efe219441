package bench

import (
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/elbo-stream/elbo/vae"
)

// A Machine is what a figure was measured on.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"` // that this process may use
	Kernel string `json:"kernel"`
	// Why says why that kernel level.
	Why string `json:"kernel_why"`
	Go  string `json:"go"`
	// Peak is what MeasurePeak found, 0 when it was not asked.
	Peak float64 `json:"peak_gflops,omitempty"`
}

// ThisMachine describes where the process runs; the error is that of
// vae.Kernel. It does not
// measure the peak.
func ThisMachine() (Machine, error) {
	m := Machine{CPU: cpuName(), Cores: runtime.GOMAXPROCS(0), Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}
	var err error
	m.Kernel, err = vae.Kernel()
	m.Why = "the fastest float32 level of this CPU and build, which have " + strings.Join(vae.KernelLevels(), ", ")
	if vae.KernelForced() {
		m.Why = "forced by " + vae.KernelVariable
	}
	return m, err
}

// MeasurePeak returns the ceiling of one core in GFLOP/s at the kernel's level:
// the best of many short runs of multiply-adds in registers, over that long. On
// a busy machine it is what the core has left to give.
func MeasurePeak(long time.Duration) float64 {
	const rounds = 100_000
	best := 0.0
	for start := time.Now(); ; {
		before := time.Now()
		flops := vae.KernelPeak(rounds)
		now := time.Now()
		if took := now.Sub(before); took > 0 {
			best = max(best, 1e-9*flops/took.Seconds())
		}
		if now.Sub(start) >= long {
			return best
		}
	}
}

// cpuName asks the system for the processor's name; where it does not tell, the
// architecture has to do.
func cpuName() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	return nameIn(string(text))
}

// nameIn finds the processor's name in the text of /proc/cpuinfo, with family
// and model where it has them: cloud machines often hide the rest.
func nameIn(cpuinfo string) string {
	name, numbers := "", ""
	for line := range strings.Lines(cpuinfo) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "model name":
			name = value
		case "cpu family":
			numbers = "family " + value
		case "model":
			numbers += " model " + value
		case "":
			if name != "" { // the first processor is enough
				return strings.TrimSuffix(name+" ("+numbers+")", " ()")
			}
		}
	}
	if name != "" {
		return strings.TrimSuffix(name+" ("+numbers+")", " ()")
	}
	return runtime.GOARCH
}
