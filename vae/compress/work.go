package compress

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// A layer is one dense layer of a network at work.
type layer struct {
	name    string
	in, out int
	act     kernel.Activation
	w, b    []float32 // [out][in], [out]
	// kept are the layer's outputs among those of the uncompressed layer.
	kept []int
	form vae.Form // what becomes of the weights; an empty precision is float32
}

// A work is a network on its way from the uncompressed one.
type work struct {
	spec   vae.Spec
	layers []*layer // the encoder's, then the decoder's
	head   int      // the encoder's last layer
	logSD  []float32
	latent []int // the latents kept, among the uncompressed ones
}

func newWork(p *vae.Parts) *work {
	net := p.Spec.Net()
	w := &work{spec: p.Spec, head: len(net.Encoder) - 1, logSD: slices.Clone(p.Params[net.LogSD:])}
	for i, l := range slices.Concat(net.Encoder, net.Decoder) {
		to := &layer{name: vae.LayerName(i, len(net.Encoder)), in: l.In, out: l.Out, act: l.Act,
			w: slices.Clone(p.Params[l.W : l.W+l.In*l.Out]), b: slices.Clone(p.Params[l.B : l.B+l.Out])}
		for o := range l.Out {
			to.kept = append(to.kept, o)
		}
		w.layers = append(w.layers, to)
	}
	for l := range p.Spec.Latent {
		w.latent = append(w.latent, l)
	}
	return w
}

// clone returns a copy that can be changed alone.
func (w *work) clone() *work {
	out := *w
	out.layers, out.logSD = nil, slices.Clone(w.logSD)
	for _, l := range w.layers {
		c := *l
		c.w, c.b = slices.Clone(l.w), slices.Clone(l.b)
		out.layers = append(out.layers, &c)
	}
	return &out
}

// parts lays the work out as the parameters of a model: Spec, Params and forms.
func (w *work) parts() (spec vae.Spec, params []float32, forms []vae.Form) {
	spec = w.spec
	spec.Latent = len(w.latent)
	spec.Encoder, spec.Decoder = slices.Clone(spec.Encoder), slices.Clone(spec.Decoder)
	for i := range spec.Encoder {
		spec.Encoder[i].Width = w.layers[i].out
	}
	for i := range spec.Decoder {
		spec.Decoder[i].Width = w.layers[w.head+1+i].out
	}
	for _, l := range w.layers {
		params = append(append(params, l.w...), l.b...)
		if f := l.form; f.Precision != "" {
			f.Layer = l.name
			forms = append(forms, f)
		}
	}
	return spec, append(params, w.logSD...), forms
}

// fixed marks the parameters that were pruned.
func (w *work) fixed() (fixed []bool) {
	for _, l := range w.layers {
		for _, v := range l.w {
			fixed = append(fixed, l.form.Pattern != "" && v == 0)
		}
		fixed = append(fixed, make([]bool, l.out)...)
	}
	return append(fixed, make([]bool, len(w.logSD))...)
}

// take copies parameters that were trained.
func (w *work) take(params []float32) {
	at := 0
	for _, l := range w.layers {
		copy(l.w, params[at:])
		copy(l.b, params[at+len(l.w):])
		at += len(l.w) + len(l.b)
	}
	copy(w.logSD, params[at:])
}

// groups returns the runs of outputs of layer i that share their inputs in blocks.
func (w *work) groups(i int) [][2]int {
	net := w.spec.Net()
	return net.Groups(kernel.Layer{Out: w.layers[i].out}, i == len(w.layers)-1)
}

// trace holds what the layers of a network see of a sample of rows.
type trace struct {
	x, y []*mat.Dense // of each layer: inputs [rows][in] and outputs before the activation [rows][out]
}

// run takes rows of encoder inputs through the network at the posterior mean.
func (w *work) run(x *mat.Dense) *trace {
	t := new(trace)
	for i, l := range w.layers {
		t.x = append(t.x, x)
		y := l.apply(x)
		t.y = append(t.y, y)
		x = w.next(i, y)
	}
	return t
}

// next returns what the layer after i reads when its own outputs are y.
func (w *work) next(i int, y *mat.Dense) *mat.Dense {
	if i == w.head {
		n, _ := y.Dims()
		return mat.DenseCopyOf(y.Slice(0, n, 0, len(w.latent)))
	}
	return activated(w.layers[i].act, y)
}

func activated(a kernel.Activation, y *mat.Dense) *mat.Dense {
	if a == kernel.Identity {
		return y
	}
	out := mat.DenseCopyOf(y)
	raw := out.RawMatrix()
	kernel.Activate(a, raw.Data, raw.Data)
	return out
}

// apply computes the layer's outputs before the activation, from inputs as the
// layer's form sees them.
func (l *layer) apply(x *mat.Dense) *mat.Dense {
	n, _ := x.Dims()
	y := mat.NewDense(n, l.out, nil)
	y.Mul(l.rounded(x), l.weights().T())
	for r := range n {
		row := y.RawRowView(r)
		for o, b := range l.b {
			row[o] += float64(b)
		}
	}
	return y
}

func (l *layer) weights() *mat.Dense {
	w := mat.NewDense(l.out, l.in, nil)
	raw := w.RawMatrix().Data
	for i, v := range l.w {
		raw[i] = float64(v)
	}
	return w
}

// keepOutputs takes away all outputs of the layer but those listed.
func (l *layer) keepOutputs(list []int) {
	w, b, kept := make([]float32, 0, len(list)*l.in), make([]float32, 0, len(list)), make([]int, 0, len(list))
	for _, o := range list {
		w, b, kept = append(w, l.w[o*l.in:(o+1)*l.in]...), append(b, l.b[o]), append(kept, l.kept[o])
	}
	l.w, l.b, l.kept, l.out = w, b, kept, len(list)
}

// keepInputs takes away all inputs of the layer but those listed.
func (l *layer) keepInputs(list []int) {
	w := make([]float32, 0, l.out*len(list))
	for o := range l.out {
		for _, k := range list {
			w = append(w, l.w[o*l.in+k])
		}
	}
	l.w, l.in = w, len(list)
}

// columns returns the columns of m that are listed.
func columns(m *mat.Dense, list []int) *mat.Dense {
	n, _ := m.Dims()
	out := mat.NewDense(n, len(list), nil)
	for r := range n {
		src, dst := m.RawRowView(r), out.RawRowView(r)
		for i, k := range list {
			dst[i] = src[k]
		}
	}
	return out
}

// gains returns, for each layer, how much a squared error of each output costs: in
// nats for the last layer, from there backwards by the squares of the weights that
// an output meets.
func (w *work) gains() [][]float64 {
	gains := make([][]float64, len(w.layers))
	for i := len(w.layers) - 1; i >= 0; i-- {
		l := w.layers[i]
		gains[i] = make([]float64, l.out)
		if i == len(w.layers)-1 {
			w.outputGains(gains[i])
			continue
		}
		next := w.layers[i+1]
		for n := range next.out {
			for k := range next.in {
				v := float64(next.w[n*next.in+k])
				gains[i][k] += gains[i+1][n] * v * v
			}
		}
		if i == w.head { // a log-variance costs as much as its mean, about
			copy(gains[i][next.in:], gains[i][:next.in])
		}
	}
	return gains
}

func (w *work) outputGains(g []float64) {
	net := w.spec.Net()
	for _, b := range net.Blocks {
		for j := b.From; j < b.From+b.N; j++ {
			switch b.Kind {
			case kernel.Gaussian:
				ls := min(max(float64(w.logSD[j]), net.MinLogSD), 3)
				g[j] = 0.5 * math.Exp(-2*ls)
			case kernel.GaussianFixed:
				g[j] = 0.5 / (b.SD * b.SD)
			default:
				g[j] = 0.1 // the curvature p(1-p)/2 of a logit's cost is at most 0.125
			}
		}
	}
}
