package realkafka

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// node is one Kafka process and its folder.
type node struct {
	id                   int
	port, controllerPort int
	dir                  string

	mu      sync.Mutex
	process *os.Process   // nil: not running
	done    chan struct{} // closed when process has ended
}

func (n *node) addr() string { return fmt.Sprintf("127.0.0.1:%d", n.port) }
func (n *node) log() string  { return filepath.Join(n.dir, "server.log") }

// java runs a class of the version's jars to its end and returns its output.
func (c *Cluster) java(ctx context.Context, class string, args ...string) ([]byte, error) {
	cmd := c.JavaCommand(ctx, class, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", class, err, bytes.TrimSpace(out))
	}
	return out, nil
}

// JavaCommand returns the command that runs one of Kafka's own classes, such as
// "kafka.tools.DumpLogSegments", with the cluster's jars.
func (c *Cluster) JavaCommand(ctx context.Context, class string, args ...string) *exec.Cmd {
	name, _, flag := logging(c.options.Version)
	full := append([]string{
		"-Xmx256M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
		flag + filepath.Join(c.dir, name), "-cp", filepath.Join(c.libs, "*"), class}, args...)
	cmd := exec.CommandContext(ctx, "java", full...)
	cmd.SysProcAttr = dieWithUs()
	return cmd
}

// format writes a node's empty log folder.
func (c *Cluster) format(ctx context.Context, n *node) error {
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(n.dir, "server.properties")
	if err := os.WriteFile(file, []byte(c.properties(n)), 0o644); err != nil {
		return err
	}
	_, err := c.java(ctx, "kafka.tools.StorageTool", "format", "-t", c.id, "-c", file)
	return err
}

// start runs a node. The goroutine that starts the process keeps its thread until
// the process ends, since the kernel counts the thread as the parent (dieWithUs).
func (c *Cluster) start(n *node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil {
		return fmt.Errorf("node %d runs already", n.id)
	}
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	name, _, flag := logging(c.options.Version)
	cmd := exec.Command("java", fmt.Sprintf("-Xmx%dM", c.options.HeapMiB),
		"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", flag+filepath.Join(c.dir, name),
		"-cp", filepath.Join(c.libs, "*"), "kafka.Kafka", filepath.Join(n.dir, "server.properties"))
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, dieWithUs()
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(done)
		defer log.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	n.process, n.done = cmd.Process, done
	return nil
}

// end signals a node and waits until its process is gone. A node that does not
// listen to SIGTERM within patience is killed, and that is an error.
func (n *node) end(s os.Signal, patience time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return nil
	}
	defer func() { n.process = nil }()
	_ = n.process.Signal(s) // it may have ended by itself
	if s == syscall.SIGKILL {
		<-n.done
		return nil
	}
	select {
	case <-n.done:
		return nil
	case <-time.After(patience):
		_ = n.process.Kill()
		<-n.done
		return fmt.Errorf("node %d did not stop within %v and was killed", n.id, patience)
	}
}

// state says whether a node was started and not ended by us, and whether its
// process still lives.
func (n *node) state() (wanted, alive bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return false, false
	}
	select {
	case <-n.done:
		return true, false
	default:
		return true, true
	}
}

// tail returns the last lines of a node's log, without stack traces, each cut to
// a readable length.
func (n *node) tail(lines int) string {
	const width = 300
	b, err := os.ReadFile(n.log())
	if err != nil {
		return err.Error()
	}
	var kept []string
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "\tat ") {
			line = strings.TrimSuffix(line, "\n")
			kept = append(kept, line[:min(len(line), width)])
		}
	}
	return strings.Join(kept[max(0, len(kept)-lines):], "\n")
}
