package arrowipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/klauspost/compress/zstd"
)

// A bodyWriter writes the buffers of a batch, one after the other, and notes where
// they are.
type bodyWriter struct {
	compression Compression
	zstd        *zstd.Encoder
	lz4         lz4Writer

	start   int     // of the body in the message
	nodes   []int64 // length and nulls of each node
	buffers []int64 // offset and length of each buffer
	scratch []byte
}

func (w *bodyWriter) begin(start int) {
	w.start, w.nodes, w.buffers = start, w.nodes[:0], w.buffers[:0]
}

// close ends the buffer that begins at from in dst.
func (w *bodyWriter) close(dst []byte, from int) []byte {
	if n := len(dst) - from; n > 0 && w.compression != None && w.compression != "" {
		w.scratch = append(w.scratch[:0], dst[from:]...)
		dst = binary.LittleEndian.AppendUint64(dst[:from], uint64(n))
		if w.compression == Zstd {
			dst = w.zstd.EncodeAll(w.scratch, dst)
		} else {
			dst = w.lz4.appendFrame(dst, w.scratch)
		}
		if len(dst)-from >= n+8 { // then rather as it is
			dst = binary.LittleEndian.AppendUint64(dst[:from], math.MaxUint64)
			dst = append(dst, w.scratch...)
		}
	}
	w.buffers = append(w.buffers, int64(from-w.start), int64(len(dst)-from))
	for (len(dst)-w.start)%8 != 0 {
		dst = append(dst, 0)
	}
	return dst
}

// write writes values [lo, hi) of an array, counted from its offset.
func (w *bodyWriter) write(dst []byte, data arrow.ArrayData, lo, hi int) ([]byte, error) {
	lo, hi = lo+data.Offset(), hi+data.Offset()
	dst = w.validity(dst, data, lo, hi)
	from := len(dst)
	buffers := data.Buffers()
	switch t := data.DataType().(type) {
	case *arrow.BooleanType:
		if lo < hi {
			dst = appendBits(dst, buffers[1].Bytes(), lo, hi)
		}
		return w.close(dst, from), nil
	case *arrow.StringType, *arrow.BinaryType:
		return w.bytes32(dst, data, lo, hi)
	case *arrow.LargeStringType, *arrow.LargeBinaryType:
		return w.bytes64(dst, data, lo, hi)
	case *arrow.ListType:
		dst, first, last := w.offsets32(dst, data, lo, hi)
		return w.write(dst, data.Children()[0], first, last)
	case *arrow.LargeListType:
		dst, first, last := w.offsets64(dst, data, lo, hi)
		return w.write(dst, data.Children()[0], first, last)
	case *arrow.FixedSizeListType:
		n := int(t.Len())
		return w.write(dst, data.Children()[0], lo*n, hi*n)
	case *arrow.StructType:
		for i, c := range data.Children() {
			var err error
			if dst, err = w.write(dst, c, lo, hi); err != nil {
				return dst, fmt.Errorf("%s: %w", t.Field(i).Name, err)
			}
		}
		return dst, nil
	case *arrow.DictionaryType:
		return w.dictionary(dst, data, t, lo, hi)
	case arrow.FixedWidthDataType:
		size := t.BitWidth() / 8
		if lo < hi {
			dst = append(dst, buffers[1].Bytes()[lo*size:hi*size]...)
		}
		return w.close(dst, from), nil
	}
	return dst, fmt.Errorf("%v is not written to Arrow streams", data.DataType())
}

// validity writes the node and which values are not null: nothing when all are.
func (w *bodyWriter) validity(dst []byte, data arrow.ArrayData, lo, hi int) []byte {
	from, nulls := len(dst), 0
	if dict, ok := data.Dictionary().(*array.Data); ok && dict != nil && dict.NullN() > 0 {
		dst, nulls = appendDictionaryBits(dst, data, dict, lo, hi)
	} else if b := data.Buffers()[0]; b != nil && b.Len() > 0 && data.NullN() != 0 {
		if nulls = hi - lo - bitutil.CountSetBits(b.Bytes(), lo, hi-lo); nulls > 0 {
			dst = appendBits(dst, b.Bytes(), lo, hi)
		}
	}
	w.nodes = append(w.nodes, int64(hi-lo), int64(nulls))
	return w.close(dst, from)
}

// appendDictionaryBits appends which indices [lo, hi) stand for something.
func appendDictionaryBits(dst []byte, data, dict arrow.ArrayData, lo, hi int) (out []byte, nulls int) {
	from, size := len(dst), data.DataType().(*arrow.DictionaryType).IndexType.(arrow.FixedWidthDataType).BitWidth()/8
	own, of := data.Buffers()[0], dict.Buffers()[0].Bytes()
	for i := lo; i < hi; i++ {
		if (i-lo)%8 == 0 {
			dst = append(dst, 0)
		}
		null := own != nil && own.Len() > 0 && bitutil.BitIsNotSet(own.Bytes(), i)
		if !null {
			k := indexAt(data.Buffers()[1].Bytes(), size, i)
			null = k < uint64(dict.Len()) && bitutil.BitIsNotSet(of, int(k)+dict.Offset())
		}
		if null {
			nulls++
		} else {
			bitutil.SetBit(dst[from:], i-lo)
		}
	}
	return dst, nulls
}

// appendBits appends bits [lo, hi) of src, beginning with a new byte.
func appendBits(dst, src []byte, lo, hi int) []byte {
	if lo == hi {
		return dst
	}
	from, size := len(dst), (hi-lo+7)/8
	for range size {
		dst = append(dst, 0)
	}
	bitutil.CopyBitmap(src, lo, hi-lo, dst[from:], 0)
	return dst
}

// offsets32 writes offsets so that the first is 0, and returns what they were.
func (w *bodyWriter) offsets32(dst []byte, data arrow.ArrayData, lo, hi int) (out []byte, first, last int) {
	from := len(dst)
	if lo == hi {
		return w.close(append(dst, 0, 0, 0, 0), from), 0, 0
	}
	off := arrow.Int32Traits.CastFromBytes(data.Buffers()[1].Bytes())[lo : hi+1]
	for _, o := range off {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(o-off[0]))
	}
	return w.close(dst, from), int(off[0]), int(off[hi-lo])
}

func (w *bodyWriter) offsets64(dst []byte, data arrow.ArrayData, lo, hi int) (out []byte, first, last int) {
	from := len(dst)
	if lo == hi {
		return w.close(append(dst, 0, 0, 0, 0, 0, 0, 0, 0), from), 0, 0
	}
	off := arrow.Int64Traits.CastFromBytes(data.Buffers()[1].Bytes())[lo : hi+1]
	for _, o := range off {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(o-off[0]))
	}
	return w.close(dst, from), int(off[0]), int(off[hi-lo])
}

func (w *bodyWriter) bytes32(dst []byte, data arrow.ArrayData, lo, hi int) ([]byte, error) {
	dst, first, last := w.offsets32(dst, data, lo, hi)
	from := len(dst)
	if first < last {
		dst = append(dst, data.Buffers()[2].Bytes()[first:last]...)
	}
	return w.close(dst, from), nil
}

func (w *bodyWriter) bytes64(dst []byte, data arrow.ArrayData, lo, hi int) ([]byte, error) {
	dst, first, last := w.offsets64(dst, data, lo, hi)
	from := len(dst)
	if first < last {
		dst = append(dst, data.Buffers()[2].Bytes()[first:last]...)
	}
	return w.close(dst, from), nil
}

var errIndex = errors.New("an index is outside of its dictionary")

// dictionary writes what indices stand for, in two rounds: offsets, then bytes.
func (w *bodyWriter) dictionary(dst []byte, data arrow.ArrayData, t *arrow.DictionaryType, lo, hi int) ([]byte, error) {
	size := t.IndexType.(arrow.FixedWidthDataType).BitWidth() / 8
	large := t.ValueType.ID() == arrow.LARGE_STRING || t.ValueType.ID() == arrow.LARGE_BINARY
	entries := data.Dictionary()
	from, total := len(dst), int64(0)
	dst = appendOffset(dst, 0, large)
	for i := lo; i < hi; i++ {
		entry, err := entryAt(data, entries, size, i, large)
		if err != nil {
			return dst, err
		}
		if total += int64(len(entry)); !large && total > math.MaxInt32 {
			return dst, errors.New("more than 2 GiB of strings in one message")
		}
		dst = appendOffset(dst, total, large)
	}
	dst = w.close(dst, from)
	from = len(dst)
	for i := lo; i < hi; i++ {
		entry, err := entryAt(data, entries, size, i, large)
		if err != nil {
			return dst, err
		}
		dst = append(dst, entry...)
	}
	return w.close(dst, from), nil
}

func appendOffset(dst []byte, v int64, large bool) []byte {
	if large {
		return binary.LittleEndian.AppendUint64(dst, uint64(v))
	}
	return binary.LittleEndian.AppendUint32(dst, uint32(v))
}

// entryAt returns what index i, counted from the buffer's begin, stands for: nothing
// for a null.
func entryAt(data, entries arrow.ArrayData, size, i int, large bool) ([]byte, error) {
	if b := data.Buffers()[0]; b != nil && b.Len() > 0 && bitutil.BitIsNotSet(b.Bytes(), i) {
		return nil, nil
	}
	k := indexAt(data.Buffers()[1].Bytes(), size, i)
	if k >= uint64(entries.Len()) {
		return nil, errIndex
	}
	at := int(k) + entries.Offset()
	b := entries.Buffers()
	if large {
		off := arrow.Int64Traits.CastFromBytes(b[1].Bytes())[at : at+2]
		return span(b[2], off[0], off[1]), nil
	}
	off := arrow.Int32Traits.CastFromBytes(b[1].Bytes())[at : at+2]
	return span(b[2], int64(off[0]), int64(off[1])), nil
}

// span returns bytes lo to hi; the buffer need not be there when there are none.
func span(b *memory.Buffer, lo, hi int64) []byte {
	if lo == hi {
		return nil
	}
	return b.Bytes()[lo:hi]
}
