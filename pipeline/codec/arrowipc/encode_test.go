package arrowipc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// read reads a stream with Arrow's own reader.
func read(t rapid.TB, value []byte) (schema *arrow.Schema, rows []string) {
	t.Helper()
	r, err := ipc.NewReader(bytes.NewReader(value))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	for r.Next() {
		rows = append(rows, cells(r.Record())...)
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return r.Schema(), rows
}

// encodeTypes are types that are written.
var encodeTypes = slices.DeleteFunc(slices.Clone(otherTypes), func(t arrow.DataType) bool { return t.ID() == arrow.NULL || t.ID() == arrow.MAP })

// TestEncodeOracle writes random slices of random records, and reads them with
// Arrow's own reader.
func TestEncodeOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var fields []arrow.Field
		for i := range rapid.IntRange(1, 6).Draw(t, "columns") {
			fields = append(fields, arrow.Field{Name: fmt.Sprint("c", i), Type: rapid.SampledFrom(encodeTypes).Draw(t, "type"), Nullable: true})
		}
		n := rapid.IntRange(1, 40).Draw(t, "rows")
		whole := drawRecord(t, n, fields...)
		defer whole.Release()
		rec := whole.NewSlice(int64(rapid.IntRange(0, n-1).Draw(t, "from")), int64(n))
		defer rec.Release()
		c := arrowipc.EncoderConfig{Rows: rapid.IntRange(1, 20).Draw(t, "rows a message"),
			Compression: rapid.SampledFrom([]arrowipc.Compression{"", arrowipc.None, arrowipc.LZ4, arrowipc.Zstd}).Draw(t, "compression")}
		e := arrowipc.NewEncoder(c)
		if err := errors.Join(e.Bind(rec.Schema()), e.Reset(rec)); err != nil {
			t.Fatal(err)
		}
		var rows []string
		var msg []byte
		for lo := 0; lo < int(rec.NumRows()); lo += e.MaxRows() {
			var err error
			if msg, err = e.Append(msg[:0], lo, min(lo+e.MaxRows(), int(rec.NumRows()))); err != nil {
				t.Fatal(err)
			}
			_, got := read(t, msg)
			rows = append(rows, got...)
		}
		if want := cells(rec); !slices.Equal(rows, want) {
			t.Fatalf("rows\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
		}
	})
}

// TestLZ4 compresses and unpacks buffers of many shapes, larger than a block too.
func TestLZ4(t *testing.T) {
	text := []byte(strings.Repeat("the quick brown fox jumps over the lazy dog, ", 1000))
	noise := make([]byte, 70_000)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	mixed := slices.Concat(noise[:1000], text, noise, text[:13], noise[:65_000], noise[:65_000])
	large := make([]byte, 4<<20+300_000) // more than a block
	copy(large[4<<20-100_000:], mixed)
	for _, b := range [][]byte{{}, {1}, text[:4], text[:5], text[:12], text[:13], text[:17], text, noise, mixed, large, bytes.Repeat([]byte{7}, 1000)} {
		rec := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "b", Type: bin, Nullable: true}}, nil), []arrow.Array{binaryOf(b, b)}, 2)
		e := arrowipc.NewEncoder(arrowipc.EncoderConfig{Compression: arrowipc.LZ4})
		if err := errors.Join(e.Bind(rec.Schema()), e.Reset(rec)); err != nil {
			t.Fatal(err)
		}
		msg, err := e.Append(nil, 0, 2)
		if err != nil {
			t.Fatal(err)
		}
		want := cells(rec)
		if _, rows := read(t, msg); !slices.Equal(rows, want) {
			t.Errorf("%d bytes: Arrow reads something else", len(b))
		}
		f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "b", Type: bin}}, MaxBytes: 1 << 30, Expand: 1000})
		if rows, _, faults := decode(t, f, msg, stream(t, arrowipc.LZ4, rec)); !slices.Equal(rows, slices.Concat(want, want)) {
			t.Errorf("%d bytes: %v, or something else", len(b), faults)
		}
	}
}

// TestDictionaryNulls has a dictionary one of whose values is null.
func TestDictionaryNulls(t *testing.T) {
	levels := array.NewStringBuilder(memory.DefaultAllocator)
	levels.AppendNull()
	levels.Append("x")
	index := array.NewInt8Builder(memory.DefaultAllocator)
	index.AppendValues([]int8{1, 0, 0, 1}, []bool{true, true, false, true})
	rec := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "d", Type: dict, Nullable: true}}, nil), []arrow.Array{array.NewDictionaryArray(dict, index.NewArray(), levels.NewArray())}, 4)
	e := arrowipc.NewEncoder(arrowipc.EncoderConfig{})
	if err := errors.Join(e.Bind(rec.Schema()), e.Reset(rec)); err != nil {
		t.Fatal(err)
	}
	msg, err := e.Append(nil, 0, 4)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`"x" `, "null ", "null ", `"x" `}
	schema, rows := read(t, msg)
	if !slices.Equal(rows, want) || schema.Field(0).Type.ID() != arrow.STRING {
		t.Errorf("%v, rows %v, want %v", schema, rows, want)
	}
	f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "d", Type: str}}})
	if rows, _, faults := decode(t, f, msg, stream(t, "", rec)); !slices.Equal(rows, slices.Concat(want, want)) {
		t.Errorf("rows %v, faults %v", rows, faults)
	}
}

func TestEncoderFaults(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "a", Type: f32}, {Name: "m", Type: arrow.MapOf(str, f32)}, {Name: "n", Type: arrow.Null},
		{Name: "d", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: f32}}}, nil)
	err := arrowipc.NewEncoder(arrowipc.EncoderConfig{Columns: []string{"a", "m", "n", "d", "none", "a"}, Rows: -1, Compression: "gzip"}).Bind(schema)
	for _, want := range []string{`"m": map`, `"n": null`, `"d": dictionary`, `"none": there is none`, `"a": comes twice`, "rows: -1", `"gzip"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	if err := arrowipc.NewEncoder(arrowipc.EncoderConfig{Columns: []string{}}).Bind(schema); err == nil {
		t.Error("no columns are taken")
	}
	e := arrowipc.NewEncoder(arrowipc.EncoderConfig{Columns: []string{"a"}, Rows: 2})
	if err := e.Bind(schema); err != nil {
		t.Fatal(err)
	}
	if err := e.Reset(recordOf(t, `[{"a":"x"}]`, arrow.Field{Name: "a", Type: str})); err == nil {
		t.Error("a record of another schema is taken")
	}
	if err := e.Reset(recordOf(t, `[{"a":1},{"a":2},{"a":3}]`, arrow.Field{Name: "a", Type: f32})); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Append(nil, 0, 3); err == nil {
		t.Error("more rows than a message may hold are taken")
	}
	if got, err := e.Append([]byte("x"), 1, 1); err != nil || got[0] != 'x' {
		t.Errorf("no rows: %v", err)
	} else if _, rows := read(t, got[1:]); len(rows) != 0 {
		t.Errorf("rows %v of none", rows)
	}
}

// TestPython has pyarrow write what we read, and read what we write.
func TestPython(t *testing.T) {
	python := os.Getenv("ELBO_PYTHON")
	if python == "" {
		t.Skip("SKIPPED: set ELBO_PYTHON to a Python with pyarrow to test against it")
	}
	dir := t.TempDir()
	rec := recordOf(t, `[{"a":1.5,"s":"é","v":[1,2,3],"l":[{"x":"p"},null],"d":"z"},{"s":"","d":null}]`, arrow.Field{Name: "a", Type: f32}, arrow.Field{Name: "s", Type: str}, arrow.Field{Name: "v", Type: vec3},
		arrow.Field{Name: "l", Type: arrow.ListOf(arrow.StructOf(arrow.Field{Name: "x", Type: str, Nullable: true}))}, arrow.Field{Name: "d", Type: dict})
	for _, c := range []arrowipc.Compression{arrowipc.None, arrowipc.LZ4, arrowipc.Zstd} {
		e := arrowipc.NewEncoder(arrowipc.EncoderConfig{Compression: c})
		if err := errors.Join(e.Bind(rec.Schema()), e.Reset(rec)); err != nil {
			t.Fatal(err)
		}
		msg, err := e.Append(nil, 0, 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "in."+string(c)), msg, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(python, "-c", `
import json, sys, pyarrow as pa
dir = sys.argv[1]
rows = []
for c in ["none", "lz4", "zstd"]:
    table = pa.ipc.open_stream(open(dir + "/in." + c, "rb").read()).read_all()
    table.validate(full=True)
    rows.append(table.to_pylist())
    big = pa.table({"i": pa.array(list(range(50000)), pa.int64()), "f": pa.array([i / 7 for i in range(50000)]), "pad": pa.array(["x"] * 50000),
        "d": pa.array(["a%d" % (i % 3) for i in range(50000)]).dictionary_encode(), "t": pa.array(range(50000), pa.timestamp("ms", "UTC")), "n": pa.array([None if i % 5 == 0 else str(i) for i in range(50000)])})
    options = pa.ipc.IpcWriteOptions(compression=None if c == "none" else c)
    with pa.OSFile(dir + "/out." + c, "wb") as f, pa.ipc.new_stream(f, big.schema, options=options) as w:
        w.write_table(big, max_chunksize=20000)
json.dump(rows, sys.stdout)
`, dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python: %v", err)
	}
	var got, want []any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	text := `[{"a":1.5,"s":"é","v":[1,2,3],"l":[{"x":"p"},null],"d":"z"},{"a":null,"s":"","v":null,"l":null,"d":null}]`
	if err := json.Unmarshal([]byte("["+text+","+text+","+text+"]"), &want); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("pyarrow reads %v, want %v", got, want)
	}
	f := newFormat(t, arrowipc.Config{Columns: []codec.Column{{Name: "f", Type: f32}, {Name: "i", Type: f64}, {Name: "d", Type: str}, {Name: "t", Type: us}, {Name: "n", Type: str}}})
	for _, c := range []string{"none", "lz4", "zstd"} {
		msg, err := os.ReadFile(filepath.Join(dir, "out."+c))
		if err != nil {
			t.Fatal(err)
		}
		rows, _, faults := decode(t, f, msg)
		if len(rows) != 50000 {
			t.Fatalf("%s: %d rows, faults %v", c, len(rows), faults)
		}
		for i, r := range rows {
			n := fmt.Sprintf("%q", fmt.Sprint(i))
			if i%5 == 0 {
				n = "null"
			}
			if !strings.HasSuffix(r, fmt.Sprintf(` "a%d" %d %s `, i%3, 1000*i, n)) || !strings.HasPrefix(r, fmt.Sprintf("%g/", float32(float64(i)/7))) {
				t.Fatalf("%s: row %d is %s", c, i, r)
			}
		}
	}
}

// benchRecord has 32 float32 columns.
func benchRecord(rows int) arrow.Record {
	var fields []arrow.Field
	for i := range 32 {
		fields = append(fields, arrow.Field{Name: fmt.Sprint("f", i), Type: f32, Nullable: true})
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	for i := range rows {
		for k, f := range b.Fields() {
			f.(*array.Float32Builder).Append(float32(i) / float32(k+1))
		}
	}
	return b.NewRecord()
}

func benchColumns() []codec.Column {
	var cols []codec.Column
	for i := range 32 {
		cols = append(cols, codec.Column{Name: fmt.Sprint("f", i), Type: f32})
	}
	return cols
}

func messages(tb testing.TB, c arrowipc.EncoderConfig, rec arrow.Record) [][]byte {
	e := arrowipc.NewEncoder(c)
	if err := errors.Join(e.Bind(rec.Schema()), e.Reset(rec)); err != nil {
		tb.Fatal(err)
	}
	var all [][]byte
	for lo := 0; lo < int(rec.NumRows()); lo += e.MaxRows() {
		msg, err := e.Append(nil, lo, min(lo+e.MaxRows(), int(rec.NumRows())))
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, msg)
	}
	return all
}

func BenchmarkDecode(b *testing.B) {
	rec := benchRecord(8192)
	for _, n := range []int{1, 16, 256} {
		for _, c := range []arrowipc.Compression{arrowipc.None, arrowipc.LZ4, arrowipc.Zstd} {
			b.Run(fmt.Sprintf("rows=%d/compression=%s", n, c), func(b *testing.B) {
				values := binaryOf(messages(b, arrowipc.EncoderConfig{Rows: n, Compression: c}, rec)...)
				d := newFormat(b, arrowipc.Config{Columns: benchColumns()}).NewDecoder(memory.DefaultAllocator)
				defer d.Release()
				b.ReportAllocs()
				b.SetBytes(int64(len(values.ValueBytes())))
				for b.Loop() {
					got, err := d.Decode(context.Background(), values)
					if err != nil || got.Record.NumRows() != 8192 {
						b.Fatal(err, got.Faults)
					}
					got.Record.Release()
				}
				b.ReportMetric(8192*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	rec := benchRecord(8192)
	for _, n := range []int{1, 256} {
		for _, c := range []arrowipc.Compression{arrowipc.None, arrowipc.LZ4, arrowipc.Zstd} {
			b.Run(fmt.Sprintf("rows=%d/compression=%s", n, c), func(b *testing.B) {
				e := arrowipc.NewEncoder(arrowipc.EncoderConfig{Rows: n, Compression: c})
				if err := e.Bind(rec.Schema()); err != nil {
					b.Fatal(err)
				}
				var dst []byte
				size := 0
				b.ReportAllocs()
				for b.Loop() {
					if err := e.Reset(rec); err != nil {
						b.Fatal(err)
					}
					size = 0
					for lo := 0; lo < 8192; lo += n {
						var err error
						if dst, err = e.Append(dst[:0], lo, lo+n); err != nil {
							b.Fatal(err)
						}
						size += len(dst)
					}
				}
				b.ReportMetric(8192*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
				b.ReportMetric(float64(size)/8192, "bytes/row")
			})
		}
	}
}

// TestAllocates holds both ways to what a batch and the messages' own lists need.
func TestAllocates(t *testing.T) {
	rec := benchRecord(8192)
	e := arrowipc.NewEncoder(arrowipc.EncoderConfig{})
	if err := e.Bind(rec.Schema()); err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 0, 1<<20)
	if n := testing.AllocsPerRun(10, func() {
		if err := e.Reset(rec); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Append(dst, 256, 512); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations to write a message, want 0", n)
	}
	values := binaryOf(messages(t, arrowipc.EncoderConfig{Rows: 16}, rec)...)
	d := newFormat(t, arrowipc.Config{Columns: benchColumns()}).NewDecoder(memory.DefaultAllocator)
	if n := testing.AllocsPerRun(5, func() {
		got, err := d.Decode(context.Background(), values)
		if err != nil {
			t.Fatal(err)
		}
		got.Record.Release()
	}); n > 0.1*8192 {
		t.Errorf("%v allocations for 8192 rows in 512 messages", n)
	}
}
