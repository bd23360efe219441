package baseline

import (
	"errors"
	"math"
)

// A Scale standardises columns: (x-Mean)/SD, with figures of the training rows.
type Scale struct {
	Mean, SD []float64 // of each column; 0 and 1 for columns that stay as they are
}

// FitScale takes the mean and standard deviation (over n) of each column's values,
// NaN left out. A column that is constant, up to rounding, gets the SD 1, and so
// does one without values, with the mean 0. keep, unless it is nil, says which
// columns stay as they are.
func FitScale(m Matrix, keep []bool) (*Scale, error) {
	if m.Rows() == 0 {
		return nil, errors.New("no rows to fit")
	}
	s := &Scale{make([]float64, m.Cols), make([]float64, m.Cols)}
	n := make([]float64, m.Cols)
	for i := range m.Rows() { // a running mean: sums of large numbers lose digits
		for j, v := range m.Row(i) {
			if v == v {
				n[j]++
				d := v - s.Mean[j]
				s.Mean[j] += d / n[j]
				s.SD[j] += d * (v - s.Mean[j])
			}
		}
	}
	for j := range s.SD {
		s.SD[j] = math.Sqrt(s.SD[j] / max(n[j], 1))
		if !(s.SD[j] >= 1e-12*max(1, math.Abs(s.Mean[j]))) {
			s.SD[j] = 1
		}
		if keep != nil && keep[j] {
			s.Mean[j], s.SD[j] = 0, 1
		}
	}
	return s, nil
}

// Apply standardises m in place. NaN stands for a missing value and becomes the
// mean, 0.
func (s *Scale) Apply(m Matrix) {
	for i := range m.Rows() {
		row := m.Row(i)
		for j, v := range row {
			if v != v {
				row[j] = 0
				continue
			}
			row[j] = (v - s.Mean[j]) / s.SD[j]
		}
	}
}
