package parquetio

import (
	"bytes"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// onePage is a chunk of one page with body as it stands, and the leaf to read
// it with. kind picks the type and the levels, enc the encoding.
func onePage(body []byte, kind, enc, codec byte, n, rows uint16, v2 bool, rep, def uint16) (*leafReader, *node) {
	leaf := &node{name: "x", path: "x", kind: leafNode}
	switch kind % 8 {
	case 0:
		leaf.physical, leaf.width, leaf.typ = format.Float, 4, arrow.PrimitiveTypes.Float32
	case 1:
		leaf.physical, leaf.width, leaf.typ = format.Int64, 8, arrow.PrimitiveTypes.Int64
	case 2:
		leaf.physical, leaf.typ = format.Boolean, arrow.FixedWidthTypes.Boolean
	case 3:
		leaf.physical, leaf.typ = format.ByteArray, stringType
	case 4:
		leaf.physical, leaf.typ = format.ByteArray, arrow.BinaryTypes.Binary
	case 5:
		leaf.physical, leaf.width, leaf.typ = format.FixedLenByteArray, 3, &arrow.FixedSizeBinaryType{ByteWidth: 3}
	case 6:
		leaf.physical, leaf.width, leaf.typ = format.Int32, 4, arrow.PrimitiveTypes.Int8
	case 7:
		leaf.physical, leaf.width, leaf.typ = format.Int32, 4, arrow.PrimitiveTypes.Uint32
	}
	column := leaf
	if kind&8 != 0 {
		leaf.optional, leaf.maxDef = true, 1
	}
	if kind&16 != 0 {
		leaf.maxDef += 2
		leaf.maxRep = 1
		column = &node{name: "x", path: "x", kind: listNode, optional: true, maxDef: 1, elemDef: 2, children: []*node{leaf}}
		column.typ = listOf(leaf)
	}
	h := format.PageHeader{Type: format.DataPage, CompressedPageSize: int32(len(body)), UncompressedPageSize: int32(len(body))}
	if v2 {
		h.Type = format.DataPageV2
		h.DataPageHeaderV2.Valid = true
		h.DataPageHeaderV2.V = format.DataPageHeaderV2{NumValues: int32(n), Encoding: format.Encoding(enc % 10), RepetitionLevelsByteLength: int32(rep), DefinitionLevelsByteLength: int32(def)}
	} else {
		h.DataPageHeader.Valid = true
		h.DataPageHeader.V = format.DataPageHeader{NumValues: int32(n), Encoding: format.Encoding(enc % 10), RepetitionLevelEncoding: format.RLE, DefinitionLevelEncoding: format.RLE}
	}
	var b bytes.Buffer
	if err := thrift.NewEncoder((&thrift.CompactProtocol{}).NewWriter(&b)).Encode(&h); err != nil {
		panic(err)
	}
	b.Write(body)
	c := &leafReader{leaf: leaf, fresh: true, entriesLeft: int64(n), page: page{},
		pages: pages{r: bytes.NewReader(b.Bytes()), left: int64(b.Len()), codec: format.CompressionCodec(codec % 8), sh: &shared{}}}
	c.dict = &dictionary{width: leaf.width, raw: make([]byte, 10*leaf.width)}
	if leaf.physical == format.ByteArray {
		c.dict.text, c.dict.spans = []byte("abc"), []span{{0, 1}, {1, 3}, {3, 3}}
	}
	return c, column
}

// FuzzPage decodes any bytes as a page of any type and encoding, past headers
// and checksums: errors and panics that become errors, but no crash, and what
// comes out is a valid array.
func FuzzPage(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 3, 1, 0, 0, 0, 1}, byte(8), byte(0), byte(0), uint16(1), uint16(1), false, uint16(0), uint16(0))
	for kind := range byte(32) {
		for enc := range byte(10) {
			f.Add([]byte{128, 1, 4, 3, 2, 0, 0, 0, 1, 2, 3, 0, 0}, kind, enc, byte(0), uint16(3), uint16(3), enc%2 == 0, uint16(2), uint16(2))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, kind, enc, codec byte, n, rows uint16, v2 bool, rep, def uint16) {
		mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
		defer mem.AssertSize(t, 0)
		c, column := onePage(body, kind, enc, codec, n, rows, v2, rep, def)
		c.mem = mem
		file := &File{meta: &format.FileMetaData{}, name: "fuzz"}
		s := &scan{f: file, nodes: []*node{column}, sh: c.sh, asm: assembler{mem: mem, leaves: map[*node]*leafReader{c.leaf: c}}}
		defer s.close()
		if err := s.take(column, int(rows)); err != nil {
			return
		}
		a, err := s.build(column, int(rows))
		if err != nil {
			return
		}
		for i := range a.Len() { // touch every value
			if l, ok := a.(*array.List); ok {
				from, to := l.ValueOffsets(i)
				for k := from; k < to; k++ {
					_ = l.ListValues().ValueStr(int(k))
				}
				continue
			}
			_ = a.ValueStr(i)
		}
		a.Release()
	})
}

func TestFooterLengthIsNotBelieved(t *testing.T) {
	for _, b := range [][]byte{
		[]byte("PAR1PAR1"), []byte("PAR1\x00\x00\x00\x00PAR1"), []byte("PAR1xxxxxxxxxxxx\xff\xff\xff\x7fPAR1"), []byte("PAR1\xff\xff\xff\xffPAR1"),
	} {
		if _, err := Open(bytes.NewReader(b), int64(len(b)), "x"); err == nil {
			t.Errorf("%q: no error", b)
		}
	}
}
