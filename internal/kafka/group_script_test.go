package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// Codes of the group protocol.
const (
	coordinatorLoading  = 14
	notCoordinator      = 16
	illegalGeneration   = 22
	inconsistent        = 23
	unknownMember       = 25
	badSession          = 26
	rebalanceInProgress = 27
	groupForbidden      = 30
	memberIDRequired    = 79
	fencedInstance      = 82
)

// A lone coordinator has one member, which leads. Its answers may be changed.
type lone struct {
	*script
	generation int32
	member     string
	made       int // member ids
	assigned   []byte
	beats      int16                                                          // what heartbeats are answered
	join       func(r *kmsg.JoinGroupRequest, a *kmsg.JoinGroupResponse) bool // false: no answer
	sync       func(r *kmsg.SyncGroupRequest, a *kmsg.SyncGroupResponse) bool
	silent     bool // heartbeats are not answered
}

func newLone(t *testing.T, brokers ...int32) *lone {
	l := &lone{script: newScript(t, brokers...)}
	l.lead("t", slices.Repeat(brokers[:1], 4)...)
	l.on(kmsg.JoinGroup, l.onJoin)
	l.on(kmsg.SyncGroup, l.onSync)
	l.on(kmsg.Heartbeat, l.onHeartbeat)
	l.on(kmsg.LeaveGroup, func(_ int32, r kmsg.Request) kmsg.Response { return r.ResponseKind() })
	return l
}

func (l *lone) onJoin(_ int32, q kmsg.Request) kmsg.Response {
	r, a := q.(*kmsg.JoinGroupRequest), q.ResponseKind().(*kmsg.JoinGroupResponse)
	l.mu.Lock()
	defer l.mu.Unlock()
	a.MemberID = r.MemberID
	switch {
	case r.MemberID == "" && r.InstanceID == nil:
		l.made++
		l.member = fmt.Sprintf("m%d", l.made)
		a.MemberID, a.ErrorCode = l.member, memberIDRequired
		return a
	case r.MemberID == "":
		l.made++
		a.MemberID = fmt.Sprintf("%s-%d", *r.InstanceID, l.made)
	}
	l.member = a.MemberID
	a.LeaderID = a.MemberID
	proto := r.Protocols[0]
	a.Protocol = &proto.Name
	a.Members = []kmsg.JoinGroupResponseMember{{MemberID: a.MemberID, InstanceID: r.InstanceID, ProtocolMetadata: proto.Metadata}}
	a.Generation = l.generation + 1
	if l.join != nil && !l.join(r, a) {
		return nil
	}
	if a.ErrorCode == 0 {
		l.generation = a.Generation
	}
	return a
}

func (l *lone) onSync(_ int32, q kmsg.Request) kmsg.Response {
	r, a := q.(*kmsg.SyncGroupRequest), q.ResponseKind().(*kmsg.SyncGroupResponse)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range r.GroupAssignment {
		if g.MemberID == r.MemberID {
			l.assigned = g.MemberAssignment
		}
	}
	a.MemberAssignment = l.assigned
	if l.sync != nil && !l.sync(r, a) {
		return nil
	}
	return a
}

func (l *lone) onHeartbeat(_ int32, q kmsg.Request) kmsg.Response {
	a := q.ResponseKind().(*kmsg.HeartbeatResponse)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent {
		return nil
	}
	a.ErrorCode = l.beats
	return a
}

// beat sets what heartbeats are answered.
func (l *lone) beat(code int16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beats = code
}

// names of the partitions of topic t, four of them.
func fixedTopics(names ...string) func(context.Context) ([]string, error) {
	return func(context.Context) ([]string, error) { return names, nil }
}

func parts(topic string, n int) []kafka.TopicPartition {
	var all []kafka.TopicPartition
	for i := range n {
		all = append(all, kafka.TopicPartition{Topic: topic, Partition: int32(i)})
	}
	return all
}

// is reports whether a channel is closed.
func is(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// members of the scripted tests have short times: session 10 s, rebalance 20 s,
// heartbeats each second.
func (l *lone) group(change ...func(*kafka.GroupConfig)) (*kafka.Cluster, *kafka.Group) {
	l.t.Helper()
	c := l.open()
	config := kafka.GroupConfig{ID: "g", Topics: fixedTopics("t"), Session: 10 * time.Second, Rebalance: 20 * time.Second, Heartbeat: time.Second}
	for _, f := range change {
		f(&config)
	}
	g := kafka.NewGroup(c, config)
	l.t.Cleanup(func() { _ = g.Leave(context.Background()) })
	return c, g
}

func static(c *kafka.GroupConfig)      { c.Instance = "i" }
func cooperative(c *kafka.GroupConfig) { c.Cooperative = true }

func mustJoin(t *testing.T, g *kafka.Group, owned ...kafka.TopicPartition) kafka.Assignment {
	t.Helper()
	a, err := g.Join(t.Context(), owned)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t, 1)
		_, g := l.group()
		if g.Alive() {
			t.Error("alive before the first join")
		}
		a := mustJoin(t, g)
		if a.Generation != 1 || !slices.Equal(a.Parts, parts("t", 4)) || a.Anew {
			t.Errorf("Join = %+v", a)
		}
		if m := g.Member(); m != (kafka.Member{Group: "g", Generation: 1, ID: "m1"}) {
			t.Errorf("Member = %+v", m)
		}
		time.Sleep(10500 * time.Millisecond)
		if n := len(l.of(kmsg.Heartbeat)); n != 10 || !g.Alive() || is(g.Lost()) || is(g.Changed()) {
			t.Errorf("%d heartbeats in 10 s, want 10; alive %v, lost %v, changed %v", n, g.Alive(), is(g.Lost()), is(g.Changed()))
		}
		if err := g.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		if q := l.of(kmsg.LeaveGroup); len(q) != 1 || q[0].Request.(*kmsg.LeaveGroupRequest).Members[0].MemberID != "m1" {
			t.Errorf("leave requests %v", q)
		}
		if g.Alive() || !is(g.Lost()) {
			t.Error("alive behind Leave")
		}
	})
}

// A drain may outlast the session: heartbeats go on, and the id stays.
func TestDrainLongerThanTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t, 1)
		_, g := l.group()
		mustJoin(t, g)
		l.beat(rebalanceInProgress)
		<-g.Changed()
		time.Sleep(15 * time.Second)
		if !g.Alive() || is(g.Lost()) {
			t.Errorf("alive %v, lost %v while it drains", g.Alive(), is(g.Lost()))
		}
		l.beat(0)
		if a := mustJoin(t, g); a.Generation != 2 || g.Member().ID != "m1" || a.Anew {
			t.Errorf("Join = %+v as %+v", a, g.Member())
		}
		if is(g.Changed()) {
			t.Error("changed right behind the join")
		}
	})
}

func TestLost(t *testing.T) {
	for name, c := range map[string]struct {
		code   int16
		silent bool
		after  time.Duration // from the last good heartbeat, when Lost closes
		id     string        // joined with then
	}{
		"silence":            {silent: true, after: 10 * time.Second, id: "m1"},
		"unknown member":     {code: unknownMember, after: time.Second, id: "m2"},
		"illegal generation": {code: illegalGeneration, after: time.Second, id: "m1"},
		"no coordinator":     {code: notCoordinator, after: 10 * time.Second, id: "m1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLone(t, 1)
				_, g := l.group(cooperative)
				mustJoin(t, g)
				time.Sleep(3 * time.Second)
				l.mu.Lock()
				l.beats, l.silent = c.code, c.silent
				l.mu.Unlock()
				began := time.Now()
				<-g.Lost()
				if took := time.Since(began); took < c.after-time.Second || took > c.after+100*time.Millisecond {
					t.Errorf("lost after %v, want %v", took, c.after)
				}
				if g.Alive() {
					t.Error("alive behind Lost")
				}
				l.mu.Lock()
				l.beats, l.silent = 0, false
				l.mu.Unlock()
				n := len(l.of(kmsg.Heartbeat))
				time.Sleep(10 * time.Second)
				if more := len(l.of(kmsg.Heartbeat)) - n; more > 0 {
					t.Errorf("%d heartbeats behind Lost: the coordinator would keep the partitions", more)
				}
				a := mustJoin(t, g, parts("t", 4)...) // by an owner that has not seen it
				if g.Member().ID != c.id || !a.Anew || !g.Alive() {
					t.Errorf("joined as %+v, %+v; want %s, anew", g.Member(), a, c.id)
				}
				q := l.of(kmsg.JoinGroup)
				if s := subscriptionOf(t, q[len(q)-1].Request.(*kmsg.JoinGroupRequest)); len(s.OwnedPartitions) > 0 {
					t.Errorf("it says to own %v, which is over", s.OwnedPartitions)
				}
			})
		})
	}
}

// subscriptionOf decodes what a member tells the leader.
func subscriptionOf(t *testing.T, r *kmsg.JoinGroupRequest) kmsg.ConsumerMemberMetadata {
	t.Helper()
	var s kmsg.ConsumerMemberMetadata
	if err := s.ReadFrom(r.Protocols[0].Metadata); err != nil {
		t.Error(err)
	}
	return s
}

func TestFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t, 1)
		_, g := l.group(static)
		mustJoin(t, g)
		l.beat(fencedInstance)
		<-g.Lost()
		_, err := g.Join(t.Context(), nil)
		wantWords(t, err, `instance id "i"`, "another process", "instance_id")
		if !errors.Is(err, kafkago.FencedInstanceID) {
			t.Errorf("error = %v, want FENCED_INSTANCE_ID in it", err)
		}
	})
}

func TestJoinErrorsThatLast(t *testing.T) {
	for code, words := range map[int16][]string{
		inconsistent:   {"no assignment strategy in common", `"range"`},
		badSession:     {"10s", "group.min.session.timeout.ms"},
		groupForbidden: {"right to read the group"},
		fencedInstance: {"instance_id"},
		81:             {"join: ", "81"},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLone(t, 1)
			_, g := l.group()
			l.join = func(_ *kmsg.JoinGroupRequest, a *kmsg.JoinGroupResponse) bool { a.ErrorCode = code; return true }
			_, err := g.Join(t.Context(), nil)
			wantWords(t, err, words...)
		})
	}
}

// What a join may run into on its way, and the member id that it keeps or not.
func TestJoinRecovers(t *testing.T) {
	type join = func(r *kmsg.JoinGroupRequest, a *kmsg.JoinGroupResponse) bool
	type sync = func(r *kmsg.SyncGroupRequest, a *kmsg.SyncGroupResponse) bool
	joinCode := func(code int16) join {
		return func(_ *kmsg.JoinGroupRequest, a *kmsg.JoinGroupResponse) bool { a.ErrorCode = code; return true }
	}
	syncCode := func(code int16) sync {
		return func(_ *kmsg.SyncGroupRequest, a *kmsg.SyncGroupResponse) bool { a.ErrorCode = code; return true }
	}
	for name, c := range map[string]struct {
		join  join
		sync  sync
		times int // that it happens
		id    string
		took  time.Duration // at most
	}{
		"loading":                 {join: joinCode(coordinatorLoading), times: 5, id: "m1", took: time.Second},
		"not the coordinator":     {join: joinCode(notCoordinator), times: 3, id: "m1", took: time.Second},
		"unknown member":          {join: joinCode(unknownMember), times: 1, id: "m2", took: time.Second},
		"rebalance at sync":       {sync: syncCode(rebalanceInProgress), times: 10, id: "m1", took: time.Second},
		"unknown member at sync":  {sync: syncCode(unknownMember), times: 2, id: "m3", took: time.Second},
		"old generation at sync":  {sync: syncCode(illegalGeneration), times: 2, id: "m1", took: time.Second},
		"coordinator moves, sync": {sync: syncCode(notCoordinator), times: 2, id: "m1", took: time.Second},
		"join is not answered": {join: func(*kmsg.JoinGroupRequest, *kmsg.JoinGroupResponse) bool { return false },
			times: 1, id: "m1", took: 36 * time.Second},
		"sync is not answered": {sync: func(*kmsg.SyncGroupRequest, *kmsg.SyncGroupResponse) bool { return false },
			times: 1, id: "m1", took: 36 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLone(t, 1)
				_, g := l.group()
				left := c.times
				use := func(f bool) bool { left--; return f && left >= 0 }
				if c.join != nil {
					l.join = func(r *kmsg.JoinGroupRequest, a *kmsg.JoinGroupResponse) bool {
						if use(true) {
							return c.join(r, a)
						}
						return true
					}
				}
				if c.sync != nil {
					l.sync = func(r *kmsg.SyncGroupRequest, a *kmsg.SyncGroupResponse) bool {
						if use(true) {
							return c.sync(r, a)
						}
						return true
					}
				}
				began := time.Now()
				a := mustJoin(t, g)
				if took := time.Since(began); took > c.took {
					t.Errorf("it took %v, want %v at most", took, c.took)
				}
				if g.Member().ID != c.id || !slices.Equal(a.Parts, parts("t", 4)) || !g.Alive() || a.Anew {
					t.Errorf("joined as %+v with %+v, want %s", g.Member(), a, c.id)
				}
			})
		})
	}
}

// The coordinator dies with a join in its hands, without a word: the one that takes
// its place is found long before the join's time is over.
func TestJoinFollowsTheCoordinator(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("first join %v", first), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLone(t, 1, 2)
				_, g := l.group()
				if !first {
					mustJoin(t, g)
				}
				l.mu.Lock()
				l.join = func(*kmsg.JoinGroupRequest, *kmsg.JoinGroupResponse) bool { return false }
				l.mu.Unlock()
				began := time.Now()
				done := make(chan kafka.Assignment)
				go func() { done <- mustJoin(t, g) }()
				time.Sleep(time.Second)
				l.mu.Lock()
				l.join = nil
				l.mu.Unlock()
				l.on(kmsg.FindCoordinator, l.coordinator(2))
				a := <-done
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %v, want a third of a session", took)
				}
				q := l.of(kmsg.JoinGroup)
				if last := q[len(q)-1]; last.broker != 2 || last.Request.(*kmsg.JoinGroupRequest).MemberID != "m1" || len(a.Parts) != 4 {
					t.Errorf("joined at %d with %+v", last.broker, a)
				}
			})
		})
	}
}

// A coordinator may forget a member while its join waits (kfake does).
func TestJoinEndsWhenTheMemberIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t, 1)
		_, g := l.group(cooperative)
		mustJoin(t, g)
		l.mu.Lock()
		l.join = func(r *kmsg.JoinGroupRequest, _ *kmsg.JoinGroupResponse) bool { return r.MemberID != "m1" }
		l.beats = unknownMember
		l.mu.Unlock()
		began := time.Now()
		a := mustJoin(t, g, parts("t", 2)...)
		if took := time.Since(began); took > 2*time.Second || g.Member().ID != "m2" || !a.Anew {
			t.Errorf("joined after %v as %+v with %+v", took, g.Member(), a)
		}
	})
}

// Between the answer to a join and the new generation, heartbeats of the old one are
// refused: that is no loss.
func TestOldHeartbeatsDoNotCountWhileJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t, 1)
		_, g := l.group(cooperative)
		first := mustJoin(t, g)
		release := make(chan struct{})
		l.on(kmsg.SyncGroup, func(b int32, r kmsg.Request) kmsg.Response {
			<-release
			return l.onSync(b, r)
		})
		l.beat(illegalGeneration)
		done := make(chan kafka.Assignment)
		go func() { done <- mustJoin(t, g, first.Parts...) }()
		time.Sleep(5 * time.Second)
		l.beat(0)
		close(release)
		if a := <-done; a.Anew || !g.Alive() {
			t.Errorf("Join = %+v, want nothing lost", a)
		}
	})
}

func TestHeartbeatsFollowTheCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t, 1, 2)
		_, g := l.group()
		mustJoin(t, g)
		l.on(kmsg.Heartbeat, func(b int32, r kmsg.Request) kmsg.Response {
			if b == 1 {
				a := r.ResponseKind().(*kmsg.HeartbeatResponse)
				a.ErrorCode = notCoordinator
				return a
			}
			return l.onHeartbeat(b, r)
		})
		l.on(kmsg.FindCoordinator, l.coordinator(2))
		time.Sleep(2 * time.Second)
		if q := l.of(kmsg.Heartbeat); q[len(q)-1].broker != 2 {
			t.Error("no heartbeat at the new coordinator")
		}
		l.cut()
		l.breakDial(1, errors.New("it is gone"))
		time.Sleep(30 * time.Second)
		if !g.Alive() || is(g.Lost()) {
			t.Error("lost though another coordinator was there")
		}
	})
}

func TestNewPartitionsAndTopics(t *testing.T) {
	for name, c := range map[string]struct {
		change func(l *lone, names *[]string)
		want   int
	}{
		"partitions": {func(l *lone, _ *[]string) { l.lead("t", 1, 1, 1, 1, 1, 1) }, 6},
		"topic":      {func(l *lone, names *[]string) { l.lead("u", 1, 1, 1); *names = []string{"u", "t"} }, 7},
		"topic made": {func(l *lone, _ *[]string) { l.lead("v", 1) }, 5},
		"deleted":    {func(l *lone, _ *[]string) { l.mu.Lock(); delete(l.leaders, "t"); l.mu.Unlock() }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLone(t, 1)
				names := []string{"t", "v"} // there is no v yet
				_, g := l.group(func(c *kafka.GroupConfig) {
					c.Topics = func(context.Context) ([]string, error) {
						l.mu.Lock()
						defer l.mu.Unlock()
						return slices.Clone(names), nil
					}
				})
				if a := mustJoin(t, g); len(a.Parts) != 4 {
					t.Fatalf("Join = %+v", a)
				}
				time.Sleep(100 * time.Second)
				if is(g.Changed()) {
					t.Error("changed before anything did")
				}
				l.mu.Lock()
				add := names
				l.mu.Unlock()
				c.change(l, &add)
				l.mu.Lock()
				names = add
				l.mu.Unlock()
				began := time.Now()
				<-g.Changed()
				if took := time.Since(began); took > 30*time.Second {
					t.Errorf("seen after %v, want 30 s at most", took)
				}
				if a := mustJoin(t, g); len(a.Parts) != c.want {
					t.Errorf("Join = %+v, want %d partitions", a, c.want)
				}
			})
		})
	}
}

// A static member that led before its restart is not told that it still leads; yet it
// alone can find new partitions.
func TestRestartedLeaderLooksForPartitions(t *testing.T) {
	for _, grown := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLone(t, 1)
			_, g := l.group(static)
			mustJoin(t, g)
			if err := g.Leave(t.Context()); err != nil || len(l.of(kmsg.LeaveGroup)) > 0 {
				t.Errorf("Leave = %v, which a static member does not", err)
			}
			l.mu.Lock()
			l.join = func(r *kmsg.JoinGroupRequest, a *kmsg.JoinGroupResponse) bool {
				if r.MemberID == "" {
					a.LeaderID, a.Members, a.Generation = "i-1", nil, l.generation
				}
				return true
			}
			l.mu.Unlock()
			l.on(kmsg.DescribeGroups, func(_ int32, r kmsg.Request) kmsg.Response {
				a := r.ResponseKind().(*kmsg.DescribeGroupsResponse)
				q := l.of(kmsg.JoinGroup)
				a.Groups = []kmsg.DescribeGroupsResponseGroup{{Group: "g", State: "Stable", ProtocolType: "consumer", Protocol: "range",
					Members: []kmsg.DescribeGroupsResponseGroupMember{{MemberID: "i-1", MemberAssignment: l.assigned,
						ProtocolMetadata: q[0].Request.(*kmsg.JoinGroupRequest).Protocols[0].Metadata}}}}
				return a
			})
			if grown {
				l.lead("t", 1, 1, 1, 1, 1)
			}
			_, g = l.group(static)
			if a := mustJoin(t, g); len(a.Parts) != 4 || g.Member().ID != "i-2" {
				t.Errorf("Join = %+v as %+v", a, g.Member())
			}
			time.Sleep(95 * time.Second)
			if is(g.Changed()) != grown {
				t.Errorf("changed %v, want %v", is(g.Changed()), grown)
			}
			if grown {
				if a := mustJoin(t, g); len(a.Parts) != 5 {
					t.Errorf("Join = %+v, want 5 partitions", a)
				}
			}
		})
	}
}

// An eager member's bytes do not change, or the coordinator would rebalance; a
// cooperative one tells what it owns, since when.
func TestSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t, 1)
		_, g := l.group()
		mustJoin(t, g)
		mustJoin(t, g)
		q := l.of(kmsg.JoinGroup)
		a, b := q[1].Request.(*kmsg.JoinGroupRequest).Protocols[0], q[2].Request.(*kmsg.JoinGroupRequest).Protocols[0]
		if a.Name != "range" || !slices.Equal(a.Metadata, b.Metadata) {
			t.Errorf("subscriptions %q, %x and %x, want them equal", a.Name, a.Metadata, b.Metadata)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		l := newLone(t, 1)
		_, g := l.group(cooperative)
		mustJoin(t, g)
		mustJoin(t, g, kafka.TopicPartition{Topic: "t", Partition: 3}, kafka.TopicPartition{Topic: "t", Partition: 1})
		q := l.of(kmsg.JoinGroup)
		r := q[2].Request.(*kmsg.JoinGroupRequest)
		s := subscriptionOf(t, r)
		if r.Protocols[0].Name != "cooperative-sticky" || s.Version != 2 || s.Generation != 1 || !slices.Equal(s.Topics, []string{"t"}) ||
			len(s.OwnedPartitions) != 1 || !slices.Equal(s.OwnedPartitions[0].Partitions, []int32{1, 3}) || string(s.UserData) != "\x00\x00\x00\x01" {
			t.Errorf("subscription %+v", s)
		}
	})
}
