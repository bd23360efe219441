package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"go.uber.org/goleak"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// A bench is one partition, one table and dead letters, on a checked allocator.
type bench struct {
	mem   *memory.CheckedAllocator
	topic *pipelinetest.Topic
	out   *pipelinetest.Table
	dead  *pipelinetest.Table
}

func newBench(t *testing.T, kinds []string) *bench {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	part := rows(mem, "a", kinds, nil)
	b := &bench{mem: mem, topic: pipelinetest.NewTopic(rowSchema, part), out: pipelinetest.NewTable(), dead: pipelinetest.NewTable()}
	t.Cleanup(func() {
		b.out.Release()
		b.dead.Release()
		part.Rows.Release()
		mem.AssertSize(t, 0)
		goleak.VerifyNone(t)
	})
	return b
}

// config returns a pipeline from the topic to the table.
func (b *bench) config(src pipelinetest.SourceOptions, sink pipelinetest.SinkOptions, ops ...pipeline.Operator) pipeline.Config {
	c := pipeline.Config{
		Source: b.topic.Open(src), Allocator: b.mem, From: b.topic.Committed(),
		Sinks: []pipeline.NamedSink{{Name: "out", Sink: b.out.Open(sink)}},
	}
	for _, op := range ops {
		c.Operators = append(c.Operators, pipeline.NamedOperator{Name: "op", Operator: op})
	}
	return c
}

// withDead sends rows that fail to the dead letters, without limits.
func (b *bench) withDead(c pipeline.Config) pipeline.Config {
	c.OnError, c.DeadLetters = pipeline.DeadLetter, b.dead.Open(pipelinetest.SinkOptions{})
	c.DeadLetterLimit = pipeline.DeadLetterLimit{InRow: -1, Share: -1}
	return c
}

// An apply is an operator made of a function; its schema is that of its input.
type apply func(context.Context, arrow.Record) (arrow.Record, error)

func (apply) Bind(in *arrow.Schema) (*arrow.Schema, error) { return in, nil }
func (f apply) Apply(ctx context.Context, rec arrow.Record) (arrow.Record, error) {
	return f(ctx, rec)
}

func pass(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	rec.Retain()
	return rec, nil
}

func TestFailures(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name string
		op   pipeline.Operator
		src  pipelinetest.SourceOptions
		sink pipelinetest.SinkOptions
		want string
	}{
		{name: "operator fails", op: picky{}, want: `partition "a", rows 16 to 24: operator op: row 17 is bad`},
		{name: "operator panics", op: apply(func(context.Context, arrow.Record) (arrow.Record, error) { panic(boom) }),
			want: `operator op: panic: boom`},
		{name: "operator gives nothing", op: apply(func(context.Context, arrow.Record) (arrow.Record, error) { return nil, nil }),
			want: "operator op: gave neither a record nor an error"},
		{name: "operator gives another schema", op: apply(func(_ context.Context, rec arrow.Record) (arrow.Record, error) {
			return newCounter(memory.DefaultAllocator).Apply(context.Background(), rec)
		}), want: "the schema is not the one it was bound to"},
		{name: "source fails", op: apply(pass), src: pipelinetest.SourceOptions{FailAfter: boom, FailBatches: 2}, want: "source: boom"},
		{name: "source panics", op: apply(pass), src: pipelinetest.SourceOptions{OnBatch: func(int) { panic("eek") }}, want: "source: panic: eek"},
		{name: "commit fails", op: apply(pass), src: pipelinetest.SourceOptions{OnCommit: func([]pipeline.Mark) error { return boom }},
			want: "source: commit: boom"},
		{name: "sink fails", op: apply(pass), sink: pipelinetest.SinkOptions{FailAt: 2, Err: boom},
			want: `sink out: write batch 2 (partition "a", rows 8 to 16): boom`},
		{name: "sink panics", op: apply(pass), sink: pipelinetest.SinkOptions{OnWrite: func(uint64) { panic("argh") }}, want: "sink out: write batch 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, repeat(50, map[int]string{17: "bad"}))
			_, err := pipeline.Run(t.Context(), b.config(c.src, c.sink, c.op))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Run() = %v, want an error with %q", err, c.want)
			}
			if n := b.topic.Commits(); n != 0 {
				t.Errorf("%d commits, want none", n)
			}
		})
	}
}

func TestPanicIsInTheChain(t *testing.T) {
	boom := errors.New("boom")
	b := newBench(t, repeat(5, nil))
	_, err := pipeline.Run(t.Context(), b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{},
		apply(func(context.Context, arrow.Record) (arrow.Record, error) { panic(boom) })))
	var panicked *pipeline.PanicError
	if !errors.As(err, &panicked) || !errors.Is(err, boom) || !strings.Contains(string(panicked.Stack), "engine_test.go") {
		t.Errorf("Run() = %v, want a PanicError with its stack", err)
	}
}

func TestDeadLetters(t *testing.T) {
	statefulPanic := struct{ *counter }{newCounter(memory.DefaultAllocator)}
	for _, c := range []struct {
		name      string
		kinds     []string
		ops       func(mem memory.Allocator) []pipeline.Operator
		limit     pipeline.DeadLetterLimit
		good      int64
		dead      map[string]int64
		wantError string
	}{
		{name: "none", kinds: repeat(50, nil), good: 50, dead: map[string]int64{}},
		{name: "every row", kinds: slices.Repeat([]string{"bad"}, 30), dead: map[string]int64{"bad": 30}},
		{name: "some of both", kinds: repeat(50, map[int]string{0: "bad", 7: "panic", 8: "bad", 49: "panic"}), good: 46,
			dead: map[string]int64{"bad": 2, "panic": 2}},
		{name: "after an operator that drops", kinds: repeat(50, map[int]string{3: "bad", 4: "drop", 5: "bad"}), good: 47,
			dead: map[string]int64{"bad": 2}, ops: func(mem memory.Allocator) []pipeline.Operator {
				return []pipeline.Operator{dropper{mem}, picky{}}
			}},
		{name: "after a stateful operator", kinds: repeat(50, map[int]string{3: "bad"}), good: 49, dead: map[string]int64{"bad": 1},
			ops: func(mem memory.Allocator) []pipeline.Operator { return []pipeline.Operator{newCounter(mem), picky{}} }},
		{name: "no reason", kinds: repeat(9, nil), dead: map[string]int64{"error": 9},
			ops: func(memory.Allocator) []pipeline.Operator {
				return []pipeline.Operator{apply(func(context.Context, arrow.Record) (arrow.Record, error) {
					return nil, errors.New(strings.Repeat("ü", 1000))
				})}
			}},
		{name: "dropped, stateful, bad", kinds: repeat(8, map[int]string{3: "bad", 4: "drop"}),
			ops: func(mem memory.Allocator) []pipeline.Operator {
				return []pipeline.Operator{dropper{mem}, newCounter(mem), picky{}}
			}, wantError: "because an operator before it drops rows"},
		{name: "wrong result", kinds: repeat(8, nil),
			ops: func(memory.Allocator) []pipeline.Operator {
				return []pipeline.Operator{apply(func(context.Context, arrow.Record) (arrow.Record, error) { return nil, nil })}
			}, wantError: "gave neither"},
		{name: "stateful panics", kinds: repeat(8, nil),
			ops: func(memory.Allocator) []pipeline.Operator {
				return []pipeline.Operator{panicking{statefulPanic.counter}}
			},
			wantError: "operator op: panic: torn"},
		{name: "in a row", kinds: slices.Repeat([]string{"bad"}, 30), limit: pipeline.DeadLetterLimit{InRow: 20},
			wantError: `more than 20 rows of partition "a" failed one after the other, the last: operator op: row 20 is bad`},
		{name: "not in a row", kinds: slices.Repeat([]string{"bad", "bad", ""}, 20), limit: pipeline.DeadLetterLimit{InRow: 2, Share: -1},
			good: 20, dead: map[string]int64{"bad": 40}},
		{name: "share", kinds: slices.Repeat([]string{"bad", "", "", ""}, 3000), limit: pipeline.DeadLetterLimit{Share: 0.2},
			wantError: "25.0% of the last"},
		{name: "share within the limit", kinds: slices.Repeat(repeat(40, map[int]string{5: "bad"}), 300),
			good: 11700, dead: map[string]int64{"bad": 300}, limit: pipeline.DeadLetterLimit{InRow: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.kinds)
			ops := []pipeline.Operator{picky{}}
			if c.ops != nil {
				ops = c.ops(b.mem)
			}
			conf := b.withDead(b.config(pipelinetest.SourceOptions{BatchRows: 8 + len(c.kinds)/100}, pipelinetest.SinkOptions{}, ops...))
			if c.limit != (pipeline.DeadLetterLimit{}) {
				conf.DeadLetterLimit = c.limit
			}
			stats, err := pipeline.Run(t.Context(), conf)
			if c.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantError) {
					t.Errorf("Run() = %v, want an error with %q", err, c.wantError)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if stats.Written["out"] != c.good || b.out.Rows() != c.good {
				t.Errorf("%d rows were written, %d are there, want %d", stats.Written["out"], b.out.Rows(), c.good)
			}
			if fmt.Sprint(stats.Dead) != fmt.Sprint(c.dead) || b.dead.Rows() != stats.DeadRows() {
				t.Errorf("dead letters: %v, %d there, want %v", stats.Dead, b.dead.Rows(), c.dead)
			}
		})
	}
}

// panicking is a stateful operator that panics.
type panicking struct{ *counter }

func (panicking) Apply(context.Context, arrow.Record) (arrow.Record, error) { panic("torn") }

func TestConfigFaults(t *testing.T) {
	table := pipelinetest.NewTable()
	sink := pipeline.NamedSink{Name: "x", Sink: table.Open(pipelinetest.SinkOptions{})}
	_, err := pipeline.Bind(t.Context(), pipeline.Config{
		Operators: []pipeline.NamedOperator{{Name: "score"}},
		Sinks:     []pipeline.NamedSink{sink, {Name: "x"}},
		Workers:   -1, MaxBytes: -2, OnError: pipeline.DeadLetter,
		From: []pipeline.Mark{{Partition: "a"}, {Partition: "a"}},
	})
	want := []string{
		"source: must be set",
		"operators[0] (score): must be set",
		"sinks[1] (x): must be set",
		`sinks[1]: the name "x" is taken; give each sink its own`,
		"workers: -1 is negative",
		"max bytes: -2 is negative",
		"dead letters: must be set when rows that fail become dead letters",
		`from: partition "a" has two marks`,
	}
	if err == nil || err.Error() != strings.Join(want, "\n") {
		t.Errorf("Bind() = %v\nwant\n%s", err, strings.Join(want, "\n"))
	}
	for _, c := range []struct {
		config pipeline.Config
		want   string
	}{
		{pipeline.Config{}, "sinks: there must be at least one"},
		{pipeline.Config{OnError: 9}, "on error: OnError(9) is neither fail nor dead_letter"},
		{pipeline.Config{DeadLetters: sink.Sink}, "dead letters: set, but rows that fail stop the run"},
	} {
		if _, err := pipeline.Bind(t.Context(), c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Bind() = %v, want %q", err, c.want)
		}
	}
}

// TestRunClosesAll checks that Run closes what it was given also when it cannot
// start.
func TestRunClosesAll(t *testing.T) {
	b := newBench(t, repeat(1, nil))
	c := b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{})
	c.Workers = -1
	if _, err := pipeline.Run(t.Context(), c); err == nil {
		t.Fatal("a negative number of workers passes")
	}
	if err := c.Source.Close(); err == nil {
		t.Error("the source was not closed")
	}
	if err := c.Sinks[0].Sink.Close(); err == nil {
		t.Error("the sink was not closed")
	}
}

func TestBindNamesThePart(t *testing.T) {
	b := newBench(t, repeat(1, nil))
	c := b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{}, apply(pass), noKind{}, picky{})
	c.Operators[2].Name = "picky"
	plan, err := pipeline.Bind(t.Context(), c)
	if err == nil || err.Error() != `bind operator picky: there is no column "kind"` {
		t.Errorf("Bind() = %v", err)
	}
	if len(plan.Steps) != 2 || plan.Out().HasField("kind") {
		t.Errorf("the plan has %d steps up to the fault, want 2", len(plan.Steps))
	}
}

// noKind takes the column "kind" away, as far as schemas go.
type noKind struct{ apply }

func (noKind) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	return arrow.NewSchema(in.Fields()[:2], nil), nil
}

func TestDeadLetterSchemaTaken(t *testing.T) {
	in := arrow.NewSchema([]arrow.Field{{Name: pipeline.DeadReason, Type: arrow.BinaryTypes.String}}, nil)
	if _, err := pipeline.DeadLetterSchema(in); err == nil || !strings.Contains(err.Error(), pipeline.DeadReason) {
		t.Errorf("DeadLetterSchema() = %v, want a fault", err)
	}
}

// TestBackPressure lets a sink stand still and checks that the source is not read
// beyond the bound.
func TestBackPressure(t *testing.T) {
	for _, c := range []struct {
		name       string
		maxBatches int
		maxBytes   int64
		most       int // batches asked of the source while the sink holds on to one
	}{
		{"batches", 3, 0, 4},
		{"bytes", 100, 1, 2}, // one alone, and one in the reader's hand
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, repeat(200, nil))
			synctest.Test(t, func(t *testing.T) {
				var asked, first, most, now atomic.Int64
				conf := b.config(
					pipelinetest.SourceOptions{OnBatch: func(n int) { asked.Store(int64(n)) }},
					pipelinetest.SinkOptions{Delay: time.Hour, OnWrite: func(n uint64) {
						if n == 1 {
							time.AfterFunc(time.Minute, func() { first.Store(asked.Load()) })
						}
					}})
				conf.MaxBatches, conf.MaxBytes = c.maxBatches, c.maxBytes
				conf.Hooks.InFlight = func(batches int, _ int64) {
					now.Store(int64(batches))
					most.Store(max(most.Load(), int64(batches)))
				}
				stats, err := pipeline.Run(context.Background(), conf)
				if err != nil || stats.Written["out"] != 200 {
					t.Errorf("Run() = %v, %v", stats.Written, err)
				}
				if int(first.Load()) != c.most-1 || int(most.Load()) != c.most-1 || now.Load() != 0 {
					t.Errorf("%d batches read ahead, at most %d and at the end %d in flight; want %d, %d, 0",
						first.Load(), most.Load(), now.Load(), c.most-1, c.most-1)
				}
			})
		})
	}
}

// TestCommitInterval checks when a stream that stands still commits.
func TestCommitInterval(t *testing.T) {
	b := newBench(t, repeat(20, nil))
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		drain := make(chan struct{})
		var at []time.Duration
		conf := b.config(pipelinetest.SourceOptions{BatchRows: 2, Endless: true}, pipelinetest.SinkOptions{Roll: 4, Delay: time.Second})
		conf.CommitInterval, conf.Drain = 10*time.Second, drain
		conf.Hooks.Committed = func([]pipeline.Mark) { at = append(at, time.Since(began)) }
		time.AfterFunc(time.Hour, func() { close(drain) })
		stats, err := pipeline.Run(context.Background(), conf)
		if err != nil || !stats.Drained || stats.RowsRead != 20 {
			t.Errorf("Run() = %+v, %v", stats, err)
		}
		// Batches 1 to 8 are durable after 8 s; 9 and 10 only by the flush.
		if want := []time.Duration{10 * time.Second, time.Hour}; !slices.Equal(at, want) {
			t.Errorf("commits at %v, want %v", at, want)
		}
	})
	if m := b.topic.Committed(); len(m) != 1 || m[0].Next != 20 {
		t.Errorf("committed %v, want up to 20", m)
	}
}

func TestCommitBatches(t *testing.T) {
	b := newBench(t, repeat(80, nil))
	synctest.Test(t, func(t *testing.T) {
		var marks []int64
		conf := b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{Roll: 1, Delay: time.Millisecond})
		conf.CommitBatches, conf.CommitInterval = 4, time.Hour
		conf.Hooks.Committed = func(m []pipeline.Mark) { marks = append(marks, m[0].Next) }
		if _, err := pipeline.Run(context.Background(), conf); err != nil {
			t.Error(err)
		}
		if want := []int64{32, 64, 80}; !slices.Equal(marks, want) {
			t.Errorf("commits of %v, want %v", marks, want)
		}
	})
}

// TestQuit ends the context while a sink writes and while a drain flushes.
func TestQuit(t *testing.T) {
	for _, drained := range []bool{false, true} {
		t.Run(fmt.Sprint("drain first ", drained), func(t *testing.T) {
			b := newBench(t, repeat(80, nil))
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(context.Background())
				drain := make(chan struct{})
				conf := b.config(pipelinetest.SourceOptions{Endless: true}, pipelinetest.SinkOptions{Delay: time.Second})
				conf.Drain = drain
				if drained {
					time.AfterFunc(2500*time.Millisecond, func() { close(drain) })
				}
				why := errors.New("second signal")
				time.AfterFunc(3500*time.Millisecond, func() { cancel(why) })
				_, err := pipeline.Run(ctx, conf)
				if !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
					t.Errorf("Run() = %v, want the context's error and its cause", err)
				}
			})
			if b.topic.Commits() != 0 || b.out.Rows() != 0 {
				t.Errorf("%d commits and %d rows after quitting, want none", b.topic.Commits(), b.out.Rows())
			}
		})
	}
}

// A wrongSource breaks the contract of Source in one way.
type wrongSource struct {
	*pipelinetest.TopicSource
	spoil func(n int, b *pipeline.Batch) *pipeline.Batch
}

func (s wrongSource) Batches(ctx context.Context, from []pipeline.Mark) iter.Seq2[*pipeline.Batch, error] {
	return func(yield func(*pipeline.Batch, error) bool) {
		n := 0
		for b, err := range s.TopicSource.Batches(ctx, from) {
			if err == nil {
				b = s.spoil(n, b)
			}
			if n++; !yield(b, err) {
				return
			}
		}
	}
}

func TestWrongSource(t *testing.T) {
	for want, spoil := range map[string]func(n int, b *pipeline.Batch) *pipeline.Batch{
		"gave a batch without a record": func(_ int, b *pipeline.Batch) *pipeline.Batch {
			b.Release()
			return nil
		},
		"8 rows have gaps between them and no positions": func(_ int, b *pipeline.Batch) *pipeline.Batch {
			b.Mark.Next++
			return b
		},
		"8 rows have 1 positions": func(_ int, b *pipeline.Batch) *pipeline.Batch {
			b.Positions = []int64{1}
			return b
		},
		"positions 0 to 8 are outside of the batch": func(_ int, b *pipeline.Batch) *pipeline.Batch {
			b.Positions = []int64{0, 1, 2, 3, 4, 5, 6, 8}
			return b
		},
		"the partition was read up to row 8 already": func(n int, b *pipeline.Batch) *pipeline.Batch {
			b.First, b.Mark.Next = 0, 8
			return b
		},
		"the schema is not the source's own": func(_ int, b *pipeline.Batch) *pipeline.Batch {
			defer b.Release()
			other := arrow.NewSchema(append(slices.Clone(rowSchema.Fields()[:2]), arrow.Field{Name: "x", Type: arrow.BinaryTypes.String}), nil)
			cols := b.Record.Columns()
			return &pipeline.Batch{Record: array.NewRecord(other, cols, b.Rows()), Mark: b.Mark, First: b.First}
		},
	} {
		t.Run(want, func(t *testing.T) {
			b := newBench(t, repeat(30, nil))
			c := b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{})
			c.Source = wrongSource{c.Source.(*pipelinetest.TopicSource), spoil}
			if _, err := pipeline.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Run() = %v, want an error with %q", err, want)
			}
		})
	}
}

// A wrongSink tells Durable what it likes.
type wrongSink struct {
	*pipelinetest.TableSink
	durable func() uint64
}

func (s wrongSink) Durable() uint64 { return s.durable() }

func TestWrongSink(t *testing.T) {
	for want, told := range map[string][]uint64{ // what Durable tells, call by call, the last for ever
		"sink out: durable fell from batch 1 to 0":              {1, 0},
		"sink out: batch 9 is durable, but only 4 were written": {9},
		"sink out: flush: batch 0 is durable, want 4":           {0},
	} {
		t.Run(want, func(t *testing.T) {
			b := newBench(t, repeat(30, nil))
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				c := b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{Delay: time.Second})
				c.CommitInterval = time.Hour
				c.Sinks[0].Sink = wrongSink{c.Sinks[0].Sink.(*pipelinetest.TableSink), func() uint64 {
					return told[min(int(calls.Add(1))-1, len(told)-1)]
				}}
				if _, err := pipeline.Run(context.Background(), c); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Run() = %v, want an error with %q", err, want)
				}
			})
			if b.topic.Commits() != 0 {
				t.Error("marks were committed")
			}
		})
	}
}

func TestEpochsThatDiffer(t *testing.T) {
	b := newBench(t, repeat(5, nil))
	c := b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{})
	one, two := pipelinetest.NewTable(), pipelinetest.NewTable()
	c.From = []pipeline.Mark{{Partition: "a", Epoch: 1, Next: 3}}
	c.Sinks = append(c.Sinks,
		pipeline.NamedSink{Name: "one", Sink: fixed{one.OpenMarks(pipelinetest.SinkOptions{}), pipeline.Mark{Partition: "a", Next: 2}}},
		pipeline.NamedSink{Name: "two", Sink: fixed{two.OpenMarks(pipelinetest.SinkOptions{}), pipeline.Mark{Partition: "a", Epoch: 2, Next: 2}}})
	_, err := pipeline.Run(t.Context(), c)
	if want := `partition "a": out holds epoch 1 and two epoch 2`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Run() = %v, want %q", err, want)
	}
}

// A fixed sink claims one position.
type fixed struct {
	pipelinetest.MarkSink
	at pipeline.Mark
}

func (f fixed) Position(context.Context, []pipeline.Mark) ([]pipeline.Mark, error) {
	return []pipeline.Mark{f.at}, nil
}

func TestHooks(t *testing.T) {
	b := newBench(t, repeat(24, map[int]string{3: "bad"}))
	var mu sync.Mutex
	got := make(map[string]int64)
	add := func(key string, n int64) {
		mu.Lock()
		defer mu.Unlock()
		got[key] += n
	}
	c := b.withDead(b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{Roll: 1}, picky{}))
	c.Hooks = pipeline.Hooks{
		Read: func(p string, rows, bytes int64) { add("read "+p, rows); add("some bytes", min(bytes, 1)) },
		Applied: func(op string, rows int64, _ time.Duration, err error) {
			add(fmt.Sprint("applied ", op, " ", err == nil), rows)
		},
		Written:      func(sink string, rows int64, _ time.Duration) { add("written "+sink, rows) },
		DeadLettered: func(op, reason string, rows int64) { add("dead "+op+" "+reason, rows) },
		Committed: func(m []pipeline.Mark) {
			mu.Lock()
			defer mu.Unlock()
			got["committed "+m[0].Partition] = m[0].Next
		},
	}
	if _, err := pipeline.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{
		"read a": 24, "some bytes": 3, "written out": 23, "written dead letters": 1, "dead op bad": 1, "committed a": 24,
		"applied op true": 16 + 4 + 2 + 1, "applied op false": 8 + 4 + 2 + 1,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("hooks told\n%v, want\n%v", got, want)
	}
}
