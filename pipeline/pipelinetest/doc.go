// Package pipelinetest checks that sources, operators and sinks keep the
// contracts of package pipeline, and gives fakes that fail and crash on demand.
//
// Conformance tests take a function that makes a fresh part:
//
//	func TestSink(t *testing.T) {
//		pipelinetest.Sink(t, pipelinetest.SinkTest{
//			New:    func(t *testing.T, fsys *pipelinetest.FS) (pipeline.Sink, error) { return open(fsys) },
//			Inputs: records,
//			Read:   readBack,
//		})
//	}
//
// Fakes come in two halves. What survives a crash (a Topic with its rows and
// committed marks, a Table with its durable rows, an FS) is made once; Open gives
// the source or sink of one run on top of it. A Power cuts all of them off at the
// same moment, as a machine that loses its power does.
//
// A Group is a Topic for several runs at once: its partitions move between them. A
// Store is a Table for sinks that write exactly once, with dead letters, positions
// and epochs that end; Fence is the conformance test of such sinks.
//
// The mistake to avoid is reading a Table to see what was written: it holds what
// is durable, and what was only accepted is gone after a crash.
package pipelinetest
