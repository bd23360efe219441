package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
)

// The walk of one batch:
//
//	reader.go      takes it from the source, cuts it where a sink's position says
//	               so, waits at the gate (gate.go) until there is room, numbers it
//	               and puts it into two queues: jobs for whoever is free, order
//	               for the writer
//	worker.go      one of N workers takes it from jobs and applies the whole chain;
//	               deadletter.go parts the rows that an operator cannot take
//	writer.go      takes it from order, waits until it is done, notes its mark in
//	               the ledger and hands it to the lane of each sink; a lane writes,
//	               and the last one to do so lets the batch leave the gate
//	commit.go      asks the sinks what is durable and commits the ledger up to the
//	               smallest
//
// No queue is ever full: each has room for everything that the gate lets in. A
// slow sink therefore holds up the reader, at the gate, and nobody else.
//
// The first error cancels the engine's context. Everybody goes on taking from
// their queue until it is closed, releasing instead of working, so that no
// record leaks and no goroutine is left.

// Stats say what a run did. Rows are counted as they pass, also those of
// batches that were not committed in the end.
type Stats struct {
	Batches   int64            // batches read
	RowsRead  int64            // rows in them
	Written   map[string]int64 // rows accepted, for each sink
	Dead      map[string]int64 // dead letters, for each reason
	Committed []Mark           // the last mark committed in each partition, by name
	Drained   bool             // Config.Drain ended the run before its source did
	Elapsed   time.Duration
}

// DeadRows returns the number of dead letters for all reasons.
func (s Stats) DeadRows() int64 {
	var sum int64
	for _, n := range s.Dead {
		sum += n
	}
	return sum
}

// Run runs a pipeline until its source ends, and returns nil once everything is
// written, flushed and committed. It owns the source and the sinks: it closes
// each exactly once, in every case, also when cfg is not valid. The statistics
// hold whatever the outcome.
//
// There are two ways to stop. Closing cfg.Drain reads no more, finishes what was
// read, commits it and returns nil with Stats.Drained. Ending ctx quits now:
// nothing more is written or committed, and Run returns an error that is ctx's.
// An error of a source, an operator (see Config.OnError) or a sink stops the run
// likewise; its text names the part. Rows that were not committed are read again
// by the next run, which starts from the marks that Source.Commit was given last.
func Run(ctx context.Context, cfg Config) (Stats, error) {
	began := time.Now()
	cfg = cfg.withDefaults()
	e, err := newEngine(ctx, cfg)
	if err == nil {
		err = e.run(ctx)
	}
	err = errors.Join(err, closeAll(cfg))
	stats := e.stats
	stats.Elapsed = time.Since(began)
	return stats, err
}

// An engine is one run. Fields below a line are written by the goroutine named
// there and read after all have ended.
type engine struct {
	cfg      Config
	plan     Plan
	start    []Mark // where the source begins
	segments []segment
	snaps    bool    // states are saved with the marks
	lanes    []*lane // one for each sink, in order
	dead     *lane   // the dead letters' own lane, or nil; it is the last of lanes too
	letters  *lane   // the lane of a sink that takes dead letters with its rows, or nil
	decoder  Decoder // of the source's messages, or nil

	gate   *gate
	ledger ledger
	jobs   chan *job     // reader to workers
	order  chan *job     // reader to writer, the same jobs
	wake   chan struct{} // lanes to committer: something was written; one token
	fail   func(error)   // cancels everything; the first error is the run's

	drained atomic.Bool
	poison  poison // writer
	stats   Stats  // Batches and RowsRead: reader; Dead: writer; Committed: committer
}

// newEngine binds the chain and finds out where to start. It returns an engine
// also with an error, for its statistics.
func newEngine(ctx context.Context, cfg Config) (*engine, error) {
	e := &engine{
		cfg:   cfg,
		jobs:  make(chan *job, max(cfg.MaxBatches, 1)),
		order: make(chan *job, max(cfg.MaxBatches, 1)),
		wake:  make(chan struct{}, 1),
		stats: Stats{Written: make(map[string]int64), Dead: make(map[string]int64)},
	}
	if err := cfg.validate(); err != nil {
		return e, err
	}
	e.cfg.Hooks = cfg.Hooks.filled()
	e.gate = newGate(cfg.MaxBatches, cfg.MaxBytes, e.cfg.Hooks.InFlight)
	e.poison = poison{limit: cfg.DeadLetterLimit, inRow: make(map[string]int64)}
	var err error
	if e.plan, err = bind(ctx, cfg); err != nil {
		return e, err
	}
	e.segments = segments(cfg.Operators)
	e.snaps = cfg.Save != nil && stateful(e.segments) > 0
	if err := e.restore(); err != nil {
		return e, err
	}
	for _, s := range cfg.Sinks {
		e.addLane(s.Name, s.Sink)
	}
	if i := cfg.letterSink(); i >= 0 {
		e.letters = e.lanes[i]
	} else if cfg.DeadLetters != nil {
		e.addLane(deadLettersName, cfg.DeadLetters)
		e.dead = e.lanes[len(e.lanes)-1]
	}
	if m, ok := cfg.Source.(Messages); ok {
		e.decoder = m.Decoder()
	}
	if err := e.findStart(ctx); err != nil {
		return e, err
	}
	e.ledger.committed = make(map[string]Mark)
	for _, m := range cfg.From {
		e.ledger.committed[m.Partition] = m
	}
	return e, nil
}

func (e *engine) addLane(name string, sink Sink) {
	l := &lane{index: len(e.lanes), name: name, sink: sink, queue: make(chan delivery, e.cfg.MaxBatches)}
	if name != deadLettersName { // dead letters do not come for every batch, so they own no position
		l.marks, _ = sink.(MarkWriter)
	}
	l.seals, _ = sink.(Sealer)
	if n, ok := sink.(Notifier); ok {
		n.Notify(e.nudge)
	}
	e.lanes = append(e.lanes, l)
}

// run starts every goroutine, commits until all sinks have ended, and waits.
func (e *engine) run(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	e.fail = cancel

	var all, lanes sync.WaitGroup
	all.Go(func() { e.read(ctx) })
	for range e.cfg.Workers {
		all.Go(func() { e.work(ctx) })
	}
	all.Go(func() { e.write(ctx) })
	for _, l := range e.lanes {
		lanes.Go(func() { e.drive(ctx, l) })
	}
	ended := make(chan struct{})
	all.Go(func() {
		lanes.Wait()
		close(ended)
	})
	e.commit(ctx, ended)
	all.Wait()

	for _, l := range e.lanes {
		if l != e.dead {
			e.stats.Written[l.name] = l.rows
		}
	}
	e.stats.Drained = e.drained.Load()
	e.stats.Committed = slices.SortedFunc(maps.Values(e.ledger.committed), byPartition)
	if err := context.Cause(ctx); err != nil {
		return stopError(parent, err)
	}
	return nil
}

// stopError words why a run stopped, and keeps parent's error in the chain.
func stopError(parent context.Context, cause error) error {
	if err := parent.Err(); err != nil && cause == context.Cause(parent) && !errors.Is(cause, err) {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return cause
}

// closeAll closes the source and every sink and reports every fault.
func closeAll(cfg Config) error {
	var errs []error
	shut := func(what string, f func() error) {
		if err := guard(f); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", what, err))
		}
	}
	for _, s := range cfg.Sinks {
		if s.Sink != nil {
			shut("sink "+s.Name, s.Sink.Close)
		}
	}
	if cfg.DeadLetters != nil && cfg.letterSink() < 0 {
		shut(deadLettersName, cfg.DeadLetters.Close)
	}
	if cfg.Source != nil {
		shut("source", cfg.Source.Close)
	}
	return errors.Join(errs...)
}

// A job is one batch on its way. The reader makes it, one worker fills in the
// result, the writer takes it apart.
type job struct {
	batch  *Batch // its record is released by the worker
	rows   int64  // in it
	bytes  int64  // what it counts for at the gate
	before []chan struct{}
	after  []chan struct{} // closed when the job has passed stateful operator i
	snap   bool            // take snapshots behind this job
	done   chan struct{}   // closed by the worker

	// Result, valid after done.
	out     arrow.Record // owned; nil with an error
	letters arrow.Record // owned; nil when no row failed
	dead    []deadRow
	states  map[string][]byte // snapshots behind the job; nil unless snap
	err     error
}

func (j *job) release() {
	j.batch.Release()
	if j.out != nil {
		j.out.Release()
		j.out = nil
	}
	if j.letters != nil {
		j.letters.Release()
		j.letters = nil
	}
}
