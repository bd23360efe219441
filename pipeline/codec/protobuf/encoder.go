package protobuf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

// EncoderConfig says what is written.
type EncoderConfig struct {
	// Columns are written, in this order; nil means all of the schema.
	Columns []string
	// Name is the message's full name; "" means elbo.Row.
	Name string
	// Registry gives the schema an id under Subject, which by custom is the topic's
	// name and -value. Nil means that messages have no header, unless SchemaID is set.
	Registry *registry.Client
	Subject  string
	// Find takes the latest schema of Subject and registers nothing.
	Find bool
	// Timeout is how long Bind waits for the registry; 0 means 2 minutes.
	Timeout time.Duration
	// SchemaID is the id that messages name, where no registry is asked for it.
	SchemaID int32
}

// Encoder writes each row as a message whose fields are the columns. Its schema
// follows from the columns' types (Schema):
//
//   - a nullable column is optional, and absent when it is null;
//   - lists are repeated fields, so that null and an empty list are the same, and a
//     null element is NaN among floats and an error otherwise; structs are messages,
//     maps are maps, dictionaries their values;
//   - timestamps are google.protobuf.Timestamp, dates days since 1970 as int32;
//   - names that Protobuf does not allow have _ in place of each byte that is wrong.
//
// Fields keep their numbers: where the latest schema of the subject has a field of
// the same name and type, its number is taken, and numbers of fields that are gone
// are reserved. A latest schema that has all the columns is written as it is, so it
// may be somebody's own.
type Encoder struct {
	c       EncoderConfig
	schema  *arrow.Schema
	columns []int // of the record
	message *messageWriter
	text    string
	header  []byte
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
	for part := range strings.SplitSeq(c.Name, ".") {
		if part == "" || part != legal(part) {
			errs = append(errs, fmt.Errorf("name: %q is none that Protobuf allows", c.Name))
			break
		}
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
	e.schema, e.columns = schema, nil
	for i, n := range names {
		at := schema.FieldIndices(n)
		switch {
		case len(at) == 0:
			errs = append(errs, fmt.Errorf("column %q: there is none", n))
		case len(at) > 1 || slices.Contains(names[:i], n):
			errs = append(errs, fmt.Errorf("column %q: comes twice", n))
		default:
			e.columns, fields = append(e.columns, at[0]), append(fields, schema.Field(at[0]))
		}
	}
	shape, err := shapeOf(e.c.Name[strings.LastIndexByte(e.c.Name, '.')+1:], fields)
	if err = errors.Join(append(errs, err)...); err != nil {
		return err
	}
	if err := e.register(shape); err != nil {
		return err
	}
	e.message = newMessageWriter(shape)
	if e.hasID {
		e.header = binary.BigEndian.AppendUint32([]byte{0}, uint32(e.id))
		e.header = appendIndex(e.header, shape.index)
	}
	return nil
}

// register numbers the fields and gets the id that messages name.
func (e *Encoder) register(s *shape) error {
	e.id, e.hasID = e.c.SchemaID, e.c.SchemaID != 0
	if e.c.Registry == nil {
		s.number(nil)
		e.text = s.text(e.c.Name)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), e.c.Timeout)
	defer cancel()
	latest, err := e.c.Registry.Latest(ctx, e.c.Subject)
	var old protoreflect.MessageDescriptor
	switch {
	case errors.Is(err, registry.ErrUnknownSchema) && !e.c.Find:
	case err != nil:
		return err
	default:
		if old, err = e.latest(ctx, latest); err != nil {
			return fmt.Errorf("latest schema of subject %q: %w", e.c.Subject, err)
		}
	}
	misfits := s.number(old)
	switch {
	case old != nil && len(misfits) == 0:
		e.text, e.id, e.hasID, s.index = latest.Text, latest.ID, true, indexIn(old)
		return nil
	case e.c.Find:
		return fmt.Errorf("latest schema of subject %q: message %s has no field that fits %s", e.c.Subject, old.FullName(), strings.Join(misfits, ", "))
	case old != nil && string(old.FullName()) != e.c.Name:
		return fmt.Errorf("latest schema of subject %q: message %s is not ours, and has no field that fits %s: choose another subject, or add them",
			e.c.Subject, old.FullName(), strings.Join(misfits, ", "))
	}
	e.text = s.text(e.c.Name)
	e.id, err = e.c.Registry.Register(ctx, e.c.Subject, &registry.Schema{Type: registry.Protobuf, Text: e.text})
	e.hasID = err == nil
	return err
}

// latest returns the message of a subject's latest schema: the one with our name, or
// the first one.
func (e *Encoder) latest(ctx context.Context, s *registry.Schema) (protoreflect.MessageDescriptor, error) {
	file, err := compile(ctx, s)
	if err != nil {
		return nil, err
	}
	if m, err := find(file, e.c.Name); err == nil {
		return m, nil
	}
	return find(file, "")
}

// indexIn returns where a message stands in its file.
func indexIn(m protoreflect.MessageDescriptor) []int {
	var index []int
	for d := protoreflect.Descriptor(m); ; d = d.Parent() {
		if _, ok := d.(protoreflect.MessageDescriptor); !ok {
			slices.Reverse(index)
			return index
		}
		index = append(index, d.Index())
	}
}

// appendIndex appends a message's index as Confluent's serializers do.
func appendIndex(dst []byte, index []int) []byte {
	if len(index) == 0 || len(index) == 1 && index[0] == 0 {
		return append(dst, 0)
	}
	dst = protowire.AppendVarint(dst, protowire.EncodeZigZag(int64(len(index))))
	for _, i := range index {
		dst = protowire.AppendVarint(dst, protowire.EncodeZigZag(int64(i)))
	}
	return dst
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
		e.message.fields[k].reset(rec.Column(i))
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
	return e.message.write(append(dst, e.header...), lo)
}

// SchemaID returns the id that is written before each message, if one is.
func (e *Encoder) SchemaID() (id int32, ok bool) { return e.id, e.hasID }
