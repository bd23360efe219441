package train

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// ErrTooFewRows is returned for a table that is too small to learn from.
var ErrTooFewRows = errors.New("too few rows")

// A DivergedError says where training left the finite numbers.
type DivergedError struct {
	Step   int
	Loss   float64
	Column string // the column with the largest reconstruction error
}

// Error names the step, the column and the next step to take.
func (e *DivergedError) Error() string {
	return fmt.Sprintf("training diverged at step %d: the loss is %v, column %q has the largest error; "+
		"try a lower --rate, --transform %s=log1p, or --ignore %s", e.Step, e.Loss, e.Column, e.Column, e.Column)
}

// Run trains a model on the rows of d. When ctx ends before training does, Run
// leaves a checkpoint (if one was asked for) and returns ctx's error.
func Run(ctx context.Context, c Config, d Data) (*vae.Model, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	t, warnings, err := prepare(ctx, c, d)
	if err != nil {
		return nil, err
	}
	r, err := newRun(c, t)
	if err != nil {
		return nil, err
	}
	defer r.pool.start()()
	if c.Resume {
		if err := r.load(c.Checkpoint); err != nil {
			return nil, fmt.Errorf("resume from %s: %w", c.Checkpoint, err)
		}
	}
	if err := r.loop(ctx); err != nil {
		if ctx.Err() != nil && c.Checkpoint != "" {
			return nil, errors.Join(err, r.save(c.Checkpoint))
		}
		return nil, err
	}
	return r.finish(warnings)
}

// prepare profiles the rows, fits the preprocessing and packs the table.
func prepare(ctx context.Context, c Config, d Data) (*table, []string, error) {
	units, err := d.Units(ctx)
	if err != nil {
		return nil, nil, err
	}
	total := int64(0)
	for _, n := range units {
		total += n
	}
	if total < minRows {
		return nil, nil, fmt.Errorf("%d rows, at least %d are needed: %w", total, minRows, ErrTooFewRows)
	}
	s, err := newSplit(ctx, c, d, total)
	if err != nil {
		return nil, nil, err
	}
	spec, trained, warnings, err := profiled(ctx, c, d, s)
	if err == nil && c.Contamination > 0 {
		if err = s.leaveOut(ctx, c, d, spec); err == nil {
			spec, trained, warnings, err = profiled(ctx, c, d, s)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if total < fewRows {
		warnings = append(warnings, fmt.Sprintf("only %d rows: scores and limits from fewer than %d rows are rough", total, fewRows))
	}
	t, err := pack(ctx, c, d, spec, s, trained)
	return t, warnings, err
}

// profiled fits the preprocessing to the rows that are to be trained on, and
// returns their number.
func profiled(ctx context.Context, c Config, d Data, s *split) (spec *vae.Spec, trained int64, warnings []string, err error) {
	schema, err := d.Schema(ctx)
	if err != nil {
		return nil, 0, nil, err
	}
	profile, err := vae.NewProfile(schema, c.Ignore, c.Overrides)
	if err != nil {
		return nil, 0, nil, err
	}
	held := int64(0)
	err = each(ctx, d, func(first int64, rec arrow.Record) error {
		out, err := s.held(first, rec)
		if err != nil {
			return err
		}
		pick(int(rec.NumRows()), func(i int) bool {
			left := s.isOut(first + int64(i))
			if out(i) && !left {
				held++
			}
			return !out(i) && !left
		}, func(from, to int) {
			slice := rec.NewSlice(int64(from), int64(to))
			defer slice.Release()
			err = errors.Join(err, profile.Add(slice))
		})
		return err
	})
	if err != nil {
		return nil, 0, nil, err
	}
	if held < vae.MinCalibration || profile.Rows < minTrained {
		return nil, 0, nil, fmt.Errorf("%d rows to train on and %d held out: %w", profile.Rows, held, ErrTooFewRows)
	}
	network := c.Network
	network.Columns, warnings = profile.Columns()
	if len(network.Columns) == 0 {
		return nil, 0, nil, fmt.Errorf("no column is usable: %v", warnings)
	}
	if allConstant(network.Columns) {
		return nil, 0, nil, errors.New("every column is constant or nearly so: there is nothing to learn")
	}
	network.DefaultNetwork()
	return &network, profile.Rows, warnings, network.Validate()
}

// allConstant says whether every column had one value only.
func allConstant(cols []vae.Column) bool {
	for i := range cols {
		c := &cols[i]
		if c.Kind == vae.Boolean || c.Indicator || c.Others || len(c.Levels) > 1 {
			return false
		}
		for _, constant := range c.Constant {
			if !constant {
				return false
			}
		}
	}
	return true
}

// A run is a training under way.
type run struct {
	c     Config
	t     *table
	net   *kernel.Net
	steps int

	params []float32
	opt    optimizer
	pool   *pool
	state  state
}

// state is what a checkpoint holds besides parameters and optimizer.
type state struct {
	Step    int         `json:"step"` // steps taken
	Best    float64     `json:"best"` // held-out loss of best; 0 before the first evaluation
	AtBest  int         `json:"at_best"`
	Worse   int         `json:"worse"` // evaluations since the best
	Stopped bool        `json:"stopped"`
	Curve   []vae.Point `json:"curve"`
	// Sums since the last evaluation, in nats per batch row.
	Loss, Recon, KL float64
	Batches         int

	best []float32
}

func newRun(c Config, t *table) (*run, error) {
	r := &run{c: c, t: t, net: t.spec.Net(), steps: c.Steps}
	if r.steps == 0 {
		r.steps = DefaultSteps(t.trainN, c.Batch)
	}
	if r.c.EvalEvery == 0 {
		r.c.EvalEvery = max(1, r.steps/20)
	}
	r.params = initial(r.net, c.Seed)
	level, err := c.kernelLevel()
	if err != nil {
		return nil, err
	}
	if r.opt, err = newOptimizer(c.Optimizer, len(r.params), level); err != nil {
		return nil, err
	}
	r.pool = newPool(r.net, level, min(c.Batch, int(min(t.trainN, math.MaxInt32))), c.Workers)
	if !c.asIs {
		r.pool.gaps = gapsOf(t.spec)
	}
	return r, nil
}

// kernelLevel is the level of the kernels that train: the process's own.
func (c Config) kernelLevel() (kernel.Level, error) {
	if c.level != nil {
		return kernel.TrainingLevel(*c.level), nil
	}
	level, err := kernel.Active()
	return kernel.TrainingLevel(level), err
}

// initial draws weights and biases from U(-1/sqrt(in), 1/sqrt(in)); log standard
// deviations start at 0.
func initial(n *kernel.Net, seed uint64) []float32 {
	p := make([]float32, n.Params)
	for _, stack := range [][]kernel.Layer{n.Encoder, n.Decoder} {
		for _, l := range stack {
			bound := 1 / math.Sqrt(float64(l.In))
			for i := l.W; i < l.B+l.Out; i++ {
				u := float64(hash(seed, streamInit, uint64(i))>>11) / (1 << 53)
				p[i] = float32((2*u - 1) * bound)
			}
		}
	}
	return p
}

// loop takes steps until the budget is spent or the held-out loss stops falling.
func (r *run) loop(ctx context.Context) error {
	if r.state.Stopped || r.state.Step >= r.steps {
		return nil
	}
	for b, err := range r.t.batches(ctx, r.c, r.state.Step) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if err := r.step(b); err != nil {
			return err
		}
		if r.state.Step%r.c.EvalEvery == 0 || r.state.Step == r.steps {
			if err := r.evaluate(); err != nil {
				return err
			}
		} else if r.c.Progress != nil && r.state.Step%10 == 0 {
			r.report(false)
		}
		if r.state.Stopped || r.state.Step >= r.steps {
			return nil
		}
	}
	return ctx.Err()
}

// step is one update of the parameters.
func (r *run) step(b batch) error {
	s := &r.state
	beta := *r.c.Beta
	if s.Step < r.c.KLWarmup {
		beta *= float64(s.Step+1) / float64(r.c.KLWarmup)
	}
	if r.c.Contamination > 0 && s.Step >= trimFrom {
		b = r.trimmed(b)
	}
	smooth := 1 / float64(r.t.trainN+2)
	res := r.pool.gradients(r.params, b, r.c.Seed, uint64(s.Step), kernel.Objective{Beta: beta, FreeBits: r.c.FreeBits, Smooth: smooth})
	loss := res.recon + beta*res.kl
	if !(math.Abs(loss) < 1e30) || !(res.norm < 1e30) {
		return &DivergedError{Step: s.Step + 1, Loss: loss, Column: r.worstColumn(res.perFeature)}
	}
	r.pool.update(r.opt, r.params, r.c.Schedule.At(r.c.Rate, s.Step, r.steps), res.norm, r.c.Clip)
	s.Step++
	s.Loss, s.Recon, s.KL, s.Batches = s.Loss+loss, s.Recon+res.recon, s.KL+res.kl, s.Batches+1
	return nil
}

func (r *run) worstColumn(perFeature []float64) string {
	sums := make([]float64, len(r.t.spec.Columns))
	f := 0
	for i := range sums {
		for range r.t.spec.Columns[i].Features() {
			sums[i] += perFeature[f]
			f++
		}
	}
	return r.t.spec.Columns[largest(sums)].Name
}

// evaluate scores the held-out rows, keeps the best parameters and decides
// whether to go on.
func (r *run) evaluate() error {
	s := &r.state
	e := r.pool.evaluate(r.params, r.t.held, r.t.held.n)
	loss := e.recon + e.kl
	if !(math.Abs(loss) < 1e30) {
		return &DivergedError{Step: s.Step, Loss: loss, Column: r.worstColumn(e.perFeature)}
	}
	n := float64(max(s.Batches, 1))
	s.Curve = append(s.Curve, vae.Point{Step: s.Step, Loss: round(s.Loss / n), Recon: round(s.Recon / n), KL: round(s.KL / n), HeldOut: round(loss)})
	s.Loss, s.Recon, s.KL, s.Batches = 0, 0, 0, 0
	if s.best == nil || loss < s.Best {
		s.Best, s.AtBest, s.Worse = loss, s.Step, 0
		s.best = append(s.best[:0], r.params...)
	} else if s.Worse++; r.c.Patience > 0 && s.Worse >= r.c.Patience {
		s.Stopped = true
	}
	if r.c.Progress != nil {
		r.report(true)
	}
	if r.c.Checkpoint != "" && len(s.Curve)%r.c.CheckpointEvery == 0 {
		return r.save(r.c.Checkpoint)
	}
	return nil
}

func (r *run) report(evaluated bool) {
	s := &r.state
	n := float64(max(s.Batches, 1))
	p := Progress{Steps: r.steps, Rows: int64(s.Step) * int64(r.pool.batch), Evaluated: evaluated,
		Point: vae.Point{Step: s.Step, Loss: s.Loss / n, Recon: s.Recon / n, KL: s.KL / n}}
	if last := len(s.Curve) - 1; last >= 0 {
		if evaluated {
			p.Point = s.Curve[last]
		} else {
			p.HeldOut = s.Curve[last].HeldOut
		}
	}
	r.c.Progress(p)
}

// round keeps six significant digits, enough for a curve that people read.
func round(v float64) float64 {
	if v == 0 {
		return 0
	}
	unit := math.Pow(10, 5-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*unit) / unit
}

// columnFits fills the summary's columns.
func (r *run) columnFits(tr *vae.Training, perFeature []float64) {
	f := 0
	for i := range r.t.spec.Columns {
		c := &r.t.spec.Columns[i]
		fit := vae.ColumnFit{Name: c.Name}
		for range c.Features() {
			fit.HeldOut += perFeature[f]
			if c.Head == vae.Gaussian {
				if sd := math.Exp(r.net.LogSDOf(r.state.best, f)); fit.SD == 0 || sd < fit.SD {
					fit.SD = round(sd)
				}
			}
			f++
		}
		fit.HeldOut = round(fit.HeldOut)
		tr.Columns = append(tr.Columns, fit)
	}
}

// trainSample returns training rows to measure the fit on and to calibrate with:
// all, or maxHeldOut from the whole length of the table.
func (r *run) trainSample() (*rows, error) {
	t := r.t.train
	if t != nil && t.n <= maxHeldOut {
		return t, nil
	}
	out := &rows{inputs: r.t.held.inputs, features: r.t.held.features}
	if t != nil {
		for i := range maxHeldOut {
			out.addRow(t, i*t.n/maxHeldOut)
		}
		return out, nil
	}
	for x, err := range r.t.shuffled(context.Background(), r.c, 0) {
		if err != nil {
			return nil, err
		}
		if out.addRow(x.rows, x.row); out.n == maxHeldOut {
			break
		}
	}
	return out, nil
}
