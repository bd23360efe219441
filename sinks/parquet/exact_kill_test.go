package parquet_test

import (
	"bufio"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
	"github.com/elbo-stream/elbo/sinks/parquet"
)

var kills = flag.Int("kills", 100, "how many processes TestExactKill kills")

const killFolder = "ELBO_TEST_KILL_FOLDER"

var killPartitions = []string{"t/0", "t/1", "other"}

// TestMain makes the test program the one that TestExactKill kills.
func TestMain(m *testing.M) {
	dir := os.Getenv(killFolder)
	if dir == "" {
		os.Exit(m.Run())
	}
	var seed uint64
	var end int
	fmt.Sscan(os.Getenv("ELBO_TEST_KILL_RUN"), &seed, &end)
	err := os.Chdir(dir)
	if err == nil {
		fmt.Println("begin")
		err = run(durable.OS, parquet.ExactConfig{RollRows: 40, GroupBytes: 500, Sweep: 1}, seed, end, killPartitions)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// TestExactKill kills processes that write to real files, at random, and checks
// that the last one, which is left alone, completes what is there.
func TestExactKill(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: kills of real processes take some seconds (-short)")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	start := func(seed, end int) *exec.Cmd {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), killFolder+"="+dir, fmt.Sprintf("ELBO_TEST_KILL_RUN=%d %d", seed, end))
		cmd.Stderr = os.Stderr
		return cmd
	}
	rng := rand.New(rand.NewPCG(1, 5))
	for n := range *kills {
		cmd := start(n+1, 1<<30)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		bufio.NewScanner(out).Scan()
		time.Sleep(time.Duration(rng.IntN(40_000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatalf("process %d ended by itself: %v", n, err)
		}
		_ = cmd.Wait()
	}
	_, end := load(t, dir)
	end += 100
	// The second of these has nothing to write: it sweeps what the first could not
	// know to be nobody's.
	for n := range 2 {
		if out, err := start(*kills+1+n, end).Output(); err != nil {
			t.Fatalf("the last process: %v\n%s", err, out)
		}
	}
	files, _ := load(t, dir)
	if err := whole(t, files, end, killPartitions...); err != nil {
		t.Fatal(err)
	}
	if left := files.Temporaries(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	t.Logf("%d kills, %d positions in each of %d partitions, %d files", *kills, end, len(killPartitions), len(files.Files()))
}

// load copies a folder into memory, and returns the largest position in it.
func load(t *testing.T, dir string) (files *pipelinetest.FS, end int) {
	t.Helper()
	files = pipelinetest.NewFS()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files.Put(strings.TrimPrefix(path, dir+"/"), b)
		if first, ok := parquet.ParseRangeName(filepath.Base(path)); ok {
			end = max(end, int(first)+1000)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, end
}
