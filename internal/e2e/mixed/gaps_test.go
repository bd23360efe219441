package mixed

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
	"github.com/elbo-stream/elbo/vae/train"
)

var relatedSchema = arrow.NewSchema([]arrow.Field{
	{Name: "a", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "b", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "c", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "level", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "high", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
	{Name: "day", Type: arrow.FixedWidthTypes.Date32, Nullable: true},
	{Name: "whole", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
}, nil)

// whole is the column of related that never has gaps.
const whole = 6

// related makes rows whose first five columns follow from one hidden number. gone
// says which cells are missing. In broken rows "b" has nothing to do with the number,
// though its own values are as usual.
func related(n int, seed uint64, broken bool, gone func(r *rand.Rand, row, column int) bool) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, relatedSchema)
	defer b.Release()
	rng, holes := rand.New(rand.NewPCG(seed, 11)), rand.New(rand.NewPCG(seed, 12))
	for i := range n {
		u := 2*rng.Float64() - 1
		v := u
		if broken {
			v = -math.Copysign(0.4+0.6*rng.Float64(), u)
		}
		there := func(column int) []bool { return []bool{!gone(holes, i, column)} }
		for j, x := range []float64{u + .05*rng.NormFloat64(), -2*v + .1*rng.NormFloat64(), u*u + .05*rng.NormFloat64()} {
			b.Field(j).(*array.Float64Builder).AppendValues([]float64{x}, there(j))
		}
		b.Field(3).(*array.StringBuilder).AppendValues([]string{[]string{"low", "middle", "top"}[int(1.49*(u+1))]}, there(3))
		b.Field(4).(*array.BooleanBuilder).AppendValues([]bool{u > 0}, there(4))
		b.Field(5).(*array.Date32Builder).AppendValues([]arrow.Date32{arrow.Date32(20000 + rng.IntN(400))}, there(5))
		b.Field(whole).(*array.Float64Builder).AppendValues([]float64{rng.NormFloat64()}, there(whole))
	}
	return b.NewRecord()
}

func none(*rand.Rand, int, int) bool { return false }

// fifth takes a fifth of the cells out, but of the last column none.
func fifth(r *rand.Rand, _, column int) bool { return r.IntN(5) == 0 && column != whole }

func only(column int) func(*rand.Rand, int, int) bool {
	return func(_ *rand.Rand, _, c int) bool { return c == column }
}

func relatedModel(t *testing.T, members int) *vae.Model {
	t.Helper()
	rec := related(4000, 1, false, fifth)
	defer rec.Release()
	m, err := train.Run(t.Context(), train.Config{Members: members, Workers: 2, Seed: 3, Steps: 800}, train.Records{rec})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func quantile(v []float32, q float64) float64 {
	return float64(slices.Sorted(slices.Values(v))[int(q*float64(len(v)-1))])
}

// Rows with gaps like those of training score like others, and broken relations are
// found in spite of a gap in any one column.
func TestGapsThatAreUsual(t *testing.T) {
	for _, members := range []int{1, 2} {
		m := relatedModel(t, members)
		full, gaps := scores(t, m, related(1500, 2, false, none)), scores(t, m, related(1500, 3, false, fifth))
		limit := m.Calibration.Limit
		for _, q := range []float64{.5, .95} {
			a, b := quantile(full, q), quantile(gaps, q)
			t.Logf("%d members: the %v quantile is %.2f nats without gaps, %.2f with; limit %.2f", members, q, a, b, limit)
			if math.Abs(a-b) > 2.5 {
				t.Errorf("%d members: the %v quantile is %v nats without gaps, %v with", members, q, a, b)
			}
		}
		for column := range whole {
			if column == 1 { // what would be broken
				continue
			}
			hole := only(column)
			usual, odd := scores(t, m, related(1000, 5, false, hole)), scores(t, m, related(300, 4, true, hole))
			labels := append(make([]bool, len(usual)), slices.Repeat([]bool{true}, len(odd))...)
			auroc, err := eval.AUROC(slices.Concat(usual, odd), labels)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d members, %q missing: AUROC of broken relations %.3f", members, relatedSchema.Field(column).Name, auroc)
			if auroc < 0.97 {
				t.Errorf("%d members, %q missing: AUROC of broken relations %.3f, want 0.97", members, relatedSchema.Field(column).Name, auroc)
			}
		}
	}
}

// A gap where there never was one costs log(n+1) nats, less the little that the value
// itself had cost; each member then sees one value less.
func TestGapWhereThereNeverWasOne(t *testing.T) {
	for _, members := range []int{1, 2} {
		m := relatedModel(t, members)
		before, after := scores(t, m, related(500, 5, false, none)), scores(t, m, related(500, 5, false, only(whole)))
		rise := make([]float32, len(before))
		for i := range rise {
			rise[i] = after[i] - before[i]
		}
		want := math.Log(float64(m.Training.Rows + 1))
		if got := quantile(rise, 0.5); math.Abs(got-want) > 2 {
			t.Errorf("%d members: a gap where there never was one adds %v nats, want about %v", members, got, want)
		}
	}
}

// A row with gaps has the same bits whatever rows are beside it.
func TestGapsSameBits(t *testing.T) {
	m := relatedModel(t, 2)
	rec := related(300, 6, false, func(r *rand.Rand, _, _ int) bool { return r.IntN(4) == 0 })
	want := scores(t, m, rec)
	for _, cut := range []int64{1, 3, 13, 64, 100} {
		for from := int64(0); from < rec.NumRows(); from += cut {
			part := rec.NewSlice(from, min(from+cut, rec.NumRows()))
			got := scores(t, m, part)
			part.Release()
			if !slices.Equal(got, want[from:from+int64(len(got))]) {
				t.Fatalf("rows from %d score differently in cuts of %d", from, cut)
			}
		}
	}
}
