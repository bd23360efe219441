package kafka

import (
	"errors"
	"fmt"
	"slices"
)

// An OffsetOutOfRangeError says that a partition's log does not hold the offset
// that was asked for: retention removed it, or the log was cut.
type OffsetOutOfRangeError struct {
	TP                   TopicPartition
	Asked, LogStart, End int64
}

// Error names the place and what is there.
func (e *OffsetOutOfRangeError) Error() string {
	return fmt.Sprintf("partition %s has no offset %d: the log holds %d to %d", e.TP, e.Asked, e.LogStart, e.End)
}

// A Chunk is what a fetch brought of one partition. Its records are views, valid
// until Release.
type Chunk struct {
	TP    TopicPartition
	Epoch int64 // of Fetcher.Add
	// First is the offset that was asked for and Next the one behind the last whole
	// batch, whether or not there are records in between.
	First, Next                         int64
	HighWatermark, LastStable, LogStart int64
	// Err ends the partition: the fetcher has removed it. It may be an
	// *OffsetOutOfRangeError.
	Err error

	f       *Fetcher
	part    *fetchPart
	buf     *buffer
	set     []byte
	aborted []abortedTxn
	bytes   int64
	scratch *buffer // of what was compressed
}

// Records calls f for each record at or behind First that is visible: not a
// marker, and with FetchConfig.ReadCommitted not of a transaction that was aborted.
// The record that f is given is the same one each time. An error of a batch is a
// *BatchError; one of f is returned as it is.
func (c *Chunk) Records(f func(r *Record) error) error {
	open := make(map[int64]bool) // producers inside an aborted transaction
	aborted := c.aborted
	set := c.set
	for len(set) > 0 {
		b, rest, err := cutBatch(set)
		if errors.Is(err, errCut) {
			return nil
		}
		if err == nil {
			err = b.check(castagnoli())
		}
		if err != nil {
			return &BatchError{TP: c.TP, Offset: b.base, Err: err}
		}
		set = rest
		for len(aborted) > 0 && aborted[0].first <= b.last {
			open[aborted[0].producer] = true
			aborted = aborted[1:]
		}
		switch {
		case b.control():
			err = c.control(&b, open)
		case b.last < c.First:
		case c.f.cfg.ReadCommitted && b.transactional() && open[b.producer]:
		default:
			err = c.batch(&b, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// control reads a marker: an abort ends what its producer gave up.
func (c *Chunk) control(b *batch, open map[int64]bool) error {
	var r Record
	s, err := b.open(b.raw[atRecords:])
	if err != nil {
		return &BatchError{TP: c.TP, Offset: b.base, Err: err}
	}
	for {
		ok, err := s.read(&r)
		if err != nil {
			return &BatchError{TP: c.TP, Offset: b.base, Err: err}
		}
		if !ok {
			return nil
		}
		if aborts(&r) {
			delete(open, b.producer)
		}
	}
}

func (c *Chunk) batch(b *batch, f func(r *Record) error) error {
	body := b.raw[atRecords:]
	if codec := b.codec(); codec != None {
		var err error
		if body, err = c.unpack(codec, body); err != nil {
			return &BatchError{TP: c.TP, Offset: b.base, Err: err}
		}
	}
	s, err := b.open(body)
	if err != nil {
		return &BatchError{TP: c.TP, Offset: b.base, Err: err}
	}
	var r Record
	for {
		ok, err := s.read(&r)
		if err != nil {
			return &BatchError{TP: c.TP, Offset: b.base, Err: fmt.Errorf("%w: %w", ErrCorrupt, err)}
		}
		if !ok {
			return nil
		}
		if r.Offset < c.First {
			continue
		}
		if err := f(&r); err != nil {
			return err
		}
	}
}

// unpack appends to the chunk's scratch space, so that the records of all its
// batches stay valid.
func (c *Chunk) unpack(codec Compression, body []byte) ([]byte, error) {
	if c.scratch == nil {
		c.scratch = c.f.pool.get(0)
	}
	d := c.f.decompressors.get()
	defer c.f.decompressors.put(d)
	at := len(c.scratch.b)
	out, err := d.appendTo(c.scratch.b, codec, body)
	if err != nil {
		return nil, err
	}
	c.scratch.b = out
	return out[at:], nil
}

// Release gives the memory back. The chunk and its records are not used any more.
func (c *Chunk) Release() {
	if c.scratch != nil {
		c.scratch.release()
		c.scratch = nil
	}
	if c.buf != nil {
		c.buf.release()
		c.buf = nil
		c.f.giveBack(c.part, c.bytes)
	}
}

// behind returns the offset behind the last whole batch of a set, and whether there
// is one. A batch that cannot be read ends the walk, and is Records' to report.
func behind(set []byte, from int64) (next int64, whole bool, err error) {
	next = from
	for len(set) > 0 {
		b, rest, err := cutBatch(set)
		if err != nil {
			return next, whole, err
		}
		next, whole, set = max(next, b.last+1), true, rest
	}
	return next, whole, nil
}

// sortAborted orders aborted transactions by their first offset.
func sortAborted(a []abortedTxn) {
	slices.SortFunc(a, func(x, y abortedTxn) int {
		switch {
		case x.first < y.first:
			return -1
		case x.first > y.first:
			return 1
		}
		return 0
	})
}
