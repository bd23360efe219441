package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
)

// ProducerConfig says how a Producer writes. The zero value is useful: idempotent,
// uncompressed.
type ProducerConfig struct {
	// TransactionalID makes the producer transactional and fences whoever had the id
	// before. "" is idempotent only.
	TransactionalID string
	TxnTimeout      time.Duration // after which the coordinator aborts; 0 means 60 s
	Compression     Compression
	// MaxBatchBytes bounds a batch before compression; 0 means 1,000,000, which fits a
	// broker's default of 1,048,588. A record that is larger has a batch of its own.
	// What a topic refuses as too large is split, down to single records.
	MaxBatchBytes int
	// MaxBytes bounds the memory of batches, be they open, on their way or kept for
	// use again, give or take a few batches; 0 means 32 MiB. Append waits beyond it.
	MaxBytes int
	// Deadline is how long a batch, or a request to a coordinator, is tried again
	// before the producer is spent; 0 means 2 minutes. A log forgets which batches it
	// has only after many times that.
	Deadline time.Duration
	// Guard, where it is not nil, is asked right before each request with batches is
	// written, also when it is written again; its error, which is ErrNotMember, spends
	// the producer. It must return at once.
	Guard func() error
}

func (c ProducerConfig) withDefaults() ProducerConfig {
	if c.TxnTimeout == 0 {
		c.TxnTimeout = time.Minute
	}
	if c.MaxBatchBytes == 0 {
		c.MaxBatchBytes = 1_000_000
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 32 << 20
	}
	if c.Deadline == 0 {
		c.Deadline = 2 * time.Minute
	}
	return c
}

// A Producer writes records with a producer id, an epoch and sequence numbers, so
// that a batch that is sent again is in the log once. Batches leave in the
// background when they are full or flushed: those of one partition one after the
// other, those of partitions with the same leader together, leaders at the same
// time. One goroutine calls its methods. After an error that sending again cannot
// cure it is spent: every call returns that error, and the owner closes it and makes
// a new one (see IsFenced and IsMemberGone for when not to).
type Producer struct {
	c     *Cluster
	cfg   ProducerConfig
	id    int64
	epoch int16
	lane  string // of produce requests
	txn   string // of requests to the coordinator

	ctx  context.Context // of what runs in the background; ends with Close
	stop context.CancelFunc
	bg   sync.WaitGroup
	pool Compressors

	held  atomic.Int64 // bytes of memory that batches have
	spent atomic.Bool  // err is set

	// The caller's.
	parts map[TopicPartition]*outPart
	order []*outPart // the same, as they came
	last  *outPart   // appended to last

	mu      sync.Mutex
	change  chan struct{} // nil, or closed at the next acknowledgement and when the producer is spent
	err     error
	unacked int // batches that are sealed and not acknowledged
	free    []*outBatch
	leaders map[int32]*outLeader
	joining []*outPart // to be added to the transaction
	adding  bool       // is under way
	began   bool       // the coordinator may have something in the open transaction
}

// An outPart is a partition that is written.
type outPart struct {
	tp    TopicPartition
	open  *outBatch    // the caller's
	limit atomic.Int64 // bytes of a batch before compression

	// Guarded by Producer.mu.
	ready    []*outBatch // sealed, in order; the first one may be on its way
	busy     bool        // the first one waits for a leader, an answer, a pause
	added    bool        // to the open transaction
	sequence int32       // of the first record in ready
	written  int64       // behind the last acknowledged record
}

// An outBatch is a batch with what becomes of it. It has one holder at a time: the
// caller while it is open, then whoever has its partition busy.
type outBatch struct {
	BatchWriter
	counted int       // bytes that Producer.held has of it
	packing bool      // is being compressed
	since   time.Time // when it was first to be sent
	tries   int       // that failed
	sent    int       // bytes as it went to the broker
	unknown time.Time // since when its partition is unknown
}

// NewProducer gets a producer id. With a transactional id that fences the owner
// before and settles its open transaction, so it comes before the committed offset
// is read. It waits for that as long as ctx does.
func NewProducer(ctx context.Context, c *Cluster, cfg ProducerConfig) (*Producer, error) {
	cfg = cfg.withDefaults()
	p := &Producer{c: c, cfg: cfg, parts: make(map[TopicPartition]*outPart), leaders: make(map[int32]*outLeader)}
	n := c.lanes.Add(1) % producerLanes
	p.lane, p.txn = fmt.Sprintf("%s %d", laneProduce, n), fmt.Sprintf("txn %d", n)
	if err := persist(ctx, p.init); err != nil {
		return nil, fmt.Errorf("get a producer id: %w", err)
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p, nil
}

// producerLanes is how many connections to a broker the producers share.
const producerLanes = 8

func (p *Producer) init(ctx context.Context) error {
	rq := pin(1, p.c, &initproducerid.Request{TransactionalID: p.cfg.TransactionalID,
		TransactionTimeoutMs: int32(p.cfg.TxnTimeout.Milliseconds())})
	ask := p.c.AskAny
	if p.transactional() {
		ask = p.askTxn
	}
	m, err := ask(ctx, rq)
	if err != nil {
		return err
	}
	r := m.(*initproducerid.Response)
	if r.ErrorCode != 0 {
		return p.txnError("begin", kafka.Error(r.ErrorCode))
	}
	p.id, p.epoch = r.ProducerID, r.ProducerEpoch
	return nil
}

func (p *Producer) transactional() bool { return p.cfg.TransactionalID != "" }

// Append copies a record into the open batch of a partition; a batch that is full
// leaves. A nil key or value is null. Timestamp is in milliseconds since 1970; 0 or
// less means now. It waits while batches hold MaxBytes, at most for Deadline: then
// the producer is spent.
func (p *Producer) Append(tp TopicPartition, key, value []byte, headers []Header, timestamp int64) error {
	if p.spent.Load() {
		return p.failure()
	}
	o := p.part(tp)
	if o.open != nil && o.open.Len() > 0 && int64(o.open.Size()+RecordSize(key, value, headers)) > o.limit.Load() {
		p.seal(o)
	}
	if o.open == nil {
		o.open = p.batch()
	}
	if timestamp <= 0 {
		timestamp = time.Now().UnixMilli()
	}
	if err := o.open.Append(key, value, headers, timestamp); err != nil {
		return fmt.Errorf("a record of %d bytes for %s: %w", RecordSize(key, value, headers), tp, err)
	}
	if p.count(o.open) && p.held.Load() > int64(p.cfg.MaxBytes) {
		return p.relieve()
	}
	return nil
}

// fewParts is how many partitions are looked through before the map is asked.
const fewParts = 8

// part returns a partition, which is new at the first call.
func (p *Producer) part(tp TopicPartition) *outPart {
	if p.last != nil && p.last.tp == tp {
		return p.last
	}
	for _, o := range p.order[:min(len(p.order), fewParts)] { // cheaper than to hash a topic's name
		if o.tp.Partition == tp.Partition && o.tp.Topic == tp.Topic {
			p.last = o
			return o
		}
	}
	o := p.parts[tp]
	if o == nil {
		o = &outPart{tp: tp, written: -1}
		o.limit.Store(int64(p.cfg.MaxBatchBytes))
		p.parts[tp] = o
		p.mu.Lock()
		p.order = append(p.order, o)
		p.mu.Unlock()
	}
	p.last = o
	return o
}

// batch returns an empty batch.
func (p *Producer) batch() *outBatch {
	p.mu.Lock()
	b := &outBatch{}
	if n := len(p.free); n > 0 {
		b, p.free = p.free[n-1], p.free[:n-1]
	}
	p.mu.Unlock()
	b.Reset(p.cfg.Compression, &p.pool)
	b.packing, b.since, b.tries, b.unknown = false, time.Time{}, 0, time.Time{}
	return b
}

// count brings held up to date with a batch's memory, and reports whether that
// changed.
func (p *Producer) count(b *outBatch) bool {
	more := b.memory() - b.counted
	if more == 0 {
		return false
	}
	b.counted += more
	p.held.Add(int64(more))
	return true
}

// memory is how many bytes the batch has, in use or not, and how many it may need to
// be compressed.
func (b *outBatch) memory() int {
	if b.codec == None {
		return cap(b.raw) + cap(b.out)
	}
	return cap(b.raw) + max(cap(b.out), cap(b.raw))
}

// relieve makes room: what is kept for later goes, then everything open is sent
// and waited for.
func (p *Producer) relieve() error {
	p.mu.Lock()
	for _, b := range p.free {
		p.held.Add(-int64(b.counted))
	}
	p.free = nil
	p.mu.Unlock()
	if p.held.Load() <= int64(p.cfg.MaxBytes) {
		return nil
	}
	p.sealAll()
	return p.until(p.ctx, func() bool { return p.unacked == 0 || p.held.Load() <= int64(p.cfg.MaxBytes) })
}

// until waits until ok, which is asked under the lock, or the producer is spent.
func (p *Producer) until(ctx context.Context, ok func() bool) error {
	for {
		p.mu.Lock()
		err, done := p.err, ok()
		if p.change == nil {
			p.change = make(chan struct{})
		}
		change := p.change
		p.mu.Unlock()
		if err != nil || done {
			return err
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// changed wakes whoever waits. The caller holds mu.
func (p *Producer) changed() {
	if p.change != nil {
		close(p.change)
		p.change = nil
	}
}

// spend makes err the producer's last word. The caller holds mu.
func (p *Producer) spend(err error) error {
	if p.err == nil {
		p.err = err
		p.spent.Store(true)
		p.changed()
	}
	return p.err
}

// fail is spend for those who do not hold mu.
func (p *Producer) fail(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spend(err)
}

func (p *Producer) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Flush waits until everything that was appended is acknowledged. That ctx is done
// does not spend the producer.
func (p *Producer) Flush(ctx context.Context) error {
	p.sealAll()
	return p.until(ctx, func() bool { return p.unacked == 0 })
}

// Written returns, for each partition that was written, the offset behind the last
// record that was acknowledged. It may be too low after a batch was sent twice.
func (p *Producer) Written() map[TopicPartition]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[TopicPartition]int64, len(p.order))
	for _, o := range p.order {
		if o.written >= 0 {
			all[o.tp] = o.written
		}
	}
	return all
}

// ErrProducerClosed is the error of a Producer that was closed.
var ErrProducerClosed = errors.New("kafka: the producer is closed")

// Close gives up what is not acknowledged and waits for the background. An open
// transaction is left for the coordinator, or the next owner of its id, to abort.
func (p *Producer) Close() {
	_ = p.fail(ErrProducerClosed) // or what it was spent by
	p.stop()
	p.bg.Wait()
}
