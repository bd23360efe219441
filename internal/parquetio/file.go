package parquetio

import (
	"io"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/parquet-go/parquet-go/format"
)

// A File is an open Parquet file. It is safe for concurrent use: each Read has
// its own buffers. It does not own its reader; close that after the last Read.
type File struct {
	r       io.ReaderAt
	size    int64
	name    string
	meta    *format.FileMetaData
	columns []*node
	leaves  []*node

	mu     sync.Mutex
	spares []*leafReader // buffers of scans that have ended
}

// A Column is one top-level column of a file.
type Column struct {
	Name string
	Type arrow.DataType // Arrow type that Read gives; meaningless if Err is set
	// Nullable says whether the file declares the column optional.
	Nullable bool
	// Err says why the column cannot be read; nil if it can.
	Err error
}

// Open reads and checks the footer of a file of size bytes; name is for errors
// only. It allocates no more than a few times the footer's length, and the
// error it returns is an *Error.
func Open(r io.ReaderAt, size int64, name string) (f *File, err error) {
	fail := func(group int, column string, err error) (*File, error) {
		return nil, &Error{File: name, Group: group, Column: column, Page: -1, Err: err}
	}
	defer func() {
		if v := recover(); v != nil {
			f, err = fail(-1, "", caught(v))
		}
	}()
	meta, err := readFooter(r, size)
	if err != nil {
		return fail(-1, "", err)
	}
	f = &File{r: r, size: size, name: name, meta: meta}
	if f.columns, f.leaves, err = readSchema(meta.Schema); err != nil {
		return fail(-1, "", err)
	}
	if g, col, err := checkMeta(meta, f.leaves, size); err != nil {
		return fail(g, col, err)
	}
	return f, nil
}

// Columns lists the top-level columns in the file's order, also those that
// cannot be read.
func (f *File) Columns() []Column {
	out := make([]Column, len(f.columns))
	for i, n := range f.columns {
		out[i] = Column{Name: n.name, Type: n.typ, Nullable: n.optional, Err: n.fault()}
	}
	return out
}

// Rows returns the number of rows in the file.
func (f *File) Rows() int64 { return f.meta.NumRows }

// Groups returns the number of row groups.
func (f *File) Groups() int { return len(f.meta.RowGroups) }

// GroupRows returns the number of rows in a row group.
func (f *File) GroupRows(group int) int64 { return f.meta.RowGroups[group].NumRows }

// CreatedBy returns the writer's name for itself.
func (f *File) CreatedBy() string { return f.meta.CreatedBy }

// Metadata returns the file's key-value pairs.
func (f *File) Metadata() map[string]string {
	out := make(map[string]string, len(f.meta.KeyValueMetadata))
	for _, kv := range f.meta.KeyValueMetadata {
		out[kv.Key] = kv.Value
	}
	return out
}
