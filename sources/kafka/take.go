package kafka

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// Messages wait for more of their partition, so that a busy topic comes in large
// batches: every batch costs the same whatever is in it. The wait is linger, or
// lingerBehind where the log is known to hold more.
const (
	linger       = 10 * time.Millisecond
	lingerBehind = 100 * time.Millisecond
)

// until is when what was gathered of p has waited for long enough.
func (p *part) until() time.Time {
	if p.read < p.edge {
		return p.since.Add(lingerBehind)
	}
	return p.since.Add(linger)
}

// take gathers the messages of a chunk and yields batches that are full. It owns c.
func (r *reading) take(c *kafka.Chunk) error {
	defer c.Release()
	r.mu.Lock()
	p := r.parts[c.TP]
	stale := p == nil || p.epoch != c.Epoch || p.lost
	r.mu.Unlock()
	if stale {
		return nil
	}
	var gone *kafka.OffsetOutOfRangeError
	if errors.As(c.Err, &gone) {
		return r.gap(c, p, gone)
	}
	if c.Err != nil {
		return fmt.Errorf("partition %s at offset %d: %w", c.TP, p.read, c.Err)
	}
	if p.builder == nil {
		p.builder = r.builders.get()
		p.since = time.Now()
	}
	p.edge = c.LastStable
	if r.c.ReadUncommitted || p.edge < 0 {
		p.edge = c.HighWatermark
	}
	err := c.Records(func(m *kafka.Record) error {
		if p.builder.full(m) {
			if err := r.give(p, m.Offset); err != nil {
				return err
			}
			p.builder = r.builders.get()
			p.since = time.Now()
		}
		p.builder.append(m)
		return nil
	})
	if err != nil {
		if errors.Is(err, errStopped) {
			return err
		}
		return fmt.Errorf("partition %s behind offset %d: %w", c.TP, p.read, err)
	}
	p.read = c.Next
	if p.builder.len() >= r.c.BatchRows || r.c.UntilEnd && p.read >= p.target {
		return r.give(p, p.read)
	}
	if at := p.until(); r.flushAt.IsZero() || at.Before(r.flushAt) {
		r.flushAt = at
		r.flush.Reset(max(time.Until(at), time.Microsecond))
	}
	return nil
}

// due yields what has waited for long enough.
func (r *reading) due() error {
	now := time.Now()
	r.flushAt = time.Time{}
	for _, p := range r.mine() {
		if p.builder == nil {
			continue
		}
		if at := p.until(); at.After(now) {
			if r.flushAt.IsZero() || at.Before(r.flushAt) {
				r.flushAt = at
			}
			continue
		}
		if err := r.give(p, p.read); err != nil {
			return err
		}
	}
	if !r.flushAt.IsZero() {
		r.flush.Reset(max(time.Until(r.flushAt), time.Microsecond))
	}
	return nil
}

// mine lists the partitions that are held, in order.
func (r *reading) mine() []*part {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.parts), func(a, b *part) int { return a.tp.Compare(b.tp) })
}

// give yields the messages gathered of a partition, up to next; the mark moves on
// also without any.
func (r *reading) give(p *part, next int64) error {
	b := p.builder
	p.builder = nil
	if b == nil {
		return nil
	}
	defer r.builders.put(b)
	r.mu.Lock()
	first := p.next
	p.end = max(p.edge, next)
	if next <= first && b.len() == 0 {
		r.mu.Unlock()
		return nil
	}
	p.next = next
	p.waiting = append(p.waiting, read{next: next, at: time.Now()})
	r.mu.Unlock()
	if !r.yield(b.finish(p.tp, p.epoch, first, next), nil) {
		return errStopped
	}
	return nil
}

// builderPool keeps the builders that no partition uses. It serves one goroutine.
type builderPool struct {
	mem  memory.Allocator
	rows int
	free []*builder
}

func (p *builderPool) get() *builder {
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b
	}
	return newBuilder(p.mem, p.rows)
}

func (p *builderPool) put(b *builder) { p.free = append(p.free, b) }

func (p *builderPool) release() {
	for _, b := range p.free {
		b.release()
	}
}

// gap deals with a position that is not there: retention overtook it, or the log
// was cut.
func (r *reading) gap(c *kafka.Chunk, p *part, gone *kafka.OffsetOutOfRangeError) error {
	to := gone.LogStart
	if r.c.OnGap == Latest {
		to = gone.End
	}
	if err := r.give(p, p.read); err != nil {
		return err
	}
	lost := max(0, to-p.next)
	if r.c.OnGap == Fail {
		return fmt.Errorf("partition %s: offset %d is not there any more: the log holds %d to %d, so %d offsets are lost; "+
			"set on_gap: earliest (or latest) to go on without them", c.TP, p.next, gone.LogStart, gone.End, max(0, gone.LogStart-p.next))
	}
	r.c.Log.Warn("offsets are gone", "partition", c.TP.String(), "from", p.next, "to", to, "rows", lost, "policy", string(r.c.OnGap))
	r.mu.Lock()
	r.gapRows += lost
	p.next, p.read = to, to
	epoch, next := p.epoch, p.next
	r.mu.Unlock()
	r.fetcher.Remove(c.TP)
	r.fetcher.Add(c.TP, epoch, next)
	return nil
}
