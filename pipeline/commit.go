package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// A ledger holds the batches that were handed to the sinks and are not yet
// committed, in order.
type ledger struct {
	mu      sync.Mutex
	entries []entry
	done    int // entries before this one are committed

	committed map[string]Mark // the last mark of each partition; the committer's
}

// An entry is a batch: its mark may be committed once each lane's sink has made
// the batches up to need[lane] durable.
type entry struct {
	mark   Mark
	need   []uint64
	states map[string][]byte // behind the batch; nil for most
	seal   bool              // the source waits for this commit
}

func (l *ledger) add(en entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done > 64 && l.done > len(l.entries)/2 {
		l.entries = slices.Delete(l.entries, 0, l.done)
		l.done = 0
	}
	l.entries = append(l.entries, en)
}

// ready returns the entries at the front whose needs are met, and keeps them
// until settle.
func (l *ledger) ready(met func(need []uint64) bool) []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.done
	for n < len(l.entries) && met(l.entries[n].need) {
		n++
	}
	return slices.Clone(l.entries[l.done:n])
}

// settle takes n entries off the front.
func (l *ledger) settle(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.entries[l.done : l.done+n])
	l.done += n
}

// ahead returns the last mark of each partition among entries, without those
// that were committed before: marks never step back, also when the source had to
// start earlier for the sake of one sink.
func (l *ledger) ahead(entries []entry) []Mark {
	last := make(map[string]Mark)
	for _, en := range entries {
		last[en.mark.Partition] = en.mark
	}
	var marks []Mark
	for p, m := range last {
		if c, ok := l.committed[p]; !ok || !sameEpoch(c, m) || c.Next < m.Next {
			marks = append(marks, m)
		}
	}
	slices.SortFunc(marks, byPartition)
	return marks
}

// commit is the committer. It looks whenever a sink has written and at every
// interval, until the lanes have ended, and then once more.
func (e *engine) commit(ctx context.Context, ended <-chan struct{}) {
	tick := time.NewTicker(e.cfg.CommitInterval)
	defer tick.Stop()
	for due := false; ; {
		select {
		case <-e.wake:
			due = false
		case <-tick.C:
			due = true
		case <-ended:
			if ctx.Err() == nil {
				e.commitReady(ctx, 1, true)
			}
			return
		}
		if ctx.Err() != nil {
			<-ended
			return
		}
		atLeast := e.cfg.CommitBatches
		if due {
			atLeast = 1
		}
		e.commitReady(ctx, atLeast, false)
	}
}

// commitReady commits the marks of all batches that every sink has made durable,
// when they are at least so many. The last commit of a run comes when every
// worker has ended, and takes its snapshots itself.
func (e *engine) commitReady(ctx context.Context, atLeast int, last bool) {
	durable, err := e.durable()
	if err != nil {
		e.fail(err)
		return
	}
	ready := e.ledger.ready(func(need []uint64) bool { return e.met(need, durable) })
	states, err := e.states(&ready, last)
	if err != nil {
		e.fail(err)
		return
	}
	waited := slices.ContainsFunc(ready, func(en entry) bool { return en.seal })
	if len(ready) < atLeast && !waited {
		return
	}
	if marks := e.ledger.ahead(ready); len(marks) > 0 {
		if err := e.commitMarks(ctx, marks, states); err != nil {
			e.fail(err)
			return
		}
	}
	e.ledger.settle(len(ready))
}

// states returns the states behind the last of the entries, which it shortens to
// end with one that has them.
func (e *engine) states(ready *[]entry, last bool) (map[string][]byte, error) {
	if !e.snaps {
		return nil, nil
	}
	if last {
		states := make(map[string][]byte)
		for _, seg := range e.segments {
			if seg.turn < 0 {
				continue
			}
			if err := e.snapshotInto(states, seg); err != nil {
				return nil, err
			}
		}
		return states, nil
	}
	n := len(*ready)
	for n > 0 && (*ready)[n-1].states == nil {
		n--
	}
	*ready = (*ready)[:n]
	if n == 0 {
		return nil, nil
	}
	return (*ready)[n-1].states, nil
}

// commitMarks saves a checkpoint and commits to the source. The checkpoint comes
// first: what the source no longer keeps must not be needed again.
func (e *engine) commitMarks(ctx context.Context, marks []Mark, states map[string][]byte) error {
	all := maps.Clone(e.ledger.committed)
	for _, m := range marks {
		all[m.Partition] = m
	}
	if e.cfg.Save != nil {
		c := Checkpoint{Marks: slices.SortedFunc(maps.Values(all), byPartition), States: states}
		if err := guard(func() error { return e.cfg.Save(ctx, c) }); err != nil {
			return fmt.Errorf("save checkpoint: %w", err)
		}
	}
	if err := guard(func() error { return e.cfg.Source.Commit(ctx, marks) }); err != nil {
		return fmt.Errorf("source: commit: %w", err)
	}
	e.ledger.committed = all
	e.cfg.Hooks.Committed(marks)
	return nil
}

// durable asks each sink how far it is.
func (e *engine) durable() ([]uint64, error) {
	durable := make([]uint64, len(e.lanes))
	for i, l := range e.lanes {
		if f, ok := l.sink.(Failer); ok {
			if err := f.Err(); err != nil {
				return nil, fmt.Errorf("sink %s: %w", l.name, err)
			}
		}
		n := l.sink.Durable()
		if n < l.low {
			return nil, fmt.Errorf("sink %s: durable fell from batch %d to %d", l.name, l.low, n)
		}
		if sent := l.sent.Load(); n > sent {
			return nil, fmt.Errorf("sink %s: batch %d is durable, but only %d were written", l.name, n, sent)
		}
		l.low, durable[i] = n, n
	}
	return durable, nil
}

// met reports whether every lane has made durable what it needs to: the smallest
// of the sinks decides, and the dead letters are one of them.
func (e *engine) met(need, durable []uint64) bool {
	some := false
	for i := range need {
		ok := durable[i] >= need[i] || e.cfg.faults.commitEarly && e.lanes[i] == e.dead
		if !ok && !e.cfg.faults.commitLargest {
			return false
		}
		some = some || ok
	}
	return some
}
