package baseline

import (
	"context"

	"github.com/elbo-stream/elbo/vae/internal/forest"
)

// IsolationForest scores by how few random cuts part a row from others (Liu, Ting
// and Zhou 2008), with the settings of scikit-learn: 100 trees of 256 rows.
type IsolationForest struct {
	Seed uint64

	cols  int
	trees *forest.Forest
}

// Name is IForest.
func (*IsolationForest) Name() string { return "IForest" }

// Fit grows the trees.
func (d *IsolationForest) Fit(ctx context.Context, m Matrix) error {
	if err := fit(m); err != nil {
		return err
	}
	room := make([]float32, m.Cols)
	row := func(i int) []float32 { return narrow(m.Row(i), room) }
	d.cols, d.trees = m.Cols, forest.Fit(m.Rows(), m.Cols, row, d.Seed)
	return ctx.Err()
}

func narrow(row []float64, dst []float32) []float32 {
	for j, v := range row {
		dst[j] = float32(v)
	}
	return dst
}

// Score lets every tree isolate each row.
func (d *IsolationForest) Score(ctx context.Context, m Matrix, dst []float64) error {
	row := make([]float32, m.Cols)
	return blocks(ctx, m, d.cols, dst, func(m Matrix, dst []float64) {
		for i := range dst {
			dst[i] = d.trees.Score(narrow(m.Row(i), row))
		}
	})
}
