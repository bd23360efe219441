package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

// An outLeader is a broker that is sent batches, one request after the other.
type outLeader struct {
	id      int32
	waiting []*outPart // with a batch to send; guarded by Producer.mu
	sending bool       // a goroutine does so; guarded by Producer.mu

	taken   []*outPart     // the goroutine's: whose batches are in the request
	request produceRequest // the goroutine's
}

// maxRequestBytes bounds the batches of one request before compression, but for a
// single one. A broker's default is 100 MiB (socket.request.max.bytes).
const maxRequestBytes = 8 << 20

// seal ends the open batch of a partition.
func (p *Producer) seal(o *outPart) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sealed(o)
}

// sealAll ends every open batch, so that they leave together.
func (p *Producer) sealAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.order {
		if o.open != nil && o.open.Len() > 0 {
			p.sealed(o)
		}
	}
}

// sealed sends a partition's open batch on its way. The caller holds mu.
func (p *Producer) sealed(o *outPart) {
	b := o.open
	o.open = nil
	if p.err != nil {
		return
	}
	o.ready = append(o.ready, b)
	p.unacked++
	if p.cfg.Compression != None {
		b.packing = true
		p.bg.Go(func() { p.pack(o, b) })
		return
	}
	p.place(o)
}

// pack compresses a batch.
func (p *Producer) pack(o *outPart, b *outBatch) {
	_, err := b.Finish(p.id, p.epoch, 0, p.transactional())
	p.count(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	b.packing = false
	if err != nil {
		_ = p.spend(fmt.Errorf("%s: %w", o.tp, err))
		return
	}
	p.place(o)
}

// place hands a partition on to where its first batch has to go next, unless it is
// there. The caller holds mu.
func (p *Producer) place(o *outPart) {
	if p.err != nil || o.busy || len(o.ready) == 0 || o.ready[0].packing {
		return
	}
	o.busy = true
	if b := o.ready[0]; b.since.IsZero() {
		b.since = time.Now()
	}
	if p.transactional() && !o.added {
		p.joining = append(p.joining, o)
		if !p.adding {
			p.adding = true
			p.bg.Go(p.addPartitions)
		}
		return
	}
	id, ok := p.c.known(o.tp)
	if !ok {
		p.bg.Go(func() { p.find(o) })
		return
	}
	l := p.leaders[id]
	if l == nil {
		l = &outLeader{id: id}
		p.leaders[id] = l
	}
	l.waiting = append(l.waiting, o)
	if !l.sending {
		l.sending = true
		p.bg.Go(func() { p.sendTo(l) })
	}
}

// again hands a busy partition on. The caller holds mu.
func (p *Producer) again(o *outPart) {
	o.busy = false
	p.place(o)
}

// find learns a partition's leader.
func (p *Producer) find(o *outPart) {
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.Deadline)
	defer cancel()
	_, err := p.c.Leader(ctx, o.tp)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.postpone(o, err)
		return
	}
	p.again(o)
}

// sendTo sends a leader what waits for it, until nothing does.
func (p *Producer) sendTo(l *outLeader) {
	for {
		p.mu.Lock()
		until, ok := p.take(l)
		p.mu.Unlock()
		if !ok {
			return
		}
		p.send(l, until)
	}
}

// take makes a request of batches that wait, and returns when the first of them
// is given up. Without any the goroutine's time is over. The caller holds mu.
func (p *Producer) take(l *outLeader) (until time.Time, ok bool) {
	l.taken, l.request.parts = l.taken[:0], l.request.parts[:0]
	size := 0
	for len(l.waiting) > 0 && p.err == nil {
		o := l.waiting[0]
		b := o.ready[0]
		if size += b.Size(); size > maxRequestBytes && len(l.taken) > 0 {
			break
		}
		l.waiting = slices.Delete(l.waiting, 0, 1)
		l.taken = append(l.taken, o)
		if end := b.since.Add(p.cfg.Deadline); until.IsZero() || end.Before(until) {
			until = end
		}
	}
	slices.SortFunc(l.taken, func(a, b *outPart) int { return a.tp.Compare(b.tp) })
	for _, o := range l.taken {
		l.request.parts = append(l.request.parts, producePart{tp: o.tp, b: o.ready[0], sequence: o.sequence})
	}
	l.sending = len(l.taken) > 0
	return until, l.sending
}

// send sends one request and sees to what became of each batch.
func (p *Producer) send(l *outLeader, until time.Time) {
	rq := &l.request
	rq.guard = p.cfg.Guard
	rq.clientID, rq.txnID, rq.timeout = p.c.c.ClientID, p.cfg.TransactionalID, p.c.c.RequestTimeout/2
	for i := range rq.parts {
		part := &rq.parts[i]
		raw, err := part.b.Finish(p.id, p.epoch, part.sequence, p.transactional())
		if err != nil {
			_ = p.fail(fmt.Errorf("%s: %w", part.tp, err))
			return
		}
		part.batch, part.b.sent = raw, len(raw)
		p.count(part.b)
	}
	ctx, cancel := context.WithDeadline(p.ctx, until)
	defer cancel()
	_, err := p.c.AskBroker(ctx, l.id, p.lane, rq)
	if errors.Is(err, ErrNotMember) {
		_ = p.fail(err)
		return
	}
	for i := range rq.parts {
		if part := &rq.parts[i]; err == nil {
			p.look(ctx, part)
		} else {
			part.fault = err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, o := range l.taken {
		part := &rq.parts[i]
		switch {
		case part.fault == nil:
			p.acked(o, part.base)
		case part.halves != nil:
			o.limit.Store(min(o.limit.Load(), int64(part.b.Size()/2)))
			p.unacked += len(part.halves) - 1
			o.ready = slices.Replace(o.ready, 0, 1, part.halves...)
			p.recycle(part.b)
			p.again(o)
		default:
			p.postpone(o, part.fault)
		}
	}
}

// look sees what the leader answered about a batch.
func (p *Producer) look(ctx context.Context, part *producePart) {
	switch part.code {
	case 0, kafka.DuplicateSequenceNumber:
	case kafka.MessageSizeTooLarge:
		if part.halves = p.split(part.b); part.halves == nil {
			part.fault = &TooLargeError{TP: part.tp, Bytes: part.b.sent, Records: part.b.Len(), Limit: p.c.maxMessageBytes(ctx, part.tp.Topic)}
			return
		}
		part.fault = part.code
	case kafka.InvalidRecord:
		part.fault = fmt.Errorf("%w (a compacted topic takes no record without a key)", part.code)
	default:
		part.fault = part.code
	}
}

// acked takes a partition's first batch as written. The caller holds mu.
func (p *Producer) acked(o *outPart, base int64) {
	b := o.ready[0]
	o.ready = slices.Delete(o.ready, 0, 1)
	o.sequence = nextSequence(o.sequence, b.Len())
	if base >= 0 { // -1 when it was there already
		o.written = base + int64(b.Len())
	}
	p.unacked--
	p.recycle(b)
	p.changed()
	p.again(o)
}

// recycle keeps a batch's memory, if there is not too much of that. The caller
// holds mu.
func (p *Producer) recycle(b *outBatch) {
	if p.held.Load() > int64(p.cfg.MaxBytes) {
		p.held.Add(-int64(b.counted))
		return
	}
	p.free = append(p.free, b)
}

// nextSequence is the sequence behind n records: after 2^31-1 comes 0.
func nextSequence(sequence int32, n int) int32 {
	next := int64(sequence) + int64(n)
	if next > math.MaxInt32 {
		next -= math.MaxInt32 + 1
	}
	return int32(next)
}

// flips is how often a batch that the broker takes for damaged is sent again: bits
// flip on the way, but not every time.
const flips = 3

// postpone has a partition's first batch sent again, the same bytes with the same
// sequence, if that may help; if not, the producer is spent. The caller holds mu.
func (p *Producer) postpone(o *outPart, err error) {
	b := o.ready[0]
	now := time.Now()
	switch {
	case !errors.Is(err, kafka.UnknownTopicOrPartition):
		b.unknown = time.Time{}
	case b.unknown.IsZero():
		b.unknown = now
	}
	wait := pause(b.tries)
	hopeless := errors.Is(err, kafka.InvalidMessage) && b.tries >= flips
	b.tries++
	if hopeless || !canResend(err) || !b.unknown.IsZero() && now.Sub(b.unknown) > unknownPatience {
		_ = p.spend(refused(o, b, err))
		return
	}
	if now.Add(wait).Sub(b.since) >= p.cfg.Deadline {
		_ = p.spend(fmt.Errorf("gave up after %v: %w", p.cfg.Deadline, refused(o, b, err)))
		return
	}
	if isLeaderLost(err) {
		p.c.Stale(o.tp.Topic)
	}
	p.bg.Go(func() {
		_ = sleep(p.ctx, wait) // place knows that all is over
		p.mu.Lock()
		defer p.mu.Unlock()
		p.again(o)
	})
}

// refused says which batch was not taken.
func refused(o *outPart, b *outBatch, err error) error {
	return fmt.Errorf("write %d records to %s: %w", b.Len(), o.tp, err)
}
