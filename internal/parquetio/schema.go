package parquetio

import (
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"
)

type nodeKind uint8

const (
	leafNode nodeKind = iota
	structNode
	listNode
)

// A node is one step of the schema as this package reads it: a leaf, a struct,
// or a list, whose repeated group is folded into it.
type node struct {
	name, path string
	kind       nodeKind
	optional   bool
	maxDef     int // definition level of a value that is there
	maxRep     int // repeated steps above this node
	elemDef    int // of a list: definition level of an element that exists
	children   []*node
	typ        arrow.DataType
	err        error // why it cannot be read

	// of a leaf
	chunk    int // index of its column chunk
	physical format.Type
	width    int // bytes of one value as stored; 0 for BOOLEAN and BYTE_ARRAY
}

// first returns the first leaf below n, whose levels tell n's shape.
func (n *node) first() *node {
	for n.kind != leafNode {
		n = n.children[0]
	}
	return n
}

// eachLeaf calls f for the leaves below n in the order of their chunks.
func (n *node) eachLeaf(f func(*node)) {
	if n.kind == leafNode {
		f(n)
		return
	}
	for _, c := range n.children {
		c.eachLeaf(f)
	}
}

// fault returns the first reason why n or something below it cannot be read.
func (n *node) fault() error {
	if n.err != nil {
		return fmt.Errorf("column %s: %w", n.path, n.err)
	}
	for _, c := range n.children {
		if err := c.fault(); err != nil {
			return err
		}
	}
	return nil
}

// maxSchemaDepth bounds nesting; levels are kept in bytes.
const maxSchemaDepth = 32

// schemaReader turns the flat list of schema elements into nodes.
type schemaReader struct {
	elems  []format.SchemaElement
	pos    int
	leaves []*node
}

// readSchema returns the columns of a file and all its leaves.
func readSchema(elems []format.SchemaElement) (columns, leaves []*node, err error) {
	if len(elems) == 0 {
		return nil, nil, errors.New("the footer has no schema")
	}
	s := &schemaReader{elems: elems, pos: 1}
	for range elems[0].NumChildren.V {
		n, err := s.node("", 0, 0, 1)
		if err != nil {
			return nil, nil, err
		}
		columns = append(columns, n)
	}
	if s.pos != len(elems) {
		return nil, nil, fmt.Errorf("the schema has %d elements, its tree %d", len(elems), s.pos)
	}
	return columns, s.leaves, nil
}

func (s *schemaReader) node(parent string, def, rep, depth int) (*node, error) {
	if s.pos >= len(s.elems) || depth > maxSchemaDepth {
		return nil, errors.New("the schema is cut short or nested too deeply")
	}
	e := &s.elems[s.pos]
	s.pos++
	n := &node{name: e.Name, path: e.Name}
	if parent != "" {
		n.path = parent + "." + e.Name
	}
	switch e.RepetitionType.V {
	case format.Optional:
		n.optional = true
		def++
	case format.Repeated:
		return s.bareList(n, e, def, rep, depth)
	}
	return n, s.fill(n, e, def, rep, depth)
}

// fill completes n, whose repetition is already in def and rep.
func (s *schemaReader) fill(n *node, e *format.SchemaElement, def, rep, depth int) error {
	n.maxDef, n.maxRep = def, rep
	if e.Type.Valid {
		s.leaf(n, e)
		return nil
	}
	k := int(e.NumChildren.V)
	if k <= 0 || k > len(s.elems)-s.pos {
		return fmt.Errorf("column %s: a group of %d fields", n.path, k)
	}
	if isList(e) && k == 1 && s.elems[s.pos].RepetitionType.V == format.Repeated {
		return s.list(n, depth)
	}
	n.kind = structNode
	if isMap(e) {
		n.err = fmt.Errorf("type map is %w", ErrNotSupported)
	}
	for range k {
		c, err := s.node(n.path, def, rep, depth+1)
		if err != nil {
			return err
		}
		n.children = append(n.children, c)
	}
	n.typ = arrow.StructOf(fields(n.children)...)
	return nil
}

// list reads the repeated element below a group that is annotated LIST: the
// usual three levels, or the two of old writers.
func (s *schemaReader) list(n *node, depth int) error {
	r := &s.elems[s.pos]
	n.kind, n.elemDef = listNode, n.maxDef+1
	legacy := r.Type.Valid || r.NumChildren.V != 1 || r.Name == "array" || strings.HasSuffix(r.Name, "_tuple")
	var elem *node
	var err error
	s.pos++
	if legacy {
		elem = &node{name: r.Name, path: n.path + "." + r.Name}
		err = s.fill(elem, r, n.elemDef, n.maxRep+1, depth+1)
	} else {
		elem, err = s.node(n.path+"."+r.Name, n.elemDef, n.maxRep+1, depth+2)
	}
	if err != nil {
		return err
	}
	n.children = []*node{elem}
	n.typ = listOf(elem)
	return nil
}

// bareList reads a repeated field without annotation: a list that is never null.
func (s *schemaReader) bareList(n *node, e *format.SchemaElement, def, rep, depth int) (*node, error) {
	elem := &node{name: e.Name, path: n.path}
	n.kind, n.maxDef, n.maxRep, n.elemDef = listNode, def, rep, def+1
	if err := s.fill(elem, e, def+1, rep+1, depth+1); err != nil {
		return nil, err
	}
	n.children = []*node{elem}
	n.typ = listOf(elem)
	return n, nil
}

func listOf(elem *node) arrow.DataType {
	return arrow.ListOfField(arrow.Field{Name: "element", Type: elem.typ, Nullable: elem.optional})
}

func fields(nodes []*node) []arrow.Field {
	out := make([]arrow.Field, len(nodes))
	for i, n := range nodes {
		out[i] = arrow.Field{Name: n.name, Type: n.typ, Nullable: n.optional}
	}
	return out
}

func isList(e *format.SchemaElement) bool {
	_, ok := e.LogicalType.Value.(*format.ListType)
	return ok || e.ConvertedType.Valid && e.ConvertedType.V == deprecated.List
}

func isMap(e *format.SchemaElement) bool {
	_, ok := e.LogicalType.Value.(*format.MapType)
	c := e.ConvertedType
	return ok || c.Valid && (c.V == deprecated.Map || c.V == deprecated.MapKeyValue)
}

func (s *schemaReader) leaf(n *node, e *format.SchemaElement) {
	n.kind, n.physical, n.chunk = leafNode, e.Type.V, len(s.leaves)
	s.leaves = append(s.leaves, n)
	switch n.physical {
	case format.Int32, format.Float:
		n.width = 4
	case format.Int64, format.Double:
		n.width = 8
	case format.Int96:
		n.width = 12
	case format.FixedLenByteArray:
		n.width = int(e.TypeLength.V)
		if n.width <= 0 || n.width > 1<<20 {
			n.width, n.err = 1, fmt.Errorf("type FIXED_LEN_BYTE_ARRAY(%d) is %w", e.TypeLength.V, ErrNotSupported)
		}
	}
	n.typ = leafType(e, n.width)
	if n.typ == nil {
		n.typ = arrow.Null
		n.err = fmt.Errorf("type %s is %w: leave the column out, or write it as another type", typeName(e), ErrNotSupported)
	}
}

// typeName says a leaf's type as the file has it.
func typeName(e *format.SchemaElement) string {
	s := e.Type.V.String()
	switch {
	case e.LogicalType.Value != nil:
		s += " " + e.LogicalType.Value.String()
	case e.ConvertedType.Valid && e.ConvertedType.V == deprecated.Decimal:
		s += " DECIMAL"
	case e.ConvertedType.Valid && e.ConvertedType.V == deprecated.Interval:
		s += " INTERVAL"
	}
	return s
}

// stringType is the Arrow type of every string column that is read: a
// dictionary, also where the file has plain strings.
var stringType = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}

// leafType returns the Arrow type of a leaf, nil if there is none.
func leafType(e *format.SchemaElement, width int) arrow.DataType {
	lt := e.LogicalType.Value
	if lt == nil && e.ConvertedType.Valid {
		if lt = logicalOf(e.ConvertedType.V); lt == nil {
			return nil
		}
	}
	switch e.Type.V {
	case format.Boolean:
		return arrow.FixedWidthTypes.Boolean
	case format.Float:
		return arrow.PrimitiveTypes.Float32
	case format.Double:
		return arrow.PrimitiveTypes.Float64
	case format.Int32:
		return int32Type(lt)
	case format.Int64:
		return int64Type(lt)
	case format.ByteArray:
		switch lt.(type) {
		case *format.StringType, *format.EnumType, *format.JsonType:
			return stringType
		case nil, *format.BsonType:
			return arrow.BinaryTypes.Binary
		}
	case format.FixedLenByteArray:
		switch lt.(type) {
		case nil, *format.UUIDType:
			return &arrow.FixedSizeBinaryType{ByteWidth: width}
		}
	}
	return nil
}

func int32Type(lt format.LogicalTypeValue) arrow.DataType {
	switch t := lt.(type) {
	case nil:
		return arrow.PrimitiveTypes.Int32
	case *format.IntType:
		return intType(t, 32)
	case *format.DateType:
		return arrow.FixedWidthTypes.Date32
	case *format.TimeType:
		if _, ok := t.Unit.Value.(*format.MilliSeconds); ok {
			return arrow.FixedWidthTypes.Time32ms
		}
	}
	return nil
}

func int64Type(lt format.LogicalTypeValue) arrow.DataType {
	switch t := lt.(type) {
	case nil:
		return arrow.PrimitiveTypes.Int64
	case *format.IntType:
		return intType(t, 64)
	case *format.TimestampType:
		ts := &arrow.TimestampType{}
		if t.IsAdjustedToUTC {
			ts.TimeZone = "UTC"
		}
		switch t.Unit.Value.(type) {
		case *format.MilliSeconds:
			ts.Unit = arrow.Millisecond
		case *format.MicroSeconds:
			ts.Unit = arrow.Microsecond
		case *format.NanoSeconds:
			ts.Unit = arrow.Nanosecond
		default:
			return nil
		}
		return ts
	case *format.TimeType:
		switch t.Unit.Value.(type) {
		case *format.MicroSeconds:
			return arrow.FixedWidthTypes.Time64us
		case *format.NanoSeconds:
			return arrow.FixedWidthTypes.Time64ns
		}
	}
	return nil
}

func intType(t *format.IntType, physical int8) arrow.DataType {
	if t.BitWidth > physical || physical == 64 && t.BitWidth != 64 {
		return nil
	}
	switch {
	case t.BitWidth == 8 && t.IsSigned:
		return arrow.PrimitiveTypes.Int8
	case t.BitWidth == 8:
		return arrow.PrimitiveTypes.Uint8
	case t.BitWidth == 16 && t.IsSigned:
		return arrow.PrimitiveTypes.Int16
	case t.BitWidth == 16:
		return arrow.PrimitiveTypes.Uint16
	case t.BitWidth == 32 && t.IsSigned:
		return arrow.PrimitiveTypes.Int32
	case t.BitWidth == 32:
		return arrow.PrimitiveTypes.Uint32
	case t.BitWidth == 64 && t.IsSigned:
		return arrow.PrimitiveTypes.Int64
	case t.BitWidth == 64:
		return arrow.PrimitiveTypes.Uint64
	}
	return nil
}

// logicalOf is the logical type that an old converted type stands for.
func logicalOf(c deprecated.ConvertedType) format.LogicalTypeValue {
	millis, micros := format.TimeUnit{Value: &format.MilliSeconds{}}, format.TimeUnit{Value: &format.MicroSeconds{}}
	switch c {
	case deprecated.UTF8:
		return &format.StringType{}
	case deprecated.Enum:
		return &format.EnumType{}
	case deprecated.Json:
		return &format.JsonType{}
	case deprecated.Bson:
		return &format.BsonType{}
	case deprecated.Date:
		return &format.DateType{}
	case deprecated.TimeMillis:
		return &format.TimeType{IsAdjustedToUTC: true, Unit: millis}
	case deprecated.TimeMicros:
		return &format.TimeType{IsAdjustedToUTC: true, Unit: micros}
	case deprecated.TimestampMillis:
		return &format.TimestampType{IsAdjustedToUTC: true, Unit: millis}
	case deprecated.TimestampMicros:
		return &format.TimestampType{IsAdjustedToUTC: true, Unit: micros}
	case deprecated.Uint8, deprecated.Uint16, deprecated.Uint32, deprecated.Uint64:
		return &format.IntType{BitWidth: 8 << (c - deprecated.Uint8)}
	case deprecated.Int8, deprecated.Int16, deprecated.Int32, deprecated.Int64:
		return &format.IntType{BitWidth: 8 << (c - deprecated.Int8), IsSigned: true}
	}
	return nil
}
