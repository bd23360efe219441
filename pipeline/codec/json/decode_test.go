package json_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
)

func show32(v float32) string { return fmt.Sprintf("%g/%08x", v, math.Float32bits(v)) }
func show64(v float64) string { return fmt.Sprintf("%g/%016x", v, math.Float64bits(v)) }

// TestSyntax has documents of odd shape: whether they are JSON, and where not.
func TestSyntax(t *testing.T) {
	f := newFormat(t, json.Config{Columns: []codec.Column{{Name: "a", Type: f64}, {Name: "s", Type: str}}})
	deep := func(n int) string { return `{"z":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}` }
	for _, tc := range []struct {
		doc  string
		want string // "" for a good one, else what the fault says
	}{
		{`{}`, ""}, {` { } `, ""}, {"\t{\r\n}", ""}, {`{"a":1}`, ""}, {`{"z":[{}, [], "", 0, -0, true, false, null]}`, ""},
		{`{"z":1e5,"y":1E+5,"x":1e-5,"w":0.0e0,"v":-0.5}`, ""}, {`{"":0}`, ""}, {`{"z":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"}`, ""},
		{"{\"z\":\"\u00e9\u20ac\U0001f600\x7f\"}", ""}, {deep(json.MaxDepth), ""},
		{``, "byte 0: the document ends, want a value"}, {` `, "byte 1"}, {`{`, "byte 1: the document ends"},
		{`}`, "byte 0"}, {`{"a"}`, `byte 4: "}", want ":"`}, {`{"a":}`, "byte 5"}, {`{"a":1`, "byte 6"}, {`{"a":1,}`, "byte 7"},
		{`{,"a":1}`, "byte 1"}, {`{"a":1 "s":""}`, "byte 7"}, {`{"a":1,,"s":""}`, "byte 7"}, {`{a:1}`, "byte 1"}, {`{'a':1}`, "byte 1"},
		{`{"a":1}}`, `byte 7: "}" after the document`}, {`{"a":1}{"a":2}`, "byte 7"}, {`{"a":1} x`, "byte 8"}, {"{}\x00", "byte 2"},
		{`{"a":01}`, "byte 6"}, {`{"a":-}`, "byte 6"}, {`{"a":-01}`, "byte 7"}, {`{"a":+1}`, "byte 5"}, {`{"a":.5}`, "byte 5"}, {`{"a":5.}`, "byte 7"},
		{`{"a":1.e5}`, "byte 7"}, {`{"a":1e}`, "byte 7"}, {`{"a":1e+}`, "byte 8"}, {`{"a":1e5.5}`, "byte 8"}, {`{"a":1.2.3}`, "byte 8"},
		{`{"a":0x10}`, "byte 6"}, {`{"a":1_000}`, "byte 6"}, {`{"a":--1}`, "byte 6"}, {`{"a":1-}`, "byte 6"}, {`{"a":00}`, "byte 6"},
		{`{"z":NaN}`, "byte 5"}, {`{"z":Infinity}`, "byte 5"}, {`{"z":-Infinity}`, "byte 6"}, {`{"z":nan}`, "byte 5"},
		{`{"a":tru}`, "byte 5"}, {`{"a":True}`, "byte 5"}, {`{"a":nul}`, "byte 5"}, {`{"a":nulll}`, "byte 9"}, {`{"a":falsey}`, "byte 10"},
		{`{"s":"x}`, "byte 5: a string has no end"}, {`{"s":"\"}`, "a string has no end"}, {`{"s":"\x"}`, "byte 6"}, {`{"s":"\u12"}`, "byte 6"},
		{`{"s":"\u12g4"}`, "byte 6"}, {`{"s":"\`, "byte 6"}, {`{"s":"\U0041"}`, "byte 6"}, {`{"s":"\'"}`, "byte 6"},
		{"{\"s\":\"a\nb\"}", "byte 7: control character 0x0a"}, {"{\"s\":\"\x00\"}", "byte 6"}, {"{\"s\":\"12345678\x1f\"}", "byte 14"},
		{"{\"s\":\"\xff\"}", "byte 6: byte 0xff is not UTF-8"}, {"{\"s\":\"\xc3\"}", "byte 6"}, {"{\"s\":\"\xed\xa0\x80\"}", "byte 6"},
		{"{\"s\":\"\xc0\x80\"}", "byte 6"}, {"{\"s\":\"\xf4\x90\x80\x80\"}", "byte 6"}, {"{\"z\":\"\xff\"}", "byte 6"}, {"{\"\xff\":1}", "byte 2"},
		{"\xef\xbb\xbf{}", "byte 0"}, {"{\"a\":\u00a01}", "byte 5"}, {"{\"a\":1\v}", "byte 6"}, {"{\"a\"\f:1}", "byte 4"},
		{`{"z":[1,]}`, "byte 8"}, {`{"z":[,1]}`, "byte 6"}, {`{"z":[1 2]}`, "byte 8"}, {`{"z":[1}`, "byte 7"}, {`{"z":[`, "byte 6"}, {`{"z":{"a":1]}`, "byte 11"},
		{`{"z":{"a"}}`, "byte 9"}, {`{"z":{"a":1,}}`, "byte 12"}, {`{"z":{1:2}}`, "byte 6"}, {`{"z":[1:2]}`, "byte 7"}, {`{"z":]}`, "byte 5"},
		{`{"a":1/*x*/}`, "byte 6"}, {`{"a":1}//x`, "byte 7"}, {deep(json.MaxDepth + 1), "nested deeper than 1000"}, {strings.Repeat("[", 100_000), "nested deeper"},
		{strings.Repeat(`{"z":`, 100_000), "nested deeper"},
	} {
		row, fault := decodeOne(t, f, tc.doc)
		name := tc.doc[:min(len(tc.doc), 40)]
		switch {
		case tc.want == "" && fault != nil:
			t.Errorf("%q: %v", name, fault)
		case tc.want != "" && (fault == nil || fault.Class != codec.Syntax || !strings.Contains(fault.Error(), tc.want)):
			t.Errorf("%q: row %v, fault %v, want %q", name, row, fault, tc.want)
		}
	}
}

// TestValues has values of every type.
func TestValues(t *testing.T) {
	us := arrow.FixedWidthTypes.Timestamp_us
	ns := arrow.FixedWidthTypes.Timestamp_ns
	for _, tc := range []struct {
		typ   arrow.DataType
		value string
		want  string // a cell, or "!" and what the fault says
		c     json.Config
	}{
		{typ: f32, value: `1.5`, want: show32(1.5)}, {typ: f32, value: `-0`, want: show32(float32(math.Copysign(0, -1)))},
		{typ: f32, value: `-0.0`, want: show32(float32(math.Copysign(0, -1)))}, {typ: f32, value: `16777217`, want: show32(16777216)},
		{typ: f32, value: `16777217.000000001`, want: show32(16777218)}, {typ: f32, value: `1e-46`, want: show32(0)},
		{typ: f32, value: `1e39`, want: "!out of range"}, {typ: f64, value: `1e309`, want: "!out of range"}, {typ: f64, value: `-1e-400`, want: show64(math.Copysign(0, -1))},
		{typ: f64, value: `0.1`, want: show64(0.1)}, {typ: f64, value: `9007199254740993`, want: show64(9007199254740992)},
		{typ: f64, value: `123456789012345678901234567890`, want: show64(123456789012345678901234567890)}, {typ: f64, value: `null`, want: "null"},
		{typ: f64, value: `"1.5"`, want: `!c at byte 5: the string "1.5", want float64`}, {typ: f64, value: `true`, want: "!true, want float64"},
		{typ: f64, value: `[1]`, want: "!an array"}, {typ: f64, value: `{"x":1}`, want: "!an object"},
		{typ: f64, value: `"1.5"`, want: show64(1.5), c: json.Config{NumbersInStrings: true}},
		{typ: f64, value: `"\u0031e2"`, want: show64(100), c: json.Config{NumbersInStrings: true}},
		{typ: f64, value: `"0x1p4"`, want: "!want float64", c: json.Config{NumbersInStrings: true}},
		{typ: f64, value: `" 1"`, want: "!want float64", c: json.Config{NumbersInStrings: true}}, {typ: f64, value: `""`, want: "!want", c: json.Config{NumbersInStrings: true}},
		{typ: f64, value: `"01"`, want: "!want float64", c: json.Config{NumbersInStrings: true}}, {typ: f64, value: `"NaN"`, want: "!want", c: json.Config{NumbersInStrings: true}},
		{typ: f64, value: `"NaN"`, want: show64(math.NaN()), c: json.Config{NumbersInStrings: true, NonFinite: true}},
		{typ: f64, value: `NaN`, want: show64(math.NaN()), c: json.Config{NonFinite: true}}, {typ: f32, value: `-Infinity`, want: show32(float32(math.Inf(-1))), c: json.Config{NonFinite: true}},
		{typ: i64, value: `Infinity`, want: "!out of range", c: json.Config{NonFinite: true}}, {typ: str, value: `NaN`, want: "!want utf8", c: json.Config{NonFinite: true}},
		{typ: f64, value: `Infinite`, want: "!byte 5", c: json.Config{NonFinite: true}},
		{typ: i32, value: `2147483647`, want: "2147483647"}, {typ: i32, value: `-2147483648`, want: "-2147483648"}, {typ: i32, value: `2147483648`, want: "!out of range"},
		{typ: i32, value: `-2147483649`, want: "!out of range"}, {typ: i64, value: `9223372036854775807`, want: "9223372036854775807"},
		{typ: i64, value: `-9223372036854775808`, want: "-9223372036854775808"}, {typ: i64, value: `9223372036854775808`, want: "!out of range"},
		{typ: i64, value: `-9223372036854775809`, want: "!out of range"}, {typ: i64, value: `1.0`, want: "1"}, {typ: i64, value: `1e3`, want: "1000"}, {typ: i64, value: `1.50`, want: "!not a whole number"},
		{typ: i64, value: `12.5e1`, want: "125"}, {typ: i64, value: `1e-1`, want: "!not a whole"}, {typ: i64, value: `0e99999999999999999999`, want: "0"}, {typ: i64, value: `1e99999999999999999999`, want: "!out of range"},
		{typ: i64, value: `1e-99999999999999999999`, want: "!not a whole"}, {typ: i64, value: `-0`, want: "0"}, {typ: i64, value: `100000000000000000000e-2`, want: "1000000000000000000"},
		{typ: i64, value: `"7"`, want: "7", c: json.Config{NumbersInStrings: true}}, {typ: i64, value: `12345678901234567890123`, want: "!out of range"},
		{typ: boole, value: `true`, want: "true"}, {typ: boole, value: `false`, want: "false"}, {typ: boole, value: `1`, want: "!the number"}, {typ: boole, value: `"true"`, want: "!want bool"},
		{typ: str, value: `"a\"b\u20ac\ud83d\ude00\n"`, want: `"a\"b€😀\n"`}, {typ: str, value: `"\ud83d"`, want: `"` + "\ufffd" + `"`}, {typ: str, value: `"\ud83dx\ude00"`, want: `"` + "\ufffdx\ufffd" + `"`},
		{typ: str, value: `"\ud83d\ud83d\ude00"`, want: `"` + "\ufffd😀" + `"`}, {typ: str, value: `""`, want: `""`}, {typ: str, value: `5`, want: "!the number"}, {typ: str, value: `"\u0000"`, want: `"\x00"`},
		{typ: bin, value: `"AQI="`, want: "0102"}, {typ: bin, value: `"\u0041QI="`, want: "0102"}, {typ: bin, value: `""`, want: ""}, {typ: bin, value: `"AQI"`, want: "!not base64"}, {typ: bin, value: `[1]`, want: "!array"},
		{typ: us, value: `"1970-01-01T00:00:01.0000019Z"`, want: "1000001"}, {typ: us, value: `"1969-12-31T23:59:59.9999999Z"`, want: "-1"}, {typ: us, value: `"2024-02-29T12:00:00+01:30"`, want: "1709202600000000"},
		{typ: us, value: `"2023-02-29T12:00:00Z"`, want: "!not an RFC 3339 time"}, {typ: us, value: `"2024-01-01"`, want: "!not an RFC"}, {typ: us, value: `"2024-01-01T00:00:00"`, want: "!not an RFC"},
		{typ: us, value: `1700000000`, want: "!the number"}, {typ: ns, value: `"2262-04-11T23:47:16.854775807Z"`, want: "9223372036854775807"}, {typ: ns, value: `"2262-04-11T23:47:16.854775808Z"`, want: "!out of range"},
		{typ: ns, value: `"1677-09-21T00:12:43.145224192Z"`, want: "-9223372036854775808"}, {typ: ns, value: `"1677-09-21T00:12:43.145224191Z"`, want: "!out of range"},
		{typ: us, value: `1700000000.25`, want: "1700000000250000", c: json.Config{Time: json.Seconds}}, {typ: us, value: `-0.0000001`, want: "-1", c: json.Config{Time: json.Seconds}},
		{typ: us, value: `1700000000123`, want: "1700000000123000", c: json.Config{Time: json.Millis}}, {typ: us, value: `1700000000123456789`, want: "1700000000123456", c: json.Config{Time: json.Nanos}},
		{typ: ns, value: `1e15`, want: "!out of range", c: json.Config{Time: json.Millis}}, {typ: us, value: `"5"`, want: "5", c: json.Config{Time: json.Micros, NumbersInStrings: true}},
		{typ: us, value: `5`, want: "5000", c: json.Config{Times: map[string]json.Time{"c": json.Millis}}},
		{typ: vec3, value: `[1, 2.5,-3e0]`, want: "[" + show32(1) + " " + show32(2.5) + " " + show32(-3) + " ]"}, {typ: vec3, value: `[1,null,3]`, want: "[" + show32(1) + " null " + show32(3) + " ]"},
		{typ: vec3, value: `[1,2]`, want: "!2 elements, want 3"}, {typ: vec3, value: `[1,2,3,4]`, want: "!4 elements, want 3"}, {typ: vec3, value: `[]`, want: "!0 elements"}, {typ: vec3, value: `[1,"2",3]`, want: `!c.1 at byte 8: the string "2"`},
		{typ: vec3, value: `[1,[2],3]`, want: "!c.1"}, {typ: vec3, value: `5`, want: "!the number"}, {typ: vec3, value: `null`, want: "null"}, {typ: vec3, value: `[1,2,3,]`, want: "!byte 12"},
	} {
		c := tc.c
		c.Columns = []codec.Column{{Name: "c", Type: tc.typ}}
		row, fault := decodeOne(t, newFormat(t, c), `{"c":`+tc.value+`}`)
		why, bad := strings.CutPrefix(tc.want, "!")
		switch {
		case bad && (fault == nil || !strings.Contains(fault.Error(), why)):
			t.Errorf("%s as %s: row %v, fault %v, want %q", tc.value, tc.typ, row, fault, why)
		case !bad && (fault != nil || row[0] != tc.want):
			t.Errorf("%s as %s: row %v, fault %v, want %s", tc.value, tc.typ, row, fault, tc.want)
		}
	}
}

// TestPaths has nested values, and keys that come twice.
func TestPaths(t *testing.T) {
	f := newFormat(t, json.Config{Columns: []codec.Column{
		{Name: "x", Type: i64, Path: "a.b.c"}, {Name: "y", Type: i64, Path: "l.1.v"}, {Name: "p.q", Type: i64},
		{Name: "all", Type: vec3, Path: "w"}, {Name: "w1", Type: f32, Path: "w.1"}, {Name: "again", Type: str, Path: "s"}, {Name: "s", Type: str},
	}})
	for _, tc := range []struct{ doc, want string }{
		{`{"a":{"b":{"c":1}},"l":[0,{"v":2}],"p.q":3}`, "[1 2 3 null null null null]"},
		{`{"l":{"1":{"v":2}}}`, "[null 2 null null null null null]"},
		{`{"a":{"z":{"c":5},"b":{"z":5,"c":1,"y":[]}},"l":[]}`, "[1 null null null null null null]"},
		{`{"a":{"b":{"c":1}},"a":{"d":1}}`, "[null null null null null null null]"},
		{`{"a":{"b":{"c":1},"b":{}}}`, "[null null null null null null null]"},
		{`{"a":{"b":{"c":1,"c":2}}}`, "[2 null null null null null null]"},
		{`{"p.q":1,"p.q":null}`, "[null null null null null null null]"},
		{`{"p.q":"x","p.q":7}`, "[null null 7 null null null null]"},
		{`{"p.q":1,"p.q":"x"}`, "p.q at byte 15"},
		{`{"a":5,"a":{"b":{"c":1}}}`, "[1 null null null null null null]"},
		{`{"a":null}`, "[null null null null null null null]"}, {`{"a":{"b":null}}`, "[null null null null null null null]"},
		{`{"a":5}`, "a at byte 5: the number \"5\", want an object"}, {`{"a":{"b":[1]}}`, "a.b at byte 10: an array, want an object"},
		{`{"a":[1]}`, "a at byte 5: an array"}, {`{"l":[0,7]}`, "l.1 at byte 8: the number"},
		{`{"s":"one","s":"three"}`, `[null null null null null "three" "three"]`}, {`{"s":"one","s":"t"}`, `[null null null null null "t" "t"]`},
		{`{"w":[1,2,3]}`, "[null null null [" + show32(1) + " " + show32(2) + " " + show32(3) + " ] " + show32(2) + " null null]"},
		{`{"\u0073":"x"}`, `[null null null null null "x" "x"]`}, {`{"p\u002eq":4}`, "[null null 4 null null null null]"},
		{`[1]`, "the document at byte 0: an array, want an object"}, {`5`, "the document"}, {`null`, "the document at byte 0: null"}, {`"x"`, "the document"},
	} {
		row, fault := decodeOne(t, f, tc.doc)
		switch {
		case fault != nil && (fault.Class != codec.Invalid || !strings.Contains(fault.Error(), tc.want)):
			t.Errorf("%s: fault %v, want %s", tc.doc, fault, tc.want)
		case fault == nil && fmt.Sprint(row) != tc.want:
			t.Errorf("%s: %v, want %s", tc.doc, row, tc.want)
		}
	}
	root := newFormat(t, json.Config{Columns: []codec.Column{{Name: "x", Type: i64, Path: "0.v"}}})
	if row, fault := decodeOne(t, root, ` [{"v":5}] `); fault != nil || row[0] != "5" {
		t.Errorf("an array as document: %v, %v", row, fault)
	}
}

func TestMissing(t *testing.T) {
	cols := []codec.Column{{Name: "a", Type: i64}, {Name: "b", Type: str, Path: "n.b"}}
	for _, tc := range []struct {
		c        json.Config
		doc, why string
	}{
		{json.Config{}, `{}`, ""}, {json.Config{Missing: json.Refuse}, `{"a":1}`, "n.b: missing"}, {json.Config{Missing: json.Refuse}, `{"a":null,"n":{"b":""}}`, "a: missing"},
		{json.Config{Required: []string{"b"}}, `{"n":{"b":null}}`, "n.b: missing"}, {json.Config{Required: []string{"b"}}, `{"n":{"b":"x"}}`, ""},
	} {
		tc.c.Columns = cols
		_, fault := decodeOne(t, newFormat(t, tc.c), tc.doc)
		if tc.why == "" && fault != nil || tc.why != "" && (fault == nil || fault.Class != codec.Invalid || !strings.Contains(fault.Error(), tc.why)) {
			t.Errorf("%s: fault %v, want %q", tc.doc, fault, tc.why)
		}
	}
}

// TestBatch has tombstones, faults and rows in one call: rows after a fault hold
// nothing of it.
func TestBatch(t *testing.T) {
	f := newFormat(t, json.Config{Columns: []codec.Column{{Name: "a", Type: i32}, {Name: "s", Type: str}, {Name: "v", Type: vec3}, {Name: "o", Type: boole}}, MaxBytes: 60})
	rows, origin, faults := decode(t, f, nil, []byte(`{"a":1,"s":"one","v":[1,2,3],"o":true}`), []byte(`{"a":2,"s":"two","v":[1,null,3],"o":true`), nil,
		[]byte(`{"s":"three"}`), []byte(`{"a":9,"s":"xxxxxxxx","v":[7,7]}`), []byte(`{"o":false,"v":[4,5,6]}`), []byte(`{"s":"`+strings.Repeat("y", 60)+`"}`))
	want := "[[1 \"one\" [" + show32(1) + " " + show32(2) + " " + show32(3) + " ] true] [null \"three\" null null] [null null [" +
		show32(4) + " " + show32(5) + " " + show32(6) + " ] false]]"
	if got := fmt.Sprint(rows); got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
	if !slices.Equal(origin, []int32{1, 4, 6}) {
		t.Errorf("origin %v", origin)
	}
	var got []string
	for _, f := range faults {
		got = append(got, fmt.Sprintf("%d %s", f.Value, f.Class))
	}
	if fmt.Sprint(got) != "[2 decode 5 validation 7 size]" {
		t.Errorf("faults %v", faults)
	}
	if _, origin, _ := decode(t, f, []byte(`{}`), []byte(`{}`)); origin != nil {
		t.Errorf("origin %v where every value has a row", origin)
	}
	if rows, origin, _ := decode(t, f, nil, nil); origin == nil || len(origin) != 0 || len(rows) != 0 {
		t.Errorf("tombstones: rows %v, origin %v", rows, origin)
	}
	if rows, _, _ := decode(t, f); len(rows) != 0 {
		t.Errorf("rows %v of nothing", rows)
	}
}

func TestSchemaHeader(t *testing.T) {
	f := newFormat(t, json.Config{Columns: []codec.Column{{Name: "a", Type: i64}}, SchemaHeader: true})
	if row, fault := decodeOne(t, f, "\x00\x00\x00\x00\x07"+`{"a":5}`); fault != nil || row[0] != "5" {
		t.Errorf("row %v, fault %v", row, fault)
	}
	for _, doc := range []string{`{"a":5}`, "\x00\x00\x00\x07", "", "\x00\x00\x00\x00\x07", "\x00\x00\x00\x00\x07x"} {
		if _, fault := decodeOne(t, f, doc); fault == nil || fault.Class != codec.Syntax {
			t.Errorf("%q: %v", doc, fault)
		}
	}
	if _, fault := decodeOne(t, f, "\x00\x00\x00\x00\x07"+`{"a":x}`); fault == nil || !strings.Contains(fault.Error(), "byte 10") {
		t.Errorf("fault %v, want byte 10, counted from the header's begin", fault)
	}
}

func TestConfig(t *testing.T) {
	_, err := json.New(json.Config{
		Columns: []codec.Column{{Name: "a", Type: arrow.PrimitiveTypes.Uint8}, {Name: "b"}, {Name: "c", Type: f32}, {Name: "c", Type: f32},
			{Name: "d", Type: f32, Path: "x..y"}, {Type: f32}},
		Missing: "no", Required: []string{"z"}, Time: "min", Times: map[string]json.Time{"y": "ms", "c": "h"}, MaxBytes: -1,
	})
	for _, want := range []string{`"a": JSON is not read as uint8`, `"b"`, `"c": comes twice`, `empty step`, "no name", `missing: "no"`, `"z"`, `time: "min"`, `"y"`, `"h"`, "-1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	if _, err := json.New(json.Config{}); err == nil {
		t.Error("no columns are taken")
	}
}

func TestCancel(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer mem.AssertSize(t, 0)
	d := newFormat(t, json.Config{Columns: []codec.Column{{Name: "a", Type: i64}}}).NewDecoder(mem)
	defer d.Release()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Decode(ctx, binaryOf([]byte(`{}`))); err == nil {
		t.Error("a cancelled context is no error")
	}
}

// TestGuess has documents that begin like what was learned and then differ.
func TestGuess(t *testing.T) {
	f := newFormat(t, json.Config{Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "b", Type: str}, {Name: "c", Type: i64}}})
	first := `{"z":1,"a":1.5,"b":"x","y":[],"c":7}`
	for _, second := range []string{`{"z": 1,"a": 1.5,"b": "x","y": [],"c": 7}`, `{"z":1 ,"a":1.5 ,"b":"x" ,"y":[] ,"c":7 }`, `{ "z":1, "a":1.5, "b":"x", "y":[], "c":7}`,
		`{"z":1,"b":"x","a":1.5,"c":7,"y":[]}`, `{"a":1.5,"b":"x","c":7}`, `{"z":1,"ab":0,"a":1.5,"b":"x","bc":1,"c":7}`, `{"z":"\"a\":2","a":1.5,"b":"x","c":7.0}`,
		`{"c":7,"z":1,"a":1.5,"b":"x"}`, `{"z":1,"a":1.5,"b":"x","y":[],"c":7,"d":{}}`} {
		rows, _, faults := decode(t, f, []byte(first), []byte(second), []byte(first), []byte(second))
		want := "[" + show32(1.5) + ` "x" 7]`
		if len(faults) > 0 || fmt.Sprint(rows) != "["+strings.Join([]string{want, want, want, want}, " ")+"]" {
			t.Errorf("%s: rows %v, faults %v", second, rows, faults)
		}
	}
	for _, bad := range []string{`{"z":1,"a":1.5"b":"x"}`, `{"z":1,"a":1.5,"b":"x","y":[],"c":7`, `{"z":1,"a":1.5,"b":"x","y":[],}`, `{"z":1,"a":1.5x,"b":"x"}`, `{"z":1,"a":1.5,"b":"x","c":}`} {
		if _, _, faults := decode(t, f, []byte(first), []byte(bad)); len(faults) != 1 || faults[0].Class != codec.Syntax {
			t.Errorf("%s: %v", bad, faults)
		}
	}
}

// TestLarge has columns whose buffers do not begin at a page.
func TestLarge(t *testing.T) {
	f := newFormat(t, json.Config{Columns: []codec.Column{{Name: "a", Type: i64}, {Name: "s", Type: str}, {Name: "v", Type: vec3}, {Name: "b", Type: boole}}})
	var docs [][]byte
	for i := range 5000 {
		docs = append(docs, fmt.Appendf(nil, `{"a":%d,"s":"%d","v":[%d,1,2],"b":%t}`, i, i, i, i%3 == 0))
	}
	rows, _, faults := decode(t, f, docs...)
	if len(rows) != len(docs) || len(faults) > 0 {
		t.Fatalf("%d rows, faults %v", len(rows), faults)
	}
	for i, r := range rows {
		want := fmt.Sprintf(`[%d "%d" [%s %s %s ] %t]`, i, i, show32(float32(i)), show32(1), show32(2), i%3 == 0)
		if fmt.Sprint(r) != want {
			t.Fatalf("row %d is %v, want %s", i, r, want)
		}
	}
}

// TestParallel has decoders of one format learn from different documents at once.
func TestParallel(t *testing.T) {
	f := newFormat(t, json.Config{Columns: []codec.Column{{Name: "a", Type: i64}, {Name: "b", Type: str}}})
	docs := [][]byte{[]byte(`{"a":1,"b":"x"}`), []byte(`{"b":"x","a":1}`), []byte(`{ "a": 1, "z": [], "b": "x" }`)}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 50 {
				rows, _, faults := decode(t, f, docs[i%3], docs[(i+1)%3], docs[i%3])
				if len(faults) > 0 || fmt.Sprint(rows) != `[[1 "x"] [1 "x"] [1 "x"]]` {
					t.Error(rows, faults)
				}
			}
		})
	}
	all.Wait()
}
