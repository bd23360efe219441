package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// OnError says what happens to rows that an operator cannot take.
type OnError uint8

const (
	// Fail stops the run at the first batch with such a row.
	Fail OnError = iota
	// DeadLetter finds the rows at fault, writes them to Config.DeadLetters with
	// their place and reason, counts them and goes on with the others.
	DeadLetter
)

// String returns the word for o in a configuration file.
func (o OnError) String() string {
	switch o {
	case Fail:
		return "fail"
	case DeadLetter:
		return "dead_letter"
	}
	return fmt.Sprintf("OnError(%d)", uint8(o))
}

// NamedOperator is an Operator and the name that errors and metrics give it.
// Two operators may share a name. An empty name becomes "operator I", I from 1.
type NamedOperator struct {
	Name     string
	Operator Operator
}

// NamedSink is a Sink and the name that errors, statistics and metrics give it.
// Names are unique in a pipeline. An empty name becomes "sink I", I from 1.
type NamedSink struct {
	Name string
	Sink Sink
}

// Config is a whole pipeline. Source and at least one sink must be set; every
// other zero value is useful.
type Config struct {
	Source    Source
	Operators []NamedOperator // applied in this order
	Sinks     []NamedSink     // each receives every batch

	// From holds the marks that an earlier run committed; nil means that there
	// was none. The source starts there, or earlier where a MarkWriter holds
	// less. A partition without a mark is read from its beginning.
	From []Mark
	// States holds what Snapshot of each stateful operator gave at the marks in
	// From, by the operator's name. An operator without one begins anew.
	States map[string][]byte
	// Save, when not nil, is given a checkpoint before each commit to the source,
	// and must make it durable: From and States of the next run. With stateful
	// operators, marks are then only committed at batches with a snapshot (the
	// first after CommitBatches or CommitInterval, and the last of a run), and the
	// source starts at From exactly. Calls follow one another.
	Save func(ctx context.Context, c Checkpoint) error
	// Workers is how many batches are computed at once; 0 means GOMAXPROCS.
	Workers int
	// MaxBatches bounds the batches between the source and the slowest sink; 0
	// means four for each worker. One more may wait in the reader's hand.
	MaxBatches int
	// MaxBytes bounds the bytes of their columns; 0 means 256 MiB. A single
	// batch above the bound passes alone. Columns that operators add count once
	// they are there, so a batch may outgrow the bound while it is computed.
	MaxBytes int64
	// CommitBatches is how many durable batches make a commit due; 0 means 100.
	CommitBatches int
	// CommitInterval is how long a durable batch waits for its commit at most,
	// and how often sinks are asked what is durable; 0 means one second.
	CommitInterval time.Duration

	// OnError says what happens to rows that an operator cannot take.
	OnError OnError
	// DeadLetters receives those rows when OnError is DeadLetter, and must be nil
	// otherwise. Its schema is DeadLetterSchema of the source's. A mark is only
	// committed once the dead letters before it are durable here. After a crash a
	// dead letter may be written again (at least once), unless this is one of Sinks
	// and a LetterWriter.
	DeadLetters Sink
	// DeadLetterLimit stops a run that would empty its source into the dead
	// letters.
	DeadLetterLimit DeadLetterLimit

	// Drain, when closed, ends the run in good order: nothing more is read, what
	// was read is written, flushed and committed, and Run returns nil. Nil never
	// drains.
	Drain <-chan struct{}
	// Hooks are told what happens; the zero value does nothing.
	Hooks Hooks
	// Allocator is used where the engine builds records of its own (dead
	// letters); nil means memory.DefaultAllocator.
	Allocator memory.Allocator

	faults faults
}

// DeadLetterLimit bounds dead letters, because a source whose every row fails
// points to a wrong setting and not to bad rows.
type DeadLetterLimit struct {
	// InRow is how many rows one after the other in a partition may be dead
	// letters; 0 means 1000, negative means no limit.
	InRow int64
	// Share is the highest share of dead letters among the last 10,000 rows or
	// more of the run; 0 means 0.05, negative means no limit.
	Share float64
}

// A Checkpoint is all that a run needs to go on where another ended. Its parts
// belong together.
type Checkpoint struct {
	Marks  []Mark            // committed so far in all partitions, by name
	States map[string][]byte // of the stateful operators, by name, at these marks
}

// faults are defects that tests plant to prove that their checker finds them.
type faults struct {
	commitLargest bool // commit up to the largest Durable, not the smallest
	dropOnDrain   bool // count what is in flight at a drain as written
	skipWrong     bool // spare a sink one row too many after a restart
	commitEarly   bool // forget that dead letters must be durable too
	oldPositions  bool // spare a sink by its position at an earlier assignment
	ignoreSeals   bool // do not tell sinks that a partition is given up
	deadUnasked   bool // let a source start where the dead letters may lack rows
}

// withDefaults fills in every zero value.
func (c Config) withDefaults() Config {
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.MaxBatches == 0 {
		c.MaxBatches = 4 * max(c.Workers, 1)
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 256 << 20
	}
	if c.CommitBatches == 0 {
		c.CommitBatches = 100
	}
	if c.CommitInterval == 0 {
		c.CommitInterval = time.Second
	}
	if c.DeadLetterLimit.InRow == 0 {
		c.DeadLetterLimit.InRow = 1000
	}
	if c.DeadLetterLimit.Share == 0 {
		c.DeadLetterLimit.Share = 0.05
	}
	if c.Allocator == nil {
		c.Allocator = memory.DefaultAllocator
	}
	c.Operators = append([]NamedOperator(nil), c.Operators...)
	for i := range c.Operators {
		if c.Operators[i].Name == "" {
			c.Operators[i].Name = fmt.Sprintf("operator %d", i+1)
		}
	}
	c.Sinks = append([]NamedSink(nil), c.Sinks...)
	for i := range c.Sinks {
		if c.Sinks[i].Name == "" {
			c.Sinks[i].Name = fmt.Sprintf("sink %d", i+1)
		}
	}
	return c
}

// validate reports everything that is wrong with a Config whose defaults are
// filled in.
func (c Config) validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Source == nil {
		fault("source: must be set")
	}
	states := make(map[string]bool)
	for i, op := range c.Operators {
		if op.Operator == nil {
			fault("operators[%d] (%s): must be set", i, op.Name)
		}
		if _, ok := op.Operator.(Stateful); ok && c.Save != nil {
			if states[op.Name] {
				fault("operators[%d]: the name %q is taken; states are kept by name, so give each stateful operator its own", i, op.Name)
			}
			states[op.Name] = true
		}
	}
	if len(c.Sinks) == 0 {
		fault("sinks: there must be at least one")
	}
	seen := make(map[string]bool)
	for i, s := range c.Sinks {
		if s.Sink == nil {
			fault("sinks[%d] (%s): must be set", i, s.Name)
		}
		if seen[s.Name] || s.Name == deadLettersName {
			fault("sinks[%d]: the name %q is taken; give each sink its own", i, s.Name)
		}
		seen[s.Name] = true
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"workers", int64(c.Workers)},
		{"max batches", int64(c.MaxBatches)},
		{"max bytes", c.MaxBytes},
		{"commit batches", int64(c.CommitBatches)},
		{"commit interval", int64(c.CommitInterval)},
	} {
		if n.value < 0 {
			fault("%s: %d is negative", n.name, n.value)
		}
	}
	switch {
	case c.OnError > DeadLetter:
		fault("on error: %v is neither fail nor dead_letter", c.OnError)
	case c.OnError == DeadLetter && c.DeadLetters == nil:
		fault("dead letters: must be set when rows that fail become dead letters")
	case c.OnError == Fail && c.DeadLetters != nil:
		fault("dead letters: set, but rows that fail stop the run; choose dead_letter or leave them out")
	}
	if i := c.letterSink(); i >= 0 {
		if _, ok := c.Sinks[i].Sink.(LetterWriter); !ok {
			fault("dead letters: sink %s takes rows, and cannot take dead letters too", c.Sinks[i].Name)
		}
	}
	if _, ok := c.Source.(Assigner); ok && c.Save != nil && len(states) > 0 {
		fault("source: its partitions come and go, and the states of operators cannot go with them yet")
	}
	partitions := make(map[string]bool)
	for _, m := range c.From {
		if partitions[m.Partition] {
			fault("from: partition %q has two marks", m.Partition)
		}
		partitions[m.Partition] = true
	}
	return errors.Join(errs...)
}

// letterSink returns the index of the sink that is also DeadLetters, or -1.
func (c Config) letterSink() int {
	if c.DeadLetters == nil {
		return -1
	}
	return slices.IndexFunc(c.Sinks, func(s NamedSink) bool { return s.Sink == c.DeadLetters })
}
