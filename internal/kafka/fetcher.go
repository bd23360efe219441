package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// FetchConfig bounds what a Fetcher asks for and holds. The zero value is useful.
type FetchConfig struct {
	ReadCommitted bool          // leave out transactions that are open or were aborted
	MaxWait       time.Duration // that a broker waits for MinBytes; 0 means 500 ms
	MinBytes      int32         // 0 means 1
	MaxBytes      int32         // of one answer; 0 means 32 MiB
	// PartitionBytes is the most of one partition in an answer; 0 means 1 MiB. A
	// larger batch comes whole all the same.
	PartitionBytes int32
	// Credits is how many bytes may be held in chunks that are not released; 0 means
	// 64 MiB. PartitionCredits is that for one partition; 0 means 8 MiB. Without
	// credit nothing is asked for, so what is held exceeds Credits by one answer for
	// each leader at most, and by what its batches grow when they are unpacked.
	Credits, PartitionCredits int64
	// MaxUnpacked bounds one batch after it is unpacked; 0 means 64 MiB. A larger one
	// is ErrTooLarge.
	MaxUnpacked int
}

func (c FetchConfig) withDefaults() FetchConfig {
	c.MaxWait = positive(c.MaxWait, 500*time.Millisecond)
	c.MinBytes = positive(c.MinBytes, 1)
	c.MaxBytes = positive(c.MaxBytes, 32<<20)
	c.PartitionBytes = positive(c.PartitionBytes, 1<<20)
	c.Credits = positive(c.Credits, 64<<20)
	c.PartitionCredits = positive(c.PartitionCredits, 8<<20)
	c.MaxUnpacked = positive(c.MaxUnpacked, 64<<20)
	return c
}

func positive[T cmp.Ordered](v, otherwise T) T {
	var zero T
	if v > zero {
		return v
	}
	return otherwise
}

// A fetchCluster is what a Fetcher needs of a Cluster.
type fetchCluster interface {
	Leader(ctx context.Context, tp TopicPartition) (int32, error)
	Stale(topic string)
	AskBroker(ctx context.Context, broker int32, lane string, m protocol.Message) (protocol.Message, error)
	ListOffsets(ctx context.Context, tps []TopicPartition, at int64, committed bool) (map[TopicPartition]int64, error)
}

var _ fetchCluster = (*Cluster)(nil)

// A Fetcher reads partitions ahead: one goroutine for each leader asks for all of
// its partitions, and again as soon as an answer's headers tell where they go on. It
// is safe for concurrent use.
//
//	f := kafka.NewFetcher(cluster, kafka.FetchConfig{ReadCommitted: true})
//	defer f.Close()
//	f.Add(tp, epoch, offset)
//	c, err := f.Next(ctx)
//	err = c.Records(func(r *kafka.Record) error { return nil })
//	c.Release()
type Fetcher struct {
	c         fetchCluster
	clientID  string
	lane      string
	hangUp    func() // closes the lane's connections; nil in tests
	log       *slog.Logger
	cfg       FetchConfig
	pool      buffers
	unpackers decompressors
	ctx       context.Context // ends with Close
	stop      context.CancelFunc
	bg        sync.WaitGroup

	mu      sync.Mutex
	parts   map[TopicPartition]*fetchPart
	leaders map[int32]*leader
	queue   []*Chunk      // for Next, in the order they came
	filled  chan struct{} // one token: queue is not empty
	held    int64         // bytes in chunks that are not released
}

// A fetchPart is a partition that is read, from one Add on.
type fetchPart struct {
	tp     TopicPartition
	epoch  int64
	next   int64
	leader *leader // nil while it is looked for, and at the end
	over   bool    // removed, replaced or failed: nothing more comes of it
	held   int64
	hungry bool  // its next batch did not fit into the last answer
	size   int32 // of that batch, if it is known and larger than PartitionBytes

	failures int       // in a row
	since    time.Time // when they began
	warned   bool
	astray   int // answers in a row that the offset is not there, though it is
}

// NewFetcher returns a fetcher without partitions. It must be closed.
func NewFetcher(c *Cluster, cfg FetchConfig) *Fetcher {
	f := newFetcher(c, cfg)
	f.clientID, f.log = c.c.ClientID, c.c.Log
	f.lane = fmt.Sprintf("%s %d", laneFetch, c.lanes.Add(1))
	f.hangUp = func() { c.hangUpLane(f.lane) }
	return f
}

func newFetcher(c fetchCluster, cfg FetchConfig) *Fetcher {
	f := &Fetcher{
		c: c, cfg: cfg.withDefaults(), log: slog.New(slog.DiscardHandler), lane: laneFetch,
		parts: make(map[TopicPartition]*fetchPart), leaders: make(map[int32]*leader), filled: make(chan struct{}, 1),
	}
	f.pool.most = f.cfg.Credits / 4
	f.unpackers.limit = f.cfg.MaxUnpacked
	f.ctx, f.stop = context.WithCancel(context.Background())
	return f
}

// Add begins to read a partition at an offset. Its chunks carry epoch, whatever it
// means to the caller. A partition that is being read begins anew.
func (f *Fetcher) Add(tp TopicPartition, epoch, offset int64) {
	f.mu.Lock()
	drop := f.remove(tp)
	if f.ctx.Err() == nil {
		p := &fetchPart{tp: tp, epoch: epoch, next: offset}
		f.parts[tp] = p
		f.bg.Go(func() { f.find(p, 0) })
	}
	f.mu.Unlock()
	for _, c := range drop {
		c.Release()
	}
}

// Remove ends the reading of partitions. Once it has returned, Next gives no chunk
// of them; those that it gave before stay valid.
func (f *Fetcher) Remove(tps ...TopicPartition) {
	f.mu.Lock()
	drop := f.remove(tps...)
	f.mu.Unlock()
	for _, c := range drop {
		c.Release()
	}
}

// remove returns the chunks to release. The caller holds mu.
func (f *Fetcher) remove(tps ...TopicPartition) (drop []*Chunk) {
	for _, tp := range tps {
		if p := f.parts[tp]; p != nil {
			f.leave(p)
			p.over = true
			delete(f.parts, tp)
		}
	}
	f.queue = slices.DeleteFunc(f.queue, func(c *Chunk) bool {
		gone := f.parts[c.TP] != c.part
		if gone {
			drop = append(drop, c)
			f.taken(c)
		}
		return gone
	})
	return drop
}

// Next returns the next chunk, which the caller releases. It waits until there is
// one, ctx is done, or the fetcher is closed, which is ErrClosed.
func (f *Fetcher) Next(ctx context.Context) (*Chunk, error) {
	for {
		if c := f.pop(); c != nil {
			return c, nil
		}
		select {
		case <-f.filled:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-f.ctx.Done():
			return nil, ErrClosed
		}
	}
}

func (f *Fetcher) pop() *Chunk {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) == 0 {
		return nil
	}
	c := f.queue[0]
	f.queue = slices.Delete(f.queue, 0, 1)
	if len(f.queue) > 0 {
		signal(f.filled)
	}
	f.taken(c)
	return c
}

// Close ends every request and waits for that. Chunks that Next gave stay valid
// until their Release.
func (f *Fetcher) Close() {
	f.stop()
	f.mu.Lock()
	all := make([]TopicPartition, 0, len(f.parts))
	for tp := range f.parts {
		all = append(all, tp)
	}
	f.mu.Unlock()
	f.Remove(all...)
	f.bg.Wait()
	if f.hangUp != nil {
		f.hangUp()
	}
}

// signal puts a token into a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// charge takes credit, or with fewer than no bytes gives it back.
func (f *Fetcher) charge(p *fetchPart, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held += bytes
	p.held += bytes
	if bytes < 0 {
		for _, l := range f.leaders {
			l.stir()
		}
	}
}

// taken says that a chunk has left the queue. The caller holds mu.
func (f *Fetcher) taken(c *Chunk) {
	if c.answer == nil {
		return
	}
	if c.answer.chunks--; c.answer.chunks == 0 {
		c.answer.leader.reserve--
		c.answer.leader.stir()
	}
}

// leave takes a partition from its leader. The caller holds mu.
func (f *Fetcher) leave(p *fetchPart) {
	if l := p.leader; l != nil {
		l.parts = slices.DeleteFunc(l.parts, func(o *fetchPart) bool { return o == p })
		p.leader = nil
		l.stir()
	}
}

// find looks for a partition's leader until it is known, after a pause that grows
// with the failures in a row.
func (f *Fetcher) find(p *fetchPart, wait time.Duration) {
	for {
		if wait > 0 && sleep(f.ctx, wait) != nil {
			return
		}
		f.mu.Lock()
		over := p.over
		f.mu.Unlock()
		if over {
			return
		}
		id, err := f.c.Leader(f.ctx, p.tp)
		f.mu.Lock()
		if err == nil && !p.over {
			f.assign(p, id)
		} else if err != nil && !f.fails(p, err) {
			wait = pause(p.failures)
			f.mu.Unlock()
			continue
		}
		f.mu.Unlock()
		return
	}
}

// seek looks for a partition's leader in the background, because of an error. The
// caller holds mu.
func (f *Fetcher) seek(p *fetchPart, err error) {
	if f.fails(p, err) {
		return
	}
	f.leave(p)
	f.c.Stale(p.tp.Topic)
	wait := pause(p.failures - 1)
	f.bg.Go(func() { f.find(p, wait) })
}

// How long a partition may fail.
const (
	quiet      = 5 * time.Second // before a person is told
	missing    = time.Minute     // while the broker does not know it, before it is given up
	mostOdd    = 10              // errors in a row that are no sign of a leader's move
	mostAstray = 5
)

// fails counts an error and reports whether the partition is over. The caller holds
// mu.
func (f *Fetcher) fails(p *fetchPart, err error) (over bool) {
	if p.over || f.ctx.Err() != nil {
		return true
	}
	now := time.Now()
	if p.failures == 0 {
		p.since = now
	}
	p.failures++
	lasts := now.Sub(p.since)
	var code kafka.Error
	isCode := errors.As(err, &code)
	switch {
	case isCode && moved(code):
	case isCode && code == kafka.UnknownTopicOrPartition && lasts < missing:
	case isCode && retriable(code) && code != kafka.UnknownTopicOrPartition && p.failures <= mostOdd:
	case !isCode && IsRetriable(err):
	default:
		f.end(p, err)
		return true
	}
	if lasts >= quiet && !p.warned {
		p.warned = true
		f.log.Warn("partition cannot be read at present", "partition", p.tp.String(), "offset", p.next, "for", lasts, "error", err)
	}
	return false
}

// works says that a partition's leader answered. The caller holds mu.
func (f *Fetcher) works(p *fetchPart) {
	if p.warned {
		f.log.Info("partition is read again", "partition", p.tp.String(), "offset", p.next, "after", time.Since(p.since))
	}
	p.failures, p.warned, p.astray = 0, false, 0
}

// moved says that another broker leads, or soon will, or that this one is not ready:
// waiting is all there is to do.
func moved(code kafka.Error) bool {
	switch code {
	case kafka.LeaderNotAvailable, kafka.NotLeaderForPartition, kafka.RequestTimedOut, kafka.ReplicaNotAvailable,
		kafka.NetworkException, kafka.KafkaStorageError, kafka.FencedLeaderEpoch, kafka.UnknownLeaderEpoch, kafka.OffsetNotAvailable:
		return true
	}
	return false
}

// retriable says that an odd error may pass.
func retriable(code kafka.Error) bool { return code == kafka.Unknown || code.Temporary() }

// end gives a partition's last error to Next. The caller holds mu.
func (f *Fetcher) end(p *fetchPart, err error) {
	f.leave(p)
	p.over = true
	f.push(&Chunk{TP: p.tp, Epoch: p.epoch, First: p.next, Next: p.next, Err: err, f: f, part: p})
}

// push puts a chunk into the queue. The caller holds mu.
func (f *Fetcher) push(c *Chunk) {
	f.queue = append(f.queue, c)
	signal(f.filled)
}

// measure finds out what the log holds when a leader says that it does not hold the
// offset asked for. A leader that was behind is asked again.
func (f *Fetcher) measure(p *fetchPart, asked int64) {
	f.c.Stale(p.tp.Topic)
	tps := []TopicPartition{p.tp}
	from, err := f.c.ListOffsets(f.ctx, tps, -2, false)
	var to map[TopicPartition]int64
	if err == nil {
		to, err = f.c.ListOffsets(f.ctx, tps, -1, false)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.over || f.ctx.Err() != nil {
		return
	}
	if err != nil {
		f.end(p, fmt.Errorf("offset %d is not there, and what is cannot be told: %w", asked, err))
		return
	}
	if p.astray++; asked >= from[p.tp] && asked <= to[p.tp] && p.astray <= mostAstray {
		wait := pause(p.astray - 1)
		f.bg.Go(func() { f.find(p, wait) })
		return
	}
	f.end(p, &OffsetOutOfRangeError{TP: p.tp, Asked: asked, LogStart: from[p.tp], End: to[p.tp]})
}
