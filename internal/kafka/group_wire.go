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

func (*joinRequest) apiVersion() int16      { return joinVersion }
func (*syncRequest) apiVersion() int16      { return syncVersion }
func (*heartbeatRequest) apiVersion() int16 { return heartbeatVersion }
func (*leaveRequest) apiVersion() int16     { return leaveVersion }

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

// A codeAnswer is an answer of which only the error code matters.
type codeAnswer struct {
	api  protocol.ApiKey
	code kafka.Error
}

// ApiKey says what was asked.
func (c *codeAnswer) ApiKey() protocol.ApiKey { return c.api }

// exchangeCode sends m and reads throttle time and error code of its answer.
func exchangeCode(rw io.ReadWriter, version int16, clientID string, m protocol.Message) (protocol.Message, error) {
	if err := protocol.WriteRequest(rw, version, ownCorrelation, clientID, m); err != nil {
		return nil, err
	}
	frame, err := readFrame(rw)
	if err != nil {
		return nil, err
	}
	r := fieldReader{b: frame[8:]}
	r.int32() // throttle time
	code := kafka.Error(r.int16())
	if r.bad {
		return nil, fmt.Errorf("the answer to %v v%d is malformed: %d bytes", m.ApiKey(), version, len(frame))
	}
	return &codeAnswer{m.ApiKey(), code}, nil
}

// A subscription is what a member tells the leader: ConsumerProtocolSubscription, of
// which all versions are read (what versions from 4 on add at the end is skipped) and
// version 1 or 2 is written.
type subscription struct {
	topics     []string
	owned      []TopicPartition // sorted
	generation int32            // in which owned was assigned; -1 is not known
}

// noGeneration is the generation of a member that was assigned nothing.
const noGeneration = -1

// append writes the subscription. Without a generation the bytes depend on the topics
// alone: a coordinator takes other bytes for a reason to rebalance. Java's clients
// before 3.2 look for the generation in the user data.
func (s subscription) append(b []byte) []byte {
	version := uint16(1)
	if s.generation >= 0 {
		version = 2
	}
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.topics)))
	for _, t := range s.topics {
		b = appendName(b, t)
	}
	if s.generation < 0 {
		b = binary.BigEndian.AppendUint32(b, 0xffffffff) // no user data
		return appendPartitions(b, s.owned)
	}
	b = binary.BigEndian.AppendUint32(b, 4)
	b = binary.BigEndian.AppendUint32(b, uint32(s.generation))
	b = appendPartitions(b, s.owned)
	return binary.BigEndian.AppendUint32(b, uint32(s.generation))
}

var errShort = errors.New("a field runs over the end")

func parseSubscription(b []byte) (subscription, error) {
	r := fieldReader{b: b}
	version := r.int16()
	s := subscription{generation: noGeneration}
	for range r.count(2) {
		s.topics = append(s.topics, r.name())
	}
	user := r.bytes()
	if version >= 1 && len(r.b) > 0 { // some clients say 1 and write 0
		s.owned = r.partitions()
	}
	switch {
	case version >= 2 && len(r.b) > 0:
		s.generation = max(noGeneration, r.int32())
	case version == 1 && len(user) == 4:
		s.generation = max(noGeneration, int32(binary.BigEndian.Uint32(user)))
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
		return errShort
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
