package arrowipc

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A flat reads flatbuffers out of bytes that anybody may have sent. Nothing is
// read outside of them: a place that is not there gives 0 and sets bad.
type flat struct {
	b   []byte
	bad bool
}

func (f *flat) has(p, n int) bool {
	if p < 0 || n < 0 || p > len(f.b)-n {
		f.bad = true
		return false
	}
	return true
}

func (f *flat) u8(p int) uint8 {
	if !f.has(p, 1) {
		return 0
	}
	return f.b[p]
}

func (f *flat) u16(p int) uint16 {
	if !f.has(p, 2) {
		return 0
	}
	return binary.LittleEndian.Uint16(f.b[p:])
}

func (f *flat) u32(p int) uint32 {
	if !f.has(p, 4) {
		return 0
	}
	return binary.LittleEndian.Uint32(f.b[p:])
}

func (f *flat) i64(p int) int64 {
	if !f.has(p, 8) {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(f.b[p:]))
}

// follow returns the place that the offset at p leads to: always further on.
func (f *flat) follow(p int) int {
	off := int(f.u32(p))
	if off < 4 {
		f.bad = true
	}
	return p + off
}

// field returns the place of field i of the table at t, or 0 when it has its
// default.
func (f *flat) field(t, i int) int {
	vt := t - int(int32(f.u32(t)))
	if 4+2*i+2 > int(f.u16(vt)) {
		return 0
	}
	off := int(f.u16(vt + 4 + 2*i))
	if off == 0 {
		return 0
	}
	return t + off
}

// child returns the table, string or vector that field i of the table at t leads
// to; ok is false when it is not there.
func (f *flat) child(t, i int) (p int, ok bool) {
	if p = f.field(t, i); p == 0 {
		return 0, false
	}
	p = f.follow(p)
	return p, !f.bad
}

// vector returns the first element and the number of elements, of size bytes each,
// of a vector that field i of the table at t leads to.
func (f *flat) vector(t, i, size int) (first, n int) {
	p, ok := f.child(t, i)
	if !ok {
		return 0, 0
	}
	count := int64(f.u32(p))
	if count*int64(size) > int64(len(f.b)-p-4) {
		f.bad = true
		return 0, 0
	}
	return p + 4, int(count)
}

// The numbers of fields, and of unions' members, in Arrow's Message.fbs and
// Schema.fbs.
const (
	messageHeaderType, messageHeader, messageBodyLength = 1, 2, 3

	headerSchema, headerDictionary, headerRecord = 1, 2, 3

	schemaEndian, schemaFields                                       = 0, 1
	fieldName, fieldTypeID, fieldType, fieldDict, fieldChildren      = 0, 2, 3, 4, 5
	dictID, dictIndex                                                = 0, 1
	recordLength, recordNodes, recordBuffers, recordCompression      = 0, 1, 2, 3
	recordVariadic                                                   = 4
	dictionaryID, dictionaryData, dictionaryDelta                    = 0, 1, 2
	compressionCodec, compressionMethod                              = 0, 1
	codecNone, codecLZ4, codecZstd                              int8 = -1, 0, 1
)

// A message is one encapsulated message of a stream.
type message struct {
	meta   []byte // the flatbuffer
	header byte   // what kind of message
	at     int    // of the header's table in meta
	body   []byte
}

// errEnd says that a stream has ended as it should.
var errEnd = errors.New("end of stream")

// next reads the message that b begins with, and returns how long it is in all.
func next(b []byte) (m message, size int, err error) {
	if len(b) == 0 {
		return m, 0, errEnd
	}
	if len(b) >= 6 && string(b[:6]) == "ARROW1" {
		return m, 0, errors.New("an Arrow file, want an Arrow stream")
	}
	prefix := 4 // bytes before the metadata: its length alone, before Arrow 0.15
	if len(b) >= 4 && binary.LittleEndian.Uint32(b) == 0xffffffff {
		prefix = 8
	}
	if len(b) < prefix {
		return m, 0, fmt.Errorf("%d bytes of a message", len(b))
	}
	n := int64(int32(binary.LittleEndian.Uint32(b[prefix-4:])))
	if n == 0 {
		if len(b) > prefix {
			return m, 0, fmt.Errorf("%d bytes after the end of the stream", len(b)-prefix)
		}
		return m, 0, errEnd
	}
	if n < 0 || n > int64(len(b)-prefix) {
		return m, 0, fmt.Errorf("metadata of %d bytes, %d are left", n, len(b)-prefix)
	}
	m.meta = b[prefix : prefix+int(n)]
	f := flat{b: m.meta}
	root := f.follow(0)
	if p := f.field(root, messageHeaderType); p != 0 {
		m.header = f.u8(p)
	}
	m.at, _ = f.child(root, messageHeader)
	var body int64
	if p := f.field(root, messageBodyLength); p != 0 {
		body = f.i64(p)
	}
	rest := b[prefix+int(n):]
	switch {
	case f.bad || m.at == 0:
		return m, 0, errors.New("metadata is not as Arrow writes it")
	case body < 0 || body > int64(len(rest)):
		return m, 0, fmt.Errorf("body of %d bytes, %d are left", body, len(rest))
	}
	m.body = rest[:body]
	return m, prefix + int(n) + int(body), nil
}
