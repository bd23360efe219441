package pipelinetest

import (
	"context"

	"github.com/elbo-stream/elbo/pipeline"
)

// A SealSink is a TableSink that makes everything durable when a partition is
// sealed.
type SealSink struct{ *TableSink }

var _ pipeline.Sealer = SealSink{}

// OpenSeals returns a sink that can seal, for one run.
func (t *Table) OpenSeals(o SinkOptions) SealSink { return SealSink{t.Open(o)} }

// Seal makes everything durable.
func (s SealSink) Seal(ctx context.Context, _ pipeline.Mark) error { return s.Flush(ctx) }
