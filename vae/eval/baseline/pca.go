package baseline

import (
	"context"
	"errors"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// ErrNothingLeft is returned by PCA for rows whose variance needs all components:
// what they leave out would be rounding errors.
var ErrNothingLeft = errors.New("every component is needed to hold the variance, so nothing is left to score by")

// PCA scores by the squared error of rebuilding a row from its first principal
// components: as few as hold more than Share of the variance.
type PCA struct {
	Share float64 // of the variance; 0 means 0.95

	mean []float64
	rest blas64.General // [columns][components left out]: what they hold is the error
}

// Name is PCA95.
func (*PCA) Name() string { return "PCA95" }

// Fit takes the components from the covariance. It fails with ErrTooWide for more
// than MaxSquare columns, and with ErrNothingLeft.
func (d *PCA) Fit(ctx context.Context, m Matrix) error {
	if err := errors.Join(fit(m), square(m)); err != nil {
		return err
	}
	mean, scatter, err := moments(ctx, m)
	if err != nil {
		return err
	}
	var e mat.EigenSym
	if !e.Factorize(mat.NewSymDense(m.Cols, scatter), true) {
		return errors.New("the principal components were not found")
	}
	var vectors mat.Dense
	e.VectorsTo(&vectors)
	left := d.leftOut(e.Values(nil), m.Rows())
	if left == 0 {
		return ErrNothingLeft
	}
	d.mean = mean // eigenvalues ascend
	d.rest = mat.DenseCopyOf(vectors.Slice(0, m.Cols, 0, left)).RawMatrix()
	return nil
}

// leftOut returns how many of the ascending eigenvalues' components are not kept.
func (d *PCA) leftOut(values []float64, rows int) int {
	share := d.Share
	if share == 0 {
		share = .95
	}
	total := 0.0
	for i, v := range values {
		values[i] = max(v, 0) // rounding makes a zero negative
		total += values[i]
	}
	if total == 0 {
		return len(values)
	}
	kept, sum := 0, 0.0
	for most := min(len(values), rows); kept < most && sum/total <= share; kept++ {
		sum += values[len(values)-1-kept]
	}
	return len(values) - kept
}

// Score measures what the components left out hold of each row.
func (d *PCA) Score(ctx context.Context, m Matrix, dst []float64) error {
	cols, left := len(d.mean), d.rest.Cols
	centred, out := make([]float64, cols*blockRows), make([]float64, left*blockRows)
	return blocks(ctx, m, cols, dst, func(m Matrix, dst []float64) {
		clear(dst)
		n := m.Rows()
		x := blas64.General{Rows: n, Cols: cols, Stride: cols, Data: centre(centred, m, d.mean).Data}
		y := blas64.General{Rows: n, Cols: left, Stride: left, Data: out[:n*left]}
		blas64.Gemm(blas.NoTrans, blas.NoTrans, 1, x, d.rest, 0, y)
		for i := range dst {
			for _, v := range y.Data[i*left : (i+1)*left] {
				dst[i] += v * v
			}
		}
		finite(dst)
	})
}
