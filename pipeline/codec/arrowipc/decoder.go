package arrowipc

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/klauspost/compress/zstd"

	"github.com/elbo-stream/elbo/internal/slab"
	"github.com/elbo-stream/elbo/pipeline/codec"
)

// maxSchemas is how many bytes of schemas a decoder keeps.
const maxSchemas = 16 << 20

// A decoder reads streams for one goroutine. It goes through each message twice:
// once for how many rows there are, and once for the rows.
type decoder struct {
	*Format
	mem     memory.Allocator
	columns []*column
	slab    slab.Slab

	last  []byte // the schema that was read last, and its plan
	plan  *plan
	plans map[string]*plan
	kept  int // bytes of plans' keys

	parts   []part
	dicts   map[int64]*dictionary
	vectors []vector // of the batch that is read
	arena   []byte   // what buffers of the message that is read were unpacked to
	left    int      // bytes that the message may still take
	unzstd  *zstd.Decoder
}

// A part is a batch or a dictionary that is to be read.
type part struct {
	value int
	plan  *plan
	m     message
	rows  int // of a batch
}

func newDecoder(f *Format, mem memory.Allocator) *decoder {
	d := &decoder{Format: f, mem: mem, plans: map[string]*plan{}, dicts: map[int64]*dictionary{}}
	for _, col := range f.c.Columns {
		c := &column{name: col.Name, kind: kindOf(col.Type), typ: col.Type, width: 1, left: &d.left}
		if l, ok := col.Type.(*arrow.FixedSizeListType); ok {
			c.width = int(l.Len())
		}
		d.columns = append(d.columns, c)
	}
	return d
}

// Release gives up the scratch space.
func (d *decoder) Release() {
	d.arena, d.parts, d.vectors = nil, nil, nil
	if d.unzstd != nil {
		d.unzstd.Close()
		d.unzstd = nil
	}
}

// Decode reads the stream of each value that is not null, which may have any
// number of rows.
func (d *decoder) Decode(ctx context.Context, values *array.Binary) (codec.Decoded, error) {
	var out codec.Decoded
	d.parts = d.parts[:0]
	total := 0
	for i := range values.Len() {
		if values.IsNull(i) {
			continue
		}
		rows, err := d.survey(i, values.Value(i))
		if err != nil {
			if !isProblem(err) {
				return codec.Decoded{}, err
			}
			out.Faults = addFault(out.Faults, i, err)
		}
		total += rows
	}
	if total > math.MaxInt32 {
		return codec.Decoded{}, fmt.Errorf("%d rows in one batch of messages", total)
	}
	d.begin(total)
	defer d.drop()
	origin := make([]int32, 0, total)
	for k := 0; k < len(d.parts); {
		if ctx.Err() != nil {
			return codec.Decoded{}, context.Cause(ctx)
		}
		i, before := d.parts[k].value, len(origin)
		var err error
		k, origin, err = d.value(values.Value(i), k, origin)
		if err != nil {
			origin = origin[:before]
			out.Faults = addFault(out.Faults, i, err)
		}
	}
	if !oneEach(origin, values.Len()) {
		out.Origin = origin
	}
	columns := make([]arrow.Array, len(d.columns))
	for i, c := range d.columns {
		columns[i] = c.finish(&d.slab, len(origin))
	}
	out.Record = array.NewRecord(d.schema, columns, int64(len(origin)))
	for _, c := range columns {
		c.Release()
	}
	return out, nil
}

// begin makes room for rows rows.
func (d *decoder) begin(rows int) {
	bytes := 0
	for _, c := range d.columns {
		bytes += slab.Room(c.size(rows))
	}
	d.slab.Begin(len(d.columns), bytes)
	for i, c := range d.columns {
		c.begin(d.mem, d.slab.Values(i, c.size(rows)), rows)
	}
}

// drop gives up what is not part of a record.
func (d *decoder) drop() {
	for _, c := range d.columns {
		c.drop()
	}
}

func isProblem(err error) bool {
	var p *problem
	return errors.As(err, &p)
}

// addFault puts the fault of value i where it belongs: those of the survey stand
// there already.
func addFault(faults []codec.Fault, i int, err error) []codec.Fault {
	f := codec.Fault{Value: i, Class: codec.Syntax, Err: err}
	var p *problem
	if errors.As(err, &p) {
		f.Class = p.class
	}
	at := len(faults)
	for at > 0 && faults[at-1].Value > i {
		at--
	}
	faults = append(faults, codec.Fault{})
	copy(faults[at+1:], faults[at:])
	faults[at] = f
	return faults
}

// oneEach tells whether row i came from value i, for each value.
func oneEach(origin []int32, values int) bool {
	if len(origin) != values {
		return false
	}
	for i, o := range origin {
		if int(o) != i {
			return false
		}
	}
	return true
}

// survey notes the parts of a value and counts its rows. An error other than a
// problem ends the run.
func (d *decoder) survey(value int, b []byte) (rows int, err error) {
	if len(b) > d.c.MaxBytes {
		return 0, &problem{codec.Size, fmt.Errorf("%d bytes, more than %d", len(b), d.c.MaxBytes)}
	}
	begin := len(d.parts)
	defer func() {
		if err != nil {
			rows, d.parts = 0, d.parts[:begin]
		}
	}()
	p := d.Format.plan
	for at := 0; ; {
		m, size, err := next(b[at:])
		if err == errEnd {
			break
		}
		if err != nil {
			return 0, broken("byte %d: %w", at, err)
		}
		switch {
		case m.header == headerSchema:
			if at > 0 {
				return 0, broken("byte %d: a second schema", at)
			}
			if p, err = d.planOf(m); err != nil {
				return 0, err
			}
		case m.header != headerRecord && m.header != headerDictionary:
			return 0, broken("byte %d: a message of kind %d", at, m.header)
		case p == nil:
			return 0, broken("byte %d: no schema before the rows", at)
		default:
			n := 0
			if m.header == headerRecord {
				batch, err := newBatch(m.meta, m.at, m.body, p)
				if err != nil {
					return 0, broken("byte %d: %w", at, err)
				}
				n = batch.rows
			}
			d.parts = append(d.parts, part{value: value, plan: p, m: m, rows: n})
			rows += n
		}
		at += size
	}
	if p == nil {
		return 0, broken("no schema")
	}
	if need, room := int64(rows)*int64(d.rowBytes()), int64(d.room(b)); need > room {
		return 0, &problem{codec.Size, fmt.Errorf("%d rows in a message of %d bytes", rows, len(b))}
	}
	return rows, nil
}

// room is how many bytes a message may take.
func (d *decoder) room(b []byte) int { return max(leastRoom, d.c.Expand*len(b)) }

// rowBytes is how many bytes a row takes, without the bytes of strings.
func (d *decoder) rowBytes() int {
	n := 4 // its origin
	for _, c := range d.columns {
		n += c.bytesOf(1)
	}
	return n
}

// planOf returns the plan of a schema. An error other than a problem ends the run.
func (d *decoder) planOf(m message) (*plan, error) {
	if d.plan == nil || string(d.last) != string(m.meta) {
		p, ok := d.plans[string(m.meta)]
		if !ok {
			var err error
			if p, err = newPlan(m, d.c.Columns, "the stream's schema"); err != nil {
				return nil, broken("schema: %w", err)
			}
			if d.kept+len(m.meta) > maxSchemas {
				d.plans, d.kept = map[string]*plan{}, 0
			}
			d.plans[string(m.meta)] = p
			d.kept += len(m.meta)
		}
		d.plan, d.last = p, append(d.last[:0], m.meta...)
	}
	return d.plan, d.plan.err
}

// value reads the parts of one value, the first of which is part k. It returns the
// first part that belongs to another one.
func (d *decoder) value(b []byte, k int, origin []int32) (next int, out []int32, err error) {
	value := d.parts[k].value
	clear(d.dicts)
	d.arena, d.left = d.arena[:0], d.room(b)
	for ; k < len(d.parts) && d.parts[k].value == value; k++ {
		if p := &d.parts[k]; err != nil {
			continue
		} else if p.m.header == headerDictionary {
			err = d.dictionary(p)
		} else if err = d.batch(p, len(origin)); err == nil {
			for range p.rows {
				origin = append(origin, int32(value))
			}
		}
	}
	return k, origin, err
}

// batch makes a batch rows from at on.
func (d *decoder) batch(p *part, at int) error {
	b, err := newBatch(p.m.meta, p.m.at, p.m.body, p.plan)
	if err != nil {
		return err
	}
	d.vectors = d.vectors[:0]
	for i, c := range d.columns {
		where := p.plan.places[i]
		var v *vector
		var dict *dictionary
		if where.field != nil {
			if v, err = d.vector(&b, where.field, where.node, where.buffer); err != nil {
				return err
			}
			if where.field.values != nil {
				if dict = d.dicts[where.field.dict]; dict == nil {
					if dict = (&dictionary{}); !allNull(v) {
						return broken("column %q: its dictionary has not come", where.field.name)
					}
				}
			}
		}
		if err = c.append(at, p.rows, v, dict); err != nil {
			return err
		}
	}
	return nil
}

func allNull(v *vector) bool {
	for i := range v.rows {
		if !v.isNull(i) {
			return false
		}
	}
	return true
}

// newVector returns a vector that is valid until the next batch.
func (d *decoder) newVector() *vector {
	if len(d.vectors) == cap(d.vectors) {
		d.vectors = make([]vector, 0, max(2*cap(d.vectors), 64)) // those before stay where they are
	}
	d.vectors = d.vectors[:len(d.vectors)+1]
	return &d.vectors[len(d.vectors)-1]
}

// dictionary reads a dictionary's message, when a bound column needs it.
func (d *decoder) dictionary(p *part) error {
	f := flat{b: p.m.meta}
	var id int64
	if q := f.field(p.m.at, dictionaryID); q != 0 {
		id = f.i64(q)
	}
	q := f.field(p.m.at, dictionaryDelta)
	delta := q != 0 && f.u8(q) != 0
	at, ok := f.child(p.m.at, dictionaryData)
	if !ok || f.bad {
		return broken("a dictionary is not as Arrow writes it")
	}
	fd := p.plan.dicts[id]
	if fd == nil {
		return nil
	}
	b, err := newBatch(p.m.meta, at, p.m.body, &plan{nodes: fd.nodes, buffers: fd.buffers})
	if err != nil {
		return err
	}
	d.vectors = d.vectors[:0]
	v, err := d.vector(&b, fd, 0, 0)
	if err != nil {
		return err
	}
	dict := d.dicts[id]
	if dict == nil || !delta {
		dict = &dictionary{}
		d.dicts[id] = dict
	}
	if d.left -= 24 * v.rows; d.left < 0 {
		return &problem{codec.Size, fmt.Errorf("a dictionary of %d values", v.rows)}
	}
	return dict.add(v)
}

// add appends the values of a vector of strings or binaries.
func (dict *dictionary) add(v *vector) error {
	// A column checks the values as it does with any others.
	c := column{kind: kindBytes, typ: v.field.typ, name: v.field.name}
	if v.field.typ.ID() == arrow.LARGE_STRING {
		c.typ = arrow.BinaryTypes.String
	}
	values := memory.NewResizableBuffer(memory.DefaultAllocator)
	values.Resize(c.size(v.rows))
	c.begin(memory.DefaultAllocator, values, v.rows)
	defer c.drop()
	if err := c.append(0, v.rows, v, nil); err != nil {
		return err
	}
	for i := range v.rows {
		var entry []byte
		if !v.isNull(i) {
			entry = v.values[v.offset(i):v.offset(i+1):v.offset(i+1)]
			if entry == nil {
				entry = []byte{}
			}
		}
		dict.entries = append(dict.entries, entry)
	}
	return nil
}

// zstd appends what src holds to dst, up to its capacity.
func (d *decoder) zstd(dst, src []byte) ([]byte, error) {
	if d.unzstd == nil {
		var err error
		if d.unzstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true)); err != nil {
			return dst, err
		}
	}
	return d.unzstd.DecodeAll(src, dst)
}
