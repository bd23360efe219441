package realkafka

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/elbo-stream/elbo/internal/e2e/child"
)

// node is one Kafka process and its folder.
type node struct {
	id                   int
	port, controllerPort int
	dir                  string

	mu      sync.Mutex
	process *child.Process // nil: not started, or ended by us
}

func (n *node) addr() string { return fmt.Sprintf("127.0.0.1:%d", n.port) }
func (n *node) log() string  { return filepath.Join(n.dir, "server.log") }

// java runs a class of the version's jars to its end and returns its output.
func (c *Cluster) java(ctx context.Context, class string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	cmd := c.JavaCommand(ctx, class, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := child.Run(cmd); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", class, err, bytes.TrimSpace(out.Bytes()))
	}
	return out.Bytes(), nil
}

// JavaCommand returns the command that runs one of Kafka's own classes, such as
// "kafka.tools.DumpLogSegments", with the cluster's jars.
func (c *Cluster) JavaCommand(ctx context.Context, class string, args ...string) *exec.Cmd {
	name, _, flag := logging(c.options.Version)
	full := append([]string{
		"-Xmx256M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
		flag + filepath.Join(c.dir, name), "-cp", filepath.Join(c.libs, "*"), class}, args...)
	return exec.CommandContext(ctx, "java", full...)
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

// start runs a node.
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
	defer log.Close()
	name, _, flag := logging(c.options.Version)
	cmd := exec.Command("java", fmt.Sprintf("-Xmx%dM", c.options.HeapMiB),
		"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", flag+filepath.Join(c.dir, name),
		"-cp", filepath.Join(c.libs, "*"), "kafka.Kafka", filepath.Join(n.dir, "server.properties"))
	cmd.Stdout, cmd.Stderr = log, log
	n.process, err = child.Start(cmd)
	return err
}

// end signals a node and waits until its process is gone.
func (n *node) end(s os.Signal, patience time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return nil
	}
	defer func() { n.process = nil }()
	if err := n.process.End(s, patience); err != nil {
		return fmt.Errorf("node %d: %w", n.id, err)
	}
	return nil
}

// running returns a node's process: nil if it was not started, or ended by us.
func (n *node) running() *child.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
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
