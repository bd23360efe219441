// Package slab makes the columns of a record in a few allocations, where one by one
// each would take five.
//
//	var s slab.Slab
//	s.Begin(2, slab.Room(4*rows)+slab.Room(8*rows))
//	a, b := s.Values(0, 4*rows), s.Values(1, 8*rows) // fill a.Bytes() and b.Bytes()
//	x := s.Array(arrow.PrimitiveTypes.Float32, rows, 0, nil, nil, a)
//
// The thing to know is that the values of all columns are one piece of Go's memory:
// nobody has to give it up, and it stays for as long as any column is in use.
package slab

import (
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// A Slab serves one record after the other, and one goroutine. What it has made is
// independent of it.
type Slab struct {
	bytes   []byte
	used    int
	values  []memory.Buffer
	buffers []*memory.Buffer
	data    []array.Data
	floats  []array.Float32
}

const line, page = 64, 4096

// Room is what n bytes of values may take of a slab.
func Room(n int) int { return n + page }

// Begin makes room for the values of a number of columns, of which room is the sum
// of their Room, and for as many arrays.
func (s *Slab) Begin(columns, room int) {
	*s = Slab{
		bytes:   memory.NewGoAllocator().Allocate(room), // aligned to lines
		values:  make([]memory.Buffer, columns),
		buffers: make([]*memory.Buffer, 0, 3*columns),
		data:    make([]array.Data, columns),
	}
}

// Values returns n bytes, all zero, for the column at a place. Large ones begin at
// some distance from a page: rows are written across all columns, and if the same row
// of each had the same place in its page, the columns would push each other out of
// the nearest cache.
func (s *Slab) Values(place, n int) *memory.Buffer {
	at := (s.used + line - 1) / line * line
	if n >= page {
		at += (line*place%page - at%page + page) % page
	}
	s.used = at + n
	b := &s.values[0]
	s.values = s.values[1:]
	b.Reset(s.bytes[at:s.used:s.used])
	return b
}

// Array returns an array of the buffers and children, which it retains; the caller
// owns it. It is called at most once for each column.
func (s *Slab) Array(t arrow.DataType, rows, nulls int, children []arrow.ArrayData, buffers ...*memory.Buffer) arrow.Array {
	d := s.Data(t, rows, nulls, children, buffers...)
	defer d.Release()
	if t.ID() != arrow.FLOAT32 {
		return array.MakeFromData(d)
	}
	if len(s.floats) == 0 {
		s.floats = make([]array.Float32, 1+len(s.data)) // as many as can still be asked for
	}
	a := &s.floats[0]
	s.floats = s.floats[1:]
	a.Reset(d)
	a.Retain()
	return a
}

// Data returns what Array makes an array of.
func (s *Slab) Data(t arrow.DataType, rows, nulls int, children []arrow.ArrayData, buffers ...*memory.Buffer) *array.Data {
	lo := len(s.buffers)
	s.buffers = append(s.buffers, buffers...)
	d := &s.data[0]
	s.data = s.data[1:]
	d.Reset(t, rows, s.buffers[lo:len(s.buffers):len(s.buffers)], children, nulls, 0)
	d.Retain()
	return d
}
