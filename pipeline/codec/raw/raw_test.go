package raw_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/raw"
)

var (
	f32  = arrow.PrimitiveTypes.Float32
	vec3 = arrow.FixedSizeListOf(3, f32)
)

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

func message(numbers ...float32) []byte {
	var b []byte
	for _, v := range numbers {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func TestDecode(t *testing.T) {
	f, err := raw.New(raw.Config{Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "v", Type: vec3}, {Name: "b", Type: f32}}})
	if err != nil {
		t.Fatal(err)
	}
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	d := f.NewDecoder(mem)
	got, err := d.Decode(context.Background(), binaryOf(message(1, 2, 3, 4, 5), nil, []byte{1, 2, 3}, message(6, 7, 8, 9, float32(math.Inf(1))), message(1, 2, 3, 4, 5, 6)))
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(got.Record.Columns()); s != "[[1 6] [[2 3 4] [7 8 9]] [5 +Inf]]" {
		t.Errorf("columns %s", s)
	}
	if s := fmt.Sprint(got.Origin); s != "[0 3]" {
		t.Errorf("origin %s", s)
	}
	if s := fmt.Sprint(got.Faults); s != "[decode: 3 bytes, want 20 decode: 24 bytes, want 20]" {
		t.Errorf("faults %s", s)
	}
	got.Record.Release()
	if got, err = d.Decode(context.Background(), binaryOf(message(1, 2, 3, 4, 5))); err != nil || got.Origin != nil || got.Record.NumRows() != 1 {
		t.Errorf("origin %v, want nil where each value has a row; %v", got.Origin, err)
	}
	got.Record.Release()
	if got, err = d.Decode(context.Background(), binaryOf()); err != nil || got.Record.NumRows() != 0 {
		t.Errorf("nothing: %v, %v", got, err)
	}
	got.Record.Release()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Decode(ctx, binaryOf()); err == nil {
		t.Error("a cancelled context is no error")
	}
	d.Release()
	mem.AssertSize(t, 0)
}

func TestConfig(t *testing.T) {
	_, err := raw.New(raw.Config{Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "a", Type: f32}, {Type: f32}, {Name: "d", Type: arrow.PrimitiveTypes.Float64}, {Name: "n"}}})
	for _, want := range []string{`"a": comes twice`, "no name", `"d": raw`, `"n": raw`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	if _, err := raw.New(raw.Config{}); err == nil {
		t.Error("no columns are taken")
	}
	e := raw.NewEncoder(raw.EncoderConfig{Columns: []string{"a", "none", "d", "a"}})
	err = e.Bind(arrow.NewSchema([]arrow.Field{{Name: "a", Type: f32}, {Name: "d", Type: arrow.PrimitiveTypes.Float64}}, nil))
	for _, want := range []string{`"none": there is none`, `"d": raw`, `"a": comes twice`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}

// TestRoundTrip writes random rows, also of a slice, and reads them; nulls are NaN.
func TestRoundTrip(t *testing.T) {
	f, err := raw.New(raw.Config{Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "v", Type: vec3}}})
	if err != nil {
		t.Fatal(err)
	}
	number := rapid.Map(rapid.Uint32(), math.Float32frombits)
	rapid.Check(t, func(t *rapid.T) {
		b := array.NewRecordBuilder(memory.DefaultAllocator, f.Schema())
		defer b.Release()
		n := rapid.IntRange(1, 80).Draw(t, "rows")
		list := b.Field(1).(*array.FixedSizeListBuilder)
		var want []uint32
		nan := math.Float32bits(float32(math.NaN()))
		for range n {
			if rapid.Bool().Draw(t, "null") {
				b.Field(0).AppendNull()
				list.AppendNull()
				want = append(want, nan, nan, nan, nan)
				continue
			}
			v := number.Draw(t, "v")
			b.Field(0).(*array.Float32Builder).Append(v)
			list.Append(true)
			list.ValueBuilder().(*array.Float32Builder).AppendValues([]float32{v, 1, 2}, []bool{true, true, false})
			want = append(want, math.Float32bits(v), math.Float32bits(v), math.Float32bits(1), nan)
		}
		whole := b.NewRecord()
		defer whole.Release()
		from := rapid.IntRange(0, n-1).Draw(t, "from")
		rec := whole.NewSlice(int64(from), int64(n))
		defer rec.Release()
		e := raw.NewEncoder(raw.EncoderConfig{})
		if err := e.Bind(rec.Schema()); err != nil {
			t.Fatal(err)
		}
		if err := e.Reset(rec); err != nil {
			t.Fatal(err)
		}
		var messages [][]byte
		for i := range n - from {
			m, err := e.Append(nil, i, i+1)
			if err != nil {
				t.Fatal(err)
			}
			messages = append(messages, m)
		}
		d := f.NewDecoder(memory.DefaultAllocator)
		defer d.Release()
		got, err := d.Decode(context.Background(), binaryOf(messages...))
		if err != nil || len(got.Faults) > 0 {
			t.Fatal(err, got.Faults)
		}
		defer got.Record.Release()
		a := got.Record.Column(0).(*array.Float32).Float32Values()
		v := got.Record.Column(1).(*array.FixedSizeList).ListValues().(*array.Float32).Float32Values()
		for i := range n - from {
			w := want[4*(from+i):]
			if math.Float32bits(a[i]) != w[0] || math.Float32bits(v[3*i]) != w[1] || math.Float32bits(v[3*i+1]) != w[2] || math.Float32bits(v[3*i+2]) != w[3] {
				t.Fatalf("row %d: %v %v, want %x", i, a[i], v[3*i:3*i+3], w[:4])
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	var cols []codec.Column
	for i := range 32 {
		cols = append(cols, codec.Column{Name: fmt.Sprint("f", i), Type: f32})
	}
	f, err := raw.New(raw.Config{Columns: cols})
	if err != nil {
		b.Fatal(err)
	}
	const rows = 4096
	var messages [][]byte
	for i := range rows {
		m := make([]float32, 32)
		m[i%32] = float32(i)
		messages = append(messages, message(m...))
	}
	values := binaryOf(messages...)
	d := f.NewDecoder(memory.DefaultAllocator)
	defer d.Release()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		got, err := d.Decode(context.Background(), values)
		if err != nil {
			b.Fatal(err)
		}
		n += int(got.Record.NumRows())
		got.Record.Release()
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}
