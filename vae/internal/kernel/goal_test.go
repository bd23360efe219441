package kernel_test

import (
	"math"
	"testing"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// follow makes the problem one of following another network: random outputs, as a
// likelihood has them, and a random posterior. There is no noise.
func follow(p *problem) *kernel.Goal[float64] {
	rnd := newRand(77)
	g := kernel.NewGoal[float64](p.n)
	clear(p.noise)
	for r := range rows {
		for _, b := range p.n.Blocks {
			total := 0.0
			for j := b.From; j < b.From+b.N; j++ {
				v := rnd.NormFloat64()
				if b.Kind == kernel.Bernoulli || b.Kind == kernel.Categorical {
					v = rnd.Float64()
				}
				g.Out[j*rows+r] = v
				total += v
			}
			for j := b.From; b.Kind == kernel.Categorical && j < b.From+b.N; j++ {
				g.Out[j*rows+r] /= total
			}
		}
		for l := range p.n.Latent {
			g.Mu[l*rows+r], g.LogVar[l*rows+r] = rnd.NormFloat64(), rnd.NormFloat64()
		}
	}
	return g
}

// distance is what Gradients with a goal differentiates, by the reference: the costs of
// the goal's outputs and the distance of the posteriors.
func (p *problem) distance(g *kernel.Goal[float64]) float64 {
	total := 0.0
	for r, w := range p.weight {
		if w == 0 {
			continue
		}
		at := func(tile []float64) []float64 { return column(tile, r) }
		// The reference reads inputs and targets from one row: once for the posterior and
		// outputs, and once more for what these outputs cost.
		row := reference(p.n, p.params, at(p.x), at(p.mask), at(p.noise), 0)
		total += w * outputCost(p, row.out, at(g.Out), at(p.mask))
		for l, mu := range row.mu {
			d, e := mu-g.Mu[l*rows+r], row.logVar[l]-g.LogVar[l*rows+r]
			total += w * (0.5*d*d + 0.25*e*e)
		}
	}
	return total
}

// outputCost is the cost of wanted outputs under own ones, written down once more.
func outputCost(p *problem, own, wanted, mask []float64) (total float64) {
	for _, b := range p.n.Blocks {
		top := 0.0
		for j := b.From; j < b.From+b.N; j++ {
			top += math.Exp(own[j])
		}
		for j := b.From; j < b.From+b.N; j++ {
			if mask[j] == 0 {
				continue
			}
			d := own[j] - wanted[j]
			switch b.Kind {
			case kernel.Gaussian:
				total += 0.5 * d * d * math.Exp(-2*p.n.LogSDOf(to[float32](p.params), j))
			case kernel.GaussianFixed:
				total += 0.5 * d * d / (b.SD * b.SD)
			case kernel.Bernoulli:
				total += math.Log1p(math.Exp(own[j])) - wanted[j]*own[j]
			case kernel.Categorical:
				total += wanted[j] * (math.Log(top) - own[j])
			}
		}
	}
	return total
}

func TestGoalAgreesWithDifferences(t *testing.T) {
	for _, name := range []string{"mixture", "missing", "sigmoid output", "partial tile", "activation relu", "activation gelu", "head categorical"} {
		t.Run(name, func(t *testing.T) {
			p := shapes()[name].problem()
			for i := p.n.LogSD; i < len(p.params); i++ {
				p.params[i] = float64(float32(p.params[i])) // LogSDOf reads float32
			}
			goal := follow(p)
			s := kernel.NewScratch[float64](p.n, true)
			copy(s.X, p.x)
			copy(s.Mask, p.mask)
			s.Goal = goal
			got := make([]float64, p.n.Params)
			kernel.Gradients(p.n, s, p.params, got, p.noise, p.weight, kernel.Objective{Beta: 1})
			const h = 1e-5
			for i, v := range p.params {
				want := 0.0 // of standard deviations: they stay
				if i < p.n.LogSD {
					p.params[i] = v + h
					up := p.distance(goal)
					p.params[i] = v - h
					want = (up - p.distance(goal)) / (2 * h)
					p.params[i] = v
				}
				if !(math.Abs(got[i]-want) <= 1e-5*math.Abs(want)+1e-7) {
					t.Fatalf("gradient of parameter %d = %v, want %v", i, got[i], want)
				}
			}
		})
	}
}

// TestGradGoal holds every level to the float64 build.
func TestGradGoal(t *testing.T) {
	eachLevel(t, func(t *testing.T, l kernel.Level) {
		for _, name := range []string{"mixture", "missing", "sigmoid output", "partial tile"} {
			p := shapes()[name].problem()
			p.round()
			goal := follow(p)
			s := kernel.NewScratch[float64](p.n, true)
			copy(s.X, p.x)
			copy(s.Mask, p.mask)
			s.Goal = goal
			want := make([]float64, p.n.Params)
			kernel.Gradients(p.n, s, p.params, want, p.noise, p.weight, kernel.Objective{Beta: 1})
			tr := trainer(p, l)
			tr.Goal = &kernel.Goal[float32]{Out: to[float32](goal.Out), Mu: to[float32](goal.Mu), LogVar: to[float32](goal.LogVar)}
			clear(tr.Noise)
			got := make([]float32, p.n.Params)
			tr.Begin(to[float32](p.params), kernel.Objective{Beta: 1})
			tr.Gradients(got, false, kernel.NewSums(p.n), p.rows(), float32(1/float64(p.rows())))
			var diff, norm float64
			for i, v := range got {
				d := float64(v) - want[i]
				diff, norm = diff+d*d, norm+want[i]*want[i]
			}
			if !(math.Sqrt(diff) <= 1e-5*math.Sqrt(norm)) {
				t.Errorf("%v %s: gradients differ by %.2g of their norm", l, name, math.Sqrt(diff/norm))
			}
		}
	})
}
