package threshold

import (
	"fmt"
	"strconv"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// A KeyReader appends the text of a row's key to buf: strings as they are, whole
// numbers in decimal, booleans as true or false. It must not be asked for nulls.
type KeyReader func(buf []byte, i int) []byte

// Keys returns the reader of a key column: strings, whole numbers, booleans, and
// dictionaries of these. It borrows a.
func Keys(a arrow.Array) (KeyReader, error) {
	whole := func(value func(i int) int64) KeyReader {
		return func(buf []byte, i int) []byte { return strconv.AppendInt(buf, value(i), 10) }
	}
	switch a := a.(type) {
	case *array.String:
		return func(buf []byte, i int) []byte { return append(buf, a.Value(i)...) }, nil
	case *array.LargeString:
		return func(buf []byte, i int) []byte { return append(buf, a.Value(i)...) }, nil
	case *array.Boolean:
		return func(buf []byte, i int) []byte { return strconv.AppendBool(buf, a.Value(i)) }, nil
	case *array.Int8:
		return whole(func(i int) int64 { return int64(a.Value(i)) }), nil
	case *array.Int16:
		return whole(func(i int) int64 { return int64(a.Value(i)) }), nil
	case *array.Int32:
		return whole(func(i int) int64 { return int64(a.Value(i)) }), nil
	case *array.Int64:
		return whole(a.Value), nil
	case *array.Uint8:
		return whole(func(i int) int64 { return int64(a.Value(i)) }), nil
	case *array.Uint16:
		return whole(func(i int) int64 { return int64(a.Value(i)) }), nil
	case *array.Uint32:
		return whole(func(i int) int64 { return int64(a.Value(i)) }), nil
	case *array.Uint64:
		return func(buf []byte, i int) []byte { return strconv.AppendUint(buf, a.Value(i), 10) }, nil
	case *array.Dictionary:
		words, err := Keys(a.Dictionary())
		if err != nil {
			return nil, err
		}
		return func(buf []byte, i int) []byte { return words(buf, a.GetValueIndex(i)) }, nil
	}
	return nil, CheckKey(a.DataType())
}

// CheckKey says whether a column of a type can be a key; the error names the types
// that can.
func CheckKey(t arrow.DataType) error {
	if d, ok := t.(*arrow.DictionaryType); ok {
		t = d.ValueType
	}
	switch t.ID() {
	case arrow.STRING, arrow.LARGE_STRING, arrow.BOOL,
		arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64:
		return nil
	}
	return fmt.Errorf("type %s is no key: want strings, whole numbers, booleans or dictionaries of these", t)
}
