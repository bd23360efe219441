package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
)

// ErrBatchFull says that a batch holds as many records, or bytes, as its layout can.
var ErrBatchFull = errors.New("the batch is full")

// A BatchWriter builds one record batch after another in the same memory. The
// zero value writes uncompressed batches. It serves one goroutine at a time.
//
//	var w kafka.BatchWriter
//	w.Reset(kafka.Zstd, &compressors)
//	err := w.Append(key, value, nil, now.UnixMilli())
//	raw, err := w.Finish(id, epoch, sequence, false)
type BatchWriter struct {
	codec Compression
	pool  *Compressors
	raw   []byte // room for the header, then the records as they are appended
	out   []byte // the same compressed, if Finish was called and it is worth it
	ready bool   // raw or out have not changed since Finish
	count int32
	first int64 // timestamp of the first record
	last  int64 // the largest timestamp
}

// Reset empties the batch and keeps its memory. Encoders come from pool; nil gives
// the writer some of its own.
func (w *BatchWriter) Reset(codec Compression, pool *Compressors) {
	if pool == nil {
		pool = w.pool
	}
	if pool == nil && codec != None {
		pool = &Compressors{}
	}
	*w = BatchWriter{codec: codec, pool: pool, raw: w.raw[:0], out: w.out[:0]}
}

// Append copies one record into the batch. A nil key or value is null; timestamp
// is in milliseconds since 1970. It fails with ErrBatchFull, and the batch stays
// as it was, only near 2 GiB: keeping Size below what the broker takes is the
// caller's part.
func (w *BatchWriter) Append(key, value []byte, headers []Header, timestamp int64) error {
	first, last := w.first, w.last
	if w.count == 0 {
		first, last = timestamp, timestamp
	}
	body := recordSize(key, value, headers, timestamp-first, w.count)
	if w.count == math.MaxInt32 || len(w.raw)+body > math.MaxInt32-2*atRecords {
		return ErrBatchFull
	}
	if len(w.raw) == 0 {
		w.raw = append(w.raw, make([]byte, atRecords)...)
	}
	b := binary.AppendVarint(w.raw, int64(body))
	b = append(b, 0)
	b = binary.AppendVarint(b, timestamp-first)
	b = binary.AppendVarint(b, int64(w.count))
	b = appendBytes(b, key)
	b = appendBytes(b, value)
	b = binary.AppendVarint(b, int64(len(headers)))
	for i := range headers {
		h := &headers[i]
		b = binary.AppendVarint(b, int64(len(h.Key)))
		b = append(b, h.Key...)
		b = appendBytes(b, h.Value)
	}
	w.raw, w.first, w.last = b, first, max(last, timestamp)
	w.count++
	w.ready = false
	return nil
}

// Len returns how many records were appended since Reset.
func (w *BatchWriter) Len() int { return int(w.count) }

// Size returns how many bytes the batch has, its header included, before
// compression.
func (w *BatchWriter) Size() int { return max(len(w.raw), atRecords) }

// RecordSize returns how many bytes Append adds to Size, at most.
func RecordSize(key, value []byte, headers []Header) int {
	n := recordSize(key, value, headers, math.MinInt64, math.MaxInt32)
	return n + varintSize(int64(n))
}

// Finish returns the whole batch, sealed for a producer's id, epoch and sequence
// of the first record; without a producer these are -1. The bytes are the
// writer's and stay valid until Append or Reset or the next Finish. Finish may be
// called again, for another producer: the records are compressed only once.
func (w *BatchWriter) Finish(producer int64, epoch int16, sequence int32, transactional bool) ([]byte, error) {
	if w.count == 0 {
		return nil, errors.New("a batch has no record")
	}
	if !w.ready {
		if err := w.compress(); err != nil {
			return nil, err
		}
		w.ready = true
	}
	b, attrs := w.raw, int16(0)
	if len(w.out) > 0 {
		b, attrs = w.out, int16(w.codec)
	}
	if transactional {
		attrs |= attrTransactional
	}
	binary.BigEndian.PutUint64(b[atBase:], 0)
	binary.BigEndian.PutUint32(b[atLength:], uint32(len(b)-lengthEnd))
	binary.BigEndian.PutUint32(b[atLeader:], math.MaxUint32) // -1: the broker's business
	b[atMagic] = 2
	binary.BigEndian.PutUint16(b[atAttributes:], uint16(attrs))
	binary.BigEndian.PutUint32(b[atLastDelta:], uint32(w.count-1))
	binary.BigEndian.PutUint64(b[atFirstTime:], uint64(w.first))
	binary.BigEndian.PutUint64(b[atMaxTime:], uint64(w.last))
	binary.BigEndian.PutUint64(b[atProducer:], uint64(producer))
	binary.BigEndian.PutUint16(b[atEpoch:], uint16(epoch))
	binary.BigEndian.PutUint32(b[atSequence:], uint32(sequence))
	binary.BigEndian.PutUint32(b[atCount:], uint32(w.count))
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli()))
	return b, nil
}

// compress fills w.out, and leaves it empty when that makes nothing smaller: the
// records then go as they are, which every reader takes.
func (w *BatchWriter) compress() error {
	w.out = w.out[:0]
	if w.codec == None {
		return nil
	}
	out, err := w.pool.appendTo(append(w.out, w.raw[:atRecords]...), w.codec, w.raw[atRecords:])
	if err != nil {
		return fmt.Errorf("compress %d records: %w", w.count, err)
	}
	w.out = out
	if len(out) >= len(w.raw) {
		w.out = w.out[:0]
	}
	return nil
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return append(b, 1) // -1
	}
	return append(binary.AppendVarint(b, int64(len(v))), v...)
}

// recordSize is how long a record is behind its own length.
func recordSize(key, value []byte, headers []Header, time int64, offset int32) int {
	n := 1 + varintSize(time) + varintSize(int64(offset)) + bytesSize(key) + bytesSize(value) +
		varintSize(int64(len(headers)))
	for i := range headers {
		h := &headers[i]
		n += varintSize(int64(len(h.Key))) + len(h.Key) + bytesSize(h.Value)
	}
	return n
}

func bytesSize(v []byte) int {
	if v == nil {
		return 1
	}
	return varintSize(int64(len(v))) + len(v)
}

// varintSize is how many bytes AppendVarint takes: seven bits in each.
func varintSize(v int64) int {
	zigzag := uint64(v<<1) ^ uint64(v>>63)
	return (bits.Len64(zigzag|1) + 6) / 7
}
