package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/elbo-stream/elbo/internal/e2e/child"
	"github.com/elbo-stream/elbo/internal/kafka"
)

// group returns a member with short times, not yet joined.
func (l lab) group(t *testing.T, c kafka.GroupConfig, topics ...string) *kafka.Group {
	t.Helper()
	c.Topics = func(context.Context) ([]string, error) { return topics, nil }
	c.Session, c.Rebalance, c.Heartbeat = 6*time.Second, 15*time.Second, 200*time.Millisecond
	if c.Discover == 0 {
		c.Discover = time.Second
	}
	g := kafka.NewGroup(l.ours, c)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := g.Leave(ctx); err != nil {
			t.Logf("leave: %v", err)
		}
	})
	return g
}

// A joining is a Join that is under way.
type joining chan struct {
	a   kafka.Assignment
	err error
}

func (l lab) join(g *kafka.Group, owned []kafka.TopicPartition) joining {
	j := make(joining, 1)
	go func() {
		a, err := g.Join(l.ctx, owned)
		j <- struct {
			a   kafka.Assignment
			err error
		}{a, err}
	}()
	return j
}

func (j joining) wait(t *testing.T) kafka.Assignment {
	t.Helper()
	got := <-j
	must(t, got.err)
	return got.a
}

// await waits for a channel to close.
func (l lab) await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-l.ctx.Done():
		t.Fatalf("%s did not come", what)
	}
}

// numbers returns the partitions of an assignment, "0 1 2".
func numbers(a kafka.Assignment) string {
	var s []string
	for _, tp := range a.Parts {
		s = append(s, fmt.Sprint(tp.Partition))
	}
	return strings.Join(s, " ")
}

// testGroupRange has a second member come and go.
func testGroupRange(t *testing.T, l lab) {
	topic := l.topic(t, "range", 5)
	first, second := l.group(t, kafka.GroupConfig{ID: "range"}, topic), l.group(t, kafka.GroupConfig{ID: "range"}, topic)
	a := l.join(first, nil).wait(t)
	if numbers(a) != "0 1 2 3 4" || !first.Alive() {
		t.Fatalf("alone: %+v, alive %v", a, first.Alive())
	}
	changed := first.Changed()
	two := l.join(second, nil)
	l.await(t, changed, "the change that the second member makes")
	a, b := l.join(first, nil).wait(t), two.wait(t)
	if a.Generation != b.Generation || len(a.Parts)+len(b.Parts) != 5 || len(a.Parts) < 2 || len(b.Parts) < 2 {
		t.Fatalf("two members: %+v and %+v", a, b)
	}
	changed = first.Changed()
	must(t, second.Leave(l.ctx))
	l.await(t, changed, "the change that leaving makes")
	if a = l.join(first, nil).wait(t); numbers(a) != "0 1 2 3 4" {
		t.Fatalf("alone again: %+v", a)
	}
}

// testGroupSticky does the same with partitions kept over the rebalance.
func testGroupSticky(t *testing.T, l lab) {
	topic := l.topic(t, "sticky", 6)
	c := kafka.GroupConfig{ID: "sticky", Cooperative: true}
	first, second := l.group(t, c, topic), l.group(t, c, topic)
	a := l.join(first, nil).wait(t)
	changed := first.Changed()
	two := l.join(second, nil)
	l.await(t, changed, "the change that the second member makes")
	kept := l.join(first, a.Parts).wait(t)
	b := two.wait(t)
	if len(kept.Parts) != 3 || len(b.Parts) != 0 {
		t.Fatalf("first round: the first keeps %v, the second has %v; want 3, and none yet", kept.Parts, b.Parts)
	}
	// The first gives up the rest and joins again.
	changed = second.Changed()
	again := l.join(first, kept.Parts)
	l.await(t, changed, "the second round")
	b = l.join(second, nil).wait(t)
	end := again.wait(t)
	if !slices.Equal(end.Parts, kept.Parts) || len(b.Parts) != 3 {
		t.Errorf("second round: the first has %v, want %v as before; the second %v, want the other three", end.Parts, kept.Parts, b.Parts)
	}
}

// testGroupWithJava shares a topic with Kafka's own consumer, which leads in one
// case and follows in the other, with both strategies.
func testGroupWithJava(t *testing.T, l lab) {
	for _, c := range []struct {
		assignor    string
		cooperative bool
	}{{"RangeAssignor", false}, {"CooperativeStickyAssignor", true}} {
		for _, leads := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/java leads=%v", c.assignor, leads), func(t *testing.T) {
				id := fmt.Sprintf("java-%s-%v", c.assignor, leads)
				topic := l.topic(t, id, 4)
				g := l.group(t, kafka.GroupConfig{ID: id, Cooperative: c.cooperative}, topic)
				var a kafka.Assignment
				if !leads {
					a = l.join(g, nil).wait(t)
				}
				java := l.JavaCommand(l.ctx, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", l.Brokers[0],
					"--topic", topic, "--group", id, "--consumer-property", "session.timeout.ms=6000", "--consumer-property", "heartbeat.interval.ms=300",
					"--consumer-property", "partition.assignment.strategy=org.apache.kafka.clients.consumer."+c.assignor)
				var log bytes.Buffer
				java.Stdout, java.Stderr = &log, &log
				process, err := child.Start(java)
				must(t, err)
				defer process.End(syscall.SIGKILL, 0)
				l.members(t, id, 1)
				for len(a.Parts) != 2 { // settles when each has two
					if l.ctx.Err() != nil {
						t.Fatalf("we have %v; Java says %s", a.Parts, log.Bytes())
					}
					if g.Member().Generation >= 0 {
						l.await(t, g.Changed(), "a rebalance")
					}
					owned := a.Parts
					if !c.cooperative {
						owned = nil
					}
					b := l.join(g, owned).wait(t)
					given := slices.ContainsFunc(owned, func(tp kafka.TopicPartition) bool { return !slices.Contains(b.Parts, tp) })
					if a = b; given && c.cooperative { // we gave something up, and say so
						a = l.join(g, a.Parts).wait(t)
					}
				}
				theirs := l.members(t, id, 2)
				if len(theirs) != 4 {
					t.Errorf("the group's members have %v, want all four partitions", theirs)
				}
			})
		}
	}
}

// members waits until a group is stable with at least that many members, or has
// them at all if it is one, and returns the partitions that they have.
func (l lab) members(t *testing.T, group string, atLeast int) (parts []int32) {
	t.Helper()
	k, err := kgo.NewClient(kgo.SeedBrokers(l.Brokers...))
	must(t, err)
	defer k.Close()
	for {
		d, err := kadm.NewClient(k).DescribeGroups(l.ctx, group)
		must(t, err)
		g := d[group]
		parts = nil
		for _, m := range g.Members {
			if c, ok := m.Assigned.AsConsumer(); ok {
				for _, topic := range c.Topics {
					parts = append(parts, topic.Partitions...)
				}
			}
		}
		if len(g.Members) >= atLeast && (atLeast == 1 || g.State == "Stable") {
			return parts
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-l.ctx.Done():
			t.Fatalf("group %s: %+v", group, g)
		}
	}
}

// testStaticMember restarts a member with an instance id: nothing moves. A second
// one with the same id takes its place.
func testStaticMember(t *testing.T, l lab) {
	topic := l.topic(t, "static", 4)
	c := func(instance string) kafka.GroupConfig { return kafka.GroupConfig{ID: "static", Instance: instance} }
	one, two := l.group(t, c("one"), topic), l.group(t, c("two"), topic)
	l.join(one, nil).wait(t)
	changed := one.Changed()
	second := l.join(two, nil)
	l.await(t, changed, "the change that the second member makes")
	a, b := l.join(one, nil).wait(t), second.wait(t)
	if numbers(a) != "0 1" || numbers(b) != "2 3" {
		t.Fatalf("static members have %q and %q, want 0 1 and 2 3", numbers(a), numbers(b))
	}
	must(t, two.Leave(l.ctx)) // which it does not tell the coordinator
	heir := l.group(t, c("two"), topic)
	got := l.join(heir, nil).wait(t)
	if numbers(got) != "2 3" || got.Generation != a.Generation {
		t.Errorf("after its restart the member has %q in generation %d, want 2 3 in %d", numbers(got), got.Generation, a.Generation)
	}
	select {
	case <-one.Changed():
		t.Error("the restart of a static member made the other join again")
	default:
	}
	lost := heir.Lost()
	thief := l.group(t, c("two"), topic)
	l.join(thief, nil).wait(t)
	l.await(t, lost, "the end of the member whose instance id was taken")
	if _, err := heir.Join(l.ctx, nil); !errors.Is(err, kafkago.FencedInstanceID) {
		t.Errorf("join of the fenced member: %v, want FENCED_INSTANCE_ID", err)
	}
}

// testGrowth adds partitions and a topic while a member is there.
func testGrowth(t *testing.T, l lab) {
	topic := l.topic(t, "growth", 2)
	g := l.group(t, kafka.GroupConfig{ID: "growth", Discover: 200 * time.Millisecond}, topic)
	l.join(g, nil).wait(t)
	k, err := kgo.NewClient(kgo.SeedBrokers(l.Brokers...))
	must(t, err)
	defer k.Close()
	changed := g.Changed()
	_, err = kadm.NewClient(k).UpdatePartitions(l.ctx, 5, topic)
	must(t, err)
	l.await(t, changed, "the change that new partitions make")
	if a := l.join(g, nil).wait(t); numbers(a) != "0 1 2 3 4" {
		t.Errorf("after growth the member has %q, want 0 1 2 3 4", numbers(a))
	}
}

// testStaleMember commits as members that are none.
func testStaleMember(t *testing.T, l lab) {
	topic := l.topic(t, "stale", 1)
	tp := kafka.TopicPartition{Topic: topic}
	g := l.group(t, kafka.GroupConfig{ID: "stale"}, topic)
	l.join(g, nil).wait(t)
	now := g.Member()
	old, other := now, now
	old.Generation--
	other.ID = "somebody-else"
	for name, c := range map[string]struct {
		m    kafka.Member
		want error
	}{"old generation": {old, kafkago.IllegalGeneration}, "unknown member": {other, kafkago.UnknownMemberId}, "the member": {now, nil}} {
		offsets := map[kafka.TopicPartition]kafka.Committed{tp: {Offset: 7}}
		if err := l.ours.CommitOffsets(l.ctx, c.m, offsets); !errors.Is(err, c.want) {
			t.Errorf("%s: commit: %v, want %v", name, err, c.want)
		}
		p := l.producer(t, kafka.ProducerConfig{TransactionalID: "stale " + name})
		must(t, p.Append(tp, []byte(name), nil, nil, 1))
		if err := p.Commit(l.ctx, &c.m, offsets); !errors.Is(err, c.want) {
			t.Errorf("%s: commit of a transaction: %v, want %v", name, err, c.want)
		}
		if c.want != nil {
			if err := p.Flush(l.ctx); !errors.Is(err, c.want) {
				t.Errorf("%s: the producer is not spent: %v", name, err)
			}
			// Its open transaction would hide what comes after.
			l.producer(t, kafka.ProducerConfig{TransactionalID: "stale " + name})
		}
	}
}

// testOffsets asks for the ends of a log and commits without a group's member.
func testOffsets(t *testing.T, l lab) {
	topic := l.topic(t, "offsets", 2)
	tp, empty := kafka.TopicPartition{Topic: topic}, kafka.TopicPartition{Topic: topic, Partition: 1}
	tps := []kafka.TopicPartition{tp, empty}
	p := l.producer(t, kafka.ProducerConfig{TransactionalID: "offsets"})
	for range 10 {
		must(t, p.Append(tp, nil, []byte("v"), nil, 5000))
	}
	must(t, p.Flush(l.ctx))
	ask := func(at int64, committed bool) map[kafka.TopicPartition]int64 {
		t.Helper()
		got, err := l.ours.ListOffsets(l.ctx, tps, at, committed)
		must(t, err)
		return got
	}
	if end, stable, start := ask(-1, false)[tp], ask(-1, true)[tp], ask(-2, false)[tp]; end != 10 || stable != 0 || start != 0 {
		t.Errorf("in a transaction: end %d, stable end %d, start %d; want 10, 0, 0", end, stable, start)
	}
	must(t, p.Commit(l.ctx, nil, nil))
	for ask(-1, true)[tp] != 11 { // with the marker
		if l.ctx.Err() != nil {
			t.Fatal("the transaction does not settle")
		}
	}
	got, err := l.ours.CommittedOffsets(l.ctx, "nobody", tps)
	must(t, err)
	if got[tp].Offset != -1 || got[empty].Offset != -1 {
		t.Errorf("a group that never was has committed %v, want -1", got)
	}
	m := kafka.Member{Group: "somebody", Generation: -1}
	must(t, l.ours.CommitOffsets(l.ctx, m, map[kafka.TopicPartition]kafka.Committed{tp: {Offset: 11, Metadata: "näher"}}))
	got, err = l.ours.CommittedOffsets(l.ctx, "somebody", tps)
	must(t, err)
	if got[tp] != (kafka.Committed{Offset: 11, Metadata: "näher"}) || got[empty].Offset != -1 {
		t.Errorf("committed %v, want 11 and none", got)
	}
	n, err := l.ours.Partitions(l.ctx, topic)
	if err != nil || n != 2 {
		t.Errorf("Partitions = %d, %v, want 2", n, err)
	}
	if _, err := l.ours.Partitions(l.ctx, "no-such-topic"); !errors.Is(err, kafkago.UnknownTopicOrPartition) {
		t.Errorf("Partitions of no topic: %v, want UNKNOWN_TOPIC_OR_PARTITION", err)
	}
	topics, err := l.ours.Topics(l.ctx)
	if err != nil || !slices.Contains(topics, topic) || slices.Contains(topics, "__consumer_offsets") {
		t.Errorf("Topics = %v, %v, want those that are not Kafka's own", topics, err)
	}
}
