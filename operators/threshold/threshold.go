// Package threshold is the operator that decides which rows are anomalies, by a
// rule other than the model's own limit.
//
//	op, err := threshold.New(threshold.Config{TargetRate: 0.0001})
//
// It rewrites elbo_anomaly in place of adding a column, and leaves rows that
// were not judged (null) as they are. A row whose value is null or NaN becomes
// null: not judged. elbo_top stays what score made it: a row that is flagged here
// only has columns to blame when score was asked to explain all rows.
package threshold

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
	"github.com/elbo-stream/elbo/pipeline"
)

// Config is the rule; exactly one of its parts is set.
type Config struct {
	// TargetRate makes rows with elbo_p at or below it anomalies: the share of
	// normal rows that may be flagged by mistake, above 0 and below 1.
	TargetRate float64
	// Above makes rows anomalies whose Column is larger, in the column's units
	// (nats for scores).
	Above *float64
	// Column is what Above is compared with; empty means elbo_score.
	Column    string
	Allocator memory.Allocator // nil means the default one
}

// Operator rewrites elbo_anomaly. It is safe for concurrent use after Bind.
type Operator struct {
	c          Config
	at, target int
	out        *arrow.Schema
}

var _ pipeline.Operator = (*Operator)(nil)

// New checks the rule.
func New(c Config) (*Operator, error) {
	switch {
	case c.TargetRate != 0 && c.Above != nil:
		return nil, errors.New("target_rate and above are two rules: give one")
	case c.TargetRate == 0 && c.Above == nil:
		return nil, errors.New("no rule: give target_rate (such as 0.001) or above (a score in nats)")
	case c.Above == nil && !(c.TargetRate > 0 && c.TargetRate < 1):
		return nil, fmt.Errorf("target_rate %v: want a share of rows above 0 and below 1", c.TargetRate)
	case c.Above != nil && math.IsNaN(*c.Above):
		return nil, errors.New("above: NaN is above and below nothing, want a number")
	case c.Above == nil && c.Column != "":
		return nil, errors.New("column goes with above; target_rate always reads elbo_p")
	}
	if c.Column == "" {
		c.Column = score.Score
	}
	if c.Above == nil {
		c.Column = score.P
	}
	if c.Allocator == nil {
		c.Allocator = memory.DefaultAllocator
	}
	return &Operator{c: c}, nil
}

// Bind finds the columns; the schema stays as it is.
func (o *Operator) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	find := func(name string, ids ...arrow.Type) (int, error) {
		at := in.FieldIndices(name)
		if len(at) != 1 {
			return 0, fmt.Errorf("column %q: the input has %d of that name; score comes first", name, len(at))
		}
		if t := in.Field(at[0]).Type; !slices.Contains(ids, t.ID()) {
			return 0, fmt.Errorf("column %q: type %s cannot be compared", name, t)
		}
		return at[0], nil
	}
	at, err := find(o.c.Column, arrow.FLOAT32, arrow.FLOAT64)
	target, err2 := find(score.Anomaly, arrow.BOOL)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	o.at, o.target, o.out = at, target, in
	return in, nil
}

// Apply judges rec.
func (o *Operator) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	before := rec.Column(o.target)
	value := func(i int) float64 { return 0 }
	switch a := rec.Column(o.at).(type) {
	case *array.Float32:
		value = func(i int) float64 { return float64(a.Value(i)) }
	case *array.Float64:
		value = a.Value
	}
	b := array.NewBooleanBuilder(o.c.Allocator)
	defer b.Release()
	for i := range int(rec.NumRows()) {
		switch {
		case before.IsNull(i) || rec.Column(o.at).IsNull(i) || math.IsNaN(value(i)):
			b.AppendNull()
		case o.c.Above != nil:
			b.Append(value(i) > *o.c.Above)
		default:
			b.Append(value(i) <= o.c.TargetRate)
		}
	}
	judged := b.NewArray()
	defer judged.Release()
	columns := slices.Clone(rec.Columns())
	columns[o.target] = judged
	return array.NewRecord(o.out, columns, rec.NumRows()), nil
}
