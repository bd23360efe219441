package json

import (
	"errors"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/float16"
)

// A writer writes the values of one array. reset borrows the array until the next
// reset; write appends value i.
type writer interface {
	reset(a arrow.Array)
	write(dst []byte, i int) ([]byte, error)
}

// newWriter returns the writer of a type.
func newWriter(t arrow.DataType) (writer, error) {
	switch t := t.(type) {
	case *arrow.StructType:
		w := &structWriter{}
		for i, f := range t.Fields() {
			v, err := newWriter(f.Type)
			if err != nil {
				return nil, fmt.Errorf("field %q: %w", f.Name, err)
			}
			if k, _ := t.FieldIdx(f.Name); k != i {
				return nil, fmt.Errorf("field %q: comes twice", f.Name)
			}
			w.add(f.Name, v)
		}
		return w, nil
	case *arrow.DictionaryType:
		v, err := newWriter(t.ValueType)
		return &dictionaryWriter{values: v}, err
	case *arrow.MapType:
	case arrow.ListLikeType:
		v, err := newWriter(t.Elem())
		if err != nil {
			return nil, fmt.Errorf("elements: %w", err)
		}
		return &listWriter{values: v}, nil
	case *arrow.TimestampType:
		return &valueWriter[arrow.Timestamp]{format: timestampIn(t.Unit)}, nil
	}
	if w := newValueWriter(t.ID()); w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("%v is not written as JSON", t)
}

// newValueWriter returns the writer of a type that holds no other one; nil for one
// that is not written.
func newValueWriter(id arrow.Type) writer {
	switch id {
	case arrow.NULL:
		return nullWriter{}
	case arrow.BOOL:
		return &valueWriter[bool]{format: appendBool}
	case arrow.INT8:
		return &valueWriter[int8]{format: appendInt[int8]}
	case arrow.INT16:
		return &valueWriter[int16]{format: appendInt[int16]}
	case arrow.INT32:
		return &valueWriter[int32]{format: appendInt[int32]}
	case arrow.INT64:
		return &valueWriter[int64]{format: appendInt[int64]}
	case arrow.UINT8:
		return &valueWriter[uint8]{format: appendInt[uint8]}
	case arrow.UINT16:
		return &valueWriter[uint16]{format: appendInt[uint16]}
	case arrow.UINT32:
		return &valueWriter[uint32]{format: appendInt[uint32]}
	case arrow.UINT64:
		return &valueWriter[uint64]{format: appendUint}
	case arrow.FLOAT16:
		return &valueWriter[float16.Num]{format: appendFloat16}
	case arrow.FLOAT32:
		return &valueWriter[float32]{format: appendFloat32}
	case arrow.FLOAT64:
		return &valueWriter[float64]{format: appendFloat64}
	case arrow.STRING, arrow.LARGE_STRING:
		return &valueWriter[string]{format: appendText}
	case arrow.BINARY, arrow.LARGE_BINARY, arrow.FIXED_SIZE_BINARY:
		return &valueWriter[[]byte]{format: appendBase64}
	case arrow.DATE32:
		return &valueWriter[arrow.Date32]{format: func(dst []byte, v arrow.Date32) ([]byte, error) { return appendDate(dst, int64(v)) }}
	case arrow.DATE64:
		return &valueWriter[arrow.Date64]{format: func(dst []byte, v arrow.Date64) ([]byte, error) {
			return appendDate(dst, floorDiv(int64(v), 86_400_000))
		}}
	}
	return nil
}

// validity tells the nulls of an array.
type validity struct {
	bits   []byte // nil when there is none
	offset int
}

func (v *validity) reset(a arrow.Array) {
	v.bits, v.offset = nil, a.Data().Offset()
	if a.NullN() > 0 {
		v.bits = a.NullBitmapBytes()
	}
}

func (v *validity) isNull(i int) bool {
	return v.bits != nil && !bitutil.BitIsSet(v.bits, v.offset+i)
}

// A nullWriter writes an array that holds nothing but nulls.
type nullWriter struct{}

func (nullWriter) reset(arrow.Array) {}

func (nullWriter) write(dst []byte, _ int) ([]byte, error) { return append(dst, "null"...), nil }

// A valueWriter writes values that hold no others.
type valueWriter[T any] struct {
	validity
	array  interface{ Value(i int) T }
	format func(dst []byte, v T) ([]byte, error)
}

func (w *valueWriter[T]) reset(a arrow.Array) {
	w.validity.reset(a)
	w.array = a.(interface{ Value(i int) T })
}

func (w *valueWriter[T]) write(dst []byte, i int) ([]byte, error) {
	if w.isNull(i) {
		return append(dst, "null"...), nil
	}
	return w.format(dst, w.array.Value(i))
}

// A dictionaryWriter writes what indices stand for.
type dictionaryWriter struct {
	validity
	array  *array.Dictionary
	values writer
}

func (w *dictionaryWriter) reset(a arrow.Array) {
	w.validity.reset(a)
	w.array = a.(*array.Dictionary)
	w.values.reset(w.array.Dictionary())
}

func (w *dictionaryWriter) write(dst []byte, i int) ([]byte, error) {
	if w.isNull(i) {
		return append(dst, "null"...), nil
	}
	k := w.array.GetValueIndex(i)
	if k < 0 || k >= w.array.Dictionary().Len() {
		return dst, errors.New("an index is outside of its dictionary")
	}
	return w.values.write(dst, k)
}

// A listWriter writes lists of every kind as arrays.
type listWriter struct {
	validity
	array  array.ListLike
	values writer
}

func (w *listWriter) reset(a arrow.Array) {
	w.validity.reset(a)
	w.array = a.(array.ListLike)
	w.values.reset(w.array.ListValues())
}

func (w *listWriter) write(dst []byte, i int) ([]byte, error) {
	if w.isNull(i) {
		return append(dst, "null"...), nil
	}
	lo, hi := w.array.ValueOffsets(i)
	dst = append(dst, '[')
	for k := lo; k < hi; k++ {
		if k > lo {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = w.values.write(dst, int(k)); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// A structWriter writes structs, and rows, as objects.
type structWriter struct {
	validity
	names  []string
	keys   [][]byte // with the comma or brace before and the colon behind
	values []writer
}

// add adds a field.
func (w *structWriter) add(name string, v writer) {
	key := []byte{','}
	if len(w.keys) == 0 {
		key[0] = '{'
	}
	key, _ = appendText(key, name) // which has no error
	w.names = append(w.names, name)
	w.keys = append(w.keys, append(key, ':'))
	w.values = append(w.values, v)
}

func (w *structWriter) reset(a arrow.Array) {
	w.validity.reset(a)
	s := a.(*array.Struct)
	for k, v := range w.values {
		v.reset(s.Field(k))
	}
}

func (w *structWriter) write(dst []byte, i int) ([]byte, error) {
	if w.isNull(i) {
		return append(dst, "null"...), nil
	}
	return w.fields(dst, i)
}

// fields writes the object of row i.
func (w *structWriter) fields(dst []byte, i int) ([]byte, error) {
	if len(w.values) == 0 {
		return append(dst, '{', '}'), nil
	}
	for k, v := range w.values {
		var err error
		if dst, err = v.write(append(dst, w.keys[k]...), i); err != nil {
			return dst, fmt.Errorf("%s: %w", w.names[k], err)
		}
	}
	return append(dst, '}'), nil
}
