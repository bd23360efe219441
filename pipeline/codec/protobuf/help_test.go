package protobuf_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/protobuf"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
	"github.com/elbo-stream/elbo/pipeline/codec/registry/registrytest"
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

func timeIn(unit arrow.TimeUnit) arrow.DataType {
	return &arrow.TimestampType{Unit: unit, TimeZone: "UTC"}
}

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

func newFormat(t rapid.TB, c protobuf.Config) *protobuf.Format {
	t.Helper()
	f, err := protobuf.New(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// decode decodes values with a decoder of its own, checks that nothing leaks, and
// returns what it made.
func decode(t rapid.TB, f codec.Format, values ...[]byte) (rows [][]string, got codec.Decoded) {
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
	return rows, got
}

// cells returns every value of rec as text that tells apart what is not equal.
func cells(rec arrow.Record) [][]string {
	rows := make([][]string, rec.NumRows())
	for r := range rows {
		for _, c := range rec.Columns() {
			rows[r] = append(rows[r], cell(c, r))
		}
	}
	return rows
}

func cell(a arrow.Array, r int) string {
	if a.IsNull(r) {
		return "null"
	}
	switch a := a.(type) {
	case *array.Float32:
		return show(float64(a.Value(r)), 32)
	case *array.Float64:
		return show(a.Value(r), 64)
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

// show writes a float of so many bits; all NaNs are equal.
func show(v float64, bits int) string {
	if math.IsNaN(v) {
		return "NaN"
	}
	if bits == 32 {
		return fmt.Sprintf("%v", float32(v))
	}
	return fmt.Sprintf("%v", v)
}

// describe compiles a schema and returns its first message.
func describe(t rapid.TB, text string) protoreflect.MessageDescriptor {
	t.Helper()
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{"test.proto": text})})}
	files, err := c.Compile(context.Background(), "test.proto")
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return files[0].Messages().Get(0)
}

// encode writes a value in text form as the first message of a schema.
func encode(t rapid.TB, schema, value string) []byte {
	t.Helper()
	m := dynamicpb.NewMessage(describe(t, schema))
	if err := prototext.Unmarshal([]byte(value), m); err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	return marshal(t, m)
}

func marshal(t rapid.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if b == nil {
		b = []byte{}
	}
	return b
}

// framed puts the header with a schema id and the index of the first message, or
// another one, before data.
func framed(id int32, data []byte, index ...byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(id))
	if index == nil {
		index = []byte{0}
	}
	return append(append(b, index...), data...)
}

// newRegistry returns a registry with schemas, whose ids are 1, 2 and so on, and
// its client.
func newRegistry(t testing.TB, schemas ...string) (*registrytest.Registry, *registry.Client) {
	t.Helper()
	r := registrytest.New()
	for i, s := range schemas {
		r.Add(fmt.Sprint("subject", i), registry.Schema{Type: registry.Protobuf, Text: s})
	}
	c, err := registry.New(registry.Config{URLs: []string{"http://registry"}, Transport: r})
	if err != nil {
		t.Fatal(err)
	}
	return r, c
}

// one returns a schema whose message R has one field x.
func one(field string) string {
	return `syntax = "proto3"; package p; import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
		message R { ` + field + ` } enum E { ZERO = 0; TWO = 2; NEG = -1; } message M { float v = 1; optional int32 o = 2; R r = 3; }`
}
