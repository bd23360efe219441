package kafka

import (
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/internal/slab"
	"github.com/elbo-stream/elbo/pipeline"
)

// The columns that say where a row comes from.
const (
	ColumnTopic     = "kafka_topic"     // string, as a dictionary of one word
	ColumnPartition = "kafka_partition" // int32
	ColumnOffset    = "kafka_offset"    // int64
	ColumnTimestamp = "kafka_timestamp" // timestamp, ms, UTC; null when the message has none
	ColumnKey       = "kafka_key"       // binary; null when the message has none
	ColumnHeaders   = "kafka_headers"   // list of struct{key string, value binary}
	ColumnValue     = "kafka_value"     // binary; in dead letters only
)

// Columns lists the columns that may stand beside those of the format, in their
// order.
func Columns() []string {
	return []string{ColumnTopic, ColumnPartition, ColumnOffset, ColumnTimestamp, ColumnKey, ColumnHeaders}
}

var headerType = arrow.StructOf(
	arrow.Field{Name: "key", Type: arrow.BinaryTypes.String},
	arrow.Field{Name: "value", Type: arrow.BinaryTypes.Binary, Nullable: true})

// messageSchema is that of the batches: undecoded messages.
var messageSchema = arrow.NewSchema([]arrow.Field{
	{Name: ColumnTopic, Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}},
	{Name: ColumnPartition, Type: arrow.PrimitiveTypes.Int32},
	{Name: ColumnOffset, Type: arrow.PrimitiveTypes.Int64},
	{Name: ColumnTimestamp, Type: &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}, Nullable: true},
	{Name: ColumnKey, Type: arrow.BinaryTypes.Binary, Nullable: true},
	{Name: ColumnHeaders, Type: arrow.ListOfNonNullable(headerType)},
	{Name: ColumnValue, Type: arrow.BinaryTypes.Binary, Nullable: true},
}, nil)

// bytesColumn grows a binary column: offsets, bytes and validity.
type bytesColumn struct {
	mem     memory.Allocator
	offsets []int32
	data    *memory.Buffer
	reserve int // bytes of data to begin with
	null    []bool
	nulls   int
}

func (c *bytesColumn) reset() {
	c.offsets = append(c.offsets[:0], 0)
	c.null, c.nulls = c.null[:0], 0
}

// size returns the bytes held.
func (c *bytesColumn) size() int { return int(c.offsets[len(c.offsets)-1]) }

func (c *bytesColumn) append(v []byte) {
	at := c.size()
	if c.data == nil {
		c.data = memory.NewResizableBuffer(c.mem)
	}
	end := at + len(v)
	if end > c.data.Cap() {
		c.data.Reserve(max(end, 2*c.data.Cap(), c.reserve, 4096))
	}
	c.data.ResizeNoShrink(end)
	copy(c.data.Bytes()[at:], v)
	c.offsets = append(c.offsets, int32(end))
	c.null = append(c.null, v == nil)
	if v == nil {
		c.nulls++
	}
}

// finish returns the column and begins the next; the caller owns it. Of s it takes
// the values and the data of one column.
func (c *bytesColumn) finish(s *slab.Slab, t arrow.DataType) *array.Data {
	n := len(c.offsets) - 1
	c.reserve = c.size() + c.size()/8
	data := c.data
	c.data = nil
	if data == nil {
		data = memory.NewResizableBuffer(c.mem)
	}
	valid := validity(c.mem, c.null, c.nulls)
	d := s.Data(t, n, c.nulls, nil, valid, copied(s, arrow.Int32Traits.CastToBytes(c.offsets)), data)
	releaseBuffers([]*memory.Buffer{valid, data})
	c.reset()
	return d
}

// release gives up what was not finished.
func (c *bytesColumn) release() {
	if c.data != nil {
		c.data.Release()
		c.data = nil
	}
}

// validity returns a bitmap, or nil when nothing is null.
func validity(mem memory.Allocator, null []bool, nulls int) *memory.Buffer {
	if nulls == 0 {
		return nil
	}
	b := memory.NewResizableBuffer(mem)
	b.Resize((len(null) + 7) / 8)
	bits := b.Bytes()
	clear(bits)
	for i, n := range null {
		if !n {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

func copied(s *slab.Slab, p []byte) *memory.Buffer {
	b := s.Values(0, len(p))
	copy(b.Bytes(), p)
	return b
}

func releaseBuffers(buffers []*memory.Buffer) {
	for _, b := range buffers {
		if b != nil {
			b.Release()
		}
	}
}

// maxBatchBytes bounds what the messages of a batch hold: memory, as several batches
// are under way.
const maxBatchBytes = 16 << 20

// A builder gathers the messages of one partition into batches. It serves one
// goroutine.
type builder struct {
	mem        memory.Allocator
	rows       int // most in a batch
	offsets    []int64
	times      []int64
	noTime     []bool
	noTimes    int
	key, value bytesColumn
	headerAt   []int32 // where each message's headers begin
	headerKey  bytesColumn
	headerVal  bytesColumn

	word      string          // the last topic,
	words     arrow.ArrayData // as a dictionary
	noHeaders arrow.ArrayData // what no message has any of
}

func newBuilder(mem memory.Allocator, rows int) *builder {
	b := &builder{mem: mem, rows: rows}
	for _, c := range []*bytesColumn{&b.key, &b.value, &b.headerKey, &b.headerVal} {
		c.mem = mem
		c.reset()
	}
	b.headerAt = append(b.headerAt, 0)
	b.noHeaders = b.items()
	return b
}

func (b *builder) len() int { return len(b.offsets) }

// full says that the next message belongs to the next batch.
func (b *builder) full(next *kafka.Record) bool {
	return len(b.offsets) >= b.rows ||
		len(b.offsets) > 0 && b.value.size()+b.key.size()+b.headerVal.size()+len(next.Value)+len(next.Key) > maxBatchBytes
}

func (b *builder) append(r *kafka.Record) {
	b.offsets = append(b.offsets, r.Offset)
	b.times = append(b.times, r.Timestamp)
	b.noTime = append(b.noTime, r.Timestamp < 0)
	if r.Timestamp < 0 {
		b.noTimes++
	}
	b.key.append(r.Key)
	b.value.append(r.Value)
	for key, value := range r.Headers.All() {
		if key == nil {
			key = []byte{}
		}
		b.headerKey.append(key)
		b.headerVal.append(value)
	}
	b.headerAt = append(b.headerAt, int32(len(b.headerKey.offsets)-1))
}

// finish returns the batch of [first, next), which the caller owns. Its messages
// are those appended since the last one.
func (b *builder) finish(tp kafka.TopicPartition, epoch, first, next int64) *pipeline.Batch {
	n := len(b.offsets)
	batch := &pipeline.Batch{First: first, Mark: pipeline.Mark{Partition: tp.String(), Epoch: epoch, Next: next}}
	if next-first != int64(n) {
		batch.Positions = append(make([]int64, 0, n), b.offsets...)
	}
	var s slab.Slab
	s.Begin(7, slab.Room(n)+3*slab.Room(4*n+4)+slab.Room(4*n)+2*slab.Room(8*n))
	valid := validity(b.mem, b.noTime, b.noTimes)
	cols := []arrow.Array{
		b.topic(&s, tp.Topic, n),
		partitionColumn(&s, tp.Partition, n),
		s.Array(messageSchema.Field(2).Type, n, 0, nil, nil, copied(&s, arrow.Int64Traits.CastToBytes(b.offsets))),
		s.Array(messageSchema.Field(3).Type, n, b.noTimes, nil, valid, copied(&s, arrow.Int64Traits.CastToBytes(b.times))),
		arrayOf(b.key.finish(&s, arrow.BinaryTypes.Binary)),
		b.headers(&s, n),
		arrayOf(b.value.finish(&s, arrow.BinaryTypes.Binary)),
	}
	releaseBuffers([]*memory.Buffer{valid})
	batch.Record = array.NewRecord(messageSchema, cols, int64(n))
	for _, c := range cols {
		c.Release()
	}
	b.offsets, b.times, b.noTime, b.noTimes = b.offsets[:0], b.times[:0], b.noTime[:0], 0
	return batch
}

// release gives up what was not finished.
func (b *builder) release() {
	for _, c := range []*bytesColumn{&b.key, &b.value, &b.headerKey, &b.headerVal} {
		c.release()
	}
	b.noHeaders.Release()
	if b.words != nil {
		b.words.Release()
	}
}

func (b *builder) headers(s *slab.Slab, n int) arrow.Array {
	items := b.noHeaders
	if len(b.headerKey.offsets) > 1 {
		items = b.items()
		defer items.Release()
	}
	at := copied(s, arrow.Int32Traits.CastToBytes(b.headerAt))
	b.headerAt = append(b.headerAt[:0], 0)
	return s.Array(messageSchema.Field(5).Type, n, 0, []arrow.ArrayData{items}, nil, at)
}

// items returns all headers, which the caller owns, and begins anew.
func (b *builder) items() arrow.ArrayData {
	n := len(b.headerKey.offsets) - 1
	var s slab.Slab
	s.Begin(3, 2*slab.Room(4*n+4))
	key, value := b.headerKey.finish(&s, arrow.BinaryTypes.String), b.headerVal.finish(&s, arrow.BinaryTypes.Binary)
	defer key.Release()
	defer value.Release()
	return s.Data(headerType, n, 0, []arrow.ArrayData{key, value}, nil)
}

// topic returns a dictionary column that holds one word n times.
func (b *builder) topic(s *slab.Slab, word string, n int) arrow.Array {
	if b.words == nil || b.word != word {
		if b.words != nil {
			b.words.Release()
		}
		var one slab.Slab
		one.Begin(1, slab.Room(8))
		c := bytesColumn{mem: b.mem}
		c.reset()
		c.append([]byte(word))
		b.word, b.words = word, c.finish(&one, arrow.BinaryTypes.String)
	}
	d := s.Data(messageSchema.Field(0).Type, n, 0, nil, nil, s.Values(0, n))
	d.SetDictionary(b.words)
	return arrayOf(d)
}

// arrayOf makes an array of d and lets go of d.
func arrayOf(d *array.Data) arrow.Array {
	defer d.Release()
	return array.MakeFromData(d)
}

func partitionColumn(s *slab.Slab, v int32, n int) arrow.Array {
	b := s.Values(0, 4*n)
	all := arrow.Int32Traits.CastFromBytes(b.Bytes())
	for i := range all {
		all[i] = v
	}
	return s.Array(arrow.PrimitiveTypes.Int32, n, 0, nil, nil, b)
}
