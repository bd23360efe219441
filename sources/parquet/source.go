package parquet

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/parquetio"
	"github.com/elbo-stream/elbo/pipeline"
)

// Config says what is read.
type Config struct {
	// Paths are files, globs and folders. Folders are searched to the bottom for
	// *.parquet, *.parq and *.pq. Names that begin with _ or ., .crc files and
	// empty files are passed over in folders and globs.
	Paths []string
	// Columns are the names of the columns to read, in this order; none means
	// all, in the order of the first file.
	Columns []string
	// Ignore are the names of columns not to read.
	Ignore []string
	// BatchRows is the number of rows in a batch; 0 means 8192.
	BatchRows int
	// Hive makes string columns of the key=value folders in the paths.
	Hive bool
	// Allocator owns the batches' buffers; nil means memory.DefaultAllocator.
	Allocator memory.Allocator
	// Log names what was passed over; nil means silence.
	Log *slog.Logger
}

func (c *Config) check() error {
	var faults []error
	if len(c.Paths) == 0 {
		faults = append(faults, errors.New("paths: name at least one file, glob or folder"))
	}
	if c.BatchRows < 0 {
		faults = append(faults, fmt.Errorf("batch_rows: %d is negative", c.BatchRows))
	}
	if c.BatchRows == 0 {
		c.BatchRows = parquetio.DefaultBatchRows
	}
	if c.Allocator == nil {
		c.Allocator = memory.DefaultAllocator
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return errors.Join(faults...)
}

// A Source reads Parquet files in the order of their paths. The partition of a
// mark is the file's path, Next the row in the file after the batch, and Epoch
// tells the file's size and time of change. Units, ReadUnit, Rows and Schema
// may be called by many goroutines at once.
type Source struct {
	c      Config
	files  []*file
	schema *arrow.Schema
	rows   int64
}

var _ pipeline.Source = (*Source)(nil)

// New lists the files and reads their footers. Its error tells all faults of
// the input at once, one a line, each with the file's name.
func New(c Config) (*Source, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	files, err := list(&c)
	if err != nil {
		return nil, err
	}
	if err := readFooters(files); err != nil {
		return nil, err
	}
	s := &Source{c: c, files: files}
	if s.schema, err = merge(&c, files); err != nil {
		return nil, err
	}
	for _, f := range files {
		f.first = s.rows
		s.rows += f.rows
	}
	return s, nil
}

// Schema returns the columns that every batch has. Strings are dictionaries.
func (s *Source) Schema(context.Context) (*arrow.Schema, error) { return s.schema, nil }

// Rows returns the number of rows of all files, from their footers.
func (s *Source) Rows() int64 { return s.rows }

// BatchRows returns the most rows that a batch has.
func (s *Source) BatchRows() int { return s.c.BatchRows }

// Files returns the paths that are read, in order.
func (s *Source) Files() []string {
	out := make([]string, len(s.files))
	for i, f := range s.files {
		out[i] = f.path
	}
	return out
}

// Batches yields the rows of all files in order; a batch never crosses files.
// A mark of a file that has changed since is an error; a mark of a file that is
// not read is ignored.
func (s *Source) Batches(ctx context.Context, from []pipeline.Mark) iter.Seq2[*pipeline.Batch, error] {
	return func(yield func(*pipeline.Batch, error) bool) {
		next, err := s.resume(from)
		if err != nil {
			yield(nil, err)
			return
		}
		for i, f := range s.files {
			if next[i] >= f.rows {
				continue
			}
			if !s.readFile(ctx, f, next[i], yield) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// resume finds the first row of each file that is still wanted.
func (s *Source) resume(from []pipeline.Mark) ([]int64, error) {
	next := make([]int64, len(s.files))
	byPath := map[string]int{}
	for i, f := range s.files {
		byPath[f.path] = i
	}
	var faults []error
	for _, m := range from {
		i, ok := byPath[m.Partition]
		if !ok {
			s.c.Log.Info("mark of a file that is not read", "path", m.Partition)
			continue
		}
		f := s.files[i]
		switch {
		case m.Epoch != f.epoch:
			faults = append(faults, fmt.Errorf("%s: the file changed since row %d of it was read: read it from the start, or bring the old file back", f.path, m.Next))
		case m.Next < 0 || m.Next > f.rows:
			faults = append(faults, fmt.Errorf("%s: cannot go on at row %d: the file has %d rows", f.path, m.Next, f.rows))
		}
		next[i] = m.Next
	}
	return next, errors.Join(faults...)
}

// readFile yields the rows of a file from row next on; false ends the sequence.
func (s *Source) readFile(ctx context.Context, f *file, next int64, yield func(*pipeline.Batch, error) bool) bool {
	o, err := f.open()
	if err != nil {
		yield(nil, err)
		return false
	}
	defer o.close()
	start := int64(0)
	for g, rows := range f.groups {
		if next < start+rows && !s.readGroup(ctx, o, g, start, max(0, next-start), yield) {
			return false
		}
		start += rows
	}
	return true
}

// readGroup yields the rows of a row group, which begins at row start of the
// file, after passing over skip of them.
func (s *Source) readGroup(ctx context.Context, o *openFile, group int, start, skip int64, yield func(*pipeline.Batch, error) bool) bool {
	f := o.file
	at := start + skip
	opts := parquetio.ReadOptions{Columns: f.columns, BatchRows: s.c.BatchRows, Skip: skip, Allocator: s.c.Allocator}
	for rec, err := range o.pq.Read(ctx, group, opts) {
		if err == nil {
			err = f.unchanged()
		}
		if err != nil {
			if rec != nil {
				rec.Release()
			}
			yield(nil, err)
			return false
		}
		out, err := s.shape(f, rec)
		rec.Release()
		if err != nil {
			yield(nil, fmt.Errorf("%s: row %d on: %w", f.path, at, err))
			return false
		}
		b := &pipeline.Batch{Record: out, First: at}
		at += out.NumRows()
		b.Mark = pipeline.Mark{Partition: f.path, Epoch: f.epoch, Next: at}
		if !yield(b, nil) {
			return false
		}
	}
	return true
}

// shape gives a record of a file the columns of the source. It borrows rec.
func (s *Source) shape(f *file, rec arrow.Record) (arrow.Record, error) {
	cols := make([]arrow.Array, 0, s.schema.NumFields())
	defer func() {
		for _, c := range cols {
			c.Release()
		}
	}()
	for i, src := range f.from {
		want := s.schema.Field(i).Type
		if src < 0 {
			cols = append(cols, constant(s.c.Allocator, f.hive[s.schema.Field(i).Name], int(rec.NumRows())))
			continue
		}
		a, err := widen(s.c.Allocator, rec.Column(src), want)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", s.schema.Field(i).Name, err)
		}
		cols = append(cols, a)
	}
	return array.NewRecord(s.schema, cols, rec.NumRows()), nil
}

// Commit does nothing: a file does not remember how far it was used.
func (s *Source) Commit(context.Context, []pipeline.Mark) error { return nil }

// Close does nothing: each sequence closes its own files.
func (s *Source) Close() error { return nil }

// A Unit is one row group, the smallest part of an input that can be read by
// itself.
type Unit struct {
	Path  string // of its file
	Group int    // row group in the file, counted from 0
	Rows  int64
	First int64 // position of its first row in the whole input

	file int
}

// Units lists the row groups of all files in order; those without rows are left
// out. A trainer reads them in an order of its own.
func (s *Source) Units(context.Context) ([]Unit, error) {
	var out []Unit
	for i, f := range s.files {
		first := f.first
		for g, rows := range f.groups {
			if rows > 0 {
				out = append(out, Unit{Path: f.path, Group: g, Rows: rows, First: first, file: i})
			}
			first += rows
		}
	}
	return out, nil
}

// ReadUnit yields the rows of one unit in order, as Batches would. Many units
// may be read at once.
func (s *Source) ReadUnit(ctx context.Context, u Unit) iter.Seq2[*pipeline.Batch, error] {
	return func(yield func(*pipeline.Batch, error) bool) {
		if u.file >= len(s.files) || s.files[u.file].path != u.Path || u.Group < 0 || u.Group >= len(s.files[u.file].groups) {
			yield(nil, fmt.Errorf("%s: row group %d is no unit of this source", u.Path, u.Group))
			return
		}
		f := s.files[u.file]
		o, err := f.open()
		if err != nil {
			yield(nil, err)
			return
		}
		defer o.close()
		s.readGroup(ctx, o, u.Group, u.First-f.first, 0, yield)
	}
}

// An openFile is a file that is being read.
type openFile struct {
	file *file
	f    *os.File
	pq   *parquetio.File
}

func (o *openFile) close() { o.f.Close() }
