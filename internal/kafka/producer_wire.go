package kafka

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// produceVersion is the version of produce requests: the first one that takes zstd.
// Kafka 2.1 and later speak it.
const produceVersion = 7

// A produceRequest writes one batch to each of several partitions with the same
// leader. It writes itself, so that batches go from their writers to the connection
// without a copy. What became of each batch is in its part.
type produceRequest struct {
	guard           func() error // may be nil; see ProducerConfig
	clientID, txnID string
	timeout         time.Duration // that the leader may wait for its replicas
	parts           []producePart
	out             *bufio.Writer // kept between requests
	head            []byte        // the same
}

// A producePart is a batch on its way, and its outcome.
type producePart struct {
	tp       TopicPartition
	b        *outBatch
	sequence int32
	batch    []byte // b's

	answered bool
	code     kafka.Error
	base     int64       // offset of the first record; -1 is not told
	fault    error       // why the batch is not written
	halves   []*outBatch // to be sent in its place
}

// A produceAnswer says that the request's parts have their outcomes.
type produceAnswer struct{}

var _ protocol.RawExchanger = (*produceRequest)(nil)

// ApiKey is that of Produce.
func (*produceRequest) ApiKey() protocol.ApiKey { return protocol.Produce }

// ApiKey is that of Produce.
func (produceAnswer) ApiKey() protocol.ApiKey { return protocol.Produce }

func (*produceRequest) apiVersion() int16 { return produceVersion }

// Required is always true: the request has no other form.
func (*produceRequest) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange sends the batches and reads what became of them.
func (r *produceRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if r.guard != nil {
		if err := r.guard(); err != nil {
			return nil, err
		}
	}
	if err := r.write(rw); err != nil {
		return nil, err
	}
	frame, err := readFrame(rw)
	if err != nil {
		return nil, err
	}
	return produceAnswer{}, r.parse(frame[8:])
}

// write writes the request. Its parts are sorted.
func (r *produceRequest) write(w io.Writer) error {
	if r.out == nil {
		r.out = bufio.NewWriterSize(nil, 16<<10)
	}
	r.out.Reset(w)
	b := append(r.head[:0], 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(protocol.Produce))
	b = binary.BigEndian.AppendUint16(b, produceVersion)
	b = binary.BigEndian.AppendUint32(b, ownCorrelation)
	b = appendName(b, r.clientID)
	if r.txnID == "" {
		b = binary.BigEndian.AppendUint16(b, 0xffff)
	} else {
		b = appendName(b, r.txnID)
	}
	b = binary.BigEndian.AppendUint16(b, 0xffff) // acks: all replicas in sync
	b = binary.BigEndian.AppendUint32(b, uint32(r.timeout.Milliseconds()))
	size, topics := len(b)-4+4, 0
	for i, part := range r.parts {
		if i == 0 || part.tp.Topic != r.parts[i-1].tp.Topic {
			size += 2 + len(part.tp.Topic) + 4
			topics++
		}
		size += 4 + 4 + len(part.batch)
	}
	binary.BigEndian.PutUint32(b, uint32(size))
	b = binary.BigEndian.AppendUint32(b, uint32(topics))
	for i, part := range r.parts {
		if i == 0 || part.tp.Topic != r.parts[i-1].tp.Topic {
			n := 1
			for n < len(r.parts)-i && r.parts[i+n].tp.Topic == part.tp.Topic {
				n++
			}
			b = appendName(b, part.tp.Topic)
			b = binary.BigEndian.AppendUint32(b, uint32(n))
		}
		b = binary.BigEndian.AppendUint32(b, uint32(part.tp.Partition))
		b = binary.BigEndian.AppendUint32(b, uint32(len(part.batch)))
		_, _ = r.out.Write(b) // Flush tells
		_, _ = r.out.Write(part.batch)
		b = b[:0]
	}
	r.head = b
	return r.out.Flush()
}

// parse gives each part its outcome.
func (r *produceRequest) parse(b []byte) error {
	f := fieldReader{b: b}
	at := 0 // where the answer probably is about: it keeps the request's order
	for range f.count(6) {
		topic := f.name()
		for range f.count(30) {
			tp := TopicPartition{topic, f.int32()}
			code, base := kafka.Error(f.int16()), f.int64()
			f.take(16) // append time, log start
			for range r.parts {
				part := &r.parts[at]
				at = (at + 1) % len(r.parts)
				if part.tp == tp {
					part.answered, part.code, part.base = true, code, base
					break
				}
			}
		}
	}
	if err := f.err(); err != nil {
		return fmt.Errorf("the answer to Produce v%d is malformed: %w", produceVersion, err)
	}
	for _, part := range r.parts {
		if !part.answered {
			return errors.New("the answer says nothing of a partition")
		}
	}
	return nil
}

func (r *fieldReader) int64() int64 {
	if v := r.take(8); v != nil {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

// A pinned message goes out in one fixed version.
type pinned struct {
	protocol.Message
	version  int16
	clientID string
}

func pin(version int16, c *Cluster, m protocol.Message) *pinned {
	return &pinned{m, version, c.c.ClientID}
}

func (p *pinned) apiVersion() int16 { return p.version }

// Required is always true.
func (*pinned) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange sends the message and reads its answer.
func (p *pinned) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	return exchange(rw, p.version, p.clientID, p.Message)
}
