package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline"
)

// beginAtOnce is how many producers are made at the same time: each takes a few
// round trips.
const beginAtOnce = 16

// begin ends the writers of older epochs and makes those of parts.
func (s *Sink) begin(ctx context.Context, parts []pipeline.Mark) error {
	for _, p := range parts {
		s.endWriter(p.Partition)
	}
	errs := make([]error, len(parts))
	slots := make(chan struct{}, beginAtOnce)
	var all sync.WaitGroup
	for i, p := range parts {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			_, errs[i] = s.beginWriter(ctx, p)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// endWriter ends a partition's writer; what it had not committed counts as done.
func (s *Sink) endWriter(partition string) {
	s.mu.Lock()
	w := s.writers[partition]
	delete(s.writers, partition)
	s.mu.Unlock()
	if w != nil {
		w.quit()
		<-w.ended
	}
}

// beginWriter makes a partition's writer. With exactly_once its producer fences
// the one that an older owner has, and settles that one's transaction.
func (s *Sink) beginWriter(ctx context.Context, p pipeline.Mark) (*writer, error) {
	cfg := kafka.ProducerConfig{TxnTimeout: s.c.TransactionTimeout, Compression: s.c.Compression,
		MaxBatchBytes: s.c.MaxBatchBytes, Deadline: s.c.Deadline}
	if s.c.Delivery == ExactlyOnce {
		tp := sourceOf(p.Partition)
		cfg.TransactionalID = fmt.Sprintf("%s.%s.%s.%d", s.c.TransactionPrefix, s.up.Group(), tp.Topic, tp.Partition)
	}
	if s.c.Delivery == EffectivelyOnce && s.up != nil {
		cfg.Guard = func() error { // nothing else fences this producer
			if _, ok := s.up.Member(p.Partition, p.Epoch); !ok {
				return kafka.ErrNotMember
			}
			return nil
		}
	}
	producer, err := kafka.NewProducer(ctx, s.cluster, cfg)
	if err != nil {
		return nil, fmt.Errorf("producer of partition %s: %w", p.Partition, err)
	}
	w, err := newWriter(s, p.Partition, p.Epoch, producer)
	if err == nil && s.c.Delivery == EffectivelyOnce {
		w.seen, w.history, err = s.readBack(ctx, w.source)
	}
	if err != nil {
		producer.Close()
		return nil, err
	}
	s.mu.Lock()
	s.writers[p.Partition] = w
	s.mu.Unlock()
	go w.run(s.life)
	return w, nil
}

// writer returns the writer of a mark; nil when its assignment is over. A source
// without assignments has its writers made as its partitions come.
func (s *Sink) writer(ctx context.Context, mark pipeline.Mark) (*writer, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	w := s.writers[mark.Partition]
	s.mu.Unlock()
	switch {
	case w != nil && w.epoch == mark.Epoch:
		return w, nil
	case s.assigned:
		return nil, nil
	case w != nil:
		return nil, fmt.Errorf("partition %q changed from epoch %d to %d while it was read", mark.Partition, w.epoch, mark.Epoch)
	}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	return s.beginWriter(ctx, mark)
}

// failed decides what a writer's error means: the source begins the partition
// anew, if it can and that may help; otherwise the run ends. It reports whether
// what the writer held may count as done, because it is read again.
func (s *Sink) failed(ctx context.Context, w *writer, err error) (again bool) {
	switch {
	case ctx.Err() != nil: // closing
		return false
	case s.up == nil || kafka.IsPermanent(err):
		s.mu.Lock()
		if s.err == nil {
			s.err = err
		}
		s.mu.Unlock()
		s.done.nudge()
		return false
	case errors.Is(err, errGone):
		s.c.Log.Debug("assignment is over", "partition", w.name, "epoch", w.epoch)
	default:
		s.c.Log.Warn("rows given up, to be read and written again", "partition", w.name, "error", err)
	}
	s.up.Lost(w.name, w.epoch) // before anything counts as done: marks of the epoch are void from here on
	return true
}
