package protobuf

import (
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
)

// An op says what an action does with a field's value.
type op uint8

const (
	opScalar  op = iota // store it
	opTime              // a google.protobuf.Timestamp
	opMessage           // read its fields by sub
	opList              // append to a List
	opItems             // an element, or several that are packed, by index
	opMap               // an entry, by key
	opClear             // nothing, but for what else a oneof has
)

// A program turns messages of one type into a row.
type program struct {
	root     *plan
	endings  []ending // by column
	lists    []*action
	plans    int // how many there are
	counters int
}

// A plan reads one message of a type.
type plan struct {
	at   int       // its number
	near []*action // by field number
	far  map[protowire.Number]*action
	all  extent
}

// maxNear is the highest number of a field in plan.near.
const maxNear = 511

// An extent is what an action or plan writes, so that it may be forgotten.
type extent struct {
	columns, plans, counters []int
}

func (e *extent) add(o extent) {
	e.columns = append(e.columns, o.columns...)
	e.plans = append(e.plans, o.plans...)
	e.counters = append(e.counters, o.counters...)
}

// An action is what is done with one field.
type action struct {
	op      op
	quick   quick
	wire    protowire.Type // of a scalar, or of an element
	kind    protoreflect.Kind
	col     int
	path    string
	scale   table.Scale
	names   map[int32][]byte // of an enum's values
	sub     *plan
	counter int
	items   []*action // by index, with gaps
	keyed   map[string]*action
	key     protoreflect.Kind // of a map
	init    protoreflect.Value
	all     extent
	others  []extent // the rest of a oneof
	next    *action  // also done with the same value
}

// A quick action stores a plain number as it is, and nothing else.
type quick uint8

const (
	quickFloat  quick = 1 + iota // float to Float32
	quickDouble                  // double to Float64
)

// An ending says what a column becomes that no field has set.
type ending struct {
	plan   int     // whose message must be there; below 0 there is no default
	action *action // stores the default
	init   protoreflect.Value
}

// A compiler makes the program of one type of message.
type compiler struct {
	f      *Format
	p      *program
	source string
}

// compile makes the program for messages of type w.
func (f *Format) compile(w protoreflect.MessageDescriptor, source string) *projection {
	c := &compiler{f: f, source: source, p: &program{endings: make([]ending, len(f.c.Columns))}}
	for i := range c.p.endings {
		c.p.endings[i].plan = -1
	}
	var err error
	if c.p.root, err = c.message(w, f.reader, f.root, ""); err != nil {
		return &projection{fatal: err}
	}
	return &projection{program: c.p}
}

// message plans a w, which the reader knows as r or not at all, for the columns
// below n.
func (c *compiler) message(w, r protoreflect.MessageDescriptor, n *node, path string) (*plan, error) {
	p := &plan{at: c.p.plans}
	c.p.plans++
	p.all.plans = []int{p.at}
	for i, step := range n.steps {
		var wf, rf protoreflect.FieldDescriptor
		if r == nil {
			wf = byStep(w, step)
		} else if rf = byStep(r, step); rf != nil {
			wf = w.Fields().ByNumber(rf.Number())
		}
		var err error
		if at := below(path, step); wf == nil {
			err = c.absent(p, rf, n.below[i], at)
		} else {
			err = c.field(p, wf, rf, n.below[i], at)
		}
		if err != nil {
			return nil, err
		}
	}
	c.oneofs(p, w)
	for _, a := range p.near {
		if a == nil || a.op != opScalar || a.next != nil || a.others != nil {
			continue
		}
		switch k := table.KindOf(c.f.c.Columns[a.col].Type); {
		case k == table.Float32 && a.kind == protoreflect.FloatKind:
			a.quick = quickFloat
		case k == table.Float64 && a.kind == protoreflect.DoubleKind:
			a.quick = quickDouble
		}
	}
	return p, nil
}

// absent is for a field that the writer does not have.
func (c *compiler) absent(p *plan, rf protoreflect.FieldDescriptor, n *node, path string) error {
	if rf != nil && rf.HasDefault() && len(n.columns) > 0 {
		for _, col := range n.columns {
			a, err := c.leaf(rf, rf, col, path)
			if err != nil {
				return err
			}
			c.p.endings[col] = ending{p.at, a, rf.Default()}
		}
		return nil
	}
	for _, col := range n.all() {
		if slices.Contains(c.f.required, col) {
			column := c.f.c.Columns[col]
			return &codec.SchemaError{Column: column.Name, Have: arrow.Null, Want: column.Type,
				Source: fmt.Sprintf("%s has no field %s", c.source, path)}
		}
	}
	return nil
}

// add lets p do a with a field's value.
func (p *plan) add(number protowire.Number, a *action) {
	at := &a.next
	for p.all.add(a.all); *at != nil; at = &(*at).next {
		p.all.add((*at).all)
	}
	if number > maxNear {
		if p.far == nil {
			p.far = map[protowire.Number]*action{}
		}
		*at, p.far[number] = p.far[number], a
		return
	}
	for len(p.near) <= int(number) {
		p.near = append(p.near, nil)
	}
	*at, p.near[number] = p.near[number], a
}

// find returns what p does with a field; nil is nothing.
func (p *plan) find(number protowire.Number) *action {
	if int(number) < len(p.near) {
		return p.near[number]
	}
	return p.far[number]
}

// field plans a field of a message.
func (c *compiler) field(p *plan, wf, rf protoreflect.FieldDescriptor, n *node, path string) error {
	var err error
	var a *action
	switch {
	case wf.IsMap():
		a, err = c.keyed(wf, rf, n, path)
	case wf.IsList():
		a, err = c.list(wf, rf, n, path)
	default:
		a, err = c.single(wf, rf, n, path)
	}
	if err != nil {
		return err
	}
	if a != nil {
		p.add(wf.Number(), a)
	}
	if wf.IsMap() || wf.IsList() || wf.Message() != nil {
		return nil
	}
	init, ok := wf.Default(), !wf.HasPresence() || wf.HasDefault()
	if rf != nil && rf.HasDefault() && rf.Kind() == wf.Kind() && rf.Kind() != protoreflect.EnumKind {
		init, ok = rf.Default(), true
	}
	for b := a; b != nil && ok; b = b.next {
		if b.op == opScalar {
			c.p.endings[b.col] = ending{p.at, b, init}
		}
	}
	return nil
}

// oneofs lets each member of a oneof forget the others.
func (c *compiler) oneofs(p *plan, w protoreflect.MessageDescriptor) {
	for i := range w.Oneofs().Len() {
		o := w.Oneofs().Get(i)
		if o.IsSynthetic() {
			continue
		}
		members := map[protowire.Number]extent{}
		for k := range o.Fields().Len() {
			number := o.Fields().Get(k).Number()
			var all extent
			for a := p.find(number); a != nil; a = a.next {
				all.add(a.all)
			}
			members[number] = all
		}
		for number := range members {
			var others []extent
			for other, all := range members {
				if other != number && len(all.columns) > 0 {
					others = append(others, all)
				}
			}
			if len(others) == 0 {
				continue
			}
			if p.find(number) == nil {
				p.add(number, &action{op: opClear})
			}
			p.find(number).others = others
		}
	}
}

// single plans a value that is not repeated: that of a field, an element, or a
// map's. It is nil where no column wants it.
func (c *compiler) single(wf, rf protoreflect.FieldDescriptor, n *node, path string) (*action, error) {
	var first *action
	for _, col := range n.columns {
		a, err := c.leaf(wf, rf, col, path)
		if err != nil {
			return nil, err
		}
		a.next, first = first, a
	}
	if len(n.below) == 0 {
		return first, nil
	}
	if wf.Kind() != protoreflect.MessageKind {
		return nil, c.misfit(wf, n.below[0].all()[0], path)
	}
	var r protoreflect.MessageDescriptor
	if rf != nil {
		r = rf.Message()
	}
	sub, err := c.message(wf.Message(), r, n, path)
	if err != nil {
		return nil, err
	}
	return &action{op: opMessage, path: path, wire: protowire.BytesType, sub: sub, all: sub.all, next: first}, nil
}

// list plans a repeated field.
func (c *compiler) list(wf, rf protoreflect.FieldDescriptor, n *node, path string) (*action, error) {
	var first *action
	add := func(a *action) {
		c.count(a)
		a.wire, a.kind, a.path = wireOf(wf.Kind()), wf.Kind(), path
		a.next, first = first, a
	}
	for _, col := range n.columns {
		if table.KindOf(c.f.c.Columns[col].Type) != table.List || !isNumber(wf.Kind()) {
			return nil, c.misfit(wf, col, path)
		}
		a := &action{op: opList, col: col, all: extent{columns: []int{col}}}
		add(a)
		c.p.lists = append(c.p.lists, a)
	}
	if len(n.below) == 0 {
		return first, nil
	}
	items := &action{op: opItems}
	for i, step := range n.steps {
		at, ok := item(step)
		if !ok {
			return nil, c.misfit(wf, n.below[i].all()[0], path)
		}
		a, err := c.single(wf, rf, n.below[i], below(path, step))
		if err != nil {
			return nil, err
		}
		for len(items.items) <= at {
			items.items = append(items.items, nil)
		}
		items.items[at] = a
		for ; a != nil; a = a.next {
			items.all.add(a.all)
		}
	}
	add(items)
	return first, nil
}

// keyed plans a map.
func (c *compiler) keyed(wf, rf protoreflect.FieldDescriptor, n *node, path string) (*action, error) {
	if len(n.columns) > 0 {
		return nil, c.misfit(wf, n.columns[0], path)
	}
	a := &action{op: opMap, wire: protowire.BytesType, path: path, key: wf.MapKey().Kind(), keyed: map[string]*action{}}
	var rv protoreflect.FieldDescriptor
	if rf != nil && rf.IsMap() {
		rv = rf.MapValue()
	}
	for i, step := range n.steps {
		v, err := c.single(wf.MapValue(), rv, n.below[i], below(path, step))
		if err != nil {
			return nil, err
		}
		for b := v; b != nil; b = b.next {
			b.init = wf.MapValue().Default()
			a.all.add(b.all)
		}
		a.keyed[step] = v
	}
	return a, nil
}

// leaf plans a value that becomes a column.
func (c *compiler) leaf(wf, rf protoreflect.FieldDescriptor, col int, path string) (*action, error) {
	t := c.f.c.Columns[col].Type
	k := table.KindOf(t)
	a := &action{op: opScalar, kind: wf.Kind(), wire: wireOf(wf.Kind()), col: col, path: path, all: extent{columns: []int{col}}}
	ok := true
	switch {
	case wf.Kind() == protoreflect.MessageKind && wf.Message().FullName() == "google.protobuf.Timestamp":
		a.op, ok = opTime, k == table.Time
		c.count(a)
	case wf.Kind() == protoreflect.MessageKind && isWrapper(wf.Message()):
		return c.wrapper(wf, col, path)
	case wf.Kind() == protoreflect.EnumKind:
		ok = k == table.String || k == table.Int32 || k == table.Int64
		a.names = enumNames(wf, rf)
	default:
		a.scale, ok = c.fits(wf.Kind(), k, t)
	}
	if !ok {
		return nil, c.misfit(wf, col, path)
	}
	return a, nil
}

// wrapper plans a wrapper: a message whose only field is the value.
func (c *compiler) wrapper(wf protoreflect.FieldDescriptor, col int, path string) (*action, error) {
	f := wf.Message().Fields().ByNumber(1)
	inner, err := c.leaf(f, nil, col, path)
	if err != nil {
		return nil, c.misfit(wf, col, path)
	}
	p := &plan{at: c.p.plans}
	c.p.plans++
	p.all.plans = []int{p.at}
	p.add(1, inner)
	c.p.endings[col] = ending{p.at, inner, f.Default()}
	return &action{op: opMessage, path: path, wire: protowire.BytesType, sub: p, all: p.all}, nil
}

// count gives a a counter.
func (c *compiler) count(a *action) {
	a.counter = c.p.counters
	c.p.counters++
	a.all.counters = append(a.all.counters, a.counter)
}

// fits says whether a scalar may become a k, and how, where that is a timestamp.
func (c *compiler) fits(scalar protoreflect.Kind, k table.Kind, t arrow.DataType) (scale table.Scale, ok bool) {
	switch scalar {
	case protoreflect.BoolKind:
		return scale, k == table.Bool
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return scale, k == table.Float32 || k == table.Float64
	case protoreflect.StringKind, protoreflect.BytesKind:
		return scale, k == table.String || k == table.Binary
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return scale, false
	}
	switch k {
	case table.Int32:
		return scale, scalar == protoreflect.Int32Kind || scalar == protoreflect.Sint32Kind || scalar == protoreflect.Sfixed32Kind
	case table.Time:
		from, ok := table.UnitOf(c.f.c.Integers)
		return table.ScaleOf(from, t.(*arrow.TimestampType).Unit), ok
	}
	return scale, k == table.Int64 || k == table.Float32 || k == table.Float64
}

// misfit is the error of a column that a field cannot become.
func (c *compiler) misfit(wf protoreflect.FieldDescriptor, col int, path string) error {
	column := c.f.c.Columns[col]
	source := c.source
	if path != column.Name {
		source += ", field " + path
	}
	have := arrowType(wf)
	if have != nil && wf.IsList() {
		have = arrow.ListOf(have)
	}
	return &codec.SchemaError{Column: column.Name, Have: have, Want: column.Type, Source: source}
}

// wireOf returns how a value of a kind is written, where it is not packed.
func wireOf(k protoreflect.Kind) protowire.Type {
	switch k {
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	case protoreflect.GroupKind:
		return protowire.StartGroupType
	}
	return protowire.VarintType
}

// isNumber tells whether a kind may become an element of a List.
func isNumber(k protoreflect.Kind) bool {
	switch k {
	case protoreflect.BoolKind, protoreflect.EnumKind, protoreflect.StringKind, protoreflect.BytesKind,
		protoreflect.MessageKind, protoreflect.GroupKind:
		return false
	}
	return true
}

func isWrapper(m protoreflect.MessageDescriptor) bool {
	switch m.FullName() {
	case "google.protobuf.DoubleValue", "google.protobuf.FloatValue", "google.protobuf.Int64Value", "google.protobuf.UInt64Value",
		"google.protobuf.Int32Value", "google.protobuf.UInt32Value", "google.protobuf.BoolValue", "google.protobuf.StringValue",
		"google.protobuf.BytesValue":
		return true
	}
	return false
}

// enumNames returns the names of an enum's values: the reader's, then the writer's.
func enumNames(wf, rf protoreflect.FieldDescriptor) map[int32][]byte {
	names := map[int32][]byte{}
	for _, f := range []protoreflect.FieldDescriptor{wf, rf} {
		if f == nil || f.Enum() == nil {
			continue
		}
		for i := f.Enum().Values().Len() - 1; i >= 0; i-- { // of aliases the first counts
			v := f.Enum().Values().Get(i)
			names[int32(v.Number())] = []byte(v.Name())
		}
	}
	return names
}

// arrowType returns the column type that holds a value of a field, or an element of
// it, and nil where there is none.
func arrowType(f protoreflect.FieldDescriptor) arrow.DataType {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return arrow.FixedWidthTypes.Boolean
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return arrow.PrimitiveTypes.Int32
	case protoreflect.FloatKind:
		return arrow.PrimitiveTypes.Float32
	case protoreflect.DoubleKind:
		return arrow.PrimitiveTypes.Float64
	case protoreflect.StringKind, protoreflect.EnumKind:
		return arrow.BinaryTypes.String
	case protoreflect.BytesKind:
		return arrow.BinaryTypes.Binary
	case protoreflect.GroupKind:
		return nil
	case protoreflect.MessageKind:
		switch {
		case f.IsMap():
			return nil
		case f.Message().FullName() == "google.protobuf.Timestamp":
			return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
		case isWrapper(f.Message()):
			return arrowType(f.Message().Fields().ByNumber(1))
		}
		return nil
	}
	return arrow.PrimitiveTypes.Int64
}
