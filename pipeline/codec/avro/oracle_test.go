package avro_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	twmb "github.com/twmb/avro"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/avro"
)

// A maker makes random schemas, and values of them.
type maker struct {
	t     *rapid.T
	names int
}

func (m *maker) name(prefix string) string {
	m.names++
	return fmt.Sprint(prefix, m.names)
}

func (m *maker) pick(words ...string) string { return rapid.SampledFrom(words).Draw(m.t, "word") }

// schema makes a type that is nested so deep at the most.
func (m *maker) schema(depth int) any {
	words := []string{"boolean", "int", "long", "float", "double", "string", "bytes", "enum", "fixed",
		"timestamp-millis", "timestamp-micros", "date", "decimal", "union", "union"}
	if depth > 0 {
		words = append(words, "record", "record", "array", "map")
	}
	switch w := m.pick(words...); w {
	case "enum":
		return map[string]any{"type": "enum", "name": m.name("E"), "symbols": []string{"A", "B", "C"}}
	case "fixed":
		return map[string]any{"type": "fixed", "name": m.name("F"), "size": rapid.IntRange(0, 5).Draw(m.t, "size")}
	case "timestamp-millis", "timestamp-micros":
		return map[string]any{"type": "long", "logicalType": w}
	case "date":
		return map[string]any{"type": "int", "logicalType": w}
	case "decimal":
		return map[string]any{"type": "bytes", "logicalType": w, "precision": 30, "scale": rapid.IntRange(0, 9).Draw(m.t, "scale")}
	case "union":
		other := m.schema(depth)
		if _, ok := other.([]any); ok {
			other = "float"
		}
		if rapid.Bool().Draw(m.t, "null first") {
			return []any{"null", other}
		}
		return []any{other, "null"}
	case "record":
		return m.record(depth - 1)
	case "array":
		return map[string]any{"type": "array", "items": m.schema(depth - 1)}
	case "map":
		return map[string]any{"type": "map", "values": m.schema(depth - 1)}
	default:
		return w
	}
}

func (m *maker) record(depth int) map[string]any {
	fields := []any{}
	for range rapid.IntRange(1, 5).Draw(m.t, "fields") {
		fields = append(fields, map[string]any{"name": m.name("f"), "type": m.schema(depth)})
	}
	return map[string]any{"type": "record", "name": m.name("R"), "fields": fields}
}

// value makes a value of a type.
func (m *maker) value(schema any) any {
	switch s := schema.(type) {
	case []any:
		return m.value(rapid.SampledFrom(s).Draw(m.t, "branch"))
	case map[string]any:
		return m.composed(s)
	}
	switch schema {
	case "boolean":
		return rapid.Bool().Draw(m.t, "v")
	case "int":
		return rapid.Int32().Draw(m.t, "v")
	case "long":
		return rapid.Int64().Draw(m.t, "v")
	case "float":
		return rapid.Float32().Draw(m.t, "v")
	case "double":
		return rapid.Float64().Draw(m.t, "v")
	case "string":
		return rapid.String().Draw(m.t, "v")
	case "bytes":
		return rapid.SliceOf(rapid.Byte()).Draw(m.t, "v")
	}
	return nil
}

func (m *maker) composed(s map[string]any) any {
	switch s["logicalType"] {
	case "timestamp-millis", "timestamp-micros":
		return rapid.Int64Range(-1<<50, 1<<50).Draw(m.t, "v")
	case "date":
		return rapid.Int32Range(-100000, 100000).Draw(m.t, "v")
	case "decimal":
		r := new(big.Rat).SetInt64(rapid.Int64().Draw(m.t, "v"))
		if rapid.Bool().Draw(m.t, "large") {
			r.Mul(r, big.NewRat(1e9, 1))
		}
		return r.Quo(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(s["scale"].(int))), nil)))
	}
	switch s["type"] {
	case "enum":
		return m.pick("A", "B", "C")
	case "fixed":
		n := s["size"].(int)
		return rapid.SliceOfN(rapid.Byte(), n, n).Draw(m.t, "v")
	case "array":
		all := []any{}
		for range rapid.IntRange(0, 3).Draw(m.t, "items") {
			all = append(all, m.value(s["items"]))
		}
		return all
	case "map":
		all := map[string]any{}
		for i := range rapid.IntRange(0, 3).Draw(m.t, "values") {
			all[fmt.Sprint("k", i)] = m.value(s["values"])
		}
		return all
	}
	all := map[string]any{}
	for _, f := range s["fields"].([]any) {
		f := f.(map[string]any)
		all[f["name"].(string)] = m.value(f["type"])
	}
	return all
}

// evolve makes a reader's schema of a writer's: it drops, moves, widens and renames
// fields, and adds some.
func (m *maker) evolve(record map[string]any) map[string]any {
	fields := []any{}
	for _, f := range record["fields"].([]any) {
		f := f.(map[string]any)
		g := map[string]any{"name": f["name"], "type": f["type"]}
		switch m.pick("drop", "keep", "keep", "rename", "widen") {
		case "drop":
			continue
		case "rename":
			g["name"], g["aliases"] = m.name("g"), []any{f["name"]}
		case "widen":
			wider := map[any]string{"int": "long", "long": "double", "float": "double", "string": "bytes", "bytes": "string"}
			if w, ok := f["type"].(string); ok && wider[w] != "" {
				g["type"] = wider[w]
			}
			if below, ok := f["type"].(map[string]any); ok && below["type"] == "record" {
				g["type"] = m.evolve(below)
			}
		}
		fields = append(fields, g)
	}
	for range rapid.IntRange(0, 2).Draw(m.t, "added") {
		fields = append(fields, rapid.SampledFrom([]map[string]any{
			{"name": m.name("h"), "type": "int", "default": 7},
			{"name": m.name("h"), "type": []any{"null", "string"}, "default": nil},
			{"name": m.name("h"), "type": []any{"string", "null"}, "default": "x"},
			{"name": m.name("h"), "type": map[string]any{"type": "record", "name": m.name("H"),
				"fields": []any{map[string]any{"name": "a", "type": "double"}, map[string]any{"name": "b", "type": "long", "default": 4}}},
				"default": map[string]any{"a": 1.5}},
		}).Draw(m.t, "new"))
	}
	if len(fields) == 0 {
		fields = append(fields, map[string]any{"name": m.name("h"), "type": "boolean", "default": true})
	}
	fields = rapid.Permutation(fields).Draw(m.t, "order")
	return map[string]any{"type": "record", "name": record["name"], "fields": fields}
}

// at looks a path up in what the library decoded.
func at(v any, path string) any {
	for _, step := range strings.Split(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[step]
	}
	return v
}

// told writes a value of the library as cell does.
func told(v any, t arrow.DataType) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case time.Time:
		unit := t.(*arrow.TimestampType).Unit
		ns := new(big.Int).Add(new(big.Int).Mul(big.NewInt(v.Unix()), big.NewInt(1e9)), big.NewInt(int64(v.Nanosecond())))
		return ns.Quo(ns, big.NewInt(int64(unit.Multiplier()))).String()
	case *big.Rat:
		f, _ := v.Float64()
		return show(f, 64)
	case json.Number: // decimals in any
		r, _ := new(big.Rat).SetString(v.String())
		return told(r, t)
	case float32:
		return show(float64(v), 32)
	case float64:
		return show(v, 64)
	case string:
		return fmt.Sprintf("%q", v)
	case []byte:
		return fmt.Sprintf("%x", v)
	}
	return fmt.Sprint(v)
}

// TestAgainstLibrary compares with what twmb/avro makes of the same bytes, for
// random schemas, values and changes of schema.
func TestAgainstLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &maker{t: t}
		made := m.record(3)
		evolved := m.evolve(made)
		text := func(s any) string {
			b, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		writer, reader := text(made), text(evolved)
		w, err := twmb.Parse(writer)
		if err != nil {
			t.Fatalf("%s: %v", writer, err)
		}
		r, err := twmb.Parse(reader)
		if err != nil {
			t.Fatalf("%s: %v", reader, err)
		}
		resolved, err := twmb.Resolve(w, r)
		if err != nil {
			t.Fatalf("%s\n%s: %v", writer, reader, err)
		}
		f, err := avro.New(t.Context(), avro.Config{Framing: avro.Bare, Schema: reader, Writers: []string{writer}})
		if err != nil {
			if strings.Contains(err.Error(), "has no leaf") {
				return
			}
			t.Fatalf("%s: %v", reader, err)
		}
		value := m.value(made)
		data, err := w.Encode(value)
		if err != nil {
			t.Fatalf("%s: %v: %v", writer, value, err)
		}
		rows, got := decode(t, f, slices.Clip(append([]byte{}, data...)))
		var want any
		_, err = resolved.Decode(data, &want)
		if len(got.Faults) > 0 {
			if err == nil && !strings.Contains(got.Faults[0].Error(), "not UTF-8") && !strings.Contains(got.Faults[0].Error(), "out of range") {
				t.Fatalf("%s\n%s\n%x: fault %v where the library has %v", writer, reader, data, got.Faults[0], want)
			}
			return
		}
		if err != nil {
			t.Fatalf("%s\n%s: %v", writer, reader, err)
		}
		for i, field := range f.Schema().Fields() {
			if got, want := rows[0][i], told(at(want, field.Name), field.Type); got != want {
				t.Fatalf("%s\n%s\n%x\ncolumn %s %v: %s, want %s", writer, reader, data, field.Name, field.Type, got, want)
			}
		}
	})
}

const fuzzSchema = `{"type":"record","name":"R","fields":[
	{"name":"a","type":["null","float"]},{"name":"s","type":"string"},
	{"name":"skip","type":{"type":"map","values":{"type":"array","items":["null","R",{"type":"fixed","name":"F","size":3}]}}},
	{"name":"z","type":{"type":"array","items":"null"}},
	{"name":"l","type":{"type":"array","items":["null","double","int"]}},
	{"name":"v","type":["null",{"type":"array","items":["null","float"]}]},
	{"name":"m","type":{"type":"map","values":["int","string","null"]}},
	{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":3}},
	{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},
	{"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}}]}`

var fuzzColumns = []codec.Column{{Name: "a", Type: f32}, {Name: "s", Type: str}, {Name: "l.1", Type: f64}, {Name: "v", Type: vec3},
	{Name: "v1", Path: "v.1", Type: f32}, {Name: "m.k", Type: f64}, {Name: "d", Type: f64}, {Name: "e", Type: str},
	{Name: "t", Type: timeIn(arrow.Nanosecond)}}

// FuzzDecode looks for bytes that crash or hang the decoder, or that it refuses
// though the library writes them.
func FuzzDecode(f *testing.F) {
	s := twmb.MustParse(fuzzSchema)
	inner := map[string]any{"a": nil, "s": "x", "skip": map[string]any{}, "z": []any{}, "l": []any{int32(1), 2.5, nil}, "v": nil,
		"m": map[string]any{"k": int32(4), "j": "s"}, "d": big.NewRat(12345, 1000), "e": "B", "t": int64(5)}
	outer := map[string]any{"a": float32(1), "s": "é", "skip": map[string]any{"k": []any{nil, inner, [3]byte{1}}}, "z": []any{nil, nil},
		"l": []any{}, "v": []any{float32(1), nil, float32(3)}, "m": map[string]any{}, "d": big.NewRat(-1, 1000), "e": "A", "t": int64(math.MaxInt64)}
	for _, v := range []any{inner, outer} {
		b, err := s.Encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	format := newFormat(f, avro.Config{Framing: avro.Bare, Writers: []string{fuzzSchema}, Columns: fuzzColumns})
	f.Fuzz(func(t *testing.T, data []byte) {
		if data == nil {
			data = []byte{}
		}
		rows, got := decode(t, format, data, data)
		if len(rows)+len(got.Faults) != 2 || len(rows) == 1 {
			t.Fatalf("rows %v, faults %v", rows, got.Faults)
		}
		// The library does not look at the sizes of blocks, which may be lies: what it has
		// written itself is the same without them.
		var want any
		if rest, err := s.Decode(data, &want); err != nil || len(rest) > 0 || len(data) > 200 {
			return
		}
		again, err := s.Encode(want)
		if err != nil {
			return
		}
		rows, got = decode(t, format, again)
		if len(rows) == 0 && got.Faults[0].Class == codec.Syntax && !strings.Contains(got.Faults[0].Error(), "UTF-8") {
			t.Fatalf("%x: fault %v, but the library reads %v", again, got.Faults[0], want)
		}
	})
}
