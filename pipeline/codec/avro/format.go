// Package avro reads Avro messages into columns, and writes rows as Avro.
//
//	f, err := avro.New(ctx, avro.Config{Registry: client, Subject: "payments-value"})
//	d := f.NewDecoder(memory.DefaultAllocator)
//	defer d.Release()
//	got, err := d.Decode(ctx, values) // each value names the schema that wrote it
//
// Two schemas are at work. The writer's stands in the registry under the id that a
// message begins with; it says what the bytes are. The reader's, which Config may
// give, says what the columns are: their defaults, and by its aliases which of the
// writer's fields they are. The writer's fields that no column asks for are stepped
// over; a field that the writer does not have becomes the reader's default, or null.
//
// Values become columns as Avro resolves schemas, int to long to float to double,
// and where a column is narrower because it was asked for: double to float32.
// Besides that, enums become strings, as the writer spells them; decimals the
// nearest float; dates and timestamps become timestamps of any unit, cut off towards
// the past; bytes and strings each other. A path leads through records by field,
// through arrays by index, through maps by key, and "." is the whole message.
//
// The mistake to avoid is to take a codec.SchemaError for a bad message: it says
// that a writer's schema cannot become the columns at all, and ends the run. A value
// that a column cannot hold is a codec.Invalid fault, bytes that are not of the
// schema are codec.Syntax, and an id that the registry does not know codec.Schema.
package avro

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

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

// MaxDepth is how deep values may be nested.
const MaxDepth = 1000

// maxItem is the highest index of an array that a path may name.
const maxItem = 65535

// Framing says what stands before a message's data.
type Framing string

const (
	// Confluent is a zero byte and a schema id of four bytes, as serializers with a
	// registry write them. It is the default.
	Confluent Framing = "confluent"
	// Bare is nothing: all messages have one schema.
	Bare Framing = "none"
	// SingleObject is Avro's own: the bytes C3 01 and the fingerprint of a schema.
	SingleObject Framing = "single_object"
)

// Config says which messages become which columns.
type Config struct {
	// Columns are what is read; nil means each leaf of the reader's schema, under its
	// path. Leaves are what is no array, map, or union of more than null and a type.
	// A name with dots is a path too, because no field's name has any.
	Columns []codec.Column
	// Schema is the text of the reader's schema. Where it is empty, the latest schema
	// of Subject is; where both are, columns are found by the writer's names.
	Schema  string
	Subject string
	// Registry knows the writers' schemas. Framing Confluent needs one.
	Registry *registry.Client
	Framing  Framing // "" means Confluent
	// Writers are texts of the writers' schemas: the one of Bare, where nil means
	// Schema, and those that SingleObject tells apart.
	Writers []string
	// Required names columns whose nulls make a message a codec.Invalid fault.
	Required []string
	// Longs says what plain longs and ints count, since 1970, where a column is a
	// timestamp: s, ms, us or ns. With "" they do not become timestamps.
	Longs string
	// MaxBytes is the size of the largest message; 0 means 16 MiB. A larger one is a
	// codec.Size fault.
	MaxBytes int
}

// Format reads messages into fixed columns. It is immutable, but for what it has
// learned of the writers' schemas, and safe for concurrent use.
type Format struct {
	c        Config
	schema   *arrow.Schema
	reader   *typ  // nil where there is none
	root     *node // of the columns' paths
	required []int

	bare   *program                // of Bare
	prints map[[8]byte]*projection // of SingleObject

	mu       sync.Mutex
	programs map[int32]*projection // of Confluent
}

// A projection is a schema of writers, and what becomes of it.
type projection struct {
	program *program
	poison  error // the schema is none of Avro
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
	f := &Format{c: c, programs: map[int32]*projection{}, prints: map[[8]byte]*projection{}}
	if err := c.check(); err != nil {
		return nil, err
	}
	source := &registry.Schema{Text: c.Schema}
	if c.Schema == "" && c.Subject != "" {
		var err error
		if source, err = c.Registry.Latest(ctx, c.Subject); err != nil {
			return nil, err
		}
	}
	if source.Text != "" {
		var err error
		if f.reader, err = parse(source); err != nil {
			return nil, fmt.Errorf("reader's schema: %w", err)
		}
	}
	f.c.Columns = slices.Clone(c.Columns)
	if f.c.Columns == nil {
		if f.c.Columns = leaves(f.reader); len(f.c.Columns) == 0 {
			return nil, errors.New("columns: must be set, because the reader's schema has no leaf")
		}
	}
	if err := f.bind(); err != nil {
		return nil, err
	}
	f.schema = table.Schema(f.c.Columns)
	return f, f.bindWriters(source)
}

// Schema is that of every record; each column is nullable.
func (f *Format) Schema() *arrow.Schema { return f.schema }

// NewDecoder returns a decoder whose records come from mem.
func (f *Format) NewDecoder(mem memory.Allocator) codec.Decoder { return newDecoder(f, mem) }

func (c Config) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Columns == nil && c.Schema == "" && c.Subject == "" {
		fault("columns: must be set, or schema or subject, whose leaves they then are")
	}
	if c.Schema != "" && c.Subject != "" {
		fault("schema: subject is set too; choose one")
	}
	if c.Subject != "" && c.Registry == nil {
		fault("subject: needs a registry")
	}
	switch c.Framing {
	case Confluent:
		if c.Registry == nil {
			fault("registry: must be set, because messages name their schema by its id there")
		}
		if c.Writers != nil {
			fault("writers: are not looked at, because messages name their schema")
		}
	case Bare:
		if c.Schema == "" && c.Subject == "" && len(c.Writers) != 1 || len(c.Writers) > 1 {
			fault("schema: must be set, because messages do not name theirs; writers holds one at the most")
		}
	case SingleObject:
		if c.Schema == "" && c.Subject == "" && len(c.Writers) == 0 {
			fault("writers: must be set, because messages name their schema by its fingerprint only")
		}
	default:
		fault("framing: %q, want confluent, none or single_object", c.Framing)
	}
	if _, ok := table.UnitOf(c.Longs); !ok && c.Longs != "" {
		fault("longs: %q, want s, ms, us or ns", c.Longs)
	}
	if c.MaxBytes < 0 {
		fault("max bytes: %d is negative", c.MaxBytes)
	}
	return errors.Join(errs...)
}

// bind makes the tree of the columns' paths and checks it against the reader's
// schema.
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
			fault("column %q: Avro is not read as %v", c.Name, c.Type)
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

// bindWriters compiles the schemas that are known from the start.
func (f *Format) bindWriters(reader *registry.Schema) error {
	sources := []*registry.Schema{}
	for _, text := range f.c.Writers {
		sources = append(sources, &registry.Schema{Text: text})
	}
	if reader.Text != "" && (f.c.Framing == SingleObject || f.c.Framing == Bare && f.c.Writers == nil) {
		sources = append(sources, reader)
	}
	for i, s := range sources {
		name := "the messages' schema"
		if f.c.Framing == SingleObject {
			name = fmt.Sprintf("writer's schema %d", i+1)
		}
		t, err := parse(s)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		w := f.compile(t, name)
		if f.c.Framing == Bare {
			f.bare = w.program
			return w.fatal
		}
		if w.fatal != nil {
			return w.fatal
		}
		print, err := fingerprint(s)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		f.prints[print] = w
	}
	return nil
}

// projection returns what becomes of messages of a schema id. An error that is
// registry.ErrUnknownSchema is about this message.
func (f *Format) projection(ctx context.Context, id int32) (*projection, error) {
	f.mu.Lock()
	w := f.programs[id]
	f.mu.Unlock()
	if w != nil {
		return w, nil
	}
	s, err := f.c.Registry.Schema(ctx, id)
	if err != nil {
		return nil, err
	}
	if t, err := parse(s); err != nil {
		w = &projection{poison: fmt.Errorf("schema %d: %w", id, err)}
	} else {
		w = f.compile(t, fmt.Sprintf("schema %d", id))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.programs[id] = w
	return w, nil
}

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
	return append(slices.Clone(n.columns), n.deeper()...)
}

// deeper returns the columns below n.
func (n *node) deeper() []int {
	var all []int
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
	if path == "." {
		return nil
	}
	return strings.Split(path, ".")
}

// item reads a step as the index of an array.
func item(step string) (int, bool) {
	i, err := strconv.Atoi(step)
	return i, err == nil && i >= 0 && i <= maxItem && strconv.Itoa(i) == step
}

// reaches checks that a path leads somewhere in the reader's schema.
func reaches(t *typ, steps []string) error {
	for i, s := range steps {
		var next *typ
		for _, b := range t.alternatives() {
			switch b.kind {
			case kRecord:
				if f := b.field(s); f != nil {
					next = f.typ
				}
			case kMap:
				next = b.items
			case kArray:
				if _, ok := item(s); ok {
					next = b.items
				}
			}
			if next != nil {
				break
			}
		}
		if next == nil {
			return fmt.Errorf("the reader's schema has no %q", strings.Join(steps[:i+1], "."))
		}
		t = next
	}
	return nil
}

// alternatives returns the branches of a union, or t.
func (t *typ) alternatives() []*typ {
	if t.kind == kUnion {
		return t.branches
	}
	return []*typ{t}
}

// leaves returns a column for each leaf of a schema.
func leaves(t *typ) []codec.Column {
	var all []codec.Column
	var walk func(t *typ, path string, above []*typ)
	walk = func(t *typ, path string, above []*typ) {
		t, ok := t.option()
		if !ok || slices.Contains(above, t) || len(all) >= maxLeaves {
			return
		}
		switch t.kind {
		case kRecord:
			for _, f := range t.fields {
				walk(f.typ, strings.TrimPrefix(path+"."+f.name, "."), append(above[:len(above):len(above)], t))
			}
		case kArray, kMap, kNull:
		default:
			c := codec.Column{Name: path, Type: t.arrow()}
			if path == "" {
				c.Name, c.Path = "value", "."
			}
			all = append(all, c)
		}
	}
	walk(t, "", nil)
	return all
}

// maxLeaves bounds what a schema may become without being asked for.
const maxLeaves = 10_000
