package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// A scripted source is an Assigner that does what a script says: it asks for
// places and yields batches by the functions that it is given.
type scripted struct {
	*pipelinetest.TopicSource
	script func(ctx context.Context, place placer, yield func(*pipeline.Batch) bool) error
	place  placer
	commit func([]pipeline.Mark) // nil ignores it
}

type placer func(context.Context, []pipeline.Mark) ([]pipeline.Place, error)

func (s *scripted) Assign(place func(context.Context, []pipeline.Mark) ([]pipeline.Place, error)) {
	s.place = place
}

func (s *scripted) Batches(ctx context.Context, _ []pipeline.Mark) iter.Seq2[*pipeline.Batch, error] {
	return func(yield func(*pipeline.Batch, error) bool) {
		err := s.script(ctx, s.place, func(b *pipeline.Batch) bool { return yield(b, nil) })
		if err != nil {
			yield(nil, err)
		}
	}
}

func (s *scripted) Commit(_ context.Context, marks []pipeline.Mark) error {
	if s.commit != nil {
		s.commit(marks)
	}
	return nil
}

var _ pipeline.Assigner = (*scripted)(nil)

// A script is a bench with one partition "a" of good rows.
type script struct {
	*bench
	rows arrow.Record
}

func newScript(t *testing.T, n int) *script {
	b := newBench(t, nil)
	part := rows(b.mem, "a", repeat(n, nil), nil)
	t.Cleanup(part.Rows.Release) // before the bench checks the allocator
	return &script{b, part.Rows}
}

// config returns a pipeline that runs f.
func (s *script) config(f func(ctx context.Context, place placer, yield func(*pipeline.Batch) bool) error) (pipeline.Config, *scripted) {
	c := s.bench.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{})
	src := &scripted{TopicSource: c.Source.(*pipelinetest.TopicSource), script: f}
	c.Source = src
	return c, src
}

// batch returns rows [lo, hi) under an epoch.
func (s *script) batch(epoch, lo, hi int64) *pipeline.Batch {
	return &pipeline.Batch{Record: s.rows.NewSlice(lo, hi), First: lo, Mark: pipeline.Mark{Partition: "a", Epoch: epoch, Next: hi}}
}

func sealed(epoch, next int64) *pipeline.Batch {
	return &pipeline.Batch{First: next, Seal: true, Mark: pipeline.Mark{Partition: "a", Epoch: epoch, Next: next}}
}

// A holder is a MarkSink whose position is told call by call, by partition, and
// which notes what it is given.
type holder struct {
	pipelinetest.MarkSink
	told []map[string]int64 // nil: it has no position
	err  error
	log  *[]string
}

func (h *holder) Position(_ context.Context, parts []pipeline.Mark) ([]pipeline.Mark, error) {
	at := map[string]int64{}
	if len(h.told) > 0 {
		at, h.told = h.told[0], h.told[1:]
	}
	var marks []pipeline.Mark
	for _, p := range parts {
		if next, ok := at[p.Partition]; ok {
			marks = append(marks, pipeline.Mark{Partition: p.Partition, Epoch: p.Epoch, Next: next})
		}
	}
	return marks, h.err
}

func (h *holder) WriteBatch(ctx context.Context, n uint64, rec arrow.Record, first int64, mark pipeline.Mark) error {
	if h.log != nil {
		*h.log = append(*h.log, fmt.Sprintf("%d: %d-%d of epoch %d", n, first, mark.Next, mark.Epoch))
	}
	return h.MarkSink.WriteBatch(ctx, n, rec, first, mark)
}

// TestPlace checks what an Assigner is told about where the sinks stand.
func TestPlace(t *testing.T) {
	for _, c := range []struct {
		name  string
		sinks []map[string]int64 // positions; nil is a plain sink
		dead  bool
		want  pipeline.Place
	}{
		{"plain", []map[string]int64{nil}, false, pipeline.Place{}},
		{"one", []map[string]int64{{"a": 5}}, false, pipeline.Place{Mark: pipeline.Mark{Next: 5}, Some: true, All: true}},
		{"at the beginning", []map[string]int64{{"a": 0}}, false, pipeline.Place{Some: true, All: true}},
		{"the smallest", []map[string]int64{{"a": 5}, {"a": 3}, {"a": 9}}, false, pipeline.Place{Mark: pipeline.Mark{Next: 3}, Some: true, All: true}},
		{"another partition", []map[string]int64{{"b": 5}}, false, pipeline.Place{}},
		{"one has none", []map[string]int64{{"a": 5}, {}}, false, pipeline.Place{Mark: pipeline.Mark{Next: 5}, Some: true}},
		{"one is plain", []map[string]int64{{"a": 5}, nil}, false, pipeline.Place{Mark: pipeline.Mark{Next: 5}, Some: true}},
		{"dead letters", []map[string]int64{{"a": 5}}, true, pipeline.Place{Mark: pipeline.Mark{Next: 5}, Some: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScript(t, 1)
			var got []pipeline.Place
			conf, _ := s.config(func(ctx context.Context, place placer, _ func(*pipeline.Batch) bool) (err error) {
				got, err = place(ctx, []pipeline.Mark{{Partition: "a", Epoch: 7}})
				return err
			})
			conf.Sinks = nil
			for i, at := range c.sinks {
				var sink pipeline.Sink = pipelinetest.NewTable().Open(pipelinetest.SinkOptions{})
				if at != nil {
					sink = &holder{MarkSink: pipelinetest.NewTable().OpenMarks(pipelinetest.SinkOptions{}), told: []map[string]int64{at}}
				}
				conf.Sinks = append(conf.Sinks, pipeline.NamedSink{Name: fmt.Sprint(i), Sink: sink})
			}
			if c.dead {
				conf = s.withDead(conf)
			}
			if _, err := pipeline.Run(t.Context(), conf); err != nil {
				t.Fatal(err)
			}
			c.want.Mark.Partition, c.want.Mark.Epoch = "a", 7
			if len(got) != 1 || got[0] != c.want {
				t.Errorf("place() = %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestPlaceFails checks that a sink without an answer ends the run, by name.
func TestPlaceFails(t *testing.T) {
	s := newScript(t, 1)
	conf, _ := s.config(func(ctx context.Context, place placer, _ func(*pipeline.Batch) bool) error {
		_, err := place(ctx, []pipeline.Mark{{Partition: "a", Epoch: 1}})
		return err
	})
	conf.Sinks[0].Sink = &holder{MarkSink: s.out.OpenMarks(pipelinetest.SinkOptions{}), err: errors.New("no answer")}
	if _, err := pipeline.Run(t.Context(), conf); err == nil || err.Error() != "source: position of sink out: no answer" {
		t.Errorf("Run() = %v", err)
	}
}

// TestSpareByAssignment checks that a sink is spared what it held at the assignment
// of the batch, and nothing of another one.
func TestSpareByAssignment(t *testing.T) {
	s := newScript(t, 20)
	conf, _ := s.config(func(ctx context.Context, place placer, yield func(*pipeline.Batch) bool) error {
		for _, step := range []struct {
			epoch   int64
			batches [][2]int64
		}{
			{1, [][2]int64{{0, 4}, {4, 8}}},          // the sink holds up to 6
			{2, [][2]int64{{0, 3}, {3, 9}, {9, 12}}}, // up to 10
			{3, [][2]int64{{8, 20}}},                 // it has no position any more
		} {
			if _, err := place(ctx, []pipeline.Mark{{Partition: "a", Epoch: step.epoch}}); err != nil {
				return err
			}
			for _, b := range step.batches {
				if !yield(s.batch(step.epoch, b[0], b[1])) {
					return nil
				}
			}
		}
		return nil
	})
	var log []string
	conf.Workers, conf.MaxBatches = 1, 1
	conf.Sinks[0].Sink = &holder{MarkSink: s.out.OpenMarks(pipelinetest.SinkOptions{}), log: &log,
		told: []map[string]int64{{"a": 6}, {"a": 10}}}
	if _, err := pipeline.Run(t.Context(), conf); err != nil {
		t.Fatal(err)
	}
	want := []string{"1: 6-8 of epoch 1", "2: 10-12 of epoch 2", "3: 8-20 of epoch 3"}
	if !slices.Equal(log, want) {
		t.Errorf("the sink was given %q, want %q", log, want)
	}
}

// A sealer notes its calls.
type sealer struct {
	pipelinetest.SealSink
	log *[]string
	err error
}

func (s sealer) Write(ctx context.Context, n uint64, rec arrow.Record) error {
	*s.log = append(*s.log, fmt.Sprint("write ", n))
	return s.SealSink.Write(ctx, n, rec)
}

func (s sealer) Seal(ctx context.Context, mark pipeline.Mark) error {
	*s.log = append(*s.log, fmt.Sprint("seal ", mark.Partition, " ", mark.Epoch, " ", mark.Next))
	if s.err != nil {
		return s.err
	}
	return s.SealSink.Seal(ctx, mark)
}

// TestSeal checks that seals come between the batches, and that the commit follows
// at once, long before it is due.
func TestSeal(t *testing.T) {
	s := newScript(t, 20)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		committed := make(chan int64, 1)
		conf, src := s.config(func(_ context.Context, _ placer, yield func(*pipeline.Batch) bool) error {
			for _, b := range []*pipeline.Batch{s.batch(1, 0, 5), s.batch(1, 5, 9), sealed(1, 9)} {
				if !yield(b) {
					return nil
				}
			}
			if next := <-committed; next != 9 || time.Since(began) != 0 {
				t.Errorf("committed up to %d after %v, want 9 at once", next, time.Since(began))
			}
			yield(s.batch(2, 9, 20))
			return nil
		})
		src.commit = func(m []pipeline.Mark) {
			select {
			case committed <- m[0].Next:
			default:
			}
		}
		var log []string
		conf.CommitBatches, conf.CommitInterval = 1000, time.Hour
		conf.Sinks[0].Sink = sealer{s.out.OpenSeals(pipelinetest.SinkOptions{}), &log, nil}
		stats, err := pipeline.Run(context.Background(), conf)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"write 1", "write 2", "seal a 1 9", "write 3"}; !slices.Equal(log, want) {
			t.Errorf("calls %q, want %q", log, want)
		}
		if stats.Batches != 3 || stats.RowsRead != 20 {
			t.Errorf("%d batches of %d rows were counted, want 3 of 20", stats.Batches, stats.RowsRead)
		}
	})
}

// TestSealWithoutSealers checks that a seal passes sinks that cannot, and holds
// nothing up.
func TestSealWithoutSealers(t *testing.T) {
	s := newScript(t, 5)
	conf, _ := s.config(func(_ context.Context, _ placer, yield func(*pipeline.Batch) bool) error {
		for _, b := range []*pipeline.Batch{sealed(1, 0), s.batch(1, 0, 5), sealed(1, 5), sealed(1, 5)} {
			if !yield(b) {
				return nil
			}
		}
		return nil
	})
	conf.MaxBatches = 1
	stats, err := pipeline.Run(t.Context(), conf)
	if err != nil || s.out.Rows() != 5 || len(stats.Committed) != 1 || stats.Committed[0].Next != 5 {
		t.Errorf("Run() = %+v, %v with %d rows", stats, err, s.out.Rows())
	}
}

func TestSealFaults(t *testing.T) {
	for _, c := range []struct {
		name, want string
		err        error
		spoil      func(*pipeline.Batch)
	}{
		{"sink", `sink out: seal partition "a" at 5: disk full`, errors.New("disk full"), func(*pipeline.Batch) {}},
		{"rows", "source: gave a batch that seals a partition and has rows", nil, func(b *pipeline.Batch) { b.Seal = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScript(t, 5)
			conf, _ := s.config(func(_ context.Context, _ placer, yield func(*pipeline.Batch) bool) error {
				b := s.batch(1, 0, 5)
				c.spoil(b)
				if yield(b) {
					yield(sealed(1, 5))
				}
				return nil
			})
			var log []string
			conf.Sinks[0].Sink = sealer{s.out.OpenSeals(pipelinetest.SinkOptions{}), &log, c.err}
			if _, err := pipeline.Run(t.Context(), conf); err == nil || err.Error() != c.want {
				t.Errorf("Run() = %v, want %s", err, c.want)
			}
		})
	}
}

// TestNotifier checks that a commit comes when the sink says that rows have become
// durable, not only at the next look.
func TestNotifier(t *testing.T) {
	s := newScript(t, 5)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		store := pipelinetest.NewStore()
		defer store.Release()
		done := make(chan struct{})
		conf, src := s.config(func(ctx context.Context, place placer, yield func(*pipeline.Batch) bool) error {
			if _, err := place(ctx, []pipeline.Mark{{Partition: "a", Epoch: 1}}); err != nil {
				return err
			}
			yield(s.batch(1, 0, 5))
			<-done
			return nil
		})
		src.commit = func([]pipeline.Mark) {
			if took := time.Since(began); took != 70*time.Millisecond {
				t.Errorf("committed after %v, want 70ms", took)
			}
			close(done)
		}
		conf.CommitBatches, conf.CommitInterval = 1, time.Hour
		conf.Sinks[0].Sink = store.Open(pipelinetest.StoreOptions{Hold: 50 * time.Millisecond, Latency: 20 * time.Millisecond})
		if _, err := pipeline.Run(context.Background(), conf); err != nil {
			t.Error(err)
		}
	})
}

// TestFailer checks that a sink that fails on its own ends the run at once.
func TestFailer(t *testing.T) {
	s := newScript(t, 5)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		store := pipelinetest.NewStore()
		defer store.Release()
		power := pipelinetest.NewPower(-1)
		conf, _ := s.config(func(ctx context.Context, place placer, yield func(*pipeline.Batch) bool) error {
			yield(s.batch(1, 0, 5))
			<-ctx.Done()
			return ctx.Err()
		})
		time.AfterFunc(10*time.Millisecond, power.Off)
		conf.CommitInterval = time.Hour
		conf.Sinks[0].Sink = store.Open(pipelinetest.StoreOptions{Hold: 50 * time.Millisecond, Power: power})
		_, err := pipeline.Run(context.Background(), conf)
		if !errors.Is(err, pipelinetest.ErrCrash) || !strings.HasPrefix(err.Error(), "sink out: ") || time.Since(began) != 50*time.Millisecond {
			t.Errorf("Run() = %v after %v, want a crash of sink out after 50ms", err, time.Since(began))
		}
	})
}

// TestStatesAndAssigner checks that states, which cannot move with partitions, are
// refused.
func TestStatesAndAssigner(t *testing.T) {
	s := newScript(t, 1)
	conf, _ := s.config(func(context.Context, placer, func(*pipeline.Batch) bool) error { return nil })
	conf.Operators = []pipeline.NamedOperator{{Operator: newCounter(s.mem)}}
	if _, err := pipeline.Bind(t.Context(), conf); err != nil {
		t.Errorf("Bind() without Save = %v", err)
	}
	conf.Save = func(context.Context, pipeline.Checkpoint) error { return nil }
	if _, err := pipeline.Bind(t.Context(), conf); err == nil || !strings.Contains(err.Error(), "the states of operators cannot go with them") {
		t.Errorf("Bind() = %v", err)
	}
}
