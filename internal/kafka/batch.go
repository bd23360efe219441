package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// Where the fields of a record batch (version 2) stand. The checksum is over
// everything from the attributes on.
const (
	atBase       = 0  // first offset, int64
	atLength     = 8  // bytes behind this field, int32
	atLeader     = 12 // leader epoch, int32
	atMagic      = 16 // version, int8
	atCRC        = 17 // CRC-32C, uint32
	atAttributes = 21 // int16
	atLastDelta  = 23 // last offset less the first, int32
	atFirstTime  = 27 // milliseconds, int64
	atMaxTime    = 35 // milliseconds, int64
	atProducer   = 43 // producer id, int64
	atEpoch      = 51 // producer epoch, int16
	atSequence   = 53 // sequence of the first record, int32
	atCount      = 57 // records, int32
	atRecords    = 61

	lengthEnd = atLength + 4 // the length counts from here
	magicEnd  = atMagic + 1
)

// The bits of a batch's attributes.
const (
	attrCodec         = 0x07
	attrLogTime       = 0x08 // the log's time counts, and it is the largest of the batch
	attrTransactional = 0x10
	attrControl       = 0x20
)

// These are what can be wrong with a batch; a BatchError wraps one of them, or
// ErrTooLarge.
var (
	// ErrChecksum says that a batch's bytes are not those that were written.
	ErrChecksum = errors.New("the batch's checksum is wrong")
	// ErrOldBatch says that a batch has the layout of Kafka before 0.11, which is
	// not read.
	ErrOldBatch = errors.New("the batch was written in a format of before Kafka 0.11")
	// ErrCorrupt says that a batch's checksum is right, or was not reached, but its
	// content contradicts itself.
	ErrCorrupt = errors.New("the batch contradicts itself")
)

// A BatchError says that a batch cannot be read. No record of it was skipped: it
// ends the partition.
type BatchError struct {
	TP     TopicPartition
	Offset int64 // the batch's first offset, as far as it is known
	Err    error
}

// Error names the topic, the partition and the offset.
func (e *BatchError) Error() string {
	return fmt.Sprintf("read topic %s, partition %d, offset %d: %v", e.TP.Topic, e.TP.Partition, e.Offset, e.Err)
}

// Unwrap returns what is wrong.
func (e *BatchError) Unwrap() error { return e.Err }

// A batch is a view of one record batch and what its header says.
type batch struct {
	raw      []byte // all of it
	base     int64
	last     int64 // the last offset that it covers, whether or not a record is there
	attrs    int16
	producer int64
	count    int32
}

// errCut says that a batch's end is missing: a response may stop in its middle.
var errCut = errors.New("the batch is cut")

// cutBatch cuts the first batch off b and reads its header. The checksum is not
// looked at yet.
func cutBatch(b []byte) (bt batch, rest []byte, err error) {
	if len(b) < magicEnd {
		return bt, nil, errCut
	}
	bt.base = int64(binary.BigEndian.Uint64(b[atBase:]))
	bt.last = bt.base
	length := int64(int32(binary.BigEndian.Uint32(b[atLength:])))
	switch magic := b[atMagic]; {
	case magic < 2:
		return bt, nil, ErrOldBatch
	case magic > 2:
		return bt, nil, fmt.Errorf("%w: it has version %d, and 2 is the newest known", ErrCorrupt, magic)
	case length < atRecords-lengthEnd:
		return bt, nil, fmt.Errorf("%w: it is %d bytes long", ErrCorrupt, length)
	case length > int64(len(b)-lengthEnd):
		return bt, nil, errCut
	}
	b, rest = b[:lengthEnd+length], b[lengthEnd+length:]
	delta := int32(binary.BigEndian.Uint32(b[atLastDelta:]))
	bt.raw = b
	bt.last = bt.base + int64(delta)
	bt.attrs = int16(binary.BigEndian.Uint16(b[atAttributes:]))
	bt.producer = int64(binary.BigEndian.Uint64(b[atProducer:]))
	bt.count = int32(binary.BigEndian.Uint32(b[atCount:]))
	if bt.base < 0 || delta < 0 || bt.base > math.MaxInt64-1-int64(delta) {
		return bt, nil, fmt.Errorf("%w: offsets %d and %d more", ErrCorrupt, bt.base, delta)
	}
	return bt, rest, nil
}

// cutSize returns how long the batch at the start of b is, when b is long enough
// to say so.
func cutSize(b []byte) (int64, bool) {
	if len(b) < lengthEnd {
		return 0, false
	}
	length := int64(int32(binary.BigEndian.Uint32(b[atLength:])))
	return lengthEnd + length, length > 0
}

func (b *batch) codec() Compression  { return Compression(b.attrs & attrCodec) }
func (b *batch) transactional() bool { return b.attrs&attrTransactional != 0 }
func (b *batch) control() bool       { return b.attrs&attrControl != 0 }

// check compares the checksum.
func (b *batch) check(table *crc32.Table) error {
	if crc32.Checksum(b.raw[atAttributes:], table) != binary.BigEndian.Uint32(b.raw[atCRC:]) {
		return ErrChecksum
	}
	return nil
}

// open begins to read records, which are the batch's, unpacked. Records with an
// offset below from are not dropped here.
func (b *batch) open(unpacked []byte) (records, error) {
	if b.count < 0 || int64(b.count) > b.last-b.base+1 {
		return records{}, fmt.Errorf("%w: %d records for %d offsets", ErrCorrupt, b.count, b.last-b.base+1)
	}
	s := records{rest: unpacked, left: b.count, base: b.base, next: b.base, last: b.last}
	if s.fixed = b.attrs&attrLogTime != 0; s.fixed {
		s.time = int64(binary.BigEndian.Uint64(b.raw[atMaxTime:]))
	} else {
		s.time = int64(binary.BigEndian.Uint64(b.raw[atFirstTime:]))
	}
	return s, nil
}

// aborts reports whether r, the record of a control batch, ends a transaction by
// giving it up. Its key is a version and a type, and there may be more types.
func aborts(r *Record) bool {
	return len(r.Key) >= 4 && binary.BigEndian.Uint16(r.Key) <= 1 && binary.BigEndian.Uint16(r.Key[2:]) == 0
}

// castagnoli returns the table of the checksum. The standard library keeps one and
// uses the CPU's instruction for it.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
