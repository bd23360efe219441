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

// vecGather fills a tile of n features from the rows of a row-major store: lane i
// gets store[index[i]*stride:][:n]. Lanes beyond len(index), which is at most
// Rows, get zeros.
func vecGather(l Level, dst, store []float32, index []int32, stride, n int) {
	must(len(dst) == n*Rows && len(index) <= Rows && n <= stride, "gather of lengths that do not fit")
	if n == 0 {
		return
	}
	var rows [Rows]*float32
	for i, at := range index {
		rows[i] = &store[int(at)*stride : int(at)*stride+n][0]
	}
	if len(index) == 0 {
		clear(dst)
		return
	}
	for i := len(index); i < Rows; i++ {
		rows[i] = rows[0]
	}
	vecGatherRows(l, dst, &rows, n)
	if len(index) < Rows {
		for f := range n {
			clear(dst[f*Rows+len(index) : (f+1)*Rows])
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

// A standard is how a column is standardised: x = (v-mean)/scale, held to
// -limit..limit.
type standard struct {
	hi, inv, lo float32 // float32(mean), 1/scale, float32((mean-hi)/scale)
	limit       float32
	mean, inv64 float64 // for columns of float64
}

func newStandard(mean, scale float64, limit float32) standard {
	hi := float32(mean)
	return standard{hi: hi, inv: float32(1 / scale), lo: float32((mean - float64(hi)) / scale), limit: limit, mean: mean, inv64: 1 / scale}
}

// vecPackF32 standardises up to Rows values of a column into the lanes of one
// feature: fma(v-hi, inv, -lo), held to -limit..limit. A value that is NaN or
// infinite becomes 0 and sets its bit in bad. The lanes beyond len(src) become 0.
// It asks the memory for the next 256 bytes of the column, which need not exist.
func vecPackF32(l Level, dst, src []float32, s *standard) (bad uint64) {
	must(len(dst) == Rows && len(src) <= Rows, "pack of lengths that do not fit")
	whole := len(src) / Lanes
	if whole > 0 {
		bad = packF32(l, &dst[0], &src[0], whole, s)
	}
	if rest := len(src) % Lanes; rest > 0 {
		var in [Lanes]float32
		copy(in[:], src[whole*Lanes:])
		bad |= packF32(l, &dst[whole*Lanes], &in[0], 1, s) << (whole * Lanes)
	}
	clear(dst[len(src):])
	return bad
}

func packF32(l Level, dst, src *float32, slices int, s *standard) (bad uint64) {
	if nativePackF32(l, dst, src, slices, s.hi, s.inv, s.lo, s.limit, &bad) {
		return bad
	}
	to, from := unsafe.Slice(dst, slices*Lanes), unsafe.Slice(src, slices*Lanes)
	for i, v := range from {
		if v-v != 0 {
			to[i] = 0
			bad |= 1 << i
			continue
		}
		x := float32(math.FMA(float64(v-s.hi), float64(s.inv), -float64(s.lo)))
		to[i] = min(max(x, -s.limit), s.limit)
	}
	return bad
}

// vecPackF64 is vecPackF32 for a column of float64: float32((v-mean)/scale),
// the quotient taken as a product in float64.
func vecPackF64(l Level, dst []float32, src []float64, s *standard) (bad uint64) {
	must(len(dst) == Rows && len(src) <= Rows, "pack of lengths that do not fit")
	whole := len(src) / Lanes
	if whole > 0 {
		bad = packF64(l, &dst[0], &src[0], whole, s)
	}
	if rest := len(src) % Lanes; rest > 0 {
		var in [Lanes]float64
		copy(in[:], src[whole*Lanes:])
		bad |= packF64(l, &dst[whole*Lanes], &in[0], 1, s) << (whole * Lanes)
	}
	clear(dst[len(src):])
	return bad
}

func packF64(l Level, dst *float32, src *float64, slices int, s *standard) (bad uint64) {
	if nativePackF64(l, dst, src, slices, s.mean, s.inv64, s.limit, &bad) {
		return bad
	}
	to, from := unsafe.Slice(dst, slices*Lanes), unsafe.Slice(src, slices*Lanes)
	for i, v := range from {
		if v-v != 0 {
			to[i] = 0
			bad |= 1 << i
			continue
		}
		to[i] = min(max(float32((v-s.mean)*s.inv64), -s.limit), s.limit)
	}
	return bad
}

// vecPackRow reads one value per column, for a row with the features in the
// lanes: dst[i] is the float32 at pointers[i].
func vecPackRow(dst []float32, pointers []unsafe.Pointer) {
	dst = dst[:len(pointers)]
	for i, p := range pointers {
		dst[i] = *(*float32)(p)
	}
}
