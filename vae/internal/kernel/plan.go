package kernel

import "math"

// A Plan is a Net with its parameters laid out for one level. It is immutable and
// safe for concurrent use; each worker brings its own Tile.
type Plan struct {
	net              *Net
	level            Level
	encoder, decoder []planLayer // the decoder without its last layer
	heads            []planHead  // the decoder's last layer in runs of one likelihood
	outputs          *Panels     // the same layer for a few rows
	weight           []float32   // [Features+Lanes] 1/(2 sd^2) of Gaussian outputs, else 0
	constant         []float64   // [Features] nats that an observed cell costs at least
	presence         []float64   // [Features] nats more when the block that begins there is missing
	complete         float64     // nats that a row with nothing missing costs at least
	few              bool        // there is a row-major path: all layers are float32
	stride           int         // from row to row in the row-major buffers
}

type planLayer struct {
	act    Activation // Identity when the dense kernel applies it, or there is none
	fused  Activation
	matrix *matrix
	panels *Panels
	out    int
}

// planHead is a run of outputs with one likelihood, short enough to stay in the
// first-level cache between the dense kernel and the head.
type planHead struct {
	kind    HeadKind
	from, n int
	matrix  *matrix
}

// runOutputs is the most outputs of a run that is not one categorical block: 48
// outputs of a tile are 12 KiB.
const runOutputs = 48

// fewRows is the most rows that go through the row-major path: from there on a
// slice of a tile costs less.
const fewRows = 12

// NewPlan lays params out for level. It copies what it needs.
//
// shift, if not nil, is what the caller adds to each feature of X, so that a
// value that is common may become zero and be skipped (Tile.Active): the first
// layer's biases take it out again, and the last layer's put it into the means of
// Gaussian outputs, which Out then has too. It must be zero for other outputs,
// and everywhere when OutAct is not Identity. The cells that are missing hold
// their shift.
func NewPlan(n *Net, params, shift []float32, level Level) *Plan {
	var first *Form
	if shift != nil {
		params = n.shifted(params, shift)
		first = n.Encoder[0].Form.moved(shift)
	}
	p := &Plan{net: n, level: level, weight: make([]float32, n.Features+Lanes),
		constant: make([]float64, n.Features), presence: make([]float64, n.Features)}
	p.few = level != BF16 && !n.bytes()
	widest := max(n.Inputs, n.Features)
	pack := func(layers []Layer) (out []planLayer) {
		for _, l := range layers {
			if first != nil {
				l.Form, first = first, nil
			}
			pl := planLayer{out: l.Out, act: l.Act}
			if l.Act == ReLU || l.Act == Leaky {
				pl.act, pl.fused = Identity, l.Act
			}
			w, b := params[l.W:l.W+l.In*l.Out], params[l.B:l.B+l.Out]
			pl.matrix = newMatrix(level, w, b, l.In, l.Out, l.Form)
			if p.few {
				pl.panels = PackPanels(level, w, b, l.In, l.Out)
			}
			widest = max(widest, l.Out)
			out = append(out, pl)
		}
		return out
	}
	last := len(n.Decoder) - 1
	p.encoder, p.decoder = pack(n.Encoder), pack(n.Decoder[:last])
	l := n.Decoder[last]
	w, b := params[l.W:l.W+l.In*l.Out], params[l.B:l.B+l.Out]
	if p.few {
		p.outputs = PackPanels(level, w, b, l.In, l.Out)
	}
	for _, run := range headRuns(n.Blocks) {
		run.matrix = newMatrix(level, w[run.from*l.In:(run.from+run.n)*l.In], b[run.from:run.from+run.n], l.In, run.n, l.Form.outputs(run.from, run.from+run.n))
		p.heads = append(p.heads, run)
	}
	p.stride = whole(widest+Lanes-1) + Lanes
	p.fixCosts(params)
	return p
}

// shifted returns a copy of params for features that are shifted.
func (n *Net) shifted(params, shift []float32) []float32 {
	params = append([]float32(nil), params...)
	l := n.Encoder[0]
	for o := range l.Out {
		sum := float64(params[l.B+o])
		for j, s := range shift {
			sum -= float64(params[l.W+o*l.In+j]) * float64(s)
		}
		params[l.B+o] = float32(sum)
	}
	l = n.Decoder[len(n.Decoder)-1]
	for j, s := range shift {
		params[l.B+j] += s
	}
	return params
}

// headRuns joins neighbouring blocks of one likelihood and cuts them to runOutputs.
func headRuns(blocks []Block) (runs []planHead) {
	for _, b := range blocks {
		kind := b.Kind
		if kind == GaussianFixed {
			kind = Gaussian
		}
		for from, end := b.From, b.From+b.N; from < end; {
			if len(runs) > 0 && kind != Categorical {
				if r := &runs[len(runs)-1]; r.kind == kind && r.n < runOutputs {
					take := min(runOutputs-r.n, end-from)
					r.n, from = r.n+take, from+take
					continue
				}
			}
			n := end - from
			if kind != Categorical {
				n = min(n, runOutputs)
			}
			runs = append(runs, planHead{kind: kind, from: from, n: n})
			from += n
		}
	}
	return runs
}

// fixCosts fills the parts of a score that do not depend on a cell's value.
func (p *Plan) fixCosts(params []float32) {
	n := p.net
	for _, b := range n.Blocks {
		for j := b.From; j < b.From+b.N; j++ {
			switch b.Kind {
			case Gaussian:
				ls := n.LogSDOf(params, j)
				p.weight[j], p.constant[j] = float32(0.5*math.Exp(-2*ls)), ls+HalfLog2Pi
			case GaussianFixed:
				p.weight[j], p.constant[j] = float32(0.5/(b.SD*b.SD)), math.Log(b.SD)+HalfLog2Pi
			}
			p.complete += p.constant[j]
		}
		if b.N > 0 {
			p.presence[b.From] = b.Missing - b.Present
		}
		p.complete += b.Present
	}
}

// TilesOnly makes the plan lay out even a few rows as a tile, for others that read
// it. It must be called before NewTile.
func (p *Plan) TilesOnly() { p.few = false }

// ReadsActive says whether the first layer gains from Tile.Active; others need no such
// list.
func (p *Plan) ReadsActive() bool { return p.encoder[0].matrix.indexed() }

// Level returns the level that the plan is for.
func (p *Plan) Level() Level { return p.level }

// A Tile is the working memory of one worker for the tiles of one Plan: the
// caller fills X and Missing for up to Rows rows, the Plan sets the rest. It
// allocates nothing after NewTile.
type Tile struct {
	// X holds the inputs: feature f of row r stands at f*FeatureStride +
	// r*RowStride. Lanes of a tile beyond the rows in use are zero up to the next
	// multiple of Lanes.
	X                        []float32
	FeatureStride, RowStride int
	// Missing has bit r of element f set where feature f of row r is missing; X is
	// zero (or the feature's shift) there. AnyMissing says whether any bit is set.
	Missing    []uint64 // [Features]
	AnyMissing bool
	// Active lists, ascending, the inputs that may have a lane other than zero;
	// nil means all of them. Only for tiles, not for row-major X.
	Active []uint32

	// Results. Recon and KL are sums per row in nats, set by every scoring.
	Recon, KL [Rows]float32
	// The others are tiles, set in detail only: the posterior, the latents that
	// were decoded, means or logits, and the parts of KL and Recon.
	Mu, LogVar, Z []float32 // [Latent][Rows]
	Out           []float32 // [Features][Rows]
	LatentKL      []float32 // [Latent][Rows] nats
	Terms         []float32 // [Features][Rows] nats

	rows  int
	tileX []float32 // [Inputs][Rows]
	a, b  []float32 // [widest][Rows], activations
	part  []float32 // [2][longest run of outputs][Rows]
	in    layerInputs

	rowX, rowA, rowB, rowQ []float32 // [fewRows][stride]: inputs, activations, costs
	rowMu, rowLV, rowKL    []float32 // [fewRows][latents up to a multiple of Lanes]
}

// NewTile makes the working memory of one worker.
func (p *Plan) NewTile() *Tile {
	n := p.net
	widest, longest := 2*n.Latent, 0
	var in layerInputs
	for _, layers := range [][]planLayer{p.encoder, p.decoder} {
		for _, l := range layers {
			widest = max(widest, l.out)
			in.room(l.matrix)
		}
	}
	for _, h := range p.heads {
		longest = max(longest, h.n)
		in.room(h.matrix)
	}
	tile := func(f int) []float32 { return aligned[float32](f * Rows) }
	t := &Tile{Missing: make([]uint64, n.Features), tileX: tile(n.Inputs),
		Mu: tile(n.Latent), LogVar: tile(n.Latent), Z: tile(n.Latent), LatentKL: tile(n.Latent),
		Out: tile(n.Features), Terms: tile(n.Features), a: tile(widest), b: tile(widest), part: tile(2 * longest), in: in}
	if !p.few {
		return t
	}
	few := func() []float32 { return aligned[float32](fewRows * p.stride) }
	latents := func() []float32 { return aligned[float32](fewRows * whole(n.Latent+Lanes-1)) }
	t.rowX, t.rowA, t.rowB, t.rowQ = few(), few(), few(), few()
	t.rowMu, t.rowLV, t.rowKL = latents(), latents(), latents()
	return t
}

// Begin readies t for rows rows and says, by X and its strides, how they are to
// be laid out: as a tile, or row-major where the rows are few and no detail is
// wanted.
func (p *Plan) Begin(t *Tile, rows int, detail bool) {
	must(rows >= 1 && rows <= Rows, "rows of a tile out of range")
	t.rows, t.Active = rows, nil
	if rows <= fewRows && !detail && p.few {
		t.X, t.FeatureStride, t.RowStride = t.rowX, 1, p.stride
		return
	}
	t.X, t.FeatureStride, t.RowStride = t.tileX, Rows, 1
}

// slices is how many runs of Lanes rows hold the tile's rows.
func (t *Tile) slices() int { return (t.rows + Lanes - 1) / Lanes }

// Score computes Recon and KL of the tile's rows at the posterior mean. With
// detail, which needs the tile layout, it also fills the other results. A row's
// bits depend neither on detail nor on the rows beside it.
func (p *Plan) Score(t *Tile, detail bool) {
	if t.RowStride != 1 {
		must(!detail, "detail of rows that are not a tile")
		p.scoreRows(t)
		return
	}
	p.Encode(t)
	copy(t.Z, t.Mu)
	if detail {
		p.Decode(t)
		p.SetTerms(t)
		return
	}
	x := p.hidden(t)
	var sums [Rows]float32
	for _, h := range p.heads {
		p.addHead(t, h, x, sums[:])
	}
	p.finish(t, &sums)
}

// Encode computes Mu, LogVar, LatentKL and KL of a tile.
func (p *Plan) Encode(t *Tile) {
	n := p.net.Latent
	x := t.layers(p.level, p.encoder, t.tileX, t.Active)
	copy(t.Mu, x[:n*Rows])
	vecClampLogVar(p.level, t.LogVar, x[n*Rows:2*n*Rows])
	vecKL(p.level, t.LatentKL, t.Mu, t.LogVar)
	clear(t.KL[:])
	vecAddTerms(p.level, t.KL[:], t.LatentKL, t.slices())
}

// layers takes a tile through a stack and returns the last layer's outputs.
func (t *Tile) layers(level Level, layers []planLayer, x []float32, active []uint32) []float32 {
	y, spare := t.a, t.b
	for _, l := range layers {
		out := y[:l.out*Rows]
		l.matrix.prepare(&t.in, x, t.slices())
		l.matrix.apply(&t.in, out, x, active, l.fused, t.slices())
		if l.act != Identity {
			vecActivate(level, l.act, out, out)
		}
		x, y, spare, active = out, spare, y, nil
	}
	return x
}

// hidden takes the latents in Z through all of the decoder but its last layer,
// and readies that.
func (p *Plan) hidden(t *Tile) []float32 {
	x := t.layers(p.level, p.decoder, t.Z, nil)
	p.heads[0].matrix.prepare(&t.in, x, t.slices())
	return x
}

// outputsOf computes a run of the last layer's outputs, before their activation,
// from what hidden left.
func (p *Plan) outputsOf(t *Tile, h planHead, y, x []float32) {
	h.matrix.apply(&t.in, y, x, nil, Identity, t.slices())
}

// addHead adds the value-dependent costs of a run of outputs to the rows' sums.
func (p *Plan) addHead(t *Tile, h planHead, x, sums []float32) {
	lo, hi, s := h.from*Rows, (h.from+h.n)*Rows, t.slices()
	y, target := t.part[:h.n*Rows], t.tileX[lo:hi]
	p.outputsOf(t, h, y, x)
	if t.AnyMissing && anySet(t.Missing[h.from:h.from+h.n]) || h.kind == Categorical {
		q := t.part[h.n*Rows : 2*h.n*Rows]
		p.outActivation(h, y)
		p.headTerms(t, h, q, y)
		vecAddTerms(p.level, sums, q, s)
		return
	}
	w := p.weight[h.from : h.from+h.n]
	switch {
	case h.kind == Bernoulli:
		vecBernSum(p.level, sums, y, target, s, 0)
	case p.net.OutAct == Sigmoid:
		vecGaussSigmoidSum(p.level, sums, y, target, w, s)
	default:
		p.outActivation(h, y)
		vecGaussSum(p.level, sums, y, target, w, s)
	}
}

// outActivation turns a run of Gaussian outputs into means, in place.
func (p *Plan) outActivation(h planHead, y []float32) {
	if h.kind == Gaussian && p.net.OutAct != Identity {
		vecActivate(p.level, p.net.OutAct, y, y)
	}
}

// headTerms writes the value-dependent costs of a run of outputs y to q: zero
// where a cell is missing. A categorical block's stand at its first output.
func (p *Plan) headTerms(t *Tile, h planHead, q, y []float32) {
	target, s := t.tileX[h.from*Rows:(h.from+h.n)*Rows], t.slices()
	switch h.kind {
	case Gaussian:
		vecGaussTerms(p.level, q, y, target, p.weight[h.from:h.from+h.n], s)
	case Bernoulli:
		vecBernTerms(p.level, q, y, target, s, 0)
	case Categorical:
		clear(q)
		vecCatTerms(p.level, q[:Rows], y, target, s, 0)
	}
	if t.AnyMissing {
		for j, bits := range t.Missing[h.from : h.from+h.n] {
			eachBit(bits, func(r int) { q[j*Rows+r] = 0 })
		}
	}
}

// Decode computes Out from the latents in Z of a tile.
func (p *Plan) Decode(t *Tile) {
	x := p.hidden(t)
	for _, h := range p.heads {
		y := t.Out[h.from*Rows : (h.from+h.n)*Rows]
		p.outputsOf(t, h, y, x)
		p.outActivation(h, y)
	}
}

// SetTerms computes Terms and Recon of a tile from Out. The terms of a row add
// up to its Recon, up to rounding: a term holds what its cell costs at least, and
// a block's first term what it costs that the block is there or missing.
func (p *Plan) SetTerms(t *Tile) {
	var sums [Rows]float32
	for _, h := range p.heads {
		lo, hi := h.from*Rows, (h.from+h.n)*Rows
		p.headTerms(t, h, t.Terms[lo:hi], t.Out[lo:hi])
	}
	vecAddTerms(p.level, sums[:], t.Terms, t.slices())
	p.finish(t, &sums)
	for _, b := range p.net.Blocks {
		for j := b.From; j < b.From+b.N; j++ {
			term, c := t.Terms[j*Rows:(j+1)*Rows], float32(p.constant[j])
			for r := range term {
				if t.Missing[j]>>r&1 == 0 {
					term[r] += c
				}
			}
		}
		gone := t.gone(b)
		for r := range Rows {
			cost := b.Present
			if gone>>r&1 != 0 {
				cost = b.Missing
			}
			t.Terms[b.From*Rows+r] += float32(cost)
		}
	}
}

// gone has a bit for each row that misses any of a block.
func (t *Tile) gone(b Block) (bits uint64) {
	if t.AnyMissing {
		for _, m := range t.Missing[b.From : b.From+b.N] {
			bits |= m
		}
	}
	return bits
}

// finish turns sums of value-dependent costs into Recon.
func (p *Plan) finish(t *Tile, sums *[Rows]float32) {
	if !t.AnyMissing {
		for r := range t.rows {
			t.Recon[r] = float32(float64(sums[r]) + p.complete)
		}
		return
	}
	var base [Rows]float64
	for r := range base {
		base[r] = p.complete
	}
	for _, b := range p.net.Blocks {
		gone := t.gone(b)
		if gone == 0 {
			continue
		}
		for j := b.From; j < b.From+b.N; j++ {
			eachBit(t.Missing[j], func(r int) { base[r] -= p.constant[j] })
		}
		eachBit(gone, func(r int) { base[r] += p.presence[b.From] })
	}
	for r := range t.rows {
		t.Recon[r] = float32(float64(sums[r]) + base[r])
	}
}
