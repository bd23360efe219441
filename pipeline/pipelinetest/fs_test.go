package pipelinetest_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// write makes a file and leaves it open.
func write(t *testing.T, fsys *pipelinetest.FS, path, text string) durable.File {
	t.Helper()
	f, err := fsys.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFSErrors(t *testing.T) {
	fsys := pipelinetest.NewFS()
	if err := fsys.MkdirAll("a/b"); err != nil {
		t.Fatal(err)
	}
	f := write(t, fsys, "a/x", "text")
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"create a file that is there", second(fsys.Create("a/x")), fs.ErrExist},
		{"create in no folder", second(fsys.Create("none/x")), fs.ErrNotExist},
		{"create a folder's name", second(fsys.Create("a/b")), fs.ErrExist},
		{"rename nothing", fsys.Rename("a/none", "a/y"), fs.ErrNotExist},
		{"rename onto a folder", fsys.Rename("a/x", "a/b"), fs.ErrExist},
		{"rename into no folder", fsys.Rename("a/x", "none/x"), fs.ErrNotExist},
		{"remove nothing", fsys.Remove("a/none"), fs.ErrNotExist},
		{"remove a full folder", fsys.Remove("a"), syscall.ENOTEMPTY},
		{"folder in a file", fsys.MkdirAll("a/x/y"), syscall.ENOTDIR},
		{"list nothing", second(fsys.ReadDir("none")), fs.ErrNotExist},
		{"sync no folder", fsys.SyncDir("none"), fs.ErrNotExist},
		{"read nothing", second(fsys.ReadFile("a/none")), fs.ErrNotExist},
		{"close", f.Close(), nil},
		{"close twice", f.Close(), fs.ErrClosed},
		{"write after close", second(f.Write(nil)), fs.ErrClosed},
		{"sync after close", f.Sync(), fs.ErrClosed},
		{"remove an empty folder", fsys.Remove("a/b"), nil},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.err, c.want)
		}
	}
	if names, err := fsys.ReadDir("a"); err != nil || !slices.Equal(names, []string{"x"}) {
		t.Errorf("ReadDir = %v, %v", names, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestFSFailures(t *testing.T) {
	fsys := pipelinetest.NewFS()
	boom := errors.New("boom")
	fsys.FailAt(2, boom)
	f := write(t, pipelinetest.NewFS(), "other", "") // counts elsewhere
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	g, err := fsys.Create("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Write([]byte("lost")); !errors.Is(err, boom) {
		t.Errorf("call 2: %v, want boom", err)
	}
	fsys.LimitSpace(3)
	if n, err := g.Write([]byte("12345")); n != 3 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Write on a full disk = %d, %v; want 3 and ENOSPC", n, err)
	}
	fsys.FailNext(boom)
	if err := g.Close(); !errors.Is(err, boom) || len(fsys.Open()) != 0 {
		t.Errorf("Close = %v with %v open; want boom, and the file closed", err, fsys.Open())
	}
	if data, _ := fsys.ReadFile("x"); string(data) != "123" {
		t.Errorf("the file holds %q, want 123", data)
	}
	fsys.CutAt(fsys.Calls() + 1)
	for range 2 {
		if err := fsys.Remove("x"); !errors.Is(err, pipelinetest.ErrCrash) {
			t.Errorf("Remove without power: %v", err)
		}
	}
	want := []string{"create x", "!write x 4", "write x 5", "!close x", "readfile x", "!remove x", "!remove x"}
	if got := fsys.Log(); !slices.Equal(got, want) {
		t.Errorf("log %q, want %q", got, want)
	}
}

// TestFSCrash checks what may be found after a loss of power, over many choices.
func TestFSCrash(t *testing.T) {
	fsys := pipelinetest.NewFS()
	fsys.Put("old", []byte("old"))
	f := write(t, fsys, "named", "safe")
	if err := errors.Join(f.Sync(), fsys.SyncDir(".")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("risk")); err != nil {
		t.Fatal(err)
	}
	g := write(t, fsys, "unnamed", "whole")
	if err := errors.Join(g.Sync(), g.Close(), fsys.Rename("unnamed", "old")); err != nil {
		t.Fatal(err)
	}
	saw := make(map[string]int)
	for seed := range uint64(200) {
		found := fsys.Crash(seed)
		for _, path := range found.Files() {
			data, err := found.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			saw[fmt.Sprintf("%s: %s", path, data)]++
		}
	}
	// Each of these is possible, and nothing else.
	want := []string{"named: safe", "named: safer", "named: saferi", "named: saferis", "named: saferisk", "old: old", "old: whole", "unnamed: whole"}
	var got []string
	for k := range saw {
		got = append(got, k)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if data, _ := fsys.ReadFile("old"); string(data) != "whole" {
		t.Errorf("the file system itself has changed: old holds %q", data)
	}
	if open := fsys.Open(); !slices.Equal(open, []string{"named"}) {
		t.Errorf("open files %v, want [named]", open)
	}
}

func TestFSConcurrent(t *testing.T) {
	fsys := pipelinetest.NewFS()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			path := fmt.Sprint("f", i)
			d, err := durable.Create(fsys, path, durable.Options{})
			if err == nil {
				_, err = d.Write([]byte(path))
			}
			if err == nil {
				err = d.Commit()
			}
			if err != nil {
				t.Error(err)
			}
			fsys.Crash(uint64(i))
		})
	}
	wg.Wait()
	if n := len(fsys.Files()); n != 8 || len(fsys.Open()) != 0 {
		t.Errorf("%d files, %v open; want 8 and none", n, fsys.Open())
	}
}

func ExampleFS() {
	fsys := pipelinetest.NewFS()
	fsys.LimitSpace(5)
	err := durable.WriteFile(fsys, "scores.csv", durable.Options{Tag: "1"}, write10)
	fmt.Println(err)
	fmt.Println("files:", fsys.Files(), "open:", fsys.Open())
	// Output:
	// write .scores.csv.tmp-1: no space left on device
	// files: [] open: []
}
