package parquetio

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// A shredder takes one leaf's levels and values out of records.
type shredder struct {
	steps    []*wnode
	leaf     *wnode
	rep, def []byte
	entries  int
	runs     []valueRun
	values   int
}

// A valueRun is a part of an array without nulls.
type valueRun struct {
	arr      arrow.Array
	from, to int
}

func (s *shredder) reset(leaf *wnode) {
	s.steps, s.leaf = leaf.steps(), leaf
	s.rep, s.def, s.runs = s.rep[:0], s.def[:0], s.runs[:0]
	s.entries, s.values = 0, 0
}

// column adds all rows of a column's array.
func (s *shredder) column(a arrow.Array) error { return s.walk(0, a, 0, a.Len(), 0) }

// emit adds one entry without a value.
func (s *shredder) emit(rep, def int) {
	s.entries++
	if s.leaf.maxRep > 0 {
		s.rep = append(s.rep, byte(rep))
	}
	s.def = append(s.def, byte(def))
}

// walk adds the slots [from, to) of step i. The first begins at repetition
// level rep, the others repeat the innermost list.
func (s *shredder) walk(i int, a arrow.Array, from, to, rep int) error {
	n := s.steps[i]
	if n.kind == leafNode {
		return s.leafSlots(n, a, from, to, rep)
	}
	for from < to {
		if a.IsNull(from) {
			if !n.optional {
				return errNullRequired(n)
			}
			s.emit(rep, n.maxDef-1)
			from++
		} else if n.kind == structNode {
			end := from + 1
			for end < to && (a.NullN() == 0 || a.IsValid(end)) {
				if a.NullN() == 0 {
					end = to
					break
				}
				end++
			}
			if err := s.walk(i+1, s.child(a, i), from, end, rep); err != nil {
				return err
			}
			from = end
		} else {
			start, stop := listBounds(a, from)
			if start == stop {
				s.emit(rep, n.maxDef)
			} else if err := s.walk(i+1, a.(array.ListLike).ListValues(), start, stop, rep); err != nil {
				return err
			}
			from++
		}
		rep = n.maxRep
	}
	return nil
}

// child is the field of a struct array that leads to the leaf.
func (s *shredder) child(a arrow.Array, i int) arrow.Array {
	for k, c := range s.steps[i].children {
		if c == s.steps[i+1] {
			return a.(*array.Struct).Field(k)
		}
	}
	panic("parquetio: step without its child")
}

func listBounds(a arrow.Array, i int) (start, stop int) {
	f, l := a.(array.ListLike).ValueOffsets(i)
	return int(f), int(l)
}

func errNullRequired(n *wnode) error {
	return fmt.Errorf("null in column %s, whose schema allows none", n.name)
}

func (s *shredder) leafSlots(n *wnode, a arrow.Array, from, to, rep int) error {
	null := nullTest(a)
	for from < to {
		end := to
		if null != nil {
			for end = from; end < to && !null(end); {
				end++
			}
		}
		if end == from {
			if !n.optional {
				return errNullRequired(n)
			}
			s.emit(rep, n.maxDef-1)
			from++
		} else {
			s.present(n, a, from, end, rep)
			from = end
		}
		rep = n.maxRep
	}
	return nil
}

// present adds a run of values.
func (s *shredder) present(n *wnode, a arrow.Array, from, to, rep int) {
	k := to - from
	s.entries += k
	s.values += k
	if n.maxRep > 0 {
		s.rep = append(s.rep, byte(rep))
		s.rep = appendFill(s.rep, byte(n.maxRep), k-1)
	}
	if n.maxDef > 0 {
		s.def = appendFill(s.def, byte(n.maxDef), k)
	}
	if l := len(s.runs); l > 0 && s.runs[l-1].arr == a && s.runs[l-1].to == from {
		s.runs[l-1].to = to
		return
	}
	s.runs = append(s.runs, valueRun{a, from, to})
}

func appendFill(b []byte, v byte, n int) []byte {
	i := len(b)
	if cap(b)-i < n {
		grown := make([]byte, i, max(i+n, 2*cap(b)))
		copy(grown, b)
		b = grown
	}
	b = b[:i+n]
	for j := range b[i:] {
		b[i+j] = v
	}
	return b
}

// nullTest says which slots are null; nil if none is. A dictionary may also
// hold a null as a value.
func nullTest(a arrow.Array) func(int) bool {
	if d, ok := a.(*array.Dictionary); ok && d.Dictionary().NullN() > 0 {
		return func(i int) bool { return d.IsNull(i) || d.Dictionary().IsNull(d.GetValueIndex(i)) }
	}
	if a.NullN() == 0 {
		return nil
	}
	return a.IsNull
}

// fixed appends the values of a run in their stored form.
func (r valueRun) fixed(dst []byte, n *wnode) ([]byte, error) {
	switch a := r.arr.(type) {
	case *array.Boolean:
		for i := r.from; i < r.to; i++ {
			b := byte(0)
			if a.Value(i) {
				b = 1
			}
			dst = append(dst, b)
		}
		return dst, nil
	case *array.Int8:
		return widen(dst, a.Int8Values()[r.from:r.to]), nil
	case *array.Int16:
		return widen(dst, a.Int16Values()[r.from:r.to]), nil
	case *array.Uint8:
		return widen(dst, a.Uint8Values()[r.from:r.to]), nil
	case *array.Uint16:
		return widen(dst, a.Uint16Values()[r.from:r.to]), nil
	case *array.Date64:
		for _, v := range a.Date64Values()[r.from:r.to] {
			days := int64(v) / 86400000
			if days*86400000 != int64(v) || int64(int32(days)) != days {
				return nil, fmt.Errorf("date64 value %d is not a whole day", int64(v))
			}
			dst = append(dst, asBytes([]int32{int32(days)})...)
		}
		return dst, nil
	case *array.Timestamp:
		if a.DataType().(*arrow.TimestampType).Unit == arrow.Second {
			for _, v := range a.TimestampValues()[r.from:r.to] {
				ms := int64(v) * 1000
				if ms/1000 != int64(v) {
					return nil, fmt.Errorf("timestamp of %d seconds is beyond milliseconds", int64(v))
				}
				dst = append(dst, asBytes([]int64{ms})...)
			}
			return dst, nil
		}
	case *array.Time32:
		if a.DataType().(*arrow.Time32Type).Unit == arrow.Second {
			for _, v := range a.Time32Values()[r.from:r.to] {
				dst = append(dst, asBytes([]int32{int32(v) * 1000})...)
			}
			return dst, nil
		}
	}
	d := r.arr.Data()
	b := d.Buffers()[1].Bytes()
	o := d.Offset()
	return append(dst, b[(o+r.from)*n.width:(o+r.to)*n.width]...), nil
}

func widen[T int8 | int16 | uint8 | uint16](dst []byte, v []T) []byte {
	for _, x := range v {
		u := uint32(int32(x))
		dst = append(dst, byte(u), byte(u>>8), byte(u>>16), byte(u>>24))
	}
	return dst
}

// textOf returns how to get the bytes of a value of a string or binary array.
func textOf(a arrow.Array) func(int) []byte {
	switch a := a.(type) {
	case *array.String:
		return func(i int) []byte { return stringBytes(a.Value(i)) }
	case *array.LargeString:
		return func(i int) []byte { return stringBytes(a.Value(i)) }
	case *array.Binary:
		return a.Value
	case *array.LargeBinary:
		return a.Value
	case *array.Dictionary:
		at := textOf(a.Dictionary())
		return func(i int) []byte { return at(a.GetValueIndex(i)) }
	}
	panic(fmt.Sprintf("parquetio: text of %v", a.DataType()))
}
