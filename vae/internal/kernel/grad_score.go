package kernel

import "math/bits"

// Score takes the first rows of the tile forward at the posterior's mean. It sets
// Mu, KL and Recon, whose lanes beyond the rows mean nothing, and adds what the
// rows cost to sums.
func (t *Trainer) Score(sums *Sums, rows int) {
	used := live(rows)
	if t.slow != nil {
		t.slowMask(used)
		Encode(t.net, t.slow, t.params)
		KLTerms(t.slow)
		copy(t.slow.Z, t.slow.Mu)
		Decode(t.net, t.slow, t.params)
		t.net.Terms(t.slow, t.params)
		clear(t.Recon[:])
		for i, v := range t.slow.Terms {
			t.Recon[i%Rows] += v
		}
		t.slowSums(sums, rows)
		return
	}
	t.encode()
	t.addKL(sums, used)
	copy(t.z, t.Mu)
	h := t.hidden()
	clear(t.Recon[:])
	for _, p := range t.parts {
		_, out := t.outputs(p, h)
		for _, r := range p.runs {
			t.scoreRun(r, out[(r.from-p.from)*Rows:][:r.n*Rows], sums, used)
		}
	}
	t.scoreCosts(used)
	t.addCosts(sums, rows)
}

// scoreRun adds the terms of a run of outputs y to Recon and sums.
func (t *Trainer) scoreRun(r headRun, y []float32, sums *Sums, used uint64) {
	x, terms, slices := t.X[r.from*Rows:][:r.n*Rows], t.terms[:r.n*Rows], Rows/Lanes
	missing := t.Missing[r.from : r.from+r.n]
	switch r.kind {
	case Gaussian:
		vecGaussTerms(t.level, terms, y, x, t.half[r.from:r.from+r.n], slices)
		mask := t.mask[:r.n*Rows]
		fillMask(mask, missing, used, 0)
		vecMaskTerms(t.level, terms, mask, t.offset[r.from:r.from+r.n], slices)
		fillMask(mask, missing, used, 1)
	case Bernoulli:
		vecBernTerms(t.level, terms, y, x, slices, 0)
		fillMask(terms, missing, used, 0)
	case Categorical:
		terms, missing = terms[:Rows], missing[:1]
		vecCatTerms(t.level, terms, y, x, slices, 0)
		fillMask(terms, missing, used, 0)
	}
	vecAddTerms(t.level, t.Recon[:], terms, slices)
	for j, m := range missing {
		sums.Terms[r.from+j] += t.sumLanes(terms[j*Rows:(j+1)*Rows], used&^m)
	}
}

// fillMask writes v to the lanes of a tile that are missing.
func fillMask(tile []float32, missing []uint64, used uint64, v float32) {
	for j, m := range missing {
		for m &= used; m != 0; m &= m - 1 {
			tile[j*Rows+bits.TrailingZeros64(m)] = v
		}
	}
}

// scoreCosts adds to Recon what it costs that blocks are there or missing.
func (t *Trainer) scoreCosts(used uint64) {
	if !t.costs {
		return
	}
	for _, b := range t.net.Blocks {
		gone := t.gone(b, used)
		present, missing := float32(b.Present), float32(b.Missing)
		for r := range t.Recon {
			if gone>>r&1 == 0 {
				t.Recon[r] += present
			} else {
				t.Recon[r] += missing
			}
		}
	}
}

// slowMask writes Missing as the mask that plain Go wants.
func (t *Trainer) slowMask(used uint64) {
	for f, m := range t.Missing {
		for r := range Rows {
			t.slow.Mask[f*Rows+r] = float32((used &^ m) >> r & 1)
		}
	}
}

// slowSums adds what plain Go left of the first rows.
func (t *Trainer) slowSums(sums *Sums, rows int) {
	add := func(sums []float64, tile []float32) {
		for f := range sums {
			s := 0.0
			for _, v := range tile[f*Rows : f*Rows+rows] {
				s += float64(v)
			}
			sums[f] += s
		}
	}
	add(sums.Terms, t.slow.Terms)
	add(sums.KL, t.slow.KL)
}
