package pipelinetest

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/elbo-stream/elbo/pipeline"
)

// errLeft says that the loop over a sequence was left.
var errLeft = errors.New("the loop was left")

// Batches yields what the group assigns until ctx is done.
func (m *Member) Batches(ctx context.Context, _ []pipeline.Mark) iter.Seq2[*pipeline.Batch, error] {
	return func(yield func(*pipeline.Batch, error) bool) {
		m.join()
		defer m.leave()
		for n := 0; ; {
			gave, err := m.step(ctx, n, yield)
			if errors.Is(err, errLeft) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if gave {
				n++
			}
		}
	}
}

// step looks at the assignment and yields one batch, or waits when there is none.
func (m *Member) step(ctx context.Context, n int, yield func(*pipeline.Batch, error) bool) (gave bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if m.o.FailAfter != nil && n >= m.o.FailBatches {
		return false, m.o.FailAfter
	}
	if err := m.settle(ctx, yield); err != nil {
		return false, err
	}
	b := m.next(n)
	if b == nil {
		return false, m.wait(ctx, time.Hour)
	}
	if err := m.o.Power.use(); err != nil {
		b.Release()
		return false, err
	}
	if !yield(b, nil) {
		return true, errLeft
	}
	if m.o.Pause > 0 {
		return true, m.wait(ctx, m.o.Pause)
	}
	return true, nil
}

// wait waits for a change, a time or ctx.
func (m *Member) wait(ctx context.Context, d time.Duration) error {
	m.group.mu.Lock()
	if m.expelled {
		d = min(d, max(m.o.Blind-time.Since(m.expelledAt), 0))
	}
	m.group.mu.Unlock()
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-m.wake:
		return nil
	case <-late.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Member) join() {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	m.group.live = append(m.group.live, m)
	m.expelled = false
	m.group.share()
}

// leave says that the member reads no more. What it owns stays its own until
// Close, because the last commit is still to come.
func (m *Member) leave() {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	m.group.live = slices.DeleteFunc(m.group.live, func(l *Member) bool { return l == m })
	m.group.share()
}

// settle joins again, gives up what is to be another's and begins what has become
// its own.
func (m *Member) settle(ctx context.Context, yield func(*pipeline.Batch, error) bool) error {
	m.group.mu.Lock()
	blind := m.expelled && time.Since(m.expelledAt) < m.o.Blind
	again := m.expelled && !blind
	m.group.mu.Unlock()
	if blind {
		return nil
	}
	if again {
		m.join()
	}
	for _, h := range m.revoked() {
		if err := m.giveUp(ctx, h, yield); err != nil {
			return err
		}
	}
	return m.begin(ctx)
}

// revoked drops the partitions that were lost, and returns those that are to be
// given up.
func (m *Member) revoked() []*assigned {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	var some []*assigned
	for name, h := range m.held {
		switch {
		case h.gen != h.part.gen, h.lost && h.part.wanted == m:
			delete(m.held, name) // begin takes the lost one anew
		case h.part.wanted != m:
			some = append(some, h)
		}
	}
	slices.SortFunc(some, func(a, b *assigned) int { return strings.Compare(a.part.Name, b.part.Name) })
	return some
}

// giveUp seals a partition, waits for its commit and leaves it to the next owner.
func (m *Member) giveUp(ctx context.Context, h *assigned, yield func(*pipeline.Batch, error) bool) error {
	if m.committed(h) {
		m.release(h)
		return nil
	}
	mark := pipeline.Mark{Partition: h.part.Name, Epoch: h.epoch, Next: h.next}
	if !yield(&pipeline.Batch{Mark: mark, First: h.next, Seal: true}, nil) {
		return errLeft
	}
	defer m.nudge() // other changes may have come meanwhile
	late := time.NewTimer(m.o.Patience)
	defer late.Stop()
	for !m.committed(h) {
		select {
		case <-m.wake:
		case <-ctx.Done():
			return ctx.Err() // the last commit is still to come
		case <-late.C:
			if m.o.OnLate != nil {
				m.o.OnLate(h.part.Name)
			}
			m.release(h)
			return nil
		}
	}
	m.release(h)
	return nil
}

// committed reports whether there is nothing left to wait for.
func (m *Member) committed(h *assigned) bool {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	return h.committed >= h.next || h.lost || h.gen != h.part.gen
}

// release ends an assignment, whose owner may be another one already.
func (m *Member) release(h *assigned) {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	delete(m.held, h.part.Name)
	if h.gen == h.part.gen {
		h.part.owner = nil
		h.part.gen++
		if h.part.wanted != nil {
			h.part.wanted.nudge()
		}
	}
}

// begin takes the partitions that nobody owns and this member is to own, and finds
// out where to begin. Between the two others may take them away again.
func (m *Member) begin(ctx context.Context) error {
	taken, marks := m.take()
	if len(taken) == 0 {
		return nil
	}
	places, err := m.place(ctx, marks)
	if err != nil {
		return err
	}
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	for i, h := range taken {
		at := h.part.committed // 0 when nothing was
		switch place := places[i]; {
		case place.All:
			at = place.Mark.Next
			if h.gen == h.part.gen { // there is nothing left to commit before it
				h.part.committed = at
			}
		case place.Some:
			at = min(at, place.Mark.Next)
		}
		h.next, h.committed, h.begun = at, at, true
		h.row = min(at, h.part.Rows.NumRows())
		if h.part.Positions != nil {
			row, _ := slices.BinarySearch(h.part.Positions, at)
			h.row = int64(row)
		}
	}
	return nil
}

func (m *Member) take() (taken []*assigned, marks []pipeline.Mark) {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	for _, p := range m.group.parts {
		free := p.owner == nil || p.owner == m && m.held[p.Name] == nil // lost by a sink
		if !free || p.wanted != m {
			continue
		}
		if p.owner == nil {
			p.owner = m
			p.gen++
		}
		m.epochs++
		h := &assigned{part: p, gen: p.gen, epoch: m.epochs}
		m.held[p.Name] = h
		taken = append(taken, h)
		marks = append(marks, pipeline.Mark{Partition: p.Name, Epoch: h.epoch})
	}
	return taken, marks
}

// next returns the next batch of one of the partitions held, in turn; nil when
// nothing is left to read.
func (m *Member) next(n int) *pipeline.Batch {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	var some []*assigned
	for _, p := range m.group.parts {
		if h := m.held[p.Name]; h != nil && !h.lost && h.next < p.end {
			some = append(some, h)
		}
	}
	if len(some) == 0 {
		return nil
	}
	h := some[n%len(some)]
	p, lo := h.part, h.row
	hi := min(lo+int64(1+n*7%m.o.BatchRows), p.Rows.NumRows())
	b := &pipeline.Batch{Record: p.Rows.NewSlice(lo, hi), First: h.next}
	switch {
	case hi == p.Rows.NumRows() && (hi == lo || p.Positions != nil): // and the log's end
		h.next = p.end
	case p.Positions != nil:
		h.next = p.Positions[hi-1] + 1
	default:
		h.next = hi
	}
	if hi > lo && p.Positions != nil {
		b.Positions = p.Positions[lo:hi]
	}
	h.row = hi
	b.Mark = pipeline.Mark{Partition: p.Name, Epoch: h.epoch, Next: h.next}
	return b
}
