package baseline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/elbo-stream/elbo/vae/eval"
	"github.com/elbo-stream/elbo/vae/eval/baseline"
)

// golden is what testdata/golden.py wrote.
type golden struct {
	Train, Test              [][]float64
	Label                    []bool
	KNN5                     []float64 `json:"kNN5"`
	Mahalanobis, PCA95, ECOD []float64
	Forest                   float64 `json:"forest_auroc"`
}

func matrix(rows [][]float64) (m baseline.Matrix) {
	for _, r := range rows {
		m.Cols = len(r)
		m.Data = append(m.Data, r...)
	}
	return m
}

func load(t *testing.T) (g golden, train, test baseline.Matrix) {
	t.Helper()
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	train, test = matrix(g.Train), matrix(g.Test)
	scale, err := baseline.FitScale(train, nil)
	if err != nil {
		t.Fatal(err)
	}
	scale.Apply(train)
	scale.Apply(test)
	return g, train, test
}

func score(t *testing.T, d baseline.Detector, train, test baseline.Matrix) []float64 {
	t.Helper()
	if err := d.Fit(t.Context(), train); err != nil {
		t.Fatalf("%s: %v", d.Name(), err)
	}
	out := make([]float64, test.Rows())
	if err := d.Score(t.Context(), test, out); err != nil {
		t.Fatalf("%s: %v", d.Name(), err)
	}
	return out
}

// The detectors agree with scikit-learn and PyOD's formula.
func TestAgainstReferences(t *testing.T) {
	g, train, test := load(t)
	for _, c := range []struct {
		d    baseline.Detector
		want []float64
	}{{&baseline.KNN{}, g.KNN5}, {&baseline.Mahalanobis{}, g.Mahalanobis}, {&baseline.PCA{}, g.PCA95}, {&baseline.ECOD{}, g.ECOD}} {
		got := score(t, c.d, train, test)
		for i, want := range c.want {
			if math.Abs(got[i]-want) > 1e-6*(1+math.Abs(want)) {
				t.Errorf("%s, row %d: %v, want %v", c.d.Name(), i, got[i], want)
				break
			}
		}
	}
	mean := 0.0
	for seed := range uint64(5) {
		a, err := eval.AUROC(score(t, &baseline.IsolationForest{Seed: seed}, train, test), g.Label)
		if err != nil {
			t.Fatal(err)
		}
		mean += a / 5
	}
	if math.Abs(mean-g.Forest) > 0.03 {
		t.Errorf("forests have a mean AUROC of %v, scikit-learn's %v", mean, g.Forest)
	}
}

// A row's score does not depend on the rows beside it, and comes again bit by bit.
func TestSameBits(t *testing.T) {
	_, train, test := load(t)
	for i, d := range baseline.All(3) {
		want := score(t, d, train, test)
		again := score(t, baseline.All(3)[i], train, test)
		if !slices.Equal(want, again) {
			t.Errorf("%s scores differently when fitted again", d.Name())
		}
		for r := range test.Rows() {
			out := make([]float64, 1)
			if err := d.Score(t.Context(), baseline.Matrix{Cols: test.Cols, Data: test.Row(r)}, out); err != nil || out[0] != want[r] {
				t.Errorf("%s: row %d alone scores %v, among others %v (%v)", d.Name(), r, out[0], want[r], err)
				break
			}
		}
	}
}

// The tree of boxes finds what a look at every row finds.
func TestKNNIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, cols := range []int{1, 3, 9, 20} {
		draw := func(n int) (m baseline.Matrix) {
			m.Cols = cols
			for range n * cols {
				m.Data = append(m.Data, math.Round(10*rng.NormFloat64())/10)
			}
			return m
		}
		train, test := draw(500), draw(60)
		got := score(t, &baseline.KNN{K: 7}, train, test)
		for i := range got {
			var all []float64
			for r := range train.Rows() {
				s := 0.0
				for j, v := range test.Row(i) {
					s += (v - train.Row(r)[j]) * (v - train.Row(r)[j])
				}
				all = append(all, math.Sqrt(s))
			}
			slices.Sort(all)
			if math.Abs(got[i]-all[6]) > 1e-9 {
				t.Fatalf("%d columns, row %d: %v, want %v", cols, i, got[i], all[6])
			}
		}
	}
}

// What cannot be fitted or scored says why.
func TestRefuses(t *testing.T) {
	ctx := t.Context()
	done, cancel := context.WithCancel(ctx)
	cancel()
	nan := baseline.Matrix{Cols: 2, Data: []float64{1, math.NaN()}}
	good := baseline.Matrix{Cols: 2, Data: []float64{1, 2, 3, 4, 5, 7, 1, 0, 2, 2, 9, 1}}
	for _, d := range baseline.All(1) {
		if err := d.Fit(ctx, baseline.Matrix{Cols: 2}); err == nil {
			t.Errorf("%s was fitted to no rows", d.Name())
		}
		if err := d.Fit(ctx, nan); err == nil {
			t.Errorf("%s was fitted to NaN", d.Name())
		}
		if err := d.Fit(ctx, good); err != nil {
			t.Fatalf("%s: %v", d.Name(), err)
		}
		if err := d.Score(ctx, nan, make([]float64, 1)); err == nil {
			t.Errorf("%s scored NaN", d.Name())
		}
		if err := d.Score(ctx, baseline.Matrix{Cols: 3, Data: make([]float64, 3)}, make([]float64, 1)); err == nil {
			t.Errorf("%s scored other columns", d.Name())
		}
		if err := d.Score(done, good, make([]float64, 6)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s went on after the end: %v", d.Name(), err)
		}
	}
	wide := baseline.Matrix{Cols: baseline.MaxSquare + 1, Data: make([]float64, 2*(baseline.MaxSquare+1))}
	if err := (&baseline.PCA{}).Fit(ctx, wide); !errors.Is(err, baseline.ErrTooWide) {
		t.Errorf("PCA of %d columns: %v", wide.Cols, err)
	}
}

func TestScale(t *testing.T) {
	m := matrix([][]float64{{1, 5, math.NaN()}, {3, 5, 7}, {5, 5, math.NaN()}})
	s, err := baseline.FitScale(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Apply(m)
	sd := math.Sqrt(8.0 / 3)
	if want := []float64{-2 / sd, 0, 0, 0, 0, 0, 2 / sd, 0, 0}; !slices.EqualFunc(m.Data, want, func(a, b float64) bool { return math.Abs(a-b) < 1e-12 }) {
		t.Errorf("standardised to %v, want %v", m.Data, want)
	}
}

func Example() {
	train := baseline.Matrix{Cols: 1, Data: []float64{1, 2, 3, 4, 5, 6, 7, 8}}
	test := baseline.Matrix{Cols: 1, Data: []float64{4, 30}}
	scale, err := baseline.FitScale(train, nil)
	if err != nil {
		panic(err)
	}
	scale.Apply(train)
	scale.Apply(test)
	d := &baseline.KNN{}
	if err := d.Fit(context.Background(), train); err != nil {
		panic(err)
	}
	scores := make([]float64, 2)
	if err := d.Score(context.Background(), test, scores); err != nil {
		panic(err)
	}
	fmt.Printf("%s %.2f %.2f\n", d.Name(), scores[0], scores[1])
	// Output: kNN5 0.87 11.35
}

func BenchmarkDetectors(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	m := baseline.Matrix{Cols: 20, Data: make([]float64, 20*5000)}
	for i := range m.Data {
		m.Data[i] = rng.NormFloat64()
	}
	for _, d := range baseline.All(1) {
		b.Run(d.Name()+"/fit", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Fit(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
		})
		out := make([]float64, 5000)
		b.Run(d.Name()+"/score", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Score(b.Context(), m, out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*5000/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
