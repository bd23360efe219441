package arrowipc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/arrowipc"
)

// TestCasts has every pair of types that is allowed, and some that are not.
func TestCasts(t *testing.T) {
	p := arrow.PrimitiveTypes
	two := func(v string, typ arrow.DataType) arrow.Record {
		if !arrow.IsInteger(typ.ID()) {
			return recordOf(t, `[{"c":`+v+`},{"c":null}]`, arrow.Field{Name: "c", Type: typ})
		}
		b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "c", Type: typ, Nullable: true}}, nil))
		defer b.Release()
		if err := b.Field(0).AppendValueFromString(v); err != nil { // JSON would go through a float64
			t.Fatal(err)
		}
		b.Field(0).AppendNull()
		return b.NewRecord()
	}
	for _, tc := range []struct {
		have  arrow.DataType
		value string
		want  arrow.DataType
		cell  string // "!" and a fault's text, "#" for a SchemaError
	}{
		{f32, "1.5", f32, "1.5/3fc00000"}, {f32, "1.5", f64, "1.5/3ff8000000000000"}, {f64, "0.1", f32, "0.1/3dcccccd"}, {f64, "1e300", f32, "!is no float32"},
		{arrow.FixedWidthTypes.Float16, "1.5", f32, "1.5/3fc00000"}, {arrow.FixedWidthTypes.Float16, "1.5", f64, "1.5/3ff8000000000000"},
		{p.Int8, "-5", i32, "-5"}, {p.Uint8, "200", i32, "200"}, {p.Int16, "-5", i32, "-5"}, {p.Uint16, "65535", i32, "65535"}, {p.Int32, "-7", i32, "-7"}, {p.Uint32, "7", i32, "#"}, {i64, "7", i32, "#"},
		{p.Int8, "-5", i64, "-5"}, {p.Uint8, "200", i64, "200"}, {p.Int16, "-5", i64, "-5"}, {p.Uint16, "65535", i64, "65535"}, {p.Int32, "-7", i64, "-7"}, {p.Uint32, "4294967295", i64, "4294967295"}, {p.Uint64, "7", i64, "#"},
		{p.Int8, "-5", f32, "-5/c0a00000"}, {p.Uint8, "5", f64, "5/4014000000000000"}, {p.Int16, "-5", f64, "-5/c014000000000000"}, {p.Uint16, "5", f32, "5/40a00000"},
		{p.Int32, "16777216", f32, "1.6777216e+07/4b800000"}, {p.Int32, "16777217", f32, "!is no float32"}, {p.Uint32, "16777218", f32, "1.6777218e+07/4b800001"}, {p.Int32, "16777217", f64, "1.6777217e+07/4170000010000000"},
		{i64, "9007199254740993", f64, "!is no float64"}, {i64, "-9007199254740992", f64, "-9.007199254740992e+15/c340000000000000"}, {i64, "9223372036854775807", f64, "!is no float64"},
		{i64, "-9223372036854775808", f32, "-9.223372e+18/df000000"}, {p.Uint64, "18446744073709551615", f64, "!is no float64"}, {p.Uint64, "5", f64, "5/4014000000000000"},
		{f32, "1", i64, "#"}, {boole, "true", boole, "true"}, {boole, "true", f32, "#"}, {p.Int8, "1", boole, "#"}, {arrow.Null, "null", f32, "null"}, {arrow.Null, "null", str, "null"}, {arrow.Null, "null", vec3, "null"},
		{str, `"é"`, str, `"é"`}, {arrow.BinaryTypes.LargeString, `"x"`, str, `"x"`}, {str, `"x"`, bin, "#"}, {bin, `"AQI="`, bin, "0102"}, {arrow.BinaryTypes.LargeBinary, `"AQI="`, bin, "0102"}, {bin, `"AQI="`, str, "#"},
		{dict, `"x"`, str, `"x"`}, {dict, `"x"`, f32, "#"}, {&arrow.DictionaryType{IndexType: p.Uint16, ValueType: bin}, `"AQI="`, bin, "0102"}, {&arrow.DictionaryType{IndexType: p.Int32, ValueType: f32}, `1`, f32, "#"},
		{arrow.FixedWidthTypes.Timestamp_ms, `"1970-01-01T00:00:01Z"`, us, "1000000"}, {us, `"1970-01-01T00:00:01Z"`, us, "1000000"}, {arrow.FixedWidthTypes.Timestamp_ns, `"1970-01-01T00:00:01Z"`, us, "#"},
		{arrow.FixedWidthTypes.Timestamp_s, `"9999-01-01T00:00:00Z"`, arrow.FixedWidthTypes.Timestamp_ns, "!beyond timestamp[ns"}, {i64, "5", us, "#"}, {arrow.FixedWidthTypes.Date32, `"1970-01-02"`, us, "#"},
		{vec3, "[1,2,3]", vec3, "[1/3f800000 2/40000000 3/40400000 ]"}, {vec3, "[1,null,3]", vec3, "[1/3f800000 null 3/40400000 ]"}, {arrow.FixedSizeListOf(3, f64), "[1,2,3]", vec3, "[1/3f800000 2/40000000 3/40400000 ]"},
		{arrow.FixedSizeListOf(2, f32), "[1,2]", vec3, "#"}, {arrow.ListOf(f32), "[1,2,3]", vec3, "[1/3f800000 2/40000000 3/40400000 ]"}, {arrow.ListOf(f64), "[1,null,3]", vec3, "[1/3f800000 null 3/40400000 ]"},
		{arrow.LargeListOf(i64), "[1,2,3]", vec3, "[1/3f800000 2/40000000 3/40400000 ]"}, {arrow.ListOf(f32), "[1,2]", vec3, "!2 elements in row 0 of a batch, want 3"}, {arrow.ListOf(i64), "[1,2,16777217]", vec3, "!element 2"}, {arrow.ListOf(str), `["x"]`, vec3, "#"},
		{arrow.StructOf(arrow.Field{Name: "a", Type: f32}), `{"a":1}`, f32, "#"},
	} {
		name := fmt.Sprintf("%v %s as %v", tc.have, tc.value, tc.want)
		rec := two(tc.value, tc.have)
		f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "c", Type: tc.want}}})
		for _, compression := range []arrowipc.Compression{arrowipc.None, arrowipc.LZ4, arrowipc.Zstd} {
			value := stream(t, compression, rec)
			if tc.cell == "#" {
				d := f.NewDecoder(memory.DefaultAllocator)
				_, err := d.Decode(context.Background(), binaryOf(value))
				var s *codec.SchemaError
				if !errors.As(err, &s) || s.Column != "c" || s.Want != tc.want || s.Source != "the stream's schema" {
					t.Errorf("%s: %v, want a SchemaError", name, err)
				}
				d.Release()
				continue
			}
			rows, _, faults := decode(t, f, value)
			if why, bad := strings.CutPrefix(tc.cell, "!"); bad {
				if len(faults) != 1 || faults[0].Class != codec.Invalid || !strings.Contains(faults[0].Error(), why) || len(rows) > 0 {
					t.Errorf("%s: rows %v, faults %v, want %q", name, rows, faults, why)
				}
			} else if fmt.Sprint(rows) != "["+tc.cell+"  null ]" || len(faults) > 0 {
				t.Errorf("%s: rows %v, faults %v, want %s", name, rows, faults, tc.cell)
			}
		}
		rec.Release()
	}
}

// otherTypes are types that a stream may have beside the bound columns.
var otherTypes = []arrow.DataType{
	f32, f64, i32, i64, boole, str, bin, us, vec3, dict, arrow.Null, arrow.FixedWidthTypes.Date32, arrow.FixedWidthTypes.Date64,
	arrow.ListOf(str), arrow.LargeListOf(f64), arrow.StructOf(arrow.Field{Name: "x", Type: str, Nullable: true}, arrow.Field{Name: "y", Type: arrow.ListOf(i32), Nullable: true}),
	arrow.MapOf(str, f32), &arrow.FixedSizeBinaryType{ByteWidth: 3}, arrow.FixedWidthTypes.Time32s, arrow.FixedWidthTypes.Duration_ms,
	&arrow.Decimal128Type{Precision: 9, Scale: 2}, arrow.ListOf(arrow.StructOf(arrow.Field{Name: "d", Type: dict, Nullable: true})), arrow.BinaryTypes.LargeString,
	&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Uint16, ValueType: str}, &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int64, ValueType: bin},
}

// TestOracle reads random streams by several batches, with other columns between
// those that are bound, and compares with the arrays that were written.
func TestOracle(t *testing.T) {
	wanted := []arrow.DataType{f32, f64, i32, i64, boole, str, bin, us, vec3, str}
	rapid.Check(t, func(t *rapid.T) {
		var cols []codec.Column
		var fields []arrow.Field
		for i, typ := range wanted {
			cols = append(cols, codec.Column{Name: fmt.Sprint("c", i), Type: typ})
			if i == len(wanted)-1 {
				typ = dict
			}
			fields = append(fields, arrow.Field{Name: fmt.Sprint("c", i), Type: typ, Nullable: true})
		}
		for i := range rapid.IntRange(0, 4).Draw(t, "others") {
			fields = append(fields, arrow.Field{Name: fmt.Sprint("o", i), Type: rapid.SampledFrom(otherTypes).Draw(t, "type"), Nullable: true})
		}
		fields = rapid.Permutation(fields).Draw(t, "order")
		if rapid.Bool().Draw(t, "missing") {
			fields = fields[1:]
		}
		f, err := arrowipc.New(arrowipc.Config{Columns: cols})
		if err != nil {
			t.Fatal(err)
		}
		var values [][]byte
		var want []string
		var origin []int32
		for v := range rapid.IntRange(1, 3).Draw(t, "values") {
			if rapid.IntRange(0, 4).Draw(t, "tombstone") == 0 {
				values = append(values, nil)
				continue
			}
			var recs []arrow.Record
			for range rapid.IntRange(1, 3).Draw(t, "batches") {
				rec := drawRecord(t, rapid.IntRange(0, 20).Draw(t, "rows"), fields...)
				defer rec.Release()
				recs = append(recs, rec)
				for r := range int(rec.NumRows()) {
					row := ""
					for _, c := range cols {
						if at := rec.Schema().FieldIndices(c.Name); at != nil {
							row += cell(rec.Column(at[0]), r) + " "
						} else {
							row += "null "
						}
					}
					want = append(want, row)
					origin = append(origin, int32(v))
				}
			}
			values = append(values, stream(t, rapid.SampledFrom([]arrowipc.Compression{arrowipc.None, arrowipc.LZ4, arrowipc.Zstd}).Draw(t, "compression"), recs...))
		}
		rows, from, faults := decode(t, f, values...)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		if !slices.Equal(rows, want) {
			t.Fatalf("rows\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
		}
		if from != nil && !slices.Equal(from, origin) {
			t.Fatalf("origin %v, want %v", from, origin)
		}
	})
}

// TestBatch has good and bad messages in one call.
func TestBatch(t *testing.T) {
	f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "s", Type: str}, {Name: "v", Type: vec3}}, MaxBytes: 4000})
	fields := []arrow.Field{{Name: "a", Type: i64}, {Name: "s", Type: str}, {Name: "v", Type: vec3}}
	good := stream(t, "", recordOf(t, `[{"a":1,"s":"x","v":[1,2,3]},{"a":2,"s":"yy"}]`, fields...))
	bad := stream(t, "", recordOf(t, `[{"a":1,"s":"zzz","v":[null,2,3]},{"a":16777217}]`, fields...))
	one := stream(t, "", recordOf(t, `[{"a":3,"v":[4,5,6]}]`, fields...))
	long := stream(t, "", recordOf(t, `[{"a":3,"s":"`+strings.Repeat("s", 4000)+`"}]`, fields...))
	rows, origin, faults := decode(t, f, nil, good, bad, []byte{}, good[:len(good)-20], one, long, []byte("{}"))
	want := `[1/3f800000 "x" [1/3f800000 2/40000000 3/40400000 ]  2/40000000 "yy" null  3/40400000 null [4/40800000 5/40a00000 6/40c00000 ] ]`
	if fmt.Sprint(rows) != want {
		t.Errorf("rows %v, want %s", rows, want)
	}
	if !slices.Equal(origin, []int32{1, 1, 5}) {
		t.Errorf("origin %v", origin)
	}
	var got []string
	for _, f := range faults {
		got = append(got, fmt.Sprintf("%d %s", f.Value, f.Class))
	}
	if s := fmt.Sprint(got); s != "[2 validation 3 decode 4 decode 6 size 7 decode]" {
		t.Errorf("faults %v", faults)
	}
	if rows, origin, _ := decode(t, f, one, one); origin != nil || len(rows) != 2 {
		t.Errorf("origin %v where each value has one row", origin)
	}
	if rows, origin, _ := decode(t, f); origin != nil || len(rows) != 0 {
		t.Errorf("nothing: %v, %v", rows, origin)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d := f.NewDecoder(memory.DefaultAllocator)
	if _, err := d.Decode(ctx, binaryOf(one)); err == nil {
		t.Error("a cancelled context is no error")
	}
}

// TestKnownSchema has messages of batches alone.
func TestKnownSchema(t *testing.T) {
	rec := recordOf(t, `[{"a":1,"b":2},{"a":3}]`, arrow.Field{Name: "a", Type: f32}, arrow.Field{Name: "b", Type: i64})
	schema, err := arrowipc.MarshalSchema(rec.Schema())
	if err != nil {
		t.Fatal(err)
	}
	e := arrowipc.NewEncoder(arrowipc.EncoderConfig{BatchesOnly: true})
	if err := errors.Join(e.Bind(rec.Schema()), e.Reset(rec)); err != nil {
		t.Fatal(err)
	}
	value, err := e.Append(nil, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	c := arrowipc.Config{Columns: []codec.Column{{Name: "x", Type: f64, Path: "b"}, {Name: "a", Type: f32}}}
	if _, _, faults := decode(t, newFormat(t, c), value); len(faults) != 1 || !strings.Contains(faults[0].Error(), "no schema before the rows") {
		t.Errorf("without its schema: %v", faults)
	}
	c.Schema = schema
	want := "[2/4000000000000000 1/3f800000  null 3/40400000 ]"
	rows, _, faults := decode(t, newFormat(t, c), value)
	if fmt.Sprint(rows) != want || len(faults) > 0 {
		t.Errorf("rows %v, faults %v", rows, faults)
	}
	if rows, _, _ := decode(t, newFormat(t, c), stream(t, "", rec)); fmt.Sprint(rows) != want {
		t.Errorf("a stream with its own schema: %v", rows)
	}
	c.Columns[1].Type = boole
	var s *codec.SchemaError
	if _, err := arrowipc.New(c); !errors.As(err, &s) || s.Source != "the configured schema" {
		t.Errorf("New: %v, want a SchemaError", err)
	}
	c.Schema = value
	if _, err := arrowipc.New(c); err == nil {
		t.Error("a batch is taken for a schema")
	}
}

func TestConfig(t *testing.T) {
	_, err := arrowipc.New(arrowipc.Config{Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "a", Type: f32}, {Type: f32}, {Name: "d", Type: arrow.ListOf(f32)}, {Name: "n"}}, MaxBytes: -1, Expand: -1})
	for _, want := range []string{`"a": comes twice`, "no name", `"d": Arrow`, `"n": Arrow`, "max bytes: -1", "expand: -1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	if _, err := arrowipc.New(arrowipc.Config{}); err == nil {
		t.Error("no columns are taken")
	}
}

// TestBombs has small messages that want to become large ones.
func TestBombs(t *testing.T) {
	f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "s", Type: str}, {Name: "miss", Type: arrow.FixedSizeListOf(1000, f32)}}})
	zeros := array.NewFloat32Builder(memory.DefaultAllocator)
	for range 1 << 20 {
		zeros.Append(0)
	}
	long := array.NewStringBuilder(memory.DefaultAllocator)
	long.Append(strings.Repeat("x", 1<<20))
	index := array.NewInt8Builder(memory.DefaultAllocator)
	for range 1 << 10 {
		index.Append(0)
	}
	column := func(name string, a arrow.Array) arrow.Record {
		return array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: name, Type: a.DataType(), Nullable: true}}, nil), []arrow.Array{a}, int64(a.Len()))
	}
	for name, rec := range map[string]arrow.Record{
		"zeros":      column("a", zeros.NewArray()),
		"nulls":      column("a", array.NewNull(1<<30)),
		"dictionary": column("s", array.NewDictionaryArray(dict, index.NewArray(), long.NewArray())),
	} {
		for _, compression := range []arrowipc.Compression{arrowipc.LZ4, arrowipc.Zstd} {
			value := stream(t, compression, rec)
			rows, _, faults := decode(t, f, value)
			if len(rows) > 0 || len(faults) != 1 || faults[0].Class != codec.Size {
				t.Errorf("%s by %s, %d bytes: %d rows, faults %v", name, compression, len(value), len(rows), faults)
			}
		}
	}
}

// TestHostile changes streams: no panic, no leak, and as many rows as origins.
func TestHostile(t *testing.T) {
	f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "c0", Type: f32}, {Name: "c1", Type: str}, {Name: "c2", Type: vec3}, {Name: "c3", Type: i64}, {Name: "c4", Type: us}, {Name: "c5", Type: boole}}})
	rapid.Check(t, func(t *rapid.T) {
		var fields []arrow.Field
		for i := range 6 {
			typ := rapid.SampledFrom(otherTypes).Draw(t, "type")
			if rapid.IntRange(0, 3).Draw(t, "fits") > 0 {
				typ = []arrow.DataType{f64, dict, arrow.ListOf(f32), i32, arrow.FixedWidthTypes.Timestamp_s, boole}[i]
			}
			fields = append(fields, arrow.Field{Name: fmt.Sprint("c", i), Type: typ, Nullable: true})
		}
		rec := drawRecord(t, rapid.IntRange(0, 9).Draw(t, "rows"), fields...)
		defer rec.Release()
		value := bytes.Clone(stream(t, rapid.SampledFrom([]arrowipc.Compression{arrowipc.None, arrowipc.LZ4, arrowipc.Zstd}).Draw(t, "compression"), rec))
		for range rapid.IntRange(0, 4).Draw(t, "changes") {
			at := rapid.IntRange(0, len(value)-8).Draw(t, "at")
			switch rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				value[at] = rapid.Byte().Draw(t, "byte")
			case 1:
				binary.LittleEndian.PutUint32(value[at&^3:], rapid.SampledFrom([]uint32{0, 1, 4, 0xffffffff, 0x7fffffff, 0x80000000, 1 << 24}).Draw(t, "word"))
			case 2:
				binary.LittleEndian.PutUint64(value[at&^7:], rapid.SampledFrom([]uint64{0, 1, math.MaxUint64, math.MaxInt64, 1 << 32, 1 << 40}).Draw(t, "long"))
			case 3:
				value = value[:max(at, 8)]
			}
		}
		checkAny(t, f, value)
	})
}

// checkAny decodes bytes that may be anything.
func checkAny(t rapid.TB, f codec.Format, value []byte) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	d := f.NewDecoder(mem)
	got, err := d.Decode(context.Background(), binaryOf(value, value))
	d.Release()
	if err == nil {
		rows := int(got.Record.NumRows())
		if got.Origin != nil && len(got.Origin) != rows || got.Origin == nil && rows != 2 && len(got.Faults) != 2 || len(got.Faults)%2 != 0 {
			t.Fatalf("%d rows, origin %v, faults %v", rows, got.Origin, got.Faults)
		}
		cells(got.Record)
		got.Record.Release()
	} else if s := (*codec.SchemaError)(nil); !errors.As(err, &s) {
		t.Fatalf("error %v, want a fault", err)
	}
	if n := mem.CurrentAlloc(); n != 0 {
		t.Fatalf("%d bytes in use", n)
	}
}

func FuzzDecode(f *testing.F) {
	rec := recordOf(f, `[{"c0":1,"c1":"x","c2":[1,2,3],"c3":5,"c4":"1970-01-01T00:00:01Z","c5":true},{"c0":null}]`, arrow.Field{Name: "c0", Type: f64}, arrow.Field{Name: "c1", Type: dict},
		arrow.Field{Name: "c2", Type: arrow.ListOf(f32)}, arrow.Field{Name: "c3", Type: i32}, arrow.Field{Name: "c4", Type: arrow.FixedWidthTypes.Timestamp_s}, arrow.Field{Name: "c5", Type: boole})
	for _, c := range []arrowipc.Compression{arrowipc.None, arrowipc.LZ4, arrowipc.Zstd} {
		f.Add(stream(f, c, rec))
	}
	form := newFormat(f, arrowipc.Config{Columns: []codec.Column{{Name: "c0", Type: f32}, {Name: "c1", Type: str}, {Name: "c2", Type: vec3}, {Name: "c3", Type: i64}, {Name: "c4", Type: us}, {Name: "c5", Type: boole}}, MaxBytes: 1 << 16})
	f.Fuzz(func(t *testing.T, value []byte) { checkAny(t, form, value) })
}

// TestParallel has decoders of one format read at once.
func TestParallel(t *testing.T) {
	f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "s", Type: str}}})
	a := stream(t, arrowipc.Zstd, recordOf(t, `[{"a":1,"s":"x"}]`, arrow.Field{Name: "a", Type: f32}, arrow.Field{Name: "s", Type: dict}))
	b := stream(t, arrowipc.LZ4, recordOf(t, `[{"s":"x","a":1}]`, arrow.Field{Name: "s", Type: str}, arrow.Field{Name: "a", Type: i64}))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 30 {
				if rows, _, faults := decode(t, f, a, b, a); fmt.Sprint(rows) != `[1/3f800000 "x"  1/3f800000 "x"  1/3f800000 "x" ]` {
					t.Error(rows, faults)
				}
			}
		})
	}
	all.Wait()
}
