// Package pipeline holds the contracts of elbo (Batch, Mark, Source, Operator,
// Sink) and the engine that runs them.
//
// The smallest use:
//
//	stats, err := pipeline.Run(ctx, pipeline.Config{
//		Source:    src,
//		Operators: []pipeline.NamedOperator{{Name: "score", Operator: score}},
//		Sinks:     []pipeline.NamedSink{{Name: "files", Sink: out}},
//	})
//
// Most mistakes are about ownership. A Batch has one owner, and handing it on
// hands on the duty to release it; an Operator or Sink borrows the record that
// it is given and releases nothing of it.
package pipeline
