package slab_test

import (
	"fmt"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/slab"
)

func Example() {
	var s slab.Slab
	s.Begin(2, slab.Room(4*3)+slab.Room(8*3))
	a, b := s.Values(0, 4*3), s.Values(1, 8*3)
	copy(arrow.Float32Traits.CastFromBytes(a.Bytes()), []float32{1, 2, 3})
	copy(arrow.Int64Traits.CastFromBytes(b.Bytes()), []int64{4, 5, 6})
	x := s.Array(arrow.PrimitiveTypes.Float32, 3, 0, nil, nil, a)
	y := s.Array(arrow.PrimitiveTypes.Int64, 3, 0, nil, nil, b)
	fmt.Println(x, y)
	// Output: [1 2 3] [4 5 6]
}

// TestApart: columns of any sizes do not touch, and what one is given up leaves the
// others alone.
func TestApart(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer mem.AssertSize(t, 0)
	for _, rows := range []int{0, 1, 7, 1000, 1024, 8192, 16384} {
		const columns = 33
		var s slab.Slab
		s.Begin(columns, columns*slab.Room(4*rows))
		values := make([]*memory.Buffer, columns)
		for i := range values {
			values[i] = s.Values(i, 4*rows)
			if n := values[i].Len(); n != 4*rows {
				t.Fatalf("%d bytes for %d rows", n, rows)
			}
			for k, v := range arrow.Int32Traits.CastFromBytes(values[i].Bytes()) {
				if v != 0 {
					t.Fatalf("column %d has a %d before anything was written", i, v)
				}
				arrow.Int32Traits.CastFromBytes(values[i].Bytes())[k] = int32(i)
			}
		}
		all := make([]arrow.Array, columns)
		for i, v := range values {
			valid := memory.NewResizableBuffer(mem)
			valid.Resize((rows + 7) / 8)
			for k := range valid.Bytes() {
				valid.Bytes()[k] = 0xff
			}
			typ := arrow.DataType(arrow.PrimitiveTypes.Int32)
			if i%2 == 0 {
				typ = arrow.PrimitiveTypes.Float32
			}
			all[i] = s.Array(typ, rows, 0, nil, valid, v)
			valid.Release()
		}
		all[0].Release()
		all[1].Release()
		for i, a := range all[2:] {
			for r := range rows {
				switch a := a.(type) {
				case *array.Int32:
					if a.Value(r) != int32(i+2) {
						t.Fatalf("row %d of column %d is %d", r, i+2, a.Value(r))
					}
				case *array.Float32:
					if got := arrow.Int32Traits.CastFromBytes(a.Data().Buffers()[1].Bytes())[r]; got != int32(i+2) {
						t.Fatalf("row %d of column %d is %d", r, i+2, got)
					}
				}
			}
			a.Release()
		}
	}
}
