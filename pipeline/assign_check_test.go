package pipeline_test

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// A spot is a row's place in the group: its message's, and its number in it.
type spot struct {
	place
	part int64
}

// spots lists the rows of records that went through splitter.
func spots(recs []arrow.Record) []spot {
	var parts []int64
	for _, rec := range recs {
		parts = append(parts, rec.Column(3).(*array.Int64).Int64Values()...)
	}
	all := make([]spot, len(parts))
	for i, p := range listed(recs) {
		all[i] = spot{p, parts[i]}
	}
	return all
}

func countSpots(recs []arrow.Record) map[spot]int {
	count := make(map[spot]int)
	for _, p := range spots(recs) {
		count[p]++
	}
	return count
}

// records returns the durable rows of a sink.
func (w *groupWorld) records(i int) []arrow.Record {
	if w.stores[i] != nil {
		return w.stores[i].Records()
	}
	return w.tables[i].Records()
}

// deadRecords returns the durable dead letters.
func (w *groupWorld) deadRecords() []arrow.Record {
	if w.letters >= 0 {
		return w.stores[w.letters].Letters()
	}
	return w.dead.Records()
}

// eachMessage calls f for every message, with whether it must become a dead letter
// and the parts of it that must become rows.
func (w *groupWorld) eachMessage(f func(p place, dead bool, good []spot, never []spot) error) error {
	for _, part := range w.parts {
		for i, kind := range part.kinds {
			at := place{part.name, int64(i)}
			if part.positions != nil {
				at.position = part.positions[i]
			}
			dead := kind == "garbled"
			var good, never []spot
			for n, word := range words(kind) {
				switch s := (spot{at, int64(n)}); fate(word, w.ops) {
				case "good":
					good = append(good, s)
				case "dead":
					dead = true
					never = append(never, s)
				default:
					never = append(never, s)
				}
			}
			if err := f(at, dead, good, never); err != nil {
				return err
			}
		}
	}
	return nil
}

// onCommit checks that all messages before the marks are durable where they belong.
// One run checks at a time, because Arrow makes the array of a dictionary when it is
// first asked for it.
func (w *groupWorld) onCommit(marks []pipeline.Mark) error {
	w.checking.Lock()
	defer w.checking.Unlock()
	next := make(map[string]int64)
	for _, m := range marks {
		next[m.Partition] = m.Next
	}
	dead := held(w.deadRecords())
	for i := range w.sinks {
		in := countSpots(w.records(i))
		err := w.eachMessage(func(p place, isDead bool, good, _ []spot) error {
			if p.position >= next[p.partition] {
				return nil
			}
			for _, s := range good {
				if in[s] == 0 {
					return fmt.Errorf("committed %s up to %d, but %v is not in sink %d", p.partition, next[p.partition], s, i)
				}
			}
			if isDead && dead[p] == 0 {
				return fmt.Errorf("committed %s up to %d, but %v is not in the dead letters", p.partition, next[p.partition], p)
			}
			return nil
		})
		if err != nil {
			w.breach(err)
			return err
		}
	}
	return nil
}

// onLate notes that a partition was given up before its commit, which must not
// happen when every sink seals all that it holds.
func (w *groupWorld) onLate(power *pipelinetest.Power) {
	w.mu.Lock()
	w.late++
	w.mu.Unlock()
	if power.IsOff() {
		return
	}
	for _, s := range w.sinks {
		if s.kind == "plain" || s.kind == "exact" && !s.sealAll && s.hold == 0 || s.abort > 0 {
			return
		}
	}
	w.breach(fmt.Errorf("sealed, and not committed after %v", patience))
}

// checkEnd checks, after all has gone well in the end, that every row is where it
// must be.
func (w *groupWorld) checkEnd() error {
	dead := held(w.deadRecords())
	for i := range w.sinks {
		in, exact := countSpots(w.records(i)), w.stores[i] != nil
		err := w.eachMessage(func(p place, isDead bool, good, never []spot) error {
			for _, s := range good {
				if n := in[s]; n == 0 || exact && n != 1 {
					return fmt.Errorf("%v is %d times in sink %d (exact: %v)", s, n, i, exact)
				}
			}
			for _, s := range never {
				if in[s] != 0 {
					return fmt.Errorf("%v is in sink %d and must not be", s, i)
				}
			}
			switch n := dead[p]; {
			case isDead != (n > 0), w.letters >= 0 && n > 1:
				return fmt.Errorf("%v is %d times in the dead letters (own: %v, want any: %v)", p, n, w.letters < 0, isDead)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := w.checkOrder(i); err != nil {
			return err
		}
	}
	ends := w.group.Ends()
	for name, next := range w.group.Committed() {
		if next != ends[name] {
			return fmt.Errorf("partition %s is committed up to %d at the end, want %d", name, next, ends[name])
		}
	}
	return nil
}

// checkOrder checks that an exact sink holds each partition in order, whoever wrote
// it.
func (w *groupWorld) checkOrder(i int) error {
	if w.stores[i] == nil {
		return nil
	}
	last := make(map[string]spot)
	for _, s := range spots(w.records(i)) {
		before, ok := last[s.partition]
		if ok && (s.position < before.position || s.position == before.position && s.part <= before.part) {
			return fmt.Errorf("sink %d: %v comes after %v", i, s, before)
		}
		last[s.partition] = s
	}
	return nil
}

var _ pipeline.Assigner = deaf{}
