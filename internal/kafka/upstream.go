package kafka

// Upstream is what a sink may ask of a Kafka source: it is how output and source
// positions become one commit. A partition is named as marks name it, and its
// epoch is the mark's. Every method may be called by many goroutines at once.
type Upstream interface {
	// Group returns the consumer group; "" when the source keeps no offsets.
	Group() string
	// Member returns what fences a commit for a partition; ok is false when the
	// assignment with that epoch is over, or the session may have run out.
	Member(partition string, epoch int64) (m Member, ok bool)
	// TakeOffsets says that the sink commits the offsets itself, so the source must
	// not: a plain commit could step behind a transaction's.
	TakeOffsets()
	// Annotate sets what the source writes as metadata beside an offset that it
	// commits.
	Annotate(metadata func(partition string, offset int64) string)
	// Lost says that the sink cannot go on with a partition under that epoch. The
	// source begins the partition again with a new epoch, where the sinks stand,
	// if it is still the partition's owner.
	Lost(partition string, epoch int64)
}
