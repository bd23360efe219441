package json_test

import (
	"bytes"
	"context"
	"encoding/base64"
	stdjson "encoding/json"
	"fmt"
	"math"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/float16"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
)

var topType = arrow.ListOf(arrow.StructOf(
	arrow.Field{Name: "column", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int16, ValueType: str}, Nullable: true},
	arrow.Field{Name: "contribution", Type: f32, Nullable: true},
	arrow.Field{Name: "value", Type: f64, Nullable: true},
	arrow.Field{Name: "expected", Type: f64, Nullable: true},
))

// encodeTypes are all types that are written.
var encodeTypes = []arrow.DataType{
	f32, f64, i32, i64, boole, str, bin, vec3, topType, arrow.Null, arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16,
	arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Uint64, arrow.FixedWidthTypes.Float16,
	arrow.BinaryTypes.LargeString, arrow.BinaryTypes.LargeBinary, &arrow.FixedSizeBinaryType{ByteWidth: 3},
	arrow.FixedWidthTypes.Timestamp_s, arrow.FixedWidthTypes.Timestamp_ms, arrow.FixedWidthTypes.Timestamp_us, arrow.FixedWidthTypes.Timestamp_ns,
	arrow.FixedWidthTypes.Date32, arrow.FixedWidthTypes.Date64, arrow.ListOf(f32), arrow.LargeListOf(f64), arrow.StructOf(),
	&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: str},
}

// fill appends a random value to a builder.
func fill(t *rapid.T, b array.Builder) {
	if rapid.IntRange(0, 5).Draw(t, "null") == 0 {
		b.AppendNull()
		return
	}
	times := rapid.Int64Range(-62135596800, 253402300799) // years 1 to 9999
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
	case array.ListLikeBuilder:
		b.Append(true)
		for range rapid.IntRange(0, 3).Draw(t, "elements") {
			fill(t, b.ValueBuilder())
		}
	case *array.BinaryDictionaryBuilder:
		if err := b.AppendString(rapid.SampledFrom([]string{"", "a", "\"b\"", "c"}).Draw(t, "level")); err != nil {
			t.Fatal(err)
		}
	case *array.StringBuilder:
		b.Append(rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "s"))
	case *array.LargeStringBuilder:
		b.Append(rapid.String().Draw(t, "s"))
	case *array.BinaryBuilder:
		b.Append(rapid.SliceOf(rapid.Byte()).Draw(t, "b"))
	case *array.FixedSizeBinaryBuilder:
		b.Append(rapid.SliceOfN(rapid.Byte(), 3, 3).Draw(t, "b"))
	case *array.Float32Builder:
		b.Append(math.Float32frombits(rapid.OneOf(rapid.Uint32(), rapid.Map(rapid.Float32(), math.Float32bits)).Draw(t, "f")))
	case *array.Float64Builder:
		b.Append(math.Float64frombits(rapid.OneOf(rapid.Uint64(), rapid.Map(rapid.Float64(), math.Float64bits)).Draw(t, "f")))
	case *array.TimestampBuilder:
		unit := b.Type().(*arrow.TimestampType).Unit
		at := time.Unix(times.Draw(t, "at"), int64(rapid.IntRange(0, 999_999_999).Draw(t, "ns")))
		if unit == arrow.Nanosecond {
			at = time.Unix(0, rapid.Int64().Draw(t, "at"))
		}
		v, err := arrow.TimestampFromTime(at, unit)
		if err != nil {
			t.Fatal(err)
		}
		b.Append(v)
	case *array.Date32Builder:
		b.Append(arrow.Date32(times.Draw(t, "at") / 86400))
	case *array.Date64Builder:
		b.Append(arrow.Date64(times.Draw(t, "at") / 86400 * 86400000))
	case *array.BooleanBuilder:
		b.Append(rapid.Bool().Draw(t, "b"))
	case *array.Float16Builder:
		b.Append(float16.FromBits(rapid.Uint16().Draw(t, "f")))
	case *array.Int8Builder:
		b.Append(rapid.Int8().Draw(t, "i"))
	case *array.Int16Builder:
		b.Append(rapid.Int16().Draw(t, "i"))
	case *array.Int32Builder:
		b.Append(rapid.Int32().Draw(t, "i"))
	case *array.Int64Builder:
		b.Append(rapid.Int64().Draw(t, "i"))
	case *array.Uint8Builder:
		b.Append(rapid.Uint8().Draw(t, "i"))
	case *array.Uint16Builder:
		b.Append(rapid.Uint16().Draw(t, "i"))
	case *array.Uint32Builder:
		b.Append(rapid.Uint32().Draw(t, "i"))
	case *array.Uint64Builder:
		b.Append(rapid.Uint64().Draw(t, "i"))
	case *array.NullBuilder:
		b.AppendNull()
	default:
		t.Fatalf("no values for %v", b.Type())
	}
}

// drawRecord makes a record of every type, which begins at an offset.
func drawRecord(t *rapid.T, mem memory.Allocator) arrow.Record {
	var fields []arrow.Field
	for i, typ := range encodeTypes {
		fields = append(fields, arrow.Field{Name: fmt.Sprintf("c\"%d", i), Type: typ, Nullable: true})
	}
	b := array.NewRecordBuilder(mem, arrow.NewSchema(fields, nil))
	defer b.Release()
	n := rapid.IntRange(1, 4).Draw(t, "rows")
	for range n {
		for _, f := range b.Fields() {
			fill(t, f)
		}
	}
	rec := b.NewRecord()
	defer rec.Release()
	return rec.NewSlice(int64(rapid.IntRange(0, n-1).Draw(t, "from")), int64(n))
}

// expected is what a value reads as with encoding/json.
func expected(a arrow.Array, i int) any {
	if _, ok := a.(*array.Null); ok || a.IsNull(i) {
		return nil
	}
	number := func(text string) any { return stdjson.Number(text) }
	switch a := a.(type) {
	case *array.Struct:
		m := map[string]any{}
		for k, f := range a.DataType().(*arrow.StructType).Fields() {
			m[f.Name] = expected(a.Field(k), i)
		}
		return m
	case array.ListLike:
		l := []any{}
		lo, hi := a.ValueOffsets(i)
		for k := lo; k < hi; k++ {
			l = append(l, expected(a.ListValues(), int(k)))
		}
		return l
	case *array.Dictionary:
		return expected(a.Dictionary(), a.GetValueIndex(i))
	case *array.Boolean:
		return a.Value(i)
	case *array.String:
		return string([]rune(a.Value(i)))
	case *array.LargeString:
		return a.Value(i)
	case *array.Binary:
		return base64.StdEncoding.EncodeToString(a.Value(i))
	case *array.LargeBinary:
		return base64.StdEncoding.EncodeToString(a.Value(i))
	case *array.FixedSizeBinary:
		return base64.StdEncoding.EncodeToString(a.Value(i))
	case *array.Float16:
		return finite(float64(a.Value(i).Float32()))
	case *array.Float32:
		return finite(float64(a.Value(i)))
	case *array.Float64:
		return finite(a.Value(i))
	case *array.Timestamp:
		unit := a.DataType().(*arrow.TimestampType).Unit
		layout := []string{"2006-01-02T15:04:05Z", "2006-01-02T15:04:05.000Z", "2006-01-02T15:04:05.000000Z", "2006-01-02T15:04:05.000000000Z"}[unit]
		return a.Value(i).ToTime(unit).UTC().Format(layout)
	case *array.Date32:
		return a.Value(i).ToTime().UTC().Format(time.DateOnly)
	case *array.Date64:
		return a.Value(i).ToTime().UTC().Format(time.DateOnly)
	}
	return number(a.ValueStr(i))
}

func finite(v float64) any {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return v
}

// equalValues compares what was read with what is expected; floats by value.
func equalValues(got, want any) bool {
	switch w := want.(type) {
	case float64:
		n, ok := got.(stdjson.Number)
		if !ok {
			return false
		}
		v, err := strconv.ParseFloat(string(n), 64)
		if float64(float32(w)) == w && v != w { // a float32 is to be read as one
			v32, err32 := strconv.ParseFloat(string(n), 32)
			v, err = float64(float32(v32)), err32
		}
		return err == nil && v == w && math.Signbit(v) == math.Signbit(w)
	case map[string]any:
		g, ok := got.(map[string]any)
		for k := range w {
			ok = ok && equalValues(g[k], w[k])
		}
		return ok && len(g) == len(w)
	case []any:
		g, ok := got.([]any)
		ok = ok && len(g) == len(w)
		for k := range w {
			ok = ok && equalValues(g[k], w[k])
		}
		return ok
	}
	return cmp.Equal(got, want)
}

func encodeAll(t rapid.TB, c json.EncoderConfig, rec arrow.Record) [][]byte {
	e := json.NewEncoder(c)
	if err := e.Bind(rec.Schema()); err != nil {
		t.Fatal(err)
	}
	if err := e.Reset(rec); err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for i := range int(rec.NumRows()) {
		b, err := e.Append([]byte("before"), i, i+1)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, bytes.TrimPrefix(b, []byte("before")))
	}
	return all
}

func checkRow(t rapid.TB, rec arrow.Record, i int, line []byte) {
	dec := stdjson.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	var got map[string]any
	if err := dec.Decode(&got); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if len(got) != int(rec.NumCols()) {
		t.Fatalf("%s: %d keys, want %d", line, len(got), rec.NumCols())
	}
	for k, f := range rec.Schema().Fields() {
		if want := expected(rec.Column(k), i); !equalValues(got[f.Name], want) {
			t.Fatalf("%s as %v: %#v, want %#v", line, f.Type, got[f.Name], want)
		}
	}
}

// TestEncodeOracle writes random rows of every type and reads them by encoding/json.
func TestEncodeOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
		rec := drawRecord(t, mem)
		for i, line := range encodeAll(t, json.EncoderConfig{}, rec) {
			checkRow(t, rec, i, line)
		}
		rec.Release()
		if n := mem.CurrentAlloc(); n != 0 {
			t.Fatalf("%d bytes in use", n)
		}
	})
}

// TestPython has Python read what was written and write it again.
func TestPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("SKIPPED: no python3 to read JSON with")
	}
	var recs []arrow.Record
	var in bytes.Buffer
	for seed := range 40 {
		rec := rapid.Custom(func(t *rapid.T) arrow.Record { return drawRecord(t, memory.DefaultAllocator) }).Example(seed)
		recs = append(recs, rec)
		for _, line := range encodeAll(t, json.EncoderConfig{}, rec) {
			in.Write(append(line, '\n'))
		}
	}
	cmd := exec.Command(python, "-c", `
import json, sys
for line in sys.stdin.buffer.read().split(b"\n")[:-1]:
    sys.stdout.write(json.dumps(json.loads(line, parse_constant=None), allow_nan=False) + "\n")
`)
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python: %v", err)
	}
	lines := bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
	at := 0
	for _, rec := range recs {
		for i := range int(rec.NumRows()) {
			checkRow(t, rec, i, lines[at])
			at++
		}
	}
	if at != len(lines) || at == 0 {
		t.Errorf("%d lines from Python, want %d", len(lines), at)
	}
}

// TestRoundTrip reads what was written with this package's own decoder.
func TestRoundTrip(t *testing.T) {
	cols := []codec.Column{{Name: "a", Type: f32}, {Name: "b", Type: f64}, {Name: "i", Type: i32}, {Name: "j", Type: i64}, {Name: "t", Type: boole},
		{Name: "s", Type: arrow.BinaryTypes.String}, {Name: "x", Type: bin}, {Name: "v", Type: vec3}, {Name: "at", Type: arrow.FixedWidthTypes.Timestamp_ns}}
	f := newFormat(t, json.Config{Columns: cols})
	rapid.Check(t, func(t *rapid.T) {
		b := array.NewRecordBuilder(memory.DefaultAllocator, f.Schema())
		defer b.Release()
		for range rapid.IntRange(1, 5).Draw(t, "rows") {
			for _, fb := range b.Fields() {
				fill(t, fb)
			}
		}
		rec := b.NewRecord()
		defer rec.Release()
		rows, _, faults := decodeAny(t, f, encodeAll(t, json.EncoderConfig{}, rec))
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		want := cells(rec)
		for i := range want {
			for k := range want[i] {
				w := want[i][k]
				if strings.HasPrefix(w, "NaN/") || strings.HasPrefix(w, "+Inf/") || strings.HasPrefix(w, "-Inf/") {
					w = "null"
				}
				if s, ok := rec.Column(k).(*array.String); ok && s.IsValid(i) {
					w = fmt.Sprintf("%q", string([]rune(s.Value(i))))
				}
				if k != 7 && rows[i][k] != w { // a list may have elements that are not finite
					t.Fatalf("row %d column %s: %s, want %s", i, cols[k].Name, rows[i][k], w)
				}
			}
		}
	})
}

func TestEncoderText(t *testing.T) {
	rec := recordOf(t, `[{"s":"a\u0000\u001f\"\\\b\f\n\r\t/<é😀","f":0.1,"g":1e21,"i":-5,"top":[{"column":"x","contribution":1.5,"value":null,"expected":1e-7}]}]`,
		arrow.Field{Name: "s", Type: str}, arrow.Field{Name: "f", Type: f32}, arrow.Field{Name: "g", Type: f64}, arrow.Field{Name: "i", Type: i64}, arrow.Field{Name: "top", Type: topType})
	defer rec.Release()
	got := string(encodeAll(t, json.EncoderConfig{}, rec)[0])
	want := `{"s":"a\u0000\u001f\"\\\b\f\n\r\t/<é😀","f":0.1,"g":1e+21,"i":-5,"top":[{"column":"x","contribution":1.5,"value":null,"expected":1e-07}]}`
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	got = string(encodeAll(t, json.EncoderConfig{Columns: []string{"i", "f"}, SchemaID: 7}, rec)[0])
	if want := "\x00\x00\x00\x00\x07" + `{"i":-5,"f":0.1}`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
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

func TestEncoderFaults(t *testing.T) {
	e := json.NewEncoder(json.EncoderConfig{Columns: []string{"a", "m", "none", "a", "d"}})
	m := arrow.Field{Name: "m", Type: arrow.MapOf(str, f32)}
	d := arrow.Field{Name: "d", Type: arrow.ListOf(&arrow.Decimal128Type{Precision: 5})}
	err := e.Bind(arrow.NewSchema([]arrow.Field{{Name: "a", Type: f32}, m, d}, nil))
	for _, want := range []string{`"m": map`, `"none": there is none`, `"a": comes twice`, `"d": elements: decimal`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Bind: %v, want %q in it", err, want)
		}
	}
	e = json.NewEncoder(json.EncoderConfig{})
	if err := e.Bind(arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.FixedWidthTypes.Date32}}, nil)); err != nil {
		t.Fatal(err)
	}
	other := recordOf(t, `[{"a":1}]`, arrow.Field{Name: "a", Type: f32})
	defer other.Release()
	if err := e.Reset(other); err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("Reset: %v, want a column of another type", err)
	}
	b := array.NewDate32Builder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues([]arrow.Date32{2932896, 2932897}, nil)
	rec := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.FixedWidthTypes.Date32}}, nil), []arrow.Array{b.NewArray()}, 2)
	if err := e.Reset(rec); err != nil {
		t.Fatal(err)
	}
	if got, err := e.Append(nil, 0, 1); err != nil || string(got) != `{"a":"9999-12-31"}` {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := e.Append(nil, 1, 2); err == nil || !strings.Contains(err.Error(), "a: day 2932897") {
		t.Errorf("year 10000: %v", err)
	}
	if _, err := e.Append(nil, 0, 2); err == nil || e.MaxRows() != 1 {
		t.Errorf("two rows in one message are taken")
	}
}

// benchRecord has rows as score makes them: 4 scores and elbo_top of 5, or the 32
// features.
func benchRecord(tb testing.TB) arrow.Record {
	docs := benchDocs()
	d := newFormat(tb, json.Config{Columns: benchColumns()}).NewDecoder(memory.DefaultAllocator)
	got, err := d.Decode(context.Background(), docs)
	if err != nil {
		tb.Fatal(err)
	}
	top := array.NewListBuilder(memory.DefaultAllocator, topType.Elem())
	s := top.ValueBuilder().(*array.StructBuilder)
	for i := range int(got.Record.NumRows()) {
		top.Append(true)
		for k := range 5 {
			s.Append(true)
			if err := s.FieldBuilder(0).(*array.BinaryDictionaryBuilder).AppendString(fmt.Sprint("f", k)); err != nil {
				tb.Fatal(err)
			}
			s.FieldBuilder(1).(*array.Float32Builder).Append(float32(i) / 7)
			s.FieldBuilder(2).(*array.Float64Builder).Append(float64(i) / 11)
			s.FieldBuilder(3).(*array.Float64Builder).Append(float64(i) / 13)
		}
	}
	fields := append(got.Record.Schema().Fields(), arrow.Field{Name: "elbo_top", Type: topType})
	return array.NewRecord(arrow.NewSchema(fields, nil), append(got.Record.Columns(), top.NewArray()), got.Record.NumRows())
}

func BenchmarkEncode(b *testing.B) {
	rec := benchRecord(b)
	var features []string
	for f := range 32 {
		features = append(features, fmt.Sprint("f", f))
	}
	for name, cols := range map[string][]string{"columns=34": append([]string{"id", "ts"}, features...), "columns=id,ts,f0,f1": {"id", "ts", "f0", "f1"}, "columns=id,elbo_top": {"id", "elbo_top"}} {
		b.Run(name, func(b *testing.B) {
			e := json.NewEncoder(json.EncoderConfig{Columns: cols})
			if err := e.Bind(rec.Schema()); err != nil {
				b.Fatal(err)
			}
			var dst []byte
			rate(b, int(rec.NumRows()), func() {
				if err := e.Reset(rec); err != nil {
					b.Fatal(err)
				}
				for i := range int(rec.NumRows()) {
					var err error
					if dst, err = e.Append(dst[:0], i, i+1); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func TestEncodeAllocates(t *testing.T) {
	rec := benchRecord(t)
	e := json.NewEncoder(json.EncoderConfig{})
	if err := e.Bind(rec.Schema()); err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 0, 1<<16)
	if n := testing.AllocsPerRun(10, func() {
		if err := e.Reset(rec); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if _, err := e.Append(dst, i, i+1); err != nil {
				t.Fatal(err)
			}
		}
	}); n > 0 {
		t.Errorf("%v allocations in 100 rows, want 0", n)
	}
}

// TestDecodeAllocates holds the decoder to a few allocations a batch.
func TestDecodeAllocates(t *testing.T) {
	docs := benchDocs()
	d := newFormat(t, json.Config{Columns: benchColumns()}).NewDecoder(memory.DefaultAllocator)
	if n := testing.AllocsPerRun(5, func() {
		got, err := d.Decode(context.Background(), docs)
		if err != nil {
			t.Fatal(err)
		}
		got.Record.Release()
	}); n > 0.1*benchRows {
		t.Errorf("%v allocations for %d rows", n, benchRows)
	}
}
