package kernel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// formed makes every layer of a net int8 where its turn comes: ranges that fit the
// problem's inputs more or less, scales by the rule, weights that are multiples of
// them.
func formed(p *problem, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 3))
	for _, stack := range [][]kernel.Layer{p.n.Encoder, p.n.Decoder} {
		for i := range stack {
			l := &stack[i]
			f := &kernel.Form{Scale: make([]float32, l.Out), Low: make([]float32, l.In), Step: make([]float32, l.In)}
			for k := range l.In {
				f.Low[k], f.Step[k] = float32(-3+rnd.Float64()), float32(math.Ldexp(1+rnd.Float64(), -6))
			}
			row := make([]float32, l.In)
			for o := range l.Out {
				for k := range row {
					row[k] = float32(p.params[l.W+o*l.In+k]) * f.Step[k]
				}
				f.Scale[o] = kernel.ByteScale(row)
				for k := range row {
					q := f.Whole(float32(p.params[l.W+o*l.In+k]), o, k)
					p.params[l.W+o*l.In+k] = float64(float32(float64(q) * float64(f.Scale[o]) / float64(f.Step[k])))
				}
			}
			l.Form = f
		}
	}
}

// throughBytes is a layer in float64 whose inputs are rounded to bytes first.
func throughBytes(l kernel.Layer, params, x []float64) []float64 {
	y := make([]float64, l.Out)
	for o := range y {
		y[o] = params[l.B+o]
		for k, v := range x {
			low, step := float64(l.Form.Low[k]), float64(l.Form.Step[k])
			u := math.RoundToEven(min(max((v-low)/step, 0), 255))
			y[o] += params[l.W+o*l.In+k] * (low + step*u)
		}
	}
	kernel.Activate(l.Act, y, y)
	return y
}

// seeds is how many of n seeds a test takes: a few with -short, for emulators.
func seeds(n uint64) uint64 {
	if testing.Short() {
		return 3
	}
	return n
}

// TestPlanBytes holds plans of int8 layers to a float64 computation that rounds the
// inputs of every layer. A value close to the middle of two bytes may be rounded the
// other way, which moves what follows by a step: nearly all rows must agree.
func TestPlanBytes(t *testing.T) {
	for _, level := range kernel.Levels() {
		for seed := range seeds(12) {
			t.Run(fmt.Sprintf("%v/%d", level, seed), func(t *testing.T) {
				p := wide(seed)
				formed(p, seed)
				plan := kernel.NewPlan(p.n, to[float32](p.params), nil, level)
				tile := plan.NewTile()
				plan.Begin(tile, rows, true)
				fill(tile, p, 0, rows)
				plan.Score(tile, true)
				near := 0
				for r := range rows {
					h := to[float64](to[float32](column(p.x, r)))
					for _, l := range p.n.Encoder {
						h = throughBytes(l, p.params, h)
					}
					mu := h[:p.n.Latent]
					same := true
					for i, m := range mu {
						same = same && math.Abs(float64(tile.Mu[i*rows+r])-m) <= 1e-4*(1+math.Abs(m))
					}
					h = mu
					for _, l := range p.n.Decoder {
						h = throughBytes(l, p.params, h)
					}
					if p.n.OutAct == kernel.Identity {
						for f, v := range h {
							same = same && math.Abs(float64(tile.Out[f*rows+r])-v) <= 1e-3*(1+math.Abs(v))
						}
					}
					if same {
						near++
					}
				}
				if near < rows*8/10 {
					t.Errorf("%d of %d rows agree with float64", near, rows)
				}
			})
		}
	}
}

// TestPlanBytesLevels: every level but Generic gives the same bits for int8 layers, and
// where all layers are int8 and their activations plain, Generic does too.
func TestPlanBytesLevels(t *testing.T) {
	for seed := range seeds(12) {
		p := wide(seed)
		plain := true
		for _, l := range append(append([]kernel.Layer(nil), p.n.Encoder...), p.n.Decoder...) {
			plain = plain && l.Act <= kernel.Leaky
		}
		formed(p, seed)
		var want []float32
		for _, level := range kernel.Levels() {
			if level == kernel.Generic && !plain {
				continue
			}
			plan := kernel.NewPlan(p.n, to[float32](p.params), nil, level)
			tile := plan.NewTile()
			plan.Begin(tile, rows, true)
			fill(tile, p, 0, rows)
			plan.Encode(tile)
			copy(tile.Z, tile.Mu)
			plan.Decode(tile)
			got := append(append([]float32(nil), tile.Mu...), tile.LogVar...)
			if p.n.OutAct == kernel.Identity {
				got = append(got, tile.Out...)
			}
			if want == nil {
				want = got
			}
			for i := range got {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
					t.Fatalf("seed %d: %v differs at %d: %v, want %v", seed, level, i, got[i], want[i])
				}
			}
		}
	}
}

// TestPlanPruned: a plan of pruned weights has the bits of one whose zeros are
// multiplied.
func TestPlanPruned(t *testing.T) {
	for _, level := range kernel.Levels() {
		if level == kernel.BF16 {
			continue
		}
		for seed := range uint64(8) {
			p := wide(seed)
			rnd := rand.New(rand.NewPCG(seed, 5))
			for _, stack := range [][]kernel.Layer{p.n.Encoder, p.n.Decoder} {
				for s, l := range stack {
					for _, g := range p.n.Groups(l, s == len(stack)-1 && l.Out == p.n.Features) {
						for k := range l.In {
							if rnd.IntN(4) > 0 {
								for o := g[0]; o < g[1]; o++ {
									p.params[l.W+o*l.In+k] = 0
								}
							}
						}
					}
				}
			}
			sparse := kernel.NewPlan(p.n, to[float32](p.params), nil, level)
			for i, v := range p.params { // so small that it changes nothing, and yet no zero
				if v == 0 {
					p.params[i] = 1e-38
				}
			}
			dense := kernel.NewPlan(p.n, to[float32](p.params), nil, level)
			score := func(plan *kernel.Plan) []float32 {
				tile := plan.NewTile()
				plan.Begin(tile, rows, false)
				fill(tile, p, 0, rows)
				plan.Score(tile, false)
				return append(append([]float32(nil), tile.Recon[:]...), tile.KL[:]...)
			}
			a, b := score(sparse), score(dense)
			for i := range a {
				if a[i] != b[i] {
					t.Fatalf("%v, seed %d: %v, with tiny weights in place of zeros %v", level, seed, a[i], b[i])
				}
			}
		}
	}
}
