package columns_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/operators/columns"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// one is a record of one column per type, read from JSON.
func one(json string, types ...arrow.DataType) arrow.Record {
	var fields []arrow.Field
	for i, t := range types {
		fields = append(fields, arrow.Field{Name: string(rune('a' + i)), Type: t, Nullable: true})
	}
	rec, _, err := array.RecordFromJSON(memory.NewGoAllocator(), arrow.NewSchema(fields, nil), strings.NewReader(json))
	if err != nil {
		panic(err)
	}
	return rec
}

var (
	f32, f64 = arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64
	i64, u64 = arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Uint64
	text     = arrow.BinaryTypes.String
	flag     = arrow.FixedWidthTypes.Boolean
)

func TestConformance(t *testing.T) {
	in := one(`[{"a":1,"b":"2.5","c":true},{"a":null,"b":null,"c":null},{"a":-7,"b":"1e3","c":false}]`, i64, text, flag)
	pipelinetest.Operator(t, pipelinetest.OperatorTest{Inputs: []arrow.Record{in},
		New: func(t *testing.T, mem memory.Allocator) pipeline.Operator {
			op, err := columns.New(columns.Config{Keep: []string{"b", "a"}, Cast: map[string]string{"b": "float64", "a": "string"},
				Rename: map[string]string{"b": "x"}, Allocator: mem})
			if err != nil {
				t.Fatal(err)
			}
			return op
		}})
}

func TestCasts(t *testing.T) {
	for _, c := range []struct {
		json string
		from arrow.DataType
		to   string
		want string // empty: an error that names the row
	}{
		{`[{"a":9007199254740992},{"a":1152921504606846976}]`, i64, "float64", "[9.007199254740992e+15 1.152921504606847e+18]"},
		{`[{"a":"9007199254740993"}]`, i64, "float64", ""},
		{`[{"a":18446744073709551615}]`, u64, "int64", ""},
		{`[{"a":2147483648}]`, i64, "int32", ""},
		{`[{"a":-2147483648}]`, i64, "int32", "[-2147483648]"},
		{`[{"a":2.5}]`, f64, "int64", ""},
		{`[{"a":-3}]`, f64, "int64", "[-3]"},
		{`[{"a":1e39}]`, f64, "float32", ""},
		{`[{"a":0.1}]`, f64, "float32", "[0.1]"},
		{`[{"a":0.1}]`, f32, "float64", "[0.10000000149011612]"},
		{`[{"a":"12"},{"a":null},{"a":"1e2"}]`, text, "int64", "[12 (null) 100]"},
		{`[{"a":"9007199254740993.0"}]`, text, "int64", ""},
		{`[{"a":"x"}]`, text, "float32", ""},
		{`[{"a":"maybe"}]`, text, "bool", ""},
		{`[{"a":1},{"a":0}]`, i64, "bool", "[true false]"},
		{`[{"a":2}]`, i64, "bool", ""},
		{`[{"a":true},{"a":false}]`, flag, "int32", "[1 0]"},
		{`[{"a":true}]`, flag, "string", `["true"]`},
	} {
		in := one(c.json, c.from)
		op, err := columns.New(columns.Config{Cast: map[string]string{"a": c.to}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Bind(in.Schema()); err != nil {
			t.Fatal(err)
		}
		out, err := op.Apply(t.Context(), in)
		if c.want == "" {
			if err == nil || !strings.Contains(err.Error(), `cast of "a": row 0`) {
				t.Errorf("%s to %s: error %v, want one that names column and row", c.json, c.to, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s to %s: %v", c.json, c.to, err)
		} else if got := fmt.Sprint(out.Column(0)); got != c.want {
			t.Errorf("%s to %s: %s, want %s", c.json, c.to, got, c.want)
		}
	}
}

func TestFaults(t *testing.T) {
	_, err := columns.New(columns.Config{Keep: []string{"a", "b"}, Drop: []string{"b"}, Cast: map[string]string{"a": "flaot32", "c": "bool"},
		Rename: map[string]string{"a": "", "d": "e"}})
	for _, want := range []string{`"b" is both`, `unknown type "flaot32"`, `cast of "c"`, `rename of "a"`, `rename of "d"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want %s in it", err, want)
		}
	}
	bind := func(c columns.Config, wants ...string) {
		t.Helper()
		op, err := columns.New(c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = op.Bind(one(`[]`, i64, text, arrow.ListOf(f64)).Schema())
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Bind: %v, want %s in it", err, want)
			}
		}
	}
	bind(columns.Config{Drop: []string{"x"}, Rename: map[string]string{"y": "z"}, Cast: map[string]string{"w": "bool"}}, `drop "x"`, `rename "y"`, `cast "w"`)
	bind(columns.Config{Keep: []string{"v"}}, `keep "v"`)
	bind(columns.Config{Rename: map[string]string{"a": "b"}, Cast: map[string]string{"c": "string"}}, `two columns would be named "b"`, `cast of "c"`)
}

func ExampleNew() {
	op, err := columns.New(columns.Config{Drop: []string{"a"}, Rename: map[string]string{"b": "amount"}, Cast: map[string]string{"b": "float64"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	in := one(`[{"a":1,"b":"2.5"}]`, i64, text)
	defer in.Release()
	out, err := op.Bind(in.Schema())
	if err != nil {
		fmt.Println(err)
		return
	}
	rec, err := op.Apply(context.Background(), in)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer rec.Release()
	fmt.Println(out.Field(0).Name, rec.Column(0))
	// Output: amount [2.5]
}
