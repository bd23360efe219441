package protobuf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/internal/table"
	"github.com/elbo-stream/elbo/pipeline/codec/registry"
)

// headerSize is the size of a header before the message's index.
const headerSize = 5

// maxIndex is how deep a message may stand in others of a schema.
const maxIndex = 64

// A decoder reads messages for one goroutine. Each row has a number of its own over
// the decoder's life, which marks what has been set in it.
type decoder struct {
	f     *Format
	mem   memory.Allocator
	table *table.Table

	header []byte // of last
	last   *projection
	p      *program

	row     int64
	set     []int64   // by column: the last row that has a value
	present []int64   // by plan: the last row that has its message
	counts  []counter // by action that counts

	index   []int
	class   codec.Class
	err     error
	scratch []byte
}

// A counter counts the elements of a repeated field in one row, or holds a
// timestamp of which more may come.
type counter struct {
	row     int64
	n       int
	seconds int64
	nanos   int32
}

// counter returns a's, which is zero at first in each row.
func (d *decoder) counter(a *action) *counter {
	n := &d.counts[a.counter]
	if n.row != d.row {
		*n = counter{row: d.row}
	}
	return n
}

var _ codec.Decoder = (*decoder)(nil)

func newDecoder(f *Format, mem memory.Allocator) *decoder {
	d := &decoder{f: f, mem: mem, table: table.New(f.c.Columns), set: make([]int64, len(f.c.Columns))}
	if f.bare != nil {
		d.use(f.bare)
	}
	return d
}

// use makes p the program of the next messages.
func (d *decoder) use(p *program) {
	if d.p != p {
		d.p = p
		d.present, d.counts = make([]int64, p.plans), make([]counter, p.counters)
	}
}

// Release gives up the scratch space.
func (d *decoder) Release() { d.scratch, d.header, d.last = nil, nil, nil }

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
	base := 0
	if d.f.c.Framing != Bare {
		var class codec.Class
		var err error
		if base, class, err = d.choose(ctx, message); err != nil {
			return class, err
		}
	}
	d.row++
	if !d.message(d.p.root, message[base:], base) || !d.end() {
		return d.class, d.err
	}
	return "", nil
}

// choose makes the program of a message the current one, and returns the size of its
// header.
func (d *decoder) choose(ctx context.Context, m []byte) (size int, class codec.Class, err error) {
	if n := len(d.header); d.last == nil || len(m) < n || string(m[:n]) != string(d.header) {
		if len(m) < headerSize || m[0] != 0 {
			return 0, codec.Syntax, errors.New("no schema id before the data (a zero byte and four of the id)")
		}
		if size, err = d.indexOf(m); err != nil {
			return 0, codec.Syntax, err
		}
		w, err := d.f.projection(ctx, m[:size], int32(binary.BigEndian.Uint32(m[1:])), d.index)
		switch {
		case errors.Is(err, registry.ErrUnknownSchema):
			return 0, codec.Schema, err
		case err != nil:
			return 0, "", err
		}
		d.last, d.header = w, append(d.header[:0], m[:size]...)
	}
	switch {
	case d.last.poison != nil:
		return 0, codec.Schema, d.last.poison
	case d.last.fatal != nil:
		return 0, "", d.last.fatal
	}
	d.use(d.last.program)
	return len(d.header), "", nil
}

// indexOf reads a message's index into d.index, and returns where it ends. Integers
// are in zigzag; no integers are one that is zero.
func (d *decoder) indexOf(m []byte) (size int, err error) {
	pos := headerSize
	next := func() (int64, bool) {
		u, n := protowire.ConsumeVarint(m[pos:])
		pos += max(n, 0)
		return protowire.DecodeZigZag(u), n > 0
	}
	n, ok := next()
	if !ok || n < 0 || n > maxIndex {
		return 0, errors.New("no index of a message behind the schema id")
	}
	d.index = d.index[:0]
	for range n {
		i, ok := next()
		if !ok || i < 0 || i > math.MaxInt32 {
			return 0, errors.New("no index of a message behind the schema id")
		}
		d.index = append(d.index, int(i))
	}
	if n == 0 {
		d.index = append(d.index, 0)
	}
	return pos, nil
}

// message reads the fields of a message, which stands at byte base. When it returns
// false, d.class and d.err say why.
func (d *decoder) message(p *plan, b []byte, base int) bool {
	d.present[p.at] = d.row
	row, columns := d.table.Row, d.table.Columns
	for pos := 0; pos < len(b); {
		tag, next := varint(b, pos)
		if next < 0 || tag>>3 == 0 || tag>>3 > uint64(protowire.MaxValidNumber) {
			return d.fail(codec.Syntax, "", base+pos, "no field begins here")
		}
		number, wire := protowire.Number(tag>>3), protowire.Type(tag&7)
		a := p.find(number)
		if a != nil && a.quick != 0 && wire == a.wire {
			switch {
			case a.quick == quickFloat && len(b)-next >= 4:
				columns[a.col].F32[row] = math.Float32frombits(binary.LittleEndian.Uint32(b[next:]))
				d.set[a.col] = d.row
				pos = next + 4
				continue
			case a.quick == quickDouble && len(b)-next >= 8:
				columns[a.col].F64[row] = math.Float64frombits(binary.LittleEndian.Uint64(b[next:]))
				d.set[a.col] = d.row
				pos = next + 8
				continue
			}
		}
		v := value{wire: wire, at: base + next}
		if pos = v.read(number, b, next); pos < 0 {
			return d.fail(codec.Syntax, "", base+next, "field %d: the bytes end, or are none of a field", number)
		}
		for ; a != nil; a = a.next {
			if !d.take(a, v) {
				return false
			}
		}
	}
	return true
}

// A value is one on the wire: bits for numbers, bytes for the rest.
type value struct {
	wire  protowire.Type
	bits  uint64
	bytes []byte
	at    int // its place in the message
}

// read reads the value at pos and returns where it ends, below zero when it does not.
func (v *value) read(number protowire.Number, b []byte, pos int) int {
	switch v.wire {
	case protowire.VarintType:
		u, next := varint(b, pos)
		v.bits = u
		return next
	case protowire.Fixed32Type:
		if len(b)-pos < 4 {
			return -1
		}
		v.bits = uint64(binary.LittleEndian.Uint32(b[pos:]))
		return pos + 4
	case protowire.Fixed64Type:
		if len(b)-pos < 8 {
			return -1
		}
		v.bits = binary.LittleEndian.Uint64(b[pos:])
		return pos + 8
	case protowire.BytesType:
		n, next := varint(b, pos)
		if next < 0 || n > uint64(len(b)-next) {
			return -1
		}
		v.bytes, v.at = b[next:next+int(n)], v.at+next-pos
		return next + int(n)
	}
	n := protowire.ConsumeFieldValue(number, v.wire, b[pos:])
	if n < 0 {
		return -1
	}
	return pos + n
}

// varint reads an integer; the position behind it is below zero when there is none.
func varint(b []byte, pos int) (u uint64, next int) {
	if pos < len(b) && b[pos] < 0x80 {
		return uint64(b[pos]), pos + 1
	}
	if pos+1 < len(b) && b[pos+1] < 0x80 {
		return uint64(b[pos]&0x7f) | uint64(b[pos+1])<<7, pos + 2
	}
	u, n := protowire.ConsumeVarint(b[pos:])
	if n < 0 {
		return 0, -1
	}
	return u, pos + n
}

// end gives the columns that have no value a default or null, or says why the row is
// none.
func (d *decoder) end() bool {
	for _, a := range d.p.lists {
		c := d.table.Columns[a.col]
		if n := d.counts[a.counter].n; d.set[a.col] == d.row && n != c.Width {
			return d.fail(codec.Invalid, a.path, -1, "%d elements, want %d", n, c.Width)
		}
	}
	for i := range d.p.endings {
		if d.set[i] == d.row {
			continue
		}
		e := &d.p.endings[i]
		if e.plan < 0 || d.present[e.plan] != d.row {
			d.table.Columns[i].Null(d.table.Row)
		} else if !d.init(e.action, e.init) {
			return false
		}
	}
	for _, i := range d.f.required {
		if c := d.table.Columns[i]; c.IsNull(d.table.Row) {
			return d.fail(codec.Invalid, c.Name, -1, "missing")
		}
	}
	return true
}

// forget takes back what a row has set.
func (d *decoder) forget(e extent) {
	for _, i := range e.columns {
		d.set[i] = 0
	}
	for _, i := range e.plans {
		d.present[i] = 0
	}
	for _, i := range e.counters {
		d.counts[i] = counter{}
	}
}

// fail notes a fault of a field at a byte, below zero for none, and returns false.
func (d *decoder) fail(class codec.Class, path string, at int, format string, args ...any) bool {
	where := path
	if path == "" {
		where = "the message"
	}
	if at >= 0 {
		where = fmt.Sprintf("%s at byte %d", where, at)
	}
	d.class, d.err = class, fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...))
	return false
}
