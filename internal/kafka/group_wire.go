package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
	"github.com/segmentio/kafka-go/protocol/joingroup"
	"github.com/segmentio/kafka-go/protocol/leavegroup"
	"github.com/segmentio/kafka-go/protocol/syncgroup"
)

// The group's requests go out in fixed versions: kafka-go lays out SyncGroup v5
// wrongly, and reads the answers to Heartbeat and LeaveGroup with error and
// throttle time swapped from version 1 on. Kafka 2.3 and later speak these.
const (
	joinVersion      = 5
	syncVersion      = 3
	heartbeatVersion = 3
	leaveVersion     = 3
)

// ownCorrelation is the id of requests written here: one is under way at a time.
const ownCorrelation = 1

type joinRequest struct {
	joingroup.Request
	clientID string
	patience time.Duration
}

type syncRequest struct {
	syncgroup.Request
	clientID string
	patience time.Duration
}

type heartbeatRequest struct {
	heartbeat.Request
	clientID string
}

type leaveRequest struct {
	leavegroup.Request
	clientID string
}

var (
	_ protocol.RawExchanger = (*joinRequest)(nil)
	_ protocol.RawExchanger = (*syncRequest)(nil)
	_ protocol.RawExchanger = (*heartbeatRequest)(nil)
	_ protocol.RawExchanger = (*leaveRequest)(nil)
)

func (r *joinRequest) wait() time.Duration { return r.patience }
func (r *syncRequest) wait() time.Duration { return r.patience }

// Required is always true: these are never sent otherwise.
func (*joinRequest) Required(map[protocol.ApiKey]int16) bool { return true }

// Required is always true.
func (*syncRequest) Required(map[protocol.ApiKey]int16) bool { return true }

// Required is always true.
func (*heartbeatRequest) Required(map[protocol.ApiKey]int16) bool { return true }

// Required is always true.
func (*leaveRequest) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange sends the request and reads its answer.
func (r *joinRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	return exchange(rw, joinVersion, r.clientID, &r.Request)
}

// RawExchange sends the request and reads its answer.
func (r *syncRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	return exchange(rw, syncVersion, r.clientID, &r.Request)
}

// RawExchange sends the request and reads its answer's error code.
func (r *heartbeatRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	return exchangeCode(rw, heartbeatVersion, r.clientID, &r.Request)
}

// RawExchange sends the request and reads its answer's error code.
func (r *leaveRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	return exchangeCode(rw, leaveVersion, r.clientID, &r.Request)
}

func exchange(rw io.ReadWriter, version int16, clientID string, m protocol.Message) (protocol.Message, error) {
	if err := protocol.WriteRequest(rw, version, ownCorrelation, clientID, m); err != nil {
		return nil, err
	}
	id, res, err := protocol.ReadResponse(rw, m.ApiKey(), version)
	if err == nil && id != ownCorrelation {
		err = fmt.Errorf("the answer is to request %d, want %d", id, ownCorrelation)
	}
	return res, err
}

// A codeAnswer is an answer of which only the error code matters.
type codeAnswer struct {
	api  protocol.ApiKey
	code kafka.Error
}

// ApiKey says what was asked.
func (c *codeAnswer) ApiKey() protocol.ApiKey { return c.api }

// exchangeCode reads correlation id, throttle time and error code.
func exchangeCode(rw io.ReadWriter, version int16, clientID string, m protocol.Message) (protocol.Message, error) {
	if err := protocol.WriteRequest(rw, version, ownCorrelation, clientID, m); err != nil {
		return nil, err
	}
	var head [4]byte
	if _, err := io.ReadFull(rw, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 10 || n > 1<<20 {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(rw, b); err != nil {
		return nil, err
	}
	if id := binary.BigEndian.Uint32(b); id != ownCorrelation {
		return nil, fmt.Errorf("the answer is to request %d, want %d", id, ownCorrelation)
	}
	return &codeAnswer{m.ApiKey(), kafka.Error(binary.BigEndian.Uint16(b[8:]))}, nil
}

// A subscription is what a member tells the leader: ConsumerProtocolSubscription,
// of which versions 0 to 3 are read and 1 is written.
type subscription struct {
	topics []string
	owned  []TopicPartition
}

func (s subscription) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.topics)))
	for _, t := range s.topics {
		b = appendName(b, t)
	}
	b = binary.BigEndian.AppendUint32(b, 0xffffffff) // no user data
	return appendPartitions(b, s.owned)
}

var errShortMetadata = errors.New("a member's metadata ends early")

func parseSubscription(b []byte) (subscription, error) {
	r := fieldReader{b: b}
	version := r.int16()
	var s subscription
	for range r.count(2) {
		s.topics = append(s.topics, r.name())
	}
	r.bytes()
	if version >= 1 && len(r.b) > 0 {
		s.owned = r.partitions()
	}
	return s, r.err()
}

// appendAssignment writes a ConsumerProtocolAssignment, version 1.
func appendAssignment(b []byte, parts []TopicPartition) []byte {
	b = binary.BigEndian.AppendUint16(b, 1)
	b = appendPartitions(b, parts)
	return binary.BigEndian.AppendUint32(b, 0xffffffff)
}

// parseAssignment reads a ConsumerProtocolAssignment; nothing is no partitions.
func parseAssignment(b []byte) ([]TopicPartition, error) {
	if len(b) == 0 {
		return nil, nil
	}
	r := fieldReader{b: b}
	r.int16()
	parts := r.partitions()
	return parts, r.err()
}

func appendName(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// appendPartitions writes partitions by topic; they are sorted.
func appendPartitions(b []byte, parts []TopicPartition) []byte {
	var topics []int // where each topic begins
	for i, tp := range parts {
		if i == 0 || tp.Topic != parts[i-1].Topic {
			topics = append(topics, i)
		}
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(topics)))
	for k, from := range topics {
		to := len(parts)
		if k+1 < len(topics) {
			to = topics[k+1]
		}
		b = appendName(b, parts[from].Topic)
		b = binary.BigEndian.AppendUint32(b, uint32(to-from))
		for _, tp := range parts[from:to] {
			b = binary.BigEndian.AppendUint32(b, uint32(tp.Partition))
		}
	}
	return b
}

// A fieldReader reads big-endian fields and remembers running out.
type fieldReader struct {
	b   []byte
	bad bool
}

func (r *fieldReader) err() error {
	if r.bad {
		return errShortMetadata
	}
	return nil
}

func (r *fieldReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *fieldReader) int16() int16 {
	if v := r.take(2); v != nil {
		return int16(binary.BigEndian.Uint16(v))
	}
	return 0
}

func (r *fieldReader) int32() int32 {
	if v := r.take(4); v != nil {
		return int32(binary.BigEndian.Uint32(v))
	}
	return 0
}

// count reads the length of an array whose elements have at least size bytes.
func (r *fieldReader) count(size int) int {
	n := int(r.int32())
	if n > len(r.b)/size {
		r.bad = true
		return 0
	}
	return max(0, n)
}

func (r *fieldReader) name() string { return string(r.take(int(r.int16()))) }

func (r *fieldReader) bytes() []byte {
	n := int(r.int32())
	if n < 0 {
		return nil
	}
	return r.take(n)
}

func (r *fieldReader) partitions() []TopicPartition {
	var parts []TopicPartition
	for range r.count(6) {
		topic := r.name()
		for range r.count(4) {
			parts = append(parts, TopicPartition{topic, r.int32()})
		}
	}
	return parts
}
