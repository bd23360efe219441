package pipelinetest

import (
	"sync"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
)

// A Store holds rows, dead letters and positions, which exactly-once sinks make
// durable together: it survives their runs. It lets one sink at a time write a
// partition, the one that asked for its position last. It is safe for concurrent
// use.
type Store struct {
	mu      sync.Mutex
	rows    []arrow.Record
	letters []arrow.Record
	next    map[string]int64 // by partition
	owner   map[string]fence
}

// A fence is who may write a partition: a sink, as long as its epoch lasts.
type fence struct {
	sink  *StoreSink
	epoch int64
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{next: make(map[string]int64), owner: make(map[string]fence)}
}

// Records returns the durable rows in the order in which they were written. The
// caller borrows them until Release.
func (s *Store) Records() []arrow.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrow.Record(nil), s.rows...)
}

// Letters returns the durable dead letters, as Records does.
func (s *Store) Letters() []arrow.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrow.Record(nil), s.letters...)
}

// Positions returns how far each partition is written.
func (s *Store) Positions() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]int64)
	for p, n := range s.next {
		all[p] = n
	}
	return all
}

// Release lets go of every record.
func (s *Store) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range append(s.rows, s.letters...) {
		r.Release()
	}
	s.rows, s.letters = nil, nil
}

// take makes batches of one partition durable, all or none, and takes their
// records. It reports false, and takes nothing, when they are of an assignment
// that has ended.
func (s *Store) take(by fence, partition string, batches []stored, o StoreOptions) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner, next := s.owner[partition], batches[0].first
	if held, some := s.next[partition]; some {
		next = held
	}
	switch {
	case o.NoFence:
	case o.Race && (owner.sink == by.sink && owner != by || batches[0].first != next),
		!o.Race && owner != by:
		return false
	}
	for _, b := range batches {
		s.rows = append(s.rows, b.rec)
		if b.letters != nil {
			s.letters = append(s.letters, b.letters)
		}
		s.next[partition] = b.mark.Next
	}
	return true
}

// own makes a sink the owner of a partition from now on.
func (s *Store) own(by fence, partition string) (next int64, some bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owner[partition] = by
	next, some = s.next[partition]
	return next, some
}

// A stored is a batch that waits to become durable. It owns its records.
type stored struct {
	n       uint64
	rec     arrow.Record
	letters arrow.Record // nil for most
	first   int64
	mark    pipeline.Mark
}

func (b stored) release() {
	b.rec.Release()
	if b.letters != nil {
		b.letters.Release()
	}
}

// StoreOptions choose how a sink of one run behaves. The zero value makes rows
// durable when they are sealed or flushed.
type StoreOptions struct {
	// Hold is how long the rows of a partition wait for more of them before they
	// become durable together; 0: until Seal or Flush.
	Hold time.Duration
	// Latency is how long it takes them.
	Latency time.Duration
	// SealAll makes Seal work on all partitions, so that Durable rises at once; it
	// counts batches of all of them, and one that waits holds it up.
	SealAll bool
	// Race makes Position end the epochs of its own sink alone: between two sinks
	// whoever makes rows durable first wins, and the other one gives its own up.
	Race bool
	// Abort makes every commit of that number, and its multiples, fail: its rows
	// are given up, and the source is told so. 0 is never.
	Abort   int
	Delay   time.Duration // how long each WriteBatch takes
	FailAt  uint64        // the batch whose WriteBatch fails with ErrSink; 0: none
	OnWrite func(n uint64)
	Power   *Power

	// Planted faults.

	// NoFence makes rows durable also when their epoch has ended.
	NoFence bool
	// LettersFirst makes dead letters durable when they are written, apart from the
	// rows they were taken from.
	LettersFirst bool
}
