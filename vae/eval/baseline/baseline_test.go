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
	"sync"
	"testing"

	"github.com/elbo-stream/elbo/vae/eval"
	"github.com/elbo-stream/elbo/vae/eval/baseline"
)

// golden is a table of testdata/golden.py and its answers.
type golden struct {
	Name                     string
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

func load(t *testing.T) (all []golden) {
	t.Helper()
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// standardised returns a table's rows as the detectors want them.
func (g golden) standardised(t *testing.T) (train, test baseline.Matrix) {
	t.Helper()
	train, test = matrix(g.Train), matrix(g.Test)
	scale, err := baseline.FitScale(train, nil)
	if err != nil {
		t.Fatal(err)
	}
	scale.Apply(train)
	scale.Apply(test)
	return train, test
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

// The detectors agree with scikit-learn and PyOD.
func TestAgainstReferences(t *testing.T) {
	for _, g := range load(t) {
		train, test := g.standardised(t)
		for _, c := range []struct {
			d    baseline.Detector
			want []float64
		}{{&baseline.KNN{}, g.KNN5}, {&baseline.Mahalanobis{}, g.Mahalanobis}, {&baseline.PCA{}, g.PCA95}, {&baseline.ECOD{}, g.ECOD}} {
			t.Run(g.Name+"/"+c.d.Name(), func(t *testing.T) {
				got := score(t, c.d, train, test)
				if len(c.want) != len(got) {
					t.Fatalf("%d scores, want %d", len(got), len(c.want))
				}
				for i, want := range c.want {
					if math.Abs(got[i]-want) > 1e-6*math.Abs(want)+1e-9 {
						t.Errorf("row %d: %v, want %v", i, got[i], want)
					}
				}
			})
		}
	}
}

// Forests differ from scikit-learn's in their random numbers only, so that they
// find as much on average.
func TestForestAgainstReference(t *testing.T) {
	for _, g := range load(t) {
		train, test := g.standardised(t)
		const seeds = 100 // one forest's AUROC of the ring has a standard deviation of 0.06
		mean := 0.0
		for seed := range uint64(seeds) {
			scores := score(t, &baseline.IsolationForest{Seed: seed}, train, test)
			for i, s := range scores {
				if !(s > 0 && s < 1) {
					t.Fatalf("%s, row %d: %v is not within 0 and 1", g.Name, i, s)
				}
			}
			a, err := eval.AUROC(scores, g.Label)
			if err != nil {
				t.Fatal(err)
			}
			mean += a / seeds
		}
		if math.Abs(mean-g.Forest) > 0.02 {
			t.Errorf("%s: forests have a mean AUROC of %.3f, scikit-learn's %.3f", g.Name, mean, g.Forest)
		}
	}
}

// A row's score does not depend on the rows beside it, and comes again bit by bit,
// however many ask at once.
func TestSameBits(t *testing.T) {
	for _, g := range []struct{ rows, cols int }{{120, 5}, {600, 130}} {
		train, test := noise(1, g.rows, g.cols), noise(2, g.rows, g.cols)
		for i, d := range baseline.All(3) {
			t.Run(fmt.Sprintf("%s/columns=%d", d.Name(), g.cols), func(t *testing.T) {
				want := score(t, d, train, test)
				if again := score(t, baseline.All(3)[i], train, test); !slices.Equal(want, again) {
					t.Error("scores differ when fitted again")
				}
				var wg sync.WaitGroup
				for w := range 4 {
					wg.Go(func() {
						out := make([]float64, 1)
						for r := w; r < test.Rows(); r += 4 {
							if err := d.Score(t.Context(), baseline.Matrix{Cols: test.Cols, Data: test.Row(r)}, out); err != nil || out[0] != want[r] {
								t.Errorf("row %d alone scores %v, among others %v (%v)", r, out[0], want[r], err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// noise returns correlated random rows.
func noise(seed uint64, rows, cols int) baseline.Matrix {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := baseline.Matrix{Cols: cols, Data: make([]float64, rows*cols)}
	for i := range m.Data {
		m.Data[i] = rng.NormFloat64()
		if i%cols > 0 {
			m.Data[i] += m.Data[i-1]
		}
	}
	return m
}

// What is odd about training rows is no trouble: one row, equal rows, a constant
// column. A moved constant is strange to all.
func TestLittle(t *testing.T) {
	one := baseline.Matrix{Cols: 2, Data: []float64{1, 2}}
	equal := baseline.Matrix{Cols: 2, Data: slices.Repeat([]float64{1, 2}, 40)}
	column := noise(1, 200, 2)
	for i := range column.Rows() {
		column.Row(i)[1] = 3
	}
	for _, d := range baseline.All(1) {
		for name, train := range map[string]baseline.Matrix{"one row": one, "equal rows": equal, "constant column": column} {
			test := baseline.Matrix{Cols: 2, Data: slices.Concat(train.Row(0), []float64{train.Row(0)[0], 9})}
			got := score(t, d, train, test)
			for _, s := range got {
				if math.IsNaN(s) || math.IsInf(s, 0) {
					t.Errorf("%s, %s: scores %v", d.Name(), name, got)
				}
			}
			if d.Name() != "IForest" && !(got[1] > got[0]) { // a forest cannot cut where nothing differs
				t.Errorf("%s, %s: %v for a row of training, %v for a moved one", d.Name(), name, got[0], got[1])
			}
		}
	}
}

// PCA says when it has nothing to measure by.
func TestPCAWithNothingLeft(t *testing.T) {
	train := baseline.Matrix{Cols: 2, Data: []float64{1, 0, -1, 0, 0, 1, 0, -1}}
	if err := (&baseline.PCA{}).Fit(t.Context(), train); !errors.Is(err, baseline.ErrNothingLeft) {
		t.Errorf("Fit of two equal components: %v, want ErrNothingLeft", err)
	}
}

// A kNN of more rows than its limit keeps as many, drawn by the seed.
func TestKNNLimit(t *testing.T) {
	train, test := noise(1, 1000, 3), noise(2, 50, 3)
	all, some := score(t, &baseline.KNN{}, train, test), score(t, &baseline.KNN{Limit: 100, Seed: 1}, train, test)
	other := score(t, &baseline.KNN{Limit: 100, Seed: 2}, train, test)
	for i := range all {
		if some[i] < all[i] {
			t.Errorf("row %d: %v to the fifth of 100 rows, %v to that of all", i, some[i], all[i])
		}
	}
	if slices.Equal(some, other) {
		t.Error("two seeds keep the same rows")
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
	good := baseline.Matrix{Cols: 2, Data: []float64{1, 2, 3, 4, 5, 5.9, 1, 2.1, 2, 3, 9, 10}}
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
	for _, cols := range []int{20, 200} {
		const rows = 2000
		train, test := noise(1, rows, cols), noise(2, rows, cols)
		for _, d := range baseline.All(1) {
			b.Run(fmt.Sprintf("%s/columns=%d/fit", d.Name(), cols), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := d.Fit(b.Context(), train); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
			})
			out := make([]float64, rows)
			b.Run(fmt.Sprintf("%s/columns=%d/score", d.Name(), cols), func(b *testing.B) {
				if err := d.Fit(b.Context(), train); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := d.Score(b.Context(), test, out); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}
