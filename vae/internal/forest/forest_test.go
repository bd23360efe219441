package forest_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/elbo-stream/elbo/vae/internal/forest"
)

// Lonely rows score above all others, the same at every fit.
func TestForestIsolates(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	x := make([]float32, 3*2000)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
		if i >= 3*1990 {
			x[i] += 8
		}
	}
	row := func(i int) []float32 { return x[3*i : 3*i+3] }
	f, again := forest.Fit(2000, 3, row, 7), forest.Fit(2000, 3, row, 7)
	highest, lowest, mean := 0.0, 1.0, 0.0
	for i := range 2000 {
		s := f.Score(row(i))
		if s != again.Score(row(i)) {
			t.Fatalf("row %d scores %v, then %v", i, s, again.Score(row(i)))
		}
		if !(s > 0 && s < 1) {
			t.Fatalf("row %d scores %v", i, s)
		}
		if i < 1990 {
			highest, mean = max(highest, s), mean+s/1990
		} else {
			lowest = min(lowest, s)
		}
	}
	if lowest <= highest-0.05 || mean > 0.5 {
		t.Errorf("odd rows score %v or more, others up to %v and %v on average", lowest, highest, mean)
	}
}

// Equal rows, one row and constant columns are no trouble.
func TestForestOfLittle(t *testing.T) {
	same := []float32{1, 2}
	for _, n := range []int{1, 2, 500} {
		f := forest.Fit(n, 2, func(int) []float32 { return same }, 1)
		if s := f.Score([]float32{5, 5}); math.IsNaN(s) || s < 0 || s > 1 {
			t.Errorf("%d equal rows: another scores %v", n, s)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	x := make([]float32, 600)
	for i := range x {
		if x[i] = 4; i%3 == 1 {
			x[i] = float32(rng.NormFloat64())
		}
	}
	f := forest.Fit(200, 3, func(i int) []float32 { return x[3*i : 3*i+3] }, 1)
	if a, b := f.Score([]float32{4, 0, 4}), f.Score([]float32{4, 30, 4}); !(b > a) {
		t.Errorf("a usual row scores %v, an odd one %v", a, b)
	}
}
