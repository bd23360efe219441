//go:build !noasm

package kernel

import "unsafe"

// nativeQuantize rounds whole quads, if the level can.
func nativeQuantize(level Level, dst, x, inverse, zero unsafe.Pointer, quads, slices int) bool {
	if level != NEON {
		return false
	}
	quantizeQuadsNEON(dst, x, inverse, zero, quads, slices)
	return true
}
