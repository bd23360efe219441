package kafka_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// benchEnv makes this binary the broker of a benchmark: its value is the bytes of a
// message and the compression.
const benchEnv = "ELBO_KAFKA_BENCH_BROKER"

// TestFetchBenchBroker is no test: it is the broker process of BenchmarkFetch.
func TestFetchBenchBroker(t *testing.T) {
	var size int
	var codec string
	if n, _ := fmt.Sscan(os.Getenv(benchEnv), &size, &codec); n != 2 {
		t.Skip("SKIPPED: the broker process of BenchmarkFetch, nothing to test")
	}
	compression, random := kgo.NoCompression(), 1.0
	if codec != "none" {
		compression, random = benchCodecs()[codec], 0.5
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(benchParts, "t"), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "20000000"}),
		kfake.SyntheticFetch(kfake.SyntheticBatch{RecordBytes: size, RandomFrac: random, Compression: compression}))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("listening", strings.Join(k.ListenAddrs(), ","))
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the benchmark ends
	k.Close()
}

const benchParts = 4

func benchCodecs() map[string]kgo.CompressionCodec {
	return map[string]kgo.CompressionCodec{"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
}

// benchBroker starts the broker process, so that its CPU is not counted.
func benchBroker(b *testing.B, size int, codec string) []string {
	cmd := exec.Command(os.Args[0], "-test.run=^TestFetchBenchBroker$", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", benchEnv, size, codec))
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	for s := bufio.NewScanner(out); s.Scan(); {
		if addrs, ok := strings.CutPrefix(s.Text(), "listening "); ok {
			return strings.Split(addrs, ",")
		}
	}
	b.Fatal("the broker did not start")
	return nil
}

func cpuTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkFetch reads made-up messages from a broker in another process. What
// counts is msg/cpu-s and MB/cpu-s: all CPU of this process, that of the kernel for
// its sockets and of garbage collection included.
//
//	go test -run '^$' -bench BenchmarkFetch -benchtime 3s ./internal/kafka
func BenchmarkFetch(b *testing.B) {
	clients := []struct {
		name string
		read func(b *testing.B, addrs []string) (more func() (n, bytes int64))
	}{{"elbo", benchElbo}, {"franz-go", benchFranz}, {"kafka-go", benchReader}}
	for _, c := range []struct {
		size  int
		codec string
	}{{256, "none"}, {1 << 10, "none"}, {100 << 10, "none"}, {1 << 10, "gzip"}, {1 << 10, "snappy"}, {1 << 10, "lz4"}, {1 << 10, "zstd"}} {
		b.Run(fmt.Sprintf("size=%d/codec=%s", c.size, c.codec), func(b *testing.B) {
			for _, client := range clients {
				b.Run("client="+client.name, func(b *testing.B) {
					benchFetch(b, benchBroker(b, c.size, c.codec), client.read)
				})
			}
		})
	}
}

func benchFetch(b *testing.B, addrs []string, start func(b *testing.B, addrs []string) func() (n, bytes int64)) {
	more := start(b, addrs)
	for range 20 { // buffers, pools and connections
		more()
	}
	var n, bytes int64
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, wall := cpuTime(b), time.Now()
	for b.Loop() {
		dn, db := more()
		n, bytes = n+dn, bytes+db
	}
	used, took := (cpuTime(b) - cpu).Seconds(), time.Since(wall).Seconds()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(n)/used, "msg/cpu-s")
	b.ReportMetric(float64(bytes)/used/1e6, "MB/cpu-s")
	b.ReportMetric(float64(bytes)/took/1e6, "MB/s")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(n), "allocs/msg")
	b.ReportMetric(0, "ns/op")
}

func benchElbo(b *testing.B, addrs []string) func() (n, bytes int64) {
	c, err := kafka.Open(b.Context(), kafka.Config{Brokers: addrs})
	if err != nil {
		b.Fatal(err)
	}
	f := kafka.NewFetcher(c, kafka.FetchConfig{})
	b.Cleanup(func() {
		f.Close()
		_ = c.Close()
	})
	for p := range int32(benchParts) {
		f.Add(fetchPart(p), 1, 0)
	}
	return func() (n, bytes int64) {
		c, err := f.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Records(func(r *kafka.Record) error {
			n, bytes = n+1, bytes+int64(len(r.Value))
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		c.Release()
		return n, bytes
	}
}

func benchFranz(b *testing.B, addrs []string) func() (n, bytes int64) {
	from := make(map[int32]kgo.Offset)
	for p := range int32(benchParts) {
		from[p] = kgo.NewOffset().At(0)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": from}))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(cl.Close)
	return func() (n, bytes int64) {
		cl.PollFetches(b.Context()).EachRecord(func(r *kgo.Record) { n, bytes = n+1, bytes+int64(len(r.Value)) })
		return n, bytes
	}
}

// benchReader reads one partition: kafka-go's Reader reads no more without a group.
func benchReader(b *testing.B, addrs []string) func() (n, bytes int64) {
	r := kafkago.NewReader(kafkago.ReaderConfig{Brokers: addrs, Topic: "t", MinBytes: 1, MaxBytes: 8 << 20, QueueCapacity: 1000})
	b.Cleanup(func() { _ = r.Close() })
	return func() (n, bytes int64) {
		for range 1000 {
			m, err := r.ReadMessage(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			n, bytes = n+1, bytes+int64(len(m.Value))
		}
		return n, bytes
	}
}

// BenchmarkRecords reads one batch of 4,000 records of 256 bytes, checksum included.
func BenchmarkRecords(b *testing.B) {
	var w kafka.BatchWriter
	w.Reset(kafka.None, nil)
	value := make([]byte, 256)
	for i := range 4000 {
		if err := w.Append(nil, value, nil, int64(i)); err != nil {
			b.Fatal(err)
		}
	}
	raw, err := w.Finish(-1, -1, -1, false)
	if err != nil {
		b.Fatal(err)
	}
	c, _ := kafka.NewChunk(fetchPart(0), 0, raw, nil, 0)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Records(func(*kafka.Record) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4000, "ns/record")
}

// BenchmarkBatchWriter writes one batch of 4,000 records of 256 bytes.
func BenchmarkBatchWriter(b *testing.B) {
	value := make([]byte, 256)
	for i := range value {
		value[i] = "0123456789abcdef"[(i*7+i/16*5)%16]
	}
	for codec := kafka.None; codec <= kafka.Zstd; codec++ {
		b.Run("codec="+codec.String(), func(b *testing.B) {
			var w kafka.BatchWriter
			pool := &kafka.Compressors{}
			b.SetBytes(4000 * 256)
			b.ReportAllocs()
			for b.Loop() {
				w.Reset(codec, pool)
				for i := range 4000 {
					if err := w.Append(nil, value, nil, int64(i)); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := w.Finish(1, 1, 1, true); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/4000, "ns/record")
		})
	}
}
