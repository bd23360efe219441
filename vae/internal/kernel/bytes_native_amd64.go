//go:build !noasm

package kernel

import "unsafe"

// nativeQuantize rounds whole quads, if the level can.
func nativeQuantize(level Level, dst, x, inverse, zero unsafe.Pointer, quads, slices int) bool {
	switch {
	case !native(level):
		return false
	case level == AVX2:
		quantizeQuadsAVX2(dst, x, inverse, zero, quads, slices)
	default:
		quantizeQuadsAVX512(dst, x, inverse, zero, quads, slices)
	}
	return true
}
