package arrowipc

import (
	"errors"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline/codec"
)

// maxFields and maxDepth bound a schema, whose tables may be shared and so be more
// than its bytes.
const (
	maxFields = 1 << 16
	maxDepth  = 64
)

// A field is a column of a stream, or what stands below one.
type field struct {
	name     string
	typ      arrow.DataType // nil for a type that this package has no name for
	size     int            // bytes of a value of fixed width; 0 for bits and all others
	nodes    int            // that it and all below take in a batch
	buffers  int
	children []field
	dict     int64  // id of the dictionary
	values   *field // of the dictionary; nil without one
}

// A place is where a batch has a bound column.
type place struct {
	field        *field // nil when the stream lacks the column
	node, buffer int
}

// A plan says how batches of one schema become the bound columns.
type plan struct {
	places  []place          // of the bound columns
	nodes   int              // of a batch
	buffers int              //
	dicts   map[int64]*field // the dictionaries that bound columns need
	err     error            // a *codec.SchemaError: there is no way
}

// newPlan reads a schema. An error is about its bytes; plan.err is about what they
// say.
func newPlan(m message, columns []codec.Column, source string) (*plan, error) {
	f := flat{b: m.meta}
	p := &plan{dicts: map[int64]*field{}}
	if at := f.field(m.at, schemaEndian); at != 0 && f.u16(at) != 0 {
		return nil, errors.New("big-endian streams are not read")
	}
	r := schemaReader{flat: f}
	first, n := r.vector(m.at, schemaFields, 4)
	fields := r.fields(first, n, 0)
	if r.bad {
		return nil, errors.New("the schema is not as Arrow writes it, or too large")
	}
	places := map[string]place{}
	for i := range fields {
		fd := &fields[i]
		if _, ok := places[fd.name]; !ok {
			places[fd.name] = place{field: fd, node: p.nodes, buffer: p.buffers}
		}
		p.nodes += fd.nodes
		p.buffers += fd.buffers
		if fd.nodes == 0 {
			return nil, fmt.Errorf("column %q: of a type whose layout is not known here", fd.name)
		}
	}
	for _, c := range columns {
		name := c.Path
		if name == "" {
			name = c.Name
		}
		at := places[name]
		p.places = append(p.places, at)
		if at.field == nil {
			continue
		}
		if !castable(at.field, c.Type) {
			p.err = errors.Join(p.err, &codec.SchemaError{Column: c.Name, Have: at.field.typ, Want: c.Type, Source: source})
		}
		if v := at.field.values; v != nil {
			if other := p.dicts[at.field.dict]; other != nil && v.typ != other.typ && p.err == nil {
				return nil, fmt.Errorf("column %q: its dictionary is also one of another type", name)
			}
			p.dicts[at.field.dict] = v
		}
	}
	return p, nil
}

// A schemaReader turns the tables of a schema into fields.
type schemaReader struct {
	flat
	count int
}

func (r *schemaReader) fields(first, n, depth int) []field {
	if r.count += n; r.count > maxFields || depth > maxDepth {
		r.bad = true
	}
	if r.bad {
		return nil
	}
	out := make([]field, n)
	for i := range out {
		out[i] = r.read(r.follow(first+4*i), depth)
	}
	return out
}

// read reads the table of a field.
func (r *schemaReader) read(t, depth int) field {
	var fd field
	if r.bad {
		return fd
	}
	fd.name = r.text(t, fieldName)
	first, n := r.vector(t, fieldChildren, 4)
	fd.children = r.fields(first, n, depth+1)
	id := uint8(0)
	if p := r.field(t, fieldTypeID); p != 0 {
		id = r.u8(p)
	}
	typ, _ := r.child(t, fieldType)
	r.layout(&fd, id, typ)
	if dict, ok := r.child(t, fieldDict); ok {
		r.encoded(&fd, dict)
	}
	return fd
}

// encoded makes fd the field of a dictionary's indices, and what it was the one of
// its values.
func (r *schemaReader) encoded(fd *field, dict int) {
	values := *fd
	if p := r.field(dict, dictID); p != 0 {
		fd.dict = r.i64(p)
	}
	bits, signed := 32, true
	if index, ok := r.child(dict, dictIndex); ok {
		bits, signed = r.integer(index)
	}
	fd.values, fd.children = &values, nil
	fd.nodes, fd.buffers, fd.size = 1, 2, bits/8
	it := integerType(bits, signed)
	if it == nil {
		r.bad = true
		return
	}
	fd.typ = nil
	if values.typ != nil {
		fd.typ = &arrow.DictionaryType{IndexType: it, ValueType: values.typ}
	}
}

// text returns the string that a field of a table leads to.
func (r *schemaReader) text(t, i int) string {
	first, n := r.vector(t, i, 1)
	return string(r.b[first : first+n])
}

// number returns the integer of a table's field, of size bytes.
func (r *schemaReader) number(t, i, size, otherwise int) int {
	p := r.field(t, i)
	switch {
	case t == 0 || p == 0:
		return otherwise
	case size == 2:
		return int(int16(r.u16(p)))
	}
	return int(int32(r.u32(p)))
}

func (r *schemaReader) integer(t int) (bits int, signed bool) {
	p := r.field(t, 1)
	return r.number(t, 0, 4, 0), p != 0 && r.u8(p) != 0
}

func integerType(bits int, signed bool) arrow.DataType {
	types := map[int][2]arrow.DataType{
		8:  {arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Int8},
		16: {arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Int16},
		32: {arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Int32},
		64: {arrow.PrimitiveTypes.Uint64, arrow.PrimitiveTypes.Int64},
	}
	if signed {
		return types[bits][1]
	}
	return types[bits][0]
}

// layout fills in what a type, whose table is at t, means for fd: how many nodes and
// buffers it takes. It leaves nodes at 0 for a type that came after this was written.
func (r *schemaReader) layout(fd *field, id uint8, t int) {
	own := 2 // validity and values
	switch id {
	case 1:
		fd.typ, own = arrow.Null, 0
	case 2:
		bits, signed := r.integer(t)
		fd.typ, fd.size = integerType(bits, signed), bits/8
	case 3:
		kind := r.number(t, 0, 2, 0)
		floats := []arrow.DataType{arrow.FixedWidthTypes.Float16, arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64}
		if kind >= 0 && kind < len(floats) {
			fd.typ, fd.size = floats[kind], 2<<kind
		}
	case 4, 5, 19, 20:
		own = 3
		fd.typ = map[uint8]arrow.DataType{4: arrow.BinaryTypes.Binary, 5: arrow.BinaryTypes.String,
			19: arrow.BinaryTypes.LargeBinary, 20: arrow.BinaryTypes.LargeString}[id]
	case 6:
		fd.typ = arrow.FixedWidthTypes.Boolean
	case 10:
		if unit := r.number(t, 0, 2, 0); unit >= 0 && unit <= 3 {
			fd.typ, fd.size = &arrow.TimestampType{Unit: arrow.TimeUnit(unit), TimeZone: r.zone(t)}, 8
		}
	case 7, 9, 11, 18: // decimals, times, intervals, durations
	case 8:
		fd.typ = []arrow.DataType{arrow.FixedWidthTypes.Date32, arrow.FixedWidthTypes.Date64}[r.number(t, 0, 2, 1)&1]
	case 15:
		if n := r.number(t, 0, 4, 0); n > 0 {
			fd.typ = &arrow.FixedSizeBinaryType{ByteWidth: n}
		}
	case 12, 13, 14, 16, 17, 21, 22:
		own = r.nested(fd, id, t)
	default:
		return
	}
	fd.nodes, fd.buffers = 1, own
	for _, c := range fd.children {
		fd.nodes += c.nodes
		fd.buffers += c.buffers
		if c.nodes == 0 {
			fd.nodes = 0
			return
		}
	}
}

func (r *schemaReader) zone(t int) string {
	if t == 0 {
		return ""
	}
	return r.text(t, 1)
}

// nested sets the type of a field with others below it and returns its own buffers.
func (r *schemaReader) nested(fd *field, id uint8, t int) (own int) {
	var elem arrow.DataType
	if len(fd.children) == 1 {
		elem = fd.children[0].typ
	}
	switch id {
	case 12, 21:
		if elem != nil && id == 12 {
			fd.typ = arrow.ListOf(elem)
		} else if elem != nil {
			fd.typ = arrow.LargeListOf(elem)
		}
		return 2
	case 16:
		fd.size = r.number(t, 0, 4, 0) // elements of a list
		if elem != nil && fd.size > 0 {
			fd.typ = arrow.FixedSizeListOf(int32(fd.size), elem)
		}
		return 1
	case 13:
		return 1
	case 14:
		if r.number(t, 0, 2, 0) == 0 { // sparse
			return 1
		}
		return 2
	case 22:
		return 0
	}
	return 2 // a map
}
