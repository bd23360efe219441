package avro_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	twmb "github.com/twmb/avro"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/avro"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

func TestValues(t *testing.T) {
	array3 := `{"type":"array","items":"float"}`
	decimal := `{"type":"bytes","logicalType":"decimal","precision":40,"scale":2}`
	for _, tt := range []struct {
		schema string
		value  any
		typ    arrow.DataType
		want   string // or the start of a fault
	}{
		{`"boolean"`, true, boole, "true"},
		{`"int"`, int32(-7), i32, "-7"},
		{`"int"`, int32(-7), i64, "-7"},
		{`"int"`, int32(-7), f32, "-7"},
		{`"int"`, int32(-7), f64, "-7"},
		{`"long"`, int64(1) << 62, i64, "4611686018427387904"},
		{`"long"`, int64(1)<<53 + 1, f64, "9.007199254740992e+15"},
		{`"long"`, int64(-3), f32, "-3"},
		{`"float"`, float32(0.1), f32, "0.1"},
		{`"float"`, float32(0.1), f64, "0.10000000149011612"},
		{`"double"`, 0.1, f64, "0.1"},
		{`"double"`, 0.1, f32, "0.1"},
		{`"double"`, 1e300, f32, "+Inf"},
		{`"string"`, "é\x00", str, `"é\x00"`},
		{`"string"`, "ab", bin, "6162"},
		{`"bytes"`, []byte{1, 2}, bin, "0102"},
		{`"bytes"`, []byte("é"), str, `"é"`},
		{`"bytes"`, []byte{0xff}, str, "decode: x at byte 5: a text that is not UTF-8"},
		{`"string"`, "\xff", str, "decode: x at byte 5: a text that is not UTF-8"},
		{`{"type":"fixed","name":"F","size":2}`, []byte{1, 2}, bin, "0102"},
		{`{"type":"fixed","name":"F","size":16,"logicalType":"uuid"}`, [16]byte{0x12, 15: 0xff}, str, `"12000000-0000-0000-0000-0000000000ff"`},
		{`{"type":"string","logicalType":"uuid"}`, "12000000-0000-0000-0000-0000000000ff", str, `"12000000-0000-0000-0000-0000000000ff"`},
		{`{"type":"enum","name":"E","symbols":["A","B"]}`, "B", str, `"B"`},
		{decimal, big.NewRat(-12345, 100), f64, "-123.45"},
		{decimal, big.NewRat(-12345, 100), f32, "-123.45"},
		{decimal, big.NewRat(12345, 100), bin, "3039"},
		{decimal, new(big.Rat).SetFrac(new(big.Int).Lsh(big.NewInt(1), 100), big.NewInt(100)), f64, "1.2676506002282294e+28"},
		{decimal, new(big.Rat).SetFrac(new(big.Int).Neg(new(big.Int).Lsh(big.NewInt(1), 100)), big.NewInt(100)), f64, "-1.2676506002282294e+28"},
		{`{"type":"fixed","name":"F","size":4,"logicalType":"decimal","precision":9,"scale":3}`, big.NewRat(-1, 1000), f64, "-0.001"},
		{`{"type":"int","logicalType":"date"}`, int32(-1), timeIn(arrow.Millisecond), "-86400000"},
		{`{"type":"int","logicalType":"date"}`, int32(2), i32, "2"},
		{`{"type":"long","logicalType":"timestamp-millis"}`, int64(-1), timeIn(arrow.Second), "-1"},
		{`{"type":"long","logicalType":"timestamp-millis"}`, int64(1500), timeIn(arrow.Second), "1"},
		{`{"type":"long","logicalType":"timestamp-millis"}`, int64(1500), timeIn(arrow.Nanosecond), "1500000000"},
		{`{"type":"long","logicalType":"timestamp-micros"}`, int64(-1), timeIn(arrow.Millisecond), "-1"},
		{`{"type":"long","logicalType":"timestamp-nanos"}`, int64(1234), timeIn(arrow.Microsecond), "1"},
		{`{"type":"long","logicalType":"local-timestamp-micros"}`, int64(5), timeIn(arrow.Microsecond), "5"},
		{`{"type":"long","logicalType":"timestamp-millis"}`, int64(9223372036854), timeIn(arrow.Nanosecond), "9223372036854000000"},
		{`{"type":"long","logicalType":"timestamp-millis"}`, int64(9223372036855), timeIn(arrow.Nanosecond), "validation: x at byte 5: 9223372036855 is out of range"},
		{`{"type":"long","logicalType":"timestamp-millis"}`, int64(1500), i64, "1500"},
		{`"long"`, int64(7), timeIn(arrow.Millisecond), "7000"}, // Config.Longs is s
		{`["null","float"]`, nil, f32, "null"},
		{`["null","float"]`, float32(2), f32, "2"},
		{`["float","null"]`, nil, f32, "null"},
		{`["float","null"]`, float32(2), f64, "2"},
		{`["null","int","double"]`, int32(3), f64, "3"},
		{`["null","int","double"]`, 2.5, f64, "2.5"},
		{`["null","int","double"]`, nil, f64, "null"},
		{`["string","double"]`, 2.5, f64, "2.5"},
		{`["string","double"]`, "a", f64, `validation: x at byte 6: schema 1: column "x": have utf8, want float64`},
		{array3, []float32{1, 2, 3}, vec3, "[1 2 3 ]"},
		{array3, []float32{1, 2}, vec3, "validation: x at byte 5: 2 elements, want 3"},
		{array3, []float32{}, vec3, "validation: x at byte 5: 0 elements, want 3"},
		{array3, []float32{1, 2, 3, 4}, vec3, "validation: x at byte 5: 4 elements or more, want 3"},
		{`["null",` + array3 + `]`, nil, vec3, "null"},
		{`{"type":"array","items":["null","double"]}`, []any{1.5, nil, 2.5}, vec3, "[1.5 null 2.5 ]"},
		{`{"type":"array","items":"int"}`, []int32{1, -2, 3}, vec3, "[1 -2 3 ]"},
		{`{"type":"array","items":["long","null"]}`, []any{int64(1), int64(-2), nil}, vec3, "[1 -2 null ]"},
	} {
		t.Run(fmt.Sprint(tt.schema, " ", tt.value, " as ", tt.typ), func(t *testing.T) {
			_, c := newRegistry(t, record(tt.schema))
			f := newFormat(t, avro.Config{Registry: c, Columns: []codec.Column{{Name: "x", Type: tt.typ}}, Longs: "s"})
			good := framed(1, encode(t, record(tt.schema), map[string]any{"x": tt.value}))
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
		schema string
		typ    arrow.DataType
		want   string
	}{
		{`"long"`, i32, "have int64, want int32"},
		{`"float"`, i64, "have float32, want int64"},
		{`"string"`, f64, "have utf8, want float64"},
		{`["null","string"]`, f64, "have utf8, want float64"},
		{`"boolean"`, f32, "have bool, want float32"},
		{`"int"`, boole, "have int32, want bool"},
		{`"long"`, timeIn(arrow.Second), "have int64, want timestamp"},
		{`"long"`, str, "have int64, want utf8"},
		{`{"type":"enum","name":"E","symbols":["A"]}`, bin, "have utf8, want binary"},
		{`{"type":"array","items":"string"}`, vec3, "have list<item: utf8, nullable>, want fixed_size_list"},
		{`{"type":"array","items":"float"}`, f32, "have list<item: float32, nullable>, want float32"},
		{`{"type":"map","values":"float"}`, f32, "have an unknown type, want float32"},
		{`["string","boolean"]`, f32, "have utf8, want float32"},
		{`{"type":"bytes","logicalType":"decimal","precision":4}`, i64, "have float64, want int64"},
		{`{"type":"record","name":"S","fields":[]}`, f32, "have struct<>, want float32"},
	} {
		t.Run(tt.schema+" as "+tt.typ.String(), func(t *testing.T) {
			_, c := newRegistry(t, record(tt.schema))
			f := newFormat(t, avro.Config{Registry: c, Columns: []codec.Column{{Name: "x", Type: tt.typ}}})
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

const reader = `{"type":"record","name":"Pay","fields":[
	{"name":"amount","type":"double","aliases":["sum"]},
	{"name":"country","type":"string","default":"DE"},
	{"name":"card","type":["null",{"type":"record","name":"Card","fields":[
		{"name":"brand","type":{"type":"enum","name":"Brand","symbols":["V","M"],"default":"V"}},
		{"name":"limit","type":["null","long"],"default":null}]}],"default":null},
	{"name":"level","type":["int","null"],"default":3},
	{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"},"default":5},
	{"name":"tags","type":{"type":"array","items":"string"},"default":[]}]}`

func TestEvolution(t *testing.T) {
	card := `{"type":"record","name":"Card","fields":[{"name":"brand","type":{"type":"enum","name":"Brand","symbols":["V","M","A"]}}]}`
	writers := []string{
		reader,
		// Fields reordered, renamed, added, promoted, removed.
		`{"type":"record","name":"Pay","fields":[{"name":"new","type":{"type":"map","values":{"type":"array","items":"int"}}},
			{"name":"country","type":"string"},{"name":"sum","type":"int"}]}`,
		`{"type":"record","name":"Pay","fields":[{"name":"card","type":` + card + `},{"name":"amount","type":"float"},{"name":"level","type":"int"}]}`,
	}
	r, c := newRegistry(t, writers...)
	r.Add("pay-value", registry.Schema{Text: reader})
	f := newFormat(t, avro.Config{Registry: c, Subject: "pay-value"})
	names := []string{}
	for _, f := range f.Schema().Fields() {
		names = append(names, f.Name+" "+f.Type.String())
	}
	const want = "amount float64, country utf8, card.brand utf8, card.limit int64, level int32, at timestamp[ms, tz=UTC]"
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("columns %s, want %s", got, want)
	}
	rows, got := decode(t, f,
		framed(1, encode(t, writers[0], map[string]any{"amount": 1.5, "country": "FR", "card": map[string]any{"brand": "M", "limit": int64(9)}, "level": nil, "at": int64(1), "tags": []string{"a"}})),
		framed(2, encode(t, writers[1], map[string]any{"new": map[string]any{"k": []int32{1, 2}}, "country": "IT", "sum": int32(7)})),
		framed(3, encode(t, writers[2], map[string]any{"card": map[string]any{"brand": "A"}, "amount": float32(2.5), "level": int32(4)})),
		framed(1, encode(t, writers[0], map[string]any{"amount": 1.5, "country": "FR", "card": nil, "level": nil, "at": int64(1), "tags": []string{}})),
	)
	if len(got.Faults) > 0 {
		t.Fatal(got.Faults)
	}
	for i, want := range []string{
		`[1.5 "FR" "M" 9 null 1]`,
		`[7 "IT" null null 3 5]`,
		`[2.5 "DE" "A" null 4 5]`,
		`[1.5 "FR" null null null 1]`,
	} {
		if got := fmt.Sprint(rows[i]); got != want {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
	}
}

func TestPaths(t *testing.T) {
	schema := `{"type":"record","name":"R","fields":[
		{"name":"a","type":{"type":"record","name":"A","fields":[{"name":"skip","type":"string"},{"name":"b","type":["null","R"]},{"name":"v","type":"float"}]}},
		{"name":"m","type":{"type":"map","values":["null","double"]}},
		{"name":"l","type":{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"p","type":"int"},{"name":"q","type":"string"}]}}}]}`
	f := newFormat(t, avro.Config{Framing: avro.Bare, Schema: schema, Columns: []codec.Column{
		{Name: "a.v", Type: f32}, {Name: "inner", Path: "a.b.a.v", Type: f64}, {Name: "twice", Path: "a.v", Type: f64},
		{Name: "x", Path: "m.x", Type: f64}, {Name: "y y", Path: "m.y y", Type: f32},
		{Name: "p0", Path: "l.0.p", Type: i32}, {Name: "q2", Path: "l.2.q", Type: str}}})
	row := func(inner any, m map[string]any, items ...any) map[string]any {
		return map[string]any{"a": map[string]any{"skip": "s", "b": inner, "v": float32(1.5)}, "m": m, "l": items}
	}
	item := func(p int32, q string) any { return map[string]any{"p": p, "q": q} }
	rows, got := decode(t, f,
		encode(t, schema, row(nil, map[string]any{"x": 1.0, "z": 9.0}, item(1, "a"), item(2, "b"), item(3, "c"), item(4, "d"))),
		encode(t, schema, row(row(nil, nil), map[string]any{"y y": 2.0, "x": nil}, item(1, "a"))),
		encode(t, schema, row(nil, map[string]any{})),
	)
	if len(got.Faults) > 0 {
		t.Fatal(got.Faults)
	}
	for i, want := range []string{`[1.5 null 1.5 1 null 1 "c"]`, `[1.5 1.5 1.5 null 2 1 null]`, `[1.5 null 1.5 null null null null]`} {
		if got := fmt.Sprint(rows[i]); got != want {
			t.Errorf("row %d: %s, want %s", i, got, want)
		}
	}
}

func TestWholeMessage(t *testing.T) {
	f := newFormat(t, avro.Config{Framing: avro.Bare, Schema: `"double"`})
	if rows, _ := decode(t, f, encode(t, `"double"`, 2.5)); fmt.Sprint(rows) != "[[2.5]]" || f.Schema().Field(0).Name != "value" {
		t.Errorf("rows %v of %v", rows, f.Schema())
	}
	vector := `{"type":"array","items":"float"}`
	f = newFormat(t, avro.Config{Framing: avro.Bare, Schema: vector, Columns: []codec.Column{{Name: "v", Path: ".", Type: vec3}, {Name: "second", Path: "1", Type: f32}}})
	if rows, _ := decode(t, f, encode(t, vector, []float32{1, 2, 3})); fmt.Sprint(rows) != "[[[1 2 3 ] 2]]" {
		t.Errorf("rows %v", rows)
	}
	// Several kinds of events in one topic: a union of records by reference.
	events := `[{"type":"record","name":"A","fields":[{"name":"x","type":"int"}]},{"type":"record","name":"B","fields":[{"name":"y","type":"int"}]}]`
	f = newFormat(t, avro.Config{Framing: avro.Bare, Schema: events, Columns: []codec.Column{{Name: "x", Type: f32}, {Name: "y", Type: f32}}})
	if rows, got := decode(t, f, []byte{0, 2}, []byte{2, 4}); fmt.Sprint(rows) != "[[1 null] [null 2]]" {
		t.Errorf("rows %v, faults %v", rows, got.Faults)
	}
}

func TestReferences(t *testing.T) {
	r, c := newRegistry(t, `{"type":"record","name":"n.Addr","fields":[{"name":"zip","type":"int"}]}`)
	top := `{"type":"record","name":"P","namespace":"n","fields":[{"name":"a","type":"Addr"},{"name":"b","type":["null","n.Addr"]}]}`
	id := r.Add("top", registry.Schema{Text: top, References: []registry.Reference{{Name: "n.Addr", Subject: "subject0", Version: 1}}})
	f := newFormat(t, avro.Config{Registry: c, Subject: "top"})
	rows, got := decode(t, f, framed(id, []byte{2, 2, 4}))
	if fmt.Sprint(rows, f.Schema().NumFields()) != "[[1 2]] 2" {
		t.Errorf("rows %v, faults %v", rows, got.Faults)
	}
}

func TestSingleObject(t *testing.T) {
	old, now := record(`"int"`), record(`"double"`)
	f := newFormat(t, avro.Config{Framing: avro.SingleObject, Schema: now, Writers: []string{old}})
	message := func(schema string, v any) []byte {
		b, err := twmb.MustParse(schema).AppendSingleObject(nil, map[string]any{"x": v})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rows, got := decode(t, f, message(old, int32(3)), message(now, 2.5), message(record(`"string"`), "a"), []byte{0xc3, 1})
	if fmt.Sprint(rows) != "[[3] [2.5]]" || len(got.Faults) != 2 || got.Faults[0].Class != codec.Schema || got.Faults[1].Class != codec.Syntax {
		t.Errorf("rows %v, faults %v", rows, got.Faults)
	}
}

func TestFaults(t *testing.T) {
	schema := record(`["null","string"]`)
	_, c := newRegistry(t, schema, `{"type":"recor`)
	big := strings.Repeat("x", 100)
	f := newFormat(t, avro.Config{Registry: c, Columns: []codec.Column{{Name: "x", Type: str}}, Required: []string{"x"}, MaxBytes: 100})
	good := encode(t, schema, map[string]any{"x": "abc"})
	for _, tt := range []struct {
		name    string
		message []byte
		class   codec.Class
		want    string
	}{
		{"empty", []byte{}, codec.Syntax, "no schema id"},
		{"json", []byte(`{"x":1}`), codec.Syntax, "no schema id"},
		{"short header", []byte{0, 0, 0, 0}, codec.Syntax, "no schema id"},
		{"no data", framed(1, nil), codec.Syntax, "x at byte 5: the bytes end"},
		{"cut", framed(1, good[:3]), codec.Syntax, "x at byte 6: the bytes end"},
		{"trailing", framed(1, append(bytes.Clone(good), 7)), codec.Syntax, "1 bytes behind the end"},
		{"branch", framed(1, []byte{4}), codec.Syntax, "branch 2"},
		{"negative branch", framed(1, []byte{1}), codec.Syntax, "branch -1"},
		{"negative length", framed(1, []byte{2, 1}), codec.Syntax, "a length of -1"},
		{"huge length", framed(1, []byte{2, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}), codec.Syntax, "the bytes end"},
		{"long varint", framed(1, bytes.Repeat([]byte{0xff}, 11)), codec.Syntax, "more than 64 bits"},
		{"missing", framed(1, []byte{0}), codec.Invalid, "x: missing"},
		{"large", framed(1, encode(t, schema, map[string]any{"x": big})), codec.Size, "more than 100"},
		{"poison schema", framed(2, nil), codec.Schema, "schema 2: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, got := decode(t, f, framed(1, good), tt.message, framed(1, good))
			if len(got.Faults) != 1 || got.Faults[0].Class != tt.class || got.Faults[0].Value != 1 || !strings.Contains(got.Faults[0].Error(), tt.want) {
				t.Errorf("faults %v, want %s %s", got.Faults, tt.class, tt.want)
			}
			if fmt.Sprint(rows, got.Origin) != `[["abc"] ["abc"]] [0 2]` {
				t.Errorf("rows %v, origin %v", rows, got.Origin)
			}
		})
	}
}

// TestHostile has messages whose counts and depths are lies.
func TestHostile(t *testing.T) {
	schema := `{"type":"record","name":"R","fields":[{"name":"z","type":{"type":"array","items":"null"}},
		{"name":"e","type":{"type":"array","items":{"type":"record","name":"E","fields":[]}}},
		{"name":"r","type":["null","R"]},{"name":"m","type":{"type":"map","values":"null"}},{"name":"x","type":"float"}]}`
	huge := []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1} // 2^63-1
	most := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1} // -2^63
	for _, columns := range [][]codec.Column{
		{{Name: "x", Type: f32}},
		{{Name: "x", Type: f32}, {Name: "z.3", Type: f32}, {Name: "e.60000.q", Type: f32}, {Name: "m.k", Type: f32}},
	} {
		f := newFormat(t, avro.Config{Framing: avro.Bare, Writers: []string{schema}, Columns: columns})
		end := []byte{0, 0, 0, 0, 0, 0x80, 0x3f}
		rows, got := decode(t, f,
			append(append(bytes.Clone(huge), append([]byte{0}, huge...)...), end...), // very many nulls
			append(most, end...),
			append([]byte{0, 0, 0}, huge...),           // a map with very many items
			bytes.Repeat([]byte{0, 0, 2}, 1<<20),       // a million levels
			append([]byte{3, 1, 0, 0, 0}, end[1:]...),  // a block of -1 bytes
			append([]byte{3, 99, 0, 0, 0}, end[1:]...), // a block of too many bytes
			append([]byte{3, 0, 0}, end...),            // a block of two nulls in no bytes
		)
		want := "[0 6]"
		if fmt.Sprint(got.Origin) != want || len(rows) != 2 || rows[0][0] != "1" {
			t.Errorf("rows %v, origin %v, faults %v", rows, got.Origin, got.Faults)
		}
	}
}

// TestUnknownThenKnown is F19: no message becomes poison while the registry is
// away, or while a schema may still come.
func TestUnknownThenKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		schema := record(`"int"`)
		r, c := newRegistry(t, schema)
		f := newFormat(t, avro.Config{Registry: c, Columns: []codec.Column{{Name: "x", Type: f32}}})
		message := framed(1, []byte{4})
		r.Refuse(-1, 0, "")
		r.Hide(1, true)
		time.AfterFunc(time.Hour, func() { r.Refuse(0, 0, "") })
		time.AfterFunc(time.Hour+4*time.Second, func() { r.Hide(1, false) })
		begin := time.Now()
		rows, got := decode(t, f, message, framed(9, nil), message)
		if fmt.Sprint(rows) != "[[2] [2]]" || len(got.Faults) != 1 || got.Faults[0].Class != codec.Schema {
			t.Errorf("rows %v, faults %v after %v", rows, got.Faults, time.Since(begin))
		}
		// The end of ctx is an error, and no fault.
		r.Refuse(503, 50301, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		d := f.NewDecoder(memory.DefaultAllocator)
		if _, err := d.Decode(ctx, binaryOf(framed(10, nil))); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		r.Refuse(401, 40101, "")
		var access *registry.AccessError
		if _, err := d.Decode(t.Context(), binaryOf(framed(10, nil))); !errors.As(err, &access) {
			t.Errorf("error %v", err)
		}
		r.Refuse(0, 0, "")
	})
}

func TestParallel(t *testing.T) {
	schemas := []string{}
	for i := range 8 {
		schemas = append(schemas, fmt.Sprintf(`{"type":"record","name":"R","fields":[{"name":"a%d","type":"string"},{"name":"x","type":"int"}]}`, i))
	}
	r, c := newRegistry(t, schemas...)
	f := newFormat(t, avro.Config{Registry: c, Columns: []codec.Column{{Name: "x", Type: f32}}})
	values := [][]byte{}
	for i := range 8000 {
		values = append(values, framed(int32(1+i%8), []byte{2, 'a', 6}))
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
	for i := range 8 {
		if n := r.Asked(fmt.Sprintf("GET /schemas/ids/%d", i+1)); n != 1 {
			t.Errorf("schema %d was asked for %d times", i+1, n)
		}
	}
}

func TestAllocations(t *testing.T) {
	schema := benchSchema(`["null","double"]`)
	f := newFormat(t, avro.Config{Framing: avro.Bare, Schema: schema})
	all := benchValues(t, schema)
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
	if few, many := allocations(1000), allocations(4000); many > few+8 {
		t.Errorf("%v allocations for 1,000 rows and %v for 4,000", few, many)
	}
}

func TestConfig(t *testing.T) {
	_, c := newRegistry(t, record(`"int"`))
	column := []codec.Column{{Name: "x", Type: f32}}
	for name, tt := range map[string]struct {
		c    avro.Config
		want string
	}{
		"nothing":          {avro.Config{}, "columns: must be set"},
		"no registry":      {avro.Config{Columns: column}, "registry: must be set"},
		"no writer":        {avro.Config{Columns: column, Framing: avro.Bare}, "schema: must be set"},
		"framing":          {avro.Config{Columns: column, Framing: "x"}, "framing: \"x\""},
		"schema, subject":  {avro.Config{Registry: c, Schema: "x", Subject: "y"}, "choose one"},
		"bad schema":       {avro.Config{Registry: c, Schema: "{"}, "reader's schema"},
		"no subject":       {avro.Config{Registry: c, Subject: "none", Columns: column}, "the registry has no such schema"},
		"twice":            {avro.Config{Registry: c, Columns: append(column, column...)}, "comes twice"},
		"no name":          {avro.Config{Registry: c, Columns: []codec.Column{{Type: f32}}}, "has no name"},
		"type":             {avro.Config{Registry: c, Columns: []codec.Column{{Name: "a", Type: arrow.PrimitiveTypes.Int8}}}, "is not read as int8"},
		"empty step":       {avro.Config{Registry: c, Columns: []codec.Column{{Name: "a", Path: "a..b", Type: f32}}}, "empty step"},
		"not there":        {avro.Config{Registry: c, Schema: record(`"int"`), Columns: []codec.Column{{Name: "y", Type: f32}}}, `the reader's schema has no "y"`},
		"required":         {avro.Config{Registry: c, Columns: column, Required: []string{"y"}}, `there is no column "y"`},
		"longs":            {avro.Config{Registry: c, Columns: column, Longs: "h"}, "longs"},
		"no leaf":          {avro.Config{Registry: c, Schema: `{"type":"map","values":"int"}`}, "has no leaf"},
		"bare, not bound":  {avro.Config{Framing: avro.Bare, Schema: record(`"string"`), Columns: column}, "have utf8, want float32"},
		"required, absent": {avro.Config{Framing: avro.Bare, Writers: []string{record(`"int"`)}, Columns: []codec.Column{{Name: "y", Type: f32}}, Required: []string{"y"}}, "has no field y"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if name == "no subject" { // waits the grace
				synctest.Test(t, func(t *testing.T) {
					if _, err := avro.New(t.Context(), tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
						t.Errorf("error %v, want %q", err, tt.want)
					}
				})
				return
			}
			if _, err := avro.New(ctx, tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
