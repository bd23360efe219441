package parquetio_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"

	"github.com/elbo-stream/elbo/internal/parquetio"
)

func TestBadFiles(t *testing.T) {
	good := write(t, damageSchema(), []arrow.Record{sampleRecord(t, damageSchema(), 50)}, parquetio.WriterOptions{})
	edit := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		want string
		is   error
	}{
		{"empty", nil, "x.parquet: not a Parquet file: too short (size 0 bytes); cut short or never closed?", parquetio.ErrNotParquet},
		{"eight bytes", []byte("PAR1PAR1"), "too short (size 8 bytes)", parquetio.ErrNotParquet},
		{"CSV", []byte("a,b\n1,2\n3,4\n5,6\n"), "no PAR1 at either end (size 16 bytes); another format?", parquetio.ErrNotParquet},
		{"cut short", good[:len(good)/2], "no PAR1 at its end", parquetio.ErrNotParquet},
		{"start damaged", edit(func(b []byte) { b[0] = 'X' }), "no PAR1 at its start", parquetio.ErrNotParquet},
		{"encrypted", edit(func(b []byte) { copy(b[len(b)-4:], "PARE") }), "the footer is encrypted", parquetio.ErrNotSupported},
		{"footer of no bytes", edit(func(b []byte) { copy(b[len(b)-8:], "\x00\x00\x00\x00") }), fmt.Sprintf("footer length 0 does not fit a file of %d bytes", len(good)), nil},
		{"footer beyond the file", edit(func(b []byte) { copy(b[len(b)-8:], "\xff\xff\xff\x7f") }), fmt.Sprintf("footer length 2147483647 does not fit a file of %d bytes", len(good)), nil},
		{"footer of zeros", append([]byte("PAR1"), append(make([]byte, 100), "\x64\x00\x00\x00PAR1"...)...), "damaged footer", nil},
		{"page damaged", edit(func(b []byte) { b[80] ^= 1 }), "x.parquet: row group 0: column ", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := parquetio.Open(bytes.NewReader(c.b), int64(len(c.b)), "x.parquet")
			if err == nil {
				for rec, e := range f.Read(context.Background(), 0, parquetio.ReadOptions{}) {
					if err = e; e == nil {
						rec.Release()
					}
				}
			}
			var place *parquetio.Error
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &place) || place.File != "x.parquet" {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
		})
	}
}

// unsupported has types that have no place here.
type unsupported struct {
	ID   int64             `parquet:"id"`
	Old  deprecated.Int96  `parquet:"old"`
	Cost int64             `parquet:"cost,decimal(2:18)"`
	Tags map[string]string `parquet:"tags"`
}

func TestUnsupportedColumns(t *testing.T) {
	var b bytes.Buffer
	w := parquet.NewGenericWriter[unsupported](&b)
	if _, err := w.Write([]unsupported{{ID: 7}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := parquetio.Open(bytes.NewReader(b.Bytes()), int64(b.Len()), "x.parquet")
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Schema(nil)
	for _, want := range []string{"column old: type INT96 is not supported: leave the column out", "column cost: type INT64 DECIMAL(18,2) is not supported", "column tags: type map is not supported"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Schema: %v, want %q in it", err, want)
		}
	}
	for i, c := range f.Columns() {
		if c.Name != "id" {
			continue
		}
		recs, err := read(b.Bytes(), parquetio.ReadOptions{Columns: []int{i}})
		if err != nil || value(recs[0].Column(0), 0) != "7" {
			t.Errorf("the column that is supported: %v, %v", recs, err)
		}
	}
}

// judged is read back by parquet-go, a second judge.
type judged struct {
	F *float32  `parquet:"f,optional"`
	I int64     `parquet:"i"`
	S *string   `parquet:"s,optional"`
	L []float64 `parquet:"l,list"`
	T []struct {
		Column string  `parquet:"column"`
		V      float32 `parquet:"v"`
	} `parquet:"t,list"`
}

func TestParquetGoReadsOurs(t *testing.T) {
	elem := arrow.StructOf(arrow.Field{Name: "column", Type: arrow.BinaryTypes.String}, arrow.Field{Name: "v", Type: arrow.PrimitiveTypes.Float32})
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "f", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
		{Name: "i", Type: arrow.PrimitiveTypes.Int64},
		{Name: "s", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}, Nullable: true},
		{Name: "l", Type: arrow.ListOfNonNullable(arrow.PrimitiveTypes.Float64)},
		{Name: "t", Type: arrow.ListOfNonNullable(elem)},
	}, nil)
	rec := sampleRecord(t, schema, 3000)
	for _, o := range []parquetio.WriterOptions{{}, {Compression: parquetio.Snappy, Encoding: parquetio.Dictionary, PageBytes: 500}, {Compression: parquetio.Gzip, Encoding: parquetio.Delta, PageVersion: 1, GroupRows: 800}, {Compression: parquetio.Uncompressed}} {
		b := write(t, schema, []arrow.Record{rec}, o)
		got, err := parquet.Read[judged](bytes.NewReader(b), int64(len(b)))
		if err != nil || len(got) != 3000 {
			t.Fatalf("%+v: %d rows, %v", o, len(got), err)
		}
		for i, g := range got {
			if (g.F == nil) != rec.Column(0).IsNull(i) || g.F != nil && math.Float32bits(*g.F) != math.Float32bits(rec.Column(0).(*array.Float32).Value(i)) ||
				g.I != rec.Column(1).(*array.Int64).Value(i) || (g.S == nil) != rec.Column(2).IsNull(i) || g.S != nil && "s"+*g.S != value(rec.Column(2), i) {
				t.Fatalf("%+v: row %d: %+v", o, i, g)
			}
			l := []any{}
			for _, v := range g.L {
				l = append(l, fmt.Sprintf("f64:%016x", math.Float64bits(v)))
			}
			top := []any{}
			for _, v := range g.T {
				top = append(top, fmt.Sprint("struct", []any{"s" + v.Column, fmt.Sprintf("f32:%08x", math.Float32bits(v.V))}))
			}
			if fmt.Sprint("list", l) != value(rec.Column(3), i) || fmt.Sprint("list", top) != value(rec.Column(4), i) {
				t.Fatalf("%+v: row %d: %v %v, want %v %v", o, i, l, top, value(rec.Column(3), i), value(rec.Column(4), i))
			}
		}
	}
}

func TestStatistics(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "f", Type: arrow.PrimitiveTypes.Float32, Nullable: true}, {Name: "nan", Type: arrow.PrimitiveTypes.Float64},
		{Name: "u", Type: arrow.PrimitiveTypes.Uint32}, {Name: "s", Type: arrow.BinaryTypes.String}, {Name: "none", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	b.Field(0).(*array.Float32Builder).AppendValues([]float32{float32(math.NaN()), 0, 9, 0}, []bool{true, true, false, true})
	b.Field(1).(*array.Float64Builder).AppendValues([]float64{math.NaN(), math.NaN(), math.NaN(), math.NaN()}, nil)
	b.Field(2).(*array.Uint32Builder).AppendValues([]uint32{1 << 31, 5, 6, 7}, nil)
	b.Field(3).(*array.StringBuilder).AppendValues([]string{"b", "", "zz", "b"}, nil)
	b.Field(4).AppendNulls(4)
	file := write(t, schema, []arrow.Record{b.NewRecord()}, parquetio.WriterOptions{})
	f, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"00000080 00000000 1", " 0", "05000000 00000080 0", " 7a7a 0", " 4"} {
		s := f.Metadata().RowGroups[0].Columns[i].MetaData.Statistics
		got := fmt.Sprintf("%x %x %d", s.MinValue, s.MaxValue, s.NullCount)
		if s.MinValue == nil && s.MaxValue == nil {
			got = fmt.Sprintf(" %d", s.NullCount)
		}
		if got != want {
			t.Errorf("column %d: %q, want %q", i, got, want)
		}
	}
}

func TestManyColumns(t *testing.T) {
	var fields []arrow.Field
	for i := range 10000 {
		fields = append(fields, arrow.Field{Name: fmt.Sprint("c", i), Type: arrow.PrimitiveTypes.Float32})
	}
	schema := arrow.NewSchema(fields, nil)
	rec := sampleRecord(t, schema, 3)
	got, err := read(write(t, schema, []arrow.Record{rec}, parquetio.WriterOptions{}), parquetio.ReadOptions{})
	if err != nil || got[0].NumCols() != 10000 || value(got[0].Column(9999), 2) != value(rec.Column(9999), 2) {
		t.Errorf("10,000 columns: %v", err)
	}
	for len(fields) <= parquetio.MaxColumns {
		fields = append(fields, arrow.Field{Name: fmt.Sprint("c", len(fields)), Type: arrow.PrimitiveTypes.Float32})
	}
	if _, err := parquetio.NewWriter(&bytes.Buffer{}, arrow.NewSchema(fields, nil), parquetio.WriterOptions{}); err == nil || !strings.Contains(err.Error(), "65535 columns, Parquet files can have 65534: select fewer") {
		t.Errorf("too many columns: %v", err)
	}
}

func TestSkip(t *testing.T) {
	schema := damageSchema()
	rec := sampleRecord(t, schema, 100)
	b := write(t, schema, []arrow.Record{rec}, parquetio.WriterOptions{PageBytes: 100})
	want := rowsOf([]arrow.Record{rec})
	for _, skip := range []int64{0, 1, 33, 99, 100, 200} {
		recs, err := read(b, parquetio.ReadOptions{Skip: skip, BatchRows: 7, Allocator: checked(t)})
		if err != nil {
			t.Fatal(err)
		}
		got := rowsOf(recs)
		for i := range want {
			rest := want[i][min(skip, 100):]
			if len(rest) == 0 && got == nil {
				continue
			}
			if fmt.Sprint(rest) != fmt.Sprint(got[i]) {
				t.Errorf("skip %d: column %d differs", skip, i)
			}
		}
		release(recs)
	}
}

func TestCancel(t *testing.T) {
	b := write(t, damageSchema(), []arrow.Record{sampleRecord(t, damageSchema(), 50)}, parquetio.WriterOptions{})
	f, err := parquetio.Open(bytes.NewReader(b), int64(len(b)), "x")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for rec, err := range f.Read(ctx, 0, parquetio.ReadOptions{BatchRows: 10, Allocator: checked(t)}) {
		if last = err; err != nil {
			break
		}
		rec.Release()
		cancel()
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("error %v", last)
	}
}

func ExampleOpen() {
	schema := arrow.NewSchema([]arrow.Field{{Name: "amount", Type: arrow.PrimitiveTypes.Float32}}, nil)
	rb := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	rb.Field(0).(*array.Float32Builder).AppendValues([]float32{1, 2.5}, nil)
	rec := rb.NewRecord()
	var b bytes.Buffer
	w, err := parquetio.NewWriter(&b, schema, parquetio.WriterOptions{})
	if err == nil {
		err = errors.Join(w.Write(rec), w.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}

	f, err := parquetio.Open(bytes.NewReader(b.Bytes()), int64(b.Len()), "amounts.parquet")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	for rec, err := range f.Read(context.Background(), 0, parquetio.ReadOptions{}) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		fmt.Println(f.Columns()[0].Name, rec.Column(0))
		rec.Release()
	}
	// Output: amount [1 2.5]
}
