package kafka_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// fakeCluster starts a fake cluster and connects to it.
func fakeCluster(t testing.TB, opts ...kfake.Opt) (*kfake.Cluster, *kafka.Cluster) {
	t.Helper()
	f, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.SeedTopics(4, "in", "out")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	c, err := kafka.Open(t.Context(), kafka.Config{Brokers: f.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return f, c
}

// committed reads what franz-go sees of a topic with read_committed, up to n records.
func committed(t testing.TB, f *kfake.Cluster, topic string, n int) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(f.ListenAddrs()...), kgo.ConsumeTopics(topic),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var all []*kgo.Record
	for quiet := 0; quiet < 2 && len(all) <= n; {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		got := cl.PollFetches(ctx).Records()
		cancel()
		if len(got) == 0 && len(all) >= n {
			quiet++
		}
		all = append(all, got...)
		if t.Context().Err() != nil {
			break
		}
	}
	return all
}

func TestProducerTransactions(t *testing.T) {
	f, c := fakeCluster(t)
	p, err := kafka.NewProducer(t.Context(), c, kafka.ProducerConfig{TransactionalID: "x", MaxBatchBytes: 2000})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	write := func(from, n int) {
		for i := from; i < from+n; i++ {
			tp := kafka.TopicPartition{Topic: "out", Partition: int32(i % 4)}
			if err := p.Append(tp, []byte("k"), fmt.Appendf(nil, "%d", i), []kafka.Header{{Key: "h", Value: []byte("v")}}, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	in := kafka.TopicPartition{Topic: "in", Partition: 1}
	m := &kafka.Member{Group: "g", Generation: -1}
	write(0, 1000)
	if err := p.Commit(t.Context(), m, map[kafka.TopicPartition]kafka.Committed{in: {Offset: 10}}); err != nil {
		t.Fatal(err)
	}
	write(5000, 1000)
	if err := p.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(1000, 1000)
	if err := p.Commit(t.Context(), m, map[kafka.TopicPartition]kafka.Committed{in: {Offset: 20}}); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, r := range committed(t, f, "out", 2000) {
		seen[string(r.Value)]++
	}
	for i := range 2000 {
		if n := seen[fmt.Sprint(i)]; n != 1 {
			t.Errorf("record %d is there %d times", i, n)
		}
	}
	if len(seen) != 2000 {
		t.Errorf("%d records, want 2000", len(seen))
	}
	kept, err := c.CommittedOffsets(t.Context(), "g", []kafka.TopicPartition{in})
	if err != nil || kept[in].Offset != 20 {
		t.Errorf("committed %v, %v; want 20", kept[in], err)
	}
	// Another with the same id fences the first one.
	q, err := kafka.NewProducer(t.Context(), c, kafka.ProducerConfig{TransactionalID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	write(9000, 1)
	if err := p.Commit(t.Context(), m, map[kafka.TopicPartition]kafka.Committed{in: {Offset: 30}}); err == nil {
		t.Error("a zombie committed")
	} else {
		t.Log(err)
	}
}
