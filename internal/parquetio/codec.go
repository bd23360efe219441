package parquetio

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// A decompressor undoes page compression. It belongs to one scan.
type decompressor struct {
	zstd *zstd.Decoder
	gzip *gzip.Reader
}

// Largest growth of each codec, as its format allows it. A page that claims
// more is refused before memory is allocated for it. Zstandard has no useful
// bound, but its frames say their size.
const (
	snappyGrowth = 64
	lz4Growth    = 256
	gzipGrowth   = 1040
	zstdGrowth   = 1 << 16
)

// plausible says whether n bytes can come out of a compressed page.
func plausible(src []byte, n int, codec format.CompressionCodec) error {
	growth := 1
	switch codec {
	case format.Uncompressed:
		if n != len(src) {
			return fmt.Errorf("page of %d bytes says that it has %d", len(src), n)
		}
		return nil
	case format.Snappy:
		growth = snappyGrowth
	case format.Lz4Raw:
		growth = lz4Growth
	case format.Gzip:
		growth = gzipGrowth
	case format.Zstd:
		growth = zstdGrowth
		var h zstd.Header
		if err := h.Decode(src); err == nil && h.HasFCS && h.FrameContentSize != uint64(n) && !h.Skippable {
			return fmt.Errorf("zstd frame of %d bytes, the page header says %d", h.FrameContentSize, n)
		}
	case format.Lz4:
		return fmt.Errorf("codec LZ4 (with frames) is %w: write LZ4_RAW", ErrNotSupported)
	default:
		return fmt.Errorf("codec %v is %w: use none, snappy, gzip, zstd or lz4_raw", codec, ErrNotSupported)
	}
	if n > len(src)*growth+64 {
		return fmt.Errorf("%d bytes cannot come out of %d compressed ones", n, len(src))
	}
	return nil
}

// run fills dst exactly from src. The size is known from the page header and
// was bounded there; no codec may choose its own. The capacity behind dst may
// be overwritten.
func (d *decompressor) run(dst, src []byte, codec format.CompressionCodec) error {
	switch codec {
	case format.Uncompressed:
		copy(dst, src)
		return nil
	case format.Snappy:
		// The decoder would allocate up to 4 GB for the length in front.
		if n, k := binary.Uvarint(src); k <= 0 || n != uint64(len(dst)) {
			return fmt.Errorf("snappy block says %d bytes, the page header %d", n, len(dst))
		}
		out, err := s2.Decode(dst, src)
		return exactly(dst, out, err)
	case format.Lz4Raw:
		if len(dst) == 0 {
			return nil
		}
		n, err := lz4.UncompressBlock(src, dst)
		if err == nil && n != len(dst) {
			err = errShort
		}
		return err
	case format.Zstd:
		if d.zstd == nil {
			z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxPageBytes))
			if err != nil {
				return err
			}
			d.zstd = z
		}
		// With room behind dst the decoder takes its faster path.
		out, err := d.zstd.DecodeAll(src, dst[:0])
		return exactly(dst, out, err)
	case format.Gzip:
		return d.gunzip(dst, src)
	}
	return fmt.Errorf("codec %v is %w", codec, ErrNotSupported)
}

func (d *decompressor) gunzip(dst, src []byte) (err error) {
	in := bytes.NewReader(src)
	if d.gzip == nil {
		d.gzip, err = gzip.NewReader(in)
	} else {
		err = d.gzip.Reset(in)
	}
	if err != nil {
		d.gzip = nil
		return err
	}
	if _, err := io.ReadFull(d.gzip, dst); err != nil {
		return err
	}
	var one [1]byte
	if n, err := d.gzip.Read(one[:]); n != 0 || err != io.EOF {
		return fmt.Errorf("gzip page does not end after %d bytes", len(dst))
	}
	return nil
}

func (d *decompressor) close() {
	if d.zstd != nil {
		d.zstd.Close()
	}
}

// exactly says whether a decoder filled dst and nothing else.
func exactly(dst, out []byte, err error) error {
	if err != nil {
		return err
	}
	if len(out) != len(dst) {
		return errShort
	}
	if len(dst) > 0 && &out[0] != &dst[0] {
		copy(dst, out)
	}
	return nil
}
