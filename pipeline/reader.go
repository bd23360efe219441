package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// findStart asks every sink what it holds and starts the source at the smallest
// mark of all. A plain sink holds what was committed, Config.From. So do the
// dead letters, which are asked for nothing: a row that failed is in no sink, and
// a start behind it would lose it.
func (e *engine) findStart(ctx context.Context) error {
	if a, ok := e.cfg.Source.(Assigner); ok {
		for _, l := range e.lanes {
			l.held = make(map[string]Mark)
		}
		e.start = e.cfg.From
		a.Assign(e.place)
		return nil
	}
	var holders []map[string]Mark
	var names []string
	for _, l := range e.lanes {
		marks := e.cfg.From
		if l.marks != nil {
			err := guard(func() (err error) {
				marks, err = l.marks.Position(ctx, nil)
				return err
			})
			if err != nil {
				return fmt.Errorf("position of sink %s: %w", l.name, err)
			}
		}
		held := make(map[string]Mark, len(marks))
		for _, m := range marks {
			if _, twice := held[m.Partition]; twice {
				return fmt.Errorf("position of sink %s: partition %q has two", l.name, m.Partition)
			}
			held[m.Partition] = m
		}
		l.held = held
		holders, names = append(holders, held), append(names, l.name)
		if e.cfg.faults.skipWrong && l != e.dead {
			l.held = shifted(held)
		}
	}
	if e.snaps { // the states stand at From, and must see each row behind it once
		from := make(map[string]Mark, len(e.cfg.From))
		for _, m := range e.cfg.From {
			from[m.Partition] = m
		}
		holders, names = append(holders, from), append(names, "the checkpoint")
	}
	var err error
	e.start, err = smallest(holders, names)
	if err == nil && e.snaps {
		err = e.checkStart()
	}
	return err
}

// place tells an Assigner where the sinks stand in partitions that have become
// its own, and notes what each one is to be spared.
func (e *engine) place(ctx context.Context, parts []Mark) ([]Place, error) {
	places := make([]Place, len(parts))
	// Dead letters of their own hold what the source has committed, see findStart:
	// it must not begin behind that.
	all := e.dead == nil || e.cfg.faults.deadUnasked
	for i, p := range parts {
		places[i] = Place{Mark: Mark{Partition: p.Partition, Epoch: p.Epoch}, All: all}
	}
	for _, l := range e.lanes {
		if l == e.dead {
			continue // it is asked for nothing
		}
		var marks []Mark
		if l.marks != nil {
			err := guard(func() (err error) {
				marks, err = l.marks.Position(ctx, parts)
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("position of sink %s: %w", l.name, err)
			}
		}
		l.mu.Lock()
		for i := range places {
			at := slices.IndexFunc(marks, func(m Mark) bool { return m.Partition == parts[i].Partition })
			old, again := l.held[parts[i].Partition]
			delete(l.held, parts[i].Partition)
			if at < 0 {
				places[i].All = false
				continue
			}
			m := Mark{Partition: parts[i].Partition, Epoch: parts[i].Epoch, Next: marks[at].Next}
			l.held[m.Partition] = m
			if again && e.cfg.faults.oldPositions {
				l.held[m.Partition] = Mark{Partition: m.Partition, Epoch: m.Epoch, Next: old.Next}
			}
			if !places[i].Some || m.Next < places[i].Mark.Next {
				places[i].Mark.Next = m.Next
			}
			places[i].Some = true
		}
		l.mu.Unlock()
	}
	return places, nil
}

// checkStart refuses a start before the place where the states stand.
func (e *engine) checkStart() error {
	for _, m := range e.cfg.From {
		i := slices.IndexFunc(e.start, func(s Mark) bool { return s.Partition == m.Partition })
		if i < 0 || e.start[i].Next < m.Next {
			return fmt.Errorf("partition %q: a sink holds less than row %d, where the states of the operators stand, "+
				"and they would see rows twice; start that sink together with a new checkpoint", m.Partition, m.Next)
		}
	}
	return nil
}

// smallest returns, for each partition that every holder knows, the smallest
// mark. The others start at their beginning and need none.
func smallest(holders []map[string]Mark, names []string) ([]Mark, error) {
	var marks []Mark
	for partition, low := range holders[0] {
		held := 1
		for i, h := range holders[1:] {
			m, ok := h[partition]
			if !ok {
				break
			}
			if !sameEpoch(m, low) {
				return nil, fmt.Errorf("partition %q: %s holds epoch %d and %s epoch %d; "+
					"the input has changed between them, so run them apart",
					partition, names[0], low.Epoch, names[i+1], m.Epoch)
			}
			if low.Epoch == 0 {
				low.Epoch = m.Epoch
			}
			low.Next = min(low.Next, m.Next)
			held++
		}
		if held == len(holders) {
			marks = append(marks, low)
		}
	}
	slices.SortFunc(marks, byPartition)
	return marks, nil
}

func sameEpoch(a, b Mark) bool { return a.Epoch == b.Epoch || a.Epoch == 0 || b.Epoch == 0 }

func byPartition(a, b Mark) int { return strings.Compare(a.Partition, b.Partition) }

// shifted is a planted fault: it claims that a sink holds one row more.
func shifted(held map[string]Mark) map[string]Mark {
	more := make(map[string]Mark, len(held))
	for p, m := range held {
		m.Next++
		more[p] = m
	}
	return more
}

// read is the reader. It ends both queues when the source ends, when the run is
// drained (nothing more is read) and when ctx is done.
func (e *engine) read(ctx context.Context) {
	defer close(e.jobs)
	defer close(e.order)
	ctx, stop := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-e.cfg.Drain:
			e.drained.Store(true)
			stop()
		case <-ctx.Done():
		}
	}()
	defer func() { stop(); <-watching }()

	r := reader{engine: e, last: make(map[string]Mark), snapped: time.Now()}
	err := guard(func() error { return r.loop(ctx) })
	if err != nil && !(e.drained.Load() && errors.Is(err, context.Canceled)) {
		e.fail(fmt.Errorf("source: %w", err))
	}
}

type reader struct {
	*engine
	last map[string]Mark // the last mark read in each partition
	turn []chan struct{} // the last job's after

	unsnapped int // batches since the last one with a snapshot
	snapped   time.Time
}

func (r *reader) loop(ctx context.Context) error {
	for b, err := range r.cfg.Source.Batches(ctx, r.start) {
		if err != nil {
			if b != nil {
				b.Release()
			}
			return err
		}
		if err := r.take(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// take checks a batch, cuts it and queues the parts. It owns b.
func (r *reader) take(ctx context.Context, b *Batch) error {
	if b == nil || b.Record == nil && !b.Seal {
		return errors.New("gave a batch without a record")
	}
	defer b.Release()
	if b.Seal {
		return r.seal(ctx, b)
	}
	if err := r.check(b); err != nil {
		return fmt.Errorf("partition %q, rows %d to %d: %w", b.Mark.Partition, b.First, b.Mark.Next, err)
	}
	bytes := recordBytes(b.Record)
	rows := b.Rows()
	for _, part := range cut(b, r.cuts(b)) {
		share := bytes
		if rows > 0 {
			share = int64(float64(bytes) * float64(part.Rows()) / float64(rows))
		}
		if r.gate.enter(ctx, share) != nil {
			part.Release() // ctx is done, which every later part finds too
			continue
		}
		r.queue(part, share)
	}
	return ctx.Err()
}

// seal queues a batch that only says that its partition is given up.
func (r *reader) seal(ctx context.Context, b *Batch) error {
	if b.Record != nil {
		return errors.New("gave a batch that seals a partition and has rows")
	}
	if err := r.gate.enter(ctx, 0); err != nil {
		return err
	}
	j := &job{batch: b, done: make(chan struct{})}
	close(j.done)
	r.order <- j
	return nil
}

// check refuses a batch that breaks the contract of Source, before its mark can
// do harm.
func (r *reader) check(b *Batch) error {
	if !b.Record.Schema().Equal(r.plan.Source) {
		return fmt.Errorf("the schema is not the source's own: got %v, want %v", b.Record.Schema(), r.plan.Source)
	}
	switch n := len(b.Positions); {
	case n == 0 && b.Rows() > 0 && b.Mark.Next-b.First != b.Rows():
		return fmt.Errorf("%d rows have gaps between them and no positions", b.Rows())
	case n != 0 && int64(n) != b.Rows():
		return fmt.Errorf("%d rows have %d positions", b.Rows(), n)
	case n != 0 && (b.Positions[0] < b.First || b.Positions[n-1] >= b.Mark.Next):
		return fmt.Errorf("positions %d to %d are outside of the batch", b.Positions[0], b.Positions[n-1])
	}
	last, ok := r.last[b.Mark.Partition]
	if ok && last.Epoch == b.Mark.Epoch && b.First < last.Next {
		return fmt.Errorf("the partition was read up to row %d already", last.Next)
	}
	r.last[b.Mark.Partition] = b.Mark
	return nil
}

// cuts returns the places inside of b where the position of a sink lies, rising.
func (r *reader) cuts(b *Batch) []int64 {
	var at []int64
	for _, l := range r.lanes {
		m, ok := l.holds(b.Mark.Partition)
		if ok && sameEpoch(m, b.Mark) && b.First < m.Next && m.Next < b.Mark.Next {
			at = append(at, m.Next)
		}
	}
	slices.Sort(at)
	return slices.Compact(at)
}

// cut parts b, so that no part straddles a place. The caller keeps b and owns the
// parts.
func cut(b *Batch, places []int64) []*Batch {
	if len(places) == 0 {
		b.Record.Retain()
		whole := *b
		return []*Batch{&whole}
	}
	var parts []*Batch
	first, row := b.First, int64(0)
	for _, place := range append(places, b.Mark.Next) {
		end := place - b.First
		if b.Positions != nil {
			i, _ := slices.BinarySearch(b.Positions, place)
			end = int64(i)
		}
		part := &Batch{Record: b.Record.NewSlice(row, end), Mark: b.Mark, First: first}
		part.Mark.Next = place
		if b.Positions != nil {
			part.Positions = b.Positions[row:end]
		}
		parts = append(parts, part)
		first, row = place, end
	}
	return parts
}

// queue sends a batch that has entered the gate to the workers and the writer.
// Both queues have room for all that the gate lets in.
func (r *reader) queue(b *Batch, bytes int64) {
	r.stats.Batches++
	r.stats.RowsRead += b.Rows()
	r.cfg.Hooks.Read(b.Mark.Partition, b.Rows(), bytes)
	j := &job{batch: b, rows: b.Rows(), bytes: bytes, before: r.turn, done: make(chan struct{})}
	for range stateful(r.segments) {
		j.after = append(j.after, make(chan struct{}))
	}
	r.turn = j.after
	r.unsnapped++
	if r.snaps && (r.unsnapped >= r.cfg.CommitBatches || time.Since(r.snapped) >= r.cfg.CommitInterval) {
		j.snap, r.unsnapped, r.snapped = true, 0, time.Now()
	}
	r.order <- j
	r.jobs <- j
}
