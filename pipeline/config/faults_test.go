package config_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elbo-stream/elbo/pipeline/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var (
	errPermission = fs.ErrPermission
	errNotExist   = fs.ErrNotExist
)

// faultsOf reads and, where that succeeds, builds a file.
func faultsOf(data []byte) config.Faults {
	var closed int
	p, faults := config.Parse("elbo.yaml", data, registry(&closed), options())
	if len(faults) > 0 {
		return faults
	}
	_, faults = p.Build(context.Background(), config.Env{})
	return faults
}

// TestFaults holds the messages for wrong files: testdata/faults/NAME.yaml has
// those of NAME.txt.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d wrong files, want at least 50 (%v)", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			faults := faultsOf(data)
			if len(faults) == 0 {
				t.Fatal("the file has no fault")
			}
			if !sort.SliceIsSorted(faults, func(i, j int) bool { return faults[i].Line < faults[j].Line }) {
				t.Error("the faults are not sorted by line")
			}
			got := faults.Error() + "\n"
			if strings.Contains(got, "hunter2") {
				t.Errorf("a secret is printed:\n%s", got)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", []byte(got))
		})
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", file, diff)
	}
}

func TestTooLarge(t *testing.T) {
	faults := faultsOf(bytes.Repeat([]byte("# padding\n"), 200_000))
	want := "elbo.yaml: the file is larger than 1MiB, which no configuration needs; is it the right file?"
	if got := faults.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAliasBombIsBounded(t *testing.T) {
	var sb strings.Builder
	sb.WriteString("source:\n  http:\n    url: u\n    servers:\n      - &a0 {host: x}\n")
	sb.WriteString("operators:\n  - select: {columns: &b0 [x, x, x, x, x, x, x, x, x, x]}\n")
	for range 20_000 {
		sb.WriteString("  - select: {columns: *b0}\n")
	}
	sb.WriteString("sinks:\n  - parquet: {path: out/}\n")
	faults := faultsOf([]byte(sb.String()))
	if len(faults) != 1 || !strings.Contains(faults[0].Message, "aliases may multiply them") {
		t.Errorf("got %v", faults)
	}
}

func TestManyFaultsAreCapped(t *testing.T) {
	var sb strings.Builder
	sb.WriteString("source:\n  generate: {}\nsinks:\n")
	for range 5000 {
		sb.WriteString("  - x: {}\n")
	}
	if n := len(faultsOf([]byte(sb.String()))); n < 100 || n > 300 {
		t.Errorf("%d faults, want about 200", n)
	}
}

func TestLoadSaysWhatIsWrongWithTheFile(t *testing.T) {
	var closed int
	path := filepath.Join(t.TempDir(), "none.yaml")
	_, faults := config.Load(path, registry(&closed), options())
	if want := path + ": does not exist; give the path of a pipeline's YAML file"; faults.Error() != want {
		t.Errorf("got %q, want %q", faults.Error(), want)
	}
	if !errors.Is(faults.Err(), fs.ErrNotExist) {
		t.Error("the cause is lost")
	}
	if _, faults := config.Load(t.TempDir(), registry(&closed), options()); len(faults) != 1 {
		t.Errorf("a folder: %v", faults)
	}
}

func TestBuildClosesWhatItMade(t *testing.T) {
	var closed int
	file := "source:\n  generate: {}\noperators:\n  - score: {model: missing}\nsinks:\n  - parquet: {path: a/}\n  - parquet: {path: b/}\n"
	p, faults := config.Parse("elbo.yaml", []byte(file), registry(&closed), options())
	if faults != nil {
		t.Fatal(faults)
	}
	c, faults := p.Build(context.Background(), config.Env{})
	if len(faults) != 1 || c.Source != nil {
		t.Errorf("got %v and source %v", faults, c.Source)
	}
	if closed != 3 {
		t.Errorf("%d closed, want the source and two sinks", closed)
	}
}

func TestNoFaultsIsNoError(t *testing.T) {
	var faults config.Faults
	if faults.Err() != nil {
		t.Error("Err of no faults is not nil")
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	var closed int
	reg := registry(&closed)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, faults := config.Parse("elbo.yaml", data, reg, options())
		if (p == nil) == (len(faults) == 0) {
			t.Fatalf("pipeline %v and faults %v", p, faults)
		}
		if strings.Contains(faults.Error(), "hunter2") {
			t.Fatalf("a secret is printed: %v", faults)
		}
		if p == nil {
			return
		}
		out := p.Effective()
		if bytes.Contains(out, []byte("hunter2")) {
			t.Fatalf("a secret is printed:\n%s", out)
		}
		again, faults := config.Parse("again.yaml", out, reg, options())
		if len(faults) > 0 {
			if bytes.Contains(out, []byte("***")) {
				return // a masked value need not parse
			}
			t.Fatalf("effective config does not parse: %v\n%s", faults, out)
		}
		if more := again.Effective(); !bytes.Equal(out, more) {
			t.Fatalf("effective config changes:\n%s\nthen\n%s", out, more)
		}
	})
}
