package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/vae"
)

// A Sweep measures one model at several batches and workers.
type Sweep struct {
	Model   *vae.Model
	Batches []int
	Workers []int
	// Precision is that of every point.
	Precision vae.Precision
	// Long is how long one point is measured, about.
	Long time.Duration
	// Peak is the ceiling of one core in GFLOP/s, 0 when it is not known.
	Peak float64
	// Each is told every figure as soon as it is there, and Skipped every batch
	// that is left out and why.
	Each    func(Figure)
	Skipped func(p Point, why string)
}

// patience is how many times Long one call may take before a point is left out,
// and leastPatience the least of it.
const (
	patience      = 10
	leastPatience = 5 * time.Second
)

// Run measures every batch with every number of workers, in the order given, on
// the rows of rec, which it borrows. Batches with more rows than rec has, and
// those of which a single call would take very long by what was measured before,
// are skipped.
func (s *Sweep) Run(ctx context.Context, rec arrow.Record) error {
	for _, workers := range s.Workers {
		rate := 0.0 // of one worker, at the batch before
		for _, batch := range s.Batches {
			p := Point{Batch: batch, Workers: workers, Precision: s.Precision}
			if int64(batch) > rec.NumRows() {
				s.skip(p, fmt.Sprintf("more than the %d rows at hand", rec.NumRows()))
				continue
			}
			if call := time.Duration(float64(batch) / max(rate, 1e-3) * float64(time.Second)); rate > 0 && call > max(patience*s.Long, leastPatience) {
				s.skip(p, fmt.Sprintf("one call would take about %v", call.Round(time.Second)))
				continue
			}
			f, err := Measure(ctx, s.Model, rec, p, s.Long)
			if err != nil {
				return err
			}
			rate = f.RowsPerSec / float64(workers)
			if s.Peak > 0 {
				of := f.RowsPerCPU
				if of == 0 {
					of = rate
				}
				f.PercentOfPeak = 100 * 2e-9 * float64(s.Model.Size().MultiplyAdds) * of / s.Peak
			}
			if s.Each != nil {
				s.Each(f)
			}
		}
	}
	return nil
}

func (s *Sweep) skip(p Point, why string) {
	if s.Skipped != nil {
		s.Skipped(p, why)
	}
}
