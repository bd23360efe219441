package arrowipc_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/arrowipc"
)

var (
	f32   = arrow.PrimitiveTypes.Float32
	f64   = arrow.PrimitiveTypes.Float64
	i32   = arrow.PrimitiveTypes.Int32
	i64   = arrow.PrimitiveTypes.Int64
	boole = arrow.FixedWidthTypes.Boolean
	str   = arrow.BinaryTypes.String
	bin   = arrow.BinaryTypes.Binary
	us    = arrow.FixedWidthTypes.Timestamp_us
	vec3  = arrow.FixedSizeListOf(3, f32)
	dict  = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: str}
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

func newFormat(t testing.TB, c arrowipc.Config) *arrowipc.Format {
	t.Helper()
	f, err := arrowipc.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func recordOf(t testing.TB, rows string, fields ...arrow.Field) arrow.Record {
	t.Helper()
	for i := range fields {
		fields[i].Nullable = true
	}
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, arrow.NewSchema(fields, nil), strings.NewReader(rows))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// stream writes records with Arrow's own writer.
func stream(t rapid.TB, compression arrowipc.Compression, recs ...arrow.Record) []byte {
	t.Helper()
	opts := []ipc.Option{ipc.WithSchema(recs[0].Schema()), ipc.WithDictionaryDeltas(true)}
	switch compression {
	case arrowipc.LZ4:
		opts = append(opts, ipc.WithLZ4())
	case arrowipc.Zstd:
		opts = append(opts, ipc.WithZstd())
	}
	var b bytes.Buffer
	w := ipc.NewWriter(&b, opts...)
	for _, rec := range recs {
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// decode decodes values, checks the record and that nothing leaks, and returns its
// rows as text.
func decode(t rapid.TB, f codec.Format, values ...[]byte) (rows []string, origin []int32, faults []codec.Fault) {
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

// cells returns every row of rec as text that tells apart what is not equal.
func cells(rec arrow.Record) []string {
	var rows []string
	for r := range int(rec.NumRows()) {
		row := ""
		for _, c := range rec.Columns() {
			row += cell(c, r) + " "
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
	case *array.Null:
		return "null"
	case *array.Float32:
		return fmt.Sprintf("%g/%08x", a.Value(r), math.Float32bits(a.Value(r)))
	case *array.Float64:
		return fmt.Sprintf("%g/%016x", a.Value(r), math.Float64bits(a.Value(r)))
	case *array.String:
		return fmt.Sprintf("%q", a.Value(r))
	case *array.LargeString:
		return fmt.Sprintf("%q", a.Value(r))
	case *array.Binary:
		if len(a.Value(r)) > 1000 {
			return fmt.Sprintf("%x", sha256.Sum256(a.Value(r)))
		}
		return fmt.Sprintf("%x", a.Value(r))
	case *array.LargeBinary:
		return fmt.Sprintf("%x", a.Value(r))
	case *array.Timestamp:
		return fmt.Sprint(int64(a.Value(r)))
	case *array.Dictionary:
		return cell(a.Dictionary(), a.GetValueIndex(r))
	case *array.Struct:
		s := "{"
		for i := range a.NumField() {
			s += cell(a.Field(i), r) + " "
		}
		return s + "}"
	case array.ListLike:
		lo, hi := a.ValueOffsets(r)
		s := "["
		for i := lo; i < hi; i++ {
			s += cell(a.ListValues(), int(i)) + " "
		}
		return s + "]"
	}
	return a.ValueStr(r)
}

// fill appends a random value to a builder.
func fill(t *rapid.T, b array.Builder) {
	if rapid.IntRange(0, 4).Draw(t, "null") == 0 {
		b.AppendNull()
		return
	}
	text := rapid.SampledFrom([]string{"", "a", "bc", "déjà", "\"x\"", "a longer text than the others"})
	switch b := b.(type) {
	case *array.StructBuilder:
		b.Append(true)
		for i := range b.NumField() {
			fill(t, b.FieldBuilder(i))
		}
	case *array.FixedSizeListBuilder:
		b.Append(true)
		for range 3 {
			fill(t, b.ValueBuilder())
		}
	case *array.MapBuilder:
		b.Append(true)
		b.KeyBuilder().(*array.StringBuilder).Append("k")
		fill(t, b.ItemBuilder())
	case array.ListLikeBuilder:
		b.Append(true)
		for range rapid.IntRange(0, 3).Draw(t, "elements") {
			fill(t, b.ValueBuilder())
		}
	case *array.BinaryDictionaryBuilder:
		if err := b.AppendString(text.Draw(t, "level")); err != nil {
			t.Fatal(err)
		}
	case *array.Float64Builder:
		b.Append(float64(rapid.Float32().Draw(t, "f")))
	case *array.BooleanBuilder:
		b.Append(rapid.Bool().Draw(t, "b"))
	case *array.BinaryBuilder:
		b.Append([]byte(text.Draw(t, "b")))
	case *array.FixedSizeBinaryBuilder:
		b.Append([]byte("xyz"))
	case *array.StringBuilder:
		b.Append(text.Draw(t, "s"))
	case *array.LargeStringBuilder:
		b.Append(text.Draw(t, "s"))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(rapid.Int64Range(-1e15, 1e15).Draw(t, "at")))
	case *array.NullBuilder:
		b.AppendNull()
	case *array.Date32Builder:
		b.Append(arrow.Date32(rapid.IntRange(0, 20000).Draw(t, "day")))
	case *array.Time32Builder:
		b.Append(arrow.Time32(rapid.IntRange(0, 86399).Draw(t, "second")))
	case *array.DurationBuilder:
		b.Append(arrow.Duration(rapid.Int64().Draw(t, "span")))
	case *array.Date64Builder:
		b.Append(arrow.Date64(86400000 * rapid.Int64Range(0, 20000).Draw(t, "day")))
	default:
		if err := b.AppendValueFromString(fmt.Sprint(rapid.IntRange(0, 127).Draw(t, "i"))); err != nil {
			t.Fatalf("%v: %v", b.Type(), err)
		}
	}
}

func drawRecord(t *rapid.T, n int, fields ...arrow.Field) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	for range n {
		for _, f := range b.Fields() {
			fill(t, f)
		}
	}
	return b.NewRecord()
}
