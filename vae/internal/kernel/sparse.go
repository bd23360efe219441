package kernel

import "unsafe"

// A Sparse is a dense layer most of whose weights are zero, packed for one level:
// groups of neighbouring neurons share a list of inputs, and weights stand as
// [group][entry of its list][neuron]. It is immutable and safe for concurrent use.
//
// Each output is one chain over its list in ascending order that starts at the bias:
// it has the bits of Packed if all inputs are finite, up to the sign of a zero. An
// input that is not finite reaches the outputs that list it.
type Sparse struct {
	In, Out int
	level   Level
	block   int
	w, b    []float32
	steps   []uint32 // of each list's entries: the distance of the input in x, in bytes
	counts  []uint32 // of each group
	// Of each group, and one past the last: where its list begins, and its weights.
	lists, at []int
}

// The densities below which sparse kernels are faster than dense ones, by
// BenchmarkSparse: blocks of four neurons from the first pruned ones on, single
// weights where they read most inputs once only.
const (
	denseBlocks  = 0.85
	denseWeights = 0.38
)

// ChooseBlock returns how the weights w [out][in] are best multiplied: 4 for a Sparse
// in blocks, 1 for one of single weights, 0 for a dense layer.
func ChooseBlock(w []float32, in, out int) int {
	blocks := SparseDensity(w, in, out, blockOutputs)
	if single := SparseDensity(w, in, out, 1); single < denseWeights && single/denseWeights < blocks/denseBlocks {
		return 1
	}
	if blocks < denseBlocks {
		return blockOutputs
	}
	return 0
}

// SparseDensity returns the share of the weights w [out][in] that a Sparse of that
// block multiplies.
func SparseDensity(w []float32, in, out, block int) float64 {
	n := 0
	for from := 0; from < out; from += block {
		to := min(from+block, out)
		for k := range in {
			if listed(w, in, from, to, k) {
				n += to - from
			}
		}
	}
	return float64(n) / float64(max(in*out, 1))
}

// listed says whether any of the outputs [from, to) has a weight for input k.
func listed(w []float32, in, from, to, k int) bool {
	for o := from; o < to; o++ {
		if w[o*in+k] != 0 {
			return true
		}
	}
	return false
}

// PackSparse packs the weights w [out][in] and biases b [out] for a level, as PackCols
// does. block, 4 or 1, is how many neighbouring neurons share a list: an input is on
// it if any of them has a weight other than zero. It panics when a length does not
// fit.
func PackSparse(level Level, w, b []float32, in, out, block int) *Sparse {
	if len(w) != in*out || len(b) != out {
		panic("kernel: weights do not fit the layer")
	}
	must(block == 1 || block == blockOutputs, "blocks have 1 or 4 neurons")
	if !native(level) || level == BF16 {
		level = float(level)
	}
	s := &Sparse{In: in, Out: out, level: level, block: block, b: aligned[float32](out), lists: []int{0}, at: []int{0}}
	copy(s.b, b)
	for from := 0; from < out; from += block {
		to := min(from+block, out)
		for k := range in {
			if listed(w, in, from, to, k) {
				s.steps = append(s.steps, uint32(k*Rows*4))
				for o := from; o < to; o++ {
					s.w = append(s.w, w[o*in+k])
				}
			}
		}
		s.counts = append(s.counts, uint32(len(s.steps)-s.lists[len(s.lists)-1]))
		s.lists, s.at = append(s.lists, len(s.steps)), append(s.at, len(s.w))
	}
	w = aligned[float32](len(s.w))
	copy(w, s.w)
	s.w = w
	return s
}

// Level returns the level that the layer was packed for: Generic if this CPU or
// build does not have the one asked for.
func (s *Sparse) Level() Level { return s.level }

// Groups returns the number of groups of neurons.
func (s *Sparse) Groups() int { return len(s.counts) }

// Span returns the neurons [from, to) that the groups [g0, g1) cover.
func (s *Sparse) Span(g0, g1 int) (from, to int) {
	return min(g0*s.block, s.Out), min(g1*s.block, s.Out)
}

// Density returns the share of all weights that is multiplied.
func (s *Sparse) Density() float64 { return float64(len(s.w)) / float64(max(s.In*s.Out, 1)) }

// Dense computes y = act(W x + b), as Packed.Dense does.
func (s *Sparse) Dense(y, x []float32, act Activation, slices int) {
	s.DensePart(y, x, 0, s.Groups(), act, slices)
}

// DensePart is Dense for the neurons of the groups [g0, g1) alone, as
// Packed.DensePart is.
func (s *Sparse) DensePart(y, x []float32, g0, g1 int, act Activation, slices int) {
	checkLinear(act)
	checkSlices(slices)
	must(0 <= g0 && g0 <= g1 && g1 <= s.Groups(), "no such groups")
	first, end := s.Span(g0, g1)
	must(len(y) >= (end-first)*Rows, "y is too short for the neurons")
	must(len(x) >= s.In*Rows, "x is too short for the inputs")
	if slices == 0 || g0 == g1 {
		return
	}
	whole := min(g1, s.Out/s.block)
	s.run(y, x, g0, max(g0, whole), s.block, act, slices)
	if whole < g1 { // the last group has fewer neurons
		from, to := s.Span(g1-1, g1)
		s.run(y[(from-first)*Rows:], x, g1-1, g1, to-from, act, slices)
	}
}

// run computes groups of n neurons.
func (s *Sparse) run(y, x []float32, g0, g1, n int, act Activation, slices int) {
	if g0 == g1 {
		return
	}
	from, _ := s.Span(g0, g1)
	if s.level == Generic {
		for g := g0; g < g1; g++ {
			s.generic(y[(g-g0)*s.block*Rows:], x, g, n, act, slices)
		}
		return
	}
	a := gemmArgs{x: ptr(x), y: ptr(y), w: unsafe.Add(ptr(s.w), s.at[g0]*4), init: unsafe.Add(ptr(s.b), from*4),
		index: unsafe.Add(ptr(s.steps), s.lists[g0]*4), counts: unsafe.Add(ptr(s.counts), g0*4),
		groups: g1 - g0, slices: slices, xk: Rows * 4, xs: lanes * 4, wk: n * 4, wj: 4, yj: Rows * 4, yg: n * Rows * 4, initg: n * 4,
		act: int(act), aheadW: aheadSparse}
	gemmSparse(s.level, n, &a)
}

// aheadSparse is how far ahead the weights are prefetched, in bytes.
const aheadSparse = 1024

// generic computes one group in plain Go.
func (s *Sparse) generic(y, x []float32, g, n int, act Activation, slices int) {
	from, _ := s.Span(g, g+1)
	steps, w := s.steps[s.lists[g]:s.lists[g+1]], s.w[s.at[g]:s.at[g+1]]
	for j := range n {
		out := y[j*Rows : j*Rows+slices*lanes]
		for r := 0; r < len(out); r += 8 {
			*(*[8]float32)(out[r:]) = list8(x, w[min(j, len(w)):], steps, n, s.b[from+j], r)
		}
		Activate(act, out, out)
	}
}

// list8 computes one neuron for eight rows; its weight for the next entry is n
// further on.
func list8(x, w []float32, steps []uint32, n int, b float32, r int) [8]float32 {
	p0, p1, p2, p3, p4, p5, p6, p7 := b, b, b, b, b, b, b, b
	for i, step := range steps {
		u := w[i*n]
		at := int(step/4) + r
		t := x[at : at+4 : at+4]
		p0 += float32(u * t[0])
		p1 += float32(u * t[1])
		p2 += float32(u * t[2])
		p3 += float32(u * t[3])
		t = x[at+4 : at+8 : at+8]
		p4 += float32(u * t[0])
		p5 += float32(u * t[1])
		p6 += float32(u * t[2])
		p7 += float32(u * t[3])
	}
	return [8]float32{p0, p1, p2, p3, p4, p5, p6, p7}
}
