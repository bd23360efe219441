package avro

import (
	"fmt"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/twmb/avro"

	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

// kind is what a value is on the wire.
type kind int8

const (
	kNull kind = iota
	kBoolean
	kInt
	kLong
	kFloat
	kDouble
	kBytes
	kString
	kFixed
	kEnum
	kRecord
	kArray
	kMap
	kUnion
)

// A typ is a type of a schema. Those that have a name may be part of themselves.
type typ struct {
	kind     kind
	name     string // full, of records, enums and fixed
	logical  string
	scale    int // of decimals
	fields   []field
	items    *typ // of arrays and maps
	branches []*typ
	symbols  [][]byte
	other    string // an enum's default symbol
	width    int    // bytes, where each value has as many; otherwise -1
	node     *avro.SchemaNode
}

// A field is one of a record's.
type field struct {
	name    string
	aliases []string
	typ     *typ
	init    any // the default
	hasInit bool
}

var kinds = map[string]kind{"null": kNull, "boolean": kBoolean, "int": kInt, "long": kLong, "float": kFloat,
	"double": kDouble, "bytes": kBytes, "string": kString, "fixed": kFixed, "enum": kEnum, "record": kRecord,
	"error": kRecord, "array": kArray, "map": kMap, "union": kUnion}

// parse reads a schema and what it refers to.
func parse(s *registry.Schema) (*typ, error) {
	if s.Type != registry.Avro && s.Type != "" {
		return nil, fmt.Errorf("is a schema of %s, not of Avro", s.Type)
	}
	var cache avro.SchemaCache
	for _, r := range s.Imports() {
		if _, err := cache.Parse(r.Schema.Text); err != nil {
			return nil, fmt.Errorf("reference %s: %w", r.Name, err)
		}
	}
	schema, err := cache.Parse(s.Text)
	if err != nil {
		return nil, err
	}
	b := typeBuilder{names: map[string]*typ{}}
	root, err := b.build(schema.Root(), "")
	if err != nil {
		return nil, err
	}
	root.measure(map[*typ]bool{})
	return root, nil
}

type typeBuilder struct {
	names map[string]*typ
}

// build turns a node into a type. Names without a dot are looked up in ns first.
func (b *typeBuilder) build(n *avro.SchemaNode, ns string) (*typ, error) {
	k, ok := kinds[n.Type]
	if !ok {
		if t := b.names[ns+"."+n.Type]; t != nil && !strings.Contains(n.Type, ".") {
			return t, nil
		}
		if t := b.names[n.Type]; t != nil {
			return t, nil
		}
		return nil, fmt.Errorf("the type %q is not known", n.Type)
	}
	t := &typ{kind: k, logical: n.LogicalType, scale: n.Scale, node: n, width: -1}
	if k == kRecord || k == kEnum || k == kFixed {
		if t.name = n.Name; !strings.Contains(n.Name, ".") && n.Namespace != "" {
			t.name = n.Namespace + "." + n.Name
		}
		b.names[t.name] = t
		ns = t.name[:max(0, strings.LastIndexByte(t.name, '.'))]
	}
	var err error
	switch k {
	case kRecord:
		for i := range n.Fields {
			f := &n.Fields[i]
			below, err := b.build(&f.Type, ns)
			if err != nil {
				return nil, fmt.Errorf("field %q: %w", f.Name, err)
			}
			t.fields = append(t.fields, field{f.Name, f.Aliases, below, f.Default, f.HasDefault})
		}
	case kArray:
		t.items, err = b.build(n.Items, ns)
	case kMap:
		t.items, err = b.build(n.Values, ns)
	case kUnion:
		for i := range n.Branches {
			below, err := b.build(&n.Branches[i], ns)
			if err != nil {
				return nil, err
			}
			t.branches = append(t.branches, below)
		}
	case kEnum:
		for _, s := range n.Symbols {
			t.symbols = append(t.symbols, []byte(s))
		}
		t.other = n.EnumDefault
	case kFixed:
		t.width = n.Size
	case kNull:
		t.width = 0
	case kBoolean:
		t.width = 1
	case kFloat:
		t.width = 4
	case kDouble:
		t.width = 8
	}
	return t, err
}

// measure finds the width of records.
func (t *typ) measure(seen map[*typ]bool) int {
	if seen[t] {
		return t.width
	}
	seen[t] = true
	switch t.kind {
	case kRecord:
		sum := 0
		for _, f := range t.fields {
			if w := f.typ.measure(seen); w < 0 || sum < 0 || sum+w > maxWidth {
				sum = -1
			} else {
				sum += w
			}
		}
		t.width = sum
	case kArray, kMap:
		t.items.measure(seen)
	case kUnion:
		for _, b := range t.branches {
			b.measure(seen)
		}
	}
	return t.width
}

// maxWidth keeps sums of widths far from overflow; wider records are walked through.
const maxWidth = 1 << 28

// field returns a record's field by name; nil when there is none.
func (t *typ) field(name string) *field {
	for i := range t.fields {
		if t.fields[i].name == name {
			return &t.fields[i]
		}
	}
	return nil
}

// find returns the place of the field that a reader's field stands for, by name
// or by an alias of it; -1 when there is none.
func (t *typ) find(r *field) int {
	for i := range t.fields {
		if t.fields[i].name == r.name {
			return i
		}
	}
	for _, a := range r.aliases {
		for i := range t.fields {
			if t.fields[i].name == a {
				return i
			}
		}
	}
	return -1
}

// option returns what t is apart from null, for a union of null and one other type
// or no union at all.
func (t *typ) option() (*typ, bool) {
	if t.kind != kUnion {
		return t, t.kind != kNull
	}
	var other *typ
	for _, b := range t.branches {
		if b.kind == kNull {
			continue
		}
		if other != nil {
			return nil, false
		}
		other = b
	}
	return other, other != nil && other.kind != kUnion
}

// arrow returns the column type that holds t, and nil where there is none.
func (t *typ) arrow() arrow.DataType {
	switch t.kind {
	case kNull:
		return arrow.Null
	case kBoolean:
		return arrow.FixedWidthTypes.Boolean
	case kInt:
		if t.logical == "date" {
			return &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}
		}
		return arrow.PrimitiveTypes.Int32
	case kLong:
		if unit, zone, ok := t.unit(); ok {
			return &arrow.TimestampType{Unit: unit, TimeZone: zone}
		}
		return arrow.PrimitiveTypes.Int64
	case kFloat:
		return arrow.PrimitiveTypes.Float32
	case kDouble:
		return arrow.PrimitiveTypes.Float64
	case kString, kEnum:
		return arrow.BinaryTypes.String
	case kBytes, kFixed:
		switch t.logical {
		case "decimal":
			return arrow.PrimitiveTypes.Float64
		case "uuid":
			return arrow.BinaryTypes.String
		}
		return arrow.BinaryTypes.Binary
	case kRecord:
		return arrow.StructOf()
	case kArray:
		if elem := t.items.arrow(); elem != nil {
			return arrow.ListOf(elem)
		}
	}
	return nil
}

// unit returns the unit and time zone of a timestamp.
func (t *typ) unit() (arrow.TimeUnit, string, bool) {
	name, zone := t.logical, "UTC"
	if local, ok := strings.CutPrefix(name, "local-"); ok {
		name, zone = local, ""
	}
	switch name {
	case "timestamp-millis":
		return arrow.Millisecond, zone, true
	case "timestamp-micros":
		return arrow.Microsecond, zone, true
	case "timestamp-nanos":
		return arrow.Nanosecond, zone, true
	}
	return 0, "", false
}
