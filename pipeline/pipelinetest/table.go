package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
)

// A Table holds what sinks have made durable: it survives their run. It is safe
// for concurrent use.
type Table struct {
	mu     sync.Mutex
	schema *arrow.Schema
	recs   []arrow.Record
	marks  map[string]pipeline.Mark
}

// NewTable returns an empty table.
func NewTable() *Table { return &Table{marks: make(map[string]pipeline.Mark)} }

// Schema returns the schema that the last sink was bound to; nil before.
func (t *Table) Schema() *arrow.Schema {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.schema
}

// Records returns the durable records in the order in which they were written.
// The caller borrows them until Release.
func (t *Table) Records() []arrow.Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]arrow.Record(nil), t.recs...)
}

// Rows returns the number of durable rows.
func (t *Table) Rows() int64 {
	var n int64
	for _, r := range t.Records() {
		n += r.NumRows()
	}
	return n
}

// Release lets go of every record.
func (t *Table) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.recs {
		r.Release()
	}
	t.recs = nil
}

// SinkOptions choose how a sink of one run behaves. The zero value makes batches
// durable at Flush only.
type SinkOptions struct {
	Roll    int           // batches that become durable together; 0: only at Flush
	Delay   time.Duration // how long each Write takes
	FailAt  uint64        // the batch number whose Write fails with Err; 0: none
	Err     error         // nil means ErrSink
	Power   *Power
	OnWrite func(n uint64) // called at the start of each Write
	// Lie makes Durable claim what was only written: a planted fault.
	Lie bool
}

// ErrSink is the error of a sink that was told to fail.
var ErrSink = errors.New("the sink was told to fail")

// A TableSink writes a Table in one run. It checks that it is used as its
// contract says, and its methods fail when it is not.
type TableSink struct {
	table *Table
	o     SinkOptions
	use   sync.Mutex // held by Write, Flush and Close

	mu      sync.Mutex
	bound   *arrow.Schema
	written uint64
	durable uint64
	pending []arrow.Record
	marks   map[string]pipeline.Mark // of pending
	closed  bool
}

var _ pipeline.Sink = (*TableSink)(nil)

// Open returns a plain sink for one run.
func (t *Table) Open(o SinkOptions) *TableSink {
	if o.Err == nil {
		o.Err = ErrSink
	}
	return &TableSink{table: t, o: o, marks: make(map[string]pipeline.Mark)}
}

// Bind notes the schema.
func (s *TableSink) Bind(in *arrow.Schema) error {
	s.table.mu.Lock()
	s.table.schema = in
	s.table.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound != nil {
		return errors.New("bound twice")
	}
	s.bound = in
	return nil
}

// Write accepts a batch.
func (s *TableSink) Write(ctx context.Context, n uint64, rec arrow.Record) error {
	return s.write(ctx, n, rec, nil)
}

func (s *TableSink) write(ctx context.Context, n uint64, rec arrow.Record, mark *pipeline.Mark) error {
	if !s.use.TryLock() {
		return errors.New("two calls at once")
	}
	defer s.use.Unlock()
	if s.o.OnWrite != nil {
		s.o.OnWrite(n)
	}
	if s.o.Delay > 0 {
		late := time.NewTimer(s.o.Delay)
		defer late.Stop()
		select {
		case <-late.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.accept(n, rec); err != nil {
		return err
	}
	rec.Retain()
	s.pending = append(s.pending, rec)
	if mark != nil {
		s.marks[mark.Partition] = *mark
	}
	s.written = n
	if s.o.Roll > 0 && len(s.pending) >= s.o.Roll {
		return s.roll()
	}
	return nil
}

func (s *TableSink) accept(n uint64, rec arrow.Record) error {
	switch {
	case s.closed:
		return errors.New("written after close")
	case s.bound == nil:
		return errors.New("written before bind")
	case n != s.written+1:
		return fmt.Errorf("batch %d after batch %d", n, s.written)
	case !rec.Schema().Equal(s.bound):
		return fmt.Errorf("schema is %v, bound to %v", rec.Schema(), s.bound)
	case s.o.FailAt == n:
		return s.o.Err
	}
	return s.o.Power.use()
}

// roll makes pending batches durable, all or none.
func (s *TableSink) roll() error {
	if err := s.o.Power.use(); err != nil {
		return err
	}
	s.table.mu.Lock()
	s.table.recs = append(s.table.recs, s.pending...)
	for p, m := range s.marks {
		s.table.marks[p] = m
	}
	s.table.mu.Unlock()
	s.pending = nil
	clear(s.marks)
	if err := s.o.Power.use(); err != nil {
		return err // the reply is lost, the rows are not
	}
	s.durable = s.written
	return nil
}

// Durable returns the last batch that is in the table.
func (s *TableSink) Durable() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.o.Lie {
		return s.written
	}
	return s.durable
}

// Flush makes everything durable.
func (s *TableSink) Flush(context.Context) error {
	if !s.use.TryLock() {
		return errors.New("two calls at once")
	}
	defer s.use.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("flushed after close")
	}
	return s.roll()
}

// Close gives up what is not durable.
func (s *TableSink) Close() error {
	if !s.use.TryLock() {
		return errors.New("two calls at once")
	}
	defer s.use.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("closed twice")
	}
	s.closed = true
	for _, r := range s.pending {
		r.Release()
	}
	s.pending = nil
	return nil
}

// A MarkSink is a TableSink that owns its position: rows and position become
// durable together.
type MarkSink struct{ *TableSink }

var _ pipeline.MarkWriter = MarkSink{}

// OpenMarks returns a sink with positions for one run.
func (t *Table) OpenMarks(o SinkOptions) MarkSink { return MarkSink{t.Open(o)} }

// Position returns what the table holds of each partition.
func (s MarkSink) Position(context.Context, []pipeline.Mark) ([]pipeline.Mark, error) {
	if err := s.o.Power.use(); err != nil {
		return nil, err
	}
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	var marks []pipeline.Mark
	for _, m := range s.table.marks {
		marks = append(marks, m)
	}
	return marks, nil
}

// Write fails: the engine must call WriteBatch.
func (s MarkSink) Write(context.Context, uint64, arrow.Record) error {
	return errors.New("Write was called in place of WriteBatch")
}

// WriteBatch accepts a batch and its place.
func (s MarkSink) WriteBatch(ctx context.Context, n uint64, rec arrow.Record, first int64, mark pipeline.Mark) error {
	if first > mark.Next {
		return fmt.Errorf("batch %d begins at %d and ends at %d", n, first, mark.Next)
	}
	return s.write(ctx, n, rec, &mark)
}
