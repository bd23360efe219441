package pipeline

import (
	"context"
	"sync"

	"github.com/apache/arrow/go/v15/arrow"
)

// A gate bounds what is in flight. One goroutine enters (the reader); many
// leave. It always lets somebody in when it is empty, however large.
type gate struct {
	maxBatches int
	maxBytes   int64
	changed    func(batches int, bytes int64)

	mu      sync.Mutex
	batches int
	bytes   int64
	freed   chan struct{} // holds one token: something left since the last look
}

func newGate(maxBatches int, maxBytes int64, changed func(int, int64)) *gate {
	return &gate{maxBatches: maxBatches, maxBytes: maxBytes, changed: changed, freed: make(chan struct{}, 1)}
}

// enter waits until a batch of that many bytes fits. It returns ctx's error
// when ctx is done first.
func (g *gate) enter(ctx context.Context, bytes int64) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if g.tryEnter(bytes) {
			return nil
		}
		select {
		case <-g.freed:
		case <-ctx.Done():
		}
	}
}

func (g *gate) tryEnter(bytes int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.batches > 0 && (g.batches >= g.maxBatches || g.bytes+bytes > g.maxBytes) {
		return false
	}
	g.batches++
	g.bytes += bytes
	g.changed(g.batches, g.bytes)
	return true
}

// resize replaces the size of a batch that is inside: operators add columns.
func (g *gate) resize(from, to int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bytes += to - from
}

func (g *gate) leave(bytes int64) {
	g.mu.Lock()
	g.batches--
	g.bytes -= bytes
	g.changed(g.batches, g.bytes)
	g.mu.Unlock()
	select {
	case g.freed <- struct{}{}:
	default: // a token is there already
	}
}

// recordBytes returns the size of the buffers under a record. A slice counts
// the whole of what it keeps alive.
func recordBytes(rec arrow.Record) int64 {
	var sum int64
	for _, col := range rec.Columns() {
		sum += dataBytes(col.Data())
	}
	return sum
}

func dataBytes(data arrow.ArrayData) int64 {
	var sum int64
	for _, buf := range data.Buffers() {
		if buf != nil {
			sum += int64(buf.Len())
		}
	}
	for _, child := range data.Children() {
		sum += dataBytes(child)
	}
	if _, ok := data.DataType().(*arrow.DictionaryType); ok {
		sum += dataBytes(data.Dictionary())
	}
	return sum
}
