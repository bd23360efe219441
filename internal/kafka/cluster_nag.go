package kafka

import (
	"log/slog"
	"slices"
	"time"
)

// nagAfter is how long something may fail before a person is told.
const nagAfter = 5 * time.Second

// A nag warns once when what is tried again and again has failed for long, and says
// so when it works at last. It serves one goroutine.
type nag struct {
	log   *slog.Logger
	attrs []any
	since time.Time // of the first failure in a row
	told  bool
}

// nag returns a nag about what is done, with attributes that tell more.
func (cl *Cluster) nag(what string, attrs ...any) *nag {
	return &nag{log: cl.c.Log, attrs: append([]any{"what", what}, attrs...)}
}

// hear takes what a try came to.
func (n *nag) hear(err error) {
	switch {
	case err == nil:
		if n.told {
			n.log.Info("a request to Kafka works again", n.attrs...)
		}
		n.since, n.told = time.Time{}, false
	case n.since.IsZero():
		n.since = time.Now()
	case !n.told && time.Since(n.since) >= nagAfter:
		n.told = true
		n.log.Warn("a request to Kafka fails again and again",
			append(slices.Clone(n.attrs), "for", time.Since(n.since).Round(time.Second), "error", err)...)
	}
}

// telling is f, whose failures over a long time are told of.
func (cl *Cluster) telling(what string, f func() error, attrs ...any) func() error {
	n := cl.nag(what, attrs...)
	return func() error {
		err := f()
		if err == nil || IsRetriable(err) {
			n.hear(err)
		}
		return err
	}
}
