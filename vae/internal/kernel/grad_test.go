package kernel_test

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// trainerShapes are those of the plain gradients and some that the fast ones
// treat apart: runs of features cut into parts, presence costs, long blocks.
func trainerShapes() map[string]shape {
	all := shapes()
	wide := func(rows int, missing float64, blocks ...kernel.Block) shape {
		return shape{blocks: blocks, extra: 2, latent: 3, act: kernel.ReLU, rows: rows, missing: missing,
			o: kernel.Objective{Beta: 1, Smooth: 0.01}, seed: 17}
	}
	cost := func(kind kernel.HeadKind, n int) kernel.Block {
		b := block(kind, n)
		b.Present, b.Missing = 0.02, 4
		return b
	}
	all["wide"] = wide(64, 0, block(kernel.Gaussian, 41), block(kernel.GaussianFixed, 40), block(kernel.Bernoulli, 75))
	all["wide, partial, missing"] = wide(29, 0.1, block(kernel.GaussianFixed, 30), block(kernel.Bernoulli, 50), block(kernel.Gaussian, 60))
	all["long block"] = wide(64, 0.1, block(kernel.Gaussian, 30), block(kernel.Categorical, 50), block(kernel.Bernoulli, 3), block(kernel.Categorical, 2))
	all["presence costs"] = wide(50, 0.2, cost(kernel.Gaussian, 1), cost(kernel.Gaussian, 3), cost(kernel.Categorical, 4), cost(kernel.Bernoulli, 2), cost(kernel.GaussianFixed, 1))
	many := wide(64, 0.05)
	for range 50 { // as a table has them: one block a column
		many.blocks = append(many.blocks, cost(kernel.Gaussian, 1))
	}
	all["many blocks"] = many
	return all
}

// trainer returns a Trainer filled with p, whose numbers are rounded to float32.
func trainer(p *problem, l kernel.Level) *kernel.Trainer {
	t := kernel.NewTrainer(p.n, l)
	copy(t.X, to[float32](p.x))
	copy(t.Noise, to[float32](p.noise))
	for i, m := range p.mask {
		if m == 0 {
			t.Missing[i/rows] |= 1 << (i % rows) // also beyond the rows in use
		}
	}
	t.Begin(to[float32](p.params), p.o)
	return t
}

func (p *problem) rows() (n int) {
	for _, w := range p.weight {
		if w > 0 {
			n++
		}
	}
	return n
}

func (p *problem) round() {
	for _, v := range [][]float64{p.params, p.x, p.noise, p.weight} {
		copy(v, to[float64](to[float32](v)))
	}
}

func eachLevel(t *testing.T, f func(t *testing.T, l kernel.Level)) {
	for _, l := range kernel.Levels() {
		if l != kernel.TrainingLevel(l) {
			continue
		}
		t.Run(l.String(), func(t *testing.T) { f(t, l) })
	}
}

func TestGradTrainerAgreesWithFloat64(t *testing.T) {
	eachLevel(t, func(t *testing.T, l kernel.Level) {
		for name, c := range trainerShapes() {
			t.Run(name, func(t *testing.T) {
				p := c.problem()
				p.round()
				want, s := gradients[float64](p)
				tr, sums := trainer(p, l), kernel.NewSums(p.n)
				got := make([]float32, p.n.Params)
				tr.Gradients(got, false, sums, c.rows, float32(p.weight[0]))
				var diff, norm float64
				for i := range got {
					d := float64(got[i]) - want[i]
					diff, norm = diff+d*d, norm+want[i]*want[i]
				}
				if !(math.Sqrt(diff) <= 3e-6*math.Sqrt(norm)) {
					t.Errorf("gradients differ by %.2g of their norm", math.Sqrt(diff/norm))
				}
				for f, got := range sums.Terms {
					if want := laneSum(s.Terms, f, c.rows); !(math.Abs(got-want) <= 1e-5*(float64(c.rows)+math.Abs(want))) {
						t.Errorf("terms of feature %d = %v, want %v", f, got, want)
					}
				}
				for k, got := range sums.KL {
					if want := laneSum(s.KL, k, c.rows); !(math.Abs(got-want) <= 1e-5*(1+math.Abs(want))) {
						t.Errorf("KL of latent %d = %v, want %v", k, got, want)
					}
				}
			})
		}
	})
}

func laneSum(tile []float64, f, n int) (sum float64) {
	for _, v := range tile[f*rows : f*rows+n] {
		sum += v
	}
	return sum
}

func TestGradScoreAgreesWithFloat64(t *testing.T) {
	eachLevel(t, func(t *testing.T, l kernel.Level) {
		for name, c := range trainerShapes() {
			t.Run(name, func(t *testing.T) {
				c.o.Smooth = 0
				p := c.problem()
				clear(p.noise) // the posterior's mean
				p.round()
				_, s := gradients[float64](p)
				tr, sums := trainer(p, l), kernel.NewSums(p.n)
				tr.Score(sums, c.rows)
				for r := range c.rows {
					want := 0.0
					for f := range p.n.Features {
						want += s.Terms[f*rows+r]
					}
					if got := float64(tr.Recon[r]); !(math.Abs(got-want) <= 1e-5*(1+math.Abs(want))) {
						t.Errorf("Recon[%d] = %v, want %v", r, got, want)
					}
					for k := range p.n.Latent {
						i := k*rows + r
						if got, want := float64(tr.KL[i]), s.KL[i]; !(math.Abs(got-want) <= 1e-5*(1+math.Abs(want))) {
							t.Errorf("KL[%d] = %v, want %v", i, got, want)
						}
						if got, want := float64(tr.Mu[i]), s.Mu[i]; !(math.Abs(got-want) <= 1e-5*(1+math.Abs(want))) {
							t.Errorf("Mu[%d] = %v, want %v", i, got, want)
						}
					}
				}
				for f, got := range sums.Terms {
					if want := laneSum(s.Terms, f, c.rows); !(math.Abs(got-want) <= 1e-5*(1+math.Abs(want))) {
						t.Errorf("terms of feature %d = %v, want %v", f, got, want)
					}
				}
			})
		}
	})
}

// TestGradLevelsGiveTheSameBits compares the native levels of this CPU.
func TestGradLevelsGiveTheSameBits(t *testing.T) {
	for name, c := range trainerShapes() {
		t.Run(name, func(t *testing.T) {
			p := c.problem()
			p.round()
			var first []float32
			var firstRecon [rows]float32
			for _, l := range kernel.Levels() {
				if l == kernel.Generic || l != kernel.TrainingLevel(l) {
					continue
				}
				tr, g := trainer(p, l), make([]float32, p.n.Params)
				tr.Gradients(g, false, kernel.NewSums(p.n), c.rows, float32(p.weight[0]))
				tr.Score(kernel.NewSums(p.n), c.rows)
				if first == nil {
					first, firstRecon = g, tr.Recon
				}
				if !slices.Equal(g, first) || tr.Recon != firstRecon {
					t.Errorf("%v gives other bits than the level before", l)
				}
			}
		})
	}
}

func TestGradTrainerAdds(t *testing.T) {
	eachLevel(t, func(t *testing.T, l kernel.Level) {
		p := trainerShapes()["wide, partial, missing"].problem()
		tr, once, sums := trainer(p, l), make([]float32, p.n.Params), kernel.NewSums(p.n)
		step := func(g []float32) { tr.Gradients(g, true, sums, 29, float32(p.weight[0])) }
		step(once)
		over := randoms[float32](newRand(1), p.n.Params)
		if tr.Gradients(over, false, kernel.NewSums(p.n), 29, float32(p.weight[0])); !slices.Equal(over, once) {
			t.Error("gradients that are written differ from those that are added to zero")
		}
		one := append([]float64(nil), sums.Terms...)
		thrice := make([]float32, p.n.Params)
		for range 3 {
			step(thrice)
		}
		for i := range once {
			if math.Abs(float64(thrice[i]-3*once[i])) > 1e-5*(1+math.Abs(float64(once[i]))) {
				t.Fatalf("gradient %d = %v after three tiles, want %v", i, thrice[i], 3*once[i])
			}
		}
		for f, v := range sums.Terms {
			if math.Abs(v-4*one[f]) > 1e-9*math.Abs(v) {
				t.Fatalf("terms of feature %d = %v after four tiles, want %v", f, v, 4*one[f])
			}
		}
		if n := testing.AllocsPerRun(5, func() { step(thrice) }); n != 0 {
			t.Errorf("Gradients: %v allocations, want 0", n)
		}
		if n := testing.AllocsPerRun(5, func() { tr.Gradients(over, false, sums, 29, 0.1) }); n != 0 {
			t.Errorf("Gradients, written: %v allocations, want 0", n)
		}
		if n := testing.AllocsPerRun(5, func() { tr.Score(sums, 29) }); n != 0 {
			t.Errorf("Score: %v allocations, want 0", n)
		}
		store, index := make([]float32, 100*p.n.Inputs), []uint32{3, 99, 0}
		if n := testing.AllocsPerRun(5, func() { tr.Fill(store, index) }); n != 0 {
			t.Errorf("Fill: %v allocations, want 0", n)
		}
	})
}

func TestGradUnusedLanesCountNothing(t *testing.T) {
	eachLevel(t, func(t *testing.T, l kernel.Level) {
		p := shapes()["partial tile"].problem()
		run := func() []float32 {
			g := make([]float32, p.n.Params)
			trainer(p, l).Gradients(g, false, kernel.NewSums(p.n), 37, float32(p.weight[0]))
			return g
		}
		want := run()
		for i := range p.noise {
			if i%rows >= 37 {
				p.noise[i] = 100
			}
		}
		if !slices.Equal(run(), want) {
			t.Error("the noise of unused lanes moves the gradient")
		}
	})
}

// TestGradClamps: beyond a limit only the gradient that leads back counts.
func TestGradClamps(t *testing.T) {
	eachLevel(t, func(t *testing.T, l kernel.Level) {
		for _, raw := range []float64{kernel.LogVarMin - 5, 1, kernel.LogVarMax + 5} {
			p := shapes()["mixture"].problem()
			last := p.n.Encoder[len(p.n.Encoder)-1]
			clear(p.params[last.W+p.n.Latent*last.In : last.B])
			for k := range p.n.Latent {
				p.params[last.B+p.n.Latent+k] = raw
			}
			sameAsFloat64(t, p, l, fmt.Sprintf("log-variance %v", raw))
		}
		for _, raw := range []float64{-2.5, -2, 0, 3, 4} { // floor -2, ceiling 3
			p := shape{blocks: []kernel.Block{block(kernel.Gaussian, 3)}, latent: 1, rows: rows, o: kernel.Objective{Beta: 1}, seed: 3}.problem()
			for f := range 3 {
				p.params[p.n.LogSD+f] = raw
			}
			for i := range p.x {
				p.x[i] *= []float64{1e-3, 1, 100}[i/rows]
			}
			sameAsFloat64(t, p, l, fmt.Sprintf("log standard deviation %v", raw))
		}
	})
}

// sameAsFloat64 checks every gradient, relative to the largest.
func sameAsFloat64(t *testing.T, p *problem, l kernel.Level, what string) {
	t.Helper()
	p.round()
	want, _ := gradients[float64](p)
	got := make([]float32, p.n.Params)
	trainer(p, l).Gradients(got, false, kernel.NewSums(p.n), p.rows(), float32(p.weight[0]))
	top := 0.0
	for _, v := range want {
		top = max(top, math.Abs(v))
	}
	for i, v := range want {
		if g := float64(got[i]); !(math.Abs(g-v) <= 1e-5*top) || (g == 0) != (v == 0) && math.Abs(v) > 1e-6*top {
			t.Errorf("%s: gradient %d = %v, want %v", what, i, g, v)
		}
	}
}

func TestGradFill(t *testing.T) {
	eachLevel(t, func(t *testing.T, l kernel.Level) {
		rnd := newRand(4)
		for _, inputs := range []int{1, 2, 7, 8, 9, 16, 40, 83} {
			n := kernel.NewNet(1, inputs, 1, nil, nil, kernel.Identity, []kernel.Block{{Kind: kernel.Gaussian, N: 1}}, -2)
			tr, store := kernel.NewTrainer(n, l), randoms[float32](rnd, 100*inputs)
			for _, count := range []int{64, 1, 17, 0, 63} {
				index := make([]uint32, count)
				for i := range index {
					index[i] = uint32(rnd.IntN(100))
				}
				tr.Fill(store, index)
				for i, got := range tr.X {
					want := float32(0)
					if r := i % rows; r < count {
						want = store[int(index[r])*inputs+i/rows]
					}
					if got != want {
						t.Fatalf("%d inputs, %d rows: X[%d] = %v, want %v", inputs, count, i, got, want)
					}
				}
			}
		}
	})
}

// TestGradNaN: what is not a number in one row shows in the sums, so that a
// training that went astray is seen.
func TestGradNaN(t *testing.T) {
	eachLevel(t, func(t *testing.T, l kernel.Level) {
		p := shapes()["mixture"].problem()
		p.params[0] = math.NaN()
		g, sums := make([]float32, p.n.Params), kernel.NewSums(p.n)
		trainer(p, l).Gradients(g, false, sums, rows, 1./rows)
		if !math.IsNaN(sums.Terms[0]) || !math.IsNaN(sums.KL[0]) || g[p.n.Encoder[0].B] == g[p.n.Encoder[0].B] {
			t.Errorf("a weight of NaN: terms %v, KL %v, gradient %v, want NaN", sums.Terms[0], sums.KL[0], g[p.n.Encoder[0].B])
		}
	})
}

func BenchmarkGradTrainer(b *testing.B) {
	relu := func(widths ...int) (h []kernel.Hidden) {
		for _, w := range widths {
			h = append(h, kernel.Hidden{Width: w, Act: kernel.ReLU})
		}
		return h
	}
	fixed := func(n int) []kernel.Block {
		return []kernel.Block{{Kind: kernel.GaussianFixed, N: n, SD: math.Sqrt(0.5)}}
	}
	for _, c := range []struct {
		name string
		n    *kernel.Net
	}{
		{"A", kernel.NewNet(784, 784, 2, relu(128, 64, 32), relu(32, 64, 128), kernel.Sigmoid, fixed(784), -2)},
		{"peersA", kernel.NewNet(784, 784, 2, relu(128, 64, 32), relu(256, 128, 64), kernel.Sigmoid, fixed(784), -2)},
		{"B", kernel.NewNet(32, 32, 8, relu(64, 32), relu(32, 64), kernel.Sigmoid, fixed(32), -2)},
		{"tabular", kernel.NewNet(32, 36, 8, relu(128, 64), relu(64, 128), kernel.Identity,
			[]kernel.Block{{Kind: kernel.Gaussian, N: 20}, {Kind: kernel.Categorical, From: 20, N: 8}, {Kind: kernel.Bernoulli, From: 28, N: 4}}, -2)},
	} {
		for _, l := range kernel.Levels() {
			b.Run(fmt.Sprintf("net=%s/level=%v", c.name, l), func(b *testing.B) {
				b.ReportAllocs()
				rnd := newRand(1)
				tr := kernel.NewTrainer(c.n, kernel.TrainingLevel(l))
				copy(tr.X, randoms[float32](rnd, len(tr.X)))
				copy(tr.Noise, randoms[float32](rnd, len(tr.Noise)))
				params, g, sums := randoms[float32](rnd, c.n.Params), make([]float32, c.n.Params), kernel.NewSums(c.n)
				for i := range params {
					params[i] *= 0.05
				}
				tr.Begin(params, kernel.Objective{Beta: 1})
				for b.Loop() {
					tr.Gradients(g, true, sums, rows, 1./rows)
				}
				first := c.n.Encoder[0].In * c.n.Encoder[0].Out
				seconds := b.Elapsed().Seconds()
				b.ReportMetric(float64(b.N)*rows/seconds, "rows/s")
				b.ReportMetric(float64(b.N)*rows*2*float64(3*c.n.MACs()-first)/seconds/1e9, "GFLOP/s")
			})
		}
	}
}

// goldenGradients is a hash of the bits that native levels give. It changes when
// a kernel's numbers are changed on purpose: run the test at every level (arm64
// through an emulator too) before a new one is written here.
const goldenGradients = "4c74c30df4a7a47f"

// TestGradGolden holds all native levels, on any CPU, to the same bits.
func TestGradGolden(t *testing.T) {
	for _, l := range kernel.Levels() {
		if l == kernel.Generic || l != kernel.TrainingLevel(l) {
			continue
		}
		all := trainerShapes()
		h := fnv.New64a()
		for _, name := range slices.Sorted(maps.Keys(all)) {
			c := all[name]
			p := c.problem()
			p.round()
			tr, g, sums := trainer(p, l), make([]float32, p.n.Params), kernel.NewSums(p.n)
			tr.Gradients(g, false, sums, c.rows, float32(p.weight[0]))
			tr.Score(sums, c.rows)
			for _, v := range [][]float32{g, tr.Recon[:c.rows]} {
				if err := binary.Write(h, binary.LittleEndian, v); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := fmt.Sprintf("%x", h.Sum64()); got != goldenGradients {
			t.Errorf("%v gives gradients of hash %s, want %s", l, got, goldenGradients)
		}
	}
}
