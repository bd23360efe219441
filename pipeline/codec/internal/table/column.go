package table

import (
	"math"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/slab"
)

// Kind is what the values of a column are.
type Kind int8

// The kinds; None is a type that is not supported, and List a fixed-size list of
// float32.
const (
	None Kind = iota
	Float32
	Float64
	Int32
	Int64
	Bool
	String
	Binary
	Time
	List
)

// KindOf returns the kind of a type.
func KindOf(t arrow.DataType) Kind {
	if t == nil {
		return None
	}
	switch t.ID() {
	case arrow.FLOAT32:
		return Float32
	case arrow.FLOAT64:
		return Float64
	case arrow.INT32:
		return Int32
	case arrow.INT64:
		return Int64
	case arrow.BOOL:
		return Bool
	case arrow.STRING:
		return String
	case arrow.BINARY:
		return Binary
	case arrow.TIMESTAMP:
		return Time
	case arrow.FIXED_SIZE_LIST:
		if t.(*arrow.FixedSizeListType).Elem().ID() == arrow.FLOAT32 {
			return List
		}
	}
	return None
}

// A Column collects values. Of its slices only the one of its kind is set, with an
// element for each row; readers write there without a call. All memory but that of
// strings and binaries is allocated once a record.
type Column struct {
	Name  string
	Kind  Kind
	Type  arrow.DataType
	Width int // elements of a List

	F32  []float32 // Float32; of a List Width for each row
	F64  []float64
	I32  []int32
	I64  []int64 // Int64 and Time
	Bits []byte  // Bool

	place   int // among the columns
	mem     memory.Allocator
	rows    int // capacity
	values  *memory.Buffer
	valid   *memory.Buffer // nil until the first null
	bits    []byte         // all of valid
	offsets []int32        // of strings and binaries
	data    *memory.Buffer
	bytes   []byte         // all of data
	reserve int            // bytes of data to begin with
	inList  *memory.Buffer // which elements are not null; nil until one is
	element []byte         // all of inList
}

// size is how many bytes the values of rows rows take.
func (c *Column) size(rows int) int {
	switch c.Kind {
	case Float64, Int64, Time:
		return 8 * rows
	case Bool:
		return (rows + 7) / 8
	case String, Binary:
		return 4 * (rows + 1)
	}
	return 4 * rows * max(c.Width, 1)
}

// begin makes room for rows rows in a slab.
func (c *Column) begin(mem memory.Allocator, s *slab.Slab, rows int) {
	c.mem, c.rows = mem, rows
	c.values = s.Values(c.place, c.size(rows))
	b := c.values.Bytes()
	switch c.Kind {
	case Float32, List:
		c.F32 = arrow.Float32Traits.CastFromBytes(b)
	case Float64:
		c.F64 = arrow.Float64Traits.CastFromBytes(b)
	case Int64, Time:
		c.I64 = arrow.Int64Traits.CastFromBytes(b)
	case Int32:
		c.I32 = arrow.Int32Traits.CastFromBytes(b)
	case Bool:
		c.Bits = b
	case String, Binary:
		c.offsets = arrow.Int32Traits.CastFromBytes(b)
		c.offsets[0] = 0
		c.data = memory.NewResizableBuffer(mem)
		c.data.Resize(c.reserve)
		c.bytes = c.data.Bytes()
	}
}

// Store makes a copy of b the value of row r, of a String or Binary.
func (c *Column) Store(r int, b []byte) error {
	dst, err := c.Room(r, len(b))
	if err != nil {
		return err
	}
	copy(dst, b)
	return nil
}

// Room makes n bytes the value of row r, of a String or Binary, and returns them to
// be written. They are valid until the next call.
func (c *Column) Room(r, n int) ([]byte, error) {
	lo := int(c.offsets[r])
	if lo+n > math.MaxInt32 {
		return nil, ErrLarge
	}
	if lo+n > len(c.bytes) {
		c.data.Resize(max(2*len(c.bytes), lo+n, 64*min(c.rows, 1024)))
		c.bytes = c.data.Bytes()
	}
	c.offsets[r+1] = int32(lo + n)
	return c.bytes[lo : lo+n], nil
}

// SetBool makes v the value of row r, of a Bool.
func (c *Column) SetBool(r int, v bool) { bitutil.SetBitTo(c.Bits, r, v) }

// Null makes row r null. What lies under a null is zero.
func (c *Column) Null(r int) {
	if c.valid == nil {
		c.valid = ones(c.mem, c.rows)
		c.bits = c.valid.Bytes()
	}
	bitutil.ClearBit(c.bits, r)
	switch c.Kind {
	case Float32:
		c.F32[r] = 0
	case Float64:
		c.F64[r] = 0
	case Int32:
		c.I32[r] = 0
	case Int64, Time:
		c.I64[r] = 0
	case Bool:
		bitutil.ClearBit(c.Bits, r)
	case String, Binary:
		c.offsets[r+1] = c.offsets[r]
	case List:
		clear(c.F32[r*c.Width : (r+1)*c.Width])
		if c.element != nil {
			for i := range c.Width {
				bitutil.SetBit(c.element, r*c.Width+i)
			}
		}
	}
}

// Revive takes back that row r, or an element of its list, is null.
func (c *Column) Revive(r int) {
	if c.bits != nil {
		bitutil.SetBit(c.bits, r)
	}
	if c.element != nil {
		for i := range c.Width {
			bitutil.SetBit(c.element, r*c.Width+i)
		}
	}
}

// IsNull tells whether row r is null.
func (c *Column) IsNull(r int) bool { return c.bits != nil && !bitutil.BitIsSet(c.bits, r) }

// NullElement makes element i of the list of row r null.
func (c *Column) NullElement(r, i int) {
	if c.inList == nil {
		c.inList = ones(c.mem, c.rows*c.Width)
		c.element = c.inList.Bytes()
	}
	c.F32[r*c.Width+i] = 0
	bitutil.ClearBit(c.element, r*c.Width+i)
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

// finish returns the first rows rows, which the caller owns, and gives up the rest.
func (c *Column) finish(s *slab.Slab, rows int) (out arrow.Array) {
	nulls := 0
	if c.bits != nil {
		nulls = rows - bitutil.CountSetBits(c.bits, 0, rows)
	}
	switch c.Kind {
	case String, Binary:
		used := int(c.offsets[rows])
		c.data.ResizeNoShrink(used)
		c.reserve = used + used/8
		out = s.Array(c.Type, rows, nulls, nil, c.valid, c.values, c.data)
	case List:
		elem := c.Type.(*arrow.FixedSizeListType).Elem()
		inList := 0
		if c.inList != nil {
			inList = array.UnknownNullCount
		}
		child := array.NewData(elem, rows*c.Width, []*memory.Buffer{c.inList, c.values}, nil, inList, 0)
		defer child.Release()
		out = s.Array(c.Type, rows, nulls, []arrow.ArrayData{child}, c.valid)
	default:
		out = s.Array(c.Type, rows, nulls, nil, c.valid, c.values)
	}
	c.drop()
	return out
}

// drop gives up what begin and later calls have allocated.
func (c *Column) drop() {
	c.values = nil // the slab's
	for _, b := range []**memory.Buffer{&c.valid, &c.data, &c.inList} {
		if *b != nil {
			(*b).Release()
			*b = nil
		}
	}
	c.F32, c.F64, c.I32, c.I64, c.Bits = nil, nil, nil, nil, nil
	c.bits, c.offsets, c.bytes, c.element = nil, nil, nil, nil
}
