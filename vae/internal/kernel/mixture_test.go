package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// mixtureNet has a head of every kind, with gaps between inputs and features.
func mixtureNet() *Net {
	blocks := []Block{{Kind: Gaussian, From: 0, N: 5, Present: .1, Missing: 2.4}, {Kind: Bernoulli, From: 5, N: 3, Present: .2, Missing: 1.7},
		{Kind: Categorical, From: 8, N: 4, Present: .01, Missing: 4.6}, {Kind: GaussianFixed, From: 12, N: 9, SD: 2}}
	return NewNet(21, 23, 2, nil, nil, Identity, blocks, math.Log(.3))
}

func randomMixture(rng *rand.Rand, n *Net, k int) *Mixture {
	m := &Mixture{Net: n, K: k, SD: .5, Params: make([]float32, k*n.Features+k)}
	for i := range m.Params {
		m.Params[i] = float32(rng.NormFloat64())
	}
	for i := range k {
		at := m.At(i)[8:12]
		total := 0.0
		for _, v := range at {
			total += math.Exp(float64(v))
		}
		for j := range at {
			at[j] -= float32(math.Log(total))
		}
		m.Params[k*n.Features+i] = float32(-math.Log(float64(k)))
	}
	return m
}

// mixtureCost is the definition, in float64, row by row.
func mixtureCost(m *Mixture, x []float64, missing []bool) float64 {
	logs, top := make([]float64, m.K), math.Inf(-1)
	for k := range m.K {
		v := float64(m.LogWeight(k))
		for _, b := range m.Net.Blocks {
			gone := false
			for j := b.From; j < b.From+b.N; j++ {
				if missing[j] {
					gone = true
					continue
				}
				c := float64(m.At(k)[j])
				switch b.Kind {
				case Gaussian, GaussianFixed:
					v -= 0.5*math.Pow((x[j]-c)/m.SD, 2) + math.Log(m.SD*math.Sqrt(2*math.Pi))
				case Bernoulli:
					p := 1 / (1 + math.Exp(-c))
					v += x[j]*math.Log(p) + (1-x[j])*math.Log(1-p)
				case Categorical:
					v += x[j] * c
				}
			}
			if gone {
				v -= b.Missing
			} else {
				v -= b.Present
			}
		}
		logs[k], top = v, max(top, v)
	}
	total := 0.0
	for _, v := range logs {
		total += math.Exp(v - top)
	}
	return -top - math.Log(total)
}

// fillMixture fills rows of a tile in either layout and returns them in float64.
func fillMixture(rng *rand.Rand, n *Net, t *Tile, rows int, shift []float32, gaps bool) (x [][]float64, missing [][]bool) {
	clear(t.X)
	clear(t.Missing)
	t.AnyMissing = false
	for r := range rows {
		row, gone := make([]float64, n.Features), make([]bool, n.Features)
		for j := range row {
			row[j] = rng.NormFloat64()
			if j >= 5 && j < 8 {
				row[j] = float64(rng.IntN(2))
			}
		}
		clear(row[8:12])
		row[8+rng.IntN(4)] = 1
		for _, b := range n.Blocks {
			if gaps && rng.IntN(4) == 0 {
				for j := b.From; j < b.From+b.N; j++ {
					gone[j] = true
				}
			}
		}
		for j, v := range row {
			if gone[j] {
				t.Missing[j] |= 1 << r
				t.AnyMissing = true
				v = 0
			}
			at := j*t.FeatureStride + r*t.RowStride
			t.X[at] = float32(v)
			if shift != nil {
				t.X[at] += shift[j]
			}
		}
		x, missing = append(x, row), append(missing, gone)
	}
	return x, missing
}

func TestMixtureCost(t *testing.T) {
	n := mixtureNet()
	net := NewPlan(n, make([]float32, n.Params), nil, Generic)
	shift := make([]float32, n.Features)
	for j := range 5 {
		shift[j] = float32(j) - 2.5
	}
	for _, level := range Levels() {
		for _, k := range []int{1, 2, 7, 64, 200} {
			for _, gaps := range []bool{false, true} {
				for _, by := range [][]float32{nil, shift} {
					rng := rand.New(rand.NewPCG(uint64(k), 3))
					m := randomMixture(rng, n, k)
					p := NewMixturePlan(m, by, level)
					tile, w := net.NewTile(), p.NewTile()
					for _, rows := range []int{1, 5, 12, 13, 40, 64} {
						seed := rng.Uint64()
						net.Begin(tile, rows, true)
						x, missing := fillMixture(rand.New(rand.NewPCG(seed, 1)), n, tile, rows, by, gaps)
						p.Score(tile, w)
						cost := w.Cost
						terms := make([]float64, n.Features)
						for r := range rows {
							want := mixtureCost(m, x[r], missing[r])
							if d := math.Abs(float64(cost[r]) - want); !(d <= 2e-4*(1+math.Abs(want))) {
								t.Fatalf("%v, %d components, row %d of %d: cost %v, want %v", level, k, r, rows, cost[r], want)
							}
							kl, _ := p.Parts(tile, w, r, terms)
							if sum := kl + sum64(terms); math.Abs(sum-float64(cost[r])) > 1e-5*(1+math.Abs(sum)) || kl < -1e-3 {
								t.Fatalf("%v: parts add up to %v with KL %v, cost %v", level, sum, kl, cost[r])
							}
						}
						if net.Begin(tile, rows, false); tile.RowStride == 1 {
							continue
						}
						fillMixture(rand.New(rand.NewPCG(seed, 1)), n, tile, rows, by, gaps)
						p.Score(tile, w)
						for r := range rows {
							if w.Cost[r] != cost[r] {
								t.Fatalf("%v: row %d of %d costs %v row-major, %v in a tile", level, r, rows, w.Cost[r], cost[r])
							}
						}
					}
				}
			}
		}
	}
}

func sum64(v []float64) (s float64) {
	for _, x := range v {
		s += x
	}
	return s
}

// TestMixtureParts holds the split against the definition of the ELBO.
func TestMixtureParts(t *testing.T) {
	n := mixtureNet()
	rng := rand.New(rand.NewPCG(1, 2))
	m := randomMixture(rng, n, 9)
	p := NewMixturePlan(m, nil, Generic)
	net := NewPlan(n, make([]float32, n.Params), nil, Generic)
	tile, w := net.NewTile(), p.NewTile()
	net.Begin(tile, 20, true)
	fillMixture(rng, n, tile, 20, nil, true)
	p.Score(tile, w)
	terms := make([]float64, n.Features)
	for r := range 20 {
		kl, top := p.Parts(tile, w, r, terms)
		share, want, best := p.shares(w, r), 0.0, 0
		for k, q := range share {
			if q > 0 {
				want += q * (math.Log(q) - float64(m.LogWeight(k)))
			}
			if q > share[best] {
				best = k
			}
		}
		if math.Abs(kl-want) > 1e-4*(1+want) || top != best {
			t.Errorf("row %d: KL %v of component %d, want %v of %d", r, kl, top, want, best)
		}
	}
	near := make([]int32, 20)
	p.Nearest(tile, w, near)
	for r := range near {
		if _, top := p.Parts(tile, w, r, terms); int(near[r]) != top {
			t.Errorf("row %d: nearest %d, largest responsibility %d", r, near[r], top)
		}
	}
}
