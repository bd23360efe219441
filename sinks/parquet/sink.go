package parquet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/internal/parquetio"
	"github.com/elbo-stream/elbo/pipeline"
)

// Config says where and how rows are written. Only Path must be set.
type Config struct {
	// Path is one file if it ends in .parquet, otherwise a folder.
	Path string
	// Overwrite replaces what is there. Without it an existing file, or a folder
	// that holds Parquet files, is an error. In a folder the old files go when the
	// new ones are complete, at Flush.
	Overwrite bool
	// Append keeps the files of a folder and adds parts behind them, as a stream
	// that starts again needs.
	Append bool
	// Compression is zstd (also if empty), none, snappy, lz4_raw or gzip.
	Compression string
	// RollBytes, RollRows and RollAge end a part of a folder that is as large, as
	// long or as old, counted from its first row, and begin the next. A roll is
	// what makes rows durable, so RollAge bounds what a crash repeats; it is
	// looked at when rows are written. 0 means 256 MiB, no limit and no limit.
	RollBytes int64
	RollRows  int64
	RollAge   time.Duration
	// GroupRows and GroupBytes bound a row group, which is held in memory until it
	// is complete; 0 means 1,048,576 rows and 64 MiB.
	GroupRows  int64
	GroupBytes int64
	// Metadata are key-value pairs for the footer of each file, besides those of
	// the schema whose keys begin with "elbo.".
	Metadata map[string]string
	// CreatedBy names the program in each file; "" means "elbo".
	CreatedBy string
	// FS is the file system; nil means durable.OS.
	FS durable.FS
	// Now tells the time; nil means time.Now.
	Now func() time.Time
	// Log tells each file that is committed or removed; nil means silence.
	Log *slog.Logger
}

// check reports every fault at once and fills in the defaults.
func (c *Config) check() error {
	var faults []error
	if c.Path == "" {
		faults = append(faults, errors.New("path: must be set"))
	}
	if err := parquetio.Compression(c.Compression).Valid(); err != nil {
		faults = append(faults, err)
	}
	if c.Overwrite && c.Append {
		faults = append(faults, errors.New("overwrite and append: choose one"))
	}
	if c.Append && c.oneFile() {
		faults = append(faults, fmt.Errorf("append: %s is one file: name a folder", c.Path))
	}
	for _, n := range []struct {
		name  string
		value int64
	}{{"roll bytes", c.RollBytes}, {"roll rows", c.RollRows}, {"roll age", int64(c.RollAge)}, {"group rows", c.GroupRows}, {"group bytes", c.GroupBytes}} {
		if n.value < 0 {
			faults = append(faults, fmt.Errorf("%s: %d is negative", n.name, n.value))
		}
	}
	if c.oneFile() && (c.RollRows > 0 || c.RollBytes > 0 || c.RollAge > 0) {
		faults = append(faults, fmt.Errorf("roll: %s is one file, which cannot roll: name a folder", c.Path))
	}
	if c.RollBytes == 0 {
		c.RollBytes = 256 << 20
	}
	if c.FS == nil {
		c.FS = durable.OS
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return errors.Join(faults...)
}

func (c *Config) oneFile() bool { return strings.HasSuffix(c.Path, ".parquet") }

func (c *Config) folder() string {
	if c.oneFile() {
		return filepath.Dir(c.Path)
	}
	return filepath.Clean(c.Path)
}

// ErrExists is in the chain of the error for an output that is there already.
var ErrExists = durable.ErrExists

// A Sink writes records to Parquet files. After an error every call returns it
// again, and what was not durable leaves nothing behind.
type Sink struct {
	c       Config
	schema  *arrow.Schema
	part    *part
	number  int      // of the next part
	parts   int      // committed
	old     []string // files to remove once the new ones are complete
	last    uint64   // batch accepted last
	durable atomic.Uint64
	err     error
	closed  bool
}

var _ pipeline.Sealer = (*Sink)(nil)

// A part is a file that is being written.
type part struct {
	path  string
	draft *durable.Draft
	buf   *bufio.Writer
	w     *parquetio.Writer
	since time.Time // of its first row
}

// New checks the configuration; it touches no file.
func New(c Config) (*Sink, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("parquet sink: %w", err)
	}
	return &Sink{c: c}, nil
}

// Bind checks that every column can be written and that the output may be, and
// removes drafts that dead runs left behind.
func (s *Sink) Bind(in *arrow.Schema) error {
	w, err := parquetio.NewWriter(io.Discard, in, s.options())
	if err != nil {
		return fmt.Errorf("%s: %w", s.c.Path, err)
	}
	w.Discard()
	s.schema = in
	s.c.Metadata = withSchemaMetadata(s.c.Metadata, in)
	if err := s.prepare(); err != nil {
		return err
	}
	return nil
}

// withSchemaMetadata adds what operators say about the rows in the schema's
// metadata, under keys that begin with "elbo.", to a file's own pairs, which win.
func withSchemaMetadata(own map[string]string, in *arrow.Schema) map[string]string {
	all := map[string]string{}
	meta := in.Metadata()
	for i, k := range meta.Keys() {
		if strings.HasPrefix(k, "elbo.") {
			all[k] = meta.Values()[i]
		}
	}
	maps.Copy(all, own)
	return all
}

func (s *Sink) options() parquetio.WriterOptions {
	return parquetio.WriterOptions{Compression: parquetio.Compression(s.c.Compression), GroupRows: s.c.GroupRows,
		GroupBytes: s.c.GroupBytes, Metadata: s.c.Metadata, CreatedBy: s.c.CreatedBy}
}

// Write adds rec to the open file, and commits that file when it is large or
// old enough. A batch is never in two files.
func (s *Sink) Write(ctx context.Context, n uint64, rec arrow.Record) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if s.part == nil {
		if s.c.oneFile() && s.parts > 0 {
			return fmt.Errorf("%s: write after flush: the one file is complete", s.c.Path)
		}
		if err := s.begin(); err != nil {
			return s.fail(err)
		}
	}
	p := s.part
	if p.w.Rows() == 0 {
		p.since = s.c.Now()
	}
	if err := p.w.Write(rec); err != nil {
		return s.fail(fmt.Errorf("write %s: %w", p.path, err))
	}
	s.last = n
	full := p.w.Size() >= s.c.RollBytes || s.c.RollRows > 0 && p.w.Rows() >= s.c.RollRows ||
		s.c.RollAge > 0 && s.c.Now().Sub(p.since) >= s.c.RollAge
	if s.c.oneFile() || !full {
		return nil
	}
	return s.commit()
}

// Seal commits the open file of a folder, so that its rows are durable now. The
// one file of a path that ends in .parquet is only whole at Flush.
func (s *Sink) Seal(ctx context.Context, _ pipeline.Mark) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if s.c.oneFile() || s.part == nil {
		return nil
	}
	return s.commit()
}

// Durable returns the number of the last batch whose file has its final name.
func (s *Sink) Durable() uint64 { return s.durable.Load() }

// Flush commits the open file. An output that had no rows becomes one valid file
// without rows.
func (s *Sink) Flush(ctx context.Context) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if s.part == nil && s.parts == 0 {
		if err := s.begin(); err != nil {
			return s.fail(err)
		}
	}
	if s.part != nil {
		if err := s.commit(); err != nil {
			return err
		}
	}
	if err := s.removeOld(); err != nil {
		return s.fail(err)
	}
	return nil
}

// Close gives up the file that is open, without a trace under its final name.
func (s *Sink) Close() error {
	s.closed = true
	return s.abort()
}

func (s *Sink) usable(ctx context.Context) error {
	switch {
	case s.err != nil:
		return s.err
	case s.closed:
		return fmt.Errorf("%s: the sink is closed", s.c.Path)
	case s.schema == nil:
		return fmt.Errorf("%s: the sink is not bound to a schema", s.c.Path)
	}
	return ctx.Err()
}

// begin opens the next file under its temporary name.
func (s *Sink) begin() error {
	path := s.c.Path
	if !s.c.oneFile() {
		path = filepath.Join(s.c.folder(), fmt.Sprintf(partFormat, s.number))
		s.number++
	}
	d, err := durable.Create(s.c.FS, path, durable.Options{Overwrite: s.c.Overwrite})
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	p := &part{path: path, draft: d, buf: bufio.NewWriterSize(d, 1<<20)}
	s.part = p
	if p.w, err = parquetio.NewWriter(p.buf, s.schema, s.options()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// commit completes the open file and gives it its name.
func (s *Sink) commit() error {
	p := s.part
	if err := p.w.Close(); err != nil {
		return s.fail(fmt.Errorf("write %s: %w", p.path, err))
	}
	if err := p.buf.Flush(); err != nil {
		return s.fail(fmt.Errorf("write %s: %w", p.path, err))
	}
	s.part = nil
	if err := p.draft.Commit(); err != nil {
		return s.fail(err)
	}
	s.parts++
	s.durable.Store(s.last)
	s.c.Log.Info("file committed", "path", p.path, "rows", p.w.Rows(), "bytes", p.w.Size())
	return nil
}

// fail keeps the first error, says what helps, and removes the draft.
func (s *Sink) fail(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("%w: free some space or write elsewhere; %d batches are safe", err, s.durable.Load())
	}
	s.err = errors.Join(err, s.abort())
	return s.err
}

func (s *Sink) abort() error {
	p := s.part
	s.part = nil
	if p == nil {
		return nil
	}
	if p.w != nil {
		p.w.Discard()
	}
	if err := p.draft.Abort(); err != nil {
		return fmt.Errorf("remove the draft of %s: %w", p.path, err)
	}
	return nil
}
