package kafka

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/slab"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/codec"
)

// A decoder turns messages into the columns of a format and those beside it.
// Messages without a value (tombstones) have no row.
type decoder struct {
	format codec.Format
	meta   []int // of messageSchema, what stands beside the format's columns
	mem    memory.Allocator
	schema *arrow.Schema

	mu   sync.Mutex
	idle []codec.Decoder
}

var _ pipeline.Decoder = (*decoder)(nil)

func newDecoder(format codec.Format, meta []string, mem memory.Allocator) *decoder {
	d := &decoder{format: format, mem: mem}
	for i, f := range messageSchema.Fields() {
		if slices.Contains(meta, f.Name) {
			d.meta = append(d.meta, i)
		}
	}
	return d
}

// Bind checks that no column of the messages has the name of one beside them.
func (d *decoder) Bind(*arrow.Schema) (*arrow.Schema, error) {
	d.schema = d.format.Schema()
	if len(d.meta) == 0 {
		return d.schema, nil
	}
	fields := slices.Clone(d.schema.Fields())
	for _, i := range d.meta {
		f := messageSchema.Field(i)
		if d.format.Schema().HasField(f.Name) {
			return nil, fmt.Errorf("the messages have a column %q, which says where a row comes from; leave it out of meta", f.Name)
		}
		fields = append(fields, f)
	}
	d.schema = arrow.NewSchema(fields, nil)
	return d.schema, nil
}

// Decode reads the values of rec.
func (d *decoder) Decode(ctx context.Context, rec arrow.Record) (pipeline.Decoded, error) {
	c := d.take()
	got, err := c.Decode(ctx, rec.Column(rec.Schema().FieldIndices(ColumnValue)[0]).(*array.Binary))
	d.put(c)
	if err != nil {
		return pipeline.Decoded{}, err
	}
	out := pipeline.Decoded{Record: got.Record, Bad: bad(got.Faults)}
	if got.Origin != nil {
		out.Origin = make([]int, len(got.Origin))
		for i, o := range got.Origin {
			out.Origin[i] = int(o)
		}
	}
	if len(d.meta) == 0 {
		return out, nil
	}
	defer got.Record.Release()
	cols := slices.Clone(got.Record.Columns())
	var made []arrow.Array
	defer func() {
		for _, a := range made {
			a.Release()
		}
	}()
	for _, i := range d.meta {
		col, err := gather(d.mem, rec.Column(i), got.Origin)
		if err != nil {
			return pipeline.Decoded{}, fmt.Errorf("column %q: %w", messageSchema.Field(i).Name, err)
		}
		made = append(made, col)
		cols = append(cols, col)
	}
	out.Record = array.NewRecord(d.schema, cols, got.Record.NumRows())
	return out, nil
}

func bad(faults []codec.Fault) []pipeline.BadMessage {
	var all []pipeline.BadMessage
	for _, f := range faults {
		all = append(all, pipeline.BadMessage{Message: f.Value, Err: f})
	}
	return all
}

// take returns an idle decoder, or a new one: there are at most as many as workers.
func (d *decoder) take() codec.Decoder {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.idle); n > 0 {
		c := d.idle[n-1]
		d.idle = d.idle[:n-1]
		return c
	}
	return d.format.NewDecoder(d.mem)
}

func (d *decoder) put(c codec.Decoder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.idle = append(d.idle, c)
}

// release gives up every decoder; none is in use.
func (d *decoder) release() {
	for _, c := range d.idle {
		c.Release()
	}
	d.idle = nil
}

// gather returns the rows of col named by origin, which never falls; nil means
// all. The caller owns the result.
func gather(mem memory.Allocator, col arrow.Array, origin []int32) (arrow.Array, error) {
	if origin == nil {
		col.Retain()
		return col, nil
	}
	if lo, ok := rising(origin); ok {
		return array.NewSlice(col, lo, lo+int64(len(origin))), nil
	}
	switch a := col.(type) {
	case *array.Binary:
		return gatherBytes(mem, a, origin), nil
	case *array.List:
	default:
		return gatherFixed(mem, col, origin), nil
	}
	var pieces []arrow.Array
	defer func() {
		for _, p := range pieces {
			p.Release()
		}
	}()
	for lo := 0; lo < len(origin); {
		hi := lo + 1
		for hi < len(origin) && origin[hi] == origin[hi-1]+1 {
			hi++
		}
		pieces = append(pieces, array.NewSlice(col, int64(origin[lo]), int64(origin[hi-1])+1))
		lo = hi
	}
	if len(pieces) == 0 {
		return array.NewSlice(col, 0, 0), nil
	}
	return array.Concatenate(pieces, mem)
}

// rising tells whether origin rises by one from its first place.
func rising(origin []int32) (first int64, ok bool) {
	if len(origin) == 0 {
		return 0, true
	}
	for i, o := range origin {
		if o != origin[0]+int32(i) {
			return 0, false
		}
	}
	return int64(origin[0]), true
}

// gatherFixed gathers values of a fixed width, and indices of a dictionary.
func gatherFixed(mem memory.Allocator, col arrow.Array, origin []int32) arrow.Array {
	data := col.Data()
	width := data.DataType().(arrow.FixedWidthDataType).BitWidth() / 8
	b := memory.NewResizableBuffer(mem)
	b.Resize(width * len(origin))
	in, out := data.Buffers()[1].Bytes()[width*data.Offset():], b.Bytes()
	if width == 8 {
		in, out := arrow.Int64Traits.CastFromBytes(in), arrow.Int64Traits.CastFromBytes(out)
		for i, o := range origin {
			out[i] = in[o]
		}
	} else {
		for i, o := range origin {
			copy(out[i*width:(i+1)*width], in[int(o)*width:])
		}
	}
	buffers := []*memory.Buffer{gatherValidity(mem, col, origin), b}
	defer releaseBuffers(buffers)
	dict, _ := data.Dictionary().(*array.Data)
	if dict == nil {
		return arrayOf(array.NewData(data.DataType(), len(origin), buffers, nil, array.UnknownNullCount, 0))
	}
	return arrayOf(array.NewDataWithDictionary(data.DataType(), len(origin), buffers, array.UnknownNullCount, 0, dict))
}

func gatherValidity(mem memory.Allocator, col arrow.Array, origin []int32) *memory.Buffer {
	if col.NullN() == 0 {
		return nil
	}
	null := make([]bool, len(origin))
	for i, o := range origin {
		null[i] = col.IsNull(int(o))
	}
	return validity(mem, null, len(null))
}

func gatherBytes(mem memory.Allocator, col *array.Binary, origin []int32) arrow.Array {
	var s slab.Slab
	s.Begin(1, slab.Room(4*len(origin)+4))
	out := bytesColumn{mem: mem}
	out.reset()
	for _, o := range origin {
		if col.IsNull(int(o)) {
			out.append(nil)
		} else {
			out.append(col.Value(int(o)))
		}
	}
	return arrayOf(out.finish(&s, arrow.BinaryTypes.Binary))
}
