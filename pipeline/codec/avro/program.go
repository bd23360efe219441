package avro

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/twmb/avro"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

// An op says what one instruction does with the bytes that come next.
type op uint8

const (
	opAdvance  op = iota // step over n bytes
	opVarint             // step over an integer
	opBytes              // step over a string or bytes
	opSkip               // step over a value of type x.typ
	opFloat32            // float to Float32
	opFloat64            // float to Float64
	opDouble64           // double to Float64
	opDouble32           // double to Float32
	opInteger            // int or long to the column's kind, by x.scale
	opOption             // null or the next n instructions
	opBool               // boolean to Bool
	opText               // string or bytes to String
	opBinary             // string or bytes to Binary
	opFixed              // n bytes to Binary
	opUUID               // 16 bytes to String
	opEnum               // enum to String
	opDecimal            // decimal to a float; n is its size, or -1 where that comes first
	opList               // array to List
	opArray              // array, by index
	opMap                // map, by key
	opUnion              // one of x.parts
	opMismatch           // a branch that x.err is about
	opNull               // nothing; x.columns become null
	opConst              // nothing; x.parts[0] reads x.data
	opPeek               // x.parts[0] reads what then is read again
)

// A program turns messages of one writer's schema into a row.
type program struct {
	code    []instr
	columns []int // what it writes, where that is asked for
	barrier int   // instructions before it do not grow any more
}

type instr struct {
	op     op
	narrow bool // an int, not a long
	some   byte // how an option that is not null begins
	col    int32
	n      int
	x      *extra
}

// extra is what few instructions need.
type extra struct {
	path    string
	typ     *typ
	columns []int // that become null
	null    int64 // an option's branch that is null
	scale   table.Scale
	data    []byte
	err     error

	parts []*program // of a union, by branch; of an array, by index, with gaps
	keyed map[string]*program
}

// A compiler makes the program of one writer's schema.
type compiler struct {
	f      *Format
	source string
}

// compile makes the program for messages of type w.
func (f *Format) compile(w *typ, source string) *projection {
	c := &compiler{f: f, source: source}
	p := &program{}
	if err := c.value(p, w, f.reader, f.root, ""); err != nil {
		return &projection{fatal: err}
	}
	return &projection{program: p}
}

// fingerprint is what stands before messages of a schema in Framing SingleObject.
func fingerprint(s *registry.Schema) (out [8]byte, err error) {
	var cache avro.SchemaCache
	for _, r := range s.Imports() {
		if _, err := cache.Parse(r.Schema.Text); err != nil {
			return out, err
		}
	}
	schema, err := cache.Parse(s.Text)
	if err != nil {
		return out, err
	}
	copy(out[:], schema.Fingerprint(avro.NewRabin()))
	slices.Reverse(out[:])
	return out, nil
}

func (p *program) emit(in instr) { p.code = append(p.code, in) }

// value reads a w, which the reader knows as r or not at all, for the columns at
// and below n.
func (c *compiler) value(p *program, w, r *typ, n *node, path string) error {
	switch {
	case len(n.columns)+len(n.below) == 0:
		c.skip(p, w)
		return nil
	case w.kind == kUnion:
		return c.union(p, w, r, n, path)
	case w.kind == kNull:
		p.emit(instr{op: opNull, x: &extra{columns: n.all(), path: path}})
		return nil
	}
	for i, col := range n.columns {
		in, err := c.leaf(w, col, path)
		if err != nil {
			return err
		}
		if i < len(n.columns)-1 || len(n.below) > 0 {
			in = instr{op: opPeek, x: &extra{parts: []*program{{code: []instr{in}}}}}
		}
		p.emit(in)
	}
	if len(n.below) == 0 {
		return nil
	}
	switch w.kind {
	case kRecord:
		return c.record(p, w, pick(r, w), n, path)
	case kArray:
		return c.array(p, w, pick(r, w), n, path)
	case kMap:
		return c.keyed(p, w, pick(r, w), n, path)
	}
	return c.misfit(w, n.all()[0], path)
}

// skip steps over a value.
func (c *compiler) skip(p *program, w *typ) {
	switch {
	case w.width == 0:
	case w.width > 0:
		if k := len(p.code) - 1; k >= p.barrier && p.code[k].op == opAdvance && p.code[k].n+w.width <= maxWidth {
			p.code[k].n += w.width
			return
		}
		p.emit(instr{op: opAdvance, n: w.width})
	case w.kind == kString || w.kind == kBytes:
		p.emit(instr{op: opBytes})
	case w.kind == kInt || w.kind == kLong:
		p.emit(instr{op: opVarint, narrow: w.kind == kInt})
	default:
		p.emit(instr{op: opSkip, x: &extra{typ: w}})
	}
}

// misfit is the error of a column that a w cannot become.
func (c *compiler) misfit(w *typ, col int, path string) error {
	source := c.source
	if column := c.f.c.Columns[col]; path != "" && path != column.Name {
		source += ", field " + path
	}
	return &codec.SchemaError{Column: c.f.c.Columns[col].Name, Have: w.arrow(), Want: c.f.c.Columns[col].Type, Source: source}
}

// union reads the branch that a message says. Branches that no column can hold are
// faults of the messages that take them, unless there is no other one.
func (c *compiler) union(p *program, w, r *typ, n *node, path string) error {
	if t, ok := w.option(); ok && len(w.branches) == 2 {
		at := len(p.code)
		null := int64(slices.IndexFunc(w.branches, func(b *typ) bool { return b.kind == kNull }))
		p.emit(instr{op: opOption, some: byte(2 - 2*null), x: &extra{null: null, columns: n.all(), path: path}})
		p.barrier = len(p.code)
		if err := c.value(p, t, r, n, path); err != nil {
			return err
		}
		p.code[at].n = len(p.code) - at - 1
		p.barrier = len(p.code)
		return nil
	}
	var first error
	x := &extra{path: path}
	good := 0
	for _, b := range w.branches {
		part := &program{}
		err := c.value(part, b, r, n, path)
		switch {
		case err == nil && b.kind != kNull:
			good++
		case err != nil:
			if first == nil {
				first = err
			}
			part = &program{code: []instr{{op: opMismatch, x: &extra{path: path, err: err}}}}
		}
		x.parts = append(x.parts, part)
	}
	if good == 0 && first != nil {
		return first
	}
	p.emit(instr{op: opUnion, x: x})
	return nil
}

// pick returns what of the reader's r stands for a w; nil where there is nothing.
func pick(r, w *typ) *typ {
	if r == nil {
		return nil
	}
	var found *typ
	for _, b := range r.alternatives() {
		if b.kind != w.kind {
			continue
		}
		if b.name == w.name {
			return b
		}
		if found == nil {
			found = b
		}
	}
	return found
}

// A want is what is read of a field.
type want struct {
	node *node
	r    *typ
}

// record reads the fields that are asked for, in the writer's order.
func (c *compiler) record(p *program, w, r *typ, n *node, path string) error {
	wants := make([][]want, len(w.fields))
	for i, step := range n.steps {
		rf, at := &field{name: step}, 0
		if r != nil {
			if rf = r.field(step); rf == nil {
				rf = &field{name: step}
			}
		}
		if at = w.find(rf); at < 0 {
			if err := c.absent(p, rf, n.below[i], below(path, step)); err != nil {
				return err
			}
			continue
		}
		wants[at] = append(wants[at], want{n.below[i], rf.typ})
	}
	for i, f := range w.fields {
		if wants[i] == nil {
			c.skip(p, f.typ)
			continue
		}
		for k, want := range wants[i] {
			into := p
			if k < len(wants[i])-1 {
				into = &program{}
			}
			if err := c.value(into, f.typ, want.r, want.node, below(path, f.name)); err != nil {
				return err
			}
			if into != p {
				p.emit(instr{op: opPeek, x: &extra{parts: []*program{into}}})
			}
		}
	}
	return nil
}

func below(path, step string) string { return strings.TrimPrefix(path+"."+step, ".") }

// absent gives the columns of a field that the writer does not have the reader's
// default, or null.
func (c *compiler) absent(p *program, rf *field, n *node, path string) error {
	if !rf.hasInit {
		for _, col := range n.all() {
			if slices.Contains(c.f.required, col) {
				return &codec.SchemaError{Column: c.f.c.Columns[col].Name, Have: arrow.Null, Want: c.f.c.Columns[col].Type,
					Source: fmt.Sprintf("%s has no field %s", c.source, path)}
			}
		}
		p.emit(instr{op: opNull, x: &extra{columns: n.all(), path: path}})
		return nil
	}
	schema, err := rf.typ.node.Schema()
	if err != nil {
		return fmt.Errorf("reader's schema: %s: %w", path, err)
	}
	data, err := schema.Encode(rf.init)
	if err != nil {
		return fmt.Errorf("reader's schema: %s: default: %w", path, err)
	}
	part := &program{}
	from := &compiler{f: c.f, source: "the reader's schema"}
	if err := from.value(part, rf.typ, rf.typ, n, path); err != nil {
		return err
	}
	p.emit(instr{op: opConst, x: &extra{path: path, data: bytes.Clone(data), parts: []*program{part}}})
	return nil
}

// array reads the elements that are asked for by index.
func (c *compiler) array(p *program, w, r *typ, n *node, path string) error {
	x := &extra{path: path, typ: w.items, columns: n.deeper()}
	for i, step := range n.steps {
		at, ok := item(step)
		if !ok {
			return c.misfit(w, n.below[i].all()[0], path)
		}
		part := &program{columns: n.below[i].all()}
		if err := c.value(part, w.items, itemsOf(r), n.below[i], below(path, step)); err != nil {
			return err
		}
		for len(x.parts) <= at {
			x.parts = append(x.parts, nil)
		}
		x.parts[at] = part
	}
	p.emit(instr{op: opArray, x: x})
	return nil
}

// keyed reads the values of a map that are asked for by key.
func (c *compiler) keyed(p *program, w, r *typ, n *node, path string) error {
	x := &extra{path: path, typ: w.items, columns: n.deeper(), keyed: map[string]*program{}}
	for i, step := range n.steps {
		part := &program{columns: n.below[i].all()}
		if err := c.value(part, w.items, itemsOf(r), n.below[i], below(path, step)); err != nil {
			return err
		}
		x.keyed[step] = part
	}
	p.emit(instr{op: opMap, x: x})
	return nil
}

func itemsOf(r *typ) *typ {
	if r == nil {
		return nil
	}
	return r.items
}

// leaf reads a w into a column.
func (c *compiler) leaf(w *typ, col int, path string) (instr, error) {
	column := c.f.c.Columns[col]
	k := table.KindOf(column.Type)
	in := instr{col: int32(col), x: &extra{path: path, typ: w}}
	ok := true
	switch w.kind {
	case kBoolean:
		in.op, ok = opBool, k == table.Bool
	case kInt, kLong:
		in.op, in.narrow = opInteger, w.kind == kInt
		in.x.scale, ok = c.integer(w, k, column.Type)
	case kFloat:
		in.op, ok = opFloat32, k == table.Float32 || k == table.Float64
		if k == table.Float64 {
			in.op = opFloat64
		}
	case kDouble:
		in.op, ok = opDouble64, k == table.Float32 || k == table.Float64
		if k == table.Float32 {
			in.op = opDouble32
		}
	case kEnum:
		in.op, ok = opEnum, k == table.String
	case kString, kBytes, kFixed:
		in.op, in.n, ok = bytesOp(w, k)
	case kArray:
		ok = k == table.List && numeric(w.items)
		in.op = opList
		in.n = int(listWidth(column.Type))
	default:
		ok = false
	}
	if !ok {
		return in, c.misfit(w, col, path)
	}
	return in, nil
}

// integer says how an int or long becomes a k, and whether it may.
func (c *compiler) integer(w *typ, k table.Kind, t arrow.DataType) (scale table.Scale, ok bool) {
	if k != table.Time {
		return scale, k == table.Int64 || k == table.Float32 || k == table.Float64 || k == table.Int32 && w.kind == kInt
	}
	to := t.(*arrow.TimestampType).Unit
	if w.kind == kInt && w.logical == "date" {
		return table.Days(to), true
	}
	from, _, ok := w.unit()
	if !ok || w.kind == kInt {
		if from, ok = table.UnitOf(c.f.c.Longs); !ok {
			return scale, false
		}
	}
	return table.ScaleOf(from, to), true
}

// bytesOp returns how a string, bytes or fixed becomes a k.
func bytesOp(w *typ, k table.Kind) (o op, n int, ok bool) {
	n = -1
	if w.kind == kFixed {
		n = w.width
	}
	switch {
	case k == table.Binary && n >= 0:
		return opFixed, n, true
	case k == table.Binary:
		return opBinary, n, true
	case w.logical == "decimal" && w.kind != kString:
		return opDecimal, n, k == table.Float32 || k == table.Float64
	case k == table.String && n < 0:
		return opText, n, true
	case k == table.String && n == 16 && w.logical == "uuid":
		return opUUID, n, true
	}
	return 0, 0, false
}

// numeric tells whether elements of an array may become those of a List.
func numeric(t *typ) bool {
	t, ok := t.option()
	return ok && (t.kind == kInt || t.kind == kLong || t.kind == kFloat || t.kind == kDouble)
}

func listWidth(t arrow.DataType) int32 {
	if l, ok := t.(*arrow.FixedSizeListType); ok {
		return l.Len()
	}
	return 0
}
