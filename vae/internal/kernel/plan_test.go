package kernel_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// fill lays rows [from, from+n) of p out as the plan asked for in Begin.
func fill(t *kernel.Tile, p *problem, from, n int) {
	clear(t.X)
	clear(t.Missing)
	t.AnyMissing = false
	for r := range n {
		for f := range p.n.Inputs {
			t.X[f*t.FeatureStride+r*t.RowStride] = float32(p.x[f*rows+from+r])
		}
		for f := range p.n.Features {
			if p.mask[f*rows+from+r] == 0 {
				t.Missing[f] |= 1 << r
				t.AnyMissing = true
			}
		}
	}
}

// withPresence gives every block costs of being there and of missing.
func withPresence(c shape) shape {
	blocks := append([]kernel.Block(nil), c.blocks...)
	for i := range blocks {
		blocks[i].Present, blocks[i].Missing = 0.01*float64(i+1), 2+float64(i)
	}
	c.blocks = blocks
	return c
}

// expected adds what the reference leaves out: the costs of presence.
func expected(n *kernel.Net, row refRow, mask []float64) (recon, kl float64) {
	for _, b := range n.Blocks {
		cost := b.Present
		for j := b.From; j < b.From+b.N; j++ {
			if mask[j] == 0 {
				cost = b.Missing
			}
			recon += row.terms[j]
		}
		recon += cost
	}
	for _, v := range row.kl {
		kl += v
	}
	return recon, kl
}

func near32(got float32, want float64) bool {
	return math.Abs(float64(got)-want) <= 1e-5*(1+math.Abs(want))
}

func TestPlanAgreesWithReference(t *testing.T) {
	for _, level := range kernel.Levels() {
		if level == kernel.BF16 {
			continue // TestPlanBF16
		}
		for name, c := range shapes() {
			c = withPresence(c)
			t.Run(level.String()+"/"+name, func(t *testing.T) {
				p := c.problem()
				plan := kernel.NewPlan(p.n, to[float32](p.params), nil, level)
				tile := plan.NewTile()
				plan.Begin(tile, c.rows, true)
				fill(tile, p, 0, c.rows)
				plan.Score(tile, true)
				still := make([]float64, c.latent) // no noise
				for r := range c.rows {
					mask := column(p.mask, r)
					row := reference(p.n, to[float64](to[float32](p.params)), to[float64](to[float32](column(p.x, r))), mask, still, 0)
					check := func(what string, tile []float32, want []float64) {
						for f, w := range want {
							if got := tile[f*rows+r]; !near32(got, w) {
								t.Fatalf("row %d: %s[%d] = %v, want %v", r, what, f, got, w)
							}
						}
					}
					check("mu", tile.Mu, row.mu)
					check("log-variance", tile.LogVar, row.logVar)
					check("latent KL", tile.LatentKL, row.kl)
					check("output", tile.Out, row.out)
					recon, kl := expected(p.n, row, mask)
					sum := 0.0
					for f := range p.n.Features {
						sum += float64(tile.Terms[f*rows+r])
					}
					if !near32(tile.Recon[r], recon) || !near32(tile.KL[r], kl) || !near32(float32(sum), recon) {
						t.Fatalf("row %d: recon %v (terms add up to %v), kl %v; want %v, %v", r, tile.Recon[r], sum, tile.KL[r], recon, kl)
					}
				}
			})
		}
	}
}

// wide makes a net with layers of many sizes, blocks long enough to be cut, and
// inputs of which many are zero.
func wide(seed uint64) *problem {
	rnd := newRand(seed)
	c := shape{latent: 1 + rnd.IntN(20), act: kernel.Activation(rnd.IntN(9)), outAct: kernel.Identity, rows: rows, missing: 0.05, extra: rnd.IntN(4), seed: seed}
	if rnd.IntN(3) == 0 {
		c.outAct = kernel.Sigmoid
	}
	for range 1 + rnd.IntN(6) {
		c.blocks = append(c.blocks, block(kernel.HeadKind(rnd.IntN(4)), 1+rnd.IntN(130)))
	}
	c = withPresence(c)
	p := c.problem()
	hidden := func() (h []kernel.Hidden) {
		for range rnd.IntN(4) {
			h = append(h, kernel.Hidden{Width: 1 + rnd.IntN(150), Act: kernel.Activation(rnd.IntN(9))})
		}
		return h
	}
	p.n = kernel.NewNet(p.n.Features, p.n.Inputs, c.latent, hidden(), hidden(), c.outAct, c.blocks, -2)
	p.params = randoms[float64](rnd, p.n.Params)
	for i := range p.params {
		p.params[i] *= 0.1
	}
	for f := range p.n.Inputs {
		if rnd.IntN(3) == 0 {
			clear(p.x[f*rows : (f+1)*rows])
		}
	}
	return p
}

// active lists the inputs of a filled tile with a lane other than zero.
func active(t *kernel.Tile, inputs int) (list []uint32) {
	list = []uint32{}
	for f := range inputs {
		for _, v := range t.X[f*rows : (f+1)*rows] {
			if v != 0 {
				list = append(list, uint32(f))
				break
			}
		}
	}
	return list
}

// A row's bits depend neither on how the rows are split, nor on the layout, nor
// on detail, nor on skipped zeros; native float32 levels agree with each other.
func TestPlanScoresDependOnTheRowOnly(t *testing.T) {
	for seed := range uint64(40) {
		p := wide(seed)
		native := map[int][2]uint32{}
		for _, level := range kernel.Levels() {
			plan := kernel.NewPlan(p.n, to[float32](p.params), nil, level)
			tile := plan.NewTile()
			var want [rows][2]uint32
			bits := func(r int) [2]uint32 {
				return [2]uint32{math.Float32bits(tile.Recon[r]), math.Float32bits(tile.KL[r])}
			}
			plan.Begin(tile, rows, false)
			fill(tile, p, 0, rows)
			plan.Score(tile, false)
			for r := range rows {
				want[r] = bits(r)
				if v := tile.Recon[r] + tile.KL[r]; v-v != 0 {
					t.Fatalf("%v, seed %d, row %d: score %v", level, seed, r, v)
				}
				if level != kernel.Generic && level != kernel.BF16 {
					if other, ok := native[r]; ok && other != want[r] {
						t.Fatalf("seed %d, row %d: %v differs from the level before it", seed, r, level)
					}
					native[r] = want[r]
				}
			}
			rnd := rand.New(rand.NewPCG(seed, 9))
			for range 40 {
				n := 1 + rnd.IntN(rows)
				if rnd.IntN(2) == 0 {
					n = 1 + rnd.IntN(15)
				}
				from, detail := rnd.IntN(rows-n+1), rnd.IntN(2) == 0
				plan.Begin(tile, n, detail)
				fill(tile, p, from, n)
				if tile.RowStride == 1 && level != kernel.BF16 && rnd.IntN(2) == 0 {
					tile.Active = active(tile, p.n.Inputs)
				}
				plan.Score(tile, detail)
				for r := range n {
					if bits(r) != want[from+r] {
						t.Fatalf("%v, seed %d: row %d alone in %d rows (detail %v, stride %d) has recon %v, kl %v; in 64 rows %v, %v", level, seed, from+r, n, detail,
							tile.RowStride, tile.Recon[r], tile.KL[r], math.Float32frombits(want[from+r][0]), math.Float32frombits(want[from+r][1]))
					}
				}
			}
		}
	}
}

// Shifted features give the scores of the same features without a shift, up to
// rounding, and means that are shifted.
func TestPlanShift(t *testing.T) {
	for seed := range uint64(20) {
		p := wide(seed + 200)
		p.n.OutAct = kernel.Identity
		rnd := newRand(seed)
		shift := make([]float32, p.n.Features)
		for _, b := range p.n.Blocks {
			for j := b.From; j < b.From+b.N; j++ {
				if (b.Kind == kernel.Gaussian || b.Kind == kernel.GaussianFixed) && rnd.IntN(2) == 0 {
					shift[j] = rnd.Float32()*2 - 1
				}
			}
		}
		for _, level := range kernel.Levels() {
			limit := 1e-5
			if level == kernel.BF16 {
				limit = 2e-2
			}
			plain, moved := kernel.NewPlan(p.n, to[float32](p.params), nil, level), kernel.NewPlan(p.n, to[float32](p.params), shift, level)
			a, b := plain.NewTile(), moved.NewTile()
			plain.Begin(a, rows, true)
			fill(a, p, 0, rows)
			plain.Score(a, true)
			moved.Begin(b, rows, true)
			fill(b, p, 0, rows)
			for i := range p.n.Features * rows {
				b.X[i] += shift[i/rows]
			}
			moved.Score(b, true)
			for r := range rows {
				for _, v := range [][2]float32{{a.Recon[r], b.Recon[r]}, {a.KL[r], b.KL[r]}, {a.Out[r], b.Out[r] - shift[0]}} {
					if math.Abs(float64(v[0])-float64(v[1])) > limit*(1+math.Abs(float64(v[0]))) {
						t.Fatalf("%v, seed %d, row %d: %v without, %v with the shift", level, seed, r, v[0], v[1])
					}
				}
			}
		}
	}
}

func TestPlanLevelsAgree(t *testing.T) {
	for seed := range uint64(20) {
		p := wide(seed + 100)
		var first *kernel.Tile
		for _, level := range kernel.Levels() {
			plan := kernel.NewPlan(p.n, to[float32](p.params), nil, level)
			tile := plan.NewTile()
			plan.Begin(tile, rows, false)
			fill(tile, p, 0, rows)
			plan.Score(tile, false)
			if first == nil {
				first = tile
				continue
			}
			limit := 1e-5
			if level == kernel.BF16 {
				limit = 2e-2
			}
			for r := range rows {
				for _, v := range [][2]float32{{tile.Recon[r], first.Recon[r]}, {tile.KL[r], first.KL[r]}} {
					if math.Abs(float64(v[0])-float64(v[1])) > limit*(1+math.Abs(float64(v[1]))) {
						t.Fatalf("%v, seed %d, row %d: %v, generic has %v", level, seed, r, v[0], v[1])
					}
				}
			}
		}
	}
}

func TestPlanAllocatesNothing(t *testing.T) {
	p := wide(3)
	for _, level := range kernel.Levels() {
		plan := kernel.NewPlan(p.n, to[float32](p.params), nil, level)
		tile := plan.NewTile()
		for _, n := range []int{1, 5, 17, 64} {
			if got := testing.AllocsPerRun(10, func() {
				plan.Begin(tile, n, false)
				fill(tile, p, 0, n)
				plan.Score(tile, false)
			}); got != 0 {
				t.Errorf("%v, %d rows: %v allocations", level, n, got)
			}
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	relu := func(w ...int) (h []kernel.Hidden) {
		for _, v := range w {
			h = append(h, kernel.Hidden{Width: v, Act: kernel.ReLU})
		}
		return h
	}
	for _, c := range []struct {
		name             string
		features, latent int
		encoder, decoder []kernel.Hidden
	}{
		{"A", 784, 2, relu(128, 64, 32), relu(256, 128, 64)},
		{"B", 32, 8, relu(64, 32), relu(32, 64)},
		{"C", 1024, 64, relu(1024, 512), relu(512, 1024)},
	} {
		blocks := []kernel.Block{{Kind: kernel.GaussianFixed, N: c.features, SD: math.Sqrt(0.5)}}
		n := kernel.NewNet(c.features, c.features, c.latent, c.encoder, c.decoder, kernel.Sigmoid, blocks, -2)
		rnd := newRand(1)
		params := randoms[float32](rnd, n.Params)
		for i := range params {
			params[i] *= 0.05
		}
		for _, level := range kernel.Levels() {
			plan := kernel.NewPlan(n, params, nil, level)
			tile := plan.NewTile()
			for _, rows := range []int{1, 6, 16, 64} {
				b.Run(c.name+"/"+level.String()+"/rows="+string(rune('0'+rows/10))+string(rune('0'+rows%10)), func(b *testing.B) {
					plan.Begin(tile, rows, false)
					for i := range tile.X {
						tile.X[i] = float32(i%7) / 7
					}
					b.ReportAllocs()
					for b.Loop() {
						plan.Score(tile, false)
					}
					perRow := b.Elapsed().Seconds() / float64(b.N) / float64(rows)
					b.ReportMetric(1/perRow, "rows/s")
					b.ReportMetric(2e-9*float64(n.MACs())/perRow, "GFLOP/s")
				})
			}
		}
	}
}
