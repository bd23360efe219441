package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
)

// A SourceTest says how to test a Source.
type SourceTest struct {
	// New returns a source that gives the same rows each time. What it allocates
	// for batches comes from mem. The test closes it.
	New func(t *testing.T, mem memory.Allocator) pipeline.Source
	// MaxRows ends the reading of an endless source after that many rows or a few
	// more; 0 reads to the end.
	MaxRows int64
	// Marks is how many marks the test resumes from; 0 means 16.
	Marks int
}

// Source checks the contract of pipeline.Source.
func Source(t *testing.T, s SourceTest) {
	if s.Marks == 0 {
		s.Marks = 16
	}
	t.Run("schema", func(t *testing.T) { s.testSchema(t) })
	t.Run("whole", func(t *testing.T) { s.read(t, nil, s.MaxRows) })
	t.Run("resume", func(t *testing.T) { s.testResume(t) })
	t.Run("break", func(t *testing.T) { s.testBreak(t) })
	t.Run("cancel", func(t *testing.T) { s.testCancel(t) })
	t.Run("commit", func(t *testing.T) { s.testCommit(t) })
}

// open returns a source that is closed, and its memory checked, at the end.
func (s SourceTest) open(t *testing.T) pipeline.Source {
	t.Helper()
	mem, check := checked(t)
	src := s.New(t, mem)
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		check()
	})
	return src
}

func (s SourceTest) testSchema(t *testing.T) {
	src := s.open(t)
	one, err := src.Schema(t.Context())
	if err != nil {
		t.Fatalf("Schema: %v", err)
	}
	two, err := src.Schema(t.Context())
	if err != nil {
		t.Fatalf("second Schema: %v", err)
	}
	if !one.Equal(two) {
		t.Errorf("Schema gave %v, then %v", one, two)
	}
}

// A readBatch is what is remembered of a batch after its release.
type readBatch struct {
	mark pipeline.Mark
	rows []placedRow
}

// A placedRow is a row's place and its values as text.
type placedRow struct {
	partition string
	position  int64
	text      string
}

// read reads a fresh source from marks on and checks every batch. All batches are
// held until the end, so that a source that uses their memory again is found out.
func (s SourceTest) read(t *testing.T, from []pipeline.Mark, maxRows int64) []readBatch {
	t.Helper()
	src := s.open(t)
	schema, err := src.Schema(t.Context())
	if err != nil {
		t.Fatalf("Schema: %v", err)
	}
	var batches []*pipeline.Batch
	defer func() {
		for _, b := range batches {
			b.Release()
		}
	}()
	last := make(map[string]pipeline.Mark)
	for _, m := range from {
		last[m.Partition] = m
	}
	rows := int64(0)
	for b, err := range src.Batches(t.Context(), from) {
		if err != nil {
			t.Fatalf("after %d rows: %v", rows, err)
		}
		batches = append(batches, b)
		if !b.Record.Schema().Equal(schema) {
			t.Fatalf("a batch has schema %v, want %v", b.Record.Schema(), schema)
		}
		if fault := checkPlace(b, last); fault != "" {
			t.Fatalf("batch %d (partition %q, first %d, mark %d): %s", len(batches), b.Mark.Partition, b.First, b.Mark.Next, fault)
		}
		last[b.Mark.Partition] = b.Mark
		if rows += b.Rows(); maxRows > 0 && rows >= maxRows {
			break
		}
	}
	var read []readBatch
	for _, b := range batches {
		read = append(read, remember(b))
	}
	return read
}

// checkPlace says what is wrong with a batch's place; "" when it is right.
func checkPlace(b *pipeline.Batch, last map[string]pipeline.Mark) string {
	if l, ok := last[b.Mark.Partition]; ok {
		if b.Mark.Epoch != l.Epoch && l.Epoch != 0 {
			return fmt.Sprintf("epoch %d after %d", b.Mark.Epoch, l.Epoch)
		}
		if b.First < l.Next {
			return fmt.Sprintf("the mark before was %d", l.Next)
		}
	}
	if b.Mark.Next <= b.First {
		return "the mark does not advance"
	}
	if b.Positions == nil {
		if b.Mark.Next-b.First != b.Rows() {
			return fmt.Sprintf("%d rows, and no Positions", b.Rows())
		}
		return ""
	}
	if int64(len(b.Positions)) != b.Rows() {
		return fmt.Sprintf("%d rows and %d Positions", b.Rows(), len(b.Positions))
	}
	before := b.First - 1
	for _, p := range b.Positions {
		if p <= before || p >= b.Mark.Next {
			return fmt.Sprintf("position %d does not rise, or is outside", p)
		}
		before = p
	}
	return ""
}

func remember(b *pipeline.Batch) readBatch {
	r := readBatch{mark: b.Mark}
	for i, text := range Render(b.Record) {
		at := b.First + int64(i)
		if b.Positions != nil {
			at = b.Positions[i]
		}
		r.rows = append(r.rows, placedRow{b.Mark.Partition, at, text})
	}
	return r
}

// testResume reads again from marks at the ends and in the middle of batches.
func (s SourceTest) testResume(t *testing.T) {
	whole := s.read(t, nil, s.MaxRows)
	step := max(1, len(whole)*2/s.Marks)
	for n := 0; n < len(whole); n += step {
		for _, middle := range []bool{false, true} {
			marks := make(map[string]pipeline.Mark)
			for _, b := range whole[:n+1] {
				marks[b.mark.Partition] = b.mark
			}
			b := whole[n]
			if middle && len(b.rows) > 0 {
				m := b.mark
				m.Next = b.rows[len(b.rows)/2].position
				marks[m.Partition] = m
			}
			s.resume(t, whole, marks)
			if t.Failed() {
				return
			}
		}
	}
}

// resume checks that a source that starts at marks gives the rows behind them.
func (s SourceTest) resume(t *testing.T, whole []readBatch, marks map[string]pipeline.Mark) {
	t.Helper()
	want := make(map[string][]string)
	rows := int64(0)
	for _, b := range whole {
		for _, r := range b.rows {
			if r.position >= marks[r.partition].Next {
				want[r.partition] = append(want[r.partition], fmt.Sprint(r.position, " ", r.text))
				rows++
			}
		}
	}
	var from []pipeline.Mark
	for _, m := range marks {
		from = append(from, m)
	}
	if s.MaxRows > 0 && rows == 0 {
		return
	}
	limit := int64(0)
	if s.MaxRows > 0 {
		limit = rows
	}
	got := make(map[string][]string)
	for _, b := range s.read(t, from, limit) {
		for _, r := range b.rows {
			got[r.partition] = append(got[r.partition], fmt.Sprint(r.position, " ", r.text))
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok && s.MaxRows == 0 {
			t.Errorf("from %v: partition %q gave %d rows, want none", from, p, len(got[p]))
		}
	}
	for p := range want {
		g, w := got[p], want[p]
		if s.MaxRows > 0 { // both ended somewhere
			n := min(len(g), len(w))
			g, w = g[:n], w[:n]
		}
		if d := differ(g, w); d != "" {
			t.Errorf("from %v: partition %q: %s", from, p, d)
		}
	}
}

func (s SourceTest) testBreak(t *testing.T) {
	src := s.open(t)
	for b, err := range src.Batches(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
		break
	}
}

// testCancel ends the context before the first and after the first batch. The
// source may still give what it holds, but must then say why it ends.
func (s SourceTest) testCancel(t *testing.T) {
	for _, after := range []int{0, 1} {
		t.Run(fmt.Sprintf("after %d batches", after), func(t *testing.T) {
			src := s.open(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if after == 0 {
				cancel()
			}
			var end error
			batches := 0
			for b, err := range src.Batches(ctx, nil) {
				if end != nil {
					t.Fatal("the sequence goes on after an error")
				}
				if err != nil {
					end = err
					continue
				}
				b.Release()
				if batches++; batches == after {
					cancel()
				}
				if batches > after+64 {
					t.Fatalf("%d batches after the context has ended", batches-after)
				}
			}
			if end == nil && batches <= after && after == 0 {
				t.Fatal("the sequence ended without the context's error")
			}
			if end != nil && !errors.Is(end, context.Canceled) {
				t.Fatalf("the sequence ended with %v, want the context's error", end)
			}
		})
	}
}

// testCommit commits while a sequence runs, and after it.
func (s SourceTest) testCommit(t *testing.T) {
	src := s.open(t)
	marks := make(map[string]pipeline.Mark)
	commit := func() {
		var all []pipeline.Mark
		for _, m := range marks {
			all = append(all, m)
		}
		if err := src.Commit(t.Context(), all); err != nil {
			t.Fatalf("Commit(%v): %v", all, err)
		}
	}
	rows := int64(0)
	for b, err := range src.Batches(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		marks[b.Mark.Partition] = b.Mark
		rows += b.Rows()
		b.Release()
		commit()
		if s.MaxRows > 0 && rows >= s.MaxRows {
			break
		}
	}
	commit()
}
