package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// ErrTooLarge says that records are larger, unpacked, than they may be. Such a
// batch is of the error class size.
var ErrTooLarge = errors.New("the records of a batch are too large when unpacked")

// Decompressors keep decoders between batches. The zero value is ready once limit
// is set; it is safe for concurrent use and must not be copied.
type decompressors struct {
	limit int // most bytes of one batch when unpacked

	mu   sync.Mutex
	free []*decompressor
}

func (p *decompressors) get() *decompressor {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		d := p.free[n-1]
		p.free = p.free[:n-1]
		return d
	}
	return &decompressor{limit: p.limit}
}

func (p *decompressors) put(d *decompressor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < maxFree {
		p.free = append(p.free, d)
	}
}

// A decompressor holds one decoder of each kind that was met. It serves one
// goroutine at a time.
type decompressor struct {
	limit int
	src   bytes.Reader
	gzip  *gzip.Reader
	zstd  *zstd.Decoder
	ratio [Zstd + 1]float64 // how much each codec's batches grew of late
}

// guess says how many bytes n packed ones will be, which they may exceed.
func (d *decompressor) guess(codec Compression, n int) int {
	if codec > Zstd {
		return 0
	}
	return min(int(d.ratio[codec]*float64(n)), d.limit)
}

func (d *decompressor) learn(codec Compression, packed, unpacked int) {
	now := 1.1 * float64(unpacked) / float64(max(1, packed))
	d.ratio[codec] = max(now, 0.9*d.ratio[codec]+0.1*now)
}

// appendTo appends src, unpacked, to dst, which is moved if it has no room. It
// returns ErrTooLarge, after at most that much work, when more than d.limit bytes
// would come.
func (d *decompressor) appendTo(dst []byte, codec Compression, src []byte) ([]byte, error) {
	at := len(dst)
	var err error
	switch codec {
	case None:
		dst = append(dst, src...)
	case Gzip:
		dst, err = d.appendGzip(dst, src)
	case Snappy:
		dst, err = d.appendSnappy(dst, src)
	case Lz4:
		dst, err = d.appendLz4(dst, src)
	case Zstd:
		dst, err = d.appendZstd(dst, src)
	default:
		return dst, fmt.Errorf("%v is unknown", codec)
	}
	if err == nil && len(dst)-at > d.limit {
		err = ErrTooLarge
	}
	if err != nil {
		return dst[:at], fmt.Errorf("%v: %w", codec, err)
	}
	d.learn(codec, len(src), len(dst)-at)
	return dst, nil
}

func (d *decompressor) appendGzip(dst, src []byte) ([]byte, error) {
	d.src.Reset(src)
	defer d.src.Reset(nil)
	var err error
	if d.gzip == nil {
		d.gzip, err = gzip.NewReader(&d.src)
	} else {
		err = d.gzip.Reset(&d.src)
	}
	if err != nil {
		d.gzip = nil
		return dst, err
	}
	most := len(dst) + d.limit
	for {
		if len(dst) == cap(dst) {
			dst = grow(dst, max(512, 2*len(src)))
		}
		n, err := d.gzip.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst) > most:
			return dst, ErrTooLarge
		case errors.Is(err, io.EOF):
			return dst, nil
		case err != nil:
			return dst, err
		}
	}
}

// zstdBlock is the largest block: the decoder refuses a frame before it is at its
// bound, so that it gets some more than it may use.
const zstdBlock = 128 << 10

// zstdWindow is the largest window that every encoder may use, whatever it writes.
const zstdWindow = 8 << 20

func (d *decompressor) appendZstd(dst, src []byte) ([]byte, error) {
	if d.zstd == nil {
		r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(d.limit)+zstdBlock),
			zstd.WithDecoderMaxWindow(uint64(max(d.limit, zstdWindow))))
		if err != nil {
			return dst, err
		}
		d.zstd = r
	}
	// DecodeAll gives nil back for some errors.
	out, err := d.zstd.DecodeAll(src, dst)
	if err != nil {
		if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
			err = ErrTooLarge
		}
		return dst, err
	}
	if len(out)-len(dst) > d.limit {
		return dst, ErrTooLarge
	}
	return out, nil
}

// appendSnappy reads Java's framing as well as one plain block, which other
// clients write.
func (d *decompressor) appendSnappy(dst, src []byte) ([]byte, error) {
	if !bytes.HasPrefix(src, []byte(xerialMagic)) {
		return appendSnappyBlock(dst, src, d.limit)
	}
	if len(src) < len(xerialHeader) {
		return dst, io.ErrUnexpectedEOF
	}
	src = src[len(xerialHeader):]
	most := len(dst) + d.limit
	for len(src) > 0 {
		if len(src) < 4 {
			return dst, io.ErrUnexpectedEOF
		}
		n := binary.BigEndian.Uint32(src)
		src = src[4:]
		if uint64(n) > uint64(len(src)) {
			return dst, io.ErrUnexpectedEOF
		}
		var err error
		if dst, err = appendSnappyBlock(dst, src[:n], most-len(dst)); err != nil {
			return dst, err
		}
		src = src[n:]
	}
	return dst, nil
}

func appendSnappyBlock(dst, src []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return dst, err
	}
	if n > limit {
		return dst, ErrTooLarge
	}
	at := len(dst)
	dst = grow(dst, n)
	// With no room at all Decode would allocate: an empty block has nothing to add.
	out, err := s2.Decode(dst[at:at+n:at+n], src)
	if err != nil {
		return dst, err
	}
	return dst[:at+len(out)], nil
}

// errLz4 says that bytes are not a frame of lz4.
var errLz4 = errors.New("not a frame of lz4")

// lz4Window is how far a block may reach back into the ones before it.
const lz4Window = 64 << 10

// appendLz4 reads frames itself, for two reasons: blocks are unpacked where they
// stay, and the old checksum of the header, which some clients compute wrongly, is
// of no use under the batch's own.
func (d *decompressor) appendLz4(dst, src []byte) ([]byte, error) {
	most := len(dst) + d.limit
	for len(src) > 0 {
		f, rest, err := lz4Start(src)
		if err != nil {
			return dst, err
		}
		start := len(dst)
		if dst, src, err = f.append(dst, rest, start, most); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// An lz4Frame is what a frame's header says.
type lz4Frame struct {
	block     int // most bytes of an unpacked block
	linked    bool
	blockSum  bool
	streamSum bool
}

func lz4Start(src []byte) (f lz4Frame, rest []byte, err error) {
	if len(src) < 7 || binary.LittleEndian.Uint32(src) != lz4Magic {
		return f, nil, errLz4
	}
	flags, size := src[4], src[5]>>4&7
	if flags>>6 != 1 || size < 4 {
		return f, nil, errLz4
	}
	f.block = 1 << (8 + 2*int(size))
	f.linked = flags&0x20 == 0
	f.blockSum = flags&0x10 != 0
	f.streamSum = flags&0x04 != 0
	n := 7
	if flags&0x08 != 0 {
		n += 8 // the content's size
	}
	if flags&0x01 != 0 {
		return f, nil, errors.New("a dictionary is needed")
	}
	if len(src) < n {
		return f, nil, io.ErrUnexpectedEOF
	}
	return f, src[n:], nil
}

// append unpacks the frame's blocks behind dst, whose bytes from start on are the
// frame's, and returns what follows the frame.
func (f lz4Frame) append(dst, src []byte, start, most int) (out, rest []byte, err error) {
	for {
		if len(src) < 4 {
			return dst, src, io.ErrUnexpectedEOF
		}
		size := binary.LittleEndian.Uint32(src)
		src = src[4:]
		if size == 0 {
			break
		}
		n := int(size &^ lz4Raw)
		sum := 0
		if f.blockSum {
			sum = 4
		}
		if n > f.block+f.block/128 || n+sum > len(src) {
			return dst, src, io.ErrUnexpectedEOF
		}
		if dst, err = f.appendBlock(dst, src[:n], size&lz4Raw != 0, start, most); err != nil {
			return dst, src, err
		}
		src = src[n+sum:]
	}
	if f.streamSum {
		if len(src) < 4 {
			return dst, src, io.ErrUnexpectedEOF
		}
		src = src[4:]
	}
	return dst, src, nil
}

func (f lz4Frame) appendBlock(dst, block []byte, raw bool, start, most int) ([]byte, error) {
	if raw {
		if len(dst)+len(block) > most {
			return dst, ErrTooLarge
		}
		return append(dst, block...), nil
	}
	// No byte of a block stands for more than 255, but a block's usual growth is far
	// less: what room there is mostly does.
	room := min(f.block, 255*len(block))
	if have := cap(dst) - len(dst); have < room && have >= len(block) {
		if out, err := f.unpackBlock(dst, block, have, start, most); err == nil {
			return out, nil
		}
	}
	return f.unpackBlock(grow(dst, room), block, room, start, most)
}

// unpackBlock unpacks a block into room bytes behind dst.
func (f lz4Frame) unpackBlock(dst, block []byte, room, start, most int) ([]byte, error) {
	at := len(dst)
	var dict []byte
	if f.linked {
		dict = dst[max(start, at-lz4Window):at]
	}
	n, err := lz4.UncompressBlockWithDict(block, dst[at:at+room], dict)
	if err != nil {
		return dst, err
	}
	if at+n > most {
		return dst, ErrTooLarge
	}
	return dst[:at+n], nil
}
