package vae

import (
	"os"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// KernelVariable is the environment variable that forces a kernel level.
const KernelVariable = kernel.LevelVariable

// Kernel describes the kernel level that the process computes with, such as
// "avx2 float32": the fastest that keeps float32, or the one that
// KernelVariable names. The choice is made once. A name that is unknown, or that
// this CPU or build does not have, is an error: programs must end with it, as
// nothing may be computed at a level that was not asked for.
func Kernel() (string, error) {
	l, err := kernel.Active()
	return l.Describe(), err
}

// KernelForced says whether KernelVariable names the level.
func KernelForced() bool { return os.Getenv(KernelVariable) != "" }

// KernelLevels returns the names of the levels that this CPU and build have,
// slowest first; KernelVariable takes any of them.
func KernelLevels() []string {
	var names []string
	for _, l := range kernel.Levels() {
		names = append(names, l.String())
	}
	return names
}

// KernelPeak runs n rounds of independent multiply-adds at the process's level,
// in registers, and returns how many floating point operations they were, two for
// each multiply-add. Timed, it tells what one core can do at most.
func KernelPeak(n int) (flops float64) {
	l, _ := kernel.Active() // generic when the choice is an error
	return kernel.Peak(l, n)
}
