package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// fetchVersion is the version of fetch requests. Kafka 2.3 and later speak it.
const fetchVersion = 11

// maxResponse bounds an answer: a broker may exceed what was asked for by one batch
// a partition.
const maxResponse = 1 << 30

// A fetchRequest asks a leader for several partitions. It writes itself and reads
// its answer into pooled memory, without a copy.
type fetchRequest struct {
	clientID  string
	committed bool
	maxWait   time.Duration
	minBytes  int32
	maxBytes  int32
	parts     []fetchAsk // sorted by topic
	pool      *buffers
}

type fetchAsk struct {
	tp       TopicPartition
	offset   int64
	maxBytes int32
}

// A fetchAnswer is what a leader answered. Its sets are views into buf.
type fetchAnswer struct {
	buf   *buffer
	parts []fetched
}

type fetched struct {
	tp                          TopicPartition
	code                        kafka.Error
	highWatermark, lso, logFrom int64
	aborted                     []abortedTxn // sorted by first
	set                         []byte
}

// An abortedTxn says that what a producer wrote from an offset on, up to its abort
// marker, never happened.
type abortedTxn struct{ producer, first int64 }

var _ protocol.RawExchanger = (*fetchRequest)(nil)

// ApiKey is that of Fetch.
func (*fetchRequest) ApiKey() protocol.ApiKey { return protocol.Fetch }

// ApiKey is that of Fetch.
func (*fetchAnswer) ApiKey() protocol.ApiKey { return protocol.Fetch }

// Required is always true: the request has no other form.
func (*fetchRequest) Required(map[protocol.ApiKey]int16) bool { return true }

func (r *fetchRequest) wait() time.Duration { return r.maxWait }

// RawExchange asks and reads the answer.
func (r *fetchRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if _, err := rw.Write(r.encode()); err != nil {
		return nil, err
	}
	var head [8]byte
	if _, err := io.ReadFull(rw, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n < 4 || n > maxResponse {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	if id := binary.BigEndian.Uint32(head[4:]); id != ownCorrelation {
		return nil, fmt.Errorf("the answer is to request %d, want %d", id, ownCorrelation)
	}
	buf := r.pool.get(int(n - 4))
	_, err := io.ReadFull(rw, buf.b)
	var a *fetchAnswer
	if err == nil {
		a, err = parseFetch(buf.b)
	}
	if err != nil {
		buf.release()
		return nil, err
	}
	a.buf = buf
	return a, nil
}

func (r *fetchRequest) encode() []byte {
	b := make([]byte, 4, 64+64*len(r.parts))
	b = binary.BigEndian.AppendUint16(b, uint16(protocol.Fetch))
	b = binary.BigEndian.AppendUint16(b, fetchVersion)
	b = binary.BigEndian.AppendUint32(b, ownCorrelation)
	b = appendName(b, r.clientID)
	b = binary.BigEndian.AppendUint32(b, 0xffffffff) // no replica
	b = binary.BigEndian.AppendUint32(b, uint32(r.maxWait.Milliseconds()))
	b = binary.BigEndian.AppendUint32(b, uint32(r.minBytes))
	b = binary.BigEndian.AppendUint32(b, uint32(r.maxBytes))
	isolation := byte(0)
	if r.committed {
		isolation = 1
	}
	b = append(b, isolation)
	b = binary.BigEndian.AppendUint32(b, 0)          // no session
	b = binary.BigEndian.AppendUint32(b, 0xffffffff) // nor one to begin
	topics := 0
	for i := range r.parts {
		if i == 0 || r.parts[i].tp.Topic != r.parts[i-1].tp.Topic {
			topics++
		}
	}
	b = binary.BigEndian.AppendUint32(b, uint32(topics))
	for lo := 0; lo < len(r.parts); {
		hi := lo + 1
		for hi < len(r.parts) && r.parts[hi].tp.Topic == r.parts[lo].tp.Topic {
			hi++
		}
		b = appendName(b, r.parts[lo].tp.Topic)
		b = binary.BigEndian.AppendUint32(b, uint32(hi-lo))
		for _, p := range r.parts[lo:hi] {
			b = binary.BigEndian.AppendUint32(b, uint32(p.tp.Partition))
			b = binary.BigEndian.AppendUint32(b, 0xffffffff) // any leader epoch
			b = binary.BigEndian.AppendUint64(b, uint64(p.offset))
			b = binary.BigEndian.AppendUint64(b, 0xffffffffffffffff) // a follower's log start
			b = binary.BigEndian.AppendUint32(b, uint32(p.maxBytes))
		}
		lo = hi
	}
	b = binary.BigEndian.AppendUint32(b, 0) // nothing to forget
	b = appendName(b, "")                   // no rack
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// parseFetch reads an answer behind the correlation id.
func parseFetch(b []byte) (*fetchAnswer, error) {
	r := fieldReader{b: b}
	r.int32() // throttle time
	if code := kafka.Error(r.int16()); code != 0 {
		return nil, code
	}
	r.int32() // session
	a := &fetchAnswer{}
	for range r.count(6) {
		topic := r.name()
		for range r.count(42) {
			f := fetched{tp: TopicPartition{topic, r.int32()}, code: kafka.Error(r.int16()),
				highWatermark: r.int64(), lso: r.int64(), logFrom: r.int64()}
			for range r.count(16) {
				f.aborted = append(f.aborted, abortedTxn{r.int64(), r.int64()})
			}
			r.int32() // preferred replica
			f.set = r.bytes()
			a.parts = append(a.parts, f)
		}
	}
	if r.bad {
		return nil, errors.New("the answer ends early")
	}
	return a, nil
}

// buffers are a pool of memory for answers.
type buffers struct{ pool sync.Pool }

// A buffer is memory that several share; the last one to release it gives it back.
type buffer struct {
	b    []byte
	refs atomic.Int32
	pool *buffers
}

func (p *buffers) get(n int) *buffer {
	buf, _ := p.pool.Get().(*buffer)
	if buf == nil {
		buf = &buffer{pool: p}
	}
	if cap(buf.b) < n {
		buf.b = make([]byte, n+n/4)
	}
	buf.b = buf.b[:n]
	buf.refs.Store(1)
	return buf
}

func (b *buffer) retain() { b.refs.Add(1) }

func (b *buffer) release() {
	if b.refs.Add(-1) == 0 {
		b.pool.pool.Put(b)
	}
}
