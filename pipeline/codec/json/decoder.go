package json

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/slab"
	"github.com/elbo-stream/elbo/pipeline/codec"
)

// headerSize is the size of a schema registry's header: a zero, and an int32.
const headerSize = 5

// A decoder reads documents for one goroutine. Each row has a number of its own
// over the decoder's life, which marks what has been set in it.
type decoder struct {
	*Format
	mem     memory.Allocator
	columns []*column
	texts   []*column // those of strings and binaries
	root    *node

	row   int64 // number of the row that is read
	at    int   // its place in the record
	base  int   // bytes of the value before the document
	class codec.Class
	err   error

	scratch []byte
	slab    slab.Slab
}

func newDecoder(f *Format, mem memory.Allocator) *decoder {
	d := &decoder{Format: f, mem: mem}
	paths := make([][]string, len(f.c.Columns))
	for i, col := range f.c.Columns {
		c := &column{kind: kindOf(col.Type), typ: col.Type, place: i, time: f.c.Time,
			required: f.c.Missing == Refuse || slices.Contains(f.c.Required, col.Name)}
		if t, ok := f.c.Times[col.Name]; ok {
			c.time = t
		}
		if l, ok := col.Type.(*arrow.FixedSizeListType); ok {
			c.width = int(l.Len())
		}
		d.columns = append(d.columns, c)
		if c.kind == kindString || c.kind == kindBinary {
			d.texts = append(d.texts, c)
		}
		paths[i] = steps(col)
	}
	d.root = tree(d.columns, paths, f.exact)
	return d
}

// Release gives up the scratch space.
func (d *decoder) Release() { d.scratch = nil }

// Decode reads one document of each value that is not null.
func (d *decoder) Decode(ctx context.Context, values *array.Binary) (out codec.Decoded, err error) {
	n := values.Len() - values.NullN()
	d.begin(n)
	defer d.drop()
	d.at = 0
	for i := range values.Len() {
		if i%1024 == 0 && ctx.Err() != nil {
			return codec.Decoded{}, context.Cause(ctx)
		}
		if values.IsValid(i) {
			d.row++
			if !d.value(values.Value(i)) {
				out.Faults = append(out.Faults, codec.Fault{Value: i, Class: d.class, Err: d.err})
			} else {
				d.at++
			}
		}
		// From the first value without a row on, origins are written down.
		if out.Origin == nil && d.at <= i {
			out.Origin = make([]int32, d.at, n)
			for k := range out.Origin {
				out.Origin[k] = int32(k)
			}
		} else if len(out.Origin) < d.at && out.Origin != nil {
			out.Origin = append(out.Origin, int32(i))
		}
	}
	columns := make([]arrow.Array, len(d.columns))
	for i, c := range d.columns {
		columns[i] = c.finish(&d.slab, d.at)
	}
	out.Record = array.NewRecord(d.schema, columns, int64(d.at))
	for _, c := range columns {
		c.Release()
	}
	return out, nil
}

// begin makes room for n rows.
func (d *decoder) begin(n int) {
	bytes := 0
	for _, c := range d.columns {
		bytes += slab.Room(c.size(n))
	}
	d.slab.Begin(len(d.columns), bytes)
	for _, c := range d.columns {
		c.begin(d.mem, &d.slab, n)
	}
}

// drop gives up what is not part of a record.
func (d *decoder) drop() {
	for _, c := range d.columns {
		c.drop()
	}
}

// value reads one value into the row at d.at. Otherwise d.class and d.err say why
// it has no row.
func (d *decoder) value(doc []byte) bool {
	d.base = 0
	if len(doc) > d.c.MaxBytes {
		d.class, d.err = codec.Size, fmt.Errorf("%d bytes, more than %d", len(doc), d.c.MaxBytes)
		return false
	}
	if d.c.SchemaHeader {
		if len(doc) < headerSize || doc[0] != 0 {
			d.failed(0, "no schema id before the document")
			return false
		}
		doc, d.base = doc[headerSize:], headerSize
	}
	if !d.document(doc) {
		return false
	}
	return d.end()
}

// end closes the row, or says why it is none.
func (d *decoder) end() bool {
	for _, c := range d.columns {
		if c.set != d.row {
			if !d.endPartly() {
				return false
			}
			break
		}
	}
	for _, c := range d.texts {
		c.i32[d.at+1] = int32(c.used)
	}
	return true
}

// endPartly is end for a row in which columns have no value.
func (d *decoder) endPartly() bool {
	for _, c := range d.columns {
		switch {
		case c.set == d.row:
		case c.bad == d.row:
			d.class, d.err = codec.Invalid, c.err
			return false
		case c.required:
			d.class, d.err = codec.Invalid, fmt.Errorf("%s: missing", c.path)
			return false
		}
	}
	for _, c := range d.columns {
		if c.set != d.row {
			c.setNull(d.at)
		}
	}
	return true
}
