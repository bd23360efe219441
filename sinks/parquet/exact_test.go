package parquet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/internal/parquetio"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
	"github.com/elbo-stream/elbo/sinks/parquet"
)

// marked is record(from, rows) at these positions of a partition.
func marked(partition string, from, rows int) pipelinetest.MarkedBatch {
	return pipelinetest.MarkedBatch{Record: record(from, rows), First: int64(from),
		Mark: pipeline.Mark{Partition: partition, Epoch: 1, Next: int64(from + rows)}}
}

func TestExactConformance(t *testing.T) {
	inputs := []pipelinetest.MarkedBatch{marked("z", 20, 3), marked("pay/0", 0, 5), marked("pay/0", 5, 1),
		marked("pay/1", 0, 7), marked("pay/1", 7, 4)}
	for _, c := range []struct {
		name string
		conf parquet.ExactConfig
	}{
		{"at the end", parquet.ExactConfig{}},
		{"rolled by rows", parquet.ExactConfig{RollRows: 6}},
		{"row groups of one batch", parquet.ExactConfig{GroupBytes: 1}},
		{"no memory", parquet.ExactConfig{MaxMemory: 1, RollRows: 8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pipelinetest.MarkWriter(t, pipelinetest.MarkWriterTest{
				New: func(_ *testing.T, fsys *pipelinetest.FS) (pipeline.MarkWriter, error) {
					conf := c.conf
					conf.Path, conf.FS, conf.Stall, conf.Compression = "out", fsys, -1, "none"
					return parquet.NewExact(conf)
				},
				Inputs: inputs, Read: found,
			})
		})
	}
}

// An exactRun is a bound sink in use.
type exactRun struct {
	*parquet.ExactSink
	t *testing.T
	n uint64
}

func mustExact(t *testing.T, fsys durable.FS, c parquet.ExactConfig) *exactRun {
	t.Helper()
	c.FS = fsys
	if c.Path == "" {
		c.Path = "out"
	}
	s, err := parquet.NewExact(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Bind(schema), s.BindLetters(schema)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &exactRun{ExactSink: s, t: t}
}

// put writes rows [from, to) of a partition whose values are their positions.
func (r *exactRun) put(partition string, epoch int64, from, to int) error {
	rec := record(from, to-from)
	defer rec.Release()
	return r.putRecord(rec, pipeline.Mark{Partition: partition, Epoch: epoch, Next: int64(to)}, from)
}

func (r *exactRun) putRecord(rec arrow.Record, mark pipeline.Mark, from int) error {
	r.n++
	return r.WriteBatch(context.Background(), r.n, rec, int64(from), mark)
}

func (r *exactRun) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// resume asks for the position of one partition under an epoch; -1 for none.
func (r *exactRun) resume(partition string, epoch int64) int64 {
	r.t.Helper()
	marks, err := r.Position(context.Background(), []pipeline.Mark{{Partition: partition, Epoch: epoch}})
	r.must(err)
	if len(marks) == 0 {
		return -1
	}
	if m := marks[0]; m.Partition != partition || m.Epoch != epoch {
		r.t.Fatalf("the position is %v, want one of %s and epoch %d", m, partition, epoch)
	}
	return marks[0].Next
}

// rowsIn reads column "a" of every file below a folder, by path.
func rowsIn(t *testing.T, fsys *pipelinetest.FS, root string) map[string][]int64 {
	t.Helper()
	files := make(map[string][]int64)
	for _, path := range fsys.Files() {
		if strings.HasPrefix(filepath.Base(path), ".") || !strings.HasPrefix(path, root+"/") {
			continue
		}
		b, err := fsys.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = columnA(t, b)
	}
	return files
}

func columnA(t *testing.T, b []byte) []int64 {
	t.Helper()
	rows := []int64{}
	for _, rec := range readAll(t, b) {
		rows = append(rows, int64s(rec, 1)...)
		rec.Release()
	}
	return rows
}

func between(from, to int64) []int64 {
	rows := []int64{}
	for i := from; i < to; i++ {
		rows = append(rows, i)
	}
	return rows
}

func wantFiles(t *testing.T, got map[string][]int64, want map[string][]int64) {
	t.Helper()
	for path, rows := range want {
		if !slices.Equal(got[path], rows) {
			t.Errorf("%s holds %s, want %s", path, short(got[path]), short(rows))
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s is there, with %s", path, short(got[path]))
		}
	}
}

func short(rows []int64) string { return fmt.Sprintf("%d rows %.80s", len(rows), fmt.Sprint(rows)) }

const name0, name10, name20 = "00000000000000000000.parquet", "00000000000000000010.parquet", "00000000000000000020.parquet"

func TestExactFiles(t *testing.T) {
	fsys := pipelinetest.NewFS()
	s := mustExact(t, fsys, parquet.ExactConfig{RollRows: 10, Metadata: map[string]string{"elbo.model": "m@1"},
		Now: func() time.Time { return time.Unix(0, 0) }})
	for from := 0; from < 30; from += 5 {
		s.must(s.put("pay/3", 4, from, from+5))
		s.must(s.put("/data/day.parquet", 9, from, from+5))
	}
	if got := s.Durable(); got != 12 {
		t.Errorf("Durable() = %d, want 12", got)
	}
	want := make(map[string][]int64)
	for _, dir := range []string{"out/pay/partition=3/", "out/partition=%2Fdata%2Fday.parquet/"} {
		want[dir+name0], want[dir+name10], want[dir+name20] = between(0, 10), between(10, 20), between(20, 30)
	}
	wantFiles(t, rowsIn(t, fsys, "out"), want)

	b, err := fsys.ReadFile("out/pay/partition=3/" + name10)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parquetio.Open(bytes.NewReader(b), int64(len(b)), "f")
	if err != nil {
		t.Fatal(err)
	}
	r, err := parquet.ReadRange(f)
	wantRange := parquet.Range{Partition: "pay/3", First: 10, Next: 20, Epoch: 4, Rows: 10, Schema: r.Schema, Kind: "rows"}
	if err != nil || r != wantRange || len(r.Schema) != 16 || f.Metadata()["elbo.model"] != "m@1" || f.Metadata()[parquet.MetaWritten] != "1970-01-01T00:00:00Z" {
		t.Errorf("ReadRange = %+v, %v, want %+v; all of the footer: %v", r, err, wantRange, f.Metadata())
	}
	marks, err := mustExact(t, fsys, parquet.ExactConfig{}).Position(t.Context(), nil)
	if err != nil || !slices.Equal(marks, []pipeline.Mark{{Partition: "/data/day.parquet", Epoch: 9, Next: 30}, {Partition: "pay/3", Epoch: 4, Next: 30}}) {
		t.Errorf("Position = %v, %v", marks, err)
	}
	if left := fsys.Temporaries(); len(left) > 0 {
		t.Errorf("drafts are left: %v", left)
	}
}

// TestExactDurableAcrossPartitions: the sink says no more than what is safe of all
// partitions, in the order of the batches.
func TestExactDurableAcrossPartitions(t *testing.T) {
	s := mustExact(t, pipelinetest.NewFS(), parquet.ExactConfig{RollRows: 10})
	s.must(s.put("t/0", 1, 0, 4))  // 1
	s.must(s.put("t/1", 1, 0, 10)) // 2, published
	s.must(s.put("t/1", 1, 10, 14))
	if got := s.Durable(); got != 0 {
		t.Errorf("Durable() = %d, want 0: batch 1 is in memory", got)
	}
	raised := 0
	s.Notify(func() { raised++ })
	s.must(s.Seal(t.Context(), pipeline.Mark{Partition: "t/0", Epoch: 2, Next: 4}))
	if got := s.Durable(); got != 0 {
		t.Errorf("after Seal of another epoch Durable() = %d, want 0", got)
	}
	s.must(s.Seal(t.Context(), pipeline.Mark{Partition: "t/0", Epoch: 1, Next: 4}))
	if got := s.Durable(); got != 2 || raised == 0 {
		t.Errorf("after Seal Durable() = %d, want 2; raised was called %d times", got, raised)
	}
	s.must(s.Flush(t.Context()))
	if got := s.Durable(); got != 3 {
		t.Errorf("after Flush Durable() = %d, want 3", got)
	}
}

// TestExactHolesAndGaps: a batch without rows moves the end on, holes inside of a
// range are of no matter, and a range that nobody has read is left out.
func TestExactHolesAndGaps(t *testing.T) {
	fsys := pipelinetest.NewFS()
	s := mustExact(t, fsys, parquet.ExactConfig{})
	none := record(0, 0)
	s.must(s.putRecord(none, pipeline.Mark{Partition: "t/0", Epoch: 1, Next: 10}, 0))
	s.must(s.putRecord(none, pipeline.Mark{Partition: "t/0", Epoch: 1, Next: 10}, 10)) // nothing at all
	few := record(15, 2)
	s.must(s.putRecord(few, pipeline.Mark{Partition: "t/0", Epoch: 1, Next: 20}, 10))
	s.must(s.put("t/0", 1, 500, 510))
	s.must(s.putRecord(none, pipeline.Mark{Partition: "t/1", Epoch: 1, Next: 10}, 0))
	s.must(s.Flush(t.Context()))
	wantFiles(t, rowsIn(t, fsys, "out"), map[string][]int64{
		"out/t/partition=0/" + name0:                     {15, 16},
		"out/t/partition=0/00000000000000000500.parquet": between(500, 510),
		"out/t/partition=1/" + name0:                     {},
	})
	if got := s.resume("t/0", 2); got != 510 {
		t.Errorf("the position is %d, want 510", got)
	}
	if got := s.resume("t/1", 2); got != 10 {
		t.Errorf("the position without rows is %d, want 10", got)
	}
	if err := s.put("t/0", 2, 505, 511); err == nil || !strings.Contains(err.Error(), "out holds the partition up to 510") {
		t.Errorf("rows that are there already: %v", err)
	}
	if err := s.Flush(t.Context()); err == nil {
		t.Error("the error was forgotten")
	}
}

func TestExactEpochs(t *testing.T) {
	fsys := pipelinetest.NewFS()
	s := mustExact(t, fsys, parquet.ExactConfig{GroupBytes: 1})
	if got := s.resume("t/0", 1); got != -1 {
		t.Errorf("the position of nothing is %d", got)
	}
	s.must(s.put("t/0", 1, 0, 10))
	s.must(s.put("t/1", 1, 0, 10))
	if len(fsys.Temporaries()) != 2 {
		t.Fatalf("the test wants drafts: %v", fsys.Files())
	}
	if got := s.resume("t/0", 3); got != -1 {
		t.Errorf("the position is %d, want none", got)
	}
	if got := s.Durable(); got != 1 {
		t.Errorf("Durable() = %d, want 1: the rows of batch 1 are of an epoch that is over", got)
	}
	s.must(s.put("t/0", 1, 10, 20)) // still on its way
	s.must(s.put("t/0", 2, 10, 20))
	s.must(s.put("t/0", 3, 0, 5))
	s.must(s.Flush(t.Context()))
	wantFiles(t, rowsIn(t, fsys, "out"), map[string][]int64{
		"out/t/partition=0/" + name0: between(0, 5), "out/t/partition=1/" + name0: between(0, 10)})
	if left := fsys.Temporaries(); len(left) > 0 || s.Durable() != 5 {
		t.Errorf("left %v, Durable() = %d, want 5", left, s.Durable())
	}
}

// TestExactLost has two owners publish the same range.
func TestExactLost(t *testing.T) {
	for _, c := range []struct {
		name string
		at   func(s *exactRun) error // what finds out
		conf parquet.ExactConfig
	}{
		{"flush", func(s *exactRun) error { return s.Flush(context.Background()) }, parquet.ExactConfig{}},
		{"row group", func(s *exactRun) error { return s.put("t/0", 1, 10, 20) }, parquet.ExactConfig{GroupBytes: 200}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys := pipelinetest.NewFS()
			var lost []pipeline.Mark
			c.conf.OnLost = func(m pipeline.Mark) { lost = append(lost, m) }
			zombie, owner := mustExact(t, fsys, c.conf), mustExact(t, fsys, parquet.ExactConfig{})
			zombie.must(zombie.put("t/0", 1, 0, 10))
			owner.must(owner.put("t/0", 7, 0, 15))
			owner.must(owner.Flush(t.Context()))
			zombie.must(c.at(zombie))
			zombie.must(zombie.put("t/0", 1, int(10*zombie.n), int(10*zombie.n+10)))
			zombie.must(zombie.Flush(t.Context()))
			if !slices.Equal(lost, []pipeline.Mark{{Partition: "t/0", Epoch: 1, Next: 0}}) || zombie.Durable() != zombie.n {
				t.Errorf("OnLost was told %v; Durable() = %d, want %d", lost, zombie.Durable(), zombie.n)
			}
			if got := zombie.resume("t/0", 2); got != 15 {
				t.Errorf("the position is %d, want 15", got)
			}
			zombie.must(zombie.put("t/0", 2, 15, 20))
			zombie.must(zombie.Flush(t.Context()))
			wantFiles(t, rowsIn(t, fsys, "out"), map[string][]int64{
				"out/t/partition=0/" + name0: between(0, 15), "out/t/partition=0/00000000000000000015.parquet": between(15, 20)})
			if left := fsys.Temporaries(); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

// A lostSource is a source that begins partitions again.
type lostSource struct {
	pipeline.Source
	told []string
}

func (s *lostSource) Lost(partition string, epoch int64) {
	s.told = append(s.told, fmt.Sprint(partition, " ", epoch))
}

func TestExactLostTellsSource(t *testing.T) {
	for _, attached := range []bool{true, false} {
		fsys := pipelinetest.NewFS()
		s, other := mustExact(t, fsys, parquet.ExactConfig{}), mustExact(t, fsys, parquet.ExactConfig{})
		src := &lostSource{}
		if attached {
			s.must(s.Attach(src))
		} else {
			s.must(s.Attach(pipelinetest.NewTopic(schema).Open(pipelinetest.SourceOptions{})))
		}
		s.must(s.put("t/0", 1, 0, 10))
		other.must(other.put("t/0", 1, 0, 10))
		other.must(other.Flush(t.Context()))
		err := s.Flush(t.Context())
		var lost *parquet.LostError
		switch {
		case attached && (err != nil || !slices.Equal(src.told, []string{"t/0 1"})):
			t.Errorf("Flush = %v, the source was told %v", err, src.told)
		case !attached && (!errors.As(err, &lost) || *lost != parquet.LostError{Partition: "t/0", First: 0, Next: 10, Path: "out/t/partition=0/" + name0}):
			t.Errorf("Flush = %v, want a LostError", err)
		}
	}
}

// TestExactSwept: an owner whose draft was swept away publishes nothing.
func TestExactSwept(t *testing.T) {
	fsys := pipelinetest.NewFS()
	now := time.Unix(1e6, 0)
	clock := func() time.Time { return now }
	fsys.SetClock(clock)
	var lost []pipeline.Mark
	slow := mustExact(t, fsys, parquet.ExactConfig{GroupBytes: 1, RollAge: time.Hour, Now: clock, OnLost: func(m pipeline.Mark) { lost = append(lost, m) }})
	slow.must(slow.put("t/0", 1, 0, 10))
	other := mustExact(t, fsys, parquet.ExactConfig{Now: clock})
	now = now.Add(9 * time.Minute)
	other.resume("t/0", 2)
	if len(fsys.Temporaries()) != 1 {
		t.Fatal("a draft was swept too early")
	}
	now = now.Add(2 * time.Minute)
	other.resume("t/0", 2)
	if len(fsys.Temporaries()) != 0 {
		t.Fatal("an old draft was not swept")
	}
	slow.must(slow.Flush(t.Context()))
	if len(lost) != 1 || len(fsys.Files()) != 0 {
		t.Errorf("lost %v, files %v", lost, fsys.Files())
	}
}

func TestExactBrokenChain(t *testing.T) {
	make := func(t *testing.T) *pipelinetest.FS {
		fsys := pipelinetest.NewFS()
		s := mustExact(t, fsys, parquet.ExactConfig{RollRows: 10})
		s.must(s.put("t/0", 1, 0, 10))
		s.must(s.put("t/0", 1, 10, 20))
		return fsys
	}
	const dir = "out/t/partition=0/"
	for _, c := range []struct {
		name  string
		spoil func(fsys *pipelinetest.FS)
		want  string
	}{
		{"cut short", func(fsys *pipelinetest.FS) {
			b, _ := fsys.ReadFile(dir + name10)
			fsys.Put(dir+name10, b[:len(b)-7])
		}, name10 + ": " + dir + name10 + ": not a Parquet file"},
		{"other name", func(fsys *pipelinetest.FS) {
			b, _ := fsys.ReadFile(dir + name10)
			fsys.Put(dir+"00000000000000000012.parquet", b)
		}, "its name begins at 12, its footer at 10"},
		{"overlap", func(fsys *pipelinetest.FS) {
			own := pipelinetest.NewFS()
			s := mustExact(t, own, parquet.ExactConfig{})
			s.must(s.put("t/0", 1, 15, 25))
			s.must(s.Flush(t.Context()))
			b, _ := own.ReadFile(dir + "00000000000000000015.parquet")
			fsys.Put(dir+"00000000000000000015.parquet", b)
		}, "it begins at 15, inside of the file before it, which ends at 20"},
		{"other partition", func(fsys *pipelinetest.FS) {
			b, _ := fsys.ReadFile(dir + name0)
			fsys.Put("out/t/partition=9/"+name0, b)
		}, `it is of partition "t/0"`},
		{"other program", func(fsys *pipelinetest.FS) {
			s := mustBind(t, fsys, parquet.Config{Path: dir + "00000000000000000020.parquet"})
			writeN(t, s, 1)
		}, "its footer has no elbo.partition"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys := make(t)
			c.spoil(fsys)
			_, err := mustExact(t, fsys, parquet.ExactConfig{}).Position(t.Context(), nil)
			var chain *parquet.ChainError
			if !errors.As(err, &chain) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Position: %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestExactAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := pipelinetest.NewFS()
		s := mustExact(t, fsys, parquet.ExactConfig{RollAge: time.Minute})
		s.must(s.put("t/0", 1, 0, 10))
		time.Sleep(30 * time.Second)
		s.must(s.put("t/1", 1, 0, 10))
		if s.Durable() != 0 {
			t.Errorf("Durable() = %d, want 0", s.Durable())
		}
		time.Sleep(32 * time.Second)
		if s.Durable() != 1 {
			t.Errorf("after a minute Durable() = %d, want 1", s.Durable())
		}
		time.Sleep(30 * time.Second)
		if s.Durable() != 2 {
			t.Errorf("after more than a minute Durable() = %d, want 2", s.Durable())
		}
		n := fsys.Calls()
		time.Sleep(time.Hour)
		if fsys.Calls() != n {
			t.Errorf("without rows there were %v", fsys.Log()[n:])
		}
		fsys.FailNext(syscall.EIO)
		s.must(s.put("t/0", 1, 10, 20))
		time.Sleep(62 * time.Second)
		if err := s.Err(); !errors.Is(err, syscall.EIO) {
			t.Errorf("after a failure of the timer Err() = %v", err)
		}
		s.must(s.Close())
	})
}

// TestExactDiskFull is F11: writing waits while the disk is full, holds no more
// than it did, and nothing is lost or doubled when there is room again.
func TestExactDiskFull(t *testing.T) {
	for _, grouped := range []int64{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			fsys := pipelinetest.NewFS()
			s := mustExact(t, fsys, parquet.ExactConfig{RollRows: 1000, RollAge: 10 * time.Hour, GroupBytes: grouped, Stall: time.Hour})
			fsys.LimitSpace(20_000)
			done := make(chan error)
			wrote := 0
			go func() {
				for from := 0; from < 10_000; from += 100 {
					if err := s.put("t/0", 1, from, from+100); err != nil {
						done <- err
						return
					}
					wrote = from
				}
				done <- s.Flush(context.Background())
			}()
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			stuck := wrote
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if wrote != stuck || stuck > 9000 {
				t.Errorf("on a full disk %d and then %d rows were taken", stuck, wrote)
			}
			fsys.LimitSpace(-1)
			s.must(<-done)
			want := make(map[string][]int64)
			for from := int64(0); from < 10_000; from += 1000 {
				want["out/t/partition=0/"+parquet.RangeName(from)] = between(from, from+1000)
			}
			wantFiles(t, rowsIn(t, fsys, "out"), want)
			s.must(s.Close())
		})
	}
}

// TestExactStallEnds: a disk that stays full ends the run; the next one, with
// room, has every row once.
func TestExactStallEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := pipelinetest.NewFS()
		s := mustExact(t, fsys, parquet.ExactConfig{RollRows: 10, Stall: time.Minute})
		s.must(s.put("t/0", 1, 0, 10))
		fsys.LimitSpace(100)
		began := time.Now()
		err := s.put("t/0", 1, 10, 20)
		if waited := time.Since(began); !errors.Is(err, syscall.ENOSPC) || waited < time.Minute || waited > 2*time.Minute ||
			!strings.Contains(err.Error(), "free some space or write elsewhere; 1 batches are safe") {
			t.Errorf("after %v: %v", waited, err)
		}
		s.must(s.Close())
		if left := fsys.Temporaries(); len(left) > 0 {
			t.Errorf("left %v", left)
		}
		fsys.LimitSpace(-1)
		s = mustExact(t, fsys, parquet.ExactConfig{})
		if got := s.resume("t/0", 1); got != 10 {
			t.Errorf("the position is %d, want 10", got)
		}
		s.must(s.Close())
	})
}

// TestExactStallYields: neither a run that is quit nor a new owner waits for the
// disk.
func TestExactStallYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := pipelinetest.NewFS()
		s := mustExact(t, fsys, parquet.ExactConfig{RollRows: 10, Stall: time.Hour})
		fsys.LimitSpace(100)
		done := make(chan error)
		go func() { done <- s.put("t/0", 1, 0, 10) }()
		time.Sleep(time.Minute)
		began := time.Now()
		if got := s.resume("t/0", 2); got != -1 || time.Since(began) != 0 || s.Durable() != 1 {
			t.Errorf("the position is %d after %v; Durable() = %d", got, time.Since(began), s.Durable())
		}
		s.must(<-done)
		if len(fsys.Files()) != 0 {
			t.Errorf("files %v", fsys.Files())
		}
		ctx, cancel := context.WithCancel(t.Context())
		rec := record(0, 10)
		go func() { done <- s.WriteBatch(ctx, 2, rec, 0, pipeline.Mark{Partition: "t/0", Epoch: 2, Next: 10}) }()
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("WriteBatch = %v", err)
		}
		s.must(s.Close())
	})
}

// TestExactSyncFails: a sync that fails for want of space has lost what was
// written, so the file is written anew.
func TestExactSyncFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, e := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT} {
			fsys := pipelinetest.NewFS()
			s := mustExact(t, fsys, parquet.ExactConfig{RollRows: 10})
			probe := mustExact(t, pipelinetest.NewFS(), parquet.ExactConfig{RollRows: 10})
			probe.must(probe.put("t/0", 1, 0, 10))
			log := probe.FS().Log()
			fsys.FailAt(1+slices.IndexFunc(log, func(l string) bool { return strings.HasPrefix(l, "sync ") }), e)
			s.must(s.put("t/0", 1, 0, 10))
			wantFiles(t, rowsIn(t, fsys, "out"), map[string][]int64{"out/t/partition=0/" + name0: between(0, 10)})
			s.must(errors.Join(s.Close(), probe.Close()))
		}
	})
}

func TestExactMemory(t *testing.T) {
	fsys := pipelinetest.NewFS()
	s := mustExact(t, fsys, parquet.ExactConfig{MaxMemory: 1 << 20})
	var most int64
	for from := 0; from < 20_000; from += 100 {
		for p := range 20 {
			s.must(s.put(fmt.Sprint("t/", p), 1, from, from+100))
			most = max(most, s.Memory())
		}
	}
	if most > 1<<20 || most < 1<<19 {
		t.Errorf("the sink held up to %d bytes, want at most %d and not far from it", most, 1<<20)
	}
	s.must(s.Flush(t.Context()))
	if s.Memory() != 0 {
		t.Errorf("after Flush it holds %d bytes", s.Memory())
	}
	files := rowsIn(t, fsys, "out")
	if len(files) != 20 {
		t.Errorf("%d files, want 20: the bound makes row groups, not files", len(files))
	}
	for path, rows := range files {
		if !slices.Equal(rows, between(0, 20_000)) {
			t.Errorf("%s holds %d rows", path, len(rows))
		}
	}
}

func TestExactRefuses(t *testing.T) {
	_, err := parquet.NewExact(parquet.ExactConfig{Compression: "brotli", RollRows: -1, RollAge: -1, Dead: "a/b/c"})
	for _, want := range []string{"path: must be set", `compression "brotli" is not supported`, "roll rows: -1 is negative", "roll age: -1 is negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewExact: %v, want %q in it", err, want)
		}
	}
	for _, dead := range []string{"a/b", "a/b/c", "./a/b/"} {
		if _, err := parquet.NewExact(parquet.ExactConfig{Path: "a/b", Dead: dead}); err == nil || !strings.Contains(err.Error(), "name a folder of its own") {
			t.Errorf("Dead %s: %v", dead, err)
		}
	}
	for _, dead := range []string{"", "a/bc", "a", "/x"} {
		if _, err := parquet.NewExact(parquet.ExactConfig{Path: "a/b", Dead: dead}); err != nil {
			t.Errorf("Dead %s: %v", dead, err)
		}
	}
	s := mustExact(t, pipelinetest.NewFS(), parquet.ExactConfig{})
	if err := s.Write(t.Context(), 1, record(0, 1)); err == nil {
		t.Error("Write passes")
	}
	if err := s.WriteBatch(t.Context(), 2, record(0, 1), 0, pipeline.Mark{Next: 1}); err == nil || !strings.Contains(err.Error(), "batch 2 after batch 0") {
		t.Errorf("a batch was left out: %v", err)
	}
}

func TestPartitionFolder(t *testing.T) {
	long := strings.Repeat("é", 100)
	for partition, want := range map[string]string{
		"payments/3":       "payments/partition=3",
		"a.b-c_D/0":        "a.b-c_D/partition=0",
		"__offsets/49":     "%5F_offsets/partition=49",
		".hidden/1":        "%2Ehidden/partition=1",
		"pay/03":           "partition=pay%2F03",
		"pay/-1":           "partition=pay%2F-1",
		"a/b/3":            "partition=a%2Fb%2F3",
		"/3":               "partition=%2F3",
		"pay/2147483648":   "partition=pay%2F2147483648",
		"generate-0":       "partition=generate-0",
		"../../etc/passwd": "partition=..%2F..%2Fetc%2Fpasswd",
		"..":               "partition=..",
		"../3":             "%2E./partition=3",
		"":                 "partition=",
		"50%~":             "partition=50%25%7E",
	} {
		if got := parquet.PartitionFolder(partition); got != want {
			t.Errorf("PartitionFolder(%q) = %q, want %q", partition, got, want)
		}
	}
	a, b := parquet.PartitionFolder(long+"a"), parquet.PartitionFolder(long+"b")
	if a == b || len(a) > 220 || !strings.HasPrefix(a, "partition=%C3%A9") {
		t.Errorf("long names become %q and %q", a, b)
	}
}

func TestRangeNames(t *testing.T) {
	for _, n := range []int64{0, 7, 1 << 62} {
		if got, ok := parquet.ParseRangeName(parquet.RangeName(n)); !ok || got != n {
			t.Errorf("ParseRangeName(RangeName(%d)) = %d, %t", n, got, ok)
		}
	}
	for _, name := range []string{"7.parquet", "part-000000.parquet", "-0000000000000000007.parquet", "99999999999999999999.parquet", name0 + "x", "+0000000000000000007.parquet"} {
		if n, ok := parquet.ParseRangeName(name); ok {
			t.Errorf("ParseRangeName(%q) = %d", name, n)
		}
	}
}

// int64s returns the values of an int64 column.
func int64s(rec arrow.Record, col int) []int64 {
	return rec.Column(col).(*array.Int64).Int64Values()
}
