// Package table collects the values of messages as the columns of a record. The
// formats whose messages name a schema share it.
//
//	t := table.New(columns)
//	got, err := t.Decode(ctx, mem, values, read)
//
// read writes the values of one message into row t.Row of t.Columns. The thing to
// know is that it need not undo anything: the row of a message with a fault is
// written again by the next message.
package table

import (
	"context"
	"errors"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/slab"
	"github.com/elbo-stream/elbo/pipeline/codec"
)

// ErrLarge says that a column would have more than 2 GiB in one record.
var ErrLarge = errors.New("the batch has more than 2 GiB of it")

// Table is a record that grows by rows. It serves one goroutine at a time.
type Table struct {
	Columns []*Column
	Row     int // where the message that is read goes

	schema *arrow.Schema
	slab   slab.Slab
}

// New returns a table of columns of types that KindOf knows.
func New(columns []codec.Column) *Table {
	t := &Table{schema: Schema(columns)}
	for i, c := range columns {
		col := &Column{Name: c.Name, Kind: KindOf(c.Type), Type: c.Type, place: i}
		if l, ok := c.Type.(*arrow.FixedSizeListType); ok {
			col.Width = int(l.Len())
		}
		t.Columns = append(t.Columns, col)
	}
	return t
}

// Schema returns that of the records; each column is nullable.
func Schema(columns []codec.Column) *arrow.Schema {
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		fields[i] = arrow.Field{Name: c.Name, Type: c.Type, Nullable: true}
	}
	return arrow.NewSchema(fields, nil)
}

// Decode reads each of values that is not null, with columns from mem. It is what
// codec.Decoder's Decode says. An error of read with a class is about its message;
// one without ends the run. When there is none, each column must have got a value or
// a null.
func (t *Table) Decode(ctx context.Context, mem memory.Allocator, values *array.Binary,
	read func(message []byte) (codec.Class, error)) (out codec.Decoded, err error) {
	n := values.Len() - values.NullN()
	t.begin(mem, n)
	defer t.drop()
	t.Row = 0
	for i := range values.Len() {
		if i%1024 == 0 && ctx.Err() != nil {
			return codec.Decoded{}, context.Cause(ctx)
		}
		if values.IsValid(i) {
			class, err := read(values.Value(i))
			switch {
			case err == nil:
				t.Row++
			case class == "":
				return codec.Decoded{}, err
			default:
				t.undo()
				out.Faults = append(out.Faults, codec.Fault{Value: i, Class: class, Err: err})
			}
		}
		// From the first value without a row on, origins are written down.
		if out.Origin == nil && t.Row <= i {
			out.Origin = make([]int32, t.Row, n)
			for k := range out.Origin {
				out.Origin[k] = int32(k)
			}
		} else if out.Origin != nil && len(out.Origin) < t.Row {
			out.Origin = append(out.Origin, int32(i))
		}
	}
	arrays := make([]arrow.Array, len(t.Columns))
	for i, c := range t.Columns {
		arrays[i] = c.finish(&t.slab, t.Row)
	}
	out.Record = array.NewRecord(t.schema, arrays, int64(t.Row))
	for _, a := range arrays {
		a.Release()
	}
	return out, nil
}

// begin makes room for n rows.
func (t *Table) begin(mem memory.Allocator, n int) {
	bytes := 0
	for _, c := range t.Columns {
		bytes += slab.Room(c.size(n))
	}
	t.slab.Begin(len(t.Columns), bytes)
	for _, c := range t.Columns {
		c.begin(mem, &t.slab, n)
	}
}

// drop gives up what is not part of a record.
func (t *Table) drop() {
	for _, c := range t.Columns {
		c.drop()
	}
}

// undo makes the current row valid again in every column.
func (t *Table) undo() {
	for _, c := range t.Columns {
		c.Revive(t.Row)
	}
}
