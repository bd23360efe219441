package train

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// Follow says how a network is trained to give what another one, its teacher, gives.
type Follow struct {
	Steps int
	Rate  float64 // learning rate at the start; it falls to 0 along a cosine
	Seed  uint64
	// Fixed marks parameters that keep their value, such as pruned weights; nil means
	// none. Standard deviations always keep theirs.
	Fixed []bool
	// Latents lists which of the teacher's latents the network has; nil means all.
	Latents []int
}

const (
	followBatch = 256
	followRows  = 20_000 // most rows that a network follows its teacher on
)

// Follow trains p's network on the rows that are fitted to: its outputs and its
// posterior are to be those of the teacher, at the posterior mean (distillation:
// Hinton, Vinyals and Dean 2015, with the likelihood's own cost as distance). It
// returns the new parameters. The rows are those of a sample of at most 20,000.
func (t *Table) Follow(ctx context.Context, p, teacher vae.Parts, o Follow) ([]float32, error) {
	own := *t.t
	own.spec = &p.Spec
	c := t.c
	c.Batch, c.asIs = followBatch, true
	r, err := newRun(c, &own)
	if err != nil {
		return nil, err
	}
	x := t.seen
	if x.n > followRows {
		x = &rows{inputs: t.seen.inputs, features: t.seen.features}
		for i := range followRows {
			x.addRow(t.seen, i*t.seen.n/followRows)
		}
	}
	defer r.pool.start()()
	r.pool.goals = r.goalsOf(x, &teacher, o.Latents)
	params := slices.Clone(p.Params)
	for step, b := range t.followed(x, o.Seed, o.Steps) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		res := r.pool.gradients(params, b, o.Seed, uint64(step), kernel.Objective{Beta: 1})
		if !(math.Abs(res.recon) < 1e30) || !(res.norm < 1e30) {
			return nil, fmt.Errorf("the network left the finite numbers at step %d of following its parent; prune less", step+1)
		}
		r.pool.update(r.opt, params, falling(o.Rate, step, o.Steps), res.norm, r.c.Clip)
		keep(params, p.Params, o.Fixed)
	}
	return params, nil
}

// followed yields the batches of so many steps.
func (t *Table) followed(x *rows, seed uint64, steps int) iter.Seq2[int, batch] {
	return func(yield func(int, batch) bool) {
		size := min(followBatch, x.n)
		each := x.n / size // batches of an epoch
		var order []uint32
		for step := range steps {
			at := step % each
			if at == 0 {
				order = Permutation(seed, uint64(step/each), x.n)
			}
			if !yield(step, batch{rows: x, index: order[at*size : (at+1)*size]}) {
				return
			}
		}
	}
}

// falling is the learning rate of a step: from rate to 0 along a cosine.
func falling(rate float64, step, steps int) float64 {
	return rate * 0.5 * (1 + math.Cos(math.Pi*float64(step)/float64(steps)))
}

// keep puts fixed parameters back to what they were.
func keep(params, were []float32, fixed []bool) {
	for i, f := range fixed {
		if f {
			params[i] = were[i]
		}
	}
}

// goals are what a teacher gives for rows: outputs, means and log-variances of each.
type goals struct {
	features, latents int
	v                 []float32 // [n][features + 2*latents]
}

// goalsOf runs the teacher over rows.
func (r *run) goalsOf(x *rows, teacher *vae.Parts, latents []int) *goals {
	net := teacher.Net()
	if latents == nil {
		for l := range net.Latent {
			latents = append(latents, l)
		}
	}
	g := &goals{features: net.Features, latents: len(latents)}
	width := g.features + 2*g.latents
	g.v = make([]float32, x.n*width)
	plan := kernel.NewPlan(net, teacher.Params, nil, r.pool.level)
	r.pool.parallel((tilesOf(x.n)+evaluateTiles-1)/evaluateTiles, func(_ *worker, part int) {
		t := plan.NewTile()
		for tile := part * evaluateTiles; tile < min((part+1)*evaluateTiles, tilesOf(x.n)); tile++ {
			from := tile * kernel.Rows
			n := min(kernel.Rows, x.n-from)
			plan.Begin(t, n, true)
			x.tile(t, from, n)
			plan.Score(t, true)
			for lane := range n {
				row := g.v[(from+lane)*width : (from+lane+1)*width]
				outputs(net, t, lane, row[:g.features])
				for i, l := range latents {
					row[g.features+i], row[g.features+g.latents+i] = t.Mu[l*kernel.Rows+lane], t.LogVar[l*kernel.Rows+lane]
				}
			}
		}
	})
	return g
}

// outputs copies a row's outputs, logits as probabilities.
func outputs(net *kernel.Net, t *kernel.Tile, lane int, row []float32) {
	for f := range row {
		row[f] = t.Out[f*kernel.Rows+lane]
	}
	for _, b := range net.Blocks {
		v := row[b.From : b.From+b.N]
		switch b.Kind {
		case kernel.Bernoulli:
			kernel.Activate(kernel.Sigmoid, v, v)
		case kernel.Categorical:
			kernel.Softmax(v)
		}
	}
}

// fill copies the goals of the rows in index to the lanes of a trainer's goal.
func (g *goals) fill(index []uint32, t *kernel.Trainer) {
	width := g.features + 2*g.latents
	for lane, i := range index {
		row := g.v[int(i)*width : (int(i)+1)*width]
		for f, v := range row[:g.features] {
			t.Goal.Out[f*kernel.Rows+lane] = v
		}
		for l := range g.latents {
			t.Goal.Mu[l*kernel.Rows+lane], t.Goal.LogVar[l*kernel.Rows+lane] = row[g.features+l], row[g.features+g.latents+l]
		}
	}
}
