package protobuf

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
)

// take does a with a value.
func (d *decoder) take(a *action, v value) bool {
	for _, o := range a.others {
		d.forget(o)
	}
	switch a.op {
	case opClear:
		return true
	case opList, opItems:
		return d.elements(a, v)
	}
	if v.wire != a.wire {
		return d.fail(codec.Invalid, a.path, v.at, "wire type %d, want %d", v.wire, a.wire)
	}
	switch a.op {
	case opMessage:
		return d.message(a.sub, v.bytes, v.at)
	case opTime:
		return d.time(a, v)
	case opMap:
		return d.entry(a, v)
	}
	return d.scalar(a, v)
}

// scalar stores a value.
func (d *decoder) scalar(a *action, v value) bool {
	switch a.kind {
	case protoreflect.FloatKind:
		d.float(a, math.Float32frombits(uint32(v.bits)))
	case protoreflect.DoubleKind:
		d.double(a, math.Float64frombits(v.bits))
	case protoreflect.BoolKind:
		d.table.Columns[a.col].SetBool(d.table.Row, v.bits != 0)
	case protoreflect.StringKind, protoreflect.BytesKind:
		return d.text(a, v.bytes, v.at)
	case protoreflect.EnumKind:
		if d.table.Columns[a.col].Kind == table.String {
			return d.name(a, int32(v.bits), v.at)
		}
		fallthrough
	default:
		i, ok := integer(a.kind, v.bits)
		if !ok {
			return d.unsigned(a, v)
		}
		return d.integer(a, i, v.at)
	}
	d.set[a.col] = d.row
	return true
}

// integer returns the integer of a kind; false means that it needs 64 bits without
// a sign.
func integer(k protoreflect.Kind, bits uint64) (int64, bool) {
	switch k {
	case protoreflect.Int32Kind, protoreflect.Sfixed32Kind, protoreflect.EnumKind:
		return int64(int32(bits)), true
	case protoreflect.Sint32Kind:
		return int64(int32(protowire.DecodeZigZag(bits & math.MaxUint32))), true
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return int64(uint32(bits)), true
	case protoreflect.Sint64Kind:
		return protowire.DecodeZigZag(bits), true
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return int64(bits), int64(bits) >= 0
	}
	return int64(bits), true
}

// integer stores an integer.
func (d *decoder) integer(a *action, v int64, at int) bool {
	c, row := d.table.Columns[a.col], d.table.Row
	switch c.Kind {
	case table.Int64:
		c.I64[row] = v
	case table.Int32:
		c.I32[row] = int32(v)
	case table.Float64:
		c.F64[row] = float64(v)
	case table.Float32:
		c.F32[row] = float32(v)
	case table.Time:
		t, ok := a.scale.Of(v)
		if !ok {
			return d.fail(codec.Invalid, a.path, at, "%d is out of range", v)
		}
		c.I64[row] = t
	}
	d.set[a.col] = d.row
	return true
}

// unsigned stores an integer above those with a sign.
func (d *decoder) unsigned(a *action, v value) bool {
	c, row := d.table.Columns[a.col], d.table.Row
	switch c.Kind {
	case table.Float64:
		c.F64[row] = float64(v.bits)
	case table.Float32:
		c.F32[row] = float32(v.bits)
	default:
		return d.fail(codec.Invalid, a.path, v.at, "%d is out of range", v.bits)
	}
	d.set[a.col] = d.row
	return true
}

func (d *decoder) float(a *action, v float32) {
	if c := d.table.Columns[a.col]; c.Kind == table.Float32 {
		c.F32[d.table.Row] = v
	} else {
		c.F64[d.table.Row] = float64(v)
	}
	d.set[a.col] = d.row
}

func (d *decoder) double(a *action, v float64) {
	if c := d.table.Columns[a.col]; c.Kind == table.Float64 {
		c.F64[d.table.Row] = v
	} else {
		c.F32[d.table.Row] = float32(v)
	}
	d.set[a.col] = d.row
}

// text stores a string or bytes.
func (d *decoder) text(a *action, b []byte, at int) bool {
	c := d.table.Columns[a.col]
	if (c.Kind == table.String || a.kind == protoreflect.StringKind) && !utf8.Valid(b) {
		return d.fail(codec.Syntax, a.path, at, "a text that is not UTF-8")
	}
	if err := c.Store(d.table.Row, b); err != nil {
		return d.fail(codec.Size, a.path, at, "%w", err)
	}
	d.set[a.col] = d.row
	return true
}

// name stores the name of an enum's value, or its number where it has none.
func (d *decoder) name(a *action, n int32, at int) bool {
	b, ok := a.names[n]
	if !ok {
		d.scratch = strconv.AppendInt(d.scratch[:0], int64(n), 10)
		b = d.scratch
	}
	if err := d.table.Columns[a.col].Store(d.table.Row, b); err != nil {
		return d.fail(codec.Size, a.path, at, "%w", err)
	}
	d.set[a.col] = d.row
	return true
}

// init stores a default.
func (d *decoder) init(a *action, v protoreflect.Value) bool {
	switch v := v.Interface().(type) {
	case bool:
		d.table.Columns[a.col].SetBool(d.table.Row, v)
		d.set[a.col] = d.row
	case int32:
		return d.integer(a, int64(v), -1)
	case int64:
		return d.integer(a, v, -1)
	case uint32:
		return d.integer(a, int64(v), -1)
	case uint64:
		return d.scalar(a, value{bits: v, at: -1})
	case float32:
		d.float(a, v)
	case float64:
		d.double(a, v)
	case string:
		d.scratch = append(d.scratch[:0], v...)
		return d.text(a, d.scratch, -1)
	case []byte:
		return d.text(a, v, -1)
	case protoreflect.EnumNumber:
		return d.scalar(a, value{bits: uint64(v), at: -1})
	}
	return true
}

// time stores a google.protobuf.Timestamp.
func (d *decoder) time(a *action, v value) bool {
	n := d.counter(a)
	ok := eachField(v.bytes, v.at, func(number protowire.Number, f value) bool {
		if f.wire == protowire.VarintType && number == 1 {
			n.seconds = int64(f.bits)
		} else if f.wire == protowire.VarintType && number == 2 {
			n.nanos = int32(f.bits)
		}
		return true
	})
	if !ok {
		return d.fail(codec.Syntax, a.path, v.at, "a timestamp that is no message")
	}
	if n.nanos < 0 || n.nanos >= 1e9 {
		return d.fail(codec.Invalid, a.path, v.at, "a timestamp of %d nanoseconds", n.nanos)
	}
	c := d.table.Columns[a.col]
	t, ok := table.Instant(n.seconds, n.nanos, c.Type.(*arrow.TimestampType).Unit)
	if !ok {
		return d.fail(codec.Invalid, a.path, v.at, "a timestamp of %d seconds is out of range", n.seconds)
	}
	c.I64[d.table.Row] = t
	d.set[a.col] = d.row
	return true
}

// eachField calls f with each field of a message, and returns false when it is none
// or f does.
func eachField(b []byte, base int, f func(protowire.Number, value) bool) bool {
	for pos := 0; pos < len(b); {
		number, wire, n := protowire.ConsumeTag(b[pos:])
		if n < 0 {
			return false
		}
		pos += n
		v := value{wire: wire, at: base + pos}
		if pos = v.read(number, b, pos); pos < 0 || !f(number, v) {
			return false
		}
	}
	return true
}

// elements takes one element of a repeated field, or several that are packed.
func (d *decoder) elements(a *action, v value) bool {
	if v.wire == a.wire {
		return d.element(a, v)
	}
	if v.wire != protowire.BytesType || a.wire == protowire.StartGroupType {
		return d.fail(codec.Invalid, a.path, v.at, "wire type %d, want %d", v.wire, a.wire)
	}
	if a.op == opList && a.kind == protoreflect.FloatKind && len(v.bytes)%4 == 0 {
		d.floats(a, v.bytes)
		return true
	}
	for pos := 0; pos < len(v.bytes); {
		e := value{wire: a.wire, at: v.at + pos}
		if pos = e.read(1, v.bytes, pos); pos < 0 {
			return d.fail(codec.Syntax, a.path, e.at, "the bytes end within an element")
		}
		if !d.element(a, e) {
			return false
		}
	}
	return true
}

// floats takes packed floats of a List.
func (d *decoder) floats(a *action, b []byte) {
	n := d.counter(a)
	c := d.table.Columns[a.col]
	i := n.n
	if n.n += len(b) / 4; len(b) > 0 {
		d.set[a.col] = d.row
	}
	for dst := c.F32[d.table.Row*c.Width:][:c.Width]; i < len(dst) && len(b) > 0; i++ {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
}

// element takes the next element.
func (d *decoder) element(a *action, v value) bool {
	n := d.counter(a)
	i := n.n
	n.n++
	if a.op == opList {
		if c := d.table.Columns[a.col]; i < c.Width {
			c.F32[d.table.Row*c.Width+i] = number(a.kind, v.bits)
		}
		d.set[a.col] = d.row
		return true
	}
	if i < len(a.items) {
		for e := a.items[i]; e != nil; e = e.next {
			if !d.take(e, v) {
				return false
			}
		}
	}
	return true
}

// number returns a number of a kind as a float.
func number(k protoreflect.Kind, bits uint64) float32 {
	switch k {
	case protoreflect.FloatKind:
		return math.Float32frombits(uint32(bits))
	case protoreflect.DoubleKind:
		return float32(math.Float64frombits(bits))
	}
	if i, ok := integer(k, bits); ok {
		return float32(i)
	}
	return float32(bits)
}

// entry takes an entry of a map. Of those with the same key the last one counts.
func (d *decoder) entry(a *action, v value) bool {
	key := value{bytes: []byte{}}
	item := value{wire: -1, at: v.at}
	ok := eachField(v.bytes, v.at, func(number protowire.Number, f value) bool {
		switch number {
		case 1:
			key = f
		case 2:
			item = f
		}
		return true
	})
	if !ok {
		return d.fail(codec.Syntax, a.path, v.at, "an entry that is no message")
	}
	switch a.key {
	case protoreflect.StringKind:
		d.scratch = append(d.scratch[:0], key.bytes...)
	case protoreflect.BoolKind:
		d.scratch = strconv.AppendBool(d.scratch[:0], key.bits != 0)
	default:
		if i, ok := integer(a.key, key.bits); ok {
			d.scratch = strconv.AppendInt(d.scratch[:0], i, 10)
		} else {
			d.scratch = strconv.AppendUint(d.scratch[:0], key.bits, 10)
		}
	}
	for e := a.keyed[string(d.scratch)]; e != nil; e = e.next {
		d.forget(e.all)
		switch {
		case item.wire >= 0:
			if !d.take(e, item) {
				return false
			}
		case e.op == opScalar:
			if !d.init(e, e.init) {
				return false
			}
		default: // an entry without a value has an empty message
			if !d.take(e, value{wire: protowire.BytesType, bytes: []byte{}, at: v.at}) {
				return false
			}
		}
	}
	return true
}
