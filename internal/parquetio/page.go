package parquetio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// pages walks the pages of one column chunk. Only one decoded page is held;
// what is read beyond a page is dropped, so that a thousand columns need a
// thousand pages and not a thousand read windows.
type pages struct {
	r     io.ReaderAt
	off   int64 // of the next page header
	left  int64 // bytes of the chunk from off on
	guess int   // bytes to read at once
	num   int   // pages taken so far
	codec format.CompressionCodec
	sh    *shared

	body []byte // scratch: the page's values, decompressed
}

// shared is scratch that all columns of a scan use in turn.
type shared struct {
	decompressor
	raw []byte // compressed page
}

const (
	firstRead = 64 << 10
	headRoom  = 256
	maxHeader = 16 << 20 // statistics of long strings make headers long
)

// next returns the header of the next page and its body, still compressed,
// which lasts until the next call on any column. It returns io.EOF at the end
// of the chunk.
func (p *pages) next() (*format.PageHeader, []byte, error) {
	if p.left <= 0 {
		return nil, nil, io.EOF
	}
	if p.guess == 0 {
		p.guess = firstRead
	}
	have, err := p.read(nil, p.guess)
	if err != nil {
		return nil, nil, err
	}
	h, used, have, err := p.header(have)
	if err != nil {
		return nil, nil, err
	}
	size, usize := int(h.CompressedPageSize), int(h.UncompressedPageSize)
	if size < 0 || usize < 0 {
		return nil, nil, fmt.Errorf("page of %d bytes, %d uncompressed", size, usize)
	}
	if size > MaxPageBytes || usize > MaxPageBytes {
		return nil, nil, fmt.Errorf("page of %d bytes (%d compressed) is above the cap of %d: write smaller pages", usize, size, MaxPageBytes)
	}
	if int64(used+size) > p.left {
		return nil, nil, fmt.Errorf("page of %d bytes, but its column chunk ends after %d", size, p.left-int64(used))
	}
	if len(have) < used+size {
		if have, err = p.read(have, used+size); err != nil {
			return nil, nil, err
		}
	}
	body := have[used : used+size]
	if h.CRC != 0 && crc32.ChecksumIEEE(body) != uint32(h.CRC) {
		return nil, nil, ErrChecksum
	}
	p.off += int64(used + size)
	p.left -= int64(used + size)
	p.guess = min(used+size+headRoom, 4<<20)
	return h, body, nil
}

// read makes n bytes from off on available, of which have are already.
func (p *pages) read(have []byte, n int) ([]byte, error) {
	n = int(min(int64(n), p.left))
	if cap(p.sh.raw) < n {
		grown := make([]byte, n, n+n/4+64)
		copy(grown, have)
		p.sh.raw = grown
	}
	b := p.sh.raw[:n]
	if _, err := p.r.ReadAt(b[len(have):], p.off+int64(len(have))); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("the file is shorter than its footer says: %w", io.ErrUnexpectedEOF)
		}
		return nil, err
	}
	return b, nil
}

// header decodes the page header at the front of have, reading on if it is cut.
func (p *pages) header(have []byte) (*format.PageHeader, int, []byte, error) {
	for {
		err := checkThrift(have[:min(len(have), maxHeader)])
		if err == nil {
			break
		}
		if len(have) >= maxHeader || int64(len(have)) >= p.left {
			return nil, 0, nil, fmt.Errorf("damaged page header: %w", err)
		}
		if have, err = p.read(have, len(have)*4); err != nil {
			return nil, 0, nil, err
		}
	}
	h := new(format.PageHeader)
	r := (&thrift.CompactProtocol{}).NewReaderFromBytes(have)
	if err := thrift.NewDecoder(r).Decode(h); err != nil {
		return nil, 0, nil, fmt.Errorf("damaged page header: %w", err)
	}
	return h, r.BytesRead(), have, nil
}

// unpack decompresses src, which is in the read buffer, into the page buffer.
func (p *pages) unpack(src []byte, size int, codec format.CompressionCodec) ([]byte, error) {
	if size == 0 && len(src) == 0 {
		return nil, nil
	}
	if err := plausible(src, size, codec); err != nil {
		return nil, err
	}
	if codec == format.Uncompressed { // the page keeps the read buffer, the next read takes its
		p.body, p.sh.raw = p.sh.raw, p.body
		return src, nil
	}
	dst := scratch(&p.body, size)
	if err := p.sh.run(dst, src, codec); err != nil {
		return nil, fmt.Errorf("decompress %v: %w", codec, err)
	}
	return dst, nil
}

// A page is decoded: its levels, and its present values in one of the forms.
type page struct {
	n        int    // entries: values, nulls and empty lists
	rep, def []byte // nil where the column has none
	present  int    // values that are there
	pos, val int    // entries and values taken so far

	raw   []byte  // fixed width, or one byte for each boolean
	idx   []int32 // dictionary indexes, in range
	spans []span  // of byte arrays
	text  []byte  // what spans point into
}

type span struct{ from, to uint32 }

// v1 splits the body of a version 1 page: levels and values are compressed
// together, each run of levels has its length in front.
func (c *leafReader) v1(h *format.PageHeader, body []byte) error {
	v := &h.DataPageHeader.V
	if !h.DataPageHeader.Valid {
		return errors.New("data page without its header")
	}
	n := int(v.NumValues)
	if err := c.room(n); err != nil {
		return err
	}
	body, err := c.unpack(body, int(h.UncompressedPageSize), c.codec)
	if err != nil {
		return err
	}
	c.page.rep, c.page.def = nil, nil
	if c.leaf.maxRep > 0 {
		if c.page.rep, body, err = v1Levels(&c.repBuf, body, n, c.leaf.maxRep, v.RepetitionLevelEncoding); err != nil {
			return err
		}
	}
	if c.leaf.maxDef > 0 {
		if c.page.def, body, err = v1Levels(&c.defBuf, body, n, c.leaf.maxDef, v.DefinitionLevelEncoding); err != nil {
			return err
		}
	}
	return c.values(v.Encoding, body, n)
}

func v1Levels(buf *[]byte, body []byte, n, limit int, enc format.Encoding) (lv, rest []byte, err error) {
	if enc != format.RLE {
		return nil, nil, fmt.Errorf("levels in encoding %v are %w", enc, ErrNotSupported)
	}
	if len(body) < 4 {
		return nil, nil, fmt.Errorf("levels: %w", errShort)
	}
	k := int64(binary.LittleEndian.Uint32(body))
	if k > int64(len(body)-4) {
		return nil, nil, fmt.Errorf("levels of %d bytes in a page of %d", k, len(body))
	}
	lv, err = levels(buf, body[4:4+k], n, limit)
	return lv, body[4+k:], err
}

// v2 splits the body of a version 2 page: levels stand uncompressed before the
// values.
func (c *leafReader) v2(h *format.PageHeader, body []byte) error {
	v := &h.DataPageHeaderV2.V
	if !h.DataPageHeaderV2.Valid {
		return errors.New("data page without its header")
	}
	n, rl, dl := int(v.NumValues), int(v.RepetitionLevelsByteLength), int(v.DefinitionLevelsByteLength)
	if err := c.room(n); err != nil {
		return err
	}
	size := int(h.UncompressedPageSize) - rl - dl
	if rl < 0 || dl < 0 || rl > len(body) || dl > len(body)-rl || size < 0 {
		return fmt.Errorf("levels of %d and %d bytes in a page of %d", rl, dl, len(body))
	}
	var err error
	c.page.rep, c.page.def = nil, nil
	if c.leaf.maxRep > 0 {
		if c.page.rep, err = levels(&c.repBuf, body[:rl], n, c.leaf.maxRep); err != nil {
			return err
		}
	}
	if c.leaf.maxDef > 0 {
		if c.page.def, err = levels(&c.defBuf, body[rl:rl+dl], n, c.leaf.maxDef); err != nil {
			return err
		}
	}
	codec := c.codec
	if v.IsCompressed.Valid && !v.IsCompressed.V {
		codec = format.Uncompressed
	}
	vals, err := c.unpack(body[rl+dl:], size, codec)
	if err != nil {
		return err
	}
	return c.values(v.Encoding, vals, n)
}

// room says whether a page of n entries is possible.
func (c *leafReader) room(n int) error {
	if n < 0 || int64(n) > c.entriesLeft {
		return errTooMany
	}
	if n > MaxPageBytes/max(4, c.leaf.width) {
		return fmt.Errorf("page of %d values is above the cap of %d bytes: write smaller pages", n, MaxPageBytes)
	}
	return nil
}

// values decodes the present values of a page whose levels are in place.
func (c *leafReader) values(enc format.Encoding, body []byte, n int) error {
	p := &c.page
	p.n, p.pos, p.val, p.present = n, 0, 0, n
	if p.def != nil {
		p.present = bytes.Count(p.def, []byte{byte(c.leaf.maxDef)})
	}
	if p.rep != nil && n > 0 && c.fresh && p.rep[0] != 0 {
		return errors.New("the first repetition level of a column chunk is not 0")
	}
	c.fresh = c.fresh && n == 0
	c.entriesLeft -= int64(n)
	p.raw, p.idx, p.spans, p.text = nil, nil, nil, nil
	if err := c.decode(enc, body); err != nil {
		return fmt.Errorf("%v: %w", enc, err)
	}
	return nil
}
