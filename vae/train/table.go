package train

import (
	"context"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// A Table is Data packed for models of the same columns, split as Run would split
// it: rows to fit to and rows to judge by. It is what a model that was made by
// other means than Run is finished with. It belongs to one goroutine.
type Table struct {
	c    Config
	t    *table
	seen *rows // of the rows to fit to
}

// NewTable reads d once. Of c it needs what splits and what calibrates: Seed,
// HeldOut, TimeColumn, Contamination, TargetRate, Workers and Memory.
func NewTable(ctx context.Context, c Config, d Data, spec *vae.Spec) (*Table, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	units, err := d.Units(ctx)
	if err != nil {
		return nil, err
	}
	total := int64(0)
	for _, n := range units {
		total += n
	}
	if total < minRows {
		return nil, fmt.Errorf("%d rows, at least %d are needed: %w", total, minRows, ErrTooFewRows)
	}
	s, err := newSplit(ctx, c, d, total)
	if err != nil {
		return nil, err
	}
	if c.Contamination > 0 {
		if err := s.leaveOut(ctx, c, d, spec); err != nil {
			return nil, err
		}
	}
	trained, held, err := s.count(ctx, d)
	if err != nil {
		return nil, err
	}
	if held < vae.MinCalibration || trained < minTrained {
		return nil, fmt.Errorf("%d rows to fit to and %d held out: %w", trained, held, ErrTooFewRows)
	}
	t, err := pack(ctx, c, d, spec, s, trained)
	if err != nil {
		return nil, err
	}
	r := &run{c: c, t: t}
	seen, err := r.trainSample()
	return &Table{c: c, t: t, seen: seen}, err
}

// count returns how many rows are trained on and how many are held out.
func (s *split) count(ctx context.Context, d Data) (trained, held int64, err error) {
	err = each(ctx, d, func(first int64, rec arrow.Record) error {
		out, err := s.held(first, rec)
		if err != nil {
			return err
		}
		for i := range int(rec.NumRows()) {
			switch {
			case s.isOut(first + int64(i)):
			case out(i):
				held++
			default:
				trained++
			}
		}
		return nil
	})
	return trained, held, err
}

// Rows returns how many rows are fitted to and how many are held out.
func (t *Table) Rows() (fitted, held int64) { return t.t.trainN, int64(t.t.held.n) }

// Inputs returns the encoder's inputs [n][inputs] for at most most of the rows that
// are fitted to, spread evenly; a missing value is 0.
func (t *Table) Inputs(most int) (x []float32, n int) {
	n = min(most, t.seen.n)
	inputs := t.seen.inputs
	for i := range n {
		from := i * t.seen.n / n
		x = append(x, t.seen.x[from*inputs:(from+1)*inputs]...)
	}
	return x, n
}

// Finish describes the members of a model, calibrates it on the held-out rows and
// joins its parts: all but Members and Calibration, of which the latter says how the
// limit is to be found. Rows are scored with the forms that the weights have.
func (t *Table) Finish(p vae.Parts) (*vae.Model, error) {
	c := t.c
	c.Name = p.Name
	if p.Calibration != nil {
		c.TargetRate = p.Calibration.TargetRate
	}
	own := *t.t
	own.spec = &p.Spec
	r, err := newRun(c, &own)
	if err != nil {
		return nil, err
	}
	r.net, r.state.best = p.Net(), p.Params
	plan := kernel.NewPlan(r.net, p.Params, nil, r.pool.level)
	defer r.pool.start()()
	return r.assemble(p, t.seen, func(x *rows) evaluation { return r.evaluatePlan(plan, x) })
}

// evaluatePlan is pool.evaluate with the plan's own arithmetic.
func (r *run) evaluatePlan(plan *kernel.Plan, x *rows) evaluation {
	e := evaluation{scores: make([]float32, x.n), muVariance: make([]float64, r.net.Latent)}
	tiles := tilesOf(x.n)
	parts := make([]moment, (tiles+evaluateTiles-1)/evaluateTiles)
	r.pool.parallel(len(parts), func(_ *worker, i int) {
		m := moment{kernel.NewSums(r.net), make([]float64, r.net.Latent), make([]float64, r.net.Latent)}
		t := plan.NewTile()
		for tile := i * evaluateTiles; tile < min((i+1)*evaluateTiles, tiles); tile++ {
			from := tile * kernel.Rows
			n := min(kernel.Rows, x.n-from)
			plan.Begin(t, n, true)
			x.tile(t, from, n)
			plan.Score(t, true)
			m.collect(t, e.scores[from:from+n])
		}
		parts[i] = m
	})
	e.join(parts, r.net, x.n)
	return e
}

// collect adds a tile that a plan has scored, one row for each of scores.
func (m *moment) collect(t *kernel.Tile, scores []float32) {
	for r := range scores {
		scores[r] = t.Recon[r] + t.KL[r]
	}
	for f := range m.sums.Terms {
		for _, v := range t.Terms[f*kernel.Rows:][:len(scores)] {
			m.sums.Terms[f] += float64(v)
		}
	}
	for l := range m.mu {
		for r := range scores {
			v := float64(t.Mu[l*kernel.Rows+r])
			m.mu[l] += v
			m.square[l] += v * v
			m.sums.KL[l] += float64(t.LatentKL[l*kernel.Rows+r])
		}
	}
}

// HeldOutRows returns at most most of the rows of d that are held out, in order, as
// one record, which the caller releases. Of a longer table they come from runs of
// 64 rows spread over it.
func (t *Table) HeldOutRows(ctx context.Context, most int) (arrow.Record, error) {
	schema, err := t.t.data.Schema(ctx)
	if err != nil {
		return nil, err
	}
	share := 1.0
	if t.t.held.n > most {
		share = float64(most) / float64(t.t.held.n)
	}
	var picked []arrow.Record
	defer func() {
		for _, rec := range picked {
			rec.Release()
		}
	}()
	err = each(ctx, t.t.data, func(first int64, rec arrow.Record) error {
		held, err := t.t.split.held(first, rec)
		if err != nil {
			return err
		}
		var parts []arrow.Record
		pick(int(rec.NumRows()), func(i int) bool {
			row := first + int64(i)
			return held(i) && !t.t.split.isOut(row) && HeldOut(t.c.Seed+1, row/kernel.Rows, share)
		}, func(from, to int) { parts = append(parts, rec.NewSlice(int64(from), int64(to))) })
		if len(parts) == 0 {
			return nil
		}
		joined, err := concatenate(schema, parts)
		if err == nil {
			picked = append(picked, joined)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	parts := picked
	picked = nil
	return concatenate(schema, parts)
}

// concatenate joins records of one schema to one and releases them.
func concatenate(schema *arrow.Schema, parts []arrow.Record) (arrow.Record, error) {
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	rows := int64(0)
	for _, p := range parts {
		rows += p.NumRows()
	}
	cols := make([]arrow.Array, schema.NumFields())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i := range cols {
		list := make([]arrow.Array, len(parts))
		for k, p := range parts {
			list[k] = p.Column(i)
		}
		var err error
		if len(list) == 0 {
			cols[i] = array.MakeFromData(array.NewData(schema.Field(i).Type, 0, nil, nil, 0, 0))
		} else if cols[i], err = array.Concatenate(list, memory.DefaultAllocator); err != nil {
			return nil, fmt.Errorf("column %q: %w", schema.Field(i).Name, err)
		}
	}
	return array.NewRecord(schema, cols, rows), nil
}
