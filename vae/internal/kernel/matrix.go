package kernel

import "math"

// A Form is what a layer's weights are besides numbers: the zero value means
// float32. Zeros need no form: a Plan finds them.
type Form struct {
	// Scale, Low and Step make a layer of int8 weights and unsigned 8-bit inputs:
	// input k counts as Low[k] + Step[k]*u with u from 0 to 255, and weight k of
	// output o is Scale[o]/Step[k] times a whole number from -127 to 127. All are
	// above 0 but for Low.
	Scale     []float32 // [Out]
	Low, Step []float32 // [In]
}

// Bytes says whether the layer is one of int8 weights.
func (f *Form) Bytes() bool { return f != nil && f.Scale != nil }

// Whole returns the whole number that weight k of output o of an int8 layer stands
// for.
func (f *Form) Whole(w float32, o, k int) int8 {
	v := float64(w) * float64(f.Step[k]) / float64(f.Scale[o])
	return int8(min(max(math.RoundToEven(v), -127), 127))
}

// A matrix is a dense layer, or a run of its outputs, in the one form in which a
// Plan computes it for a tile.
type matrix struct {
	level Level
	in    int
	// One of these is there.
	cols   *Packed // float32, or at BF16 pairs
	sparse *Sparse
	bytes  *Quantized
	// Of an int8 layer's inputs: see QuantizeQuads.
	inverse, zero []float32
}

// newMatrix lays out weights w [out][in] and biases b [out]. The inputs are those
// that f ranges.
func newMatrix(level Level, w, b []float32, in, out int, f *Form) *matrix {
	m := &matrix{level: level, in: in}
	if f.Bytes() {
		m.pack(f, w, b, out)
		return m
	}
	block := ChooseBlock(w, in, out)
	if block == 0 || level == BF16 {
		m.cols = PackCols(level, w, b, in, out)
	} else {
		m.sparse = PackSparse(level, w, b, in, out, block)
	}
	return m
}

// pack makes an int8 layer.
func (m *matrix) pack(f *Form, w, b []float32, out int) {
	whole, offset := make([]int8, len(w)), make([]float32, out)
	for o := range out {
		sum := float64(b[o])
		for k := range m.in {
			q := f.Whole(w[o*m.in+k], o, k)
			whole[o*m.in+k] = q
			sum += float64(q) * float64(f.Scale[o]) / float64(f.Step[k]) * float64(f.Low[k])
		}
		offset[o] = float32(sum)
	}
	m.bytes = PackBytes(m.level, whole, f.Scale, offset, m.in, out)
	for k, step := range f.Step {
		m.inverse, m.zero = append(m.inverse, float32(1/float64(step))), append(m.zero, float32(-float64(f.Low[k])/float64(step)))
	}
}

// prepare readies the inputs x of a tile for apply: what the form wants of them
// is left in t. It serves all matrices that are runs of one layer's outputs.
func (m *matrix) prepare(t *layerInputs, x []float32, slices int) {
	switch {
	case m.bytes != nil:
		QuantizeQuads(m.level, t.quads, x, m.inverse, m.zero, slices)
	case m.cols != nil && m.level == BF16:
		RoundPairs(BF16, t.pairs, x, m.in, slices)
	}
}

// apply computes y = act(W x + b) after prepare. active, unless nil, lists the
// inputs that may differ from zero.
func (m *matrix) apply(t *layerInputs, y, x []float32, active []uint32, act Activation, slices int) {
	switch {
	case m.bytes != nil:
		m.bytes.Dense(y, t.quads, act, slices)
	case m.sparse != nil:
		m.sparse.Dense(y, x, act, slices)
	case m.level == BF16:
		m.cols.DensePairs(y, t.pairs, 0, m.cols.Groups(), act, slices)
	case active != nil:
		m.cols.DenseIndexed(y, x, active, act, slices)
	default:
		m.cols.Dense(y, x, act, slices)
	}
}

// indexed says whether apply looks at the list of active inputs.
func (m *matrix) indexed() bool { return m.cols != nil && m.level != BF16 }

// layerInputs is the memory for a layer's inputs in the forms that matrices want.
type layerInputs struct {
	pairs []uint32 // [Pairs(most inputs of a layer)][Rows]; BF16 only
	quads []uint32 // [Quads(most inputs of an int8 layer)][Rows]
}

// room makes sure that t holds what m wants.
func (t *layerInputs) room(m *matrix) {
	if n := Pairs(m.in) * Rows; m.cols != nil && m.level == BF16 && len(t.pairs) < n {
		t.pairs = aligned[uint32](n)
	}
	if n := Quads(m.in) * Rows; m.bytes != nil && len(t.quads) < n {
		t.quads = aligned[uint32](n)
	}
}

// outputs is the form of the outputs [from, to) alone.
func (f *Form) outputs(from, to int) *Form {
	if !f.Bytes() {
		return f
	}
	return &Form{Scale: f.Scale[from:to], Low: f.Low, Step: f.Step}
}

// moved is the form of an int8 layer whose features are shifted; indicators, which
// follow them, are not.
func (f *Form) moved(shift []float32) *Form {
	if !f.Bytes() {
		return f
	}
	out := &Form{Scale: f.Scale, Low: append([]float32(nil), f.Low...), Step: f.Step}
	for j, s := range shift {
		out.Low[j] += s
	}
	return out
}
