package cli

import (
	"context"
	"slices"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/pipeline"
)

// counts are rows, anomalies and statuses.
type counts struct {
	anomaly, status int // columns, -1 when absent
	Rows            int64
	Anomalies       int64
	NotJudged       int64
	Statuses        map[string]int64
}

// bind finds the columns to count.
func (t *counts) bind(in *arrow.Schema) {
	find := func(name string) int { return slices.Index(append(in.FieldIndices(name), -1), -1) }
	t.anomaly, t.status = -1, -1
	if find(score.Anomaly) == 1 {
		t.anomaly = in.FieldIndices(score.Anomaly)[0]
	}
	if find(score.Status) == 1 {
		t.status = in.FieldIndices(score.Status)[0]
	}
	t.Statuses = map[string]int64{}
}

func (t *counts) add(rec arrow.Record) {
	t.Rows += rec.NumRows()
	if t.anomaly >= 0 {
		if b, ok := rec.Column(t.anomaly).(*array.Boolean); ok {
			t.NotJudged += int64(b.NullN())
			for i := range b.Len() {
				if b.IsValid(i) && b.Value(i) {
					t.Anomalies++
				}
			}
		}
	}
	if t.status >= 0 {
		if d, ok := rec.Column(t.status).(*array.Dictionary); ok {
			words := d.Dictionary().(*array.String)
			for i := range d.Len() {
				t.Statuses[words.Value(d.GetValueIndex(i))]++
			}
		}
	}
}

// tally counts what passes on its way to a sink.
type tally struct {
	pipeline.Sink
	counts
	each func(rec arrow.Record) error
}

// Bind finds the columns to count.
func (t *tally) Bind(in *arrow.Schema) error {
	t.bind(in)
	return t.Sink.Bind(in)
}

// Write counts and passes on.
func (t *tally) Write(ctx context.Context, n uint64, rec arrow.Record) error {
	t.add(rec)
	if t.each != nil {
		if err := t.each(rec); err != nil {
			return err
		}
	}
	return t.Sink.Write(ctx, n, rec)
}

// counter is a last operator that counts what the sinks are given. Unlike tally it
// leaves a sink what it is, a MarkWriter or a Sealer.
type counter struct {
	mu sync.Mutex
	counts
}

// Bind finds the columns to count.
func (c *counter) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	c.bind(in)
	return in, nil
}

// Apply counts and gives back what it was given.
func (c *counter) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(rec)
	rec.Retain()
	return rec, nil
}

// nowhere is a sink that keeps nothing, for verbs that only look.
type nowhere struct{ n uint64 }

func (s *nowhere) Bind(*arrow.Schema) error { return nil }
func (s *nowhere) Write(_ context.Context, n uint64, _ arrow.Record) error {
	s.n = n
	return nil
}
func (s *nowhere) Durable() uint64             { return s.n }
func (s *nowhere) Flush(context.Context) error { return nil }
func (s *nowhere) Close() error                { return nil }
