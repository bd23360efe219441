package kernel_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

func every() []kernel.Activation {
	all := make([]kernel.Activation, len(kernel.ActivationNames()))
	for i := range all {
		all[i] = kernel.Activation(i)
	}
	return all
}

func block(kind kernel.HeadKind, n int) kernel.Block { return kernel.Block{Kind: kind, N: n, SD: 0.7} }

func mixture() []kernel.Block {
	return []kernel.Block{block(kernel.Gaussian, 2), block(kernel.Categorical, 3), block(kernel.Bernoulli, 2), block(kernel.GaussianFixed, 1), block(kernel.Categorical, 2)}
}

// shapes lists the networks whose gradients are checked.
func shapes() map[string]shape {
	base := func(change func(*shape)) shape {
		s := shape{blocks: mixture(), latent: 2, act: kernel.Tanh, rows: rows, o: kernel.Objective{Beta: 1}, seed: 11}
		change(&s)
		return s
	}
	all := map[string]shape{
		"mixture":        base(func(*shape) {}),
		"missing":        base(func(s *shape) { s.missing = 0.3 }),
		"indicators":     base(func(s *shape) { s.missing, s.extra = 0.3, 3 }),
		"beta 0":         base(func(s *shape) { s.o.Beta = 0 }),
		"beta 0.5":       base(func(s *shape) { s.o.Beta = 0.5 }),
		"beta 2":         base(func(s *shape) { s.o.Beta = 2 }),
		"free bits":      base(func(s *shape) { s.o.FreeBits = 0.3 }),
		"smooth":         base(func(s *shape) { s.o.Smooth = 0.05 }),
		"sigmoid output": base(func(s *shape) { s.outAct = kernel.Sigmoid }),
		"tanh output":    base(func(s *shape) { s.outAct = kernel.Tanh }),
		"one row":        base(func(s *shape) { s.rows = 1 }),
		"partial tile":   base(func(s *shape) { s.rows = 37 }),
		"one latent":     base(func(s *shape) { s.latent = 1 }),
		"all of it at once": base(func(s *shape) {
			s.rows, s.missing, s.extra, s.outAct, s.act, s.latent = 41, 0.2, 2, kernel.Sigmoid, kernel.SiLU, 3
			s.o = kernel.Objective{Beta: 0.5, FreeBits: 0.1, Smooth: 0.02}
		}),
	}
	for _, a := range every() {
		all["activation "+a.String()] = base(func(s *shape) { s.act = a })
	}
	for i, h := range kernel.HeadNames() {
		all["head "+h] = base(func(s *shape) { s.blocks = []kernel.Block{block(kernel.HeadKind(i), 4)} })
	}
	return all
}

func TestGradientsAgreeWithDifferences(t *testing.T) {
	for name, c := range shapes() {
		t.Run(name, func(t *testing.T) {
			p := c.problem()
			got, s := gradients[float64](p)
			for i, v := range s.LogVar {
				if v <= kernel.LogVarMin || v >= kernel.LogVarMax {
					t.Fatalf("LogVar[%d] = %v stands at a limit, where the gradient is not the objective's", i, v)
				}
			}
			want := make([]float64, len(got))
			const h = 1e-5
			var diff, a, b float64
			for i, v := range p.params {
				p.params[i] = v + h
				up := p.objective()
				p.params[i] = v - h
				want[i] = (up - p.objective()) / (2 * h)
				p.params[i] = v
				d := got[i] - want[i]
				diff, a, b = diff+d*d, a+got[i]*got[i], b+want[i]*want[i]
				if !(math.Abs(d) <= 1e-5*math.Abs(want[i])+1e-8) {
					t.Errorf("gradient of parameter %d = %v, want %v", i, got[i], want[i])
				}
			}
			if rel := math.Sqrt(diff) / (math.Sqrt(a) + math.Sqrt(b)); !(rel < 1e-5) {
				t.Errorf("relative error %.2g, want below 1e-5", rel)
			}
		})
	}
}

// TestForwardAgreesWithReference checks what Gradients leaves in the scratch,
// for every row.
func TestForwardAgreesWithReference(t *testing.T) {
	for name, c := range shapes() {
		t.Run(name, func(t *testing.T) {
			p := c.problem()
			_, s := gradients[float64](p)
			check := func(what string, tile, want []float64, r int) {
				for f, w := range want {
					if got := tile[f*rows+r]; !(math.Abs(got-w) <= 1e-12*(1+math.Abs(w))) {
						t.Fatalf("row %d: %s[%d] = %v, want %v", r, what, f, got, w)
					}
				}
			}
			for r := range c.rows {
				row := reference(p.n, p.params, column(p.x, r), column(p.mask, r), column(p.noise, r), p.o.Smooth)
				check("mu", s.Mu, row.mu, r)
				check("log-variance", s.LogVar, row.logVar, r)
				check("KL", s.KL, row.kl, r)
				check("output", s.Out, row.out, r)
				check("term", s.Terms, row.terms, r)
			}
		})
	}
}

func TestFloat32AgreesWithFloat64(t *testing.T) {
	for name, c := range shapes() {
		t.Run(name, func(t *testing.T) {
			p := c.problem()
			for _, v := range [][]float64{p.params, p.x, p.noise, p.weight} {
				copy(v, to[float64](to[float32](v))) // so that both start from the same numbers
			}
			g32, s32 := gradients[float32](p)
			g64, s64 := gradients[float64](p)
			var diff, norm float64
			for i := range g32 {
				diff += (g32[i] - g64[i]) * (g32[i] - g64[i])
				norm += g64[i] * g64[i]
			}
			if !(math.Sqrt(diff) <= 3e-6*math.Sqrt(norm)) {
				t.Errorf("gradients differ by %.2g of their norm", math.Sqrt(diff/norm))
			}
			for i, v := range s32.Terms {
				if w := s64.Terms[i]; !(math.Abs(float64(v)-w) <= 1e-5*(1+math.Abs(w))) {
					t.Fatalf("Terms[%d] = %v, in float64 %v", i, v, w)
				}
			}
		})
	}
}

// TestUnusedLanesCountNothing: a partial tile gives the gradient of its rows,
// whatever stands in the noise of the other lanes.
func TestUnusedLanesCountNothing(t *testing.T) {
	p := shapes()["partial tile"].problem()
	want, _ := gradients[float64](p)
	for i := range p.noise {
		if i%rows >= 37 {
			p.noise[i] = 100
		}
	}
	got, _ := gradients[float64](p)
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("gradient %d = %v, want %v", i, got[i], want[i])
		}
	}
}

func TestGradientsAreAdded(t *testing.T) {
	p := shapes()["mixture"].problem()
	want, s := gradients[float64](p)
	g := make([]float64, p.n.Params)
	for range 3 {
		kernel.Gradients(p.n, s, p.params, g, p.noise, p.weight, p.o)
	}
	for i := range g {
		if math.Abs(g[i]-3*want[i]) > 1e-12*(1+math.Abs(want[i])) {
			t.Fatalf("gradient %d = %v after three tiles, want %v", i, g[i], 3*want[i])
		}
	}
	if n := testing.AllocsPerRun(5, func() { kernel.Gradients(p.n, s, p.params, g, p.noise, p.weight, p.o) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// TestLogVarianceLearnsThroughTheSample: without noise and KL nothing tells the
// posterior's variance anything; with noise the reconstruction does.
func TestLogVarianceLearnsThroughTheSample(t *testing.T) {
	p := shapes()["beta 0"].problem()
	last := p.n.Encoder[len(p.n.Encoder)-1]
	logVarBias := func() []float64 {
		g, _ := gradients[float64](p)
		return g[last.B+p.n.Latent : last.B+2*p.n.Latent]
	}
	for l, g := range logVarBias() {
		if g == 0 {
			t.Errorf("latent %d: no gradient with noise", l)
		}
	}
	clear(p.noise)
	for l, g := range logVarBias() {
		if g != 0 {
			t.Errorf("latent %d: gradient %v without noise", l, g)
		}
	}
}

// TestClampsLetOnlyTheWayBackThrough: beyond a limit a gradient that leads
// further out is dropped, one that leads back is kept.
func TestClampsLetOnlyTheWayBackThrough(t *testing.T) {
	tests := []struct {
		name string
		raw  float64 // of every log-variance
		keep bool    // the KL pulls it to 0
	}{{"far below", kernel.LogVarMin - 5, true}, {"far above", kernel.LogVarMax + 5, true}, {"inside", 1, true}}
	for _, c := range tests {
		t.Run("log-variance "+c.name, func(t *testing.T) {
			p := shapes()["mixture"].problem()
			clear(p.noise) // the KL alone moves the log-variance
			last := p.n.Encoder[len(p.n.Encoder)-1]
			clear(p.params[last.W+p.n.Latent*last.In : last.B])
			for l := range p.n.Latent {
				p.params[last.B+p.n.Latent+l] = c.raw
			}
			for _, beta := range []float64{1, -1} { // -1 turns the pull round
				p.o.Beta = beta
				g, _ := gradients[float64](p)
				for _, v := range g[last.B+p.n.Latent : last.B+2*p.n.Latent] {
					back := beta > 0 || c.raw == 1
					if (v != 0) != back {
						t.Errorf("beta %v: gradient %v, want one: %v", beta, v, back)
					}
					if want := math.Copysign(1, beta*c.raw); v != 0 && math.Copysign(1, v) != want {
						t.Errorf("beta %v: gradient %v has the wrong sign", beta, v)
					}
				}
			}
		})
	}
	t.Run("log standard deviation below its floor", func(t *testing.T) {
		p := shape{blocks: []kernel.Block{block(kernel.Gaussian, 1)}, latent: 1, rows: rows, o: kernel.Objective{Beta: 1}, seed: 3}.problem()
		p.params[p.n.LogSD] = p.n.MinLogSD - 1
		for _, scale := range []float64{0.001, 10} { // errors below and above the floor
			_, s := gradients[float64](p)
			for r := range rows {
				// Move the value next to the rebuilt one.
				p.x[r] = s.Out[r] + scale*math.Exp(p.n.MinLogSD)
			}
			first := p.n.Encoder[0]
			clear(p.params[first.W:first.B]) // so that it stays there
			_, s = gradients[float64](p)
			for r := range rows {
				p.x[r] = s.Out[r] + scale*math.Exp(p.n.MinLogSD)
			}
			g, _ := gradients[float64](p)
			if grow := scale > 1; (g[p.n.LogSD] != 0) != grow || g[p.n.LogSD] > 0 {
				t.Errorf("errors of %v sd: gradient %v", scale, g[p.n.LogSD])
			}
		}
	})
}

// train takes steps of plain gradient descent in float32 and returns the mean
// KL and reconstruction error per row at the end.
func train(p *problem, steps int, rate float32) (kl, recon float64) {
	n := p.n
	s := kernel.NewScratch[float32](n, true)
	copy(s.X, to[float32](p.x))
	copy(s.Mask, to[float32](p.mask))
	params, g, weight := to[float32](p.params), make([]float32, n.Params), to[float32](p.weight)
	rnd := newRand(99)
	for range steps {
		clear(g)
		kernel.Gradients(n, s, params, g, randoms[float32](rnd, n.Latent*rows), weight, p.o)
		for i := range g {
			params[i] -= rate * g[i]
		}
	}
	for i, v := range s.KL {
		kl += float64(v) * p.weight[i%rows]
	}
	for i, v := range s.Terms {
		recon += float64(v) * p.weight[i%rows]
	}
	return kl, recon
}

func TestBetaTradesKLForReconstruction(t *testing.T) {
	run := func(beta float64) (kl, recon float64) {
		p := shape{blocks: []kernel.Block{block(kernel.GaussianFixed, 4)}, latent: 2, act: kernel.Tanh, rows: rows, o: kernel.Objective{Beta: beta}, seed: 5}.problem()
		for r := range rows { // one cause behind four features
			for f := range 4 {
				p.x[f*rows+r] = p.x[r] * []float64{1, -1, 0.5, 2}[f]
			}
		}
		return train(p, 600, 0.03)
	}
	lowKL, lowRecon := run(0.1)
	highKL, highRecon := run(10)
	if !(lowKL > 0.5 && highKL > 0 && lowKL > 3*highKL) {
		t.Errorf("KL = %v with beta 0.1 and %v with beta 10, want both above 0 and the first much larger", lowKL, highKL)
	}
	if !(lowRecon < highRecon) {
		t.Errorf("reconstruction error = %v with beta 0.1 and %v with beta 10, want the first smaller", lowRecon, highRecon)
	}
}

func BenchmarkGradients(b *testing.B) {
	relu := func(widths ...int) (h []kernel.Hidden) {
		for _, w := range widths {
			h = append(h, kernel.Hidden{Width: w, Act: kernel.ReLU})
		}
		return h
	}
	nets := map[string]*kernel.Net{
		"A": kernel.NewNet(784, 784, 2, relu(128, 64, 32), relu(32, 64, 128), kernel.Identity, []kernel.Block{{Kind: kernel.Gaussian, N: 784}}, -2),
		"tabular": kernel.NewNet(32, 36, 8, relu(128, 64), relu(64, 128), kernel.Identity,
			[]kernel.Block{{Kind: kernel.Gaussian, N: 20}, {Kind: kernel.Categorical, From: 20, N: 8}, {Kind: kernel.Bernoulli, From: 28, N: 4}}, -2),
	}
	for name, n := range nets {
		b.Run("net="+name, func(b *testing.B) {
			b.ReportAllocs()
			rnd := newRand(1)
			s := kernel.NewScratch[float32](n, true)
			copy(s.X, randoms[float32](rnd, len(s.X)))
			weight := make([]float32, rows)
			for r := range weight {
				weight[r] = 1. / rows
			}
			for i := range s.Mask {
				s.Mask[i] = 1
			}
			params, g, noise := randoms[float32](rnd, n.Params), make([]float32, n.Params), randoms[float32](rnd, n.Latent*rows)
			for i := range params {
				params[i] *= 0.05
			}
			for b.Loop() {
				kernel.Gradients(n, s, params, g, noise, weight, kernel.Objective{Beta: 1})
			}
			b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func ExampleGradients() {
	// Two features, one latent, no hidden layer; every parameter starts at 0.1.
	blocks := []kernel.Block{{Kind: kernel.GaussianFixed, N: 2, SD: 1}}
	n := kernel.NewNet(2, 2, 1, nil, nil, kernel.Identity, blocks, -4)
	s := kernel.NewScratch[float32](n, true)
	params, grads := make([]float32, n.Params), make([]float32, n.Params)
	for i := range params {
		params[i] = 0.1
	}
	weight := make([]float32, kernel.Rows)
	weight[0] = 1 // one row in use
	s.X[0], s.X[kernel.Rows] = 1, -1
	s.Mask[0], s.Mask[kernel.Rows] = 1, 1
	noise := make([]float32, n.Latent*kernel.Rows)
	kernel.Gradients(n, s, params, grads, noise, weight, kernel.Objective{Beta: 1})
	fmt.Printf("KL %.5f, reconstruction %.5f\n", s.KL[0], s.Terms[0]+s.Terms[kernel.Rows])
	fmt.Printf("gradients of the output biases %.2f\n", grads[n.Decoder[0].B:n.Decoder[0].B+2])
	// Output:
	// KL 0.00759, reconstruction 2.84998
	// gradients of the output biases [-0.89 1.11]
}
