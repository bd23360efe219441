package parquetio

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/parquet-go/parquet-go/format"
)

// A leafReader walks one column chunk and collects its values batch by batch.
type leafReader struct {
	pages
	leaf        *node
	mem         memory.Allocator
	page        page
	dict        *dictionary
	entriesLeft int64
	fresh       bool // no entry was read yet

	repBuf, defBuf, valBuf []byte
	idxBuf                 []int32
	spanBuf                []span

	out   leafBatch
	table stringTable
}

// A leafBatch is what a leafReader collected since the last batch.
type leafBatch struct {
	entries  int
	rep, def []byte
	count    int // values that are there
	vals     *memory.Buffer
	used     int            // bytes of vals
	ends     *memory.Buffer // binary: the end of each value, after a leading 0
}

// newLeafReader begins a column chunk, in the buffers of an earlier one if there
// are any.
func newLeafReader(f *File, group int, leaf *node, mem memory.Allocator, sh *shared) *leafReader {
	m := &f.meta.RowGroups[group].Columns[leaf.chunk].MetaData
	c := f.spare()
	*c = leafReader{
		pages: pages{r: f.r, off: chunkStart(m), left: m.TotalCompressedSize, codec: m.Codec, sh: sh, body: c.body},
		leaf:  leaf, mem: mem, entriesLeft: m.NumValues, fresh: true,
		repBuf: c.repBuf, defBuf: c.defBuf, valBuf: c.valBuf, idxBuf: c.idxBuf, spanBuf: c.spanBuf,
		out: leafBatch{rep: c.out.rep, def: c.out.def},
	}
	return c
}

// maxSpare bounds the buffers that a file keeps for its next scan: as many leaf
// readers, which hold about a page each.
const maxSpare = 1024

// spare returns a leaf reader whose buffers may be used again.
func (f *File) spare() *leafReader {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.spares)
	if n == 0 {
		return &leafReader{}
	}
	c := f.spares[n-1]
	f.spares = f.spares[:n-1]
	return c
}

// keep takes the leaf readers of a scan that has ended.
func (f *File) keep(c *leafReader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.spares) < maxSpare && cap(c.body)+cap(c.valBuf) <= 8<<20 {
		f.spares = append(f.spares, c)
	}
}

func (c *leafReader) isText() bool   { return c.leaf.typ.ID() == arrow.DICTIONARY }
func (c *leafReader) isBinary() bool { return c.leaf.typ.ID() == arrow.BINARY }

// outWidth is the number of bytes a value takes in the batch; booleans take one
// until they are packed.
func (c *leafReader) outWidth() int {
	switch c.leaf.typ.ID() {
	case arrow.INT8, arrow.UINT8, arrow.BOOL:
		return 1
	case arrow.INT16, arrow.UINT16:
		return 2
	case arrow.DICTIONARY:
		return 4
	}
	return c.leaf.width
}

// load decodes the next data page; io.EOF is the end of the chunk.
func (c *leafReader) load() error {
	for {
		h, body, err := c.next()
		if err != nil {
			return err
		}
		switch h.Type {
		case format.DictionaryPage:
			err = c.readDictionary(h, body)
		case format.DataPage:
			err = c.v1(h, body)
		case format.DataPageV2:
			err = c.v2(h, body)
		}
		if err != nil {
			return err
		}
		c.num++
		if (h.Type == format.DataPage || h.Type == format.DataPageV2) && c.page.n > 0 {
			return nil
		}
	}
}

// take collects the entries of the next rows rows.
func (c *leafReader) take(rows int) error {
	c.reset(rows)
	if c.leaf.maxRep > 0 {
		return c.takeRepeated(rows)
	}
	for rows > 0 {
		p := &c.page
		if p.pos == p.n {
			if err := c.load(); err != nil {
				return c.ended(err)
			}
			continue
		}
		k := min(rows, p.n-p.pos)
		if err := c.takeEntries(k); err != nil {
			return err
		}
		rows -= k
	}
	return nil
}

// takeRepeated takes entries up to the row after the last one wanted. A row may
// go on in the next page, so that page is looked at before the batch ends.
func (c *leafReader) takeRepeated(rows int) error {
	for started := 0; ; {
		p := &c.page
		if p.pos == p.n {
			if c.entriesLeft == 0 && started == rows {
				return nil
			}
			if err := c.load(); err != nil {
				return c.ended(err)
			}
			continue
		}
		i, full := p.pos, false
		for i < p.n {
			z := bytes.IndexByte(p.rep[i:], 0)
			if z < 0 {
				i = p.n
				break
			}
			i += z
			if full = started == rows; full {
				break
			}
			started++
			i++
		}
		if err := c.takeEntries(i - p.pos); err != nil {
			return err
		}
		if full {
			return nil
		}
	}
}

func (c *leafReader) ended(err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the column chunk %w: its pages hold fewer rows than the footer says", errShort)
	}
	return err
}

// finished says whether the chunk holds no more than what was taken.
func (c *leafReader) finished() error {
	if c.entriesLeft != 0 || c.page.pos != c.page.n {
		return errors.New("the column chunk holds more rows than the footer says")
	}
	return nil
}

func (c *leafReader) reset(rows int) {
	o := &c.out
	o.entries, o.count, o.used = 0, 0, 0
	o.rep, o.def = o.rep[:0], o.def[:0]
	drop(&o.vals)
	drop(&o.ends)
	c.table.reset()
	if c.leaf.maxRep == 0 && !c.isBinary() {
		o.vals = memory.NewResizableBuffer(c.mem)
		o.vals.ResizeNoShrink(rows * c.outWidth())
	}
}

// takeEntries moves k entries of the page to the batch.
func (c *leafReader) takeEntries(k int) error {
	p, o := &c.page, &c.out
	vals := k
	if p.rep != nil {
		o.rep = append(o.rep, p.rep[p.pos:p.pos+k]...)
	}
	if p.def != nil {
		def := p.def[p.pos : p.pos+k]
		o.def = append(o.def, def...)
		vals = bytes.Count(def, []byte{byte(c.leaf.maxDef)})
	}
	p.pos += k
	o.entries += k
	if vals == 0 {
		return nil
	}
	err := c.takeValues(vals)
	p.val += vals
	o.count += vals
	return err
}

func (c *leafReader) takeValues(k int) error {
	p := &c.page
	switch {
	case c.isText():
		return c.takeText(k)
	case c.isBinary():
		return c.takeBinary(k)
	}
	w := c.leaf.width
	ow := c.outWidth()
	dst, err := c.grow(k * ow)
	if err != nil {
		return err
	}
	if p.idx != nil {
		idx := p.idx[p.val : p.val+k]
		if ow == w {
			gather(dst, c.dict.raw, idx, w)
			return nil
		}
		c.valBuf = scratch(&c.valBuf, k*w)
		gather(c.valBuf, c.dict.raw, idx, w)
		return narrow(dst, c.valBuf[:k*w], c.leaf.typ.ID())
	}
	if c.leaf.physical == format.Boolean {
		copy(dst, p.raw[p.val:p.val+k])
		return nil
	}
	src := p.raw[p.val*w : (p.val+k)*w]
	if ow != w {
		return narrow(dst, src, c.leaf.typ.ID())
	}
	copy(dst, src)
	return nil
}

// grow makes room for n more bytes of values and returns it.
func (c *leafReader) grow(n int) ([]byte, error) {
	o := &c.out
	need, err := addInt32(o.used, n)
	if err != nil {
		return nil, err
	}
	if o.vals == nil {
		o.vals = memory.NewResizableBuffer(c.mem)
	}
	growBuffer(o.vals, need)
	dst := o.vals.Bytes()[o.used:need]
	o.used = need
	return dst, nil
}

func growBuffer(b *memory.Buffer, need int) {
	if need <= b.Len() {
		return
	}
	if need > b.Cap() {
		b.Reserve(max(need, b.Cap()+b.Cap()/2, 1<<10))
	}
	b.ResizeNoShrink(need)
}

// gather looks up indexes, which are in range.
func gather(dst, table []byte, idx []int32, w int) {
	switch w {
	case 4:
		lookup(as[uint32](dst), as[uint32](table), idx)
	case 8:
		lookup(as[uint64](dst), as[uint64](table), idx)
	default:
		for i, ix := range idx {
			copy(dst[i*w:(i+1)*w], table[int(ix)*w:])
		}
	}
}

func lookup[T uint32 | uint64](dst, table []T, idx []int32) {
	dst = dst[:len(idx)]
	for i, ix := range idx {
		dst[i] = table[ix]
	}
}

// narrow stores 32-bit values in the 8 or 16 bits that the column's logical
// type says; a value that does not fit is damage.
func narrow(dst, src []byte, id arrow.Type) error {
	vals := as[int32](src)
	ok := true
	switch id {
	case arrow.INT8:
		for i, v := range vals {
			ok = ok && v == int32(int8(v))
			dst[i] = byte(v)
		}
	case arrow.UINT8:
		for i, v := range vals {
			ok = ok && v == int32(uint8(v))
			dst[i] = byte(v)
		}
	case arrow.INT16:
		out := as[int16](dst)
		for i, v := range vals {
			ok = ok && v == int32(int16(v))
			out[i] = int16(v)
		}
	case arrow.UINT16:
		out := as[uint16](dst)
		for i, v := range vals {
			ok = ok && v == int32(uint16(v))
			out[i] = uint16(v)
		}
	}
	if !ok {
		return fmt.Errorf("a value does not fit %v", id)
	}
	return nil
}

func (c *leafReader) takeBinary(k int) error {
	p, o := &c.page, &c.out
	if o.ends == nil {
		o.ends = memory.NewResizableBuffer(c.mem)
		growBuffer(o.ends, 4)
		as[int32](o.ends.Bytes())[0] = 0
	}
	growBuffer(o.ends, (o.count+k+1)*4)
	ends := as[int32](o.ends.Bytes())
	spans, text := p.spans, p.text
	if p.idx != nil {
		spans, text = c.dict.spans, c.dict.text
	}
	for i := range k {
		j := p.val + i
		if p.idx != nil {
			j = int(p.idx[j])
		}
		s := spans[j]
		dst, err := c.grow(int(s.to - s.from))
		if err != nil {
			return err
		}
		copy(dst, text[s.from:s.to])
		ends[o.count+i+1] = int32(o.used)
	}
	return nil
}

// takeText collects dictionary indexes. As long as a batch has only values from
// the chunk's dictionary, that is its dictionary; a plain value makes the batch
// build its own.
func (c *leafReader) takeText(k int) error {
	p, o, t := &c.page, &c.out, &c.table
	dst, err := c.grow(k * 4)
	if err != nil {
		return err
	}
	idx := as[int32](dst)
	if p.idx != nil && !t.own {
		copy(idx, p.idx[p.val:p.val+k])
		return nil
	}
	if !t.own {
		t.own = true
		before := as[int32](o.vals.Bytes()[:o.count*4])
		for i, ix := range before {
			s := c.dict.spans[ix]
			if before[i], err = t.index(c.dict.text[s.from:s.to]); err != nil {
				return err
			}
		}
	}
	spans, text := p.spans, p.text
	if p.idx != nil {
		spans, text = c.dict.spans, c.dict.text
	}
	for i := range k {
		j := p.val + i
		if p.idx != nil {
			j = int(p.idx[j])
		}
		s := spans[j]
		if idx[i], err = t.index(text[s.from:s.to]); err != nil {
			return err
		}
	}
	return nil
}

func (c *leafReader) close() {
	drop(&c.out.vals)
	drop(&c.out.ends)
	c.table.close()
}

func drop(b **memory.Buffer) {
	if *b != nil {
		(*b).Release()
		*b = nil
	}
}
