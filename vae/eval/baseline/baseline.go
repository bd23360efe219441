package baseline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// A Matrix holds rows one after the other: row i is Data[i*Cols : (i+1)*Cols].
type Matrix struct {
	Cols int
	Data []float64
}

// Rows returns the number of rows.
func (m Matrix) Rows() int {
	if m.Cols == 0 {
		return 0
	}
	return len(m.Data) / m.Cols
}

// Row returns row i, which is not a copy.
func (m Matrix) Row(i int) []float64 { return m.Data[i*m.Cols : (i+1)*m.Cols] }

// rows returns the rows [from, to), which are not a copy.
func (m Matrix) rows(from, to int) Matrix {
	return Matrix{m.Cols, m.Data[from*m.Cols : to*m.Cols]}
}

// A Detector learns what is normal from training rows and says of other rows how
// strange they are. Fit must have returned nil before Score is called; it borrows
// the rows and keeps none of the matrix. Score writes one finite number a row,
// higher for stranger, into dst, which has as many elements as m has rows, and may
// be called concurrently. Both fail for a value that is not finite, and stop
// within a moment when ctx ends.
type Detector interface {
	// Name is short and stable: kNN5, Mahalanobis, IForest, PCA95 or ECOD.
	Name() string
	Fit(ctx context.Context, m Matrix) error
	Score(ctx context.Context, m Matrix, dst []float64) error
}

var (
	_ Detector = (*KNN)(nil)
	_ Detector = (*Mahalanobis)(nil)
	_ Detector = (*IsolationForest)(nil)
	_ Detector = (*PCA)(nil)
	_ Detector = (*ECOD)(nil)
)

// All returns one detector of each kind with its usual settings.
func All(seed uint64) []Detector {
	return []Detector{&KNN{Seed: seed}, &Mahalanobis{}, &IsolationForest{Seed: seed}, &PCA{}, &ECOD{}}
}

// ErrTooWide is returned by detectors whose work grows with the square of the
// columns, for more than MaxSquare of them.
var ErrTooWide = errors.New("too many columns")

// MaxSquare is the most columns for which Mahalanobis and PCA make a covariance.
const MaxSquare = 2048

func square(m Matrix) error {
	if m.Cols > MaxSquare {
		return fmt.Errorf("%w: %d, at most %d", ErrTooWide, m.Cols, MaxSquare)
	}
	return nil
}

// fit checks training rows.
func fit(m Matrix) error {
	if m.Rows() == 0 {
		return errors.New("no rows to fit")
	}
	return check(m)
}

func check(m Matrix) error {
	if m.Cols <= 0 || len(m.Data)%m.Cols != 0 {
		return fmt.Errorf("%d values are no rows of %d columns", len(m.Data), m.Cols)
	}
	for i, v := range m.Data {
		if v-v != 0 {
			return fmt.Errorf("row %d, column %d: %g is not finite; Scale.Apply makes a missing value the mean", i/m.Cols, i%m.Cols, v)
		}
	}
	return nil
}

// blockRows is how many rows are scored between two looks at the context.
const blockRows = 256

// blocks checks what Score was given and calls each with runs of rows.
func blocks(ctx context.Context, m Matrix, cols int, dst []float64, each func(m Matrix, dst []float64)) error {
	if err := check(m); err != nil {
		return err
	}
	if m.Cols != cols {
		return fmt.Errorf("%d columns, but %d when it was fitted", m.Cols, cols)
	}
	if len(dst) != m.Rows() {
		return fmt.Errorf("room for %d scores, but %d rows", len(dst), m.Rows())
	}
	for from := 0; from < len(dst); from += blockRows {
		if err := ctx.Err(); err != nil {
			return err
		}
		to := min(from+blockRows, len(dst))
		each(m.rows(from, to), dst[from:to])
	}
	return nil
}

// mix spreads a counter over 64 bits (splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Hash is the number by which the rows of a sample are drawn: those with the
// smallest ones. It spreads the row numbers of one seed evenly over 64 bits.
func Hash(seed uint64, row int64) uint64 { return mix(mix(seed) + uint64(row)) }

// sample returns at most limit of n rows in ascending order, drawn by Hash.
func sample(seed uint64, n, limit int) []int {
	rows := make([]int, n)
	for i := range rows {
		rows[i] = i
	}
	if n <= limit {
		return rows
	}
	slices.SortFunc(rows, func(a, b int) int {
		return cmp.Or(cmp.Compare(Hash(seed, int64(a)), Hash(seed, int64(b))), a-b)
	})
	rows = rows[:limit]
	slices.Sort(rows)
	return rows
}

// moments returns the mean of each column, and the sum over rows of the products
// of deviations from it, symmetric, row by row.
func moments(ctx context.Context, m Matrix) (mean, scatter []float64, err error) {
	d, n := m.Cols, m.Rows()
	mean, scatter = means(m), make([]float64, d*d)
	centred := make([]float64, min(blockRows, n)*d)
	for from := 0; from < n; from += blockRows {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		b := m.rows(from, min(from+blockRows, n))
		addScatter(scatter, centre(centred, b, mean))
	}
	return mean, scatter, nil
}

func means(m Matrix) []float64 {
	mean := make([]float64, m.Cols)
	for i := range m.Rows() {
		for j, v := range m.Row(i) {
			mean[j] += v
		}
	}
	for j := range mean {
		mean[j] /= float64(m.Rows())
	}
	return mean
}

// centre writes the rows less their mean into dst.
func centre(dst []float64, m Matrix, mean []float64) Matrix {
	dst = dst[:len(m.Data)]
	for i := range m.Rows() {
		row := dst[i*m.Cols:]
		for j, v := range m.Row(i) {
			row[j] = v - mean[j]
		}
	}
	return Matrix{m.Cols, dst}
}

// finite brings what overflowed back: scores have an order, and so an end.
func finite(dst []float64) {
	for i, v := range dst {
		if !(v <= math.MaxFloat64) {
			dst[i] = math.MaxFloat64
		}
	}
}
