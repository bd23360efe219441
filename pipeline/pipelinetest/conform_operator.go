package pipelinetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
)

// An OperatorTest says how to test an Operator.
type OperatorTest struct {
	// New returns an operator that is not yet bound. What it allocates for
	// results comes from mem.
	New func(t *testing.T, mem memory.Allocator) pipeline.Operator
	// Inputs share one schema and are records that the operator can take. There
	// must be one at least, better some with nulls and several hundred rows.
	Inputs []arrow.Record
	// Drops says that the operator may drop rows.
	Drops bool
}

// Operator checks the contract of pipeline.Operator. Use Stateful for an
// operator with a state.
func Operator(t *testing.T, o OperatorTest) {
	t.Run("bind", func(t *testing.T) { o.testBind(t) })
	t.Run("apply", func(t *testing.T) { o.testApply(t) })
	t.Run("borrows", func(t *testing.T) { o.testBorrows(t) })
	t.Run("concurrent", func(t *testing.T) { o.testConcurrent(t) })
	t.Run("split", func(t *testing.T) { o.testSplit(t) })
	t.Run("empty", func(t *testing.T) { o.testEmpty(t) })
}

// A boundOperator is an operator, and what it was bound to.
type boundOperator struct {
	pipeline.Operator
	out   *arrow.Schema
	drops bool
}

// bind returns a fresh operator; its memory is checked at the end.
func (o OperatorTest) bind(t *testing.T) boundOperator {
	t.Helper()
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	op := o.New(t, mem)
	out, err := op.Bind(o.Inputs[0].Schema())
	if err != nil {
		t.Fatalf("Bind: %v", err)
	}
	own := mem.CurrentAlloc() // what it keeps is its own affair; results must all be released
	t.Cleanup(func() {
		if n := mem.CurrentAlloc(); n != own {
			t.Errorf("%d bytes of results were not released", n-own)
		}
	})
	return boundOperator{op, out, o.Drops}
}

// apply applies op and checks what can be told from one result, which it renders.
func (op boundOperator) apply(t *testing.T, in arrow.Record) []string {
	t.Helper()
	out, err := op.Apply(t.Context(), in)
	if err != nil {
		t.Errorf("Apply: %v", err)
		return nil
	}
	defer out.Release()
	if !out.Schema().Equal(op.out) {
		t.Errorf("a result has schema %v, bound to %v", out.Schema(), op.out)
	}
	if out.NumRows() > in.NumRows() || out.NumRows() < in.NumRows() && !op.drops {
		t.Errorf("%d rows became %d", in.NumRows(), out.NumRows())
	}
	return Render(out)
}

func (o OperatorTest) testBind(t *testing.T) {
	if one, two := o.bind(t).out, o.bind(t).out; !one.Equal(two) {
		t.Errorf("Bind gave %v, then %v for the same input", one, two)
	}
}

func (o OperatorTest) testApply(t *testing.T) {
	op := o.bind(t)
	for i, in := range o.Inputs {
		before := Render(in)
		one, two := op.apply(t, in), op.apply(t, in)
		if d := differ(two, one); d != "" {
			t.Errorf("input %d, applied twice: %s", i, d)
		}
		if d := differ(Render(in), before); d != "" {
			t.Errorf("input %d was changed: %s", i, d)
		}
	}
}

// testBorrows gives copies of the inputs and checks that nothing holds on to them.
func (o OperatorTest) testBorrows(t *testing.T) {
	op := o.bind(t)
	mem, check := checked(t)
	for _, in := range o.Inputs {
		own := Copy(t, mem, in)
		op.apply(t, own)
		own.Release()
	}
	check()
}

func (o OperatorTest) testConcurrent(t *testing.T) {
	op := o.bind(t)
	want := make([][]string, len(o.Inputs))
	for i, in := range o.Inputs {
		want[i] = op.apply(t, in)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i, in := range o.Inputs {
				if d := differ(op.apply(t, in), want[i]); d != "" {
					t.Errorf("input %d, four at once: %s", i, d)
				}
			}
		})
	}
	wg.Wait()
}

// testSplit cuts the inputs at random places and into single rows: a row's result
// must not depend on its neighbours.
func (o OperatorTest) testSplit(t *testing.T) {
	op := o.bind(t)
	rng := rand.New(rand.NewPCG(1, 4))
	for i, in := range o.Inputs {
		want := op.apply(t, in)
		for _, most := range []int64{1, 3, max(1, in.NumRows()/2)} {
			var got []string
			for lo := int64(0); lo < in.NumRows(); {
				hi := min(in.NumRows(), lo+1+rng.Int64N(most))
				part := in.NewSlice(lo, hi)
				got = append(got, op.apply(t, part)...)
				part.Release()
				lo = hi
			}
			if d := differ(got, want); d != "" {
				t.Errorf("input %d in parts of at most %d rows: %s", i, most, d)
			}
		}
	}
}

// testEmpty applies the operator to no rows, once as a slice and once made so.
func (o OperatorTest) testEmpty(t *testing.T) {
	op := o.bind(t)
	slice := o.Inputs[0].NewSlice(0, 0)
	defer slice.Release()
	b := array.NewRecordBuilder(memory.NewGoAllocator(), o.Inputs[0].Schema())
	defer b.Release()
	made := b.NewRecord()
	defer made.Release()
	for _, in := range []arrow.Record{slice, made} {
		if got := op.apply(t, in); len(got) != 0 {
			t.Errorf("no rows became %d", len(got))
		}
	}
}

// A StatefulTest says how to test a Stateful operator.
type StatefulTest struct {
	// New returns an operator that is not yet bound and has seen nothing. What it
	// allocates for results comes from mem.
	New func(t *testing.T, mem memory.Allocator) pipeline.Stateful
	// Inputs are records of one schema, in order.
	Inputs []arrow.Record
	// Drops says that the operator may drop rows.
	Drops bool
}

// Stateful checks the contract of pipeline.Stateful: a run that is broken off at
// any batch and restored from a snapshot gives what an unbroken one gives, and so
// does one whose records are cut otherwise.
func Stateful(t *testing.T, s StatefulTest) {
	o := OperatorTest{
		New:    func(t *testing.T, mem memory.Allocator) pipeline.Operator { return s.New(t, mem) },
		Inputs: s.Inputs, Drops: s.Drops,
	}
	t.Run("bind", func(t *testing.T) { o.testBind(t) })
	t.Run("borrows", func(t *testing.T) { o.testBorrows(t) })
	t.Run("empty", func(t *testing.T) { o.testEmpty(t) })
	whole := s.results(t, o)
	t.Run("restore", func(t *testing.T) {
		for n := range s.Inputs {
			s.testRestore(t, o, n, whole)
		}
	})
	t.Run("split", func(t *testing.T) {
		op := o.bind(t)
		for i, in := range s.Inputs {
			var got []string
			for lo := int64(0); lo < in.NumRows(); lo += 3 {
				part := in.NewSlice(lo, min(lo+3, in.NumRows()))
				got = append(got, op.apply(t, part)...)
				part.Release()
			}
			if d := differ(got, whole[i]); d != "" {
				t.Errorf("input %d in parts of 3 rows: %s", i, d)
			}
		}
	})
	t.Run("garbage", func(t *testing.T) {
		op := o.bind(t).Operator.(pipeline.Stateful)
		if err := op.Restore([]byte("\xff no state \x00")); err == nil {
			t.Error("Restore took what no Snapshot gave")
		}
	})
}

func (s StatefulTest) results(t *testing.T, o OperatorTest) [][]string {
	op := o.bind(t)
	var all [][]string
	for _, in := range s.Inputs {
		all = append(all, op.apply(t, in))
	}
	return all
}

// testRestore breaks off before input n and goes on with a restored operator. Two
// snapshots are taken, because a snapshot must change nothing.
func (s StatefulTest) testRestore(t *testing.T, o OperatorTest, n int, whole [][]string) {
	t.Helper()
	first := o.bind(t)
	for _, in := range s.Inputs[:n] {
		first.apply(t, in)
	}
	state, err := snapshots(first.Operator.(pipeline.Stateful))
	if err != nil {
		t.Fatalf("Snapshot before input %d: %v", n, err)
	}
	second := o.bind(t)
	if err := second.Operator.(pipeline.Stateful).Restore(state); err != nil {
		t.Fatalf("Restore before input %d: %v", n, err)
	}
	for i, in := range s.Inputs[n:] {
		if d := differ(second.apply(t, in), whole[n+i]); d != "" {
			t.Errorf("restored before input %d: input %d: %s", n, n+i, d)
		}
	}
	for i, in := range s.Inputs[n:] {
		if d := differ(first.apply(t, in), whole[n+i]); d != "" {
			t.Errorf("after a snapshot before input %d: input %d: %s", n, n+i, d)
		}
	}
}

func snapshots(op pipeline.Stateful) ([]byte, error) {
	one, err := op.Snapshot()
	if err != nil {
		return nil, err
	}
	two, err := op.Snapshot()
	if err == nil && string(one) != string(two) {
		err = fmt.Errorf("two snapshots of one state differ: %q and %q", one, two)
	}
	return one, err
}
