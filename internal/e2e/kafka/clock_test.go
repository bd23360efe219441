package kafka_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClock is F22: the wall clock of everybody, elbo's processes and the broker's,
// jumps an hour forward or back every 1.5 s, while members come and go and are
// killed. The monotonic clock goes on, as it does when somebody sets the time. It
// needs a Go whose time.Now looks as expected, rebuilds the standard library, and so
// runs only with ELBO_TEST_FULL=1 or ELBO_LONG=1.
func TestClock(t *testing.T) {
	t.Parallel()
	if !size(false, true, true) {
		t.Skip("SKIPPED: clock jumps: set ELBO_TEST_FULL=1, it builds everything anew")
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const call = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {"
	if strings.Count(string(text), call) != 1 {
		t.Skipf("SKIPPED: clock jumps: time.Now of this Go is not as expected, see %s", source)
	}
	jump := "\tsec, nsec, mono := runtimeNow()\n\tsec += [...]int64{0, 3600, 0, -3600}[uint64(mono)/1_500_000_000%4]\n\tif mono == 0 {"
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{changed: []byte(strings.Replace(string(text), call, jump, 1)), overlay: list} {
		if err := os.WriteFile(file, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-count=1", "-v", "-run", "^Test(ClockJumps|Chaos|Kills)$", ".")
	cmd.Env = append(os.Environ(), "GOFLAGS=-overlay="+overlay, "ELBO_TEST_FULL=", "ELBO_LONG=", jumps+"=1")
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "---") || strings.Contains(line, "_test.go") {
			t.Log(strings.TrimRight(line, "\n"))
		}
	}
	if err != nil {
		t.Errorf("under a clock that jumps: %v\n%s", err, out)
	}
}

// jumps is set where the clock jumps.
const jumps = "ELBO_TEST_CLOCK_JUMPS"

// TestClockJumps makes sure that it does.
func TestClockJumps(t *testing.T) {
	if os.Getenv(jumps) == "" {
		t.Skip("SKIPPED: a part of TestClock")
	}
	seen := map[time.Duration]bool{}
	for began := time.Now(); time.Since(began) < 7*time.Second; time.Sleep(100 * time.Millisecond) {
		wall := time.Now().Round(0).Sub(began.Round(0)) - time.Since(began)
		seen[wall.Round(time.Minute)] = true
	}
	if len(seen) < 3 {
		t.Errorf("the wall clock was off by %v", seen)
	}
}
