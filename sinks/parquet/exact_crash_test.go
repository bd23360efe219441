package parquet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/internal/parquetio"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
	"github.com/elbo-stream/elbo/sinks/parquet"
)

// A log is a partition of which every position is one of these.
const (
	hole   = iota // nothing, as a transaction's marker
	good          // a row
	poison        // a dead letter
)

func kindAt(position int) int {
	switch {
	case position%7 == 3:
		return hole
	case position%5 == 1:
		return poison
	}
	return good
}

// picked returns the record of the positions in [from, to) that are of a kind.
func picked(from, to, kind int) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := from; i < to; i++ {
		if kindAt(i) == kind {
			b.Field(0).AppendNull()
			b.Field(1).(*array.Int64Builder).Append(int64(i))
		}
	}
	return b.NewRecord()
}

// An owner copies logs of some length, in batches, through a sink of its own.
type owner struct {
	s     *parquet.ExactSink
	epoch int64
	n     uint64
	lost  map[string]int64 // partition to epoch that is over
	sizes *rand.Rand
}

func newOwner(fsys durable.FS, c parquet.ExactConfig, seed uint64) (*owner, error) {
	o := &owner{lost: make(map[string]int64), sizes: rand.New(rand.NewPCG(seed, 3)), epoch: int64(seed) * 1000}
	c.Path, c.FS, c.Stall, c.Compression = "out", fsys, -1, "none"
	c.OnLost = func(m pipeline.Mark) { o.lost[m.Partition] = m.Epoch }
	s, err := parquet.NewExact(c)
	if err != nil {
		return nil, err
	}
	o.s = s
	return o, errors.Join(s.Bind(schema), s.BindLetters(schema))
}

// copy copies partitions up to end, from where the sink stands, and begins one that
// it loses again. It flushes, but does not close.
func (o *owner) copy(end int, partitions ...string) error {
	next := make(map[string]int)
	epochs := make(map[string]int64)
	for left := partitions; len(left) > 0; {
		if err := o.assign(left, next, epochs); err != nil {
			return err
		}
		for slices.ContainsFunc(left, func(p string) bool { return next[p] < end && o.lost[p] != epochs[p] }) {
			for _, p := range left {
				if next[p] >= end || o.lost[p] == epochs[p] {
					continue
				}
				to := min(end, next[p]+1+o.sizes.IntN(6))
				if err := o.put(p, epochs[p], next[p], to); err != nil {
					return err
				}
				next[p] = to
			}
		}
		if err := o.s.Flush(context.Background()); err != nil {
			return err
		}
		if d := o.s.Durable(); d != o.n {
			return fmt.Errorf("after Flush %d batches are durable, want %d", d, o.n)
		}
		left = slices.DeleteFunc(slices.Clone(left), func(p string) bool { return o.lost[p] != epochs[p] })
	}
	return nil
}

func (o *owner) assign(partitions []string, next map[string]int, epochs map[string]int64) error {
	var marks []pipeline.Mark
	o.epoch++
	for _, p := range partitions {
		marks = append(marks, pipeline.Mark{Partition: p, Epoch: o.epoch})
		next[p], epochs[p] = 0, o.epoch
	}
	at, err := o.s.Position(context.Background(), marks)
	for _, m := range at {
		next[m.Partition] = int(m.Next)
	}
	return err
}

func (o *owner) put(partition string, epoch int64, from, to int) error {
	o.n++
	mark := pipeline.Mark{Partition: partition, Epoch: epoch, Next: int64(to)}
	if letters := picked(from, to, poison); letters.NumRows() > 0 {
		if err := o.s.WriteLetters(context.Background(), o.n, letters, mark); err != nil {
			return err
		}
	}
	return o.s.WriteBatch(context.Background(), o.n, picked(from, to, good), int64(from), mark)
}

// whole says what is wrong with the copies of partitions up to end: each row is
// there once, in order, and so is each dead letter; the ranges follow one another.
func whole(t *testing.T, fsys *pipelinetest.FS, end int, partitions ...string) error {
	rows, letters := rowsIn(t, fsys, "out"), rowsIn(t, fsys, "out-dead")
	for _, p := range partitions {
		next := int64(0)
		var gotRows, gotLetters []int64
		folder := parquet.PartitionFolder(p) + "/"
		for _, path := range fsys.Files() {
			name, ok := strings.CutPrefix(path, "out/"+folder)
			if !ok || strings.HasPrefix(name, ".") {
				continue
			}
			b, err := fsys.ReadFile(path)
			if err != nil {
				return err
			}
			f, err := parquetio.Open(bytes.NewReader(b), int64(len(b)), path)
			if err != nil {
				return err
			}
			r, err := parquet.ReadRange(f)
			if err != nil || r.First != next || name != parquet.RangeName(next) {
				return fmt.Errorf("%s holds %+v, %v, want it to begin at %d", path, r, err, next)
			}
			next = r.Next
			gotRows = append(gotRows, rows[path]...)
			beside := letters["out-dead/"+folder+name]
			if (r.Letters != "") != (beside != nil) {
				return fmt.Errorf("%s tells of letters %q, and beside it are %v", path, r.Letters, beside)
			}
			gotLetters = append(gotLetters, beside...)
			delete(letters, "out-dead/"+folder+name)
		}
		if next != int64(end) {
			return fmt.Errorf("partition %s ends at %d, want %d", p, next, end)
		}
		if want := int64s(picked(0, end, good), 1); !slices.Equal(gotRows, want) {
			return fmt.Errorf("partition %s has the rows %v, want %v", p, gotRows, want)
		}
		if want := int64s(picked(0, end, poison), 1); !slices.Equal(gotLetters, want) {
			return fmt.Errorf("partition %s has the dead letters %v, want %v", p, gotLetters, want)
		}
	}
	if len(letters) > 0 {
		return fmt.Errorf("dead letters without their rows: %v", letters)
	}
	return nil
}

var exactConfigs = []parquet.ExactConfig{
	{RollRows: 8, Sweep: 1},
	{RollRows: 8, GroupBytes: 1}, // drafts that are written to many times
	{RollRows: 12, MaxMemory: 1, Sweep: 1},
}

// TestExactCrash is F6: it cuts the power at each call of the file system, lets
// another run go on from what is found, cuts that one too, and lets a third one
// finish.
func TestExactCrash(t *testing.T) {
	const end = 31
	parts := []string{"t/0", "other"}
	for i, c := range exactConfigs {
		fsys := pipelinetest.NewFS()
		if err := run(fsys, c, 1, end, parts); err != nil {
			t.Fatal(err)
		}
		calls := fsys.Calls()
		if err := whole(t, fsys, end, parts...); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(uint64(i), 9))
		for n := range calls {
			for seed := range uint64(2) {
				fsys := pipelinetest.NewFS()
				fsys.CutAt(n + 1)
				if err := run(fsys, c, 1, end, parts); err == nil && !strings.HasPrefix(fsys.Log()[n], "!remove") {
					t.Fatalf("config %d: cut at call %d (%s): no error", i, n+1, fsys.Log()[n])
				}
				fsys = fsys.Crash(seed)
				second := 1 + rng.IntN(calls)
				fsys.CutAt(second)
				_ = run(fsys, c, 2, end, parts)
				fsys = fsys.Crash(seed + 7)
				err := run(fsys, c, 3, end, parts)
				if err == nil {
					err = whole(t, fsys, end, parts...)
				}
				if err != nil {
					t.Fatalf("config %d: cut at call %d, seed %d, then at call %d: %v", i, n+1, seed, second, err)
				}
			}
		}
		t.Logf("config %d: %d calls, each cut twice", i, calls)
	}
}

// TestExactFailure makes each call fail, without a crash: the run ends, or has got
// over it, and the next one completes what there is.
func TestExactFailure(t *testing.T) {
	const end = 45
	for i, c := range exactConfigs {
		for n := 1; ; n++ {
			fsys := pipelinetest.NewFS()
			fsys.FailAt(n, syscall.EIO)
			first := run(fsys, c, 1, end, []string{"t/0"})
			if n > fsys.Calls() {
				break
			}
			err := run(fsys, c, 2, end, []string{"t/0"})
			if err == nil {
				err = whole(t, fsys, end, "t/0")
			}
			if err != nil {
				t.Fatalf("config %d: call %d (%s) failed, so the run with %v: %v", i, n, fsys.Log()[n-1], first, err)
			}
			if open := fsys.Open(); len(open) > 0 {
				t.Fatalf("config %d: call %d failed: left open %v", i, n, open)
			}
		}
	}
}

// TestExactPositionIsDurable: a name that a dead run did not make durable is not
// relied upon before it is.
func TestExactPositionIsDurable(t *testing.T) {
	fsys := pipelinetest.NewFS()
	c := exactConfigs[0]
	if err := run(fsys, c, 1, 10, []string{"t/0"}); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(fsys.Log(), func(l string) bool { return strings.HasPrefix(l, "link ") })
	fsys = pipelinetest.NewFS()
	fsys.FailAt(i+2, syscall.EIO) // the sync of the folder
	if err := run(fsys, c, 1, 10, []string{"t/0"}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("the first run ended with %v", err)
	}
	if err := run(fsys, c, 2, 0, []string{"t/0"}); err != nil { // looks, writes nothing
		t.Fatal(err)
	}
	for seed := range uint64(20) {
		if left := rowsIn(t, fsys.Crash(seed), "out"); len(left) != 1 {
			t.Fatalf("a position was told, and after a crash there are %v", left)
		}
	}
}

// run is the life of one owner, up to its first error.
func run(fsys durable.FS, c parquet.ExactConfig, seed uint64, end int, partitions []string) error {
	o, err := newOwner(fsys, c, seed)
	if err != nil {
		return err
	}
	return errors.Join(o.copy(end, partitions...), o.s.Close())
}

// A hookedFS calls a function before one of the calls.
type hookedFS struct {
	*pipelinetest.FS
	at   int
	hook func()

	mu    sync.Mutex // two owners may share one
	calls int
}

func (f *hookedFS) call() {
	f.mu.Lock()
	f.calls++
	hit := f.calls == f.at
	f.mu.Unlock()
	if hit {
		f.hook()
	}
}

func (f *hookedFS) Create(path string) (durable.File, error) {
	f.call()
	h, err := f.FS.Create(path)
	return &hookedFile{h, f}, err
}
func (f *hookedFS) Rename(a, b string) error                 { f.call(); return f.FS.Rename(a, b) }
func (f *hookedFS) Link(a, b string) error                   { f.call(); return f.FS.Link(a, b) }
func (f *hookedFS) Same(a, b string) (bool, error)           { f.call(); return f.FS.Same(a, b) }
func (f *hookedFS) Remove(path string) error                 { f.call(); return f.FS.Remove(path) }
func (f *hookedFS) SyncDir(path string) error                { f.call(); return f.FS.SyncDir(path) }
func (f *hookedFS) ReadDir(path string) ([]string, error)    { f.call(); return f.FS.ReadDir(path) }
func (f *hookedFS) Exists(path string) (bool, error)         { f.call(); return f.FS.Exists(path) }
func (f *hookedFS) View(path string) (durable.Reader, error) { f.call(); return f.FS.View(path) }

type hookedFile struct {
	durable.File
	fs *hookedFS
}

func (h *hookedFile) Write(b []byte) (int, error) { h.fs.call(); return h.File.Write(b) }
func (h *hookedFile) Sync() error                 { h.fs.call(); return h.File.Sync() }
func (h *hookedFile) Close() error                { h.fs.call(); return h.File.Close() }

// TestExactTakeover lets another owner, which believes that the first one is gone,
// copy some or all of the rest in the middle of each call of the first. The first
// then goes on, as a process does that was stopped for a while.
func TestExactTakeover(t *testing.T) {
	const end = 45
	for i, c := range exactConfigs {
		probe := &hookedFS{FS: pipelinetest.NewFS()}
		if err := run(probe, c, 1, end, []string{"t/0"}); err != nil {
			t.Fatal(err)
		}
		lost := 0
		for n := range probe.calls {
			for _, part := range []int{20, 33, end} {
				fsys := &hookedFS{FS: pipelinetest.NewFS(), at: n + 1}
				var second error
				fsys.hook = func() { second = run(fsys.FS, c, 2, part, []string{"t/0"}) }
				o, err := newOwner(fsys, c, 1)
				if err == nil {
					err = errors.Join(o.copy(end, "t/0"), o.s.Close())
				}
				lost += len(o.lost)
				if err = errors.Join(err, second); err == nil {
					err = run(fsys.FS, c, 3, end, []string{"t/0"}) // gives letters their names
				}
				if err == nil {
					err = whole(t, fsys.FS, end, "t/0")
				}
				if err != nil {
					t.Fatalf("config %d: take-over up to %d at call %d (%s): %v", i, part, n+1, fsys.Log()[min(n, len(fsys.Log())-1)], err)
				}
			}
		}
		if lost == 0 {
			t.Errorf("config %d: nobody ever lost a link", i)
		}
		t.Logf("config %d: %d take-overs, %d lost", i, 3*probe.calls, lost)
	}
}

// TestExactFence gives the partition a new epoch in the middle of each call of the
// one before, in the same sink.
func TestExactFence(t *testing.T) {
	const end = 30
	c := parquet.ExactConfig{RollRows: 8, GroupBytes: 1}
	probe := &hookedFS{FS: pipelinetest.NewFS()}
	if err := run(probe, c, 1, end, []string{"t/0"}); err != nil {
		t.Fatal(err)
	}
	for n := range probe.calls {
		fsys := &hookedFS{FS: pipelinetest.NewFS(), at: n + 1}
		o, err := newOwner(fsys, c, 1)
		if err != nil {
			t.Fatal(err)
		}
		type answer struct {
			marks []pipeline.Mark
			err   error
		}
		placed := make(chan answer, 1)
		met := false
		fsys.hook = func() {
			met = true
			go func() {
				marks, err := o.s.Position(context.Background(), []pipeline.Mark{{Partition: "t/0", Epoch: 5000}})
				placed <- answer{marks, err}
			}()
			select { // it waits for a link that is under way
			case a := <-placed:
				placed <- a
			case <-time.After(2 * time.Millisecond):
			}
		}
		if err := o.copy(end, "t/0"); err != nil {
			t.Fatal(err)
		}
		if !met {
			continue
		}
		a := <-placed
		if a.err != nil {
			t.Fatal(a.err)
		}
		from := 0
		for _, m := range a.marks {
			from = int(m.Next)
		}
		err = o.put("t/0", 5000, from, end)
		err = errors.Join(err, o.s.Flush(context.Background()), o.s.Close())
		if err == nil {
			err = whole(t, fsys.FS, end, "t/0")
		}
		if err != nil {
			t.Fatalf("a new epoch at call %d: %v", n+1, err)
		}
	}
}

// TestExactMany runs owners that crash, are stopped and go on, at random.
func TestExactMany(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fsys := pipelinetest.NewFS()
		parts := []string{"t/0", "t/1"}
		end := rapid.IntRange(1, 60).Draw(rt, "end")
		c := parquet.ExactConfig{RollRows: int64(rapid.IntRange(1, 30).Draw(rt, "roll")), Sweep: 1,
			MaxMemory: int64(rapid.SampledFrom([]int{1, 10_000, 0}).Draw(rt, "memory"))}
		for seed := range rapid.IntRange(1, 6).Draw(rt, "runs") {
			if rapid.Bool().Draw(rt, "crash") {
				fsys.CutAt(fsys.Calls() + rapid.IntRange(1, 150).Draw(rt, "cut"))
				_ = run(fsys, c, uint64(seed+1), rapid.IntRange(0, end).Draw(rt, "to"), parts)
				fsys = fsys.Crash(rapid.Uint64().Draw(rt, "luck"))
				continue
			}
			hooked := &hookedFS{FS: fsys, at: rapid.IntRange(1, 80).Draw(rt, "stopped")}
			hooked.hook = func() { _ = run(fsys, c, uint64(seed+50), rapid.IntRange(0, end).Draw(rt, "other"), parts) }
			if err := run(hooked, c, uint64(seed+1), rapid.IntRange(0, end).Draw(rt, "to"), parts); err != nil {
				rt.Fatal(err)
			}
		}
		if err := run(fsys, c, 100, end, parts); err != nil {
			rt.Fatal(err)
		}
		if err := whole(t, fsys, end, parts...); err != nil {
			rt.Fatal(err)
		}
	})
}
