package kafka

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline"
)

// A writer writes the rows of one partition of the source under one epoch, in a
// goroutine of its own with a producer of its own. After the first error it is
// over: what was not committed is given up and counted as done, because the source
// reads it again.
type writer struct {
	sink     *Sink
	name     string // of the source's partition
	epoch    int64
	source   kafka.TopicPartition
	producer *kafka.Producer
	framers  []*framer // one for each output
	letters  *letterFramer
	seen     *seen    // what an earlier epoch wrote behind the commit; nil for most
	history  *history // of effectively_once: how far the outputs were at each commit

	queue   chan delivery
	flushes chan chan error // the receiver commits, and says how it went
	stop    chan struct{}   // closed by quit
	quit    func()
	ended   chan struct{} // closed when the goroutine has ended

	// The goroutine's own.
	pending []uint64 // numbers of batches that were appended and not committed
	rows    int
	next    int64 // behind what was appended
	err     error
	void    bool // the epoch is over: what comes counts as done and is read again
}

// A delivery is a batch on its way to a writer, which owns the records.
type delivery struct {
	n       uint64
	rec     arrow.Record
	letters arrow.Record // nil for most
	first   int64
	mark    pipeline.Mark
	bytes   int64
}

func (d delivery) release() {
	d.rec.Release()
	if d.letters != nil {
		d.letters.Release()
	}
}

// waiting is how many batches may wait for one writer.
const waiting = 4

func newWriter(s *Sink, name string, epoch int64, p *kafka.Producer) (*writer, error) {
	w := &writer{sink: s, name: name, epoch: epoch, source: sourceOf(name), producer: p,
		queue: make(chan delivery, waiting), flushes: make(chan chan error), stop: make(chan struct{}), ended: make(chan struct{})}
	w.quit = sync.OnceFunc(func() { close(w.stop) })
	for _, o := range s.outputs {
		f, err := newFramer(o, w.source, s.partitions[o.c.Topic])
		if err != nil {
			return nil, err
		}
		w.framers = append(w.framers, f)
	}
	if s.letters != nil {
		w.letters = newLetterFramer(s.letters, w.source, s.partitions[s.letters.topic])
	}
	return w, nil
}

// sourceOf returns the topic and partition of a source's partition; one that is of
// no topic stands for a topic of that name.
func sourceOf(name string) kafka.TopicPartition {
	if tp, ok := kafka.ParseTopicPartition(name); ok {
		return tp
	}
	return kafka.TopicPartition{Topic: name}
}

// run is the writer's goroutine. ctx ends it at once.
func (w *writer) run(ctx context.Context) {
	defer close(w.ended)
	defer w.producer.Close()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		select {
		case <-w.stop:
			w.giveUp()
			return
		case d := <-w.queue:
			w.take(ctx, d)
			if w.rows >= w.sink.c.CommitRows {
				w.commit(ctx)
			} else if len(w.pending) == 1 {
				due.Reset(w.sink.c.CommitInterval)
			}
		case <-due.C:
			w.commit(ctx)
		case reply := <-w.flushes:
			w.drain(ctx)
			w.commit(ctx)
			reply <- w.err
		}
	}
}

// drain takes what is queued.
func (w *writer) drain(ctx context.Context) {
	for {
		select {
		case d := <-w.queue:
			w.take(ctx, d)
		default:
			return
		}
	}
}

// giveUp counts everything as done that was not committed: the epoch is over.
func (w *writer) giveUp() {
	for {
		select {
		case d := <-w.queue:
			w.sink.budget.give(d.bytes)
			d.release()
			w.pending = append(w.pending, d.n)
		default:
			w.sink.done.add(w.pending...)
			w.pending = nil
			return
		}
	}
}

// take appends a batch's messages to the producer.
func (w *writer) take(ctx context.Context, d delivery) {
	defer d.release()
	w.sink.budget.give(d.bytes)
	if w.err != nil {
		if w.void {
			w.sink.done.add(d.n)
		}
		return
	}
	w.pending = append(w.pending, d.n)
	if w.sink.up != nil {
		if _, ok := w.sink.up.Member(w.name, w.epoch); !ok {
			w.fail(ctx, errGone)
			return
		}
	}
	if err := w.append(d); err != nil {
		w.fail(ctx, fmt.Errorf("partition %s, rows %d to %d: %w", w.name, d.first, d.mark.Next, err))
		return
	}
	w.rows += max(1, int(d.rec.NumRows()))
	w.next = d.mark.Next
}

func (w *writer) append(d delivery) error {
	give := func(m *message) error {
		if w.seen.has(m.to.Topic, m.from) {
			return nil
		}
		return w.producer.Append(m.to, m.key, m.value, m.headers, m.timestamp)
	}
	if d.letters != nil {
		if err := w.letters.each(d.letters, give); err != nil {
			return err
		}
	}
	for _, f := range w.framers {
		if err := f.each(d.rec, d.first, give); err != nil {
			return err
		}
	}
	return nil
}

// commit makes what was appended durable, with the source's offset when that is
// the sink's to commit.
func (w *writer) commit(ctx context.Context) {
	if len(w.pending) == 0 || w.err != nil {
		return
	}
	err := w.settle(ctx)
	if err != nil {
		w.fail(ctx, fmt.Errorf("commit of partition %s up to %d: %w", w.name, w.next, err))
		return
	}
	if w.history != nil {
		w.sink.mu.Lock()
		w.history.note(w.next, w.producer.Written(), w.seen.pass(w.next))
		w.sink.mu.Unlock()
	}
	w.sink.done.add(w.pending...)
	w.pending, w.rows = w.pending[:0], 0
}

func (w *writer) settle(ctx context.Context) error {
	if w.sink.up != nil {
		m, ok := w.sink.up.Member(w.name, w.epoch)
		if !ok {
			return errGone
		}
		if w.sink.c.Delivery == ExactlyOnce {
			return w.producer.Commit(ctx, &m, map[kafka.TopicPartition]kafka.Committed{w.source: {Offset: w.next}})
		}
	}
	return w.producer.Flush(ctx)
}

// fail ends the writer after its first error.
func (w *writer) fail(ctx context.Context, err error) {
	w.err = err
	if w.void = w.sink.failed(ctx, w, err); w.void {
		w.sink.done.add(w.pending...)
	}
	w.pending, w.rows = nil, 0
}
