// Package arrowipc reads and writes rows as Arrow IPC streams: many rows a message,
// in columns, with nothing to parse.
//
//	f, err := arrowipc.New(arrowipc.Config{Columns: []codec.Column{
//		{Name: "amount", Type: arrow.PrimitiveTypes.Float32},
//	}})
//	d := f.NewDecoder(memory.DefaultAllocator)
//	defer d.Release()
//	got, err := d.Decode(ctx, values) // each value is a stream: schema, batches
//
// Columns are found by name; one that a stream lacks is null. Types may differ as
// far as nothing is lost: narrower integers and floats become wider ones, integers
// floats that hold them exactly, float64 float32 where a column asks for that,
// dictionaries their values. Any other type is a *codec.SchemaError, which ends
// the run. Buffers may be compressed by LZ4 or Zstandard.
//
// The mistake to avoid is one row a message: a stream without rows has some
// hundred bytes, and costs as much to read as some hundred rows.
package arrowipc

import (
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec"
)

// Config says which columns of a stream become which columns.
type Config struct {
	// Columns are float32, float64, int32, int64, bool, string, binary, timestamps and
	// fixed-size lists of float32. Column.Path is the stream's name of a column, where
	// it is another one.
	Columns []codec.Column
	// Schema is the schema of messages that hold batches alone, as MarshalSchema makes
	// it; nil means that each message begins with its schema. A message may have one
	// all the same.
	Schema []byte
	// MaxBytes is the size of the largest message; 0 means 16 MiB. A larger one is a
	// codec.Size fault.
	MaxBytes int
	// Expand bounds the memory that a message takes when it is unpacked: as many times
	// its size, or 256 KiB if that is more. 0 means 64. More is a codec.Size fault.
	Expand int
}

// leastRoom is what a message may take however small it is.
const leastRoom = 256 << 10

// Format reads streams into fixed columns. It is immutable and safe for concurrent
// use.
type Format struct {
	c      Config
	schema *arrow.Schema
	plan   *plan // of Config.Schema; nil without it
}

var _ codec.Format = (*Format)(nil)

// New checks c and reports everything wrong with it. A Config.Schema that lacks
// nothing but cannot be projected is a *codec.SchemaError.
func New(c Config) (*Format, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 16 << 20
	}
	if c.Expand == 0 {
		c.Expand = 64
	}
	c.Columns = slices.Clone(c.Columns)
	fields := make([]arrow.Field, len(c.Columns))
	for i, col := range c.Columns {
		fields[i] = arrow.Field{Name: col.Name, Type: col.Type, Nullable: true}
	}
	f := &Format{c: c, schema: arrow.NewSchema(fields, nil)}
	if c.Schema == nil {
		return f, nil
	}
	m, _, err := next(c.Schema)
	if err != nil || m.header != headerSchema {
		return nil, errors.Join(errors.New("schema: not the message of a schema"), err)
	}
	f.plan, err = newPlan(m, c.Columns, "the configured schema")
	if err == nil {
		err = f.plan.err
	}
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	return f, nil
}

func (c Config) validate() error {
	var errs []error
	names := map[string]bool{}
	if len(c.Columns) == 0 {
		errs = append(errs, errors.New("columns: none"))
	}
	for _, col := range c.Columns {
		switch {
		case col.Name == "":
			errs = append(errs, errors.New("columns: a column has no name"))
		case names[col.Name]:
			errs = append(errs, fmt.Errorf("column %q: comes twice", col.Name))
		case kindOf(col.Type) == kindNone:
			errs = append(errs, fmt.Errorf("column %q: Arrow streams are not read as %v", col.Name, col.Type))
		}
		names[col.Name] = true
	}
	if c.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("max bytes: %d is negative", c.MaxBytes))
	}
	if c.Expand < 0 {
		errs = append(errs, fmt.Errorf("expand: %d is negative", c.Expand))
	}
	return errors.Join(errs...)
}

// Schema is that of every record; each column is nullable.
func (f *Format) Schema() *arrow.Schema { return f.schema }

// NewDecoder returns a decoder whose records come from mem.
func (f *Format) NewDecoder(mem memory.Allocator) codec.Decoder { return newDecoder(f, mem) }
