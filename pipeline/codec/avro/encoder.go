package avro

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

// EncoderConfig says what is written.
type EncoderConfig struct {
	// Columns are written, in this order; nil means all of the schema.
	Columns []string
	// Name is the record's full name; "" means elbo.Row.
	Name string
	// Registry gives the schema an id under Subject, which by custom is the topic's
	// name and -value. Nil means that messages have no header, unless SchemaID is set.
	Registry *registry.Client
	Subject  string
	// Find takes the id that the schema has under Subject and registers nothing.
	Find bool
	// Timeout is how long Bind waits for the registry; 0 means 2 minutes.
	Timeout time.Duration
	// SchemaID is the id that messages name, where no registry is asked for it.
	SchemaID int32
}

// Encoder writes each row as a record whose fields are the columns. Its schema
// follows from the columns' types (Schema):
//
//   - a nullable column is a union of null and its type, with null as the default;
//   - timestamps of seconds become timestamp-millis, the others keep their unit, and
//     those without a time zone are local; dates are dates;
//   - lists are arrays, structs are records, maps with strings as keys are maps,
//     dictionaries their values; unsigned integers the next larger type with a sign,
//     of which one above 2^63-1 is an error;
//   - elements of lists are not nullable: a null float is NaN, any other null an error;
//   - names that Avro does not allow have _ in place of each byte that is wrong, and
//     the column's name as their doc.
type Encoder struct {
	c       EncoderConfig
	schema  *arrow.Schema
	columns []int // of the record
	fields  []writer
	text    string
	id      int32
	hasID   bool
}

var _ codec.Encoder = (*Encoder)(nil)

// NewEncoder returns an encoder that is not bound yet, or everything wrong with c.
func NewEncoder(c EncoderConfig) (*Encoder, error) {
	var errs []error
	if c.Registry != nil && c.Subject == "" {
		errs = append(errs, errors.New("subject: must be set, because a registry is"))
	}
	if c.Registry != nil && c.SchemaID != 0 {
		errs = append(errs, errors.New("schema id: a registry is set too; choose one"))
	}
	if c.Registry == nil && c.Find {
		errs = append(errs, errors.New("find: needs a registry"))
	}
	if c.Timeout < 0 {
		errs = append(errs, errors.New("timeout: is negative"))
	}
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Minute
	}
	if c.Name == "" {
		c.Name = "elbo.Row"
	}
	c.Columns = slices.Clone(c.Columns)
	return &Encoder{c: c}, errors.Join(errs...)
}

// Bind fixes the columns, and reports each one that is missing, comes twice, or
// has a type that is not written. It asks the registry for the schema's id.
func (e *Encoder) Bind(schema *arrow.Schema) error {
	names := e.c.Columns
	if names == nil {
		for _, f := range schema.Fields() {
			names = append(names, f.Name)
		}
	}
	var errs []error
	var fields []arrow.Field
	e.schema, e.columns, e.fields = schema, nil, nil
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
		w, err := newWriter(schema.Field(at[0]).Type, schema.Field(at[0]).Nullable)
		if err != nil {
			errs = append(errs, fmt.Errorf("column %q: %w", n, err))
			continue
		}
		e.columns, e.fields = append(e.columns, at[0]), append(e.fields, w)
		fields = append(fields, schema.Field(at[0]))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var err error
	if e.text, err = schemaOf(e.c.Name, fields); err != nil {
		return err
	}
	return e.register()
}

// register gets the id that messages name.
func (e *Encoder) register() error {
	e.id, e.hasID = e.c.SchemaID, e.c.SchemaID != 0
	if e.c.Registry == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), e.c.Timeout)
	defer cancel()
	ask := e.c.Registry.Register
	if e.c.Find {
		ask = e.c.Registry.Find
	}
	var err error
	e.id, err = ask(ctx, e.c.Subject, &registry.Schema{Type: registry.Avro, Text: e.text})
	e.hasID = err == nil
	return err
}

// Schema returns the text of the schema that is written, once Bind was called.
func (e *Encoder) Schema() string { return e.text }

// Reset makes rec, of the schema that was bound, the record that Append reads.
func (e *Encoder) Reset(rec arrow.Record) error {
	same := rec.Schema() == e.schema
	for k, i := range e.columns {
		if !same && (i >= int(rec.NumCols()) || !arrow.TypeEqual(rec.Column(i).DataType(), e.schema.Field(i).Type)) {
			return fmt.Errorf("column %q: not of the type that was bound", e.schema.Field(i).Name)
		}
		e.fields[k].reset(rec.Column(i))
	}
	return nil
}

// MaxRows is 1.
func (e *Encoder) MaxRows() int { return 1 }

// Append appends the message of row lo.
func (e *Encoder) Append(dst []byte, lo, hi int) ([]byte, error) {
	if hi != lo+1 {
		return dst, fmt.Errorf("%d rows in one message, want 1", hi-lo)
	}
	if e.hasID {
		dst = binary.BigEndian.AppendUint32(append(dst, 0), uint32(e.id))
	}
	for k, w := range e.fields {
		var err error
		if dst, err = w.write(dst, lo); err != nil {
			return dst, fmt.Errorf("%s: %w", e.schema.Field(e.columns[k]).Name, err)
		}
	}
	return dst, nil
}

// SchemaID returns the id that is written before each record, if one is.
func (e *Encoder) SchemaID() (id int32, ok bool) { return e.id, e.hasID }
