package realkafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Options say what cluster to run.
type Options struct {
	Version string // such as "3.9.1"; "" is the first of Verified
	Nodes   int    // 1 or 3; 0 is 1. With 3, every topic has three replicas, two in sync
	HeapMiB int    // of each node; 0 is 384
	// Config is added to each node's server.properties and wins over what is there.
	Config map[string]string
}

// A Cluster is running nodes. Its methods may be called from many goroutines, those
// that start and stop a node from one at a time for each node.
type Cluster struct {
	// Brokers are the addresses of all nodes, in the order of their ids from 1.
	Brokers []string

	options       Options
	libs, dir, id string
	nodes         []*node
}

// Start runs a cluster until the test ends, and returns when it is ready. It skips
// the test where Kafka cannot be had, and fails it where Kafka does not start. When
// the test fails, the ends of the nodes' logs are shown.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := Launch(ctx, o, t.TempDir())
	if errors.Is(err, ErrMissing) {
		t.Skipf("SKIPPED: %v", err)
	}
	if c != nil {
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(c.Logs())
			}
			c.Close()
		})
	}
	if err == nil {
		err = c.Ready(ctx)
	}
	if err != nil {
		t.Fatalf("start Kafka %s: %v", o.Version, err)
	}
	return c
}

// Launch starts a cluster with its data below dir, which the caller removes after
// Close. The nodes are not ready yet. An error that says where Kafka cannot be had at all is
// ErrMissing.
func Launch(ctx context.Context, o Options, dir string) (*Cluster, error) {
	if o.Version == "" {
		o.Version = Verified()[0]
	}
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	if o.HeapMiB == 0 {
		o.HeapMiB = 384
	}
	libs, err := Libs(ctx, o.Version)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2 * o.Nodes)
	if err != nil {
		return nil, err
	}
	c := &Cluster{options: o, libs: libs, dir: dir, id: newClusterID()}
	for i := range o.Nodes {
		n := &node{id: i + 1, port: ports[2*i], controllerPort: ports[2*i+1], dir: filepath.Join(dir, fmt.Sprintf("node-%d", i+1))}
		c.nodes = append(c.nodes, n)
		c.Brokers = append(c.Brokers, n.addr())
	}
	name, text, _ := logging(o.Version)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		return nil, err
	}
	err = c.each(func(n *node) error {
		if err := c.format(ctx, n); err != nil {
			return err
		}
		return c.start(n)
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// each calls f for all nodes at once and joins the errors.
func (c *Cluster) each(f func(*node) error) error {
	errs := make([]error, len(c.nodes))
	var wg sync.WaitGroup
	for i, n := range c.nodes {
		wg.Go(func() { errs[i] = f(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Version returns the version that runs.
func (c *Cluster) Version() string { return c.options.Version }

// Nodes returns how many nodes the cluster has, running or not. Their ids are 1 to
// Nodes.
func (c *Cluster) Nodes() int { return len(c.nodes) }

// Close kills every node and waits until they are gone.
func (c *Cluster) Close() {
	_ = c.each(func(n *node) error { return n.end(syscall.SIGKILL, 0) })
}

// Kill ends a node by SIGKILL. What it had written stays, as the kernel has it.
func (c *Cluster) Kill(id int) error { return c.nodes[id-1].end(syscall.SIGKILL, 0) }

// Stop ends a node by SIGTERM, and waits until it has handed its leaders over and
// is gone. One that is not gone after half a minute is killed, which is an error.
func (c *Cluster) Stop(id int) error { return c.nodes[id-1].end(syscall.SIGTERM, 30*time.Second) }

// Restart starts a node that was killed or stopped, with its data. It does not wait
// until the node is ready.
func (c *Cluster) Restart(id int) error { return c.start(c.nodes[id-1]) }

// Pid returns the process id of a node, 0 if it is not running.
func (c *Cluster) Pid(id int) int {
	if p := c.nodes[id-1].running(); p != nil && p.Alive() {
		return p.Pid()
	}
	return 0
}

// Logs returns the end of each node's log.
func (c *Cluster) Logs() string {
	var text string
	for _, n := range c.nodes {
		text += fmt.Sprintf("--- Kafka %s node %d\n%s\n", c.options.Version, n.id, n.tail(30))
	}
	return text
}

// poll calls f until it returns nil, and otherwise returns its last error when ctx
// ends.
func poll(ctx context.Context, f func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := f(short)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// Ready waits until every node that was started answers, knows a controller and
// sees all the others. It ends early when a node's process has ended.
func (c *Cluster) Ready(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wanted := 0
	for _, n := range c.nodes {
		if n.running() != nil {
			wanted++
		}
	}
	return c.each(func(n *node) error {
		p := n.running()
		if p == nil {
			return nil
		}
		err := poll(ctx, func(ctx context.Context) error {
			if !p.Alive() {
				cancel(fmt.Errorf("node %d has ended", n.id))
				return context.Cause(ctx)
			}
			return n.ready(ctx, wanted)
		})
		if err != nil {
			return fmt.Errorf("node %d is not ready: %w", n.id, errors.Join(err, context.Cause(ctx)))
		}
		return nil
	})
}

// ready asks a node once whether it serves and sees a controller and n brokers.
func (n *node) ready(ctx context.Context, brokers int) error {
	k, err := kgo.NewClient(kgo.SeedBrokers(n.addr()), kgo.RequestRetries(0))
	if err != nil {
		return err
	}
	defer k.Close()
	m, err := kadm.NewClient(k).BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	if m.Controller < 0 || len(m.Brokers) < brokers {
		return fmt.Errorf("controller %d, %d of %d brokers", m.Controller, len(m.Brokers), brokers)
	}
	return nil
}

// admin runs f with an admin client of the whole cluster.
func (c *Cluster) admin(f func(*kadm.Client) error) error {
	k, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...))
	if err != nil {
		return err
	}
	defer k.Close()
	return f(kadm.NewClient(k))
}

// CreateTopic makes a topic with three replicas, or one if the cluster has fewer
// nodes, and waits until each partition has a leader and all its replicas. The keys of config are Kafka's, such as
// "compression.type"; nil means none.
func (c *Cluster) CreateTopic(ctx context.Context, name string, partitions int, config map[string]string) error {
	replicas := int16(1)
	if len(c.nodes) >= 3 {
		replicas = 3
	}
	configs := map[string]*string{}
	for k, v := range config {
		configs[k] = &v
	}
	err := c.admin(func(a *kadm.Client) error {
		r, err := a.CreateTopic(ctx, int32(partitions), replicas, configs, name)
		if err == nil {
			err = r.Err
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return c.InSync(ctx, name)
}

// InSync waits until every partition of the topics, of all topics if none is named,
// has a leader and all of its replicas in sync: a rolling restart that waits for
// it leaves the cluster able to write.
func (c *Cluster) InSync(ctx context.Context, topics ...string) error {
	return c.admin(func(a *kadm.Client) error {
		return poll(ctx, func(ctx context.Context) error {
			m, err := a.Metadata(ctx, topics...)
			if err != nil {
				return err
			}
			if len(m.Topics) < len(topics) {
				return fmt.Errorf("%d of %d topics known", len(m.Topics), len(topics))
			}
			for _, t := range m.Topics {
				if t.Err != nil {
					return fmt.Errorf("topic %s: %w", t.Topic, t.Err)
				}
				for _, p := range t.Partitions {
					if p.Err != nil || p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
						return fmt.Errorf("%s/%d: leader %d, in sync %v of %v: %v", t.Topic, p.Partition, p.Leader, p.ISR, p.Replicas, p.Err)
					}
				}
			}
			return nil
		})
	})
}
