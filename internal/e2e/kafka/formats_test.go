package kafka_test

import (
	"bytes"
	"context"
	"encoding/binary"
	stdjson "encoding/json"
	"fmt"
	"math"
	"net/http/httptest"
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
	"github.com/bufbuild/protocompile"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/elbo-stream/elbo/pipeline/codec/registry"
	"github.com/elbo-stream/elbo/pipeline/codec/registry/registrytest"
	sink "github.com/elbo-stream/elbo/sinks/kafka"
)

// A format is one that messages come in, as others write it.
type format struct {
	name   string
	value  string // of the source's configuration
	rows   int    // of a message
	encode func(first int) []byte
	bad    []badValue
}

type badValue struct {
	value []byte
	class string
}

// tooLarge is more than the max_bytes of every format here.
const tooLarge = 5000

const (
	avroText  = `{"type":"record","name":"Row","fields":[{"name":"x","type":["null","double"]},{"name":"id","type":"long"}]}`
	protoText = `syntax = "proto3"; message Row { int64 id = 1; string other = 2; optional double x = 3; }`
)

// xOf is the x of the row with an id.
func xOf(id int) float64 { return float64(id)/4 - 100 }

// framed puts a schema registry's header before data.
func framed(id int32, data ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), data...)
}

func formats(t *testing.T, reg *registrytest.Registry, url string) []format {
	t.Helper()
	garbage := []byte("\xff\xfe no message")
	large := badValue{bytes.Repeat([]byte{'a'}, tooLarge), "size"}
	avroID := reg.Add("rows-value", registry.Schema{Type: registry.Avro, Text: avroText})
	protoID := reg.Add("proto-value", registry.Schema{Type: registry.Protobuf, Text: protoText})
	noX := reg.Add("other-value", registry.Schema{Type: registry.Avro, Text: `{"type":"record","name":"Row","fields":[{"name":"x","type":"string"},{"name":"id","type":"long"}]}`})
	schema, err := avro.Parse(avroText)
	if err != nil {
		t.Fatal(err)
	}
	avroRow := func(row map[string]any) []byte {
		b, err := schema.Encode(row)
		if err != nil {
			t.Fatal(err)
		}
		return framed(avroID, b...)
	}
	protoRow := func(first int) []byte {
		b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(first))
		return protowire.AppendFixed64(protowire.AppendTag(b, 3, protowire.Fixed64Type), math.Float64bits(xOf(first)))
	}
	const common = "columns: [id int64, x float64], max_bytes: 4KiB"
	return []format{
		{"json", "format: json, require: [x], " + common, 1,
			func(first int) []byte {
				return fmt.Appendf(nil, `{"x": %g, "other": [1], "id": %d}`, xOf(first), first)
			},
			[]badValue{{garbage, "decode"}, {[]byte(`{"id": 1, "x": "no number"}`), "validation"}, {[]byte(`{"id": 1}`), "validation"}, large,
				{[]byte(`{"id": 1, "x": 2`), "decode"}}},
		{"avro", "format: avro, registry: {urls: ['" + url + "']}, require: [x], " + common, 1,
			func(first int) []byte { return avroRow(map[string]any{"x": xOf(first), "id": int64(first)}) },
			[]badValue{{garbage, "decode"}, {avroRow(map[string]any{"x": nil, "id": int64(1)}), "validation"}, large,
				{framed(99, 1, 2, 3), "schema"}, {framed(avroID, 2, 1, 2), "decode"}}},
		{"protobuf", "format: protobuf, registry: {urls: ['" + url + "']}, require: [x], " + common, 1,
			func(first int) []byte { return framed(protoID, append([]byte{0}, protoRow(first)...)...) },
			[]badValue{{garbage, "decode"}, {framed(protoID, 0, 8, 1), "validation"}, large, {framed(98, 0, 8, 1), "schema"},
				{framed(protoID, 0, 8), "decode"}, {framed(noX, 0, 8), "schema"}}},
		{"arrow", "format: arrow, " + common, 7,
			func(first int) []byte { return arrowRows(t, first, 7) },
			[]badValue{{garbage, "decode"}, large, {arrowRows(t, 0, 7)[:300], "decode"}}},
		{"raw", "format: raw, columns: [id float32, x float32], max_bytes: 4KiB", 1,
			func(first int) []byte {
				b := binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(first)))
				return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(xOf(first))))
			},
			[]badValue{{[]byte("seven b"), "decode"}, {bytes.Repeat([]byte{0}, 12), "decode"}}},
	}
}

// arrowRows is a stream of rows with ids from first on.
func arrowRows(t *testing.T, first, n int) []byte {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Float32, Nullable: true}, {Name: "id", Type: arrow.PrimitiveTypes.Int32}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := range n {
		b.Field(0).(*array.Float32Builder).Append(float32(xOf(first + i)))
		b.Field(1).(*array.Int32Builder).Append(int32(first + i))
	}
	rec := b.NewRecord()
	defer rec.Release()
	var buf bytes.Buffer
	w := ipc.NewWriter(&buf, ipc.WithSchema(schema))
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

const formatConfig = `
source:
  kafka: {brokers: [%[1]s], topics: [in], group: g, value: {%[2]s}}
sinks:
  - kafka: {brokers: [%[1]s], topic: out, value: {format: %[3]s%[4]s}}
on_error: dead_letter
dead_letters:
  kafka: {brokers: [%[1]s], topic: dead}
delivery: exactly_once
`

// TestFormats goes through elbo as a user runs it, from each format to one of those
// that the sink writes, with one message in a hundred that is bad (F13): messages are
// written, and output is read, by others' code.
func TestFormats(t *testing.T) {
	reg := registrytest.New()
	web := httptest.NewServer(reg)
	defer web.Close()
	bin := program(t)
	out := map[string]string{"json": "avro", "avro": "protobuf", "protobuf": "arrow", "arrow": "json", "raw": "json"}
	for _, f := range formats(t, reg, web.URL) {
		t.Run(f.name+" to "+out[f.name], func(t *testing.T) {
			_, brokers := start(t)
			const messages = 2000
			var recs []*kgo.Record
			bads := map[string]badValue{} // by key
			for i := range messages {
				r := &kgo.Record{Topic: "in", Key: fmt.Appendf(nil, "k%d", i), Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte("t")}}}
				if i%100 == 7 {
					b := f.bad[i/100%len(f.bad)]
					r.Value, bads[string(r.Key)] = b.value, b
				} else {
					r.Value = f.encode(i * f.rows)
				}
				recs = append(recs, r)
			}
			send(t, brokers, recs)
			to := ""
			if out[f.name] == "avro" || out[f.name] == "protobuf" {
				to = ", subject: out-" + out[f.name] + ", registry: {urls: ['" + web.URL + "']}"
			}
			file := filepath.Join(t.TempDir(), "elbo.yaml")
			if err := os.WriteFile(file, fmt.Appendf(nil, formatConfig, strings.Join(brokers, ", "), f.value, out[f.name], to), 0o666); err != nil {
				t.Fatal(err)
			}
			if text, err := exec.Command(bin, "run", "--until-end", file).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			checkRows(t, reg, brokers, f, out[f.name], messages, len(bads))
			checkLetters(t, bads, records(t, brokers, "dead", len(bads)))
		})
	}
}

func send(t *testing.T, brokers []string, recs []*kgo.Record) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// checkRows sees that each row of a good message is there once, with its x.
func checkRows(t *testing.T, reg *registrytest.Registry, brokers []string, f format, as string, messages, bad int) {
	t.Helper()
	got, rows := map[int]int{}, 0
	readUntil(t, brokers, "out", func(r *kgo.Record) bool {
		for id, x := range decoded(t, reg, as, r.Value) {
			got[id]++
			rows++
			if x != xOf(id) {
				t.Errorf("row %d: x is %v, want %v", id, x, xOf(id))
			}
		}
		return rows >= (messages-bad)*f.rows
	})
	for i := range messages * f.rows {
		want := 1
		if bad > 0 && i/f.rows%100 == 7 {
			want = 0
		}
		if got[i] != want {
			t.Fatalf("row %d is there %d times, want %d (%d rows)", i, got[i], want, rows)
		}
	}
}

// checkLetters sees that each bad message is a dead letter once, as it was.
func checkLetters(t *testing.T, want map[string]badValue, recs []*kgo.Record) {
	t.Helper()
	for _, r := range recs {
		b, ok := want[string(r.Key)]
		delete(want, string(r.Key))
		headers := map[string]string{}
		for _, h := range r.Headers {
			headers[h.Key] = string(h.Value)
		}
		if !ok || !bytes.Equal(r.Value, b.value) || headers["trace"] != "t" || headers[sink.HeaderClass] != b.class || headers[sink.HeaderDetail] == "" {
			t.Errorf("dead letter %q of %d bytes, headers %q; wanted: %v, class %q", r.Key, len(r.Value), headers, ok, b.class)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d bad messages are no dead letters: %q", len(want), want)
	}
}

// decoded returns x by id of the rows of a message, read by others' code.
func decoded(t *testing.T, reg *registrytest.Registry, as string, value []byte) map[int]float64 {
	t.Helper()
	rows := map[int]float64{}
	switch as {
	case "json":
		var row struct {
			ID json64 `json:"id"`
			X  float64
		}
		if err := stdjson.Unmarshal(value, &row); err != nil {
			t.Fatalf("%q: %v", value, err)
		}
		rows[int(row.ID)] = row.X
	case "avro":
		schema, err := avro.Parse(schemaText(t, reg, value))
		if err != nil {
			t.Fatal(err)
		}
		var row map[string]any
		if rest, err := schema.Decode(value[5:], &row); err != nil || len(rest) > 0 {
			t.Fatalf("%d bytes left, error %v", len(rest), err)
		}
		rows[int(row["id"].(int64))] = row["x"].(float64)
	case "protobuf":
		id, x := protoRow(t, schemaText(t, reg, value), value[5:])
		rows[id] = x
	case "arrow":
		r, err := ipc.NewReader(bytes.NewReader(value))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		for r.Next() {
			rec := r.Record()
			at := rec.Schema().FieldIndices
			for i := range int(rec.NumRows()) {
				rows[int(rec.Column(at("id")[0]).(*array.Int64).Value(i))] = rec.Column(at("x")[0]).(*array.Float64).Value(i)
			}
		}
	}
	return rows
}

// A json64 is a whole number, perhaps written as 7.0.
type json64 int

func (n *json64) UnmarshalJSON(b []byte) error {
	var v float64
	err := stdjson.Unmarshal(b, &v)
	*n = json64(v)
	return err
}

// schemaText asks the registry for the schema of a message.
func schemaText(t *testing.T, reg *registrytest.Registry, value []byte) string {
	t.Helper()
	if value[0] != 0 {
		t.Fatalf("no schema id before %x", value[:min(len(value), 20)])
	}
	w := httptest.NewRecorder()
	reg.ServeHTTP(w, httptest.NewRequest("GET", fmt.Sprintf("/schemas/ids/%d", binary.BigEndian.Uint32(value[1:])), nil))
	var answer struct{ Schema string }
	if err := stdjson.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Schema == "" {
		t.Fatalf("the registry says %q: %v", w.Body, err)
	}
	return answer.Schema
}

// protoRow reads a message behind its header; of the schema, the first one.
func protoRow(t *testing.T, text string, b []byte) (id int, x float64) {
	t.Helper()
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{"row.proto": text})})}
	files, err := c.Compile(context.Background(), "row.proto")
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if b[0] != 0 {
		t.Fatalf("message indexes %x", b[:min(4, len(b))])
	}
	m := dynamicpb.NewMessage(files[0].Messages().Get(0))
	if err := proto.Unmarshal(b[1:], m); err != nil {
		t.Fatal(err)
	}
	fields := m.Descriptor().Fields()
	names := []string{}
	for i := range fields.Len() {
		names = append(names, string(fields.Get(i).Name()))
	}
	if !slices.Contains(names, "id") || !slices.Contains(names, "x") {
		t.Fatalf("fields %q", names)
	}
	return int(m.Get(fields.ByName("id")).Int()), m.Get(fields.ByName("x")).Float()
}
