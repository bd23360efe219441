package vae_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
)

// jsonRecord builds one column "c" of type t from JSON.
func jsonRecord(t testing.TB, typ arrow.DataType, text string) arrow.Record {
	t.Helper()
	a, _, err := array.FromJSON(memory.DefaultAllocator, typ, strings.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", typ, err)
	}
	schema := arrow.NewSchema([]arrow.Field{{Name: "c", Type: typ, Nullable: true}}, nil)
	return array.NewRecord(schema, []arrow.Array{a}, int64(a.Len()))
}

// profiled fits the columns of a record, added in batches of the given size.
func profiled(t testing.TB, rec arrow.Record, o vae.Overrides, batch int64) ([]vae.Column, []string) {
	t.Helper()
	p, err := vae.NewProfile(rec.Schema(), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	for from := int64(0); from < rec.NumRows(); from += batch {
		part := rec.NewSlice(from, min(from+batch, rec.NumRows()))
		if err := p.Add(part); err != nil {
			t.Fatal(err)
		}
		part.Release()
	}
	return p.Columns()
}

// packed returns the tile's values [row][input], mask [row][feature] and flags.
func packed(t testing.TB, cols []vae.Column, rec arrow.Record) (x, mask [][]float32, flags []vae.RowFlags) {
	t.Helper()
	spec := vae.Spec{Columns: cols, MaxMissing: 0.5}
	p, err := spec.NewPacker(rec.Schema())
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Bind(rec)
	if err != nil {
		t.Fatal(err)
	}
	features, inputs := spec.Inputs()
	xs, ms, missing := make([]float32, inputs*vae.TileRows), make([]float32, features*vae.TileRows), make([]uint64, features)
	flags = make([]vae.RowFlags, vae.TileRows)
	n := int(rec.NumRows())
	b.Pack(0, n, xs, vae.TileRows, 1, missing, flags)
	for f, m := range missing {
		for r := range n {
			ms[f*vae.TileRows+r] = float32(1 &^ (m >> r) & 1)
		}
	}
	rows := func(tile []float32) (out [][]float32) {
		for r := range n {
			var row []float32
			for i := r; i < len(tile); i += vae.TileRows {
				row = append(row, tile[i])
			}
			out = append(out, row)
		}
		return out
	}
	return rows(xs), rows(ms), flags[:n]
}

func TestEveryNumericTypeReadsTheSame(t *testing.T) {
	p := arrow.PrimitiveTypes
	for _, typ := range []arrow.DataType{p.Int8, p.Int16, p.Int32, p.Int64, p.Uint8, p.Uint16, p.Uint32, p.Uint64, p.Float32, p.Float64} {
		whole := jsonRecord(t, typ, `[99, 2, null, 6, 4]`)
		rec := whole.NewSlice(1, 5) // an offset must not matter
		cols, warnings := profiled(t, rec, vae.Overrides{}, 2)
		if len(cols) != 1 || len(warnings) != 0 || cols[0].Mean[0] != 4 || !cols[0].Indicator || cols[0].MissingRate != 2.0/6 {
			t.Fatalf("%s: %+v, %v", typ, cols, warnings)
		}
		x, mask, flags := packed(t, cols, rec)
		s := float32(2 / math.Sqrt(8.0/3))
		if want := [][]float32{{-s, 0}, {0, 1}, {s, 0}, {0, 0}}; !slices.EqualFunc(x, want, slices.Equal) || mask[1][0] != 0 || mask[2][0] != 1 {
			t.Errorf("%s: x %v, want %v; mask %v", typ, x, want, mask)
		}
		if flags[1] != vae.TooMissing || flags[0] != 0 {
			t.Errorf("%s: flags %v", typ, flags)
		}
	}
}

func TestTimesOfEveryUnitReadTheSame(t *testing.T) {
	parts := []string{"hour", "weekday", "monthday", "yearday"}
	var first [][]float32
	for _, typ := range []arrow.DataType{arrow.FixedWidthTypes.Timestamp_s, arrow.FixedWidthTypes.Timestamp_ms,
		arrow.FixedWidthTypes.Timestamp_us, arrow.FixedWidthTypes.Timestamp_ns, arrow.FixedWidthTypes.Date32, arrow.FixedWidthTypes.Date64} {
		rec := jsonRecord(t, typ, `["2024-02-29", "1969-12-31", null, "2026-11-24"]`)
		cols, _ := profiled(t, rec, vae.Overrides{Parts: parts}, 100)
		x, _, _ := packed(t, cols, rec)
		if first == nil {
			first = x
		}
		if len(x[0]) != 9 || !slices.EqualFunc(x, first, slices.Equal) {
			t.Errorf("%s: %v, want %v", typ, x, first)
		}
	}
}

func TestLevelsOfEveryType(t *testing.T) {
	dict := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	forced := vae.Overrides{Kinds: map[string]vae.Kind{"c": vae.Categorical}}
	for _, c := range []struct {
		typ        arrow.DataType
		text, more string
		o          vae.Overrides
	}{
		{arrow.BinaryTypes.String, `["a","b",null]`, `["b","z",null]`, vae.Overrides{}},
		{arrow.BinaryTypes.LargeString, `["a","b",null]`, `["b","z",null]`, vae.Overrides{}},
		{dict, `["a","b",null]`, `["b","z",null]`, vae.Overrides{}},
		{arrow.PrimitiveTypes.Int64, `[1,2,null]`, `[2,3,null]`, forced},
	} {
		rec, more := jsonRecord(t, c.typ, c.text), jsonRecord(t, c.typ, c.more)
		cols, _ := profiled(t, rec, c.o, 1)
		x, mask, flags := packed(t, cols, more)
		want := [][]float32{{0, 1, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 1}}
		if !slices.EqualFunc(x, want, slices.Equal) || flags[1] != vae.Unseen || mask[2][0] != 0 || mask[1][0] != 0 {
			t.Errorf("%s: x %v, mask %v, flags %v", c.typ, x, mask, flags)
		}
	}
}

func TestVectors(t *testing.T) {
	typ := arrow.ListOf(arrow.PrimitiveTypes.Float64)
	rec := jsonRecord(t, typ, `[null, [], [1,2], [3,4], [5], [7,null]]`)
	for _, batch := range []int64{1, 2, 100} { // how rows are cut must not matter
		cols, _ := profiled(t, rec, vae.Overrides{}, batch)
		if c := cols[0]; c.Width != 2 || !c.Indicator || c.MissingRate != 5.0/8 {
			t.Errorf("batches of %d: %+v", batch, c)
		}
		_, mask, flags := packed(t, cols, rec)
		if !slices.Equal(mask[5], []float32{1, 0}) || flags[1]&vae.Misfit == 0 || flags[4]&vae.Misfit == 0 || flags[0]&vae.Misfit != 0 || flags[2] != 0 {
			t.Errorf("mask %v, flags %v", mask, flags)
		}
	}
	fixed := jsonRecord(t, arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32), `[[9,9],[1,2],[3,4]]`).NewSlice(1, 3)
	cols, _ := profiled(t, fixed, vae.Overrides{}, 1)
	if x, _, _ := packed(t, cols, fixed); cols[0].Mean[1] != 3 || !slices.Equal(x[1], []float32{1, 1}) {
		t.Errorf("fixed-size list with an offset: mean %v, x %v", cols[0].Mean, x)
	}
}

func TestTransformsAndOddValues(t *testing.T) {
	f64 := arrow.PrimitiveTypes.Float64
	raw := vae.Overrides{Transforms: map[string]vae.Transform{"": vae.Raw}, Heads: map[string]vae.Head{"c": vae.Bernoulli}}
	rec := jsonRecord(t, f64, `[0, 0.25, 1, 1.5, -0.1]`)
	cols, _ := profiled(t, rec, raw, 10)
	if x, mask, flags := packed(t, cols, rec); x[1][0] != 0.25 || mask[3][0] != 0 || flags[3]&vae.Misfit == 0 || flags[4]&vae.Misfit == 0 || flags[2] != 0 {
		t.Errorf("bernoulli: %v %v %v", x, mask, flags)
	}
	rec = jsonRecord(t, f64, `[-9, 9]`)
	cols, _ = profiled(t, rec, vae.Overrides{Transforms: map[string]vae.Transform{"c": vae.Log1p}}, 10)
	if c := cols[0]; c.Mean[0] != 0 || math.Abs(c.Scale[0]-math.Log(10)) > 1e-12 {
		t.Errorf("log1p: mean %v, scale %v", c.Mean, c.Scale)
	}
	odd := xRecord(math.NaN(), math.Inf(-1), 1e300, 3)
	cols, _ = profiled(t, xRecord(3, 3, 3), vae.Overrides{}, 10)
	x, mask, flags := packed(t, cols, odd)
	if !cols[0].Constant[0] || cols[0].Scale[0] != 1 || x[2][0] != 0 || x[3][0] != 0 || cols[0].Rare[0] != 0.2 {
		t.Errorf("constant column: %+v, x %v", cols[0], x)
	}
	if mask[0][0] != 0 || flags[0]&vae.NonFinite == 0 || flags[1]&vae.NonFinite == 0 || flags[2] != 0 {
		t.Errorf("NaN and infinity: mask %v, flags %v", mask, flags)
	}
	cols, _ = profiled(t, xRecord(1e-12, 2e-12, 3e-12), vae.Overrides{}, 10)
	if cols[0].Constant[0] {
		t.Error("a column of small numbers counts as constant")
	}
}

func TestSchemaErrorListsEveryFault(t *testing.T) {
	m := mixedModel(t)
	fields := slices.Clone(mixedSchema().Fields())
	fields[0].Name = "amuont"
	fields[1].Type = arrow.BinaryTypes.String
	fields = append(fields[:8:8], arrow.Field{Name: "flag", Type: arrow.FixedWidthTypes.Boolean})
	_, err := m.NewScorer(arrow.NewSchema(fields, nil), vae.Options{})
	var se *vae.SchemaError
	if !errors.As(err, &se) || len(se.Faults) != 4 {
		t.Fatalf("got %v, want a SchemaError with 4 faults", err)
	}
	for _, want := range []string{`"amount" is missing (did you mean "amuont"?)`, `"count": its type`, `"flag" stands 2 times`, `"pair" is missing`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}

func TestProfileWarnings(t *testing.T) {
	var ids, names, rising []string
	for i := range 100 {
		ids = append(ids, `"id`+strings.Repeat("x", i)+`"`)
		names = append(names, `null`)
		rising = append(rising, strings.Repeat("1", 1+i/50)+string(rune('0'+i/10%5))+string(rune('0'+i%10)))
	}
	list := func(s []string) string { return "[" + strings.Join(s, ",") + "]" }
	for want, rec := range map[string]arrow.Record{
		"100 different values, and the 64 most frequent of those in 10 rows or more are only 0 of 100 rows": jsonRecord(t, arrow.BinaryTypes.String, list(ids)),
		"every value is missing":  jsonRecord(t, arrow.PrimitiveTypes.Float64, list(names)),
		"it rises with every row": jsonRecord(t, arrow.PrimitiveTypes.Int64, list(rising)),
		"is constant (7)":         jsonRecord(t, arrow.PrimitiveTypes.Int64, `[7,7,7]`),
		"has no numbers":          jsonRecord(t, arrow.BinaryTypes.Binary, `["aGk="]`),
		"too large":               jsonRecord(t, arrow.PrimitiveTypes.Float64, `[1e308,-1e308,1e308]`),
		"lose their last digits":  jsonRecord(t, arrow.PrimitiveTypes.Int64, `[9007199254740993,1,3]`),
	} {
		if _, warnings := profiled(t, rec, vae.Overrides{}, 7); len(warnings) != 1 || !strings.Contains(warnings[0], want) {
			t.Errorf("warnings %q, want one with %q", warnings, want)
		}
	}
	_, err := vae.NewProfile(mixedSchema(), []string{"amuont", "share"}, vae.Overrides{Heads: map[string]vae.Head{"nope": vae.Gaussian}})
	if err == nil || !strings.Contains(err.Error(), `"amuont" (did you mean "amount"?), "nope"`) {
		t.Errorf("unknown names: %v", err)
	}
}

func TestColumnsTwiceAndInAModel(t *testing.T) {
	rec := mixedRecord(300, 8)
	p, err := vae.NewProfile(rec.Schema(), []string{"count"}, vae.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Add(rec); err != nil {
		t.Fatal(err)
	}
	p.Columns()
	cols, _ := p.Columns()
	m, err := newModel(cols, 4)
	if err != nil {
		t.Fatalf("columns asked for twice make no model: %v", err)
	}
	if r := mustScore(t, m, rec, vae.Options{}); len(r.Score) != 300 || len(cols) != 8 {
		t.Errorf("%d scores, %d columns", len(r.Score), len(cols))
	}
}

func TestNamesMustBeUTF8(t *testing.T) {
	cols := mixedColumns()
	cols[5].Levels = []string{"de", "fr\xff", "us"}
	if _, err := newModel(cols, 1); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("got %v", err)
	}
}

func TestNullLevelOfADictionaryIsMissing(t *testing.T) {
	dict := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	levels, _, err := array.FromJSON(memory.DefaultAllocator, arrow.BinaryTypes.String, strings.NewReader(`["a", null]`))
	if err != nil {
		t.Fatal(err)
	}
	index, _, err := array.FromJSON(memory.DefaultAllocator, arrow.PrimitiveTypes.Int8, strings.NewReader(`[0, 1]`))
	if err != nil {
		t.Fatal(err)
	}
	schema := arrow.NewSchema([]arrow.Field{{Name: "c", Type: dict, Nullable: true}}, nil)
	rec := array.NewRecord(schema, []arrow.Array{array.NewDictionaryArray(dict, index, levels)}, 2)
	cols, _ := profiled(t, rec, vae.Overrides{}, 10)
	if _, mask, _ := packed(t, cols, rec); !slices.Equal(cols[0].Levels, []string{"a"}) || mask[0][0] != 1 || mask[1][0] != 0 {
		t.Errorf("levels %q, mask %v", cols[0].Levels, mask)
	}
}
