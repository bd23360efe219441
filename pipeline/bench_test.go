package pipeline_test

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
)

// BenchmarkRun measures what the engine itself costs a batch: the source gives
// one record again and again, the operators pass it on, the sinks drop it.
func BenchmarkRun(b *testing.B) {
	for _, c := range []struct{ workers, operators, sinks int }{{1, 1, 1}, {2, 1, 1}, {2, 4, 3}} {
		b.Run(fmt.Sprintf("workers=%d/operators=%d/sinks=%d", c.workers, c.operators, c.sinks), func(b *testing.B) {
			part := rows(memory.DefaultAllocator, "a", repeat(256, nil), nil)
			defer part.Rows.Release()
			conf := pipeline.Config{Source: &again{rec: part.Rows, batches: b.N}, Workers: c.workers}
			for range c.operators {
				conf.Operators = append(conf.Operators, pipeline.NamedOperator{Operator: apply(pass)})
			}
			for range c.sinks {
				conf.Sinks = append(conf.Sinks, pipeline.NamedSink{Sink: &discard{}})
			}
			b.ReportAllocs()
			b.ResetTimer()
			if _, err := pipeline.Run(context.Background(), conf); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/batch")
		})
	}
}

// again is a source of one record, many times.
type again struct {
	rec     arrow.Record
	batches int
}

func (s *again) Schema(context.Context) (*arrow.Schema, error) { return s.rec.Schema(), nil }
func (s *again) Commit(context.Context, []pipeline.Mark) error { return nil }
func (s *again) Close() error                                  { return nil }
func (s *again) Batches(context.Context, []pipeline.Mark) iter.Seq2[*pipeline.Batch, error] {
	return func(yield func(*pipeline.Batch, error) bool) {
		n := s.rec.NumRows()
		for i := range int64(s.batches) {
			s.rec.Retain()
			m := pipeline.Mark{Partition: "a", Next: (i + 1) * n}
			if !yield(&pipeline.Batch{Record: s.rec, First: i * n, Mark: m}, nil) {
				return
			}
		}
	}
}

// discard is a sink that is durable at once.
type discard struct{ n atomic.Uint64 }

func (d *discard) Bind(*arrow.Schema) error { return nil }
func (d *discard) Write(_ context.Context, n uint64, _ arrow.Record) error {
	d.n.Store(n)
	return nil
}
func (d *discard) Durable() uint64             { return d.n.Load() }
func (d *discard) Flush(context.Context) error { return nil }
func (d *discard) Close() error                { return nil }
