package kernel

import "math/bits"

// scoreRows is Score for a few rows in row-major order: neurons, then features,
// stand in the lanes. Each output and each sum is the same chain as in a tile.
func (p *Plan) scoreRows(t *Tile) {
	n, rows := p.net.Latent, t.rows
	x := t.rowLayers(p, p.encoder, t.rowX)
	step := len(t.rowMu) / fewRows
	mu, lv, kl := t.rowMu[:rows*step], t.rowLV[:rows*step], t.rowKL[:rows*step]
	for r := range rows {
		copy(mu[r*step:], x[r*p.stride:r*p.stride+n])
		copy(lv[r*step:], x[r*p.stride+n:r*p.stride+2*n])
	}
	vecClampLogVar(p.level, lv, lv)
	vecKL(p.level, kl, mu, lv)
	clear(t.KL[:rows])
	vecChain(p.level, t.KL[:rows], kl, n, step)

	x = t.rowLayers(p, p.decoder, x) // reads the means, which stand first
	y := t.spare(x)
	p.outputs.Dense(y, p.stride, x, p.stride, rows, Identity)
	for _, h := range p.heads {
		p.rowTerms(t, h, y)
	}
	if t.AnyMissing {
		for j, m := range t.Missing {
			eachBit(m, func(r int) { t.rowQ[r*p.stride+j] = 0 })
		}
	}
	var sums [Rows]float32
	vecChain(p.level, sums[:rows], t.rowQ, p.net.Features, p.stride)
	p.finish(t, &sums)
}

// rowLayers takes the rows through a stack and returns its outputs, row-major.
func (t *Tile) rowLayers(p *Plan, layers []planLayer, x []float32) []float32 {
	for _, l := range layers {
		y := t.spare(x)
		l.panels.Dense(y, p.stride, x, p.stride, t.rows, l.fused)
		if l.act != Identity {
			for r := range t.rows {
				row := y[r*p.stride : r*p.stride+whole(l.out+Lanes-1)]
				vecActivate(p.level, l.act, row, row)
			}
		}
		x = y
	}
	return x
}

// spare returns the row-major buffer that is not x.
func (t *Tile) spare(x []float32) []float32 {
	if &x[0] == &t.rowA[0] {
		return t.rowB
	}
	return t.rowA
}

// rowTerms writes the value-dependent costs of a run of outputs y to rowQ. It
// may write up to Lanes-1 features more, which the next runs overwrite.
func (p *Plan) rowTerms(t *Tile, h planHead, y []float32) {
	if h.kind == Categorical {
		p.rowCategorical(t, h, y)
		return
	}
	n := whole(h.n + Lanes - 1)
	for r := range t.rows {
		at := r*p.stride + h.from
		q, x, y := t.rowQ[at:at+n], t.rowX[at:at+n], y[at:at+n]
		switch {
		case h.kind == Bernoulli:
			vecBernRow(p.level, q, y, x, 0)
		case p.net.OutAct != Identity:
			vecActivate(p.level, p.net.OutAct, q, y)
			vecGaussRow(p.level, q, q, x, p.weight[h.from:h.from+n])
		default:
			vecGaussRow(p.level, q, y, x, p.weight[h.from:h.from+n])
		}
	}
}

// rowCategorical takes one block through the tile's softmax.
func (p *Plan) rowCategorical(t *Tile, h planHead, y []float32) {
	z, x := t.part[:h.n*Rows], t.part[h.n*Rows:2*h.n*Rows]
	for r := range t.rows {
		for j := range h.n {
			at := r*p.stride + h.from + j
			z[j*Rows+r], x[j*Rows+r] = y[at], t.rowX[at]
		}
	}
	var cost [Rows]float32
	vecCatTerms(p.level, cost[:], z, x, 1, 0)
	for r := range t.rows {
		q := t.rowQ[r*p.stride+h.from:]
		clear(q[:h.n])
		q[0] = cost[r]
	}
}

// eachBit calls f with the index of every set bit, ascending.
func eachBit(b uint64, f func(int)) {
	for ; b != 0; b &= b - 1 {
		f(bits.TrailingZeros64(b))
	}
}

func anySet(v []uint64) bool {
	var all uint64
	for _, b := range v {
		all |= b
	}
	return all != 0
}
