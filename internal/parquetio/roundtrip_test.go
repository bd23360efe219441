package parquetio_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/internal/parquetio"
)

// drawType draws an Arrow type that can be written.
func drawType(t *rapid.T, depth int) arrow.DataType {
	leaves := []arrow.DataType{
		arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64,
		arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64,
		arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Uint64,
		arrow.FixedWidthTypes.Boolean, arrow.BinaryTypes.String, arrow.BinaryTypes.Binary,
		arrow.BinaryTypes.LargeString, &arrow.FixedSizeBinaryType{ByteWidth: 3},
		&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String},
		&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Uint8, ValueType: arrow.BinaryTypes.String},
		arrow.FixedWidthTypes.Date32, arrow.FixedWidthTypes.Timestamp_ms, arrow.FixedWidthTypes.Timestamp_us,
		&arrow.TimestampType{Unit: arrow.Nanosecond}, arrow.FixedWidthTypes.Time32ms, arrow.FixedWidthTypes.Time64us,
	}
	k := rapid.IntRange(0, len(leaves)+7).Draw(t, "type")
	if k < len(leaves) || depth > 2 {
		return leaves[min(k, len(leaves)-1)]
	}
	elem := arrow.Field{Name: "item", Type: drawType(t, depth+1), Nullable: rapid.Bool().Draw(t, "nullable")}
	switch k % 4 {
	case 0:
		return arrow.ListOfField(elem)
	case 1:
		elem.Nullable = true // arrow's builder knows no other
		return arrow.FixedSizeListOfField(2, elem)
	case 2:
		return arrow.LargeListOfField(elem)
	}
	var fs []arrow.Field
	for i := range rapid.IntRange(1, 3).Draw(t, "fields") {
		fs = append(fs, arrow.Field{Name: fmt.Sprint("f", i), Type: drawType(t, depth+1), Nullable: rapid.Bool().Draw(t, "nullable")})
	}
	return arrow.StructOf(fs...)
}

// A filler appends drawn values; its random numbers come from rapid or draw.
type filler struct {
	t      *rapid.T
	draw   func(k int) int
	seed   uint64
	spread int // number of different values
	nulls  int // one in so many; 0 means none
}

func (f *filler) n(k int) int {
	if f.draw != nil {
		return f.draw(k)
	}
	return rapid.IntRange(0, k-1).Draw(f.t, "n")
}

func (f *filler) add(b array.Builder, nullable bool) {
	if nullable && f.nulls > 0 && f.n(f.nulls) == 0 {
		b.AppendNull()
		return
	}
	v := f.n(f.spread)
	switch b := b.(type) {
	case *array.Float32Builder:
		b.Append([]float32{float32(v) / 3, float32(math.NaN()), float32(math.Inf(1)), float32(math.Copysign(0, -1))}[v%4])
	case *array.Float64Builder:
		b.Append(float64(v) / 3)
	case *array.Int8Builder:
		b.Append(int8(v))
	case *array.Int16Builder:
		b.Append(int16(-v))
	case *array.Int32Builder:
		b.Append(int32(-v * 7919))
	case *array.Int64Builder:
		b.Append(math.MinInt64 + int64(v))
	case *array.Uint8Builder:
		b.Append(uint8(255 - v))
	case *array.Uint16Builder:
		b.Append(uint16(65535 - v))
	case *array.Uint32Builder:
		b.Append(math.MaxUint32 - uint32(v))
	case *array.Uint64Builder:
		b.Append(math.MaxUint64 - uint64(v))
	case *array.BooleanBuilder:
		b.Append(v%2 == 0)
	case *array.StringBuilder:
		b.Append(fmt.Sprint("text", v)[v%5:])
	case *array.LargeStringBuilder:
		b.Append(fmt.Sprint("large", v))
	case *array.BinaryBuilder:
		b.Append(fmt.Append(nil, "bin", v)[v%4:])
	case *array.FixedSizeBinaryBuilder:
		b.Append(fmt.Appendf(nil, "%03d", v%1000))
	case *array.BinaryDictionaryBuilder:
		if err := b.AppendString(fmt.Sprint("d", v%200)); err != nil {
			f.t.Fatal(err)
		}
	case *array.Date32Builder:
		b.Append(arrow.Date32(v))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(-v))
	case *array.Time32Builder:
		b.Append(arrow.Time32(v))
	case *array.Time64Builder:
		b.Append(arrow.Time64(v))
	case *array.ListBuilder:
		b.Append(true)
		for range f.n(4) {
			f.add(b.ValueBuilder(), b.Type().(*arrow.ListType).ElemField().Nullable)
		}
	case *array.LargeListBuilder:
		b.Append(true)
		for range f.n(4) {
			f.add(b.ValueBuilder(), b.Type().(*arrow.LargeListType).ElemField().Nullable)
		}
	case *array.FixedSizeListBuilder:
		b.Append(true)
		for range 2 {
			f.add(b.ValueBuilder(), b.Type().(*arrow.FixedSizeListType).ElemField().Nullable)
		}
	case *array.StructBuilder:
		b.Append(true)
		for i, fd := range b.Type().(*arrow.StructType).Fields() {
			f.add(b.FieldBuilder(i), fd.Nullable)
		}
	default:
		f.t.Fatalf("no values for %T", b)
	}
}

// drawRecords draws a schema and records of it.
func drawRecords(t *rapid.T, mem memory.Allocator) (*arrow.Schema, []arrow.Record) {
	var fs []arrow.Field
	for i := range rapid.IntRange(1, 4).Draw(t, "columns") {
		fs = append(fs, arrow.Field{Name: fmt.Sprint("c", 9-i), Type: drawType(t, 0), Nullable: rapid.Bool().Draw(t, "nullable")})
	}
	schema := arrow.NewSchema(fs, nil)
	f := &filler{t: t, spread: rapid.SampledFrom([]int{1, 3, 100}).Draw(t, "spread"), nulls: rapid.SampledFrom([]int{0, 1, 2, 10}).Draw(t, "nulls")}
	var recs []arrow.Record
	for range rapid.IntRange(0, 3).Draw(t, "records") {
		b := array.NewRecordBuilder(mem, schema)
		for range rapid.IntRange(0, 30).Draw(t, "rows") {
			for i, fd := range fs {
				f.add(b.Field(i), fd.Nullable)
			}
		}
		rec := b.NewRecord()
		b.Release()
		if n := rec.NumRows(); n > 2 && rapid.Bool().Draw(t, "slice") {
			part := rec.NewSlice(1, n-1)
			rec.Release()
			rec = part
		}
		recs = append(recs, rec)
	}
	return schema, recs
}

func drawOptions(t *rapid.T) parquetio.WriterOptions {
	return parquetio.WriterOptions{
		Compression: rapid.SampledFrom([]parquetio.Compression{parquetio.Zstd, parquetio.Uncompressed, parquetio.Snappy, parquetio.Lz4Raw, parquetio.Gzip}).Draw(t, "codec"),
		Encoding:    rapid.SampledFrom([]parquetio.Encoding{parquetio.Auto, parquetio.Plain, parquetio.Dictionary, parquetio.Delta}).Draw(t, "encoding"),
		PageVersion: rapid.IntRange(1, 2).Draw(t, "version"),
		PageBytes:   rapid.SampledFrom([]int{0, 1, 40, 200}).Draw(t, "page"),
		GroupRows:   rapid.SampledFrom([]int64{0, 1, 7, 25}).Draw(t, "group"),
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
		schema, recs := drawRecords(t, mem)
		o := drawOptions(t)
		b := write(t, schema, recs, o)
		got, err := read(b, parquetio.ReadOptions{BatchRows: rapid.SampledFrom([]int{1, 3, 8192}).Draw(t, "batch"), Allocator: mem})
		if err != nil {
			t.Fatalf("%v %+v: %v", schema, o, err)
		}
		if d := cmp.Diff(nonEmpty(rowsOf(recs)), nonEmpty(rowsOf(got))); d != "" {
			t.Fatalf("%v %+v: -wrote +read\n%s", schema, o, d)
		}
		release(recs)
		release(got)
		mem.AssertSize(t, 0)
	})
}

func nonEmpty(rows [][]any) [][]any {
	for _, c := range rows {
		if len(c) > 0 {
			return rows
		}
	}
	return nil
}
