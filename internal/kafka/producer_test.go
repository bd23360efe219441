package kafka_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/internal/kafka/kafkatest"
)

// A bench is brokers in memory, with topics in and out of four partitions each, and
// ours behind a proxy.
type bench struct {
	testing.TB
	f     *kfake.Cluster
	proxy *kafkatest.Proxy
	c     *kafka.Cluster
	ctx   context.Context
}

func newBench(t testing.TB, opts ...kfake.Opt) *bench {
	t.Helper()
	b := &bench{TB: t, proxy: kafkatest.NewProxy(t)}
	b.f = kafkatest.Start(t, append([]kfake.Opt{kfake.SeedTopics(4, "in", "out")}, opts...)...)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	b.ctx = ctx
	b.c = b.open()
	return b
}

// open returns another client.
func (b *bench) open() *kafka.Cluster {
	b.Helper()
	c, err := kafka.Open(b.ctx, kafka.Config{Brokers: b.f.ListenAddrs(), Dial: b.proxy.Dial})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

func (b *bench) producer(cfg kafka.ProducerConfig) *kafka.Producer {
	b.Helper()
	p, err := kafka.NewProducer(b.ctx, b.c, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return p
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func out(partition int) kafka.TopicPartition {
	return kafka.TopicPartition{Topic: "out", Partition: int32(partition)}
}

// write appends the numbers of [from, to), spread over the partitions of out.
func (b *bench) write(p *kafka.Producer, from, to int) {
	b.Helper()
	for i := from; i < to; i++ {
		b.must(p.Append(out(i%4), fmt.Append(nil, i), fmt.Append(nil, "value ", i), nil, 0))
	}
}

// want checks that a topic's committed records have just these numbers as keys, each
// once.
func (b *bench) want(topic string, ranges ...[2]int) {
	b.Helper()
	seen := map[string]int{}
	for _, r := range kafkatest.Oracle(b, b.f.ListenAddrs(), topic, true) {
		seen[string(r.Key)]++
	}
	n, lost, doubled := 0, 0, 0
	for _, r := range ranges {
		for i := r[0]; i < r[1]; i++ {
			n++
			switch seen[fmt.Sprint(i)] {
			case 0:
				lost++
			case 1:
			default:
				doubled++
			}
		}
	}
	if lost > 0 || doubled > 0 || len(seen) != n {
		b.Errorf("topic %s: %d records are there, want %d; %d lost, %d doubled", topic, len(seen), n, lost, doubled)
	}
}

var source = kafka.TopicPartition{Topic: "in", Partition: 1}

func at(offset int64) map[kafka.TopicPartition]kafka.Committed {
	return map[kafka.TopicPartition]kafka.Committed{source: {Offset: offset}}
}

var outsider = &kafka.Member{Group: "g", Generation: -1}

// committed returns the group's offset.
func (b *bench) committed() int64 {
	b.Helper()
	kept, err := b.c.CommittedOffsets(b.ctx, "g", []kafka.TopicPartition{source})
	b.must(err)
	return kept[source].Offset
}

// noLeaks checks at the end that nothing runs on.
func noLeaks(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

func TestProducerTransactions(t *testing.T) {
	noLeaks(t)
	b := newBench(t)
	p := b.producer(kafka.ProducerConfig{TransactionalID: "x", MaxBatchBytes: 2000})
	b.write(p, 0, 1000)
	b.must(p.Commit(b.ctx, outsider, at(10)))
	b.write(p, 5000, 6000)
	b.must(p.Abort(b.ctx))
	if got := b.committed(); got != 10 {
		t.Errorf("committed offset = %d, want 10", got)
	}
	b.write(p, 1000, 2000)
	b.must(p.Commit(b.ctx, outsider, at(20)))
	b.must(p.Commit(b.ctx, nil, nil)) // nothing
	b.must(p.Abort(b.ctx))            // the same
	b.write(p, 7000, 7100)
	b.must(p.Flush(b.ctx))
	b.want("out", [2]int{0, 2000}) // 7000 is open
	b.must(p.Commit(b.ctx, nil, nil))
	b.want("out", [2]int{0, 2000}, [2]int{7000, 7100})
	b.must(p.Commit(b.ctx, outsider, at(30))) // offsets alone
	if got := b.committed(); got != 30 {
		t.Errorf("committed offset = %d, want 30", got)
	}
	written := p.Written()
	for i := range 4 {
		end, err := b.c.ListOffsets(b.ctx, []kafka.TopicPartition{out(i)}, -1, false)
		b.must(err)
		if written[out(i)] != end[out(i)]-1 { // the marker
			t.Errorf("written up to %d in partition %d, want %d", written[out(i)], i, end[out(i)]-1)
		}
	}
}

// Records arrive as they were given, in order, with every compression.
func TestProducerRecords(t *testing.T) {
	b := newBench(t)
	tp := out(0)
	type rec struct {
		key, value []byte
		headers    []kafka.Header
		at         int64
	}
	recs := []rec{
		{nil, nil, nil, 1},
		{[]byte{}, []byte{}, nil, 1_700_000_000_000},
		{[]byte("k"), []byte("v"), []kafka.Header{{Key: "h", Value: []byte("x")}, {Key: "h"}, {Key: "", Value: []byte{}}}, 5},
		{[]byte("k"), bytes.Repeat([]byte("large "), 500_000), nil, 3}, // more than MaxBatchBytes
		{nil, []byte("last"), nil, 4},
	}
	b.must(b.f.CreateTopic("large", 1, map[string]string{"max.message.bytes": "10000000"}))
	tp.Topic = "large"
	n := 0
	for codec := kafka.None; codec <= kafka.Zstd; codec++ {
		p := b.producer(kafka.ProducerConfig{Compression: codec})
		for _, r := range recs {
			b.must(p.Append(tp, r.key, r.value, r.headers, r.at))
		}
		b.must(p.Flush(b.ctx))
		n += len(recs)
		if p.Written()[tp] != int64(n) {
			t.Errorf("%v: written up to %d, want %d", codec, p.Written()[tp], n)
		}
	}
	got := kafkatest.Oracle(t, b.f.ListenAddrs(), "large", false)
	if len(got) != n {
		t.Fatalf("%d records, want %d", len(got), n)
	}
	for i, g := range got {
		w := recs[i%len(recs)]
		var headers []kafka.Header
		for _, h := range g.Headers {
			headers = append(headers, kafka.Header(h))
		}
		if !bytes.Equal(g.Key, w.key) || !bytes.Equal(g.Value, w.value) || (g.Key == nil) != (w.key == nil) || (g.Value == nil) != (w.value == nil) ||
			g.Timestamp.UnixMilli() != w.at || fmt.Sprint(headers) != fmt.Sprint(w.headers) {
			t.Errorf("record %d is not what was written: key %q, %d bytes, %v, %v", i, g.Key, len(g.Value), g.Headers, g.Timestamp)
		}
	}
}

// Each of many zombies is fenced, whatever it does, and nothing of it is seen.
func TestProducerFencesZombies(t *testing.T) {
	b := newBench(t)
	const zombies = 100
	var left []*kafka.Producer
	for i := range zombies {
		p := b.producer(kafka.ProducerConfig{TransactionalID: "z"})
		b.write(p, 100_000+i, 100_001+i)
		if i%3 > 0 {
			b.must(p.Flush(b.ctx)) // in the log, in an open transaction
		}
		left = append(left, p)
	}
	heir := b.producer(kafka.ProducerConfig{TransactionalID: "z"})
	b.write(heir, 0, 10)
	for i, p := range left {
		var err error
		switch i % 4 {
		case 0:
			err = p.Commit(b.ctx, nil, nil)
		case 1:
			err = p.Commit(b.ctx, outsider, at(99))
		case 2:
			if err = p.Append(out(2), nil, []byte("zombie"), nil, 0); err == nil {
				err = p.Flush(b.ctx)
			}
		case 3:
			err = p.Abort(b.ctx)
		}
		if i%3 == 0 && i%4 == 3 {
			continue // nothing was sent, so nothing was to abort
		}
		if !kafka.IsFenced(err) || kafka.IsMemberGone(err) || kafka.IsPermanent(err) || kafka.IsRetriable(err) {
			t.Errorf("zombie %d: %v, want one that is fenced", i, err)
		}
		if again := p.Append(out(0), nil, nil, nil, 0); again != err { //nolint:errorlint // the very same
			t.Errorf("zombie %d: Append = %v, want %v", i, again, err)
		}
	}
	b.must(heir.Commit(b.ctx, outsider, at(7)))
	b.want("out", [2]int{0, 10})
	if got := b.committed(); got != 7 {
		t.Errorf("committed offset = %d, want 7", got)
	}
}

// A commit under a membership that is over is refused, and has no effect.
func TestProducerMemberGone(t *testing.T) {
	b := newBench(t)
	g := kafka.NewGroup(b.c, kafka.GroupConfig{ID: "g", Topics: func(context.Context) ([]string, error) { return []string{"in"}, nil }})
	defer func() { _ = g.Leave(b.ctx) }()
	_, err := g.Join(b.ctx, nil)
	b.must(err)
	m := g.Member()
	for name, change := range map[string]func(*kafka.Member){
		"generation": func(m *kafka.Member) { m.Generation-- },
		"member":     func(m *kafka.Member) { m.ID += "x" },
	} {
		p := b.producer(kafka.ProducerConfig{TransactionalID: name})
		b.write(p, 0, 10)
		gone := m
		change(&gone)
		if err := p.Commit(b.ctx, &gone, at(5)); !kafka.IsMemberGone(err) || kafka.IsFenced(err) {
			t.Errorf("another %s: Commit = %v, want a member that is gone", name, err)
		}
	}
	p := b.producer(kafka.ProducerConfig{TransactionalID: "good"})
	b.write(p, 10, 20)
	b.must(p.Commit(b.ctx, &m, at(6)))
	for _, name := range []string{"generation", "member"} {
		b.producer(kafka.ProducerConfig{TransactionalID: name}) // ends the transaction that was left open
	}
	b.want("out", [2]int{10, 20})
	if got := b.committed(); got != 6 {
		t.Errorf("committed offset = %d, want 6", got)
	}
}

// A transaction that takes too long is aborted by the coordinator; its producer
// learns that when it commits.
func TestProducerTransactionTimeout(t *testing.T) {
	b := newBench(t)
	p := b.producer(kafka.ProducerConfig{TransactionalID: "slow", TxnTimeout: 100 * time.Millisecond})
	b.write(p, 0, 4)
	b.must(p.Flush(b.ctx))
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.f.ListenAddrs()...))
	b.must(err)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	for open := true; open; { // asks until the coordinator has ended it
		ends, err := adm.ListCommittedOffsets(b.ctx, "out")
		b.must(err)
		b.must(ends.Error())
		end, _ := ends.Lookup("out", 0)
		open = end.Offset == 0
	}
	if err := p.Commit(b.ctx, outsider, at(1)); !kafka.IsFenced(err) {
		t.Errorf("Commit = %v, want one that is fenced", err)
	}
	p = b.producer(kafka.ProducerConfig{TransactionalID: "slow"})
	b.write(p, 10, 20)
	b.must(p.Commit(b.ctx, outsider, at(2)))
	b.want("out", [2]int{10, 20})
}

func TestNextSequence(t *testing.T) {
	for _, c := range []struct {
		from int32
		n    int
		want int32
	}{{0, 1, 1}, {5, 0, 5}, {math.MaxInt32 - 1, 1, math.MaxInt32}, {math.MaxInt32, 1, 0}, {math.MaxInt32, 2, 1},
		{math.MaxInt32 - 2, 10, 7}, {0, math.MaxInt32, math.MaxInt32}, {1, math.MaxInt32, 0}, {math.MaxInt32, math.MaxInt32, math.MaxInt32 - 1}} {
		if got := kafka.NextSequence(c.from, c.n); got != c.want {
			t.Errorf("NextSequence(%d, %d) = %d, want %d", c.from, c.n, got, c.want)
		}
	}
}

// What a topic does not take at once is split, and later batches are smaller; a
// record that is too large by itself says so.
func TestProducerSplits(t *testing.T) {
	for _, id := range []string{"", "split"} {
		b := newBench(t)
		b.must(b.f.CreateTopic("small", 1, map[string]string{"max.message.bytes": "3000"}))
		tp := kafka.TopicPartition{Topic: "small"}
		p := b.producer(kafka.ProducerConfig{TransactionalID: id})
		var want []string
		for i := range 1000 {
			want = append(want, fmt.Sprint(i))
			b.must(p.Append(tp, fmt.Append(nil, i), bytes.Repeat([]byte{'x'}, i%700), []kafka.Header{{Key: "h", Value: []byte("v")}}, int64(i+1)))
			if i%300 == 299 {
				b.must(p.Flush(b.ctx))
			}
		}
		if id != "" {
			b.must(p.Commit(b.ctx, nil, nil))
		}
		b.must(p.Flush(b.ctx))
		var got []string
		for i, r := range kafkatest.Oracle(t, b.f.ListenAddrs(), "small", true) {
			got = append(got, string(r.Key))
			if len(r.Value) != i%700 || r.Timestamp.UnixMilli() != int64(i+1) || len(r.Headers) != 1 {
				t.Errorf("record %d is not what was written", i)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %d records, want %d in order", id, len(got), len(want))
		}
		b.must(p.Append(tp, nil, make([]byte, 5000), nil, 0))
		err := p.Flush(b.ctx)
		if !kafka.IsPermanent(err) || kafka.IsRetriable(err) {
			t.Errorf("Flush of a large record = %v, want one that is permanent", err)
		}
		for _, w := range []string{"write 1 records to small/0", "a message of 50", "max.message.bytes, which is 3000"} {
			if err != nil && !strings.Contains(err.Error(), w) {
				t.Errorf("Flush = %q, want it to have %q", err, w)
			}
		}
	}
}

// Append takes no memory in the steady state.
func TestAppendAllocatesNothing(t *testing.T) {
	b := newBench(t)
	p := b.producer(kafka.ProducerConfig{MaxBatchBytes: 10_000})
	headers := []kafka.Header{{Key: "h", Value: []byte("v")}}
	value := make([]byte, 500)
	fill := func() {
		for i := range 1000 {
			b.must(p.Append(out(i/250), value[:8], value, headers, 1))
		}
	}
	for range 3 {
		fill()
		b.must(p.Flush(b.ctx))
	}
	// Half of a batch in each partition: nothing leaves.
	n := 0
	got := testing.AllocsPerRun(30, func() {
		b.must(p.Append(out(n%4), value[:8], value, headers, 1))
		n++
	})
	if got != 0 {
		t.Errorf("%v allocations an Append, want none", got)
	}
	if held := kafka.Held(p); held > 2<<20 {
		t.Errorf("%d bytes are held", held)
	}
}

func TestProducerClose(t *testing.T) {
	noLeaks(t)
	b := newBench(t)
	p := b.producer(kafka.ProducerConfig{Compression: kafka.Zstd, MaxBatchBytes: 5000})
	block := make(chan struct{})
	b.proxy.On(func(r kafkatest.Request) kafkatest.Fate {
		if r.Key == 0 {
			<-block
		}
		return kafkatest.Pass
	})
	b.write(p, 0, 2000)
	p.Close() // while all of it waits
	for name, err := range map[string]error{"Append": p.Append(out(0), nil, nil, nil, 0), "Flush": p.Flush(b.ctx)} {
		if err != kafka.ErrProducerClosed { //nolint:errorlint // the very same
			t.Errorf("%s = %v, want %v", name, err, kafka.ErrProducerClosed)
		}
	}
	close(block)
	p.Close()
}
