package avro

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
)

// integer stores an integer in a column, and reports false when it does not fit.
func (d *decoder) integer(in *instr, v int64) bool {
	c, row := d.table.Columns[in.col], d.table.Row
	switch c.Kind {
	case table.Int64:
		c.I64[row] = v
	case table.Int32:
		c.I32[row] = int32(v)
	case table.Float64:
		c.F64[row] = float64(v)
	case table.Float32:
		c.F32[row] = float32(v)
	case table.Time:
		q, ok := in.x.scale.Of(v)
		c.I64[row] = q
		return ok
	}
	return true
}

// leaf reads what is stored as bytes, and booleans.
func (d *decoder) leaf(in *instr, b []byte, pos int) int {
	c, row := d.table.Columns[in.col], d.table.Row
	var v []byte
	next := pos
	switch in.op {
	case opBool:
		if pos >= len(b) {
			return d.short(in, pos)
		}
		if b[pos] > 1 {
			return d.fail(codec.Syntax, in, pos, "%d is no boolean", b[pos])
		}
		c.SetBool(row, b[pos] == 1)
		return pos + 1
	case opEnum:
		k, next := varint(b, pos)
		if next < 0 || uint64(k) >= uint64(len(in.x.typ.symbols)) {
			if next < 0 {
				return d.badVarint(in, k, pos, next)
			}
			return d.fail(codec.Syntax, in, pos, "symbol %d of an enum of %d", k, len(in.x.typ.symbols))
		}
		return d.store(in, in.x.typ.symbols[k], pos, next)
	}
	if in.n >= 0 {
		if len(b)-pos < in.n {
			return d.short(in, pos)
		}
		v, next = b[pos:pos+in.n], pos+in.n
	} else if v, next = d.bytes(in, b, pos); next < 0 {
		return next
	}
	switch in.op {
	case opText:
		if !utf8.Valid(v) {
			return d.fail(codec.Syntax, in, pos, "a text that is not UTF-8")
		}
	case opUUID:
		d.scratch = appendUUID(d.scratch[:0], v)
		v = d.scratch
	case opDecimal:
		return d.decimal(in, v, pos, next)
	}
	return d.store(in, v, pos, next)
}

// store makes v the value of a String or Binary.
func (d *decoder) store(in *instr, v []byte, pos, next int) int {
	if err := d.table.Columns[in.col].Store(d.table.Row, v); err != nil {
		return d.fail(codec.Size, in, pos, "%w", err)
	}
	return next
}

// bytes reads a length and so many bytes.
func (d *decoder) bytes(in *instr, b []byte, pos int) (v []byte, next int) {
	n, at := varint(b, pos)
	switch {
	case at < 0:
		return nil, d.badVarint(in, n, pos, at)
	case n < 0:
		return nil, d.fail(codec.Syntax, in, pos, "a length of %d", n)
	case n > int64(len(b)-at):
		return nil, d.short(in, pos)
	}
	return b[at : at+int(n)], at + int(n)
}

func appendUUID(dst, v []byte) []byte {
	for i, part := range [][]byte{v[:4], v[4:6], v[6:8], v[8:10], v[10:]} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, part)
	}
	return dst
}

// maxDecimal is the most bytes of a decimal: about 600 digits, where no float
// follows any more.
const maxDecimal = 256

// decimal stores the float that is nearest to a decimal.
func (d *decoder) decimal(in *instr, v []byte, pos, next int) int {
	if len(v) > maxDecimal {
		return d.fail(codec.Invalid, in, pos, "a decimal of %d bytes", len(v))
	}
	if len(v) <= 8 {
		var u uint64
		if len(v) > 0 && v[0] >= 0x80 {
			u = math.MaxUint64
		}
		for _, b := range v {
			u = u<<8 | uint64(b)
		}
		d.scratch = strconv.AppendInt(d.scratch[:0], int64(u), 10)
	} else {
		n := new(big.Int).SetBytes(v)
		if v[0] >= 0x80 {
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(v))))
		}
		d.scratch = n.Append(d.scratch[:0], 10)
	}
	d.scratch = append(d.scratch, 'e')
	d.scratch = strconv.AppendInt(d.scratch, int64(-in.x.typ.scale), 10)
	c, row, width := d.table.Columns[in.col], d.table.Row, 64
	if c.Kind == table.Float32 {
		width = 32
	}
	f, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(d.scratch), len(d.scratch)), width)
	if err != nil {
		return d.fail(codec.Invalid, in, pos, "a decimal that is out of range")
	}
	if width == 32 {
		c.F32[row] = float32(f)
	} else {
		c.F64[row] = f
	}
	return next
}

// block reads how many items follow, none at the end. Where it says how many bytes
// they have, size is that; otherwise it is -1. The position is below zero when it failed.
func (d *decoder) block(in *instr, b []byte, pos int) (count, size int64, next int) {
	count, next = varint(b, pos)
	if next < 0 {
		return 0, 0, d.badVarint(in, count, pos, next)
	}
	if size = -1; count >= 0 {
		return count, size, next
	}
	if count == math.MinInt64 {
		return 0, 0, d.fail(codec.Syntax, in, pos, "a block of %d items", count)
	}
	at := next
	size, next = varint(b, at)
	switch {
	case next < 0:
		return 0, 0, d.badVarint(in, size, at, next)
	case size < 0 || size > int64(len(b)-next):
		return 0, 0, d.fail(codec.Syntax, in, at, "a block of %d bytes where %d are left", size, len(b)-next)
	}
	return -count, size, next
}

// list reads an array into a List.
func (d *decoder) list(in *instr, b []byte, pos int) int {
	c, row := d.table.Columns[in.col], d.table.Row
	dst := c.F32[row*c.Width : (row+1)*c.Width]
	at, n := pos, int64(0)
	for {
		count, _, next := d.block(in, b, at)
		if next < 0 {
			return next
		}
		if at = next; count == 0 {
			break
		}
		if count > int64(len(b)-at) { // each has a byte or more
			return d.short(in, at)
		}
		if count > int64(c.Width)-n { // too many; for the message they are counted to the end of the block
			return d.fail(codec.Invalid, in, pos, "%d elements or more, want %d", n+count, c.Width)
		}
		for range count {
			if at = d.element(in, dst, int(n), b, at); at < 0 {
				return at
			}
			n++
		}
	}
	if int(n) != c.Width {
		return d.fail(codec.Invalid, in, pos, "%d elements, want %d", n, c.Width)
	}
	return at
}

// element reads element i of a List.
func (d *decoder) element(in *instr, dst []float32, i int, b []byte, pos int) int {
	t := in.x.typ.items
	if t.kind == kUnion {
		v, next := varint(b, pos)
		if next < 0 || uint64(v) >= uint64(len(t.branches)) {
			return d.badVarint(in, v, pos, next)
		}
		if t, pos = t.branches[v], next; t.kind == kNull {
			d.table.Columns[in.col].NullElement(d.table.Row, i)
			return pos
		}
	}
	switch t.kind {
	case kFloat:
		if len(b)-pos < 4 {
			return d.short(in, pos)
		}
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[pos:]))
		return pos + 4
	case kDouble:
		if len(b)-pos < 8 {
			return d.short(in, pos)
		}
		dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b[pos:])))
		return pos + 8
	}
	v, next := varint(b, pos)
	if next < 0 || t.kind == kInt && int64(int32(v)) != v {
		return d.badVarint(in, v, pos, next)
	}
	dst[i] = float32(v)
	return next
}

// array reads the elements that columns ask for by index.
func (d *decoder) array(in *instr, b []byte, pos int) int {
	d.null(in.x.columns)
	for n := 0; ; {
		count, size, next := d.block(in, b, pos)
		if next < 0 || count == 0 {
			return next
		}
		pos = next
		if in.x.typ.width != 0 && count > int64(len(b)-pos) {
			return d.short(in, pos)
		}
		end := pos + int(size)
		for count > 0 && n < len(in.x.parts) {
			if part := in.x.parts[n]; part != nil {
				d.revive(part.columns)
				pos = d.run(part.code, b, pos)
			} else {
				pos = d.skip(in, in.x.typ, b, pos, 1)
			}
			if pos < 0 {
				return pos
			}
			n, count = n+1, count-1
		}
		if count > 0 && size >= 0 {
			if pos > end {
				return d.fail(codec.Syntax, in, pos, "a block that is longer than it says")
			}
			pos = end
		} else if pos = d.skipItems(in, in.x.typ, false, count, b, pos, 1); pos < 0 {
			return pos
		}
	}
}

// keyed reads the values of a map that columns ask for by key.
func (d *decoder) keyed(in *instr, b []byte, pos int) int {
	d.null(in.x.columns)
	for {
		count, _, next := d.block(in, b, pos)
		if next < 0 || count == 0 {
			return next
		}
		pos = next
		if count > int64(len(b)-pos) {
			return d.short(in, pos)
		}
		for range count {
			key, next := d.bytes(in, b, pos)
			if next < 0 {
				return next
			}
			if e := in.x.keyed[string(key)]; e != nil {
				d.revive(e.columns)
				pos = d.run(e.code, b, next)
			} else {
				pos = d.skip(in, in.x.typ, b, next, 1)
			}
			if pos < 0 {
				return pos
			}
		}
	}
}

// skip steps over a value that is so deep below one that is read.
func (d *decoder) skip(in *instr, t *typ, b []byte, pos, depth int) int {
	if depth > MaxDepth {
		return d.fail(codec.Syntax, in, pos, "nested deeper than %d", MaxDepth)
	}
	if t.width >= 0 {
		if len(b)-pos < t.width {
			return d.short(in, pos)
		}
		return pos + t.width
	}
	switch t.kind {
	case kInt, kLong, kEnum:
		v, next := varint(b, pos)
		if next < 0 || t.kind != kLong && int64(int32(v)) != v || t.kind == kEnum && uint64(v) >= uint64(len(t.symbols)) {
			return d.badVarint(in, v, pos, next)
		}
		return next
	case kString, kBytes:
		_, next := d.bytes(in, b, pos)
		return next
	case kRecord:
		for i := range t.fields {
			if pos = d.skip(in, t.fields[i].typ, b, pos, depth+1); pos < 0 {
				return pos
			}
		}
		return pos
	case kUnion:
		v, next := varint(b, pos)
		if next < 0 || uint64(v) >= uint64(len(t.branches)) {
			return d.badVarint(in, v, pos, next)
		}
		return d.skip(in, t.branches[v], b, next, depth+1)
	}
	for { // arrays and maps
		count, size, next := d.block(in, b, pos)
		if next < 0 || count == 0 {
			return next
		}
		if pos = next; size >= 0 {
			pos += int(size)
		} else if pos = d.skipItems(in, t.items, t.kind == kMap, count, b, pos, depth+1); pos < 0 {
			return pos
		}
	}
}

// skipItems steps over so many items of an array or a map. Those without a byte are
// not counted through: there may be very many.
func (d *decoder) skipItems(in *instr, t *typ, keyed bool, count int64, b []byte, pos, depth int) int {
	if t.width == 0 && !keyed || count == 0 {
		return pos
	}
	if count > int64(len(b)-pos) {
		return d.short(in, pos)
	}
	for range count {
		if keyed {
			if _, pos = d.bytes(in, b, pos); pos < 0 {
				return pos
			}
		}
		if pos = d.skip(in, t, b, pos, depth); pos < 0 {
			return pos
		}
	}
	return pos
}
