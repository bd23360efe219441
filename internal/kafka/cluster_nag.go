package kafka

import (
	"log/slog"
	"time"
)

// nagAfter is how long something may fail before a person is told.
const nagAfter = 5 * time.Second

// A nag warns once when what is tried again and again has failed for long, and says
// so when it works at last. The zero value with Log and What is ready.
type nag struct {
	Log   *slog.Logger
	What  string
	Attrs []any
	since time.Time // of the first failure in a row
	told  bool
}

// hear takes what a try came to.
func (n *nag) hear(err error) {
	switch {
	case err == nil:
		if n.told {
			n.Log.Info("a request to Kafka works again", n.with()...)
		}
		n.since, n.told = time.Time{}, false
	case n.since.IsZero():
		n.since = time.Now()
	case !n.told && time.Since(n.since) >= nagAfter:
		n.told = true
		n.Log.Warn("a request to Kafka fails again and again", append(n.with(), "for", time.Since(n.since).Round(time.Second), "error", err)...)
	}
}

func (n *nag) with() []any { return append([]any{"what", n.What}, n.Attrs...) }

// telling is f, whose failures over a long time are told of.
func (cl *Cluster) telling(what string, f func() error, attrs ...any) func() error {
	n := nag{Log: cl.c.Log, What: what, Attrs: attrs}
	return func() error {
		err := f()
		if err == nil || IsRetriable(err) {
			n.hear(err)
		}
		return err
	}
}
