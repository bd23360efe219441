package raw

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/pipeline/codec"
)

// EncoderConfig says what is written.
type EncoderConfig struct {
	// Columns are written, in this order; nil means all of the schema. Each is float32
	// or a fixed-size list of float32.
	Columns []string
}

// Encoder writes each row as its numbers; a null is a NaN, a null list as many as
// it has places.
type Encoder struct {
	c       EncoderConfig
	columns []int // of the record
	widths  []int
	schema  *arrow.Schema
	arrays  []arrow.Array // of the numbers
	parents []arrow.Array // the columns
	values  [][]float32
	from    []int // where a list's numbers begin
}

var _ codec.Encoder = (*Encoder)(nil)

// NewEncoder returns an encoder that is not bound yet.
func NewEncoder(c EncoderConfig) *Encoder {
	c.Columns = slices.Clone(c.Columns)
	return &Encoder{c: c}
}

// Bind fixes the columns, and reports each one that is missing, comes twice, or
// has a type that is not written.
func (e *Encoder) Bind(schema *arrow.Schema) error {
	names := e.c.Columns
	if names == nil {
		for _, f := range schema.Fields() {
			names = append(names, f.Name)
		}
	}
	var errs []error
	e.schema, e.columns, e.widths = schema, nil, nil
	for i, n := range names {
		at := schema.FieldIndices(n)
		switch {
		case len(at) == 0:
			errs = append(errs, fmt.Errorf("column %q: there is none", n))
			continue
		case len(at) > 1 || slices.Contains(names[:i], n):
			errs = append(errs, fmt.Errorf("column %q: comes twice", n))
			continue
		}
		w := widthOf(schema.Field(at[0]).Type)
		if w == 0 {
			errs = append(errs, fmt.Errorf("column %q: raw messages hold float32 and fixed-size lists of float32, not %v", n, schema.Field(at[0]).Type))
		}
		e.columns, e.widths = append(e.columns, at[0]), append(e.widths, w)
	}
	return errors.Join(errs...)
}

// Reset makes rec, of the schema that was bound, the record that Append reads.
func (e *Encoder) Reset(rec arrow.Record) error {
	e.arrays, e.parents, e.values, e.from = e.arrays[:0], e.parents[:0], e.values[:0], e.from[:0]
	same := rec.Schema() == e.schema
	for _, i := range e.columns {
		if !same && (i >= int(rec.NumCols()) || !arrow.TypeEqual(rec.Column(i).DataType(), e.schema.Field(i).Type)) {
			return fmt.Errorf("column %q: not of the type that was bound", e.schema.Field(i).Name)
		}
		numbers, from := rec.Column(i), 0
		if l, ok := numbers.(*array.FixedSizeList); ok {
			lo, _ := l.ValueOffsets(0)
			numbers, from = l.ListValues(), int(lo)
		}
		e.parents = append(e.parents, rec.Column(i))
		e.arrays = append(e.arrays, numbers)
		e.values = append(e.values, numbers.(*array.Float32).Float32Values())
		e.from = append(e.from, from)
	}
	return nil
}

// MaxRows is 1.
func (e *Encoder) MaxRows() int { return 1 }

// Append appends the numbers of row lo.
func (e *Encoder) Append(dst []byte, lo, hi int) ([]byte, error) {
	if hi != lo+1 {
		return dst, fmt.Errorf("%d rows in one message, want 1", hi-lo)
	}
	nan := math.Float32bits(float32(math.NaN()))
	for k, w := range e.widths {
		null := e.parents[k].IsNull(lo)
		for i := e.from[k] + lo*w; i < e.from[k]+(lo+1)*w; i++ {
			bits := nan
			if !null && e.arrays[k].IsValid(i) {
				bits = math.Float32bits(e.values[k][i])
			}
			dst = binary.LittleEndian.AppendUint32(dst, bits)
		}
	}
	return dst, nil
}

// SchemaID is never known.
func (e *Encoder) SchemaID() (id int32, ok bool) { return 0, false }
