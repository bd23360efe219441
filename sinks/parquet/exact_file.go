package parquet

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/internal/parquetio"
)

// An exactPart is what the sink knows of a partition. Its fields are guarded by
// ExactSink.mu, but for link.
type exactPart struct {
	name string
	// oldest is the oldest epoch whose rows may be published, once fenced is set.
	oldest int64
	fenced bool
	// next is where what is published ends, once known is set.
	next  int64
	known bool
	file  *exactFile // open; nil for none

	// link is held around link(2), so that Position waits for one that is under way.
	link sync.Mutex
}

func (p *exactPart) stale(epoch int64) bool { return p.fenced && epoch < p.oldest }

// An exactFile is the file of a partition that is being filled, and the dead
// letters beside it.
type exactFile struct {
	part    *exactPart
	epoch   int64
	first   int64
	next    int64 // guarded by ExactSink.mu like what is below; the rest by use
	since   time.Time
	rows    *table
	letters *table // nil for none

	gone    bool // its epoch is over
	linked  bool // it has its final name
	settled bool // its batches are done with
}

func (f *exactFile) tables() []*table {
	if f.letters == nil {
		return []*table{f.rows}
	}
	return []*table{f.letters, f.rows}
}

// A table is the content of one file: records in memory, and row groups that are
// written already.
type table struct {
	kind   *kind
	path   string // final
	recs   []arrow.Record
	bytes  int64 // payload of recs
	memory int64 // what recs keep alive
	count  int64 // rows, in recs and written
	out    spool
	w      *parquetio.Writer // nil before the first row group
}

func newTable(fsys durable.FS, k *kind, dir string, first int64) *table {
	path := filepath.Join(k.root, dir, RangeName(first))
	// Only what is published makes a file of dead letters final, so one that is there
	// without its rows is a leftover of rows that somebody removed.
	return &table{kind: k, path: path, out: spool{fs: fsys, path: path, overwrite: k.name == KindLetters}}
}

// add retains rec and returns how much memory that takes.
func (t *table) add(rec arrow.Record) int64 {
	if rec.NumRows() == 0 {
		return 0
	}
	rec.Retain()
	t.recs = append(t.recs, rec)
	m := footprint(rec)
	t.memory += m
	t.bytes += parquetio.RecordBytes(rec)
	t.count += rec.NumRows()
	return m
}

// size is an estimate of the file's size so far.
func (t *table) size() int64 {
	if t.w == nil {
		return t.bytes
	}
	return t.w.Size() + t.bytes
}

// encode writes what is in memory as a row group, through try, and keeps it.
func (t *table) encode(try func(func() error) error) error {
	t.out.try = try
	if t.w == nil {
		w, err := parquetio.NewWriter(&t.out, t.kind.schema, t.kind.options)
		if err != nil {
			return err
		}
		t.w = w
	}
	for _, rec := range t.recs {
		if err := t.w.Write(rec); err != nil {
			return err
		}
	}
	return t.w.FlushGroup()
}

// drop releases what is in memory and returns how much that was.
func (t *table) drop() int64 {
	for _, rec := range t.recs {
		rec.Release()
	}
	m := t.memory
	t.recs, t.memory, t.bytes = nil, 0, 0
	return m
}

// finish writes the footer.
func (t *table) finish(f *exactFile, now time.Time) error {
	for _, kv := range [][2]string{
		{MetaPartition, f.part.name},
		{MetaFirst, strconv.FormatInt(f.first, 10)}, {MetaNext, strconv.FormatInt(f.next, 10)},
		{MetaEpoch, strconv.FormatInt(f.epoch, 10)}, {MetaRows, strconv.FormatInt(t.count, 10)},
		{MetaSchema, t.kind.digest}, {MetaKind, t.kind.name}, {MetaWritten, now.UTC().Format(time.RFC3339)},
	} {
		t.w.Annotate(kv[0], kv[1])
	}
	if f.letters != nil {
		t.w.Annotate(MetaLetters, f.letters.out.tag)
	}
	if err := t.w.Close(); err != nil {
		return err
	}
	return t.out.flush()
}

// undo takes back what is written, so that what is in memory can be written anew.
func (t *table) undo() error {
	if t.w != nil {
		t.w.Discard()
		t.w = nil
	}
	return t.out.discard()
}

// A spool writes a draft, which it creates when there is something to write. The
// first bytes of a file wait with those of its first row group.
type spool struct {
	fs    durable.FS
	path  string
	tag   string
	draft *durable.Draft // nil before
	buf   []byte
	// overwrite lets a file that has the name be replaced.
	overwrite bool
	// try repeats an operation on the disk for as long as that may help.
	try func(func() error) error
}

const spoolBytes = 256 << 10

// Write buffers b.
func (o *spool) Write(b []byte) (int, error) {
	if len(o.buf)+len(b) > spoolBytes && len(o.buf) > 0 {
		if err := o.flush(); err != nil {
			return 0, err
		}
	}
	if len(b) > spoolBytes {
		return len(b), o.write(b)
	}
	o.buf = append(o.buf, b...)
	return len(b), nil
}

// flush writes what is buffered, and lets the buffer go.
func (o *spool) flush() error {
	b := o.buf
	o.buf = nil
	if len(b) == 0 {
		return nil
	}
	return o.write(b)
}

// write writes all of b; after a part of it, it goes on behind that.
func (o *spool) write(b []byte) error {
	if o.draft == nil {
		if err := o.try(o.create); err != nil {
			return err
		}
	}
	return o.try(func() error {
		n, err := o.draft.Write(b)
		b = b[n:]
		if err != nil {
			return fmt.Errorf("write %s: %w", o.path, err)
		}
		return nil
	})
}

func (o *spool) create() error {
	if err := durable.MkdirAll(o.fs, filepath.Dir(o.path)); err != nil {
		return fmt.Errorf("make the folder of %s: %w", o.path, err)
	}
	o.name()
	d, err := durable.Create(o.fs, o.path, durable.Options{Tag: o.tag, Overwrite: o.overwrite})
	if err != nil {
		return fmt.Errorf("create %s: %w", o.path, err)
	}
	o.draft = d
	return nil
}

// name chooses the tag of the temporary name, if there is none.
func (o *spool) name() {
	if o.tag == "" {
		var random [8]byte
		rand.Read(random[:])
		o.tag = hex.EncodeToString(random[:])
	}
}

// discard removes the draft. One that was swept away is gone, which is as good.
func (o *spool) discard() error {
	d := o.draft
	o.draft, o.buf = nil, nil
	if d == nil {
		return nil
	}
	if err := d.Abort(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the draft of %s: %w", o.path, err)
	}
	return nil
}

// arrayCost is about what one array takes besides its values: the structs and
// slices of its header, and buffers that are rounded up.
const arrayCost = 640

// footprint is about how much memory a record keeps alive. A record of few rows
// takes far more than its values do.
func footprint(rec arrow.Record) int64 {
	var n int64
	for _, col := range rec.Columns() {
		n += dataFootprint(col.Data())
	}
	return n
}

func dataFootprint(d arrow.ArrayData) int64 {
	n := int64(arrayCost)
	for _, b := range d.Buffers() {
		if b != nil {
			n += int64(b.Cap())
		}
	}
	for _, c := range d.Children() {
		n += dataFootprint(c)
	}
	if _, ok := d.DataType().(*arrow.DictionaryType); ok {
		n += dataFootprint(d.Dictionary())
	}
	return n
}
