package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/operators/threshold"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/vae"
)

// A windowed sink holds rows back until their window is whole, decides with a
// bound on the share of false discoveries which of them are anomalies, and passes
// them on. Windows are counted in judged rows from the first one, so that verdicts
// do not depend on batches; the last one may be shorter. A step of a pipeline
// cannot do this, because it must give back the rows that it is given.
type windowed struct {
	pipeline.Sink
	size       int
	fdr        float64
	rule       threshold.Correction
	conformal  *vae.Calibration // nil reads elbo_p
	mem        memory.Allocator
	at, target int

	held []*heldRecord
	p    []float64
	rows []heldRow // of p
}

// A heldRecord waits for the verdicts of its rows.
type heldRecord struct {
	n     uint64
	rec   arrow.Record
	found []bool
	wait  int // rows without a verdict
}

type heldRow struct {
	rec *heldRecord
	row int
}

// Bind finds the columns.
func (w *windowed) Bind(in *arrow.Schema) error {
	name := score.P
	if w.conformal != nil {
		name = score.Score
	}
	find := func(name string) int { return slices.Index(append(in.FieldIndices(name), -1), -1) }
	if find(name) != 1 || find(score.Anomaly) != 1 {
		return fmt.Errorf("no columns %s and %s to decide by", name, score.Anomaly)
	}
	w.at, w.target = in.FieldIndices(name)[0], in.FieldIndices(score.Anomaly)[0]
	return w.Sink.Bind(in)
}

// Write takes the rows in and passes on those whose windows are whole.
func (w *windowed) Write(ctx context.Context, n uint64, rec arrow.Record) error {
	rec.Retain()
	h := &heldRecord{n: n, rec: rec, found: make([]bool, rec.NumRows())}
	w.held = append(w.held, h)
	before := rec.Column(w.target)
	for i := range h.found {
		if before.IsNull(i) {
			continue
		}
		w.p, w.rows = append(w.p, w.value(rec, i)), append(w.rows, heldRow{h, i})
		h.wait++
		if len(w.p) == w.size {
			w.decide()
		}
	}
	return w.pass(ctx)
}

// value returns the p-value of a row.
func (w *windowed) value(rec arrow.Record, i int) float64 {
	switch a := rec.Column(w.at).(type) {
	case *array.Float32:
		return w.conformal.Conformal(float64(a.Value(i)))
	case *array.Float64:
		return a.Value(i)
	}
	return math.NaN()
}

// decide ends a window.
func (w *windowed) decide() {
	for i, found := range threshold.Discoveries(w.p, w.fdr, w.rule) {
		w.rows[i].rec.found[w.rows[i].row] = found
		w.rows[i].rec.wait--
	}
	w.p, w.rows = w.p[:0], w.rows[:0]
}

// pass hands on the records that wait for nothing, in order.
func (w *windowed) pass(ctx context.Context) error {
	for len(w.held) > 0 && w.held[0].wait == 0 {
		h := w.held[0]
		w.held = w.held[1:]
		rec := w.judged(h)
		h.rec.Release()
		err := w.Sink.Write(ctx, h.n, rec)
		rec.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// judged returns the record with its verdicts.
func (w *windowed) judged(h *heldRecord) arrow.Record {
	b := array.NewBooleanBuilder(w.mem)
	defer b.Release()
	before := h.rec.Column(w.target)
	for i, found := range h.found {
		if before.IsNull(i) {
			b.AppendNull()
		} else {
			b.Append(found)
		}
	}
	verdicts := b.NewArray()
	defer verdicts.Release()
	columns := slices.Clone(h.rec.Columns())
	columns[w.target] = verdicts
	return array.NewRecord(h.rec.Schema(), columns, h.rec.NumRows())
}

// Flush ends the last window.
func (w *windowed) Flush(ctx context.Context) error {
	w.decide()
	return errors.Join(w.pass(ctx), w.Sink.Flush(ctx))
}

// Close gives up what was not passed on.
func (w *windowed) Close() error {
	for _, h := range w.held {
		h.rec.Release()
	}
	w.held = nil
	return w.Sink.Close()
}
