package pipeline_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"go.uber.org/goleak"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

var (
	scenarioCount = flag.Int("scenarios", defaultScenarios, "how many random scenarios TestScenarios and TestGroups run")
	scenarioSeed  = flag.Uint64("seed", 0, "run this one scenario only")
)

// TestScenarios runs pipelines that crash, fail, drain and start again, and
// checks what is left. A failure prints the seed: go test -run TestScenarios
// -seed N repeats the scenario (though goroutines may take turns otherwise).
func TestScenarios(t *testing.T) {
	defer goleak.VerifyNone(t)
	if *scenarioSeed != 0 {
		if err := runScenario(t, *scenarioSeed, ""); err != nil {
			t.Fatalf("scenario %d: %v", *scenarioSeed, err)
		}
		return
	}
	var saw tally
	for seed := uint64(1); seed <= uint64(*scenarioCount); seed++ {
		if err := runScenario(t, seed, ""); err != nil {
			t.Fatalf("scenario %d (repeat with -seed %d): %v", seed, seed, err)
		}
		saw.add(newScenario(seed))
	}
	t.Logf("%+v", saw)
}

// TestScenariosFindFaults plants defects in the engine and its sinks and checks
// that the scenarios find each of them: a checker that always agrees is worth
// nothing.
func TestScenariosFindFaults(t *testing.T) {
	for _, fault := range []string{
		"commit the largest", "drop on drain", "skip one too many", "commit before dead letters",
		"lying sink", "forgetful position",
	} {
		t.Run(fault, func(t *testing.T) {
			for seed := uint64(1); seed <= 400; seed++ {
				if err := runScenario(t, seed, fault); err != nil {
					t.Logf("found in scenario %d: %v", seed, err)
					return
				}
			}
			t.Fatal("400 scenarios found nothing")
		})
	}
}

// A tally counts what the scenarios hold, so that nobody takes 1,000 runs of
// nothing for a proof.
type tally struct {
	Scenarios, Runs, Rows, Crash, Quit, Drain, SinkFails, SourceFails, Slow, Exact, Plain, Bad int
}

func (c *tally) add(s *scenario) {
	c.Scenarios++
	for _, p := range s.parts {
		c.Rows += len(p.kinds)
		for _, k := range p.kinds {
			if k == "bad" || k == "panic" {
				c.Bad++
			}
		}
	}
	for _, sk := range s.sinks {
		if sk.exact {
			c.Exact++
		} else {
			c.Plain++
		}
		if sk.delay > 0 {
			c.Slow++
		}
	}
	for _, r := range s.runs {
		c.Runs++
		switch r.end {
		case "crash":
			c.Crash++
		case "quit":
			c.Quit++
		case "drain":
			c.Drain++
		case "sink fails":
			c.SinkFails++
		case "source fails":
			c.SourceFails++
		}
	}
}

// A scenario is everything that is chosen by a seed.
type scenario struct {
	parts    []partPlan
	sinks    []sinkPlan
	deadRoll int
	ops      []string
	runs     []runPlan // the last one is let alone
}

type partPlan struct {
	name      string
	epoch     int64
	kinds     []string
	positions []int64
}

type sinkPlan struct {
	exact bool
	roll  int
	delay time.Duration
}

type runPlan struct {
	end     string // "", "crash", "quit", "drain", "sink fails" or "source fails"
	at      int    // when: an operation, write or batch
	sink    int    // whose write it is
	config  pipeline.Config
	rows    int
	seed    uint64
	endless bool
}

func newScenario(seed uint64) *scenario {
	rng := rand.New(rand.NewPCG(seed, 3))
	s := &scenario{deadRoll: rng.IntN(4)}
	badness := []int{0, 2, 10, 60}[rng.IntN(4)] // rows in 100
	for i := range 1 + rng.IntN(4) {
		p := partPlan{name: string(rune('a' + i)), epoch: int64(rng.IntN(2) * (7 + i)), kinds: make([]string, rng.IntN(40))}
		gaps := rng.IntN(4) == 0
		at := int64(0)
		for k := range p.kinds {
			if rng.IntN(100) < badness {
				p.kinds[k] = []string{"bad", "panic", "drop"}[rng.IntN(3)]
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
		s.parts = append(s.parts, p)
	}
	for range 1 + rng.IntN(3) {
		s.sinks = append(s.sinks, sinkPlan{
			exact: rng.IntN(2) == 0, roll: rng.IntN(6), delay: time.Duration(rng.IntN(2)*rng.IntN(50)) * time.Millisecond,
		})
	}
	s.ops = [][]string{
		{"picky"}, {"picky", "drop"}, {"drop", "picky"}, {"count", "picky"}, {"picky", "count", "drop"}, {"count", "picky", "count", "drop"},
	}[rng.IntN(6)]
	for range rng.IntN(6) {
		r := newRun(rng)
		r.end = []string{"crash", "crash", "quit", "drain", "drain", "sink fails", "source fails"}[rng.IntN(7)]
		r.at, r.sink = 1+rng.IntN(40), rng.IntN(len(s.sinks))
		r.endless = r.end == "drain"
		s.runs = append(s.runs, r)
	}
	s.runs = append(s.runs, newRun(rng))
	return s
}

func newRun(rng *rand.Rand) runPlan {
	return runPlan{
		rows: 1 + rng.IntN(10), seed: rng.Uint64(),
		config: pipeline.Config{
			Workers: 1 + rng.IntN(4), MaxBatches: 1 + rng.IntN(8), MaxBytes: int64(1 + rng.IntN(2000)),
			CommitBatches: 1 + rng.IntN(5), CommitInterval: time.Duration(1+rng.IntN(100)) * time.Millisecond,
			OnError: pipeline.DeadLetter, DeadLetterLimit: pipeline.DeadLetterLimit{InRow: -1, Share: -1},
		},
	}
}

// A world is a scenario while it runs: all that outlives a run, and the fault.
type world struct {
	*scenario
	fault  string
	mem    *memory.CheckedAllocator
	topic  *pipelinetest.Topic
	tables []*pipelinetest.Table
	dead   *pipelinetest.Table
	saved  pipeline.Checkpoint
	broken error // the first broken promise seen during a run
	marks  map[string]int64
}

// runScenario returns the first broken promise.
func runScenario(t *testing.T, seed uint64, fault string) (err error) {
	synctest.Test(t, func(*testing.T) {
		w := &world{scenario: newScenario(seed), fault: fault, dead: pipelinetest.NewTable(), marks: make(map[string]int64)}
		w.mem = memory.NewCheckedAllocator(memory.NewGoAllocator())
		var parts []pipelinetest.Partition
		for _, p := range w.parts {
			part := rows(w.mem, p.name, p.kinds, p.positions)
			part.Epoch = p.epoch
			parts = append(parts, part)
		}
		w.topic = pipelinetest.NewTopic(rowSchema, parts...)
		for range w.sinks {
			w.tables = append(w.tables, pipelinetest.NewTable())
		}
		for i, r := range w.runs {
			if err = w.run(r); err != nil {
				err = fmt.Errorf("run %d of %d (%s): %w", i+1, len(w.runs), r.end, err)
				break
			}
		}
		if err == nil {
			err = w.checkEnd()
		}
		for _, tab := range append(w.tables, w.dead) {
			tab.Release()
		}
		for _, p := range parts {
			p.Rows.Release()
		}
		if n := w.mem.CurrentAlloc(); n != 0 && err == nil {
			err = fmt.Errorf("%d bytes were not released", n)
		}
	})
	return err
}

// run runs the pipeline once and checks what can be told at once.
func (w *world) run(r runPlan) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	drain := make(chan struct{})
	power := pipelinetest.NewPower(-1)
	src := pipelinetest.SourceOptions{BatchRows: r.rows, Seed: r.seed, OnCommit: w.onCommit, Endless: r.endless, Power: power}
	sinks := make([]pipelinetest.SinkOptions, len(w.sinks))
	for i, s := range w.sinks {
		sinks[i] = pipelinetest.SinkOptions{Roll: s.roll, Delay: s.delay, Power: power, Lie: w.fault == "lying sink"}
	}
	switch r.end {
	case "crash":
		power = pipelinetest.NewPower(r.at * 2)
		src.Power = power
		for i := range sinks {
			sinks[i].Power = power
		}
	case "sink fails":
		sinks[r.sink].FailAt = uint64(r.at)
	case "source fails":
		src.FailAfter, src.FailBatches = errSource, r.at
	case "quit":
		sinks[r.sink].OnWrite = func(n uint64) {
			if n == uint64(r.at) {
				cancel()
			}
		}
	case "drain":
		once := sync.OnceFunc(func() { close(drain) })
		switch r.at % 3 {
		case 0: // while everybody waits for something
			time.AfterFunc(time.Duration(r.at*r.at)*100*time.Microsecond, once)
		case 1: // in the middle of reading
			src.OnBatch = func(n int) {
				if n == r.at/3 {
					once()
				}
			}
			time.AfterFunc(time.Minute, once)
		case 2: // in the middle of writing
			sinks[r.sink].OnWrite = func(n uint64) {
				if n == uint64(r.at/3) {
					once()
				}
			}
			time.AfterFunc(time.Minute, once)
		}
	}
	before := w.lengths()
	c := r.config.Plant(w.engineFault())
	c.Allocator, c.From, c.Drain = w.mem, w.topic.Committed(), drain
	c.Source = w.topic.Open(src)
	c.Operators = w.operators()
	c.States = w.saved.States
	c.Save = func(_ context.Context, p pipeline.Checkpoint) error {
		if power.IsOff() {
			return pipelinetest.ErrCrash
		}
		w.saved = p
		return nil
	}
	if w.saved.Marks != nil {
		c.From = w.saved.Marks
	}
	for i, s := range w.sinks {
		named := pipeline.NamedSink{Name: fmt.Sprint("sink", i), Sink: w.tables[i].Open(sinks[i])}
		if s.exact {
			named.Sink = position{w.tables[i].OpenMarks(sinks[i]), w.fault == "forgetful position"}
		}
		c.Sinks = append(c.Sinks, named)
	}
	c.DeadLetters = w.dead.Open(pipelinetest.SinkOptions{Roll: w.deadRoll, Power: power})
	stats, err := pipeline.Run(ctx, c)
	if w.broken != nil {
		return w.broken
	}
	if err := checkOutcome(r, stats, err, ctx, power); err != nil {
		return err
	}
	return w.checkOrder(before)
}

// errSource is what a source fails with.
var errSource = errors.New("the source was told to fail")

// checkOutcome checks that Run returned what it must.
func checkOutcome(r runPlan, stats pipeline.Stats, err error, ctx context.Context, power *pipelinetest.Power) error {
	if err == nil {
		if r.end == "drain" && !stats.Drained {
			return errors.New("a drain is not in the statistics")
		}
		return nil
	}
	switch {
	case r.end == "crash" && errors.Is(err, pipelinetest.ErrCrash) && power.IsOff(),
		r.end == "quit" && errors.Is(err, context.Canceled) && ctx.Err() != nil,
		r.end == "sink fails" && errors.Is(err, pipelinetest.ErrSink),
		r.end == "source fails" && errors.Is(err, errSource):
		return nil
	}
	return fmt.Errorf("Run returned %w", err)
}

func (w *world) engineFault() string {
	if w.fault == "lying sink" || w.fault == "forgetful position" {
		return ""
	}
	return w.fault
}

func (w *world) operators() []pipeline.NamedOperator {
	var ops []pipeline.NamedOperator
	seen := 0
	for _, name := range w.ops {
		var op pipeline.Operator
		switch name {
		case "picky":
			op = picky{}
		case "drop":
			op = dropper{w.mem}
		case "count":
			seen++
			c := newCounter(w.mem)
			c.column = fmt.Sprint("seen", seen)
			op = c
		}
		ops = append(ops, pipeline.NamedOperator{Name: fmt.Sprint(name, seen), Operator: op})
	}
	return ops
}

// A position is a MarkSink whose position may be forgotten, a planted fault.
type position struct {
	pipelinetest.MarkSink
	forget bool
}

func (p position) Position(ctx context.Context, parts []pipeline.Mark) ([]pipeline.Mark, error) {
	marks, err := p.MarkSink.Position(ctx, parts)
	if p.forget {
		marks = nil
	}
	return marks, err
}

func (w *world) lengths() []int {
	n := make([]int, len(w.tables))
	for i, tab := range w.tables {
		n[i] = len(tab.Records())
	}
	return n
}

// A place is a row's place in the topic.
type place struct {
	partition string
	position  int64
}

// held counts the rows in records.
func held(recs []arrow.Record) map[place]int {
	count := make(map[place]int)
	for _, p := range listed(recs) {
		count[p]++
	}
	return count
}

func listed(recs []arrow.Record) []place {
	var all []place
	for _, rec := range recs {
		dict := rec.Column(0).(*array.Dictionary)
		names := dict.Dictionary().(*array.String)
		for i := range int(rec.NumRows()) {
			all = append(all, place{names.Value(dict.GetValueIndex(i)), rec.Column(1).(*array.Int64).Value(i)})
		}
	}
	return all
}

// fate says where a row of a kind must end: in every table, in the dead letters
// or, dropped, in neither.
func fate(kind string, ops []string) string {
	for _, op := range ops {
		switch {
		case op == "picky" && (kind == "bad" || kind == "panic"):
			return "dead"
		case op == "drop" && kind == "drop":
			return "dropped"
		}
	}
	return "good"
}

// each calls f for every row of the topic.
func (w *world) each(f func(p place, fate string) error) error {
	for _, part := range w.parts {
		for i, kind := range part.kinds {
			at := int64(i)
			if part.positions != nil {
				at = part.positions[i]
			}
			if err := f(place{part.name, at}, fate(kind, w.ops)); err != nil {
				return err
			}
		}
	}
	return nil
}

// onCommit checks that all rows before the marks are durable where they belong.
func (w *world) onCommit(marks []pipeline.Mark) error {
	next := make(map[string]int64)
	for _, m := range marks {
		if m.Next <= w.marks[m.Partition] {
			w.broken = fmt.Errorf("partition %s was committed up to %d, then up to %d", m.Partition, w.marks[m.Partition], m.Next)
			return w.broken
		}
		next[m.Partition], w.marks[m.Partition] = m.Next, m.Next
	}
	dead := held(w.dead.Records())
	for i, tab := range w.tables {
		in := held(tab.Records())
		err := w.each(func(p place, fate string) error {
			switch {
			case p.position >= next[p.partition]:
			case fate == "good" && in[p] == 0:
				return fmt.Errorf("committed %s up to %d, but row %d is not in sink %d", p.partition, next[p.partition], p.position, i)
			case fate == "dead" && dead[p] == 0:
				return fmt.Errorf("committed %s up to %d, but row %d is not in the dead letters", p.partition, next[p.partition], p.position)
			}
			return nil
		})
		if err != nil {
			w.broken = err
			return err
		}
	}
	return nil
}

// checkOrder checks that what a run wrote is in order within each partition.
func (w *world) checkOrder(before []int) error {
	for i, tab := range w.tables {
		recs := tab.Records()
		if !w.sinks[i].exact {
			recs = recs[before[i]:]
		}
		last := make(map[string]int64)
		for _, p := range listed(recs) {
			if at, ok := last[p.partition]; ok && p.position <= at {
				return fmt.Errorf("sink %d: row %d of partition %s comes after row %d", i, p.position, p.partition, at)
			}
			last[p.partition] = p.position
		}
	}
	return nil
}

// checkEnd checks, after a run that went well, that every row is where it must be.
func (w *world) checkEnd() error {
	dead := held(w.dead.Records())
	for i, tab := range w.tables {
		in := held(tab.Records())
		err := w.each(func(p place, fate string) error {
			n := in[p]
			switch {
			case fate == "good" && n == 0:
				return fmt.Errorf("row %v is not in sink %d", p, i)
			case fate == "good" && w.sinks[i].exact && n != 1:
				return fmt.Errorf("row %v is %d times in sink %d, which is exact", p, n, i)
			case fate != "good" && n != 0:
				return fmt.Errorf("row %v is in sink %d, its fate is %s", p, i, fate)
			case (fate == "dead") != (dead[p] > 0):
				return fmt.Errorf("row %v is %d times in the dead letters, its fate is %s", p, dead[p], fate)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, m := range w.topic.Committed() {
		i := slices.IndexFunc(w.parts, func(p partPlan) bool { return p.name == m.Partition })
		end := int64(len(w.parts[i].kinds))
		if pos := w.parts[i].positions; pos != nil {
			end = pos[len(pos)-1] + 1
		}
		if m.Next != end {
			return fmt.Errorf("partition %s is committed up to %d at the end, want %d", m.Partition, m.Next, end)
		}
	}
	return nil
}
