package kafka

import (
	"encoding/binary"
	"strconv"
	"strings"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// A rowReader answers what a framer asks of a record's rows.
type rowReader struct {
	source  kafka.TopicPartition
	where   *array.Boolean
	offsets []int64
	first   int64
	times   *array.Timestamp
	key     arrow.Array
	model   arrow.Array
	headers *array.List
	lastRow int // row whose place was asked last, and which row of its message it was
	nth     int
}

func (f *framer) rowsOf(rec arrow.Record, first int64) rowReader {
	r := rowReader{source: f.source, first: first, lastRow: -1}
	if f.where >= 0 {
		r.where = rec.Column(f.where).(*array.Boolean)
	}
	if f.offset >= 0 {
		if a, ok := rec.Column(f.offset).(*array.Int64); ok {
			r.offsets = a.Int64Values()
		}
	}
	if f.time >= 0 {
		r.times, _ = rec.Column(f.time).(*array.Timestamp)
	}
	if f.key >= 0 {
		r.key = rec.Column(f.key)
	}
	if f.model >= 0 {
		r.model = rec.Column(f.model)
	}
	if f.extra >= 0 {
		r.headers, _ = rec.Column(f.extra).(*array.List)
	}
	return r
}

// wanted says whether Where is true in a row; null is not true.
func (r *rowReader) wanted(i int) bool {
	return r.where == nil || r.where.IsValid(i) && r.where.Value(i)
}

func (r *rowReader) timestamp(i int) int64 {
	if r.times == nil || r.times.IsNull(i) {
		return 0
	}
	unit := r.times.DataType().(*arrow.TimestampType).Unit
	return r.times.Value(i).ToTime(unit).UnixMilli()
}

// place returns where a row comes from. Rows are asked for in rising order.
func (r *rowReader) place(i int) place {
	p := place{topic: r.source.Topic, partition: r.source.Partition, offset: r.first + int64(i)}
	if r.offsets == nil {
		return p
	}
	p.offset = r.offsets[i]
	for k := r.lastRow + 1; k <= i; k++ { // count the rows of one message, also those left out
		if k > 0 && r.offsets[k] == r.offsets[k-1] {
			r.nth++
		} else {
			r.nth = 0
		}
	}
	r.lastRow = i
	p.row = r.nth
	return p
}

// keyOf returns a row's key, which may use scratch, and scratch.
func (r *rowReader) keyOf(i int, scratch []byte) (newScratch, key []byte) {
	if r.key == nil || r.key.IsNull(i) {
		return scratch, nil
	}
	return textOf(r.key, i, scratch)
}

// textOf returns the bytes of a value that is not null: numbers as decimals.
func textOf(col arrow.Array, i int, scratch []byte) (newScratch, text []byte) {
	switch a := col.(type) {
	case *array.Binary:
		return scratch, a.Value(i)
	case *array.String:
		return scratch, viewOf(a.Value(i))
	case *array.Dictionary:
		return textOf(a.Dictionary(), a.GetValueIndex(i), scratch)
	case *array.Int64:
		scratch = strconv.AppendInt(scratch[:0], a.Value(i), 10)
		return scratch, scratch
	}
	scratch = append(scratch[:0], col.ValueStr(i)...)
	return scratch, scratch
}

// viewOf returns the bytes of s, which must not be changed.
func viewOf(s string) []byte {
	if s == "" {
		return []byte{}
	}
	return unsafe.Slice(unsafe.StringData(s), len(s))
}

// modelOf returns the model's name in a row; nil when there is none.
func (r *rowReader) modelOf(i int) []byte {
	if r.model == nil || r.model.IsNull(i) {
		return nil
	}
	_, text := textOf(r.model, i, nil)
	return text
}

// sourceHeaders appends the headers of a row's message, but for those that the
// sink writes itself.
func (r *rowReader) sourceHeaders(i int, h []kafka.Header) []kafka.Header {
	if r.headers == nil || r.headers.IsNull(i) {
		return h
	}
	lo, hi := r.headers.ValueOffsets(i)
	items := r.headers.ListValues().(*array.Struct)
	keys, values := items.Field(0).(*array.String), items.Field(1).(*array.Binary)
	for k := int(lo); k < int(hi); k++ {
		if strings.HasPrefix(keys.Value(k), "elbo-") {
			continue
		}
		v := kafka.Header{Key: keys.Value(k)}
		if values.IsValid(k) {
			v.Value = values.Value(k)
		}
		h = append(h, v)
	}
	return h
}

// murmur2 is the hash that Kafka's Java producer chooses partitions with
// (org.apache.kafka.common.utils.Utils.murmur2, after Austin Appleby's MurmurHash2).
func murmur2(p []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(p))
	for ; len(p) >= 4; p = p[4:] {
		k := binary.LittleEndian.Uint32(p) * m
		k ^= k >> r
		h = h*m ^ k*m
	}
	switch len(p) {
	case 3:
		h ^= uint32(p[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(p[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(p[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
