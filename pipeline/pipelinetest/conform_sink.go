package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
)

// A SinkTest says how to test a Sink.
type SinkTest struct {
	// New returns a sink that is not yet bound, on top of what fsys holds. A sink
	// that uses no files ignores fsys. The test closes it. An error of fsys is
	// returned and is no failure.
	New func(t *testing.T, fsys *FS) (pipeline.Sink, error)
	// Inputs are at least two records of one schema with rows in each.
	Inputs []arrow.Record
	// Read returns what a reader finds under final names, in the order written.
	// The test releases the records. Nil leaves out what needs a reader.
	Read func(t *testing.T, fsys *FS) []arrow.Record
	// OneOutput says that nothing can be written after a Flush.
	OneOutput bool
}

// A MarkedBatch is a record and its place in a source.
type MarkedBatch struct {
	Record arrow.Record
	First  int64
	Mark   pipeline.Mark
}

// A MarkWriterTest says how to test a MarkWriter. Its fields are those of
// SinkTest.
type MarkWriterTest struct {
	New       func(t *testing.T, fsys *FS) (pipeline.MarkWriter, error)
	Inputs    []MarkedBatch // in order within each partition; at least two
	Read      func(t *testing.T, fsys *FS) []arrow.Record
	OneOutput bool
}

// Sink checks the contract of pipeline.Sink, also when every single call of the
// file system fails, and when the power goes at every single call.
func Sink(t *testing.T, s SinkTest) {
	c := sinkCheck{SinkTest: s}
	for _, rec := range s.Inputs {
		c.batches = append(c.batches, MarkedBatch{Record: rec})
	}
	c.run(t)
}

// MarkWriter checks the contract of pipeline.MarkWriter: what Sink checks, and
// that its position tells exactly which rows it holds, after every crash.
func MarkWriter(t *testing.T, m MarkWriterTest) {
	c := sinkCheck{marked: true, batches: m.Inputs}
	c.SinkTest = SinkTest{
		New:  func(t *testing.T, fsys *FS) (pipeline.Sink, error) { return m.New(t, fsys) },
		Read: m.Read, OneOutput: m.OneOutput,
	}
	c.run(t)
}

// A sinkCheck is either test.
type sinkCheck struct {
	SinkTest
	marked  bool
	batches []MarkedBatch
}

func (c sinkCheck) run(t *testing.T) {
	for _, check := range []struct {
		name string
		f    func(*testing.T) error
	}{
		{"durable", c.testDurable},
		{"nothing written", c.testNothing},
		{"batches without rows", c.testNoRows},
		{"after flush", c.testAfterFlush},
		{"close without flush", c.testGiveUp},
		{"borrows", c.testBorrows},
		{"failures", c.testFailures},
		{"disk full", c.testDiskFull},
		{"crashes", c.testCrashes},
	} {
		t.Run(check.name, func(t *testing.T) {
			if err := check.f(t); err != nil {
				t.Error(err)
			}
		})
	}
}

// A sinkRun is a sink in use, and the first promise that it broke.
type sinkRun struct {
	c       sinkCheck
	sink    pipeline.Sink
	written uint64
	durable uint64
	broken  error
}

// start makes and binds a sink.
func (c sinkCheck) start(t *testing.T, fsys *FS) (*sinkRun, error) {
	sink, err := c.New(t, fsys)
	if err != nil {
		return nil, err
	}
	r := &sinkRun{c: c, sink: sink}
	if err := sink.Bind(c.batches[0].Record.Schema()); err != nil {
		return nil, errors.Join(err, sink.Close())
	}
	if c.marked {
		if _, err := sink.(pipeline.MarkWriter).Position(context.Background(), nil); err != nil {
			return nil, errors.Join(err, sink.Close())
		}
	}
	r.look()
	return r, nil
}

// look checks Durable.
func (r *sinkRun) look() {
	n := r.sink.Durable()
	switch {
	case r.broken != nil:
	case n < r.durable:
		r.broken = fmt.Errorf("Durable fell from %d to %d", r.durable, n)
	case n > r.written:
		r.broken = fmt.Errorf("Durable is %d after %d batches", n, r.written)
	}
	r.durable = n
}

func (r *sinkRun) write(b MarkedBatch) error {
	n := r.written + 1
	r.written = n // Durable may already count a batch whose Write fails
	var err error
	if r.c.marked {
		err = r.sink.(pipeline.MarkWriter).WriteBatch(context.Background(), n, b.Record, b.First, b.Mark)
	} else {
		err = r.sink.Write(context.Background(), n, b.Record)
	}
	r.look()
	if err != nil {
		return fmt.Errorf("write batch %d: %w", n, err)
	}
	return nil
}

func (r *sinkRun) flush() error {
	err := r.sink.Flush(context.Background())
	r.look()
	if err == nil && r.broken == nil && r.durable != r.written {
		r.broken = fmt.Errorf("after Flush Durable is %d, want %d", r.durable, r.written)
	}
	if err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// all writes every batch, flushes and closes. It stops at the first error, and
// closes in any case.
func (r *sinkRun) all() error {
	var err error
	for _, b := range r.c.batches {
		if err = r.write(b); err != nil {
			break
		}
	}
	if err == nil {
		err = r.flush()
	}
	return errors.Join(err, r.sink.Close())
}

func (c sinkCheck) rows(batches []MarkedBatch) []string {
	var rows []string
	for _, b := range batches {
		rows = append(rows, Render(b.Record)...)
	}
	return rows
}

func (c sinkCheck) found(t *testing.T, fsys *FS) []string {
	recs := c.Read(t, fsys)
	defer func() {
		for _, r := range recs {
			r.Release()
		}
	}()
	return renderAll(recs)
}

func (c sinkCheck) testDurable(t *testing.T) error {
	fsys := NewFS()
	r, err := c.start(t, fsys)
	if err != nil {
		return err
	}
	if err := errors.Join(r.all(), r.broken); err != nil || c.Read == nil {
		return err
	}
	if d := differ(c.found(t, fsys), c.rows(c.batches)); d != "" {
		return fmt.Errorf("a reader finds %s", d)
	}
	return c.checkLeft(fsys)
}

// checkLeft checks that no file is open and no draft is left.
func (c sinkCheck) checkLeft(fsys *FS) error {
	if open := fsys.Open(); len(open) > 0 {
		return fmt.Errorf("files were left open: %v", open)
	}
	for _, line := range fsys.Log() {
		if strings.HasPrefix(line, "!remove") {
			return nil // it tried
		}
	}
	if temps := fsys.Temporaries(); len(temps) > 0 {
		return fmt.Errorf("drafts were left: %v", temps)
	}
	return nil
}

func (c sinkCheck) testNothing(t *testing.T) error {
	fsys := NewFS()
	r, err := c.start(t, fsys)
	if err != nil {
		return err
	}
	if err := errors.Join(r.flush(), r.sink.Close(), r.broken); err != nil || c.Read == nil {
		return err
	}
	if n := len(c.found(t, fsys)); n != 0 {
		return fmt.Errorf("a reader finds %d rows, want none", n)
	}
	return c.checkLeft(fsys)
}

// testNoRows writes batches whose rows were all dropped before, with one batch of
// rows between them.
func (c sinkCheck) testNoRows(t *testing.T) error {
	fsys := NewFS()
	own := sinkCheck{SinkTest: c.SinkTest, marked: c.marked}
	var want []MarkedBatch
	for i, b := range c.batches {
		if i != 1 {
			b.Record = b.Record.NewSlice(0, 0)
			defer b.Record.Release()
		} else {
			want = append(want, b)
		}
		own.batches = append(own.batches, b)
	}
	r, err := own.start(t, fsys)
	if err != nil {
		return err
	}
	if err := errors.Join(r.all(), r.broken); err != nil || c.Read == nil {
		return err
	}
	if d := differ(c.found(t, fsys), c.rows(want)); d != "" {
		return fmt.Errorf("a reader finds %s", d)
	}
	return c.checkLeft(fsys)
}

func (c sinkCheck) testAfterFlush(t *testing.T) error {
	fsys := NewFS()
	r, err := c.start(t, fsys)
	if err != nil {
		return err
	}
	for i, b := range c.batches {
		err := r.write(b)
		if c.OneOutput && i > 0 {
			if err == nil {
				err = errors.New("written after Flush without an error")
			} else {
				err = nil
			}
			return errors.Join(err, r.sink.Close(), r.broken)
		}
		if err := errors.Join(err, r.flush()); err != nil {
			return errors.Join(err, r.sink.Close())
		}
	}
	if err := errors.Join(r.sink.Close(), r.broken); err != nil || c.Read == nil {
		return err
	}
	if d := differ(c.found(t, fsys), c.rows(c.batches)); d != "" {
		return fmt.Errorf("flushed after each batch, a reader finds %s", d)
	}
	return c.checkLeft(fsys)
}

// testGiveUp closes without a Flush: what is not durable leaves nothing behind.
func (c sinkCheck) testGiveUp(t *testing.T) error {
	fsys := NewFS()
	r, err := c.start(t, fsys)
	if err != nil {
		return err
	}
	for _, b := range c.batches {
		if err := r.write(b); err != nil {
			return errors.Join(err, r.sink.Close())
		}
	}
	var before []string
	if c.Read != nil {
		before = c.found(t, fsys)
	}
	if err := errors.Join(r.sink.Close(), r.broken); err != nil || c.Read == nil {
		return err
	}
	if d := differ(c.found(t, fsys), before); d != "" {
		return fmt.Errorf("Close without Flush changed what a reader finds: %s", d)
	}
	return errors.Join(c.checkLeft(fsys), c.checkFound(t, fsys, r))
}

// testBorrows checks that no input is kept past Close, nor changed.
func (c sinkCheck) testBorrows(t *testing.T) error {
	for _, flush := range []bool{true, false} {
		mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
		own := sinkCheck{SinkTest: c.SinkTest, marked: c.marked}
		for _, b := range c.batches {
			b.Record = Copy(t, mem, b.Record)
			own.batches = append(own.batches, b)
		}
		r, err := own.start(t, NewFS())
		if err != nil {
			return err
		}
		for _, b := range own.batches {
			err = errors.Join(err, r.write(b))
		}
		if flush {
			err = errors.Join(err, r.flush())
		}
		err = errors.Join(err, r.sink.Close())
		if d := differ(own.rows(own.batches), c.rows(c.batches)); d != "" {
			err = errors.Join(err, fmt.Errorf("the sink changed its input: %s", d))
		}
		for _, b := range own.batches {
			b.Record.Release()
		}
		if n := mem.CurrentAlloc(); n != 0 {
			err = errors.Join(err, fmt.Errorf("after Close the sink keeps %d bytes of its input", n))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// testFailures makes each call of the file system fail in turn. The sink must
// tell, or have got over it.
func (c sinkCheck) testFailures(t *testing.T) error {
	return c.everyCall(t, func(fsys *FS, n int) { fsys.FailAt(n, syscall.EIO) }, func(fsys *FS, r *sinkRun) error {
		return errors.Join(c.checkLeft(fsys), c.checkFound(t, fsys, r))
	})
}

func (c sinkCheck) testDiskFull(t *testing.T) error {
	return c.everyCall(t, func(fsys *FS, n int) { fsys.LimitSpace(n * n) }, func(fsys *FS, r *sinkRun) error {
		return errors.Join(c.checkLeft(fsys), c.checkFound(t, fsys, r))
	})
}

// testCrashes cuts the power at each call in turn, and looks at what is found by
// three choices of luck.
func (c sinkCheck) testCrashes(t *testing.T) error {
	return c.everyCall(t, func(fsys *FS, n int) { fsys.CutAt(n) }, func(fsys *FS, r *sinkRun) error {
		for seed := range uint64(3) {
			if err := c.checkFound(t, fsys.Crash(seed), r); err != nil {
				return fmt.Errorf("crash with seed %d: %w", seed, err)
			}
		}
		return nil
	})
}

// everyCall runs the sink once for each call that it makes of the file system,
// with harm done at that call, and checks what is left.
func (c sinkCheck) everyCall(t *testing.T, harm func(fsys *FS, n int), check func(*FS, *sinkRun) error) error {
	fsys := NewFS()
	r, err := c.start(t, fsys)
	if err != nil {
		return err
	}
	if err := r.all(); err != nil {
		return err
	}
	for n := range fsys.Calls() {
		fsys := NewFS()
		harm(fsys, n+1)
		r, err := c.start(t, fsys)
		if err == nil {
			err = errors.Join(r.all(), r.broken)
			if r.broken != nil {
				return fmt.Errorf("harm at call %d: %w", n+1, err)
			}
		}
		if r == nil {
			r = &sinkRun{c: c}
		}
		if checked := check(fsys, r); checked != nil {
			return fmt.Errorf("harm at call %d (%s; the sink said: %v): %w", n+1, logLine(fsys, n), err, checked)
		}
		if err == nil && r.durable != uint64(len(c.batches)) {
			return fmt.Errorf("harm at call %d (%s): no error, and %d batches are durable", n+1, logLine(fsys, n), r.durable)
		}
	}
	return nil
}

func logLine(fsys *FS, n int) string {
	if log := fsys.Log(); n < len(log) {
		return log[n]
	}
	return "not made"
}

// checkFound checks that a reader finds the rows that the sink called durable,
// and no rows but the first ones written.
func (c sinkCheck) checkFound(t *testing.T, fsys *FS, r *sinkRun) error {
	if c.Read == nil {
		return nil
	}
	fsys.heal()
	got := c.found(t, fsys)
	if c.marked {
		return c.checkPosition(t, fsys, got, r)
	}
	all, least := c.rows(c.batches), len(c.rows(c.batches[:r.durable]))
	if len(got) < least {
		return fmt.Errorf("a reader finds %d rows; Durable is %d, which are %d rows", len(got), r.durable, least)
	}
	if len(got) > len(all) {
		return fmt.Errorf("a reader finds %d rows; %d were written", len(got), len(all))
	}
	if d := differ(got, all[:len(got)]); d != "" {
		return fmt.Errorf("a reader finds %s", d)
	}
	return nil
}

// checkPosition checks that the rows found are those before the position that a
// fresh sink tells.
func (c sinkCheck) checkPosition(t *testing.T, fsys *FS, got []string, r *sinkRun) error {
	after, err := c.New(t, fsys)
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	defer after.Close()
	if err := after.Bind(c.batches[0].Record.Schema()); err != nil {
		return fmt.Errorf("bind again: %w", err)
	}
	marks, err := after.(pipeline.MarkWriter).Position(context.Background(), nil)
	if err != nil {
		return fmt.Errorf("position again: %w", err)
	}
	var held []MarkedBatch
	for i, b := range c.batches {
		has := slices.ContainsFunc(marks, func(m pipeline.Mark) bool {
			return m.Partition == b.Mark.Partition && m.Next >= b.Mark.Next
		})
		if has {
			held = append(held, b)
		} else if uint64(i) < r.durable {
			return fmt.Errorf("batch %d was durable, but is behind the position %v", i+1, marks)
		}
	}
	want := c.rows(held)
	slices.Sort(got)
	slices.Sort(want)
	if d := differ(got, want); d != "" {
		return fmt.Errorf("the position is %v, but (rows sorted) %s", marks, d)
	}
	return nil
}
