package train

import (
	"math"
	"sync"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// Streams of random numbers, apart from the epochs' orders.
const (
	streamInit  = 1 << 40
	streamNoise = 2 << 40
)

// A pool computes gradients of a batch tile by tile on several workers. Each
// tile has its own gradient; they are added in the order of the tiles, so that
// the number of workers changes nothing.
type pool struct {
	net     *kernel.Net
	batch   int // rows of a batch
	workers []*worker
	tiles   []tileGradient
	total   []float32
}

type worker struct {
	s             *kernel.Scratch[float32]
	noise, weight []float32
}

type tileGradient struct {
	grads      []float32
	recon, kl  float64 // sums over the tile's rows
	perFeature []float64
}

func newPool(n *kernel.Net, batch, workers int) *pool {
	tiles := (batch + kernel.Rows - 1) / kernel.Rows
	p := &pool{net: n, batch: batch, total: make([]float32, n.Params)}
	for range tiles {
		p.tiles = append(p.tiles, tileGradient{grads: make([]float32, n.Params), perFeature: make([]float64, n.Features)})
	}
	for range workers {
		p.workers = append(p.workers, &worker{kernel.NewScratch[float32](n, true),
			make([]float32, n.Latent*kernel.Rows), make([]float32, kernel.Rows)})
	}
	return p
}

// parallel calls f(worker, i) for i in [0, n), worker w taking every
// len(workers)th.
func (p *pool) parallel(n int, f func(w *worker, i int)) {
	used := min(len(p.workers), n)
	var wg sync.WaitGroup
	for k := 1; k < used; k++ {
		wg.Go(func() {
			for i := k; i < n; i += used {
				f(p.workers[k], i)
			}
		})
	}
	for i := 0; i < n; i += max(used, 1) {
		f(p.workers[0], i)
	}
	wg.Wait()
}

// outcome is what a batch came to: means per row in nats.
type outcome struct {
	recon, kl  float64
	norm       float64 // of the gradient
	perFeature []float64
}

// gradients fills p.total with the gradient of the objective over the batch.
func (p *pool) gradients(params []float32, b batch, seed, step uint64, o kernel.Objective) outcome {
	tiles := (len(b.index) + kernel.Rows - 1) / kernel.Rows
	share := float32(1 / float64(len(b.index)))
	p.parallel(tiles, func(w *worker, i int) {
		from := i * kernel.Rows
		index := b.index[from:min(from+kernel.Rows, len(b.index))]
		b.rows.fill(index, w.s.X, w.s.Mask)
		clear(w.weight)
		for r := range index {
			w.weight[r] = share
		}
		Normals(w.noise, hash(seed, streamNoise, 0), step, from, p.net.Latent)
		t := &p.tiles[i]
		clear(t.grads)
		kernel.Gradients(p.net, w.s, params, t.grads, w.noise, w.weight, o)
		t.sum(w.s, len(index))
	})
	out := outcome{perFeature: make([]float64, p.net.Features)}
	for i := range tiles {
		t := &p.tiles[i]
		out.recon += t.recon
		out.kl += t.kl
		for f, v := range t.perFeature {
			out.perFeature[f] += v
		}
	}
	out.recon /= float64(len(b.index))
	out.kl /= float64(len(b.index))
	out.norm = p.reduce(tiles)
	return out
}

// sum adds up the parts of the first n lanes.
func (t *tileGradient) sum(s *kernel.Scratch[float32], n int) {
	t.recon, t.kl = 0, 0
	for f := range t.perFeature {
		sum := 0.0
		for _, v := range s.Terms[f*kernel.Rows : f*kernel.Rows+n] {
			sum += float64(v)
		}
		t.perFeature[f] = sum
		t.recon += sum
	}
	for l := 0; l < len(s.KL); l += kernel.Rows {
		for _, v := range s.KL[l : l+n] {
			t.kl += float64(v)
		}
	}
}

// chunk is how many parameters are reduced at once: part of the definition of
// the gradient's norm, so it must not depend on the machine.
const chunk = 4096

// reduce adds the tiles' gradients in order and returns the norm of the sum.
func (p *pool) reduce(tiles int) float64 {
	chunks := (len(p.total) + chunk - 1) / chunk
	squares := make([]float64, chunks)
	p.parallel(chunks, func(_ *worker, i int) {
		lo, hi := i*chunk, min((i+1)*chunk, len(p.total))
		dst := p.total[lo:hi]
		copy(dst, p.tiles[0].grads[lo:hi])
		for _, t := range p.tiles[1:tiles] {
			for j, g := range t.grads[lo:hi] {
				dst[j] += g
			}
		}
		for _, g := range dst {
			squares[i] += float64(g) * float64(g)
		}
	})
	norm := 0.0
	for _, s := range squares {
		norm += s
	}
	return math.Sqrt(norm)
}

// evaluation is what rows score to at the posterior mean.
type evaluation struct {
	recon, kl  float64 // means per row, nats
	scores     []float32
	perFeature []float64 // mean reconstruction error
	perLatent  []float64 // mean KL
	muVariance []float64 // of the posterior mean over the rows
}

// evaluate scores the first n of the rows.
func (p *pool) evaluate(params []float32, r *rows, n int) evaluation {
	e := evaluation{scores: make([]float32, n)}
	tiles := (n + vae.TileRows - 1) / vae.TileRows
	parts := make([]evaluation, tiles)
	p.parallel(tiles, func(w *worker, i int) {
		index := make([]uint32, min(vae.TileRows, n-i*vae.TileRows))
		for j := range index {
			index[j] = uint32(i*vae.TileRows + j)
		}
		r.fill(index, w.s.X, w.s.Mask)
		parts[i] = p.evaluateTile(w.s, params, e.scores[i*vae.TileRows:i*vae.TileRows+len(index)])
	})
	e.perFeature = make([]float64, p.net.Features)
	e.perLatent = make([]float64, p.net.Latent)
	e.muVariance = make([]float64, p.net.Latent)
	mean := make([]float64, p.net.Latent)
	for _, t := range parts {
		for f, v := range t.perFeature {
			e.perFeature[f] += v / float64(n)
			e.recon += v / float64(n)
		}
		for l, v := range t.perLatent {
			e.perLatent[l] += v / float64(n)
			e.kl += v / float64(n)
			mean[l] += t.muVariance[2*l] / float64(n)
			e.muVariance[l] += t.muVariance[2*l+1] / float64(n)
		}
	}
	for l, m := range mean {
		e.muVariance[l] -= m * m
	}
	return e
}

// evaluateTile scores one filled tile and returns sums over its rows;
// muVariance holds pairs of sum and sum of squares.
func (p *pool) evaluateTile(s *kernel.Scratch[float32], params, scores []float32) evaluation {
	kernel.Encode(p.net, s, params)
	kernel.KLTerms(s)
	copy(s.Z, s.Mu)
	kernel.Decode(p.net, s, params)
	p.net.Terms(s, params)
	e := evaluation{perFeature: make([]float64, p.net.Features), perLatent: make([]float64, p.net.Latent), muVariance: make([]float64, 2*p.net.Latent)}
	recon, kl := make([]float32, len(scores)), make([]float32, len(scores))
	for f := range p.net.Features {
		for r, v := range s.Terms[f*kernel.Rows : f*kernel.Rows+len(scores)] {
			e.perFeature[f] += float64(v)
			recon[r] += v
		}
	}
	for l := range p.net.Latent {
		for r := range scores {
			i := l*kernel.Rows + r
			e.perLatent[l] += float64(s.KL[i])
			kl[r] += s.KL[i]
			m := float64(s.Mu[i])
			e.muVariance[2*l] += m
			e.muVariance[2*l+1] += m * m
		}
	}
	for r := range scores {
		scores[r] = recon[r] + kl[r]
	}
	return e
}
