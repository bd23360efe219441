package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// fetchBroker starts a fake cluster, which goes with the test.
func fetchBroker(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	k, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.SeedTopics(4, "t")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// fetchFranz returns franz-go's client, which is the other side of every test here.
func fetchFranz(t testing.TB, k *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// openFetcher opens a cluster and a fetcher on it.
func openFetcher(t testing.TB, k *kfake.Cluster, cfg kafka.FetchConfig) (*kafka.Cluster, *kafka.Fetcher) {
	t.Helper()
	c, err := kafka.Open(t.Context(), kafka.Config{Brokers: k.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	f := kafka.NewFetcher(c, cfg)
	t.Cleanup(func() {
		f.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, f
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// leakless fails the test when it leaves goroutines behind.
func leakless(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
}

func fetchPart(p int32) kafka.TopicPartition { return kafka.TopicPartition{Topic: "t", Partition: p} }

// plain copies a record.
func plain(r *kafka.Record) plainRecord {
	p := plainRecord{Offset: r.Offset, Timestamp: r.Timestamp}
	if r.Key != nil {
		p.Key = append([]byte{}, r.Key...)
	}
	if r.Value != nil {
		p.Value = append([]byte{}, r.Value...)
	}
	p.Headers = r.Headers.AppendTo(nil)
	return p
}

// readTo reads until each partition has come to its end, and requires that chunks
// follow each other without a gap.
func readTo(t testing.TB, f *kafka.Fetcher, ends map[kafka.TopicPartition]int64) map[kafka.TopicPartition][]plainRecord {
	t.Helper()
	ctx := within(t, 30*time.Second)
	got := make(map[kafka.TopicPartition][]plainRecord)
	next := make(map[kafka.TopicPartition]int64)
	open := len(ends)
	for open > 0 {
		c, err := f.Next(ctx)
		if err != nil {
			t.Fatalf("Next: %v; at %v of %v", err, next, ends)
		}
		if c.Err != nil {
			t.Fatalf("%s: %v", c.TP, c.Err)
		}
		if at, ok := next[c.TP]; ok && c.First != at {
			t.Fatalf("%s: a chunk begins at %d, want %d", c.TP, c.First, at)
		}
		if err := c.Records(func(r *kafka.Record) error {
			got[c.TP] = append(got[c.TP], plain(r))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		before := next[c.TP]
		next[c.TP] = c.Next
		if before < ends[c.TP] && c.Next >= ends[c.TP] {
			open--
		}
		c.Release()
	}
	return got
}

// offsets returns what a record says that it is.
func offsets(rs []plainRecord) []int64 {
	var out []int64
	for _, r := range rs {
		out = append(out, r.Offset)
	}
	return out
}

func TestFetchFranzRecords(t *testing.T) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for name, codec := range codecs {
		t.Run(name, func(t *testing.T) {
			leakless(t)
			k := fetchBroker(t)
			cl := fetchFranz(t, k, kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(5*time.Millisecond), kgo.ProducerBatchMaxBytes(30000))
			rng := rand.New(rand.NewPCG(1, 2))
			value := func(nilOK bool) []byte {
				switch n := rng.IntN(10); {
				case n == 0 && nilOK:
					return nil
				case n == 1:
					return []byte{}
				default:
					b := make([]byte, rng.IntN(400))
					for i := range b {
						b[i] = "abcdefgh"[rng.IntN(8)]
					}
					return b
				}
			}
			var sent []*kgo.Record
			for i := range 2000 {
				r := &kgo.Record{Topic: "t", Partition: int32(i % 4), Key: value(true), Value: value(true), Timestamp: time.UnixMilli(int64(1700000000000 + rng.IntN(100000)))}
				for range rng.IntN(3) {
					r.Headers = append(r.Headers, kgo.RecordHeader{Key: fmt.Sprint("h", rng.IntN(3)), Value: value(true)})
				}
				sent = append(sent, r)
			}
			if err := cl.ProduceSync(t.Context(), sent...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			want := make(map[kafka.TopicPartition][]plainRecord)
			ends := make(map[kafka.TopicPartition]int64)
			for _, r := range sent {
				tp := fetchPart(r.Partition)
				p := plainRecord{Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
				for _, h := range r.Headers {
					p.Headers = append(p.Headers, kafka.Header{Key: h.Key, Value: h.Value})
				}
				want[tp] = append(want[tp], p)
				ends[tp] = r.Offset + 1
			}
			_, f := openFetcher(t, k, kafka.FetchConfig{PartitionBytes: 20000})
			for tp := range ends {
				f.Add(tp, 1, 0)
			}
			// Comparing by cmp takes ten times as long as all the rest.
			if got := readTo(t, f, ends); !reflect.DeepEqual(want, got) {
				t.Errorf("read (-want +got):\n%s", cmp.Diff(want, got))
			}
		})
	}
}

// produceTxn writes n records to a partition in one transaction.
func produceTxn(t testing.TB, cl *kgo.Client, p int32, n int, end kgo.TransactionEndTry) {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		cl.Produce(t.Context(), &kgo.Record{Topic: "t", Partition: p, Value: fmt.Append(nil, i)}, nil)
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), end); err != nil {
		t.Fatal(err)
	}
}

func TestFetchTransactions(t *testing.T) {
	leakless(t)
	k := fetchBroker(t)
	a, b := fetchFranz(t, k, kgo.TransactionalID("a")), fetchFranz(t, k, kgo.TransactionalID("b"))
	produceTxn(t, a, 0, 3, kgo.TryCommit) // 0-2, marker 3
	produceTxn(t, a, 0, 2, kgo.TryAbort)  // 4-5, marker 6
	produceTxn(t, a, 0, 1, kgo.TryCommit) // 7, marker 8
	// Two that overlap, one given up: b 9, a 10, marker a 11, b 12, marker b 13.
	for _, cl := range []*kgo.Client{a, b} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
	}
	one := func(cl *kgo.Client) {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t"}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	one(b)
	one(a)
	if err := a.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	one(b)
	if err := b.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	plainly := fetchFranz(t, k)
	one(plainly) // 14
	for _, c := range []struct {
		name      string
		committed bool
		from      int64
		want      []int64
	}{
		{"read_committed", true, 0, []int64{0, 1, 2, 7, 10, 14}},
		{"read_uncommitted", false, 0, []int64{0, 1, 2, 4, 5, 7, 9, 10, 12, 14}},
		{"from inside an aborted transaction", true, 5, []int64{7, 10, 14}},
		{"from a marker", true, 6, []int64{7, 10, 14}},
		{"from inside a batch", true, 1, []int64{1, 2, 7, 10, 14}},
		{"from the second half of an aborted transaction", true, 11, []int64{14}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, f := openFetcher(t, k, kafka.FetchConfig{ReadCommitted: c.committed})
			f.Add(fetchPart(0), 1, c.from)
			got := readTo(t, f, map[kafka.TopicPartition]int64{fetchPart(0): 15})
			if d := cmp.Diff(c.want, offsets(got[fetchPart(0)])); d != "" {
				t.Errorf("offsets (-want +got):\n%s", d)
			}
		})
	}
}

func TestFetchOffsetOutOfRange(t *testing.T) {
	leakless(t)
	k := fetchBroker(t)
	cl := fetchFranz(t, k)
	for range 10 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t"}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	del := kadm.Offsets{}
	del.Add(kadm.Offset{Topic: "t", Partition: 0, At: 4})
	if _, err := kadm.NewClient(cl).DeleteRecords(t.Context(), del); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{1, 99} {
		_, f := openFetcher(t, k, kafka.FetchConfig{})
		f.Add(fetchPart(0), 7, at)
		c, err := f.Next(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		var gone *kafka.OffsetOutOfRangeError
		want := kafka.OffsetOutOfRangeError{TP: fetchPart(0), Asked: at, LogStart: 4, End: 10}
		if !errors.As(c.Err, &gone) || *gone != want || c.Epoch != 7 {
			t.Errorf("offset %d: %v of epoch %d, want %v of epoch 7", at, c.Err, c.Epoch, &want)
		}
		if err := c.Records(func(*kafka.Record) error { return errors.New("a record") }); err != nil {
			t.Error(err)
		}
		c.Release()
		// It goes on where it is told to.
		f.Remove(fetchPart(0))
		f.Add(fetchPart(0), 8, 4)
		got := readTo(t, f, map[kafka.TopicPartition]int64{fetchPart(0): 10})
		if d := cmp.Diff([]int64{4, 5, 6, 7, 8, 9}, offsets(got[fetchPart(0)])); d != "" {
			t.Errorf("offsets (-want +got):\n%s", d)
		}
	}
}

// TestFetchLeaderMoves reads while leaders move about, and requires every record
// once.
func TestFetchLeaderMoves(t *testing.T) {
	leakless(t)
	k := fetchBroker(t)
	cl := fetchFranz(t, k)
	const each = 20000
	stop := make(chan struct{})
	moved := make(chan int)
	var moves atomic.Int64
	go func() {
		n := 0
		for tick := time.NewTicker(50 * time.Millisecond); ; n++ {
			select {
			case <-tick.C:
				k.ShufflePartitionLeaders()
				moves.Add(1)
			case <-stop:
				tick.Stop()
				moved <- n
				return
			}
		}
	}()
	_, f := openFetcher(t, k, kafka.FetchConfig{PartitionBytes: 20000, MaxWait: 50 * time.Millisecond})
	ends := make(map[kafka.TopicPartition]int64)
	for p := range int32(4) {
		f.Add(fetchPart(p), 1, 0)
		ends[fetchPart(p)] = each
	}
	sent := make(chan error, 1)
	go func() {
		for i := range 4 * each {
			cl.Produce(t.Context(), &kgo.Record{Topic: "t", Partition: int32(i % 4), Value: fmt.Append(nil, i)}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		sent <- cl.Flush(t.Context())
	}()
	got := readTo(t, f, ends)
	close(stop)
	<-moved
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for tp, rs := range got {
		for i, r := range rs {
			if r.Offset != int64(i) {
				t.Fatalf("%s: record %d has offset %d", tp, i, r.Offset)
			}
		}
	}
	t.Logf("%d moves", moves.Load())
}

// TestFetchKcat reads what librdkafka writes, whose compressors are C.
func TestFetchKcat(t *testing.T) {
	kcat, err := exec.LookPath("kcat")
	if err != nil {
		t.Skipf("SKIPPED: what librdkafka writes: %v", err)
	}
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			k := fetchBroker(t)
			var lines strings.Builder
			const n = 30000
			for i := range n {
				fmt.Fprintf(&lines, "message %d %s\n", i, strings.Repeat("ab", i%50))
			}
			cmd := exec.CommandContext(t.Context(), kcat, "-P", "-b", k.ListenAddrs()[0], "-t", "t", "-p", "0", "-z", codec, "-X", "linger.ms=100")
			cmd.Stdin = strings.NewReader(lines.String())
			if out, err := cmd.CombinedOutput(); err != nil {
				if strings.Contains(string(out), "nsupported") {
					t.Skipf("SKIPPED: kcat has no %s: %s", codec, out)
				}
				t.Fatalf("kcat: %v\n%s", err, out)
			}
			_, f := openFetcher(t, k, kafka.FetchConfig{})
			f.Add(fetchPart(0), 1, 0)
			var got strings.Builder
			for _, r := range readTo(t, f, map[kafka.TopicPartition]int64{fetchPart(0): n})[fetchPart(0)] {
				got.Write(r.Value)
				got.WriteByte('\n')
			}
			if got.String() != lines.String() {
				t.Errorf("%d bytes of values are not the %d that were written", got.Len(), lines.Len())
			}
		})
	}
}
