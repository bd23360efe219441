package eval

import (
	"fmt"
	"math"
	"slices"
)

// DifferenceError is the standard error of the difference of two AUROCs on the
// same rows, by the method of DeLong, DeLong and Clarke-Pearson (1988): what
// another sample of anomalies and normal rows would move it by. It is 0 where
// there are fewer than two rows of a class, and fails like AUROC.
func DifferenceError[S, T Float](a []S, b []T, labels []bool) (float64, error) {
	for _, err := range []error{check(a, labels), check(b, labels)} {
		if err != nil {
			return 0, fmt.Errorf("difference of AUROCs: %w", err)
		}
	}
	if _, _, err := bothClasses(labels); err != nil {
		return 0, fmt.Errorf("difference of AUROCs: %w", err)
	}
	odd, usual := placements(a, labels)
	odd2, usual2 := placements(b, labels)
	return math.Sqrt(varianceOfMean(odd, odd2) + varianceOfMean(usual, usual2)), nil
}

// placements returns for each anomaly the share of normal rows below it, and for
// each normal row the share of anomalies above it, equal scores counting half.
func placements[S Float](scores []S, labels []bool) (odd, usual []float64) {
	var of [2][]float64
	for i, s := range scores {
		of[b2i(labels[i])] = append(of[b2i(labels[i])], float64(s))
	}
	place := func(values, among []float64) []float64 {
		sorted, out := slices.Sorted(slices.Values(among)), make([]float64, len(values))
		for i, v := range values {
			below, _ := slices.BinarySearch(sorted, v)
			above, _ := slices.BinarySearchFunc(sorted, v, func(e, v float64) int { // first one above v
				if e <= v {
					return -1
				}
				return 1
			})
			out[i] = float64(below+above) / 2 / float64(len(sorted))
		}
		return out
	}
	odd, usual = place(of[1], of[0]), place(of[0], of[1])
	for i := range usual {
		usual[i] = 1 - usual[i]
	}
	return odd, usual
}

// varianceOfMean is the variance of the mean of a-b.
func varianceOfMean(a, b []float64) float64 {
	var n, mean, m2 float64
	for i := range a {
		n++
		d := a[i] - b[i] - mean
		mean += d / n
		m2 += d * (a[i] - b[i] - mean)
	}
	if n < 2 {
		return 0
	}
	return m2 / (n - 1) / n
}
