package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// fetchVersion is the version of fetch requests. Kafka 2.3 and later speak it.
const fetchVersion = 11

// maxResponse bounds an answer, in bytes: a broker may exceed what was asked for by
// one batch.
const maxResponse = 1 << 30

// A fetchRequest asks a leader for several partitions. It writes itself, and reads
// each partition's batches straight into pooled memory. It is used again and again,
// by one goroutine, and so is its answer.
type fetchRequest struct {
	clientID  string
	committed bool
	maxWait   time.Duration
	minBytes  int32
	maxBytes  int32
	asks      []fetchAsk // those of a topic stand together
	pool      *buffers

	out    []byte
	in     answerReader
	answer fetchAnswer
}

// A fetchAsk is what is asked for of one partition.
type fetchAsk struct {
	part     *fetchPart
	tp       TopicPartition
	offset   int64
	maxBytes int32
	answered bool
}

// A fetchAnswer is what a leader answered.
type fetchAnswer struct {
	parts []fetched
}

// A fetched is what was answered for one partition.
type fetched struct {
	ask                             int // its place in the request's asks
	code                            kafka.Error
	highWatermark, stable, logStart int64
	aborted                         []abortedTxn // sorted by first
	set                             []byte       // pooled; owned by whoever takes it
}

// An abortedTxn says that what a producer wrote in transactions from an offset on,
// up to its abort marker, never happened.
type abortedTxn struct{ producer, first int64 }

var (
	_ protocol.RawExchanger = (*fetchRequest)(nil)
	_ fixed                 = (*fetchRequest)(nil)
)

// ApiKey is that of Fetch.
func (*fetchRequest) ApiKey() protocol.ApiKey { return protocol.Fetch }

// ApiKey is that of Fetch.
func (*fetchAnswer) ApiKey() protocol.ApiKey { return protocol.Fetch }

// Required is always true: the request has no other form.
func (*fetchRequest) Required(map[protocol.ApiKey]int16) bool { return true }

func (*fetchRequest) apiVersion() int16 { return fetchVersion }

// wait is how long the broker may keep the request.
func (r *fetchRequest) wait() time.Duration { return r.maxWait }

// RawExchange asks and reads the answer, which is r's own: it is gone with the next
// exchange, but for the sets, which are the caller's.
func (r *fetchRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	r.out = r.appendTo(r.out[:0])
	if _, err := rw.Write(r.out); err != nil {
		return nil, err
	}
	if err := r.read(rw); err != nil {
		r.drop()
		return nil, err
	}
	return &r.answer, nil
}

// drop gives back the sets that nobody took.
func (r *fetchRequest) drop() {
	for i := range r.answer.parts {
		if p := &r.answer.parts[i]; p.set != nil {
			r.pool.put(p.set)
			p.set = nil
		}
	}
}

// appendTo writes the request with its length and header.
func (r *fetchRequest) appendTo(b []byte) []byte {
	b = append(b, 0, 0, 0, 0)
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
	topics, topicsAt := 0, len(b)
	b = append(b, 0, 0, 0, 0)
	for lo := 0; lo < len(r.asks); topics++ {
		hi := lo + 1
		for hi < len(r.asks) && r.asks[hi].tp.Topic == r.asks[lo].tp.Topic {
			hi++
		}
		b = appendName(b, r.asks[lo].tp.Topic)
		b = binary.BigEndian.AppendUint32(b, uint32(hi-lo))
		for i := lo; i < hi; i++ {
			a := &r.asks[i]
			b = binary.BigEndian.AppendUint32(b, uint32(a.tp.Partition))
			b = binary.BigEndian.AppendUint32(b, 0xffffffff) // any leader epoch
			b = binary.BigEndian.AppendUint64(b, uint64(a.offset))
			b = binary.BigEndian.AppendUint64(b, 0xffffffffffffffff) // a follower's log start
			b = binary.BigEndian.AppendUint32(b, uint32(a.maxBytes))
		}
		lo = hi
	}
	binary.BigEndian.PutUint32(b[topicsAt:], uint32(topics))
	b = binary.BigEndian.AppendUint32(b, 0) // nothing to forget
	b = appendName(b, "")                   // no rack: no replica is preferred
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// errAnswer says that an answer is none to the request.
var errAnswer = errors.New("the answer to a fetch request is malformed")

// read reads the answer.
func (r *fetchRequest) read(from io.Reader) error {
	r.answer.parts = r.answer.parts[:0]
	for i := range r.asks {
		r.asks[i].answered = false
	}
	in := &r.in
	in.r, in.left, in.err = from, 8, nil
	size := in.int32()
	id := in.int32()
	if in.err != nil {
		return in.err
	}
	if size < 4 || size > maxResponse {
		return fmt.Errorf("an answer of %d bytes", size)
	}
	if id != ownCorrelation {
		return fmt.Errorf("the answer is to request %d, want %d", id, ownCorrelation)
	}
	in.left = int64(size) - 4
	in.int32() // throttle time: the broker delays its answers itself
	code := kafka.Error(in.int16())
	in.int32() // session
	if in.err == nil && code != 0 {
		return code
	}
	for n := in.count(6); n > 0 && in.err == nil; n-- {
		r.readTopic()
	}
	if in.err == nil && in.left != 0 {
		return errAnswer
	}
	return in.err
}

func (r *fetchRequest) readTopic() {
	in := &r.in
	var name [512]byte
	topic := append(name[:0], in.take(int(in.int16()))...)
	for n := in.count(42); n > 0 && in.err == nil; n-- {
		f := fetched{ask: r.find(topic, in.int32()), code: kafka.Error(in.int16())}
		f.highWatermark, f.stable, f.logStart = in.int64(), in.int64(), in.int64()
		for n := in.count(16); n > 0 && in.err == nil; n-- {
			f.aborted = append(f.aborted, abortedTxn{producer: in.int64(), first: in.int64()})
		}
		in.int32() // preferred replica
		size := int64(in.int32())
		if size > in.left && in.err == nil {
			in.err = errAnswer
		}
		if in.err != nil {
			return
		}
		if f.ask < 0 {
			in.skip(size)
			continue
		}
		slices.SortFunc(f.aborted, func(a, b abortedTxn) int { return int(min(1, max(-1, a.first-b.first))) })
		f.set = r.readSet(int(size))
		r.answer.parts = append(r.answer.parts, f)
	}
}

// trusted is how many bytes are taken for an answer that has not come yet.
const trusted = 64 << 20

func (r *fetchRequest) readSet(n int) []byte {
	if n <= 0 {
		return nil
	}
	b := r.pool.get(min(n, trusted))
	r.in.read(b)
	for len(b) < n && r.in.err == nil {
		at := len(b)
		b = append(b, make([]byte, min(n-at, at))...)
		r.in.read(b[at:])
	}
	return b
}

// find returns which of the asks a partition of an answer is for; -1 means none.
// Brokers answer in the order of the asks, or nearly so.
func (r *fetchRequest) find(topic []byte, partition int32) int {
	start := 0
	if n := len(r.answer.parts); n > 0 {
		start = r.answer.parts[n-1].ask + 1
	}
	for k := range r.asks {
		i := (start + k) % len(r.asks)
		if a := &r.asks[i]; a.tp.Partition == partition && a.tp.Topic == string(topic) {
			if a.answered {
				return -1
			}
			a.answered = true
			return i
		}
	}
	return -1
}

// An answerReader reads big-endian fields of an answer of known length and keeps
// its first error.
type answerReader struct {
	r    io.Reader
	left int64 // bytes of the answer to come
	err  error
	b    [512]byte
}

// take returns the next n bytes, until the next call. Names are the longest fields;
// Kafka allows 249 bytes.
func (r *answerReader) take(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.b)) {
		r.err = errAnswer
	}
	if r.err != nil {
		return nil
	}
	if r.read(r.b[:n]); r.err != nil {
		return nil
	}
	return r.b[:n]
}

func (r *answerReader) read(b []byte) {
	if r.err != nil {
		return
	}
	if int64(len(b)) > r.left {
		r.err = errAnswer
		return
	}
	r.left -= int64(len(b))
	_, r.err = io.ReadFull(r.r, b)
}

func (r *answerReader) skip(n int64) {
	if r.err != nil || n <= 0 {
		return
	}
	r.left -= n
	_, r.err = io.CopyN(io.Discard, r.r, n)
}

func (r *answerReader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *answerReader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *answerReader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// count reads the length of an array whose elements have at least size bytes; that
// of nothing is -1.
func (r *answerReader) count(size int64) int64 {
	n := int64(r.int32())
	if r.err == nil && n*size > r.left {
		r.err = errAnswer
	}
	if r.err != nil {
		return 0
	}
	return max(0, n)
}
