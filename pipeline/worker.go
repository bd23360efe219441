package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
)

// A segment is a run of operators that is applied, and applied again to parts,
// as a whole: either one stateful operator, or the others between two of these.
// Rows that fail are then known by their place in the segment's input, and a
// stateful operator never sees a row twice because of a failure elsewhere.
type segment struct {
	first, end int // operators [first, end)
	turn       int // which stateful operator it is, from 0; -1 for none
}

func segments(ops []NamedOperator) []segment {
	var segs []segment
	turns := 0
	for i, op := range ops {
		if _, ok := op.Operator.(Stateful); ok {
			segs = append(segs, segment{first: i, end: i + 1, turn: turns})
			turns++
			continue
		}
		if n := len(segs); n > 0 && segs[n-1].turn < 0 {
			segs[n-1].end = i + 1
			continue
		}
		segs = append(segs, segment{first: i, end: i + 1, turn: -1})
	}
	return segs
}

// stateful returns how many segments hold a stateful operator.
func stateful(segs []segment) int {
	n := 0
	for _, s := range segs {
		if s.turn >= 0 {
			n++
		}
	}
	return n
}

// work is one worker: it takes jobs until there are no more.
func (e *engine) work(ctx context.Context) {
	for j := range e.jobs {
		if j.err = ctx.Err(); j.err == nil {
			j.err = guard(func() error { return e.apply(ctx, j) })
		}
		if j.err != nil {
			j.release()
		}
		j.batch.Release()
		close(j.done)
	}
}

// apply runs the whole chain on a job's record and fills in its result.
func (e *engine) apply(ctx context.Context, j *job) error {
	j.batch.Record.Retain()
	f := flow{rec: j.batch.Record, known: true}
	defer func() { f.rec.Release() }()
	if e.decoder != nil {
		if err := e.decode(ctx, &f, j); err != nil {
			return fmt.Errorf("partition %q, rows %d to %d: %w", j.batch.Mark.Partition, j.batch.First, j.batch.Mark.Next, err)
		}
	}
	for _, seg := range e.segments {
		if err := wait(ctx, j, seg); err != nil {
			return err
		}
		if f.rec.NumRows() > 0 || len(j.dead) == 0 {
			next, err := e.pass(ctx, seg, f, j)
			if err != nil {
				return fmt.Errorf("partition %q, rows %d to %d: %w", j.batch.Mark.Partition, j.batch.First, j.batch.Mark.Next, err)
			}
			f.rec.Release()
			f = next
		} else { // every row is a dead letter already
			f.rec.Release()
			f.rec = emptyRecord(e.cfg.Allocator, e.plan.Steps[seg.end-1].Schema)
		}
		if seg.turn >= 0 {
			if err := e.snapshot(seg, j); err != nil {
				return err
			}
			close(j.after[seg.turn])
		}
	}
	if err := e.bury(j); err != nil {
		return err
	}
	f.rec.Retain()
	j.out = f.rec
	bytes := recordBytes(j.out)
	if j.letters != nil {
		bytes += recordBytes(j.letters)
	}
	e.gate.resize(j.bytes, bytes)
	j.bytes = bytes
	return nil
}

// decodeName is what errors, metrics and dead letters call the Decoder.
const decodeName = "decode"

// decode turns the messages of f into rows; those that cannot be read join the
// job's dead rows.
func (e *engine) decode(ctx context.Context, f *flow, j *job) error {
	var d Decoded
	began := time.Now()
	err := guard(func() (err error) {
		d, err = e.decoder.Decode(ctx, f.rec)
		return err
	})
	if err == nil {
		err = checkDecoded(d, f.rec.NumRows(), e.plan.Rows)
	}
	e.cfg.Hooks.Applied(decodeName, f.rec.NumRows(), time.Since(began), err)
	if err != nil {
		if d.Record != nil {
			d.Record.Release()
		}
		return &opError{operator: decodeName, err: err, fatal: true}
	}
	if len(d.Bad) > 0 && e.cfg.OnError == Fail {
		d.Record.Release()
		bad := d.Bad[0]
		return &opError{operator: decodeName, fatal: true,
			err: fmt.Errorf("the message at %d: %w", j.position(bad.Message), bad.Err)}
	}
	f.rec.Release()
	f.rec, f.origin = d.Record, d.Origin
	for _, b := range d.Bad {
		j.dead = append(j.dead, deadRow{row: b.Message, err: &opError{operator: decodeName, err: b.Err}})
	}
	return nil
}

// checkDecoded refuses a result that breaks the contract of Decoder.
func checkDecoded(d Decoded, messages int64, schema *arrow.Schema) error {
	switch {
	case d.Record == nil:
		return errors.New("gave neither a record nor an error")
	case !d.Record.Schema().Equal(schema):
		return fmt.Errorf("the schema is not the one it was bound to: got %v, want %v", d.Record.Schema(), schema)
	case d.Origin == nil && d.Record.NumRows() != messages:
		return fmt.Errorf("made %d rows of %d messages, and does not say of which", d.Record.NumRows(), messages)
	case d.Origin != nil && int64(len(d.Origin)) != d.Record.NumRows():
		return fmt.Errorf("named the messages of %d rows and made %d", len(d.Origin), d.Record.NumRows())
	}
	last := 0
	for _, o := range d.Origin {
		if o < last || int64(o) >= messages {
			return fmt.Errorf("named message %d behind message %d, of %d", o, last, messages)
		}
		last = o
	}
	last = -1
	for _, b := range d.Bad {
		if b.Message <= last || int64(b.Message) >= messages {
			return fmt.Errorf("named bad message %d behind message %d, of %d", b.Message, last, messages)
		}
		if b.Err == nil {
			return fmt.Errorf("named bad message %d without an error", b.Message)
		}
		if _, has := slices.BinarySearch(d.Origin, b.Message); has || d.Origin == nil {
			return fmt.Errorf("made rows of message %d, which it calls bad", b.Message)
		}
		last = b.Message
	}
	return nil
}

// restore gives the stateful operators the states of the last checkpoint.
func (e *engine) restore() error {
	for _, op := range e.cfg.Operators {
		s, ok := op.Operator.(Stateful)
		state, saved := e.cfg.States[op.Name]
		if !ok || !saved {
			continue
		}
		if err := guard(func() error { return s.Restore(state) }); err != nil {
			return fmt.Errorf("operator %s: restore its state: %w", op.Name, err)
		}
	}
	return nil
}

// snapshot notes the state of the stateful operator of seg behind a job, while
// no other job can be in it.
func (e *engine) snapshot(seg segment, j *job) error {
	if !j.snap {
		return nil
	}
	if j.states == nil {
		j.states = make(map[string][]byte)
	}
	return e.snapshotInto(j.states, seg)
}

func (e *engine) snapshotInto(states map[string][]byte, seg segment) error {
	op := e.cfg.Operators[seg.first]
	err := guard(func() (err error) {
		states[op.Name], err = op.Operator.(Stateful).Snapshot()
		return err
	})
	if err != nil {
		return fmt.Errorf("operator %s: snapshot of its state: %w", op.Name, err)
	}
	return nil
}

// wait holds a job back until the one before it has passed the stateful operator
// of seg. A job that fails never lets the next one pass; ctx ends that wait.
func wait(ctx context.Context, j *job, seg segment) error {
	if seg.turn < 0 || j.before == nil {
		return ctx.Err()
	}
	select {
	case <-j.before[seg.turn]:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pass applies a segment, to parts when need be. It borrows f; the caller owns
// the record of the result.
func (e *engine) pass(ctx context.Context, seg segment, f flow, j *job) (flow, error) {
	out, err := e.applySegment(ctx, seg, f.rec)
	if err == nil {
		f.known = f.known && out.NumRows() == f.rec.NumRows()
		f.rec = out
		return f, nil
	}
	if e.cfg.OnError == Fail {
		return flow{}, err
	}
	return e.part(ctx, seg, f, j, err)
}

// An opError is what an operator did wrong. A fatal one stops the run whatever
// Config.OnError says.
type opError struct {
	operator string
	err      error
	fatal    bool
}

func (e *opError) Error() string { return fmt.Sprintf("operator %s: %v", e.operator, e.err) }
func (e *opError) Unwrap() error { return e.err }

// applySegment borrows rec; the caller owns the result. Its errors are opErrors.
func (e *engine) applySegment(ctx context.Context, seg segment, rec arrow.Record) (arrow.Record, error) {
	rec.Retain()
	for i := seg.first; i < seg.end; i++ {
		out, err := e.applyOne(ctx, i, rec, seg.turn >= 0)
		rec.Release()
		if err != nil {
			return nil, err
		}
		rec = out
	}
	return rec, nil
}

func (e *engine) applyOne(ctx context.Context, i int, rec arrow.Record, stateful bool) (arrow.Record, error) {
	op := e.cfg.Operators[i]
	var out arrow.Record
	began := time.Now()
	err := guard(func() (err error) {
		out, err = op.Operator.Apply(ctx, rec)
		return err
	})
	e.cfg.Hooks.Applied(op.Name, rec.NumRows(), time.Since(began), err)
	if err != nil {
		if out != nil {
			out.Release()
		}
		var panicked *PanicError
		fatal := ctx.Err() != nil || stateful && errors.As(err, &panicked)
		return nil, &opError{operator: op.Name, err: err, fatal: fatal}
	}
	if err := checkResult(out, rec.NumRows(), e.plan.Steps[i].Schema); err != nil {
		if out != nil {
			out.Release()
		}
		return nil, &opError{operator: op.Name, err: err, fatal: true}
	}
	return out, nil
}

// checkResult refuses a record that breaks the contract of Operator.
func checkResult(out arrow.Record, rows int64, schema *arrow.Schema) error {
	switch {
	case out == nil:
		return errors.New("gave neither a record nor an error")
	case out.NumRows() > rows:
		return fmt.Errorf("made %d rows of %d; it may not add any", out.NumRows(), rows)
	case !out.Schema().Equal(schema):
		return fmt.Errorf("the schema is not the one it was bound to: got %v, want %v", out.Schema(), schema)
	}
	return nil
}
