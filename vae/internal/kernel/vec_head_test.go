package kernel

import (
	"math"
	"slices"
	"testing"
)

// headCase is a tile for the heads.
type headCase struct {
	features      int
	y, x, w, mask []float32
	weight        []float32
}

func newHeadCase(features int) headCase {
	rnd := newRand()
	c := headCase{features: features, y: normals(rnd, features*Rows), x: normals(rnd, features*Rows), w: normals(rnd, features),
		mask: make([]float32, features*Rows), weight: normals(rnd, Rows)}
	for i := range c.y {
		c.y[i] *= 4
		c.mask[i] = float32(rnd.IntN(2))
		c.x[i] = 1 / (1 + c.x[i]*c.x[i])
	}
	for j := range c.w {
		c.w[j] = float32(math.Abs(float64(c.w[j])))
	}
	for i, v := range []float32{0, 30, -30, 90, -90, 100, -100, 1e-8, -1e-8} {
		if i < len(c.y) {
			c.y[i*67%len(c.y)] = v
		}
	}
	return c
}

// TestVecSumsAreTerms demands the same bits of the sums, of the terms added up,
// and of the row functions with a chain, for all numbers of slices.
func TestVecSumsAreTerms(t *testing.T) {
	for _, l := range Levels() {
		for _, features := range []int{0, 1, 2, 16, 33, 48} {
			c := newHeadCase(features)
			s := make([]float32, len(c.y))
			vecActivate(l, Sigmoid, s, c.y)
			for slices := 1; slices <= 4; slices++ {
				heads := map[string][3]func(dst []float32){
					"gauss": {func(e []float32) { vecGaussSum(l, e, c.y, c.x, c.w, slices) },
						func(q []float32) { vecGaussTerms(l, q, c.y, c.x, c.w, slices) },
						func(q []float32) {
							rowwise(q, c.y, c.x, func(q, y, x []float32) { vecGaussRow(l, q, y, x, padded(c.w)) })
						}},
					"gauss of sigmoid": {func(e []float32) { vecGaussSigmoidSum(l, e, c.y, c.x, c.w, slices) },
						func(q []float32) { vecGaussTerms(l, q, s, c.x, c.w, slices) },
						func(q []float32) {
							rowwise(q, s, c.x, func(q, y, x []float32) { vecGaussRow(l, q, y, x, padded(c.w)) })
						}},
					"bernoulli": {func(e []float32) { vecBernSum(l, e, c.y, c.x, slices, 0) },
						func(q []float32) { vecBernTerms(l, q, c.y, c.x, slices, 0) },
						func(q []float32) { rowwise(q, c.y, c.x, func(q, y, x []float32) { vecBernRow(l, q, y, x, 0) }) }},
					"bernoulli, smooth": {func(e []float32) { vecBernSum(l, e, c.y, c.x, slices, 0.05) },
						func(q []float32) { vecBernTerms(l, q, c.y, c.x, slices, 0.05) },
						func(q []float32) { rowwise(q, c.y, c.x, func(q, y, x []float32) { vecBernRow(l, q, y, x, 0.05) }) }},
				}
				for name, h := range heads {
					start := normals(newRand(), Rows)
					want, q := append([]float32(nil), start...), make([]float32, len(c.y))
					h[0](want)
					got := append([]float32(nil), start...)
					h[1](q)
					vecAddTerms(l, got, q, slices)
					if i := differs(got, want); i >= 0 {
						t.Fatalf("%v %s: %d features, %d slices, lane %d: terms give %v, the sum %v", l, name, features, slices, i, got[i], want[i])
					}
					if !same(got[slices*Lanes:], start[slices*Lanes:]) {
						t.Fatalf("%v %s: lanes beyond the slices changed", l, name)
					}
					for j := range features {
						for r := slices * Lanes; r < Rows; r++ {
							if q[j*Rows+r] != 0 {
								t.Fatalf("%v %s: terms beyond the slices written", l, name)
							}
						}
					}
					rows := make([]float32, len(c.y))
					h[2](rows)
					for j := range features {
						if lo := j * Rows; !same(rows[lo:lo+slices*Lanes], q[lo:lo+slices*Lanes]) {
							t.Fatalf("%v %s: a row's terms differ from the tile's", l, name)
						}
					}
				}
			}
		}
	}
}

// padded returns v with zeros up to a multiple of Lanes.
func padded(v []float32) []float32 {
	return append(slices.Clone(v), make([]float32, whole(len(v)+Lanes-1)-len(v))...)
}

// rowwise runs f on the rows of tiles, with features in the lanes.
func rowwise(q, y, x []float32, f func(q, y, x []float32)) {
	n := len(y) / Rows
	for r := range Rows {
		var row [2][]float32
		for i, tile := range [][]float32{y, x} {
			for j := range n {
				row[i] = append(row[i], tile[j*Rows+r])
			}
			row[i] = padded(row[i])
		}
		out := make([]float32, len(row[0]))
		f(out, row[0], row[1])
		for j := range n {
			q[j*Rows+r] = out[j]
		}
	}
}

// TestVecKL is against float64, also where exp(lv)-1-lv cancels.
func TestVecKL(t *testing.T) {
	var lv []float32
	for e := -8.0; e <= 1; e += 0.01 {
		v := float32(math.Pow(10, e))
		lv = append(lv, max(-v, LogVarMin), min(v, LogVarMax))
	}
	lv = append(lv, grid(LogVarMin, LogVarMax, 1<<14)...)
	lv = padded(append(lv, 0, float32(math.NaN()), LogVarMin, LogVarMax, 0.5, -0.5))
	mu := make([]float32, len(lv))
	for _, l := range Levels() {
		kl := make([]float32, len(lv))
		for _, m := range []float32{0, 1e-4, 1, -3} {
			for i := range mu {
				mu[i] = m
			}
			vecKL(l, kl, mu, lv)
			for i, v := range lv {
				x := float64(v)
				d := math.Expm1(x) - x
				if math.Abs(x) < 1e-3 {
					d = x * x * (0.5 + x*(1.0/6+x*(1.0/24+x/120)))
				}
				if want := 0.5 * (float64(m)*float64(m) + d); !near(kl[i], want, 10, 0) && !(l == Generic && math.Abs(x) < 1e-5) {
					t.Fatalf("%v: mu %v, lv %v: %v, want %v", l, m, v, kl[i], want)
				}
			}
		}
	}
}

// TestVecBernoulli is against float64 over the whole range of logits.
func TestVecBernoulli(t *testing.T) {
	z := padded(append(grid(-110, 110, 1<<16), specials()...))
	x := make([]float32, len(z))
	for _, l := range Levels() {
		q := make([]float32, len(z))
		for _, target := range []float32{0, 1, 0.3} {
			for i := range x {
				x[i] = target
			}
			vecBernRow(l, q, z, x, 0)
			for i, v := range z {
				z := float64(v)
				want := math.Max(z, 0) - float64(target)*z + math.Log1p(math.Exp(-math.Abs(z)))
				// The difference of the first two is rounded to their size.
				if math.IsInf(z, 0) && q[i] != q[i] || near(q[i], want, 8, 2e-7*math.Abs(z)*float64(target)+1e-36) {
					continue
				}
				t.Fatalf("%v: logit %v, target %v: %v, want %v", l, v, target, q[i], want)
			}
		}
	}
}

// TestVecNaNStaysInItsLane puts a NaN and an infinity into one row.
func TestVecNaNStaysInItsLane(t *testing.T) {
	for _, l := range Levels() {
		for _, odd := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
			c := newHeadCase(5)
			sums := func(y []float32) map[string][]float32 {
				out := map[string][]float32{}
				run := func(name string, f func(e []float32)) {
					e := make([]float32, Rows)
					f(e)
					out[name] = e
				}
				run("gauss", func(e []float32) { vecGaussSum(l, e, y, c.x, c.w, 4) })
				run("sigmoid", func(e []float32) { vecGaussSigmoidSum(l, e, y, c.x, c.w, 4) })
				run("bern", func(e []float32) { vecBernSum(l, e, y, c.x, 4, 0) })
				run("cat", func(e []float32) { vecCatTerms(l, e, y, c.x, 4, 0) })
				run("kl", func(e []float32) {
					lv := make([]float32, Rows)
					vecClampLogVar(l, lv, y[2*Rows:3*Rows])
					vecKL(l, e, c.x[:Rows], lv)
				})
				return out
			}
			clean := sums(c.y)
			y := slices.Clone(c.y)
			y[2*Rows+21] = odd
			for name, got := range sums(y) {
				if odd != odd && got[21] == got[21] {
					t.Errorf("%v %s: NaN became %v", l, name, got[21])
				}
				got[21] = clean[name][21]
				if !same(got, clean[name]) {
					t.Errorf("%v %s: %v in one lane changed another", l, name, odd)
				}
			}
		}
	}
}

// TestVecCategorical is against float64.
func TestVecCategorical(t *testing.T) {
	for _, n := range []int{1, 2, 5, 300} {
		c := newHeadCase(n)
		for r := range Rows { // one-hot targets
			for j := range n {
				c.x[j*Rows+r] = 0
			}
			c.x[r%n*Rows+r] = 1
		}
		for _, l := range Levels() {
			q, g := make([]float32, Rows), make([]float32, n*Rows)
			vecCatTerms(l, q, c.y, c.x, 4, 0)
			vecCatGrad(l, g, c.y, c.x, c.weight, 0)
			for r := range Rows {
				total := 0.0
				for j := range n {
					total += math.Exp(float64(c.y[j*Rows+r]))
				}
				if want := math.Log(total) - float64(c.y[r%n*Rows+r]); !close32(q[r], float32(want), 3e-6, 1e-5) {
					t.Fatalf("%v: %d outputs, lane %d: %v, want %v", l, n, r, q[r], want)
				}
				for j := range n {
					want := float64(c.weight[r]) * (math.Exp(float64(c.y[j*Rows+r]))/total - float64(c.x[j*Rows+r]))
					if !close32(g[j*Rows+r], float32(want), 1e-5, 3e-7) {
						t.Fatalf("%v: %d outputs, gradient %d of lane %d: %v, want %v", l, n, j, r, g[j*Rows+r], want)
					}
				}
			}
		}
	}
}
