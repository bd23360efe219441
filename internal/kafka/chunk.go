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

// A Chunk is what one fetch brought of one partition. It belongs to whom Next gave
// it and serves one goroutine at a time. Its records are views, valid until Release.
type Chunk struct {
	TP    TopicPartition
	Epoch int64 // of Fetcher.Add
	// First is the offset that was asked for and Next the one behind the last whole
	// batch, whether or not there are records in between: markers, aborted
	// transactions and compaction leave holes. Until Records has returned nil, Next
	// is what headers say whose checksum was not looked at.
	First, Next int64
	// HighWatermark, LastStable and LogStart are what the broker said of the log: the
	// end, the end of what transactions have settled, and the start.
	HighWatermark, LastStable, LogStart int64
	// Err is final for the partition, of which nothing more comes until it is added
	// again; such a chunk has no records. It may be an *OffsetOutOfRangeError.
	Err error

	f       *Fetcher
	part    *fetchPart
	answer  *undelivered
	set     []byte
	aborted []abortedTxn
	scratch []byte   // the room that is being filled with what was unpacked
	filled  [][]byte // rooms filled before
	charged int64    // credit to give back
	rec     Record
}

// Records calls f for each record at or behind First that is visible: no marker,
// and with FetchConfig.ReadCommitted none of a transaction that was aborted. The
// record that f is given is the same one each time; its bytes are not. A batch that
// cannot be read is a *BatchError, which is final; an error of f is returned as it
// is.
func (c *Chunk) Records(f func(r *Record) error) error {
	filter := abortFilter{list: c.aborted}
	expected := int64(0) // the lowest offset that a batch may begin at
	for set := c.set; len(set) > 0; {
		b, rest, err := cutBatch(set)
		if errors.Is(err, errCut) {
			return nil
		}
		if err == nil {
			err = b.check(castagnoli())
		}
		if err == nil && b.base < expected {
			err = fmt.Errorf("%w: offset %d was passed before", ErrCorrupt, b.base)
		}
		if err != nil {
			return c.fault(&b, err)
		}
		set, expected = rest, b.last+1
		filter.reach(b.last)
		switch {
		case b.control():
			err = c.marker(&b, &filter)
		case b.last < c.First:
		case b.transactional() && filter.hides(b.producer):
		default:
			err = c.batch(&b, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Chunk) fault(b *batch, err error) error {
	return &BatchError{TP: c.TP, Offset: b.base, Err: err}
}

// marker reads a control batch: an abort ends what its producer gave up.
func (c *Chunk) marker(b *batch, filter *abortFilter) error {
	s, err := c.open(b)
	if err != nil {
		return err
	}
	for {
		ok, err := s.read(&c.rec)
		if err != nil {
			return c.fault(b, err)
		}
		if !ok {
			return nil
		}
		if aborts(&c.rec) {
			filter.end(b.producer)
		}
	}
}

func (c *Chunk) batch(b *batch, f func(r *Record) error) error {
	s, err := c.open(b)
	if err != nil {
		return err
	}
	r := &c.rec
	for {
		ok, err := s.read(r)
		if err != nil {
			return c.fault(b, err)
		}
		if !ok {
			return nil
		}
		if r.Offset < c.First {
			continue
		}
		if err := f(r); err != nil {
			return err
		}
	}
}

// open begins to read a batch's records, which it unpacks.
func (c *Chunk) open(b *batch) (records, error) {
	body := b.raw[atRecords:]
	if codec := b.codec(); codec != None {
		var err error
		if body, err = c.unpack(codec, body); err != nil {
			if !errors.Is(err, ErrTooLarge) {
				err = fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			return records{}, c.fault(b, err)
		}
	}
	s, err := b.open(body)
	if err != nil {
		return s, c.fault(b, err)
	}
	return s, nil
}

// roomSize is the least that is taken at once for what is unpacked.
const roomSize = 64 << 10

// unpack unpacks behind what was unpacked before, so that the records of all batches
// stay valid.
func (c *Chunk) unpack(codec Compression, body []byte) ([]byte, error) {
	d := c.f.unpackers.get()
	defer c.f.unpackers.put(d)
	if n := d.guess(codec, len(body)); cap(c.scratch)-len(c.scratch) < n {
		c.newRoom(c.f.pool.get(max(n, roomSize))[:0])
	}
	at := len(c.scratch)
	out, err := d.appendTo(c.scratch[at:at:cap(c.scratch)], codec, body)
	if err != nil {
		return nil, err
	}
	if cap(out) == cap(c.scratch)-at {
		c.scratch = c.scratch[:at+len(out)]
	} else { // the room was too small, so it has been moved
		c.newRoom(out)
	}
	return out, nil
}

// newRoom makes b the room that is filled next, and takes credit for it: what is
// unpacked counts as well as what was fetched.
func (c *Chunk) newRoom(b []byte) {
	if c.scratch != nil {
		c.filled = append(c.filled, c.scratch)
	}
	c.scratch = b
	c.charged += int64(cap(b))
	c.f.charge(c.part, int64(cap(b)))
}

// Release gives the memory back. The chunk's records are not to be used any more; a
// second Release does nothing.
func (c *Chunk) Release() {
	if c.set == nil {
		return
	}
	c.f.pool.put(c.set)
	if c.scratch != nil {
		c.f.pool.put(c.scratch)
	}
	for _, b := range c.filled {
		c.f.pool.put(b)
	}
	c.set, c.scratch, c.filled, c.rec = nil, nil, nil, Record{}
	c.f.charge(c.part, -c.charged)
}

// An abortFilter tells which producers' records are of an aborted transaction, as
// batches are walked in order.
type abortFilter struct {
	list []abortedTxn // to come, by first offset
	open []int64      // producers inside an aborted transaction
}

// reach says that offsets up to last are walked.
func (f *abortFilter) reach(last int64) {
	for len(f.list) > 0 && f.list[0].first <= last {
		if p := f.list[0].producer; !f.hides(p) {
			f.open = append(f.open, p)
		}
		f.list = f.list[1:]
	}
}

func (f *abortFilter) hides(producer int64) bool { return slices.Contains(f.open, producer) }

// end says that a producer's transaction ends here.
func (f *abortFilter) end(producer int64) {
	f.open = slices.DeleteFunc(f.open, func(p int64) bool { return p == producer })
}

// behind returns the offset behind the last whole batch of a set, which is from when
// there is none. The error is errCut when the set ends inside a batch; every other
// one is Records' to report, at the same place.
func behind(set []byte, from int64) (next int64, err error) {
	next = from
	for len(set) > 0 {
		b, rest, err := cutBatch(set)
		if err != nil {
			return next, err
		}
		next, set = max(next, b.last+1), rest
	}
	return next, nil
}
