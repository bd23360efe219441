package eval_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae/eval"
)

// rows makes a record of n rows: x and y go together, z is float32 with nulls,
// id and amount are not for changing.
func rows(mem memory.Allocator, n int) arrow.Record {
	meta := arrow.NewMetadata([]string{"origin"}, []string{"test"})
	b := array.NewRecordBuilder(mem, arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "x", Type: arrow.PrimitiveTypes.Float64},
		{Name: "y", Type: arrow.PrimitiveTypes.Float64},
		{Name: "z", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
		{Name: "score", Type: arrow.PrimitiveTypes.Float64},
	}, &meta))
	defer b.Release()
	for i := range n {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.Float64Builder).Append(float64(i%10 + 1))
		b.Field(2).(*array.Float64Builder).Append(float64(i%10+1) * 100)
		if i%7 == 0 {
			b.Field(3).AppendNull()
		} else {
			b.Field(3).(*array.Float32Builder).Append(float32(i%5) - 2)
		}
		b.Field(4).(*array.Float64Builder).Append(1)
	}
	return b.NewRecord()
}

// changed returns which cells of a row differ between two records.
func changed(a, b arrow.Record, row int) (cols []string) {
	for c := range int(a.NumCols()) {
		if a.Column(c).IsNull(row) != b.Column(c).IsNull(row) || a.Column(c).ValueStr(row) != b.Column(c).ValueStr(row) {
			cols = append(cols, a.ColumnName(c))
		}
	}
	return cols
}

func TestInjectKinds(t *testing.T) {
	for _, kind := range eval.InjectKinds() {
		t.Run(kind, func(t *testing.T) {
			mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
			defer mem.AssertSize(t, 0)
			rec := rows(mem, 500)
			defer rec.Release()
			in, err := eval.Inject(rec, eval.Injection{Kinds: []string{kind}, Rate: .2, Seed: 7, Skip: []string{"score"}, Alloc: mem})
			must(t, in, err)
			defer in.Release()
			planted := 0
			for i, l := range in.Labels {
				diff := changed(rec, in.Record, i)
				if l != (len(diff) > 0) || l != (in.Kinds[i] != "") {
					t.Fatalf("row %d: label %v, kind %q, changed %v", i, l, in.Kinds[i], diff)
				}
				if slices.Contains(diff, "id") || slices.Contains(diff, "score") {
					t.Fatalf("row %d: changed %v", i, diff)
				}
				if l {
					planted++
				}
				if most := map[string]int{eval.Spike: 1, eval.Scale: 1, eval.Swap: 2, eval.Missing: 2, eval.Broken: 2}[kind]; len(diff) > most {
					t.Errorf("row %d: %s changed %v, want at most %d cells", i, kind, diff, most)
				}
				if kind == eval.Missing && l && !in.Record.Column(1).IsNull(i) && !in.Record.Column(2).IsNull(i) && !in.Record.Column(3).IsNull(i) {
					t.Errorf("row %d: labelled missing, but nothing is", i)
				}
			}
			if planted < 60 || planted > 140 {
				t.Errorf("planted %d of 500 rows, want about 100", planted)
			}
			if got, ok := in.Record.Schema().Metadata().GetValue("origin"); !ok || got != "test" {
				t.Error("schema metadata is lost")
			}
		})
	}
}

func TestInjectIsKeyedByRow(t *testing.T) {
	rec := rows(memory.DefaultAllocator, 400)
	defer rec.Release()
	whole, err := eval.Inject(rec, eval.Injection{Seed: 3, Rate: .3})
	must(t, whole, err)
	defer whole.Release()
	part := rec.NewSlice(150, 400)
	defer part.Release()
	cut, err := eval.Inject(part, eval.Injection{Seed: 3, Rate: .3, First: 150})
	must(t, cut, err)
	defer cut.Release()
	if !slices.Equal(whole.Kinds[150:], cut.Kinds) {
		t.Error("the rows' fate depends on where the record was cut")
	}
	other, err := eval.Inject(rec, eval.Injection{Seed: 4, Rate: .3})
	must(t, other, err)
	defer other.Release()
	if slices.Equal(whole.Kinds, other.Kinds) {
		t.Error("another seed gives the same rows the same fate")
	}
	if !whole.Record.Schema().Equal(other.Record.Schema()) {
		t.Error("the schema depends on chance")
	}
}

func TestInjectLeavesRowsWithoutValuesAlone(t *testing.T) {
	rec := rows(memory.DefaultAllocator, 70)
	defer rec.Release()
	in, err := eval.Inject(rec, eval.Injection{Rate: 1, Columns: []string{"z"}, Kinds: []string{eval.Swap, eval.Scale}})
	must(t, in, err)
	defer in.Release()
	for i := range in.Labels {
		if want := i%7 != 0; in.Labels[i] != want || len(changed(rec, in.Record, i)) > 0 != want {
			t.Errorf("row %d: label %v, want %v", i, in.Labels[i], want)
		}
		if in.Kinds[i] == eval.Swap {
			t.Errorf("row %d: one column was swapped", i)
		}
	}
}

func TestInjectRefuses(t *testing.T) {
	rec := rows(memory.DefaultAllocator, 3)
	defer rec.Release()
	for _, c := range []struct {
		inj  eval.Injection
		want string
	}{
		{eval.Injection{Kinds: []string{"spke"}}, `kind "spke" is unknown; there are spike, swap`},
		{eval.Injection{Kinds: []string{}}, "name at least one"},
		{eval.Injection{Rate: 2}, "rate: 2 is not within"},
		{eval.Injection{Strength: -1}, "strength: -1"},
		{eval.Injection{Columns: []string{"w"}}, `column "w" is not in the data`},
		{eval.Injection{Columns: []string{"id"}}, `column "id" is int64`},
		{eval.Injection{Skip: []string{"x", "y", "z", "score"}}, "no float column"},
	} {
		if _, err := eval.Inject(rec, c.inj); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Inject(%+v): %v, want %q", c.inj, err, c.want)
		}
	}
}
