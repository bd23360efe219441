package json

import (
	"math"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/slab"
)

// kind is what values become.
type kind int8

const (
	kindNone kind = iota
	kindFloat32
	kindFloat64
	kindInt32
	kindInt64
	kindBool
	kindString
	kindBinary
	kindTime
	kindList // fixed-size, of float32
)

// kindOf returns kindNone for a type that JSON is not read as.
func kindOf(t arrow.DataType) kind {
	if t == nil {
		return kindNone
	}
	switch t.ID() {
	case arrow.FLOAT32:
		return kindFloat32
	case arrow.FLOAT64:
		return kindFloat64
	case arrow.INT32:
		return kindInt32
	case arrow.INT64:
		return kindInt64
	case arrow.BOOL:
		return kindBool
	case arrow.STRING:
		return kindString
	case arrow.BINARY:
		return kindBinary
	case arrow.TIMESTAMP:
		return kindTime
	case arrow.FIXED_SIZE_LIST:
		if t.(*arrow.FixedSizeListType).Elem().ID() == arrow.FLOAT32 {
			return kindList
		}
	}
	return kindNone
}

// A column collects the values of one record's column. Of the slices only that of
// its kind is in use; all but the variable-length data are allocated once a record.
type column struct {
	kind     kind
	typ      arrow.DataType
	path     string
	required bool
	time     Time
	width    int // elements of a list
	place    int // among the columns

	set int64 // the last row that has a value
	bad int64 // the last row that has a value of another type, and what is wrong with it
	err error

	mem     memory.Allocator
	rows    int // capacity
	values  *memory.Buffer
	valid   *memory.Buffer // nil until the first null
	nulls   int
	data    *memory.Buffer // of strings and binaries, whose offsets are values
	used    int            // bytes of data
	reserve int            // bytes of data to begin with
	inList  *memory.Buffer // which elements are not null; nil until one is

	f32     []float32
	f64     []float64
	i32     []int32 // of strings and binaries: the offsets
	i64     []int64 // also timestamps
	bits    []byte
	bytes   []byte // all of data
	element []byte // all of inList
}

// size is how many bytes the values of rows rows take.
func (c *column) size(rows int) int {
	switch c.kind {
	case kindFloat64, kindInt64, kindTime:
		return 8 * rows
	case kindBool:
		return (rows + 7) / 8
	case kindString, kindBinary:
		return 4 * (rows + 1)
	}
	return 4 * rows * max(c.width, 1)
}

// begin makes room for rows rows in a slab.
func (c *column) begin(mem memory.Allocator, s *slab.Slab, rows int) {
	c.mem, c.rows, c.nulls, c.used = mem, rows, 0, 0
	c.values = s.Values(c.place, c.size(rows))
	b := c.values.Bytes()
	switch c.kind {
	case kindFloat32, kindList:
		c.f32 = arrow.Float32Traits.CastFromBytes(b)
	case kindFloat64:
		c.f64 = arrow.Float64Traits.CastFromBytes(b)
	case kindInt64, kindTime:
		c.i64 = arrow.Int64Traits.CastFromBytes(b)
	case kindInt32:
		c.i32 = arrow.Int32Traits.CastFromBytes(b)
	case kindBool:
		c.bits = b
	case kindString, kindBinary:
		c.i32 = arrow.Int32Traits.CastFromBytes(b)
		c.i32[0] = 0
		c.data = memory.NewResizableBuffer(mem)
		c.data.Resize(c.reserve)
		c.bytes = c.data.Bytes()
	}
}

// room returns n bytes for the value of row r, of which keep then tells how many
// are used. A column cannot hold more than 2 GiB.
func (c *column) room(r, n int) (dst []byte, ok bool) {
	lo := int(c.i32[r])
	if lo+n > math.MaxInt32 {
		return nil, false
	}
	if lo+n > len(c.bytes) {
		c.data.Resize(max(2*len(c.bytes), lo+n, 64*min(c.rows, 1024)))
		c.bytes = c.data.Bytes()
	}
	return c.bytes[lo : lo+n], true
}

// keep makes the first n bytes of room the value of row r.
func (c *column) keep(r, n int) { c.used = int(c.i32[r]) + n }

// setNull makes row r null.
func (c *column) setNull(r int) {
	if c.valid == nil {
		c.valid = ones(c.mem, c.rows)
	}
	bitutil.ClearBit(c.valid.Bytes(), r)
	c.nulls++
	switch c.kind { // what lies under a null is zero
	case kindFloat32:
		c.f32[r] = 0
	case kindFloat64:
		c.f64[r] = 0
	case kindInt32:
		c.i32[r] = 0
	case kindInt64, kindTime:
		c.i64[r] = 0
	case kindBool:
		bitutil.ClearBit(c.bits, r)
	case kindString, kindBinary:
		c.used = int(c.i32[r])
	case kindList:
		clear(c.f32[r*c.width : (r+1)*c.width])
	}
}

// ones returns n bits, all set.
func ones(mem memory.Allocator, n int) *memory.Buffer {
	b := memory.NewResizableBuffer(mem)
	b.Resize((n + 7) / 8)
	for i := range b.Bytes() {
		b.Bytes()[i] = 0xff
	}
	return b
}

// setElement stores element i of the list of row r.
func (c *column) setElement(r, i int, v float32, null bool) {
	at := r*c.width + i
	c.f32[at] = v
	if null && c.inList == nil {
		c.inList = ones(c.mem, c.rows*c.width)
		c.element = c.inList.Bytes()
	}
	if c.element != nil {
		bitutil.SetBitTo(c.element, at, !null)
	}
}

// finish returns the first rows rows, which the caller owns, and gives up the rest.
func (c *column) finish(s *slab.Slab, rows int) (out arrow.Array) {
	switch c.kind {
	case kindString, kindBinary:
		c.data.ResizeNoShrink(c.used)
		c.reserve = c.used + c.used/8
		out = s.Array(c.typ, rows, c.nulls, nil, c.valid, c.values, c.data)
	case kindList:
		elem := c.typ.(*arrow.FixedSizeListType).Elem()
		nulls := 0
		if c.inList != nil {
			nulls = array.UnknownNullCount
		}
		child := array.NewData(elem, rows*c.width, []*memory.Buffer{c.inList, c.values}, nil, nulls, 0)
		defer child.Release()
		out = s.Array(c.typ, rows, c.nulls, []arrow.ArrayData{child}, c.valid)
	default:
		out = s.Array(c.typ, rows, c.nulls, nil, c.valid, c.values)
	}
	c.drop()
	return out
}

// drop gives up what begin and later calls have allocated.
func (c *column) drop() {
	c.values = nil // the slab's
	for _, b := range []**memory.Buffer{&c.valid, &c.data, &c.inList} {
		if *b != nil {
			(*b).Release()
			*b = nil
		}
	}
	c.f32, c.f64, c.i32, c.i64, c.bits, c.bytes, c.element = nil, nil, nil, nil, nil, nil, nil
}
