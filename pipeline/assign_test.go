package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow/go/v15/arrow/memory"
	"go.uber.org/goleak"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// TestGroups runs several pipelines at once that share the partitions of a group,
// while partitions move between them, members are expelled, sinks give up rows, and
// runs crash, fail, quit and drain, and checks what is left. A failure prints the
// seed: go test -run TestGroups -seed N repeats the scenario.
func TestGroups(t *testing.T) {
	defer goleak.VerifyNone(t)
	first, last := uint64(1), uint64(*scenarioCount)
	if *scenarioSeed != 0 {
		first, last = *scenarioSeed, *scenarioSeed
	}
	var saw groupTally
	for seed := first; seed <= last; seed++ {
		w, err := runGroups(t, seed, "")
		if err != nil {
			t.Fatalf("scenario %d (repeat with -seed %d): %v", seed, seed, err)
		}
		saw.add(w)
	}
	t.Logf("%+v", saw)
}

// TestGroupsFindFaults plants defects in the engine, its sinks and its source, and
// checks that the scenarios find each of them.
func TestGroupsFindFaults(t *testing.T) {
	for _, fault := range []string{
		"keep old positions", "ignore seals", "overlook dead letters", "commit the largest",
		"no fence", "letters first", "stale commits", "silent abort",
	} {
		t.Run(fault, func(t *testing.T) {
			for seed := uint64(1); seed <= 400; seed++ {
				if _, err := runGroups(t, seed, fault); err != nil {
					t.Logf("found in scenario %d: %v", seed, err)
					return
				}
			}
			t.Fatal("400 scenarios found nothing")
		})
	}
}

// A groupTally counts what the scenarios hold and what happened in them.
type groupTally struct {
	Scenarios, Messages, Runs, Exact, Plain, Letters int
	Ends                                             map[string]int
	Late                                             int // given up before the commit
}

func (c *groupTally) add(w *groupWorld) {
	c.Scenarios++
	c.Runs += len(w.members)
	for _, p := range w.parts {
		c.Messages += len(p.kinds)
	}
	for _, s := range w.sinks {
		if s.kind == "exact" {
			c.Exact++
		} else {
			c.Plain++
		}
	}
	if w.letters >= 0 {
		c.Letters++
	}
	if c.Ends == nil {
		c.Ends = make(map[string]int)
	}
	for _, m := range w.members {
		c.Ends[m.end]++
	}
	c.Late += w.late
}

// A groupScenario is everything that is chosen by a seed.
type groupScenario struct {
	parts    []partPlan
	trailing int64
	sinks    []groupSink
	deadRoll int
	letters  int // the exact sink that takes the dead letters, or -1
	ops      []string
	members  []memberPlan
	moves    []movePlan
}

type groupSink struct {
	kind                 string // "exact", "sealing" or "plain"
	roll, abort          int
	hold, latency, delay time.Duration
	sealAll, race        bool
}

type memberPlan struct {
	start  time.Duration
	end    string // "", "crash", "quit", "drain", "sink fails" or "source fails"; "" ends last
	at     int
	sink   int
	config pipeline.Config
	source pipelinetest.MemberOptions
}

type movePlan struct {
	at     time.Duration
	expel  bool
	member int
}

// The times of a scenario: members that end early have ended by halftime, and the
// others have read everything long before fulltime.
const (
	halftime = 2 * time.Second
	fulltime = 14 * time.Second
	patience = time.Second
)

func newGroupScenario(seed uint64) *groupScenario {
	rng := rand.New(rand.NewPCG(seed, 17))
	s := &groupScenario{letters: -1, trailing: rng.Int64N(3), deadRoll: rng.IntN(6)}
	badness := []int{0, 3, 15, 60}[rng.IntN(4)] // messages in 100
	for i := range 1 + rng.IntN(4) {
		s.parts = append(s.parts, newGroupPart(rng, string(rune('a'+i)), badness))
	}
	kinds := [][]string{{"exact"}, {"exact", "exact", "sealing", "plain"}}[rng.IntN(2)]
	for i := range 1 + rng.IntN(3) {
		k := groupSink{kind: kinds[rng.IntN(len(kinds))], roll: rng.IntN(6),
			hold: time.Duration(rng.IntN(3)*(1+rng.IntN(60))) * time.Millisecond, latency: time.Duration(rng.IntN(30)) * time.Millisecond,
			delay: time.Duration(rng.IntN(2)*rng.IntN(20)) * time.Millisecond, sealAll: rng.IntN(2) == 0, race: rng.IntN(3) == 0}
		if rng.IntN(3) == 0 {
			k.abort = 2 + rng.IntN(5)
		}
		if k.kind == "exact" && rng.IntN(2) == 0 {
			s.letters = i
		}
		s.sinks = append(s.sinks, k)
	}
	s.ops = [][]string{{}, {"picky"}, {"picky", "drop"}, {"drop", "picky"}}[rng.IntN(4)]
	for range rng.IntN(5) {
		m := newMember(rng)
		m.start = time.Duration(rng.IntN(500)) * time.Millisecond
		m.end = []string{"crash", "crash", "quit", "drain", "sink fails", "source fails"}[rng.IntN(6)]
		m.at, m.sink = 1+rng.IntN(60), rng.IntN(len(s.sinks))
		s.members = append(s.members, m)
	}
	for range 1 + rng.IntN(3) {
		m := newMember(rng)
		m.start = time.Duration(rng.IntN(2)*rng.IntN(1000)) * time.Millisecond
		s.members = append(s.members, m)
	}
	if slices.ContainsFunc(s.sinks, func(k groupSink) bool { return k.race && k.hold == 0 }) {
		m := newMember(rng) // after a race in the last flush, rows are for the next run
		m.start = fulltime + time.Second
		s.members = append(s.members, m)
	}
	for range rng.IntN(6) {
		s.moves = append(s.moves, movePlan{time.Duration(rng.IntN(800)) * time.Millisecond, rng.IntN(2) == 0, rng.IntN(8)})
	}
	return s
}

func newGroupPart(rng *rand.Rand, name string, badness int) partPlan {
	p := partPlan{name: name, kinds: make([]string, rng.IntN(40))}
	gaps, at := rng.IntN(3) == 0, int64(0)
	for k := range p.kinds {
		p.kinds[k] = []string{"", "good", "good", "good", "good,good", "good,good,good"}[rng.IntN(6)]
		if rng.IntN(100) < badness {
			p.kinds[k] = []string{"garbled", "bad", "good,bad", "bad,good,panic", "panic", "drop,good", "good,drop,bad"}[rng.IntN(7)]
		}
		if gaps {
			at += rng.Int64N(3)
		}
		p.positions = append(p.positions, at)
		at++
	}
	if !gaps {
		p.positions = nil
	}
	return p
}

func newMember(rng *rand.Rand) memberPlan {
	r := newRun(rng)
	r.config.CommitInterval = time.Duration(50+rng.IntN(300)) * time.Millisecond
	return memberPlan{config: r.config, source: pipelinetest.MemberOptions{
		BatchRows: r.rows, Pause: time.Duration(rng.IntN(30)) * time.Millisecond,
		Patience: patience, Blind: time.Duration(rng.IntN(3)*rng.IntN(100)) * time.Millisecond,
	}}
}

// A groupWorld is a scenario while it runs: all that outlives a run, and the fault.
type groupWorld struct {
	*groupScenario
	fault  string
	mem    *memory.CheckedAllocator
	group  *pipelinetest.Group
	stores []*pipelinetest.Store // of exact sinks; nil for the others
	tables []*pipelinetest.Table // of the others
	dead   *pipelinetest.Table

	checking sync.Mutex

	mu     sync.Mutex
	broken error // the first broken promise seen while it ran
	late   int   // commits that were waited for in vain
}

func (w *groupWorld) breach(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil {
		w.broken = err
	}
}

// runGroups returns the world after the scenario and the first broken promise.
func runGroups(t *testing.T, seed uint64, fault string) (w *groupWorld, err error) {
	synctest.Test(t, func(*testing.T) {
		w = &groupWorld{groupScenario: newGroupScenario(seed), fault: fault, dead: pipelinetest.NewTable()}
		w.mem = memory.NewCheckedAllocator(memory.NewGoAllocator())
		var parts []pipelinetest.Partition
		for _, p := range w.parts {
			parts = append(parts, rows(w.mem, p.name, p.kinds, p.positions))
		}
		w.group = pipelinetest.NewGroup(rowSchema, w.trailing, parts...)
		w.stores, w.tables = make([]*pipelinetest.Store, len(w.sinks)), make([]*pipelinetest.Table, len(w.sinks))
		for i, s := range w.sinks {
			if s.kind == "exact" {
				w.stores[i] = pipelinetest.NewStore()
			} else {
				w.tables[i] = pipelinetest.NewTable()
			}
		}
		w.runAll()
		if err = w.broken; err == nil {
			err = w.group.Err()
		}
		if err == nil {
			err = w.checkEnd()
		}
		w.release(parts)
		if n := w.mem.CurrentAlloc(); n != 0 && err == nil {
			err = fmt.Errorf("%d bytes were not released", n)
		}
	})
	return w, err
}

func (w *groupWorld) release(parts []pipelinetest.Partition) {
	w.dead.Release()
	for i := range w.sinks {
		if w.stores[i] != nil {
			w.stores[i].Release()
		} else {
			w.tables[i].Release()
		}
	}
	for _, p := range parts {
		p.Rows.Release()
	}
}

// runAll runs every member and every move, and returns when all have ended.
func (w *groupWorld) runAll() {
	for _, m := range w.moves {
		time.AfterFunc(m.at, func() {
			if m.expel {
				w.group.Expel(m.member)
			} else {
				w.group.Rebalance()
			}
		})
	}
	var all sync.WaitGroup
	for i, m := range w.members {
		all.Go(func() {
			<-time.After(m.start)
			if err := w.runMember(m); err != nil {
				w.breach(fmt.Errorf("run %d of %d (%s): %w", i+1, len(w.members), m.end, err))
			}
		})
	}
	all.Wait()
}

// runMember runs the pipeline of one member.
func (w *groupWorld) runMember(m memberPlan) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	drain := make(chan struct{})
	drainNow := sync.OnceFunc(func() { close(drain) })
	power := pipelinetest.NewPower(-1)
	sinkFail, onWrite := uint64(0), func(uint64) {}
	early := func(f func()) { time.AfterFunc(halftime-m.start, f) }
	switch m.end {
	case "crash":
		power = pipelinetest.NewPower(m.at * 3)
		early(power.Off)
		early(cancel) // nothing happens, so nothing would notice
	case "quit":
		onWrite = func(n uint64) {
			if n == uint64(m.at) {
				cancel()
			}
		}
		early(cancel)
	case "drain":
		if m.at%2 == 0 { // in the middle of writing
			onWrite = func(n uint64) {
				if n == uint64(m.at/4) {
					drainNow()
				}
			}
		}
		time.AfterFunc(time.Duration(m.at*m.at)*500*time.Microsecond, drainNow)
	case "sink fails":
		sinkFail = uint64(m.at)
		early(drainNow)
	case "source fails":
		m.source.FailAfter, m.source.FailBatches = errSource, m.at
		early(drainNow)
	default:
		time.AfterFunc(max(fulltime-m.start, 2*time.Second), drainNow)
	}
	c := m.config.Plant(w.engineFault())
	c.Allocator, c.Drain, c.Operators = w.mem, drain, w.operators()
	m.source.Power, m.source.Decoder, m.source.OnCommit = power, splitter{w.mem}, w.onCommit
	m.source.Stale = w.fault == "stale commits"
	m.source.OnLate = func(string) { w.onLate(power) }
	src := w.group.Join(m.source)
	c.Source = src
	if w.fault == "silent abort" {
		c.Source = deaf{src.(pipeline.Messages), src}
	}
	for i := range w.sinks {
		k := w.openSink(i, power, m)
		if i == m.sink {
			k.failAt, k.onWrite = sinkFail, onWrite
		}
		c.Sinks = append(c.Sinks, pipeline.NamedSink{Name: fmt.Sprint("sink", i), Sink: k.open()})
	}
	c.DeadLetters = w.dead.OpenSeals(pipelinetest.SinkOptions{Roll: w.deadRoll, Power: power})
	if w.letters >= 0 {
		c.DeadLetters = c.Sinks[w.letters].Sink
	}
	_, err := pipeline.Run(ctx, c)
	return w.checkOutcome(m, err, ctx)
}

// deaf is a source that no sink can tell what is lost, a planted fault.
type deaf struct {
	pipeline.Messages
	assigner pipeline.Assigner
}

func (d deaf) Assign(place func(context.Context, []pipeline.Mark) ([]pipeline.Place, error)) {
	d.assigner.Assign(place)
}

// checkOutcome checks that Run returned what it must.
func (w *groupWorld) checkOutcome(m memberPlan, err error, ctx context.Context) error {
	switch {
	case err == nil,
		m.end == "crash" && (errors.Is(err, pipelinetest.ErrCrash) || errors.Is(err, context.Canceled)),
		m.end == "quit" && errors.Is(err, context.Canceled) && ctx.Err() != nil,
		(m.end != "" || m.start < fulltime) && errors.Is(err, pipelinetest.ErrSink), // also in the last flush
		m.end == "source fails" && errors.Is(err, errSource):
		return nil
	}
	return fmt.Errorf("Run returned %w", err)
}

func (w *groupWorld) engineFault() string {
	switch w.fault {
	case "no fence", "letters first", "stale commits", "silent abort":
		return ""
	}
	return w.fault
}

func (w *groupWorld) operators() []pipeline.NamedOperator {
	var ops []pipeline.NamedOperator
	for _, name := range w.ops {
		op := pipeline.NamedOperator{Name: name, Operator: picky{}}
		if name == "drop" {
			op.Operator = dropper{w.mem}
		}
		ops = append(ops, op)
	}
	return ops
}

// A sinkOpening is a sink of one run before it is opened.
type sinkOpening struct {
	groupSink
	w       *groupWorld
	index   int
	power   *pipelinetest.Power
	failAt  uint64
	onWrite func(uint64)
}

func (w *groupWorld) openSink(i int, power *pipelinetest.Power, m memberPlan) *sinkOpening {
	k := &sinkOpening{groupSink: w.sinks[i], w: w, index: i, power: power}
	if m.end == "" {
		k.abort = 0 // the last flush must go well
	}
	return k
}

func (k *sinkOpening) open() pipeline.Sink {
	if k.kind == "exact" {
		return k.w.stores[k.index].Open(pipelinetest.StoreOptions{
			Hold: k.hold, Latency: k.latency, SealAll: k.sealAll, Race: k.race, Abort: k.abort, Delay: k.delay, FailAt: k.failAt,
			OnWrite: k.onWrite, Power: k.power, NoFence: k.w.fault == "no fence", LettersFirst: k.w.fault == "letters first",
		})
	}
	o := pipelinetest.SinkOptions{Roll: k.roll, Delay: k.delay, FailAt: k.failAt, OnWrite: k.onWrite, Power: k.power}
	if k.kind == "sealing" {
		return k.w.tables[k.index].OpenSeals(o)
	}
	return k.w.tables[k.index].Open(o)
}
