package parquet_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
	"github.com/elbo-stream/elbo/sinks/parquet"
)

// written is what an owner leaves of 45 positions with dead letters, in files of at
// least 8 rows.
func written(t *testing.T) *pipelinetest.FS {
	t.Helper()
	fsys := pipelinetest.NewFS()
	if err := run(fsys, parquet.ExactConfig{RollRows: 8}, 1, 45, []string{"t/0", "t/10", "t/9", "other"}); err != nil {
		t.Fatal(err)
	}
	return fsys
}

// move gives a file another name.
func move(t *testing.T, fsys *pipelinetest.FS, from, to string) {
	t.Helper()
	b, err := fsys.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	fsys.Put(to, b)
	if err := fsys.Remove(from); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyWhole(t *testing.T) {
	fsys := written(t)
	before := fsys.Files()
	for _, deep := range []bool{false, true} {
		r, err := parquet.Verify(t.Context(), "out", parquet.VerifyOptions{Deep: deep, Dead: "out-dead", FS: fsys})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range r.Partitions {
			names = append(names, p.Partition)
			rows, letters := picked(0, 45, good).NumRows(), picked(0, 45, poison).NumRows()
			if p.First != 0 || p.Next != 45 || p.Rows != rows || p.LetterRows != letters || p.Schemas != 1 {
				t.Errorf("%+v, want 0 to 45 with %d rows and %d dead letters", p, rows, letters)
			}
		}
		if !slices.Equal(names, []string{"other", "t/0", "t/9", "t/10"}) || !r.Whole || len(r.Temporary) != 0 {
			t.Errorf("partitions %v, whole %t, faults %v, temporary %v", names, r.Whole, r.Faults(), r.Temporary)
		}
	}
	if r, err := parquet.Verify(t.Context(), "out-dead", parquet.VerifyOptions{FS: fsys}); err != nil || !r.Whole {
		t.Errorf("the dead letters alone: %+v, %v", r, err)
	}
	if open := fsys.Open(); len(open) > 0 || !slices.Equal(fsys.Files(), before) {
		t.Errorf("left open: %v; files before %v, after %v", open, before, fsys.Files())
	}
}

// TestVerifyFinds spoils each file in turn, in every way, and wants each found.
func TestVerifyFinds(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, fsys *pipelinetest.FS, path string)
		want  []string // kinds, sorted; those of the last file may be fewer
		deep  bool
	}{
		{"removed", func(t *testing.T, fsys *pipelinetest.FS, path string) {
			if err := fsys.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, []string{"gap", "letters"}, false},
		{"cut short", func(t *testing.T, fsys *pipelinetest.FS, path string) {
			b, _ := fsys.ReadFile(path)
			fsys.Put(path, b[:len(b)-1])
		}, []string{"gap", "unreadable"}, false},
		{"empty", func(t *testing.T, fsys *pipelinetest.FS, path string) { fsys.Put(path, nil) }, []string{"gap", "unreadable"}, false},
		{"a bit flipped", func(t *testing.T, fsys *pipelinetest.FS, path string) {
			b, _ := fsys.ReadFile(path)
			b[60] ^= 1
			fsys.Put(path, b)
		}, []string{"gap", "unreadable"}, true},
		{"there twice", func(t *testing.T, fsys *pipelinetest.FS, path string) {
			b, _ := fsys.ReadFile(path)
			fsys.Put(strings.Replace(path, "00.parquet", "01.parquet", 1), b)
			fsys.Put(strings.Replace(path, "0000", "0001", 1), b)
		}, []string{"name", "overlap"}, false},
		{"in another folder", func(t *testing.T, fsys *pipelinetest.FS, path string) {
			move(t, fsys, path, strings.Replace(path, "partition=", "partition=7", 1))
		}, []string{"name"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := written(t).Files()
			for i, path := range files {
				if !strings.HasPrefix(path, "out/") {
					continue
				}
				fsys := written(t)
				c.spoil(t, fsys, path)
				r, err := parquet.Verify(t.Context(), "out", parquet.VerifyOptions{Deep: c.deep, Dead: "out-dead", FS: fsys})
				if err != nil {
					t.Fatal(err)
				}
				last := i+1 == len(files) || filepath.Dir(files[i+1]) != filepath.Dir(path)
				if (r.Whole || len(r.Faults()) == 0) && !(last && c.name == "removed") {
					t.Errorf("%s: nothing was found", path)
				}
				for _, f := range r.Faults() {
					if !slices.Contains(c.want, f.Kind) {
						t.Errorf("%s: found %+v, want of %v", path, f, c.want)
					}
				}
			}
		})
	}
}

// TestVerifyCrashed: what is found after any crash is whole, but for drafts, among
// them dead letters that wait for the next run.
func TestVerifyCrashed(t *testing.T) {
	c := parquet.ExactConfig{RollRows: 8}
	drafts := 0
	for n := 1; ; n++ {
		fsys := pipelinetest.NewFS()
		fsys.CutAt(n)
		ended := run(fsys, c, 1, 45, []string{"t/0"})
		if fsys.Calls() < n {
			break
		}
		found := fsys.Crash(uint64(n))
		r, err := parquet.Verify(t.Context(), "out", parquet.VerifyOptions{Deep: true, Dead: "out-dead", FS: found})
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, parquet.ErrNoRanges) {
			continue
		}
		if err != nil || !r.Whole {
			t.Fatalf("cut at call %d (%v): %v, %+v", n, ended, err, r)
		}
		drafts += len(r.Temporary)
	}
	if drafts == 0 {
		t.Error("no crash left a draft")
	}
}

func TestVerifyNothing(t *testing.T) {
	fsys := pipelinetest.NewFS()
	if _, err := parquet.Verify(t.Context(), "out", parquet.VerifyOptions{FS: fsys}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	writeN(t, mustBind(t, fsys, parquet.Config{Path: "out"}), 1)
	_, err := parquet.Verify(t.Context(), "out", parquet.VerifyOptions{FS: fsys})
	if want := "out holds no files of an exactly-once Parquet sink (and 1 other Parquet files)"; !errors.Is(err, parquet.ErrNoRanges) || err.Error() != want {
		t.Errorf("a plain sink's folder: %v, want %q", err, want)
	}
	s := mustExact(t, fsys, parquet.ExactConfig{})
	s.must(s.put("t/0", 1, 0, 3))
	s.must(s.Flush(t.Context()))
	r, err := parquet.Verify(t.Context(), "out", parquet.VerifyOptions{FS: fsys})
	if err != nil || r.Whole || len(r.Other) != 1 || r.Other[0].Kind != parquet.FaultForeign {
		t.Errorf("a file of another sink: %+v, %v", r, err)
	}
}

func ExampleVerify() {
	fsys := pipelinetest.NewFS() // leave VerifyOptions.FS out for real files
	if err := run(fsys, parquet.ExactConfig{RollRows: 8}, 1, 45, []string{"payments/0"}); err != nil {
		fmt.Println(err)
		return
	}
	r, err := parquet.Verify(context.Background(), "out", parquet.VerifyOptions{FS: fsys})
	if err != nil {
		fmt.Println(err)
		return
	}
	p := r.Partitions[0]
	fmt.Println(r.Whole, p.Partition, p.First, p.Next, p.Rows)
	// Output: true payments/0 0 45 31
}
