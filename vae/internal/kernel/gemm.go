package kernel

import "unsafe"

//go:generate go run ./gen/gemm

// Packed is a dense layer packed for one level: weights as [group][k][n], where
// a group is n neighbouring neurons that a kernel computes at once. It is
// immutable and safe for concurrent use.
//
// Each output is one chain over the inputs in ascending order that starts at the
// bias, so that it does not depend on the group, the slice or the lane. AVX2,
// AVX512 and NEON fuse each product with its sum and give the same bits; Generic
// does not fuse.
type Packed struct {
	In, Out int
	level   Level
	split   grouping
	w, b    []float32
	pairs   []uint32 // BF16: weights as [group][k/2][n] pairs, w is empty
}

// PackCols packs the weights w [out][in] and biases b [out] for a level. A level
// that this CPU or build does not have is packed as Generic. It panics when a
// length does not fit.
func PackCols(level Level, w, b []float32, in, out int) *Packed {
	if len(w) != in*out || len(b) != out {
		panic("kernel: weights do not fit the layer")
	}
	if !native(level) {
		level = Generic
	}
	p := &Packed{In: in, Out: out, level: level, b: aligned[float32](out)}
	copy(p.b, b)
	most := maxGroup
	if level == Generic {
		most = genericGroup
	}
	p.split = groupsOf(out, most)
	if level == BF16 {
		p.pairs = packPairs(w, in, p.split)
		return p
	}
	p.w = aligned[float32](in * out)
	at := 0
	for g := range p.split.groups {
		from, to := p.Span(g, g+1)
		for k := range in {
			for j := from; j < to; j++ {
				p.w[at] = w[j*in+k]
				at++
			}
		}
	}
	return p
}

// Level returns the level that the layer was packed for: Generic if this CPU or
// build does not have the one asked for.
func (p *Packed) Level() Level { return p.level }

// Groups returns the number of groups of neurons.
func (p *Packed) Groups() int { return p.split.groups }

// Span returns the neurons [from, to) that the groups [g0, g1) cover. A group
// has at most 6 neurons.
func (p *Packed) Span(g0, g1 int) (from, to int) { return p.split.before(g0), p.split.before(g1) }

// Dense computes y = act(W x + b) for the first 16*slices rows of a tile: x is
// [In][Rows], y [Out][Rows]; the other lanes of y are left alone. act is
// Identity, ReLU or Leaky, and a NaN comes through each. y and x must not
// overlap. It panics when a buffer is too short. A layer packed for BF16 takes
// DensePairs instead.
func (p *Packed) Dense(y, x []float32, act Activation, slices int) {
	p.DensePart(y, x, 0, p.split.groups, act, slices)
}

// DensePart is Dense for the neurons of the groups [g0, g1) alone. y starts at
// the first of them: neuron Span(g0, g1) is y's first feature.
func (p *Packed) DensePart(y, x []float32, g0, g1 int, act Activation, slices int) {
	if p.level == BF16 {
		panic("kernel: a layer packed for BF16 takes pairs")
	}
	p.check(len(y), len(x), g0, g1, p.In, act, slices)
	if slices == 0 || g0 == g1 {
		return
	}
	if p.level == Generic {
		denseGeneric(y, x, p.w[g0*p.In:g1*p.In], p.b[g0:g1], p.In, act, slices)
		return
	}
	a := gemmArgs{x: ptr(x), k: p.In, slices: slices, xk: Rows * 4, xs: lanes * 4, aheadW: aheadPacked, act: int(act)}
	p.run(&a, y, ptr(p.w), p.In, g0, g1)
}

// DenseIndexed is Dense over the inputs in index alone, which must ascend. The
// other inputs are taken for zero: the result has the bits of Dense on an x
// whose other features are zero, up to the sign of a zero, if their weights are
// finite. It panics when a buffer is too short or an index is not below In.
func (p *Packed) DenseIndexed(y, x []float32, index []uint32, act Activation, slices int) {
	if p.level == BF16 {
		panic("kernel: a layer packed for BF16 takes pairs")
	}
	p.check(len(y), len(x), 0, p.split.groups, p.In, act, slices)
	for _, k := range index {
		if int(k) >= p.In {
			panic("kernel: an index is beyond the layer's inputs")
		}
	}
	if slices == 0 || p.Out == 0 {
		return
	}
	if p.level == Generic {
		indexedGeneric(y, x, p.w, p.b, index, p.In, act, slices)
		return
	}
	a := gemmArgs{x: ptr(x), index: ptr(index), k: len(index), slices: slices, xk: Rows * 4, xs: lanes * 4, aheadW: aheadPacked, act: int(act)}
	p.run(&a, y, ptr(p.w), p.In, 0, p.split.groups)
}

// check panics unless the buffers hold what the groups [g0, g1) read and write;
// features is the number of rows of 64 in x.
func (p *Packed) check(y, x, g0, g1, features int, act Activation, slices int) {
	checkLinear(act)
	checkSlices(slices)
	if g0 < 0 || g0 > g1 || g1 > p.split.groups {
		panic("kernel: no such groups")
	}
	from, to := p.Span(g0, g1)
	if y < (to-from)*Rows {
		panic("kernel: y is too short for the neurons")
	}
	if x < features*Rows {
		panic("kernel: x is too short for the inputs")
	}
}

// run calls the kernels for the groups [g0, g1): first the large ones, then the
// others. a holds what they share; w is the packed weights, ks steps of k long.
func (p *Packed) run(a *gemmArgs, y []float32, w unsafe.Pointer, ks, g0, g1 int) {
	n, at := p.split.n, p.split.before(g0)
	first := at
	a.yj = Rows * 4
	for _, end := range [2]int{min(g1, p.split.large), g1} {
		if g0 < end {
			a.groups = end - g0
			a.y = unsafe.Add(ptr(y), (at-first)*Rows*4)
			a.w = unsafe.Add(w, at*ks*4)
			a.init = unsafe.Add(ptr(p.b), at*4)
			a.wk, a.wj, a.wg = n*4, 4, n*ks*4
			a.yg, a.initg = n*Rows*4, n*4
			gemm(p.level, n, a)
			at += n * (end - g0)
			g0 = end
		}
		n--
	}
}
