package kafka

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"time"

	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline/codec"
)

// Where says where a partition is begun that has no position yet, or whose
// position is gone.
type Where string

// The places of Start and OnGap. Fail, Earliest and Latest are for OnGap.
const (
	Earliest Where = "earliest" // the first message that is still there
	Latest   Where = "latest"   // messages that come from now on
	AtTime   Where = "time"     // the first message at or after a time
	AtOffset Where = "offset"   // one offset, for every partition
	Fail     Where = "fail"     // stop the run and say what is missing
)

// Start says where a partition is begun for which no position was ever kept.
type Start struct {
	Where  Where     // "" means Earliest
	Time   time.Time // of AtTime
	Offset int64     // of AtOffset
}

// Config says what is read. Cluster, Format and one of Topics and Pattern must
// be set.
type Config struct {
	Cluster kafka.Config
	// Topics are read by name; Pattern reads every topic whose whole name it
	// matches, also those that come later.
	Topics  []string
	Pattern *regexp.Regexp
	// Group is the consumer group. "" reads every partition alone and keeps no
	// offsets: each run begins at Start, or where the sinks stand.
	Group string
	// Instance is the static member id, with which a restart within Session moves
	// no partition. "" joins as a dynamic member.
	Instance string
	// Cooperative keeps partitions that stay while others move.
	Cooperative bool
	// Session is how long a silent member stays in the group; 0 means 45 s.
	// Rebalance is how long members have to give up partitions; 0 means 60 s.
	Session, Rebalance time.Duration
	// Discover is how often topics and partitions are looked for; 0 means 30 s.
	Discover time.Duration

	Start Start
	// OnGap says what happens when a position is no longer there: Fail (also "")
	// stops the run, Earliest and Latest count the gap and go on there.
	OnGap Where
	// UntilEnd ends the source once it has read what was there when a partition was
	// begun, and all of that is committed.
	UntilEnd bool
	// ReadUncommitted also gives messages of transactions that are open or were
	// aborted.
	ReadUncommitted bool

	// Format reads the messages' values.
	Format codec.Format
	// Meta are the columns besides those of Format, of Columns; nil means all but
	// kafka_headers.
	Meta []string

	// BatchRows is the most messages in a batch; 0 means 16,384. A batch also ends
	// at 16 MiB.
	BatchRows int
	// Fetch bounds the requests and the bytes held; its ReadCommitted is not used.
	Fetch kafka.FetchConfig

	Allocator memory.Allocator // nil means memory.DefaultAllocator
	Log       *slog.Logger     // nil means silence
}

// check reports every fault at once and fills in the defaults.
func (c *Config) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	switch {
	case len(c.Topics) == 0 && c.Pattern == nil:
		fault("topics: name at least one topic, or give topic_pattern")
	case len(c.Topics) > 0 && c.Pattern != nil:
		fault("topics and topic_pattern: choose one")
	}
	if len(c.Cluster.Brokers) == 0 {
		fault("brokers: name at least one, as in localhost:9092")
	}
	if c.Format == nil {
		fault("value: must be set")
	}
	if c.Start.Where == "" {
		c.Start.Where = Earliest
	}
	if c.OnGap == "" {
		c.OnGap = Fail
	}
	if !slices.Contains([]Where{Fail, Earliest, Latest}, c.OnGap) {
		fault("on_gap: %s is none of fail, earliest and latest", c.OnGap)
	}
	if c.Start.Where == AtOffset && c.Start.Offset < 0 {
		fault("start: offset %d is negative", c.Start.Offset)
	}
	for _, m := range c.Meta {
		if !slices.Contains(Columns(), m) {
			fault("meta: unknown column %q; there are %v", m, Columns())
		}
	}
	if c.Instance != "" && c.Group == "" {
		fault("instance: needs a group")
	}
	for _, n := range []struct {
		name  string
		value int64
	}{{"session", int64(c.Session)}, {"rebalance", int64(c.Rebalance)}, {"discover", int64(c.Discover)}, {"batch_rows", int64(c.BatchRows)}} {
		if n.value < 0 {
			fault("%s: is negative", n.name)
		}
	}
	c.fill()
	return errors.Join(faults...)
}

func (c *Config) fill() {
	if c.Session == 0 {
		c.Session = 45 * time.Second
	}
	if c.Rebalance == 0 {
		c.Rebalance = 60 * time.Second
	}
	if c.Discover == 0 {
		c.Discover = 30 * time.Second
	}
	if c.BatchRows == 0 {
		c.BatchRows = 16384
	}
	if c.Meta == nil {
		c.Meta = Columns()[:len(Columns())-1]
	}
	if c.Allocator == nil {
		c.Allocator = memory.DefaultAllocator
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Fetch.ReadCommitted = !c.ReadUncommitted
	if c.Fetch.PartitionBytes == 0 {
		c.Fetch.PartitionBytes = 4 << 20
	}
}
