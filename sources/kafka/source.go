package kafka

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline"
)

// A Source reads the partitions that are assigned to it. Everything but Batches
// may be called by many goroutines at once.
type Source struct {
	c       Config
	decoder *decoder
	place   func(ctx context.Context, parts []pipeline.Mark) ([]pipeline.Place, error)

	mu       sync.Mutex
	cluster  *kafka.Cluster
	group    membership
	parts    map[kafka.TopicPartition]*part
	epochs   int64
	sinkOwns bool // a sink commits the offsets
	annotate func(partition string, offset int64) string
	gapRows  int64
	ended    bool          // a sequence has come to its end by itself
	progress chan struct{} // one token: something was committed, or a sink lost a partition
}

var (
	_ pipeline.Assigner = (*Source)(nil)
	_ pipeline.Messages = (*Source)(nil)
	_ kafka.Upstream    = (*Source)(nil)
)

// A part is a partition that this source holds.
type part struct {
	tp        kafka.TopicPartition
	epoch     int64
	next      int64 // behind what was given to the engine
	committed int64 // behind what is durable in every sink
	stored    int64 // behind what the group's coordinator was told
	end       int64 // of the log, as last seen
	target    int64 // where Config.UntilEnd ends it
	waiting   []read

	// The reader's own.
	builder *builder  // gathers the next batch; nil when there is nothing
	since   time.Time // of its first message
	read    int64     // behind what was gathered
	edge    int64     // of the log, as the last chunk had it

	lost    bool      // a sink cannot go on: begin it anew
	retryAt time.Time // when
	retries int
}

// A read is a batch that is not committed yet.
type read struct {
	next int64
	at   time.Time
}

// New checks the configuration. It connects to nothing; Batches does.
func New(c Config) (*Source, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Source{
		c: c, decoder: newDecoder(c.Format, c.Meta, c.Allocator),
		place: func(_ context.Context, parts []pipeline.Mark) ([]pipeline.Place, error) {
			return make([]pipeline.Place, len(parts)), nil
		},
		parts: make(map[kafka.TopicPartition]*part), progress: make(chan struct{}, 1),
	}, nil
}

// Schema returns that of the undecoded messages.
func (s *Source) Schema(context.Context) (*arrow.Schema, error) { return messageSchema, nil }

// BatchRows returns the most messages that a batch has.
func (s *Source) BatchRows() int { return s.c.BatchRows }

// Decoder returns what turns messages into rows.
func (s *Source) Decoder() pipeline.Decoder { return s.decoder }

// Assign sets the function that tells where the sinks stand.
func (s *Source) Assign(place func(context.Context, []pipeline.Mark) ([]pipeline.Place, error)) {
	s.place = place
}

// UntilEnd makes the source end like Config.UntilEnd. It is called before Batches.
func (s *Source) UntilEnd() { s.c.UntilEnd = true }

// Batches joins the group and yields what its partitions hold. Marks in from are
// those of an earlier run, for partitions of which no sink and no group knows more.
func (s *Source) Batches(ctx context.Context, from []pipeline.Mark) iter.Seq2[*pipeline.Batch, error] {
	return func(yield func(*pipeline.Batch, error) bool) {
		r := &reading{Source: s, from: from, yield: yield}
		if err := r.loop(ctx); err != nil && !errors.Is(err, errStopped) {
			yield(nil, err)
		}
	}
}

// Commit notes that the marks are durable in every sink and, unless a sink does
// so itself, tells the group's coordinator. Marks of assignments that are over are
// left out: their rows are read again by whoever holds the partition now.
func (s *Source) Commit(ctx context.Context, marks []pipeline.Mark) error {
	s.mu.Lock()
	for _, m := range marks {
		tp, ok := kafka.ParseTopicPartition(m.Partition)
		if !ok {
			s.mu.Unlock()
			return fmt.Errorf("the mark of %q is of no topic's partition", m.Partition)
		}
		p := s.parts[tp]
		if p == nil || p.epoch != m.Epoch || p.lost || m.Next <= p.committed {
			continue
		}
		p.committed, p.retries = m.Next, 0
		i := slices.IndexFunc(p.waiting, func(r read) bool { return r.next > m.Next })
		if i < 0 {
			i = len(p.waiting)
		}
		p.waiting = slices.Delete(p.waiting, 0, i)
	}
	s.mu.Unlock()
	err := s.store(ctx)
	s.nudge()
	return err
}

// storeFor is how long one Commit tries; what it could not store is stored with
// the next one.
const storeFor = 10 * time.Second

// store tells the coordinator what is committed.
func (s *Source) store(ctx context.Context) error {
	s.mu.Lock()
	offsets := make(map[kafka.TopicPartition]kafka.Committed)
	for tp, p := range s.parts {
		if p.committed > p.stored {
			offsets[tp] = kafka.Committed{Offset: p.committed}
		}
	}
	s.note(offsets)
	group, own := s.group, s.sinkOwns
	s.mu.Unlock()
	if len(offsets) == 0 {
		return nil
	}
	if s.c.Group != "" && !own {
		ctx, cancel := context.WithTimeout(ctx, storeFor)
		defer cancel()
		if err := s.cluster.CommitOffsets(ctx, group.Member(), offsets); err != nil {
			s.c.Log.Warn("offsets not committed yet", "error", err)
			return nil // rows may be read again, and none is lost
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for tp, o := range offsets {
		if p := s.parts[tp]; p != nil && p.stored < o.Offset && p.committed >= o.Offset {
			p.stored = o.Offset
		}
	}
	return nil
}

// note adds what a sink wants to find beside the offsets. The caller holds mu.
func (s *Source) note(offsets map[kafka.TopicPartition]kafka.Committed) {
	if s.annotate == nil {
		return
	}
	for tp, o := range offsets {
		o.Metadata = s.annotate(tp.String(), o.Offset)
		offsets[tp] = o
	}
}

// Close leaves the group, unless it is a static member of it, and closes the
// connections.
func (s *Source) Close() error {
	s.mu.Lock()
	cluster, group := s.cluster, s.group
	err := s.unfinished()
	s.mu.Unlock()
	s.decoder.release()
	if cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeFor)
	defer cancel()
	errs := []error{err}
	if group != nil {
		_ = s.store(ctx)
		errs = append(errs, group.Leave(ctx))
	}
	return errors.Join(append(errs, cluster.Close())...)
}

// unfinished tells, behind a sequence that ended by itself, what is not committed
// all the same. The caller holds mu.
func (s *Source) unfinished() error {
	for _, p := range s.parts {
		if s.ended && p.committed < p.next {
			return fmt.Errorf("partition %s was read to %d, but only %d is committed; run again for the rest", p.tp, p.next, p.committed)
		}
	}
	return nil
}

func (s *Source) nudge() {
	select {
	case s.progress <- struct{}{}:
	default:
	}
}

// Group returns the consumer group.
func (s *Source) Group() string { return s.c.Group }

// Member returns what fences a commit for an assignment of a partition.
func (s *Source) Member(partition string, epoch int64) (kafka.Member, bool) {
	tp, _ := kafka.ParseTopicPartition(partition)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parts[tp]
	if p == nil || p.epoch != epoch || p.lost || s.group == nil || !s.group.Alive() {
		return kafka.Member{}, false
	}
	return s.group.Member(), true
}

// TakeOffsets says that a sink commits the offsets in its transactions.
func (s *Source) TakeOffsets() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sinkOwns = true
}

// Annotate sets what is written beside each committed offset.
func (s *Source) Annotate(metadata func(partition string, offset int64) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.annotate = metadata
}

// Lost says that a sink cannot go on with a partition.
func (s *Source) Lost(partition string, epoch int64) {
	tp, _ := kafka.ParseTopicPartition(partition)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parts[tp]
	if p == nil || p.epoch != epoch || p.lost {
		return
	}
	p.lost = true
	p.retryAt = time.Now().Add(min(100*time.Millisecond<<min(p.retries, 6), 5*time.Second))
	s.nudge()
}

// A Lag says how far the sinks are behind a partition's end.
type Lag struct {
	Partition string
	Rows      int64         // offsets between what is committed and the end
	Age       time.Duration // since the oldest batch that is not committed was read
}

// Lags returns the lag of each partition that the source holds, by name, and how
// many offsets were skipped because they were gone (see Config.OnGap).
func (s *Source) Lags() (lags []Lag, gapRows int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.parts {
		l := Lag{Partition: p.tp.String(), Rows: max(0, p.end-p.committed)}
		if len(p.waiting) > 0 {
			l.Age = time.Since(p.waiting[0].at)
		}
		lags = append(lags, l)
	}
	slices.SortFunc(lags, func(a, b Lag) int { return cmpNames(a.Partition, b.Partition) })
	return lags, s.gapRows
}

// cmpNames orders partition names by topic and number.
func cmpNames(a, b string) int {
	x, _ := kafka.ParseTopicPartition(a)
	y, _ := kafka.ParseTopicPartition(b)
	return x.Compare(y)
}
