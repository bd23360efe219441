package vae

import (
	"math"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
)

// truths packs a column of numbers that count as 0 or 1 where all rows of the tile are
// one of the two and none is null, as they mostly are: there is nothing to change then.
// It says whether it did.
func (b *Packed) truths(s *step, c *bound) bool {
	w, f := &b.work, s.feature
	if !b.p.norms.plain(f, 1) {
		return false
	}
	lanes := w.lanesOf(f)
	switch s.num {
	case arrow.FLOAT32:
		if !truths32(lanes[:w.n], numbersOf[float32](c)[w.from:w.from+w.n]) {
			return false
		}
	case arrow.FLOAT64:
		if !truths64(lanes[:w.n], numbersOf[float64](c)[w.from:w.from+w.n]) {
			return false
		}
	default:
		return false
	}
	if len(w.odd) > 0 {
		w.setOdd(s.index, 0)
	}
	w.put(f, lanes)
	w.missing[f] = 0
	return true
}

// truths32 copies src to dst and says whether all of it is 0 or 1.
func truths32(dst, src []float32) bool {
	const low = 1<<32 | 1
	var odd uint64
	n := len(src) &^ 1
	to := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(dst))), n/2)
	for i, p := range unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(src))), n/2) {
		odd |= p ^ (p >> 29 & low * oneBits) // bit 29 is set in 1, and not in 0
		to[i] = p
	}
	for i := n; i < len(src); i++ {
		p := uint64(math.Float32bits(src[i]))
		odd |= p ^ (p >> 29 & 1 * oneBits)
		dst[i] = src[i]
	}
	return odd == 0
}

// truths64 is truths32 from float64.
func truths64(dst []float32, src []float64) bool {
	const one = 0x3ff0000000000000
	var odd uint64
	dst = dst[:len(src)]
	for i, v := range src {
		p := math.Float64bits(v)
		set := p >> 61 & 1
		odd |= p ^ set*one
		dst[i] = math.Float32frombits(uint32(set) * oneBits)
	}
	return odd == 0
}
