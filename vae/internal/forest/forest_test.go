package forest_test

import (
	"fmt"
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

// The normaliser is exact: depths come back as whole numbers.
func TestForestNormaliser(t *testing.T) {
	const euler = 0.57721566490153286
	for _, c := range []struct {
		rows  []float32
		score float32
		norm  float64 // average depth in a tree of so many rows
		lo    float64 // least and greatest sum of depths in 100 trees
		hi    float64
	}{
		{[]float32{3}, 8, 0, 0, 0},
		{[]float32{0, 1}, 0, 1, 100, 100},
		{[]float32{7, 7}, 7, 1, 100, 100}, // not parted: the depth still to be expected
		{[]float32{0, 1, 10}, 10, 2*(math.Ln2+euler) - 4.0/3, 101, 125},
		{[]float32{0, 1, 10}, 1, 2*(math.Ln2+euler) - 4.0/3, 200, 200}, // both cuts, whatever they are
	} {
		f := forest.Fit(len(c.rows), 1, func(i int) []float32 { return c.rows[i : i+1] }, 5)
		got := f.Score([]float32{c.score})
		if c.norm == 0 {
			if got != 0.5 {
				t.Errorf("%v: %v scores %v, want 0.5", c.rows, c.score, got)
			}
			continue
		}
		sum := -math.Log2(got) * c.norm * 100
		if math.Abs(sum-math.Round(sum)) > 1e-4 || sum < c.lo-1e-4 || sum > c.hi+1e-4 {
			t.Errorf("%v: depths of %v sum to %v, want a whole number from %v to %v", c.rows, c.score, sum, c.lo, c.hi)
		}
	}
}

// Every row is asked for once a tree, and what the caller returns may be reused.
func TestForestCopiesRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	x := make([]float32, 2*100)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	calls, room := 0, make([]float32, 2)
	reused := forest.Fit(100, 2, func(i int) []float32 {
		calls++
		copy(room, x[2*i:])
		return room
	}, 1)
	own := forest.Fit(100, 2, func(i int) []float32 { return x[2*i : 2*i+2] }, 1)
	if calls != 100*100 {
		t.Errorf("row was called %d times, want once for each of 100 rows in 100 trees", calls)
	}
	for i := range 100 {
		if a, b := reused.Score(x[2*i:]), own.Score(x[2*i:]); a != b {
			t.Fatalf("row %d scores %v from a reused slice, %v from its own", i, a, b)
		}
	}
}

func BenchmarkForest(b *testing.B) {
	for _, d := range []int{20, 784} {
		x := make([]float32, 2000*d)
		rng := rand.New(rand.NewPCG(1, 1))
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		row := func(i int) []float32 { return x[i*d : i*d+d] }
		b.Run(fmt.Sprintf("fit/features=%d", d), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				forest.Fit(2000, d, row, 1)
			}
		})
		f := forest.Fit(2000, d, row, 1)
		b.Run(fmt.Sprintf("score/features=%d", d), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for i := range 2000 {
					f.Score(row(i))
				}
			}
			b.ReportMetric(float64(b.N)*2000/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
