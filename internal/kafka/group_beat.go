package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/describegroups"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
)

// beat sends heartbeats until ctx is done.
func (g *Group) beat(ctx context.Context) {
	failures, trouble := 0, g.c.nag("heartbeat", "group", g.cfg.ID)
	for {
		if sleep(ctx, g.rest(failures)) != nil {
			return
		}
		rq, patience, ok := g.heartbeat()
		if !ok {
			failures = 0
			continue
		}
		sent := time.Now()
		hurry, cancel := context.WithTimeout(ctx, patience)
		m, err := g.c.askGroupOn(hurry, g.cfg.ID, g.heartbeatLane(), &heartbeatRequest{Request: rq, clientID: g.c.c.ClientID})
		cancel()
		if err == nil {
			if code := m.(*codeAnswer).code; code != 0 {
				err = code
			}
		}
		if ctx.Err() != nil {
			return
		}
		failures++
		if g.heardOf(rq, sent, err) {
			failures, err = 0, nil
		}
		trouble.hear(err)
	}
}

// rest is how long to wait before the next heartbeat, after so many failures in a row;
// not beyond the end of the session, which has to be noticed.
func (g *Group) rest(failures int) time.Duration {
	if failures == 0 {
		return g.cfg.Heartbeat
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	d := min(g.cfg.Heartbeat, pause(failures-1))
	if left := g.cfg.Session - time.Since(g.heard); left > 0 {
		d = min(d, left)
	}
	return d
}

// heartbeat returns what to send and how long to wait for the answer, so that there
// is time for another try, and the session's end is not missed. There is nothing to
// send when the membership is over: the coordinator is to find that out.
func (g *Group) heartbeat() (rq heartbeat.Request, patience time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.member == "" || g.generation == noGeneration || g.lost.is() && !g.inJoin {
		return rq, 0, false
	}
	rq = heartbeat.Request{GroupID: g.cfg.ID, GenerationID: g.generation, MemberID: g.member, GroupInstanceID: g.cfg.Instance}
	patience = g.cfg.Session / 3
	if left := g.cfg.Session - time.Since(g.heard); left > 0 {
		patience = min(patience, left)
	}
	return rq, patience, true
}

// heardOf deals with the answer to a heartbeat, and reports whether the coordinator
// is well.
func (g *Group) heardOf(rq heartbeat.Request, sent time.Time, err error) bool {
	var code kafka.Error
	errors.As(err, &code)
	if isCoordinatorError(err) {
		g.c.ForgetGroup(g.cfg.ID)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if rq.GenerationID != g.generation || rq.MemberID != g.member {
		return true // a join came between
	}
	if g.join != nil && code == kafka.UnknownMemberId && g.join.member == rq.MemberID {
		g.join.giveUp(errRemoved)
	}
	switch {
	case err == nil:
		g.heard = sent
		return true
	case code == kafka.RebalanceInProgress:
		g.heard = sent
		g.changed.close()
		return true
	case code == kafka.FencedInstanceID:
		g.fenced = fmt.Errorf("heartbeat: %w", code)
		g.lost.close()
		return true
	case g.inJoin: // it will tell
		return true
	case code == kafka.UnknownMemberId:
		g.member = ""
		g.lost.close()
		return true
	case code == kafka.IllegalGeneration:
		g.lost.close()
		return true
	}
	g.c.c.Log.Debug("heartbeat", "group", g.cfg.ID, "error", err)
	if time.Since(g.heard) >= g.cfg.Session {
		g.lost.close()
	}
	return false
}

// watch looks for new topics and, for all members, for new partitions.
func (g *Group) watch(ctx context.Context) {
	tick := time.NewTicker(g.cfg.Discover)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		g.mu.Lock()
		of, idle := g.changed, !g.assigned || g.inJoin
		g.mu.Unlock()
		if !idle && !of.is() && g.grown(ctx) {
			of.close()
		}
	}
}

// grown reports whether there is something new to assign. Only the leader looks at
// partitions: when another member joins again, the coordinator gives it what it had.
func (g *Group) grown(ctx context.Context) bool {
	g.mu.Lock()
	topics, counts, watching := g.topics, g.counts, g.watching
	g.mu.Unlock()
	now, err := g.cfg.Topics(ctx)
	if err != nil {
		return false
	}
	if !slices.Equal(slices.Compact(slices.Sorted(slices.Values(now))), topics) {
		return true
	}
	if !watching {
		return false
	}
	if counts == nil {
		if counts = g.dealt(ctx); counts == nil {
			return false
		}
	}
	more, err := g.partitions(ctx, slices.Sorted(maps.Keys(counts)))
	return err == nil && !maps.Equal(counts, more)
}

// partitions returns the partitions of each topic. A topic that is not there, or that
// others subscribe to and this member may not see, has none.
func (g *Group) partitions(ctx context.Context, topics []string) (map[string]int, error) {
	counts, faults, err := g.c.partitionCounts(ctx, topics)
	if err != nil {
		return nil, err
	}
	var errs []error
	for t, fault := range faults {
		switch {
		case IsRetriable(fault) && !errors.Is(fault, kafka.UnknownTopicOrPartition):
			errs = append(errs, fault)
		default:
			g.c.c.Log.Debug("topic without partitions", "group", g.cfg.ID, "topic", t, "error", fault)
		}
	}
	return counts, worst(errs)
}

// wasLeader reports whether this member leads under an id that it had before: a
// static member that was restarted is not told so (until JoinGroup v9, KIP-814), and
// the others wait for it to find new partitions. A static member's ids begin with
// its instance.
func (g *Group) wasLeader(leader string) bool {
	return g.cfg.Instance != "" && strings.HasPrefix(leader, g.cfg.Instance+"-")
}

// dealt asks how many partitions of each topic all members were assigned; nil means
// that it could not be learnt.
func (g *Group) dealt(ctx context.Context) map[string]int {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Session/3)
	defer cancel()
	m, err := g.c.AskGroup(ctx, g.cfg.ID, &describegroups.Request{Groups: []string{g.cfg.ID}})
	if err != nil {
		return nil
	}
	var given [][]TopicPartition
	var members []groupMember
	for _, group := range m.(*describegroups.Response).Groups {
		if group.ErrorCode != 0 {
			return nil
		}
		for _, m := range group.Members {
			parts, err1 := parseAssignment(m.MemberAssignment)
			s, err2 := parseSubscription(m.MemberMetadata)
			if err1 != nil || err2 != nil {
				return nil
			}
			given = append(given, parts)
			members = append(members, groupMember{m.MemberID, m.GroupInstanceID, s})
		}
	}
	counts := make(map[string]int)
	for _, t := range topicsOf(members) {
		counts[t] = 0
	}
	return dealtOut(given, counts)
}

// dealtOut returns how many partitions of each topic were given to somebody. Until
// that is all of them there is something left to deal out.
func dealtOut(given [][]TopicPartition, topics map[string]int) map[string]int {
	dealt := make(map[string]int, len(topics))
	for t := range topics {
		dealt[t] = 0
	}
	for _, parts := range given {
		for _, tp := range parts {
			dealt[tp.Topic]++
		}
	}
	return dealt
}
