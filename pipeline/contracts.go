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
	// between them (a compacted topic) must fill it. A batch without rows moves the
	// mark on: there was nothing in [First, Mark.Next).
	Positions []int64
	// Seal says that the source is about to give up the partition: every Sealer is
	// asked to make durable what it was given of it, and the commit is due at once.
	// Such a batch has no Record and no rows; its mark is that of the last one.
	Seal bool
}

// Rows returns the number of rows in the batch.
func (b *Batch) Rows() int64 {
	if b.Record == nil {
		return 0
	}
	return b.Record.NumRows()
}

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
// that the source starts at the smallest mark of all sinks and each sink is
// spared what it has: batches that it holds are left out (the numbers n of a sink
// have no gaps all the same), and a batch that straddles its position is cut
// there. A partition that is absent was never written. A position with Epoch 0
// holds for every epoch; one with another epoch than the batch's spares the sink
// nothing.
//
// With a plain source Position is called once, with nil for all partitions. With
// an Assigner it is called at each assignment, for these partitions and epochs, and
// at the same time as Write; rows of an older epoch that are still on their way or
// not yet durable then must never become durable, though Durable counts them as
// done: the source reads them again.
type MarkWriter interface {
	Sink
	Position(ctx context.Context, parts []Mark) ([]Mark, error)
	WriteBatch(ctx context.Context, n uint64, rec arrow.Record, first int64, mark Mark) error
}

// LetterWriter is a MarkWriter that takes dead letters together with the rows
// they were taken from, so that both become durable at once. It is asked to when
// Config.DeadLetters is the same value as one of Config.Sinks: BindLetters is then
// called after Bind, and WriteLetters, which borrows its record, right before the
// WriteBatch of the same number when a batch has dead letters.
type LetterWriter interface {
	MarkWriter
	BindLetters(in *arrow.Schema) error
	WriteLetters(ctx context.Context, n uint64, letters arrow.Record, mark Mark) error
}

// Sealer is a Sink that can make the rows of one partition durable before they
// are due. Seal is called like Write, in the order of the batches, when the source
// is about to give up mark.Partition; rows may become durable after it returns,
// but soon.
type Sealer interface {
	Sink
	Seal(ctx context.Context, mark Mark) error
}

// Notifier is a Sink that makes rows durable on its own time. Notify is called
// once, before the first Write; the sink calls raised, which returns at once, when
// Durable has risen.
type Notifier interface {
	Sink
	Notify(raised func())
}

// Failer is a Sink that may find out between two calls that it cannot go on. Err
// returns why, nil while it can; the engine asks whenever it asks for Durable.
type Failer interface {
	Sink
	Err() error
}

// Attacher is a Sink that works with its source besides the batches, as one does
// that commits the source's positions together with its rows. Attach is called
// once, after Bind; an error refuses the pair.
type Attacher interface {
	Sink
	Attach(src Source) error
}

// Committer is an Attacher that may commit the source's positions itself, with its
// rows; CommitsSource, asked after Attach, says whether it does. The source then
// waits for nobody else, so every other sink must own its position, and dead letters
// must be a LetterWriter: what lags behind would be lost in a crash.
type Committer interface {
	Attacher
	CommitsSource() bool
}

// An Assigner is a Source whose partitions are given to it and taken away while
// it runs, as a member of a consumer group's are. Assign is called once, before
// Batches. The source calls place, from within Batches, for partitions that have
// become its own (Next is not used, and Epoch tells this assignment from earlier
// ones) and begins each one where place says.
type Assigner interface {
	Source
	Assign(place func(ctx context.Context, parts []Mark) ([]Place, error))
}

// A Place is where the sinks stand in a partition.
type Place struct {
	Mark Mark // the smallest position of those that have one
	// Some says that a sink has a position, and Mark.Next is valid; All that every
	// sink has, so that the source starts there whatever it committed itself. Dead
	// letters that are no LetterWriter have none.
	Some, All bool
}

// Messages is a Source whose rows are messages, which a Decoder turns into rows
// for the operators. The engine decodes in its workers, many batches at once.
type Messages interface {
	Source
	Decoder() Decoder
}

// A Decoder is the first step of a pipeline whose source gives messages: it may
// make no, one or many rows of each. Bind is called like an Operator's. Decode
// borrows rec, is called by many goroutines at once, and returns an error only for
// what ends the run; the caller owns the record. What it makes of a message
// depends on that message alone.
type Decoder interface {
	Bind(in *arrow.Schema) (out *arrow.Schema, err error)
	Decode(ctx context.Context, rec arrow.Record) (Decoded, error)
}

// Decoded is what a Decoder makes of a record of messages.
type Decoded struct {
	Record arrow.Record
	// Origin holds, for each row of Record, the message that it came from, never
	// falling. Nil means that row i came from message i.
	Origin []int
	// Bad are the messages that could not be read, in rising order. They have no
	// rows in Record and become dead letters, whole.
	Bad []BadMessage
}

// A BadMessage is a message that cannot be read. An Err with a method
// Reason() string chooses the label that it is counted under.
type BadMessage struct {
	Message int
	Err     error
}
