package parquetio

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// A wnode is one step of the schema as it is written.
type wnode struct {
	kind     nodeKind
	name     string
	path     []string // names from the column down, as column chunks have it
	typ      arrow.DataType
	optional bool
	maxDef   int
	maxRep   int
	children []*wnode
	up       *wnode
	field    int // position of its column in the record

	// of a leaf
	physical format.Type
	width    int
}

// steps returns the nodes from the column down to the leaf n.
func (n *wnode) steps() []*wnode {
	if n.up == nil {
		return []*wnode{n}
	}
	return append(n.up.steps(), n)
}

// schemaWriter turns Arrow fields into schema elements.
type schemaWriter struct {
	column int // position of the column at hand
	elems  []format.SchemaElement
	leaves []*wnode
}

// MaxColumns is the largest number of leaves that can be written: row groups of
// more are refused by other readers.
const MaxColumns = 65534

func writeSchema(s *arrow.Schema) (*schemaWriter, error) {
	w := &schemaWriter{}
	w.elems = append(w.elems, format.SchemaElement{Name: "schema", NumChildren: thrift.New(int32(s.NumFields()))})
	var faults []error
	seen := map[string]bool{}
	for i, f := range s.Fields() {
		w.column = i
		if seen[f.Name] {
			faults = append(faults, fmt.Errorf("column %q occurs twice: rename one", f.Name))
		}
		seen[f.Name] = true
		if err := w.field(f, nil, nil, 0, 0); err != nil {
			faults = append(faults, fmt.Errorf("column %q: %w", f.Name, err))
		}
	}
	if s.NumFields() == 0 {
		faults = append(faults, fmt.Errorf("the schema has no columns"))
	}
	if len(w.leaves) > MaxColumns {
		faults = append(faults, fmt.Errorf("%d columns, Parquet files can have %d: select fewer", len(w.leaves), MaxColumns))
	}
	if len(faults) > 0 {
		return nil, joinLines(faults)
	}
	return w, nil
}

func (w *schemaWriter) field(f arrow.Field, up *wnode, path []string, def, rep int) error {
	n := &wnode{name: f.Name, field: w.column, up: up, typ: f.Type, optional: f.Nullable, path: append(path[:len(path):len(path)], f.Name)}
	e := format.SchemaElement{Name: f.Name, RepetitionType: thrift.New(format.Required)}
	if f.Nullable {
		e.RepetitionType.V = format.Optional
		def++
	}
	n.maxDef, n.maxRep = def, rep
	if up != nil {
		up.children = append(up.children, n)
	}
	switch t := f.Type.(type) {
	case *arrow.StructType:
		if t.NumFields() == 0 {
			return fmt.Errorf("a struct without fields cannot be written to Parquet")
		}
		n.kind = structNode
		e.NumChildren = thrift.New(int32(t.NumFields()))
		w.elems = append(w.elems, e)
		for _, c := range t.Fields() {
			if err := w.field(c, n, n.path, def, rep); err != nil {
				return fmt.Errorf("field %q: %w", c.Name, err)
			}
		}
		return nil
	case *arrow.ListType, *arrow.LargeListType, *arrow.FixedSizeListType:
		n.kind = listNode
		e.NumChildren = thrift.New(int32(1))
		e.LogicalType.Value = &format.ListType{}
		e.ConvertedType = thrift.New(deprecated.List)
		w.elems = append(w.elems, e, format.SchemaElement{Name: "list",
			RepetitionType: thrift.New(format.Repeated), NumChildren: thrift.New(int32(1))})
		elem := f.Type.(arrow.ListLikeType).ElemField()
		elem.Name = "element"
		return w.field(elem, n, append(n.path[:len(n.path):len(n.path)], "list"), def+1, rep+1)
	}
	n.kind = leafNode
	if !leafElement(&e, f.Type) {
		return fmt.Errorf("type %v cannot be written to Parquet: cast it or leave the column out", f.Type)
	}
	n.physical = e.Type.V
	switch n.physical {
	case format.Int32, format.Float:
		n.width = 4
	case format.Int64, format.Double:
		n.width = 8
	case format.FixedLenByteArray:
		n.width = int(e.TypeLength.V)
	}
	w.elems = append(w.elems, e)
	w.leaves = append(w.leaves, n)
	return nil
}

// leafElement fills in physical and logical type.
func leafElement(e *format.SchemaElement, t arrow.DataType) bool {
	physical := func(p format.Type) bool { e.Type = thrift.New(p); return true }
	integer := func(p format.Type, bits int8, signed bool, c deprecated.ConvertedType) bool {
		e.LogicalType.Value = &format.IntType{BitWidth: bits, IsSigned: signed}
		e.ConvertedType = thrift.New(c)
		return physical(p)
	}
	switch t := t.(type) {
	case *arrow.BooleanType:
		return physical(format.Boolean)
	case *arrow.Int8Type:
		return integer(format.Int32, 8, true, deprecated.Int8)
	case *arrow.Int16Type:
		return integer(format.Int32, 16, true, deprecated.Int16)
	case *arrow.Int32Type:
		return physical(format.Int32)
	case *arrow.Int64Type:
		return physical(format.Int64)
	case *arrow.Uint8Type:
		return integer(format.Int32, 8, false, deprecated.Uint8)
	case *arrow.Uint16Type:
		return integer(format.Int32, 16, false, deprecated.Uint16)
	case *arrow.Uint32Type:
		return integer(format.Int32, 32, false, deprecated.Uint32)
	case *arrow.Uint64Type:
		return integer(format.Int64, 64, false, deprecated.Uint64)
	case *arrow.Float32Type:
		return physical(format.Float)
	case *arrow.Float64Type:
		return physical(format.Double)
	case *arrow.Date32Type, *arrow.Date64Type:
		e.LogicalType.Value, e.ConvertedType = &format.DateType{}, thrift.New(deprecated.Date)
		return physical(format.Int32)
	case *arrow.Time32Type, *arrow.Time64Type, *arrow.TimestampType:
		return timeElement(e, t)
	case *arrow.StringType, *arrow.LargeStringType:
		e.LogicalType.Value, e.ConvertedType = &format.StringType{}, thrift.New(deprecated.UTF8)
		return physical(format.ByteArray)
	case *arrow.BinaryType, *arrow.LargeBinaryType:
		return physical(format.ByteArray)
	case *arrow.FixedSizeBinaryType:
		e.TypeLength = thrift.New(int32(t.ByteWidth))
		return t.ByteWidth > 0 && physical(format.FixedLenByteArray)
	case *arrow.DictionaryType:
		switch t.ValueType.ID() {
		case arrow.STRING, arrow.LARGE_STRING, arrow.BINARY, arrow.LARGE_BINARY:
			return leafElement(e, t.ValueType)
		}
	}
	return false
}

func timeElement(e *format.SchemaElement, t arrow.DataType) bool {
	unit := t.(arrow.TemporalWithUnit).TimeUnit()
	var u format.TimeUnit
	switch unit {
	case arrow.Second, arrow.Millisecond: // Parquet has no seconds
		u.Value = &format.MilliSeconds{}
	case arrow.Microsecond:
		u.Value = &format.MicroSeconds{}
	default:
		u.Value = &format.NanoSeconds{}
	}
	e.Type = thrift.New(format.Int64)
	switch t := t.(type) {
	case *arrow.TimestampType:
		utc := t.TimeZone != ""
		e.LogicalType.Value = &format.TimestampType{IsAdjustedToUTC: utc, Unit: u}
		if utc && unit <= arrow.Millisecond {
			e.ConvertedType = thrift.New(deprecated.TimestampMillis)
		} else if utc && unit == arrow.Microsecond {
			e.ConvertedType = thrift.New(deprecated.TimestampMicros)
		}
	case *arrow.Time32Type:
		e.Type.V = format.Int32
		e.LogicalType.Value = &format.TimeType{Unit: u}
	default:
		e.LogicalType.Value = &format.TimeType{Unit: u}
	}
	return true
}

// arrowSchemaKey is where Arrow's own libraries keep the schema; they then give
// back fixed-size lists, dictionaries and time zones.
const arrowSchemaKey = "ARROW:schema"

func arrowSchemaValue(s *arrow.Schema) (string, error) {
	var b bytes.Buffer
	if err := ipc.NewWriter(&b, ipc.WithSchema(s)).Close(); err != nil {
		return "", err
	}
	raw := bytes.TrimSuffix(b.Bytes(), []byte{255, 255, 255, 255, 0, 0, 0, 0}) // end of stream
	return base64.StdEncoding.EncodeToString(raw), nil
}
