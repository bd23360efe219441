package kernel

import "math"

// The BF16 level multiplies pairs of bfloat16 and sums in float32. A tile in
// pairs is [Pairs(in)][Rows] uint32; the low half of an element is an even input,
// the high half the odd one after it, zero if there is none.

// Pairs returns the number of pairs that hold n inputs.
func Pairs(n int) int { return (n + 1) / 2 }

// RoundPairs rounds the first 16*slices rows of a tile x [in][Rows] to bfloat16,
// to nearest even, and writes them in pairs to dst [Pairs(in)][Rows]. A NaN
// becomes a quiet one. It panics when a buffer is too short.
func RoundPairs(level Level, dst []uint32, x []float32, in, slices int) {
	checkSlices(slices)
	if len(dst) < Pairs(in)*Rows || len(x) < in*Rows {
		panic("kernel: dst or x is too short for the inputs")
	}
	done := 0
	if level == BF16 && native(level) {
		if done = in &^ 1; done > 0 && slices > 0 {
			gemmRoundPairs(ptr(dst), ptr(x), done/2, slices)
		}
	}
	n := slices * lanes
	for k := done; k < in; k += 2 {
		d, even := dst[k/2*Rows:k/2*Rows+n], x[k*Rows:k*Rows+n]
		for i, v := range even {
			d[i] = uint32(bfloat16(v))
		}
		if k+1 == in {
			break
		}
		for i, v := range x[(k+1)*Rows : (k+1)*Rows+n] {
			d[i] |= uint32(bfloat16(v)) << 16
		}
	}
}

// bfloat16 rounds to nearest even.
func bfloat16(v float32) uint16 {
	u := math.Float32bits(v)
	if v != v {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// packPairs returns the weights w [out][in] in pairs, [group][k/2][n].
func packPairs(w []float32, in int, s grouping) []uint32 {
	n := Pairs(in)
	packed := aligned[uint32](s.before(s.groups) * n)
	at := 0
	for g := range s.groups {
		for k := range n {
			for j := s.before(g); j < s.before(g+1); j++ {
				packed[at] = uint32(bfloat16(w[j*in+2*k]))
				if 2*k+1 < in {
					packed[at] |= uint32(bfloat16(w[j*in+2*k+1])) << 16
				}
				at++
			}
		}
	}
	return packed
}

// DensePairs is DensePart for a layer packed for BF16, whose input is in pairs.
// Products of bfloat16 are exact in float32; each is added in turn, the even
// inputs and the odd ones of a pair in the CPU's order, denormals being zeros.
func (p *Packed) DensePairs(y []float32, x []uint32, g0, g1 int, act Activation, slices int) {
	if p.level != BF16 {
		panic("kernel: the layer is not packed for BF16")
	}
	p.check(len(y), len(x), g0, g1, Pairs(p.In), act, slices)
	if slices == 0 || g0 == g1 {
		return
	}
	a := gemmArgs{x: ptr(x), k: Pairs(p.In), slices: slices, xk: Rows * 4, xs: lanes * 4, aheadW: aheadPacked, act: int(act)}
	p.run(&a, y, ptr(p.pairs), Pairs(p.In), g0, g1)
}
