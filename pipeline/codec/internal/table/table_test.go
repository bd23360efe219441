package table_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
)

func allKinds() []codec.Column {
	return []codec.Column{
		{Name: "f32", Type: arrow.PrimitiveTypes.Float32}, {Name: "f64", Type: arrow.PrimitiveTypes.Float64},
		{Name: "i32", Type: arrow.PrimitiveTypes.Int32}, {Name: "i64", Type: arrow.PrimitiveTypes.Int64},
		{Name: "b", Type: arrow.FixedWidthTypes.Boolean}, {Name: "s", Type: arrow.BinaryTypes.String}, {Name: "bin", Type: arrow.BinaryTypes.Binary},
		{Name: "t", Type: arrow.FixedWidthTypes.Timestamp_ms}, {Name: "l", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32)},
	}
}

// put writes n to row r of every column.
func put(t *table.Table, r int, n byte) error {
	for _, c := range t.Columns {
		switch c.Kind {
		case table.Float32:
			c.F32[r] = float32(n)
		case table.Float64:
			c.F64[r] = float64(n)
		case table.Int32:
			c.I32[r] = int32(n)
		case table.Int64, table.Time:
			c.I64[r] = int64(n)
		case table.Bool:
			c.SetBool(r, n%2 == 1)
		case table.String, table.Binary:
			if err := c.Store(r, []byte{n}); err != nil {
				return err
			}
		case table.List:
			c.F32[2*r], c.F32[2*r+1] = float32(n), 0
			c.NullElement(r, 1)
		}
	}
	return nil
}

// TestRows has messages that are rows, nulls, faults after half of a row, and
// values that are taken back.
func TestRows(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	tab := table.New(allKinds())
	b := array.NewBinaryBuilder(memory.DefaultAllocator, arrow.BinaryTypes.Binary)
	for _, m := range []string{"1", "n", "", "x", "r", "2", "", "n", "3", "x"} {
		if m == "" {
			b.AppendNull()
		} else {
			b.AppendString(m)
		}
	}
	values := b.NewBinaryArray()
	read := func(m []byte) (codec.Class, error) {
		if err := put(tab, tab.Row, m[0]); err != nil {
			return codec.Size, err
		}
		if m[0] == 'n' || m[0] == 'x' || m[0] == 'r' {
			for _, c := range tab.Columns {
				c.Null(tab.Row)
				if m[0] == 'r' {
					c.Revive(tab.Row)
				}
				if c.IsNull(tab.Row) == (m[0] == 'r') {
					t.Errorf("column %s: IsNull() = %v after %q", c.Name, c.IsNull(tab.Row), m)
				}
			}
		}
		if m[0] == 'r' {
			return "", put(tab, tab.Row, 5)
		}
		if m[0] == 'x' {
			return codec.Invalid, errors.New("no row")
		}
		return "", nil
	}
	for range 2 { // the second record has no nulls of the first one
		got, err := tab.Decode(context.Background(), mem, values, read)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got.Origin, got.Faults) != "[0 1 4 5 7 8] [validation: no row validation: no row]" || got.Faults[1].Value != 9 {
			t.Errorf("origin %v, faults %v", got.Origin, got.Faults)
		}
		for i, want := range []string{"[49 (null) 5 50 (null) 51]", "[49 (null) 5 50 (null) 51]", "[49 (null) 5 50 (null) 51]", "[49 (null) 5 50 (null) 51]",
			"[true (null) true false (null) true]", `["1" (null) "\x05" "2" (null) "3"]`, `["1" (null) "\x05" "2" (null) "3"]`} {
			if s := fmt.Sprint(got.Record.Column(i)); s != want {
				t.Errorf("column %s: %s, want %s", got.Record.ColumnName(i), s, want)
			}
		}
		l := got.Record.Column(8).(*array.FixedSizeList)
		if s := fmt.Sprint(l); s != "[[49 (null)] (null) [5 (null)] [50 (null)] (null) [51 (null)]]" {
			t.Errorf("list %s", s)
		}
		got.Record.Release()
	}
	if n := mem.CurrentAlloc(); n != 0 {
		t.Errorf("%d bytes in use", n)
	}
}

func TestErrors(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	tab := table.New(allKinds())
	b := array.NewBinaryBuilder(memory.DefaultAllocator, arrow.BinaryTypes.Binary)
	b.AppendString("a")
	values := b.NewBinaryArray()
	end := errors.New("the end")
	if _, err := tab.Decode(t.Context(), mem, values, func([]byte) (codec.Class, error) { return "", end }); err != end {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(end)
	if _, err := tab.Decode(ctx, mem, values, nil); err != end {
		t.Errorf("error %v", err)
	}
	got, err := tab.Decode(t.Context(), mem, values, func([]byte) (codec.Class, error) {
		_, err := tab.Columns[5].Room(tab.Row, math.MaxInt32+1)
		return codec.Size, err
	})
	if err != nil || !errors.Is(got.Faults[0], table.ErrLarge) || got.Record.NumRows() != 0 {
		t.Errorf("%v, %v", got, err)
	}
	got.Record.Release()
	if n := mem.CurrentAlloc(); n != 0 {
		t.Errorf("%d bytes in use", n)
	}
	for _, typ := range []arrow.DataType{nil, arrow.PrimitiveTypes.Int8, arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float64)} {
		if k := table.KindOf(typ); k != table.None {
			t.Errorf("KindOf(%v) = %d", typ, k)
		}
	}
}
