package json_test

import (
	"bytes"
	"encoding/base64"
	stdjson "encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
)

// oracleColumns are what the random documents are read as: every type, nested
// paths, a value that is also a parent.
var oracleColumns = []codec.Column{
	{Name: "a", Type: f32}, {Name: "b", Type: f64}, {Name: "i", Type: i32}, {Name: "j", Type: i64}, {Name: "t", Type: boole},
	{Name: "s", Type: str}, {Name: "x", Type: bin}, {Name: "v", Type: vec3},
	{Name: "at", Type: arrow.FixedWidthTypes.Timestamp_ms}, {Name: "n.a", Type: f64, Path: "n.a"}, {Name: "v1", Type: f64, Path: "v.1"},
	{Name: "deep", Type: i64, Path: "n.l.0.q"},
}

// oracle says what a document becomes, by encoding/json, strconv, math/big and
// time; ok is false when it has no row.
func oracle(doc string, numbersInStrings bool, cols []codec.Column) (row []string, class codec.Class) {
	if !stdjson.Valid([]byte(doc)) || !utf8.ValidString(doc) || depthOf(doc) > json.MaxDepth {
		return nil, codec.Syntax
	}
	dec := stdjson.NewDecoder(strings.NewReader(doc))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, codec.Syntax
	}
	if _, ok := v.(map[string]any); !ok {
		return nil, codec.Invalid
	}
	for _, c := range cols {
		path := []string{c.Name}
		if c.Path != "" {
			path = strings.Split(c.Path, ".")
		}
		leaf, ok := walk(v, path)
		if !ok {
			return nil, codec.Invalid
		}
		text, ok := become(leaf, c.Type, numbersInStrings)
		if !ok {
			return nil, codec.Invalid
		}
		row = append(row, text)
	}
	return row, ""
}

func depthOf(doc string) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '[' || c == '{'):
			depth++
			deepest = max(deepest, depth)
		case !quoted && (c == ']' || c == '}'):
			depth--
		}
	}
	return deepest
}

// walk returns the value at a path, nil where there is none.
func walk(v any, path []string) (any, bool) {
	for _, step := range path {
		switch in := v.(type) {
		case nil:
			return nil, true
		case map[string]any:
			v = in[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil {
				return nil, false
			}
			v = nil
			if i < len(in) {
				v = in[i]
			}
		default:
			return nil, false
		}
	}
	return v, true
}

func numberOf(v any, inStrings bool) (string, bool) {
	switch v := v.(type) {
	case stdjson.Number:
		return string(v), true
	case string:
		var n stdjson.Number
		if inStrings && stdjson.Unmarshal([]byte(v), &n) == nil && strings.TrimSpace(v) == v && v != "null" && v[0] != '"' {
			return v, true
		}
	}
	return "", false
}

// become returns the cell that a value becomes.
func become(v any, t arrow.DataType, inStrings bool) (string, bool) {
	if v == nil {
		return "null", true
	}
	switch t.ID() {
	case arrow.FLOAT32, arrow.FLOAT64:
		n, ok := numberOf(v, inStrings)
		bits := t.(arrow.FixedWidthDataType).BitWidth()
		x, err := strconv.ParseFloat(n, bits)
		if bits == 32 {
			return show32(float32(x)), ok && err == nil
		}
		return show64(x), ok && err == nil
	case arrow.INT32, arrow.INT64:
		n, ok := numberOf(v, inStrings)
		digits, exp, _ := strings.Cut(strings.ToLower(n), "e")
		if !ok || len(strings.TrimLeft(exp, "+-0")) > 4 { // too much for a big.Rat
			return "0", ok && strings.Trim(digits, "-0.") == ""
		}
		r, ok := new(big.Rat).SetString(n)
		if !ok || !r.IsInt() || !r.Num().IsInt64() {
			return "", false
		}
		x := r.Num().Int64()
		return fmt.Sprint(x), t.ID() == arrow.INT64 || int64(int32(x)) == x
	case arrow.BOOL:
		b, ok := v.(bool)
		return fmt.Sprint(b), ok
	case arrow.STRING:
		s, ok := v.(string)
		return fmt.Sprintf("%q", s), ok
	case arrow.BINARY:
		s, ok := v.(string)
		b, err := base64.StdEncoding.DecodeString(s)
		return fmt.Sprintf("%x", b), ok && err == nil
	case arrow.TIMESTAMP:
		s, ok := v.(string)
		at, err := time.Parse(time.RFC3339Nano, s)
		return fmt.Sprint(at.UnixMilli()), ok && err == nil
	}
	l, ok := v.([]any)
	if !ok || len(l) != 3 {
		return "", false
	}
	s := "["
	for _, e := range l {
		c, ok := become(e, f32, inStrings)
		if !ok {
			return "", false
		}
		s += c + " "
	}
	return s + "]", true
}

// numeral draws numbers of all shapes: those of the short cut and those around it.
func numeral(t *rapid.T) string {
	switch rapid.IntRange(0, 6).Draw(t, "shape") {
	case 0:
		return strconv.FormatFloat(rapid.Float64().Draw(t, "f"), 'g', -1, 64)
	case 1:
		return strconv.FormatFloat(float64(rapid.Float32().Draw(t, "f")), 'f', rapid.IntRange(-1, 12).Draw(t, "places"), 32)
	case 2:
		return fmt.Sprint(rapid.Int64().Draw(t, "i"))
	case 3: // the middle between two float32, and its neighbours
		x := rapid.Float32Range(1e-3, 1e6).Draw(t, "f")
		mid := (float64(x) + float64(math.Nextafter32(x, 2e6))) / 2
		return strconv.FormatFloat(mid, 'f', rapid.IntRange(3, 20).Draw(t, "places"), 64)
	case 4:
		return fmt.Sprintf("%d.%0*d", rapid.IntRange(-999, 999).Draw(t, "i"), rapid.IntRange(1, 12).Draw(t, "places"), rapid.IntRange(0, 1e9).Draw(t, "frac"))
	case 5:
		return rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "n")
	}
	return rapid.StringMatching(`[-+]?[0-9.eE]{1,6}`).Draw(t, "odd")
}

// text draws strings in JSON's notation.
func text(t *rapid.T) string {
	switch rapid.IntRange(0, 4).Draw(t, "shape") {
	case 0:
		b, err := stdjson.Marshal(rapid.String().Draw(t, "s"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	case 1:
		return `"` + rapid.StringMatching(`([a-z ]|\\u[0-9a-fA-F]{4}|\\ud[89ab]00|\\ud[c-f]00|\\[nrtbf"/\\]){0,12}`).Draw(t, "s") + `"`
	case 2:
		return `"` + numeral(t) + `"`
	case 3:
		at := time.UnixMilli(rapid.Int64Range(-1e13, 1e14).Draw(t, "ms")).In(time.FixedZone("", 60*rapid.IntRange(-800, 800).Draw(t, "zone")))
		return `"` + at.Format(time.RFC3339Nano) + `"`
	}
	return `"` + base64.StdEncoding.EncodeToString(rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "b")) + `"`
}

func blank(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "", "", " ", "\n\t", "\r "}).Draw(t, "blank")
}

func value(t *rapid.T, depth int) string {
	n := 7
	if depth <= 0 {
		n = 5
	}
	switch rapid.IntRange(0, n).Draw(t, "kind") {
	case 0, 1, 2:
		return numeral(t)
	case 3, 4:
		return text(t)
	case 5:
		return rapid.SampledFrom([]string{"null", "true", "false"}).Draw(t, "literal")
	case 6:
		s := "[" + blank(t)
		for i := range rapid.IntRange(0, 4).Draw(t, "n") {
			if i > 0 {
				s += blank(t) + "," + blank(t)
			}
			s += value(t, depth-1)
		}
		return s + blank(t) + "]"
	}
	return object(t, depth-1)
}

var oracleKeys = []string{`"a"`, `"b"`, `"i"`, `"j"`, `"t"`, `"s"`, `"x"`, `"v"`, `"at"`, `"n"`, `"l"`, `"q"`, `"z"`, `"\u0061"`, `"0"`, `"a longer key than most"`}

// fit draws a value that the column of a key most likely can hold.
func fit(t *rapid.T, key string, depth int) string {
	if rapid.IntRange(0, 9).Draw(t, "any") == 0 {
		return value(t, depth)
	}
	switch key {
	case `"a"`, `"b"`:
		return numeral(t)
	case `"i"`, `"j"`, `"q"`:
		return fmt.Sprint(rapid.Int32().Draw(t, "i"))
	case `"t"`:
		return rapid.SampledFrom([]string{"null", "true", "false"}).Draw(t, "literal")
	case `"v"`:
		return "[" + numeral(t) + "," + numeral(t) + ", " + numeral(t) + "]"
	case `"s"`:
		return text(t)
	case `"x"`:
		return `"` + base64.StdEncoding.EncodeToString(rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "b")) + `"`
	case `"at"`:
		return `"` + time.UnixMilli(rapid.Int64Range(-1e13, 1e14).Draw(t, "ms")).UTC().Format(time.RFC3339Nano) + `"`
	case `"n"`:
		return object(t, depth-1)
	case `"l"`:
		return "[" + object(t, depth-1) + "]"
	}
	return value(t, depth)
}

func object(t *rapid.T, depth int) string {
	s := "{" + blank(t)
	if depth > -3 {
		for i := range rapid.IntRange(0, 6).Draw(t, "fields") {
			if i > 0 {
				s += blank(t) + "," + blank(t)
			}
			k := rapid.SampledFrom(oracleKeys).Draw(t, "key")
			s += k + blank(t) + ":" + blank(t) + fit(t, k, depth)
		}
	}
	return s + blank(t) + "}"
}

// mutate changes a byte, drops one, or puts one in.
func mutate(t *rapid.T, doc string) string {
	if len(doc) == 0 || rapid.IntRange(0, 3).Draw(t, "mutate") > 0 {
		return doc
	}
	i := rapid.IntRange(0, len(doc)-1).Draw(t, "where")
	with := rapid.SampledFrom([]string{"", "\"", "\\", "{", "}", "[", "]", ",", ":", "0", "9", ".", "-", "e", " ", "\x00", "\xff", "n", "\u00e9"}).Draw(t, "with")
	return doc[:i] + with + doc[i+rapid.IntRange(0, 1).Draw(t, "cut"):]
}

// TestOracle reads random documents, several with one decoder, so that what it
// learned of one meets the next.
func TestOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inStrings := rapid.Bool().Draw(t, "numbers in strings")
		cols := oracleColumns
		if rapid.Bool().Draw(t, "few") {
			cols = cols[:rapid.IntRange(1, len(cols)).Draw(t, "columns")]
		}
		f, err := json.New(json.Config{Columns: cols, NumbersInStrings: inStrings})
		if err != nil {
			t.Fatal(err)
		}
		var docs [][]byte
		for range rapid.IntRange(1, 6).Draw(t, "docs") {
			docs = append(docs, []byte(mutate(t, object(t, 2))))
		}
		for k, form := range []*json.Format{f, json.Exact(f)} {
			compare(t, form, docs, inStrings, cols, k)
		}
	})
}

// compare checks what a format makes of documents against the oracle.
func compare(t rapid.TB, f *json.Format, docs [][]byte, inStrings bool, cols []codec.Column, exact int) {
	t.Helper()
	rows, origin, faults := decodeAny(t, f, docs)
	at := 0
	for i, doc := range docs {
		want, class := oracle(string(doc), inStrings, cols)
		if class != "" {
			k := len(faults)
			for j := range faults {
				if faults[j].Value == i {
					k = j
				}
			}
			if k == len(faults) || faults[k].Class != class {
				t.Fatalf("exact %d: %q: faults %v, want %s", exact, doc, faults, class)
			}
			continue
		}
		if at >= len(rows) || origin != nil && origin[at] != int32(i) || fmt.Sprint(rows[at]) != fmt.Sprint(want) {
			t.Fatalf("exact %d: %q: rows %v, faults %v, want %v", exact, doc, rows, faults, want)
		}
		at++
	}
	if at != len(rows) {
		t.Fatalf("exact %d: %d rows, want %d", exact, len(rows), at)
	}
}

// TestFloats compares float32 and float64 with strconv, number by number.
func TestFloats(t *testing.T) {
	f := newFormat(t, json.Config{Columns: []codec.Column{{Name: "a", Type: f32}, {Name: "b", Type: f64, Path: "a"}, {Name: "c", Type: f32}, {Name: "d", Type: f64}}})
	rapid.Check(t, func(t *rapid.T) {
		var docs [][]byte
		var want []string
		for range 40 {
			n := numeral(t)
			if !stdjson.Valid([]byte(n)) {
				continue
			}
			x, err32 := strconv.ParseFloat(n, 32)
			y, err64 := strconv.ParseFloat(n, 64)
			if err32 != nil || err64 != nil {
				continue
			}
			docs = append(docs, fmt.Appendf(nil, `{"a":%s,"c":%s,"d":%s , "longer":"................."}`, n, n, n), fmt.Appendf(nil, `{"a":%s,"c":%s,"d":%s}`, n, n, n))
			row := fmt.Sprint([]string{show32(float32(x)), show64(y), show32(float32(x)), show64(y)})
			want = append(want, row, row)
		}
		rows, _, faults := decodeAny(t, f, docs)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		for i := range rows {
			if fmt.Sprint(rows[i]) != want[i] {
				t.Fatalf("%s: %v, want %v", docs[i], rows[i], want[i])
			}
		}
	})
}

// FuzzDecode compares fast, exact and the oracle. The second document of each call
// is read with what the first one taught.
func FuzzDecode(f *testing.F) {
	for _, doc := range []string{`{"a":1.5,"b":-2e3,"i":7}`, `{"n":{"a":1,"l":[{"q":5}]},"v":[1,2,3]}`, `{"s":"\u00e9","x":"AQI=","at":"2024-01-01T00:00:00Z"}`,
		`{"a":1,"a":"x","a":null}`, `{"t":true,"z":[[[]]]}`, `{"a":0.30000001192092896,"j":9223372036854775807}`} {
		f.Add(doc, `{"a":2.5,"b":1,"i":8}`)
		f.Add(doc, doc)
	}
	forms := map[bool]*json.Format{}
	for _, in := range []bool{false, true} {
		forms[in] = newFormat(f, json.Config{Columns: oracleColumns, NumbersInStrings: in})
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		docs := [][]byte{[]byte(first), []byte(second), []byte(first)}
		for in, form := range forms {
			compare(t, form, docs, in, oracleColumns, 0)
			compare(t, json.Exact(form), docs, in, oracleColumns, 1)
		}
	})
}

// TestLearnsNoMore has ever new keys: what a decoder learns is bounded, and the
// rows are right all the same.
func TestLearnsNoMore(t *testing.T) {
	f := newFormat(t, json.Config{Columns: []codec.Column{{Name: "a", Type: i64}, {Name: "s", Type: str}}})
	var docs [][]byte
	for i := range 5000 {
		docs = append(docs, fmt.Appendf(nil, `{"k%d":1,"a":%d,"%s":2,"s":"%d"}`, i, i, bytes.Repeat([]byte("y"), i%600), i))
	}
	rows, _, faults := decode(t, f, docs...)
	if len(faults) > 0 || len(rows) != len(docs) {
		t.Fatalf("%d rows, faults %v", len(rows), faults)
	}
	for i, r := range rows {
		if r[0] != fmt.Sprint(i) || r[1] != fmt.Sprintf("%q", fmt.Sprint(i)) {
			t.Fatalf("row %d is %v", i, r)
		}
	}
}
