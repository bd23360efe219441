package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// ErrNotMember is the error of Confirm when the membership is over, or none began.
var ErrNotMember = errors.New("the membership is over")

// Confirm asks the coordinator, now, whether the membership is good: nil means that
// what the last Join assigned is still this member's, also while a rebalance is under
// way. It is for an owner whose transaction was fenced and who has to know whether
// that was a time-out, which a new producer cures, or a successor, who must not be
// fenced in turn. An error that is ErrNotMember says that the membership is over;
// Lost is closed then. Any other error says that neither could be learnt within a
// session or before ctx was done, or that asking again does not help.
func (g *Group) Confirm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Session)
	defer cancel()
	for n := 0; ; n++ {
		err, final := g.confirm(ctx)
		if err == nil {
			return nil
		}
		if final || sleep(ctx, pause(n)) != nil {
			return fmt.Errorf("group %q: %w", g.cfg.ID, err)
		}
	}
}

// confirm sends one heartbeat and reports whether its answer is the last word.
func (g *Group) confirm(ctx context.Context) (err error, final bool) {
	g.mu.Lock()
	over := !g.assigned || g.lost.is()
	g.mu.Unlock()
	rq, patience, ok := g.heartbeat()
	if over || !ok {
		return notMember(kafka.UnknownMemberId), true
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sent := time.Now()
	m, err := g.c.askGroupOn(ctx, g.cfg.ID, g.heartbeatLane(), &heartbeatRequest{Request: rq, clientID: g.c.c.ClientID})
	if err != nil {
		return err, !IsRetriable(err)
	}
	code := m.(*codeAnswer).code
	if code == 0 {
		g.heardOf(rq, sent, nil)
		return nil, true
	}
	g.heardOf(rq, sent, code)
	switch code {
	case kafka.RebalanceInProgress:
		return nil, true
	case kafka.UnknownMemberId, kafka.IllegalGeneration, kafka.FencedInstanceID:
		return notMember(code), !g.between(rq.GenerationID)
	}
	return code, !IsRetriable(code)
}

// between reports whether a join may be what ended a generation, for this member too:
// then the next one counts.
func (g *Group) between(generation int32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fenced == nil && (g.inJoin || g.generation != generation && g.generation != noGeneration)
}

func notMember(code kafka.Error) error { return fmt.Errorf("%w: %w", ErrNotMember, code) }
