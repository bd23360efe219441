package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// A logbook keeps the lines of Info and above.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logbook) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.b.String()), "\n")
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (s *script) openTold(l *logbook) *kafka.Cluster {
	s.t.Helper()
	config := s.config()
	config.Log = l.logger()
	c, err := kafka.Open(s.t.Context(), config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// What is tried for ever is told of, once, after 5 s; and that it is over.
func TestLongFailuresAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, book := newScript(t, 1), &logbook{}
		s.lead("t", -1)
		s.on(kmsg.ListOffsets, listed)
		c := s.openTold(book)
		done := make(chan error)
		go func() {
			_, err := c.ListOffsets(t.Context(), parts("t", 1), -1, true)
			done <- err
		}()
		time.Sleep(4 * time.Second)
		if l := book.lines(); l[0] != "" {
			t.Errorf("told after 4 s: %q", l)
		}
		time.Sleep(time.Minute)
		if l := book.lines(); len(l) != 1 || !strings.Contains(l[0], "level=WARN") || !strings.Contains(l[0], `what="list offsets"`) ||
			!strings.Contains(l[0], "t/0") {
			t.Errorf("told after a minute: %q", l)
		}
		s.lead("t", 1)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if l := book.lines(); len(l) != 2 || !strings.Contains(l[1], "level=INFO") || !strings.Contains(l[1], "works again") {
			t.Errorf("told in the end: %q", l)
		}
	})
}

// A short trouble is nobody's business.
func TestShortFailuresAreNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, book := newScript(t, 1), &logbook{}
		s.lead("t", -1)
		s.on(kmsg.ListOffsets, listed)
		c := s.openTold(book)
		for range 5 {
			s.lead("t", -1)
			c.Stale("t")
			time.AfterFunc(3*time.Second, func() { s.lead("t", 1) })
			if _, err := c.ListOffsets(t.Context(), parts("t", 1), -1, true); err != nil {
				t.Error(err)
			}
		}
		if l := book.lines(); l[0] != "" {
			t.Errorf("told: %q", l)
		}
	})
}

// listed answers 7 for every partition.
func listed(_ int32, r kmsg.Request) kmsg.Response {
	a := r.ResponseKind().(*kmsg.ListOffsetsResponse)
	for _, t := range r.(*kmsg.ListOffsetsRequest).Topics {
		answer := kmsg.NewListOffsetsResponseTopic()
		answer.Topic = t.Topic
		for _, p := range t.Partitions {
			one := kmsg.NewListOffsetsResponseTopicPartition()
			one.Partition, one.Offset = p.Partition, 7
			answer.Partitions = append(answer.Partitions, one)
		}
		a.Topics = append(a.Topics, answer)
	}
	return a
}

// However many topics are new and partitions without a leader, they are asked for
// together, and those that have a leader do not wait for the others.
func TestLeadersAreAskedForTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, 1, 2)
		s.on(kmsg.ListOffsets, listed)
		c := s.open()
		before := len(s.of(kmsg.Metadata))
		var all []kafka.TopicPartition
		for _, name := range strings.Split("abcdefghijklmnopqrst", "") {
			s.lead(name, slices.Repeat([]int32{2}, 10)...)
			all = append(all, parts(name, 10)...)
		}
		began := time.Now()
		if got, err := c.ListOffsets(t.Context(), all, -1, true); len(got) != 200 || err != nil {
			t.Errorf("ListOffsets = %d offsets, %v", len(got), err)
		}
		if n, took := len(s.of(kmsg.Metadata))-before, time.Since(began); n != 1 || took > 100*time.Millisecond {
			t.Errorf("%d metadata requests in %v for 20 new topics, want 1", n, took)
		}

		s.lead("half", append(slices.Repeat([]int32{-1}, 50), slices.Repeat([]int32{1}, 50)...)...)
		before, began = len(s.of(kmsg.Metadata)), time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		got, faults := c.ListEachOffset(ctx, parts("half", 100), -1, true)
		if len(got) != 50 || len(faults) != 50 {
			t.Errorf("%d offsets and %d faults, want 50 each", len(got), len(faults))
		}
		for tp, err := range faults {
			if _, leads := got[tp]; leads || !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "Leader Not Available") {
				t.Errorf("%s: %v", tp, err)
			}
		}
		asked := s.of(kmsg.ListOffsets)
		if late := asked[len(asked)-1].at.Sub(began); late > 100*time.Millisecond {
			t.Errorf("the partitions with a leader waited %v for those without", late)
		}
		if n := len(s.of(kmsg.Metadata)) - before; n < 5 || n > 30 {
			t.Errorf("%d metadata requests in 10 s without a leader, want about one a second", n)
		}
	})
}

// A group that cannot be joined, a member that nobody understands, heartbeats that are
// not answered: each is told of once.
func TestGroupTellsItsTroubles(t *testing.T) {
	config := kafka.GroupConfig{ID: "g", Topics: fixedTopics("t"), Session: 20 * time.Second, Rebalance: 20 * time.Second, Heartbeat: time.Second}
	for name, c := range map[string]struct {
		spoil func(l *lone)
		words []string
	}{
		"no coordinator": {func(l *lone) {
			l.join = func(_ *kmsg.JoinGroupRequest, a *kmsg.JoinGroupResponse) bool {
				a.ErrorCode = notCoordinator
				return true
			}
		}, []string{`what="join the group" group=g`, "Not Coordinator"}},
		"a member's metadata": {func(l *lone) {
			l.join = func(_ *kmsg.JoinGroupRequest, a *kmsg.JoinGroupResponse) bool {
				a.Members = append(a.Members, kmsg.JoinGroupResponseMember{MemberID: "stranger", ProtocolMetadata: []byte("?")})
				return true
			}
		}, []string{`what="join the group" group=g`, "member stranger"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, book := newLone(t, 1), &logbook{}
				c.spoil(l)
				g := kafka.NewGroup(l.openTold(book), config)
				defer g.Leave(context.Background())
				joined := make(chan kafka.Assignment)
				go func() { joined <- mustJoin(t, g) }()
				time.Sleep(time.Minute)
				if n := len(l.of(kmsg.JoinGroup)); n > 80 {
					t.Errorf("%d joins in a minute", n)
				}
				wantTold(t, book, append(c.words, "level=WARN")...)
				l.mu.Lock()
				l.join = nil
				l.mu.Unlock()
				<-joined
				wantTold(t, book, `level=INFO msg="a request to Kafka works again" what="join the group" group=g`)
			})
		})
	}
	t.Run("heartbeats", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, book := newLone(t, 1), &logbook{}
			g := kafka.NewGroup(l.openTold(book), config)
			defer g.Leave(context.Background())
			mustJoin(t, g)
			l.beat(coordinatorLoading)
			time.Sleep(10 * time.Second)
			wantTold(t, book, "level=WARN", "what=heartbeat group=g")
			l.beat(0)
			time.Sleep(2 * time.Second)
			wantTold(t, book, "works again")
			if is(g.Lost()) {
				t.Error("lost within the session")
			}
		})
	})
}

// wantTold checks that one line was written since the last time.
func wantTold(t *testing.T, book *logbook, words ...string) {
	t.Helper()
	lines := book.lines()
	book.mu.Lock()
	book.b.Reset()
	book.mu.Unlock()
	if len(lines) != 1 {
		t.Fatalf("%d lines, want one: %q", len(lines), lines)
	}
	for _, w := range words {
		if !strings.Contains(lines[0], w) {
			t.Errorf("%q has no %q", lines[0], w)
		}
	}
}
