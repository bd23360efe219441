package avro

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

// headerSize is the size of Confluent's header, printSize that of Avro's own.
const (
	headerSize = 5
	printSize  = 10
)

// A decoder reads messages for one goroutine.
type decoder struct {
	f     *Format
	mem   memory.Allocator
	table *table.Table

	id   int32 // of last
	last *projection

	base    int // bytes of the message before the data
	class   codec.Class
	err     error
	scratch []byte
}

var _ codec.Decoder = (*decoder)(nil)

func newDecoder(f *Format, mem memory.Allocator) *decoder {
	return &decoder{f: f, mem: mem, table: table.New(f.c.Columns)}
}

// Release gives up the scratch space.
func (d *decoder) Release() { d.scratch = nil }

// Decode reads one row of each value that is not null. It waits for the registry
// when a schema is new.
func (d *decoder) Decode(ctx context.Context, values *array.Binary) (codec.Decoded, error) {
	return d.table.Decode(ctx, d.mem, values, func(message []byte) (codec.Class, error) { return d.read(ctx, message) })
}

// read reads one message into the row of the table.
func (d *decoder) read(ctx context.Context, message []byte) (codec.Class, error) {
	if len(message) > d.f.c.MaxBytes {
		return codec.Size, fmt.Errorf("%d bytes, more than %d", len(message), d.f.c.MaxBytes)
	}
	p, class, err := d.program(ctx, message)
	if err != nil {
		return class, err
	}
	data := message[d.base:]
	pos := d.run(p.code, data, 0)
	if pos < 0 {
		return d.class, d.err
	}
	if pos != len(data) {
		return codec.Syntax, fmt.Errorf("%d bytes behind the end at byte %d", len(data)-pos, pos+d.base)
	}
	for _, i := range d.f.required {
		if c := d.table.Columns[i]; c.IsNull(d.table.Row) {
			return codec.Invalid, fmt.Errorf("%s: missing", c.Name)
		}
	}
	return "", nil
}

// program finds the one of a message, by what stands before its data.
func (d *decoder) program(ctx context.Context, m []byte) (*program, codec.Class, error) {
	switch d.f.c.Framing {
	case Bare:
		d.base = 0
		return d.f.bare, "", nil
	case SingleObject:
		d.base = printSize
		if len(m) < printSize || m[0] != 0xc3 || m[1] != 1 {
			return nil, codec.Syntax, errors.New("no fingerprint of a schema before the data (C3 01 and eight bytes)")
		}
		w := d.f.prints[[8]byte(m[2:printSize])]
		if w == nil {
			return nil, codec.Schema, fmt.Errorf("the schema with the fingerprint %x is not among the writers'", m[2:printSize])
		}
		return w.program, "", nil
	}
	d.base = headerSize
	if len(m) < headerSize || m[0] != 0 {
		return nil, codec.Syntax, errors.New("no schema id before the data (a zero byte and four of the id)")
	}
	id := int32(binary.BigEndian.Uint32(m[1:]))
	if d.last == nil || d.id != id {
		w, err := d.f.projection(ctx, id)
		switch {
		case errors.Is(err, registry.ErrUnknownSchema):
			return nil, codec.Schema, err
		case err != nil:
			return nil, "", err
		}
		d.id, d.last = id, w
	}
	switch {
	case d.last.poison != nil:
		return nil, codec.Schema, d.last.poison
	case d.last.fatal != nil:
		return nil, "", d.last.fatal
	}
	return d.last.program, "", nil
}

// run reads what stands at pos and returns the position behind it. Below zero it
// failed, and d.class and d.err say why.
func (d *decoder) run(code []instr, b []byte, pos int) int {
	row, columns := d.table.Row, d.table.Columns
	for pc := 0; pc < len(code); pc++ {
		in := &code[pc]
		switch in.op {
		case opFloat32:
			if len(b)-pos < 4 {
				return d.short(in, pos)
			}
			columns[in.col].F32[row] = math.Float32frombits(binary.LittleEndian.Uint32(b[pos:]))
			pos += 4
		case opFloat64:
			if len(b)-pos < 4 {
				return d.short(in, pos)
			}
			columns[in.col].F64[row] = float64(math.Float32frombits(binary.LittleEndian.Uint32(b[pos:])))
			pos += 4
		case opDouble64:
			if len(b)-pos < 8 {
				return d.short(in, pos)
			}
			columns[in.col].F64[row] = math.Float64frombits(binary.LittleEndian.Uint64(b[pos:]))
			pos += 8
		case opDouble32:
			if len(b)-pos < 8 {
				return d.short(in, pos)
			}
			columns[in.col].F32[row] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b[pos:])))
			pos += 8
		case opAdvance:
			if len(b)-pos < in.n {
				return d.short(in, pos)
			}
			pos += in.n
		case opOption:
			if pos < len(b) && b[pos] == in.some {
				pos++
				continue
			}
			v, next := varint(b, pos)
			if next < 0 || uint64(v) > 1 {
				return d.badVarint(in, v, pos, next)
			}
			pos = next
			if v == in.x.null {
				d.null(in.x.columns)
				pc += in.n
			}
		case opInteger:
			v, next := varint(b, pos)
			if next < 0 || in.narrow && int64(int32(v)) != v {
				return d.badVarint(in, v, pos, next)
			}
			if !d.integer(in, v) {
				return d.fail(codec.Invalid, in, pos, "%d is out of range", v)
			}
			pos = next
		default:
			if pos = d.seldom(in, b, pos); pos < 0 {
				return pos
			}
		}
	}
	return pos
}

// seldom is run for the rest of the instructions.
func (d *decoder) seldom(in *instr, b []byte, pos int) int {
	switch in.op {
	case opVarint:
		v, next := varint(b, pos)
		if next < 0 || in.narrow && int64(int32(v)) != v {
			return d.badVarint(in, v, pos, next)
		}
		return next
	case opBytes:
		_, next := d.bytes(in, b, pos)
		return next
	case opSkip:
		return d.skip(in, in.x.typ, b, pos, 0)
	case opBool, opText, opBinary, opFixed, opUUID, opEnum, opDecimal:
		return d.leaf(in, b, pos)
	case opList:
		return d.list(in, b, pos)
	case opArray:
		return d.array(in, b, pos)
	case opMap:
		return d.keyed(in, b, pos)
	case opUnion:
		v, next := varint(b, pos)
		if next < 0 || uint64(v) >= uint64(len(in.x.parts)) {
			return d.badVarint(in, v, pos, next)
		}
		return d.run(in.x.parts[v].code, b, next)
	case opMismatch:
		return d.fail(codec.Invalid, in, pos, "%v", in.x.err)
	case opNull:
		d.null(in.x.columns)
	case opConst:
		if d.run(in.x.parts[0].code, in.x.data, 0) < 0 {
			return -1
		}
	case opPeek:
		if next := d.run(in.x.parts[0].code, b, pos); next < 0 {
			return next
		}
	}
	return pos
}

// null makes columns null in this row.
func (d *decoder) null(columns []int) {
	for _, i := range columns {
		d.table.Columns[i].Null(d.table.Row)
	}
}

// revive takes back that columns are null in this row.
func (d *decoder) revive(columns []int) {
	for _, i := range columns {
		d.table.Columns[i].Revive(d.table.Row)
	}
}

// varint reads an integer in zigzag. The position behind it is -1 when the bytes
// end, and -2 when it does not fit 64 bits.
func varint(b []byte, pos int) (v int64, next int) {
	if pos < len(b) && b[pos] < 0x80 {
		u := uint64(b[pos])
		return int64(u>>1) ^ -int64(u&1), pos + 1
	}
	u, n := binary.Uvarint(b[pos:])
	switch {
	case n == 0:
		return 0, -1
	case n < 0:
		return 0, -2
	}
	return int64(u>>1) ^ -int64(u&1), pos + n
}

// fail notes a fault at a position and returns one below zero.
func (d *decoder) fail(class codec.Class, in *instr, pos int, format string, args ...any) int {
	where := "the message"
	if in.x != nil && in.x.path != "" {
		where = in.x.path
	}
	d.class = class
	d.err = fmt.Errorf("%s at byte %d: %w", where, pos+d.base, fmt.Errorf(format, args...))
	return -1
}

func (d *decoder) short(in *instr, pos int) int {
	return d.fail(codec.Syntax, in, pos, "the bytes end")
}

// badVarint says what is wrong with an integer, of which varint returned v and next.
func (d *decoder) badVarint(in *instr, v int64, pos, next int) int {
	switch {
	case next == -1:
		return d.short(in, pos)
	case next == -2:
		return d.fail(codec.Syntax, in, pos, "an integer of more than 64 bits")
	case in.op == opOption, in.op == opUnion:
		return d.fail(codec.Syntax, in, pos, "branch %d of a union that has none such", v)
	}
	return d.fail(codec.Syntax, in, pos, "%d is no int", v)
}
