package kernel

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// Level is a set of kernels for one kind of CPU.
type Level uint8

// The levels. Generic is the plain Go of this package, the specification of the
// others. BF16 rounds weights and activations to bfloat16 and sums in float32:
// it is never chosen unasked.
const (
	Generic Level = iota
	NEON          // arm64
	AVX2          // amd64 with AVX2 and FMA
	AVX512        // amd64 with AVX-512 F, BW, DQ and VL
	BF16          // AVX512 with AVX512-BF16
)

var levelNames = [...]string{"generic", "neon", "avx2", "avx512", "avx512bf16"}

// String returns the name that ELBO_KERNEL takes.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// Describe returns the level with its number format, for people.
func (l Level) Describe() string {
	switch l {
	case Generic:
		return "generic float32 (plain Go)"
	case BF16:
		return "avx512bf16 (bfloat16 products, float32 sums)"
	}
	return l.String() + " float32"
}

// Levels returns the levels that this CPU and build can run, slowest first;
// Generic is always there.
func Levels() []Level { return append([]Level{Generic}, nativeLevels()...) }

// LevelVariable is the environment variable that forces a level.
const LevelVariable = "ELBO_KERNEL"

// Active returns the level that the process uses: the fastest float32 level that
// the CPU has, or the one that ELBO_KERNEL names. The choice is made once. An
// unknown or impossible name is an error, never a silent fallback; Active then
// returns Generic.
var Active = sync.OnceValues(func() (Level, error) { return choose(os.Getenv(LevelVariable), Levels()) })

func choose(name string, have []Level) (Level, error) {
	if name == "" {
		best := Generic
		for _, l := range have {
			if l != BF16 {
				best = l
			}
		}
		return best, nil
	}
	if name == BF16.String() {
		return Generic, fmt.Errorf("%s=%s: bfloat16 is a precision that a job asks for (--precision bf16), not a level of the process", LevelVariable, name)
	}
	for l, n := range levelNames {
		if n != name {
			continue
		}
		for _, h := range have {
			if h == Level(l) {
				return h, nil
			}
		}
		return Generic, fmt.Errorf("%s=%s: this CPU or build does not have that level; it has %s", LevelVariable, name, join(have))
	}
	return Generic, fmt.Errorf("%s=%q is unknown; want one of %s (this CPU has %s)", LevelVariable, name, strings.Join(levelNames[:BF16], ", "), join(have))
}

func join(levels []Level) string {
	names := make([]string, len(levels))
	for i, l := range levels {
		names[i] = l.String()
	}
	return strings.Join(names, ", ")
}
