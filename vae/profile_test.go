package vae_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
)

// textRecord is a record of one column "c" of n rows, made of what its cells read
// like; "" is null.
func textRecord(t *testing.T, typ arrow.DataType, n int, cell func(i int) string) arrow.Record {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{{Name: "c", Type: typ, Nullable: true}}, nil)
	b := array.NewBuilder(memory.DefaultAllocator, typ)
	defer b.Release()
	for i := range n {
		if s := cell(i); s == "" {
			b.AppendNull()
		} else if err := b.AppendValueFromString(s); err != nil {
			t.Fatal(err)
		}
	}
	return array.NewRecord(schema, []arrow.Array{b.NewArray()}, int64(n))
}

// Kinds follow from types, and from values only where a number is 0 or 1.
func TestKinds(t *testing.T) {
	p, w := arrow.PrimitiveTypes, arrow.FixedWidthTypes
	small := func(i int) string { return fmt.Sprint(i % 3) }
	truth := func(i int) string { return fmt.Sprint(i % 2) }
	day := func(i int) string { return fmt.Sprintf("2024-05-%02d", 1+i%28) }
	word := func(i int) string { return []string{"red", "green", ""}[i%3] }
	yes := func(i int) string { return []string{"true", "false", "false"}[i%3] }
	asked := vae.Overrides{Kinds: map[string]vae.Kind{"c": vae.Categorical}}
	number := vae.Overrides{Kinds: map[string]vae.Kind{"c": vae.Numeric}}
	for _, c := range []struct {
		name  string
		typ   arrow.DataType
		cell  func(int) string
		over  vae.Overrides
		kind  vae.Kind
		head  vae.Head
		parts []string
	}{
		{"small integers are numbers", p.Int8, small, vae.Overrides{}, vae.Numeric, vae.Gaussian, nil},
		{"unless asked for", p.Int8, small, asked, vae.Categorical, vae.CategoricalHead, nil},
		{"zeros and ones are booleans", p.Uint16, truth, vae.Overrides{}, vae.Boolean, vae.Bernoulli, nil},
		{"zeros and ones of floats too", p.Float32, truth, vae.Overrides{}, vae.Boolean, vae.Bernoulli, nil},
		{"unless numbers are asked for", p.Float32, truth, number, vae.Numeric, vae.Gaussian, nil},
		{"booleans", w.Boolean, yes, vae.Overrides{}, vae.Boolean, vae.Bernoulli, nil},
		{"booleans as numbers", w.Boolean, yes, number, vae.Numeric, vae.Gaussian, nil},
		{"booleans as levels", w.Boolean, yes, asked, vae.Categorical, vae.CategoricalHead, nil},
		{"strings", arrow.BinaryTypes.String, word, vae.Overrides{}, vae.Categorical, vae.CategoricalHead, nil},
		{"dictionaries", &arrow.DictionaryType{IndexType: p.Uint8, ValueType: arrow.BinaryTypes.String}, word, vae.Overrides{}, vae.Categorical, vae.CategoricalHead, nil},
		{"times", w.Timestamp_ms, day, vae.Overrides{}, vae.Timestamp, vae.Gaussian, []string{"hour", "weekday"}},
		{"days have no hours", w.Date32, day, vae.Overrides{}, vae.Timestamp, vae.Gaussian, []string{"weekday"}},
		{"parts as asked for", w.Date32, day, vae.Overrides{Parts: []string{"monthday"}}, vae.Timestamp, vae.Gaussian, []string{"monthday"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cols, warnings := profiled(t, textRecord(t, c.typ, 300, c.cell), c.over, 64)
			if len(cols) != 1 || len(warnings) != 0 {
				t.Fatalf("columns %+v, warnings %q", cols, warnings)
			}
			if got := cols[0]; got.Kind != c.kind || got.Head != c.head || !slices.Equal(got.Parts, c.parts) {
				t.Errorf("%s with %s and parts %q, want %s with %s and %q", got.Kind, got.Head, got.Parts, c.kind, c.head, c.parts)
			}
		})
	}
}

// Of too many levels the most frequent stay, and the others are one level, which is
// nothing that was never seen.
func TestOtherLevels(t *testing.T) {
	const n = 4000
	city := func(i int) string { // a half are capitals of 20 names, a tenth are villages of 400
		switch {
		case i%2 == 0:
			return fmt.Sprintf("capital %02d", i/2%20)
		case i%10 == 1:
			return fmt.Sprintf("village %03d", i/10)
		}
		return fmt.Sprintf("town %02d", i%44)
	}
	dict := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int16, ValueType: arrow.BinaryTypes.String}
	for _, typ := range []arrow.DataType{arrow.BinaryTypes.String, arrow.BinaryTypes.LargeString, dict} {
		cols, warnings := profiled(t, textRecord(t, typ, n, city), vae.Overrides{}, 1000)
		if len(cols) != 1 || len(warnings) != 1 || !strings.Contains(warnings[0], "different values: the 64 most frequent are its levels, the others count as one") {
			t.Fatalf("%s: columns %+v, warnings %q", typ, cols, warnings)
		}
		c := cols[0]
		if !c.Others || c.Rare != nil || len(c.Levels) != vae.MaxLevels || !slices.IsSorted(c.Levels) ||
			!slices.Contains(c.Levels, "capital 07") || !slices.Contains(c.Levels, "town 31") {
			t.Fatalf("%s: %+v", typ, c)
		}
		rec := textRecord(t, typ, 3, func(i int) string { return []string{"capital 07", "village 399", "atlantis"}[i] })
		x, mask, flags := packed(t, cols, rec)
		other := len(c.Levels)
		for r, want := range []float32{0, 1, 1} {
			if x[r][other] != want || mask[r][other] != 1 || flags[r] != 0 {
				t.Errorf("%s, row %d: other level %v, mask %v, flags %v", typ, r, x[r][other], mask[r][other], flags[r])
			}
		}
		c.Rare = []float64{0.1}
		spec := vae.Spec{Columns: []vae.Column{c}}
		spec.DefaultNetwork()
		if err := spec.Validate(); err == nil || !strings.Contains(err.Error(), "others are for levels") {
			t.Errorf("others beside a rare level: %v", err)
		}
	}
}

// What hardly repeats is left out, unless it is asked for.
func TestScatteredLevels(t *testing.T) {
	for _, c := range []struct {
		name string
		typ  arrow.DataType
		n    int
		cell func(i int) string
		over vae.Overrides
		want string // warning
		kept bool
	}{
		{"ids", arrow.BinaryTypes.String, 2000, func(i int) string { return fmt.Sprint("id", i) }, vae.Overrides{},
			"left out: 2000 different values, and the 64 most frequent of those in 10 rows or more are only 0 of 2000 rows (an id or free text?)", false},
		{"more than are counted", arrow.BinaryTypes.String, 10_100, func(i int) string { return fmt.Sprint("id", i) }, vae.Overrides{},
			"left out: more than 10000 different values (an id or free text?)", false},
		{"a code that is mostly rare", arrow.BinaryTypes.String, 3000, func(i int) string { return fmt.Sprint("c", i%(3+i/3)) }, vae.Overrides{},
			"an id or free text?", false},
		{"integers asked for", arrow.PrimitiveTypes.Int64, 2000, func(i int) string { return fmt.Sprint(i % 500) },
			vae.Overrides{Kinds: map[string]vae.Kind{"c": vae.Categorical}}, "has 500 different values: the 64 most frequent", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cols, warnings := profiled(t, textRecord(t, c.typ, c.n, c.cell), c.over, 999)
			if len(warnings) != 1 || !strings.Contains(warnings[0], c.want) || (len(cols) == 1) != c.kept {
				t.Errorf("%d columns, warnings %q, want %q", len(cols), warnings, c.want)
			}
		})
	}
}
