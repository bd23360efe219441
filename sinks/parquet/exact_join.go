package parquet

import "github.com/elbo-stream/elbo/pipeline"

// JoinLetters makes s take the dead letters that dead, a Sink of a folder, was to
// write there, together with its rows, and reports whether it does; dead is not
// used any more then. It is called before Bind.
func (s *ExactSink) JoinLetters(dead pipeline.Sink) (bool, error) {
	d, ok := dead.(*Sink)
	if !ok || d.c.oneFile() {
		return false, nil
	}
	c := s.c
	c.Dead = d.c.Path
	if err := c.check(); err != nil {
		return false, err
	}
	s.c.Dead = c.Dead
	return true, d.Close()
}
