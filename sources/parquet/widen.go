package parquet

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

type number interface {
	int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | float32 | float64
}

// widen returns a as type to, which holds every value of a. It borrows a; the
// caller owns the result, which is a itself where nothing changes.
func widen(mem memory.Allocator, a arrow.Array, to arrow.DataType) (arrow.Array, error) {
	if arrow.TypeEqual(a.DataType(), to) {
		a.Retain()
		return a, nil
	}
	switch a := a.(type) {
	case *array.Int8:
		return widenTo(mem, a, a.Int8Values(), to)
	case *array.Int16:
		return widenTo(mem, a, a.Int16Values(), to)
	case *array.Int32:
		return widenTo(mem, a, a.Int32Values(), to)
	case *array.Uint8:
		return widenTo(mem, a, a.Uint8Values(), to)
	case *array.Uint16:
		return widenTo(mem, a, a.Uint16Values(), to)
	case *array.Uint32:
		return widenTo(mem, a, a.Uint32Values(), to)
	case *array.Float32:
		return widenTo(mem, a, a.Float32Values(), to)
	}
	return nil, fmt.Errorf("%v does not widen to %v", a.DataType(), to)
}

func widenTo[T number](mem memory.Allocator, a arrow.Array, v []T, to arrow.DataType) (arrow.Array, error) {
	b := array.NewBuilder(mem, to)
	defer b.Release()
	b.Reserve(len(v))
	switch b := b.(type) {
	case *array.Int16Builder:
		appendAs(b, a, v)
	case *array.Int32Builder:
		appendAs(b, a, v)
	case *array.Int64Builder:
		appendAs(b, a, v)
	case *array.Uint16Builder:
		appendAs(b, a, v)
	case *array.Uint32Builder:
		appendAs(b, a, v)
	case *array.Uint64Builder:
		appendAs(b, a, v)
	case *array.Float64Builder:
		appendAs(b, a, v)
	default:
		return nil, fmt.Errorf("%v does not widen to %v", a.DataType(), to)
	}
	return b.NewArray(), nil
}

type appender[U number] interface {
	UnsafeAppend(U)
	AppendNull()
}

func appendAs[T, U number](b appender[U], a arrow.Array, v []T) {
	for i, x := range v {
		if a.IsNull(i) {
			b.AppendNull()
		} else {
			b.UnsafeAppend(U(x))
		}
	}
}

// constant is a string column of n equal values; nil means nulls.
func constant(mem memory.Allocator, value *string, n int) arrow.Array {
	b := array.NewDictionaryBuilder(mem, stringType).(*array.BinaryDictionaryBuilder)
	defer b.Release()
	for range n {
		if value == nil {
			b.AppendNull()
		} else if err := b.AppendString(*value); err != nil {
			panic(fmt.Sprintf("parquet: one string in a dictionary: %v", err)) // 2^31 strings are not one
		}
	}
	return b.NewArray()
}
