package arrowipc

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline/codec"
)

// A batch is a record batch, or that in a dictionary's message, whose parts are
// looked at one by one.
type batch struct {
	rows    int
	nodes   []byte // 16 bytes each: length and nulls
	buffers []byte // 16 bytes each: offset and length in body
	body    []byte
	codec   int8
}

// A vector is a column of a batch. Its buffers are at least as long as rows wants.
type vector struct {
	field   *field
	rows    int
	valid   []byte // nil when nothing is null
	values  []byte
	offsets []byte // of lists, strings and binaries
	child   *vector
}

// newBatch reads the table of a record batch.
func newBatch(meta []byte, at int, body []byte, p *plan) (b batch, err error) {
	f := flat{b: meta}
	var n int64
	if q := f.field(at, recordLength); q != 0 {
		n = f.i64(q)
	}
	nodes, nn := f.vector(at, recordNodes, 16)
	buffers, nb := f.vector(at, recordBuffers, 16)
	b = batch{rows: int(n), nodes: f.b[nodes : nodes+16*nn], buffers: f.b[buffers : buffers+16*nb], body: body, codec: codecNone}
	if c, ok := f.child(at, recordCompression); ok {
		b.codec = codecLZ4
		if q := f.field(c, compressionCodec); q != 0 {
			b.codec = int8(f.u8(q))
		}
		if q := f.field(c, compressionMethod); q != 0 && f.u8(q) != 0 || b.codec != codecLZ4 && b.codec != codecZstd {
			return b, errors.New("compressed in a way that is not known here")
		}
	}
	switch {
	case f.bad:
		return b, errors.New("the batch is not as Arrow writes it")
	case n < 0 || n > 1<<31-1:
		return b, fmt.Errorf("a batch of %d rows", n)
	case p != nil && (nn != p.nodes || nb != p.buffers):
		return b, fmt.Errorf("a batch of %d nodes and %d buffers, the schema wants %d and %d", nn, nb, p.nodes, p.buffers)
	}
	return b, nil
}

// A problem is why a message has no rows.
type problem struct {
	class codec.Class
	err   error
}

func (p *problem) Error() string { return p.err.Error() }

func broken(format string, args ...any) error {
	return &problem{codec.Syntax, fmt.Errorf(format, args...)}
}

func invalid(format string, args ...any) error {
	return &problem{codec.Invalid, fmt.Errorf(format, args...)}
}

// vector reads the column whose node and first buffer have these numbers.
func (d *decoder) vector(b *batch, fd *field, node, buffer int) (*vector, error) {
	v := d.newVector()
	*v = vector{field: fd}
	rows := int64(binary.LittleEndian.Uint64(b.nodes[16*node:]))
	nulls := int64(binary.LittleEndian.Uint64(b.nodes[16*node+8:]))
	if rows < 0 || rows > 1<<31-1 {
		return nil, broken("column %q: %d values", fd.name, rows)
	}
	v.rows = int(rows)
	if fd.typ.ID() == arrow.NULL {
		return v, nil
	}
	if nulls != 0 {
		bits, err := d.buffer(b, buffer, (v.rows+7)/8)
		if err != nil {
			return nil, fmt.Errorf("column %q: nulls: %w", fd.name, err)
		}
		v.valid = bits
	}
	var err error
	switch kind := fd.typ.ID(); kind {
	case arrow.STRING, arrow.BINARY, arrow.LARGE_STRING, arrow.LARGE_BINARY:
		if err = d.offsets(b, v, buffer+1, kind == arrow.LARGE_STRING || kind == arrow.LARGE_BINARY); err == nil {
			v.values, err = d.buffer(b, buffer+2, 0)
		}
	case arrow.LIST, arrow.LARGE_LIST:
		if err = d.offsets(b, v, buffer+1, kind == arrow.LARGE_LIST); err == nil {
			v.child, err = d.vector(b, &fd.children[0], node+1, buffer+2)
		}
	case arrow.FIXED_SIZE_LIST:
		v.child, err = d.vector(b, &fd.children[0], node+1, buffer+1)
		if err == nil && v.child.rows < v.rows*fd.size {
			err = broken("%d elements, want %d", v.child.rows, v.rows*fd.size)
		}
	case arrow.BOOL:
		v.values, err = d.buffer(b, buffer+1, (v.rows+7)/8)
	default:
		v.values, err = d.buffer(b, buffer+1, v.rows*fd.size)
	}
	if err != nil {
		return nil, fmt.Errorf("column %q: %w", fd.name, err)
	}
	return v, nil
}

// offsets reads rows+1 offsets as int64 into v.offsets; none rises above where it
// should not is for the caller to check.
func (d *decoder) offsets(b *batch, v *vector, buffer int, large bool) error {
	size := 4
	if large {
		size = 8
	}
	raw, err := d.buffer(b, buffer, 0)
	if err != nil {
		return err
	}
	if v.rows == 0 {
		return nil
	}
	if len(raw) < size*(v.rows+1) {
		return broken("%d bytes of offsets, want %d", len(raw), size*(v.rows+1))
	}
	v.offsets = raw
	return nil
}

// offset returns offset i of a vector that has some.
func (v *vector) offset(i int) int64 {
	switch v.field.typ.ID() {
	case arrow.LARGE_STRING, arrow.LARGE_BINARY, arrow.LARGE_LIST:
		return int64(binary.LittleEndian.Uint64(v.offsets[8*i:]))
	}
	return int64(int32(binary.LittleEndian.Uint32(v.offsets[4*i:])))
}

// isNull tells whether value i is null.
func (v *vector) isNull(i int) bool {
	return v.valid != nil && v.valid[i>>3]>>(i&7)&1 == 0 || v.field.typ.ID() == arrow.NULL
}

// buffer returns buffer i of a batch, unpacked, of least bytes at least.
func (d *decoder) buffer(b *batch, i, least int) ([]byte, error) {
	off := int64(binary.LittleEndian.Uint64(b.buffers[16*i:]))
	n := int64(binary.LittleEndian.Uint64(b.buffers[16*i+8:]))
	if off < 0 || n < 0 || off > int64(len(b.body)) || n > int64(len(b.body))-off {
		return nil, broken("buffer %d is outside of the message", i)
	}
	raw := b.body[off : off+n]
	if b.codec != codecNone && n > 0 {
		var err error
		if raw, err = d.unpack(raw, b.codec); err != nil {
			return nil, err
		}
	}
	if len(raw) < least {
		return nil, broken("buffer %d has %d bytes, want %d", i, len(raw), least)
	}
	return raw, nil
}

// unpack returns what a compressed buffer holds. It is valid until the next
// message.
func (d *decoder) unpack(raw []byte, codecID int8) ([]byte, error) {
	if len(raw) < 8 {
		return nil, broken("a compressed buffer of %d bytes", len(raw))
	}
	size := int64(binary.LittleEndian.Uint64(raw))
	if raw = raw[8:]; size == -1 {
		return raw, nil
	}
	if size < 0 || size > int64(d.left) {
		return nil, &problem{codec.Size, fmt.Errorf("a buffer of %d bytes when unpacked, %d are allowed in this message", size, d.left)}
	}
	d.left -= int(size)
	if cap(d.arena)-len(d.arena) < int(size) {
		d.arena = make([]byte, 0, max(2*cap(d.arena), int(size), 64<<10))
	}
	at := len(d.arena)
	dst := d.arena[at : at : at+int(size)]
	var err error
	if codecID == codecZstd {
		dst, err = d.zstd(dst, raw)
	} else {
		dst, err = unpackLZ4(dst, raw)
	}
	if err != nil {
		return nil, broken("unpack a buffer: %v", err)
	}
	if int64(len(dst)) != size {
		return nil, broken("a buffer of %d bytes when unpacked, want %d", len(dst), size)
	}
	d.arena = d.arena[:at+int(size)]
	return dst, nil
}
