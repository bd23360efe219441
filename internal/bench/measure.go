package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/vae"
)

// A Point is one way of calling a scorer.
type Point struct {
	Batch   int // rows in one call
	Workers int // goroutines that score at the same time, each with its own Scorer
	// Precision is the number format of weights and activations; empty means
	// float32.
	Precision vae.Precision
}

// A Figure is what a Point came to.
type Figure struct {
	Batch      int     `json:"batch"`
	Workers    int     `json:"workers"`
	RowsPerSec float64 `json:"rows_per_s"` // of all workers, by the clock
	// RowsPerCPU is rows for each second of processor time of the process, which
	// other load on the machine moves less; 0 where the system does not tell.
	RowsPerCPU float64 `json:"rows_per_cpu_s,omitempty"`
	GFLOPS     float64 `json:"gflops"` // by the clock; 2 for each multiply-add of the network
	// PercentOfPeak compares the operations of RowsPerCPU (of RowsPerSec by worker,
	// where that is 0) with the ceiling of one core, 0 where it is not known.
	PercentOfPeak float64 `json:"percent_of_peak,omitempty"`
	BytesPerRow   float64 `json:"bytes_per_row"` // in the columns that the model reads
	// P50 and P99 are how long a row waits in the call that scores it: quantiles
	// of the duration of a call, in microseconds.
	P50 float64 `json:"p50_us"`
	P99 float64 `json:"p99_us"`
}

const (
	parts     = 5       // of the time; rates are medians of them
	mostCalls = 1 << 15 // whose durations are kept
)

// Measure scores the rows of rec again and again, for about the given time (and
// at least a few calls), and returns how fast that went. Each worker scores its
// own part of rec where that has the rows. It borrows rec. The first error of a
// worker, or that of ctx, ends it.
func Measure(ctx context.Context, m *vae.Model, rec arrow.Record, p Point, long time.Duration) (Figure, error) {
	if p.Batch < 1 || p.Workers < 1 || int64(p.Batch) > rec.NumRows() {
		return Figure{}, fmt.Errorf("batch %d with %d workers: want 1 to %d rows and a worker", p.Batch, p.Workers, rec.NumRows())
	}
	team, err := newTeam(m, rec, p)
	if err != nil {
		return Figure{}, err
	}
	defer team.release()
	if _, err := team.run(ctx, 0, nil); err != nil { // makes the buffers, warms the caches
		return Figure{}, err
	}
	part := long / (2 * parts)
	rates, byCPU := make([]float64, parts), make([]float64, parts)
	for i := range rates {
		before, rows := CPUTime(), team.rows
		if rates[i], err = team.run(ctx, part, nil); err != nil {
			return Figure{}, err
		}
		if spent := CPUTime() - before; spent > 0 {
			byCPU[i] = float64(team.rows-rows) / spent.Seconds()
		}
	}
	took := make([]time.Duration, 0, mostCalls)
	if _, err := team.run(ctx, long/2, &took); err != nil {
		return Figure{}, err
	}
	slices.Sort(rates)
	slices.Sort(byCPU)
	slices.Sort(took)
	f := Figure{Batch: p.Batch, Workers: p.Workers, RowsPerSec: rates[parts/2], RowsPerCPU: byCPU[parts/2],
		BytesPerRow: RowBytes(rec, &m.Spec), P50: micros(quantile(took, 0.5)), P99: micros(quantile(took, 0.99))}
	f.GFLOPS = 2e-9 * float64(m.Size().MultiplyAdds) * f.RowsPerSec
	return f, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// quantile returns the q-quantile of sorted durations, 0 of none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// A team is the workers of a Point.
type team struct {
	scorers []*vae.Scorer
	recs    []arrow.Record
	batch   int
	group   int // calls between two looks at the clock
	rows    int // scored by all runs so far
}

func newTeam(m *vae.Model, rec arrow.Record, p Point) (*team, error) {
	t := &team{batch: p.Batch, group: max(1, 64/p.Batch)}
	for w := range p.Workers {
		s, err := m.NewScorer(rec.Schema(), vae.Options{ScoresOnly: true, Precision: p.Precision})
		if err != nil {
			t.release()
			return nil, err
		}
		from := int64(w*p.Batch) % (rec.NumRows() - int64(p.Batch) + 1)
		t.scorers = append(t.scorers, s)
		t.recs = append(t.recs, rec.NewSlice(from, from+int64(p.Batch)))
	}
	return t, nil
}

func (t *team) release() {
	for _, r := range t.recs {
		r.Release()
	}
}

// run lets every worker score for that long, at least once, and returns their
// rows per second. With took not nil, the first worker notes how long each call
// took, up to its capacity.
func (t *team) run(ctx context.Context, long time.Duration, took *[]time.Duration) (float64, error) {
	var wg sync.WaitGroup
	calls, errs := make([]int, len(t.scorers)), make([]error, len(t.scorers))
	start := time.Now()
	for w := range t.scorers {
		wg.Go(func() {
			if w == 0 && took != nil {
				calls[w], errs[w] = t.timed(ctx, start, long, took)
			} else {
				calls[w], errs[w] = t.work(ctx, w, start, long)
			}
		})
	}
	wg.Wait()
	spent, total := time.Since(start), 0
	for _, n := range calls {
		total += n
	}
	t.rows += total * t.batch
	return float64(total*t.batch) / max(spent.Seconds(), 1e-9), errors.Join(errs...)
}

// work scores in groups of calls, with the clock between groups only: reading it
// takes a noticeable part of a call of one row.
func (t *team) work(ctx context.Context, w int, start time.Time, long time.Duration) (calls int, err error) {
	for {
		for range t.group {
			if _, err := t.scorers[w].Score(t.recs[w]); err != nil {
				return calls, err
			}
			calls++
		}
		if err := ctx.Err(); err != nil || time.Since(start) >= long {
			return calls, err
		}
	}
}

// timed is work of the first worker with every call's duration.
func (t *team) timed(ctx context.Context, start time.Time, long time.Duration, took *[]time.Duration) (calls int, err error) {
	last := time.Now()
	for {
		if _, err := t.scorers[0].Score(t.recs[0]); err != nil {
			return calls, err
		}
		calls++
		now := time.Now()
		if len(*took) < cap(*took) {
			*took = append(*took, now.Sub(last))
		}
		last = now
		if err := ctx.Err(); err != nil || now.Sub(start) >= long {
			return calls, err
		}
	}
}

// CPUSeconds returns the median processor time of one call of f, for about long
// of it; on systems without CPUTime, the median time by the clock. It is the
// same rule as that of the scripts that measure the other systems.
func CPUSeconds(f func() error, long time.Duration) (float64, error) {
	now := CPUTime
	if now() == 0 {
		start := time.Now()
		now = func() time.Duration { return time.Since(start) }
	}
	if err := f(); err != nil {
		return 0, err
	}
	start := now()
	if err := f(); err != nil {
		return 0, err
	}
	one := max((now() - start).Seconds(), 1e-7)
	times := max(1, int(0.02/one))
	samples := make([]float64, max(3, min(15, int(long.Seconds()/(one*float64(times))))))
	for i := range samples {
		start := now()
		for range times {
			if err := f(); err != nil {
				return 0, err
			}
		}
		samples[i] = (now() - start).Seconds() / float64(times)
	}
	slices.Sort(samples)
	return samples[len(samples)/2], nil
}
