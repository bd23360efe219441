package parquetio

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/parquet-go/parquet-go/encoding/bytestreamsplit"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/format"
)

// plainDictionary is the old name of RLE_DICTIONARY in data pages and of PLAIN in
// dictionary pages.
const plainDictionary format.Encoding = 2

// decode turns the body of a page into present values.
func (c *leafReader) decode(enc format.Encoding, body []byte) error {
	p := &c.page
	if enc == format.RLEDictionary || enc == plainDictionary {
		if c.dict == nil {
			return errNoDict
		}
		var err error
		p.idx, err = indexes(&c.idxBuf, body, p.present, c.dict.len())
		return err
	}
	switch {
	case c.leaf.physical == format.Boolean:
		return c.decodeBools(enc, body)
	case c.leaf.physical == format.ByteArray:
		return c.decodeText(enc, body)
	}
	return c.decodeFixed(enc, body)
}

func (c *leafReader) decodeFixed(enc format.Encoding, body []byte) error {
	p, w := &c.page, c.leaf.width
	size := p.present * w
	switch enc {
	case format.Plain:
		if len(body) != size {
			return fmt.Errorf("%d bytes for %d values of %d bytes", len(body), p.present, w)
		}
		p.raw = body
		return nil
	case format.ByteStreamSplit:
		if len(body) != size {
			return fmt.Errorf("%d bytes for %d values of %d bytes", len(body), p.present, w)
		}
		p.raw = scratch(&c.valBuf, size)
		return joinStreams(p.raw, body, w)
	case format.DeltaBinaryPacked:
		if c.leaf.physical == format.Int32 || c.leaf.physical == format.Int64 {
			return c.decodeDelta(body)
		}
	}
	return fmt.Errorf("this encoding of %v is %w", c.leaf.physical, ErrNotSupported)
}

func (c *leafReader) decodeDelta(body []byte) error {
	p, w := &c.page, c.leaf.width
	if p.present == 0 {
		return nil
	}
	_, wide, err := checkDelta(body, p.present)
	if err != nil {
		return err
	}
	p.raw = scratch(&c.valBuf, p.present*w)
	enc := delta.BinaryPackedEncoding{}
	if w == 4 && wide {
		return decodeWide(as[uint32](p.raw), body)
	}
	if w == 4 {
		out, err := enc.DecodeInt32(as[int32](p.raw)[:0], body)
		return exactly(p.raw, asBytes(out), err)
	}
	out, err := enc.DecodeInt64(as[int64](p.raw)[:0], body)
	return exactly(p.raw, asBytes(out), err)
}

// decodeWide decodes 32-bit values that were counted in 64 bits.
func decodeWide(dst []uint32, body []byte) error {
	enc := delta.BinaryPackedEncoding{}
	out, err := enc.DecodeInt64(make([]int64, 0, len(dst)+32), body)
	if err != nil {
		return err
	}
	if len(out) != len(dst) {
		return errShort
	}
	for i, v := range out {
		if v < math.MinInt32 || v > math.MaxUint32 {
			return fmt.Errorf("value %d does not fit 32 bits", v)
		}
		dst[i] = uint32(v)
	}
	return nil
}

// joinStreams undoes BYTE_STREAM_SPLIT of values of w bytes.
func joinStreams(dst, src []byte, w int) error {
	enc := bytestreamsplit.Encoding{}
	switch w {
	case 4:
		out, err := enc.DecodeFloat(as[float32](dst), src)
		return exactly(dst, asBytes(out), err)
	case 8:
		out, err := enc.DecodeDouble(as[float64](dst), src)
		return exactly(dst, asBytes(out), err)
	}
	n := len(dst) / w
	for k := range w {
		for i, b := range src[k*n : (k+1)*n] {
			dst[i*w+k] = b
		}
	}
	return nil
}

// decodeBools gives one byte for each boolean.
func (c *leafReader) decodeBools(enc format.Encoding, body []byte) error {
	p := &c.page
	switch enc {
	case format.Plain:
		if len(body) < (p.present+7)/8 {
			return errShort
		}
		p.raw = scratch(&c.valBuf, p.present)
		for i := range p.raw {
			p.raw[i] = body[i>>3] >> (i & 7) & 1
		}
		return nil
	case format.RLE:
		if p.present == 0 {
			return nil
		}
		if len(body) < 4 {
			return errShort
		}
		k := int64(binary.LittleEndian.Uint32(body))
		if k > int64(len(body)-4) {
			return errShort
		}
		var err error
		p.raw, err = levels(&c.valBuf, body[4:4+k], p.present, 1)
		return err
	}
	return fmt.Errorf("this encoding of BOOLEAN is %w", ErrNotSupported)
}

func (c *leafReader) decodeText(enc format.Encoding, body []byte) error {
	p := &c.page
	var err error
	switch enc {
	case format.Plain:
		p.spans, err = plainSpans(c.spanBuf[:0], body, p.present)
		p.text = body
	case format.DeltaLengthByteArray:
		err = c.deltaLength(body)
	case format.DeltaByteArray:
		err = c.deltaText(body)
	default:
		return fmt.Errorf("this encoding of BYTE_ARRAY is %w", ErrNotSupported)
	}
	if p.spans != nil {
		c.spanBuf = p.spans
	}
	return err
}

// plainSpans walks values that have their length in front.
func plainSpans(dst []span, body []byte, n int) ([]span, error) {
	if n > len(body)/4 {
		return nil, fmt.Errorf("%d values in %d bytes", n, len(body))
	}
	pos := 0
	for range n {
		if len(body)-pos < 4 {
			return nil, errShort
		}
		k := int64(binary.LittleEndian.Uint32(body[pos:]))
		pos += 4
		if k > int64(len(body)-pos) {
			return nil, fmt.Errorf("value of %d bytes, %d are left", k, len(body)-pos)
		}
		dst = append(dst, span{uint32(pos), uint32(pos + int(k))})
		pos += int(k)
	}
	if pos != len(body) {
		return nil, fmt.Errorf("%d bytes behind the last value", len(body)-pos)
	}
	return dst, nil
}

// lengths decodes one delta block of n lengths and returns the bytes behind it.
func lengths(src []byte, n int) (out []int32, rest []byte, err error) {
	rest, wide, err := checkDelta(src, n)
	if err != nil {
		return nil, nil, err
	}
	if wide {
		return nil, nil, fmt.Errorf("length beyond 32 bits")
	}
	enc := delta.BinaryPackedEncoding{}
	out, err = enc.DecodeInt32(make([]int32, 0, n+32), src[:len(src)-len(rest)])
	if err == nil && len(out) != n {
		err = errShort
	}
	return out, rest, err
}

func (c *leafReader) deltaLength(body []byte) error {
	p := &c.page
	if p.present == 0 {
		return nil
	}
	size, text, err := lengths(body, p.present)
	if err != nil {
		return err
	}
	p.text, p.spans = text, c.spanBuf[:0]
	pos := 0
	for _, k := range size {
		if k < 0 || int(k) > len(text)-pos {
			return fmt.Errorf("value of %d bytes, %d are left", k, len(text)-pos)
		}
		p.spans = append(p.spans, span{uint32(pos), uint32(pos + int(k))})
		pos += int(k)
	}
	return nil
}

// deltaText rebuilds values from the length they share with the one before and
// the rest of each. What they expand to is capped.
func (c *leafReader) deltaText(body []byte) error {
	p := &c.page
	if p.present == 0 {
		return nil
	}
	prefix, rest, err := lengths(body, p.present)
	if err != nil {
		return err
	}
	suffix, text, err := lengths(rest, p.present)
	if err != nil {
		return err
	}
	p.spans = c.spanBuf[:0]
	out := c.valBuf[:0]
	last, pos := 0, 0 // start of the value before, bytes used of text
	for i, k := range prefix {
		s := suffix[i]
		if k < 0 || s < 0 || int(k) > len(out)-last || int(s) > len(text)-pos {
			return fmt.Errorf("value %d shares %d bytes and adds %d", i, k, s)
		}
		if len(out)+int(k)+int(s) > MaxPageBytes {
			return fmt.Errorf("values expand beyond the cap of %d bytes", MaxPageBytes)
		}
		start := len(out)
		out = append(out, out[last:last+int(k)]...)
		out = append(out, text[pos:pos+int(s)]...)
		pos += int(s)
		last = start
		p.spans = append(p.spans, span{uint32(start), uint32(len(out))})
	}
	c.valBuf, p.text = out, out
	return nil
}

// A dictionary is the table of one column chunk.
type dictionary struct {
	raw   []byte // fixed width
	width int
	spans []span // byte arrays
	text  []byte
}

func (d *dictionary) len() int {
	if d.width > 0 {
		return len(d.raw) / d.width
	}
	return len(d.spans)
}

// readDictionary decodes a dictionary page; body is copied.
func (c *leafReader) readDictionary(h *format.PageHeader, body []byte) error {
	v := &h.DictionaryPageHeader.V
	n := int(v.NumValues)
	switch {
	case !h.DictionaryPageHeader.Valid:
		return fmt.Errorf("dictionary page without its header")
	case c.dict != nil:
		return fmt.Errorf("second dictionary page")
	case c.leaf.physical == format.Boolean:
		return fmt.Errorf("dictionary of booleans")
	case v.Encoding != format.Plain && v.Encoding != plainDictionary:
		return fmt.Errorf("dictionary in encoding %v is %w", v.Encoding, ErrNotSupported)
	case n < 0 || n > MaxPageBytes/4:
		return fmt.Errorf("dictionary of %d values", n)
	}
	body, err := c.unpack(body, int(h.UncompressedPageSize), c.codec)
	if err != nil {
		return err
	}
	d := &dictionary{width: c.leaf.width}
	c.body = nil // the table keeps it
	if d.width > 0 {
		if len(body) != n*d.width {
			return fmt.Errorf("dictionary of %d values in %d bytes", n, len(body))
		}
		d.raw = body
	} else {
		if d.spans, err = plainSpans(make([]span, 0, min(n, len(body)/4)), body, n); err != nil {
			return fmt.Errorf("dictionary: %w", err)
		}
		d.text = body
	}
	c.dict = d
	return nil
}

// as views bytes as a slice of T.
func as[T any](b []byte) []T {
	if len(b) == 0 {
		return nil
	}
	var z T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(z)))
}

// asBytes views a slice of T as bytes.
func asBytes[T any](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(v[0])))
}
