package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
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
	// means a tenth of Session, 3 s at most.
	Session, Rebalance, Heartbeat time.Duration
	// Cooperative keeps what stays (cooperative-sticky, KIP-429); otherwise every
	// rebalance takes everything first (range).
	Cooperative bool
	// Discover is how often new topics and partitions are looked for; 0 means 30 s.
	Discover time.Duration
}

// An Assignment is what a member was given.
type Assignment struct {
	Generation int32
	Parts      []TopicPartition // sorted
}

// A Group is one member of a consumer group. Heartbeats go on in the background from
// the first Join until Leave, also while the owner drains. Join and Leave are called
// by one goroutine, everything else by any.
type Group struct {
	c    *Cluster
	cfg  GroupConfig
	lane string // of requests that wait
	stop context.CancelFunc
	bg   sync.WaitGroup

	mu         sync.Mutex
	member     string
	generation int32
	joining    bool
	leader     bool
	topics     []string       // subscribed to at the last join
	counts     map[string]int // their partitions, as the leader dealt them out
	changed    *once
	lost       *once
	heard      time.Time // the last good word of the coordinator
	fenced     error     // another process has our instance id
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
	if cfg.Session == 0 {
		cfg.Session = 45 * time.Second
	}
	if cfg.Rebalance == 0 {
		cfg.Rebalance = 60 * time.Second
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = min(cfg.Session/10, 3*time.Second)
	}
	if cfg.Discover == 0 {
		cfg.Discover = 30 * time.Second
	}
	g := &Group{c: c, cfg: cfg, generation: -1, changed: newOnce(), lost: newOnce()}
	g.lane = fmt.Sprintf("group %p", g)
	return g
}

// Join joins, or joins again, and returns what this member is given. An eager member
// has given up everything before (owned is empty); a cooperative one keeps owned,
// gives up what of it is not in the assignment, and joins again then. It tries until
// ctx is done or nothing but a change of settings can help.
func (g *Group) Join(ctx context.Context, owned []TopicPartition) (Assignment, error) {
	g.mu.Lock()
	g.joining = true
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.joining = false
		g.mu.Unlock()
	}()
	for n := 0; ; n++ {
		a, err := g.round(ctx, owned)
		var code kafka.Error
		errors.As(err, &code)
		switch {
		case err == nil:
			return a, nil
		case ctx.Err() != nil:
			return Assignment{}, ctx.Err()
		case code == kafka.MemberIDRequired: // KIP-394: at once, with the id just given
			continue
		case code == kafka.FencedInstanceID:
			return Assignment{}, fmt.Errorf("instance id %q is used by another process, which has taken this one's place: %w; "+
				"give each process its own instance_id", g.cfg.Instance, err)
		case code == kafka.InconsistentGroupProtocol:
			return Assignment{}, fmt.Errorf("the group's members do not agree on an assignment strategy (this one speaks %s): %w; "+
				"set the same one for all", g.strategy(), err)
		case code == kafka.UnknownMemberId, code == kafka.IllegalGeneration:
			g.forget(code == kafka.UnknownMemberId)
			owned = nil
		case code == kafka.RebalanceInProgress: // again, with the same id
		case !IsRetriable(err):
			return Assignment{}, err
		}
		if isCoordinatorError(err) {
			g.c.ForgetGroup(g.cfg.ID)
		}
		g.c.c.Log.Debug("joining again", "group", g.cfg.ID, "error", err)
		if err := sleep(ctx, pause(n)); err != nil {
			return Assignment{}, err
		}
	}
}

// forget says that the coordinator knows this generation, or member, no more.
func (g *Group) forget(member bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if member {
		g.member = ""
	}
	if g.generation >= 0 {
		g.lost.close()
	}
}

func (g *Group) strategy() string {
	if g.cfg.Cooperative {
		return strategyCooperative
	}
	return strategyRange
}

// round is one try: join, assign if this member leads, sync. The member id is kept
// whatever happens, or the coordinator would wait for a ghost.
func (g *Group) round(ctx context.Context, owned []TopicPartition) (Assignment, error) {
	topics, err := g.cfg.Topics(ctx)
	if err != nil {
		return Assignment{}, err
	}
	g.mu.Lock()
	member, fenced := g.member, g.fenced
	g.mu.Unlock()
	if fenced != nil {
		return Assignment{}, fenced
	}
	owned = slices.SortedFunc(slices.Values(owned), TopicPartition.Compare)
	meta := subscription{topics, owned}.append(nil)
	// A coordinator keeps a join for as long as others may take to join again.
	patience := g.cfg.Rebalance + g.cfg.Session + 5*time.Second
	m, err := g.c.askGroupOn(ctx, g.cfg.ID, g.lane, &joinRequest{clientID: g.c.c.ClientID, patience: patience, Request: joingroup.Request{
		GroupID: g.cfg.ID, SessionTimeoutMS: int32(g.cfg.Session.Milliseconds()), RebalanceTimeoutMS: int32(g.cfg.Rebalance.Milliseconds()),
		MemberID: member, GroupInstanceID: g.cfg.Instance, ProtocolType: "consumer",
		Protocols: []joingroup.RequestProtocol{{Name: g.strategy(), Metadata: meta}}}})
	if err != nil {
		return Assignment{}, err
	}
	j := m.(*joingroup.Response)
	if j.MemberID != "" {
		g.mu.Lock()
		g.member = j.MemberID
		g.mu.Unlock()
	}
	if j.ErrorCode != 0 {
		return Assignment{}, fmt.Errorf("join: %w", kafka.Error(j.ErrorCode))
	}
	began := time.Now()
	sync := syncgroup.Request{GroupID: g.cfg.ID, GenerationID: j.GenerationID, MemberID: j.MemberID, GroupInstanceID: g.cfg.Instance}
	counts := map[string]int{}
	if j.LeaderID == j.MemberID {
		if sync.Assignments, counts, err = g.assign(ctx, j); err != nil {
			return Assignment{}, fmt.Errorf("assign partitions: %w", err)
		}
	}
	m, err = g.c.askGroupOn(ctx, g.cfg.ID, g.lane, &syncRequest{clientID: g.c.c.ClientID, patience: patience, Request: sync})
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
	g.joined(j, topics, counts, began)
	return Assignment{Generation: j.GenerationID, Parts: parts}, nil
}

// joined notes the new generation and makes sure that heartbeats are sent.
func (g *Group) joined(j *joingroup.Response, topics []string, counts map[string]int, began time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.generation, g.leader, g.topics, g.counts = j.GenerationID, j.LeaderID == j.MemberID, topics, counts
	g.changed, g.lost, g.heard = newOnce(), newOnce(), began
	if g.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.bg.Go(func() { g.beat(ctx) })
	g.bg.Go(func() { g.watch(ctx) })
}

// assign makes the assignments of all members.
func (g *Group) assign(ctx context.Context, j *joingroup.Response) ([]syncgroup.RequestAssignment, map[string]int, error) {
	var members []groupMember
	for _, m := range j.Members {
		s, err := parseSubscription(m.Metadata)
		if err != nil {
			return nil, nil, fmt.Errorf("member %s: %w", m.MemberID, err)
		}
		members = append(members, groupMember{m.MemberID, m.GroupInstanceID, s})
	}
	counts := make(map[string]int)
	for _, t := range topicsOf(members) {
		n, err := g.c.Partitions(ctx, t)
		if err != nil && !errors.Is(err, kafka.UnknownTopicOrPartition) {
			return nil, nil, err
		}
		counts[t] = n
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
	return all, counts, nil
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
	return g.generation >= 0 && !g.lost.is() && time.Since(g.heard) < g.cfg.Session
}

// Leave ends the heartbeats and tells the coordinator to give the partitions to
// others at once. A static member does not leave, so that its restart moves
// nothing.
func (g *Group) Leave(ctx context.Context) error {
	g.mu.Lock()
	member, stop := g.member, g.stop
	g.stop = nil
	g.mu.Unlock()
	if stop != nil {
		stop()
		g.bg.Wait()
	}
	if g.cfg.Instance != "" || member == "" {
		return nil
	}
	m, err := g.c.AskGroup(ctx, g.cfg.ID, &leaveRequest{clientID: g.c.c.ClientID,
		Request: leavegroup.Request{GroupID: g.cfg.ID, Members: []leavegroup.RequestMember{{MemberID: member}}}})
	if err != nil {
		return fmt.Errorf("leave group %q: %w", g.cfg.ID, err)
	}
	if code := m.(*codeAnswer).code; code != 0 && code != kafka.UnknownMemberId && !isCoordinatorError(code) {
		return fmt.Errorf("leave group %q: %w", g.cfg.ID, code)
	}
	return nil
}

// beat sends heartbeats until ctx is done.
func (g *Group) beat(ctx context.Context) {
	tick := time.NewTicker(g.cfg.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		g.mu.Lock()
		rq := heartbeat.Request{GroupID: g.cfg.ID, GenerationID: g.generation, MemberID: g.member, GroupInstanceID: g.cfg.Instance}
		g.mu.Unlock()
		if rq.MemberID == "" {
			continue
		}
		began := time.Now()
		hurry, cancel := context.WithTimeout(ctx, max(g.cfg.Session/3, g.cfg.Heartbeat))
		m, err := g.c.askGroupOn(hurry, g.cfg.ID, g.lane+" heartbeat", &heartbeatRequest{Request: rq, clientID: g.c.c.ClientID})
		cancel()
		if err == nil {
			if code := m.(*codeAnswer).code; code != 0 {
				err = code
			}
		}
		if ctx.Err() == nil {
			g.heardOf(rq.GenerationID, began, err)
		}
	}
}

// heardOf deals with the answer to a heartbeat of a generation.
func (g *Group) heardOf(generation int32, sent time.Time, err error) {
	var code kafka.Error
	errors.As(err, &code)
	if isCoordinatorError(err) {
		g.c.ForgetGroup(g.cfg.ID)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if generation != g.generation {
		return // a join came between
	}
	switch {
	case err == nil:
		g.heard = sent
		return
	case code == kafka.RebalanceInProgress:
		g.heard = sent
		g.changed.close()
		return
	case code == kafka.FencedInstanceID:
		g.fenced = fmt.Errorf("instance id %q: %w", g.cfg.Instance, code)
		g.lost.close()
	case g.joining: // the join will tell
	case code == kafka.UnknownMemberId:
		g.member = ""
		g.lost.close()
	case code == kafka.IllegalGeneration:
		g.lost.close()
	}
	if time.Since(g.heard) > g.cfg.Session && !g.joining {
		g.lost.close()
	}
}

// watch looks for new topics and, as the leader, for new partitions.
func (g *Group) watch(ctx context.Context) {
	tick := time.NewTicker(g.cfg.Discover)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if g.grown(ctx) {
			g.mu.Lock()
			g.changed.close()
			g.mu.Unlock()
		}
	}
}

// grown reports whether there is something new to assign.
func (g *Group) grown(ctx context.Context) bool {
	g.mu.Lock()
	topics, counts, leader := g.topics, g.counts, g.leader
	g.mu.Unlock()
	now, err := g.cfg.Topics(ctx)
	if err != nil {
		return false
	}
	if !slices.Equal(slices.Sorted(slices.Values(now)), slices.Sorted(slices.Values(topics))) {
		return true
	}
	if !leader {
		return false
	}
	for t, n := range counts {
		if more, err := g.c.Partitions(ctx, t); err == nil && more != n {
			return true
		}
	}
	return false
}
