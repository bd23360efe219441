package arrowipc

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/slab"
	"github.com/elbo-stream/elbo/pipeline/codec"
)

// kind is what values become.
type kind int8

const (
	kindNone kind = iota
	kindNumber
	kindBool
	kindBytes // also strings
	kindTime
	kindList // fixed-size, of float32
)

// kindOf returns kindNone for a type that streams are not read as.
func kindOf(t arrow.DataType) kind {
	if t == nil {
		return kindNone
	}
	switch t.ID() {
	case arrow.FLOAT32, arrow.FLOAT64, arrow.INT32, arrow.INT64:
		return kindNumber
	case arrow.BOOL:
		return kindBool
	case arrow.STRING, arrow.BINARY:
		return kindBytes
	case arrow.TIMESTAMP:
		return kindTime
	case arrow.FIXED_SIZE_LIST:
		if t.(*arrow.FixedSizeListType).Elem().ID() == arrow.FLOAT32 {
			return kindList
		}
	}
	return kindNone
}

// castable tells whether a stream's column can become one of type want, as far as
// types tell.
func castable(have *field, want arrow.DataType) bool {
	if have.typ == nil {
		return false
	}
	id := have.typ.ID()
	if id == arrow.NULL {
		return true
	}
	if have.values != nil {
		return have.values.typ != nil && kindOf(want) == kindBytes && castable(have.values, want)
	}
	switch want.ID() {
	case arrow.FLOAT32, arrow.FLOAT64:
		return arrow.IsInteger(id) || arrow.IsFloating(id)
	case arrow.INT64:
		return arrow.IsInteger(id) && id != arrow.UINT64
	case arrow.INT32:
		return arrow.IsInteger(id) && have.size < 4 || id == arrow.INT32
	case arrow.STRING:
		return id == arrow.STRING || id == arrow.LARGE_STRING
	case arrow.BINARY:
		return id == arrow.BINARY || id == arrow.LARGE_BINARY
	case arrow.TIMESTAMP:
		return id == arrow.TIMESTAMP && have.typ.(*arrow.TimestampType).Unit <= want.(*arrow.TimestampType).Unit
	case arrow.FIXED_SIZE_LIST:
		l := want.(*arrow.FixedSizeListType)
		if id == arrow.FIXED_SIZE_LIST && have.size != int(l.Len()) || id != arrow.FIXED_SIZE_LIST && id != arrow.LIST && id != arrow.LARGE_LIST {
			return false
		}
		elem := &have.children[0]
		return elem.values == nil && elem.typ.ID() != arrow.NULL && castable(elem, arrow.PrimitiveTypes.Float32)
	}
	return id == want.ID()
}

// A column collects the values of one record's column.
type column struct {
	name  string
	kind  kind
	typ   arrow.DataType
	width int // elements of a list, 1 of anything else

	mem     memory.Allocator
	rows    int // capacity
	values  *memory.Buffer
	valid   *memory.Buffer // nil until the first null
	data    *memory.Buffer // of strings and binaries, whose offsets are values
	used    int            // bytes of data
	reserve int            // bytes of data to begin with
	inList  *memory.Buffer // which elements are not null; nil until one is

	left    *int      // bytes that the message may still take
	scratch []uint64  // source values, aligned
	floats  []float32 // elements of a list
}

// size is how many bytes the values of rows rows take.
func (c *column) size(rows int) int {
	if c.kind == kindBytes {
		rows++ // offsets have an end too
	}
	return c.bytesOf(rows)
}

// begin makes room for rows rows, whose values it owns.
func (c *column) begin(mem memory.Allocator, values *memory.Buffer, rows int) {
	c.mem, c.rows, c.used, c.values = mem, rows, 0, values
	if c.kind == kindBytes {
		c.offsets()[0] = 0
		c.data = memory.NewResizableBuffer(mem)
		c.data.Resize(c.reserve)
	}
}

// bytesOf is how many bytes of values n rows take.
func (c *column) bytesOf(n int) int {
	switch c.kind {
	case kindBytes:
		return 4 * n
	case kindBool:
		return (n + 7) / 8
	case kindList:
		return 4 * c.width * n
	}
	return n * c.typ.(arrow.FixedWidthDataType).BitWidth() / 8
}

func (c *column) offsets() []int32 { return arrow.Int32Traits.CastFromBytes(c.values.Bytes()) }

// append makes v, or nulls without it, the values of rows [at, at+n).
func (c *column) append(at, n int, v *vector, dict *dictionary) error {
	if v == nil || v.field.typ.ID() == arrow.NULL {
		c.setValid(at, n, nil, true)
		if c.kind == kindBytes {
			c.appendNothing(at, n)
		}
		clear(c.values.Bytes()[c.bytesOf(at):][:c.bytesOf(n)*b2i(c.kind != kindBytes && c.kind != kindBool)])
		return nil
	}
	if v.rows != n {
		return broken("column %q: %d values in a batch of %d rows", v.field.name, v.rows, n)
	}
	c.setValid(at, n, v.valid, false)
	switch c.kind {
	case kindBool:
		bitutil.CopyBitmap(v.values, 0, n, c.values.Bytes(), at)
		return nil
	case kindBytes:
		if dict != nil {
			return c.appendDictionary(at, n, v, dict)
		}
		return c.appendBytes(at, n, v)
	case kindTime:
		return c.appendTimes(at, n, v)
	case kindList:
		return c.appendLists(at, n, v)
	}
	if bad := c.cast(c.values.Bytes()[c.bytesOf(at):c.bytesOf(at+n)], c.typ.ID(), v, 0, n); bad >= 0 {
		return invalid("column %q: the number in row %d of a batch is no %v", c.name, bad, c.typ)
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// setValid stores which of n rows are not null: those of bits, or without bits none
// or all.
func (c *column) setValid(at, n int, bits []byte, none bool) {
	if c.valid == nil {
		if bits == nil && !none {
			return
		}
		c.valid = ones(c.mem, c.rows)
	}
	if bits != nil {
		bitutil.CopyBitmap(bits, 0, n, c.valid.Bytes(), at)
	} else {
		bitutil.SetBitsTo(c.valid.Bytes(), int64(at), int64(n), !none)
	}
}

// ones returns n bits, all set.
func ones(mem memory.Allocator, n int) *memory.Buffer {
	b := memory.NewResizableBuffer(mem)
	b.Resize((n + 7) / 8)
	bitutil.SetBitsTo(b.Bytes(), 0, int64(n), true)
	return b
}

// appendNothing makes n rows from at empty.
func (c *column) appendNothing(at, n int) {
	off := c.offsets()
	for i := at; i < at+n; i++ {
		off[i+1] = off[at]
	}
	c.used = int(off[at])
}

// grow makes room for n more bytes behind row at, and returns where they begin.
func (c *column) grow(at, n int) (int, error) {
	lo := int(c.offsets()[at])
	if lo+n > math.MaxInt32 {
		return 0, invalid("column %q: more than 2 GiB of it in one batch", c.name)
	}
	if lo+n > c.data.Len() {
		c.data.Resize(max(2*c.data.Len(), lo+n, 4<<10))
	}
	c.used = lo + n
	return lo, nil
}

// appendBytes copies the values of a vector of strings or binaries.
func (c *column) appendBytes(at, n int, v *vector) error {
	if n == 0 {
		return nil
	}
	first, last := v.offset(0), v.offset(n)
	if first < 0 || last < first || last > int64(len(v.values)) {
		return broken("column %q: offsets from %d to %d in %d bytes", v.field.name, first, last, len(v.values))
	}
	lo, err := c.grow(at, int(last-first))
	if err != nil {
		return err
	}
	text := v.values[first:last]
	ascii := c.typ.ID() != arrow.STRING
	if !ascii && !utf8.Valid(text) {
		return broken("column %q: not UTF-8", v.field.name)
	}
	copy(c.data.Bytes()[lo:], text)
	off, before := c.offsets()[at+1:at+n+1], first
	for i := range off {
		next := v.offset(i + 1)
		if next < before || next > last {
			return broken("column %q: offset %d after %d", v.field.name, next, before)
		}
		if !ascii && next < last && !utf8.RuneStart(v.values[next]) {
			return broken("column %q: a string ends within a character", v.field.name)
		}
		off[i] = int32(lo) + int32(next-first)
		before = next
	}
	return nil
}

// A dictionary holds what indices stand for; a nil entry is null.
type dictionary struct {
	entries [][]byte
}

// appendDictionary copies what the indices of v stand for.
func (c *column) appendDictionary(at, n int, v *vector, dict *dictionary) error {
	off := c.offsets()
	for i := range n {
		var entry []byte
		if !v.isNull(i) {
			k := indexAt(v.values, v.field.size, i)
			if k >= uint64(len(dict.entries)) {
				return broken("column %q: index %d in a dictionary of %d", v.field.name, k, len(dict.entries))
			}
			if entry = dict.entries[k]; entry == nil {
				c.setValid(at+i, 1, nil, true)
			}
		}
		if *c.left -= len(entry); *c.left < 0 {
			return &problem{codec.Size, fmt.Errorf("column %q: a dictionary's values written out", v.field.name)}
		}
		lo, err := c.grow(at+i, len(entry))
		if err != nil {
			return err
		}
		off[at+i+1] = int32(lo + copy(c.data.Bytes()[lo:], entry))
	}
	return nil
}

// indexAt reads index i; a negative one is very large.
func indexAt(b []byte, size, i int) uint64 {
	switch size {
	case 1:
		return uint64(int64(int8(b[i])))
	case 2:
		return uint64(int64(int16(binary.LittleEndian.Uint16(b[2*i:]))))
	case 4:
		return uint64(int64(int32(binary.LittleEndian.Uint32(b[4*i:]))))
	}
	return binary.LittleEndian.Uint64(b[8*i:])
}

// appendTimes copies timestamps in the column's unit, which is no coarser.
func (c *column) appendTimes(at, n int, v *vector) error {
	dst := c.values.Bytes()[8*at : 8*(at+n)]
	factor := int64(1)
	for u := v.field.typ.(*arrow.TimestampType).Unit; u < c.typ.(*arrow.TimestampType).Unit; u++ {
		factor *= 1000
	}
	if copy(dst, v.values); factor == 1 {
		return nil
	}
	for i, t := range arrow.Int64Traits.CastFromBytes(dst) {
		scaled := t * factor
		if scaled/factor != t && !v.isNull(i) {
			return invalid("column %q: the time in row %d of a batch is beyond %v", c.name, i, c.typ)
		}
		arrow.Int64Traits.CastFromBytes(dst)[i] = scaled
	}
	return nil
}

// appendLists copies lists that have as many elements as the column wants.
func (c *column) appendLists(at, n int, v *vector) error {
	first, last := int64(0), int64(n*c.width)
	if v.field.typ.ID() != arrow.FIXED_SIZE_LIST && n > 0 {
		first, last = v.offset(0), v.offset(n)
		if first < 0 || last < first || last > int64(v.child.rows) {
			return broken("column %q: offsets from %d to %d in %d elements", v.field.name, first, last, v.child.rows)
		}
	}
	if n := int(last - first); cap(c.floats) < n {
		c.floats = make([]float32, n)
	}
	elements := c.floats[:last-first]
	if bad := c.cast(arrow.Float32Traits.CastToBytes(elements), arrow.FLOAT32, v.child, int(first), int(last-first)); bad >= 0 {
		return invalid("column %q: element %d of a batch is no float", c.name, bad)
	}
	dst := arrow.Float32Traits.CastFromBytes(c.values.Bytes())[at*c.width : (at+n)*c.width]
	if int64(len(dst)) == last && v.offsets == nil {
		copy(dst, elements)
		c.setElements(at*c.width, len(dst), v.child, 0)
		return nil
	}
	for i := range n {
		lo, hi := v.offset(i), v.offset(i+1)
		row := dst[i*c.width : (i+1)*c.width]
		if v.isNull(i) {
			clear(row)
			c.setElements((at+i)*c.width, c.width, nil, 0)
			continue
		}
		if hi-lo != int64(c.width) || lo < first || hi > last {
			return invalid("column %q: %d elements in row %d of a batch, want %d", c.name, hi-lo, i, c.width)
		}
		copy(row, elements[lo-first:])
		c.setElements((at+i)*c.width, c.width, v.child, int(lo))
	}
	return nil
}

// setElements stores which of n elements from at are not null: those of child from
// from on, or all.
func (c *column) setElements(at, n int, child *vector, from int) {
	if c.inList == nil {
		if child == nil || child.valid == nil {
			return
		}
		c.inList = ones(c.mem, c.rows*c.width)
	}
	if child == nil || child.valid == nil {
		bitutil.SetBitsTo(c.inList.Bytes(), int64(at), int64(n), true)
	} else {
		bitutil.CopyBitmap(child.valid, from, n, c.inList.Bytes(), at)
	}
}

// cast writes values [from, from+n) of v to dst as numbers of type want. It returns
// the first that want does not hold, or -1; nulls do not count.
func (c *column) cast(dst []byte, want arrow.Type, v *vector, from, n int) int {
	src := v.values[from*v.field.size : (from+n)*v.field.size]
	if v.field.typ.ID() == want {
		copy(dst, src)
		return -1
	}
	words := (len(src) + 7) / 8
	if cap(c.scratch) < words {
		c.scratch = make([]uint64, words)
	}
	aligned := arrow.Uint64Traits.CastToBytes(c.scratch[:words])
	copy(aligned, src)
	id := v.field.typ.ID()
	in := aligned[:len(src)]
	isNull := func(i int) bool { return v.isNull(from + i) }
	switch want {
	case arrow.FLOAT32:
		return toFloat(arrow.Float32Traits.CastFromBytes(dst), in, id, 24, isNull)
	case arrow.FLOAT64:
		return toFloat(arrow.Float64Traits.CastFromBytes(dst), in, id, 53, isNull)
	case arrow.INT32:
		toInt(arrow.Int32Traits.CastFromBytes(dst), in, id)
	case arrow.INT64:
		toInt(arrow.Int64Traits.CastFromBytes(dst), in, id)
	}
	return -1
}

// toInt widens integers.
func toInt[D int32 | int64](dst []D, src []byte, id arrow.Type) {
	switch id {
	case arrow.INT8:
		widen(dst, arrow.Int8Traits.CastFromBytes(src))
	case arrow.UINT8:
		widen(dst, src)
	case arrow.INT16:
		widen(dst, arrow.Int16Traits.CastFromBytes(src))
	case arrow.UINT16:
		widen(dst, arrow.Uint16Traits.CastFromBytes(src))
	case arrow.INT32:
		widen(dst, arrow.Int32Traits.CastFromBytes(src))
	case arrow.UINT32:
		widen(dst, arrow.Uint32Traits.CastFromBytes(src))
	}
}

func widen[D int32 | int64 | float32 | float64, S int8 | uint8 | int16 | uint16 | int32 | uint32 | float32](dst []D, src []S) {
	for i, v := range src {
		dst[i] = D(v)
	}
}

// toFloat makes floats of mantissa bits out of numbers, and returns the first that
// changes more than by rounding of a float, or -1.
func toFloat[D float32 | float64](dst []D, src []byte, id arrow.Type, mantissa int, isNull func(int) bool) int {
	switch id {
	case arrow.FLOAT16:
		for i, v := range arrow.Float16Traits.CastFromBytes(src) {
			dst[i] = D(v.Float32())
		}
	case arrow.FLOAT32:
		widen(dst, arrow.Float32Traits.CastFromBytes(src))
	case arrow.FLOAT64:
		for i, v := range arrow.Float64Traits.CastFromBytes(src) {
			if dst[i] = D(v); math.IsInf(float64(dst[i]), 0) && !math.IsInf(v, 0) && !isNull(i) {
				return i
			}
		}
	case arrow.INT8:
		widen(dst, arrow.Int8Traits.CastFromBytes(src))
	case arrow.UINT8:
		widen(dst, src)
	case arrow.INT16:
		widen(dst, arrow.Int16Traits.CastFromBytes(src))
	case arrow.UINT16:
		widen(dst, arrow.Uint16Traits.CastFromBytes(src))
	case arrow.INT32:
		return exact(dst, arrow.Int32Traits.CastFromBytes(src), mantissa, isNull)
	case arrow.UINT32:
		return exact(dst, arrow.Uint32Traits.CastFromBytes(src), mantissa, isNull)
	case arrow.INT64:
		return exact(dst, arrow.Int64Traits.CastFromBytes(src), mantissa, isNull)
	case arrow.UINT64:
		return exact(dst, arrow.Uint64Traits.CastFromBytes(src), mantissa, isNull)
	}
	return -1
}

// exact returns the first integer that a float of mantissa bits does not hold.
func exact[D float32 | float64, S int32 | uint32 | int64 | uint64](dst []D, src []S, mantissa int, isNull func(int) bool) int {
	for i, v := range src {
		dst[i] = D(v)
		size := uint64(v)
		if v < 0 {
			size = -size
		}
		if size>>mantissa != 0 && size>>bits.TrailingZeros64(size)>>mantissa != 0 && !isNull(i) {
			return i
		}
	}
	return -1
}

// finish returns the first rows rows, which the caller owns, and gives up the rest.
func (c *column) finish(s *slab.Slab, rows int) arrow.Array {
	defer c.drop()
	nulls := 0
	if c.valid != nil {
		nulls = rows - bitutil.CountSetBits(c.valid.Bytes(), 0, rows)
	}
	switch c.kind {
	case kindBytes:
		c.used = int(c.offsets()[rows])
		c.data.ResizeNoShrink(c.used)
		c.reserve = c.used + c.used/8
		return s.Array(c.typ, rows, nulls, nil, c.valid, c.values, c.data)
	case kindList:
		elem := c.typ.(*arrow.FixedSizeListType).Elem()
		inList := 0
		if c.inList != nil {
			inList = array.UnknownNullCount
		}
		child := array.NewData(elem, rows*c.width, []*memory.Buffer{c.inList, c.values}, nil, inList, 0)
		defer child.Release()
		return s.Array(c.typ, rows, nulls, []arrow.ArrayData{child}, c.valid)
	}
	return s.Array(c.typ, rows, nulls, nil, c.valid, c.values)
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
}
