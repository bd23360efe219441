package train

import (
	"math"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// Streams of random numbers, apart from the epochs' orders.
const (
	streamInit  = 1 << 40
	streamNoise = 2 << 40
	// 3 and 4 are in order.go
	streamMixture = 5 << 40
	streamMask    = 6 << 40
	streamForest  = 7 << 40
	streamCross   = 8 << 40
)

// A pool computes gradients of a batch on several workers. The tiles of a batch
// are cut into shards, contiguous ranges that follow from the size of the batch
// alone. Each shard adds up its tiles in order and the shards are added in order,
// so that the number of workers changes nothing. Its crew has to be started for
// more than one of them to work.
type pool struct {
	crew
	net     *kernel.Net
	level   kernel.Level
	batch   int // rows of a batch
	shards  []shard
	squares []float64 // of each chunk of the gradient
	sums    *kernel.Sums
	gaps    gaps
	// What the rows of batches are to follow in place of the objective, if not nil.
	goals *goals
	ranks *ranks
}

// A worker computes tiles. It knows the parameters of the step in begun.
type worker struct {
	*kernel.Trainer
	begun   uint64 // step+1
	none    *kernel.Sums
	weights [kernel.Rows]float32
}

// A shard is a part of a batch.
type shard struct {
	grads []float32
	sums  *kernel.Sums
}

// shardsOf returns the number of shards of a batch of so many tiles, and so of
// workers that find work: a shard costs a gradient to add up, which is why up to
// 16 tiles make at most four. It is part of the definition of a batch's gradient.
func shardsOf(tiles int) int { return min(tiles, max(4, min(tiles/4, 16))) }

// chunk is how many parameters are added up or moved at once: part of the
// definition of the gradient's norm, so it must not depend on the machine.
const chunk = 4096

func newPool(n *kernel.Net, level kernel.Level, batch, workers int) *pool {
	p := &pool{net: n, level: level, batch: batch, squares: make([]float64, (n.Params+chunk-1)/chunk), sums: kernel.NewSums(n)}
	for range shardsOf(tilesOf(batch)) {
		p.shards = append(p.shards, shard{make([]float32, n.Params), kernel.NewSums(n)})
	}
	for range workers {
		p.workers = append(p.workers, &worker{Trainer: kernel.NewTrainer(n, level)})
	}
	return p
}

// tilesOf returns the number of tiles of rows.
func tilesOf(rows int) int { return (rows + kernel.Rows - 1) / kernel.Rows }

// fewParams is the length up to which one worker alone goes over a vector of
// parameters sooner than several.
const fewParams = 2 * chunk

// chunks calls f for every chunk [lo, hi) of the parameters.
func (p *pool) chunks(f func(i, lo, hi int)) {
	n := p.net.Params
	if n <= fewParams {
		for i := range p.squares {
			f(i, i*chunk, min((i+1)*chunk, n))
		}
		return
	}
	p.parallel(len(p.squares), func(_ *worker, i int) { f(i, i*chunk, min((i+1)*chunk, n)) })
}

// outcome is what a batch came to: means per row in nats.
type outcome struct {
	recon, kl  float64
	norm       float64   // of the gradient
	perFeature []float64 // sums; they belong to the pool
}

// gradients leaves the gradient of the objective over the batch in the first
// shard.
func (p *pool) gradients(params []float32, b batch, seed, step uint64, o kernel.Objective) outcome {
	tiles := tilesOf(len(b.index))
	shards := p.shards[:min(shardsOf(tiles), len(p.shards))]
	key, maskKey := hash(seed, streamNoise, 0), hash(seed, streamMask, step)
	p.parallel(len(shards), func(w *worker, i int) {
		s := shards[i]
		s.sums.Clear()
		if w.begun != step+1 {
			w.Begin(params, o)
			w.begun = step + 1
		}
		first := i * tiles / len(shards)
		for tile := first; tile < (i+1)*tiles/len(shards); tile++ {
			from := tile * kernel.Rows
			index := b.index[from:min(from+kernel.Rows, len(b.index))]
			b.rows.fill(index, w.Trainer)
			p.gaps.hide(w.Trainer, maskKey, from, len(index))
			switch {
			case p.goals != nil:
				if w.Goal == nil {
					w.Goal = kernel.NewGoal[float32](p.net)
				}
				p.goals.fill(index, w.Trainer)
			case p.ranks != nil:
				if w.none == nil {
					w.none = kernel.NewSums(p.net)
				}
				p.ranks.weigh(index, w.Trainer, w.none, &w.weights)
			default:
				Normals(w.Noise, key, step, from, p.net.Latent)
			}
			w.Gradients(s.grads, tile > first, s.sums, len(index), float32(1/float64(len(b.index))))
		}
	})
	p.sums.Clear()
	for _, s := range shards {
		p.sums.Add(s.sums)
	}
	out := outcome{perFeature: p.sums.Terms, norm: p.reduce(shards)}
	for _, v := range p.sums.Terms {
		out.recon += v
	}
	for _, v := range p.sums.KL {
		out.kl += v
	}
	out.recon /= float64(len(b.index))
	out.kl /= float64(len(b.index))
	return out
}

// reduce adds the shards' gradients in order to the first one and returns the
// norm of the sum.
func (p *pool) reduce(shards []shard) float64 {
	p.chunks(func(i, lo, hi int) {
		dst := shards[0].grads[lo:hi]
		for _, s := range shards[1:] {
			kernel.Add(p.level, dst, s.grads[lo:hi])
		}
		p.squares[i] = kernel.SumSquares(p.level, dst)
	})
	norm := 0.0
	for _, s := range p.squares {
		norm += s
	}
	return math.Sqrt(norm)
}

// update moves the parameters against the gradient that gradients left, whose
// norm is given, shortened to clip.
func (p *pool) update(o optimizer, params []float32, lr, norm, clip float64) {
	o.begin(lr)
	p.chunks(func(_, lo, hi int) {
		g := p.shards[0].grads[lo:hi]
		if norm > clip {
			kernel.Scale(p.level, g, float32(clip/norm))
		}
		o.part(params, g, lo, hi)
	})
}

// evaluation is what rows score to at the posterior mean.
type evaluation struct {
	recon, kl  float64 // means per row, nats
	scores     []float32
	perFeature []float64 // mean reconstruction error
	perLatent  []float64 // mean KL
	muVariance []float64 // of the posterior mean over the rows
}

// A moment collects what tiles evaluate to: sums over their rows.
type moment struct {
	sums       *kernel.Sums
	mu, square []float64 // of the posterior mean, per latent
}

// evaluateTiles is how many tiles are added up before the sums are added to those
// of the other tiles: part of the definition of the sums.
const evaluateTiles = 16

// evaluate scores the first n of the rows.
func (p *pool) evaluate(params []float32, r *rows, n int) evaluation {
	e := evaluation{scores: make([]float32, n), muVariance: make([]float64, p.net.Latent)}
	tiles := tilesOf(n)
	parts := make([]moment, (tiles+evaluateTiles-1)/evaluateTiles)
	p.parallel(len(parts), func(w *worker, i int) {
		m := moment{kernel.NewSums(p.net), make([]float64, p.net.Latent), make([]float64, p.net.Latent)}
		w.Begin(params, kernel.Objective{})
		w.begun = 0
		index := make([]uint32, 0, kernel.Rows)
		for tile := i * evaluateTiles; tile < min((i+1)*evaluateTiles, tiles); tile++ {
			from := tile * kernel.Rows
			index = index[:0]
			for j := from; j < min(from+kernel.Rows, n); j++ {
				index = append(index, uint32(j))
			}
			r.fill(index, w.Trainer)
			m.score(w.Trainer, e.scores[from:from+len(index)])
		}
		parts[i] = m
	})
	e.join(parts, p.net, n)
	return e
}

// join makes means of what the tiles of n rows came to.
func (e *evaluation) join(parts []moment, net *kernel.Net, n int) {
	total, mean := kernel.NewSums(net), make([]float64, net.Latent)
	for _, m := range parts {
		total.Add(m.sums)
		for l := range mean {
			mean[l] += m.mu[l] / float64(n)
			e.muVariance[l] += m.square[l] / float64(n)
		}
	}
	for l, m := range mean {
		e.muVariance[l] -= m * m
	}
	e.perFeature, e.recon = means(total.Terms, n)
	e.perLatent, e.kl = means(total.KL, n)
}

// means divides sums over n rows, in place, and adds the results up.
func means(sums []float64, n int) (_ []float64, total float64) {
	for i := range sums {
		sums[i] /= float64(n)
		total += sums[i]
	}
	return sums, total
}

// score scores a filled tile, one row for each of scores.
func (m *moment) score(t *kernel.Trainer, scores []float32) {
	t.Score(m.sums, len(scores))
	var kl [kernel.Rows]float32
	for l := range m.mu {
		at := l * kernel.Rows
		for r := range scores {
			kl[r] += t.KL[at+r]
			v := float64(t.Mu[at+r])
			m.mu[l] += v
			m.square[l] += v * v
		}
	}
	for r := range scores {
		scores[r] = t.Recon[r] + kl[r]
	}
}
