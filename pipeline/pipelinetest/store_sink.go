package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
)

// A StoreSink writes a Store in one run, exactly once, and in a goroutine of its
// own. It checks that it is used as its contract says, and its methods fail when
// it is not.
type StoreSink struct {
	store *Store
	o     StoreOptions
	use   sync.Mutex // held by Write, Seal, Flush and Close
	kick  chan struct{}
	stop  chan struct{}
	ended chan struct{} // closed when the goroutine has ended

	mu       sync.Mutex
	bound    *arrow.Schema
	forDead  *arrow.Schema // nil when it takes no dead letters
	source   interface{ Lost(string, int64) }
	raised   func()
	assigned bool // positions were asked for by assignment
	written  uint64
	durable  uint64
	done     map[uint64]bool // beyond durable
	lanes    map[string]*storeLane
	held     *stored // the dead letters of the batch to come
	commits  int
	err      error
	closed   bool

	committing chan struct{} // one token: rows may be made durable
}

// A storeLane is a partition under one epoch.
type storeLane struct {
	epoch   int64
	pending []stored
	due     time.Time
	void    bool // given up: what comes counts as done, and is read again
}

var (
	_ pipeline.LetterWriter = (*StoreSink)(nil)
	_ pipeline.Sealer       = (*StoreSink)(nil)
	_ pipeline.Notifier     = (*StoreSink)(nil)
	_ pipeline.Failer       = (*StoreSink)(nil)
	_ pipeline.Attacher     = (*StoreSink)(nil)
)

// Open returns a sink for one run. Close ends its goroutine.
func (s *Store) Open(o StoreOptions) *StoreSink {
	k := &StoreSink{store: s, o: o, kick: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
		raised: func() {}, done: make(map[uint64]bool), lanes: make(map[string]*storeLane), committing: make(chan struct{}, 1)}
	k.committing <- struct{}{}
	go k.run()
	return k
}

// run makes rows durable when they are due.
func (s *StoreSink) run() {
	defer close(s.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.kick:
		case <-timer.C:
		}
		now, next := time.Now(), time.Hour
		s.mu.Lock()
		var due []string
		for name, l := range s.lanes {
			switch {
			case len(l.pending) == 0 || s.o.Hold == 0:
			case l.due.After(now):
				next = min(next, l.due.Sub(now))
			default:
				due = append(due, name)
			}
		}
		s.mu.Unlock()
		slices.Sort(due)
		for _, name := range due {
			s.commit(name)
		}
		timer.Reset(next)
	}
}

// commit makes what waits of a partition durable, or gives it up.
func (s *StoreSink) commit(partition string) (failed error) {
	<-s.committing
	defer func() { s.committing <- struct{}{} }()
	s.mu.Lock()
	l := s.lanes[partition]
	if l == nil || len(l.pending) == 0 || s.err != nil {
		s.mu.Unlock()
		return nil
	}
	batches := l.pending
	l.pending = nil
	s.commits++
	abort := s.o.Abort > 0 && s.commits%s.o.Abort == 0
	s.mu.Unlock()

	if s.o.Latency > 0 {
		time.Sleep(s.o.Latency) // a fake's time
	}
	by := fence{s, l.epoch}
	if err := s.o.Power.use(); err != nil {
		s.fail(err, batches)
		return err
	}
	if !abort && s.store.take(by, partition, batches, s.o) {
		if err := s.o.Power.use(); err != nil { // the reply is lost, the rows are not
			s.fail(err, nil)
			return err
		}
		s.finish(batches)
		return nil
	}
	for _, b := range batches {
		b.release()
	}
	s.mu.Lock()
	l.void = true
	batches = append(batches, l.pending...)
	for _, b := range l.pending {
		b.release()
	}
	l.pending = nil
	s.mu.Unlock()
	if s.source != nil {
		s.source.Lost(partition, l.epoch) // before anything counts as done
	}
	s.finish(batches)
	if abort || s.o.Race {
		return ErrSink
	}
	return nil // they are for the new owner to read
}

// finish counts batches as done.
func (s *StoreSink) finish(batches []stored) {
	s.mu.Lock()
	before := s.durable
	for _, b := range batches {
		s.done[b.n] = true
	}
	for s.done[s.durable+1] {
		s.durable++
		delete(s.done, s.durable)
	}
	rose, raised := s.durable > before, s.raised
	s.mu.Unlock()
	if rose {
		raised()
	}
}

func (s *StoreSink) fail(err error, batches []stored) {
	for _, b := range batches {
		b.release()
	}
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	raised := s.raised
	s.mu.Unlock()
	raised()
}

// Bind notes the schema.
func (s *StoreSink) Bind(in *arrow.Schema) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound != nil {
		return errors.New("bound twice")
	}
	s.bound = in
	return nil
}

// BindLetters notes the schema of dead letters.
func (s *StoreSink) BindLetters(in *arrow.Schema) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound == nil || s.forDead != nil {
		return errors.New("bound to dead letters twice, or before it was bound to rows")
	}
	s.forDead = in
	return nil
}

// Attach notes the source, when it wants to know what is lost.
func (s *StoreSink) Attach(src pipeline.Source) error {
	s.source, _ = src.(interface{ Lost(string, int64) })
	return nil
}

// Notify sets what is called when Durable has risen.
func (s *StoreSink) Notify(raised func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raised = raised
}

// Err returns why the sink cannot go on.
func (s *StoreSink) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Position ends the older epochs of parts, whoever has them, and returns how far
// each one is written.
func (s *StoreSink) Position(_ context.Context, parts []pipeline.Mark) ([]pipeline.Mark, error) {
	if err := s.o.Power.use(); err != nil {
		return nil, err
	}
	if parts == nil {
		var marks []pipeline.Mark
		for p, n := range s.store.Positions() {
			marks = append(marks, pipeline.Mark{Partition: p, Next: n})
		}
		return marks, nil
	}
	var marks []pipeline.Mark
	var over []stored
	for _, p := range parts {
		if next, some := s.store.own(fence{s, p.Epoch}, p.Partition); some {
			marks = append(marks, pipeline.Mark{Partition: p.Partition, Epoch: p.Epoch, Next: next})
		}
		s.mu.Lock()
		s.assigned = true
		if l := s.lanes[p.Partition]; l != nil {
			over = append(over, l.pending...)
			l.pending, l.void = nil, true
		}
		s.lanes[p.Partition] = &storeLane{epoch: p.Epoch}
		s.mu.Unlock()
	}
	for _, b := range over {
		b.release()
	}
	s.finish(over)
	return marks, nil
}

// Write fails: the engine must call WriteBatch.
func (s *StoreSink) Write(context.Context, uint64, arrow.Record) error {
	return errors.New("Write was called in place of WriteBatch")
}

// WriteLetters keeps the dead letters of the batch that follows.
func (s *StoreSink) WriteLetters(_ context.Context, n uint64, letters arrow.Record, mark pipeline.Mark) error {
	if !s.use.TryLock() {
		return errors.New("two calls at once")
	}
	defer s.use.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.forDead == nil || !letters.Schema().Equal(s.forDead):
		return fmt.Errorf("dead letters are of schema %v, bound to %v", letters.Schema(), s.forDead)
	case s.held != nil || n != s.written+1:
		return fmt.Errorf("dead letters of batch %d after batch %d", n, s.written)
	}
	letters.Retain()
	if s.o.LettersFirst {
		s.store.mu.Lock()
		s.store.letters = append(s.store.letters, letters)
		s.store.mu.Unlock()
		letters = nil
	}
	s.held = &stored{n: n, letters: letters, mark: mark}
	return nil
}

// WriteBatch accepts a batch and the dead letters before it.
func (s *StoreSink) WriteBatch(ctx context.Context, n uint64, rec arrow.Record, first int64, mark pipeline.Mark) error {
	if !s.use.TryLock() {
		return errors.New("two calls at once")
	}
	defer s.use.Unlock()
	if s.o.OnWrite != nil {
		s.o.OnWrite(n)
	}
	if s.o.Delay > 0 {
		late := time.NewTimer(s.o.Delay)
		defer late.Stop()
		select {
		case <-late.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := s.o.Power.use(); err != nil {
		return err
	}
	void, err := s.accept(n, rec, first, mark)
	if void != nil {
		s.finish(void)
	}
	return err
}

// accept queues a batch, or returns it as void when its epoch has ended.
func (s *StoreSink) accept(n uint64, rec arrow.Record, first int64, mark pipeline.Mark) (void []stored, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch held := s.held; {
	case s.err != nil:
		return nil, s.err
	case s.closed || s.bound == nil:
		return nil, errors.New("written after close, or before bind")
	case n != s.written+1 || first > mark.Next:
		return nil, fmt.Errorf("batch %d, from %d to %d, after batch %d", n, first, mark.Next, s.written)
	case !rec.Schema().Equal(s.bound):
		return nil, fmt.Errorf("schema is %v, bound to %v", rec.Schema(), s.bound)
	case held != nil && (held.n != n || held.mark != mark):
		return nil, fmt.Errorf("the dead letters were of batch %d (%v), these rows are of batch %d (%v)", held.n, held.mark, n, mark)
	case s.o.FailAt == n:
		return nil, ErrSink
	}
	s.written = n
	b := stored{n: n, rec: rec, first: first, mark: mark}
	if s.held != nil {
		b.letters, s.held = s.held.letters, nil
	}
	l := s.lanes[mark.Partition]
	if l == nil && !s.assigned {
		s.store.own(fence{s, mark.Epoch}, mark.Partition)
		l = &storeLane{epoch: mark.Epoch}
		s.lanes[mark.Partition] = l
	}
	stale := l == nil || l.epoch != mark.Epoch && !s.o.NoFence
	if stale || l.void {
		if b.letters != nil {
			b.letters.Release()
		}
		return []stored{b}, nil
	}
	rec.Retain()
	if len(l.pending) == 0 {
		l.due = time.Now().Add(s.o.Hold)
		defer s.nudge()
	}
	l.pending = append(l.pending, b)
	return nil, nil
}

func (s *StoreSink) nudge() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Durable returns the last batch such that it and all before are in the store, or
// void.
func (s *StoreSink) Durable() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable
}

// Seal makes the rows of a partition durable, when its epoch lasts. Those that it
// cannot are given up.
func (s *StoreSink) Seal(_ context.Context, mark pipeline.Mark) error {
	if !s.use.TryLock() {
		return errors.New("two calls at once")
	}
	defer s.use.Unlock()
	s.mu.Lock()
	l := s.lanes[mark.Partition]
	over := l == nil || l.epoch != mark.Epoch
	s.mu.Unlock()
	if over {
		return s.Err()
	}
	if s.o.SealAll {
		_ = s.commitAll() // the source was told what is lost
	} else {
		_ = s.commit(mark.Partition)
	}
	return s.Err()
}

func (s *StoreSink) commitAll() error {
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.lanes))
	s.mu.Unlock()
	var errs []error
	for _, name := range names {
		errs = append(errs, s.commit(name))
	}
	return errors.Join(errs...)
}

// Flush makes everything durable. It fails with ErrSink when rows were given up that
// nobody may read again, because the source reads no more.
func (s *StoreSink) Flush(context.Context) error {
	if !s.use.TryLock() {
		return errors.New("two calls at once")
	}
	defer s.use.Unlock()
	return errors.Join(s.commitAll(), s.Err())
}

// Close gives up what is not durable and waits for the goroutine.
func (s *StoreSink) Close() error {
	if !s.use.TryLock() {
		return errors.New("two calls at once")
	}
	defer s.use.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.New("closed twice")
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	<-s.ended
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		for _, b := range l.pending {
			b.release()
		}
	}
	s.lanes = nil
	if s.held != nil && s.held.letters != nil {
		s.held.letters.Release()
	}
	return nil
}
