package parquetio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// Compression names a page codec that can be written.
type Compression string

// The codecs that can be written. The zero value means Zstd.
const (
	Zstd         Compression = "zstd" // fastest level
	Uncompressed Compression = "none"
	Snappy       Compression = "snappy"
	Lz4Raw       Compression = "lz4_raw"
	Gzip         Compression = "gzip"
)

func (c Compression) codec() (format.CompressionCodec, error) {
	switch c {
	case Zstd, "":
		return format.Zstd, nil
	case Uncompressed:
		return format.Uncompressed, nil
	case Snappy:
		return format.Snappy, nil
	case Lz4Raw:
		return format.Lz4Raw, nil
	case Gzip:
		return format.Gzip, nil
	}
	return 0, fmt.Errorf("compression %q is %w: use zstd, none, snappy, lz4_raw or gzip", string(c), ErrNotSupported)
}

// Valid returns an error for a codec that cannot be written.
func (c Compression) Valid() error {
	_, err := c.codec()
	return err
}

// WriterOptions say how a file is written. The zero value is a good choice.
type WriterOptions struct {
	Compression Compression       // "" means Zstd
	GroupRows   int64             // rows in a row group; 0 means 1,048,576
	GroupBytes  int64             // uncompressed Arrow bytes in a row group; 0 means 64 MiB
	PageBytes   int               // uncompressed bytes in a data page; 0 means 1 MiB
	PageVersion int               // data pages 1 or 2; 0 means 2
	Encoding    Encoding          // "" means Auto
	Metadata    map[string]string // key-value pairs in the footer
	CreatedBy   string            // "" means "elbo"
	// Buffers lends the memory in which pages are made to many writers; nil means
	// that the writer has its own.
	Buffers *Buffers
}

// Buffers is the memory in which pages are made. Writers that share it have equal
// options and are never used at the same time. The zero value is ready.
type Buffers struct{ enc *pageEncoder }

// Encoding says how values are encoded where a column's type allows it.
type Encoding string

// Auto chooses by column: a dictionary for strings where it pays,
// BYTE_STREAM_SPLIT for compressed floats, PLAIN otherwise.
const (
	Auto       Encoding = "auto"
	Plain      Encoding = "plain"
	Dictionary Encoding = "dictionary" // also for numbers
	Delta      Encoding = "delta"      // integers and strings
)

func (o *WriterOptions) defaults() {
	if o.GroupRows <= 0 {
		o.GroupRows = 1 << 20
	}
	if o.GroupBytes <= 0 {
		o.GroupBytes = 64 << 20
	}
	if o.PageBytes <= 0 {
		o.PageBytes = 1 << 20
	}
	if o.PageVersion == 0 {
		o.PageVersion = 2
	}
	if o.Encoding == "" {
		o.Encoding = Auto
	}
	if o.CreatedBy == "" {
		o.CreatedBy = "elbo"
	}
}

// A Writer writes records to one file. It keeps the records of one row group,
// then encodes them column by column. It is used by one goroutine. Its errors
// are final: after one, every call returns it again.
type Writer struct {
	w      io.Writer
	off    int64
	o      WriterOptions
	schema *arrow.Schema
	ws     *schemaWriter
	meta   format.FileMetaData
	enc    *pageEncoder

	held      []arrow.Record
	heldRows  int64
	heldBytes int64
	rows      int64
	err       error
	closed    bool
}

// NewWriter starts a file. w needs no buffering and is not closed. The error
// names every column that cannot be written.
func NewWriter(w io.Writer, schema *arrow.Schema, o WriterOptions) (*Writer, error) {
	o.defaults()
	codec, err := o.Compression.codec()
	if err != nil {
		return nil, err
	}
	ws, err := writeSchema(schema)
	if err != nil {
		return nil, err
	}
	if o.Buffers == nil {
		o.Buffers = new(Buffers)
	}
	if o.Buffers.enc == nil {
		if o.Buffers.enc, err = newPageEncoder(codec, o); err != nil {
			return nil, err
		}
	}
	p := &Writer{w: w, o: o, schema: schema, ws: ws, enc: o.Buffers.enc}
	p.meta = format.FileMetaData{Version: 2, CreatedBy: o.CreatedBy, Schema: ws.elems}
	for range ws.leaves {
		p.meta.ColumnOrders = append(p.meta.ColumnOrders, format.ColumnOrder{Value: &format.TypeDefinedOrder{}})
	}
	for _, k := range slices.Sorted(maps.Keys(o.Metadata)) {
		p.meta.KeyValueMetadata = append(p.meta.KeyValueMetadata, format.KeyValue{Key: k, Value: o.Metadata[k]})
	}
	if _, ok := o.Metadata[arrowSchemaKey]; !ok {
		v, err := arrowSchemaValue(schema)
		if err != nil {
			return nil, fmt.Errorf("serialize the schema: %w", err)
		}
		p.meta.KeyValueMetadata = append(p.meta.KeyValueMetadata, format.KeyValue{Key: arrowSchemaKey, Value: v})
	}
	p.err = p.write([]byte(magic))
	return p, p.err
}

func (p *Writer) write(b []byte) error {
	n, err := p.w.Write(b)
	p.off += int64(n)
	return err
}

// Rows returns the number of rows accepted.
func (p *Writer) Rows() int64 { return p.rows }

// Size returns an estimate of the file's size so far: bytes written, and those
// that wait for their row group, uncompressed.
func (p *Writer) Size() int64 { return p.off + p.heldBytes }

// Write adds rec, which it retains until its row group is written.
func (p *Writer) Write(rec arrow.Record) error {
	if p.err != nil {
		return p.err
	}
	if p.closed {
		return errors.New("write to a closed Parquet writer")
	}
	if rec.NumCols() != int64(p.schema.NumFields()) {
		return fmt.Errorf("record of %d columns for a file of %d", rec.NumCols(), p.schema.NumFields())
	}
	for i, c := range rec.Columns() {
		if want := p.schema.Field(i).Type; !arrow.TypeEqual(c.DataType(), want) {
			return fmt.Errorf("column %q is %v in this record, %v in the file", p.schema.Field(i).Name, c.DataType(), want)
		}
	}
	for from := int64(0); from < rec.NumRows(); {
		to := min(rec.NumRows(), from+p.o.GroupRows-p.heldRows)
		part := rec.NewSlice(from, to)
		p.held = append(p.held, part)
		p.heldRows += to - from
		p.heldBytes += RecordBytes(part)
		p.rows += to - from
		from = to
		if p.heldRows >= p.o.GroupRows || p.heldBytes >= p.o.GroupBytes {
			if err := p.flushGroup(); err != nil {
				return err
			}
		}
	}
	return nil
}

// FlushGroup writes the rows that are held as a row group, before they are due.
func (p *Writer) FlushGroup() error {
	if p.err != nil {
		return p.err
	}
	return p.flushGroup()
}

// Annotate adds a key-value pair to the footer, which Close writes.
func (p *Writer) Annotate(key, value string) {
	p.meta.KeyValueMetadata = append(p.meta.KeyValueMetadata, format.KeyValue{Key: key, Value: value})
}

// flushGroup writes the held records as one row group.
func (p *Writer) flushGroup() (err error) {
	if p.heldRows == 0 {
		return nil
	}
	defer p.drop()
	defer func() {
		if err != nil {
			p.err = err
		}
	}()
	if len(p.meta.RowGroups) == 32767 {
		return errors.New("a Parquet file can have 32767 row groups: roll files earlier or use larger row groups")
	}
	rg := format.RowGroup{NumRows: p.heldRows, Ordinal: int16(len(p.meta.RowGroups)), FileOffset: p.off}
	p.enc.out = p.write
	cols := make([]arrow.Array, len(p.held))
	for _, leaf := range p.ws.leaves {
		for i, rec := range p.held {
			cols[i] = rec.Column(leaf.field)
		}
		m, err := p.enc.chunk(leaf, cols, p.off)
		if err != nil {
			return fmt.Errorf("row group %d: column %s: %w", len(p.meta.RowGroups), leaf.steps()[0].name, err)
		}
		rg.TotalByteSize += m.TotalUncompressedSize
		rg.TotalCompressedSize += m.TotalCompressedSize
		rg.Columns = append(rg.Columns, format.ColumnChunk{MetaData: m})
	}
	p.meta.NumRows += rg.NumRows
	p.meta.RowGroups = append(p.meta.RowGroups, rg)
	return nil
}

func (p *Writer) drop() {
	for _, r := range p.held {
		r.Release()
	}
	p.held, p.heldRows, p.heldBytes = nil, 0, 0
}

// Close writes what is held and the footer. It does not sync or close the
// underlying writer.
func (p *Writer) Close() error {
	if p.closed {
		return p.err
	}
	p.closed = true
	defer p.drop()
	if p.err != nil {
		return p.err
	}
	if p.err = p.flushGroup(); p.err != nil {
		return p.err
	}
	if p.meta.RowGroups == nil {
		p.meta.RowGroups = []format.RowGroup{}
	}
	var b bytes.Buffer
	if p.err = thrift.NewEncoder((&thrift.CompactProtocol{}).NewWriter(&b)).Encode(&p.meta); p.err != nil {
		return p.err
	}
	n := b.Len()
	b.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	b.WriteString(magic)
	p.err = p.write(b.Bytes())
	return p.err
}

// Discard gives up what is held, without a footer. After Close it does nothing.
func (p *Writer) Discard() {
	p.closed = true
	p.drop()
}
