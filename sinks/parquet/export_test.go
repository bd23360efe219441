package parquet

import "github.com/elbo-stream/elbo/pipeline/pipelinetest"

// Memory returns how much the sink holds, in bytes.
func (s *ExactSink) Memory() int64 { return s.memory }

// FS returns the file system in memory that the sink writes to.
func (s *ExactSink) FS() *pipelinetest.FS { return s.c.FS.(*pipelinetest.FS) }
