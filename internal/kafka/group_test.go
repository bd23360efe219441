package kafka_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// A holder is a member's owner as a source is one: it drains, gives up what it lost,
// and joins again.
type holder struct {
	name  string
	table *table
	c     *kafka.Cluster
	g     *kafka.Group
	coop  bool
	stop  context.CancelFunc
	done  chan struct{}
	limbo limbo
}

// A limbo holds the connections of a killed process open, as a cut network does, until
// the test ends. Kfake never times out a member that is given to a closed connection
// as the answer to a join, and so keeps it for ever; Kafka does.
type limbo struct {
	on    atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
}

func (l *limbo) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &limboConn{c, l}, nil
}

// end closes the connections.
func (l *limbo) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.Close()
	}
}

type limboConn struct {
	net.Conn
	l *limbo
}

// Close does nothing once the process is dead.
func (c *limboConn) Close() error {
	if !c.l.on.Load() {
		return c.Conn.Close()
	}
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.l.conns = append(c.l.conns, c.Conn)
	return nil
}

// A table is who holds what. It complains when two hold the same.
type table struct {
	t  testing.TB
	mu sync.Mutex
	by map[kafka.TopicPartition]string
	// killed owners hold nothing any more, but do not say so
	joins  int
	change chan struct{}
}

func newTable(t testing.TB) *table {
	return &table{t: t, by: map[kafka.TopicPartition]string{}, change: make(chan struct{})}
}

func (b *table) changed() {
	close(b.change)
	b.change = make(chan struct{})
}

func (b *table) take(who string, parts []kafka.TopicPartition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.joins++
	for _, tp := range parts {
		if other, held := b.by[tp]; held && other != who {
			b.t.Errorf("%s takes %s, which %s holds", who, tp, other)
		}
		b.by[tp] = who
	}
	b.changed()
}

// give gives up parts; nil is all.
func (b *table) give(who string, parts []kafka.TopicPartition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.by, func(tp kafka.TopicPartition, by string) bool {
		return by == who && (parts == nil || slices.Contains(parts, tp))
	})
	b.changed()
}

// shares returns how many partitions each holds.
func (b *table) shares() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := map[string]int{}
	for _, by := range b.by {
		n[by]++
	}
	return n
}

// wait waits until the shares are one of these, and returns how long that took.
func (b *table) wait(want ...map[string]int) time.Duration {
	b.t.Helper()
	began := time.Now()
	late := time.After(40 * time.Second)
	for {
		b.mu.Lock()
		change := b.change
		b.mu.Unlock()
		if n := b.shares(); slices.ContainsFunc(want, func(w map[string]int) bool { return maps.Equal(n, w) }) {
			return time.Since(began)
		}
		select {
		case <-change:
		case <-late:
			b.t.Fatalf("shares %v, want %v", b.shares(), want)
		}
	}
}

// hold starts a member.
func (b *table) hold(name string, brokers []string, config kafka.GroupConfig) *holder {
	b.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	h := &holder{name: name, table: b, coop: config.Cooperative, stop: stop, done: make(chan struct{})}
	c, err := kafka.Open(ctx, kafka.Config{Brokers: brokers, ClientID: name, Dial: h.limbo.dial})
	if err != nil {
		b.t.Fatal(err)
	}
	h.c, h.g = c, kafka.NewGroup(c, config)
	go func() {
		defer close(h.done)
		h.run(ctx)
	}()
	return h
}

func (h *holder) run(ctx context.Context) {
	var owned []kafka.TopicPartition
	for {
		a, err := h.g.Join(ctx, owned)
		if err != nil {
			if ctx.Err() == nil {
				h.table.t.Errorf("%s: %v", h.name, err)
			}
			return
		}
		if a.Anew {
			h.table.give(h.name, nil)
			owned = nil
		}
		gone := slices.DeleteFunc(slices.Clone(owned), func(tp kafka.TopicPartition) bool { return slices.Contains(a.Parts, tp) })
		if len(gone) > 0 {
			h.table.give(h.name, gone)
		}
		h.table.take(h.name, a.Parts)
		owned = a.Parts
		if len(gone) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-h.g.Changed():
			if !h.coop {
				h.table.give(h.name, nil)
				owned = nil
			}
		case <-h.g.Lost():
			h.table.give(h.name, nil)
			owned = nil
		}
	}
}

// leave ends a member in good order.
func (h *holder) leave() {
	if err := h.tryLeave(); err != nil {
		h.table.t.Errorf("%s: %v", h.name, err)
	}
}

// tryLeave is leave while the coordinator may be away for long.
func (h *holder) tryLeave() error {
	h.stop()
	<-h.done
	h.table.give(h.name, nil)
	err := h.g.Leave(context.Background())
	h.c.Close()
	return err
}

// kill ends a member without a word, as SIGKILL does.
func (h *holder) kill() {
	h.limbo.on.Store(true)
	h.table.t.Cleanup(h.limbo.end)
	h.c.Close()
	h.stop()
	<-h.done
	h.table.give(h.name, nil)
	_ = h.g.Leave(context.Background()) // ends its goroutines; nothing can be sent
}

// fake starts brokers with a topic t, and watches for goroutines that stay.
func fake(t *testing.T, partitions int32) *kfake.Cluster {
	t.Helper()
	old := goleak.IgnoreCurrent()
	f, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(partitions, "t"), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		goleak.VerifyNone(t, old)
	})
	return f
}

func quick(coop bool) kafka.GroupConfig {
	return kafka.GroupConfig{ID: "g", Topics: fixedTopics("t"), Session: 2 * time.Second, Rebalance: 4 * time.Second,
		Heartbeat: 50 * time.Millisecond, Discover: 100 * time.Millisecond, Cooperative: coop}
}

// strategies runs f with both.
func strategies(t *testing.T, f func(t *testing.T, coop bool)) {
	for _, coop := range []bool{false, true} {
		t.Run(map[bool]string{false: "range", true: "cooperative"}[coop], func(t *testing.T) { f(t, coop) })
	}
}

func TestGroupSharesPartitions(t *testing.T) {
	strategies(t, func(t *testing.T, coop bool) {
		f, b := fake(t, 8), newTable(t)
		one := b.hold("a", f.ListenAddrs(), quick(coop))
		b.wait(map[string]int{"a": 8})
		two := b.hold("b", f.ListenAddrs(), quick(coop))
		b.wait(map[string]int{"a": 4, "b": 4})
		three, four := b.hold("c", f.ListenAddrs(), quick(coop)), b.hold("d", f.ListenAddrs(), quick(coop))
		b.wait(map[string]int{"a": 2, "b": 2, "c": 2, "d": 2})
		one.leave()
		three.leave()
		b.wait(map[string]int{"b": 4, "d": 4})
		two.kill()
		b.wait(map[string]int{"d": 8})
		f.RehashCoordinators()
		time.Sleep(10 * time.Millisecond)
		b.wait(map[string]int{"d": 8})
		admin(t, f.ListenAddrs(), func(ctx context.Context, a *kadm.Client) error {
			_, err := a.CreatePartitions(ctx, 4, "t")
			return err
		})
		b.wait(map[string]int{"d": 12})
		four.leave()
	})
}

// admin does something with franz-go's client.
func admin(t *testing.T, brokers []string, f func(context.Context, *kadm.Client) error) {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := f(t.Context(), kadm.NewClient(c)); err != nil {
		t.Fatal(err)
	}
}

// A cooperative handover leaves what stays alone.
func TestCooperativeKeepsWhatStays(t *testing.T) {
	f, b := fake(t, 6), newTable(t)
	one := b.hold("a", f.ListenAddrs(), quick(true))
	defer one.leave()
	b.wait(map[string]int{"a": 6})
	var mu sync.Mutex
	gone := map[kafka.TopicPartition]bool{}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // sees every state, since the table wakes it each time
		defer close(done)
		for {
			b.mu.Lock()
			change := b.change
			for _, tp := range parts("t", 6) {
				if b.by[tp] != "a" {
					mu.Lock()
					gone[tp] = true
					mu.Unlock()
				}
			}
			b.mu.Unlock()
			select {
			case <-change:
			case <-stop:
				return
			}
		}
	}()
	two := b.hold("b", f.ListenAddrs(), quick(true))
	defer two.leave()
	b.wait(map[string]int{"a": 3, "b": 3})
	close(stop)
	<-done
	if len(gone) != 3 {
		t.Errorf("%d partitions were taken from a, want 3: %v", len(gone), gone)
	}
}

func TestStaticRestartMovesNothing(t *testing.T) {
	strategies(t, func(t *testing.T, coop bool) {
		f, b := fake(t, 6), newTable(t)
		config := func(i string) kafka.GroupConfig { c := quick(coop); c.Instance = i; return c }
		h := map[string]*holder{}
		for _, n := range []string{"a", "b", "c"} {
			h[n] = b.hold(n, f.ListenAddrs(), config(n))
		}
		even := map[string]int{"a": 2, "b": 2, "c": 2}
		b.wait(even)
		stable(t, f, 3)
		b.mu.Lock()
		held, joins, generation := maps.Clone(b.by), b.joins, h["a"].g.Member().Generation
		b.mu.Unlock()
		for i, n := range []string{"a", "b", "c", "b"} {
			if i%2 == 0 {
				h[n].leave()
			} else {
				h[n].kill()
			}
			h[n] = b.hold(n, f.ListenAddrs(), config(n))
			b.wait(even)
		}
		b.mu.Lock()
		if !maps.Equal(b.by, held) {
			t.Errorf("held %v, before the restarts %v", b.by, held)
		}
		if !coop && b.joins != joins+4 { // of a cooperative member kfake, unlike Kafka, wants to hear from all
			t.Errorf("%d joins for 4 restarts", b.joins-joins)
		}
		b.mu.Unlock()
		for n := range h {
			if g := h[n].g.Member().Generation; !coop && g != generation {
				t.Errorf("%s: generation %d, before %d", n, g, generation)
			}
			h[n].leave()
		}
	})
}

// Two processes with one instance id: the later one is the member, and the other is
// told so, for good.
func TestInstanceIsTakenOver(t *testing.T) {
	f := fake(t, 6)
	var groups []*kafka.Group
	for range 2 {
		c, err := kafka.Open(t.Context(), kafka.Config{Brokers: f.ListenAddrs()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		config := quick(false)
		config.Instance = "i"
		g := kafka.NewGroup(c, config)
		defer g.Leave(context.Background())
		if a, err := g.Join(t.Context(), nil); err != nil || len(a.Parts) != 6 {
			t.Fatalf("Join = %+v, %v", a, err)
		}
		groups = append(groups, g)
	}
	<-groups[0].Lost()
	_, err := groups[0].Join(t.Context(), nil)
	wantWords(t, err, `instance id "i" was taken over`)
	if is(groups[1].Lost()) || !groups[1].Alive() {
		t.Error("the later one is lost too")
	}
	old := groups[0].Member()
	c, err := kafka.Open(t.Context(), kafka.Config{Brokers: f.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	offsets := map[kafka.TopicPartition]kafka.Committed{{Topic: "t"}: {Offset: 5}}
	if err := c.CommitOffsets(t.Context(), old, offsets); err == nil || kafka.IsRetriable(err) {
		t.Errorf("a commit of the one before: %v, want a final error", err)
	}
	if err := c.CommitOffsets(t.Context(), groups[1].Member(), offsets); err != nil {
		t.Errorf("a commit of the later one: %v", err)
	}
}

// stable waits until the coordinator says so.
func stable(t *testing.T, f *kfake.Cluster, members int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := f.WaitGroupInfo(ctx, "g", func(i *kfake.GroupInfo) bool { return i != nil && i.State == "Stable" && len(i.Members) == members }); err != nil {
		t.Fatalf("the group is not stable with %d members: %v: %+v", members, err, f.GroupInfo("g"))
	}
}

// A member of another library, as leader and as follower.
func TestForeignMember(t *testing.T) {
	strategies(t, func(t *testing.T, coop bool) {
		f, b := fake(t, 8), newTable(t)
		ours := b.hold("a", f.ListenAddrs(), quick(coop))
		b.wait(map[string]int{"a": 8})
		theirs := b.foreign(t, "f", f.ListenAddrs(), coop)
		b.wait(map[string]int{"a": 4, "f": 4})
		ours.leave()
		b.wait(map[string]int{"f": 8})
		ours = b.hold("a", f.ListenAddrs(), quick(coop)) // theirs leads now
		b.wait(map[string]int{"a": 4, "f": 4})
		other := b.hold("b", f.ListenAddrs(), quick(coop))
		defer other.leave()
		b.wait(map[string]int{"a": 3, "f": 3, "b": 2}, map[string]int{"a": 3, "f": 2, "b": 3}, map[string]int{"a": 2, "f": 3, "b": 3})
		theirs.Close()
		b.give("f", nil)
		b.wait(map[string]int{"a": 4, "b": 4})
		ours.leave()
	})
}

// foreign starts a member by franz-go.
func (b *table) foreign(t *testing.T, name string, brokers []string, coop bool) *kgo.Client {
	t.Helper()
	list := func(all map[string][]int32) (tps []kafka.TopicPartition) {
		for topic, ps := range all {
			for _, p := range ps {
				tps = append(tps, kafka.TopicPartition{Topic: topic, Partition: p})
			}
		}
		return tps
	}
	balancer := kgo.RangeBalancer()
	if coop {
		balancer = kgo.CooperativeStickyBalancer()
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.Balancers(balancer),
		kgo.SessionTimeout(2*time.Second), kgo.RebalanceTimeout(4*time.Second), kgo.HeartbeatInterval(50*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, m map[string][]int32) { b.take(name, list(m)) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
			b.give(name, append([]kafka.TopicPartition{}, list(m)...))
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
			b.give(name, append([]kafka.TopicPartition{}, list(m)...))
		}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// F8 at the level of the library: members are killed and started all the time; then
// all settles soon.
func TestGroupUnderKills(t *testing.T) {
	for _, instances := range []bool{true, false} {
		t.Run(fmt.Sprintf("static %v", instances), func(t *testing.T) {
			strategies(t, func(t *testing.T, coop bool) {
				f, b := fake(t, 9), newTable(t)
				kills := 5 // each leaves a ghost for a session
				if instances {
					kills = 25
				}
				config := quick(coop)
				config.Session, config.Rebalance = 1500*time.Millisecond, 3*time.Second
				testKills(t, b, f.ListenAddrs(), config, instances, kills, 100*time.Millisecond, 9)
			})
		})
	}
}

// testKills kills and starts one of three members again and again, then looks whether
// the three share the partitions soon.
func testKills(t *testing.T, b *table, brokers []string, base kafka.GroupConfig, instances bool, kills int, every time.Duration, partitions int) {
	rng := rand.New(rand.NewPCG(uint64(kills), 7))
	config := func(i int) kafka.GroupConfig {
		c := base
		if instances {
			c.Instance = fmt.Sprint("i", i)
		}
		return c
	}
	var h [3]*holder
	number := 0
	start := func(i int) {
		number++
		h[i] = b.hold(fmt.Sprintf("%d/%d", i, number), brokers, config(i))
	}
	for i := range h {
		start(i)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for range kills {
		<-tick.C
		i := rng.IntN(len(h))
		h[i].kill()
		start(i)
	}
	var want []map[string]int
	for i := range h { // who has less when it does not come out even
		shares := map[string]int{}
		for k, m := range h {
			shares[m.name] = (partitions + (k+i)%len(h)) / len(h)
		}
		want = append(want, shares)
	}
	t.Logf("settled %v after the last of %d kills", b.wait(want...).Round(10*time.Millisecond), kills)
	for _, m := range h {
		m.leave()
	}
}
