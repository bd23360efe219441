package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/joingroup"
	"github.com/segmentio/kafka-go/protocol/leavegroup"
	"github.com/segmentio/kafka-go/protocol/syncgroup"
)

// GroupConfig says how to be a member of a consumer group. ID and Topics must be
// set.
type GroupConfig struct {
	ID       string
	Instance string // static membership (KIP-345); "" is a dynamic member
	// Topics returns the names that are subscribed to. It is asked at each join and
	// every Discover.
	Topics func(ctx context.Context) ([]string, error)
	// Session is how long a silent member stays, 0 means 45 s; Rebalance how long
	// members have to join again, 0 means 60 s; Heartbeat how often one is sent, 0
	// means a tenth of Session and 3 s at most, and it is never more than a third.
	Session, Rebalance, Heartbeat time.Duration
	// Cooperative keeps what stays (cooperative-sticky, KIP-429); otherwise every
	// rebalance takes everything first (range).
	Cooperative bool
	// Discover is how often new topics and partitions are looked for; 0 means 30 s.
	Discover time.Duration
}

func (c GroupConfig) withDefaults() GroupConfig {
	if c.Session == 0 {
		c.Session = 45 * time.Second
	}
	if c.Rebalance == 0 {
		c.Rebalance = 60 * time.Second
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = min(c.Session/10, 3*time.Second)
	}
	c.Heartbeat = min(c.Heartbeat, c.Session/3)
	if c.Discover == 0 {
		c.Discover = 30 * time.Second
	}
	return c
}

// strategy is the one assignment strategy that the member offers.
func (c GroupConfig) strategy() string {
	if c.Cooperative {
		return strategyCooperative
	}
	return strategyRange
}

// An Assignment is what a member was given.
type Assignment struct {
	Generation int32
	Parts      []TopicPartition // sorted
	// Anew says that the membership before was lost meanwhile: whatever was owned under
	// it is over, even what is in Parts again, since others may have held it between.
	Anew bool
}

// A Group is one member of a consumer group. Heartbeats go on in the background from
// the first Join until Leave, also while the owner drains. Join and Leave are called
// by one goroutine, everything else by any.
type Group struct {
	c    *Cluster
	cfg  GroupConfig
	lane string // of requests that wait; heartbeats have another
	stop context.CancelFunc
	bg   sync.WaitGroup

	mu         sync.Mutex
	member     string         // the coordinator's name for this member, kept over time-outs
	generation int32          // that heartbeats and commits name, from the answer to the join on
	assigned   bool           // the last join went through, and the membership has not ended since
	inJoin     bool           // Join is at work: it finds out what heartbeats complain about
	join       *attempt       // its request that is under way
	watching   bool           // this member looks for new partitions for all
	topics     []string       // subscribed to at the last join
	counts     map[string]int // their partitions, as they were dealt out
	changed    *once
	lost       *once
	heard      time.Time // when the last heartbeat that was answered well was sent
	fenced     error     // another process has our instance id
}

// An attempt is a request to join that may wait long for its answer.
type attempt struct {
	broker int32 // whom it was sent to
	member string
	giveUp context.CancelCauseFunc
}

// once is a channel that closes once.
type once struct {
	c  chan struct{}
	do sync.Once
}

func newOnce() *once   { return &once{c: make(chan struct{})} }
func (o *once) close() { o.do.Do(func() { close(o.c) }) }
func (o *once) is() bool {
	select {
	case <-o.c:
		return true
	default:
		return false
	}
}

// NewGroup returns a member that has not joined yet.
func NewGroup(c *Cluster, cfg GroupConfig) *Group {
	g := &Group{c: c, cfg: cfg.withDefaults(), generation: noGeneration, changed: newOnce(), lost: newOnce()}
	g.lane = fmt.Sprintf("%s %d", laneGroup, c.lanes.Add(1))
	return g
}

// heartbeatLane is a connection beside the one where a join may wait.
func (g *Group) heartbeatLane() string { return g.lane + " heartbeat" }

// Join joins, or joins again, and returns what this member is given. An eager member
// has given up everything before (owned is empty); a cooperative one keeps owned,
// gives up what of it is not in the assignment, and joins again then. It tries until
// ctx is done or nothing but a change of settings can help.
func (g *Group) Join(ctx context.Context, owned []TopicPartition) (Assignment, error) {
	g.enter(true)
	defer g.enter(false)
	began, trouble := time.Now(), g.c.nag("join the group", "group", g.cfg.ID)
	for n, fast := 0, 0; ; {
		a, err := g.round(ctx, owned)
		if err == nil {
			trouble.hear(nil)
			return a, nil
		}
		if ctx.Err() != nil {
			return Assignment{}, ctx.Err()
		}
		g.c.c.Log.Debug("joining again", "group", g.cfg.ID, "error", err)
		var code kafka.Error
		errors.As(err, &code)
		again := errors.Is(err, errMemberID) // KIP-394: at once, with the id just given
		switch {
		case again:
		case code == kafka.UnknownMemberId, code == kafka.IllegalGeneration:
			g.end(code)
		case code == kafka.RebalanceInProgress: // the join went well, with the same id it will again
			again, n = true, 0
		case !IsRetriable(err):
			return Assignment{}, g.explain(err, code)
		}
		if isCoordinatorError(err) {
			g.c.ForgetGroup(g.cfg.ID)
		}
		if !again || time.Since(began) > g.patience() {
			trouble.hear(err)
		}
		if again && fast < 2 {
			fast++
			continue
		}
		fast = 0
		if err := sleep(ctx, pause(n)); err != nil {
			return Assignment{}, err
		}
		n++
	}
}

// enter notes that Join is at work, or no more.
func (g *Group) enter(in bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inJoin, g.join = in, nil
}

// Reasons to join again.
var (
	errMemberID = errors.New("the coordinator gave a member id to join with")
	errMoved    = fmt.Errorf("while a join waited: %w", kafka.NotCoordinatorForGroup)
	errRemoved  = fmt.Errorf("while a join waited: %w", kafka.UnknownMemberId)
)

// explain says what to do about an error that will come again.
func (g *Group) explain(err error, code kafka.Error) error {
	hint := ""
	switch code {
	case kafka.FencedInstanceID:
		hint = fmt.Sprintf("instance id %q was taken over by another process: give each process its own instance_id", g.cfg.Instance)
	case kafka.InconsistentGroupProtocol:
		hint = fmt.Sprintf("the group's members have no assignment strategy in common, this one offers %q: set the same one for all", g.cfg.strategy())
	case kafka.InvalidSessionTimeout:
		hint = fmt.Sprintf("a session of %v is not within the broker's group.min.session.timeout.ms and group.max.session.timeout.ms", g.cfg.Session)
	case kafka.GroupAuthorizationFailed, kafka.TopicAuthorizationFailed:
		hint = "the user needs the right to read the group and its topics"
	default:
		return err
	}
	return fmt.Errorf("%s: %w", hint, err)
}

// end says that the coordinator knows this generation no more, or not even the
// member.
func (g *Group) end(code kafka.Error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if code == kafka.UnknownMemberId {
		g.member = ""
	}
	g.generation = noGeneration
	if g.assigned {
		g.assigned = false
		g.lost.close()
	}
}

// joining notes the request to join that is under way.
func (g *Group) joining(a *attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.join = a
}

// round is one try: join, assign if this member leads, sync. The member id is kept
// whatever happens, or the coordinator would wait for a ghost.
func (g *Group) round(ctx context.Context, owned []TopicPartition) (Assignment, error) {
	topics, err := g.cfg.Topics(ctx)
	if err != nil {
		return Assignment{}, err
	}
	topics = slices.Compact(slices.Sorted(slices.Values(topics)))
	j, err := g.sendJoin(ctx, g.subscription(topics, owned))
	if err != nil {
		return Assignment{}, err
	}
	rq := syncgroup.Request{GroupID: g.cfg.ID, GenerationID: j.GenerationID, MemberID: j.MemberID, GroupInstanceID: g.cfg.Instance}
	var counts map[string]int
	if j.LeaderID == j.MemberID {
		if rq.Assignments, counts, err = g.assign(ctx, j); err != nil {
			return Assignment{}, fmt.Errorf("assign partitions: %w", err)
		}
	}
	m, err := g.wait(ctx, j.MemberID, func(ctx context.Context, broker int32) (any, error) {
		return g.c.AskBroker(ctx, broker, g.lane, &syncRequest{clientID: g.c.c.ClientID, patience: g.patience(), Request: rq})
	})
	if err != nil {
		return Assignment{}, err
	}
	s := m.(*syncgroup.Response)
	if s.ErrorCode != 0 {
		return Assignment{}, fmt.Errorf("sync: %w", kafka.Error(s.ErrorCode))
	}
	parts, err := parseAssignment(s.Assignments)
	if err != nil {
		return Assignment{}, fmt.Errorf("assignment: %w", err)
	}
	slices.SortFunc(parts, TopicPartition.Compare)
	watching := counts != nil || g.wasLeader(j.LeaderID)
	a := Assignment{Generation: j.GenerationID, Parts: parts}
	a.Anew = g.joined(topics, counts, watching)
	return a, nil
}

// subscription is what the leader is told. What was owned in a membership that is
// over is not.
func (g *Group) subscription(topics []string, owned []TopicPartition) []byte {
	s := subscription{topics: topics, generation: noGeneration}
	g.mu.Lock()
	if g.cfg.Cooperative && !g.lost.is() {
		s.owned, s.generation = slices.SortedFunc(slices.Values(owned), TopicPartition.Compare), g.generation
	}
	g.mu.Unlock()
	return s.append(nil)
}

// patience is how long a coordinator may take over a join or a sync: others may take
// their time to join again, and some have to be found dead.
func (g *Group) patience() time.Duration { return g.cfg.Rebalance + g.cfg.Session + 5*time.Second }

// sendJoin asks to join and notes the member id.
func (g *Group) sendJoin(ctx context.Context, meta []byte) (*joingroup.Response, error) {
	g.mu.Lock()
	member, fenced := g.member, g.fenced
	g.mu.Unlock()
	if fenced != nil {
		return nil, fenced
	}
	rq := joingroup.Request{GroupID: g.cfg.ID, MemberID: member, GroupInstanceID: g.cfg.Instance, ProtocolType: "consumer",
		SessionTimeoutMS: int32(g.cfg.Session.Milliseconds()), RebalanceTimeoutMS: int32(g.cfg.Rebalance.Milliseconds()),
		Protocols: []joingroup.RequestProtocol{{Name: g.cfg.strategy(), Metadata: meta}}}
	m, err := g.wait(ctx, member, func(ctx context.Context, broker int32) (any, error) {
		return g.c.AskBroker(ctx, broker, g.lane, &joinRequest{clientID: g.c.c.ClientID, patience: g.patience(), Request: rq})
	})
	if err != nil {
		return nil, err
	}
	j := m.(*joingroup.Response)
	code := kafka.Error(j.ErrorCode)
	switch {
	case code == 0:
		g.accepted(j)
		return j, nil
	case code == kafka.MemberIDRequired && j.MemberID != "" && j.MemberID != member:
		g.mu.Lock()
		g.member = j.MemberID
		g.mu.Unlock()
		return nil, errMemberID
	}
	return nil, fmt.Errorf("join: %w", code)
}

// accepted notes the new generation. Heartbeats go out from now on: the leader that
// the sync will wait for may be dead, and the session runs.
func (g *Group) accepted(j *joingroup.Response) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.member, g.generation, g.heard = j.MemberID, j.GenerationID, time.Now()
	if g.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		g.stop = stop
		g.bg.Go(func() { g.beat(ctx) })
		g.bg.Go(func() { g.watch(ctx) })
	}
}

// wait sends a request whose answer may take long, and gives it up when the answer
// can no longer come: another broker has become the coordinator, or the member was
// removed.
func (g *Group) wait(ctx context.Context, member string, send func(ctx context.Context, broker int32) (any, error)) (any, error) {
	broker, err := g.c.coordinator(ctx, g.c.groups, groupCoordinator, g.cfg.ID)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, g.patience())
	defer cancel()
	inner, giveUp := context.WithCancelCause(limited)
	defer giveUp(nil)
	g.joining(&attempt{broker, member, giveUp})
	var wg sync.WaitGroup
	defer wg.Wait()
	watch, stop := context.WithCancel(inner)
	defer stop()
	wg.Go(func() { g.watchCoordinator(watch, broker, giveUp) })
	m, err := send(inner, broker)
	g.joining(nil)
	if err == nil {
		return m, nil
	}
	g.c.ForgetGroup(g.cfg.ID)
	if cause := context.Cause(inner); cause != nil && limited.Err() == nil {
		err = cause
	}
	return nil, err
}

// watchCoordinator looks now and then whether a broker is still the coordinator.
func (g *Group) watchCoordinator(ctx context.Context, broker int32, giveUp context.CancelCauseFunc) {
	for sleep(ctx, g.cfg.Session/3) == nil {
		now, err := g.c.findCoordinator(ctx, g.c.groups, groupCoordinator, g.cfg.ID)
		if err == nil && now != broker {
			giveUp(errMoved)
			return
		}
	}
}

// joined notes what the new generation is about, and reports whether the membership
// before was lost.
func (g *Group) joined(topics []string, counts map[string]int, watching bool) (anew bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	anew = g.lost.is()
	g.assigned, g.topics, g.counts, g.watching = true, topics, counts, watching
	g.changed, g.lost = newOnce(), newOnce()
	return anew
}

// assign makes the assignments of all members. It hurries: nobody else's heartbeats
// keep this member's session meanwhile.
func (g *Group) assign(ctx context.Context, j *joingroup.Response) ([]syncgroup.RequestAssignment, map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Session/2)
	defer cancel()
	var members []groupMember
	for _, m := range j.Members {
		s, err := parseSubscription(m.Metadata)
		if err != nil {
			return nil, nil, fmt.Errorf("member %s: %w", m.MemberID, err)
		}
		members = append(members, groupMember{m.MemberID, m.GroupInstanceID, s})
	}
	counts, err := g.partitions(ctx, topicsOf(members))
	if err != nil {
		return nil, nil, err
	}
	deal := assignRange
	if j.ProtocolName == strategyCooperative {
		deal = assignSticky
	}
	given := deal(members, counts)
	var all []syncgroup.RequestAssignment
	for _, m := range members {
		all = append(all, syncgroup.RequestAssignment{MemberID: m.id, Assignment: appendAssignment(nil, given[m.id])})
	}
	return all, dealtOut(slices.Collect(maps.Values(given)), counts), nil
}

// Changed closes when the member has to join again: others came or went, or there
// are new partitions. It is of the last Join.
func (g *Group) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed.c
}

// Lost closes when the membership is over: what was assigned may be others' already.
// It is of the last Join.
func (g *Group) Lost() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lost.c
}

// Member returns what fences a commit now.
func (g *Group) Member() Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Member{Group: g.cfg.ID, Generation: g.generation, ID: g.member, Instance: g.cfg.Instance}
}

// Alive reports whether the coordinator was heard of within the session. After a
// pause of the whole process it is the first thing to ask: the answer comes from the
// clock alone.
func (g *Group) Alive() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.assigned && !g.lost.is() && time.Since(g.heard) < g.cfg.Session
}

// leaveTime bounds Leave: the coordinator finds out by itself after a session.
const leaveTime = 5 * time.Second

// Leave ends the heartbeats and tells the coordinator to give the partitions to
// others at once. A static member does not leave, so that its restart moves
// nothing. It takes 5 s at most; when it fails, the coordinator finds out after a
// session. The membership is lost behind it.
func (g *Group) Leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	if g.stop != nil {
		g.stop()
		g.bg.Wait()
		g.stop = nil
	}
	g.mu.Lock()
	member := g.member
	g.generation, g.assigned = noGeneration, false
	g.lost.close()
	if g.cfg.Instance == "" {
		g.member = ""
	}
	g.mu.Unlock()
	defer g.c.hangUpLane(g.lane)
	defer g.c.hangUpLane(g.heartbeatLane())
	if g.cfg.Instance != "" || member == "" {
		return nil
	}
	rq := &leaveRequest{clientID: g.c.c.ClientID,
		Request: leavegroup.Request{GroupID: g.cfg.ID, Members: []leavegroup.RequestMember{{MemberID: member}}}}
	err := retry(ctx, func() error {
		m, err := g.c.AskGroup(ctx, g.cfg.ID, rq)
		if err != nil {
			return err
		}
		if code := m.(*codeAnswer).code; code != 0 && code != kafka.UnknownMemberId {
			return g.c.groupError(g.cfg.ID, code)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("leave group %q: %w", g.cfg.ID, err)
	}
	return nil
}
