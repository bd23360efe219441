package json

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline/codec"
)

// EncoderConfig says what is written.
type EncoderConfig struct {
	// Columns are written, in this order; nil means all of the schema.
	Columns []string
	// SchemaID is written before each object, after a zero byte, as a schema
	// registry's deserializers want it; 0 writes neither.
	SchemaID int32
}

// Encoder writes each row as an object whose keys are the columns' names.
//
//   - null is null, and so are NaN and the infinities, which JSON does not have;
//   - floats have the fewest digits that give the same float back, read in their
//     own precision; integers all their digits, also above 2^53;
//   - timestamps are RFC 3339 in UTC with as many decimals as their unit has, dates
//     are "2006-01-02"; a year outside 0 to 9999 is an error;
//   - binaries are base64; of strings, bytes that are not UTF-8 become U+FFFD;
//   - lists are arrays, structs are objects, dictionaries are their values.
type Encoder struct {
	c       EncoderConfig
	columns []int // of the record
	schema  *arrow.Schema
	object  structWriter
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
	e.schema, e.columns, e.object = schema, nil, structWriter{}
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
		w, err := newWriter(schema.Field(at[0]).Type)
		if err != nil {
			errs = append(errs, fmt.Errorf("column %q: %w", n, err))
			continue
		}
		e.columns = append(e.columns, at[0])
		e.object.add(n, w)
	}
	return errors.Join(errs...)
}

// Reset makes rec, of the schema that was bound, the record that Append reads.
func (e *Encoder) Reset(rec arrow.Record) error {
	same := rec.Schema() == e.schema
	for k, i := range e.columns {
		if !same && (i >= int(rec.NumCols()) || !arrow.TypeEqual(rec.Column(i).DataType(), e.schema.Field(i).Type)) {
			return fmt.Errorf("column %q: not of the type that was bound", e.schema.Field(i).Name)
		}
		e.object.values[k].reset(rec.Column(i))
	}
	return nil
}

// MaxRows is 1.
func (e *Encoder) MaxRows() int { return 1 }

// Append appends the object of row lo.
func (e *Encoder) Append(dst []byte, lo, hi int) ([]byte, error) {
	if hi != lo+1 {
		return dst, fmt.Errorf("%d rows in one message, want 1", hi-lo)
	}
	if e.c.SchemaID != 0 {
		dst = binary.BigEndian.AppendUint32(append(dst, 0), uint32(e.c.SchemaID))
	}
	return e.object.fields(dst, lo)
}

// SchemaID returns the id that is written before each object, if one is.
func (e *Encoder) SchemaID() (id int32, ok bool) { return e.c.SchemaID, e.c.SchemaID != 0 }
