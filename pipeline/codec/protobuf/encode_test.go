package protobuf_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/elbo-stream/elbo/pipeline/codec/protobuf"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
	"github.com/elbo-stream/elbo/pipeline/codec/registry/registrytest"
)

func newEncoder(t testing.TB, c protobuf.EncoderConfig, schema *arrow.Schema) *protobuf.Encoder {
	t.Helper()
	e, err := protobuf.NewEncoder(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Bind(schema); err != nil {
		t.Fatal(err)
	}
	return e
}

// recordOf makes a record from rows in JSON.
func recordOf(t testing.TB, schema *arrow.Schema, rows string) arrow.Record {
	t.Helper()
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(rows))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// messages encodes every row, each with its own call.
func messages(t testing.TB, e *protobuf.Encoder, rec arrow.Record) [][]byte {
	t.Helper()
	if err := e.Reset(rec); err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for i := range int(rec.NumRows()) {
		b, err := e.Append([]byte{}, i, i+1)
		if err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
		all = append(all, b)
	}
	return all
}

var top = arrow.ListOf(arrow.StructOf(
	arrow.Field{Name: "column", Type: str, Nullable: true},
	arrow.Field{Name: "contribution", Type: f32},
	arrow.Field{Name: "value", Type: f64, Nullable: true},
	arrow.Field{Name: "expected", Type: f64, Nullable: true}))

// scored is a schema with one column of each type that is written.
var scored = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: str}, {Name: "9 é", Type: i32, Nullable: true},
	{Name: "i8", Type: arrow.PrimitiveTypes.Int8}, {Name: "u16", Type: arrow.PrimitiveTypes.Uint16}, {Name: "u32", Type: arrow.PrimitiveTypes.Uint32, Nullable: true},
	{Name: "u64", Type: arrow.PrimitiveTypes.Uint64}, {Name: "i64", Type: i64, Nullable: true}, {Name: "b", Type: boole, Nullable: true},
	{Name: "f32", Type: f32, Nullable: true}, {Name: "f64", Type: f64}, {Name: "bin", Type: bin, Nullable: true},
	{Name: "fix", Type: &arrow.FixedSizeBinaryType{ByteWidth: 3}, Nullable: true},
	{Name: "s", Type: &arrow.TimestampType{Unit: arrow.Second}}, {Name: "ms", Type: timeIn(arrow.Millisecond), Nullable: true},
	{Name: "us", Type: timeIn(arrow.Microsecond)}, {Name: "ns", Type: timeIn(arrow.Nanosecond)}, {Name: "day", Type: arrow.FixedWidthTypes.Date32, Nullable: true},
	{Name: "vec", Type: vec3, Nullable: true}, {Name: "words", Type: arrow.ListOf(str)},
	{Name: "elbo_model", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: str}, Nullable: true},
	{Name: "elbo_top", Type: top, Nullable: true}, {Name: "m", Type: arrow.MapOf(str, i32), Nullable: true},
	{Name: "ElboTop", Type: arrow.StructOf(arrow.Field{Name: "x", Type: f32}), Nullable: true},
}, nil)

const scoredRows = `[
	{"id": "aé", "9 é": -7, "i8": -128, "u16": 65535, "u32": 4294967295, "u64": 4503599627370496, "i64": -9223372036854775808, "b": true,
	 "f32": 0.1, "f64": -0.1, "bin": "AQI=", "fix": "AQID", "s": "1970-01-01T00:00:02", "ms": "1969-12-31T23:59:59.003", "us": "1970-01-01T00:00:00.000004",
	 "ns": "1970-01-01T00:00:00.000000005", "day": "1969-12-31", "vec": [1, null, 3], "words": ["x", ""], "elbo_model": "m@1",
	 "elbo_top": [{"column": "c", "contribution": 0.5, "value": 1, "expected": null}, {"column": null, "contribution": 1, "value": null, "expected": 2}],
	 "m": [{"key": "k", "value": 5}, {"key": "l", "value": 0}], "ElboTop": {"x": 4}},
	{"id": "", "9 é": null, "i8": 127, "u16": 0, "u32": null, "u64": 0, "i64": null, "b": null, "f32": null, "f64": 0, "bin": null, "fix": null,
	 "s": "1969-12-31T23:59:59", "ms": null, "us": "1970-01-01T00:00:00", "ns": "1970-01-01T00:00:00", "day": null, "vec": null, "words": [], "elbo_model": null, "elbo_top": null, "m": null, "ElboTop": null}]`

const scoredSchema = `syntax = "proto3";

package elbo;

import "google/protobuf/timestamp.proto";

message Row {
  string id = 1;
  optional int32 x9___ = 2;
  int32 i8 = 3;
  uint32 u16 = 4;
  optional uint32 u32 = 5;
  uint64 u64 = 6;
  optional int64 i64 = 7;
  optional bool b = 8;
  optional float f32 = 9;
  double f64 = 10;
  optional bytes bin = 11;
  optional bytes fix = 12;
  google.protobuf.Timestamp s = 13;
  google.protobuf.Timestamp ms = 14;
  google.protobuf.Timestamp us = 15;
  google.protobuf.Timestamp ns = 16;
  optional int32 day = 17;
  repeated float vec = 18;
  repeated string words = 19;
  optional string elbo_model = 20;
  repeated ElboTop_ elbo_top = 21;
  map<string, int32> m = 22;
  ElboTop__ ElboTop = 23;
  message ElboTop_ {
    optional string column = 1;
    float contribution = 2;
    optional double value = 3;
    optional double expected = 4;
  }
  message ElboTop__ {
    float x = 1;
  }
}
`

func TestEncode(t *testing.T) {
	rec := recordOf(t, scored, scoredRows)
	e := newEncoder(t, protobuf.EncoderConfig{}, scored)
	if e.Schema() != scoredSchema {
		t.Errorf("schema\n%s\nwant\n%s", e.Schema(), scoredSchema)
	}
	d := describe(t, e.Schema())
	for i, text := range []string{
		`id: "aé" x9___: -7 i8: -128 u16: 65535 u32: 4294967295 u64: 4503599627370496 i64: -9223372036854775808 b: true f32: 0.1 f64: -0.1 bin: "\001\002" fix: "\001\002\003"
			s: {seconds: 2} ms: {seconds: -1 nanos: 3000000} us: {nanos: 4000} ns: {nanos: 5} day: -1 vec: [1, nan, 3] words: ["x", ""] elbo_model: "m@1"
			elbo_top: {column: "c" contribution: 0.5 value: 1} elbo_top: {contribution: 1 expected: 2} m: {key: "k" value: 5} m: {key: "l" value: 0} ElboTop: {x: 4}`,
		`i8: 127 s: {seconds: -1} us: {} ns: {}`,
	} {
		want, got := dynamicpb.NewMessage(d), dynamicpb.NewMessage(d)
		if err := prototext.Unmarshal([]byte(text), want); err != nil {
			t.Fatal(err)
		}
		m := messages(t, e, rec)[i]
		if err := proto.Unmarshal(m, got); err != nil {
			t.Fatalf("%x: %v", m, err)
		}
		if !proto.Equal(got, want) {
			t.Errorf("row %d: %v, want %v", i, got, want)
		}
	}
	part := rec.NewSlice(1, 2)
	if got, want := messages(t, e, part)[0], messages(t, e, rec)[1]; !bytes.Equal(got, want) {
		t.Errorf("row 1 of a slice: %x, want %x", got, want)
	}
}

// TestEncodeAgainstPython lets Python read what is written, and write what the
// decoder reads.
func TestEncodeAgainstPython(t *testing.T) {
	python := os.Getenv("ELBO_PYTHON")
	if python == "" {
		t.Skip("SKIPPED: Python's protobuf did not read our messages: set ELBO_PYTHON to an interpreter that has it")
	}
	if exec.Command(python, "-c", "import google.protobuf").Run() != nil {
		t.Skipf("SKIPPED: Python's protobuf did not read our messages: %s has no protobuf", python)
	}
	e := newEncoder(t, protobuf.EncoderConfig{}, scored)
	d := describe(t, e.Schema())
	set := &descriptorpb.FileDescriptorSet{}
	for i := range d.ParentFile().Imports().Len() {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(d.ParentFile().Imports().Get(i)))
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(d.ParentFile()))
	in := struct {
		Message  string
		Set      []byte
		Messages [][]byte
	}{"elbo.Row", marshal(t, set), messages(t, e, recordOf(t, scored, scoredRows))}
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "testdata/protobuf_oracle.py")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(data), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Rows, Again []string }
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	want := []string{
		`{"id": "aé", "x9___": -7, "i8": -128, "u16": 65535, "u32": 4294967295, "u64": "4503599627370496", "i64": "-9223372036854775808", "b": true, "f32": 0.1, "f64": -0.1, "bin": "AQI=", "fix": "AQID",` +
			` "s": "1970-01-01T00:00:02Z", "ms": "1969-12-31T23:59:59.003Z", "us": "1970-01-01T00:00:00.000004Z", "ns": "1970-01-01T00:00:00.000000005Z", "day": -1, "vec": [1.0, "NaN", 3.0], "words": ["x", ""], "elbo_model": "m@1",` +
			` "elbo_top": [{"column": "c", "contribution": 0.5, "value": 1.0}, {"contribution": 1.0, "expected": 2.0}], "m": {"k": 5, "l": 0}, "ElboTop": {"x": 4.0}}`,
		`{"i8": 127, "s": "1969-12-31T23:59:59Z", "us": "1970-01-01T00:00:00Z", "ns": "1970-01-01T00:00:00Z"}`,
	}
	for i := range want {
		var a, b any
		if err := errors.Join(json.Unmarshal([]byte(got.Rows[i]), &a), json.Unmarshal([]byte(want[i]), &b)); err != nil {
			t.Fatal(err)
		}
		if !cmp.Equal(a, b) {
			t.Errorf("row %d: %s", i, cmp.Diff(b, a))
		}
	}
	f := newFormat(t, protobuf.Config{Framing: protobuf.Bare, Schema: e.Schema()})
	var again [][]byte
	for _, s := range got.Again {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		again = append(again, b)
	}
	ours, _ := decode(t, f, in.Messages...)
	theirs, faults := decode(t, f, again...)
	if fmt.Sprint(ours) != fmt.Sprint(theirs) || len(ours) != 2 {
		t.Errorf("rows\n%v, and as Python writes them\n%v, faults %v", ours, theirs, faults.Faults)
	}
}

func field(name string, t arrow.DataType) arrow.Field {
	return arrow.Field{Name: name, Type: t, Nullable: true}
}

func schemaOf(fields ...arrow.Field) *arrow.Schema { return arrow.NewSchema(fields, nil) }

func TestEncoderKeepsNumbers(t *testing.T) {
	r := registrytest.New()
	c, err := registry.New(registry.Config{URLs: []string{"http://registry"}, Transport: r})
	if err != nil {
		t.Fatal(err)
	}
	point := func(names ...string) arrow.DataType {
		fields := []arrow.Field{}
		for _, n := range names {
			fields = append(fields, field(n, f64))
		}
		return arrow.StructOf(fields...)
	}
	config := protobuf.EncoderConfig{Registry: c, Subject: "out-value"}
	body := func(e *protobuf.Encoder) string {
		_, text, _ := strings.Cut(e.Schema(), "message Row {\n")
		return strings.Join(strings.Fields(text), " ")
	}
	for i, step := range []struct {
		schema *arrow.Schema
		id     int32
		want   string
	}{
		{schemaOf(field("a", f32), field("b", str), field("p", point("x", "y"))), 1,
			"optional float a = 1; optional string b = 2; P p = 3; message P { optional double x = 1; optional double y = 2; } }"},
		{schemaOf(field("b", str), field("a", f32)), 1, // has all it needs
			"optional float a = 1; optional string b = 2; P p = 3; message P { optional double x = 1; optional double y = 2; } }"},
		{schemaOf(field("new", f64), field("b", str), field("p", point("z", "y"))), 2,
			"reserved 1; optional double new = 4; optional string b = 2; P p = 3; message P { reserved 1; optional double z = 3; optional double y = 2; } }"},
		{schemaOf(field("a", f32), field("b", f64), field("new", f64)), 3,
			"reserved 1; reserved 2; reserved 3; optional float a = 5; optional double b = 6; optional double new = 4; }"},
		{schemaOf(field("new", f64)), 3,
			"reserved 1; reserved 2; reserved 3; optional float a = 5; optional double b = 6; optional double new = 4; }"},
	} {
		e := newEncoder(t, config, step.schema)
		if id, ok := e.SchemaID(); id != step.id || !ok || body(e) != step.want {
			t.Errorf("step %d: id %d, %s, want %d, %s", i, id, body(e), step.id, step.want)
		}
		describe(t, e.Schema()) // which compiles it
	}
	if n := r.Asked("POST /subjects/out-value/versions"); n != 3 {
		t.Errorf("registered %d times, want 3", n)
	}
}

func TestEncoderRegisters(t *testing.T) {
	r := registrytest.New()
	c, err := registry.New(registry.Config{URLs: []string{"http://registry"}, Transport: r})
	if err != nil {
		t.Fatal(err)
	}
	schema := schemaOf(field("x", f32))
	rec := recordOf(t, schema, `[{"x": 2}]`)
	for range 3 {
		e := newEncoder(t, protobuf.EncoderConfig{Registry: c, Subject: "out-value"}, schema)
		if m := messages(t, e, rec)[0]; !bytes.Equal(m, []byte{0, 0, 0, 0, 1, 0, 0x0d, 0, 0, 0, 0x40}) {
			t.Errorf("message %x", m)
		}
	}
	// Somebody's own schema: the message stands within the second one.
	own := r.Add("own-value", registry.Schema{Type: registry.Protobuf, Text: `syntax = "proto3"; package elbo; message A { int32 q = 1; } message B { message Row { optional float x = 9; string more = 1; } }`})
	e := newEncoder(t, protobuf.EncoderConfig{Registry: c, Subject: "own-value", Name: "elbo.B.Row", Find: true}, schema)
	m := messages(t, e, rec)[0]
	if !bytes.Equal(m, []byte{0, 0, 0, 0, byte(own), 4, 2, 0, 0x4d, 0, 0, 0, 0x40}) {
		t.Errorf("message %x", m)
	}
	f := newFormat(t, protobuf.Config{Registry: c, Subject: "own-value", Message: "B.Row"})
	if rows, got := decode(t, f, m); fmt.Sprint(rows) != `[[2 ""]]` {
		t.Errorf("rows %v, faults %v", rows, got.Faults)
	}
	for name, tt := range map[string]struct {
		c    protobuf.EncoderConfig
		want string
	}{
		"nothing there": {protobuf.EncoderConfig{Registry: c, Subject: "none", Find: true}, "has no such schema"},
		"does not fit":  {protobuf.EncoderConfig{Registry: c, Subject: "own-value", Find: true}, "message elbo.A has no field that fits x"},
		"not ours":      {protobuf.EncoderConfig{Registry: c, Subject: "own-value"}, "message elbo.A is not ours"},
	} {
		e, err := protobuf.NewEncoder(tt.c)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Bind(schema); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		r := registrytest.New()
		r.Refuse(-1, 0, "")
		c, err := registry.New(registry.Config{URLs: []string{"http://registry"}, Transport: r})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		e, err := protobuf.NewEncoder(protobuf.EncoderConfig{Registry: c, Subject: "s", Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Bind(schema); err == nil || errors.Is(err, registry.ErrUnknownSchema) || time.Since(begin) != time.Minute {
			t.Errorf("error %v after %v", err, time.Since(begin))
		}
	})
}

func TestEncodeFaults(t *testing.T) {
	duration := arrow.FixedWidthTypes.Duration_ms
	for name, tt := range map[string]struct {
		c    protobuf.EncoderConfig
		typ  arrow.DataType
		want string
	}{
		"no column":     {protobuf.EncoderConfig{Columns: []string{"y"}}, f32, `column "y": there is none`},
		"twice":         {protobuf.EncoderConfig{Columns: []string{"x", "x"}}, f32, "comes twice"},
		"type":          {protobuf.EncoderConfig{}, duration, "duration[ms] is not written as Protobuf"},
		"null":          {protobuf.EncoderConfig{}, arrow.Null, "null is not written as Protobuf"},
		"list of lists": {protobuf.EncoderConfig{}, arrow.ListOf(arrow.ListOf(f32)), "is not written as Protobuf"},
		"struct":        {protobuf.EncoderConfig{}, arrow.StructOf(arrow.Field{Name: "q", Type: duration}), `column "q": duration`},
		"keys":          {protobuf.EncoderConfig{}, arrow.MapOf(f32, i32), "keys are float32"},
		"name":          {protobuf.EncoderConfig{Name: "a.1"}, f32, `name: "a.1"`},
		"JSON's names":  {protobuf.EncoderConfig{}, arrow.StructOf(arrow.Field{Name: "a_b", Type: f32}, arrow.Field{Name: "aB", Type: f32}), `columns "a_b" and "aB" would have the same name`},
		"names collide": {protobuf.EncoderConfig{}, arrow.StructOf(arrow.Field{Name: "a.b", Type: f32}, arrow.Field{Name: "a-b", Type: f32}), `columns "a.b" and "a-b" would have the same name`},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := protobuf.NewEncoder(tt.c)
			if err == nil {
				err = e.Bind(arrow.NewSchema([]arrow.Field{{Name: "x", Type: tt.typ}}, nil))
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		field arrow.Field
		rows  string
		want  string
	}{
		{arrow.Field{Type: f32}, `[{"x": null}]`, "x: is null"},
		{arrow.Field{Type: arrow.ListOf(f32)}, `[{"x": null}]`, "x: is null"},
		{arrow.Field{Type: arrow.ListOf(str)}, `[{"x": ["a", null]}]`, "x: element 1 is null"},
		{arrow.Field{Type: arrow.MapOf(str, i32)}, `[{"x": [{"key": "a", "value": null}]}]`, "x: value 0 is null"},
		{arrow.Field{Type: timeIn(arrow.Second)}, `[{"x": 253402300800}]`, "x: second 253402300800"},
	} {
		tt.field.Name = "x"
		schema := arrow.NewSchema([]arrow.Field{tt.field}, nil)
		e := newEncoder(t, protobuf.EncoderConfig{}, schema)
		if err := e.Reset(recordOf(t, schema, tt.rows)); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Append(nil, 0, 1); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
}

// TestEncodeLongMessages has messages within others of every size of length.
func TestEncodeLongMessages(t *testing.T) {
	schema := schemaOf(field("p", arrow.StructOf(field("s", str))), field("v", arrow.ListOf(f64)))
	e := newEncoder(t, protobuf.EncoderConfig{}, schema)
	d := describe(t, e.Schema())
	for _, n := range []int{0, 1, 100, 123, 124, 125, 126, 127, 128, 129, 16380, 16384, 1 << 21} {
		rec := recordOf(t, schema, fmt.Sprintf(`[{"p": {"s": %q}, "v": [%s1]}]`, strings.Repeat("x", n), strings.Repeat("1,", n/8)))
		got := dynamicpb.NewMessage(d)
		if err := proto.Unmarshal(messages(t, e, rec)[0], got); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		p := got.Get(d.Fields().ByName("p")).Message()
		if s := p.Get(p.Descriptor().Fields().ByName("s")).String(); len(s) != n {
			t.Errorf("%d bytes, want %d", len(s), n)
		}
		if l := got.Get(d.Fields().ByName("v")).List().Len(); l != n/8+1 {
			t.Errorf("%d elements, want %d", l, n/8+1)
		}
	}
}

// benchRecord has rows as score makes them.
func benchRecord(t testing.TB) (*arrow.Schema, arrow.Record) {
	fields := []arrow.Field{{Name: "id", Type: str, Nullable: true}, {Name: "elbo_score", Type: f32}, {Name: "elbo_anomaly", Type: boole, Nullable: true}, {Name: "elbo_top", Type: top, Nullable: true}}
	for i := range 32 {
		fields = append(fields, arrow.Field{Name: fmt.Sprint("f", i), Type: f32, Nullable: true})
	}
	schema := arrow.NewSchema(fields, nil)
	rows := []map[string]any{}
	for i := range 1000 {
		row := map[string]any{"id": fmt.Sprint("sensor-", i), "elbo_score": math.Sqrt(float64(i)), "elbo_anomaly": i%2 == 0,
			"elbo_top": []map[string]any{{"column": "f1", "contribution": 1, "value": 2, "expected": 3}, {"column": "f2", "contribution": 1, "value": nil, "expected": 3}}}
		for f := range 32 {
			row[fmt.Sprint("f", f)] = float32(i*f) / 7
		}
		rows = append(rows, row)
	}
	data, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	return schema, recordOf(t, schema, string(data))
}

func TestEncodeAllocations(t *testing.T) {
	schema, rec := benchRecord(t)
	e := newEncoder(t, protobuf.EncoderConfig{SchemaID: 1}, schema)
	buf := make([]byte, 0, 4096)
	n := testing.AllocsPerRun(5, func() {
		if err := e.Reset(rec); err != nil {
			t.Fatal(err)
		}
		for i := range int(rec.NumRows()) {
			if _, err := e.Append(buf, i, i+1); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n > 10 {
		t.Errorf("%v allocations for %d rows", n, rec.NumRows())
	}
}

func BenchmarkEncode(b *testing.B) {
	schema, rec := benchRecord(b)
	e := newEncoder(b, protobuf.EncoderConfig{SchemaID: 1}, schema)
	buf := make([]byte, 0, 4096)
	rate(b, int(rec.NumRows()), func() {
		if err := e.Reset(rec); err != nil {
			b.Fatal(err)
		}
		for i := range int(rec.NumRows()) {
			if _, err := e.Append(buf, i, i+1); err != nil {
				b.Fatal(err)
			}
		}
	})
}
