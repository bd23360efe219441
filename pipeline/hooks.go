package pipeline

import "time"

// Hooks are told what the engine does, for metrics, traces and progress. A nil
// function does nothing. They are called once per batch, from many goroutines
// at once, and the engine waits for each: they must be quick and not panic. Names and reasons
// come from a small set and may serve as labels.
type Hooks struct {
	// Read is called for each batch taken from the source; bytes counts its
	// columns.
	Read func(partition string, rows, bytes int64)
	// Applied is called after each Apply of an operator, also the failed ones;
	// rows counts its input.
	Applied func(operator string, rows int64, took time.Duration, err error)
	// Written is called after a sink has accepted a batch; the dead letters are a
	// sink named "dead letters".
	Written func(sink string, rows int64, took time.Duration)
	// DeadLettered is called for the rows of a batch that became dead letters,
	// once for each pair of operator and reason.
	DeadLettered func(operator, reason string, rows int64)
	// Committed is called after the source accepted marks. It borrows them.
	Committed func(marks []Mark)
	// InFlight is called when the batches and bytes between the source and the
	// slowest sink have changed.
	InFlight func(batches int, bytes int64)
}

// filled returns h with a function in every place.
func (h Hooks) filled() Hooks {
	if h.Read == nil {
		h.Read = func(string, int64, int64) {}
	}
	if h.Applied == nil {
		h.Applied = func(string, int64, time.Duration, error) {}
	}
	if h.Written == nil {
		h.Written = func(string, int64, time.Duration) {}
	}
	if h.DeadLettered == nil {
		h.DeadLettered = func(string, string, int64) {}
	}
	if h.Committed == nil {
		h.Committed = func([]Mark) {}
	}
	if h.InFlight == nil {
		h.InFlight = func(int, int64) {}
	}
	return h
}
