package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
)

// A FenceTest says how to test what a MarkWriter promises to an Assigner. O is
// whatever its sinks write to.
type FenceTest[O any] struct {
	// New returns a sink, bound and attached, on top of what the earlier sinks of
	// the same outside have left; it is called several times for each. The test
	// closes it.
	New func(t *testing.T, outside O) (pipeline.MarkWriter, error)
	// Outside returns a fresh place to write to, empty.
	Outside func(t *testing.T) O
	// Inputs are at least three batches of one partition, each beginning where the
	// one before ends. Epochs are the test's.
	Inputs []MarkedBatch
	// Read returns the rows that are durable, in order. The test releases the
	// records.
	Read func(t *testing.T, outside O) []arrow.Record
	// Race says that between two sinks whoever makes rows durable first wins, and the
	// other one then writes nothing and fails: Position ends epochs of its own sink
	// alone.
	Race bool
}

// Fence checks that a MarkWriter keeps epochs apart: once Position has been called
// for a partition, by this sink or by another, rows of the epochs before never
// become durable, each row is there once in the end, and Durable counts those that
// never will as done. It checks Seal and Notify too, of sinks that have them, and
// waits for them by the clock, at most ten seconds each.
func Fence[O any](t *testing.T, f FenceTest[O]) {
	for _, check := range f.checks() {
		t.Run(check.name, func(t *testing.T) {
			if err := check.run(t); err != nil {
				t.Error(err)
			}
		})
	}
}

type fenceCheck struct {
	name string
	run  func(*testing.T) error
}

func (f FenceTest[O]) checks() []fenceCheck {
	return []fenceCheck{
		{"epoch ended by another sink", f.testTakenOver},
		{"epoch ended by the same sink", f.testBegunAnew},
		{"rows of an ended epoch", f.testStale},
		{"seal", f.testSeal},
	}
}

// A fenced is a sink in use.
type fenced struct {
	inputs []MarkedBatch
	sink   pipeline.MarkWriter
	raised chan struct{} // nil when the sink is no Notifier
	n      uint64
}

func (f FenceTest[O]) open(t *testing.T, outside O) (*fenced, error) {
	sink, err := f.New(t, outside)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := sink.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	s := &fenced{inputs: f.Inputs, sink: sink}
	if n, ok := sink.(pipeline.Notifier); ok {
		s.raised = make(chan struct{}, 1)
		n.Notify(func() {
			select {
			case s.raised <- struct{}{}:
			default:
			}
		})
	}
	return s, nil
}

// begin begins an epoch and returns where the sink stands.
func (s *fenced) begin(epoch int64) (int64, error) {
	part := s.inputs[0].Mark.Partition
	marks, err := s.sink.Position(context.Background(), []pipeline.Mark{{Partition: part, Epoch: epoch}})
	if err != nil {
		return 0, fmt.Errorf("position: %w", err)
	}
	if len(marks) == 0 {
		return s.inputs[0].First, nil
	}
	if len(marks) != 1 || marks[0].Partition != part {
		return 0, fmt.Errorf("asked for partition %q, Position returned %v", part, marks)
	}
	return marks[0].Next, nil
}

// write writes the inputs from a position on, up to batch number end, under an
// epoch.
func (s *fenced) write(epoch, from int64, end int) error {
	for _, b := range s.inputs[:end] {
		if b.Mark.Next <= from {
			continue
		}
		if b.First < from {
			return fmt.Errorf("the position %d lies inside of a batch, %d to %d", from, b.First, b.Mark.Next)
		}
		s.n++
		b.Mark.Epoch = epoch
		if err := s.sink.WriteBatch(context.Background(), s.n, b.Record, b.First, b.Mark); err != nil {
			return fmt.Errorf("write batch %d under epoch %d: %w", s.n, epoch, err)
		}
	}
	return nil
}

func (s *fenced) flush() error {
	if err := s.sink.Flush(context.Background()); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	if n := s.sink.Durable(); n != s.n {
		return fmt.Errorf("after Flush Durable is %d, want %d: what never will be durable counts as done", n, s.n)
	}
	return nil
}

// check checks that a reader finds the rows before a position, once each.
func (f FenceTest[O]) check(t *testing.T, outside O, next int64) error {
	recs := f.Read(t, outside)
	got := renderAll(recs)
	for _, r := range recs {
		r.Release()
	}
	var want []string
	for _, b := range f.Inputs {
		if b.Mark.Next <= next {
			want = append(want, Render(b.Record)...)
		}
	}
	if d := differ(got, want); d != "" {
		return fmt.Errorf("a reader finds %s", d)
	}
	return nil
}

func (f FenceTest[O]) end() int64 { return f.Inputs[len(f.Inputs)-1].Mark.Next }

// testTakenOver lets a second sink take a partition over while the first holds rows
// of it, and a third one in the end. All begin with epoch 1, as sources that count
// from one do.
func (f FenceTest[O]) testTakenOver(t *testing.T) error {
	outside := f.Outside(t)
	one, err := f.open(t, outside)
	if err != nil {
		return err
	}
	two, err := f.open(t, outside)
	if err != nil {
		return err
	}
	from, err := one.begin(1)
	if err := errors.Join(err, one.write(1, from, 1), one.flush(), one.write(1, f.Inputs[0].Mark.Next, 2)); err != nil {
		return err
	}
	at, err := two.begin(1)
	if err != nil {
		return err
	}
	if at < f.Inputs[0].Mark.Next || at > f.Inputs[1].Mark.Next {
		return fmt.Errorf("the second sink stands at %d, want %d or %d", at, f.Inputs[0].Mark.Next, f.Inputs[1].Mark.Next)
	}
	flushed := one.flush() // it may say that it could not, but must not
	if err := f.check(t, outside, at); err != nil && !(f.Race && f.check(t, outside, f.Inputs[1].Mark.Next) == nil) {
		return fmt.Errorf("the first sink was flushed (%v): %w", flushed, err)
	}
	if err := errors.Join(two.write(1, at, len(f.Inputs)), two.flush()); err != nil && !f.Race {
		return err
	}
	return f.finish(t, outside)
}

// finish lets a fresh sink write whatever is missing.
func (f FenceTest[O]) finish(t *testing.T, outside O) error {
	s, err := f.open(t, outside)
	if err != nil {
		return err
	}
	at, err := s.begin(1)
	if err := errors.Join(err, f.check(t, outside, at)); err != nil {
		return fmt.Errorf("at the third sink's position: %w", err)
	}
	return errors.Join(s.write(1, at, len(f.Inputs)), s.flush(), f.check(t, outside, f.end()))
}

// testBegunAnew ends an epoch while rows of it wait.
func (f FenceTest[O]) testBegunAnew(t *testing.T) error {
	outside := f.Outside(t)
	s, err := f.open(t, outside)
	if err != nil {
		return err
	}
	from, err := s.begin(1)
	if err := errors.Join(err, s.write(1, from, 2)); err != nil {
		return err
	}
	at, err := s.begin(2)
	if err := errors.Join(err, s.flush(), f.check(t, outside, at)); err != nil {
		return err
	}
	return errors.Join(s.write(2, at, len(f.Inputs)), s.flush(), f.check(t, outside, f.end()))
}

// testStale writes rows whose epoch has ended before they came.
func (f FenceTest[O]) testStale(t *testing.T) error {
	outside := f.Outside(t)
	s, err := f.open(t, outside)
	if err != nil {
		return err
	}
	_, err = s.begin(1)
	from, err2 := s.begin(2)
	if err := errors.Join(err, err2, s.write(1, from, 2), s.write(2, from, 1), s.write(1, from, 3)); err != nil {
		return err
	}
	if err := errors.Join(s.flush(), f.check(t, outside, f.Inputs[0].Mark.Next)); err != nil {
		return err
	}
	at := f.Inputs[0].Mark.Next
	return errors.Join(s.write(2, at, len(f.Inputs)), s.flush(), f.check(t, outside, f.end()))
}

// testSeal seals a partition, first under an epoch that has ended.
func (f FenceTest[O]) testSeal(t *testing.T) error {
	outside := f.Outside(t)
	s, err := f.open(t, outside)
	if err != nil {
		return err
	}
	sealer, ok := s.sink.(pipeline.Sealer)
	if !ok {
		return nil
	}
	_, err = s.begin(1)
	from, err2 := s.begin(2)
	if err := errors.Join(err, err2, s.write(2, from, 2)); err != nil {
		return err
	}
	mark := f.Inputs[1].Mark
	for _, mark.Epoch = range []int64{1, 2} {
		if err := sealer.Seal(context.Background(), mark); err != nil {
			return fmt.Errorf("seal epoch %d: %w", mark.Epoch, err)
		}
	}
	if err := s.await(); err != nil {
		return err
	}
	return f.check(t, outside, mark.Next)
}

// await waits until everything written is durable. A Notifier says when to look.
func (s *fenced) await() error {
	late := time.NewTimer(10 * time.Second)
	defer late.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	look := tick.C
	if s.raised != nil {
		look = nil
	}
	for s.sink.Durable() < s.n {
		select {
		case <-s.raised:
		case <-look:
		case <-late.C:
			return fmt.Errorf("Durable is %d ten seconds after Seal, or nobody was told that it rose; want %d", s.sink.Durable(), s.n)
		}
	}
	return nil
}
