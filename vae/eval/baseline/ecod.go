package baseline

import (
	"context"
	"math"
	"slices"
)

// ECOD scores by how far out a row's values lie in each column alone (Li et al.
// 2022): the sum over columns of the largest of the left tail's -log probability,
// the right tail's, and that of the tail to which the training rows are skewed.
// As in PyOD the largest is taken in each column, where the paper takes it of the
// three sums. PyOD counts all rows that it is given to score among the training
// rows, so that a row's score there depends on the others; here each row is scored
// as if it alone had joined them, which is PyOD called row by row. Where many of
// the scored rows are anomalies this finds more of them than PyOD does at once.
type ECOD struct {
	columns []tails
}

// tails is one column of the training rows.
type tails struct {
	sorted    []float64
	symmetric bool // skewness 0, where both tails count
}

// Name is ECOD.
func (*ECOD) Name() string { return "ECOD" }

// Fit sorts each column.
func (d *ECOD) Fit(ctx context.Context, m Matrix) error {
	if err := fit(m); err != nil {
		return err
	}
	columns := make([]tails, m.Cols)
	for j := range columns {
		if err := ctx.Err(); err != nil {
			return err
		}
		v := make([]float64, m.Rows())
		for i := range v {
			v[i] = m.Data[i*m.Cols+j]
		}
		slices.Sort(v)
		columns[j] = tails{v, symmetric(v)}
	}
	d.columns = columns
	return nil
}

// symmetric says whether the third moment about the mean is zero, or nothing but
// rounding where all values are equal.
func symmetric(sorted []float64) bool {
	if sorted[0] == sorted[len(sorted)-1] {
		return true
	}
	mean, third := 0.0, 0.0
	for _, v := range sorted {
		mean += v / float64(len(sorted))
	}
	for _, v := range sorted {
		third += (v - mean) * (v - mean) * (v - mean)
	}
	return third == 0
}

// Score counts the training rows to both sides of each value.
func (d *ECOD) Score(ctx context.Context, m Matrix, dst []float64) error {
	return blocks(ctx, m, len(d.columns), dst, func(m Matrix, dst []float64) {
		for i := range dst {
			dst[i] = 0
			for j, v := range m.Row(i) {
				dst[i] += d.columns[j].score(v)
			}
		}
	})
}

func (t *tails) score(v float64) float64 {
	n := len(t.sorted)
	lower, _ := slices.BinarySearch(t.sorted, v) // training values below v
	upper := lower
	for upper < n && upper < lower+8 && t.sorted[upper] == v { // ties are few, or many
		upper++
	}
	if upper == lower+8 {
		upper += upperBound(t.sorted[upper:], v)
	}
	left, right := float64(upper+1)/float64(n+1), float64(n-lower+1)/float64(n+1)
	if t.symmetric {
		return -math.Log(left) - math.Log(right)
	}
	return -math.Log(min(left, right))
}

// upperBound returns how many of the sorted values are at most v.
func upperBound(sorted []float64, v float64) int {
	low, high := 0, len(sorted)
	for low < high {
		if mid := (low + high) / 2; sorted[mid] <= v {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}
