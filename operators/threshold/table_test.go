package threshold_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/operators/threshold"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// table has limits for a and b; its keys' scores say which.
func table(t testing.TB) *threshold.Table {
	t.Helper()
	many := func(v float32) []float32 { return slices.Repeat([]float32{v}, threshold.MinKeyRows) }
	tab, err := threshold.BuildTable(threshold.Table{Model: "m@1", By: "key", Rule: "rate", TargetRate: 0.01, Limit: 5, Rows: 1000},
		map[string][]float32{"a": many(1), "b": many(9), "few": many(2)[1:], "refused": many(-1),
			"\xff": many(3), strings.Repeat("x", 1025): many(3)},
		func(s []float32) (float64, bool) { return float64(s[0]), s[0] >= 0 })
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func TestTable(t *testing.T) {
	tab := table(t)
	if len(tab.Keys) != 2 || tab.FewKeys != 4 {
		t.Errorf("keys %v, %d with few rows", tab.Keys, tab.FewKeys)
	}
	for key, want := range map[string]float64{"a": 1, "b": 9, "few": 5, "refused": 5, "": 5} {
		if got, own := tab.LimitOf([]byte(key)); got != want || own != (key == "a" || key == "b") {
			t.Errorf("LimitOf(%q) = %g, %v, want %g", key, got, own, want)
		}
	}
	b, err := tab.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "limits.json")
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	back, err := threshold.LoadTable(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := back.Encode(); err != nil || !bytes.Equal(again, b) {
		t.Errorf("read back: %v\n%s\nwant\n%s", err, again, b)
	}
	if _, err := threshold.LoadTable(path + "x"); err == nil {
		t.Error("a table that is not there was read")
	}
}

func TestTableFaults(t *testing.T) {
	b, err := table(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 1025)
	for want, edit := range map[string][2]string{
		"unknown field":    {`"by"`, `"bye"`},
		"no table":         {`{`, `[`},
		"reads elbo-limit": {`"elbo-limits"`, `"limits"`},
		"version 2":        {`"version": 1`, `"version": 2`},
		"no key column":    {`"by": "key"`, `"by": ""`},
		"no share":         {`"target_rate": 0.01`, `"target_rate": 2`},
		"must rise":        {`"key": "b"`, `"key": "a"`},
		"1025 bytes":       {`"key": "b"`, `"key": "` + long + `"`},
		"limit 9 of -1":    {`"limit": 9,` + "\n   " + `"rows": 200`, `"limit": 9,"rows": -1`},
		"1e999":            {`"limit": 5`, `"limit": 1e999`},
		"few":              {`"few_keys": 4`, `"few_keys": -2`},
	} {
		text := strings.Replace(string(b), edit[0], edit[1], 1)
		if _, err := threshold.ParseTable([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s for %s: %v, want an error with %q", edit[1], edit[0], err, want)
		}
	}
	if _, err := threshold.ParseTable(append(b, "{}"...)); err == nil || !strings.Contains(err.Error(), "more follows") {
		t.Errorf("two tables: %v", err)
	}
	if _, err := threshold.BuildTable(threshold.Table{By: "key", Limit: math.NaN()}, nil, nil); err == nil {
		t.Error("a table with a NaN was made")
	}
}

func FuzzParseTable(f *testing.F) {
	b, err := table(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":"elbo-limits","version":1,"by":"k","limit":1,"keys":[{"key":"","limit":0,"rows":0}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		tab, err := threshold.ParseTable(b)
		if err != nil {
			return
		}
		text, err := tab.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := threshold.ParseTable(text)
		if err != nil {
			t.Fatalf("a table that was taken is refused when written again: %v", err)
		}
		for _, k := range tab.Keys {
			if got, own := back.LimitOf([]byte(k.Key)); !own || got != k.Limit {
				t.Fatalf("limit of %q: %g, want %g", k.Key, got, k.Limit)
			}
		}
	})
}

// columnOf makes a column of a type from texts; an empty one is null.
func columnOf(t testing.TB, typ arrow.DataType, texts ...string) arrow.Array {
	t.Helper()
	b := array.NewBuilder(memory.NewGoAllocator(), typ)
	defer b.Release()
	for _, s := range texts {
		if s == "" {
			b.AppendNull()
		} else if err := b.AppendValueFromString(s); err != nil {
			t.Fatal(err)
		}
	}
	return b.NewArray()
}

func TestKeys(t *testing.T) {
	dict := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int16, ValueType: arrow.BinaryTypes.String}
	for _, c := range []struct {
		typ   arrow.DataType
		texts []string
	}{
		{arrow.BinaryTypes.String, []string{"a", "", "ü"}}, {arrow.BinaryTypes.LargeString, []string{"a", "", "b"}},
		{dict, []string{"b", "", "a", "b"}}, {arrow.FixedWidthTypes.Boolean, []string{"true", "", "false"}},
		{arrow.PrimitiveTypes.Int8, []string{"-128", "7"}}, {arrow.PrimitiveTypes.Int16, []string{"-9", "7"}},
		{arrow.PrimitiveTypes.Int32, []string{"-9", "7"}}, {arrow.PrimitiveTypes.Int64, []string{"-9223372036854775808", "7"}},
		{arrow.PrimitiveTypes.Uint8, []string{"255"}}, {arrow.PrimitiveTypes.Uint16, []string{"65535"}},
		{arrow.PrimitiveTypes.Uint32, []string{"4294967295"}}, {arrow.PrimitiveTypes.Uint64, []string{"18446744073709551615"}},
	} {
		a := columnOf(t, c.typ, c.texts...)
		read, err := threshold.Keys(a)
		if err != nil {
			t.Fatalf("%s: %v", c.typ, err)
		}
		for i, want := range c.texts {
			if a.IsValid(i) && string(read(nil, i)) != want {
				t.Errorf("%s: key %q, want %q", c.typ, read(nil, i), want)
			}
		}
	}
	if _, err := threshold.Keys(columnOf(t, arrow.PrimitiveTypes.Float64, "1")); err == nil || !strings.Contains(err.Error(), "whole numbers") {
		t.Errorf("a key of floats: %v", err)
	}
	if err := threshold.CheckKey(&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.PrimitiveTypes.Float32}); err == nil {
		t.Error("a dictionary of floats was taken")
	}
}

// keyed makes rows of p 0.5 with keys a, b, c and null; dict makes their column a
// dictionary.
func keyed(t testing.TB, scores []float32, keys []string, dict bool) arrow.Record {
	t.Helper()
	in := rows(make([]float64, len(scores)), scores, keys)
	if !dict {
		return in
	}
	defer in.Release()
	typ := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
	fields := slices.Clone(in.Schema().Fields())
	fields[3].Type = typ
	columns := slices.Clone(in.Columns())
	columns[3] = columnOf(t, typ, keys...)
	return array.NewRecord(arrow.NewSchema(fields, nil), columns, in.NumRows())
}

func TestRuleByKey(t *testing.T) {
	scores, keys := []float32{1, 1.5, 8, 9.5, 6, 4, 6, 4}, []string{"a", "a", "b", "b", "c", "c", "", ""}
	for _, dict := range []bool{false, true} {
		in := keyed(t, scores, keys, dict)
		op, err := threshold.New(threshold.Config{Table: table(t)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Bind(in.Schema()); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(verdicts(t, op, in)); got != "[false true false true true false true false]" {
			t.Errorf("dictionary %v: %s", dict, got)
		}
	}
}

func TestTableConformance(t *testing.T) {
	var scores []float32
	var keys []string
	for i := range 300 {
		scores, keys = append(scores, float32(i%12)), append(keys, []string{"a", "b", "c", ""}[i%4])
	}
	for _, dict := range []bool{false, true} {
		pipelinetest.Operator(t, pipelinetest.OperatorTest{Inputs: []arrow.Record{keyed(t, scores, keys, dict)},
			New: func(t *testing.T, mem memory.Allocator) pipeline.Operator {
				op, err := threshold.New(threshold.Config{Table: table(t), Allocator: mem})
				if err != nil {
					t.Fatal(err)
				}
				return op
			}})
	}
}

func TestBindFaults(t *testing.T) {
	five := 5.0
	in := rows([]float64{1}, nil, nil)
	meta := arrow.MetadataFrom(map[string]string{score.MetaModel: "other@2"})
	other := arrow.NewSchema(in.Schema().Fields(), &meta)
	for want, c := range map[string]threshold.Config{
		`0 columns "shop"`:       {Table: table(t), By: "shop"},
		"is no key":              {Table: table(t), By: score.Score},
		"scores of model m@1":    {Table: table(t)},
		"scores of model mine@3": {Above: &five, Model: "mine@3"},
	} {
		op, err := threshold.New(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Bind(other); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Bind: %v, want an error with %q", err, want)
		}
	}
	for _, c := range []threshold.Config{{Table: table(t), Above: &five}, {Above: &five, By: "key"}, {Table: table(t), Column: "x"}} {
		if _, err := threshold.New(c); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
}

// Whatever keys a table is made of, it can be read again.
func TestTableRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		groups := map[string][]float32{}
		for _, key := range rapid.SliceOfN(rapid.StringN(0, 20, 60), 0, 30).Draw(t, "keys") {
			groups[strings.ToValidUTF8(key, "?")] = make([]float32, threshold.MinKeyRows)
		}
		tab, err := threshold.BuildTable(threshold.Table{By: "k"}, groups, func([]float32) (float64, bool) { return 3, true })
		if err != nil {
			t.Fatal(err)
		}
		text, err := tab.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := threshold.ParseTable(text)
		if err != nil || !json.Valid(text) {
			t.Fatal(err)
		}
		for key := range groups {
			if l, own := back.LimitOf([]byte(key)); !own || l != 3 {
				t.Fatalf("key %q: %g", key, l)
			}
		}
	})
}

func ExampleTable() {
	t, err := threshold.ParseTable([]byte(`{"format": "elbo-limits", "version": 1, "by": "shop", "limit": 9,
		"keys": [{"key": "bakery", "limit": 4.5, "rows": 800}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(t.LimitOf([]byte("bakery")))
	fmt.Println(t.LimitOf([]byte("kiosk")))
	// Output:
	// 4.5 true
	// 9 false
}
