package bench

import (
	"os"
	"runtime"
	"strings"

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
	// Peak is the float32 multiply-add ceiling of one core in GFLOP/s at the
	// kernel's vector width, 0 where nothing measures it.
	Peak float64 `json:"peak_gflops,omitempty"`
}

// ThisMachine describes where the process runs; the error is that of
// vae.Kernel.
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
