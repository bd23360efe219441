package avro

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/bitutil"
	"github.com/apache/arrow/go/v15/arrow/float16"

	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
)

// A writer writes the values of one array. reset borrows the array until the next
// reset; write appends value i.
type writer interface {
	reset(a arrow.Array)
	write(dst []byte, i int) ([]byte, error)
}

// newWriter returns the writer of a column.
func newWriter(t arrow.DataType, nullable bool) (writer, error) {
	w, err := newValueWriter(t)
	switch {
	case err != nil:
		return nil, err
	case t.ID() == arrow.NULL:
		return w, nil
	case nullable:
		return &optionWriter{values: w}, nil
	}
	return &strictWriter{values: w}, nil
}

// newValueWriter returns the writer of values that are not null.
func newValueWriter(t arrow.DataType) (writer, error) {
	switch t := t.(type) {
	case *arrow.StructType:
		w := &structWriter{}
		for _, f := range t.Fields() {
			v, err := newWriter(f.Type, f.Nullable)
			if err != nil {
				return nil, fmt.Errorf("field %q: %w", f.Name, err)
			}
			w.names, w.fields = append(w.names, f.Name), append(w.fields, v)
		}
		return w, nil
	case *arrow.DictionaryType:
		v, err := newValueWriter(t.ValueType)
		return &dictionaryWriter{values: v}, err
	case *arrow.MapType:
		if id := t.KeyType().ID(); id != arrow.STRING {
			return nil, fmt.Errorf("a map whose keys are %v is not written as Avro", t.KeyType())
		}
		keys, err := newValueWriter(t.KeyType())
		if err != nil {
			return nil, err
		}
		v, err := newWriter(t.ItemType(), t.ItemField().Nullable)
		return &mapWriter{keys: keys, values: v}, err
	case arrow.ListLikeType:
		v, err := newValueWriter(t.Elem())
		if err != nil {
			return nil, fmt.Errorf("elements: %w", err)
		}
		return &listWriter{values: v, float: t.Elem().ID()}, nil
	case *arrow.TimestampType:
		return newTimeWriter(t.Unit), nil
	}
	if w := newPlainWriter(t.ID()); w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("%v is not written as Avro", t)
}

// newPlainWriter returns the writer of a type that holds no other one; nil for one
// that is not written.
func newPlainWriter(id arrow.Type) writer {
	switch id {
	case arrow.NULL:
		return nullWriter{}
	case arrow.BOOL:
		return &valueWriter[bool]{put: putBool}
	case arrow.INT8:
		return &valueWriter[int8]{put: putInt[int8]}
	case arrow.INT16:
		return &valueWriter[int16]{put: putInt[int16]}
	case arrow.INT32:
		return &valueWriter[int32]{put: putInt[int32]}
	case arrow.INT64:
		return &valueWriter[int64]{put: putInt[int64]}
	case arrow.UINT8:
		return &valueWriter[uint8]{put: putInt[uint8]}
	case arrow.UINT16:
		return &valueWriter[uint16]{put: putInt[uint16]}
	case arrow.UINT32:
		return &valueWriter[uint32]{put: putInt[uint32]}
	case arrow.UINT64:
		return &valueWriter[uint64]{put: putUint}
	case arrow.FLOAT16:
		return &valueWriter[float16.Num]{put: func(dst []byte, v float16.Num) ([]byte, error) { return putFloat32(dst, v.Float32()) }}
	case arrow.FLOAT32:
		return &valueWriter[float32]{put: putFloat32}
	case arrow.FLOAT64:
		return &valueWriter[float64]{put: putFloat64}
	case arrow.STRING, arrow.LARGE_STRING:
		return &valueWriter[string]{put: putString}
	case arrow.BINARY, arrow.LARGE_BINARY:
		return &valueWriter[[]byte]{put: func(dst, v []byte) ([]byte, error) { return append(binary.AppendVarint(dst, int64(len(v))), v...), nil }}
	case arrow.FIXED_SIZE_BINARY:
		return &valueWriter[[]byte]{put: func(dst, v []byte) ([]byte, error) { return append(dst, v...), nil }}
	case arrow.DATE32:
		return &valueWriter[arrow.Date32]{put: putInt[arrow.Date32]}
	case arrow.DATE64:
		return &valueWriter[arrow.Date64]{put: putDate64}
	}
	return nil
}

func putBool(dst []byte, v bool) ([]byte, error) {
	if v {
		return append(dst, 1), nil
	}
	return append(dst, 0), nil
}

func putInt[T ~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32](dst []byte, v T) ([]byte, error) {
	return binary.AppendVarint(dst, int64(v)), nil
}

func putUint(dst []byte, v uint64) ([]byte, error) {
	if v > math.MaxInt64 {
		return dst, fmt.Errorf("%d is no long", v)
	}
	return binary.AppendVarint(dst, int64(v)), nil
}

func putFloat32(dst []byte, v float32) ([]byte, error) {
	return binary.LittleEndian.AppendUint32(dst, math.Float32bits(v)), nil
}

func putFloat64(dst []byte, v float64) ([]byte, error) {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v)), nil
}

// putString writes U+FFFD for bytes that are not UTF-8.
func putString(dst []byte, v string) ([]byte, error) {
	if !utf8.ValidString(v) {
		v = strings.ToValidUTF8(v, "\uFFFD")
	}
	return append(binary.AppendVarint(dst, int64(len(v))), v...), nil
}

func putDate64(dst []byte, v arrow.Date64) ([]byte, error) {
	day, _ := table.Scale{Mul: 1, Div: 86_400_000}.Of(int64(v)) // which always fits
	if int64(int32(day)) != day {
		return dst, fmt.Errorf("day %d since 1970 is out of range", day)
	}
	return binary.AppendVarint(dst, day), nil
}

// newTimeWriter returns the writer of timestamps. Avro has none of seconds.
func newTimeWriter(unit arrow.TimeUnit) writer {
	scale := table.ScaleOf(unit, max(unit, arrow.Millisecond))
	return &valueWriter[arrow.Timestamp]{put: func(dst []byte, v arrow.Timestamp) ([]byte, error) {
		t, ok := scale.Of(int64(v))
		if !ok {
			return dst, fmt.Errorf("second %d since 1970 is out of range", v)
		}
		return binary.AppendVarint(dst, t), nil
	}}
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

// A nullWriter writes an array that holds nothing but nulls: they have no bytes.
type nullWriter struct{}

func (nullWriter) reset(arrow.Array) {}

func (nullWriter) write(dst []byte, _ int) ([]byte, error) { return dst, nil }

// An optionWriter writes values of a union of null and a type.
type optionWriter struct {
	nulls  validity
	values writer
}

func (w *optionWriter) reset(a arrow.Array) {
	w.nulls.reset(a)
	w.values.reset(a)
}

func (w *optionWriter) write(dst []byte, i int) ([]byte, error) {
	if w.nulls.isNull(i) {
		return append(dst, 0), nil
	}
	return w.values.write(append(dst, 2), i)
}

var errNull = errors.New("is null, in a column that is said to have none")

// A strictWriter refuses nulls.
type strictWriter struct {
	nulls  validity
	values writer
}

func (w *strictWriter) reset(a arrow.Array) {
	w.nulls.reset(a)
	w.values.reset(a)
}

func (w *strictWriter) write(dst []byte, i int) ([]byte, error) {
	if w.nulls.isNull(i) {
		return dst, errNull
	}
	return w.values.write(dst, i)
}

// A valueWriter writes values that hold no others.
type valueWriter[T any] struct {
	array interface{ Value(i int) T }
	put   func(dst []byte, v T) ([]byte, error)
}

func (w *valueWriter[T]) reset(a arrow.Array) { w.array = a.(interface{ Value(i int) T }) }

func (w *valueWriter[T]) write(dst []byte, i int) ([]byte, error) {
	return w.put(dst, w.array.Value(i))
}

// A dictionaryWriter writes what indices stand for.
type dictionaryWriter struct {
	array  *array.Dictionary
	nulls  validity // of the dictionary
	values writer
}

func (w *dictionaryWriter) reset(a arrow.Array) {
	w.array = a.(*array.Dictionary)
	w.nulls.reset(w.array.Dictionary())
	w.values.reset(w.array.Dictionary())
}

func (w *dictionaryWriter) write(dst []byte, i int) ([]byte, error) {
	k := w.array.GetValueIndex(i)
	if k < 0 || k >= w.array.Dictionary().Len() {
		return dst, errors.New("an index is outside of its dictionary")
	}
	if w.nulls.isNull(k) {
		return dst, errors.New("an index leads to a null of its dictionary")
	}
	return w.values.write(dst, k)
}

// A listWriter writes lists of every kind as one block.
type listWriter struct {
	array  array.ListLike
	nulls  validity // of the elements
	values writer
	float  arrow.Type // of the elements
}

func (w *listWriter) reset(a arrow.Array) {
	w.array = a.(array.ListLike)
	w.nulls.reset(w.array.ListValues())
	w.values.reset(w.array.ListValues())
}

func (w *listWriter) write(dst []byte, i int) ([]byte, error) {
	lo, hi := w.array.ValueOffsets(i)
	if lo == hi {
		return append(dst, 0), nil
	}
	dst = binary.AppendVarint(dst, hi-lo)
	for k := lo; k < hi; k++ {
		var err error
		switch {
		case !w.nulls.isNull(int(k)):
			dst, err = w.values.write(dst, int(k))
		case w.float == arrow.FLOAT32 || w.float == arrow.FLOAT16:
			dst, err = putFloat32(dst, float32(math.NaN()))
		case w.float == arrow.FLOAT64:
			dst, err = putFloat64(dst, math.NaN())
		default:
			err = fmt.Errorf("element %d is null", k-lo)
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, 0), nil
}

// A mapWriter writes maps as one block.
type mapWriter struct {
	array        *array.Map
	keys, values writer
}

func (w *mapWriter) reset(a arrow.Array) {
	w.array = a.(*array.Map)
	w.keys.reset(w.array.Keys())
	w.values.reset(w.array.Items())
}

func (w *mapWriter) write(dst []byte, i int) ([]byte, error) {
	lo, hi := w.array.ValueOffsets(i)
	if lo == hi {
		return append(dst, 0), nil
	}
	dst = binary.AppendVarint(dst, hi-lo)
	for k := int(lo); k < int(hi); k++ {
		var err error
		if dst, err = w.keys.write(dst, k); err == nil {
			dst, err = w.values.write(dst, k)
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, 0), nil
}

// A structWriter writes structs as records.
type structWriter struct {
	names  []string
	fields []writer
}

func (w *structWriter) reset(a arrow.Array) {
	s := a.(*array.Struct)
	for k, f := range w.fields {
		f.reset(s.Field(k))
	}
}

func (w *structWriter) write(dst []byte, i int) ([]byte, error) {
	for k, f := range w.fields {
		var err error
		if dst, err = f.write(dst, i); err != nil {
			return dst, fmt.Errorf("%s: %w", w.names[k], err)
		}
	}
	return dst, nil
}
