package compress

import (
	"math"
	"sync"

	"gonum.org/v1/gonum/mat"

	"github.com/elbo-stream/elbo/vae"
)

// deadLatent is the variance of a latent's posterior mean over rows below which it
// carries nothing (Burda, Grosse and Salakhutdinov 2015).
const deadLatent = 0.01

// dropLatents removes the latents that carry nothing; what they add on average
// stays in the decoder's biases. At least one is kept.
func (w *work) dropLatents(full *trace) {
	head, first := w.layers[w.head], w.layers[w.head+1]
	y := full.y[w.head]
	n, _ := y.Dims()
	var keep, rows []int
	var gone []int
	mean := make([]float64, len(w.latent))
	best, most := 0, -1.0
	for l := range w.latent {
		sum, square := 0.0, 0.0
		for r := range n {
			v := y.At(r, l)
			sum += v
			square += v * v
		}
		mean[l] = sum / float64(n)
		v := square/float64(n) - mean[l]*mean[l]
		if v > most {
			best, most = l, v
		}
		if v > deadLatent {
			keep = append(keep, l)
		} else {
			gone = append(gone, l)
		}
	}
	if len(keep) == 0 {
		keep, gone = []int{best}, nil
		for l := range w.latent {
			if l != best {
				gone = append(gone, l)
			}
		}
	}
	for _, l := range gone {
		for o := range first.out {
			first.b[o] += float32(float64(first.w[o*first.in+l]) * mean[l])
		}
	}
	rows = append(rows, keep...)
	for _, l := range keep {
		rows = append(rows, len(w.latent)+l)
	}
	head.keepOutputs(rows)
	first.keepInputs(keep)
	w.latent = keep
}

// dropNeurons removes a share of each hidden layer's neurons. Which ones follows
// from how well the layer after it can do without them, all its outputs together.
func (w *work) dropNeurons(full *trace, share float64) error {
	gains := w.gains()
	x := full.x[0]
	for i, l := range w.layers {
		y := columns(full.y[i], l.kept)
		if i > 0 && i != w.head+1 && share > 0 {
			keep := max(1, int(math.Round((1-share)*float64(l.in))))
			kept, err := l.refit(x, y, gains[i], []group{{0, l.out, keep}}, 1)
			if err != nil {
				return err
			}
			l.keepInputs(kept[0])
			w.layers[i-1].keepOutputs(kept[0])
			x = columns(x, kept[0])
		}
		x = w.next(i, l.apply(x))
	}
	return nil
}

// sparse prunes the layers that may be pruned to a density: in blocks, or weight by
// weight. Each layer is fitted to what the uncompressed one gives, from what the
// compressed ones before it leave.
func (w *work) sparse(full *trace, density float64, pattern vae.Pattern, workers int) error {
	gains := w.gains()
	x := full.x[0]
	for i, l := range w.layers {
		if w.prunable(i) {
			var groups []group
			for _, g := range w.groups(i) {
				groups = append(groups, group{g[0], g[1], max(1, int(math.Round(density*float64(l.in))))})
			}
			if pattern == vae.Weights {
				groups = groups[:0]
				for o := range l.out {
					groups = append(groups, group{o, o + 1, max(1, int(math.Round(density*float64(l.in))))})
				}
			}
			if _, err := l.refit(x, columns(full.y[i], l.kept), gains[i], groups, workers); err != nil {
				return err
			}
			l.form = vae.Form{Precision: vae.Float32, Pattern: pattern}
		}
		x = w.next(i, l.apply(x))
	}
	return nil
}

// prunable says whether the weights of layer i are pruned: all but those that make
// the posterior and those that read it, which are few and matter most.
func (w *work) prunable(i int) bool { return i != w.head && i != w.head+1 || len(w.layers) <= 2 }

// A group is a run of outputs [from, to) that shares its inputs, of which it keeps
// so many.
type group struct{ from, to, keep int }

// refit fits the layer's weights to rows of inputs x and wanted outputs y, each
// group with the inputs that serve it best, and returns those.
func (l *layer) refit(x, y *mat.Dense, gain []float64, groups []group, workers int) ([][]int, error) {
	f, err := newFit(x, y, l.w)
	if err != nil {
		return nil, err
	}
	f.gain = gain
	kept, errs := make([][]int, len(groups)), make([]error, len(groups))
	w, b := make([]float32, len(l.w)), make([]float32, len(l.b))
	next := make(chan int, len(groups))
	for g := range groups {
		next <- g
	}
	close(next)
	var wg sync.WaitGroup
	for range max(workers, 1) {
		wg.Go(func() {
			for g := range next {
				of := groups[g]
				var rows [][]float64
				var bias []float64
				kept[g], rows, bias, errs[g] = f.prune(of.from, of.to, of.keep)
				for o := range rows {
					for i, k := range kept[g] {
						w[(of.from+o)*l.in+k] = float32(rows[o][i])
					}
					b[of.from+o] = float32(bias[o])
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	l.w, l.b = w, b
	return kept, nil
}
