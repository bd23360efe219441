// Package raw reads and writes rows as bare float32 numbers: little-endian, one
// after the other, one row a message, with nothing around them.
//
//	f, err := raw.New(raw.Config{Columns: []codec.Column{
//		{Name: "temperature", Type: arrow.PrimitiveTypes.Float32},
//		{Name: "spectrum", Type: arrow.FixedSizeListOf(128, arrow.PrimitiveTypes.Float32)},
//	}}) // messages of 4 * (1 + 128) bytes
//
// The mistake to avoid is to change the columns' order or number on one side only:
// nothing in a message says what its numbers are, so that only another length is
// found out.
package raw

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec"
)

// Config says which numbers of a message are which column.
type Config struct {
	// Columns are float32, or fixed-size lists of float32, in the order of a message.
	// Column.Path means nothing here.
	Columns []codec.Column
}

// Format reads messages into fixed columns. It is immutable and safe for
// concurrent use.
type Format struct {
	schema *arrow.Schema
	widths []int // numbers of each column
	size   int   // bytes of a message
}

var _ codec.Format = (*Format)(nil)

// New checks c and reports everything wrong with it.
func New(c Config) (*Format, error) {
	var errs []error
	f := &Format{}
	var fields []arrow.Field
	for _, col := range c.Columns {
		w := widthOf(col.Type)
		switch {
		case col.Name == "":
			errs = append(errs, errors.New("columns: a column has no name"))
		case slices.ContainsFunc(fields, func(f arrow.Field) bool { return f.Name == col.Name }):
			errs = append(errs, fmt.Errorf("column %q: comes twice", col.Name))
		case w == 0:
			errs = append(errs, fmt.Errorf("column %q: raw messages hold float32 and fixed-size lists of float32, not %v", col.Name, col.Type))
		}
		fields = append(fields, arrow.Field{Name: col.Name, Type: col.Type, Nullable: true})
		f.widths = append(f.widths, w)
		f.size += 4 * w
	}
	if len(c.Columns) == 0 {
		errs = append(errs, errors.New("columns: none"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	f.schema = arrow.NewSchema(fields, nil)
	return f, nil
}

// widthOf is how many numbers a value of a type has; 0 for a type that messages do
// not hold.
func widthOf(t arrow.DataType) int {
	switch t := t.(type) {
	case *arrow.Float32Type:
		return 1
	case *arrow.FixedSizeListType:
		if t.Elem().ID() == arrow.FLOAT32 {
			return int(t.Len())
		}
	}
	return 0
}

// Schema is that of every record; no value is null.
func (f *Format) Schema() *arrow.Schema { return f.schema }

// NewDecoder returns a decoder whose records come from mem.
func (f *Format) NewDecoder(mem memory.Allocator) codec.Decoder { return &decoder{Format: f, mem: mem} }

// A decoder reads messages for one goroutine.
type decoder struct {
	*Format
	mem  memory.Allocator
	good []int32 // the values that are rows
}

// Release gives up the scratch space.
func (d *decoder) Release() { d.good = nil }

// Decode reads one row of each value that is not null. A value of another length
// is a codec.Syntax fault.
func (d *decoder) Decode(ctx context.Context, values *array.Binary) (out codec.Decoded, err error) {
	if ctx.Err() != nil {
		return codec.Decoded{}, context.Cause(ctx)
	}
	d.good = d.good[:0]
	for i := range values.Len() {
		if values.IsNull(i) {
			continue
		}
		if n := values.ValueLen(i); n != d.size {
			out.Faults = append(out.Faults, codec.Fault{Value: i, Class: codec.Syntax, Err: fmt.Errorf("%d bytes, want %d", n, d.size)})
			continue
		}
		d.good = append(d.good, int32(i))
	}
	if len(d.good) < values.Len() {
		out.Origin = append(make([]int32, 0, len(d.good)), d.good...)
	}
	columns := make([]arrow.Array, len(d.widths))
	buffers := make([]*memory.Buffer, len(d.widths))
	into := make([][]float32, len(d.widths))
	for k, w := range d.widths {
		buffers[k] = memory.NewResizableBuffer(d.mem)
		buffers[k].Resize(4 * w * len(d.good))
		into[k] = arrow.Float32Traits.CastFromBytes(buffers[k].Bytes())
	}
	d.fill(into, values)
	for k, b := range buffers {
		columns[k] = newArray(d.schema.Field(k).Type, len(d.good), d.widths[k], b)
		defer columns[k].Release()
	}
	out.Record = array.NewRecord(d.schema, columns, int64(len(d.good)))
	return out, nil
}

// fill turns rows into columns, a few rows at a time, so that both stay in the
// nearest cache.
func (d *decoder) fill(into [][]float32, values *array.Binary) {
	const block = 32
	var rows [block][]byte
	for lo := 0; lo < len(d.good); lo += block {
		n := min(block, len(d.good)-lo)
		for r := range n {
			rows[r] = values.Value(int(d.good[lo+r]))
		}
		at := 0
		for k, w := range d.widths {
			dst := into[k][lo*w : (lo+n)*w]
			if w == 1 {
				for r := range dst {
					dst[r] = math.Float32frombits(binary.LittleEndian.Uint32(rows[r&(block-1)][at:]))
				}
			} else {
				for r := range n {
					floats(dst[r*w:(r+1)*w], rows[r][at:])
				}
			}
			at += 4 * w
		}
	}
}

// floats reads len(dst) numbers.
func floats(dst []float32, src []byte) {
	src = src[:4*len(dst)]
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

// newArray makes an array of type t of values, which it takes over.
func newArray(t arrow.DataType, rows, width int, values *memory.Buffer) arrow.Array {
	defer values.Release()
	data := array.NewData(arrow.PrimitiveTypes.Float32, rows*width, []*memory.Buffer{nil, values}, nil, 0, 0)
	defer data.Release()
	if t.ID() == arrow.FLOAT32 {
		return array.MakeFromData(data)
	}
	list := array.NewData(t, rows, []*memory.Buffer{nil}, []arrow.ArrayData{data}, 0, 0)
	defer list.Release()
	return array.MakeFromData(list)
}
