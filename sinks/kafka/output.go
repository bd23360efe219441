package kafka

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/internal/hint"
	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline/codec"
)

// The headers that say where a message comes from. The source's are those of the
// row's message; a source that is no topic has its partition's name as topic.
const (
	HeaderTopic     = "elbo-src-topic"
	HeaderPartition = "elbo-src-partition"
	HeaderOffset    = "elbo-src-offset"
	HeaderRow       = "elbo-src-row" // of a message that gave several rows, from the second on
	HeaderModel     = "elbo-model"
	HeaderSchema    = "elbo-schema-id"
)

// Columns of the source that the sink understands.
const (
	columnOffset    = "kafka_offset"
	columnTimestamp = "kafka_timestamp"
	columnKey       = "kafka_key"
	columnHeaders   = "kafka_headers"
	columnModel     = "elbo_model"
	ownPrefix       = "kafka_"
)

// An output is what a Config says, bound to a schema: where each row goes and
// what it becomes. It is shared by all writers.
type output struct {
	c      Config
	schema *arrow.Schema // of what is encoded
	cols   []int         // of the record, in the order of schema
	where  int           // a column of the record, or -1, as all below
	key    int
	offset int
	time   int
	model  int
	extra  int
	static []kafka.Header
}

// bind finds the columns; its error names every one that is missing.
func bind(c Config, in *arrow.Schema) (*output, error) {
	o := &output{c: c}
	var errs []error
	find := func(setting, name string) int {
		at := in.FieldIndices(name)
		if len(at) == 0 {
			errs = append(errs, fmt.Errorf("%s: there is no column %q%s", setting, name, hint.DidYouMean(name, names(in))))
			return -1
		}
		return at[0]
	}
	optional := func(name string) int {
		if at := in.FieldIndices(name); len(at) > 0 {
			return at[0]
		}
		return -1
	}
	o.where, o.key = -1, optional(columnKey)
	if c.Where != "" {
		if o.where = find("where", c.Where); o.where >= 0 && in.Field(o.where).Type.ID() != arrow.BOOL {
			errs = append(errs, fmt.Errorf("where: column %q is %s; it must be bool", c.Where, in.Field(o.where).Type))
		}
	}
	if c.Key != "" {
		if o.key = find("key", c.Key); o.key >= 0 && !keyable(in.Field(o.key).Type) {
			errs = append(errs, fmt.Errorf("key: column %q is %s; it must be a string, binary or an integer", c.Key, in.Field(o.key).Type))
		}
	}
	o.offset, o.time, o.model, o.extra = optional(columnOffset), optional(columnTimestamp), optional(columnModel), -1
	if c.KeepHeaders {
		o.extra = find("keep_headers", columnHeaders)
	}
	var fields []arrow.Field
	if c.Columns == nil {
		for i, f := range in.Fields() {
			if !strings.HasPrefix(f.Name, ownPrefix) {
				o.cols, fields = append(o.cols, i), append(fields, f)
			}
		}
	}
	for _, name := range c.Columns {
		if i := find("columns", name); i >= 0 {
			o.cols, fields = append(o.cols, i), append(fields, in.Field(i))
		}
	}
	meta := in.Metadata()
	o.schema = arrow.NewSchema(fields, &meta)
	for _, k := range slices.Sorted(maps.Keys(c.Headers)) {
		o.static = append(o.static, kafka.Header{Key: k, Value: []byte(c.Headers[k])})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	_, err := o.encoder() // tells which columns it cannot write
	return o, err
}

func keyable(t arrow.DataType) bool {
	switch t.ID() {
	case arrow.STRING, arrow.BINARY, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64,
		arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64:
		return true
	case arrow.DICTIONARY:
		return keyable(t.(*arrow.DictionaryType).ValueType)
	}
	return false
}

func names(s *arrow.Schema) []string {
	var all []string
	for _, f := range s.Fields() {
		all = append(all, f.Name)
	}
	return all
}

// encoder returns a new encoder, bound to the output's columns.
func (o *output) encoder() (codec.Encoder, error) {
	enc, err := o.c.Encoder()
	if err != nil {
		return nil, err
	}
	if err := enc.Bind(o.schema); err != nil {
		return nil, err
	}
	return enc, nil
}

// A place is where a row comes from, as its headers say.
type place struct {
	topic     string
	partition int32
	offset    int64
	row       int // of the message, from 0
}

// A framer makes messages of the rows of one source partition. It serves one
// goroutine and allocates nothing once it is warm.
type framer struct {
	*output
	enc     codec.Encoder
	source  kafka.TopicPartition
	parts   int32 // of the output's topic
	value   []byte
	keyText []byte
	headers []kafka.Header
	numbers [3][]byte // text of partition, offset and row
	schema  []byte    // text of the schema's id
	m       message   // the last one
}

func newFramer(o *output, source kafka.TopicPartition, parts int) (*framer, error) {
	enc, err := o.encoder()
	if err != nil {
		return nil, err
	}
	f := &framer{output: o, enc: enc, source: source, parts: int32(parts)}
	f.numbers[0] = strconv.AppendInt(nil, int64(source.Partition), 10)
	if id, ok := enc.SchemaID(); ok {
		f.schema = strconv.AppendInt(nil, int64(id), 10)
	}
	return f, nil
}

// A message is a view that holds until the next one of the same framer.
type message struct {
	to        kafka.TopicPartition
	key       []byte
	value     []byte
	headers   []kafka.Header
	timestamp int64 // ms; 0 means now
	from      place
}

// each calls f with the message of every row of rec that Where lets through.
// First is the place of the record's first row, used where there is no column of
// offsets.
func (f *framer) each(rec arrow.Record, first int64, give func(*message) error) error {
	cols := make([]arrow.Array, len(f.cols))
	for i, c := range f.cols {
		cols[i] = rec.Column(c)
	}
	view := array.NewRecord(f.output.schema, cols, rec.NumRows())
	defer view.Release()
	if err := f.enc.Reset(view); err != nil {
		return &encodeError{err}
	}
	rows := f.rowsOf(rec, first)
	many := f.enc.MaxRows()
	n := int(rec.NumRows())
	for lo := 0; lo < n; {
		if !rows.wanted(lo) {
			lo++
			continue
		}
		hi := lo + 1
		for hi < n && hi-lo < many && rows.wanted(hi) {
			hi++
		}
		if err := f.frame(&rows, lo, hi, give); err != nil {
			return err
		}
		lo = hi
	}
	return nil
}

// frame gives the message of rows [lo, hi), whose place is that of the first.
func (f *framer) frame(rows *rowReader, lo, hi int, give func(*message) error) error {
	var err error
	if f.value, err = f.enc.Append(f.value[:0], lo, hi); err != nil {
		return &encodeError{fmt.Errorf("row %d: %w", lo, err)}
	}
	m := &f.m
	*m = message{value: f.value, timestamp: rows.timestamp(lo), from: rows.place(lo)}
	if hi == lo+1 {
		f.keyText, m.key = rows.keyOf(lo, f.keyText)
	}
	m.to = kafka.TopicPartition{Topic: f.c.Topic, Partition: f.route(m.key)}
	m.headers = f.headersOf(rows, lo, m.from)
	return give(m)
}

// route returns the output's partition. It depends on the row alone, so that a
// row that is written again goes to the same place.
func (f *framer) route(key []byte) int32 {
	if f.c.Partition == KeyPartition && key != nil {
		return int32(murmur2(key)&0x7fffffff) % f.parts
	}
	return f.source.Partition % f.parts
}

func (f *framer) headersOf(rows *rowReader, row int, from place) []kafka.Header {
	h := f.headers[:0]
	if !f.c.NoHeaders {
		h = append(h, kafka.Header{Key: HeaderTopic, Value: viewOf(f.source.Topic)})
		h = append(h, kafka.Header{Key: HeaderPartition, Value: f.numbers[0]})
		f.numbers[1] = strconv.AppendInt(f.numbers[1][:0], from.offset, 10)
		h = append(h, kafka.Header{Key: HeaderOffset, Value: f.numbers[1]})
		if from.row > 0 {
			f.numbers[2] = strconv.AppendInt(f.numbers[2][:0], int64(from.row), 10)
			h = append(h, kafka.Header{Key: HeaderRow, Value: f.numbers[2]})
		}
		if model := rows.modelOf(row); model != nil {
			h = append(h, kafka.Header{Key: HeaderModel, Value: model})
		}
		if f.schema != nil {
			h = append(h, kafka.Header{Key: HeaderSchema, Value: f.schema})
		}
	}
	h = append(h, f.static...)
	if f.extra >= 0 {
		h = rows.sourceHeaders(row, h)
	}
	f.headers = h
	return h
}

// An encodeError says that rows cannot be written in the output's format. They could
// not the next time either.
type encodeError struct{ err error }

func (e *encodeError) Error() string { return "encode: " + e.err.Error() }
func (e *encodeError) Unwrap() error { return e.err }

// Permanent is true; kafka.IsPermanent asks.
func (*encodeError) Permanent() bool { return true }
