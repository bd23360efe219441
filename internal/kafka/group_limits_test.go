package kafka_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// A program that stops during an outage stops: Leave takes 5 s, whatever is broken.
func TestLeaveIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(l *lone)
		took  time.Duration // at most
		ok    bool
	}{
		"all is well":           {func(*lone) {}, 0, true},
		"it was removed before": {func(l *lone) { l.leaveWith(unknownMember) }, 0, true},
		"no right":              {func(l *lone) { l.leaveWith(groupForbidden) }, 0, false},
		"no coordinator":        {func(l *lone) { l.leaveWith(notCoordinator) }, 5 * time.Second, false},
		"no answer":             {func(l *lone) { l.on(kmsg.LeaveGroup, silence) }, 5 * time.Second, false},
		"no broker":             {func(l *lone) { l.breakDial(1, errors.New("gone")); l.cut() }, 5 * time.Second, false},
		"silent brokers":        {func(l *lone) { l.breakDial(1, nil); l.cut() }, 5 * time.Second, false},
		"silent connections": {func(l *lone) {
			for _, key := range []kmsg.Key{kmsg.LeaveGroup, kmsg.Heartbeat, kmsg.FindCoordinator, kmsg.Metadata} {
				l.on(key, silence)
			}
		}, 5 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLone(t, 1)
				_, g := l.group()
				mustJoin(t, g)
				time.Sleep(1500 * time.Millisecond)
				c.spoil(l)
				time.Sleep(time.Second) // a heartbeat is on its way
				began := time.Now()
				err := g.Leave(t.Context())
				if took := time.Since(began); took > c.took {
					t.Errorf("it took %v, want %v at most", took, c.took)
				}
				if (err == nil) != c.ok {
					t.Errorf("Leave = %v", err)
				}
				if g.Alive() || !is(g.Lost()) {
					t.Error("a member behind Leave")
				}
			})
		})
	}
}

func silence(int32, kmsg.Request) kmsg.Response { return nil }

func (l *lone) leaveWith(code int16) {
	l.on(kmsg.LeaveGroup, func(_ int32, r kmsg.Request) kmsg.Response {
		a := r.ResponseKind().(*kmsg.LeaveGroupResponse)
		a.ErrorCode = code
		return a
	})
}

// Asking again with a wrong password locks accounts: wherever it shows, it is final.
func TestRefusedLoginIsFinal(t *testing.T) {
	for name, ask := range map[string]func(ctx context.Context, c *kafka.Cluster, g *kafka.Group) error{
		"topics": func(ctx context.Context, c *kafka.Cluster, _ *kafka.Group) error { _, err := c.Topics(ctx); return err },
		"partitions": func(ctx context.Context, c *kafka.Cluster, _ *kafka.Group) error {
			_, err := c.Partitions(ctx, "t")
			return err
		},
		"leader": func(ctx context.Context, c *kafka.Cluster, _ *kafka.Group) error {
			c.Stale("t")
			_, err := c.Leader(ctx, parts("t", 1)[0])
			return err
		},
		"offsets": func(ctx context.Context, c *kafka.Cluster, _ *kafka.Group) error {
			_, err := c.ListOffsets(ctx, parts("t", 4), -1, false)
			return err
		},
		"committed": func(ctx context.Context, c *kafka.Cluster, _ *kafka.Group) error {
			_, err := c.CommittedOffsets(ctx, "g", parts("t", 4))
			return err
		},
		"commit": func(ctx context.Context, c *kafka.Cluster, g *kafka.Group) error {
			return c.CommitOffsets(ctx, g.Member(), map[kafka.TopicPartition]kafka.Committed{{Topic: "t"}: {Offset: 1}})
		},
		"join": func(ctx context.Context, _ *kafka.Cluster, g *kafka.Group) error {
			_, err := g.Join(ctx, nil)
			return err
		},
		"confirm": func(ctx context.Context, _ *kafka.Cluster, g *kafka.Group) error { return g.Confirm(ctx) },
		"leave":   func(ctx context.Context, _ *kafka.Cluster, g *kafka.Group) error { return g.Leave(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLone(t, 1, 2, 3)
				c, g := l.group()
				mustJoin(t, g)
				for _, b := range l.brokers {
					l.breakDial(b, &kafka.AuthError{Addr: addr(b), Reason: "wrong password"})
				}
				l.cut()
				before := l.dialled()
				began := time.Now()
				err := ask(t.Context(), c, g)
				var refused *kafka.AuthError
				if !errors.As(err, &refused) || kafka.IsRetriable(err) {
					t.Errorf("error = %v, want an AuthError that is final", err)
				}
				if took := time.Since(began); took > 20*time.Millisecond { // one more try, since it finds a dead connection first
					t.Errorf("it took %v", took)
				}
				if n := l.dialled() - before; n > 3 { // one, and maybe others that were asked beside it
					t.Errorf("%d logins", n)
				}
			})
		})
	}
}

func (s *script) dialled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials
}

// A coordinator that moves all the time costs a look each time, and no membership.
func TestCoordinatorThatMovesOften(t *testing.T) {
	strategies(t, func(t *testing.T, coop bool) {
		f, b := fake(t, 6), newTable(t)
		one, two := b.hold("a", f.ListenAddrs(), quick(coop)), b.hold("b", f.ListenAddrs(), quick(coop))
		b.wait(map[string]int{"a": 3, "b": 3})
		stable(t, f, 2)
		was := []kafka.Member{one.g.Member(), two.g.Member()}
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for i := range 8 {
			<-tick.C
			f.RehashCoordinators()
			for k, h := range []*holder{one, two} {
				offset := kafka.Committed{Offset: int64(10*i + k)}
				tp := kafka.TopicPartition{Topic: "t", Partition: int32(k)}
				if err := h.c.CommitOffsets(t.Context(), h.g.Member(), map[kafka.TopicPartition]kafka.Committed{tp: offset}); err != nil {
					t.Errorf("move %d: commit: %v", i, err)
				}
				got, err := h.c.CommittedOffsets(t.Context(), "g", []kafka.TopicPartition{tp})
				if err != nil || got[tp] != offset {
					t.Errorf("move %d: committed %v, %v; want %v", i, got, err, offset)
				}
				if err := h.g.Confirm(t.Context()); err != nil || !h.g.Alive() {
					t.Errorf("move %d: %s: alive %v, Confirm = %v", i, h.name, h.g.Alive(), err)
				}
			}
		}
		if now := []kafka.Member{one.g.Member(), two.g.Member()}; now[0] != was[0] || now[1] != was[1] {
			t.Errorf("members %v, before the moves %v", now, was)
		}
		one.leave()
		two.leave()
	})
}
