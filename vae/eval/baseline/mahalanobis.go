package baseline

import (
	"context"
	"errors"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// Mahalanobis scores by the squared distance from the mean in units of the
// covariance: (x-m)' inv(C + Ridge I) (x-m), with C over n-1.
type Mahalanobis struct {
	Ridge float64 // added to the variances; 0 means 0.01

	mean  []float64
	lower blas64.Triangular
}

// Name is Mahalanobis.
func (*Mahalanobis) Name() string { return "Mahalanobis" }

// Fit takes the mean and the covariance. It fails with ErrTooWide for more than
// MaxSquare columns.
func (d *Mahalanobis) Fit(ctx context.Context, m Matrix) error {
	if err := errors.Join(fit(m), square(m)); err != nil {
		return err
	}
	mean, cov, err := moments(ctx, m)
	if err != nil {
		return err
	}
	ridge := d.Ridge
	if ridge == 0 {
		ridge = .01
	}
	for i := range cov {
		cov[i] /= float64(max(m.Rows()-1, 1))
	}
	for j := range m.Cols {
		cov[j*m.Cols+j] += ridge
	}
	var c mat.Cholesky
	if !c.Factorize(mat.NewSymDense(m.Cols, cov)) {
		return errors.New("covariance is not positive definite: give a larger ridge")
	}
	var lower mat.TriDense
	c.LTo(&lower)
	d.mean, d.lower = mean, lower.RawTriangular()
	return nil
}

// Score solves for the distance, many rows at once.
func (d *Mahalanobis) Score(ctx context.Context, m Matrix, dst []float64) error {
	cols := len(d.mean)
	room := make([]float64, cols*blockRows)
	return blocks(ctx, m, cols, dst, func(m Matrix, dst []float64) {
		n := m.Rows()
		for i := range n { // a column of the system for each row
			for j, v := range m.Row(i) {
				room[j*n+i] = v - d.mean[j]
			}
		}
		x := blas64.General{Rows: cols, Cols: n, Stride: n, Data: room[:cols*n]}
		blas64.Trsm(blas.Left, blas.NoTrans, 1, d.lower, x)
		clear(dst)
		for j := range cols {
			for i, v := range x.Data[j*n : (j+1)*n] {
				dst[i] += v * v
			}
		}
		finite(dst)
	})
}

// addScatter adds the products of a block's rows to the full square matrix s.
func addScatter(s []float64, b Matrix) {
	x := blas64.General{Rows: b.Rows(), Cols: b.Cols, Stride: b.Cols, Data: b.Data}
	blas64.Gemm(blas.Trans, blas.NoTrans, 1, x, x, 1, blas64.General{Rows: b.Cols, Cols: b.Cols, Stride: b.Cols, Data: s})
}
