package pipeline_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// rowSchema is that of every test's rows: where a row stands, and what an
// operator shall do with it.
var rowSchema = arrow.NewSchema([]arrow.Field{
	{Name: "partition", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}},
	{Name: "position", Type: arrow.PrimitiveTypes.Int64},
	{Name: "kind", Type: arrow.BinaryTypes.String}, // "", "bad", "panic" or "drop"
}, nil)

// rows returns a partition with one row for each kind.
func rows(mem memory.Allocator, name string, kinds []string, positions []int64) pipelinetest.Partition {
	b := array.NewRecordBuilder(mem, rowSchema)
	defer b.Release()
	for i, kind := range kinds {
		at := int64(i)
		if positions != nil {
			at = positions[i]
		}
		if err := b.Field(0).(*array.BinaryDictionaryBuilder).AppendString(name); err != nil {
			panic(err)
		}
		b.Field(1).(*array.Int64Builder).Append(at)
		b.Field(2).(*array.StringBuilder).Append(kind)
	}
	return pipelinetest.Partition{Name: name, Rows: b.NewRecord(), Positions: positions}
}

// repeat returns n kinds, "" but where some says otherwise.
func repeat(n int, some map[int]string) []string {
	kinds := make([]string, n)
	for i, k := range some {
		kinds[i] = k
	}
	return kinds
}

// A picky operator fails on "bad" rows, panics on "panic" rows and passes the
// others on.
type picky struct{}

// errBad is what picky says of a bad row.
type errBad struct{ position int64 }

func (e errBad) Error() string  { return fmt.Sprintf("row %d is bad", e.position) }
func (e errBad) Reason() string { return "bad" }

func (picky) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	if !in.HasField("kind") {
		return nil, errors.New(`there is no column "kind"`)
	}
	return in, nil
}

func (picky) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	kinds := rec.Column(2).(*array.String)
	for i := range kinds.Len() {
		at := rec.Column(1).(*array.Int64).Value(i)
		switch kinds.Value(i) {
		case "bad":
			return nil, errBad{at}
		case "panic":
			panic(fmt.Sprintf("row %d", at))
		}
	}
	rec.Retain()
	return rec, nil
}

// A counter is stateful: it adds a column with how many rows it saw before.
type counter struct {
	mem    memory.Allocator
	column string
	seen   int64
	busy   chan struct{} // one token: Apply may run
}

func newCounter(mem memory.Allocator) *counter {
	c := &counter{mem: mem, column: "seen", busy: make(chan struct{}, 1)}
	c.busy <- struct{}{}
	return c
}

func (c *counter) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	return arrow.NewSchema(append(in.Fields(), arrow.Field{Name: c.column, Type: arrow.PrimitiveTypes.Int64}), nil), nil
}

func (c *counter) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	select {
	case <-c.busy:
		defer func() { c.busy <- struct{}{} }()
	default:
		panic("two calls of a stateful operator at once")
	}
	b := array.NewInt64Builder(c.mem)
	defer b.Release()
	for range rec.NumRows() {
		b.Append(c.seen)
		c.seen++
	}
	col := b.NewArray()
	defer col.Release()
	out, _ := c.Bind(rec.Schema())
	return array.NewRecord(out, append(append([]arrow.Array(nil), rec.Columns()...), col), rec.NumRows()), nil
}

func (c *counter) Snapshot() ([]byte, error) { return fmt.Append(nil, c.seen), nil }

func (c *counter) Restore(state []byte) error {
	_, err := fmt.Sscan(string(state), &c.seen)
	return err
}

// A dropper drops "drop" rows.
type dropper struct{ mem memory.Allocator }

func (dropper) Bind(in *arrow.Schema) (*arrow.Schema, error) { return in, nil }

func (d dropper) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	b := array.NewRecordBuilder(d.mem, rec.Schema())
	defer b.Release()
	for i := range int(rec.NumRows()) {
		if rec.Column(2).(*array.String).Value(i) == "drop" {
			continue
		}
		for c := range rec.Columns() {
			if err := b.Field(c).AppendValueFromString(rec.Column(c).ValueStr(i)); err != nil {
				return nil, err
			}
		}
	}
	return b.NewRecord(), nil
}

var (
	_ pipeline.Operator = picky{}
	_ pipeline.Operator = dropper{}
	_ pipeline.Stateful = (*counter)(nil)
)
