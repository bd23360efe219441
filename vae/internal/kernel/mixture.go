package kernel

import "math"

// A Mixture is a density over the features of a Net: K components with one
// weight each, in which features are independent. It is the autoencoder whose
// latent is one of K things, and whose posterior is exact: the responsibilities.
//
// Params holds [K][Features] numbers, then K log weights. A number is the centre
// of a Gaussian feature (all share the standard deviation SD), the logit of a
// Bernoulli one, or the log probability of a categorical one. What blocks cost to
// be there or missing is as in the Net.
type Mixture struct {
	Net    *Net
	K      int
	SD     float64
	Params []float32
	Form   *Form // of the numbers; nil means float32. A byte's step is that of the number, not of its slope
}

// At returns the numbers of component k, one per feature.
func (m *Mixture) At(k int) []float32 { return m.Params[k*m.Net.Features : (k+1)*m.Net.Features] }

// LogWeight returns the log weight of component k.
func (m *Mixture) LogWeight(k int) float32 { return m.Params[m.K*m.Net.Features+k] }

// A MixturePlan is a Mixture laid out for one level. It is immutable and safe for
// concurrent use.
//
// With every kind of feature the log-likelihood of a component is linear in the
// inputs, but for the squares of the Gaussian ones, which all components share:
// -(x-c)^2/(2 sd^2) = x c/sd^2 - c^2/(2 sd^2) - x^2/(2 sd^2). So a dense layer gives
// the logits of all components at once.
type MixturePlan struct {
	m        *Mixture
	level    Level
	shift    []float32 // of each feature; nil means none
	matrix   *matrix   // inputs to logits
	panels   *Panels   // the same for a few rows
	gaps     *Packed   // what a missing feature takes back of the logits
	weight   []float32 // [Features+Lanes] 1/(2 sd^2) of Gaussian features, else 0
	constant []float64 // [Features] nats that an observed cell costs at least
	presence []float64 // [Features] as in Plan
	complete float64
}

// NewMixturePlan lays m out for level; shift is as in NewPlan. It copies what it
// needs of them. BF16 is taken as AVX512: differences of squares need the digits.
func NewMixturePlan(m *Mixture, shift []float32, level Level) *MixturePlan {
	n := m.Net
	p := &MixturePlan{m: m, level: TrainingLevel(level), shift: shift, weight: make([]float32, n.Features+Lanes),
		constant: make([]float64, n.Features), presence: make([]float64, n.Features)}
	w, b := make([]float32, m.K*n.Inputs), make([]float32, m.K)
	gap := make([]float32, m.K*n.Features)
	for k := range m.K {
		bias := float64(m.LogWeight(k))
		for _, block := range n.Blocks {
			for j := block.From; j < block.From+block.N; j++ {
				slope, least := p.cell(block.Kind, float64(m.At(k)[j]))
				w[k*n.Inputs+j] = float32(slope)
				bias += least - slope*p.shiftOf(j)
				gap[k*n.Features+j] = float32(p.taken(block.Kind, j, float64(m.At(k)[j])))
			}
		}
		b[k] = float32(bias)
	}
	p.matrix = newMatrix(p.level, w, b, n.Inputs, m.K, p.slopeForm())
	if p.matrix.bytes == nil {
		p.panels = PackPanels(p.level, w, b, n.Inputs, m.K)
	}
	p.gaps = PackCols(p.level, gap, make([]float32, m.K), n.Features, m.K)
	for _, block := range n.Blocks {
		for j := block.From; j < block.From+block.N; j++ {
			if gaussian(block.Kind) {
				p.weight[j], p.constant[j] = float32(0.5/(m.SD*m.SD)), math.Log(m.SD)+HalfLog2Pi
			}
			p.complete += p.constant[j]
		}
		if block.N > 0 {
			p.presence[block.From] = block.Missing - block.Present
		}
		p.complete += block.Present
	}
	return p
}

func gaussian(k HeadKind) bool { return k == Gaussian || k == GaussianFixed }

// slopeForm is the form of the slopes: a number is scaled on its way to a slope, and
// so is the step that goes with it.
func (p *MixturePlan) slopeForm() *Form {
	f := p.m.Form
	if !f.Bytes() {
		return nil
	}
	out := &Form{Scale: f.Scale, Low: make([]float32, p.m.Net.Inputs), Step: make([]float32, p.m.Net.Inputs)}
	for j := range out.Step {
		out.Step[j] = 1 // of an indicator, whose slope is 0
	}
	for _, b := range p.m.Net.Blocks {
		for j := b.From; j < b.From+b.N; j++ {
			slope, _ := p.cell(b.Kind, 1)
			out.Low[j], out.Step[j] = f.Low[j]+float32(p.shiftOf(j)), f.Step[j]/float32(slope)
		}
	}
	return out
}

func (p *MixturePlan) shiftOf(j int) float64 {
	if p.shift == nil {
		return 0
	}
	return float64(p.shift[j])
}

// cell returns what a feature, whose number is v, adds to a component's logit:
// slope*x + least, x without its shift. Squares of Gaussian features are left out.
func (p *MixturePlan) cell(kind HeadKind, v float64) (slope, least float64) {
	switch {
	case gaussian(kind):
		w := 1 / (p.m.SD * p.m.SD)
		return v * w, -0.5 * v * v * w
	case kind == Bernoulli: // x log p + (1-x) log(1-p)
		return v, -softplus(v)
	}
	return v, 0
}

// taken returns what has to be added to the logit when feature j is missing,
// whose x is then its shift: minus what it counts there.
func (p *MixturePlan) taken(kind HeadKind, j int, v float64) float64 {
	switch {
	case gaussian(kind):
		return 0.5 * v * v / (p.m.SD * p.m.SD)
	case kind == Bernoulli:
		return softplus(v)
	}
	return 0
}

// ReadsActive says whether the plan gains from Tile.Active.
func (p *MixturePlan) ReadsActive() bool { return p.matrix.indexed() }

// TilesOnly says whether the plan reads tiles only, not rows in row-major order.
func (p *MixturePlan) TilesOnly() bool { return p.panels == nil }

// A MixtureTile is the working memory of one worker for a MixturePlan.
type MixtureTile struct {
	// Cost is the negative log-likelihood of each row in nats, set by Score.
	Cost [Rows]float32
	// Logits are [K][Rows]: log weight plus log-likelihood of each component, up to
	// what all components share.
	Logits []float32

	in    layerInputs
	zeros []float32 // [K][Rows]
	base  []float32 // [Features][Rows], then [Features+Lanes]: each feature's shift
	more  []float32 // [K][Rows]
	mask  []float32 // [Features][Rows]
	few   []float32 // [fewRows][K up to a multiple of Lanes]
	q     []float32 // [fewRows][stride]
}

// NewTile makes the working memory of one worker.
func (p *MixturePlan) NewTile() *MixtureTile {
	k, f := p.m.K, p.m.Net.Features
	w := &MixtureTile{Logits: aligned[float32](k * Rows), zeros: aligned[float32](k * Rows), base: aligned[float32](f*Rows + f + Lanes),
		more: aligned[float32](k * Rows), mask: aligned[float32](f * Rows)}
	w.in.room(p.matrix)
	for j := range f {
		w.base[f*Rows+j] = float32(p.shiftOf(j))
		for r := range Rows {
			w.base[j*Rows+r] = float32(p.shiftOf(j))
		}
	}
	return w
}

// Score computes Cost and Logits of the rows that t holds, whose X and Missing
// are filled. A row's bits do not depend on the rows beside it, nor on the layout
// of t.
func (p *MixturePlan) Score(t *Tile, w *MixtureTile) {
	n, slices := p.m.Net, t.slices()
	var squares [Rows]float32
	if t.RowStride == 1 {
		p.matrix.prepare(&w.in, t.X, slices)
		p.matrix.apply(&w.in, w.Logits, t.X, t.Active, Identity, slices)
		vecGaussSum(p.level, squares[:], w.base[:n.Features*Rows], t.X[:n.Features*Rows], p.weight[:n.Features], slices)
	} else {
		slices = 1
		p.scoreRows(t, w, squares[:])
	}
	if t.AnyMissing {
		p.takeGaps(t.Missing, w, slices)
	}
	var lse [Rows]float32
	vecCatTerms(p.level, lse[:], w.Logits, w.zeros[:p.m.K*Rows], slices, 0)
	p.finish(t, w, &squares, &lse)
}

// scoreRows fills the logits and squares of rows that stand row-major.
func (p *MixturePlan) scoreRows(t *Tile, w *MixtureTile, squares []float32) {
	n, k, rows := p.m.Net, p.m.K, t.rows
	step := whole(k + Lanes - 1)
	stride := t.RowStride
	if len(w.few) == 0 {
		w.few, w.q = aligned[float32](fewRows*step), aligned[float32](fewRows*stride)
	}
	p.panels.Dense(w.few, step, t.X, stride, rows, Identity)
	for j := range k {
		lanes := w.Logits[j*Rows : j*Rows+Lanes]
		clear(lanes)
		for r := range rows {
			lanes[r] = w.few[r*step+j]
		}
	}
	wide := whole(n.Features + Lanes - 1)
	for r := range rows {
		vecGaussRow(p.level, w.q[r*stride:r*stride+wide], w.base[n.Features*Rows:][:wide], t.X[r*stride:r*stride+wide], p.weight[:wide])
	}
	vecChain(p.level, squares[:rows], w.q, n.Features, stride)
}

// takeGaps takes missing features out of the logits.
func (p *MixturePlan) takeGaps(missing []uint64, w *MixtureTile, slices int) {
	for f, gone := range missing {
		lanes := w.mask[f*Rows : f*Rows+slices*Lanes]
		clear(lanes)
		eachBit(gone, func(r int) { lanes[r] = 1 })
	}
	p.gaps.Dense(w.more, w.mask, Identity, slices)
	if slices == Rows/Lanes {
		Add(p.level, w.Logits, w.more)
		return
	}
	for k := range p.m.K {
		Add(p.level, w.Logits[k*Rows:k*Rows+slices*Lanes], w.more[k*Rows:k*Rows+slices*Lanes])
	}
}

// finish joins squares, the components' sum and what does not depend on values.
// Missing cells, whose x is their shift, have no squares.
func (p *MixturePlan) finish(t *Tile, w *MixtureTile, squares, lse *[Rows]float32) {
	var base [Rows]float64
	for r := range t.rows {
		base[r] = p.complete
	}
	if t.AnyMissing {
		for _, b := range p.m.Net.Blocks {
			gone := t.gone(b)
			if gone == 0 {
				continue
			}
			for j := b.From; j < b.From+b.N; j++ {
				eachBit(t.Missing[j], func(r int) { base[r] -= p.constant[j] })
			}
			eachBit(gone, func(r int) { base[r] += p.presence[b.From] })
		}
	}
	for r := range t.rows {
		w.Cost[r] = float32(base[r] + (float64(squares[r]) - float64(lse[r])))
	}
}

// Parts splits the Cost of row r of a tile, which Score has just scored in the
// tile layout: terms gets the reconstruction error of each feature, its mean over
// the responsibilities, and the result is the KL of the responsibilities from the
// weights: the exact ELBO. top is the component with the largest responsibility.
func (p *MixturePlan) Parts(t *Tile, w *MixtureTile, r int, terms []float64) (kl float64, top int) {
	n := p.m.Net
	share := p.shares(w, r)
	clear(terms)
	for k, q := range share {
		if q > share[top] {
			top = k
		}
		if q < 1e-9 {
			continue
		}
		at := p.m.At(k)
		for _, b := range n.Blocks {
			for j := b.From; j < b.From+b.N; j++ {
				if t.Missing[j]>>r&1 == 0 {
					terms[j] += q * p.term(b.Kind, float64(t.tileX[j*Rows+r])-p.shiftOf(j), float64(at[j]))
				}
			}
		}
	}
	total := 0.0
	for _, b := range n.Blocks {
		terms[b.From] += b.Present
		if t.gone(b)>>r&1 != 0 {
			terms[b.From] += b.Missing - b.Present
		}
		for _, v := range terms[b.From : b.From+b.N] {
			total += v
		}
	}
	return float64(w.Cost[r]) - total, top
}

// term is the negative log-likelihood of an observed feature.
func (p *MixturePlan) term(kind HeadKind, x, v float64) float64 {
	switch {
	case gaussian(kind):
		d := (x - v) / p.m.SD
		return 0.5*d*d + math.Log(p.m.SD) + HalfLog2Pi
	case kind == Bernoulli:
		return softplus(v) - x*v
	}
	return -x * v
}

// shares returns the responsibilities of the components for row r.
func (p *MixturePlan) shares(w *MixtureTile, r int) []float64 {
	share, top, total := make([]float64, p.m.K), math.Inf(-1), 0.0
	for k := range share {
		top = max(top, float64(w.Logits[k*Rows+r]))
	}
	for k := range share {
		share[k] = math.Exp(float64(w.Logits[k*Rows+r]) - top)
		total += share[k]
	}
	for k := range share {
		share[k] /= total
	}
	return share
}

// Nearest writes the component with the largest logit of each of the tile's rows
// to out; among equals the first.
func (p *MixturePlan) Nearest(t *Tile, w *MixtureTile, out []int32) {
	for r := range t.rows {
		best := 0
		for k := 1; k < p.m.K; k++ {
			if w.Logits[k*Rows+r] > w.Logits[best*Rows+r] {
				best = k
			}
		}
		out[r] = int32(best)
	}
}
