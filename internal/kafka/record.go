package kafka

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// A Record is one message as it was fetched. Its bytes are views into the chunk
// that it came from, valid until that chunk's Release; they must not be changed.
type Record struct {
	Offset    int64
	Timestamp int64  // milliseconds since 1970, by the topic's clock; -1 without one
	Key       []byte // nil is null
	Value     []byte // nil is null, a tombstone in a compacted topic
	Headers   RawHeaders
}

// RawHeaders are the headers of a record, checked but not copied. They are valid
// as long as their record.
type RawHeaders struct {
	n   int
	raw []byte // the headers as they stand in the record, behind their number
}

// Len returns the number of headers.
func (h RawHeaders) Len() int { return h.n }

// All yields each header's key and value in order. A nil value is null. A key may
// come more than once.
func (h RawHeaders) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		b := h.raw
		for range h.n {
			var key, value []byte
			key, b, _ = cutBytes(b)
			value, b, _ = cutBytes(b)
			if !yield(key, value) {
				return
			}
		}
	}
}

// Last returns the value of the last header with that key, which is the one that
// counts when a key comes more than once.
func (h RawHeaders) Last(key string) (value []byte, ok bool) {
	for k, v := range h.All() {
		if string(k) == key {
			value, ok = v, true
		}
	}
	return value, ok
}

// AppendTo appends copies of the headers to dst, which stay valid after the
// chunk's Release.
func (h RawHeaders) AppendTo(dst []Header) []Header {
	for k, v := range h.All() {
		if v != nil {
			v = append(make([]byte, 0, len(v)), v...)
		}
		dst = append(dst, Header{Key: string(k), Value: v})
	}
	return dst
}

// errRecord says that the records of a batch are not what its header says they are.
var errRecord = fmt.Errorf("%w: a record has an impossible length or offset", ErrCorrupt)

// records reads the records of one batch, unpacked. It is made by batch.open.
type records struct {
	rest  []byte
	left  int32 // records to come
	base  int64 // the batch's first offset
	next  int64 // the lowest offset that may come
	last  int64
	time  int64
	fixed bool // every record has time: the log's, not the writer's
}

// read reads the next record into r. It reports false at the end of the batch.
func (s *records) read(r *Record) (bool, error) {
	if s.left == 0 {
		if len(s.rest) != 0 {
			return false, errRecord
		}
		return false, nil
	}
	size, n := varint(s.rest)
	if n <= 0 || size < 0 || size > int64(len(s.rest)-n) {
		return false, errRecord
	}
	b := s.rest[n : n+int(size)]
	s.rest = s.rest[n+int(size):]
	s.left--
	if len(b) == 0 {
		return false, errRecord
	}
	b = b[1:] // attributes, which mean nothing yet
	delta, n := varint(b)
	if n <= 0 {
		return false, errRecord
	}
	r.Timestamp = s.time
	if !s.fixed {
		r.Timestamp += delta
	}
	b = b[n:]
	delta, n = varint(b)
	if n <= 0 || delta < 0 || delta > s.last-s.base || s.base+delta < s.next {
		return false, errRecord
	}
	r.Offset = s.base + delta
	s.next = r.Offset + 1
	b = b[n:]
	var ok bool
	if r.Key, b, ok = cutBytes(b); !ok {
		return false, errRecord
	}
	if r.Value, b, ok = cutBytes(b); !ok {
		return false, errRecord
	}
	if len(b) == 1 && b[0] == 0 {
		r.Headers = RawHeaders{}
		return true, nil
	}
	if r.Headers, ok = cutHeaders(b); !ok {
		return false, errRecord
	}
	return true, nil
}

// cutHeaders checks the headers, which end the record, so that reading them
// later cannot fail.
func cutHeaders(b []byte) (RawHeaders, bool) {
	count, n := varint(b)
	if n <= 0 || count < 0 || count > int64(len(b)) {
		return RawHeaders{}, false
	}
	h := RawHeaders{n: int(count), raw: b[n:]}
	b = h.raw
	for range h.n {
		key, rest, ok := cutBytes(b)
		if !ok || key == nil {
			return RawHeaders{}, false
		}
		if _, b, ok = cutBytes(rest); !ok {
			return RawHeaders{}, false
		}
	}
	return h, len(b) == 0
}

// cutBytes cuts bytes with their length before them; a length of -1 is null.
func cutBytes(b []byte) (value, rest []byte, ok bool) {
	size, n := varint(b)
	if n <= 0 || size < -1 || size > int64(len(b)-n) {
		return nil, nil, false
	}
	if size < 0 {
		return nil, b[n:], true
	}
	end := n + int(size)
	return b[n:end:end], b[end:], true
}

// varint reads a zigzag number, with the short path open to inlining. It returns
// the number's length, which is 0 or less when there is none.
func varint(b []byte) (int64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return int64(b[0]>>1) ^ -int64(b[0]&1), 1
	}
	return longVarint(b)
}

func longVarint(b []byte) (int64, int) { return binary.Varint(b) }
