package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
)

// A Group is a topic whose partitions are shared out among members, each the
// source of a run of its own, and move between them while they run. It remembers
// what was committed by the members that owned the partitions then, and ignores
// the others. It is safe for concurrent use.
type Group struct {
	schema *arrow.Schema

	mu     sync.Mutex
	parts  []*groupPart
	live   []*Member // in the order in which they joined
	turn   int       // moved by each rebalance
	failed error     // the first promise that an engine broke
}

// A groupPart is one partition: its rows, its owner and its commit.
type groupPart struct {
	Partition
	end       int64   // behind the last position
	owner     *Member // nil between two owners
	wanted    *Member // who is to own it next
	gen       int     // rises with each change of the owner
	committed int64
}

// NewGroup returns a group of these partitions, whose rows share schema and whose
// epochs are not used. Behind the last row of each one, trailing positions hold
// nothing: the log goes on, as it does behind a transaction. The group borrows the
// records, which must live as long as it does.
func NewGroup(schema *arrow.Schema, trailing int64, parts ...Partition) *Group {
	g := &Group{schema: schema}
	for _, p := range parts {
		end := p.Rows.NumRows()
		if n := len(p.Positions); n > 0 {
			end = p.Positions[n-1] + 1
		}
		g.parts = append(g.parts, &groupPart{Partition: p, end: end + trailing})
	}
	return g
}

// Committed returns how far each partition is committed, and Ends how far there is
// anything to commit.
func (g *Group) Committed() map[string]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make(map[string]int64)
	for _, p := range g.parts {
		all[p.Name] = p.committed
	}
	return all
}

// Ends returns the position behind everything that each partition holds.
func (g *Group) Ends() map[string]int64 {
	all := make(map[string]int64)
	for _, p := range g.parts {
		all[p.Name] = p.end
	}
	return all
}

// Err returns the first promise that an engine broke; nil when none did.
func (g *Group) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed
}

// Rebalance shares the partitions out anew. An owner that is to give one up seals
// it and waits for its commit first.
func (g *Group) Rebalance() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.share()
}

// Expel ends the membership of the live member number n, modulo their count, at
// once, as when its session has run out: others may own its partitions before it
// notices, and what it commits from now on is ignored.
func (g *Group) Expel(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.live) == 0 {
		return
	}
	m := g.live[n%len(g.live)]
	g.remove(m)
	m.expelled, m.expelledAt = true, time.Now()
	m.nudge() // it looks when it is blind no more
}

// remove takes away all that m owns. The caller holds mu.
func (g *Group) remove(m *Member) {
	g.live = slices.DeleteFunc(g.live, func(l *Member) bool { return l == m })
	for _, p := range g.parts {
		if p.owner == m {
			p.owner = nil
			p.gen++
		}
	}
	g.share()
}

// share chooses the owners to be. The caller holds mu.
func (g *Group) share() {
	g.turn++
	for i, p := range g.parts {
		p.wanted = nil
		if n := len(g.live); n > 0 {
			p.wanted = g.live[(i+g.turn)%n]
		}
	}
	for _, m := range g.live {
		m.nudge()
	}
}

// part returns the partition of a name; nil when there is none.
func (g *Group) part(name string) *groupPart {
	for _, p := range g.parts {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// MemberOptions choose how a member behaves. The zero value reads batches of 8
// rows as fast as it can.
type MemberOptions struct {
	BatchRows int           // most rows in a batch; 0 means 8
	Pause     time.Duration // between two batches
	Patience  time.Duration // how long a commit is waited for before a partition is given up; 0 means a second
	Blind     time.Duration // how long it reads on after it was expelled
	Decoder   pipeline.Decoder
	// OnCommit sees the marks that count before they are accepted; an error refuses
	// all of them.
	OnCommit func([]pipeline.Mark) error
	// OnLate is called when patience has ended before a commit.
	OnLate func(partition string)
	// FailAfter, when not nil, is yielded as an error after FailBatches batches.
	FailAfter   error
	FailBatches int
	Power       *Power
	// Stale makes the group accept commits of an assignment that has ended: a
	// planted fault.
	Stale bool
}

// A Member is the source of one run that reads what the group assigns to it.
type Member struct {
	group *Group
	o     MemberOptions
	place func(context.Context, []pipeline.Mark) ([]pipeline.Place, error)
	wake  chan struct{} // holds one token: something has changed

	// Guarded by group.mu.
	held       map[string]*assigned
	epochs     int64
	expelled   bool // and has not joined again
	expelledAt time.Time
	closed     bool
}

// An assigned is a partition while a member reads it.
type assigned struct {
	part      *groupPart
	gen       int // of part, when it was taken
	epoch     int64
	row       int64 // the next one to read
	next      int64 // behind what was read
	committed int64
	lost      bool // by a sink: it begins anew
	begun     bool
}

var (
	_ pipeline.Assigner = (*Member)(nil)
	_ pipeline.Messages = (*decodingMember)(nil)
)

// A decodingMember has messages to decode.
type decodingMember struct{ *Member }

// Decoder returns MemberOptions.Decoder.
func (m *decodingMember) Decoder() pipeline.Decoder { return m.o.Decoder }

// Join returns a source for one run, which becomes a member when Batches begins
// and is one until Close. With MemberOptions.Decoder it is a pipeline.Messages.
func (g *Group) Join(o MemberOptions) pipeline.Assigner {
	if o.BatchRows == 0 {
		o.BatchRows = 8
	}
	if o.Patience == 0 {
		o.Patience = time.Second
	}
	m := &Member{group: g, o: o, wake: make(chan struct{}, 1), held: make(map[string]*assigned)}
	if o.Decoder != nil {
		return &decodingMember{m}
	}
	return m
}

func (m *Member) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Schema returns the group's schema.
func (m *Member) Schema(context.Context) (*arrow.Schema, error) {
	return m.group.schema, m.o.Power.use()
}

// Assign notes where to ask for positions.
func (m *Member) Assign(place func(context.Context, []pipeline.Mark) ([]pipeline.Place, error)) {
	m.place = place
}

// Lost is called by a sink that could not write under an epoch: its marks count
// no more, and the member begins the partition anew where the sinks stand.
func (m *Member) Lost(partition string, epoch int64) {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	if h := m.held[partition]; h != nil && h.epoch == epoch {
		h.lost = true
		m.nudge()
	}
}

// Commit accepts the marks of assignments that last, and ignores the others.
func (m *Member) Commit(_ context.Context, marks []pipeline.Mark) error {
	if err := m.o.Power.use(); err != nil {
		return err
	}
	counting, err := m.counting(marks)
	if err != nil {
		return err
	}
	if len(counting) > 0 && m.o.OnCommit != nil {
		if err := m.o.OnCommit(counting); err != nil {
			return err
		}
	}
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	for _, mark := range counting {
		h := m.held[mark.Partition]
		if m.o.Stale {
			p := m.group.part(mark.Partition)
			p.committed = mark.Next
		}
		if h == nil || !m.counts(h, mark) {
			continue // it ended meanwhile
		}
		h.committed = mark.Next
		h.part.committed = mark.Next
	}
	m.nudge()
	return nil
}

// counting returns the marks whose assignments last. It fails when one steps back.
func (m *Member) counting(marks []pipeline.Mark) ([]pipeline.Mark, error) {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	var some []pipeline.Mark
	for _, mark := range marks {
		h := m.held[mark.Partition]
		if !m.o.Stale && (h == nil || !m.counts(h, mark)) {
			continue
		}
		if h != nil && h.epoch == mark.Epoch && (mark.Next <= h.committed && h.committed > 0 || mark.Next > h.next) {
			err := fmt.Errorf("partition %s, epoch %d: committed up to %d after %d, read up to %d",
				mark.Partition, mark.Epoch, mark.Next, h.committed, h.next)
			m.group.fail(err)
			return nil, err
		}
		some = append(some, mark)
	}
	return some, nil
}

func (g *Group) fail(err error) {
	if g.failed == nil {
		g.failed = err
	}
}

// counts reports whether a mark belongs to an assignment that lasts. The caller
// holds the group's mu.
func (m *Member) counts(h *assigned, mark pipeline.Mark) bool {
	return h.epoch == mark.Epoch && h.gen == h.part.gen && !h.lost && h.begun
}

// Close leaves the group. It fails when it is called twice.
func (m *Member) Close() error {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	if m.closed {
		return errors.New("closed twice")
	}
	m.closed = true
	m.group.remove(m)
	return nil
}
