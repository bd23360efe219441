package protobuf_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/protobuf"
)

// randomSchema makes a schema whose first message is M0.
func randomSchema(t *rapid.T) string {
	kinds := []string{"double", "float", "int32", "int64", "uint32", "sint32", "sint64", "fixed32", "sfixed32", "sfixed64", "bool", "string", "bytes", "E",
		"google.protobuf.Timestamp", "google.protobuf.DoubleValue", "google.protobuf.Int32Value", "google.protobuf.StringValue", "M1", "M2"}
	b := strings.Builder{}
	b.WriteString(`syntax = "proto3"; import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto"; enum E { A = 0; B = 1; C = -5; }` + "\n")
	for m := range 3 {
		fmt.Fprintf(&b, "message M%d {", m)
		numbers := rapid.Permutation([]int{1, 2, 3, 5, 15, 16, 100, 511, 512, 2000, 536870911}).Draw(t, "numbers")
		n := rapid.IntRange(1, 5).Draw(t, "fields")
		next := func() (number int) {
			number, numbers = numbers[0], numbers[1:]
			return number
		}
		for i := range n {
			kind := rapid.SampledFrom(kinds).Draw(t, "kind")
			switch rapid.SampledFrom([]string{"", "", "", "optional", "repeated", "map", "oneof"}).Draw(t, "shape") {
			case "":
				fmt.Fprintf(&b, " %s f%d = %d;", kind, i, next())
			case "optional":
				fmt.Fprintf(&b, " optional %s f%d = %d;", kind, i, next())
			case "repeated":
				fmt.Fprintf(&b, " repeated %s f%d = %d;", kind, i, next())
			case "map":
				key := rapid.SampledFrom([]string{"string", "int32", "bool", "fixed64"}).Draw(t, "key")
				fmt.Fprintf(&b, " map<%s, %s> f%d = %d;", key, kind, i, next())
			case "oneof":
				fmt.Fprintf(&b, " oneof o%d { %s f%d = %d; int32 g%d = %d; }", i, kind, i, next(), i, next())
			}
		}
		b.WriteString(" }\n")
	}
	return b.String()
}

// columnsOf returns columns for the leaves of a message, and for some elements and
// entries of what is repeated.
func columnsOf(m protoreflect.MessageDescriptor, path string, depth int) []codec.Column {
	var all []codec.Column
	add := func(f protoreflect.FieldDescriptor, path string) {
		typ := map[protoreflect.Kind]arrow.DataType{protoreflect.DoubleKind: f64, protoreflect.FloatKind: f32, protoreflect.Int32Kind: i32,
			protoreflect.Sint32Kind: i32, protoreflect.Sfixed32Kind: i32, protoreflect.BoolKind: boole, protoreflect.StringKind: str,
			protoreflect.BytesKind: bin, protoreflect.EnumKind: str}[f.Kind()]
		if f.Kind() == protoreflect.MessageKind {
			switch f.Message().Name() {
			case "Timestamp":
				typ = timeIn(arrow.Nanosecond)
			case "DoubleValue":
				typ = f64
			case "Int32Value":
				typ = i32
			case "StringValue":
				typ = str
			default:
				if depth > 0 {
					all = append(all, columnsOf(f.Message(), path+".", depth-1)...)
				}
				return
			}
		} else if typ == nil {
			typ = i64
		}
		all = append(all, codec.Column{Name: path, Type: typ})
	}
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := path + string(f.Name())
		switch {
		case f.IsMap():
			for _, key := range map[protoreflect.Kind][]string{protoreflect.StringKind: {"a", "b"}, protoreflect.BoolKind: {"true", "false"}}[f.MapKey().Kind()] {
				add(f.MapValue(), name+"."+key)
			}
			if f.MapKey().Kind() == protoreflect.Int32Kind || f.MapKey().Kind() == protoreflect.Fixed64Kind {
				add(f.MapValue(), name+".1")
			}
		case f.IsList():
			add(f, name+".0")
			add(f, name+".2")
		default:
			add(f, name)
		}
	}
	return all
}

// fill gives the fields of m random values.
func fill(t *rapid.T, m protoreflect.Message, depth int) {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if rapid.IntRange(0, 3).Draw(t, "absent") == 0 {
			continue
		}
		switch {
		case f.IsMap():
			for range rapid.IntRange(0, 2).Draw(t, "entries") {
				var key protoreflect.Value
				switch f.MapKey().Kind() {
				case protoreflect.StringKind:
					key = protoreflect.ValueOfString(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key"))
				case protoreflect.BoolKind:
					key = protoreflect.ValueOfBool(rapid.Bool().Draw(t, "key"))
				case protoreflect.Int32Kind:
					key = protoreflect.ValueOfInt32(rapid.Int32Range(0, 2).Draw(t, "key"))
				default:
					key = protoreflect.ValueOfUint64(rapid.Uint64Range(0, 2).Draw(t, "key"))
				}
				m.Mutable(f).Map().Set(key.MapKey(), random(t, f.MapValue(), m.Mutable(f).Map().NewValue, depth))
			}
		case f.IsList():
			for range rapid.IntRange(0, 4).Draw(t, "elements") {
				l := m.Mutable(f).List()
				l.Append(random(t, f, l.NewElement, depth))
			}
		default:
			m.Set(f, random(t, f, func() protoreflect.Value { return m.NewField(f) }, depth))
		}
	}
}

func random(t *rapid.T, f protoreflect.FieldDescriptor, empty func() protoreflect.Value, depth int) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "v"))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.SampledFrom([]int32{0, 1, -5, 77}).Draw(t, "v")))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "v"))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "v"))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "v"))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(rapid.Float32().Draw(t, "v"))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(rapid.Float64().Draw(t, "v"))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.ToValidUTF8(rapid.String().Draw(t, "v"), ""))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "v"))
	}
	v := empty()
	if f.Message().Name() == "Timestamp" {
		v.Message().Set(f.Message().Fields().ByNumber(1), protoreflect.ValueOfInt64(rapid.Int64Range(-1e9, 1e9).Draw(t, "seconds")))
		v.Message().Set(f.Message().Fields().ByNumber(2), protoreflect.ValueOfInt32(rapid.Int32Range(0, 999_999_999).Draw(t, "nanos")))
	} else if depth > 0 {
		fill(t, v.Message(), depth-1)
	}
	return v
}

// told writes what stands at a path of m as cell does.
func told(m protoreflect.Message, path []string) string {
	f := m.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	path = path[1:]
	if f.IsMap() {
		var found protoreflect.Value
		m.Get(f).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			if k.String() == path[0] {
				found = v
			}
			return true
		})
		return toldValue(f.MapValue(), found, path[1:])
	}
	if f.IsList() {
		var found protoreflect.Value
		if i, _ := strconv.Atoi(path[0]); i < m.Get(f).List().Len() {
			found = m.Get(f).List().Get(i)
		}
		return toldValue(f, found, path[1:])
	}
	if f.HasPresence() && !m.Has(f) {
		return "null"
	}
	return toldValue(f, m.Get(f), path)
}

func toldValue(f protoreflect.FieldDescriptor, v protoreflect.Value, path []string) string {
	if !v.IsValid() {
		return "null"
	}
	switch f.Kind() {
	case protoreflect.EnumKind:
		if n := f.Enum().Values().ByNumber(v.Enum()); n != nil {
			return strconv.Quote(string(n.Name()))
		}
		return strconv.Quote(fmt.Sprint(int32(v.Enum())))
	case protoreflect.FloatKind:
		return show(v.Float(), 32)
	case protoreflect.DoubleKind:
		return show(v.Float(), 64)
	case protoreflect.StringKind:
		return fmt.Sprintf("%q", v.String())
	case protoreflect.BytesKind:
		return fmt.Sprintf("%x", v.Bytes())
	case protoreflect.MessageKind:
		fields := f.Message().Fields()
		switch f.Message().FullName() {
		case "google.protobuf.Timestamp":
			return fmt.Sprint(v.Message().Get(fields.ByNumber(1)).Int()*1e9 + v.Message().Get(fields.ByNumber(2)).Int())
		case "google.protobuf.DoubleValue", "google.protobuf.Int32Value", "google.protobuf.StringValue":
			return toldValue(fields.ByNumber(1), v.Message().Get(fields.ByNumber(1)), nil)
		}
		return told(v.Message(), path)
	}
	return fmt.Sprint(v.Interface())
}

// TestAgainstLibrary compares with what Google's library makes of the same bytes,
// for random schemas and values; two messages one behind the other are merged.
func TestAgainstLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		schema := randomSchema(t)
		d := describe(t, schema)
		columns := columnsOf(d, "", 2)
		if len(columns) == 0 {
			return
		}
		f, err := protobuf.New(t.Context(), protobuf.Config{Framing: protobuf.Bare, Schema: schema, Columns: columns})
		if err != nil {
			t.Fatalf("%s: %v", schema, err)
		}
		data := []byte{}
		for range rapid.IntRange(1, 2).Draw(t, "messages") {
			m := dynamicpb.NewMessage(d)
			fill(t, m, 2)
			data = append(data, marshal(t, m)...)
		}
		want := dynamicpb.NewMessage(d)
		if err := proto.Unmarshal(data, want); err != nil {
			t.Fatal(err)
		}
		rows, got := decode(t, f, data)
		if len(got.Faults) > 0 {
			t.Fatalf("%s\n%x: fault %v", schema, data, got.Faults[0])
		}
		for i, c := range columns {
			w := told(want, strings.Split(c.Name, "."))
			if rows[0][i] != w {
				t.Fatalf("%s\n%x\ncolumn %s %v: %s, want %s", schema, data, c.Name, c.Type, rows[0][i], w)
			}
		}
	})
}

const fuzzSchema = `syntax = "proto3"; import "google/protobuf/wrappers.proto";
	message M0 { float a = 1; optional double b = 2; string s = 3; repeated float v = 4; repeated sint32 i = 5; M1 m = 6; map<string, M1> k = 7;
		oneof o { int64 x = 8; M1 y = 9; } google.protobuf.DoubleValue w = 10; E e = 11; repeated M1 l = 12; map<int32, double> n = 13; }
	message M1 { bytes p = 1; uint32 q = 2; M0 r = 3; bool t = 16; }
	enum E { A = 0; B = 1; }`

// FuzzDecode looks for bytes that crash the decoder, or that it reads in another
// way than Google's library does.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		`a: 1 b: 2 s: "é" v: [1, 2, 3] i: [-1, 2] m: {p: "x" q: 7 r: {a: 1} t: true} k: {key: "a" value: {q: 1}} x: 5 w: {value: 2} e: B l: {} l: {q: 1} l: {q: 2} n: {key: 1 value: 2}`,
		`y: {q: 3} k: {key: "a" value: {q: 1}} k: {key: "b" value: {}}`,
	} {
		f.Add(encode(f, fuzzSchema, text))
	}
	f.Add([]byte{0x0b, 0x0c, 0x7b, 0x7c})
	d := describe(f, fuzzSchema)
	columns := columnsOf(d, "", 2)
	format := newFormat(f, protobuf.Config{Framing: protobuf.Bare, Schema: fuzzSchema, Columns: columns})
	f.Fuzz(func(t *testing.T, data []byte) {
		if data == nil {
			data = []byte{}
		}
		rows, got := decode(t, format, data, data)
		if len(rows)+len(got.Faults) != 2 || len(rows) == 1 {
			t.Fatalf("rows %v, faults %v", rows, got.Faults)
		}
		want := dynamicpb.NewMessage(d)
		err := proto.Unmarshal(data, want)
		if len(rows) == 0 {
			if got.Faults[0].Class == codec.Syntax && err == nil {
				t.Fatalf("%x: fault %v, but the library reads %v", data, got.Faults[0], want)
			}
			return
		}
		if err != nil {
			return // in what no column looks at
		}
		for i, c := range columns {
			if w := told(want, strings.Split(c.Name, ".")); rows[0][i] != w {
				t.Fatalf("%x\ncolumn %s %v: %s, want %s", data, c.Name, c.Type, rows[0][i], w)
			}
		}
	})
}
