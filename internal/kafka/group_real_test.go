package kafka_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/elbo-stream/elbo/internal/e2e/realkafka"
	"github.com/elbo-stream/elbo/internal/kafka"
)

// The group on Apache Kafka itself, beside a consumer in Java. It runs only where
// realkafka.Versions says so.
func TestGroupOnKafka(t *testing.T) {
	for _, version := range realkafka.Versions(t) {
		t.Run(version, func(t *testing.T) {
			c := realkafka.Start(t, realkafka.Options{Version: version, Nodes: 3})
			strategies(t, func(t *testing.T, coop bool) {
				name := map[bool]string{true: "coop", false: "range"}[coop]
				config := func(what string) kafka.GroupConfig {
					g := quick(coop)
					g.ID = name + "-" + what
					g.Topics = fixedTopics(g.ID)
					g.Session, g.Rebalance, g.Discover = 3*time.Second, 6*time.Second, 200*time.Millisecond
					if err := c.CreateTopic(t.Context(), g.ID, 8, nil); err != nil {
						t.Fatal(err)
					}
					return g
				}
				t.Run("shares", func(t *testing.T) { realShares(t, c, config("shares")) })
				t.Run("restarts", func(t *testing.T) { realRestarts(t, c, config("restarts")) })
				t.Run("java", func(t *testing.T) { realJava(t, c, config("java")) })
				t.Run("kills", func(t *testing.T) {
					for _, instances := range []bool{true, false} {
						g := config(fmt.Sprintf("kills-%v", instances))
						g.Session, g.Rebalance = 1500*time.Millisecond, 3*time.Second
						testKills(t, newTable(t), c.Brokers, g, instances, 20, 300*time.Millisecond, 8)
					}
				})
			})
		})
	}
}

func realShares(t *testing.T, c *realkafka.Cluster, config kafka.GroupConfig) {
	b := newTable(t)
	one := b.hold("a", c.Brokers, config)
	b.wait(map[string]int{"a": 8})
	two := b.hold("b", c.Brokers, config)
	b.wait(map[string]int{"a": 4, "b": 4})
	three := b.hold("c", c.Brokers, config)
	b.wait(map[string]int{"a": 3, "b": 3, "c": 2}, map[string]int{"a": 3, "b": 2, "c": 3}, map[string]int{"a": 2, "b": 3, "c": 3})
	one.leave()
	b.wait(map[string]int{"b": 4, "c": 4})
	two.kill()
	b.wait(map[string]int{"c": 8})
	realAdmin(t, c, func(ctx context.Context, a *kadm.Client) error {
		_, err := a.CreatePartitions(ctx, 4, config.ID)
		return err
	})
	b.wait(map[string]int{"c": 12})
	// The coordinator dies: another takes its place, and nobody loses anything.
	var coordinator int
	realAdmin(t, c, func(ctx context.Context, a *kadm.Client) error {
		all, err := a.DescribeGroups(ctx, config.ID)
		coordinator = int(all[config.ID].Coordinator.NodeID)
		return err
	})
	four := b.hold("d", c.Brokers, config)
	b.wait(map[string]int{"c": 6, "d": 6})
	if err := c.Kill(coordinator); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err := three.tryLeave() // the coordinator's successor may take longer than Leave does
	b.wait(map[string]int{"d": 12})
	t.Logf("a member left while the coordinator was dead: the other had all after %v (leaving: %v)", time.Since(began).Round(10*time.Millisecond), err)
	if err := c.Restart(coordinator); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.wait(map[string]int{"d": 12})
	four.leave()
}

// realRestarts is TestStaticRestartMovesNothing, for both strategies.
func realRestarts(t *testing.T, c *realkafka.Cluster, config kafka.GroupConfig) {
	b := newTable(t)
	h := map[string]*holder{}
	start := func(n string) {
		own := config
		own.Instance = n
		h[n] = b.hold(n, c.Brokers, own)
	}
	for _, n := range []string{"a", "b"} {
		start(n)
	}
	even := map[string]int{"a": 4, "b": 4}
	b.wait(even)
	time.Sleep(time.Second) // the last of a cooperative handover's joins
	b.mu.Lock()
	held, joins, generation := maps.Clone(b.by), b.joins, h["a"].g.Member().Generation
	b.mu.Unlock()
	for i, n := range []string{"a", "b", "a", "b"} {
		if i%2 == 0 {
			h[n].leave()
		} else {
			h[n].kill()
		}
		start(n)
		b.wait(even)
	}
	b.mu.Lock()
	if !maps.Equal(b.by, held) || b.joins != joins+4 || h["b"].g.Member().Generation != generation {
		t.Errorf("%d joins for 4 restarts, generation %d after %d; held %v, before %v", b.joins-joins, h["b"].g.Member().Generation, generation, b.by, held)
	}
	b.mu.Unlock()
	// The leader was restarted, and finds new partitions all the same.
	realAdmin(t, c, func(ctx context.Context, a *kadm.Client) error {
		_, err := a.CreatePartitions(ctx, 2, config.ID)
		return err
	})
	b.wait(map[string]int{"a": 5, "b": 5})
	h["a"].leave()
	h["b"].leave()
}

// realJava has a Java consumer with the strategy beside ours, joining after and before.
func realJava(t *testing.T, c *realkafka.Cluster, config kafka.GroupConfig) {
	b := newTable(t)
	ours := b.hold("a", c.Brokers, config)
	b.wait(map[string]int{"a": 8})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	strategy := "org.apache.kafka.clients.consumer.RangeAssignor"
	if config.Cooperative {
		strategy = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"
	}
	cmd := c.JavaCommand(ctx, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", strings.Join(c.Brokers, ","),
		"--topic", config.ID, "--group", config.ID, "--consumer-property", "partition.assignment.strategy="+strategy,
		"--consumer-property", "session.timeout.ms=3000", "--consumer-property", "heartbeat.interval.ms=300",
		"--consumer-property", "max.poll.interval.ms=6000", "--consumer-property", "metadata.max.age.ms=1000")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stop()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("the Java consumer: %s", log.Bytes())
		}
	}()
	b.wait(map[string]int{"a": 4})
	second := b.hold("b", c.Brokers, config)
	b.wait(map[string]int{"a": 3, "b": 3}, map[string]int{"a": 3, "b": 2}, map[string]int{"a": 2, "b": 3})
	// Ours leave: the Java member leads when the third of ours comes.
	ours.leave()
	second.leave()
	realAssigned(t, c, config.ID, 1, 8)
	third := b.hold("c", c.Brokers, config)
	b.wait(map[string]int{"c": 4})
	realAssigned(t, c, config.ID, 2, 8)
	fourth := b.hold("d", c.Brokers, config)
	b.wait(map[string]int{"c": 3, "d": 3}, map[string]int{"c": 3, "d": 2}, map[string]int{"c": 2, "d": 3})
	realAssigned(t, c, config.ID, 3, 8)
	third.leave()
	fourth.leave()
}

// realAssigned waits until a group's members have all partitions between them.
func realAssigned(t *testing.T, c *realkafka.Cluster, group string, members, partitions int) {
	t.Helper()
	realAdmin(t, c, func(ctx context.Context, a *kadm.Client) error {
		late := time.After(40 * time.Second)
		for {
			all, err := a.DescribeGroups(ctx, group)
			if err != nil {
				return err
			}
			g, n := all[group], 0
			for _, ps := range g.AssignedPartitions() {
				n += len(ps)
			}
			if g.State == "Stable" && len(g.Members) == members && n == partitions {
				return nil
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-late:
				return fmt.Errorf("%d members, %d partitions, %s; want %d and %d", len(g.Members), n, g.State, members, partitions)
			}
		}
	})
}

func realAdmin(t *testing.T, c *realkafka.Cluster, f func(context.Context, *kadm.Client) error) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := f(t.Context(), kadm.NewClient(cl)); err != nil {
		t.Fatal(err)
	}
}
