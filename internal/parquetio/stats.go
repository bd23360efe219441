package parquetio

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/parquet-go/parquet-go/format"
)

// statistics collects the least and greatest value of a chunk.
type statistics struct {
	leaf   *wnode
	any    bool
	lo, hi []byte // text, or one plain value
}

// maxStatBytes is the longest string that goes into statistics.
const maxStatBytes = 256

func (s *statistics) reset(leaf *wnode) {
	*s = statistics{leaf: leaf, lo: s.lo[:0], hi: s.hi[:0]}
}

// text takes a string or binary value.
func (s *statistics) text(v []byte) {
	if !s.any || bytes.Compare(v, s.lo) < 0 {
		s.lo = append(s.lo[:0], v...)
	}
	if !s.any || bytes.Compare(v, s.hi) > 0 {
		s.hi = append(s.hi[:0], v...)
	}
	s.any = true
}

// fixed takes values in their stored form.
func (s *statistics) fixed(vals []byte) {
	if len(vals) == 0 {
		return
	}
	switch s.leaf.physical {
	case format.Boolean:
		bounds(s, as[uint8](vals))
	case format.Float:
		bounds(s, as[float32](vals))
	case format.Double:
		bounds(s, as[float64](vals))
	case format.Int32:
		if isUnsigned(s.leaf.typ) {
			bounds(s, as[uint32](vals))
		} else {
			bounds(s, as[int32](vals))
		}
	case format.Int64:
		if isUnsigned(s.leaf.typ) {
			bounds(s, as[uint64](vals))
		} else {
			bounds(s, as[int64](vals))
		}
	case format.FixedLenByteArray:
		for w := s.leaf.width; len(vals) >= w; vals = vals[w:] {
			s.text(vals[:w])
		}
	}
}

func isUnsigned(t arrow.DataType) bool { return arrow.IsUnsignedInteger(t.ID()) }

// bounds widens the bounds by v. NaN is left out, since no comparison with it
// holds; if there is nothing else, there are no bounds.
func bounds[T uint8 | int32 | uint32 | int64 | uint64 | float32 | float64](s *statistics, v []T) {
	for len(v) > 0 && v[0] != v[0] {
		v = v[1:]
	}
	if len(v) == 0 {
		return
	}
	lo, hi := v[0], v[0]
	for _, x := range v {
		if x < lo {
			lo = x
		}
		if x > hi {
			hi = x
		}
	}
	if s.any {
		lo, hi = min(lo, as[T](s.lo)[0]), max(hi, as[T](s.hi)[0])
	}
	s.lo, s.hi = append(s.lo[:0], asBytes([]T{lo})...), append(s.hi[:0], asBytes([]T{hi})...)
	s.any = true
}

// result returns the chunk's statistics. The format asks for -0 as the least
// and +0 as the greatest zero.
func (s *statistics) result(nulls int64) format.Statistics {
	st := format.Statistics{NullCount: nulls}
	if !s.any || len(s.lo) > maxStatBytes || len(s.hi) > maxStatBytes {
		return st
	}
	switch s.leaf.physical {
	case format.Float:
		signZero(as[float32](s.lo), as[float32](s.hi))
	case format.Double:
		signZero(as[float64](s.lo), as[float64](s.hi))
	}
	st.MinValue, st.MaxValue = bytes.Clone(s.lo), bytes.Clone(s.hi)
	if st.MinValue == nil {
		st.MinValue = []byte{}
	}
	if st.MaxValue == nil {
		st.MaxValue = []byte{}
	}
	return st
}

func signZero[T float32 | float64](lo, hi []T) {
	if lo[0] == 0 {
		lo[0] = T(math.Copysign(0, -1))
	}
	if hi[0] == 0 {
		hi[0] = 0
	}
}

// A dictBuilder makes the dictionary of a chunk.
type dictBuilder struct {
	leaf  *wnode
	ids   map[string]int32
	ends  []int
	table []byte
	idx   []int32
}

const (
	maxDictBytes = 1 << 20
	dictSample   = 1 << 16 // values after which a dictionary that grows is given up
)

func (d *dictBuilder) len() int { return len(d.ends) }

func (d *dictBuilder) add(v []byte) int32 {
	if id, ok := d.ids[string(v)]; ok {
		return id
	}
	id := int32(len(d.ends))
	d.table = append(d.table, v...)
	d.ends = append(d.ends, len(d.table))
	d.ids[string(v)] = id
	return id
}

// build collects the values of a leaf and says whether a dictionary pays: table
// and indexes below 0.8 of the plain values, and the table at most 1 MiB.
func (d *dictBuilder) build(leaf *wnode, runs []valueRun, n int, force bool) bool {
	if d.ids == nil {
		d.ids = map[string]int32{}
	}
	clear(d.ids)
	d.leaf, d.ends, d.table = leaf, d.ends[:0], d.table[:0]
	d.idx = d.idx[:0]
	if n == 0 {
		return false
	}
	size := 0
	var fixed []byte
	for _, r := range runs {
		if leaf.physical != format.ByteArray {
			var err error
			if fixed, err = r.fixed(fixed[:0], leaf); err != nil {
				return false
			}
			for w := leaf.width; len(fixed) >= w; fixed = fixed[w:] {
				size += w
				d.idx = append(d.idx, d.add(fixed[:w]))
			}
		} else {
			size += d.textRun(r)
		}
		if !force && (len(d.table) > maxDictBytes || len(d.idx) >= dictSample && len(d.ends) > len(d.idx)/2) {
			return false
		}
	}
	packed := len(d.table) + 4*len(d.ends) + n*bits.Len(uint(len(d.ends)))/8
	return force || float64(packed) < 0.8*float64(size)
}

// textRun adds a run of strings and returns their plain size. The entries of an
// Arrow dictionary are looked up once each.
func (d *dictBuilder) textRun(r valueRun) (size int) {
	if a, ok := r.arr.(*array.Dictionary); ok && r.to-r.from > a.Dictionary().Len() {
		at := textOf(a.Dictionary())
		ids := make([]int32, a.Dictionary().Len())
		for i := range ids {
			ids[i] = -1
		}
		for i := r.from; i < r.to; i++ {
			k := a.GetValueIndex(i)
			if ids[k] < 0 {
				ids[k] = d.add(at(k))
			}
			size += 4 + len(at(k))
			d.idx = append(d.idx, ids[k])
		}
		return size
	}
	at := textOf(r.arr)
	for i := r.from; i < r.to; i++ {
		s := at(i)
		size += 4 + len(s)
		d.idx = append(d.idx, d.add(s))
	}
	return size
}

// each hands the table's values to one of two functions.
func (d *dictBuilder) each(text, fixed func([]byte)) {
	if d.leaf.physical != format.ByteArray {
		fixed(d.table)
		return
	}
	from := 0
	for _, to := range d.ends {
		text(d.table[from:to])
		from = to
	}
}

// plain appends the dictionary page's values.
func (d *dictBuilder) plain(dst []byte) []byte {
	if d.leaf.physical != format.ByteArray {
		return append(dst, d.table...)
	}
	from := 0
	for _, to := range d.ends {
		dst = append(binary.LittleEndian.AppendUint32(dst, uint32(to-from)), d.table[from:to]...)
		from = to
	}
	return dst
}

func stringBytes(s string) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice(unsafe.StringData(s), len(s))
}

// textSize is about the number of bytes in values [from, to).
func textSize(a arrow.Array, from, to int) int {
	if from >= to {
		return 0
	}
	switch a := a.(type) {
	case *array.String:
		return a.ValueOffset(to) - a.ValueOffset(from)
	case *array.Binary:
		o := a.ValueOffsets()
		return int(o[to] - o[from])
	case *array.Dictionary:
		n := a.Dictionary().Len()
		if n == 0 {
			return 0
		}
		return (to - from) * (textSize(a.Dictionary(), 0, n)/n + 1)
	}
	at, n := textOf(a), 0
	for i := from; i < to; i++ {
		n += len(at(i))
	}
	return n
}

// RecordBytes is about the number of bytes that the rows of rec take in memory:
// what counts towards a row group or a file. Slices count only their rows.
func RecordBytes(rec arrow.Record) int64 {
	n := int64(0)
	for _, c := range rec.Columns() {
		n += arrayBytes(c, 0, c.Len())
	}
	return n
}

func arrayBytes(a arrow.Array, from, to int) int64 {
	if from >= to {
		return 0
	}
	rows := int64(to - from)
	switch a := a.(type) {
	case *array.Struct:
		n := rows / 8
		for i := range a.NumField() {
			n += arrayBytes(a.Field(i), from, to)
		}
		return n
	case array.ListLike:
		f, _ := a.ValueOffsets(from)
		_, t := a.ValueOffsets(to - 1)
		return rows*4 + arrayBytes(a.ListValues(), int(f), int(t))
	case *array.Dictionary:
		return rows * 4
	case *array.String, *array.LargeString, *array.Binary, *array.LargeBinary:
		return rows*4 + int64(textSize(a, from, to))
	}
	if t, ok := a.DataType().(arrow.FixedWidthDataType); ok {
		return rows * int64(t.BitWidth()+1) / 8
	}
	return rows
}
