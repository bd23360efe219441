package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline"
)

// begin starts reading partitions that have become this source's: where the sinks
// stand, else where the group stands, else at Config.Start, which is stored at
// once, so that a crash before the first commit does not move it.
func (r *reading) begin(ctx context.Context, parts []kafka.TopicPartition) error {
	if len(parts) == 0 {
		return nil
	}
	r.adopt(parts)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lost, watched := r.group.Lost(), make(chan struct{})
	go func() { // a membership that is lost meanwhile makes the rest pointless
		defer close(watched)
		select {
		case <-lost:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := r.locate(ctx, parts)
	cancel()
	<-watched
	if err != nil && isClosed(lost) {
		return nil // the loop finds that out
	}
	return err
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// adopt notes the partitions with new epochs, so that sinks may ask for their
// fences.
func (r *reading) adopt(parts []kafka.TopicPartition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, tp := range parts {
		r.epochs++
		r.parts[tp] = &part{tp: tp, epoch: r.epochs}
	}
}

// locate finds out where each partition begins and gives it to the fetcher.
func (r *reading) locate(ctx context.Context, parts []kafka.TopicPartition) error {
	r.mu.Lock()
	marks := make([]pipeline.Mark, len(parts))
	for i, tp := range parts {
		marks[i] = pipeline.Mark{Partition: tp.String(), Epoch: r.parts[tp].epoch}
	}
	r.mu.Unlock()
	places, err := r.place(ctx, marks)
	if err != nil {
		return err
	}
	next, err := r.kept(ctx, parts, places)
	if err != nil {
		return err
	}
	if err := r.fresh(ctx, parts, places, next); err != nil {
		return err
	}
	ends, err := r.cluster.ListOffsets(ctx, parts, -1, !r.c.ReadUncommitted)
	if err != nil {
		return fmt.Errorf("list the ends of partitions: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, tp := range parts {
		p := r.parts[tp]
		p.next, p.read, p.committed = next[tp], next[tp], next[tp]
		p.end, p.target = ends[tp], ends[tp]
		if p.lost {
			continue // again tries anew
		}
		r.c.Log.Debug("partition begins", "partition", tp.String(), "epoch", p.epoch, "offset", p.next, "end", p.end)
		r.fetcher.Add(tp, p.epoch, p.next)
	}
	return nil
}

// kept returns the positions that sinks, the group or an earlier run know.
func (r *reading) kept(ctx context.Context, parts []kafka.TopicPartition, places []pipeline.Place) (map[kafka.TopicPartition]int64, error) {
	stored := make(map[kafka.TopicPartition]kafka.Committed)
	if r.c.Group != "" {
		var err error
		if stored, err = r.cluster.CommittedOffsets(ctx, r.c.Group, parts); err != nil {
			return nil, fmt.Errorf("committed offsets of group %q: %w", r.c.Group, err)
		}
	}
	next := make(map[kafka.TopicPartition]int64)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, tp := range parts {
		place := places[i]
		at, known := int64(0), false
		if c, ok := stored[tp]; ok && c.Offset >= 0 {
			at, known = c.Offset, true
			r.parts[tp].stored = c.Offset
		} else if j := slices.IndexFunc(r.from, func(m pipeline.Mark) bool { return m.Partition == tp.String() }); j >= 0 {
			at, known = r.from[j].Next, true
		}
		switch {
		case place.All:
			at, known = place.Mark.Next, true
		case place.Some && known:
			at = min(at, place.Mark.Next)
		}
		if known {
			next[tp] = at
		}
	}
	return next, nil
}

// fresh adds the partitions that nobody knows to next, at Config.Start, but not
// behind what one of several sinks holds, and stores those.
func (r *reading) fresh(ctx context.Context, parts []kafka.TopicPartition, places []pipeline.Place, next map[kafka.TopicPartition]int64) error {
	unknown := slices.DeleteFunc(slices.Clone(parts), func(tp kafka.TopicPartition) bool { _, ok := next[tp]; return ok })
	if len(unknown) == 0 {
		return nil
	}
	at, err := r.startOffsets(ctx, unknown)
	if err != nil {
		return fmt.Errorf("find the start of partitions: %w", err)
	}
	store := make(map[kafka.TopicPartition]kafka.Committed)
	for i, tp := range parts {
		o, ok := at[tp]
		if !ok {
			continue
		}
		if places[i].Some {
			o = min(o, places[i].Mark.Next)
		}
		next[tp] = o
		store[tp] = kafka.Committed{Offset: o}
	}
	r.mu.Lock()
	r.note(store)
	own := r.sinkOwns // a plain commit would mix with its transactions
	r.mu.Unlock()
	if r.c.Group == "" || own {
		return nil
	}
	// A rebalance that begins now may refuse it. Nothing is read before it is stored:
	// a sink takes a partition without an offset for one of which nothing was written.
	err = r.cluster.CommitOffsets(ctx, r.group.Member(), store)
	if err != nil {
		r.c.Log.Warn("start of partitions not stored yet", "group", r.c.Group, "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for tp, o := range store {
		if p := r.parts[tp]; err != nil {
			p.lost, p.retryAt = true, time.Now().Add(time.Second)
		} else {
			p.stored = o.Offset
		}
	}
	return nil
}

// startOffsets returns where Config.Start lies.
func (r *reading) startOffsets(ctx context.Context, parts []kafka.TopicPartition) (map[kafka.TopicPartition]int64, error) {
	const latest, earliest = -1, -2
	switch s := r.c.Start; s.Where {
	case AtOffset:
		at := make(map[kafka.TopicPartition]int64)
		for _, tp := range parts {
			at[tp] = s.Offset
		}
		return at, nil
	case Latest:
		return r.cluster.ListOffsets(ctx, parts, latest, !r.c.ReadUncommitted)
	case AtTime:
		at, err := r.cluster.ListOffsets(ctx, parts, s.Time.UnixMilli(), !r.c.ReadUncommitted)
		if err != nil {
			return nil, err
		}
		none := slices.DeleteFunc(slices.Clone(parts), func(tp kafka.TopicPartition) bool { return at[tp] >= 0 })
		if len(none) > 0 { // no message is as young
			ends, err := r.cluster.ListOffsets(ctx, none, latest, !r.c.ReadUncommitted)
			if err != nil {
				return nil, err
			}
			maps.Copy(at, ends)
		}
		return at, nil
	}
	return r.cluster.ListOffsets(ctx, parts, earliest, !r.c.ReadUncommitted)
}
