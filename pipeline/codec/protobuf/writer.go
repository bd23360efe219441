package protobuf

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
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
)

// A valueWriter writes the values of one array, without tags. reset borrows the
// array until the next reset; write appends value i, which is not null, and where it
// is of variable length its length before it.
type valueWriter interface {
	reset(a arrow.Array)
	write(dst []byte, i int) ([]byte, error)
}

// A fieldWriter writes the values of one column, with their tags.
type fieldWriter interface {
	reset(a arrow.Array)
	write(dst []byte, i int) ([]byte, error)
}

var errNull = errors.New("is null, in a column that is said to have none")

// newFieldWriter returns the writer of a field that has its number.
func newFieldWriter(f *shapeField) fieldWriter {
	tag := func(wire protowire.Type) []byte { return protowire.AppendTag(nil, f.number, wire) }
	wire := wireOf(f.kind)
	switch t := f.typ.(type) {
	case *arrow.MapType:
		return &mapField{null: f.null, tag: tag(protowire.BytesType),
			keyTag: protowire.AppendTag(nil, 1, wireOf(f.key)), keys: newPlainWriter(t.KeyType()),
			valueTag: protowire.AppendTag(nil, 2, wire), values: newValueWriter(t.ItemType(), f.message)}
	case arrow.ListLikeType:
		w := listField{null: f.null, elem: t.Elem().ID(), values: newValueWriter(t.Elem(), f.message)}
		if wire == protowire.BytesType {
			w.tag = tag(wire)
			return &w
		}
		w.tag = tag(protowire.BytesType)
		return &packedField{w}
	}
	return &singleField{null: f.null, tag: tag(wire), values: newValueWriter(f.typ, f.message)}
}

// newValueWriter returns the writer of a type that shapeOf has accepted.
func newValueWriter(t arrow.DataType, message *shape) valueWriter {
	switch t := t.(type) {
	case *arrow.StructType:
		return &nestedWriter{message: newMessageWriter(message)}
	case *arrow.DictionaryType:
		return &dictionaryWriter{values: newPlainWriter(t.ValueType)}
	}
	return newPlainWriter(t)
}

// newPlainWriter returns the writer of a type that kindOf knows.
func newPlainWriter(t arrow.DataType) valueWriter {
	switch t.ID() {
	case arrow.BOOL:
		return &plainWriter[bool]{put: putBool}
	case arrow.INT8:
		return &plainWriter[int8]{put: putInt[int8]}
	case arrow.INT16:
		return &plainWriter[int16]{put: putInt[int16]}
	case arrow.INT32:
		return &plainWriter[int32]{put: putInt[int32]}
	case arrow.INT64:
		return &plainWriter[int64]{put: putInt[int64]}
	case arrow.UINT8:
		return &plainWriter[uint8]{put: putInt[uint8]}
	case arrow.UINT16:
		return &plainWriter[uint16]{put: putInt[uint16]}
	case arrow.UINT32:
		return &plainWriter[uint32]{put: putInt[uint32]}
	case arrow.UINT64:
		return &plainWriter[uint64]{put: putInt[uint64]}
	case arrow.FLOAT16:
		return &plainWriter[float16.Num]{put: func(dst []byte, v float16.Num) ([]byte, error) { return putFloat32(dst, v.Float32()) }}
	case arrow.FLOAT32:
		return &plainWriter[float32]{put: putFloat32}
	case arrow.FLOAT64:
		return &plainWriter[float64]{put: putFloat64}
	case arrow.STRING, arrow.LARGE_STRING:
		return &plainWriter[string]{put: putString}
	case arrow.BINARY, arrow.LARGE_BINARY, arrow.FIXED_SIZE_BINARY:
		return &plainWriter[[]byte]{put: func(dst, v []byte) ([]byte, error) { return protowire.AppendBytes(dst, v), nil }}
	case arrow.DATE32:
		return &plainWriter[arrow.Date32]{put: putInt[arrow.Date32]}
	case arrow.DATE64:
		return &plainWriter[arrow.Date64]{put: putDate64}
	}
	return &plainWriter[arrow.Timestamp]{put: timeIn(t.(*arrow.TimestampType).Unit)}
}

func putBool(dst []byte, v bool) ([]byte, error) {
	if v {
		return append(dst, 1), nil
	}
	return append(dst, 0), nil
}

func putInt[T ~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64](dst []byte, v T) ([]byte, error) {
	return protowire.AppendVarint(dst, uint64(v)), nil // sign extended
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
	return protowire.AppendString(dst, v), nil
}

func putDate64(dst []byte, v arrow.Date64) ([]byte, error) {
	day, _ := table.Scale{Mul: 1, Div: 86_400_000}.Of(int64(v)) // which always fits
	if int64(int32(day)) != day {
		return dst, fmt.Errorf("day %d since 1970 is out of range", day)
	}
	return putInt(dst, day)
}

// timeIn returns the function for timestamps of a unit. Protobuf's are of the years
// 1 to 9999.
func timeIn(unit arrow.TimeUnit) func(dst []byte, v arrow.Timestamp) ([]byte, error) {
	scale := table.ScaleOf(unit, arrow.Second)
	const first, last = -62135596800, 253402300799
	return func(dst []byte, v arrow.Timestamp) ([]byte, error) {
		seconds, _ := scale.Of(int64(v)) // to a larger unit, which always fits
		if seconds < first || seconds > last {
			return dst, fmt.Errorf("second %d since 1970 is in no year from 1 to 9999", seconds)
		}
		nanos := (int64(v) - seconds*scale.Div) * int64(unit.Multiplier())
		at := len(dst)
		if seconds != 0 {
			dst = protowire.AppendVarint(protowire.AppendTag(dst, 1, protowire.VarintType), uint64(seconds))
		}
		if nanos != 0 {
			dst = protowire.AppendVarint(protowire.AppendTag(dst, 2, protowire.VarintType), uint64(nanos))
		}
		return withLength(dst, at), nil
	}
}

// withLength puts the length of what stands at and behind at before it.
func withLength(dst []byte, at int) []byte {
	n := len(dst) - at
	if n < 0x80 {
		dst = append(dst, 0)
		copy(dst[at+1:], dst[at:])
		dst[at] = byte(n)
		return dst
	}
	var length [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(length[:], uint64(n))
	dst = append(dst, length[:size]...)
	copy(dst[at+size:], dst[at:at+n])
	copy(dst[at:], length[:size])
	return dst
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

// A plainWriter writes values that hold no others.
type plainWriter[T any] struct {
	array interface{ Value(i int) T }
	put   func(dst []byte, v T) ([]byte, error)
}

func (w *plainWriter[T]) reset(a arrow.Array) { w.array = a.(interface{ Value(i int) T }) }

func (w *plainWriter[T]) write(dst []byte, i int) ([]byte, error) {
	return w.put(dst, w.array.Value(i))
}

// A dictionaryWriter writes what indices stand for.
type dictionaryWriter struct {
	array  *array.Dictionary
	nulls  validity // of the dictionary
	values valueWriter
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

// A messageWriter writes rows of a shape, without their length.
type messageWriter struct {
	names  []string
	fields []fieldWriter
}

func newMessageWriter(s *shape) *messageWriter {
	w := &messageWriter{}
	for _, f := range s.fields {
		w.names, w.fields = append(w.names, f.column), append(w.fields, newFieldWriter(f))
	}
	return w
}

func (w *messageWriter) write(dst []byte, i int) ([]byte, error) {
	for k, f := range w.fields {
		var err error
		if dst, err = f.write(dst, i); err != nil {
			return dst, fmt.Errorf("%s: %w", w.names[k], err)
		}
	}
	return dst, nil
}

// A nestedWriter writes structs.
type nestedWriter struct{ message *messageWriter }

func (w *nestedWriter) reset(a arrow.Array) {
	s := a.(*array.Struct)
	for k, f := range w.message.fields {
		f.reset(s.Field(k))
	}
}

func (w *nestedWriter) write(dst []byte, i int) ([]byte, error) {
	at := len(dst)
	dst, err := w.message.write(dst, i)
	return withLength(dst, at), err
}

// A singleField writes a field that is not repeated.
type singleField struct {
	null   bool
	tag    []byte
	nulls  validity
	values valueWriter
}

func (w *singleField) reset(a arrow.Array) {
	w.nulls.reset(a)
	w.values.reset(a)
}

func (w *singleField) write(dst []byte, i int) ([]byte, error) {
	if w.nulls.isNull(i) {
		if !w.null {
			return dst, errNull
		}
		return dst, nil
	}
	return w.values.write(append(dst, w.tag...), i)
}

// A listField writes a repeated field, each element with its tag.
type listField struct {
	null     bool
	tag      []byte
	elem     arrow.Type
	array    array.ListLike
	nulls    validity // of the lists
	elements validity
	values   valueWriter
}

func (w *listField) reset(a arrow.Array) {
	w.array = a.(array.ListLike)
	w.nulls.reset(a)
	w.elements.reset(w.array.ListValues())
	w.values.reset(w.array.ListValues())
}

// span returns where the elements of list i are.
func (w *listField) span(i int) (lo, hi int, err error) {
	if w.nulls.isNull(i) {
		if !w.null {
			return 0, 0, errNull
		}
		return 0, 0, nil
	}
	from, to := w.array.ValueOffsets(i)
	return int(from), int(to), nil
}

func (w *listField) element(dst []byte, k, lo int) ([]byte, error) {
	switch {
	case !w.elements.isNull(k):
		return w.values.write(dst, k)
	case w.elem == arrow.FLOAT32 || w.elem == arrow.FLOAT16:
		return putFloat32(dst, float32(math.NaN()))
	case w.elem == arrow.FLOAT64:
		return putFloat64(dst, math.NaN())
	}
	return dst, fmt.Errorf("element %d is null", k-lo)
}

func (w *listField) write(dst []byte, i int) ([]byte, error) {
	lo, hi, err := w.span(i)
	for k := lo; k < hi && err == nil; k++ {
		dst, err = w.element(append(dst, w.tag...), k, lo)
	}
	return dst, err
}

// A packedField writes a repeated field of numbers, all in one.
type packedField struct{ listField }

func (w *packedField) write(dst []byte, i int) ([]byte, error) {
	lo, hi, err := w.span(i)
	if lo == hi || err != nil {
		return dst, err
	}
	dst = append(dst, w.tag...)
	at := len(dst)
	for k := lo; k < hi && err == nil; k++ {
		dst, err = w.element(dst, k, lo)
	}
	return withLength(dst, at), err
}

// A mapField writes a map, each entry with its tag.
type mapField struct {
	null                  bool
	tag, keyTag, valueTag []byte
	array                 *array.Map
	nulls, items          validity
	keys, values          valueWriter
}

func (w *mapField) reset(a arrow.Array) {
	w.array = a.(*array.Map)
	w.nulls.reset(a)
	w.items.reset(w.array.Items())
	w.keys.reset(w.array.Keys())
	w.values.reset(w.array.Items())
}

func (w *mapField) write(dst []byte, i int) ([]byte, error) {
	if w.nulls.isNull(i) {
		if !w.null {
			return dst, errNull
		}
		return dst, nil
	}
	lo, hi := w.array.ValueOffsets(i)
	for k := int(lo); k < int(hi); k++ {
		if w.items.isNull(k) {
			return dst, fmt.Errorf("value %d is null", k-int(lo))
		}
		dst = append(dst, w.tag...)
		at := len(dst)
		var err error
		if dst, err = w.keys.write(append(dst, w.keyTag...), k); err == nil {
			dst, err = w.values.write(append(dst, w.valueTag...), k)
		}
		if err != nil {
			return dst, err
		}
		dst = withLength(dst, at)
	}
	return dst, nil
}
