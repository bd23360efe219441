package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline"
)

// errGone says that the assignment is over under which rows were to be committed.
// It is no failure: the rows are read again by the partition's owner.
var errGone = errors.New("the partition is no longer this member's")

// A Sink writes rows to one topic, or to several after Join.
type Sink struct {
	c              Config
	joined         []Config // more outputs
	cluster        *kafka.Cluster
	outputs        []*output
	letters        *letters
	pendingLetters *LettersConfig // of JoinLetters, until BindLetters
	up             kafka.Upstream // nil when the source is no Kafka source
	done           done
	budget         *budget
	held           arrow.Record // dead letters of the batch that follows
	bound          bool
	assigned       bool // positions were asked for by assignment

	life context.Context // of the writers; ends with Close
	end  context.CancelFunc

	mu         sync.Mutex
	writers    map[string]*writer // by the source's partition
	partitions map[string]int     // of each topic that is written
	err        error              // the first one that ends the run
}

var (
	_ pipeline.LetterWriter = (*Sink)(nil)
	_ pipeline.Sealer       = (*Sink)(nil)
	_ pipeline.Notifier     = (*Sink)(nil)
	_ pipeline.Committer    = (*Sink)(nil)
)

// New checks the configuration. It connects to nothing; the first position or row
// does.
func New(c Config) (*Sink, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Encoder == nil {
		return nil, errors.New("value: must be set")
	}
	life, end := context.WithCancel(context.Background())
	return &Sink{c: c, budget: newBudget(c.MaxBytes), life: life, end: end,
		done: done{beyond: make(map[uint64]struct{})}, writers: make(map[string]*writer), partitions: make(map[string]int)}, nil
}

// Join makes s write what other was to write, in the same transactions, and
// reports whether it does; other is not used any more then. It is called before
// Bind.
func (s *Sink) Join(other pipeline.Sink) (bool, error) {
	o, ok := other.(*Sink)
	if !ok || s.c.Delivery != ExactlyOnce || o.c.Delivery != ExactlyOnce {
		return false, nil
	}
	if !s.c.Cluster.Same(o.c.Cluster) {
		return false, fmt.Errorf("topics %s and %s are on different clusters, and no transaction spans two; "+
			"run a pipeline for each", s.c.Topic, o.c.Topic)
	}
	s.joined = append(append(s.joined, o.c), o.joined...)
	return true, o.Close()
}

// Bind checks that every column can be written.
func (s *Sink) Bind(in *arrow.Schema) error {
	var errs []error
	for _, c := range append([]Config{s.c}, s.joined...) {
		o, err := bind(c, in)
		if err != nil {
			errs = append(errs, fmt.Errorf("topic %s: %w", c.Topic, err))
			continue
		}
		s.outputs = append(s.outputs, o)
	}
	if s.c.Delivery == EffectivelyOnce && len(errs) == 0 && s.outputs[0].offset < 0 {
		s.c.Log.Debug("no kafka_offset column: rows are told apart by their place in the source")
	}
	s.bound = len(errs) == 0
	return errors.Join(errs...)
}

// Attach notes the source.
func (s *Sink) Attach(src pipeline.Source) error {
	up, ok := src.(kafka.Upstream)
	if ok && up.Group() != "" {
		s.up = up
	}
	if s.c.Delivery == ExactlyOnce {
		if s.up == nil {
			return errors.New("delivery: exactly_once needs a Kafka source with a group, whose offset is part of each transaction; " +
				"write effectively_once for other sources")
		}
		s.up.TakeOffsets()
	}
	if s.c.Delivery == EffectivelyOnce && s.up != nil {
		s.up.Annotate(s.metadata)
	}
	return nil
}

// CommitsSource says that offsets are part of the transactions.
func (s *Sink) CommitsSource() bool { return s.c.Delivery == ExactlyOnce }

// Notify sets what is called when Durable has risen.
func (s *Sink) Notify(raised func()) {
	s.done.mu.Lock()
	defer s.done.mu.Unlock()
	s.done.raised = raised
}

// Position begins each partition under its new epoch and returns, with
// exactly_once, the offset that belongs to the rows written.
func (s *Sink) Position(ctx context.Context, parts []pipeline.Mark) ([]pipeline.Mark, error) {
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if parts == nil {
		return nil, nil // a source without assignments: partitions begin with their first rows
	}
	s.assigned = true
	if err := s.begin(ctx, parts); err != nil {
		return nil, err
	}
	if s.c.Delivery != ExactlyOnce {
		return nil, nil
	}
	var tps []kafka.TopicPartition
	for _, p := range parts {
		tps = append(tps, sourceOf(p.Partition))
	}
	// Only now: the transaction of a dead owner is settled by the producers that
	// begin made, and may move the offsets.
	offsets, err := s.cluster.CommittedOffsets(ctx, s.up.Group(), tps)
	if err != nil {
		return nil, fmt.Errorf("committed offsets of group %q: %w", s.up.Group(), err)
	}
	var marks []pipeline.Mark
	for i, p := range parts {
		if o, ok := offsets[tps[i]]; ok && o.Offset >= 0 {
			marks = append(marks, pipeline.Mark{Partition: p.Partition, Epoch: p.Epoch, Next: o.Offset})
		}
	}
	return marks, nil
}

// open connects and learns the topics' partitions, once.
func (s *Sink) open(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster != nil {
		return nil
	}
	cluster, err := kafka.Open(ctx, s.c.Cluster)
	if err != nil {
		return err
	}
	topics := map[string]bool{}
	for _, o := range s.outputs {
		topics[o.c.Topic] = true
	}
	if s.letters != nil {
		topics[s.letters.topic] = true
	}
	for t := range topics {
		n, err := cluster.Partitions(ctx, t)
		if err != nil {
			return errors.Join(fmt.Errorf("topic %q: %w", t, err), cluster.Close())
		}
		s.partitions[t] = n
	}
	s.cluster = cluster
	return nil
}

// Write fails: the engine must call WriteBatch.
func (s *Sink) Write(context.Context, uint64, arrow.Record) error {
	return errors.New("Write was called in place of WriteBatch")
}

// WriteLetters keeps the dead letters of the batch that follows.
func (s *Sink) WriteLetters(_ context.Context, _ uint64, rec arrow.Record, _ pipeline.Mark) error {
	rec.Retain()
	s.held = rec
	return nil
}

// WriteBatch hands a batch to the writer of its partition, and waits while too
// much waits already.
func (s *Sink) WriteBatch(ctx context.Context, n uint64, rec arrow.Record, first int64, mark pipeline.Mark) error {
	rec.Retain()
	d := delivery{n: n, rec: rec, letters: s.held, first: first, mark: mark, bytes: bytesOf(rec)}
	s.held = nil
	w, err := s.writer(ctx, mark)
	if err != nil || w == nil {
		d.release()
		if err == nil {
			s.done.add(n) // of an assignment that is over
		}
		return err
	}
	if err := s.reserve(ctx, w, d.bytes); err != nil {
		d.release()
		return s.over(err, n)
	}
	select {
	case w.queue <- d:
		return s.failure()
	case <-w.ended:
		s.budget.give(d.bytes)
		d.release()
		return s.over(errGone, n)
	case <-ctx.Done():
		s.budget.give(d.bytes)
		d.release()
		return ctx.Err()
	}
}

// over counts a batch as done when only its assignment has ended.
func (s *Sink) over(err error, n uint64) error {
	if errors.Is(err, errGone) {
		s.done.add(n)
		return s.failure()
	}
	return err
}

func (s *Sink) reserve(ctx context.Context, w *writer, bytes int64) error {
	for {
		wait := s.budget.take(bytes)
		if wait == nil {
			return nil
		}
		select {
		case <-wait:
		case <-w.ended:
			return errGone
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bytesOf returns the size of the buffers under a record.
func bytesOf(rec arrow.Record) (sum int64) {
	for _, col := range rec.Columns() {
		for _, b := range col.Data().Buffers() {
			if b != nil {
				sum += int64(b.Len())
			}
		}
	}
	return sum
}

// failure returns the error that ends the run, if there is one.
func (s *Sink) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Err returns why the sink cannot go on; nil while it can.
func (s *Sink) Err() error { return s.failure() }

// Durable returns the highest batch such that it and all before are acknowledged
// and, with exactly_once, committed.
func (s *Sink) Durable() uint64 { return s.done.get() }

// Seal commits what was written of a partition and ends its writer.
func (s *Sink) Seal(ctx context.Context, mark pipeline.Mark) error {
	s.mu.Lock()
	w := s.writers[mark.Partition]
	s.mu.Unlock()
	if w == nil || w.epoch != mark.Epoch {
		return nil
	}
	if _, err := w.flush(ctx); err != nil {
		return err
	}
	return s.failure()
}

// flush asks the writer to commit and waits. Failed is why it did not.
func (w *writer) flush(ctx context.Context) (failed, err error) {
	reply := make(chan error, 1)
	select {
	case w.flushes <- reply:
	case <-w.ended:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case failed = <-reply:
		return failed, nil
	case <-w.ended:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Flush commits everything. It fails when a partition's rows could not be
// committed, unless because others own it: then it is for them to read them again.
func (s *Sink) Flush(ctx context.Context) error {
	s.mu.Lock()
	writers := make([]*writer, 0, len(s.writers))
	for _, w := range s.writers {
		writers = append(writers, w)
	}
	s.mu.Unlock()
	errs := make([]error, len(writers))
	var all sync.WaitGroup
	for i, w := range writers {
		all.Go(func() {
			failed, err := w.flush(ctx)
			if failed != nil && !errors.Is(failed, errGone) && !kafka.IsFenced(failed) && !kafka.IsMemberGone(failed) {
				err = fmt.Errorf("%w; nothing behind the last commit is in the output, and the next run reads it again", failed)
			}
			errs[i] = err
		})
	}
	all.Wait()
	return errors.Join(append(errs, s.failure())...)
}

// Close ends every writer. What was not committed is given up.
func (s *Sink) Close() error {
	s.end()
	s.mu.Lock()
	writers := s.writers
	s.writers = map[string]*writer{}
	cluster := s.cluster
	s.mu.Unlock()
	for _, w := range writers {
		w.quit()
		<-w.ended
	}
	if s.held != nil {
		s.held.Release()
		s.held = nil
	}
	if cluster == nil {
		return nil
	}
	return cluster.Close()
}
