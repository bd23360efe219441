package pipelinetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Render returns each row of a record as text, one column after the other: equal
// text means equal values, whatever the layout of the columns.
func Render(rec arrow.Record) []string {
	rows := make([]string, rec.NumRows())
	for i := range rows {
		cells := make([]string, rec.NumCols())
		for c, col := range rec.Columns() {
			cells[c] = rec.ColumnName(c) + "=" + col.ValueStr(i)
		}
		rows[i] = strings.Join(cells, " ")
	}
	return rows
}

// renderAll renders records one after the other.
func renderAll(recs []arrow.Record) []string {
	var rows []string
	for _, r := range recs {
		rows = append(rows, Render(r)...)
	}
	return rows
}

// differ describes the first difference between rows; "" when they are equal.
func differ(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("row %d is\n  %s, want\n  %s", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d rows, want %d", len(got), len(want))
	}
	return ""
}

// Copy returns a record with the same values in memory of its own, which comes
// from mem. The caller owns it. Record columns that Arrow cannot concatenate end
// the test.
func Copy(tb testing.TB, mem memory.Allocator, rec arrow.Record) arrow.Record {
	tb.Helper()
	cols := make([]arrow.Array, rec.NumCols())
	for i, col := range rec.Columns() {
		halves := []arrow.Array{
			array.NewSlice(col, 0, rec.NumRows()/2),
			array.NewSlice(col, rec.NumRows()/2, rec.NumRows()),
		}
		joined, err := array.Concatenate(halves, mem)
		if err != nil {
			tb.Fatalf("copy column %q: %v", rec.ColumnName(i), err)
		}
		cols[i] = joined
		for _, h := range halves {
			h.Release()
		}
	}
	out := array.NewRecord(rec.Schema(), cols, rec.NumRows())
	for _, c := range cols {
		c.Release()
	}
	return out
}

// checked returns an allocator and a function that fails the test when memory is
// left.
func checked(t *testing.T) (*memory.CheckedAllocator, func()) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	return mem, func() {
		t.Helper()
		if n := mem.CurrentAlloc(); n != 0 {
			t.Errorf("%d bytes were not released", n)
		}
	}
}
