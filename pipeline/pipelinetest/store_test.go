package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
)

// storeTest returns a FenceTest of a Store's sinks.
func storeTest(t *testing.T, o StoreOptions) FenceTest[*Store] {
	recs := testRecords(t)
	return FenceTest[*Store]{
		Inputs: []MarkedBatch{
			{recs[0], 5, pipeline.Mark{Partition: "a", Next: 25}},
			{recs[1], 25, pipeline.Mark{Partition: "a", Next: 30}}, // with a gap
			{recs[2], 30, pipeline.Mark{Partition: "a", Next: 63}},
		},
		Outside: func(t *testing.T) *Store {
			store := NewStore()
			t.Cleanup(store.Release)
			return store
		},
		New: func(t *testing.T, outside *Store) (pipeline.MarkWriter, error) {
			sink := outside.Open(o)
			return sink, sink.Bind(testSchema)
		},
		Read: func(_ *testing.T, outside *Store) []arrow.Record {
			recs := outside.Records()
			for _, r := range recs {
				r.Retain()
			}
			return recs
		},
	}
}

func TestStore(t *testing.T) {
	t.Run("race", func(t *testing.T) {
		f := storeTest(t, StoreOptions{Race: true})
		f.Race = true
		Fence(t, f)
	})
	for _, hold := range []time.Duration{0, time.Millisecond} {
		t.Run(fmt.Sprint("hold ", hold), func(t *testing.T) {
			Fence(t, storeTest(t, StoreOptions{Hold: hold, Latency: hold}))
		})
	}
}

// TestFenceFindsFaults checks that wrong sinks do not pass.
func TestFenceFindsFaults(t *testing.T) {
	for _, c := range []struct {
		name string
		o    StoreOptions
		wrap func(*StoreSink) pipeline.MarkWriter
	}{
		{"no fence", StoreOptions{NoFence: true}, nil},
		{"a race between sinks", StoreOptions{Race: true}, nil},
		{"forgets its position", StoreOptions{}, func(s *StoreSink) pipeline.MarkWriter { return forgetful{s} }},
		{"aborts in silence", StoreOptions{Abort: 2}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := storeTest(t, c.o)
			if c.wrap != nil {
				f.New = func(t *testing.T, outside *Store) (pipeline.MarkWriter, error) {
					sink := outside.Open(c.o)
					return c.wrap(sink), sink.Bind(testSchema)
				}
			}
			var errs []error
			for _, check := range f.checks() {
				errs = append(errs, check.run(t))
			}
			err := errors.Join(errs...)
			if err == nil {
				t.Fatal("it passes")
			}
			t.Log(err)
		})
	}
}

// forgetful is a sink that says that it holds nothing.
type forgetful struct{ *StoreSink }

func (f forgetful) Position(ctx context.Context, parts []pipeline.Mark) ([]pipeline.Mark, error) {
	_, err := f.StoreSink.Position(ctx, parts)
	return nil, err
}
