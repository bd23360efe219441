package quality

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

// related has three numbers that follow from one, a category and a boolean that
// do too, and a time. A share of the cells of all but "whole" is null. With broken
// one of the numbers does not follow.
func related(n int, gaps float64, broken bool, seed uint64) arrow.Record {
	f64, text := arrow.PrimitiveTypes.Float64, arrow.BinaryTypes.String
	schema := arrow.NewSchema([]arrow.Field{{Name: "a", Type: f64, Nullable: true}, {Name: "b", Type: f64, Nullable: true}, {Name: "c", Type: f64, Nullable: true},
		{Name: "level", Type: text, Nullable: true}, {Name: "high", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
		{Name: "day", Type: arrow.FixedWidthTypes.Date32, Nullable: true}, {Name: "whole", Type: f64, Nullable: true}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	rng := rand.New(rand.NewPCG(seed, 11))
	for range n {
		u := 2*rng.Float64() - 1
		v := u
		if broken {
			v = -math.Copysign(0.5+math.Abs(u)/2, u)
		}
		row := []any{u + .05*rng.NormFloat64(), -2*v + .1*rng.NormFloat64(), u*u + .05*rng.NormFloat64(), []string{"low", "mid", "top"}[int(1.49*(u+1))], u > 0,
			arrow.Date32(20000 + rng.IntN(400)), rng.NormFloat64()}
		for i, cell := range row {
			gone := i < len(row)-1 && rng.Float64() < gaps
			switch f := b.Field(i).(type) {
			case *array.Float64Builder:
				f.AppendValues([]float64{cell.(float64)}, []bool{!gone})
			case *array.StringBuilder:
				f.AppendValues([]string{cell.(string)}, []bool{!gone})
			case *array.BooleanBuilder:
				f.AppendValues([]bool{cell.(bool)}, []bool{!gone})
			case *array.Date32Builder:
				f.AppendValues([]arrow.Date32{cell.(arrow.Date32)}, []bool{!gone})
			}
		}
	}
	return b.NewRecord()
}

func scores(t *testing.T, m *vae.Model, rec arrow.Record) []float32 {
	t.Helper()
	s, err := m.NewScorer(rec.Schema(), vae.Options{ScoresOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Score(rec)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(res.Score)
}

// Rows with gaps like those of training score like others, broken relations are
// found in spite of gaps, and a gap where there never was one is news.
func TestGaps(t *testing.T) {
	for _, members := range []int{1, 2} {
		m, err := train.Run(t.Context(), train.Config{Members: members, Workers: 2, Seed: 3, Steps: 800}, train.Records{related(4000, .2, false, 1)})
		if err != nil {
			t.Fatal(err)
		}
		whole, gaps := scores(t, m, related(1500, 0, false, 2)), scores(t, m, related(1500, .2, false, 3))
		for _, q := range []float64{.5, .95} {
			a, b := slices.Sorted(slices.Values(whole))[int(q*1500)], slices.Sorted(slices.Values(gaps))[int(q*1500)]
			if math.Abs(float64(a-b)) > 4 {
				t.Errorf("%d members: the %v quantile is %v nats without gaps, %v with", members, q, a, b)
			}
		}
		for _, share := range []float64{0, .2} {
			odd := scores(t, m, related(300, share, true, 4))
			labels := slices.Concat(slices.Repeat([]bool{false}, 1500), slices.Repeat([]bool{true}, 300))
			normal := whole
			if share > 0 {
				normal = gaps
			}
			auroc, err := eval.AUROC(slices.Concat(normal, odd), labels)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d members, gaps %v: AUROC of broken relations %.3f", members, share, auroc)
			if want := 0.98 - share; auroc < want {
				t.Errorf("%d members, gaps %v: AUROC %.3f, want %.3f", members, share, auroc, want)
			}
		}
		rec := related(50, 0, false, 5)
		columns := slices.Clone(rec.Columns())
		empty := array.NewFloat64Builder(memory.DefaultAllocator)
		empty.AppendNulls(50)
		columns[6] = empty.NewArray()
		before, after := scores(t, m, rec), scores(t, m, array.NewRecord(rec.Schema(), columns, 50))
		for i := range before {
			if rise := float64(after[i] - before[i]); rise < 3 {
				t.Errorf("%d members, row %d: a gap where there never was one adds %v nats", members, i, rise)
				break
			}
		}
	}
}
