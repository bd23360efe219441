package train

import (
	"bytes"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// gapSpec has a number without gaps, a category and a number with some.
func gapSpec() *vae.Spec {
	s := &vae.Spec{Columns: []vae.Column{
		{Name: "whole", Kind: vae.Numeric, Head: vae.Gaussian, Transform: vae.Standardise, MissingRate: 0.01, Mean: []float64{0}, Scale: []float64{1}, Constant: []bool{false}},
		{Name: "level", Kind: vae.Categorical, Head: vae.CategoricalHead, Levels: []string{"a", "b"}, MissingRate: 0.2, Indicator: true},
		{Name: "number", Kind: vae.Numeric, Head: vae.Gaussian, Transform: vae.Standardise, MissingRate: 0.2, Indicator: true, Mean: []float64{0}, Scale: []float64{1}, Constant: []bool{false}},
	}}
	s.DefaultNetwork()
	return s
}

// What is hidden depends on the key, the row and the column alone, is a tenth, is a
// whole column at a time, and is told by the indicator.
func TestHide(t *testing.T) {
	spec := gapSpec()
	if err := spec.Validate(); err != nil {
		t.Fatal(err)
	}
	g := gapsOf(spec)
	if len(g) != 2 || g[0] != (gap{1, 3, 5}) || g[1] != (gap{4, 1, 6}) {
		t.Fatalf("gaps %+v", g)
	}
	tr := kernel.NewTrainer(spec.Net(), kernel.Generic)
	hidden := func(key uint64, from, rows int) (missing []uint64) {
		clear(tr.Missing)
		for i := range tr.X {
			tr.X[i] = 7
		}
		g.hide(tr, key, from, rows)
		for f, m := range tr.Missing {
			for r := range rows {
				want := float32(7)
				if m>>r&1 != 0 {
					want = 0
				}
				if got := tr.X[f*kernel.Rows+r]; got != want {
					t.Fatalf("feature %d, row %d: %v, want %v", f, r, got, want)
				}
			}
		}
		for _, c := range g {
			for r := range rows {
				if told := tr.X[c.indicator*kernel.Rows+r] == 1; told != (tr.Missing[c.feature]>>r&1 != 0) {
					t.Fatalf("row %d: the indicator says %v", r, told)
				}
			}
		}
		return slices.Clone(tr.Missing)
	}
	count, cells := 0, 0
	for step := range uint64(100) {
		key := hash(1, streamMask, step)
		a, b := hidden(key, 128, 64), hidden(key, 128, 64)
		if !slices.Equal(a, b) {
			t.Fatal("the same key hides other cells")
		}
		if a[0] != 0 || a[1] != a[2] || a[1] != a[3] {
			t.Fatalf("hidden %b", a)
		}
		few := hidden(key, 128, 20) // the rows of a short tile
		for f, m := range few {
			if m != a[f]&(1<<20-1) {
				t.Fatalf("the first 20 rows of feature %d: %b, in a full tile %b", f, m, a[f])
			}
		}
		count, cells = count+bits.OnesCount64(a[1])+bits.OnesCount64(a[4]), cells+128
	}
	if share := float64(count) / float64(cells); math.Abs(share-hideShare) > 0.01 {
		t.Errorf("%v of the cells are hidden, want %v", share, hideShare)
	}
}

// follows makes rows of four numbers that follow from one; a share of the cells is
// missing, and in broken rows the last number belongs to another row. gone, above 0,
// is a column that is missing everywhere.
func follows(n int, seed uint64, share float64, broken bool, gone int) arrow.Record {
	fields := make([]arrow.Field, 4)
	for i := range fields {
		fields[i] = arrow.Field{Name: string(rune('a' + i)), Type: arrow.PrimitiveTypes.Float64, Nullable: true}
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	rng := rand.New(rand.NewPCG(seed, 21))
	for range n {
		u := rng.Float64()
		v := u
		if broken {
			v = rng.Float64()
		}
		for j, x := range []float64{u, math.Sin(4 * u), u * u, math.Cos(5 * v)} {
			there := j != gone && rng.Float64() >= share
			b.Field(j).(*array.Float64Builder).AppendValues([]float64{x + 0.03*rng.NormFloat64()}, []bool{there})
		}
	}
	return b.NewRecord()
}

// found is the mean AUROC, over each of the first three columns missing everywhere,
// of rows whose last number does not follow.
func found(t *testing.T, m *vae.Model) (mean float64) {
	t.Helper()
	const rows = 1500
	labels := append(make([]bool, rows), slices.Repeat([]bool{true}, rows)...)
	for gone := range 3 {
		var all []float32
		for _, rec := range []arrow.Record{follows(rows, 2, 0, false, gone), follows(rows, 3, 0, true, gone)} {
			s, err := m.NewScorer(rec.Schema(), vae.Options{ScoresOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			res, err := s.Score(rec)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, res.Score...)
		}
		auroc, err := eval.AUROC(all, labels)
		if err != nil {
			t.Fatal(err)
		}
		mean += auroc / 3
	}
	return mean
}

// Hiding values finds more in rows with a gap where training had few, and no less
// where it had many.
func TestHidingHelps(t *testing.T) {
	const seeds = 2
	for _, c := range []struct{ share, gain float64 }{{0.003, 0.005}, {0.1, -0.005}} {
		var hiding, asIs float64
		for seed := range uint64(seeds) {
			data := Records{follows(3000, 1+10*seed, c.share, false, -1)}
			for _, as := range []bool{false, true} {
				m, err := Run(t.Context(), Config{Seed: seed, Members: 1, Workers: 2, asIs: as}, data)
				if err != nil {
					t.Fatal(err)
				}
				if auroc := found(t, m) / seeds; as {
					asIs += auroc
				} else {
					hiding += auroc
				}
			}
		}
		t.Logf("%v of the cells missing in training: AUROC with a column missing %.3f, without hidden values %.3f", c.share, hiding, asIs)
		if hiding < asIs+c.gain || hiding < 0.85 {
			t.Errorf("%v of the cells missing in training: AUROC with a column missing %.3f, without hidden values %.3f, want %v more",
				c.share, hiding, asIs, c.gain)
		}
	}
}

// The same seed hides the same values, by however many workers; another seed others.
func TestHidingIsOfTheSeed(t *testing.T) {
	var want []byte
	for _, c := range []Config{{Workers: 1}, {Workers: 2}, {Workers: 4}, {asIs: true}} {
		c.Seed, c.Steps, c.Members, c.Batch = 9, 30, 1, 300
		m, err := Run(t.Context(), c, Records{follows(700, 1, 0.1, false, -1)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Bytes()
		switch {
		case err != nil:
			t.Fatal(err)
		case want == nil:
			want = got
		case bytes.Equal(got, want) == c.asIs:
			t.Errorf("%d workers, values as they are %v: the same model %v", c.Workers, c.asIs, !c.asIs)
		}
	}
}
