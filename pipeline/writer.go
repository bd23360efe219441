package pipeline

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
)

// A lane is a sink and its queue. One goroutine drives it, so that sinks write at
// the same time and each one's calls follow one another.
type lane struct {
	index int // in engine.lanes
	name  string
	sink  Sink
	marks MarkWriter    // the sink, when it owns its position; else nil
	seals Sealer        // the sink, when it can seal a partition; else nil
	queue chan delivery // closed by the writer

	mu   sync.Mutex
	held map[string]Mark // what the sink held at the start or assignment, by partition

	sent atomic.Uint64 // number of the last batch queued; set by the writer
	rows int64         // accepted; the driver's
	low  uint64        // the last Durable seen; the committer's
}

// spared reports whether the sink holds all rows of b since an earlier run. The
// reader has cut b, so that it holds all or none.
func (l *lane) spared(b *Batch) bool {
	m, ok := l.holds(b.Mark.Partition)
	return ok && sameEpoch(m, b.Mark) && b.Mark.Next <= m.Next
}

// holds returns what the sink held of a partition.
func (l *lane) holds(partition string) (Mark, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, ok := l.held[partition]
	return m, ok
}

// A delivery is one batch for one lane, which owns the records.
type delivery struct {
	n       uint64
	rec     arrow.Record // nil when the partition is to be sealed
	letters arrow.Record // nil for most
	first   int64
	mark    Mark
	load    *load
}

// what says what the lane does with the delivery, for errors.
func (d delivery) what() string {
	if d.rec == nil {
		return fmt.Sprintf("seal partition %q at %d", d.mark.Partition, d.mark.Next)
	}
	return fmt.Sprintf("write batch %d (partition %q, rows %d to %d)", d.n, d.mark.Partition, d.first, d.mark.Next)
}

func (d delivery) release() {
	if d.rec != nil {
		d.rec.Release()
	}
	if d.letters != nil {
		d.letters.Release()
	}
}

// A load is what a batch counts for at the gate, until every lane has let go.
type load struct {
	lanes atomic.Int32
	bytes int64
}

// write is the writer: it takes the jobs in the order in which they were read,
// whatever order they were done in.
func (e *engine) write(ctx context.Context) {
	defer func() {
		for _, l := range e.lanes {
			close(l.queue)
		}
	}()
	for j := range e.order {
		<-j.done
		if j.err == nil {
			j.err = ctx.Err()
		}
		if j.err == nil {
			j.err = e.count(j)
		}
		if j.err != nil {
			e.fail(j.err)
			j.release()
			e.gate.leave(j.bytes)
			continue
		}
		e.hand(j)
		j.release()
	}
}

// count notes a job's dead letters.
func (e *engine) count(j *job) error {
	type key struct{ operator, reason string }
	rows := make(map[key]int64)
	for _, d := range j.dead {
		rows[key{d.err.operator, d.reason()}]++
	}
	for k, n := range rows {
		e.stats.Dead[k.reason] += n
		e.cfg.Hooks.DeadLettered(k.operator, k.reason, n)
	}
	return e.poison.see(j.batch.Mark.Partition, j.rows, j.dead)
}

// hand notes a job in the ledger and queues its records for the lanes. Lane
// queues have room for everything that is in flight.
func (e *engine) hand(j *job) {
	ld := &load{bytes: j.bytes}
	deliveries := make([]delivery, len(e.lanes))
	need := make([]uint64, len(e.lanes))
	for i, l := range e.lanes {
		rec := j.out
		if l == e.dead {
			rec = j.letters
		}
		lost := e.cfg.faults.dropOnDrain && e.drained.Load()
		switch {
		case j.batch.Seal && l.seals != nil && !e.cfg.faults.ignoreSeals:
			deliveries[i] = delivery{mark: j.batch.Mark, load: ld}
			ld.lanes.Add(1)
		case rec != nil && !l.spared(j.batch) && !lost:
			d := delivery{n: l.sent.Add(1), rec: rec, first: j.batch.First, mark: j.batch.Mark, load: ld}
			rec.Retain()
			if l == e.letters && j.letters != nil {
				d.letters = j.letters
				d.letters.Retain()
			}
			deliveries[i] = d
			ld.lanes.Add(1)
		}
		need[i] = l.sent.Load()
	}
	e.ledger.add(entry{mark: j.batch.Mark, need: need, states: j.states, seal: j.batch.Seal})
	if ld.lanes.Load() == 0 {
		e.gate.leave(ld.bytes)
		e.nudge()
		return
	}
	for i, d := range deliveries {
		if d.load != nil {
			e.lanes[i].queue <- d
		}
	}
}

// drive writes what comes down a lane and flushes it at the end. After a failure
// it only releases.
func (e *engine) drive(ctx context.Context, l *lane) {
	for d := range l.queue {
		if ctx.Err() == nil {
			if err := e.deliver(ctx, l, d); err != nil {
				e.fail(fmt.Errorf("sink %s: %s: %w", l.name, d.what(), err))
			}
		}
		d.release()
		if d.load.lanes.Add(-1) == 0 {
			e.gate.leave(d.load.bytes)
		}
		e.nudge()
	}
	if ctx.Err() != nil {
		return
	}
	err := guard(func() error { return l.sink.Flush(ctx) })
	if err == nil && ctx.Err() == nil && l.sink.Durable() != l.sent.Load() {
		err = fmt.Errorf("batch %d is durable, want %d", l.sink.Durable(), l.sent.Load())
	}
	if err != nil {
		e.fail(fmt.Errorf("sink %s: flush: %w", l.name, err))
	}
}

func (e *engine) deliver(ctx context.Context, l *lane, d delivery) error {
	if d.rec == nil {
		return guard(func() error { return l.seals.Seal(ctx, d.mark) })
	}
	began := time.Now()
	err := guard(func() error {
		if d.letters != nil {
			if err := l.marks.(LetterWriter).WriteLetters(ctx, d.n, d.letters, d.mark); err != nil {
				return fmt.Errorf("dead letters: %w", err)
			}
		}
		if l.marks != nil {
			return l.marks.WriteBatch(ctx, d.n, d.rec, d.first, d.mark)
		}
		return l.sink.Write(ctx, d.n, d.rec)
	})
	if err != nil {
		return err
	}
	l.rows += d.rec.NumRows()
	e.cfg.Hooks.Written(l.name, d.rec.NumRows(), time.Since(began))
	return nil
}

// nudge tells the committer that something may have become durable.
func (e *engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default: // it has not looked since the last nudge
	}
}
