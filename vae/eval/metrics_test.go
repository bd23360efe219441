package eval_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/vae/eval"
)

// oracle is testdata/oracle.json, written by testdata/oracle.py.
type oracle struct {
	Cases []struct {
		Name                                              string
		Scores, Other, Q, Quantiles                       []float64
		Labels                                            []bool
		Limit, AUROC, AP, Precision, Recall, F1, Spearman float64
		BestF1                                            float64 `json:"best_f1"`
	}
	Rates []struct {
		Alerts, Rows int
		Low, High    float64
	}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-12*math.Max(1, math.Abs(want))) {
		t.Errorf("%s = %.17g, want %.17g", what, got, want)
	}
}

func loadOracle(t *testing.T) (o oracle) {
	t.Helper()
	b, err := os.ReadFile("testdata/oracle.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	if len(o.Cases) < 10 || len(o.Rates) < 5 {
		t.Fatalf("oracle has %d cases and %d rates, want at least 10 and 5", len(o.Cases), len(o.Rates))
	}
	return o
}

// must fails the test on an error and passes the value on.
func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAgainstScikitLearn(t *testing.T) {
	for _, c := range loadOracle(t).Cases {
		t.Run(c.Name, func(t *testing.T) {
			auroc, err := eval.AUROC(c.Scores, c.Labels)
			near(t, "AUROC", must(t, auroc, err), c.AUROC)
			ap, err := eval.AveragePrecision(c.Scores, c.Labels)
			near(t, "AveragePrecision", must(t, ap, err), c.AP)
			at, err := eval.At(c.Scores, c.Labels, c.Limit)
			must(t, at, err)
			near(t, "Precision", at.Precision(), c.Precision)
			near(t, "Recall", at.Recall(), c.Recall)
			near(t, "F1", at.F1(), c.F1)
			limit, best, err := eval.BestF1(c.Scores, c.Labels)
			near(t, "BestF1", must(t, best, err).F1(), c.BestF1)
			if again, err := eval.At(c.Scores, c.Labels, limit); again != best {
				t.Errorf("At(BestF1's limit) = %+v, %v, want %+v", again, err, best)
			}
			qs, err := eval.Quantiles(c.Scores, c.Q...)
			for i, q := range must(t, qs, err) {
				near(t, "Quantiles", q, c.Quantiles[i])
			}
			rho, err := eval.Spearman(c.Scores, c.Other)
			near(t, "Spearman", must(t, rho, err), c.Spearman)
		})
	}
}

func TestRateAgainstScipy(t *testing.T) {
	for _, c := range loadOracle(t).Rates {
		r, err := eval.Rate(c.Alerts, c.Rows, .001, .95)
		must(t, r, err)
		if math.Abs(r.Low-c.Low) > 1e-9 || math.Abs(r.High-c.High) > 1e-9 {
			t.Errorf("Rate(%d, %d) = %g to %g, want %g to %g", c.Alerts, c.Rows, r.Low, r.High, c.Low, c.High)
		}
		if want := .001 >= c.Low && .001 <= c.High; r.Kept != want {
			t.Errorf("Rate(%d, %d).Kept = %v, want %v", c.Alerts, c.Rows, r.Kept, want)
		}
	}
	_, err := eval.Rate(3, 2, 1.5, 1)
	for _, want := range []string{"3 alerts among 2 rows", "promised rate 1.5", "confidence 1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Rate(3, 2, 1.5, 1): %v, want it to say %q", err, want)
		}
	}
}

func TestNothingIsSilent(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		name   string
		scores []float64
		labels []bool
		want   error
		text   string
	}{
		{"NaN", []float64{1, nan, 2}, []bool{true, false, true}, eval.ErrNaN, "row 1: "},
		{"no anomaly", []float64{1, 2}, []bool{false, false}, eval.ErrOneClass, "no row of 2 is an anomaly"},
		{"all anomalies", []float64{1, 2}, []bool{true, true}, eval.ErrOneClass, "all of 2 rows are anomalies"},
		{"lengths", []float64{1, 2}, []bool{true}, nil, "2 scores but 1 labels"},
		{"empty", nil, nil, nil, "no rows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, e1 := eval.AUROC(c.scores, c.labels)
			_, e2 := eval.AveragePrecision(c.scores, c.labels)
			_, _, e3 := eval.BestF1(c.scores, c.labels)
			_, _, e4 := eval.Curves(c.scores, c.labels)
			for i, err := range []error{e1, e2, e3, e4} {
				if err == nil || !strings.Contains(err.Error(), c.text) || (c.want != nil && !errors.Is(err, c.want)) {
					t.Errorf("metric %d: got %v, want %v with %q", i, err, c.want, c.text)
				}
			}
		})
	}
	if _, err := eval.Spearman([]float64{1, 1}, []float32{1, 2}); err == nil {
		t.Error("Spearman of equal scores: got no error")
	}
	if _, err := eval.Quantiles([]float64{1, nan}, .5); !errors.Is(err, eval.ErrNaN) {
		t.Errorf("Quantiles with NaN: %v, want ErrNaN", err)
	}
	if _, err := eval.FlipRate([]float32{1}, 0, []float64{nan}, 0); !errors.Is(err, eval.ErrNaN) {
		t.Errorf("FlipRate with NaN: %v, want ErrNaN", err)
	}
}

// sets draws scores on a coarse grid, so that ties are common, with both labels.
func sets(t *rapid.T) (scores []float64, labels []bool) {
	grid := rapid.SliceOfN(rapid.IntRange(-8, 8), 2, 60).Draw(t, "scores")
	labels = rapid.SliceOfN(rapid.Bool(), len(grid), len(grid)).Draw(t, "labels")
	labels[0], labels[1] = true, false
	for _, g := range grid {
		scores = append(scores, float64(g)/2)
	}
	return scores, labels
}

func TestRankingProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		scores, labels := sets(rt)
		a, err := eval.AUROC(scores, labels)
		must(t, a, err)
		p, err := eval.AveragePrecision(scores, labels)
		must(t, p, err)
		negated, curved, single := make([]float64, len(scores)), make([]float64, len(scores)), make([]float32, len(scores))
		flipped := make([]bool, len(labels))
		for i, s := range scores {
			negated[i], curved[i], single[i], flipped[i] = -s, math.Exp(s)+3, float32(s), !labels[i]
		}
		same := func(name string, got float64, err error, want float64) {
			if err != nil || math.Abs(got-want) > 1e-12 {
				rt.Fatalf("%s = %v, %v, want %v", name, got, err, want)
			}
		}
		x, err := eval.AUROC(negated, labels)
		same("AUROC(-s)", x, err, 1-a)
		x, err = eval.AUROC(scores, flipped)
		same("AUROC(not labels)", x, err, 1-a)
		x, err = eval.AUROC(curved, labels)
		same("AUROC(exp s)", x, err, a)
		x, err = eval.AUROC(single, labels)
		same("AUROC(float32)", x, err, a)
		x, err = eval.AveragePrecision(curved, labels)
		same("AP(exp s)", x, err, p)
		x, err = eval.Spearman(scores, curved)
		if distinct := slices.Max(scores) > slices.Min(scores); distinct {
			same("Spearman(s, exp s)", x, err, 1)
		} else if err == nil {
			rt.Fatal("Spearman of equal scores: got no error")
		}
		same("AUROC by pairs", a, nil, byPairs(scores, labels))
		roc, pr, err := eval.Curves(scores, labels)
		if err != nil || roc[0] != (eval.CurvePoint{}) || roc[len(roc)-1] != (eval.CurvePoint{X: 1, Y: 1}) || pr[len(pr)-1].X != 1 {
			rt.Fatalf("Curves = %v, %v, %v: wrong ends", roc, pr, err)
		}
		same("area under the ROC curve", area(roc), nil, a)
	})
}

// byPairs is AUROC by its definition.
func byPairs(scores []float64, labels []bool) float64 {
	var won, pairs float64
	for i, a := range scores {
		for j, b := range scores {
			if labels[i] && !labels[j] {
				pairs++
				switch {
				case a > b:
					won++
				case a == b:
					won += .5
				}
			}
		}
	}
	return won / pairs
}

func area(curve []eval.CurvePoint) (sum float64) {
	for i := 1; i < len(curve); i++ {
		sum += (curve[i].X - curve[i-1].X) * (curve[i].Y + curve[i-1].Y) / 2
	}
	return sum
}

func TestBestF1IsBest(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		scores, labels := sets(rt)
		limit, best, err := eval.BestF1(scores, labels)
		must(t, best, err)
		if again, err := eval.At(scores, labels, float64(float32(limit))); err != nil || again != best {
			rt.Fatalf("At(float32(%g)) = %+v, %v, want %+v", limit, again, err, best)
		}
		for _, s := range append(scores, -100) {
			if c, _ := eval.At(scores, labels, s); c.F1() > best.F1() {
				rt.Fatalf("F1 above %g is %g, BestF1 says %g", s, c.F1(), best.F1())
			}
		}
	})
}

func TestBestF1WithInfinities(t *testing.T) {
	inf := math.Inf(1)
	for _, scores := range [][]float64{{inf, 1}, {inf, -inf}, {1, -inf}, {inf, inf}, {-inf, -inf}, {5, 5}} {
		limit, best, err := eval.BestF1(scores, []bool{true, false})
		if err != nil || math.IsInf(limit, 0) && scores[0] != -inf {
			t.Errorf("BestF1(%v) = %g, %v", scores, limit, err)
			continue
		}
		if again, _ := eval.At(scores, []bool{true, false}, limit); again != best && scores[0] != -inf {
			t.Errorf("BestF1(%v) = %g: At = %+v, want %+v", scores, limit, again, best)
		}
	}
}

func TestFlipRate(t *testing.T) {
	f, err := eval.FlipRate([]float32{1, 2, 3, 4}, 2, []float64{1, 30, 3, 0}, 2)
	if want := (eval.Flips{Rows: 4, On: 1, Off: 1, Rate: .5}); err != nil || f != want {
		t.Errorf("FlipRate = %+v, %v, want %+v", f, err, want)
	}
}

func TestRateCoversTheTruth(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rows := rapid.IntRange(1, 5000).Draw(rt, "rows")
		alerts := rapid.IntRange(0, rows).Draw(rt, "alerts")
		r, err := eval.Rate(alerts, rows, .5, .95)
		if err != nil || !(r.Low <= r.Achieved && r.Achieved <= r.High && r.Low >= 0 && r.High <= 1) {
			rt.Fatalf("Rate(%d, %d) = %+v, %v", alerts, rows, r, err)
		}
	})
}

func TestCollect(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer mem.AssertSize(t, 0)
	sb := array.NewFloat32Builder(mem)
	defer sb.Release()
	sb.AppendValues([]float32{9, 1, 2, float32(math.NaN()), 4, 5}, []bool{true, true, false, true, true, true})
	all := sb.NewFloat32Array()
	defer all.Release()
	scores := array.NewSlice(all, 1, 6)
	defer scores.Release()
	for name, labels := range map[string]arrow.Array{
		"bool": column(mem, arrow.FixedWidthTypes.Boolean, `[true, false, null, null, false]`),
		"int":  column(mem, arrow.PrimitiveTypes.Int64, `[1, 0, 0, null, 0]`),
		"word": column(mem, arrow.BinaryTypes.String, `["Anomaly", "", "", null, "normal"]`),
	} {
		j, err := eval.Collect(scores, labels)
		labels.Release()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !slices.Equal(j.Scores, []float64{1, 5}) || !slices.Equal(j.Labels, []bool{true, false}) ||
			!slices.Equal(j.Rows, []int64{0, 4}) || j.NoScore != 2 || j.NoLabel != 1 || j.Seen != 5 {
			t.Errorf("%s: Collect = %+v", name, j)
		}
	}
	wrong := column(mem, arrow.PrimitiveTypes.Int32, `[1, 0, 0, 0, 7]`)
	defer wrong.Release()
	if _, err := eval.Collect(scores, wrong); err == nil || !strings.Contains(err.Error(), `row 4: label "7"`) {
		t.Errorf("Collect with label 7: %v", err)
	}
	if _, err := eval.Collect(wrong, nil); err == nil || !strings.Contains(err.Error(), "int32") {
		t.Errorf("Collect of int scores: %v", err)
	}
}

// column builds an array from JSON.
func column(mem memory.Allocator, typ arrow.DataType, text string) arrow.Array {
	a, _, err := array.FromJSON(mem, typ, strings.NewReader(text))
	if err != nil {
		panic(err)
	}
	return a
}
