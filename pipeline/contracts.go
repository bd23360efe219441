package pipeline

import (
	"context"
	"iter"

	"github.com/apache/arrow/go/v15/arrow"
)

// A Mark is a place in one partition: every row before Next has been delivered.
// Partition names the unit of order (a file, a topic's partition). Epoch tells
// assignments apart, so that a mark from before a rebalance, or from before a
// file changed, is recognised and ignored. Next counts rows for files and
// offsets for topics.
type Mark struct {
	Partition string
	Epoch     int64
	Next      int64
}

// A Batch is a record batch and the mark that may be committed once its rows
// are durable in every sink. A batch holds rows of one partition only. It has
// one owner; handing it on hands on the duty to call Release.
type Batch struct {
	Record arrow.Record
	Mark   Mark
	// First is the position of the batch's first row in its partition, in the
	// unit of Mark.Next.
	First int64
	// Positions holds the position of each row, rising, in the unit of
	// Mark.Next. Nil means that the rows stand without a gap: row i is at
	// First+i and Mark.Next is First+Rows(). A source whose rows have gaps
	// between them (a compacted topic) must fill it.
	Positions []int64
}

// Rows returns the number of rows in the batch.
func (b *Batch) Rows() int64 { return b.Record.NumRows() }

// Release gives up the batch's record. The owner calls it exactly once.
func (b *Batch) Release() {
	if b.Record != nil {
		b.Record.Release()
		b.Record = nil
	}
}

// A Source reads rows and, when asked, remembers how far they were used.
//
// Batches yields batches in order within a partition, starting at the marks in
// from (a partition without a mark starts at its beginning). The caller owns
// each batch it is given. After yielding an error the sequence ends. The
// sequence closes whatever it opened when the loop over it ends, also when the
// loop breaks early or ctx is done; a done ctx is yielded as its error.
//
// Commit says that nothing before the marks is needed again. Marks of one
// partition never step back, and Commit is never called by two goroutines at
// once, but it is called while a sequence runs and also after it has ended.
// Close is called once, after the last sequence and the last Commit.
type Source interface {
	Schema(ctx context.Context) (*arrow.Schema, error)
	Batches(ctx context.Context, from []Mark) iter.Seq2[*Batch, error]
	Commit(ctx context.Context, marks []Mark) error
	Close() error
}

// An Operator turns records into records, column-in, column-out.
//
// Bind is called once, before data flows and by `elbo check`, with the schema
// that every later record will have; it returns the schema of what Apply gives.
// Apply borrows rec and returns a record that the caller owns (rec itself,
// retained, is allowed). Apply is called by many goroutines at once and starts
// none of its own. It keeps the order of the rows and never adds any; the rows
// of a result depend on the rows of rec alone and not on where rec was cut. An
// operator that drops rows says so in its documentation.
//
// With dead letters the engine applies a failing operator again to parts of the
// record until the rows at fault are found, so an error about one row may simply
// be returned. An error (anywhere in its chain) with a method Reason() string
// chooses the label under which such rows are counted; labels must be few.
type Operator interface {
	Bind(in *arrow.Schema) (out *arrow.Schema, err error)
	Apply(ctx context.Context, rec arrow.Record) (arrow.Record, error)
}

// Stateful is an Operator whose result depends on rows it saw before. The
// engine calls Apply of a stateful operator in batch order and never at the
// same time as another Apply, Snapshot or Restore of it. Snapshot returns the
// state after the last Apply; Restore is called after Bind and before the first
// Apply. An Apply that returns an error leaves the state as it was, because the
// engine may apply parts of the same record again. An Apply that panics ends the
// run: nobody can tell what state it left.
type Stateful interface {
	Operator
	Snapshot() ([]byte, error)
	Restore(state []byte) error
}

// A Sink takes records and says when they are safe.
//
// Bind is called once with the schema of every later record, also by
// `elbo check`, so it leaves nothing behind that outlives Close. Write borrows rec,
// which is batch number n and may have no rows; numbers rise by one from 1. When
// Write returns nil the rows are accepted, maybe not yet durable. Durable returns
// the highest n such that batches 1..n are safe against a crash; it never falls,
// and it may be called at the same time as any other method. Flush makes
// everything accepted so far durable; the engine calls it once, at the end. Close releases what the sink holds; without a Flush
// before it, rows that are not yet durable are given up and leave nothing under
// a final name. Write, Flush and Close are never called at the same time.
type Sink interface {
	Bind(in *arrow.Schema) error
	Write(ctx context.Context, n uint64, rec arrow.Record) error
	Durable() uint64
	Flush(ctx context.Context) error
	Close() error
}

// MarkWriter is a Sink that owns its position per partition (exactly-once).
// The engine calls WriteBatch in place of Write and passes the place of the
// batch in its source: its rows are [first, mark.Next) of mark.Partition.
// Position is called after Bind and returns what the sink already holds, so
// that after a restart the source starts at the smallest mark of all sinks and
// each sink is spared what it has: batches that it holds are left out (the
// numbers n of a sink have no gaps all the same), and a batch that straddles its
// position is cut there. A partition that is absent was never written and is
// read from its beginning. A position with Epoch 0 holds for every epoch; one
// with another epoch than the batch's spares the sink nothing.
type MarkWriter interface {
	Sink
	Position(ctx context.Context) ([]Mark, error)
	WriteBatch(ctx context.Context, n uint64, rec arrow.Record, first int64, mark Mark) error
}
