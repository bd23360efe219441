package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// produceVersion is the version of produce requests. Kafka 2.1 and later speak it.
const produceVersion = 7

// A produceRequest writes one batch to one partition. It writes itself, so that the
// batch goes from the BatchWriter to the connection without a copy.
type produceRequest struct {
	clientID, txnID string
	tp              TopicPartition
	batch           []byte
	timeout         time.Duration // that the leader may wait for its replicas
}

// A produceAnswer is what the leader said of the batch.
type produceAnswer struct {
	code kafka.Error
	base int64 // offset of the first record
}

var _ protocol.RawExchanger = (*produceRequest)(nil)

// ApiKey is that of Produce.
func (*produceRequest) ApiKey() protocol.ApiKey { return protocol.Produce }

// ApiKey is that of Produce.
func (*produceAnswer) ApiKey() protocol.ApiKey { return protocol.Produce }

// Required is always true: the request has no other form.
func (*produceRequest) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange sends the batch and reads what became of it.
func (r *produceRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	b := make([]byte, 4, 128)
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
	b = binary.BigEndian.AppendUint32(b, 1)
	b = appendName(b, r.tp.Topic)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, uint32(r.tp.Partition))
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.batch)))
	binary.BigEndian.PutUint32(b, uint32(len(b)-4+len(r.batch)))
	if _, err := rw.Write(b); err != nil {
		return nil, err
	}
	if _, err := rw.Write(r.batch); err != nil {
		return nil, err
	}
	answer, err := readAnswer(rw)
	if err != nil {
		return nil, err
	}
	return r.parse(answer)
}

// readAnswer reads an answer's bytes behind the correlation id.
func readAnswer(r io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n < 4 || n > 16<<20 {
		return nil, fmt.Errorf("an answer of %d bytes", n)
	}
	if id := binary.BigEndian.Uint32(head[4:]); id != ownCorrelation {
		return nil, fmt.Errorf("the answer is to request %d, want %d", id, ownCorrelation)
	}
	b := make([]byte, n-4)
	_, err := io.ReadFull(r, b)
	return b, err
}

func (r *produceRequest) parse(b []byte) (protocol.Message, error) {
	f := fieldReader{b: b}
	for range f.count(6) {
		topic := f.name()
		for range f.count(30) {
			tp := TopicPartition{topic, f.int32()}
			a := &produceAnswer{code: kafka.Error(f.int16()), base: f.int64()}
			f.take(16) // append time, log start
			if tp == r.tp && !f.bad {
				return a, nil
			}
		}
	}
	return nil, errors.New("the answer says nothing of the partition")
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

// Required is always true.
func (*pinned) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange sends the message and reads its answer.
func (p *pinned) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	return exchange(rw, p.version, p.clientID, p.Message)
}
