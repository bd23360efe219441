package kafka_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/elbo-stream/elbo/internal/kafka"
)

func TestCluster(t *testing.T) {
	f, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(4, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := kafka.Open(ctx, kafka.Config{Brokers: f.ListenAddrs()[:1]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Partitions(ctx, "t"); n != 4 || err != nil {
		t.Errorf("Partitions = %d, %v; want 4", n, err)
	}
	if _, err := c.Partitions(ctx, "none"); err == nil {
		t.Error("a topic that is not there has partitions")
	}
	var tps []kafka.TopicPartition
	for p := range int32(4) {
		tp := kafka.TopicPartition{Topic: "t", Partition: p}
		tps = append(tps, tp)
		want := f.LeaderFor("t", p)
		if got, err := c.Leader(ctx, tp); got != want || err != nil {
			t.Errorf("Leader(%s) = %d, %v; want %d", tp, got, err, want)
		}
	}
	ends, err := c.ListOffsets(ctx, tps, -1, true)
	if len(ends) != 4 || err != nil {
		t.Errorf("ListOffsets = %v, %v", ends, err)
	}
	kept, err := c.CommittedOffsets(ctx, "g", tps)
	if err != nil {
		t.Errorf("CommittedOffsets of a new group: %v", err)
	}
	for tp, k := range kept {
		if k.Offset != -1 {
			t.Errorf("%s: offset %d, want -1", tp, k.Offset)
		}
	}
	if err := c.CommitOffsets(ctx, kafka.Member{Group: "g", Generation: -1}, map[kafka.TopicPartition]kafka.Committed{tps[2]: {Offset: 7, Metadata: "m"}}); err != nil {
		t.Fatal(err)
	}
	if kept, err = c.CommittedOffsets(ctx, "g", tps); err != nil || kept[tps[2]] != (kafka.Committed{Offset: 7, Metadata: "m"}) {
		t.Errorf("CommittedOffsets = %v, %v", kept, err)
	}
}
