package kafka

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline/codec"
)

// Delivery is what a crash may do to the output.
type Delivery string

const (
	// ExactlyOnce writes rows and source offset in one transaction. It needs a
	// source that is a member of a consumer group.
	ExactlyOnce Delivery = "exactly_once"
	// EffectivelyOnce reads back, at each assignment, what was written since the
	// last commit, and leaves that out. It needs no transactions, but a process that
	// stalls right before it writes may double what it held.
	EffectivelyOnce Delivery = "effectively_once"
	// AtLeastOnce repeats rows after a crash.
	AtLeastOnce Delivery = "at_least_once"
)

// Partitioning says which partition of the output a row goes to.
type Partitioning string

const (
	// SourcePartition keeps the number of the source's partition, modulo the
	// output's number of partitions.
	SourcePartition Partitioning = "source"
	// KeyPartition hashes the key as Kafka's own producer does; rows without a key
	// go by the source's partition.
	KeyPartition Partitioning = "key"
)

// Config says where and how rows are written. Cluster, Topic and Encoder must be
// set.
type Config struct {
	Cluster kafka.Config
	Topic   string
	// Encoder makes the messages' values; it is called once for each partition of
	// the source that is written at the same time.
	Encoder func() (codec.Encoder, error)
	// Columns are encoded, in this order; nil means all but those whose names begin
	// with kafka_.
	Columns []string
	// Where names a boolean column; only rows in which it is true are written. ""
	// writes all.
	Where string
	// Key names the column whose value is the message's key: a string, a binary or
	// an integer. "" means kafka_key, or no key where there is none.
	Key string
	// Partition is SourcePartition when "".
	Partition Partitioning
	// Headers are written beside each message, besides those that say where it comes
	// from.
	Headers map[string]string
	// NoHeaders leaves out the headers that say where a message comes from. It does
	// not go with EffectivelyOnce, which reads them.
	NoHeaders bool
	// KeepHeaders copies the source's headers, when its column kafka_headers is there.
	KeepHeaders bool

	Delivery Delivery // "" means AtLeastOnce
	// CommitRows and CommitInterval end a transaction, or an unacknowledged stretch;
	// whichever comes first. 0 means 5,000 rows and 100 ms.
	CommitRows     int
	CommitInterval time.Duration
	// TransactionPrefix begins the transactional ids; "" means "elbo". The rest is
	// the group and the source's partition.
	TransactionPrefix string
	// TransactionTimeout is how long the coordinator keeps an open transaction of a
	// dead process; 0 means 60 s.
	TransactionTimeout time.Duration
	Compression        kafka.Compression
	// MaxBatchBytes bounds a batch of records before compression; 0 means 1,000,000,
	// which fits into a broker's default of 1,048,588.
	MaxBatchBytes int
	// MaxBytes bounds the records that wait in the sink; 0 means 64 MiB.
	MaxBytes int64
	// Deadline is how long one batch of records is tried; 0 means 2 minutes.
	Deadline time.Duration

	Log *slog.Logger // nil means silence
}

// check reports every fault at once and fills in the defaults.
func (c *Config) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Topic == "" {
		fault("topic: must be set")
	}
	if len(c.Cluster.Brokers) == 0 {
		fault("brokers: name at least one, as in localhost:9092")
	}
	if c.Delivery == "" {
		c.Delivery = AtLeastOnce
	}
	if !slices.Contains([]Delivery{ExactlyOnce, EffectivelyOnce, AtLeastOnce}, c.Delivery) {
		fault("delivery: %s is none of exactly_once, effectively_once and at_least_once", c.Delivery)
	}
	if c.Partition == "" {
		c.Partition = SourcePartition
	}
	if c.Partition != SourcePartition && c.Partition != KeyPartition {
		fault("partition: %s is neither source nor key", c.Partition)
	}
	if c.NoHeaders && c.Delivery == EffectivelyOnce {
		fault("headers: effectively_once reads the headers that say where a row comes from; keep them")
	}
	for _, n := range []struct {
		name  string
		value int64
	}{{"commit rows", int64(c.CommitRows)}, {"commit interval", int64(c.CommitInterval)}, {"transaction timeout", int64(c.TransactionTimeout)},
		{"max batch bytes", int64(c.MaxBatchBytes)}, {"max bytes", c.MaxBytes}, {"deadline", int64(c.Deadline)}} {
		if n.value < 0 {
			fault("%s: is negative", n.name)
		}
	}
	c.fill()
	return errors.Join(faults...)
}

func (c *Config) fill() {
	if c.CommitRows == 0 {
		c.CommitRows = 5000
	}
	if c.CommitInterval == 0 {
		c.CommitInterval = 100 * time.Millisecond
	}
	if c.TransactionPrefix == "" {
		c.TransactionPrefix = "elbo"
	}
	if c.TransactionTimeout == 0 {
		c.TransactionTimeout = time.Minute
	}
	if c.MaxBatchBytes == 0 {
		c.MaxBatchBytes = 1_000_000
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 64 << 20
	}
	if c.Deadline == 0 {
		c.Deadline = 2 * time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}
