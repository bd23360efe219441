package threshold

import (
	"fmt"
	"math"
	"slices"
)

// A Correction is a way to bound the false discovery rate of a window.
type Correction string

// The corrections. BH is Benjamini and Hochberg's step-up rule (1995): p-values
// that are independent or, as conformal ones are, positively dependent. BY divides
// by the harmonic sum (Benjamini and Yekutieli 2001) and holds for any dependence.
// Storey weighs BH by an estimate of the share of normal rows (Storey 2002, with
// lambda 0.5): more power where anomalies are common.
const (
	BH     Correction = "bh"
	BY     Correction = "by"
	Storey Correction = "storey"
)

// Valid says whether a correction is known.
func (c Correction) Valid() error {
	switch c {
	case BH, BY, Storey:
		return nil
	}
	return fmt.Errorf("correction %q: want bh, by or storey", c)
}

// Discoveries says which of a window's rows are anomalies, so that the expected
// share of false ones among them is at most fdr (above 0, below 1) when the
// p-values of normal rows are valid. Rows with p NaN are no part of the window.
func Discoveries(p []float64, fdr float64, c Correction) []bool {
	found := make([]bool, len(p))
	var sorted []float64
	for _, v := range p {
		if !math.IsNaN(v) {
			sorted = append(sorted, v)
		}
	}
	slices.Sort(sorted)
	m := float64(len(sorted))
	switch c {
	case BY:
		fdr /= harmonic(len(sorted))
	case Storey:
		at, _ := slices.BinarySearchFunc(sorted, 0.5, func(v, half float64) int {
			if v > half {
				return 0
			}
			return -1
		})
		fdr /= min(1, (1+m-float64(at))/(m*0.5))
	}
	cut := math.Inf(-1)
	for k, v := range sorted {
		if v <= fdr*float64(k+1)/m {
			cut = v
		}
	}
	for i, v := range p {
		found[i] = v <= cut
	}
	return found
}

// harmonic returns 1 + 1/2 + ... + 1/n, and 1 for 0.
func harmonic(n int) float64 {
	sum := 0.0
	for k := range n {
		sum += 1 / float64(k+1)
	}
	return max(sum, 1)
}
