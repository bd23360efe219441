// Package protobuf reads Protobuf messages into columns, and writes rows as
// Protobuf.
//
//	f, err := protobuf.New(ctx, protobuf.Config{Registry: client, Subject: "payments-value"})
//	d := f.NewDecoder(memory.DefaultAllocator)
//	defer d.Release()
//	got, err := d.Decode(ctx, values) // each value names the schema that wrote it
//
// The reader's schema, which Config may give, says what the columns are, by its
// names; its numbers say which of the writer's fields they are. So fields may be
// renamed. The writer's schema, which a message names, says how they are written.
// Fields that no column asks for are stepped over.
//
// An absent field becomes what a reader of Protobuf sees: the default where it has
// no presence, as a plain scalar of proto3, or where the schema states one; null
// where absence can be told, as with optional, in a oneof, or below a message that is
// absent. A field that the writer's schema does not have is null, or the default that
// the reader's states. Repeated fields become fixed-size lists of float32, null when
// empty, or are reached by index; maps are reached by key. Enums become the names of
// their values, or their numbers; google.protobuf.Timestamp becomes a timestamp, cut
// off towards the past, and wrappers such as FloatValue what they wrap.
//
// The mistake to avoid is to take a codec.SchemaError for a bad message: it says that
// a writer's schema cannot become the columns at all, and ends the run.
package protobuf

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

// maxItem is the highest index of a repeated field that a path may name.
const maxItem = 65535

// Framing says what stands before a message's data.
type Framing string

const (
	// Confluent is a zero byte, a schema id of four bytes and the message's place in
	// the schema, as serializers with a registry write them. It is the default.
	Confluent Framing = "confluent"
	// Bare is nothing: all messages have the reader's schema.
	Bare Framing = "none"
)

// Config says which messages become which columns. At most one of Schema,
// Descriptors and Subject is set.
type Config struct {
	// Columns are what is read; nil means each leaf of the reader's message, under its
	// path. Leaves are scalars, timestamps and wrappers, none of them repeated. A name
	// with dots is a path too, because no field's name has any.
	Columns []codec.Column
	// Schema is the text of the reader's schema, and Imports the texts of what it
	// imports, by path; Google's own and Confluent's are known.
	Schema  string
	Imports map[string]string
	// Descriptors is the reader's schema as protoc --descriptor_set_out with
	// --include_imports writes it.
	Descriptors []byte
	// Subject is whose latest schema in the registry is the reader's.
	Subject string
	// Message is the reader's message, with or without its package; "" means the
	// first one of the schema. Messages of another name are codec.Schema faults.
	Message string
	// Registry knows the writers' schemas. Framing Confluent needs one.
	Registry *registry.Client
	Framing  Framing // "" means Confluent
	// Required names columns whose nulls make a message a codec.Invalid fault.
	Required []string
	// Integers says what integers count, since 1970, where a column is a timestamp: s,
	// ms, us or ns. With "" they do not become timestamps.
	Integers string
	// MaxBytes is the size of the largest message; 0 means 16 MiB. A larger one is a
	// codec.Size fault.
	MaxBytes int
}

// Format reads messages into fixed columns. It is immutable, but for what it has
// learned of the writers' schemas, and safe for concurrent use.
type Format struct {
	c        Config
	schema   *arrow.Schema
	reader   protoreflect.MessageDescriptor // nil where there is none
	root     *node                          // of the columns' paths
	required []int
	bare     *program // of Bare

	mu       sync.Mutex
	programs map[string]*projection // by what stands before the data
}

// A projection is a message of writers, and what becomes of it.
type projection struct {
	program *program
	poison  error // the schema is none of Protobuf, or has no such message
	fatal   error // it cannot become the columns
}

var _ codec.Format = (*Format)(nil)

// New checks c and reports everything wrong with it. It asks the registry for the
// reader's schema, for as long as ctx allows.
func New(ctx context.Context, c Config) (*Format, error) {
	if c.Framing == "" {
		c.Framing = Confluent
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 16 << 20
	}
	f := &Format{c: c, programs: map[string]*projection{}}
	if err := c.check(); err != nil {
		return nil, err
	}
	var err error
	if f.reader, err = c.message(ctx); err != nil {
		return nil, fmt.Errorf("reader's schema: %w", err)
	}
	f.c.Columns = slices.Clone(c.Columns)
	if f.c.Columns == nil {
		if f.c.Columns = leaves(f.reader); len(f.c.Columns) == 0 {
			return nil, fmt.Errorf("columns: must be set, because message %s has no leaf", f.reader.FullName())
		}
	}
	if err := f.bind(); err != nil {
		return nil, err
	}
	f.schema = table.Schema(f.c.Columns)
	if f.c.Framing == Bare {
		w := f.compile(f.reader, "the messages' schema")
		f.bare, err = w.program, w.fatal
	}
	return f, err
}

// Schema is that of every record; each column is nullable.
func (f *Format) Schema() *arrow.Schema { return f.schema }

// NewDecoder returns a decoder whose records come from mem.
func (f *Format) NewDecoder(mem memory.Allocator) codec.Decoder { return newDecoder(f, mem) }

func (c Config) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	sources := 0
	for _, set := range []bool{c.Schema != "", c.Descriptors != nil, c.Subject != ""} {
		if set {
			sources++
		}
	}
	if sources > 1 {
		fault("schema: is set in more than one of schema, descriptors and subject")
	}
	if c.Columns == nil && sources == 0 {
		fault("columns: must be set, or schema or subject, whose leaves they then are")
	}
	if c.Message != "" && sources == 0 {
		fault("message: needs the schema that it stands in")
	}
	if c.Subject != "" && c.Registry == nil {
		fault("subject: needs a registry")
	}
	switch c.Framing {
	case Confluent:
		if c.Registry == nil {
			fault("registry: must be set, because messages name their schema by its id there")
		}
	case Bare:
		if sources == 0 {
			fault("schema: must be set, because messages do not name theirs")
		}
	default:
		fault("framing: %q, want confluent or none", c.Framing)
	}
	if _, ok := table.UnitOf(c.Integers); !ok && c.Integers != "" {
		fault("integers: %q, want s, ms, us or ns", c.Integers)
	}
	if c.MaxBytes < 0 {
		fault("max bytes: %d is negative", c.MaxBytes)
	}
	return errors.Join(errs...)
}

// message returns the reader's message, nil where there is none.
func (c Config) message(ctx context.Context) (protoreflect.MessageDescriptor, error) {
	var file protoreflect.FileDescriptor
	var err error
	switch {
	case c.Descriptors != nil:
		return fromSet(c.Descriptors, c.Message)
	case c.Schema != "":
		file, err = compileText(ctx, c.Schema, c.Imports)
	case c.Subject != "":
		var s *registry.Schema
		if s, err = c.Registry.Latest(ctx, c.Subject); err == nil {
			file, err = compile(ctx, s)
		}
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return find(file, c.Message)
}

// bind makes the tree of the columns' paths and checks it against the reader's
// message.
func (f *Format) bind() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	names := map[string]bool{}
	f.root = &node{}
	for i, c := range f.c.Columns {
		steps := steps(c)
		switch {
		case c.Name == "":
			fault("columns: a column has no name")
			continue
		case names[c.Name]:
			fault("column %q: comes twice", c.Name)
			continue
		case table.KindOf(c.Type) == table.None:
			fault("column %q: Protobuf is not read as %v", c.Name, c.Type)
			continue
		case slices.Contains(steps, ""):
			fault("column %q: path %q has an empty step", c.Name, c.Path)
			continue
		}
		names[c.Name] = true
		f.root.add(steps, i)
		if f.reader != nil {
			if err := reaches(f.reader, steps); err != nil {
				fault("column %q: %w", c.Name, err)
			}
		}
	}
	for _, n := range f.c.Required {
		i := slices.IndexFunc(f.c.Columns, func(c codec.Column) bool { return c.Name == n })
		if i < 0 {
			fault("required: there is no column %q", n)
			continue
		}
		f.required = append(f.required, i)
	}
	return errors.Join(errs...)
}

// projection returns what becomes of messages that begin with a header: the id and the
// index that it says. An error that is registry.ErrUnknownSchema is about this
// message.
func (f *Format) projection(ctx context.Context, header []byte, id int32, index []int) (*projection, error) {
	f.mu.Lock()
	w := f.programs[string(header)]
	f.mu.Unlock()
	if w != nil {
		return w, nil
	}
	s, err := f.c.Registry.Schema(ctx, id)
	if err != nil {
		return nil, err
	}
	file, err := compile(ctx, s)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var m protoreflect.MessageDescriptor
	if err == nil {
		m, err = descend(file, index)
	}
	switch {
	case err != nil:
		w = &projection{poison: fmt.Errorf("schema %d: %w", id, err)}
	case f.reader != nil && m.Name() != f.reader.Name():
		w = &projection{poison: fmt.Errorf("schema %d: message %s, want %s", id, m.FullName(), f.reader.FullName())}
	default:
		w = f.compile(m, fmt.Sprintf("schema %d", id))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.programs) < maxPrograms {
		f.programs[string(header)] = w
	}
	return w, nil
}

// maxPrograms bounds what is kept: headers come from outside, and may name a message
// in many ways.
const maxPrograms = 10_000

// A node is a place in messages that a column's path ends at or leads through.
type node struct {
	columns []int
	below   []*node
	steps   []string // of below
}

// add adds a column's path.
func (n *node) add(steps []string, column int) {
	for _, s := range steps {
		i := slices.Index(n.steps, s)
		if i < 0 {
			i = len(n.steps)
			n.steps, n.below = append(n.steps, s), append(n.below, &node{})
		}
		n = n.below[i]
	}
	n.columns = append(n.columns, column)
}

// all returns the columns at n and below.
func (n *node) all() []int {
	all := slices.Clone(n.columns)
	for _, b := range n.below {
		all = append(all, b.all()...)
	}
	return all
}

// steps returns the steps of a column's path.
func steps(c codec.Column) []string {
	path := c.Path
	if path == "" {
		path = c.Name
	}
	return strings.Split(path, ".")
}

func below(path, step string) string { return strings.TrimPrefix(path+"."+step, ".") }

// item reads a step as the index of an element.
func item(step string) (int, bool) {
	i, err := strconv.Atoi(step)
	return i, err == nil && i >= 0 && i <= maxItem && strconv.Itoa(i) == step
}

// byStep returns the field of a message that a step names, by its own name or that
// of JSON; nil when there is none.
func byStep(m protoreflect.MessageDescriptor, step string) protoreflect.FieldDescriptor {
	if f := m.Fields().ByName(protoreflect.Name(step)); f != nil {
		return f
	}
	return m.Fields().ByJSONName(step)
}

// reaches checks that a path leads somewhere in the reader's message.
func reaches(m protoreflect.MessageDescriptor, steps []string) error {
	for i := 0; i < len(steps); i++ {
		var f protoreflect.FieldDescriptor
		if m != nil {
			f = byStep(m, steps[i])
		}
		if f == nil {
			return fmt.Errorf("the reader's schema has no %q", strings.Join(steps[:i+1], "."))
		}
		if (f.IsList() || f.IsMap()) && i+1 < len(steps) {
			i++ // an index or a key
			if _, ok := item(steps[i]); f.IsList() && !ok {
				return fmt.Errorf("%q is no index of a repeated field", strings.Join(steps[:i+1], "."))
			}
		}
		if m = f.Message(); f.IsMap() {
			m = f.MapValue().Message()
		}
	}
	return nil
}

// leaves returns a column for each leaf of a message.
func leaves(m protoreflect.MessageDescriptor) []codec.Column {
	var all []codec.Column
	var walk func(m protoreflect.MessageDescriptor, path string, above []protoreflect.FullName)
	walk = func(m protoreflect.MessageDescriptor, path string, above []protoreflect.FullName) {
		if slices.Contains(above, m.FullName()) {
			return
		}
		above = append(above[:len(above):len(above)], m.FullName())
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			name := below(path, string(f.Name()))
			switch t := arrowType(f); {
			case len(all) >= maxLeaves || f.IsList() || f.IsMap():
			case t != nil:
				all = append(all, codec.Column{Name: name, Type: t})
			case f.Kind() == protoreflect.MessageKind:
				walk(f.Message(), name, above)
			}
		}
	}
	walk(m, "", nil)
	return all
}

// maxLeaves bounds what a schema may become without being asked for.
const maxLeaves = 10_000
