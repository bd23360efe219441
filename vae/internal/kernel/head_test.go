package kernel_test

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

func TestActivationsAgreeWithTheirFormulas(t *testing.T) {
	for _, a := range every() {
		t.Run(a.String(), func(t *testing.T) {
			for x := -30.0; x <= 30; x += 0.37 {
				in := []float64{x}
				y := []float64{0}
				kernel.Activate(a, y, in)
				if want := refActivation(a, x); !(math.Abs(y[0]-want) <= 1e-13*(1+math.Abs(want))) {
					t.Errorf("a(%v) = %v, want %v", x, y[0], want)
				}
				const h = 1e-5
				up, down := []float64{0}, []float64{0}
				kernel.Activate(a, up, []float64{x + h})
				kernel.Activate(a, down, []float64{x - h})
				g := []float64{3}
				kernel.Backprop(a, g, in, y)
				if want := 3 * (up[0] - down[0]) / (2 * h); !(math.Abs(g[0]-want) <= 1e-7) {
					t.Errorf("3 a'(%v) = %v, want %v", x, g[0], want)
				}
			}
		})
	}
}

func TestActivationsAtTheEdges(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, a := range every() {
		t.Run(a.String(), func(t *testing.T) {
			x := []float32{nan, 100, -100, 1e30, -1e30, inf, float32(math.Copysign(0, -1)), 1e-40}
			y := append([]float32(nil), x...)
			kernel.Activate(a, y, y) // in place
			if !math.IsNaN(float64(y[0])) {
				t.Errorf("a(NaN) = %v", y[0])
			}
			g := []float32{1, 1, 1, 1, 1, 1, 1, 1}
			kernel.Backprop(a, g, x, y)
			for i := 1; i < len(x); i++ {
				if v := float64(y[i]); math.IsNaN(v) || math.IsInf(v, 0) && x[i] != inf {
					t.Errorf("a(%v) = %v", x[i], v)
				}
				if v := float64(g[i]); x[i] != inf && (math.IsNaN(v) || math.Abs(v) > 1.2) {
					t.Errorf("a'(%v) = %v", x[i], v)
				}
			}
		})
	}
}

func TestNamesParse(t *testing.T) {
	for i, name := range kernel.ActivationNames() {
		if a, err := kernel.ParseActivation(name); err != nil || int(a) != i || a.String() != name {
			t.Errorf("ParseActivation(%q) = %v, %v", name, a, err)
		}
	}
	for i, name := range kernel.HeadNames() {
		if h, err := kernel.ParseHead(name); err != nil || int(h) != i || h.String() != name {
			t.Errorf("ParseHead(%q) = %v, %v", name, h, err)
		}
	}
	if _, err := kernel.ParseActivation("swish2"); err == nil {
		t.Error("ParseActivation takes swish2")
	}
	if _, err := kernel.ParseHead("poisson"); err == nil {
		t.Error("ParseHead takes poisson")
	}
	if kernel.Activation(99).String() == "" || kernel.HeadKind(99).String() == "" {
		t.Error("an unknown value has no name")
	}
}

// TestKL holds the divergence to expm1 in float64, where exp(lv)-1-lv would
// cancel.
func TestKL(t *testing.T) {
	n := kernel.NewNet(1, 1, 1, nil, nil, kernel.Identity, []kernel.Block{{Kind: kernel.GaussianFixed, N: 1, SD: 1}}, -4)
	s := kernel.NewScratch[float32](n, false)
	for _, mu := range []float32{0, 1e-4, -3} {
		var lvs []float32
		for e := -8; e <= 2; e++ {
			v := float32(math.Pow(10, float64(e)))
			lvs = append(lvs, v, -v)
		}
		for _, lv := range append(lvs, 0) {
			// Through Encode, which clamps: the biases are the posterior.
			copy(s.X, make([]float32, rows))
			last := n.Encoder[0]
			params := make([]float32, n.Params)
			params[last.B], params[last.B+1] = mu, lv
			kernel.Encode(n, s, params)
			kernel.KLTerms(s)
			c := min(max(float64(lv), kernel.LogVarMin), kernel.LogVarMax)
			want := (float64(mu)*float64(mu) + math.Expm1(c) - c) / 2
			if math.Abs(c) < 1e-3 { // the series: a second opinion on expm1
				if series := (float64(mu)*float64(mu) + c*c/2 + c*c*c/6) / 2; math.Abs(series-want) > 1e-6*series+1e-24 {
					t.Fatalf("lv %v: expm1 gives %v, the series %v", lv, want, series)
				}
			}
			got := float64(s.KL[17])
			// Near 0 expm1(lv) - lv keeps an absolute error of an ulp of lv.
			if !(math.Abs(got-want) <= 1e-7*want+0x1p-53*math.Abs(c)) || got < 0 {
				t.Errorf("KL(mu %v, lv %v) = %v, want %v", mu, lv, got, want)
			}
			if float64(s.LogVar[17]) != c {
				t.Errorf("LogVar = %v, want %v", s.LogVar[17], c)
			}
			// distuv's own distance between the two normal distributions.
			sd := math.Exp(c / 2)
			if d := (distuv.KullbackLeibler{}).DistNormal(distuv.Normal{Mu: float64(mu), Sigma: sd}, distuv.Normal{Mu: 0, Sigma: 1}); math.Abs(d-got) > 1e-6*(1+got) {
				t.Errorf("KL(mu %v, lv %v) = %v, gonum says %v", mu, lv, got, d)
			}
		}
	}
}

// scored makes a network without hidden layers whose outputs are the decoder's
// biases, so that a test sets them.
func scored(blocks []kernel.Block, out, x, mask, logSD []float32) *kernel.Scratch[float32] {
	f := len(out)
	n := kernel.NewNet(f, f, 1, nil, nil, kernel.Identity, blocks, -3)
	s := kernel.NewScratch[float32](n, false)
	params := make([]float32, n.Params)
	copy(params[n.Decoder[0].B:], out)
	copy(params[n.LogSD:], logSD)
	for j := range f {
		for r := range rows {
			s.X[j*rows+r], s.Mask[j*rows+r] = x[j], mask[j]
		}
	}
	kernel.Encode(n, s, params)
	copy(s.Z, s.Mu)
	kernel.Decode(n, s, params)
	n.Terms(s, params)
	return s
}

func TestTermsAgreeWithGonum(t *testing.T) {
	one := []float32{1}
	near := func(name string, got float32, want float64) {
		t.Helper()
		if !(math.Abs(float64(got)-want) <= 1e-6*(1+math.Abs(want))) {
			t.Errorf("%s: term = %v, want %v", name, got, want)
		}
	}
	for _, y := range []float32{-3, 0, 0.7} {
		for _, x := range []float32{-2, 0.5} {
			for _, sd := range []float64{0.3, 1, 5} {
				want := -distuv.Normal{Mu: float64(y), Sigma: sd}.LogProb(float64(x))
				s := scored([]kernel.Block{{Kind: kernel.GaussianFixed, N: 1, SD: sd}}, []float32{y}, []float32{x}, one, nil)
				near("gaussian_fixed", s.Terms[5], want)
				s = scored([]kernel.Block{{Kind: kernel.Gaussian, N: 1}}, []float32{y}, []float32{x}, one, []float32{float32(math.Log(sd))})
				near("gaussian", s.Terms[5], want)
			}
		}
		for _, x := range []float32{0, 1} {
			s := scored([]kernel.Block{{Kind: kernel.Bernoulli, N: 1}}, []float32{y}, []float32{x}, one, nil)
			near("bernoulli", s.Terms[5], -distuv.Bernoulli{P: 1 / (1 + math.Exp(-float64(y)))}.LogProb(float64(x)))
		}
	}
	logits := []float32{0.5, -1, 2, 0}
	var weights []float64
	for _, z := range logits {
		weights = append(weights, math.Exp(float64(z)))
	}
	all := distuv.NewCategorical(weights, nil)
	total := 0.0
	for level := range logits {
		x := make([]float32, 4)
		x[level] = 1
		s := scored([]kernel.Block{{Kind: kernel.Categorical, N: 4}}, logits, x, []float32{1, 1, 1, 1}, nil)
		near("categorical", s.Terms[5], -all.LogProb(float64(level)))
		total += math.Exp(-float64(s.Terms[5]))
		for j := 1; j < 4; j++ {
			if s.Terms[j*rows+5] != 0 {
				t.Errorf("term of output %d = %v, want 0: the block's stands at its first", j, s.Terms[j*rows+5])
			}
		}
	}
	if math.Abs(total-1) > 1e-6 {
		t.Errorf("probabilities of the levels add up to %v", total)
	}
}

func TestTermsAtTheEdges(t *testing.T) {
	one := []float32{1}
	for z := float32(-100); z <= 100; z += 12.5 { // logits far out stay exact
		for _, x := range []float32{0, 1} {
			s := scored([]kernel.Block{{Kind: kernel.Bernoulli, N: 1}}, []float32{z}, []float32{x}, one, nil)
			signed := float64(z) * (1 - 2*float64(x)) // softplus of it
			want := math.Max(signed, 0) + math.Log1p(math.Exp(-math.Abs(signed)))
			if got := float64(s.Terms[0]); !(math.Abs(got-want) <= 1e-6*want+1e-44) { // float32 ends near 1e-45
				t.Errorf("bernoulli z = %v, x = %v: %v, want %v", z, x, got, want)
			}
		}
	}
	s := scored([]kernel.Block{{Kind: kernel.Categorical, N: 2}}, []float32{1e4, -1e4}, []float32{0, 1}, []float32{1, 1}, nil)
	if got := s.Terms[0]; got != 2e4 {
		t.Errorf("categorical with logits 1e4 and -1e4: %v, want 20000", got)
	}
	// A learned log standard deviation is clamped on both sides.
	for raw, used := range map[float32]float64{-50: -3, 50: 3} {
		s := scored([]kernel.Block{{Kind: kernel.Gaussian, N: 1}}, []float32{0}, []float32{1}, one, []float32{raw})
		want := used + kernel.HalfLog2Pi + 0.5*math.Exp(-2*used)
		if got := float64(s.Terms[0]); !(math.Abs(got-want) <= 1e-5*want) {
			t.Errorf("log sd %v: %v, want %v", raw, got, want)
		}
	}
	blocks := []kernel.Block{{Kind: kernel.Gaussian, N: 1}, {Kind: kernel.Categorical, From: 1, N: 2}, {Kind: kernel.Bernoulli, From: 3, N: 1}, {Kind: kernel.GaussianFixed, From: 4, N: 1, SD: 1}}
	s = scored(blocks, []float32{3, 1, 2, 3, 4}, make([]float32, 5), make([]float32, 5), nil)
	for i, v := range s.Terms {
		if v != 0 {
			t.Fatalf("Terms[%d] = %v for a row without values, want 0", i, v)
		}
	}
}

// forward scores a tile at the posterior mean.
func forward(p *problem, x, mask []float32) *kernel.Scratch[float32] {
	s := kernel.NewScratch[float32](p.n, false)
	params := to[float32](p.params)
	copy(s.X, x)
	copy(s.Mask, mask)
	kernel.Encode(p.n, s, params)
	kernel.KLTerms(s)
	copy(s.Z, s.Mu)
	kernel.Decode(p.n, s, params)
	p.n.Terms(s, params)
	return s
}

// TestRowsAreIndependent: the same row gives the same bits in any lane and
// beside any other rows, NaN included, for every activation.
func TestRowsAreIndependent(t *testing.T) {
	for name, c := range shapes() {
		t.Run(name, func(t *testing.T) {
			c.rows = rows
			p := c.problem()
			x, mask := to[float32](p.x), to[float32](p.mask)
			want := forward(p, x, mask)
			const shift, bad = 13, 40
			x2, mask2 := make([]float32, len(x)), make([]float32, len(mask))
			for i := range x {
				x2[i/rows*rows+(i+shift)%rows] = x[i]
			}
			for i := range mask {
				mask2[i/rows*rows+(i+shift)%rows] = mask[i]
			}
			mask2[bad], x2[bad] = 1, float32(math.NaN())
			got := forward(p, x2, mask2)
			for what, pair := range map[string][2][]float32{"KL": {want.KL, got.KL}, "Terms": {want.Terms, got.Terms}, "Out": {want.Out, got.Out}} {
				for i, v := range pair[0] {
					j := i/rows*rows + (i+shift)%rows
					if w := pair[1][j]; j%rows != bad && math.Float32bits(v) != math.Float32bits(w) {
						t.Fatalf("%s of row %d = %v in another lane, want %v", what, i%rows, w, v)
					}
				}
			}
			for l := range p.n.Latent {
				if v := got.KL[l*rows+bad]; !math.IsNaN(float64(v)) {
					t.Errorf("KL of the row with NaN = %v", v)
				}
			}
			for f := range p.n.Features {
				if v := got.Out[f*rows+bad]; !math.IsNaN(float64(v)) {
					t.Errorf("output %d of the row with NaN = %v", f, v)
				}
			}
		})
	}
}

// TestScoringScratchEqualsTraining: without room for gradients activations work
// in place and give the same numbers.
func TestScoringScratchEqualsTraining(t *testing.T) {
	for name, c := range shapes() {
		c.o.Smooth = 0
		p := c.problem()
		clear(p.noise)
		_, trained := gradients[float32](p)
		s := forward(p, to[float32](p.x), to[float32](p.mask))
		for i, v := range s.Terms {
			if i%rows < c.rows && math.Float32bits(v) != math.Float32bits(trained.Terms[i]) {
				t.Errorf("%s: Terms[%d] = %v when scoring, %v in training", name, i, v, trained.Terms[i])
				break
			}
		}
	}
}

func TestNetLayout(t *testing.T) {
	n := kernel.NewNet(3, 5, 2, []kernel.Hidden{{Width: 4}}, []kernel.Hidden{{Width: 6}}, kernel.Identity, nil, -2)
	if want := 5*4 + 4*4 + 2*6 + 6*3; n.MACs() != want {
		t.Errorf("MACs() = %d, want %d", n.MACs(), want)
	}
	used := make([]int, n.Params)
	for _, stack := range [][]kernel.Layer{n.Encoder, n.Decoder} {
		for _, l := range stack {
			for i := range l.In * l.Out {
				used[l.W+i]++
			}
			for i := range l.Out {
				used[l.B+i]++
			}
		}
	}
	for i := range n.Features {
		used[n.LogSD+i]++
	}
	for i, u := range used {
		if u != 1 {
			t.Errorf("parameter %d is used %d times", i, u)
		}
	}
	params := make([]float32, n.Params)
	params[n.LogSD], params[n.LogSD+1], params[n.LogSD+2] = -9, 1, 9
	for j, want := range []float64{-2, 1, 3} {
		if got := n.LogSDOf(params, j); got != want {
			t.Errorf("LogSDOf(%d) = %v, want %v", j, got, want)
		}
	}
}
