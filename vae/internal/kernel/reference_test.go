package kernel_test

import (
	"math"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// The reference computes the same network one row at a time in float64, with
// formulas written apart from those of the package.

func refActivation(a kernel.Activation, x float64) float64 {
	switch a {
	case kernel.Identity:
		return x
	case kernel.ReLU:
		return math.Max(x, 0)
	case kernel.Leaky:
		return math.Max(x, 0.01*x)
	case kernel.ELU:
		if x > 0 {
			return x
		}
		return math.Exp(x) - 1
	case kernel.GELU:
		return x * (1 + math.Erf(x/math.Sqrt2)) / 2
	case kernel.SiLU:
		return x / (1 + math.Exp(-x))
	case kernel.Tanh:
		return (math.Exp(2*x) - 1) / (math.Exp(2*x) + 1)
	case kernel.Sigmoid:
		return 1 / (1 + math.Exp(-x))
	case kernel.Softplus:
		return math.Log(1 + math.Exp(x))
	}
	panic(a)
}

func refStack(layers []kernel.Layer, params, x []float64) []float64 {
	for _, l := range layers {
		y := make([]float64, l.Out)
		for n := range y {
			y[n] = params[l.B+n]
			for k, v := range x {
				y[n] += params[l.W+n*l.In+k] * v
			}
			y[n] = refActivation(l.Act, y[n])
		}
		x = y
	}
	return x
}

// refRow is what the reference knows about one row.
type refRow struct {
	mu, logVar, kl, out, terms []float64
}

// column returns row r of a tile.
func column(tile []float64, r int) []float64 {
	v := make([]float64, len(tile)/rows)
	for f := range v {
		v[f] = tile[f*rows+r]
	}
	return v
}

func reference(n *kernel.Net, params, x, mask, noise []float64, smooth float64) refRow {
	var r refRow
	h := refStack(n.Encoder, params, x)
	r.mu = h[:n.Latent]
	z := make([]float64, n.Latent)
	for l, lv := range h[n.Latent:] {
		lv = math.Min(math.Max(lv, kernel.LogVarMin), kernel.LogVarMax)
		r.logVar = append(r.logVar, lv)
		variance := math.Exp(lv)
		r.kl = append(r.kl, (variance+r.mu[l]*r.mu[l]-1-lv)/2)
		z[l] = r.mu[l] + noise[l]*math.Sqrt(variance)
	}
	r.out = refStack(n.Decoder, params, z)
	for _, b := range n.Blocks {
		if b.Kind == kernel.Gaussian || b.Kind == kernel.GaussianFixed {
			for j := b.From; j < b.From+b.N; j++ {
				r.out[j] = refActivation(n.OutAct, r.out[j])
			}
		}
		r.terms = append(r.terms, refTerms(n, b, params, x, r.out, mask, smooth)...)
	}
	return r
}

// refTerms returns the negative log-likelihoods of a block's outputs.
func refTerms(n *kernel.Net, b kernel.Block, params, x, out, mask []float64, smooth float64) []float64 {
	t := make([]float64, b.N)
	logSum := 0.0
	for j := b.From; j < b.From+b.N; j++ {
		logSum += math.Exp(out[j])
	}
	logSum = math.Log(logSum)
	for i := range t {
		j := b.From + i
		switch b.Kind {
		case kernel.Gaussian, kernel.GaussianFixed:
			sd := b.SD
			if b.Kind == kernel.Gaussian {
				sd = math.Exp(math.Min(math.Max(params[n.LogSD+j], n.MinLogSD), 3))
			}
			density := math.Exp(-(x[j]-out[j])*(x[j]-out[j])/(2*sd*sd)) / (sd * math.Sqrt(2*math.Pi))
			t[i] = -mask[j] * math.Log(density)
		case kernel.Bernoulli:
			p := 1 / (1 + math.Exp(-out[j]))
			y := (1-smooth)*x[j] + smooth*(1-x[j])
			t[i] = -mask[j] * (y*math.Log(p) + (1-y)*math.Log(1-p))
		case kernel.Categorical:
			y := (1 - smooth) * x[j]
			if i == b.N-1 {
				y += smooth
			}
			t[0] += mask[b.From] * y * (logSum - out[j])
		}
	}
	return t
}

// problem is a network with a tile to train on.
type problem struct {
	n                              *kernel.Net
	params, x, mask, noise, weight []float64
	o                              kernel.Objective
}

// objective is what Gradients differentiates, by the reference.
func (p *problem) objective() float64 {
	total := 0.0
	for r, w := range p.weight {
		if w == 0 {
			continue
		}
		row := reference(p.n, p.params, column(p.x, r), column(p.mask, r), column(p.noise, r), p.o.Smooth)
		for _, t := range row.terms {
			total += w * t
		}
		for _, kl := range row.kl {
			total += w * p.o.Beta * math.Max(kl, p.o.FreeBits)
		}
	}
	return total
}

// gradients runs the package in F.
func gradients[F kernel.Float](p *problem) ([]float64, *kernel.Scratch[F]) {
	s := kernel.NewScratch[F](p.n, true)
	copy(s.X, to[F](p.x))
	copy(s.Mask, to[F](p.mask))
	g := make([]F, p.n.Params)
	kernel.Gradients(p.n, s, to[F](p.params), g, to[F](p.noise), to[F](p.weight), p.o)
	return to[float64](g), s
}

func to[G, F kernel.Float](v []F) []G {
	out := make([]G, len(v))
	for i, x := range v {
		out[i] = G(x)
	}
	return out
}

// shape describes a problem to make.
type shape struct {
	blocks  []kernel.Block
	extra   int // indicators
	latent  int
	act     kernel.Activation
	outAct  kernel.Activation
	rows    int     // in use
	missing float64 // share of features without a value
	o       kernel.Objective
	seed    uint64
}

func (c shape) problem() *problem {
	features := 0
	for i := range c.blocks {
		c.blocks[i].From = features
		features += c.blocks[i].N
	}
	hidden := []kernel.Hidden{{Width: 5, Act: c.act}, {Width: 3, Act: c.act}}
	n := kernel.NewNet(features, features+c.extra, c.latent, hidden, hidden, c.outAct, c.blocks, -2)
	rnd := newRand(c.seed)
	p := &problem{n: n, o: c.o, params: randoms[float64](rnd, n.Params), x: make([]float64, n.Inputs*rows), mask: make([]float64, features*rows),
		noise: randoms[float64](rnd, c.latent*rows), weight: make([]float64, rows)}
	for i := range p.params {
		p.params[i] *= 0.4 // keeps every log-variance inside its limits
	}
	for r := range c.rows {
		p.weight[r] = 1 / float64(c.rows)
		for f := features; f < n.Inputs; f++ {
			p.x[f*rows+r] = float64(rnd.IntN(2))
		}
		for _, b := range c.blocks {
			for j := b.From; j < b.From+b.N; j++ {
				switch b.Kind {
				case kernel.Bernoulli:
					p.x[j*rows+r] = float64(rnd.IntN(2))
				case kernel.Categorical:
				default:
					p.x[j*rows+r] = rnd.NormFloat64()
				}
			}
			if b.Kind == kernel.Categorical {
				p.x[(b.From+rnd.IntN(b.N))*rows+r] = 1
			}
			for j := b.From; j < b.From+b.N; j++ {
				p.mask[j*rows+r] = 1
				if b.Kind != kernel.Categorical && rnd.Float64() < c.missing {
					p.mask[j*rows+r], p.x[j*rows+r] = 0, 0
				}
			}
			if b.Kind == kernel.Categorical && rnd.Float64() < c.missing {
				for j := b.From; j < b.From+b.N; j++ {
					p.mask[j*rows+r], p.x[j*rows+r] = 0, 0
				}
			}
		}
	}
	return p
}
