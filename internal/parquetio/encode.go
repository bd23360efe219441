package parquetio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/bytestreamsplit"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// A pageEncoder turns one leaf of a row group into pages.
type pageEncoder struct {
	o     WriterOptions
	codec format.CompressionCodec
	out   func([]byte) error
	off   int64

	zstd *zstd.Encoder
	gzip *gzip.Writer
	lz4  lz4.Compressor

	sh      shredder
	dict    dictBuilder
	vals    []byte   // fixed-width values of a page
	text    [][]byte // text values of a page
	body    []byte   // encoded values
	levels  []byte   // encoded levels
	packed  []byte   // compressed
	v1body  []byte
	scratch []byte
	header  bytes.Buffer
	stats   statistics

	noCRC bool // tests need pages that get past the checksum

	run, at int // the next value: position in sh.runs and in that run
}

func newPageEncoder(codec format.CompressionCodec, o WriterOptions) (*pageEncoder, error) {
	e := &pageEncoder{o: o, codec: codec}
	switch o.Encoding {
	case Auto, Plain, Dictionary, Delta:
	default:
		return nil, fmt.Errorf("encoding %q is %w: use auto, plain, dictionary or delta", string(o.Encoding), ErrNotSupported)
	}
	if o.PageVersion != 1 && o.PageVersion != 2 {
		return nil, fmt.Errorf("page version %d is %w: use 1 or 2", o.PageVersion, ErrNotSupported)
	}
	var err error
	if codec == format.Zstd {
		e.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
	}
	if codec == format.Gzip {
		e.gzip = gzip.NewWriter(nil)
	}
	return e, err
}

// chunk writes the column chunk of leaf at off; cols are its column in each of
// the row group's records.
func (e *pageEncoder) chunk(leaf *wnode, cols []arrow.Array, off int64) (format.ColumnMetaData, error) {
	e.off = off
	e.sh.reset(leaf)
	for _, c := range cols {
		if err := e.sh.column(c); err != nil {
			return format.ColumnMetaData{}, err
		}
	}
	e.run, e.at = 0, 0
	e.stats.reset(leaf)
	m := format.ColumnMetaData{Type: leaf.physical, PathInSchema: leaf.path, Codec: e.codec, NumValues: int64(e.sh.entries)}
	enc := e.encodingOf(leaf)
	useDict := false
	if enc == format.RLEDictionary {
		useDict = e.dict.build(leaf, e.sh.runs, e.sh.values, e.o.Encoding == Dictionary)
		if !useDict {
			enc = format.Plain
		}
	}
	if useDict {
		m.DictionaryPageOffset = e.off
		e.dict.each(e.stats.text, e.stats.fixed)
		if err := e.dictPage(&m); err != nil {
			return m, err
		}
	}
	m.DataPageOffset = e.off
	if err := e.dataPages(&m, leaf, enc); err != nil {
		return m, err
	}
	m.TotalCompressedSize = e.off - off
	m.Encoding = []format.Encoding{enc}
	if useDict {
		m.Encoding = append(m.Encoding, format.Plain)
	}
	if leaf.maxDef > 0 || leaf.maxRep > 0 {
		m.Encoding = append(m.Encoding, format.RLE)
	}
	m.Statistics = e.stats.result(int64(e.sh.entries - e.sh.values))
	return m, nil
}

// encodingOf is the encoding that is tried for a leaf.
func (e *pageEncoder) encodingOf(leaf *wnode) format.Encoding {
	text := leaf.physical == format.ByteArray
	switch {
	case leaf.physical == format.Boolean:
		if e.o.Encoding == Plain || e.o.PageVersion == 1 { // old readers know no other
			return format.Plain
		}
		return format.RLE
	case e.o.Encoding == Plain:
		return format.Plain
	case e.o.Encoding == Dictionary:
		return format.RLEDictionary
	case e.o.Encoding == Delta && text && leaf.typ.ID() != arrow.DICTIONARY: // Arrow C++ cannot read those back
		return format.DeltaLengthByteArray
	case e.o.Encoding == Delta && (leaf.physical == format.Int32 || leaf.physical == format.Int64):
		return format.DeltaBinaryPacked
	case text:
		return format.RLEDictionary
	case (leaf.physical == format.Float || leaf.physical == format.Double) && e.codec != format.Uncompressed:
		return format.ByteStreamSplit
	}
	return format.Plain
}

// dataPages cuts the entries into pages that begin with a row.
func (e *pageEncoder) dataPages(m *format.ColumnMetaData, leaf *wnode, enc format.Encoding) error {
	width := leaf.width
	if leaf.physical == format.Boolean {
		width = 1
	} else if leaf.physical == format.ByteArray {
		width = 4 + e.textBytes()/max(e.sh.values, 1)
	}
	step := max(1, e.o.PageBytes/max(width, 1))
	if enc == format.RLEDictionary {
		step = max(1, e.o.PageBytes/4)
	}
	val := 0
	for from := 0; from < e.sh.entries; {
		to := min(from+step, e.sh.entries)
		if leaf.maxRep > 0 && to < e.sh.entries {
			if z := bytes.IndexByte(e.sh.rep[to:], 0); z >= 0 {
				to += z
			} else {
				to = e.sh.entries
			}
		}
		n := to - from
		if leaf.maxDef > 0 {
			n = bytes.Count(e.sh.def[from:to], []byte{byte(leaf.maxDef)})
		}
		if err := e.dataPage(m, leaf, enc, from, to, val, n); err != nil {
			return err
		}
		from, val = to, val+n
	}
	return nil
}

func (e *pageEncoder) textBytes() int {
	n := 0
	for _, r := range e.sh.runs {
		n += textSize(r.arr, r.from, r.to)
	}
	return n
}

// dataPage writes entries [from, to), which hold n values from value val on.
func (e *pageEncoder) dataPage(m *format.ColumnMetaData, leaf *wnode, enc format.Encoding, from, to, val, n int) error {
	if err := e.encode(leaf, enc, val, n); err != nil {
		return err
	}
	rep, def, err := e.encodeLevels(leaf, from, to)
	if err != nil {
		return err
	}
	rows := to - from
	if leaf.maxRep > 0 {
		rows = bytes.Count(e.sh.rep[from:to], []byte{0})
	}
	if e.o.PageVersion == 1 {
		return e.pageV1(m, leaf, enc, rep, def, to-from)
	}
	h := format.PageHeader{Type: format.DataPageV2}
	body, compressed, err := e.compress(e.body, true)
	if err != nil {
		return err
	}
	h.DataPageHeaderV2.Valid = true
	h.DataPageHeaderV2.V = format.DataPageHeaderV2{NumValues: int32(to - from), NumNulls: int32(to - from - n), NumRows: int32(rows),
		Encoding: enc, DefinitionLevelsByteLength: int32(len(def)), RepetitionLevelsByteLength: int32(len(rep)),
		IsCompressed: thrift.New(compressed)}
	return e.page(m, &h, len(rep)+len(def)+len(e.body), rep, def, body)
}

// pageV1 compresses levels and values together.
func (e *pageEncoder) pageV1(m *format.ColumnMetaData, leaf *wnode, enc format.Encoding, rep, def []byte, n int) error {
	b := e.v1body[:0]
	if leaf.maxRep > 0 {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(rep))), rep...)
	}
	if leaf.maxDef > 0 {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(def))), def...)
	}
	b = append(b, e.body...)
	e.v1body = b
	body, _, err := e.compress(b, false)
	if err != nil {
		return err
	}
	h := format.PageHeader{Type: format.DataPage}
	h.DataPageHeader.Valid = true
	h.DataPageHeader.V = format.DataPageHeader{NumValues: int32(n), Encoding: enc,
		DefinitionLevelEncoding: format.RLE, RepetitionLevelEncoding: format.RLE}
	return e.page(m, &h, len(b), body)
}

func (e *pageEncoder) dictPage(m *format.ColumnMetaData) error {
	e.body = e.dict.plain(e.body[:0])
	body, _, err := e.compress(e.body, false)
	if err != nil {
		return err
	}
	h := format.PageHeader{Type: format.DictionaryPage}
	h.DictionaryPageHeader.Valid = true
	h.DictionaryPageHeader.V = format.DictionaryPageHeader{NumValues: int32(e.dict.len()), Encoding: format.Plain}
	return e.page(m, &h, len(e.body), body)
}

// page writes a header and the parts of a page.
func (e *pageEncoder) page(m *format.ColumnMetaData, h *format.PageHeader, size int, parts ...[]byte) error {
	n, crc := 0, uint32(0)
	for _, p := range parts {
		n += len(p)
		crc = crc32.Update(crc, crc32.IEEETable, p)
	}
	if size > MaxPageBytes || n > MaxPageBytes {
		return fmt.Errorf("page of %d bytes is above the cap of %d: a value or a row is too large", size, MaxPageBytes)
	}
	h.UncompressedPageSize, h.CompressedPageSize, h.CRC = int32(size), int32(n), int32(crc)
	if e.noCRC {
		h.CRC = 0
	}
	e.header.Reset()
	if err := thrift.NewEncoder((&thrift.CompactProtocol{}).NewWriter(&e.header)).Encode(h); err != nil {
		return err
	}
	m.TotalUncompressedSize += int64(size + e.header.Len())
	for _, p := range append([][]byte{e.header.Bytes()}, parts...) {
		if len(p) == 0 {
			continue
		}
		if err := e.out(p); err != nil {
			return err
		}
		e.off += int64(len(p))
	}
	return nil
}

// compress packs b; with optional it returns b itself where that is no longer.
func (e *pageEncoder) compress(b []byte, optional bool) (out []byte, compressed bool, err error) {
	switch e.codec {
	case format.Uncompressed:
		return b, false, nil
	case format.Zstd:
		e.packed = e.zstd.EncodeAll(b, e.packed[:0])
	case format.Snappy:
		e.packed = s2.EncodeSnappy(scratch(&e.packed, s2.MaxEncodedLen(len(b))), b)
	case format.Lz4Raw:
		dst := scratch(&e.packed, lz4.CompressBlockBound(len(b))+1)
		n, err := e.lz4.CompressBlock(b, dst)
		if err != nil {
			return nil, false, err
		}
		if n == 0 && len(b) > 0 {
			return nil, false, errors.New("lz4 gave nothing")
		}
		if len(b) == 0 {
			dst[0], n = 0, 1 // one empty sequence
		}
		e.packed = dst[:n]
	case format.Gzip:
		buf := bytes.NewBuffer(e.packed[:0])
		e.gzip.Reset(buf)
		if _, err := e.gzip.Write(b); err != nil {
			return nil, false, err
		}
		if err := e.gzip.Close(); err != nil {
			return nil, false, err
		}
		e.packed = buf.Bytes()
	}
	if optional && len(e.packed) >= len(b) {
		return b, false, nil
	}
	return e.packed, true, nil
}

// encodeLevels gives the levels of entries [from, to).
func (e *pageEncoder) encodeLevels(leaf *wnode, from, to int) (rep, def []byte, err error) {
	b := e.levels[:0]
	if leaf.maxRep > 0 {
		b = appendLevels(b, e.sh.rep[from:to], leaf.maxRep)
	}
	cut := len(b)
	if leaf.maxDef > 0 {
		b = appendLevels(b, e.sh.def[from:to], leaf.maxDef)
	}
	e.levels = b
	return b[:cut], b[cut:], nil
}

// appendLevels encodes levels: runs of at least eight equal ones as runs, what
// is between them bit-packed.
func appendLevels(dst, lv []byte, limit int) []byte {
	width := bitLen(limit)
	for len(lv) > 0 {
		if n := runLen(lv); n >= 8 || n == len(lv) {
			dst = binary.AppendUvarint(dst, uint64(n)<<1)
			dst = append(dst, lv[0])
			lv = lv[n:]
			continue
		}
		n := 8 // whole groups of eight up to the next long run
		for n < len(lv) && runLen(lv[n:]) < 16 {
			n += 8
		}
		groups := n / 8
		dst = binary.AppendUvarint(dst, uint64(groups)<<1|1)
		for g := range groups {
			var w uint64
			for k := range 8 {
				if i := g*8 + k; i < len(lv) {
					w |= uint64(lv[i]) << (k * width)
				}
			}
			for k := range width {
				dst = append(dst, byte(w>>(8*k)))
			}
		}
		lv = lv[min(n, len(lv)):]
	}
	return dst
}

func runLen(lv []byte) int {
	n := 1
	for n < len(lv) && lv[n] == lv[0] {
		n++
	}
	return n
}

// encode puts n values from value val on into e.body.
func (e *pageEncoder) encode(leaf *wnode, enc format.Encoding, val, n int) error {
	if enc == format.RLEDictionary {
		out, err := (&rle.DictionaryEncoding{}).EncodeInt32(e.body, e.dict.idx[val:val+n])
		if n == 0 {
			out = append(out[:0], 0)
		}
		e.body = out
		return err
	}
	if leaf.physical == format.ByteArray {
		e.takeText(n)
		return e.encodeText(enc)
	}
	if err := e.takeFixed(leaf, n); err != nil {
		return err
	}
	e.stats.fixed(e.vals)
	var err error
	switch enc {
	case format.ByteStreamSplit:
		if leaf.width == 4 {
			e.body, err = (&bytestreamsplit.Encoding{}).EncodeFloat(e.body, as[float32](e.vals))
		} else {
			e.body, err = (&bytestreamsplit.Encoding{}).EncodeDouble(e.body, as[float64](e.vals))
		}
	case format.DeltaBinaryPacked:
		if leaf.width == 4 {
			e.body, err = (&delta.BinaryPackedEncoding{}).EncodeInt32(e.body, as[int32](e.vals))
		} else {
			e.body, err = (&delta.BinaryPackedEncoding{}).EncodeInt64(e.body, as[int64](e.vals))
		}
	case format.RLE: // booleans
		b := append(e.body[:0], 0, 0, 0, 0)
		b = appendLevels(b, e.vals, 1)
		binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
		e.body = b
	default:
		e.body = append(e.body[:0], e.vals...)
		if leaf.physical == format.Boolean {
			e.body = packed(e.body[:0], e.vals)
		}
	}
	return err
}

// packed puts one bit for each byte.
func packed(dst, vals []byte) []byte {
	for i, v := range vals {
		if i&7 == 0 {
			dst = append(dst, 0)
		}
		dst[len(dst)-1] |= v << (i & 7)
	}
	return dst
}

// takeFixed puts the next n values into e.vals.
func (e *pageEncoder) takeFixed(leaf *wnode, n int) error {
	e.vals = e.vals[:0]
	var err error
	for n > 0 {
		r := e.nextRun(&n)
		if e.vals, err = r.fixed(e.vals, leaf); err != nil {
			return err
		}
	}
	return nil
}

// nextRun returns a run of at most *n values and takes it off *n.
func (e *pageEncoder) nextRun(n *int) valueRun {
	r := e.sh.runs[e.run]
	r.from += e.at
	if k := r.to - r.from; k > *n {
		r.to = r.from + *n
		e.at += *n
	} else {
		e.run, e.at = e.run+1, 0
	}
	*n -= r.to - r.from
	return r
}

func (e *pageEncoder) takeText(n int) {
	e.text = e.text[:0]
	for n > 0 {
		r := e.nextRun(&n)
		at := textOf(r.arr)
		for i := r.from; i < r.to; i++ {
			s := at(i)
			e.stats.text(s)
			e.text = append(e.text, s)
		}
	}
}

func (e *pageEncoder) encodeText(enc format.Encoding) error {
	b := e.body[:0]
	if enc == format.Plain {
		for _, s := range e.text {
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
		}
		e.body = b
		return nil
	}
	offs := make([]uint32, 1, len(e.text)+1)
	all := e.scratch[:0]
	for _, s := range e.text {
		all = append(all, s...)
		offs = append(offs, uint32(len(all)))
	}
	e.scratch = all
	var err error
	e.body, err = (&delta.LengthByteArrayEncoding{}).EncodeByteArray(b, all, offs)
	return err
}
