package child_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/elbo-stream/elbo/internal/e2e/child"
)

func sleeper(t *testing.T, script string) *child.Process {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	p, err := child.Start(exec.Command(sh, "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEnd(t *testing.T) {
	p := sleeper(t, "exec sleep 1000")
	if !p.Alive() {
		t.Error("a fresh process is not alive")
	}
	if err := p.End(syscall.SIGTERM, time.Minute); err != nil || p.Alive() {
		t.Errorf("End by SIGTERM: %v, alive %v", err, p.Alive())
	}
	if err := p.Wait(); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("Wait = %v, want that it was terminated", err)
	}
	p = sleeper(t, "exec sleep 1000")
	if err := p.End(syscall.SIGKILL, 0); err != nil || p.Alive() {
		t.Errorf("End by SIGKILL: %v, alive %v", err, p.Alive())
	}
	if err := child.Run(exec.Command("/no/such/program")); err == nil {
		t.Error("Run of no program gives no error")
	}
}

func TestEndKillsWhoDoesNotListen(t *testing.T) {
	p := sleeper(t, "trap '' TERM; echo; exec sleep 1000")
	for deaf := false; !deaf; { // until it ignores SIGTERM
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
		if err != nil {
			p.End(syscall.SIGKILL, 0)
			t.Skip("SKIPPED: no /proc")
		}
		_, mask, _ := strings.Cut(string(b), "SigIgn:")
		n, _ := strconv.ParseUint(strings.Fields(mask)[0], 16, 64)
		deaf = n&(1<<(syscall.SIGTERM-1)) != 0
	}
	if err := p.End(syscall.SIGTERM, 50*time.Millisecond); err == nil || p.Alive() {
		t.Errorf("End of a deaf process: %v, alive %v; want an error and its end", err, p.Alive())
	}
}

// TestDiesWithUs kills a process that has started a child, and wants the child gone.
func TestDiesWithUs(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: only Linux kills children with their parent")
	}
	if os.Getenv("CHILD_TEST_PARENT") == "1" {
		cmd := exec.Command("sleep", "1000")
		cmd.Stdout = os.Stdout
		p, err := child.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(p.Pid())
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiesWithUs$")
	cmd.Env = append(os.Environ(), "CHILD_TEST_PARENT=1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	parent, err := child.Start(cmd)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || syscall.Kill(pid, 0) != nil {
		t.Fatalf("child %q: %v", line, err)
	}
	parent.Signal(syscall.SIGKILL)
	<-parent.Done()
	// The pipe is the child's too: it ends when the child has.
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("the child lives")
	}
}
