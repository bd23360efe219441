package kafka

import (
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline"
)

// A Builder is a builder.
type Builder struct{ b *builder }

// NewBuilder returns an empty one.
func NewBuilder(mem memory.Allocator, rows int) Builder { return Builder{newBuilder(mem, rows)} }

// Append, Finish and Release are builder's.
func (b Builder) Append(r *kafka.Record) { b.b.append(r) }

// Finish returns the batch.
func (b Builder) Finish(tp kafka.TopicPartition, epoch, first, next int64) *pipeline.Batch {
	return b.b.finish(tp, epoch, first, next)
}

// Release gives up what was not finished.
func (b Builder) Release() { b.b.release() }

// Gather is gather.
func Gather(mem memory.Allocator, col arrow.Array, origin []int32) (arrow.Array, error) {
	return gather(mem, col, origin)
}
