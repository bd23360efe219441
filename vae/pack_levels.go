package vae

import (
	"math/bits"
	"strconv"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// levels packs a categorical column, one-hot.
func (b *Packed) levels(i int, s *step, c *bound, valid uint64) (gone uint64) {
	w := &b.work
	if w.tile {
		clear(w.x[s.feature*TileRows : (s.feature+s.features)*TileRows])
	} else {
		for r := range w.n {
			row := w.x[s.feature*w.fs+r*w.rs:]
			for j := range s.features {
				row[j*w.fs] = 0
			}
		}
	}
	gone = w.all &^ valid
	a := b.cells[i].arr
	switch {
	case s.how == coded:
		gone |= b.coded(s, c, a.Data().Dictionary(), valid)
	case s.id == arrow.BOOL:
		codes := [2]uint8{s.code("false"), s.code("true")}
		set := bitsAt(numbersOf[byte](c), c.innerAt+w.from, w.n)
		for m := valid; m != 0; m &= m - 1 {
			r := bits.TrailingZeros64(m)
			w.hot(s, r, codes[set>>r&1])
		}
	case s.id == arrow.STRING:
		a := a.(*array.String)
		for m := valid; m != 0; m &= m - 1 {
			r := bits.TrailingZeros64(m)
			w.hot(s, r, s.code(a.Value(w.from+r)))
		}
	case s.id == arrow.LARGE_STRING:
		a := a.(*array.LargeString)
		for m := valid; m != 0; m &= m - 1 {
			r := bits.TrailingZeros64(m)
			w.hot(s, r, s.code(a.Value(w.from+r)))
		}
	default:
		b.integerLevels(s, c, valid)
	}
	for j := range s.features {
		w.missing[s.feature+j] = gone
	}
	return gone
}

// code returns the place of a level among the model's, or codeOther.
func (s *step) code(text string) uint8 {
	if j, ok := s.levels[text]; ok {
		return j
	}
	return codeOther
}

// hot sets the input of one level in row r.
func (w *work) hot(s *step, r int, code uint8) {
	j := int(code)
	if code == codeOther {
		if j = s.features - 1; !s.others {
			w.unseen |= 1 << r
		}
	}
	w.x[(s.feature+j)*w.fs+r*w.rs] = 1
}

// integerLevels packs integers by how they are written.
func (b *Packed) integerLevels(s *step, c *bound, valid uint64) {
	w := &b.work
	var text [20]byte
	for m := valid; m != 0; m &= m - 1 {
		r := bits.TrailingZeros64(m)
		var t []byte
		switch i := w.from + r; s.id {
		case arrow.INT8:
			t = strconv.AppendInt(text[:0], int64(numbersOf[int8](c)[i]), 10)
		case arrow.INT16:
			t = strconv.AppendInt(text[:0], int64(numbersOf[int16](c)[i]), 10)
		case arrow.INT32:
			t = strconv.AppendInt(text[:0], int64(numbersOf[int32](c)[i]), 10)
		case arrow.INT64:
			t = strconv.AppendInt(text[:0], numbersOf[int64](c)[i], 10)
		case arrow.UINT8:
			t = strconv.AppendUint(text[:0], uint64(numbersOf[uint8](c)[i]), 10)
		case arrow.UINT16:
			t = strconv.AppendUint(text[:0], uint64(numbersOf[uint16](c)[i]), 10)
		case arrow.UINT32:
			t = strconv.AppendUint(text[:0], uint64(numbersOf[uint32](c)[i]), 10)
		case arrow.UINT64:
			t = strconv.AppendUint(text[:0], numbersOf[uint64](c)[i], 10)
		}
		code, ok := s.levels[string(t)]
		if !ok {
			code = codeOther
		}
		w.hot(s, r, code)
	}
}

// bindCodes makes room for the codes of a dictionary, which are looked up when
// they are met.
func (b *Packed) bindCodes(c *bound, data arrow.ArrayData) {
	dict := data.Dictionary()
	n := dict.Len()
	c.codes, c.levels = len(b.codes), n
	b.codes = append(b.codes, make([]uint8, n)...)
	fresh := b.codes[c.codes:]
	for j := range fresh {
		fresh[j] = codeFresh
	}
	if valid := dict.Buffers()[0]; dict.NullN() != 0 && valid != nil && valid.Len() > 0 {
		c.inner, c.innerAt = valid.Bytes(), dict.Offset()
	}
}

// coded packs a dictionary column and returns the rows whose level is null.
func (b *Packed) coded(s *step, c *bound, dict arrow.ArrayData, valid uint64) (gone uint64) {
	switch c.width {
	case 1:
		return codedBy[uint8](b, s, c, dict, valid)
	case 2:
		return codedBy[uint16](b, s, c, dict, valid)
	case 4:
		return codedBy[uint32](b, s, c, dict, valid)
	}
	return codedBy[uint64](b, s, c, dict, valid)
}

func codedBy[T uint8 | uint16 | uint32 | uint64](b *Packed, s *step, c *bound, dict arrow.ArrayData, valid uint64) (gone uint64) {
	w := &b.work
	codes := b.codes[c.codes:][:c.levels]
	index := numbersOf[T](c)[w.from:][:w.n]
	for m := valid; m != 0; m &= m - 1 {
		r := bits.TrailingZeros64(m)
		k := index[r]
		code := codes[k]
		if code == codeFresh {
			code = s.look(c, dict, int(k))
			codes[k] = code
		}
		if code == codeNull {
			gone |= 1 << r
			continue
		}
		w.hot(s, r, code)
	}
	return gone
}

// look returns the code of level k of a dictionary.
func (s *step) look(c *bound, dict arrow.ArrayData, k int) uint8 {
	if c.inner != nil && bitsAt(c.inner, c.innerAt+k, 1) == 0 {
		return codeNull
	}
	at, buffers := dict.Offset()+k, dict.Buffers()
	var from, to int
	if dict.DataType().ID() == arrow.LARGE_STRING {
		offsets := arrow.Int64Traits.CastFromBytes(buffers[1].Bytes())
		from, to = int(offsets[at]), int(offsets[at+1])
	} else {
		offsets := arrow.Int32Traits.CastFromBytes(buffers[1].Bytes())
		from, to = int(offsets[at]), int(offsets[at+1])
	}
	if from == to {
		return s.code("")
	}
	text := buffers[2].Bytes()[from:to]
	return s.code(unsafe.String(unsafe.SliceData(text), len(text))) // looked at, not kept
}
