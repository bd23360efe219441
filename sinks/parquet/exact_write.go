package parquet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/pipeline"
)

// enter takes use, or returns why nothing can be done.
func (s *ExactSink) enter(ctx context.Context) error {
	select {
	case s.use <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := ctx.Err()
	s.mu.Lock()
	switch {
	case s.err != nil:
		err = s.err
	case s.closed:
		err = fmt.Errorf("%s: the sink is closed", s.c.Path)
	case s.rows == nil:
		err = fmt.Errorf("%s: the sink is not bound to a schema", s.c.Path)
	}
	s.mu.Unlock()
	if err != nil {
		s.leave()
	}
	return err
}

// leave gives use back, without leaving behind what Position has given up.
func (s *ExactSink) leave() {
	s.clear()
	<-s.use
}

// clear discards what Position has given up. The caller holds use.
func (s *ExactSink) clear() {
	s.mu.Lock()
	trash := s.trash
	s.trash = nil
	s.mu.Unlock()
	for _, f := range trash {
		if err := s.discard(f); err != nil {
			s.c.Log.Warn("a file that was given up is left behind", "error", err)
		}
	}
}

// fail keeps the first error.
func (s *ExactSink) fail(err error) error {
	if err == nil {
		return nil
	}
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	err = s.err
	s.mu.Unlock()
	s.raised()
	return err
}

// Write fails: rows without their place cannot be written exactly once.
func (s *ExactSink) Write(context.Context, uint64, arrow.Record) error {
	return fmt.Errorf("%s: rows without their place in the source cannot be written exactly once", s.c.Path)
}

// WriteLetters takes the dead letters of batch n, whose WriteBatch comes next.
func (s *ExactSink) WriteLetters(ctx context.Context, _ uint64, letters arrow.Record, _ pipeline.Mark) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if s.letters == nil {
		return s.fail(fmt.Errorf("%s: the sink is not bound to a schema of dead letters", s.c.Path))
	}
	if s.pending == nil {
		s.pending = newTable(s.c.FS, s.letters, "", 0) // only its records are used
	}
	s.memory += s.pending.add(letters)
	return nil
}

// WriteBatch adds a batch to the file of its partition, and publishes that file
// when it is due. It waits while the disk is full, see ExactConfig.Stall. Rows of an
// epoch that is over are passed over.
func (s *ExactSink) WriteBatch(ctx context.Context, n uint64, rec arrow.Record, first int64, mark pipeline.Mark) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	s.begin()
	if err := s.accept(ctx, n, rec, first, mark); err != nil {
		return s.fail(fmt.Errorf("partition %q: %w", mark.Partition, err))
	}
	return s.fail(s.relieve(ctx))
}

// accept puts a batch where it belongs. The caller holds use.
func (s *ExactSink) accept(ctx context.Context, n uint64, rec arrow.Record, first int64, mark pipeline.Mark) error {
	letters := s.pending
	s.pending = nil
	if letters != nil {
		defer func() { s.memory -= letters.drop() }()
	}
	if n != s.written+1 {
		return fmt.Errorf("batch %d after batch %d", n, s.written)
	}
	if first < 0 || mark.Next < first || mark.Next == first && rec.NumRows() > 0 {
		return fmt.Errorf("batch %d has the range %d to %d", n, first, mark.Next)
	}
	f, err := s.fileFor(ctx, n, first, mark)
	if err != nil || f == nil {
		return err
	}
	s.memory += f.rows.add(rec)
	if letters != nil {
		if f.letters == nil {
			f.letters = newTable(s.c.FS, s.letters, PartitionFolder(f.part.name), f.first)
		}
		for _, l := range letters.recs {
			s.memory += f.letters.add(l)
		}
	}
	for _, t := range f.tables() {
		if t.bytes >= s.c.GroupBytes {
			if err := s.flushGroup(ctx, f, t); err != nil {
				return err
			}
		}
	}
	if !s.due(f) {
		return nil
	}
	return s.publish(ctx, f)
}

// fileFor returns the open file that a batch belongs to, and notes that the batch
// becomes durable with it; nil when the batch is done with. The caller holds use.
func (s *ExactSink) fileFor(ctx context.Context, n uint64, first int64, mark pipeline.Mark) (*exactFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.part(mark.Partition)
	// A file spans neither epochs nor positions that nobody has read: that would hide
	// rows that are lost.
	for f := p.file; f != nil && (f.epoch != mark.Epoch || f.next < first); f = p.file {
		s.mu.Unlock()
		err := s.publish(ctx, f)
		s.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	s.written = n
	f := p.file
	switch {
	case p.stale(mark.Epoch), f == nil && first == mark.Next:
		s.claim(n, nil)
		return nil, nil
	case f != nil && first < f.next:
		return nil, fmt.Errorf("rows %d to %d come after row %d was read", first, mark.Next, f.next)
	case f == nil && p.known && first < p.next:
		return nil, fmt.Errorf("rows %d to %d come, but %s holds the partition up to %d", first, mark.Next, s.c.Path, p.next)
	case f == nil:
		if p.known && first > p.next {
			s.c.Log.Warn("rows are missing between files", "partition", p.name, "from", p.next, "to", first)
		}
		f = &exactFile{part: p, epoch: mark.Epoch, first: first, since: s.c.Now(),
			rows: newTable(s.c.FS, s.rows, PartitionFolder(p.name), first)}
		p.file = f
	}
	f.next = mark.Next
	s.claim(n, f)
	return f, nil
}

// part returns what is known of a partition. The caller holds mu.
func (s *ExactSink) part(name string) *exactPart {
	p := s.parts[name]
	if p == nil {
		p = &exactPart{name: name}
		s.parts[name] = p
	}
	return p
}

// claim notes which file batch n becomes durable with. The caller holds mu.
func (s *ExactSink) claim(n uint64, f *exactFile) {
	if l := len(s.claims); l > 0 && s.claims[l-1].file == f {
		s.claims[l-1].last = n
	} else {
		s.claims = append(s.claims, claim{last: n, file: f})
	}
	s.advance()
}

// advance moves durable on. The caller holds mu.
func (s *ExactSink) advance() {
	for len(s.claims) > 0 && (s.claims[0].file == nil || s.claims[0].file.settled) {
		s.durable = s.claims[0].last
		s.claims = s.claims[1:]
	}
}

// due says whether a file is to be published. The caller holds use.
func (s *ExactSink) due(f *exactFile) bool {
	return f.rows.size() >= s.c.RollBytes || s.c.RollRows > 0 && f.rows.count >= s.c.RollRows || s.old(f)
}

func (s *ExactSink) old(f *exactFile) bool { return s.c.Now().Sub(f.since) >= s.c.RollAge }

// flushGroup writes what a table holds in memory. The caller holds use.
func (s *ExactSink) flushGroup(ctx context.Context, f *exactFile, t *table) error {
	if t == f.letters {
		t.out.name()
	}
	err := t.encode(s.trier(ctx, f))
	if err == nil {
		err = t.out.flush()
	}
	s.memory -= t.drop()
	switch {
	case errors.Is(err, errGone):
		return s.discard(f)
	case errors.Is(err, durable.ErrExists):
		return errors.Join(s.lose(f), s.discard(f))
	}
	return err
}

// relieve writes row groups of the largest files while all of them hold too much.
// The caller holds use.
func (s *ExactSink) relieve(ctx context.Context) error {
	s.clear()
	for s.memory > s.c.MaxMemory {
		f, t := s.largest()
		if t == nil {
			return nil
		}
		if err := s.flushGroup(ctx, f, t); err != nil {
			return fmt.Errorf("partition %q: %w", f.part.name, err)
		}
	}
	return nil
}

func (s *ExactSink) largest() (file *exactFile, most *table) {
	for _, f := range s.open(nil) {
		for _, t := range f.tables() {
			if t.memory > 0 && (most == nil || t.memory > most.memory) {
				file, most = f, t
			}
		}
	}
	return file, most
}

// open returns the open files for which ok is true, by partition.
func (s *ExactSink) open(ok func(*exactFile) bool) []*exactFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	var files []*exactFile
	for _, p := range s.parts {
		if p.file != nil && (ok == nil || ok(p.file)) {
			files = append(files, p.file)
		}
	}
	slices.SortFunc(files, func(a, b *exactFile) int { return strings.Compare(a.part.name, b.part.name) })
	return files
}

// Seal publishes what the partition has, if it is of the mark's epoch.
func (s *ExactSink) Seal(ctx context.Context, mark pipeline.Mark) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	return s.publishAll(ctx, func(f *exactFile) bool { return f.part.name == mark.Partition && f.epoch == mark.Epoch })
}

// Flush publishes what every partition has.
func (s *ExactSink) Flush(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	return s.publishAll(ctx, nil)
}

func (s *ExactSink) publishAll(ctx context.Context, ok func(*exactFile) bool) error {
	for _, f := range s.open(ok) {
		if err := s.publish(ctx, f); err != nil {
			return s.fail(fmt.Errorf("partition %q: %w", f.part.name, err))
		}
	}
	return nil
}

// begin starts the timer, with the first batch. The caller holds use.
func (s *ExactSink) begin() {
	if s.started {
		return
	}
	s.started = true
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.ended = cancel, make(chan struct{})
	go func() {
		defer close(s.ended)
		s.watch(ctx)
	}()
}

// watch publishes files that are old enough, also when no rows come. The sink does
// so itself, because Durable must not wait for a disk.
func (s *ExactSink) watch(ctx context.Context) {
	tick := time.NewTicker(min(max(s.c.RollAge/10, 10*time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if len(s.open(s.old)) == 0 {
			continue
		}
		if s.enter(ctx) != nil {
			return
		}
		err := s.publishAll(ctx, s.old)
		s.leave()
		if err != nil {
			return // Err tells
		}
	}
}

// Close ends the timer and gives up what is not published, without a trace under
// a final name.
func (s *ExactSink) Close() error {
	if s.started {
		s.stop()
		<-s.ended
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.clear()
	var errs []error
	for _, f := range s.open(nil) {
		errs = append(errs, s.discard(f))
		s.mu.Lock()
		f.part.file = nil
		s.mu.Unlock()
	}
	if s.pending != nil {
		s.memory -= s.pending.drop()
		s.pending = nil
	}
	return errors.Join(errs...)
}
