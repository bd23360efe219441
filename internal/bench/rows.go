package bench

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
)

// RowBytes returns the bytes that one row takes in the columns of rec that a
// model reads, on average: values, offsets and validity.
func RowBytes(rec arrow.Record, spec *vae.Spec) float64 {
	if rec.NumRows() == 0 {
		return 0
	}
	total := 0.0
	for i := range spec.Columns {
		if at := rec.Schema().FieldIndices(spec.Columns[i].Name); len(at) == 1 {
			total += bytesPerRow(rec.Column(at[0]).Data())
		}
	}
	return total
}

// bytesPerRow counts what a row of an array takes; a slice of an array shares
// the buffers of the whole, so fixed widths are taken from the type.
func bytesPerRow(d arrow.ArrayData) float64 {
	rows := float64(max(d.Len(), 1))
	validity := 0.0
	if d.NullN() > 0 {
		validity = 1.0 / 8
	}
	switch t := d.DataType().(type) {
	case *arrow.DictionaryType:
		return validity + float64(t.BitWidth())/8
	case *arrow.StringType:
		s := array.NewStringData(d)
		defer s.Release()
		return validity + 4 + float64(s.ValueOffset(s.Len())-s.ValueOffset(0))/rows
	case *arrow.LargeStringType:
		s := array.NewLargeStringData(d)
		defer s.Release()
		return validity + 8 + float64(s.ValueOffset(s.Len())-s.ValueOffset(0))/rows
	case *arrow.FixedSizeListType:
		return validity + float64(t.Len())*bytesPerRow(d.Children()[0])
	case arrow.ListLikeType:
		offsets := 4.0
		if t.ID() == arrow.LARGE_LIST {
			offsets = 8
		}
		return validity + offsets + bytesPerRow(d.Children()[0])*float64(d.Children()[0].Len())/rows
	case arrow.FixedWidthDataType:
		return validity + float64(t.BitWidth())/8
	}
	return validity
}

// Rows draws rows that have a model's columns, for measuring a model without its
// data: each column by itself, from the mean, spread, levels and share of missing
// values of the training rows, and in the type it had there. The same seed gives
// the same rows. The caller releases them.
func Rows(spec *vae.Spec, rows int, seed uint64) (arrow.Record, error) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	fields := make([]arrow.Field, len(spec.Columns))
	for i := range fields {
		fields[i] = arrow.Field{Name: spec.Columns[i].Name, Type: typeOf(&spec.Columns[i]), Nullable: true}
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	for i := range spec.Columns {
		c := &spec.Columns[i]
		b.Field(i).Reserve(rows)
		for range rows {
			if rnd.Float64() < c.MissingRate {
				b.Field(i).AppendNull()
				continue
			}
			if err := draw(b.Field(i), c, rnd); err != nil {
				return nil, err
			}
		}
	}
	return b.NewRecord(), nil
}

// plainTypes are the types that a column may have had in training, by name.
// Others take the usual type of the column's kind.
func plainTypes() []arrow.DataType {
	p, f := arrow.PrimitiveTypes, arrow.FixedWidthTypes
	return []arrow.DataType{p.Float32, p.Float64, p.Int8, p.Int16, p.Int32, p.Int64, p.Uint8, p.Uint16, p.Uint32, p.Uint64,
		f.Boolean, f.Timestamp_s, f.Timestamp_ms, f.Timestamp_us, f.Timestamp_ns}
}

func typeOf(c *vae.Column) arrow.DataType {
	for _, t := range plainTypes() {
		if t.String() == c.Type && (c.Kind != vae.Categorical || t.ID() == arrow.BOOL) {
			return t
		}
	}
	switch c.Kind {
	case vae.Boolean:
		return arrow.FixedWidthTypes.Boolean
	case vae.Categorical:
		return arrow.BinaryTypes.String
	case vae.Timestamp:
		return arrow.FixedWidthTypes.Timestamp_us
	case vae.Vector:
		return arrow.FixedSizeListOf(int32(c.Width), arrow.PrimitiveTypes.Float32)
	}
	return arrow.PrimitiveTypes.Float64
}

// draw appends one value of a column.
func draw(b array.Builder, c *vae.Column, rnd *rand.Rand) error {
	switch c.Kind {
	case vae.Categorical:
		level := c.Levels[rnd.IntN(len(c.Levels))]
		return b.AppendValueFromString(level)
	case vae.Timestamp:
		const second, year = 1_600_000_000, 365 * 24 * 3600
		t, ok := b.(*array.TimestampBuilder)
		if !ok {
			return fmt.Errorf("column %q: cannot draw times of type %s", c.Name, b.Type())
		}
		unit := b.Type().(*arrow.TimestampType).Unit
		t.Append(arrow.Timestamp((second + rnd.Int64N(year)) * int64(arrow.Second.Multiplier()/unit.Multiplier())))
		return nil
	case vae.Vector:
		list, ok := b.(*array.FixedSizeListBuilder)
		if !ok {
			return fmt.Errorf("column %q: cannot draw vectors of type %s", c.Name, b.Type())
		}
		list.Append(true)
		for j := range c.Width {
			if err := appendNumber(list.ValueBuilder(), drawNumber(c, j, rnd)); err != nil {
				return err
			}
		}
		return nil
	case vae.Boolean:
		if boolean, ok := b.(*array.BooleanBuilder); ok {
			boolean.Append(rnd.IntN(2) == 1)
			return nil
		}
		return appendNumber(b, float64(rnd.IntN(2)))
	}
	return appendNumber(b, drawNumber(c, 0, rnd))
}

// drawNumber draws feature j of a column, in the column's own units.
func drawNumber(c *vae.Column, j int, rnd *rand.Rand) float64 {
	if c.Head == vae.Bernoulli || c.Transform == vae.Raw {
		return rnd.Float64()
	}
	x := c.Mean[j] + c.Scale[j]*rnd.NormFloat64()
	if c.Transform == vae.Log1p {
		x = math.Copysign(math.Expm1(math.Abs(x)), x)
	}
	return x
}

func appendNumber(b array.Builder, x float64) error {
	switch b := b.(type) {
	case *array.Float32Builder:
		b.Append(float32(x))
	case *array.Float64Builder:
		b.Append(x)
	case *array.BooleanBuilder:
		b.Append(x >= 0.5)
	case *array.Int8Builder:
		b.Append(int8(within(x, math.MinInt8, math.MaxInt8)))
	case *array.Int16Builder:
		b.Append(int16(within(x, math.MinInt16, math.MaxInt16)))
	case *array.Int32Builder:
		b.Append(int32(within(x, math.MinInt32, math.MaxInt32)))
	case *array.Int64Builder:
		b.Append(int64(within(x, -1<<62, 1<<62)))
	case *array.Uint8Builder:
		b.Append(uint8(within(x, 0, math.MaxUint8)))
	case *array.Uint16Builder:
		b.Append(uint16(within(x, 0, math.MaxUint16)))
	case *array.Uint32Builder:
		b.Append(uint32(within(x, 0, math.MaxUint32)))
	case *array.Uint64Builder:
		b.Append(uint64(within(x, 0, 1<<62)))
	default:
		return fmt.Errorf("cannot draw numbers of type %s", b.Type())
	}
	return nil
}

func within(x, low, high float64) float64 { return math.Round(min(max(x, low), high)) }
