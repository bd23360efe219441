package avro_test

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
	twmb "github.com/twmb/avro"

	"github.com/elbo-stream/elbo/pipeline/codec/avro"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
	"github.com/elbo-stream/elbo/pipeline/codec/registry/registrytest"
)

func newEncoder(t testing.TB, c avro.EncoderConfig, schema *arrow.Schema) *avro.Encoder {
	t.Helper()
	e, err := avro.NewEncoder(c)
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
func messages(t testing.TB, e *avro.Encoder, rec arrow.Record) [][]byte {
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
	{Name: "elbo_top", Type: top, Nullable: true}, {Name: "m", Type: arrow.MapOf(str, i32), Nullable: true}, {Name: "nothing", Type: arrow.Null, Nullable: true},
}, nil)

const scoredRows = `[
	{"id": "aé", "9 é": -7, "i8": -128, "u16": 65535, "u32": 4294967295, "u64": 4503599627370496, "i64": -9223372036854775808, "b": true,
	 "f32": 0.1, "f64": -0.1, "bin": "AQI=", "fix": "AQID", "s": "1970-01-01T00:00:02", "ms": "1970-01-01T00:00:00.003", "us": "1970-01-01T00:00:00.000004",
	 "ns": "1970-01-01T00:00:00.000000005", "day": "1969-12-31", "vec": [1, null, 3], "words": ["x", ""], "elbo_model": "m@1",
	 "elbo_top": [{"column": "c", "contribution": 0.5, "value": 1, "expected": null}, {"column": null, "contribution": 1, "value": null, "expected": 2}],
	 "m": [{"key": "k", "value": 5}, {"key": "l", "value": null}]},
	{"id": "", "9 é": null, "i8": 127, "u16": 0, "u32": null, "u64": 0, "i64": null, "b": null, "f32": null, "f64": 0, "bin": null, "fix": null,
	 "s": "1969-12-31T23:59:59", "ms": null, "us": "1970-01-01T00:00:00", "ns": "1970-01-01T00:00:00", "day": null, "vec": null, "words": [], "elbo_model": null, "elbo_top": null, "m": null},
	{"id": "z", "9 é": 0, "i8": 0, "u16": 0, "u32": 0, "u64": 0, "i64": 0, "b": false, "f32": 0, "f64": 0, "bin": "", "fix": "AAAA",
	 "s": "1970-01-01T00:00:00", "ms": "1970-01-01T00:00:00", "us": "1970-01-01T00:00:00", "ns": "1970-01-01T00:00:00", "day": "1970-01-01", "vec": [0, 0, 0], "words": [], "elbo_model": "m@1", "elbo_top": [], "m": []}]`

const scoredSchema = `{"type":"record","name":"elbo.Row","fields":[{"name":"id","type":"string"},` +
	`{"name":"_9___","type":["null","int"],"doc":"9 é","default":null},{"name":"i8","type":"int"},{"name":"u16","type":"int"},` +
	`{"name":"u32","type":["null","long"],"default":null},{"name":"u64","type":"long"},{"name":"i64","type":["null","long"],"default":null},` +
	`{"name":"b","type":["null","boolean"],"default":null},{"name":"f32","type":["null","float"],"default":null},{"name":"f64","type":"double"},` +
	`{"name":"bin","type":["null","bytes"],"default":null},{"name":"fix","type":["null",{"type":"fixed","name":"Row_fix","size":3}],"default":null},` +
	`{"name":"s","type":{"type":"long","logicalType":"local-timestamp-millis"}},{"name":"ms","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null},` +
	`{"name":"us","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"ns","type":{"type":"long","logicalType":"timestamp-nanos"}},` +
	`{"name":"day","type":["null",{"type":"int","logicalType":"date"}],"default":null},{"name":"vec","type":["null",{"type":"array","items":"float"}],"default":null},` +
	`{"name":"words","type":{"type":"array","items":"string"}},{"name":"elbo_model","type":["null","string"],"default":null},` +
	`{"name":"elbo_top","type":["null",{"type":"array","items":{"type":"record","name":"Row_elbo_top","fields":[{"name":"column","type":["null","string"],"default":null},` +
	`{"name":"contribution","type":"float"},{"name":"value","type":["null","double"],"default":null},{"name":"expected","type":["null","double"],"default":null}]}}],"default":null},` +
	`{"name":"m","type":["null",{"type":"map","values":["null","int"]}],"default":null},{"name":"nothing","type":"null"}]}`

func TestEncode(t *testing.T) {
	e := newEncoder(t, avro.EncoderConfig{}, scored)
	if e.Schema() != scoredSchema {
		t.Errorf("schema\n%s\nwant\n%s", e.Schema(), scoredSchema)
	}
	s := twmb.MustParse(e.Schema())
	rec := recordOf(t, scored, scoredRows)
	var rows []string
	for _, m := range messages(t, e, rec) {
		var v any
		if rest, err := s.Decode(m, &v); err != nil || len(rest) > 0 {
			t.Fatalf("%x: %v, %d bytes left", m, err, len(rest))
		}
		row := v.(map[string]any)
		line := ""
		for _, f := range s.Root().Fields {
			line += fmt.Sprint(plain(row[f.Name]), "|")
		}
		rows = append(rows, line)
	}
	want := []string{
		"aé|-7|-128|65535|4294967295|4503599627370496|-9223372036854775808|true|0.1|-0.1|[1 2]|[1 2 3]|2000000000|3000000|4000|5|-86400000000000|[1 NaN 3]|[x ]|m@1|" +
			"[map[column:c contribution:0.5 expected:<nil> value:1] map[column:<nil> contribution:1 expected:2 value:<nil>]]|map[k:5 l:<nil>]|<nil>|",
		"|<nil>|127|0|<nil>|0|<nil>|<nil>|<nil>|0|<nil>|<nil>|-1000000000|<nil>|0|0|<nil>|<nil>|[]|<nil>|<nil>|<nil>|<nil>|",
		"z|0|0|0|0|0|0|false|0|0|[]|[0 0 0]|0|0|0|0|0|[0 0 0]|[]|m@1|[]|map[]|<nil>|",
	}
	for i := range want {
		if rows[i] != want[i] {
			t.Errorf("row %d\n%s, want\n%s", i, rows[i], want[i])
		}
	}
	// A slice of a record has other offsets.
	part := rec.NewSlice(1, 3)
	if got, want := messages(t, e, part), messages(t, e, rec)[1:]; !bytes.Equal(bytes.Join(got, nil), bytes.Join(want, nil)) {
		t.Errorf("rows 1 and 2 of a slice: %x, want %x", got, want)
	}
}

// plain turns times into nanoseconds.
func plain(v any) any {
	if t, ok := v.(time.Time); ok {
		return t.UnixNano()
	}
	return v
}

// TestEncodeAgainstFastavro lets Python read what is written, and write what the
// decoder reads.
func TestEncodeAgainstFastavro(t *testing.T) {
	python := os.Getenv("ELBO_PYTHON")
	if python == "" {
		t.Skip("SKIPPED: Python's fastavro did not read our messages: set ELBO_PYTHON to an interpreter that has it")
	}
	if exec.Command(python, "-c", "import fastavro").Run() != nil {
		t.Skipf("SKIPPED: Python's fastavro did not read our messages: %s has no fastavro", python)
	}
	e := newEncoder(t, avro.EncoderConfig{}, scored)
	in := struct {
		Schema   json.RawMessage
		Messages [][]byte
	}{json.RawMessage(e.Schema()), messages(t, e, recordOf(t, scored, scoredRows))}
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "testdata/fastavro_oracle.py")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(data), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Rows  []string
		Again []string // the rows, written by fastavro, in base64
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	want := []string{
		`id='aé' _9___=-7 i8=-128 u16=65535 u32=4294967295 u64=4503599627370496 i64=-9223372036854775808 b=True f32=0.1 f64=-0.1 bin=b'\x01\x02' fix=b'\x01\x02\x03'` +
			` s=1970-01-01T00:00:02 ms=1970-01-01T00:00:00.003000+00:00 us=1970-01-01T00:00:00.000004+00:00 ns=5 day=1969-12-31 vec=[1.0, nan, 3.0] words=['x', ''] elbo_model='m@1'` +
			` elbo_top=[{'column': 'c', 'contribution': 0.5, 'value': 1.0, 'expected': None}, {'column': None, 'contribution': 1.0, 'value': None, 'expected': 2.0}]` +
			` m={'k': 5, 'l': None} nothing=None`,
		`id='' _9___=None i8=127 u16=0 u32=None u64=0 i64=None b=None f32=None f64=0.0 bin=None fix=None s=1969-12-31T23:59:59 ms=None` +
			` us=1970-01-01T00:00:00+00:00 ns=0 day=None vec=None words=[] elbo_model=None elbo_top=None m=None nothing=None`,
	}
	for i := range want {
		if got.Rows[i] != want[i] {
			t.Errorf("row %d\n%s, want\n%s", i, got.Rows[i], want[i])
		}
	}
	f := newFormat(t, avro.Config{Framing: avro.Bare, Schema: e.Schema()})
	ours, _ := decode(t, f, in.Messages...)
	theirs, faults := decode(t, f, unbase64(t, got.Again)...)
	if fmt.Sprint(ours) != fmt.Sprint(theirs) || len(ours) != 3 {
		t.Errorf("rows\n%v, and as fastavro writes them\n%v, faults %v", ours, theirs, faults.Faults)
	}
}

func unbase64(t *testing.T, all []string) (out [][]byte) {
	for _, s := range all {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func TestEncoderRegisters(t *testing.T) {
	r := registrytest.New()
	c, err := registry.New(registry.Config{URLs: []string{"http://registry"}, Transport: r})
	if err != nil {
		t.Fatal(err)
	}
	schema := arrow.NewSchema([]arrow.Field{{Name: "x", Type: f32}, {Name: "y", Type: str}}, nil)
	find, err := avro.NewEncoder(avro.EncoderConfig{Registry: c, Subject: "out-value", Find: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := find.Bind(schema); !errors.Is(err, registry.ErrUnknownSchema) {
		t.Errorf("Find before: %v", err)
	}
	rec := recordOf(t, schema, `[{"x": 2, "y": "a"}]`)
	for range 3 {
		e := newEncoder(t, avro.EncoderConfig{Registry: c, Subject: "out-value", Columns: []string{"y", "x"}}, schema)
		if id, ok := e.SchemaID(); id != 1 || !ok {
			t.Errorf("id %d, %v", id, ok)
		}
		if m := messages(t, e, rec)[0]; !bytes.Equal(m, []byte{0, 0, 0, 0, 1, 2, 'a', 0, 0, 0, 0x40}) {
			t.Errorf("message %x", m)
		}
	}
	if n := r.Asked("POST /subjects/out-value/versions"); n != 1 {
		t.Errorf("registered %d times, want once", n)
	}
	fixed := newEncoder(t, avro.EncoderConfig{SchemaID: 7, Columns: []string{"x"}}, schema)
	if m := messages(t, fixed, rec)[0]; !bytes.Equal(m, []byte{0, 0, 0, 0, 7, 0, 0, 0, 0x40}) {
		t.Errorf("message %x", m)
	}
	r.Refuse(409, 409, "reader lacks x")
	other, err := avro.NewEncoder(avro.EncoderConfig{Registry: c, Subject: "other-value"})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Bind(schema); err == nil || !strings.Contains(err.Error(), "not compatible") {
		t.Errorf("error %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := registrytest.New()
		r.Refuse(-1, 0, "")
		c, err := registry.New(registry.Config{URLs: []string{"http://registry"}, Transport: r})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		e, err := avro.NewEncoder(avro.EncoderConfig{Registry: c, Subject: "s"})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Bind(schema); err == nil || time.Since(begin) != 2*time.Minute {
			t.Errorf("error %v after %v", err, time.Since(begin))
		}
	})
}

func TestEncodeFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		c    avro.EncoderConfig
		typ  arrow.DataType
		want string
	}{
		"no column":     {avro.EncoderConfig{Columns: []string{"y"}}, f32, `column "y": there is none`},
		"twice":         {avro.EncoderConfig{Columns: []string{"x", "x"}}, f32, "comes twice"},
		"type":          {avro.EncoderConfig{}, arrow.FixedWidthTypes.Duration_ms, "duration[ms] is not written as Avro"},
		"inside":        {avro.EncoderConfig{}, arrow.ListOf(arrow.FixedWidthTypes.Duration_ms), "elements: duration"},
		"struct":        {avro.EncoderConfig{}, arrow.StructOf(arrow.Field{Name: "q", Type: arrow.FixedWidthTypes.Duration_ms}), `field "q": duration`},
		"keys":          {avro.EncoderConfig{}, arrow.MapOf(i32, i32), "keys are int32"},
		"name":          {avro.EncoderConfig{Name: "a.1"}, f32, `name: "a.1"`},
		"names collide": {avro.EncoderConfig{}, arrow.StructOf(arrow.Field{Name: "a.b", Type: f32}, arrow.Field{Name: "a-b", Type: f32}), `columns "a.b" and "a-b" would both be called a_b`},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := avro.NewEncoder(tt.c)
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
		{arrow.Field{Type: arrow.PrimitiveTypes.Uint64}, `[{"x": 9223372036854775808}]`, "x: 9223372036854775808 is no long"},
		{arrow.Field{Type: arrow.ListOf(str)}, `[{"x": ["a", null]}]`, "x: element 1 is null"},
	} {
		tt.field.Name = "x"
		schema := arrow.NewSchema([]arrow.Field{tt.field}, nil)
		e := newEncoder(t, avro.EncoderConfig{}, schema)
		if err := e.Reset(recordOf(t, schema, tt.rows)); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Append(nil, 0, 1); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
	schema := arrow.NewSchema([]arrow.Field{{Name: "x", Type: f32}}, nil)
	e := newEncoder(t, avro.EncoderConfig{}, schema)
	other := arrow.NewSchema([]arrow.Field{{Name: "x", Type: f64}}, nil)
	if err := e.Reset(recordOf(t, other, `[{"x": 1}]`)); err == nil {
		t.Error("a record of another type is taken")
	}
	if _, err := e.Append(nil, 0, 2); err == nil || e.MaxRows() != 1 {
		t.Error("two rows in one message")
	}
	if _, err := avro.NewEncoder(avro.EncoderConfig{Find: true}); err == nil {
		t.Error("find without a registry")
	}
	bad := array.NewStringBuilder(memory.DefaultAllocator)
	bad.Append("a\xffb")
	texts := arrow.NewSchema([]arrow.Field{{Name: "x", Type: str}}, nil)
	e = newEncoder(t, avro.EncoderConfig{}, texts)
	if m := messages(t, e, array.NewRecord(texts, []arrow.Array{bad.NewArray()}, 1))[0]; string(m[1:]) != "a\uFFFDb" {
		t.Errorf("%q", m)
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
	e := newEncoder(t, avro.EncoderConfig{SchemaID: 1}, schema)
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
	e := newEncoder(b, avro.EncoderConfig{SchemaID: 1}, schema)
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
