package kafka

import "sync"

// done keeps what is durable: batches are done in any order, and Durable is the
// highest number such that it and all before are.
type done struct {
	mu     sync.Mutex
	upTo   uint64
	beyond map[uint64]struct{}
	raised func()
}

// add notes that batches are done.
func (d *done) add(numbers ...uint64) {
	if len(numbers) == 0 {
		return
	}
	d.mu.Lock()
	before := d.upTo
	for _, n := range numbers {
		d.beyond[n] = struct{}{}
	}
	for {
		if _, ok := d.beyond[d.upTo+1]; !ok {
			break
		}
		d.upTo++
		delete(d.beyond, d.upTo)
	}
	raised := d.raised
	if d.upTo == before {
		raised = nil
	}
	d.mu.Unlock()
	if raised != nil {
		raised()
	}
}

// nudge makes the engine look, as when something has become durable.
func (d *done) nudge() {
	d.mu.Lock()
	raised := d.raised
	d.mu.Unlock()
	if raised != nil {
		raised()
	}
}

func (d *done) get() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.upTo
}

// A budget bounds the bytes of records that wait. One that is larger than all
// passes when nothing else waits.
type budget struct {
	mu    sync.Mutex
	most  int64
	held  int64
	freed chan struct{} // closed and replaced when something is given back
}

func newBudget(most int64) *budget { return &budget{most: most, freed: make(chan struct{})} }

// take tries to hold n bytes; when it cannot, it returns a channel that closes
// when it is worth another try.
func (b *budget) take(n int64) (wait <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held == 0 || b.held+n <= b.most {
		b.held += n
		return nil
	}
	return b.freed
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held -= n
	close(b.freed)
	b.freed = make(chan struct{})
}
