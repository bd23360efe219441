// Package codec is the contract between messages and columns: a Format is a way
// to write rows as bytes, bound to fixed columns. Its subfolders hold the formats.
//
//	f, err := json.New(json.Config{Columns: columns})
//	d := f.NewDecoder(memory.DefaultAllocator)
//	defer d.Release()
//	got, err := d.Decode(ctx, values)
//
// The thing people get wrong is what an error means: a value that cannot be read
// is a Fault and never an error; an error ends the run.
package codec

import (
	"context"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// A Column is one column that a format is bound to.
type Column struct {
	Name string
	// Type is what the values become. Formats take float32, float64, int32, int64,
	// bool, string, binary, timestamps and fixed-size lists of float32.
	Type arrow.DataType
	// Path is where the value stands in a message, its steps parted by dots, as in
	// "payment.amount"; empty means Name as it is, dots and all.
	Path string
}

// A Format reads messages into columns. It is immutable and safe for concurrent
// use; each worker has a Decoder of its own.
type Format interface {
	// Schema is that of every record; each column is nullable.
	Schema() *arrow.Schema
	// NewDecoder returns a decoder whose records come from mem.
	NewDecoder(mem memory.Allocator) Decoder
}

// A Decoder turns the values of messages into columns. It serves one goroutine
// at a time and keeps scratch space between calls.
type Decoder interface {
	// Decode reads every value. It borrows values, whose nulls have no row
	// (tombstones). The caller owns the record, which keeps no view into values.
	// An error is about no single value (a schema that cannot be projected, ctx);
	// it ends the run.
	Decode(ctx context.Context, values *array.Binary) (Decoded, error)
	// Release gives up the scratch space.
	Release()
}

// Decoded is what Decode makes.
type Decoded struct {
	Record arrow.Record
	// Origin holds, for each row of Record, the value that it came from, never
	// falling. Nil means that row i came from value i.
	Origin []int32
	// Faults are the values that could not be read, in rising order. They have no
	// row in Record.
	Faults []Fault
}

// A Class says what kind of fault a value has; classes are labels of counters and
// headers of dead letters.
type Class string

const (
	// Syntax: the bytes are not of the format.
	Syntax Class = "decode"
	// Schema: the value's schema is unknown for good.
	Schema Class = "schema"
	// Invalid: the bytes are of the format, but a field has another type, is out of
	// range, or is missing where it must not be.
	Invalid Class = "validation"
	// Size: the value is larger than the format allows, before or after it is unpacked.
	Size Class = "size"
)

// A Fault is a value that cannot be read.
type Fault struct {
	Value int // its place in values
	Class Class
	Err   error // names the field or byte; quotes at most a few bytes of the value
}

// Error names the class and the reason.
func (f Fault) Error() string { return fmt.Sprintf("%s: %v", f.Class, f.Err) }

// Unwrap returns the reason.
func (f Fault) Unwrap() error { return f.Err }

// Reason returns the class, the label that such rows are counted under.
func (f Fault) Reason() string { return string(f.Class) }

// An Encoder writes rows as messages. It serves one goroutine at a time.
type Encoder interface {
	// Bind fixes the columns; it is called once, and reports every column that
	// cannot be written.
	Bind(schema *arrow.Schema) error
	// Reset makes rec the record that Append reads, until the next Reset. It
	// borrows rec.
	Reset(rec arrow.Record) error
	// MaxRows is how many rows one message may hold: 1 for most formats.
	MaxRows() int
	// Append appends the message of rows [lo, hi) of the record to dst, with
	// hi-lo at most MaxRows, and allocates nothing but what dst needs.
	Append(dst []byte, lo, hi int) ([]byte, error)
	// SchemaID returns the registry's id of the schema that is written, if it has one.
	SchemaID() (id int32, ok bool)
}
