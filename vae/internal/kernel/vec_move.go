package kernel

import (
	"math"
	"unsafe"
)

// vecTranspose turns a tile of n features into blocks of Lanes features whose
// rows are contiguous: dst is [ceil(n/Lanes)][Rows][Lanes], features beyond n are
// zero.
func vecTranspose(l Level, dst, src []float32, n int) {
	blocks := (n + Lanes - 1) / Lanes
	must(len(src) == n*Rows && len(dst) == blocks*Rows*Lanes, "transpose of lengths that do not fit")
	if n == 0 || nativeTranspose(l, &dst[0], &src[0], n) {
		return
	}
	for f := range blocks * Lanes {
		for r := range Rows {
			v := float32(0)
			if f < n {
				v = src[f*Rows+r]
			}
			dst[(f/Lanes*Rows+r)*Lanes+f%Lanes] = v
		}
	}
}

// vecGatherRows fills a tile of n features: lane i gets the n floats at rows[i].
func vecGatherRows(l Level, dst []float32, rows *[Rows]*float32, n int) {
	must(len(dst) == n*Rows, "gather of lengths that do not fit")
	if n >= 8 && nativeGather(l, &dst[0], &rows[0], n) {
		return
	}
	for i, p := range rows {
		for f, v := range unsafe.Slice(p, n) {
			dst[f*Rows+i] = v
		}
	}
}

// Pack32 standardises up to Rows values of a float32 column into dst, which has
// room for them: fma(v-hi, inv, -lo), rounded once, held to -limit..limit. With
// hi = float32(mean), inv = 1/scale and lo = float32((mean-hi)/scale) that is
// (v-mean)/scale. A value that is NaN or infinite becomes 0 and sets its bit in
// bad. All levels give the same bits, Generic too. It asks the memory for the
// 256 bytes at ahead, which are to be packed soon and need not exist; nil is none.
// It panics when the lengths do not fit.
func Pack32(l Level, dst, src []float32, ahead *float32, hi, inv, lo, limit float32) (bad uint64) {
	n := len(src)
	must(n <= Rows && len(dst) >= n, "pack of lengths that do not fit")
	i := whole(n)
	if i > 0 && !nativePack32(l, &dst[0], &src[0], ahead, i/Lanes, hi, inv, lo, limit, &bad) {
		i = 0
	}
	for ; i < n; i++ {
		if !packOne(&dst[i], src[i], hi, inv, lo, limit) {
			bad |= 1 << i
		}
	}
	return bad
}

// packOne is Pack32 of one value; it tells whether that is finite.
func packOne(dst *float32, v, hi, inv, lo, limit float32) bool {
	if v-v != 0 {
		*dst = 0
		return false
	}
	*dst = min(max(fma32(v-hi, inv, -lo), -limit), limit)
	return true
}

// fma32 is x*y + z, rounded once.
func fma32(x, y, z float32) float32 {
	p, c := float64(x)*float64(y), float64(z) // exact
	s := p + c
	t := s - p
	rest := (p - (s - t)) + (c - t) // of the sum (Knuth's two-sum)
	if b := math.Float64bits(s); rest != 0 && b&1 == 0 && rest-rest == 0 {
		// Round s to odd, then its rounding to float32 is the only one.
		if rest > 0 == (s > 0) {
			b |= 1
		} else {
			b--
		}
		s = math.Float64frombits(b)
	}
	return float32(s)
}

// Pack64 is Pack32 for a column of float64: float32((v-mean)*inv), the
// difference and the product in float64; inv is 1/scale.
func Pack64(l Level, dst []float32, src []float64, mean, inv float64, limit float32) (bad uint64) {
	n := len(src)
	must(n <= Rows && len(dst) >= n, "pack of lengths that do not fit")
	i := whole(n)
	if i > 0 && !nativePack64(l, &dst[0], &src[0], i/Lanes, mean, inv, limit, &bad) {
		i = 0
	}
	for ; i < n; i++ {
		v := src[i]
		if v-v != 0 {
			dst[i] = 0
			bad |= 1 << i
			continue
		}
		dst[i] = min(max(float32((v-mean)*inv), -limit), limit)
	}
	return bad
}

// PackRow is Pack32 of one row with the features in the lanes, in place: v holds
// one value of each column, hi, inv and lo those of the features; all have one
// length, any. It tells whether every value is finite.
func PackRow(l Level, v, hi, inv, lo []float32, limit float32) bool {
	n := len(v)
	must(len(hi) == n && len(inv) == n && len(lo) == n, "pack of lengths that do not fit")
	var bad uint64
	i := whole(n)
	if i > 0 && !nativePackRow(l, &v[0], &hi[0], &inv[0], &lo[0], i, limit, &bad) {
		i = 0
	}
	ok := bad == 0
	for ; i < n; i++ {
		ok = packOne(&v[i], v[i], hi[i], inv[i], lo[i], limit) && ok
	}
	return ok
}
