package parquetio

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// A stringTable gives the strings of a batch their indexes and becomes the
// batch's Arrow dictionary.
type stringTable struct {
	own  bool // the batch has a dictionary of its own
	ids  map[string]int32
	ends []int32
	text []byte

	shared arrow.Array // the chunk's dictionary, once made
}

func (t *stringTable) reset() {
	t.own = false
	clear(t.ids)
	t.ends, t.text = t.ends[:0], t.text[:0] // no key points there any more
}

func (t *stringTable) index(s []byte) (int32, error) {
	if ix, ok := t.ids[string(s)]; ok {
		return ix, nil
	}
	if t.ids == nil {
		t.ids = map[string]int32{}
	}
	n, err := addInt32(len(t.text), len(s))
	if err != nil {
		return 0, err
	}
	from := len(t.text)
	t.text = append(t.text, s...)
	ix := int32(len(t.ends))
	t.ends = append(t.ends, int32(n))
	key := ""
	if len(s) > 0 {
		key = unsafe.String(&t.text[from], len(s))
	}
	t.ids[key] = ix
	return ix, nil
}

// dictionary returns the batch's dictionary, which the caller releases.
func (t *stringTable) dictionary(d *dictionary, mem memory.Allocator) (arrow.Array, error) {
	if t.own {
		return stringArray(mem, len(t.ends), len(t.text), func(i int) []byte {
			from := int32(0)
			if i > 0 {
				from = t.ends[i-1]
			}
			return t.text[from:t.ends[i]]
		})
	}
	if t.shared == nil {
		var err error
		if d == nil { // a chunk of nulls only
			d = &dictionary{}
		}
		t.shared, err = stringArray(mem, len(d.spans), len(d.text), func(i int) []byte {
			return d.text[d.spans[i].from:d.spans[i].to]
		})
		if err != nil {
			return nil, err
		}
	}
	t.shared.Retain()
	return t.shared, nil
}

func (t *stringTable) close() {
	if t.shared != nil {
		t.shared.Release()
		t.shared = nil
	}
}

// stringArray makes a utf8 array of n strings of at most size bytes together.
func stringArray(mem memory.Allocator, n, size int, at func(int) []byte) (arrow.Array, error) {
	offs, text := memory.NewResizableBuffer(mem), memory.NewResizableBuffer(mem)
	defer offs.Release()
	defer text.Release()
	offs.Resize((n + 1) * 4)
	text.Resize(size)
	o, pos := as[int32](offs.Bytes()), 0
	o[0] = 0
	for i := range n {
		pos += copy(text.Bytes()[pos:], at(i))
		o[i+1] = int32(pos)
	}
	d := array.NewData(arrow.BinaryTypes.String, n, []*memory.Buffer{nil, offs, text}, nil, 0, 0)
	defer d.Release()
	return array.NewStringData(d), nil
}

// An assembler turns the levels and values of a batch's leaves into arrays.
type assembler struct {
	mem    memory.Allocator
	leaves map[*node]*leafReader
}

// column builds the array of a column. An entry of its first leaf begins a slot
// of a node below r repeated steps when its repetition level is at most r and
// its definition level reaches need, where the list around the node has an
// element.
func (a *assembler) column(n *node, need int) (arrow.ArrayData, error) {
	switch n.kind {
	case leafNode:
		return a.leaf(n, need)
	case listNode:
		return a.list(n, need)
	}
	first := a.leaves[n.first()]
	slots := first.slots(n.maxRep, need)
	valid, nulls := a.validity(slots, n.maxDef)
	defer drop(&valid)
	length := first.out.entries
	if first.leaf.maxDef > 0 {
		length = len(slots)
	}
	kids := make([]arrow.ArrayData, 0, len(n.children))
	defer func() {
		for _, k := range kids {
			k.Release()
		}
	}()
	for _, c := range n.children {
		k, err := a.column(c, need)
		if err != nil {
			return nil, err
		}
		kids = append(kids, k)
		if k.Len() != length {
			return nil, fmt.Errorf("field %s has %d values, its struct %d", c.path, k.Len(), length)
		}
	}
	return array.NewData(n.typ, length, []*memory.Buffer{valid}, kids, nulls, 0), nil
}

func (a *assembler) list(n *node, need int) (arrow.ArrayData, error) {
	first := a.leaves[n.first()]
	out := &first.out
	slots := first.slots(n.maxRep, need)
	valid, nulls := a.validity(slots, n.maxDef)
	offs := memory.NewResizableBuffer(a.mem)
	defer drop(&valid)
	defer offs.Release()
	offs.Resize((len(slots) + 1) * 4)
	o := as[int32](offs.Bytes())
	elems := 0
	if n.maxRep == 0 && need == 0 && bytes.Count(out.def, []byte{byte(n.first().maxDef)}) == len(out.def) && n.first().maxRep == 1 {
		k := 0
		for i := 0; i < len(out.rep); i++ {
			z := bytes.IndexByte(out.rep[i:], 0)
			if z < 0 {
				break
			}
			i += z
			o[k] = int32(i)
			k++
		}
		elems = len(out.rep)
	} else {
		k := 0
		r, rep, def := byte(n.maxRep), out.rep, out.def
		for i := range rep {
			if rep[i] <= r && int(def[i]) >= need {
				o[k] = int32(elems)
				k++
			}
			if rep[i] <= r+1 && int(def[i]) >= n.elemDef {
				elems++
			}
		}
	}
	o[len(slots)] = int32(elems)
	kid, err := a.column(n.children[0], n.elemDef)
	if err != nil {
		return nil, err
	}
	defer kid.Release()
	if kid.Len() != elems {
		return nil, fmt.Errorf("%d list elements, their leaf has %d", elems, kid.Len())
	}
	return array.NewData(n.typ, len(slots), []*memory.Buffer{valid, offs}, []arrow.ArrayData{kid}, nulls, 0), nil
}

// slots returns the definition levels of the entries that begin a slot; nil for
// a column that has none.
func (c *leafReader) slots(maxRep, need int) []byte {
	rep, def := c.out.rep, c.out.def
	if maxRep >= c.leaf.maxRep && need == 0 {
		return def
	}
	out := make([]byte, 0, len(def))
	for i, d := range def {
		if int(d) >= need && (c.leaf.maxRep == 0 || int(rep[i]) <= maxRep) {
			out = append(out, d)
		}
	}
	return out
}

// validity packs "level reaches full" into bits; nil if all do.
func (a *assembler) validity(slots []byte, full int) (*memory.Buffer, int) {
	nulls := 0
	for _, d := range slots {
		if int(d) < full {
			nulls++
		}
	}
	if nulls == 0 {
		return nil, 0
	}
	b := memory.NewResizableBuffer(a.mem)
	b.Resize((len(slots) + 7) / 8)
	packBits(b.Bytes(), slots, byte(full))
	return b, nulls
}

// packBits sets bit i where lv[i] >= full and clears the others.
func packBits(dst, lv []byte, full byte) {
	i := 0
	for ; i+8 <= len(lv); i += 8 {
		w := binary.LittleEndian.Uint64(lv[i:])
		// Levels are below 128: adding 128-full carries into the top bit.
		w = (w + uint64(128-full)*0x0101010101010101) >> 7 & 0x0101010101010101
		dst[i/8] = byte(w * 0x0102040810204080 >> 56)
	}
	if i < len(lv) {
		dst[i/8] = 0
		for k, d := range lv[i:] {
			if d >= full {
				dst[i/8] |= 1 << k
			}
		}
	}
}

func (a *assembler) leaf(n *node, need int) (arrow.ArrayData, error) {
	c := a.leaves[n]
	o := &c.out
	slots, length := c.slots(n.maxRep, need), o.entries
	if n.maxDef > 0 {
		length = len(slots)
	}
	valid, nulls := a.validity(slots, n.maxDef)
	defer drop(&valid)
	if o.count != length-nulls {
		return nil, fmt.Errorf("%d values for %d slots", o.count, length-nulls)
	}
	if c.isBinary() {
		return c.binary(n, slots, length, nulls, valid)
	}
	w := c.outWidth()
	if o.vals == nil {
		o.vals = memory.NewResizableBuffer(a.mem)
	}
	growBuffer(o.vals, length*w)
	o.vals.ResizeNoShrink(length * w)
	if nulls > 0 {
		expand(o.vals.Bytes(), slots, o.count, byte(n.maxDef), w)
	}
	switch n.typ.ID() {
	case arrow.BOOL:
		b := memory.NewResizableBuffer(a.mem)
		defer b.Release()
		b.Resize((length + 7) / 8)
		packBits(b.Bytes(), o.vals.Bytes(), 1)
		return array.NewData(n.typ, length, []*memory.Buffer{valid, b}, nil, nulls, 0), nil
	case arrow.DICTIONARY:
		dict, err := c.table.dictionary(c.dict, a.mem)
		if err != nil {
			return nil, err
		}
		defer dict.Release()
		return array.NewDataWithDictionary(n.typ, length, []*memory.Buffer{valid, o.vals}, nulls, 0, dict.Data().(*array.Data)), nil
	}
	return array.NewData(n.typ, length, []*memory.Buffer{valid, o.vals}, nil, nulls, 0), nil
}

// binary spreads the ends of the values over the slots.
func (c *leafReader) binary(n *node, slots []byte, length, nulls int, valid *memory.Buffer) (arrow.ArrayData, error) {
	o := &c.out
	offs := memory.NewResizableBuffer(c.mem)
	defer offs.Release()
	offs.Resize((length + 1) * 4)
	dst := as[int32](offs.Bytes())
	dst[0] = 0
	var ends []int32
	if o.ends != nil {
		ends = as[int32](o.ends.Bytes())
	}
	j := 0
	for i := range length {
		if nulls == 0 || int(slots[i]) == n.maxDef {
			j++
		}
		dst[i+1] = 0
		if j > 0 {
			dst[i+1] = ends[j]
		}
	}
	if o.vals == nil {
		o.vals = memory.NewResizableBuffer(c.mem)
	}
	return array.NewData(n.typ, length, []*memory.Buffer{valid, offs, o.vals}, nil, nulls, 0), nil
}

// expand moves the count values at the front of b apart, from the end on, so
// that each stands in its slot; null slots become zero.
func expand(b, slots []byte, count int, full byte, w int) {
	switch w {
	case 1:
		expandTo(b, slots, count, full)
	case 2:
		expandTo(as[uint16](b), slots, count, full)
	case 4:
		expandTo(as[uint32](b), slots, count, full)
	case 8:
		expandTo(as[uint64](b), slots, count, full)
	default:
		for i := len(slots) - 1; i >= 0; i-- {
			d := b[i*w : (i+1)*w]
			if slots[i] == full {
				count--
				copy(d, b[count*w:(count+1)*w])
			} else {
				clear(d)
			}
		}
	}
}

func expandTo[T any](v []T, slots []byte, count int, full byte) {
	var zero T
	for i := len(slots) - 1; i >= 0; i-- {
		if slots[i] == full {
			count--
			v[i] = v[count]
		} else {
			v[i] = zero
		}
	}
}
