package json_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
)

var (
	f32   = arrow.PrimitiveTypes.Float32
	f64   = arrow.PrimitiveTypes.Float64
	i32   = arrow.PrimitiveTypes.Int32
	i64   = arrow.PrimitiveTypes.Int64
	boole = arrow.FixedWidthTypes.Boolean
	str   = arrow.BinaryTypes.String
	bin   = arrow.BinaryTypes.Binary
	vec3  = arrow.FixedSizeListOf(3, f32)
)

// binaryOf returns values as messages; nil is a null.
func binaryOf(values ...[]byte) *array.Binary {
	b := array.NewBinaryBuilder(memory.DefaultAllocator, arrow.BinaryTypes.Binary)
	defer b.Release()
	for _, v := range values {
		if v == nil {
			b.AppendNull()
		} else {
			b.Append(v)
		}
	}
	return b.NewBinaryArray()
}

func newFormat(t testing.TB, c json.Config) *json.Format {
	t.Helper()
	f, err := json.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// decode decodes values with a decoder of its own, checks that nothing leaks, and
// returns what it made.
func decode(t testing.TB, f codec.Format, values ...[]byte) (rows [][]string, origin []int32, faults []codec.Fault) {
	t.Helper()
	return decodeAny(t, f, values)
}

func decodeAny(t rapid.TB, f codec.Format, values [][]byte) (rows [][]string, origin []int32, faults []codec.Fault) {
	t.Helper()
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	d := f.NewDecoder(mem)
	got, err := d.Decode(context.Background(), binaryOf(values...))
	if err != nil {
		t.Fatalf("Decode: %v", err)
	}
	rows = cells(got.Record)
	got.Record.Release()
	d.Release()
	if n := mem.CurrentAlloc(); n != 0 {
		t.Fatalf("%d bytes in use", n)
	}
	return rows, got.Origin, got.Faults
}

// cells returns every value of rec as text that tells apart what is not equal.
func cells(rec arrow.Record) [][]string {
	var rows [][]string
	for r := range int(rec.NumRows()) {
		var row []string
		for _, c := range rec.Columns() {
			row = append(row, cell(c, r))
		}
		rows = append(rows, row)
	}
	return rows
}

func cell(a arrow.Array, r int) string {
	if a.IsNull(r) {
		return "null"
	}
	switch a := a.(type) {
	case *array.Float32:
		return show32(a.Value(r))
	case *array.Float64:
		return show64(a.Value(r))
	case *array.String:
		return fmt.Sprintf("%q", a.Value(r))
	case *array.Binary:
		return fmt.Sprintf("%x", a.Value(r))
	case *array.Timestamp:
		return fmt.Sprint(int64(a.Value(r)))
	case *array.FixedSizeList:
		lo, hi := a.ValueOffsets(r)
		s := "["
		for i := lo; i < hi; i++ {
			s += cell(a.ListValues(), int(i)) + " "
		}
		return s + "]"
	}
	return a.ValueStr(r)
}

// decodeOne decodes one document with and without short cuts, twice each, and
// returns its row, or its fault.
func decodeOne(t testing.TB, f *json.Format, doc string) (row []string, fault *codec.Fault) {
	t.Helper()
	values := [][]byte{[]byte(doc), []byte(doc)}
	rows, _, faults := decode(t, f, values...)
	exact, _, exactFaults := decode(t, json.Exact(f), values...)
	if fmt.Sprint(rows, faults) != fmt.Sprint(exact, exactFaults) {
		t.Fatalf("%s:\nfast  %v %v\nexact %v %v", doc, rows, faults, exact, exactFaults)
	}
	if len(faults) == 2 {
		if a, b := faults[0].Error(), faults[1].Error(); a != b {
			t.Fatalf("%s: first %v, then %v", doc, a, b)
		}
		return nil, &faults[0]
	}
	if len(rows) != 2 || fmt.Sprint(rows[0]) != fmt.Sprint(rows[1]) {
		t.Fatalf("%s: rows %v, faults %v", doc, rows, faults)
	}
	return rows[0], nil
}
