package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// FetchConfig bounds what a Fetcher asks for and holds. The zero value is useful.
type FetchConfig struct {
	ReadCommitted bool          // leave out transactions that are open or were aborted
	MaxWait       time.Duration // that a broker waits for MinBytes; 0 means 500 ms
	MinBytes      int32         // 0 means 1
	MaxBytes      int32         // of one answer; 0 means 32 MiB
	// PartitionBytes is the most of one partition in an answer; 0 means 4 MiB. A
	// larger batch comes whole all the same.
	PartitionBytes int32
	// Credits is how many bytes may be held in chunks that are not released; 0 means
	// 64 MiB. PartitionCredits is that for one partition; 0 means 8 MiB. Without
	// credit nothing is asked for.
	Credits, PartitionCredits int64
	// MaxUnpacked bounds one batch after it is unpacked; 0 means 256 MiB.
	MaxUnpacked int
}

func (c FetchConfig) withDefaults() FetchConfig {
	set := func(v *int32, to int32) {
		if *v == 0 {
			*v = to
		}
	}
	set(&c.MinBytes, 1)
	set(&c.MaxBytes, 32<<20)
	set(&c.PartitionBytes, 4<<20)
	if c.MaxWait == 0 {
		c.MaxWait = 500 * time.Millisecond
	}
	if c.Credits == 0 {
		c.Credits = 64 << 20
	}
	if c.PartitionCredits == 0 {
		c.PartitionCredits = 8 << 20
	}
	if c.MaxUnpacked == 0 {
		c.MaxUnpacked = 256 << 20
	}
	return c
}

// A Fetcher reads partitions ahead: one goroutine for each leader asks for all of
// its partitions, and again as soon as the answer's headers tell where they go on.
// Next is called by one goroutine; Add, Remove and Close by any.
type Fetcher struct {
	c             *Cluster
	cfg           FetchConfig
	lane          string
	pool          buffers
	decompressors decompressors
	ctx           context.Context
	stop          context.CancelFunc
	bg            sync.WaitGroup

	mu     sync.Mutex
	parts  map[TopicPartition]*fetchPart
	loops  map[int32]chan struct{} // wakes the leader's goroutine; one token
	queue  []*Chunk                // ready, in order
	filled chan struct{}           // one token: queue is not empty
	routes chan struct{}           // one token: a partition has no leader
	held   int64                   // bytes in chunks that are not released
}

// A fetchPart is a partition that is read.
type fetchPart struct {
	tp       TopicPartition
	epoch    int64
	next     int64
	leader   int32 // -1 while it is looked for
	asked    bool  // a request is under way
	gone     bool
	held     int64
	maxBytes int32
	failures int
	after    time.Time // not to be asked for before
}

// NewFetcher returns a fetcher without partitions.
func NewFetcher(c *Cluster, cfg FetchConfig) *Fetcher {
	f := &Fetcher{c: c, cfg: cfg.withDefaults(), parts: make(map[TopicPartition]*fetchPart), loops: make(map[int32]chan struct{}),
		filled: make(chan struct{}, 1), routes: make(chan struct{}, 1)}
	f.decompressors.limit = f.cfg.MaxUnpacked
	f.lane = fmt.Sprintf("%s %p", laneFetch, f)
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.bg.Go(f.route)
	return f
}

// Add begins to read a partition at an offset. Its chunks carry epoch.
func (f *Fetcher) Add(tp TopicPartition, epoch, offset int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.parts[tp]; old != nil {
		old.gone = true
	}
	f.parts[tp] = &fetchPart{tp: tp, epoch: epoch, next: offset, leader: -1, maxBytes: f.cfg.PartitionBytes}
	signal(f.routes)
}

// Remove ends the reading of partitions. Once it has returned, Next gives no chunk
// of them.
func (f *Fetcher) Remove(tps ...TopicPartition) {
	f.mu.Lock()
	var drop []*Chunk
	for _, tp := range tps {
		if p := f.parts[tp]; p != nil {
			p.gone = true
			delete(f.parts, tp)
		}
	}
	f.queue = slices.DeleteFunc(f.queue, func(c *Chunk) bool {
		gone := slices.Contains(tps, c.TP)
		if gone {
			drop = append(drop, c)
		}
		return gone
	})
	f.mu.Unlock()
	for _, c := range drop {
		c.Release()
	}
}

// Next returns the next chunk, which the caller releases. It waits until there is
// one or ctx is done.
func (f *Fetcher) Next(ctx context.Context) (*Chunk, error) {
	for {
		f.mu.Lock()
		if len(f.queue) > 0 {
			c := f.queue[0]
			f.queue = slices.Delete(f.queue, 0, 1)
			if len(f.queue) > 0 {
				signal(f.filled)
			}
			if p := f.parts[c.TP]; p != nil && p.leader >= 0 {
				signal(f.loops[p.leader])
			}
			f.mu.Unlock()
			return c, nil
		}
		f.mu.Unlock()
		select {
		case <-f.filled:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-f.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// Close ends every request. Chunks that Next gave stay valid until their Release.
func (f *Fetcher) Close() {
	f.stop()
	f.bg.Wait()
	f.mu.Lock()
	queue := f.queue
	f.queue = nil
	f.mu.Unlock()
	for _, c := range queue {
		c.Release()
	}
}

// signal puts a token into a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// giveBack returns a chunk's credit.
func (f *Fetcher) giveBack(p *fetchPart, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held -= bytes
	p.held -= bytes
	for _, wake := range f.loops {
		signal(wake)
	}
}

// route finds the leaders of partitions that have none.
func (f *Fetcher) route() {
	for {
		wait := f.routeAll()
		t := time.NewTimer(wait)
		select {
		case <-f.ctx.Done():
			t.Stop()
			return
		case <-f.routes:
		case <-t.C:
		}
		t.Stop()
	}
}

// routeAll looks for every leader that is due and returns how long to wait for the
// next.
func (f *Fetcher) routeAll() time.Duration {
	var due []*fetchPart
	wait := time.Minute
	now := time.Now()
	f.mu.Lock()
	for _, p := range f.parts {
		switch d := p.after.Sub(now); {
		case p.leader >= 0 || p.asked:
		case d > 0:
			wait = min(wait, d)
		default:
			due = append(due, p)
		}
	}
	f.mu.Unlock()
	for _, p := range due {
		id, err := f.c.Leader(f.ctx, p.tp)
		f.mu.Lock()
		switch {
		case p.gone || f.ctx.Err() != nil:
		case err != nil && !IsRetriable(err):
			f.end(p, err)
		case err != nil:
			f.unroute(p)
			wait = min(wait, time.Until(p.after))
		default:
			p.leader = id
			f.loop(id)
		}
		f.mu.Unlock()
	}
	return max(wait, time.Millisecond)
}

// unroute says that a partition's leader is not known, and when to look again. The
// caller holds mu.
func (f *Fetcher) unroute(p *fetchPart) {
	p.leader = -1
	p.after = time.Now().Add(pause(p.failures))
	p.failures++
	f.c.Stale(p.tp.Topic)
	signal(f.routes)
}

// loop wakes the goroutine of a leader, which it starts if need be. The caller holds
// mu.
func (f *Fetcher) loop(id int32) {
	wake := f.loops[id]
	if wake == nil {
		wake = make(chan struct{}, 1)
		f.loops[id] = wake
		f.bg.Go(func() { f.lead(id, wake) })
	}
	signal(wake)
}

// reserve is how many chunks of a leader may wait in the queue before it is asked for
// more.
const reserve = 2

// lead asks one leader again and again.
func (f *Fetcher) lead(id int32, wake <-chan struct{}) {
	for {
		parts, rq := f.ask(id)
		if len(parts) == 0 {
			select {
			case <-wake:
				continue
			case <-f.ctx.Done():
				return
			}
		}
		m, err := f.c.AskBroker(f.ctx, id, f.lane, rq)
		if f.ctx.Err() != nil {
			if a, ok := m.(*fetchAnswer); ok {
				a.buf.release()
			}
			return
		}
		if err != nil {
			f.failed(parts, err)
			continue
		}
		f.take(parts, rq, m.(*fetchAnswer))
	}
}

// ask chooses what to ask a leader for, and marks it.
func (f *Fetcher) ask(id int32) ([]*fetchPart, *fetchRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held >= f.cfg.Credits {
		return nil, nil
	}
	waiting := make(map[TopicPartition]int)
	for _, c := range f.queue {
		waiting[c.TP]++
	}
	var parts []*fetchPart
	for _, p := range f.parts {
		if p.leader == id && !p.asked && p.held < f.cfg.PartitionCredits && waiting[p.tp] < reserve {
			parts = append(parts, p)
		}
	}
	if len(parts) == 0 {
		return nil, nil
	}
	slices.SortFunc(parts, func(a, b *fetchPart) int { return a.tp.Compare(b.tp) })
	rq := &fetchRequest{clientID: f.c.c.ClientID, committed: f.cfg.ReadCommitted, maxWait: f.cfg.MaxWait, minBytes: f.cfg.MinBytes,
		maxBytes: f.cfg.MaxBytes, pool: &f.pool}
	for _, p := range parts {
		p.asked = true
		rq.parts = append(rq.parts, fetchAsk{p.tp, p.next, p.maxBytes})
	}
	return parts, rq
}

// failed deals with a request that was not answered.
func (f *Fetcher) failed(parts []*fetchPart, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.c.c.Log.Debug("fetch failed", "error", err)
	for _, p := range parts {
		p.asked = false
		switch {
		case p.gone:
		case !IsRetriable(err):
			f.end(p, err)
		default:
			f.unroute(p)
		}
	}
}

// end gives a partition's error to Next and removes it. The caller holds mu.
func (f *Fetcher) end(p *fetchPart, err error) {
	p.gone = true
	delete(f.parts, p.tp)
	f.queue = append(f.queue, &Chunk{TP: p.tp, Epoch: p.epoch, First: p.next, Next: p.next, Err: err, f: f, part: p})
	signal(f.filled)
}

// take makes chunks of an answer.
func (f *Fetcher) take(parts []*fetchPart, rq *fetchRequest, a *fetchAnswer) {
	defer a.buf.release()
	byName := make(map[TopicPartition]*fetchPart, len(parts))
	for _, p := range parts {
		byName[p.tp] = p
	}
	var out []*fetchPart // whose offset is not there
	f.mu.Lock()
	for i := range a.parts {
		p := byName[a.parts[i].tp]
		if p == nil {
			continue
		}
		if !f.takePart(p, &a.parts[i], a.buf) {
			out = append(out, p)
		}
	}
	for _, p := range parts {
		p.asked = false
	}
	f.mu.Unlock()
	for _, p := range out {
		f.outOfRange(p)
	}
}

// takePart deals with one partition of an answer. It reports false when the offset
// is not there. The caller holds mu.
func (f *Fetcher) takePart(p *fetchPart, got *fetched, buf *buffer) bool {
	if p.gone {
		return true
	}
	switch {
	case got.code == kafka.OffsetOutOfRange:
		return false
	case got.code != 0 && IsRetriable(got.code):
		f.unroute(p)
		return true
	case got.code != 0:
		f.end(p, fmt.Errorf("read partition %s: %w", p.tp, got.code))
		return true
	}
	p.failures = 0
	next, whole, err := behind(got.set, p.next)
	if len(got.set) == 0 {
		return true
	}
	if !whole && errors.Is(err, errCut) { // not even one batch fitted
		p.maxBytes = int32(min(int64(p.maxBytes)*2, maxResponse/2))
		return true
	}
	sortAborted(got.aborted)
	buf.retain()
	c := &Chunk{TP: p.tp, Epoch: p.epoch, First: p.next, Next: next, HighWatermark: got.highWatermark, LastStable: got.lso,
		LogStart: got.logFrom, f: f, part: p, buf: buf, set: got.set, aborted: got.aborted, bytes: int64(len(got.set))}
	p.next = next
	p.held += c.bytes
	f.held += c.bytes
	f.queue = append(f.queue, c)
	signal(f.filled)
	return true
}

// outOfRange asks what the log holds and ends the partition with that.
func (f *Fetcher) outOfRange(p *fetchPart) {
	from, err1 := f.c.ListOffsets(f.ctx, []TopicPartition{p.tp}, -2, false)
	to, err2 := f.c.ListOffsets(f.ctx, []TopicPartition{p.tp}, -1, false)
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.gone || f.ctx.Err() != nil {
		return
	}
	if err := errors.Join(err1, err2); err != nil {
		f.end(p, err)
		return
	}
	if p.next >= from[p.tp] && p.next <= to[p.tp] {
		f.unroute(p) // a leader that was behind
		return
	}
	f.end(p, &OffsetOutOfRangeError{TP: p.tp, Asked: p.next, LogStart: from[p.tp], End: to[p.tp]})
}
