package vae

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// Options say what a Scorer computes besides the three scores of a row.
type Options struct {
	// Top is how many columns to blame; 0 means 5, below 0 none.
	Top int
	// ScoresOnly leaves P and Anomaly of the Result empty and blames no column.
	ScoresOnly bool
	// TopAll blames columns for every row, not only for those over the limit.
	TopAll         bool
	Contributions  bool // Result.Columns and Result.Latents
	Latent         bool // Result.Mu and Result.LogVar
	Reconstruction bool // Result.Out
	Error          bool // Result.Error
	// Samples above 0 replaces the reconstruction error at the posterior mean by
	// its mean over that many draws from the posterior (the reconstruction
	// probability of An and Cho 2015, as a negative log). The draws depend on
	// Seed and on the row's own values, so that the same row has the same score.
	Samples   int
	Seed      uint64
	Precision Precision
}

// Precision is the number format of weights and activations; sums are float32
// in both. Empty means Float32.
type Precision string

// The precisions. BF16 rounds weights and activations to bfloat16, which moves
// scores by some parts in ten thousand; it needs a CPU with AVX512-BF16.
const (
	Float32 Precision = "float32"
	BF16    Precision = "bf16"
)

// Valid returns an error when p names no precision.
func (p Precision) Valid() error {
	if p == "" || p == Float32 || p == BF16 {
		return nil
	}
	return fmt.Errorf("precision %q: want float32 or bf16", string(p))
}

// A Result holds what one record was scored to. Its slices belong to the Scorer
// and last until its next call. R is the number of rows.
type Result struct {
	Recon   []float32  // [R] reconstruction error of the autoencoder: negative log-likelihood summed over columns, nats
	KL      []float32  // [R] KL(q(z|x), N(0,1)) summed over latents, nats
	Mixture []float32  // [R] negative log-likelihood under the mixture, nats; empty without one
	Score   []float32  // [R] Recon + KL; with a mixture the members' surprises and what is new, nats
	P       []float64  // [R] tail probability of Score among held-out normal rows; empty with ScoresOnly
	Flags   []RowFlags // [R]
	Anomaly []bool     // [R] Score above the model's limit; empty with ScoresOnly
	Error   []float32  // [R] mean squared error over observed features on the standardised scale
	Columns []float32  // [R][columns] contribution of each column to Recon, nats
	Latents []float32  // [R][latent] contribution of each latent to KL, nats
	Mu      []float32  // [R][latent] posterior mean
	LogVar  []float32  // [R][latent] posterior log-variance, clamped to [-12, 6]
	Out     []float32  // [R][features] decoder outputs: means on the feature's scale, or logits
	Top     [][]Blame  // [R] nil for rows that were not to be explained
}

// Blame is one column's (or latent's) part in a score.
type Blame struct {
	Column       string
	Contribution float32 // nats more than in usual rows; those of all columns and latents add up to the score
	Value        string  // in the column's own units; "null" when missing
	Expected     string  // what the model would have put there
	Deviation    float64 // value minus expected in the column's own units; NaN where that has no meaning
}

// A Scorer scores records of one schema. It belongs to one goroutine.
type Scorer struct {
	m      *Model
	opts   Options
	packer *Packer
	packed Packed
	plan   *kernel.Plan
	t      *kernel.Tile
	w      *kernel.MixtureTile // nil without a mixture
	res    Result
	terms  []float64 // of a row under the mixture
	column []int     // of a feature
	place  []int     // of a feature in its column
	extra  []float32 // terms summed over samples
}

// NewScorer finds the model's columns in schema; the error is a *SchemaError
// that lists every fault.
func (m *Model) NewScorer(schema *arrow.Schema, o Options) (*Scorer, error) {
	packer, err := m.Spec.newPacker(schema, m.shift)
	if err != nil {
		return nil, err
	}
	plan, err := m.planFor(o.Precision)
	if err != nil {
		return nil, err
	}
	packer.sparse = packer.sparse && (plan.ReadsActive() || m.mix != nil && m.mix.ReadsActive())
	if o.Top == 0 {
		o.Top = 5
	}
	if o.ScoresOnly {
		o.Top = -1
	}
	s := newScorer(m, plan)
	s.opts, s.packer = o, packer
	return s, nil
}

// NewDecoder returns a Scorer that can only Decode.
func (m *Model) NewDecoder() *Scorer { return newScorer(m, m.plan) }

func newScorer(m *Model, plan *kernel.Plan) *Scorer {
	s := &Scorer{m: m, plan: plan, t: plan.NewTile(), extra: make([]float32, m.net.Features*TileRows)}
	if m.mix != nil {
		s.w, s.terms = m.mix.NewTile(), make([]float64, m.net.Features)
	}
	s.column, s.place = m.Spec.featureColumn()
	return s
}

// Score scores the rows of rec, which it borrows. The result lasts until the
// next call.
func (s *Scorer) Score(rec arrow.Record) (*Result, error) {
	if err := s.packer.BindTo(&s.packed, rec); err != nil {
		return nil, err
	}
	rows := int(rec.NumRows())
	s.reserve(rows)
	for from := 0; from < rows; from += TileRows {
		s.tile(from, min(TileRows, rows-from))
	}
	return &s.res, nil
}

func (s *Scorer) reserve(rows int) {
	r, latent := &s.res, s.m.net.Latent
	r.Recon, r.KL, r.Score = resize(r.Recon, rows), resize(r.KL, rows), resize(r.Score, rows)
	r.Flags = resize(r.Flags, rows)
	if s.w != nil {
		r.Mixture = resize(r.Mixture, rows)
	}
	if !s.opts.ScoresOnly {
		r.P, r.Anomaly, r.Top = resize(r.P, rows), resize(r.Anomaly, rows), resize(r.Top, rows)
		clear(r.Top)
	}
	if s.opts.Error {
		r.Error = resize(r.Error, rows)
	}
	if s.opts.Contributions {
		r.Columns = resize(r.Columns, rows*len(s.m.Spec.Columns))
		r.Latents = resize(r.Latents, rows*latent)
	}
	if s.opts.Latent {
		r.Mu, r.LogVar = resize(r.Mu, rows*latent), resize(r.LogVar, rows*latent)
	}
	if s.opts.Reconstruction {
		r.Out = resize(r.Out, rows*s.m.net.Features)
	}
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// tile scores rows [from, from+n) of the record that is bound.
func (s *Scorer) tile(from, n int) {
	o, t, r, cal := &s.opts, s.t, &s.res, s.m.Calibration
	detail := o.Top > 0 && o.TopAll || o.Contributions || o.Latent || o.Reconstruction || o.Error || o.Samples > 0
	s.pack(from, n, detail)
	s.score(detail)
	if detail {
		s.detail(from, n)
	}
	flagged := false
	for i := range n {
		score := s.join(from+i, i)
		if o.ScoresOnly {
			continue
		}
		r.P[from+i] = cal.P(float64(score))
		r.Anomaly[from+i] = float64(score) > cal.Limit
		flagged = flagged || r.Anomaly[from+i]
	}
	if o.Top <= 0 || !o.TopAll && !flagged {
		return
	}
	if !detail { // only now is it known that some rows need it
		if t.RowStride != 1 {
			s.pack(from, n, true)
		}
		s.score(true)
	}
	for i := range n {
		if o.TopAll || r.Anomaly[from+i] {
			r.Top[from+i] = s.explain(from+i, i)
		}
	}
}

// score takes the tile through the members.
func (s *Scorer) score(detail bool) {
	if s.w != nil {
		s.m.mix.Score(s.t, s.w)
	}
	s.plan.Score(s.t, detail)
}

// join writes the scores of lane i of the tile, which is a row of the result.
func (s *Scorer) join(row, i int) float32 {
	r := &s.res
	news := s.packed.News(i)
	recon, kl := bounded(s.t.Recon[i]), bounded(s.t.KL[i])
	elbo := recon + kl
	recon = bounded(recon + float32(news))
	score := recon + kl
	if s.w != nil {
		r.Mixture[row] = bounded(s.w.Cost[i])
		score = bounded(float32(s.m.fuse(float64(elbo), float64(r.Mixture[row]), news)))
	}
	r.Recon[row], r.KL[row], r.Score[row] = recon, kl, score
	return score
}

// pack fills the tile with rows [from, from+n).
func (s *Scorer) pack(from, n int, detail bool) {
	t := s.t
	s.plan.Begin(t, n, detail)
	t.AnyMissing = s.packed.Pack(from, n, t.X, t.FeatureStride, t.RowStride, t.Missing, s.res.Flags[from:from+n])
	if t.RowStride == 1 {
		t.Active = s.packed.Active
	}
}

// detail copies what was asked for besides the scores out of the tile.
func (s *Scorer) detail(from, n int) {
	t, net, r := s.t, s.m.net, &s.res
	if s.opts.Reconstruction {
		s.takeOut(from, n)
	}
	s.meanError(from, n)
	if s.opts.Samples > 0 {
		s.sample()
	}
	if s.opts.Latent {
		transpose(r.Mu[from*net.Latent:(from+n)*net.Latent], t.Mu, net.Latent)
		transpose(r.LogVar[from*net.Latent:(from+n)*net.Latent], t.LogVar, net.Latent)
	}
	if s.opts.Contributions {
		s.contributions(from, n)
	}
}

// maxPart is what a part of a score counts as when its sum overflows: a row that
// far out is strange, and must not score NaN, which is above no limit.
const maxPart = 1e38

func bounded(v float32) float32 {
	if !(v < maxPart) {
		return maxPart
	}
	return max(v, -maxPart)
}

// transpose copies a tile [features][TileRows] to rows [len/features][features].
func transpose(dst, tile []float32, features int) {
	for r := range len(dst) / features {
		row := dst[r*features : (r+1)*features]
		for f := range row {
			row[f] = tile[f*TileRows+r]
		}
	}
}

// takeOut copies the decoder's outputs of n rows out of the tile.
func (s *Scorer) takeOut(from, n int) {
	features := s.m.net.Features
	out := s.res.Out[from*features : (from+n)*features]
	transpose(out, s.t.Out, features)
	for r := 0; s.m.shift != nil && r < n; r++ {
		for f, by := range s.m.shift {
			out[r*features+f] -= by
		}
	}
}

// shift returns what the plan adds to feature f.
func (s *Scorer) shift(f int) float32 {
	if s.m.shift == nil {
		return 0
	}
	return s.m.shift[f]
}

// meanError fills Error: squared error per observed feature. Bernoulli and
// categorical outputs count as probabilities.
func (s *Scorer) meanError(from, n int) {
	if !s.opts.Error {
		return
	}
	var sum, seen [TileRows]float32
	for _, b := range s.m.net.Blocks {
		for r := range n {
			probs := s.outputs(b, r)
			for j := range b.N {
				if f := b.From + j; s.t.Missing[f]>>r&1 == 0 {
					d := probs[j] + s.shift(f) - s.t.X[f*TileRows+r]
					sum[r] += float32(d * d)
					seen[r]++
				}
			}
		}
	}
	for r := range n {
		s.res.Error[from+r] = sum[r] / max(seen[r], 1)
	}
}

// outputs returns block b of row r of the tile as means or probabilities.
func (s *Scorer) outputs(b kernel.Block, r int) []float32 {
	s.extra = s.extra[:cap(s.extra)]
	out := s.extra[:b.N]
	for j := range out {
		out[j] = s.t.Out[(b.From+j)*TileRows+r] - s.shift(b.From+j)
	}
	toProbabilities(b.Kind, out)
	return out
}

// toProbabilities turns logits into probabilities and leaves means alone.
func toProbabilities(kind kernel.HeadKind, v []float32) {
	switch kind {
	case kernel.Bernoulli:
		kernel.Activate(kernel.Sigmoid, v, v)
	case kernel.Categorical:
		kernel.Softmax(v)
	}
}

// sample replaces the tile's terms by their mean over draws from the posterior,
// and Recon by their sum.
func (s *Scorer) sample() {
	t, net := s.t, s.m.net
	var keys [TileRows]uint64
	for r := range keys {
		keys[r] = s.rowKey(r)
	}
	sum := s.extra[:len(t.Terms)]
	clear(sum)
	for draw := range s.opts.Samples {
		for l := range net.Latent {
			for r := range TileRows {
				i := l*TileRows + r
				eps := normal(stir(keys[r], uint64(draw)<<32|uint64(l)))
				t.Z[i] = t.Mu[i] + float32(eps*math.Exp(0.5*float64(t.LogVar[i])))
			}
		}
		s.plan.Decode(t)
		s.plan.SetTerms(t)
		for i, v := range t.Terms {
			sum[i] += v
		}
	}
	copy(t.Z, t.Mu) // explanations show the posterior mean's reconstruction
	s.plan.Decode(t)
	clear(t.Recon[:])
	for i, v := range sum {
		t.Terms[i] = v / float32(s.opts.Samples)
		t.Recon[i%TileRows] += t.Terms[i]
	}
}

// rowKey hashes what the model reads of row r of the tile, with the seed.
func (s *Scorer) rowKey(r int) uint64 {
	key := s.opts.Seed
	for i := r; i < len(s.t.X); i += TileRows {
		key = stir(key, uint64(math.Float32bits(s.t.X[i])))
	}
	for _, m := range s.t.Missing {
		key = stir(key, m>>r&1)
	}
	return key
}

func (s *Scorer) contributions(from, n int) {
	r, columns, latent := &s.res, len(s.m.Spec.Columns), s.m.net.Latent
	clear(r.Columns[from*columns : (from+n)*columns])
	for f, c := range s.column {
		for i := range n {
			r.Columns[(from+i)*columns+c] += s.t.Terms[f*TileRows+i]
		}
	}
	for _, f := range s.packed.found {
		for rows := f.rows; rows != 0; rows &= rows - 1 {
			r.Columns[(from+bits.TrailingZeros64(rows))*columns+f.watch.column] += float32(f.watch.cost)
		}
	}
	transpose(r.Latents[from*latent:(from+n)*latent], s.t.LatentKL, latent)
}

// Decode computes the decoder's outputs for rows of latents [rows][latent], as
// Result.Out has them. The result lasts until the next call.
func (s *Scorer) Decode(mu []float32) []float32 {
	net := s.m.net
	rows := len(mu) / net.Latent
	s.res.Out = resize(s.res.Out, rows*net.Features)
	for from := 0; from < rows; from += TileRows {
		n := min(TileRows, rows-from)
		s.plan.Begin(s.t, n, true)
		clear(s.t.Z)
		for i := range n {
			for l := range net.Latent {
				s.t.Z[l*TileRows+i] = mu[(from+i)*net.Latent+l]
			}
		}
		s.plan.Decode(s.t)
		s.takeOut(from, n)
	}
	return s.res.Out
}
