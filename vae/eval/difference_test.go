package eval_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/elbo-stream/elbo/vae/eval"
)

// twoScores draws rows with two scores each, the second one of which is the first
// and noise, rounded so that some are equal.
func twoScores(seed uint64, anomalies, normal int) (a []float64, b []float32, labels []bool) {
	rng := rand.New(rand.NewPCG(seed, 7))
	for i := range anomalies + normal {
		odd := i < anomalies
		shift := 0.0
		if odd {
			shift = 1
		}
		v := shift + rng.NormFloat64()
		a = append(a, math.Round(4*v)/4)
		b = append(b, float32(math.Round(4*(v+rng.NormFloat64()))/4))
		labels = append(labels, odd)
	}
	return a, b, labels
}

// The error is what DeLong's formula says when every pair is looked at.
func TestDifferenceErrorByPairs(t *testing.T) {
	a, b, labels := twoScores(1, 30, 80)
	win := func(odd, usual float64) float64 {
		switch {
		case odd > usual:
			return 1
		case odd == usual:
			return 0.5
		}
		return 0
	}
	n := len(labels)
	perRow, count := make([]float64, n), make([]float64, n)
	for i := range n {
		for j := range n {
			if labels[i] && !labels[j] {
				d := win(a[i], a[j]) - win(float64(b[i]), float64(b[j]))
				perRow[i], perRow[j] = perRow[i]+d, perRow[j]+d
				count[i], count[j] = count[i]+1, count[j]+1
			}
		}
	}
	want := 0.0
	for _, class := range []bool{false, true} {
		var sum, squares, rows float64
		for i := range n {
			if labels[i] == class {
				v := perRow[i] / count[i]
				sum, squares, rows = sum+v, squares+v*v, rows+1
			}
		}
		want += (squares - sum*sum/rows) / (rows - 1) / rows
	}
	got, err := eval.DifferenceError(a, b, labels)
	if err != nil || math.Abs(got-math.Sqrt(want)) > 1e-12 {
		t.Errorf("DifferenceError = %v (%v), want %v", got, err, math.Sqrt(want))
	}
}

// Over many samples the differences spread as the error says.
func TestDifferenceErrorIsTheSpread(t *testing.T) {
	const samples = 400
	var sum, squares, said float64
	for seed := range uint64(samples) {
		a, b, labels := twoScores(seed+10, 40, 160)
		x, err := eval.AUROC(a, labels)
		if err != nil {
			t.Fatal(err)
		}
		y, err := eval.AUROC(b, labels)
		if err != nil {
			t.Fatal(err)
		}
		e, err := eval.DifferenceError(a, b, labels)
		if err != nil {
			t.Fatal(err)
		}
		sum, squares, said = sum+x-y, squares+(x-y)*(x-y), said+e/samples
	}
	spread := math.Sqrt(squares/samples - sum*sum/samples/samples)
	if math.Abs(said/spread-1) > 0.15 {
		t.Errorf("mean error %v, spread %v", said, spread)
	}
}

func TestDifferenceErrorOfLittle(t *testing.T) {
	same := []float64{1, 2, 3}
	if e, err := eval.DifferenceError(same, same, []bool{false, true, true}); err != nil || e != 0 {
		t.Errorf("of equal scores: %v (%v), want 0", e, err)
	}
	if _, err := eval.DifferenceError(same, same, []bool{false, false, false}); !errors.Is(err, eval.ErrOneClass) {
		t.Errorf("of one class: %v", err)
	}
	if _, err := eval.DifferenceError(same, []float64{1, 2, math.NaN()}, []bool{true, false, false}); !errors.Is(err, eval.ErrNaN) {
		t.Errorf("of NaN: %v", err)
	}
	if _, err := eval.DifferenceError(same, same[:2], []bool{true, false, false}); err == nil {
		t.Error("of different lengths: no error")
	}
}
