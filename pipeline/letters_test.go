package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// A lettered sink notes its calls and may fail at one.
type lettered struct {
	*pipelinetest.StoreSink
	log  []string
	fail string // "bind" or "write"
	at   map[string]int64
}

var errLetters = errors.New("no stamps")

func (l *lettered) Bind(in *arrow.Schema) error {
	l.log = append(l.log, "bind")
	return l.StoreSink.Bind(in)
}

func (l *lettered) BindLetters(in *arrow.Schema) error {
	l.log = append(l.log, "bind letters")
	if l.fail == "bind" {
		return errLetters
	}
	return l.StoreSink.BindLetters(in)
}

func (l *lettered) Position(context.Context, []pipeline.Mark) (marks []pipeline.Mark, err error) {
	for p, next := range l.at {
		marks = append(marks, pipeline.Mark{Partition: p, Next: next})
	}
	return marks, nil
}

func (l *lettered) WriteLetters(ctx context.Context, n uint64, letters arrow.Record, mark pipeline.Mark) error {
	l.log = append(l.log, fmt.Sprintf("%d: %d letters before %d", n, letters.NumRows(), mark.Next))
	if l.fail == "write" {
		return errLetters
	}
	return l.StoreSink.WriteLetters(ctx, n, letters, mark)
}

func (l *lettered) WriteBatch(ctx context.Context, n uint64, rec arrow.Record, first int64, mark pipeline.Mark) error {
	l.log = append(l.log, fmt.Sprintf("%d: %d rows before %d", n, rec.NumRows(), mark.Next))
	return l.StoreSink.WriteBatch(ctx, n, rec, first, mark)
}

func (l *lettered) Close() error {
	l.log = append(l.log, "close")
	return l.StoreSink.Close()
}

// lettering returns a pipeline whose one sink takes dead letters with its rows.
func (b *bench) lettering(l *lettered) pipeline.Config {
	c := b.withDead(b.config(pipelinetest.SourceOptions{BatchRows: 4}, pipelinetest.SinkOptions{}, picky{}))
	c.Sinks[0].Sink, c.DeadLetters, c.Workers = l, l, 1
	return c
}

// TestLetterWriter checks the calls that a sink of rows and dead letters is given:
// letters right before their rows, a batch of dead letters alone is a batch without
// rows, and Close comes once.
func TestLetterWriter(t *testing.T) {
	for _, c := range []struct {
		name  string
		kinds []string
		at    map[string]int64
		want  []string
	}{
		{"no letters", repeat(5, nil), nil, []string{"1: 4 rows before 4", "2: 1 rows before 5"}},
		{"some", repeat(8, map[int]string{1: "bad", 2: "panic"}), nil,
			[]string{"1: 2 letters before 4", "1: 2 rows before 4", "2: 4 rows before 8"}},
		{"all", slices.Repeat([]string{"bad"}, 4), nil, []string{"1: 4 letters before 4", "1: 0 rows before 4"}},
		{"spared with their rows", repeat(8, map[int]string{1: "bad", 5: "bad", 7: "bad"}), map[string]int64{"a": 6},
			[]string{"1: 1 letters before 8", "1: 1 rows before 8"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.kinds)
			store := pipelinetest.NewStore()
			defer store.Release()
			l := &lettered{StoreSink: store.Open(pipelinetest.StoreOptions{}), at: c.at}
			stats, err := pipeline.Run(t.Context(), b.lettering(l))
			if err != nil {
				t.Fatal(err)
			}
			want := append(append([]string{"bind", "bind letters"}, c.want...), "close")
			if !slices.Equal(l.log, want) {
				t.Errorf("calls\n%q, want\n%q", l.log, want)
			}
			if rows := int64(len(held(store.Records()))); stats.Written["out"] != rows || len(stats.Written) != 1 {
				t.Errorf("written %v, want %d rows and no other sink", stats.Written, rows)
			}
		})
	}
}

func TestLetterWriterFaults(t *testing.T) {
	for _, c := range []struct{ fail, want string }{
		{"bind", "bind dead letters: no stamps"},
		{"write", `sink out: write batch 1 (partition "a", rows 0 to 4): dead letters: no stamps`},
	} {
		t.Run(c.fail, func(t *testing.T) {
			b := newBench(t, repeat(4, map[int]string{1: "bad"}))
			store := pipelinetest.NewStore()
			l := &lettered{StoreSink: store.Open(pipelinetest.StoreOptions{}), fail: c.fail}
			_, err := pipeline.Run(t.Context(), b.lettering(l))
			if err == nil || err.Error() != c.want || !errors.Is(err, errLetters) {
				t.Errorf("Run() = %v, want %s", err, c.want)
			}
			if n := len(slices.DeleteFunc(l.log, func(s string) bool { return s != "close" })); n != 1 {
				t.Errorf("closed %d times, want once", n)
			}
			if b.topic.Commits() != 0 || len(store.Records())+len(store.Letters()) != 0 {
				t.Error("something was written or committed")
			}
		})
	}
}

// TestDeadLettersInPlainSink checks that a sink that takes rows alone is not given
// dead letters, and is closed once all the same.
func TestDeadLettersInPlainSink(t *testing.T) {
	want := "dead letters: sink out takes rows, and cannot take dead letters too"
	for _, marks := range []bool{false, true} {
		b := newBench(t, repeat(4, nil))
		c := b.withDead(b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{}))
		if marks {
			c.Sinks[0].Sink = b.out.OpenMarks(pipelinetest.SinkOptions{})
		}
		c.DeadLetters = c.Sinks[0].Sink
		if _, err := pipeline.Run(t.Context(), c); err == nil || err.Error() != want {
			t.Errorf("Run() = %v, want %s", err, want)
		}
		if err := c.Sinks[0].Sink.Close(); err == nil || !strings.Contains(err.Error(), "closed twice") {
			t.Errorf("Close() = %v, want a complaint that Run has closed the sink", err)
		}
	}
}
