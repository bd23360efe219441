package protobuf_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/protobuf"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

func TestValues(t *testing.T) {
	for _, tt := range []struct {
		field, value string
		typ          arrow.DataType
		want         string // or the start of a fault
	}{
		{"bool x = 1;", "x: true", boole, "true"},
		{"bool x = 1;", "", boole, "false"},
		{"optional bool x = 1;", "", boole, "null"},
		{"int32 x = 1;", "x: -7", i32, "-7"},
		{"int32 x = 1;", "x: -7", i64, "-7"},
		{"int32 x = 1;", "x: -7", f32, "-7"},
		{"sint32 x = 1;", "x: -2147483648", f64, "-2.147483648e+09"},
		{"sfixed32 x = 1;", "x: -7", i32, "-7"},
		{"uint32 x = 1;", "x: 4294967295", i64, "4294967295"},
		{"fixed32 x = 1;", "x: 4294967295", f64, "4.294967295e+09"},
		{"int64 x = 1;", "x: -9223372036854775808", i64, "-9223372036854775808"},
		{"sint64 x = 1;", "x: -9223372036854775808", i64, "-9223372036854775808"},
		{"sfixed64 x = 1;", "x: -1", f32, "-1"},
		{"uint64 x = 1;", "x: 9223372036854775807", i64, "9223372036854775807"},
		{"uint64 x = 1;", "x: 9223372036854775808", i64, "validation: x at byte 7: 9223372036854775808 is out of range"},
		{"fixed64 x = 1;", "x: 18446744073709551615", f64, "1.8446744073709552e+19"},
		{"float x = 1;", "x: 0.1", f32, "0.1"},
		{"float x = 1;", "x: 0.1", f64, "0.10000000149011612"},
		{"float x = 1;", "", f32, "0"},
		{"optional float x = 1;", "", f32, "null"},
		{"optional float x = 1;", "x: 0", f32, "0"},
		{"double x = 1;", "x: 0.1", f64, "0.1"},
		{"double x = 1;", "x: 1e300", f32, "+Inf"},
		{"string x = 1;", `x: "é\0"`, str, `"é\x00"`},
		{"string x = 1;", ``, str, `""`},
		{"string x = 1;", `x: "ab"`, bin, "6162"},
		{"bytes x = 1;", `x: "\377"`, bin, "ff"},
		{"bytes x = 1;", `x: "\377"`, str, "decode: x at byte 8: a text that is not UTF-8"},
		{"bytes x = 1;", `x: "a"`, str, `"a"`},
		{"E x = 1;", "x: TWO", str, `"TWO"`},
		{"E x = 1;", "x: 77", str, `"77"`},
		{"E x = 1;", "", str, `"ZERO"`},
		{"E x = 1;", "x: NEG", i32, "-1"},
		{"E x = 1;", "x: TWO", i64, "2"},
		{"google.protobuf.Timestamp x = 1;", "x: {seconds: -1 nanos: 999999999}", timeIn(arrow.Second), "-1"},
		{"google.protobuf.Timestamp x = 1;", "x: {seconds: -1 nanos: 999999999}", timeIn(arrow.Nanosecond), "-1"},
		{"google.protobuf.Timestamp x = 1;", "x: {seconds: 2 nanos: 1500000}", timeIn(arrow.Millisecond), "2001"},
		{"google.protobuf.Timestamp x = 1;", "x: {}", timeIn(arrow.Millisecond), "0"},
		{"google.protobuf.Timestamp x = 1;", "", timeIn(arrow.Millisecond), "null"},
		{"google.protobuf.Timestamp x = 1;", "x: {nanos: -1}", timeIn(arrow.Millisecond), "validation: x at byte 8: a timestamp of -1 nanoseconds"},
		{"google.protobuf.Timestamp x = 1;", "x: {seconds: 10000000000}", timeIn(arrow.Nanosecond), "validation: x at byte 8: a timestamp of 10000000000 seconds is out"},
		{"int64 x = 1;", "x: 1500", timeIn(arrow.Second), "1"}, // Config.Integers is ms
		{"uint64 x = 1;", "x: 1500", timeIn(arrow.Microsecond), "1500000"},
		{"int64 x = 1;", "x: 9223372036854775807", timeIn(arrow.Nanosecond), "validation: x at byte 7: 9223372036854775807 is out"},
		{"google.protobuf.FloatValue x = 1;", "x: {value: 2.5}", f32, "2.5"},
		{"google.protobuf.FloatValue x = 1;", "x: {}", f64, "0"},
		{"google.protobuf.FloatValue x = 1;", "", f32, "null"},
		{"google.protobuf.UInt64Value x = 1;", "x: {value: 5}", i64, "5"},
		{"google.protobuf.StringValue x = 1;", "x: {}", str, `""`},
		{"google.protobuf.BoolValue x = 1;", "x: {value: true}", boole, "true"},
		{"repeated float x = 1;", "x: [1, 2, 3]", vec3, "[1 2 3 ]"},
		{"repeated float x = 1;", "", vec3, "null"},
		{"repeated float x = 1;", "x: [1, 2]", vec3, "validation: x: 2 elements, want 3"},
		{"repeated float x = 1;", "x: [1, 2, 3, 4]", vec3, "validation: x: 4 elements, want 3"},
		{"repeated float x = 1 [packed = false];", "x: [1, 2, 3]", vec3, "[1 2 3 ]"},
		{"repeated double x = 1;", "x: [1, 2, 3]", vec3, "[1 2 3 ]"},
		{"repeated sint32 x = 1;", "x: [-1, 2, -3]", vec3, "[-1 2 -3 ]"},
		{"repeated uint64 x = 1;", "x: [1, 18446744073709551615, 3]", vec3, "[1 1.8446744e+19 3 ]"},
	} {
		t.Run(tt.field+" "+tt.value+" as "+tt.typ.String(), func(t *testing.T) {
			schema := one(tt.field)
			_, c := newRegistry(t, schema)
			f := newFormat(t, protobuf.Config{Registry: c, Columns: []codec.Column{{Name: "x", Type: tt.typ}}, Integers: "ms"})
			good := framed(1, encode(t, schema, tt.value))
			rows, got := decode(t, f, good, nil, good)
			if len(got.Faults) == 2 {
				if msg := got.Faults[0].Error(); !strings.HasPrefix(msg, tt.want) {
					t.Errorf("fault %q, want %q", msg, tt.want)
				}
				return
			}
			if len(rows) != 2 || rows[0][0] != tt.want || rows[1][0] != tt.want || fmt.Sprint(got.Origin) != "[0 2]" {
				t.Errorf("rows %v, origin %v, faults %v, want %s", rows, got.Origin, got.Faults, tt.want)
			}
		})
	}
}

func TestSchemaErrors(t *testing.T) {
	for _, tt := range []struct {
		field string
		typ   arrow.DataType
		want  string
	}{
		{"int64 x = 1;", i32, "have int64, want int32"},
		{"uint32 x = 1;", i32, "have int64, want int32"},
		{"float x = 1;", i64, "have float32, want int64"},
		{"string x = 1;", f64, "have utf8, want float64"},
		{"bool x = 1;", f32, "have bool, want float32"},
		{"int32 x = 1;", str, "have int32, want utf8"},
		{"E x = 1;", f32, "have utf8, want float32"},
		{"int64 x = 1;", timeIn(arrow.Second), "have int64, want timestamp"},
		{"google.protobuf.Timestamp x = 1;", i64, "have timestamp[us, tz=UTC], want int64"},
		{"google.protobuf.StringValue x = 1;", f32, "have utf8, want float32"},
		{"M x = 1;", f32, "have an unknown type, want float32"},
		{"repeated float x = 1;", f32, "have list<item: float32, nullable>, want float32"},
		{"repeated bool x = 1;", vec3, "have list<item: bool, nullable>, want fixed_size_list"},
		{"map<string, float> x = 1;", f32, "have an unknown type, want float32"},
	} {
		t.Run(tt.field+" as "+tt.typ.String(), func(t *testing.T) {
			_, c := newRegistry(t, one(tt.field))
			f := newFormat(t, protobuf.Config{Registry: c, Columns: []codec.Column{{Name: "x", Type: tt.typ}}})
			d := f.NewDecoder(memory.DefaultAllocator)
			defer d.Release()
			_, err := d.Decode(t.Context(), binaryOf(framed(1, nil)))
			var schema *codec.SchemaError
			if !errors.As(err, &schema) || schema.Column != "x" || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "schema 1") {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

const reader = `syntax = "proto3"; package shop; import "google/protobuf/timestamp.proto";
	message Pay { double amount = 1; string country = 2; Card card = 3; google.protobuf.Timestamp at = 4; repeated string tags = 5;
		optional int32 level = 6; oneof who { string name = 7; int64 number = 8; } Pay again = 9; }
	message Card { Brand brand = 1; optional int64 limit = 2; }
	enum Brand { NONE = 0; VISA = 1; }`

func TestEvolution(t *testing.T) {
	writers := []string{
		reader,
		// Renamed and reordered fields, unknown ones, and an enum with another name.
		`syntax = "proto3"; package old; message Other { int32 a = 1; }
			message Pay { Card kreditkarte = 3; repeated Other more = 77; float sum = 1; group_ g = 78; message group_ { int32 z = 1; } }
			message Card { enum Marke { NULL = 0; V = 1; AMEX = 2; } Marke marke = 1; }`,
	}
	r, c := newRegistry(t, writers...)
	r.Add("pay-value", registry.Schema{Type: registry.Protobuf, Text: reader})
	f := newFormat(t, protobuf.Config{Registry: c, Subject: "pay-value"})
	names := []string{}
	for _, f := range f.Schema().Fields() {
		names = append(names, f.Name+" "+f.Type.String())
	}
	const want = "amount float64, country utf8, card.brand utf8, card.limit int64, at timestamp[us, tz=UTC], level int32, name utf8, number int64"
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("columns %s, want %s", got, want)
	}
	second := encode(t, strings.Replace(writers[1], "message Other { int32 a = 1; }", "", 1)+" message Other { int32 a = 1; }",
		`kreditkarte: {marke: V} more: {a: 1} more: {} sum: 2.5 g: {z: 4}`)
	other := encode(t, strings.Replace(writers[1], "message Other { int32 a = 1; }", "", 1)+" message Other { int32 a = 1; }", `kreditkarte: {marke: AMEX}`)
	rows, got := decode(t, f,
		framed(1, encode(t, reader, `amount: 1.5 country: "FR" card: {brand: VISA} at: {seconds: 3} tags: "a" level: 0 name: "n"`)),
		framed(2, second, 2, 2), // message 1
		framed(2, other, 2, 2),
		framed(1, []byte{}),
		framed(2, []byte{}), // Other
	)
	if len(got.Faults) != 1 || got.Faults[0].Class != codec.Schema || !strings.Contains(got.Faults[0].Error(), "message old.Other, want shop.Pay") {
		t.Errorf("faults %v", got.Faults)
	}
	for i, want := range []string{
		`[1.5 "FR" "VISA" null 3000000 0 "n" null]`,
		`[2.5 null "VISA" null null null null null]`,
		`[0 null "AMEX" null null null null null]`,
		`[0 "" null null null null null null]`,
	} {
		if i >= len(rows) || fmt.Sprint(rows[i]) != want {
			t.Errorf("row %d: %s, want %s", i, rows, want)
		}
	}
}

func TestPaths(t *testing.T) {
	schema := one(`M m = 1; repeated M items = 2; map<string, M> named = 3; map<int32, double> byNumber = 4; repeated double values = 5; map<string, E> e = 6;
		map<bool, string> b = 2000;`)
	f := newFormat(t, protobuf.Config{Framing: protobuf.Bare, Schema: schema, Columns: []codec.Column{
		{Name: "m.v", Type: f32}, {Name: "deep", Path: "m.r.m.v", Type: f64}, {Name: "twice", Path: "m.v", Type: f64},
		{Name: "items.1.v", Type: f32}, {Name: "items.1.o", Type: i32}, {Name: "k", Path: "named.k.v", Type: f32},
		{Name: "n", Path: "byNumber.-3", Type: f64}, {Name: "v1", Path: "values.1", Type: f32}, {Name: "e", Path: "e.x", Type: str},
		{Name: "b", Path: "b.true", Type: str}}})
	rows, got := decode(t, f,
		encode(t, schema, `m: {v: 1 r: {m: {v: 2}}} items: {v: 3} items: {v: 4 o: 5} items: {v: 9} named: {key: "k" value: {v: 6}} named: {key: "j" value: {v: 7}}
			byNumber: {key: -3 value: 8} values: [1, 2, 3] e: {key: "x" value: TWO} b: {key: true value: "yes"}`),
		encode(t, schema, `m: {} items: {v: 3} items: {} named: {key: "k" value: {}} values: 7`),
		encode(t, schema, ``),
		// Messages merge, the last entry of a key counts, packed and unpacked values mix.
		append(append(encode(t, schema, `m: {v: 1} named: {key: "k" value: {v: 6}} values: 1`), encode(t, schema, `m: {o: 2} named: {key: "k" value: {o: 1}}`)...),
			0x29, 0, 0, 0, 0, 0, 0, 0, 0x40),
	)
	if len(got.Faults) > 0 {
		t.Fatal(got.Faults)
	}
	for i, want := range []string{
		`[1 2 1 4 5 6 8 2 "TWO" "yes"]`,
		`[0 null 0 0 null 0 null null null null]`,
		`[null null null null null null null null null null]`,
		`[1 null 1 null null 0 null 2 null null]`,
	} {
		if got := fmt.Sprint(rows[i]); got != want {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
	}
}

func TestOneof(t *testing.T) {
	schema := one(`oneof x { float a = 1; M m = 2; string s = 3; } float z = 4;`)
	f := newFormat(t, protobuf.Config{Framing: protobuf.Bare, Schema: schema, Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "m.v", Type: f32}, {Name: "z", Type: f32}}})
	join := func(values ...string) []byte {
		all := []byte{}
		for _, v := range values {
			all = append(all, encode(t, schema, v)...)
		}
		return all
	}
	rows, _ := decode(t, f, join("a: 1"), join("a: 1", "m: {}"), join("m: {v: 2}", "a: 1"), join("a: 1", `s: ""`), join("m: {v: 2}", "m: {o: 1}"), join("z: 2"))
	const want = "[[1 null 0] [null 0 0] [1 null 0] [null null 0] [null 2 0] [null null 2]]"
	if got := fmt.Sprint(rows); got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
}

func TestProto2(t *testing.T) {
	schema := `syntax = "proto2"; message R { optional int32 a = 1 [default = 5]; optional string s = 2 [default = "x"]; optional float f = 3;
		optional E e = 4 [default = B]; repeated float v = 5; optional group G = 6 { optional int32 q = 1; } required bool r = 7; extensions 100 to 200;
		optional bytes b = 8 [default = "\001"]; optional uint64 u = 9 [default = 18446744073709551615]; optional double d = 10 [default = inf]; }
		enum E { A = 1; B = 2; }`
	f := newFormat(t, protobuf.Config{Framing: protobuf.Bare, Schema: schema, Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "s", Type: str},
		{Name: "f", Type: f32}, {Name: "e", Type: str}, {Name: "v", Type: vec3}, {Name: "r", Type: boole}, {Name: "b", Type: bin}, {Name: "u", Type: f64}, {Name: "d", Type: f64}}})
	rows, got := decode(t, f, encode(t, schema, `a: 1 s: "y" f: 2 e: A v: [1, 2, 3] G { q: 1 } r: true b: "" u: 1 d: 1`), []byte{})
	if want := `[[1 "y" 2 "A" [1 2 3 ] true  1 1] [5 "x" null "B" null null 01 1.8446744073709552e+19 +Inf]]`; fmt.Sprint(rows) != want {
		t.Errorf("rows %s, want %s, faults %v", rows, want, got.Faults)
	}
	// A field that the writer does not have takes the default that the reader states.
	_, c := newRegistry(t, `syntax = "proto2"; message R { optional float f = 3; }`)
	f = newFormat(t, protobuf.Config{Registry: c, Schema: schema, Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "f", Type: f32}, {Name: "r", Type: boole}}})
	if rows, _ := decode(t, f, framed(1, []byte{})); fmt.Sprint(rows) != "[[5 null null]]" {
		t.Errorf("rows %s", rows)
	}
}

func TestFaults(t *testing.T) {
	schema := one(`string x = 1; M m = 2; optional float r = 3; repeated float v = 4; map<string, float> k = 5; google.protobuf.FloatValue w = 6; google.protobuf.Timestamp t = 7;`)
	r, c := newRegistry(t, schema, `message {`)
	avro := r.Add("avro", registry.Schema{Text: `"int"`})
	f := newFormat(t, protobuf.Config{Registry: c, Required: []string{"r"}, MaxBytes: 100, Columns: []codec.Column{{Name: "x", Type: str}, {Name: "m.v", Type: f32},
		{Name: "r", Type: f32}, {Name: "v", Type: vec3}, {Name: "k.a", Type: f32}, {Name: "w", Type: f32}, {Name: "t", Type: timeIn(arrow.Second)}}})
	good := encode(t, schema, `x: "abc" r: 1`)
	with := func(more ...byte) []byte { return framed(1, append(bytes.Clone(good), more...)) }
	for _, tt := range []struct {
		name    string
		message []byte
		class   codec.Class
		want    string
	}{
		{"empty", []byte{}, codec.Syntax, "no schema id"},
		{"json", []byte(`{"x":1}`), codec.Syntax, "no schema id"},
		{"no index", []byte{0, 0, 0, 0, 1}, codec.Syntax, "no index"},
		{"negative index", framed(1, good, 2, 1), codec.Syntax, "no index"},
		{"negative count", framed(1, good, 1), codec.Syntax, "no index"},
		{"huge count", framed(1, good, 0xff, 0xff, 0x7e), codec.Syntax, "no index"},
		{"no message", framed(1, good, 2, 40), codec.Schema, "has no message [20]"},
		{"poison schema", framed(2, nil), codec.Schema, "schema 2"},
		{"avro schema", framed(avro, nil), codec.Schema, "is a schema of AVRO"},
		{"cut", framed(1, good[:3]), codec.Syntax, "field 1: the bytes end"},
		{"no tag", with(0x80), codec.Syntax, "no field begins here"},
		{"field 0", with(0), codec.Syntax, "no field begins here"},
		{"wire type 6", with(0x0e), codec.Syntax, "are none of a field"},
		{"end of a group", with(0x0c), codec.Syntax, "are none of a field"},
		{"open group", with(0x7b), codec.Syntax, "are none of a field"},
		{"huge length", with(0x7a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), codec.Syntax, "are none of a field"},
		{"wire type", with(0x08, 1), codec.Invalid, "x at byte 17: wire type 0, want 2"},
		{"wire type of a message", with(0x10, 1), codec.Invalid, "m at byte 17: wire type 0, want 2"},
		{"inside", with(0x12, 2, 0x0d, 0), codec.Syntax, "field 1: the bytes end"},
		{"packed", with(0x22, 3, 0, 0, 0), codec.Syntax, "v at byte 18: the bytes end within an element"},
		{"list of another type", with(0x20, 3), codec.Invalid, "v at byte 17: wire type 0, want 5"},
		{"entry", with(0x2a, 1, 0xff), codec.Syntax, "an entry that is no message"},
		{"entry's value", with(0x2a, 5, 0x0a, 1, 'a', 0x10, 1), codec.Invalid, "k.a at byte 22: wire type 0, want 5"},
		{"wrapper", with(0x32, 1, 0xff), codec.Syntax, "field"},
		{"wrapper's value", with(0x32, 2, 0x08, 1), codec.Invalid, "w at byte 19: wire type 0, want 5"},
		{"timestamp", with(0x3a, 1, 0xff), codec.Syntax, "a timestamp that is no message"},
		{"UTF-8", with(0x0a, 1, 0xff), codec.Syntax, "x at byte 18: a text that is not UTF-8"},
		{"large", with(bytes.Repeat([]byte{0x58, 1}, 50)...), codec.Size, "more than 100"},
		{"missing", framed(1, []byte{}), codec.Invalid, "r: missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, got := decode(t, f, framed(1, good), tt.message, framed(1, good))
			if len(got.Faults) != 1 || got.Faults[0].Class != tt.class || got.Faults[0].Value != 1 || !strings.Contains(got.Faults[0].Error(), tt.want) {
				t.Errorf("faults %v, want %s %s", got.Faults, tt.class, tt.want)
			}
			const want = `["abc" null 1 null null null null]`
			if fmt.Sprint(rows, got.Origin) != "["+want+" "+want+"] [0 2]" {
				t.Errorf("rows %v, origin %v", rows, got.Origin)
			}
		})
	}
}

// TestUnknownThenKnown is F19: no message becomes poison while the registry is
// away, or while a schema may still come.
func TestUnknownThenKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := newRegistry(t, one("float x = 1;"))
		f := newFormat(t, protobuf.Config{Registry: c, Columns: []codec.Column{{Name: "x", Type: f32}}})
		r.Refuse(-1, 0, "")
		r.Hide(1, true)
		time.AfterFunc(time.Hour, func() { r.Refuse(0, 0, "") })
		time.AfterFunc(time.Hour+4*time.Second, func() { r.Hide(1, false) })
		message := framed(1, []byte{0x0d, 0, 0, 0, 0x40})
		rows, got := decode(t, f, message, framed(9, nil), message)
		if fmt.Sprint(rows) != "[[2] [2]]" || len(got.Faults) != 1 || got.Faults[0].Class != codec.Schema {
			t.Errorf("rows %v, faults %v", rows, got.Faults)
		}
	})
}

func TestParallel(t *testing.T) {
	schemas := []string{}
	for i := range 8 {
		schemas = append(schemas, one(fmt.Sprintf("string a%d = 2; int32 x = 1;", i)))
	}
	_, c := newRegistry(t, schemas...)
	f := newFormat(t, protobuf.Config{Registry: c, Columns: []codec.Column{{Name: "x", Type: f32}}})
	values := [][]byte{}
	for i := range 8000 {
		values = append(values, framed(int32(1+i%8), []byte{0x12, 1, 'a', 8, 3}))
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			rows, got := decode(t, f, values...)
			if len(got.Faults) > 0 || len(rows) != len(values) || rows[7999][0] != "3" {
				t.Errorf("%d rows, faults %v", len(rows), got.Faults)
			}
		})
	}
	all.Wait()
}

func TestDescriptorSet(t *testing.T) {
	m := describe(t, one("float x = 1;"))
	set := &descriptorpb.FileDescriptorSet{}
	for i := range m.ParentFile().Imports().Len() {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(m.ParentFile().Imports().Get(i)))
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(m.ParentFile()))
	data, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte{0x0d, 0, 0, 0, 0x40}
	for name, want := range map[string]string{"": "[[2]]", "p.R": "[[2]]", "p.M": "[[2 null null]]"} {
		f := newFormat(t, protobuf.Config{Framing: protobuf.Bare, Descriptors: data, Message: name})
		if rows, got := decode(t, f, message); fmt.Sprint(rows) != want {
			t.Errorf("message %q: rows %v, faults %v, want %s", name, rows, got.Faults, want)
		}
	}
	for name, want := range map[string]string{"p.X": "there is no message p.X", "p.E": "p.E is no message"} {
		if _, err := protobuf.New(t.Context(), protobuf.Config{Framing: protobuf.Bare, Descriptors: data, Message: name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("message %q: error %v", name, err)
		}
	}
	for _, bad := range [][]byte{{}, []byte("text"), {0x0a, 0}} {
		if _, err := protobuf.New(t.Context(), protobuf.Config{Framing: protobuf.Bare, Descriptors: bad}); err == nil {
			t.Errorf("descriptors %x: no error", bad)
		}
	}
}

func TestImports(t *testing.T) {
	r, c := newRegistry(t)
	r.Add("base", registry.Schema{Type: registry.Protobuf, Text: `syntax = "proto3"; package b; message B { float v = 1; }`})
	top := `syntax = "proto3"; import "dir/b.proto"; import "confluent/meta.proto"; import "confluent/type/decimal.proto";
		message R { b.B b = 1 [(confluent.field_meta) = {doc: "x"}]; confluent.type.Decimal d = 2; }`
	id := r.Add("top", registry.Schema{Type: registry.Protobuf, Text: top, References: []registry.Reference{{Name: "dir/b.proto", Subject: "base", Version: 1}}})
	f := newFormat(t, protobuf.Config{Registry: c, Columns: []codec.Column{{Name: "b.v", Type: f32}}})
	message := []byte{0x0a, 5, 0x0d, 0, 0, 0, 0x40}
	if rows, got := decode(t, f, framed(id, message)); fmt.Sprint(rows) != "[[2]]" {
		t.Errorf("rows %v, faults %v", rows, got.Faults)
	}
	f = newFormat(t, protobuf.Config{Framing: protobuf.Bare, Schema: top, Imports: map[string]string{"dir/b.proto": `syntax = "proto3"; package b; message B { float v = 1; }`}})
	if rows, got := decode(t, f, message); fmt.Sprint(rows[0][0]) != "2" {
		t.Errorf("rows %v, faults %v", rows, got.Faults)
	}
}

func TestAllocations(t *testing.T) {
	f := newFormat(t, protobuf.Config{Framing: protobuf.Bare, Schema: benchSchema})
	all := benchValues(t, false)
	d := f.NewDecoder(memory.NewGoAllocator())
	allocations := func(n int) float64 {
		in := array.NewSlice(all, 0, int64(n)).(*array.Binary)
		return testing.AllocsPerRun(5, func() {
			got, err := d.Decode(t.Context(), in)
			if err != nil || len(got.Faults) > 0 {
				t.Fatal(err, got.Faults)
			}
			got.Record.Release()
		})
	}
	if few, many := allocations(2000), allocations(4000); many > few+8 {
		t.Errorf("%v allocations for 2,000 rows and %v for 4,000", few, many)
	}
}

func TestConfig(t *testing.T) {
	_, c := newRegistry(t, one("int32 x = 1;"))
	column := []codec.Column{{Name: "x", Type: f32}}
	for name, tt := range map[string]struct {
		c    protobuf.Config
		want string
	}{
		"nothing":          {protobuf.Config{}, "columns: must be set"},
		"no registry":      {protobuf.Config{Columns: column}, "registry: must be set"},
		"bare":             {protobuf.Config{Columns: column, Framing: protobuf.Bare}, "schema: must be set"},
		"framing":          {protobuf.Config{Columns: column, Framing: "x"}, "framing: \"x\""},
		"schema, subject":  {protobuf.Config{Registry: c, Schema: "x", Subject: "y"}, "more than one"},
		"bad schema":       {protobuf.Config{Registry: c, Schema: "{"}, "reader's schema"},
		"no message":       {protobuf.Config{Registry: c, Schema: `syntax = "proto3";`}, "has no message"},
		"unknown message":  {protobuf.Config{Registry: c, Schema: one(""), Message: "p.Q"}, "there is no message Q"},
		"message alone":    {protobuf.Config{Registry: c, Columns: column, Message: "p.Q"}, "message: needs the schema"},
		"twice":            {protobuf.Config{Registry: c, Columns: append(column, column...)}, "comes twice"},
		"no name":          {protobuf.Config{Registry: c, Columns: []codec.Column{{Type: f32}}}, "has no name"},
		"type":             {protobuf.Config{Registry: c, Columns: []codec.Column{{Name: "a", Type: arrow.PrimitiveTypes.Int8}}}, "is not read as int8"},
		"empty step":       {protobuf.Config{Registry: c, Columns: []codec.Column{{Name: "a", Path: "a..b", Type: f32}}}, "empty step"},
		"not there":        {protobuf.Config{Registry: c, Schema: one("int32 x = 1;"), Columns: []codec.Column{{Name: "y", Type: f32}}}, `the reader's schema has no "y"`},
		"no index":         {protobuf.Config{Registry: c, Schema: one("repeated int32 x = 1;"), Columns: []codec.Column{{Name: "x.a", Type: f32}}}, `"x.a" is no index`},
		"required":         {protobuf.Config{Registry: c, Columns: column, Required: []string{"y"}}, `there is no column "y"`},
		"integers":         {protobuf.Config{Registry: c, Columns: column, Integers: "h"}, "integers"},
		"no leaf":          {protobuf.Config{Registry: c, Schema: one("repeated int32 x = 1;")}, "has no leaf"},
		"bare, not bound":  {protobuf.Config{Framing: protobuf.Bare, Schema: one("string x = 1;"), Columns: column}, "have utf8, want float32"},
		"negative size":    {protobuf.Config{Registry: c, Columns: column, MaxBytes: -1}, "max bytes"},
		"subject, offline": {protobuf.Config{Columns: column, Subject: "s"}, "subject: needs a registry"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := protobuf.New(t.Context(), tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	// A column that the writer lacks and a message needs ends the run.
	f := newFormat(t, protobuf.Config{Registry: c, Columns: []codec.Column{{Name: "y", Type: f32}}, Required: []string{"y"}})
	var schema *codec.SchemaError
	if _, err := f.NewDecoder(memory.DefaultAllocator).Decode(t.Context(), binaryOf(framed(1, nil))); !errors.As(err, &schema) {
		t.Errorf("error %v", err)
	}
}

// TestConfluentBytes has what confluent-kafka 2.16.1 for Python registered and wrote:
// its schema is a descriptor in base64.
func TestConfluentBytes(t *testing.T) {
	_, c := newRegistry(t, "Cgd0LnByb3RvEgFwIjIKAUESCQoBdhgBIAEoAhoiCgJJbhIJCgF5GAEgASgCGhEKBERlZXASCQoBeBgBIAEoAiIOCgFCEgkKAXoYASABKAJiBnByb3RvMw==")
	f := newFormat(t, protobuf.Config{Registry: c, Columns: []codec.Column{{Name: "v", Type: f32}, {Name: "y", Type: f32}, {Name: "x", Type: f32}, {Name: "z", Type: f32}}})
	var values [][]byte
	for _, m := range []string{ // p.A, p.A.In, p.A.In.Deep, p.B
		"0000000001000d00000040", "00000000010400000d00000040", "0000000001060000000d00000040", "000000000102020d00000040",
	} {
		b, err := hex.DecodeString(m)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, b)
	}
	const want = "[[2 null null null] [null 2 null null] [null null 2 null] [null null null 2]]"
	if rows, got := decode(t, f, values...); fmt.Sprint(rows) != want {
		t.Errorf("rows %v, want %s, faults %v", rows, want, got.Faults)
	}
}
