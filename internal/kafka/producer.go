package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
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
	// broker's default of 1,048,588.
	MaxBatchBytes int
	// MaxBytes bounds what is appended and not acknowledged; 0 means 32 MiB. Append
	// waits beyond it.
	MaxBytes int
	// Deadline is how long a request is tried again before the producer is spent; 0
	// means 2 minutes.
	Deadline time.Duration
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
// background, those of one partition one after the other, partitions at the same
// time. One goroutine calls its methods. After an error that sending again cannot
// cure it is spent: every call returns that error, and the owner makes a new one.
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

	parts map[TopicPartition]*outPart
	last  *outPart // appended to last

	mu     sync.Mutex
	change chan struct{} // closed and replaced when a batch was acknowledged or the producer is spent
	err    error
	held   int // bytes that are sealed and not acknowledged
	free   []*BatchWriter
	added  map[TopicPartition]bool // to the open transaction
	began  bool                    // the open transaction has something in it
}

// An outPart is a partition that is written.
type outPart struct {
	tp   TopicPartition
	open *BatchWriter // the caller's

	// Guarded by Producer.mu.
	ready    []*BatchWriter // sealed, in order
	sending  bool
	sequence int32
	written  int64 // behind the last acknowledged record
}

// NewProducer gets a producer id. With a transactional id that fences the owner
// before and settles its open transaction, so it comes before the committed offset
// is read. It waits for that as long as ctx does.
func NewProducer(ctx context.Context, c *Cluster, cfg ProducerConfig) (*Producer, error) {
	cfg = cfg.withDefaults()
	p := &Producer{c: c, cfg: cfg, parts: make(map[TopicPartition]*outPart), added: make(map[TopicPartition]bool),
		change: make(chan struct{})}
	n := c.lanes.Add(1) % producerLanes
	p.lane, p.txn = fmt.Sprintf("%s %d", laneProduce, n), fmt.Sprintf("txn %d", n)
	if err := retry(ctx, func() error { return p.init(ctx) }); err != nil {
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
	if p.cfg.TransactionalID != "" {
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

// Append copies a record into the open batch of a partition; a batch that is full
// leaves. It waits while too much is not acknowledged.
func (p *Producer) Append(tp TopicPartition, key, value []byte, headers []Header, timestamp int64) error {
	if timestamp <= 0 {
		timestamp = time.Now().UnixMilli()
	}
	o := p.last
	if o == nil || o.tp != tp {
		if o = p.parts[tp]; o == nil {
			o = &outPart{tp: tp, written: -1}
			p.parts[tp] = o
		}
		p.last = o
	}
	size := RecordSize(key, value, headers)
	if o.open != nil && o.open.Len() > 0 && o.open.Size()+size > p.cfg.MaxBatchBytes {
		if err := p.seal(o); err != nil {
			return err
		}
	}
	if o.open == nil {
		if err := p.room(); err != nil {
			return err
		}
		o.open = p.writer()
	}
	return o.open.Append(key, value, headers, timestamp)
}

// writer returns an empty batch.
func (p *Producer) writer() *BatchWriter {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &BatchWriter{}
	if n := len(p.free); n > 0 {
		w, p.free = p.free[n-1], p.free[:n-1]
	}
	w.Reset(p.cfg.Compression, &p.pool)
	return w
}

// room waits until there is room for another batch.
func (p *Producer) room() error {
	return p.until(p.ctx, func() bool { return p.held <= p.cfg.MaxBytes })
}

// until waits until ok, which is asked under the lock, or the producer is spent.
func (p *Producer) until(ctx context.Context, ok func() bool) error {
	for {
		p.mu.Lock()
		err, done, change := p.err, ok(), p.change
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
	close(p.change)
	p.change = make(chan struct{})
}

// seal sends the open batch of a partition on its way.
func (p *Producer) seal(o *outPart) error {
	w := o.open
	o.open = nil
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	o.ready = append(o.ready, w)
	p.held += w.Size()
	p.began = true
	if !o.sending {
		o.sending = true
		p.bg.Go(func() { p.send(o) })
	}
	return nil
}

// send sends the sealed batches of a partition until there are none left.
func (p *Producer) send(o *outPart) {
	for {
		p.mu.Lock()
		if len(o.ready) == 0 || p.err != nil {
			o.sending = false
			p.changed()
			p.mu.Unlock()
			return
		}
		w, sequence, added := o.ready[0], o.sequence, p.added[o.tp]
		p.mu.Unlock()

		err := error(nil)
		if p.cfg.TransactionalID != "" && !added {
			err = p.addPartition(o.tp)
		}
		var base int64
		if err == nil {
			base, err = p.produce(o.tp, w, sequence)
		}
		p.mu.Lock()
		if err != nil {
			p.spend(err)
		} else {
			p.added[o.tp] = true
			o.ready = slices.Delete(o.ready, 0, 1)
			o.sequence = nextSequence(sequence, w.Len())
			o.written = max(o.written, base+int64(w.Len()))
			p.held -= w.Size()
			p.free = append(p.free, w)
			p.changed()
		}
		p.mu.Unlock()
	}
}

// nextSequence is the sequence behind n records: after 2^31-1 comes 0.
func nextSequence(sequence int32, n int) int32 {
	next := int64(sequence) + int64(n)
	if next > math.MaxInt32 {
		next -= math.MaxInt32 + 1
	}
	return int32(next)
}

// spend makes err the producer's last word. The caller holds mu.
func (p *Producer) spend(err error) error {
	if p.err == nil {
		p.err = err
		p.changed()
	}
	return p.err
}

// produce sends one batch, again and again with the same sequence, until it is in
// the log. It returns the offset of its first record, -1 when it was there already.
func (p *Producer) produce(tp TopicPartition, w *BatchWriter, sequence int32) (int64, error) {
	raw, err := w.Finish(p.id, p.epoch, sequence, p.cfg.TransactionalID != "")
	if err != nil {
		return 0, err
	}
	rq := &produceRequest{clientID: p.c.c.ClientID, txnID: p.cfg.TransactionalID, tp: tp, batch: raw, timeout: p.c.c.RequestTimeout}
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.Deadline)
	defer cancel()
	base := int64(-1)
	err = retry(ctx, func() error {
		m, err := p.c.AskLeader(ctx, tp, p.lane, rq)
		if err != nil {
			return err
		}
		r := m.(*produceAnswer)
		switch r.code {
		case 0:
			base = r.base
			return nil
		case kafka.DuplicateSequenceNumber:
			return nil
		}
		p.c.Stale(tp.Topic)
		return r.code
	})
	switch {
	case errors.Is(err, kafka.MessageSizeTooLarge):
		err = fmt.Errorf("a batch of %d records and %d bytes is more than the topic takes: %w; raise its max.message.bytes, or lower max_batch_bytes",
			w.Len(), len(raw), err)
	case err != nil && p.ctx.Err() == nil && ctx.Err() != nil:
		err = fmt.Errorf("gave up after %v: %w", p.cfg.Deadline, err)
	}
	if err != nil {
		return 0, fmt.Errorf("write %d records to %s: %w", w.Len(), tp, err)
	}
	return base, nil
}

// Flush waits until everything that was appended is acknowledged.
func (p *Producer) Flush(ctx context.Context) error {
	for _, o := range p.parts {
		if o.open != nil && o.open.Len() > 0 {
			if err := p.seal(o); err != nil {
				return err
			}
		}
	}
	return p.until(ctx, func() bool {
		for _, o := range p.parts {
			if o.sending || len(o.ready) > 0 {
				return false
			}
		}
		return true
	})
}

// Written returns, for each partition that was written, the offset behind the last
// record that was acknowledged.
func (p *Producer) Written() map[TopicPartition]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[TopicPartition]int64, len(p.parts))
	for tp, o := range p.parts {
		if o.written >= 0 {
			all[tp] = o.written
		}
	}
	return all
}

// Close gives up what is not acknowledged and waits for the background. An open
// transaction is left for the coordinator, or the next owner of its id, to abort.
func (p *Producer) Close() {
	p.stop()
	p.bg.Wait()
}
