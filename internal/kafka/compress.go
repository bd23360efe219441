package kafka

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Compression names how the records of a batch are compressed. Its numbers are
// those of the wire, and its text forms those of Kafka's compression.type.
type Compression int8

// The compressions that Kafka knows.
const (
	None Compression = iota
	Gzip
	Snappy
	Lz4
	Zstd
)

// String returns the name that configs use: none, gzip, snappy, lz4 or zstd.
func (c Compression) String() string {
	switch c {
	case None:
		return "none"
	case Gzip:
		return "gzip"
	case Snappy:
		return "snappy"
	case Lz4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("compression(%d)", int8(c))
}

// ParseCompression reads what String gives; an empty name is None.
func ParseCompression(name string) (Compression, error) {
	if name == "" {
		return None, nil
	}
	for c := None; c <= Zstd; c++ {
		if name == c.String() {
			return c, nil
		}
	}
	return None, fmt.Errorf("compression %q is none of none, gzip, snappy, lz4, zstd", name)
}

// MarshalText returns the name.
func (c Compression) MarshalText() ([]byte, error) {
	if c < None || c > Zstd {
		return nil, fmt.Errorf("%v is unknown", c)
	}
	return []byte(c.String()), nil
}

// UnmarshalText reads a name.
func (c *Compression) UnmarshalText(name []byte) (err error) {
	*c, err = ParseCompression(string(name))
	return err
}

// Compressors keep encoders between batches, so that many BatchWriters share few:
// a zstd encoder holds megabytes. The zero value is ready; it is safe for
// concurrent use and must not be copied.
type Compressors struct {
	mu   sync.Mutex
	free []*compressor
}

// maxFree is how many idle encoders or decoders are kept.
const maxFree = 16

// appendTo appends src, compressed, to dst.
func (p *Compressors) appendTo(dst []byte, codec Compression, src []byte) ([]byte, error) {
	var c *compressor
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		c, p.free = p.free[n-1], p.free[:n-1]
	} else {
		c = &compressor{}
	}
	p.mu.Unlock()
	dst, err := c.appendTo(dst, codec, src)
	p.mu.Lock()
	if len(p.free) < maxFree {
		p.free = append(p.free, c)
	}
	p.mu.Unlock()
	return dst, err
}

// A compressor holds one encoder of each kind that was asked for. It serves one
// goroutine at a time.
type compressor struct {
	gzip *gzip.Writer
	buf  bytes.Buffer
	zstd *zstd.Encoder
	lz4  *lz4.Compressor
}

func (c *compressor) appendTo(dst []byte, codec Compression, src []byte) ([]byte, error) {
	switch codec {
	case None:
		return append(dst, src...), nil
	case Gzip:
		return c.appendGzip(dst, src)
	case Snappy:
		return appendXerial(dst, src), nil
	case Lz4:
		return c.appendLz4(dst, src)
	case Zstd:
		return c.appendZstd(dst, src)
	}
	return dst, fmt.Errorf("%v is unknown", codec)
}

func (c *compressor) appendGzip(dst, src []byte) ([]byte, error) {
	c.buf = *bytes.NewBuffer(dst)
	if c.gzip == nil {
		c.gzip = gzip.NewWriter(&c.buf)
	} else {
		c.gzip.Reset(&c.buf)
	}
	_, err := c.gzip.Write(src)
	if err == nil {
		err = c.gzip.Close()
	}
	dst, c.buf = c.buf.Bytes(), bytes.Buffer{}
	return dst, err
}

func (c *compressor) appendZstd(dst, src []byte) ([]byte, error) {
	if c.zstd == nil {
		// A checksum is not needed: the batch has one.
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithZeroFrames(true))
		if err != nil {
			return dst, err
		}
		c.zstd = w
	}
	return c.zstd.EncodeAll(src, dst), nil
}

// xerialHeader stands before the blocks that Java's SnappyOutputStream writes,
// which is what Kafka calls snappy: a magic, a version and the lowest version that
// reads it. Each block has its length before it.
const (
	xerialMagic  = "\x82SNAPPY\x00"
	xerialHeader = xerialMagic + "\x00\x00\x00\x01\x00\x00\x00\x01"
	xerialBlock  = 32 << 10 // bytes before compression in a block, as Java has it
)

func appendXerial(dst, src []byte) []byte {
	dst = append(dst, xerialHeader...)
	for len(src) > 0 {
		block := src[:min(len(src), xerialBlock)]
		src = src[len(block):]
		at := len(dst) + 4
		dst = grow(dst, 4+s2.MaxEncodedLen(len(block)))
		n := len(s2.EncodeSnappy(dst[at:cap(dst)], block))
		dst = dst[:at+n]
		binary.BigEndian.PutUint32(dst[at-4:], uint32(n))
	}
	return dst
}

// The frame that Java's KafkaLZ4BlockOutputStream writes: version 1, independent
// blocks of up to 64 KiB, no checksums but the header's own, which is thus constant.
const (
	lz4Magic  = 0x184d2204
	lz4Header = "\x04\x22\x4d\x18\x60\x40\x82"
	lz4Block  = 64 << 10
	lz4Raw    = 1 << 31 // in a block's length: it is not compressed
)

func (c *compressor) appendLz4(dst, src []byte) ([]byte, error) {
	if c.lz4 == nil {
		c.lz4 = &lz4.Compressor{}
	}
	dst = append(dst, lz4Header...)
	for len(src) > 0 {
		block := src[:min(len(src), lz4Block)]
		src = src[len(block):]
		at := len(dst) + 4
		dst = grow(dst, 4+lz4.CompressBlockBound(len(block)))
		n, err := c.lz4.CompressBlock(block, dst[at:cap(dst)])
		if err != nil {
			return dst, fmt.Errorf("lz4: %w", err)
		}
		size := uint32(n)
		if n == 0 || n >= len(block) {
			n = copy(dst[at:cap(dst)], block)
			size = uint32(n) | lz4Raw
		}
		dst = dst[:at+n]
		binary.LittleEndian.PutUint32(dst[at-4:], size)
	}
	return append(dst, 0, 0, 0, 0), nil
}

// grow returns b with room for n more bytes behind its length.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	out := make([]byte, len(b), max(2*cap(b), len(b)+n))
	copy(out, b)
	return out
}
