package compress

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// clipped is the share of a sample's values, at either end, that an int8 input's
// range may leave out: a single far value would make every step coarse.
const clipped = 0.0005

// bytes makes the weights of the layers for which pick is true int8. Each layer's
// range of inputs and its biases are fitted to what the layers before it leave.
func (w *work) bytes(full *trace, pick func(i int) bool) {
	x := full.x[0]
	for i, l := range w.layers {
		y := l.apply(x)
		if pick(i) {
			l.quantize(x, i > 0 && i != w.head+1 && nonNegative(w.layers[i-1].act))
			l.center(l.apply(x), y)
			y = l.apply(x)
		}
		x = w.next(i, y)
	}
}

func nonNegative(a kernel.Activation) bool { return a == kernel.ReLU || a == kernel.Sigmoid }

// quantize gives the layer's weights the form int8; its inputs x tell their ranges.
// Weights that sparse kernels multiply stay float32 to them, which is as fast.
func (l *layer) quantize(x *mat.Dense, fromZero bool) {
	pattern := l.form.Pattern
	if pattern == "" {
		pattern = vae.Dense
	}
	f := vae.Form{Precision: vae.Int8, Pattern: pattern, Scale: make([]float32, l.out)}
	if pattern != vae.Dense && kernel.ChooseBlock(l.w, l.in, l.out) != 0 {
		f.WeightsOnly = true
		quantizeRows(&f, l.w, l.out, l.in)
		l.form = f
		return
	}
	f.Low, f.Step = make([]float32, l.in), make([]float32, l.in)
	n, _ := x.Dims()
	column := make([]float64, n)
	for k := range l.in {
		mat.Col(column, k, x)
		f.Low[k], f.Step[k] = rangeOf(column, fromZero)
	}
	quantizeRows(&f, l.w, l.out, l.in)
	l.form = f
}

// quantizeRows finds the scales of f for weights w [out][in] and rounds them.
func quantizeRows(f *vae.Form, w []float32, out, in int) {
	row := make([]float32, in)
	for o := range out {
		v := w[o*in : (o+1)*in]
		for i := range v {
			row[i] = v[i]
			if !f.WeightsOnly {
				row[i] *= f.Step[i]
			}
		}
		if f.WeightsOnly {
			f.Scale[o] = weightScale(row)
		} else {
			f.Scale[o] = kernel.ByteScale(row)
		}
		for i := range v {
			v[i] = f.Weight(f.Whole(v[i], o, i), o, i)
		}
	}
}

// weightScale is the scale of weights that are multiplied as float32.
func weightScale(w []float32) float32 {
	top := float32(0)
	for _, v := range w {
		top = max(top, v, -v)
	}
	if top == 0 {
		return 1
	}
	return top / 127
}

// rangeOf returns the value of byte 0 and of a byte's step for the values of one
// input, which it sorts. Both are bfloat16 numbers.
func rangeOf(v []float64, fromZero bool) (low, step float32) {
	slices.Sort(v)
	cut := int(clipped * float64(len(v)))
	lo, hi := v[cut], v[len(v)-1-cut]
	if lo == hi { // hardly ever anything else: then all of it
		lo, hi = v[0], v[len(v)-1]
	}
	if fromZero {
		lo = 0
	}
	low = bfloat16(lo, math.Floor)
	width := hi - float64(low)
	if !(width > 0) {
		width = max(math.Abs(lo), 1)
	}
	return low, upBF16(width / 255)
}

func upBF16(v float64) float32 { return bfloat16(v, math.Ceil) }

// bfloat16 rounds to a number of 8 significant bits, by round.
func bfloat16(v float64, round func(float64) float64) float32 {
	if v == 0 {
		return 0
	}
	frac, exp := math.Frexp(v)
	return float32(math.Ldexp(round(frac*256)/256, exp))
}

// rounded returns what the layer sees of x.
func (l *layer) rounded(x *mat.Dense) *mat.Dense {
	if l.form.Precision != vae.Int8 || l.form.WeightsOnly {
		return x
	}
	out := mat.DenseCopyOf(x)
	n, _ := x.Dims()
	for r := range n {
		row := out.RawRowView(r)
		for k, v := range row {
			low, step := float64(l.form.Low[k]), float64(l.form.Step[k])
			row[k] = low + step*min(max(math.RoundToEven((v-low)/step), 0), 255)
		}
	}
	return out
}

// center moves the biases so that the outputs have the means of those wanted.
func (l *layer) center(have, want *mat.Dense) {
	n, _ := have.Dims()
	for o := range l.b {
		d := 0.0
		for r := range n {
			d += want.At(r, o) - have.At(r, o)
		}
		l.b[o] += float32(d / float64(n))
	}
}

// halves rounds all weights to bfloat16.
func (w *work) halves() {
	for _, l := range w.layers {
		toBF16(l.w)
		if l.form.Pattern == "" {
			l.form.Pattern = vae.Dense
		}
		l.form.Precision = vae.BF16
	}
}

func toBF16(w []float32) {
	for i, v := range w {
		w[i] = bfloat16(float64(v), math.RoundToEven)
	}
}
