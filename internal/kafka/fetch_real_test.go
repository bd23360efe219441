package kafka_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// realTopic returns the broker at ELBO_TEST_KAFKA, host:port, with a client of
// franz-go and a fresh topic of one partition.
func realTopic(t *testing.T, opts map[string]string, clientOpts ...kgo.Opt) (addr, topic string, cl *kgo.Client) {
	t.Helper()
	addr = os.Getenv("ELBO_TEST_KAFKA")
	if addr == "" {
		t.Skip("SKIPPED: fetching from Kafka itself: ELBO_TEST_KAFKA=host:port names no broker")
	}
	topic = fmt.Sprintf("elbo-fetch-%d", rand.Uint64())
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.MaxProduceRequestsInflightPerBroker(1)}, clientOpts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	cfg := make(map[string]*string)
	for k, v := range opts {
		cfg[k] = &v
	}
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, cfg, topic); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = kadm.NewClient(cl).DeleteTopics(context.Background(), topic) })
	return addr, topic, cl
}

// realRead reads a topic up to its end by both readers.
func realRead(t *testing.T, addr, topic string, cfg kafka.FetchConfig) (ours, theirs []plainRecord) {
	t.Helper()
	tp := kafka.TopicPartition{Topic: topic}
	c, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ends, err := c.ListOffsets(t.Context(), []kafka.TopicPartition{tp}, -1, cfg.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	starts, err := c.ListOffsets(t.Context(), []kafka.TopicPartition{tp}, -2, cfg.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	f := kafka.NewFetcher(c, cfg)
	defer f.Close()
	f.Add(tp, 1, starts[tp])
	ours = readTo(t, f, ends)[tp]

	isolation := kgo.ReadUncommitted()
	if cfg.ReadCommitted {
		isolation = kgo.ReadCommitted()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(starts[tp])}}))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx := within(t, 20*time.Second)
	for next := starts[tp]; next < ends[tp]; {
		for _, r := range cl.PollFetches(ctx).Records() {
			next = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			p := plainRecord{Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				p.Headers = append(p.Headers, kafka.Header{Key: h.Key, Value: h.Value})
			}
			theirs = append(theirs, p)
		}
		if ctx.Err() != nil { // compaction may leave nothing at the very end
			break
		}
	}
	return ours, theirs
}

func requireSame(t *testing.T, ours, theirs []plainRecord) {
	t.Helper()
	if len(ours) != len(theirs) {
		t.Fatalf("we read %d records, franz-go %d", len(ours), len(theirs))
	}
	for i := range ours {
		if !reflect.DeepEqual(ours[i], theirs[i]) {
			t.Fatalf("record %d: we read %v, franz-go %v", i, ours[i], theirs[i])
		}
	}
}

// TestRealFetchJavaCompression reads what Kafka's own compressors write: a broker
// whose topic has a compression.type packs again what comes without one.
func TestRealFetchJavaCompression(t *testing.T) {
	for _, codec := range []string{"uncompressed", "gzip", "snappy", "lz4", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			addr, topic, cl := realTopic(t, map[string]string{"compression.type": codec, "max.message.bytes": "10000000"},
				kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(5_000_000))
			rng := rand.New(rand.NewPCG(1, 1))
			var rs []*kgo.Record
			for i := range 20000 {
				r := &kgo.Record{Value: bytes.Repeat(fmt.Appendf(nil, "value %d ", rng.IntN(1000)), rng.IntN(40))}
				if i%3 == 0 {
					r.Key, r.Headers = fmt.Append(nil, i), []kgo.RecordHeader{{Key: "h", Value: r.Value[:min(3, len(r.Value))]}, {Key: "null"}}
				}
				rs = append(rs, r)
			}
			if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			ours, theirs := realRead(t, addr, topic, kafka.FetchConfig{PartitionBytes: 50000})
			if len(ours) != len(rs) {
				t.Errorf("%d records of %d", len(ours), len(rs))
			}
			requireSame(t, ours, theirs)
		})
	}
}

// TestRealBatchWriter lets Kafka check, unpack and keep batches of every compression,
// and franz-go read them.
func TestRealBatchWriter(t *testing.T) {
	for codec := kafka.None; codec <= kafka.Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			// Another compression.type makes the broker unpack and pack each batch.
			other := map[bool]string{true: "uncompressed", false: "gzip"}[codec == kafka.Gzip]
			addr, topic, _ := realTopic(t, map[string]string{"compression.type": other})
			c, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{addr}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p, err := kafka.NewProducer(t.Context(), c, kafka.ProducerConfig{Compression: codec})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			var want [][]byte
			for i := range 20000 {
				v := bytes.Repeat(fmt.Appendf(nil, "value %d ", i), i%40)
				want = append(want, v)
				if err := p.Append(kafka.TopicPartition{Topic: topic}, nil, v, []kafka.Header{{Key: "h", Value: nil}}, int64(1700000000000+i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			ours, theirs := realRead(t, addr, topic, kafka.FetchConfig{})
			requireSame(t, ours, theirs)
			for i, r := range theirs {
				if !bytes.Equal(r.Value, want[i]) || r.Offset != int64(i) {
					t.Fatalf("record %d is %v", i, r)
				}
			}
			if len(theirs) != len(want) {
				t.Errorf("%d records of %d", len(theirs), len(want))
			}
		})
	}
}

// TestRealFetchCompacted is F16 on Kafka itself: keys written again and again in
// transactions, every third given up, tombstones among them, then compacted.
func TestRealFetchCompacted(t *testing.T) {
	addr, topic, cl := realTopic(t, map[string]string{
		"cleanup.policy": "compact", "segment.ms": "200", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.001",
		"delete.retention.ms": "1", "max.compaction.lag.ms": "500",
	}, kgo.TransactionalID(fmt.Sprint("elbo-", rand.Uint64())))
	value := bytes.Repeat([]byte("x"), 2000)
	for i := range 30 {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		var rs []*kgo.Record
		for k := range 100 {
			r := &kgo.Record{Key: fmt.Append(nil, k%37*(i%5)), Value: value}
			if k%10 == 3 {
				r.Value = nil
			}
			rs = append(rs, r)
		}
		if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), kgo.TransactionEndTry(i%3 != 0)); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := realRead(t, addr, topic, kafka.FetchConfig{})
	compacted := false
	for deadline := time.Now().Add(60 * time.Second); !compacted && time.Now().Before(deadline); {
		select { // the cleaner looks round every 15 s, and says nothing
		case <-time.After(time.Second):
		case <-t.Context().Done():
		}
		now, _ := realRead(t, addr, topic, kafka.FetchConfig{})
		compacted = len(now) < len(before)/2
	}
	if !compacted {
		t.Fatal("the topic was not compacted in a minute")
	}
	for _, committed := range []bool{true, false} {
		ours, theirs := realRead(t, addr, topic, kafka.FetchConfig{ReadCommitted: committed, PartitionBytes: 3000})
		requireSame(t, ours, theirs)
		if !slices.IsSortedFunc(ours, func(a, b plainRecord) int { return int(a.Offset - b.Offset) }) {
			t.Error("offsets are out of order")
		}
		t.Logf("committed %v: %d records of %d are left", committed, len(ours), len(before))
	}
}

// TestRealFetchLargeBatches reads batches that are larger than an answer may be, from
// partitions that share it with others: Kafka gives such a batch only to the first.
func TestRealFetchLargeBatches(t *testing.T) {
	addr, topic, cl := realTopic(t, map[string]string{"max.message.bytes": "10000000"},
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	const parts, each = 4, 20
	if _, err := kadm.NewClient(cl).UpdatePartitions(t.Context(), parts, topic); err != nil {
		t.Fatal(err)
	}
	var rs []*kgo.Record
	for i := range parts * each {
		p := i % parts
		rs = append(rs, &kgo.Record{Partition: int32(p), Value: bytes.Repeat([]byte{byte(i)}, 900+p%2*200_000)})
	}
	// One at a time, so that each is a batch.
	for _, r := range rs {
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	c, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f := kafka.NewFetcher(c, kafka.FetchConfig{PartitionBytes: 1000, MaxBytes: 2000, Credits: 5000, PartitionCredits: 2000})
	defer f.Close()
	ends := make(map[kafka.TopicPartition]int64)
	for p := range int32(parts) {
		tp := kafka.TopicPartition{Topic: topic, Partition: p}
		ends[tp] = each
		f.Add(tp, 1, 0)
	}
	for tp, got := range readTo(t, f, ends) {
		for i, r := range got {
			if want := rs[i*parts+int(tp.Partition)].Value; !bytes.Equal(r.Value, want) || r.Offset != int64(i) {
				t.Fatalf("%s: record %d has offset %d and %d bytes, want %d", tp, i, r.Offset, len(r.Value), len(want))
			}
		}
		if len(got) != each {
			t.Errorf("%s: %d records of %d", tp, len(got), each)
		}
	}
}
