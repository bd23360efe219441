package vae

import (
	"fmt"
	"time"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// A step is one model column, as a Packer reads it from one Arrow type.
type step struct {
	cellReader
	how       how
	id        arrow.Type // of the column
	num       arrow.Type // of its numbers: its own, or a list's elements'
	feature   int        // the first
	features  int
	indicator int // the input that says the column is missing, or -1
	unit      bool
	log1p     bool
	truth     bool // a number counts as 1 unless it is 0
	narrow    bool // float32 numbers, standardised in float32
	whole     bool // a list of them, which can be packed a row at a time
	exact     bool // standardised by division
	index     int  // of the column among the model's
	levels    map[string]uint8
	others    bool   // levels beyond these are no news
	turns     []turn // of a time
	perSecond int64  // units of a timestamp
}

// how says which loop packs a column.
type how uint8

const (
	flat    how = iota // one number a row
	bitmap             // a boolean, as 0 and 1
	vector             // a list of numbers
	instant            // a time
	level              // one of levels
	coded              // one of levels, through a dictionary
)

// step says how the column is read from arrays of type t, which suits it.
func (c *Column) step(t arrow.DataType) step {
	s := step{cellReader: cellReader{kind: c.Kind, width: c.Width, parts: c.Parts}, id: t.ID(), num: t.ID(), features: c.Features(),
		unit: c.Head == Bernoulli && c.Kind != Boolean, log1p: c.Transform == Log1p, truth: c.Kind == Boolean}
	switch c.Kind {
	case Boolean:
		if s.id == arrow.BOOL {
			s.how = bitmap
		}
	case Vector:
		s.how, s.num = vector, t.(arrow.ListLikeType).Elem().ID()
	case Timestamp:
		s.how, s.turns = instant, turnsOf(c.Parts)
		if t, ok := t.(*arrow.TimestampType); ok {
			s.perSecond = int64(time.Second / t.Unit.Multiplier())
		}
	case Categorical:
		if s.how = level; s.id == arrow.DICTIONARY {
			s.how = coded
		}
		s.levels, s.others = make(map[string]uint8, len(c.Levels)), c.Others
		for j, l := range c.Levels {
			s.levels[l] = uint8(j)
		}
	}
	s.narrow = s.num == arrow.FLOAT32 && !s.log1p && !s.truth && (s.how == flat || s.how == vector)
	return s
}

// A block is a run of columns of one number each, which are packed alike and
// whose features stand next to each other, or any one other column.
type block struct {
	first, n int // columns
	feature  int // the first
	run      run
}

type run uint8

const (
	single    run = iota
	float32s      // standardised in float32
	unitRange     // float32 from 0 to 1, taken as they are
	others        // of any type, standardised in float64
)

// runOf says in what kind of run the column can stand.
func (p *Packer) runOf(s *step) run {
	switch {
	case s.how == bitmap:
		return others
	case s.how != flat || s.exact || s.log1p || s.truth || s.unit && !(s.narrow && p.norms.plain(s.feature, 1)):
		return single
	case s.unit:
		return unitRange
	case s.narrow:
		return float32s
	}
	return others
}

// blocksOf groups the columns.
func (p *Packer) blocksOf() (blocks []block) {
	for i := range p.steps {
		s := &p.steps[i]
		run := p.runOf(s)
		if k := len(blocks) - 1; run != single && k >= 0 && blocks[k].run == run {
			blocks[k].n++
			continue
		}
		blocks = append(blocks, block{first: i, n: 1, feature: s.feature, run: run})
	}
	return blocks
}

// bound is a column of a record, ready to be packed.
type bound struct {
	valid   []byte // the bitmap of valid rows; nil when all are
	offset  int    // of row 0 in valid
	numbers unsafe.Pointer
	count   int // of numbers
	width   int // of a dictionary's indexes, bytes
	list    array.ListLike
	inner   []byte // the bitmap of a list's valid elements or a dictionary's valid levels
	innerAt int    // of element 0 in inner
	codes   int    // where the dictionary's codes begin
	levels  int    // of the dictionary
}

// Codes of dictionary levels beside their places among the model's levels.
const (
	codeNull  = 0xff // missing
	codeFresh = 0xfe // not looked up yet
	codeOther = 0xfd // no level of the model
)

// bind readies column i, which is a.
func (b *Packed) bind(i int, a arrow.Array) error {
	s := &b.p.steps[i]
	b.cells[i].arr = a
	c := &b.bound[i]
	if f, ok := a.(*array.Float32); ok && s.how == flat && s.num == arrow.FLOAT32 {
		b.base[i] = unsafe.Pointer(unsafe.SliceData(f.Float32Values()))
		c.numbers, c.count, c.valid = b.base[i], f.Len(), nil
		if f.NullN() != 0 {
			c.setValid(a)
			b.nulls = append(b.nulls, int32(i))
		}
		return nil
	}
	if a.DataType().ID() != s.id {
		return fmt.Errorf("its type is %s, not the one of the schema", a.DataType())
	}
	*c = bound{}
	if a.NullN() != 0 {
		c.setValid(a)
		b.nulls = append(b.nulls, int32(i))
	}
	if b.rows == 0 {
		return nil
	}
	data := a.Data()
	switch s.how {
	case vector:
		c.list = a.(array.ListLike)
		values := c.list.ListValues()
		if values.DataType().ID() != s.num {
			return fmt.Errorf("its elements are %s, not the ones of the schema", values.DataType())
		}
		c.setNumbers(values.Data())
		if values.NullN() != 0 {
			c.inner, c.innerAt = values.NullBitmapBytes(), values.Data().Offset()
		}
	case level:
		if s.id != arrow.STRING && s.id != arrow.LARGE_STRING {
			c.setNumbers(data)
		}
	case coded:
		c.setNumbers(data)
		b.bindCodes(c, data)
	case bitmap, flat, instant:
		c.setNumbers(data)
		b.base[i] = c.numbers
	}
	return nil
}

func (c *bound) setValid(a arrow.Array) {
	if bits := a.NullBitmapBytes(); len(bits) > 0 {
		c.valid, c.offset = bits, a.Data().Offset()
	}
}

// setNumbers points c to the numbers of an array of a fixed width. Booleans
// count as bytes from the bitmap's beginning.
func (c *bound) setNumbers(d arrow.ArrayData) {
	c.count = d.Len()
	buffers := d.Buffers()
	if len(buffers) < 2 || buffers[1] == nil || buffers[1].Len() == 0 {
		return
	}
	bytes := buffers[1].Bytes()
	c.numbers = unsafe.Pointer(unsafe.SliceData(bytes))
	if d.DataType().ID() == arrow.BOOL {
		c.count, c.innerAt = len(bytes), d.Offset()
		return
	}
	t := d.DataType()
	if dict, ok := t.(*arrow.DictionaryType); ok {
		t = dict.IndexType
	}
	width := t.(arrow.FixedWidthDataType).Bytes()
	c.width = width
	c.numbers = unsafe.Pointer(unsafe.SliceData(bytes[d.Offset()*width : (d.Offset()+c.count)*width]))
}

// numbersOf returns a column's numbers, of which T is the type.
func numbersOf[T any](c *bound) []T { return unsafe.Slice((*T)(c.numbers), c.count) }
