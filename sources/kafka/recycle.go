package kafka

import (
	"sync"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// A recycler is an allocator that keeps large pieces for the next one who asks.
// Messages come by the megabyte, and are decoded soon: new memory for each batch
// would be cleared, and collected, as often.
type recycler struct {
	mem memory.Allocator

	mu    sync.Mutex
	free  [][]byte // whole pieces
	bytes int      // of all of them
	over  bool     // nobody will ask again
}

const (
	recycledPiece = 64 << 10 // smaller ones are left to mem
	recycledBytes = 64 << 20 // most that is kept
)

// Allocate returns size bytes, which are not cleared.
func (r *recycler) Allocate(size int) []byte {
	if size < recycledPiece {
		return r.mem.Allocate(size)
	}
	r.mu.Lock()
	best := -1
	for i, b := range r.free {
		if len(b) >= size && len(b)/4 <= size && (best < 0 || len(b) < len(r.free[best])) {
			best = i
		}
	}
	if best < 0 {
		r.mu.Unlock()
		step := recycledPiece
		for step < size/8 {
			step *= 2
		}
		return r.mem.Allocate((size + step - 1) / step * step)[:size] // so that the next one is more often found
	}
	defer r.mu.Unlock()
	b := r.free[best]
	last := len(r.free) - 1
	r.free[best], r.free[last] = r.free[last], nil
	r.free = r.free[:last]
	r.bytes -= len(b)
	return b[:size]
}

// Reallocate returns size bytes that begin with those of b, which it takes back.
func (r *recycler) Reallocate(size int, b []byte) []byte {
	if size <= cap(b) {
		return b[:size]
	}
	bigger := r.Allocate(size)
	copy(bigger, b)
	r.Free(b)
	return bigger
}

// Free takes b back.
func (r *recycler) Free(b []byte) {
	b = b[:cap(b)]
	if len(b) < recycledPiece {
		r.mem.Free(b)
		return
	}
	r.mu.Lock()
	keep := !r.over && r.bytes+len(b) <= recycledBytes
	if keep {
		r.free = append(r.free, b)
		r.bytes += len(b)
	}
	r.mu.Unlock()
	if !keep {
		r.mem.Free(b)
	}
}

// close gives up what is kept, and from then on what comes back.
func (r *recycler) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.free {
		r.mem.Free(b)
	}
	r.free, r.bytes, r.over = nil, 0, true
}
