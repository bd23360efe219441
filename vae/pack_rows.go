package vae

import (
	"math"

	"github.com/apache/arrow/go/v15/arrow"
)

// otherRows packs a run of numbers of any types row by row, as if none were null.
func (b *Packed) otherRows(k *block) {
	w := &b.work
	for i := range k.n {
		c, f := &b.bound[k.first+i], k.feature+i
		w.missing[f] = 0
		var bad uint64
		switch b.p.steps[k.first+i].num {
		case arrow.FLOAT64:
			bad = rowsOf[float64](b, c, f)
		case arrow.FLOAT32:
			bad = rowsOf[float32](b, c, f)
		case arrow.INT8:
			bad = rowsOf[int8](b, c, f)
		case arrow.INT16:
			bad = rowsOf[int16](b, c, f)
		case arrow.INT32:
			bad = rowsOf[int32](b, c, f)
		case arrow.INT64:
			bad = rowsOf[int64](b, c, f)
		case arrow.UINT8:
			bad = rowsOf[uint8](b, c, f)
		case arrow.UINT16:
			bad = rowsOf[uint16](b, c, f)
		case arrow.UINT32:
			bad = rowsOf[uint32](b, c, f)
		case arrow.UINT64:
			bad = rowsOf[uint64](b, c, f)
		case arrow.BOOL:
			set := bitsAt(numbersOf[byte](c), c.innerAt+w.from, w.n)
			for r := range w.n {
				x := standard64(float64(set>>r&1), b.p.norms.mean[f], b.p.norms.inv64[f])
				w.x[f*w.fs+r*w.rs] = x
			}
		}
		b.strange(k.first+i, f, bad, 0)
	}
}

// rowsOf packs the numbers of feature f and returns the rows that are not finite.
func rowsOf[T integer | float32 | float64](b *Packed, c *bound, f int) (bad uint64) {
	w := &b.work
	mean, inv := b.p.norms.mean[f], b.p.norms.inv64[f]
	for r, v := range numbersOf[T](c)[w.from : w.from+w.n] {
		x := float32(0)
		if v-v == 0 {
			x = standard64(float64(v), mean, inv)
		} else {
			bad |= 1 << r
		}
		w.x[f*w.fs+r*w.rs] = x
	}
	return bad
}

// standard64 is kernel.Pack64 of one finite value.
func standard64(v, mean, inv float64) float32 {
	x := float32((v - mean) * inv)
	if math.Abs(float64(x)) > MaxAbs {
		x = min(max(x, -MaxAbs), MaxAbs)
	}
	return x
}
