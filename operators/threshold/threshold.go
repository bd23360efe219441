// Package threshold is the operator that decides which rows are anomalies, by a
// rule other than the model's own limit.
//
//	op, err := threshold.New(threshold.Config{TargetRate: 0.0001})
//
// Config judges each row on its own: by its tail probability, by a limit, or by
// the limit of its key (Table). StreamConfig judges it by the rows before it too,
// so that of all flagged rows the expected share of false ones is bounded.
// Discoveries does the same for a window of rows that is there as a whole.
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

// Config is the rule; exactly one of TargetRate, Above and Table is set.
type Config struct {
	// TargetRate makes rows with elbo_p at or below it anomalies: the share of
	// normal rows that may be flagged by mistake, above 0 and below 1.
	TargetRate float64
	// Above makes rows anomalies whose Column is larger, in the column's units
	// (nats for scores).
	Above *float64
	// Column is what Above is compared with; empty means elbo_score.
	Column string
	// Table makes rows anomalies whose elbo_score is above the limit of their key.
	// A null key has the global limit.
	Table *Table
	// By is the key column of Table; empty means the one it was made by.
	By string
	// Model is the name@digest that Above was made for; Bind refuses the rows of
	// another one. Empty takes all. A Table brings its own.
	Model     string
	Allocator memory.Allocator // nil means the default one
}

// Operator rewrites elbo_anomaly. It is safe for concurrent use after Bind.
type Operator struct {
	c               Config
	at, target, key int
	out             *arrow.Schema
}

var _ pipeline.Operator = (*Operator)(nil)

// New checks the rule.
func New(c Config) (*Operator, error) {
	rules := 0
	for _, set := range []bool{c.TargetRate != 0, c.Above != nil, c.Table != nil} {
		if set {
			rules++
		}
	}
	switch {
	case rules > 1:
		return nil, errors.New("target_rate, above and table are different rules: give one")
	case rules == 0:
		return nil, errors.New("no rule: give target_rate (such as 0.001), above (a score in nats) or table")
	case c.TargetRate != 0 && !(c.TargetRate > 0 && c.TargetRate < 1):
		return nil, fmt.Errorf("target_rate %v: want a share of rows above 0 and below 1", c.TargetRate)
	case c.Above != nil && math.IsNaN(*c.Above):
		return nil, errors.New("above: NaN is above and below nothing, want a number")
	case c.Above == nil && c.Column != "":
		return nil, errors.New("column goes with above; target_rate always reads elbo_p, table elbo_score")
	case c.Table == nil && c.By != "":
		return nil, errors.New("by goes with table")
	}
	if c.Column == "" {
		c.Column = score.Score
	}
	if c.TargetRate != 0 {
		c.Column = score.P
	}
	if c.Table != nil {
		c.Model = c.Table.Model
		if c.By == "" {
			c.By = c.Table.By
		}
	}
	if c.Allocator == nil {
		c.Allocator = memory.DefaultAllocator
	}
	return &Operator{c: c}, nil
}

// find returns the place of the one column of a name, of one of the types.
func find(in *arrow.Schema, name string, ids ...arrow.Type) (int, error) {
	at := in.FieldIndices(name)
	if len(at) != 1 {
		return 0, fmt.Errorf("column %q: the input has %d of that name; score comes first", name, len(at))
	}
	if t := in.Field(at[0]).Type; !slices.Contains(ids, t.ID()) {
		return 0, fmt.Errorf("column %q: type %s cannot be compared", name, t)
	}
	return at[0], nil
}

// findKey returns the place of a key column, -1 when there is no name.
func findKey(in *arrow.Schema, name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	at := in.FieldIndices(name)
	if len(at) != 1 {
		return 0, fmt.Errorf("by: the input has %d columns %q", len(at), name)
	}
	if err := CheckKey(in.Field(at[0]).Type); err != nil {
		return 0, fmt.Errorf("by: column %q: %w", name, err)
	}
	return at[0], nil
}

// sameModel refuses rows that another model scored than the one named.
func sameModel(in *arrow.Schema, want string) error {
	got, ok := in.Metadata().GetValue(score.MetaModel)
	if want == "" || !ok || got == want {
		return nil
	}
	return fmt.Errorf("the limits are for the scores of model %s, and these are of %s: calibrate again", want, got)
}

// Bind finds the columns; the schema stays as it is.
func (o *Operator) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	at, err := find(in, o.c.Column, arrow.FLOAT32, arrow.FLOAT64)
	target, err2 := find(in, score.Anomaly, arrow.BOOL)
	key, err3 := findKey(in, o.c.By)
	if err := errors.Join(err, err2, err3, sameModel(in, o.c.Model)); err != nil {
		return nil, err
	}
	o.at, o.target, o.key, o.out = at, target, key, in
	return in, nil
}

// Apply judges rec.
func (o *Operator) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	above, err := o.judge(rec)
	if err != nil {
		return nil, err
	}
	return rewrite(o.c.Allocator, rec, o.out, o.target, o.at, above), nil
}

// judge returns the rule for the rows of rec: the value of row i is v.
func (o *Operator) judge(rec arrow.Record) (func(i int, v float64) bool, error) {
	switch {
	case o.c.Above != nil:
		return func(_ int, v float64) bool { return v > *o.c.Above }, nil
	case o.c.Table == nil:
		return func(_ int, v float64) bool { return v <= o.c.TargetRate }, nil
	}
	key := rec.Column(o.key)
	read, err := Keys(key)
	if err != nil {
		return nil, fmt.Errorf("by: column %q: %w", o.c.By, err)
	}
	var buf []byte
	return func(i int, v float64) bool {
		limit := o.c.Table.Limit
		if key.IsValid(i) {
			buf = read(buf[:0], i)
			limit, _ = o.c.Table.LimitOf(buf)
		}
		return v > limit
	}, nil
}

// valuesOf returns the reader of a column of floats.
func valuesOf(a arrow.Array) func(i int) float64 {
	switch a := a.(type) {
	case *array.Float32:
		return func(i int) float64 { return float64(a.Value(i)) }
	case *array.Float64:
		return a.Value
	}
	return func(int) float64 { return math.NaN() }
}

// rewrite returns rec with new verdicts: those of above, asked in order for the
// rows that can be judged by the value in column at.
func rewrite(mem memory.Allocator, rec arrow.Record, out *arrow.Schema, target, at int, above func(i int, v float64) bool) arrow.Record {
	before, values := rec.Column(target), rec.Column(at)
	value := valuesOf(values)
	b := array.NewBooleanBuilder(mem)
	defer b.Release()
	for i := range int(rec.NumRows()) {
		if before.IsNull(i) || values.IsNull(i) || math.IsNaN(value(i)) {
			b.AppendNull()
			continue
		}
		b.Append(above(i, value(i)))
	}
	judged := b.NewArray()
	defer judged.Release()
	columns := slices.Clone(rec.Columns())
	columns[target] = judged
	return array.NewRecord(out, columns, rec.NumRows())
}
