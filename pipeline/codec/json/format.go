// Package json reads JSON documents into columns, and writes rows as JSON objects.
//
//	f, err := json.New(json.Config{Columns: []codec.Column{
//		{Name: "amount", Path: "payment.amount", Type: arrow.PrimitiveTypes.Float32},
//	}})
//	d := f.NewDecoder(memory.DefaultAllocator)
//	defer d.Release()
//	got, err := d.Decode(ctx, values) // one document a value, one row a document
//
// Every document is checked as a whole against RFC 8259, also where no column
// looks: one wrong byte anywhere is a codec.Syntax fault, as is text that is not
// UTF-8, a depth above MaxDepth, and anything but white space after the document.
// Numbers become exactly what strconv makes of them. Escapes of half a surrogate
// pair become U+FFFD.
//
// The mistake to avoid is to think that a wrong value becomes null: only an absent
// key and a null do (Config.Missing). A value of another type is a codec.Invalid
// fault, as is an integer that does not fit or has a fraction. Of a key that comes
// twice in an object the last one counts, with all that is below it.
package json

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec"
)

// MaxDepth is how deep arrays and objects may be nested; the document is level 1.
const MaxDepth = 1000

// maxItem is the highest step of a path that also counts as the index of an array.
const maxItem = 65535

// Missing says what becomes of a column that a document does not have.
type Missing string

const (
	// Null gives the column a null.
	Null Missing = "null"
	// Refuse makes the document a codec.Invalid fault.
	Refuse Missing = "fault"
)

// Time is how documents write timestamps.
type Time string

// RFC3339 is a string such as "2026-01-31T09:00:00.25+01:00"; the others are
// numbers, with or without a fraction, since 1970. What is finer than the
// column's unit is cut off, towards the past.
const (
	RFC3339 Time = "rfc3339"
	Seconds Time = "s"
	Millis  Time = "ms"
	Micros  Time = "us"
	Nanos   Time = "ns"
)

// Config says which values of a document become which columns. The steps of
// Column.Path are keys; one that is a number up to 65,535 is also the index of an
// array's element.
type Config struct {
	Columns []codec.Column
	// Missing is for absent keys and nulls; "" means Null.
	Missing Missing
	// Required names columns for which Missing is Refuse.
	Required []string
	// Time is how timestamps are written; "" means RFC3339.
	Time Time
	// Times overrides Time for the columns that it names.
	Times map[string]Time
	// NumbersInStrings takes "1.5" for 1.5 where a column is numeric.
	NumbersInStrings bool
	// NonFinite takes the literals NaN, Infinity and -Infinity, which JSON does not
	// have; only floats can hold them.
	NonFinite bool
	// MaxBytes is the size of the largest message; 0 means 16 MiB. A larger one is a
	// codec.Size fault.
	MaxBytes int
	// SchemaHeader says that a zero byte and a four-byte schema id precede each
	// document, as a schema registry's serializer for JSON Schema writes them. The id
	// is not looked at.
	SchemaHeader bool
}

// Format reads documents into fixed columns. It is immutable and safe for
// concurrent use.
type Format struct {
	c      Config
	schema *arrow.Schema
	exact  bool // tests only: leave out every short cut
}

var _ codec.Format = (*Format)(nil)

// New checks c and reports everything wrong with it.
func New(c Config) (*Format, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Missing == "" {
		c.Missing = Null
	}
	if c.Time == "" {
		c.Time = RFC3339
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 16 << 20
	}
	c.Columns = slices.Clone(c.Columns)
	fields := make([]arrow.Field, len(c.Columns))
	for i, col := range c.Columns {
		fields[i] = arrow.Field{Name: col.Name, Type: col.Type, Nullable: true}
	}
	return &Format{c: c, schema: arrow.NewSchema(fields, nil)}, nil
}

// Schema is that of every record; each column is nullable.
func (f *Format) Schema() *arrow.Schema { return f.schema }

// NewDecoder returns a decoder whose records come from mem.
func (f *Format) NewDecoder(mem memory.Allocator) codec.Decoder { return newDecoder(f, mem) }

func (c Config) validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	names := map[string]bool{}
	if len(c.Columns) == 0 {
		fault("columns: none")
	}
	for _, col := range c.Columns {
		switch {
		case col.Name == "":
			fault("columns: a column has no name")
		case names[col.Name]:
			fault("column %q: comes twice", col.Name)
		case kindOf(col.Type) == kindNone:
			fault("column %q: JSON is not read as %v", col.Name, col.Type)
		case slices.Contains(steps(col), ""):
			fault("column %q: path %q has an empty step", col.Name, col.Path)
		}
		names[col.Name] = true
	}
	for _, n := range c.Required {
		if !names[n] {
			fault("required: there is no column %q", n)
		}
	}
	for n, t := range c.Times {
		if !names[n] {
			fault("times: there is no column %q", n)
		}
		if !t.valid() {
			fault("times: column %q: %q, want rfc3339, s, ms, us or ns", n, t)
		}
	}
	if c.Time != "" && !c.Time.valid() {
		fault("time: %q, want rfc3339, s, ms, us or ns", c.Time)
	}
	if c.Missing != "" && c.Missing != Null && c.Missing != Refuse {
		fault("missing: %q, want null or fault", c.Missing)
	}
	if c.MaxBytes < 0 {
		fault("max bytes: %d is negative", c.MaxBytes)
	}
	return errors.Join(errs...)
}

func (t Time) valid() bool {
	return slices.Contains([]Time{RFC3339, Seconds, Millis, Micros, Nanos}, t)
}

// digits is how many decimal digits of a second a number in t has.
func (t Time) digits() int {
	switch t {
	case Millis:
		return 3
	case Micros:
		return 6
	case Nanos:
		return 9
	}
	return 0
}

// steps returns the steps of a column's path.
func steps(c codec.Column) []string {
	if c.Path == "" {
		return []string{c.Name}
	}
	return strings.Split(c.Path, ".")
}

// A node is a place in documents that a column's path ends at or leads through,
// and what one decoder has learned about the objects that stand there.
type node struct {
	path   string // "" is the document
	kind   kind   // of leaf; kindNone where there are several, or nodes below
	leaf   *column
	leaves []*column // columns bound to this place
	below  []*node   // children, by name and by index
	items  []*node   // of an array: by index, nil where no path leads
	row    int64     // the last row in which a value stood here

	// fields are the keys known so far, used or not; field 0 stands for the brace.
	fields []field
	known  map[string]int
}

// field is a key of an object.
type field struct {
	node *node // nil where no path leads
	next edge
}

// An edge is a guess: the bytes that follow a field's value up to the next one's,
// such as `,"b": `, and which field that is.
type edge struct {
	word, mask uint64 // the first eight bytes
	text       []byte // all of them; none is no guess
	to         int
}

// tree builds the nodes of the columns' paths; exact leaves out what short cuts need.
func tree(columns []*column, paths [][]string, exact bool) *node {
	root := newNode("")
	for i, c := range columns {
		nd := root
		for k, step := range paths[i] {
			nd = nd.child(step, strings.Join(paths[i][:k+1], "."))
		}
		c.path = nd.path
		nd.leaves = append(nd.leaves, c)
	}
	root.settle(exact)
	return root
}

func newNode(path string) *node {
	return &node{path: path, fields: make([]field, 1), known: map[string]int{}}
}

func (nd *node) child(step, path string) *node {
	if i, ok := nd.known[step]; ok {
		return nd.fields[i].node
	}
	c := newNode(path)
	nd.known[step] = len(nd.fields)
	nd.fields = append(nd.fields, field{node: c})
	nd.below = append(nd.below, c)
	if i, err := strconv.Atoi(step); err == nil && i >= 0 && i <= maxItem && strconv.Itoa(i) == step {
		for len(nd.items) <= i {
			nd.items = append(nd.items, nil)
		}
		nd.items[i] = c
	}
	return c
}

// settle fills in what follows from the whole tree.
func (nd *node) settle(exact bool) {
	if len(nd.leaves) == 1 && len(nd.below) == 0 && !exact {
		nd.leaf, nd.kind = nd.leaves[0], nd.leaves[0].kind
	}
	for _, c := range nd.below {
		c.settle(exact)
	}
}

// maxFields and maxKey bound what is learned of documents that have ever new keys.
const (
	maxFields = 1024
	maxKey    = 256
)

// field returns the number of a key's field, or -1 for one that is not kept.
func (nd *node) field(key []byte) int {
	if i, ok := nd.known[string(key)]; ok {
		return i
	}
	if len(nd.fields) >= maxFields || len(key) > maxKey {
		return -1
	}
	nd.known[string(key)] = len(nd.fields)
	nd.fields = append(nd.fields, field{})
	return len(nd.fields) - 1
}

// learn makes the bytes between the values of two fields the next guess.
func (nd *node) learn(from, to int, between []byte) {
	if from < 0 || to < 0 || len(between) > 2*maxKey {
		return
	}
	e := edge{text: append(nd.fields[from].next.text[:0], between...), to: to}
	for i := range min(8, len(between)) {
		e.word |= uint64(between[i]) << (8 * i)
		e.mask |= 0xff << (8 * i)
	}
	nd.fields[from].next = e
}
