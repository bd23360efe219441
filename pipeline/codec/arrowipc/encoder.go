package arrowipc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/klauspost/compress/zstd"

	"github.com/elbo-stream/elbo/pipeline/codec"
)

// Compression is how the buffers of messages are compressed, each by itself.
type Compression string

// None is the best choice under a compressing producer, which sees more at a time.
const (
	None Compression = "none"
	LZ4  Compression = "lz4"
	Zstd Compression = "zstd"
)

// EncoderConfig says what is written.
type EncoderConfig struct {
	// Columns are written, in this order; nil means all of the schema.
	Columns []string
	// Rows is how many rows a message holds at most; 0 means 256.
	Rows int
	// Compression is None when "".
	Compression Compression
	// BatchesOnly leaves out the schema, which readers must then know (MarshalSchema).
	BatchesOnly bool
}

// Encoder writes rows as streams of a schema and one batch. Columns keep their
// types, but dictionaries of strings and binaries are written as their values, so
// that each message stands for itself.
type Encoder struct {
	c       EncoderConfig
	schema  *arrow.Schema // bound
	columns []int         // of the record
	head    []byte        // the message of the schema
	meta    []byte        // a batch's metadata, of which the numbers are changed
	length  int           // places in meta
	body    int
	nodes   int
	buffers int

	nodeCount, bufferCount int

	data []arrow.ArrayData // of the record
	w    bodyWriter
}

var _ codec.Encoder = (*Encoder)(nil)

// NewEncoder returns an encoder that is not bound yet.
func NewEncoder(c EncoderConfig) *Encoder {
	c.Columns = slices.Clone(c.Columns)
	if c.Rows == 0 {
		c.Rows = 256
	}
	return &Encoder{c: c}
}

// MarshalSchema returns the message of a schema, for Config.Schema.
func MarshalSchema(schema *arrow.Schema) ([]byte, error) {
	stream, err := streamOf(schema)
	if err != nil {
		return nil, err
	}
	_, size, err := next(stream)
	return stream[:size], err
}

// streamOf writes a stream with Arrow's own writer.
func streamOf(schema *arrow.Schema, recs ...arrow.Record) ([]byte, error) {
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(schema))
	for _, rec := range recs {
		if err := w.Write(rec); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Bind fixes the columns, and reports each one that is missing, comes twice, or
// has a type that is not written.
func (e *Encoder) Bind(schema *arrow.Schema) error {
	names := e.c.Columns
	if names == nil {
		for _, f := range schema.Fields() {
			names = append(names, f.Name)
		}
	}
	var errs []error
	if e.c.Rows < 1 {
		errs = append(errs, fmt.Errorf("rows: %d, want 1 or more", e.c.Rows))
	}
	if !slices.Contains([]Compression{"", None, LZ4, Zstd}, e.c.Compression) {
		errs = append(errs, fmt.Errorf("compression: %q, want none, lz4 or zstd", e.c.Compression))
	}
	e.schema, e.columns = schema, nil
	var fields []arrow.Field
	for i, n := range names {
		at := schema.FieldIndices(n)
		switch {
		case len(at) == 0:
			errs = append(errs, fmt.Errorf("column %q: there is none", n))
			continue
		case len(at) > 1 || slices.Contains(names[:i], n):
			errs = append(errs, fmt.Errorf("column %q: comes twice", n))
			continue
		}
		f := schema.Field(at[0])
		t, ok := plain(f.Type)
		if !ok {
			errs = append(errs, fmt.Errorf("column %q: %v is not written to Arrow streams", n, f.Type))
			continue
		}
		fields = append(fields, arrow.Field{Name: n, Type: t, Nullable: true, Metadata: f.Metadata})
		e.columns = append(e.columns, at[0])
	}
	if len(fields) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("columns: none"))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return e.prepare(arrow.NewSchema(fields, nil))
}

// plain returns the type that values of type t are written as; ok is false where
// there is none.
func plain(t arrow.DataType) (plainType arrow.DataType, ok bool) {
	field := func(f arrow.Field) (arrow.Field, bool) {
		p, ok := plain(f.Type)
		return arrow.Field{Name: f.Name, Type: p, Nullable: true, Metadata: f.Metadata}, ok
	}
	switch t := t.(type) {
	case *arrow.DictionaryType:
		return t.ValueType, isBytes(t.ValueType.ID())
	case *arrow.MapType, *arrow.NullType:
		return nil, false
	case *arrow.ListType:
		f, ok := field(t.ElemField())
		return arrow.ListOfField(f), ok
	case *arrow.LargeListType:
		f, ok := field(t.ElemField())
		return arrow.LargeListOfField(f), ok
	case *arrow.FixedSizeListType:
		f, ok := field(t.ElemField())
		return arrow.FixedSizeListOfField(t.Len(), f), ok
	case *arrow.StructType:
		fields := make([]arrow.Field, len(t.Fields()))
		for i, f := range t.Fields() {
			var ok bool
			if fields[i], ok = field(f); !ok {
				return nil, false
			}
		}
		return arrow.StructOf(fields...), true
	case arrow.ExtensionType:
		return nil, false
	}
	_, fixed := t.(arrow.FixedWidthDataType)
	return t, fixed || isBytes(t.ID())
}

func isBytes(id arrow.Type) bool {
	return id == arrow.STRING || id == arrow.BINARY || id == arrow.LARGE_STRING || id == arrow.LARGE_BINARY
}

// prepare has Arrow's own writer write a row of nulls, whose metadata is that of
// every batch but for the numbers.
func (e *Encoder) prepare(out *arrow.Schema) error {
	var columns []arrow.Array
	for _, f := range out.Fields() {
		a := array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, 1)
		defer a.Release()
		columns = append(columns, a)
	}
	rec := array.NewRecord(out, columns, 1)
	defer rec.Release()
	opts := []ipc.Option{ipc.WithSchema(out)}
	e.w.compression = e.c.Compression
	switch e.c.Compression {
	case LZ4:
		opts = append(opts, ipc.WithLZ4())
	case Zstd:
		opts = append(opts, ipc.WithZstd())
		var err error
		if e.w.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false)); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	w := ipc.NewWriter(&b, opts...)
	if err := errors.Join(w.Write(rec), w.Close()); err != nil {
		return fmt.Errorf("prepare the metadata of batches: %w", err)
	}
	_, size, err := next(b.Bytes())
	if err != nil {
		return err
	}
	e.head = slices.Clone(b.Bytes()[:size])
	m, _, err := next(b.Bytes()[size:])
	if err != nil {
		return err
	}
	e.meta = slices.Clone(m.meta)
	f := flat{b: e.meta}
	e.length = f.field(m.at, recordLength)
	e.body = f.field(f.follow(0), messageBodyLength)
	var nn, nb int
	e.nodes, nn = f.vector(m.at, recordNodes, 16)
	e.buffers, nb = f.vector(m.at, recordBuffers, 16)
	e.nodeCount, e.bufferCount = nn, nb
	if f.bad || e.length == 0 || e.body == 0 || nn == 0 || nb == 0 {
		return errors.New("the metadata of batches is not as expected of this version of Arrow")
	}
	return nil
}

// Reset makes rec, of the schema that was bound, the record that Append reads.
func (e *Encoder) Reset(rec arrow.Record) error {
	e.data = e.data[:0]
	same := rec.Schema() == e.schema
	for _, i := range e.columns {
		if !same && (i >= int(rec.NumCols()) || !arrow.TypeEqual(rec.Column(i).DataType(), e.schema.Field(i).Type)) {
			return fmt.Errorf("column %q: not of the type that was bound", e.schema.Field(i).Name)
		}
		e.data = append(e.data, rec.Column(i).Data())
	}
	return nil
}

// MaxRows is EncoderConfig.Rows.
func (e *Encoder) MaxRows() int { return e.c.Rows }

// SchemaID is never known.
func (e *Encoder) SchemaID() (id int32, ok bool) { return 0, false }

// Append appends the stream of rows [lo, hi).
func (e *Encoder) Append(dst []byte, lo, hi int) ([]byte, error) {
	if hi < lo || hi-lo > e.c.Rows {
		return dst, fmt.Errorf("%d rows in one message, at most %d", hi-lo, e.c.Rows)
	}
	if !e.c.BatchesOnly {
		dst = append(dst, e.head...)
	}
	dst = binary.LittleEndian.AppendUint32(append(dst, 0xff, 0xff, 0xff, 0xff), uint32(len(e.meta)))
	at := len(dst)
	dst = append(dst, e.meta...)
	e.w.begin(len(dst))
	for _, data := range e.data {
		var err error
		if dst, err = e.w.write(dst, data, lo, hi); err != nil {
			return dst, err
		}
	}
	if len(e.w.nodes) != 2*e.nodeCount || len(e.w.buffers) != 2*e.bufferCount {
		return dst, fmt.Errorf("%d nodes and %d buffers, want %d and %d", len(e.w.nodes)/2, len(e.w.buffers)/2, e.nodeCount, e.bufferCount)
	}
	meta := dst[at : at+len(e.meta)]
	binary.LittleEndian.PutUint64(meta[e.length:], uint64(hi-lo))
	binary.LittleEndian.PutUint64(meta[e.body:], uint64(len(dst)-at-len(meta)))
	for i, n := range e.w.nodes {
		binary.LittleEndian.PutUint64(meta[e.nodes+8*i:], uint64(n))
	}
	for i, n := range e.w.buffers {
		binary.LittleEndian.PutUint64(meta[e.buffers+8*i:], uint64(n))
	}
	return append(dst, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0), nil
}
