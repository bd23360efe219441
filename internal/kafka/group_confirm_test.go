package kafka_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// A fencing error may be a time-out of the transaction, or a successor: Confirm tells.
func TestConfirm(t *testing.T) {
	for name, c := range map[string]struct {
		code   int16 // that heartbeats are answered
		times  int   // 0: always
		change func(*kafka.GroupConfig)
		want   error         // nil: a member
		took   time.Duration // at most
	}{
		"a member":              {},
		"a rebalance":           {code: rebalanceInProgress},
		"unknown":               {code: unknownMember, want: kafka.ErrNotMember},
		"an old generation":     {code: illegalGeneration, want: kafka.ErrNotMember},
		"fenced":                {code: fencedInstance, change: static, want: kafka.ErrNotMember},
		"no right":              {code: groupForbidden, want: kafkago.GroupAuthorizationFailed},
		"the coordinator moved": {code: notCoordinator, times: 3, took: time.Second},
		"nobody coordinates":    {code: notCoordinator, want: kafkago.NotCoordinatorForGroup, took: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLone(t, 1)
				change := c.change
				if change == nil {
					change = func(*kafka.GroupConfig) {}
				}
				_, g := l.group(change)
				mustJoin(t, g)
				n := 0
				l.on(kmsg.Heartbeat, func(b int32, r kmsg.Request) kmsg.Response {
					n++
					if c.times == 0 || n <= c.times {
						l.beat(c.code)
					} else {
						l.beat(0)
					}
					return l.onHeartbeat(b, r)
				})
				began := time.Now()
				err := g.Confirm(t.Context())
				if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
					t.Errorf("Confirm = %v, want %v", err, c.want)
				}
				if took := time.Since(began); took > c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				lost := errors.Is(err, kafka.ErrNotMember)
				if is(g.Lost()) != lost || g.Alive() == lost {
					if !errors.Is(err, kafkago.NotCoordinatorForGroup) { // its session ends just then
						t.Errorf("lost %v, alive %v behind %v", is(g.Lost()), g.Alive(), err)
					}
				}
				if is(g.Changed()) != (c.code == rebalanceInProgress) {
					t.Errorf("changed %v", is(g.Changed()))
				}
			})
		})
	}
}

func TestConfirmWithoutMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t, 1)
		_, g := l.group()
		if err := g.Confirm(t.Context()); !errors.Is(err, kafka.ErrNotMember) || kafka.IsRetriable(err) {
			t.Errorf("before the first join: %v", err)
		}
		mustJoin(t, g)
		if err := g.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		if err := g.Confirm(t.Context()); !errors.Is(err, kafka.ErrNotMember) {
			t.Errorf("behind Leave: %v", err)
		}
		if n := len(l.of(kmsg.Heartbeat)); n > 0 {
			t.Errorf("%d heartbeats, want none", n)
		}
	})
}

// Until the answer to a join is here the old generation may be over and the member
// not: the join tells.
func TestConfirmWaitsForTheJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t, 1)
		_, g := l.group(cooperative)
		first := mustJoin(t, g)
		release := make(chan struct{})
		l.on(kmsg.JoinGroup, func(b int32, r kmsg.Request) kmsg.Response {
			<-release
			return l.onJoin(b, r)
		})
		l.on(kmsg.Heartbeat, func(b int32, q kmsg.Request) kmsg.Response {
			l.beat(0)
			if q.(*kmsg.HeartbeatRequest).Generation == first.Generation {
				l.beat(illegalGeneration)
			}
			return l.onHeartbeat(b, q)
		})
		joined := make(chan kafka.Assignment)
		go func() { joined <- mustJoin(t, g, first.Parts...) }()
		synctest.Wait()
		confirmed := make(chan error, 1)
		go func() { confirmed <- g.Confirm(t.Context()) }()
		time.Sleep(2 * time.Second)
		select {
		case err := <-confirmed:
			t.Fatalf("Confirm = %v before the join's end", err)
		default:
		}
		close(release)
		<-joined
		if err := <-confirmed; err != nil {
			t.Errorf("Confirm = %v behind the join", err)
		}
	})
}

// After a pause of the process nobody may write before the coordinator says so: the
// clock alone ends the membership, and no heartbeat of the past counts.
func TestConfirmBehindAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t, 1)
		_, g := l.group()
		mustJoin(t, g)
		answer := make(chan struct{})
		l.on(kmsg.Heartbeat, func(b int32, r kmsg.Request) kmsg.Response { // on its way while all stands still
			<-answer
			return l.onHeartbeat(b, r)
		})
		time.Sleep(9900 * time.Millisecond)
		if !g.Alive() {
			t.Error("not alive within the session")
		}
		time.Sleep(200 * time.Millisecond)
		if g.Alive() {
			t.Error("alive though nothing was heard for a session")
		}
		close(answer)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := g.Confirm(ctx); err == nil && !g.Alive() {
			t.Error("confirmed and not alive")
		}
	})
}
