package kafka

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

// A leader is a broker that is asked for the partitions that it leads. The fetcher's
// mu guards it.
type leader struct {
	id      int32
	parts   []*fetchPart  // in order
	turn    int           // rotates who comes first
	reserve int           // answers of which chunks wait in the queue
	wake    chan struct{} // one token: something has changed
	idle    bool          // the goroutine waits for wake
	wait    time.Duration // that the broker may keep the next request
}

// An undelivered counts the chunks of one answer that are still in the queue.
type undelivered struct {
	leader *leader
	chunks int
}

const (
	// mostReserve is how many answers of a leader may wait in the queue before it is
	// asked for more.
	mostReserve = 2
	// shortWait is how long a broker may keep a request at first, when a partition
	// came or is left out: the next request is not to be far away.
	shortWait = 20 * time.Millisecond
)

// stir wakes the leader's goroutine if it waits.
func (l *leader) stir() {
	if l.idle {
		l.idle = false
		signal(l.wake)
	}
}

// assign gives a partition to a leader, whose goroutine is started if need be. The
// caller holds mu.
func (f *Fetcher) assign(p *fetchPart, id int32) {
	if f.ctx.Err() != nil {
		return
	}
	l := f.leaders[id]
	if l == nil {
		l = &leader{id: id, wake: make(chan struct{}, 1)}
		f.leaders[id] = l
		f.bg.Go(func() { f.lead(l) })
	}
	at, _ := slices.BinarySearchFunc(l.parts, p, func(a, b *fetchPart) int { return a.tp.Compare(b.tp) })
	l.parts = slices.Insert(l.parts, at, p)
	p.leader = l
	l.wait = min(shortWait, f.cfg.MaxWait)
	l.stir()
}

// lead asks one leader again and again, until it has no partitions.
func (f *Fetcher) lead(l *leader) {
	rq := &fetchRequest{clientID: f.clientID, committed: f.cfg.ReadCommitted, minBytes: f.cfg.MinBytes, pool: &f.pool}
	for f.ready(l, rq) {
		_, err := f.c.AskBroker(f.ctx, l.id, f.lane, rq)
		if err != nil {
			f.failed(l, rq, err)
			continue
		}
		f.take(l, rq)
		rq.drop()
	}
}

// ready fills in the next request once there is something to ask for. It reports
// false at the end.
func (f *Fetcher) ready(l *leader, rq *fetchRequest) bool {
	for {
		f.mu.Lock()
		if f.ctx.Err() != nil || len(l.parts) == 0 {
			delete(f.leaders, l.id)
			f.mu.Unlock()
			return false
		}
		ok := f.compose(l, rq)
		l.idle = !ok
		f.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-l.wake:
		case <-f.ctx.Done():
		}
	}
}

// compose writes down what to ask a leader for and reports whether that is anything.
// The caller holds mu.
func (f *Fetcher) compose(l *leader, rq *fetchRequest) bool {
	rq.asks = rq.asks[:0]
	if l.reserve >= mostReserve || f.held >= f.cfg.Credits {
		return false
	}
	var most int32
	l.eachFrom(l.first(), func(p *fetchPart) {
		if p.held < f.cfg.PartitionCredits {
			n := max(f.cfg.PartitionBytes, p.size)
			most = max(most, n)
			rq.asks = append(rq.asks, fetchAsk{part: p, tp: p.tp, offset: p.next, maxBytes: n})
		}
	})
	left := (f.cfg.Credits - f.held) / int64(len(f.leaders))
	rq.maxBytes = max(int32(min(left, int64(f.cfg.MaxBytes))), most)
	rq.maxWait = l.wait
	if len(rq.asks) < len(l.parts) {
		rq.maxWait = min(rq.maxWait, shortWait)
	}
	return len(rq.asks) > 0
}

// first chooses the partition that stands first, which is the one that a broker
// gives a batch of whatever its size: each in turn, the hungry before the others.
func (l *leader) first() int {
	k := l.turn % len(l.parts)
	for d := range l.parts {
		if i := (k + d) % len(l.parts); l.parts[i].hungry {
			k = i
			break
		}
	}
	l.turn = k + 1
	return k
}

// eachFrom calls f for every partition, beginning with the k-th, and keeps those of
// a topic together.
func (l *leader) eachFrom(k int, f func(*fetchPart)) {
	topic := l.parts[k].tp.Topic
	lo, hi := k, k
	for lo > 0 && l.parts[lo-1].tp.Topic == topic {
		lo--
	}
	for hi < len(l.parts) && l.parts[hi].tp.Topic == topic {
		hi++
	}
	for _, r := range [...][]*fetchPart{l.parts[k:hi], l.parts[lo:k], l.parts[hi:], l.parts[:lo]} {
		for _, p := range r {
			f(p)
		}
	}
}

// failed deals with a request that was not answered.
func (f *Fetcher) failed(l *leader, rq *fetchRequest, err error) {
	rq.drop()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return
	}
	f.log.Debug("fetch failed", "broker", l.id, "error", err)
	for i := range rq.asks {
		if p := rq.asks[i].part; p.leader == l {
			f.seek(p, err)
		}
	}
}

// take makes chunks of an answer.
func (f *Fetcher) take(l *leader, rq *fetchRequest) {
	a := &undelivered{leader: l}
	for i := range rq.answer.parts {
		got := &rq.answer.parts[i]
		ask := &rq.asks[got.ask]
		next, err := behind(got.set, ask.offset)
		f.mu.Lock()
		if ask.part.leader == l { // neither moved nor removed meanwhile
			f.takePart(a, ask, got, next, err)
		}
		f.mu.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.chunks == 0 {
		l.wait = min(2*l.wait, f.cfg.MaxWait)
	}
}

// takePart deals with one partition of an answer, whose whole batches end before
// next, where err is. The caller holds mu.
func (f *Fetcher) takePart(a *undelivered, ask *fetchAsk, got *fetched, next int64, err error) {
	p := ask.part
	switch {
	case got.code == kafka.OffsetOutOfRange:
		f.leave(p)
		at := ask.offset // ask is the request's, which is about to be used again
		f.bg.Go(func() { f.measure(p, at) })
		return
	case got.code != 0:
		f.seek(p, fmt.Errorf("read partition %s: %w", p.tp, got.code))
		return
	case len(got.set) == 0:
		f.works(p)
		// Kafka gives nothing where others give the beginning of a batch.
		p.hungry = ask.offset < f.visible(got)
		return
	case errors.Is(err, errCut) && next == ask.offset:
		f.tooSmall(p, ask, got)
		return
	case err == nil && next == ask.offset:
		f.seek(p, fmt.Errorf("read partition %s at offset %d: the broker gives what is before it: %w", p.tp, ask.offset, kafka.Unknown))
		return
	}
	f.works(p)
	p.next, p.size, p.hungry = next, 0, false
	c := &Chunk{
		TP: p.tp, Epoch: p.epoch, First: ask.offset, Next: next,
		HighWatermark: got.highWatermark, LastStable: got.stable, LogStart: got.logStart,
		f: f, part: p, answer: a, set: got.set, aborted: got.aborted, charged: int64(cap(got.set)),
	}
	got.set = nil
	p.held += c.charged
	f.held += c.charged
	if a.chunks == 0 {
		a.leader.reserve++
	}
	a.chunks++
	f.push(c)
	if err != nil && !errors.Is(err, errCut) {
		// Records will tell. What follows cannot be found.
		f.leave(p)
		p.over = true
	}
}

// visible is the end of what a partition's answers may hold.
func (f *Fetcher) visible(got *fetched) int64 {
	if f.cfg.ReadCommitted && got.stable >= 0 {
		return got.stable
	}
	return got.highWatermark
}

// tooSmall says that not even one batch fitted: a request to come asks for all of
// it, in the first place. The caller holds mu.
func (f *Fetcher) tooSmall(p *fetchPart, ask *fetchAsk, got *fetched) {
	n, ok := cutSize(got.set)
	if !ok {
		n = 2 * int64(ask.maxBytes)
	}
	size := int32(min(n, maxResponse/2))
	if got.ask == 0 && ask.maxBytes >= size {
		f.seek(p, fmt.Errorf("read partition %s at offset %d: a batch of %d bytes does not come whole: %w", p.tp, ask.offset, n, kafka.Unknown))
		return
	}
	p.size, p.hungry = size, true
}
