package bench_test

import (
	"context"
	"iter"
	"strconv"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/bench"
	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/vae"
)

// repeat is a source that gives one record n times.
type repeat struct {
	rec arrow.Record
	n   int
}

func (r *repeat) Schema(context.Context) (*arrow.Schema, error) { return r.rec.Schema(), nil }
func (r *repeat) Batches(context.Context, []pipeline.Mark) iter.Seq2[*pipeline.Batch, error] {
	return func(yield func(*pipeline.Batch, error) bool) {
		for i := range r.n {
			r.rec.Retain()
			first := int64(i) * r.rec.NumRows()
			b := &pipeline.Batch{Record: r.rec, First: first, Mark: pipeline.Mark{Partition: "0", Next: first + r.rec.NumRows()}}
			if !yield(b, nil) {
				return
			}
		}
	}
}
func (r *repeat) Commit(context.Context, []pipeline.Mark) error { return nil }
func (r *repeat) Close() error                                  { return nil }

// null is a sink that keeps nothing.
type null struct{ n uint64 }

func (s *null) Bind(*arrow.Schema) error                                { return nil }
func (s *null) Write(_ context.Context, n uint64, _ arrow.Record) error { s.n = n; return nil }
func (s *null) Durable() uint64                                         { return s.n }
func (s *null) Flush(context.Context) error                             { return nil }
func (s *null) Close() error                                            { return nil }

// throughPipeline scores a record n times by the engine, with one worker.
func throughPipeline(ctx context.Context, m *vae.Model, rec arrow.Record, n int) error {
	_, err := pipeline.Run(ctx, pipeline.Config{Source: &repeat{rec, n}, Workers: 1,
		Operators: []pipeline.NamedOperator{{Name: "score", Operator: score.New(score.Config{Model: m, Top: -1})}},
		Sinks:     []pipeline.NamedSink{{Name: "null", Sink: &null{}}}})
	return err
}

// BenchmarkPipeline compares records on their way from a source through the score
// operator to a sink that keeps nothing with the same records given to a Scorer.
// %outside is the share of the pipeline's processor time that is not the Scorer's:
// the engine, the batches and the eight columns of results.
func BenchmarkPipeline(b *testing.B) {
	for _, name := range []string{"A", "B"} {
		n, err := bench.Find(name)
		if err != nil {
			b.Fatal(err)
		}
		m, err := n.Model(n.RandomWeights(1))
		if err != nil {
			b.Fatal(err)
		}
		for _, batch := range []int{64, 1024, 8192} {
			b.Run("net="+name+"/batch="+strconv.Itoa(batch), func(b *testing.B) {
				rec := n.Record(batch)
				defer rec.Release()
				s, err := m.NewScorer(rec.Schema(), vae.Options{Top: -1})
				if err != nil {
					b.Fatal(err)
				}
				calls := max(1, 65536/batch)
				var inside, through time.Duration
				rounds := 0
				b.ReportAllocs()
				for b.Loop() { // interleaved, so that other load hits both
					start := bench.CPUTime()
					for range calls {
						if _, err := s.Score(rec); err != nil {
							b.Fatal(err)
						}
					}
					middle := bench.CPUTime()
					if err := throughPipeline(context.Background(), m, rec, calls); err != nil {
						b.Fatal(err)
					}
					inside += middle - start
					through += bench.CPUTime() - middle
					rounds++
				}
				rows := float64(rounds * calls * batch)
				b.ReportMetric(rows/inside.Seconds(), "scorer-rows/s")
				b.ReportMetric(rows/through.Seconds(), "rows/s")
				b.ReportMetric(100*(1-inside.Seconds()/through.Seconds()), "%outside")
			})
		}
	}
}

// TestPipelineBenchmarkRuns keeps the benchmark's pipeline working.
func TestPipelineBenchmarkRuns(t *testing.T) {
	m, err := small.Model(small.RandomWeights(1))
	if err != nil {
		t.Fatal(err)
	}
	rec := small.Record(10)
	defer rec.Release()
	if err := throughPipeline(context.Background(), m, rec, 3); err != nil {
		t.Fatal(err)
	}
}
