package kernel

import (
	"fmt"
	"testing"
)

// TestGradTouchesNothingElse trains and scores with every buffer against a page
// that faults.
func TestGradTouchesNothingElse(t *testing.T) {
	nets := [][]int{{1, 1, 1}, {17, 5, 3}, {40, 33, 16}, {97, 20, 2}, {50, 16, 18}} // features, hidden width, latents
	for _, l := range Levels() {
		if l == Generic || l != TrainingLevel(l) {
			continue
		}
		for _, c := range nets {
			for _, behind := range []bool{false, true} {
				t.Run(fmt.Sprint(l, c, behind), func(t *testing.T) {
					f := c[0]
					blocks := []Block{{Kind: Gaussian, N: f}, {Kind: Bernoulli, From: f, N: 3}, {Kind: Categorical, From: f + 3, N: 3}}
					hidden := []Hidden{{c[1], ReLU}, {c[1] + 1, GELU}}
					n := NewNet(f+6, f+7, c[2], hidden, hidden, Sigmoid, blocks, -2)
					alloc := guarded(t, behind)
					tr := fence(NewTrainer(n, l), alloc)
					store, params, grads := alloc(80*n.Inputs), alloc(n.Params), alloc(n.Params)
					for i := range params {
						params[i] = float32(i%13-6) / 20
					}
					for i := range store {
						store[i] = float32(i%2) / 2
					}
					tr.Missing[0], tr.Missing[f] = 5, 2
					for _, rows := range []int{64, 1, 33} {
						tr.Fill(store, []uint32{79, 0, 1}[:min(rows, 3)])
						tr.Begin(params, Objective{Beta: 1, Smooth: 0.1})
						tr.Gradients(grads, false, NewSums(n), rows, 0.1)
						tr.Gradients(grads, true, NewSums(n), rows, 0.1)
						tr.Score(NewSums(n), rows)
					}
				})
			}
		}
	}
}

// fence moves the buffers of t to guarded memory.
func fence(t *Trainer, alloc func(n int) []float32) *Trainer {
	move := func(v *[]float32) {
		g := alloc(len(*v))
		copy(g, *v)
		*v = g
	}
	for i := range t.pre {
		shared := &t.pre[i][0] == &t.act[i][0]
		move(&t.pre[i])
		if move(&t.act[i]); shared {
			t.act[i] = t.pre[i]
		}
	}
	for _, v := range []*[]float32{&t.X, &t.Noise, &t.Mu, &t.KL, &t.ga, &t.gb, &t.xt, &t.gt, &t.tail, &t.y, &t.out, &t.dy, &t.terms,
		&t.mask, &t.w, &t.half, &t.offset, &t.dls, &t.lv, &t.sd, &t.z, &t.dz} {
		move(v)
	}
	return t
}
