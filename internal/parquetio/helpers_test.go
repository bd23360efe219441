package parquetio_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/parquetio"
)

// value is slot i of a as a plain Go value, the same for every Arrow type that
// Parquet does not tell apart. NaN and -0 keep their bits.
func value(a arrow.Array, i int) any {
	if a.IsNull(i) {
		return nil
	}
	switch a := a.(type) {
	case *array.Dictionary:
		return value(a.Dictionary(), a.GetValueIndex(i))
	case *array.String:
		return "s" + a.Value(i)
	case *array.LargeString:
		return "s" + a.Value(i)
	case *array.Binary:
		return "b" + string(a.Value(i))
	case *array.LargeBinary:
		return "b" + string(a.Value(i))
	case *array.FixedSizeBinary:
		return "f" + string(a.Value(i))
	case *array.Float32:
		return fmt.Sprintf("f32:%08x", math.Float32bits(a.Value(i)))
	case *array.Float64:
		return fmt.Sprintf("f64:%016x", math.Float64bits(a.Value(i)))
	case *array.Timestamp:
		return fmt.Sprint(int64(a.Value(i)))
	case *array.Date32:
		return fmt.Sprint(int32(a.Value(i)))
	case *array.Time32:
		return fmt.Sprint(int32(a.Value(i)))
	case *array.Time64:
		return fmt.Sprint(int64(a.Value(i)))
	case *array.Struct:
		out := []any{}
		for k := range a.NumField() {
			out = append(out, value(a.Field(k), i))
		}
		return fmt.Sprint("struct", out)
	case array.ListLike:
		from, to := a.ValueOffsets(i)
		out := []any{}
		for k := from; k < to; k++ {
			out = append(out, value(a.ListValues(), int(k)))
		}
		return fmt.Sprint("list", out)
	}
	return a.ValueStr(i)
}

// rowsOf is every value of the records, column by column.
func rowsOf(recs []arrow.Record) [][]any {
	var out [][]any
	for _, r := range recs {
		for c := range int(r.NumCols()) {
			if len(out) <= c {
				out = append(out, nil)
			}
			for i := range int(r.NumRows()) {
				out[c] = append(out[c], value(r.Column(c), i))
			}
		}
	}
	return out
}

// write writes records to one file in memory.
func write(t fataler, schema *arrow.Schema, recs []arrow.Record, o parquetio.WriterOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := parquetio.NewWriter(&b, schema, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read reads all of a file; the caller releases the records.
func read(b []byte, o parquetio.ReadOptions) (recs []arrow.Record, err error) {
	f, err := parquetio.Open(bytes.NewReader(b), int64(len(b)), "test.parquet")
	if err != nil {
		return nil, err
	}
	for g := range f.Groups() {
		for rec, err := range f.Read(context.Background(), g, o) {
			if err != nil {
				release(recs)
				return nil, err
			}
			recs = append(recs, rec)
		}
	}
	return recs, nil
}

func release(recs []arrow.Record) {
	for _, r := range recs {
		r.Release()
	}
}

// checked is an allocator that must end empty.
func checked(t testing.TB) *memory.CheckedAllocator {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	t.Cleanup(func() { mem.AssertSize(t, 0) })
	return mem
}

// fataler is what testing.TB and rapid.T share here.
type fataler interface {
	Helper()
	Fatal(args ...any)
}
