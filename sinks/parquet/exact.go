package parquet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/internal/parquetio"
	"github.com/elbo-stream/elbo/pipeline"
)

// ExactConfig says where and how an ExactSink writes. Only Path must be set.
type ExactConfig struct {
	// Path is the folder; each partition has one in it, see PartitionFolder.
	Path string
	// Dead is the folder of the dead letters, laid out likewise; "" means Path with
	// "-dead" at its end. It is outside of Path.
	Dead string
	// Compression is zstd (also if empty), none, snappy, lz4_raw or gzip.
	Compression string
	// RollBytes, RollRows and RollAge publish the file of a partition that is as
	// large, as long or as old, counted from its first batch, and begin the next.
	// Rows become visible and durable that way, so RollAge bounds what a crash
	// repeats; it is kept also when no rows come. 0 means 256 MiB, no limit and 5
	// minutes. A range without rows becomes a file without rows.
	RollBytes int64
	RollRows  int64
	RollAge   time.Duration
	// GroupRows and GroupBytes bound a row group; 0 means 1,048,576 rows and 64 MiB.
	GroupRows  int64
	GroupBytes int64
	// MaxMemory bounds what all partitions hold together, in bytes; 0 means 256 MiB.
	// Above it the largest is written as a row group before it is due, so with very
	// many partitions a small bound makes small row groups.
	MaxMemory int64
	// Stall is for how long the sink tries again, holding what it has and taking
	// nothing more, while the disk is full or read-only; then it fails. 0 means 10
	// minutes, a negative one that it fails at once.
	Stall time.Duration
	// Sweep is how old a temporary file of another run must be to be removed; 0
	// means 10 minutes.
	Sweep time.Duration
	// OnLost, when it is set, is told that another owner has published the range of
	// rows that this sink was about to: the rows of that partition and epoch are
	// thrown away from then on, and must be read again under a new epoch, behind
	// what Position tells then. Mark.Next is where they begin. It returns at once.
	// Nil means the Lost method of the source, see Attach; without one either, the
	// sink fails with a LostError.
	OnLost func(pipeline.Mark)
	// Metadata are key-value pairs for the footer of each file, besides those of
	// the schema whose keys begin with "elbo." and those that tell its range.
	Metadata map[string]string
	// CreatedBy names the program in each file; "" means "elbo".
	CreatedBy string
	// FS is the file system, with hard links; nil means durable.OS.
	FS durable.FS
	// Now tells the time for ages; nil means time.Now.
	Now func() time.Time
	// Log tells each file that is published or removed; nil means silence.
	Log *slog.Logger
}

// check reports every fault at once and fills in the defaults.
func (c *ExactConfig) check() error {
	var faults []error
	if c.Path == "" {
		faults = append(faults, errors.New("path: must be set"))
	} else if strings.HasSuffix(c.Path, ".parquet") {
		faults = append(faults, fmt.Errorf("path: %s is one file: name a folder", c.Path))
	}
	if err := parquetio.Compression(c.Compression).Valid(); err != nil {
		faults = append(faults, err)
	}
	for _, n := range []struct {
		name  string
		value *int64
		none  int64
	}{
		{"roll bytes", &c.RollBytes, 256 << 20}, {"roll rows", &c.RollRows, 0}, {"roll age", (*int64)(&c.RollAge), int64(5 * time.Minute)},
		{"group rows", &c.GroupRows, 1 << 20}, {"group bytes", &c.GroupBytes, 64 << 20},
		{"max memory", &c.MaxMemory, 256 << 20}, {"sweep", (*int64)(&c.Sweep), int64(10 * time.Minute)},
	} {
		if *n.value < 0 {
			faults = append(faults, fmt.Errorf("%s: %d is negative", n.name, *n.value))
		}
		if *n.value == 0 {
			*n.value = n.none
		}
	}
	c.Path = filepath.Clean(c.Path)
	if c.Dead == "" {
		c.Dead = c.Path + "-dead"
	}
	c.Dead = filepath.Clean(c.Dead)
	if rel, err := filepath.Rel(c.Path, c.Dead); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		faults = append(faults, fmt.Errorf("dead: %s is inside of %s: name a folder of its own", c.Dead, c.Path))
	}
	c.fill()
	return errors.Join(faults...)
}

func (c *ExactConfig) fill() {
	if c.Stall == 0 {
		c.Stall = 10 * time.Minute
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
}

// LostError says that another owner has published the range that a sink was about
// to, and that nobody can be told to read it again.
type LostError struct {
	Partition   string
	First, Next int64 // the range whose rows were thrown away
	Path        string
}

// Error names the partition, its range and the file.
func (e *LostError) Error() string {
	return fmt.Sprintf("partition %q, rows %d to %d: another owner has published %s: stop the other one, and start again behind it",
		e.Partition, e.First, e.Next, e.Path)
}

// An ExactSink writes each partition to Parquet files so that no row of it is
// lost and none is there twice, whatever crashes and whoever else believes to own
// the partition: a file is named by the position where its range begins, and gets
// its name with link(2), which two owners cannot both do. Where the last file ends
// is the partition's position; see Position.
//
// Rows are in memory and in a temporary file until the file is published. After an
// error every call returns it again; rows that were not durable are read again by
// the next run.
type ExactSink struct {
	c       ExactConfig
	rows    *kind
	letters *kind // nil without dead letters

	// use is held, as one token, by whoever touches the contents of files: the lane's
	// calls and the timer. What is under it may wait for the disk. Position and
	// Durable do without.
	use     chan struct{}
	memory  int64  // held by all files, in bytes
	pending *table // dead letters of the batch that comes next
	started bool   // the timer

	mu      sync.Mutex
	parts   map[string]*exactPart
	claims  []claim // batches that are not durable, in order
	written uint64
	durable uint64
	trash   []*exactFile // given up by Position; whoever has use discards them
	raised  func()
	lost    func(partition string, epoch int64)
	err     error
	closed  bool

	stop  context.CancelFunc // ends the timer
	ended chan struct{}
}

var (
	_ pipeline.LetterWriter = (*ExactSink)(nil)
	_ pipeline.Sealer       = (*ExactSink)(nil)
	_ pipeline.Notifier     = (*ExactSink)(nil)
	_ pipeline.Failer       = (*ExactSink)(nil)
	_ pipeline.Attacher     = (*ExactSink)(nil)
)

// A kind is what the files of rows have in common, or those of dead letters.
type kind struct {
	name    string
	root    string // folder
	schema  *arrow.Schema
	digest  string
	options parquetio.WriterOptions
}

// A claim is a run of batches that become durable with one file.
type claim struct {
	last uint64     // number of the last of them
	file *exactFile // nil when they are done with
}

// NewExact checks the configuration; it touches no file.
func NewExact(c ExactConfig) (*ExactSink, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("parquet sink: %w", err)
	}
	return &ExactSink{c: c, use: make(chan struct{}, 1), parts: make(map[string]*exactPart), raised: func() {}}, nil
}

// Bind checks that every column can be written. It touches no file.
func (s *ExactSink) Bind(in *arrow.Schema) (err error) {
	s.rows, err = s.newKind(KindRows, s.c.Path, in)
	return err
}

// BindLetters checks that every column of the dead letters can be written. It
// touches no file.
func (s *ExactSink) BindLetters(in *arrow.Schema) (err error) {
	s.letters, err = s.newKind(KindLetters, s.c.Dead, in)
	return err
}

func (s *ExactSink) newKind(name, root string, in *arrow.Schema) (*kind, error) {
	o := parquetio.WriterOptions{Compression: parquetio.Compression(s.c.Compression), GroupRows: s.c.GroupRows,
		GroupBytes: s.c.GroupBytes, Metadata: withSchemaMetadata(s.c.Metadata, in), CreatedBy: s.c.CreatedBy}
	if s.rows != nil {
		o.Buffers = s.rows.options.Buffers
	} else {
		o.Buffers = new(parquetio.Buffers)
	}
	w, err := parquetio.NewWriter(io.Discard, in, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root, err)
	}
	w.Discard()
	return &kind{name: name, root: root, schema: in, digest: schemaDigest(in), options: o}, nil
}

// Attach takes the source's method Lost(partition string, epoch int64), if it has
// one, for what ExactConfig.OnLost is for.
func (s *ExactSink) Attach(src pipeline.Source) error {
	if l, ok := src.(interface {
		Lost(partition string, epoch int64)
	}); ok {
		s.lost = l.Lost
	}
	return nil
}

// Notify sets what is called when Durable has risen.
func (s *ExactSink) Notify(raised func()) { s.raised = raised }

// Durable returns the number of the last batch such that it and all before it are
// in files that have their names, or belong to an epoch that is over.
func (s *ExactSink) Durable() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable
}

// Err returns why the sink cannot go on, also when that was found out by its timer.
func (s *ExactSink) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
