package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// countRows runs a stateful counter over rows 0 to 199 until it is through, while
// the power goes again and again, and returns the counts that were written. The
// states are kept, or forgotten as a planted fault.
func countRows(t *testing.T, seed uint64, keep bool) []int64 {
	rng := rand.New(rand.NewPCG(seed, 5))
	b := newBench(t, repeat(200, nil))
	var saved pipeline.Checkpoint
	for run := 0; ; run++ {
		power := pipelinetest.NewPower(10 + rng.IntN(60))
		if run == 20 {
			power = nil
		}
		op := newCounter(b.mem)
		c := pipeline.Config{
			Source:    b.topic.Open(pipelinetest.SourceOptions{Seed: rng.Uint64(), Power: power}),
			Operators: []pipeline.NamedOperator{{Name: "first", Operator: apply(pass)}, {Name: "count", Operator: op}},
			Sinks: []pipeline.NamedSink{
				{Name: "out", Sink: b.out.OpenMarks(pipelinetest.SinkOptions{Roll: 1 + rng.IntN(5), Power: power})}},
			From: saved.Marks, CommitBatches: 1 + rng.IntN(4), Allocator: b.mem, Workers: 1 + rng.IntN(4),
			Save: func(_ context.Context, p pipeline.Checkpoint) error {
				if power.IsOff() {
					return pipelinetest.ErrCrash
				}
				saved = p
				return nil
			},
		}
		if keep {
			c.States = saved.States
		}
		if _, err := pipeline.Run(t.Context(), c); err == nil {
			break
		} else if !errors.Is(err, pipelinetest.ErrCrash) {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	var counts []int64
	for _, rec := range b.out.Records() {
		counts = append(counts, rec.Column(3).(*array.Int64).Int64Values()...)
	}
	return counts
}

// TestStates checks that a stateful operator sees each row once, whatever happens
// between, and that the check finds a forgotten state.
func TestStates(t *testing.T) {
	forgot := 0
	for seed := range uint64(100) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			counts := countRows(t, seed, true)
			if len(counts) != 200 {
				t.Fatalf("%d rows, want 200", len(counts))
			}
			for i, n := range counts {
				if n != int64(i) {
					t.Fatalf("row %d was counted as %d", i, n)
				}
			}
			if seed < 20 {
				counts = countRows(t, seed, false)
				if counts[len(counts)-1] != 199 {
					forgot++
				}
			}
		})
	}
	if forgot == 0 {
		t.Error("20 runs without their states went unnoticed")
	}
}

// badState is a stateful operator whose Snapshot or Restore fails.
type badState struct{ *counter }

func (badState) Snapshot() ([]byte, error) { return nil, errors.New("no ink") }

func TestStateFaults(t *testing.T) {
	save := func(context.Context, pipeline.Checkpoint) error { return errors.New("no paper") }
	for _, c := range []struct {
		name, want string
		change     func(*pipeline.Config)
	}{
		{"restore", "operator op: restore its state", func(c *pipeline.Config) {
			c.States = map[string][]byte{"op": []byte("x")}
		}},
		{"save", "save checkpoint: no paper", func(c *pipeline.Config) { c.Save = save }},
		{"snapshot", "operator op: snapshot of its state: no ink", func(c *pipeline.Config) {
			c.Save, c.Operators[0].Operator = save, badState{newCounter(c.Allocator)}
		}},
		{"two of a name", `the name "op" is taken; states are kept by name`, func(c *pipeline.Config) {
			c.Save, c.Operators = save, append(c.Operators, c.Operators[0])
		}},
		{"sink behind the states", "start that sink together with a new checkpoint", func(c *pipeline.Config) {
			c.Save, c.From = save, []pipeline.Mark{{Partition: "a", Next: 5}}
			c.Sinks[0].Sink = pipelinetest.NewTable().OpenMarks(pipelinetest.SinkOptions{})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, repeat(30, nil))
			conf := b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{}, newCounter(b.mem))
			c.change(&conf)
			if _, err := pipeline.Run(t.Context(), conf); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Run() = %v, want an error with %q", err, c.want)
			}
			if b.topic.Commits() != 0 {
				t.Error("marks were committed")
			}
		})
	}
}
