package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
)

// A Partition is a named sequence of rows, which may have gaps between them.
type Partition struct {
	Name  string
	Epoch int64
	Rows  arrow.Record
	// Positions of the rows, rising; nil means 0, 1, 2, ...
	Positions []int64
}

// A Topic holds rows in partitions, and remembers what was committed. It is what
// survives when a source and its run are gone. It is safe for concurrent use.
type Topic struct {
	schema *arrow.Schema
	parts  []Partition

	mu        sync.Mutex
	committed map[string]pipeline.Mark
	commits   int
}

// NewTopic returns a topic of these partitions, whose rows share schema. It
// borrows the records, which must live as long as the topic.
func NewTopic(schema *arrow.Schema, parts ...Partition) *Topic {
	return &Topic{schema: schema, parts: parts, committed: make(map[string]pipeline.Mark)}
}

// Committed returns the last mark committed in each partition, by name: what the
// next run gets as pipeline.Config.From.
func (t *Topic) Committed() []pipeline.Mark {
	t.mu.Lock()
	defer t.mu.Unlock()
	var marks []pipeline.Mark
	for _, m := range t.committed {
		marks = append(marks, m)
	}
	slices.SortFunc(marks, func(a, b pipeline.Mark) int { return strings.Compare(a.Partition, b.Partition) })
	return marks
}

// Commits returns how many times Commit was called with success.
func (t *Topic) Commits() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.commits
}

// SourceOptions choose how a run reads a Topic. The zero value reads batches of
// 8 rows from one partition after the other.
type SourceOptions struct {
	BatchRows int    // most rows in a batch; 0 means 8
	Seed      uint64 // not 0: batches of random sizes from random partitions
	// Endless makes the source wait for its context after the last row, as a
	// stream does.
	Endless bool
	// OnBatch is called before each batch is given, with how many there were.
	OnBatch func(n int)
	// OnCommit sees marks before they are accepted; an error refuses them.
	OnCommit func([]pipeline.Mark) error
	// FailAfter, when not nil, is yielded as an error after FailBatches batches.
	FailAfter   error
	FailBatches int
	Power       *Power
}

// A TopicSource reads a Topic in one run.
type TopicSource struct {
	topic *Topic
	o     SourceOptions

	mu     sync.Mutex
	open   int // sequences running
	closed bool
}

var _ pipeline.Source = (*TopicSource)(nil)

// Open returns a source for one run.
func (t *Topic) Open(o SourceOptions) *TopicSource {
	if o.BatchRows == 0 {
		o.BatchRows = 8
	}
	return &TopicSource{topic: t, o: o}
}

// Schema returns the topic's schema.
func (s *TopicSource) Schema(context.Context) (*arrow.Schema, error) {
	return s.topic.schema, s.o.Power.use()
}

// Running reports how many sequences have not ended.
func (s *TopicSource) Running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// Batches yields the rows behind from.
func (s *TopicSource) Batches(ctx context.Context, from []pipeline.Mark) iter.Seq2[*pipeline.Batch, error] {
	return func(yield func(*pipeline.Batch, error) bool) {
		s.count(1)
		defer s.count(-1)
		next, err := s.begin(from)
		if err != nil {
			yield(nil, err)
			return
		}
		rng := rand.New(rand.NewPCG(s.o.Seed, 1))
		for n := 0; ; n++ {
			if err := s.ready(ctx, n); err != nil {
				yield(nil, err)
				return
			}
			b := s.pick(rng, next)
			if b == nil {
				break
			}
			if !yield(b, nil) {
				return
			}
		}
		if s.o.Endless {
			<-ctx.Done()
			yield(nil, ctx.Err())
		}
	}
}

func (s *TopicSource) count(d int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += d
}

// begin returns the first row wanted of each partition.
func (s *TopicSource) begin(from []pipeline.Mark) ([]int64, error) {
	next := make([]int64, len(s.topic.parts))
	for _, m := range from {
		i := slices.IndexFunc(s.topic.parts, func(p Partition) bool { return p.Name == m.Partition })
		if i < 0 {
			return nil, fmt.Errorf("partition %q is unknown", m.Partition)
		}
		p := s.topic.parts[i]
		if m.Epoch != p.Epoch {
			return nil, fmt.Errorf("partition %q: the mark is of epoch %d, want %d", m.Partition, m.Epoch, p.Epoch)
		}
		if p.Positions == nil {
			next[i] = min(m.Next, p.Rows.NumRows())
			continue
		}
		row, _ := slices.BinarySearch(p.Positions, m.Next)
		next[i] = int64(row)
	}
	return next, nil
}

func (s *TopicSource) ready(ctx context.Context, n int) error {
	if s.o.OnBatch != nil {
		s.o.OnBatch(n)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.o.FailAfter != nil && n >= s.o.FailBatches {
		return s.o.FailAfter
	}
	return s.o.Power.use()
}

// pick returns the next batch and moves next on; nil when there are no rows left.
func (s *TopicSource) pick(rng *rand.Rand, next []int64) *pipeline.Batch {
	var some []int
	for i, p := range s.topic.parts {
		if next[i] < p.Rows.NumRows() {
			some = append(some, i)
		}
	}
	if len(some) == 0 {
		return nil
	}
	i, rows := some[0], int64(s.o.BatchRows)
	if s.o.Seed != 0 {
		i, rows = some[rng.IntN(len(some))], 1+rng.Int64N(rows)
	}
	p, lo := s.topic.parts[i], next[i]
	hi := min(lo+rows, p.Rows.NumRows())
	next[i] = hi
	b := &pipeline.Batch{
		Record: p.Rows.NewSlice(lo, hi),
		First:  lo,
		Mark:   pipeline.Mark{Partition: p.Name, Epoch: p.Epoch, Next: hi},
	}
	if p.Positions != nil {
		b.Positions = p.Positions[lo:hi]
		b.First, b.Mark.Next = b.Positions[0], b.Positions[hi-lo-1]+1
	}
	return b
}

// Commit remembers marks in the topic. It fails when one steps back.
func (s *TopicSource) Commit(_ context.Context, marks []pipeline.Mark) error {
	s.topic.mu.Lock()
	defer s.topic.mu.Unlock()
	if err := s.o.Power.use(); err != nil {
		return err
	}
	if s.o.OnCommit != nil {
		if err := s.o.OnCommit(marks); err != nil {
			return err
		}
	}
	for _, m := range marks {
		if c, ok := s.topic.committed[m.Partition]; ok && m.Next < c.Next {
			return fmt.Errorf("commit of partition %q steps back from %d to %d", m.Partition, c.Next, m.Next)
		}
		s.topic.committed[m.Partition] = m
	}
	s.topic.commits++
	return nil
}

// Close fails when it is called twice or while a sequence runs.
func (s *TopicSource) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("closed twice")
	}
	s.closed = true
	if s.open != 0 {
		return fmt.Errorf("closed while %d sequences run", s.open)
	}
	return nil
}
