package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/elbo-stream/elbo/internal/e2e/oracle"
	"github.com/elbo-stream/elbo/internal/e2e/realkafka"
	"github.com/elbo-stream/elbo/internal/kafka"
)

// TestKafkaFetch reads by our Fetcher what others have written to Apache Kafka, and
// compares it with what franz-go reads.
func TestKafkaFetch(t *testing.T) {
	for _, version := range realkafka.Versions(t) {
		t.Run("version="+version, func(t *testing.T) {
			c := realkafka.Start(t, realkafka.Options{Version: version, Config: map[string]string{
				"log.cleaner.backoff.ms": "200", "log.initial.task.delay.ms": "500"}})
			for name, test := range map[string]func(*testing.T, lab){
				"codecs":       testFetchCodecs,
				"transactions": testFetchTransactions,
				"compacted":    testFetchCompacted,
				"out of range": testFetchOutOfRange,
				"large":        testFetchLarge,
				"as it comes":  testFetchAsItComes,
			} {
				t.Run(name, func(t *testing.T) { test(t, newLab(t, c, nil)) })
			}
		})
	}
}

// fetch reads a topic's partitions by our Fetcher, from the offsets (or their
// starts, if nil) to the ends that they have at the beginning.
func (l lab) fetch(t *testing.T, c kafka.FetchConfig, topic string, from map[kafka.TopicPartition]int64) (rs []oracle.Record) {
	t.Helper()
	n, err := l.ours.Partitions(l.ctx, topic)
	must(t, err)
	var tps []kafka.TopicPartition
	for p := range n {
		tps = append(tps, kafka.TopicPartition{Topic: topic, Partition: int32(p)})
	}
	if from == nil {
		from, err = l.ours.ListOffsets(l.ctx, tps, -2, false)
		must(t, err)
	}
	end, err := l.ours.ListOffsets(l.ctx, tps, -1, c.ReadCommitted)
	must(t, err)
	f := kafka.NewFetcher(l.ours, c)
	defer f.Close()
	next := map[kafka.TopicPartition]int64{}
	for _, tp := range tps {
		if next[tp] = from[tp]; from[tp] < end[tp] {
			f.Add(tp, 1, from[tp])
		}
	}
	for slices.ContainsFunc(tps, func(tp kafka.TopicPartition) bool { return next[tp] < end[tp] }) {
		chunk, err := f.Next(l.ctx)
		if err != nil {
			t.Fatalf("%v: read up to %v, want %v", err, next, end)
		}
		must(t, chunk.Err)
		if chunk.First != next[chunk.TP] {
			t.Fatalf("chunk of %v begins at %d, want %d", chunk.TP, chunk.First, next[chunk.TP])
		}
		next[chunk.TP] = chunk.Next
		must(t, chunk.Records(func(r *kafka.Record) error {
			rs = append(rs, fromOurs(chunk.TP, r))
			return nil
		}))
		chunk.Release()
	}
	return tidyOrder(rs)
}

func fromOurs(tp kafka.TopicPartition, r *kafka.Record) oracle.Record {
	o := oracle.Record{Topic: tp.Topic, Partition: tp.Partition, Offset: r.Offset, Timestamp: r.Timestamp, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value)}
	for _, h := range r.Headers.AppendTo(nil) {
		o.Headers = append(o.Headers, oracle.Header(h))
	}
	return o
}

// agree compares our reading of a topic, committed and all, with franz-go's.
func (l lab) agree(t *testing.T, c kafka.FetchConfig, topic string) (committed []oracle.Record) {
	t.Helper()
	want, err := oracle.Read(l.ctx, l.Brokers, topic)
	must(t, err)
	c.ReadCommitted = true
	compare(t, "committed records of "+topic, l.fetch(t, c, topic, nil), want)
	all, err := oracle.ReadAll(l.ctx, l.Brokers, topic)
	must(t, err)
	c.ReadCommitted = false
	compare(t, "all records of "+topic, l.fetch(t, c, topic, nil), all)
	return want
}

// franz returns a client that writes to chosen partitions.
func (l lab) franz(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	k, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(l.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner())}, options...)...)
	must(t, err)
	t.Cleanup(k.Close)
	return k
}

// toFranz turns a record into franz-go's.
func toFranz(r oracle.Record) *kgo.Record {
	k := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Timestamp)}
	for _, h := range r.Headers {
		k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return k
}

// testFetchCodecs reads what franz-go, librdkafka and Java have written with each
// compression.
func testFetchCodecs(t *testing.T, l lab) {
	for name, codec := range map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()} {
		topic := l.topic(t, "fetch-"+name, 2)
		rs := oddRecords(topic, 2, 600)
		k := l.franz(t, kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(4000))
		for _, r := range rs {
			k.Produce(l.ctx, toFranz(r), func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		must(t, k.Flush(l.ctx))
		writers := 1
		headers := []oracle.Header{{Key: "from", Value: []byte("librdkafka")}}
		var lines []string
		for i := range 300 {
			lines = append(lines, fmt.Sprintf("kcat-%d|a value that repeats itself, a value that repeats itself %d", i, i))
		}
		switch err := oracle.KcatProduce(l.ctx, l.Brokers, topic, 1, name, headers, lines); {
		case errors.Is(err, oracle.ErrNoKcat):
			t.Logf("SKIPPED: %v", err)
		default:
			must(t, err)
			writers++
		}
		var java []oracle.Record
		for i := range 300 {
			java = append(java, oracle.Record{Key: fmt.Appendf(nil, "java-%d", i), Value: []byte("what Java writes, what Java writes"), Headers: []oracle.Header{{Key: "from", Value: []byte("Java")}}})
		}
		must(t, l.ConsoleWrite(l.ctx, topic, name, java))
		if got := l.agree(t, kafka.FetchConfig{PartitionBytes: 3000}, topic); len(got) != 600+300*writers {
			t.Errorf("%s: %d records, want 600 and 300 of each of %d more writers", name, len(got), writers)
		}
	}
}

// testFetchTransactions reads a partition in which three writers' transactions are mixed,
// some committed, some aborted, some empty, from every offset on.
func testFetchTransactions(t *testing.T, l lab) {
	topic := l.topic(t, "fetch-transactions", 2)
	random := rand.New(rand.NewPCG(1, 2))
	var ks []*kgo.Client
	for i := range 3 {
		ks = append(ks, l.franz(t, kgo.TransactionalID(fmt.Sprintf("fetch-%d", i)), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0)))
	}
	open := make([]bool, len(ks))
	for i := range 150 {
		who := random.IntN(len(ks))
		k := ks[who]
		if !open[who] {
			must(t, k.BeginTransaction())
			open[who] = true
		}
		for j := range random.IntN(4) {
			r := &kgo.Record{Partition: int32(random.IntN(2)), Key: fmt.Appendf(nil, "%d-%d-%d", who, i, j)}
			must(t, k.ProduceSync(l.ctx, r).FirstErr())
		}
		if random.IntN(3) == 0 {
			must(t, k.EndTransaction(l.ctx, kgo.TransactionEndTry(random.IntN(2) == 0)))
			open[who] = false
		}
	}
	// Open ones hide what is behind them. The end that is asked for afterwards may
	// only be further on, since a broker ends transactions after it has said so.
	tps := []kafka.TopicPartition{{Topic: topic}, {Topic: topic, Partition: 1}}
	got := l.fetch(t, kafka.FetchConfig{ReadCommitted: true}, topic, nil)
	stable, err := l.ours.ListOffsets(l.ctx, tps, -1, true)
	must(t, err)
	for _, r := range got {
		if r.Offset >= stable[kafka.TopicPartition{Topic: topic, Partition: r.Partition}] {
			t.Errorf("%s is read while a transaction before it is open", show(r))
		}
	}
	for i, k := range ks {
		if open[i] {
			must(t, k.EndTransaction(l.ctx, kgo.TryAbort))
		}
	}
	want := l.agree(t, kafka.FetchConfig{}, topic)
	l.agree(t, kafka.FetchConfig{PartitionBytes: 200}, topic) // an answer ends anywhere
	end, err := l.ours.ListOffsets(l.ctx, tps, -1, true)
	must(t, err)
	for at := int64(1); at < end[tps[0]]; at += 3 {
		from := map[kafka.TopicPartition]int64{tps[0]: at, tps[1]: end[tps[1]]}
		rest := slices.DeleteFunc(slices.Clone(want), func(r oracle.Record) bool { return r.Partition != 0 || r.Offset < at })
		compare(t, fmt.Sprintf("from offset %d on", at), l.fetch(t, kafka.FetchConfig{ReadCommitted: true, PartitionBytes: 300}, topic, from), rest)
	}
}

// testFetchCompacted reads a topic in which compaction has left holes, in
// batches, of batches, and at the ends of batches.
func testFetchCompacted(t *testing.T, l lab) {
	must(t, l.CreateTopic(l.ctx, "fetch-compacted", 1, map[string]string{"cleanup.policy": "compact", "segment.bytes": "1048576", "segment.ms": "100",
		"min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "0", "min.compaction.lag.ms": "0"}))
	topic := "fetch-compacted"
	plain, txn := l.franz(t), l.franz(t, kgo.TransactionalID("compacted"))
	write := func(k *kgo.Client, round, keys int) {
		for i := range keys {
			r := &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "k%d", i*(round%3+1)), Value: fmt.Appendf(nil, "%d", round)}
			if round%4 == 3 && i%5 == 0 {
				r.Value = nil
			}
			k.Produce(l.ctx, r, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		must(t, k.Flush(l.ctx))
	}
	most := 0
	for round := 0; ; round++ {
		write(plain, round, 200)
		must(t, txn.BeginTransaction())
		write(txn, round, 50)
		must(t, txn.EndTransaction(l.ctx, kgo.TransactionEndTry(round%2 == 0)))
		most += 250
		if round < 8 {
			continue
		}
		got, err := oracle.ReadAll(l.ctx, l.Brokers, topic)
		must(t, err)
		if len(got) < most/2 { // the cleaner has been there
			t.Logf("%d of %d records are left", len(got), most)
			break
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-l.ctx.Done():
			t.Fatalf("nothing was compacted: %d records", len(got))
		}
	}
	l.settleCleaner(t, topic)
	l.agree(t, kafka.FetchConfig{}, topic)
	l.agree(t, kafka.FetchConfig{PartitionBytes: 500}, topic)
}

// settleCleaner waits until two readings one second apart are the same, since
// compaction goes on while we look.
func (l lab) settleCleaner(t *testing.T, topic string) {
	t.Helper()
	for before := -1; ; {
		got, err := oracle.ReadAll(l.ctx, l.Brokers, topic)
		must(t, err)
		if len(got) == before {
			return
		}
		before = len(got)
		select {
		case <-time.After(1500 * time.Millisecond):
		case <-l.ctx.Done():
			t.Fatal("compaction does not settle")
		}
	}
}

// testFetchOutOfRange reads from offsets that retention has taken, and from behind
// the end.
func testFetchOutOfRange(t *testing.T, l lab) {
	topic := l.topic(t, "fetch-range", 1)
	tp := kafka.TopicPartition{Topic: topic}
	k := l.franz(t)
	for range 100 {
		must(t, k.ProduceSync(l.ctx, &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr())
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, 40, -1)
	deleted, err := kadm.NewClient(k).DeleteRecords(l.ctx, offsets)
	must(t, err)
	must(t, deleted.Error())
	for _, at := range []int64{0, 39, 101} {
		f := kafka.NewFetcher(l.ours, kafka.FetchConfig{})
		f.Add(tp, 9, at)
		c, err := f.Next(l.ctx)
		must(t, err)
		var gap *kafka.OffsetOutOfRangeError
		if !errors.As(c.Err, &gap) || gap.Asked != at || gap.LogStart != 40 || gap.End != 100 || c.Epoch != 9 {
			t.Errorf("offset %d: chunk %+v with error %v, want that the log holds 40 to 100", at, c, c.Err)
		}
		c.Release()
		f.Close()
	}
	if got := l.fetch(t, kafka.FetchConfig{}, topic, map[kafka.TopicPartition]int64{tp: 40}); len(got) != 60 || got[0].Offset != 40 {
		t.Errorf("from the log's start: %d records, want 60", len(got))
	}
}

// testFetchLarge reads messages that are larger than what is asked for, and than
// the credit of a partition.
func testFetchLarge(t *testing.T, l lab) {
	topic := "fetch-large"
	must(t, l.CreateTopic(l.ctx, topic, 1, map[string]string{"max.message.bytes": "6000000"}))
	p := l.producer(t, kafka.ProducerConfig{MaxBatchBytes: 5_500_000})
	noise := make([]byte, 5_000_000)
	random := rand.NewChaCha8([32]byte{})
	random.Read(noise)
	var want []oracle.Record
	for i, n := range []int{10, 5_000_000, 0, 3_000_000, 1_000_000, 7, 4_999_999, 1} {
		r := oracle.Record{Topic: topic, Offset: int64(i), Timestamp: int64(1000 + i), Value: noise[:n]}
		must(t, p.Append(kafka.TopicPartition{Topic: topic}, r.Key, r.Value, nil, r.Timestamp))
		want = append(want, r)
	}
	must(t, p.Flush(l.ctx))
	for _, c := range []kafka.FetchConfig{{}, {PartitionBytes: 64 << 10, MaxBytes: 64 << 10, Credits: 100_000, PartitionCredits: 50_000}} {
		compare(t, "large messages", l.fetch(t, c, topic, nil), want)
	}
	got, err := oracle.Read(l.ctx, l.Brokers, topic)
	must(t, err)
	compare(t, "franz-go", got, want)
}

// testFetchAsItComes reads while others write, takes partitions away and gives them
// back at another offset.
func testFetchAsItComes(t *testing.T, l lab) {
	topic := l.topic(t, "fetch-live", 3)
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	k := l.franz(t)
	wrote := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			k.Produce(ctx, &kgo.Record{Topic: topic, Partition: int32(n % 3), Key: fmt.Appendf(nil, "%d", n)}, nil)
			if n++; n%50 == 0 {
				_ = k.Flush(ctx)
			}
		}
		wrote <- n
	}()
	f := kafka.NewFetcher(l.ours, kafka.FetchConfig{})
	defer f.Close()
	next, epoch := map[kafka.TopicPartition]int64{}, map[kafka.TopicPartition]int64{}
	for p := range int32(3) {
		f.Add(kafka.TopicPartition{Topic: topic, Partition: p}, 0, 0)
	}
	random := rand.New(rand.NewPCG(3, 4))
	for i := range 400 {
		c, err := f.Next(l.ctx)
		must(t, err)
		must(t, c.Err)
		tp := c.TP
		if c.Epoch != epoch[tp] || c.First != next[tp] {
			t.Fatalf("chunk %d: %v of epoch %d begins at %d, want epoch %d, offset %d", i, tp, c.Epoch, c.First, epoch[tp], next[tp])
		}
		at := c.First
		must(t, c.Records(func(r *kafka.Record) error {
			if r.Offset != at || string(r.Key) != fmt.Sprint(3*at+int64(tp.Partition)) {
				return fmt.Errorf("%v: record %d has key %s, want offset %d", tp, r.Offset, r.Key, at)
			}
			at++
			return nil
		}))
		c.Release()
		if at != c.Next {
			t.Errorf("%v: records up to %d, but Next is %d", tp, at, c.Next)
		}
		if next[tp] = c.Next; random.IntN(4) == 0 { // taken away, and given back from somewhere before
			f.Remove(tp)
			epoch[tp]++
			next[tp] = random.Int64N(next[tp] + 1)
			f.Add(tp, epoch[tp], next[tp])
		}
	}
	cancel()
	t.Logf("%d messages were written meanwhile", <-wrote)
}
