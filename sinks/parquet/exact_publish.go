package parquet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/pipeline"
)

// The steps of a publication, each of which may be the last one before a crash:
//
//	1. the dead letters, if any, are made durable under their temporary name
//	2. the rows likewise, with the letters' tag in their footer
//	3. link(2) gives the rows their final name: from here on the range is published
//	4. the folder is made durable, and the rows' temporary name goes
//	5. the dead letters get their final name; after a crash Position does that
//
// So letters never become visible without their rows, and rows never lose them.

// errGone says that the epoch of a file has ended.
var errGone = errors.New("the epoch is over")

// publish completes a file and gives it its name. It returns nil also when the
// rows are not wanted any more. The caller holds use.
func (s *ExactSink) publish(ctx context.Context, f *exactFile) error {
	err := s.prepare(ctx, f)
	if err == nil {
		err = s.try(ctx, f, func() error { return s.linkRows(f) })
	}
	switch {
	case errors.Is(err, errGone):
		return s.discard(f)
	case errors.Is(err, durable.ErrExists), errors.Is(err, fs.ErrNotExist):
		// Somebody else was faster, or took this sink for dead and swept its draft.
		return errors.Join(s.lose(f), s.discard(f))
	case err != nil:
		return err
	}
	if err := s.settle(ctx, f); err != nil {
		return err
	}
	rows, next := f.rows, f.next
	s.memory -= rows.drop()
	if f.letters != nil {
		s.memory -= f.letters.drop()
	}
	s.mu.Lock()
	if f.part.file == f {
		f.part.file = nil
	}
	f.part.next, f.part.known = next, true
	f.settled = true
	s.advance()
	s.mu.Unlock()
	s.raised()
	s.c.Log.Info("file published", "path", rows.path, "rows", rows.count, "next", next, "bytes", rows.w.Size())
	return nil
}

// prepare makes the content of a file durable under temporary names.
func (s *ExactSink) prepare(ctx context.Context, f *exactFile) error {
	if f.letters != nil {
		f.letters.out.name() // before the rows' footer names it
	}
	for _, t := range f.tables() {
		if err := s.complete(ctx, f, t); err != nil {
			return err
		}
	}
	if f.letters == nil {
		return nil
	}
	dir := filepath.Dir(f.letters.path)
	return s.try(ctx, f, func() error { return s.c.FS.SyncDir(dir) })
}

// complete writes the rest of a table and makes it durable. A sync that fails has
// lost nobody knows what; while all of the table is in memory it is written anew.
func (s *ExactSink) complete(ctx context.Context, f *exactFile, t *table) error {
	whole := t.w == nil
	return s.try(ctx, f, func() error {
		err := t.encode(s.trier(ctx, f))
		if err == nil {
			err = t.finish(f, s.c.Now())
		}
		if err == nil {
			err = t.out.draft.Complete()
		}
		if err == nil || errors.Is(err, durable.ErrExists) || errors.Is(err, errGone) {
			return err
		}
		if !whole {
			return &stuckError{err: err, why: "the rows are read again by the next run"}
		}
		return errors.Join(err, t.undo())
	})
}

// linkRows is step 3. It holds the partition's link lock, so that Position either
// sees the file or has ended its epoch before.
func (s *ExactSink) linkRows(f *exactFile) error {
	f.part.link.Lock()
	defer f.part.link.Unlock()
	s.mu.Lock()
	gone := f.gone
	s.mu.Unlock()
	if gone {
		return errGone
	}
	if err := f.rows.out.draft.Link(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.linked = true
	return nil
}

// settle does steps 4 and 5. The epoch may be over meanwhile: the rows are
// published, and stay so.
func (s *ExactSink) settle(ctx context.Context, f *exactFile) error {
	rows := f.rows.out.draft
	if err := s.try(ctx, nil, rows.Settle); err != nil {
		return err
	}
	if f.letters == nil {
		return nil
	}
	letters := f.letters.out.draft
	err := s.try(ctx, nil, letters.Replace)
	if err == nil {
		err = s.try(ctx, nil, letters.Settle)
	}
	if err != nil {
		return fmt.Errorf("dead letters of %s: %w", f.rows.path, err)
	}
	return nil
}

// lose ends the epoch of a file whose range somebody else has published.
func (s *ExactSink) lose(f *exactFile) error {
	s.mu.Lock()
	if f.gone { // Position was faster
		s.mu.Unlock()
		return nil
	}
	mark := pipeline.Mark{Partition: f.part.name, Epoch: f.epoch, Next: f.first}
	told := s.c.OnLost != nil || s.lost != nil
	s.mu.Unlock()
	s.c.Log.Warn("another owner has published these rows; they are thrown away",
		"path", f.rows.path, "partition", mark.Partition, "epoch", mark.Epoch, "first", f.first, "next", f.next)
	// First, so that the source ignores the marks of rows that were thrown away.
	if s.c.OnLost != nil {
		s.c.OnLost(mark)
	} else if s.lost != nil {
		s.lost(mark.Partition, mark.Epoch)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !told {
		return &LostError{Partition: mark.Partition, First: f.first, Next: f.next, Path: f.rows.path}
	}
	s.fence(f.part, f.epoch+1)
	return nil
}

// fence ends the epochs of a partition before oldest. The caller holds mu.
func (s *ExactSink) fence(p *exactPart, oldest int64) {
	if !p.fenced || p.oldest < oldest {
		p.fenced, p.oldest = true, oldest
	}
	f := p.file
	if f == nil || !p.stale(f.epoch) || f.linked {
		return
	}
	f.gone, f.settled = true, true
	p.file = nil
	s.trash = append(s.trash, f)
	s.advance()
}

// discard gives up what a file holds. It may be called again. The caller holds use.
func (s *ExactSink) discard(f *exactFile) error {
	var errs []error
	for _, t := range f.tables() {
		s.memory -= t.drop()
		s.mu.Lock()
		keep := f.linked && t == f.letters // for Position, see step 5
		s.mu.Unlock()
		if t.w != nil {
			t.w.Discard()
			t.w = nil
		}
		if keep {
			continue
		}
		errs = append(errs, t.out.discard())
	}
	return errors.Join(errs...)
}

// A stuckError is one of the disk's that there is no sense in trying again.
type stuckError struct {
	err error
	why string
}

func (e *stuckError) Error() string { return e.err.Error() + ": " + e.why }
func (e *stuckError) Unwrap() error { return e.err }

// passing says whether an error of the disk may be gone in a while.
func passing(err error) bool {
	var stuck *stuckError
	if errors.As(err, &stuck) {
		return false
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}

const (
	firstWait = 50 * time.Millisecond
	maxWait   = 2 * time.Second
)

// try calls op until it succeeds, fails for good, or has failed for as long as
// ExactConfig.Stall. It ends with errGone when the epoch of f is over meanwhile; a
// nil f has none.
func (s *ExactSink) try(ctx context.Context, f *exactFile, op func() error) error {
	var until time.Time
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		if s.isGone(f) {
			return errGone
		}
		err := op()
		if err == nil || !passing(err) {
			return err
		}
		if until.IsZero() {
			until = time.Now().Add(s.c.Stall)
			s.c.Log.Warn("the output is stuck; trying again", "for", max(s.c.Stall, 0), "error", err)
		}
		if !time.Now().Before(until) {
			return &stuckError{err: err, why: fmt.Sprintf("free some space or write elsewhere; %d batches are safe", s.Durable())}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return &stuckError{err: ctx.Err(), why: err.Error()}
		case <-timer.C:
		}
	}
}

func (s *ExactSink) trier(ctx context.Context, f *exactFile) func(func() error) error {
	return func(op func() error) error { return s.try(ctx, f, op) }
}

func (s *ExactSink) isGone(f *exactFile) bool {
	if f == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.gone
}
