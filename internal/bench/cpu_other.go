//go:build !unix

package bench

import (
	"time"
)

// CPUTime returns 0: this system is not asked for the processor time of a
// process.
func CPUTime() time.Duration { return 0 }
