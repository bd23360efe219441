package train

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/forest"
)

const (
	maxContamination = 0.2
	// leftOutFactor is how many times the declared share of anomalies is left out:
	// a normal row more or less costs little, an anomaly that stays costs much.
	leftOutFactor = 4
	// trimFrom is the step from which on each batch leaves out what fits worst.
	trimFrom = 100
	// forestRows is the most rows that the isolation forest draws from.
	forestRows = 50_000
	// reportedRows is how many rows that were left out a model file names.
	reportedRows = 1000
)

// isOut says whether a row of the table is left out.
func (s *split) isOut(row int64) bool { return s.out != nil && s.out[row/64]>>(row%64)&1 != 0 }

// leaveOut finds the rows that an isolation forest takes for the strangest, packed
// as spec says, and leaves them out from then on.
func (s *split) leaveOut(ctx context.Context, c Config, d Data, spec *vae.Spec) error {
	schema, err := d.Schema(ctx)
	if err != nil {
		return err
	}
	packer, err := spec.NewPacker(schema)
	if err != nil {
		return err
	}
	features, inputs := spec.Inputs()
	t := newTile(spec)
	row := make([]float32, features)
	read := func(f func(position int64, row []float32)) error {
		return each(ctx, d, func(first int64, rec arrow.Record) error {
			return t.rows(packer, rec, func(r, lane int) {
				for j := range row {
					row[j] = t.x[j*vae.TileRows+lane]
				}
				f(first+int64(r), row)
			})
		})
	}
	share := min(1, forestRows/float64(s.total))
	sample := &rows{inputs: inputs, features: features}
	err = read(func(position int64, row []float32) {
		if share == 1 || float64(hash(s.seed, streamForest, uint64(position))>>11)/(1<<53) < share {
			sample.x = append(sample.x, row...)
			sample.n++
		}
	})
	if err != nil {
		return err
	}
	trees := forest.Fit(sample.n, features, func(i int) []float32 { return sample.x[i*features : (i+1)*features] }, s.seed)
	scores := make([]float64, s.total)
	if err := read(func(position int64, row []float32) { scores[position] = trees.Score(row) }); err != nil {
		return err
	}
	s.cut(scores, int(math.Ceil(leftOutFactor*c.Contamination*float64(s.total))))
	if c.LeftOut != nil {
		for _, row := range s.left {
			c.LeftOut(row, scores[row])
		}
	}
	return nil
}

// cut leaves out the n rows with the highest scores.
func (s *split) cut(scores []float64, n int) {
	order := make([]int64, len(scores))
	for i := range order {
		order[i] = int64(i)
	}
	slices.SortStableFunc(order, func(a, b int64) int { return cmp.Compare(scores[b], scores[a]) })
	s.left = order[:min(n, len(order)*4/5)]
	s.out = make([]uint64, (len(scores)+63)/64)
	for _, row := range s.left {
		s.out[row/64] |= 1 << (row % 64)
	}
}

// report fills in what was left out.
func (s *split) report(tr *vae.Training, contamination float64) {
	if s == nil || contamination == 0 {
		return
	}
	tr.Contamination, tr.LeftOut = contamination, int64(len(s.left))
	tr.LeftOutRows = s.left[:min(len(s.left), reportedRows)]
	tr.Warnings = append(tr.Warnings, fmt.Sprintf("%d of %d rows were left out as likely anomalies (contamination %g)", len(s.left), s.total, contamination))
}

// trimmed returns a batch without the rows that fit worst: the declared share of
// anomalies.
func (r *run) trimmed(b batch) batch {
	drop := int(math.Round(r.c.Contamination * float64(len(b.index))))
	if drop == 0 {
		return b
	}
	picked := &rows{inputs: b.rows.inputs, features: b.rows.features}
	for _, i := range b.index {
		picked.addRow(b.rows, int(i))
	}
	scores := r.pool.evaluate(r.params, picked, picked.n).scores
	order := all(len(scores))
	slices.SortStableFunc(order, func(x, y uint32) int { return cmp.Compare(scores[x], scores[y]) })
	keep := order[:len(order)-drop]
	slices.Sort(keep)
	index := make([]uint32, len(keep))
	for i, k := range keep {
		index[i] = b.index[k]
	}
	return batch{b.rows, index}
}
