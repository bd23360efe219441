//go:build noasm || !(amd64 || arm64)

package kernel

// What assembly this build has.
const (
	hasAMD64 = false
	hasARM64 = false
)

func gemm(Level, int, *gemmArgs) { panic("kernel: no assembly in this build") }

func gemmPeak(Level, int) float64 { panic("kernel: no assembly in this build") }
