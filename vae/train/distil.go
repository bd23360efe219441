package train

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// Distil says how an autoencoder alone is trained to rank rows as a model of two
// members does.
type Distil struct {
	Steps int
	Rate  float64 // learning rate at the start; it falls to 0 along a cosine
	Seed  uint64
	Fixed []bool // parameters that keep their value; nil means none
}

const (
	// distilMixed is how many rows are made of others for each row that is fitted to:
	// the autoencoder has to follow where rows are strange, too.
	distilMixed = 2
	// distilShare is the share of features that such a row has of another one.
	distilShare = 0.1
	// distilFar bounds what a row counts: its distance in spreads.
	distilFar = 3
)

// Distil trains p's network, whose model has no mixture, such that its negative ELBO
// ranks rows as the teacher's score does: by the squared distance to the number that
// has the same rank among the teacher's own negative ELBOs. Rows are those that are
// fitted to, and mixtures of two of them. It returns the new parameters.
func (t *Table) Distil(ctx context.Context, p vae.Parts, teacher *vae.Model, o Distil) ([]float32, error) {
	own := *t.t
	own.spec = &p.Spec
	c := t.c
	c.Batch, c.asIs = followBatch, true
	r, err := newRun(c, &own)
	if err != nil {
		return nil, err
	}
	defer r.pool.start()()
	x := r.crossed(t.seen, o.Seed)
	r.pool.ranks = r.ranksOf(x, teacher)
	params := slices.Clone(p.Params)
	for step, b := range t.followed(x, o.Seed, o.Steps) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		res := r.pool.gradients(params, b, o.Seed, uint64(step), kernel.Objective{Beta: 1})
		if !(res.norm < 1e30) {
			return nil, fmt.Errorf("the network left the finite numbers at step %d of its distillation", step+1)
		}
		r.pool.update(r.opt, params, falling(o.Rate, step, o.Steps), res.norm, r.c.Clip)
		keep(params, p.Params, o.Fixed)
	}
	return params, nil
}

// crossed returns rows and mixtures of two of them.
func (r *run) crossed(x *rows, seed uint64) *rows {
	n := min(x.n, followRows)
	out := &rows{inputs: x.inputs, features: x.features}
	for i := range n {
		out.addRow(x, i*x.n/n)
	}
	draw := splitMix(hash(seed, streamCross, 0))
	blocks := r.net.Blocks
	for range distilMixed {
		for i := range n {
			out.addRow(out, i)
			row := out.x[(out.n-1)*out.inputs:]
			other := int(draw.below(uint64(n)))
			for _, b := range blocks {
				if float64(draw.next()>>11)/(1<<53) < distilShare && !out.misses(i, b.From) && !out.misses(other, b.From) {
					copy(row[b.From:b.From+b.N], out.x[other*out.inputs+b.From:][:b.N])
				}
			}
		}
	}
	return out
}

// misses says whether row i has no value of feature f.
func (s *rows) misses(i, f int) bool {
	at := i*s.words() + f/64
	return at < len(s.missing) && s.missing[at]>>(f%64)&1 != 0
}

// ranks are the scores that rows are to have, and their spread.
type ranks struct {
	want   []float32
	spread float32
}

// ranksOf scores rows by the teacher and gives each the teacher's negative ELBO of the
// same rank.
func (r *run) ranksOf(x *rows, teacher *vae.Model) *ranks {
	p := teacher.Parts()
	net := p.Net()
	plan := kernel.NewPlan(net, p.Params, nil, r.pool.level)
	elbo, fused := make([]float32, x.n), make([]float64, x.n)
	mix := kernel.NewMixturePlan(p.Mixed(net), nil, r.pool.level)
	r.pool.parallel((tilesOf(x.n)+evaluateTiles-1)/evaluateTiles, func(_ *worker, part int) {
		t, w := plan.NewTile(), mix.NewTile()
		for tile := part * evaluateTiles; tile < min((part+1)*evaluateTiles, tilesOf(x.n)); tile++ {
			from := tile * kernel.Rows
			n := min(kernel.Rows, x.n-from)
			plan.Begin(t, n, true)
			x.tile(t, from, n)
			plan.Score(t, false)
			mix.Score(t, w)
			for lane := range n {
				elbo[from+lane] = t.Recon[lane] + t.KL[lane]
				fused[from+lane] = p.Members[0].Tail.Surprise(float64(elbo[from+lane])) + p.Members[1].Tail.Surprise(float64(w.Cost[lane]))
			}
		}
	})
	order := make([]int, x.n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(fused[a], fused[b]) })
	slices.Sort(elbo)
	out := &ranks{want: make([]float32, x.n), spread: max(elbo[x.n*3/4]-elbo[x.n/4], 1e-3)}
	for rank, i := range order {
		out.want[i] = elbo[rank]
	}
	return out
}

// weigh sets the weights of a filled trainer's rows: how far each one's score is from
// where it is to be.
func (k *ranks) weigh(index []uint32, t *kernel.Trainer, none *kernel.Sums, weights *[kernel.Rows]float32) {
	t.Score(none, len(index))
	for lane, i := range index {
		score := t.Recon[lane]
		for l := lane; l < len(t.KL); l += kernel.Rows {
			score += t.KL[l]
		}
		weights[lane] = float32(math.Max(-distilFar, math.Min(distilFar, float64((score-k.want[i])/k.spread))))
	}
	t.RowWeights = weights
}
