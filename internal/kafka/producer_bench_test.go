package kafka_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// produceBenchEnv makes this binary the broker of BenchmarkProduce.
const produceBenchEnv = "ELBO_KAFKA_BENCH_PRODUCE"

// TestProduceBenchBroker is no test: it is the broker process of BenchmarkProduce.
func TestProduceBenchBroker(t *testing.T) {
	if os.Getenv(produceBenchEnv) == "" {
		t.Skip("SKIPPED: the broker process of BenchmarkProduce, nothing to test")
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(benchParts, "in", "out"), kfake.BlackholeProduce())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("listening", strings.Join(k.ListenAddrs(), ","))
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the benchmark ends
	k.Close()
}

// produceBroker starts the broker process, so that its CPU is not counted.
func produceBroker(b *testing.B) []string {
	cmd := exec.Command(os.Args[0], "-test.run=^TestProduceBenchBroker$", "-test.v")
	cmd.Env = append(os.Environ(), produceBenchEnv+"=1")
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

// commitRows is how many rows of 256 bytes are in each commit of BenchmarkProduce.
const commitRows = 5000

// BenchmarkProduce writes to a broker in another process, which stores nothing. A
// round is 5,000 rows of 256 bytes in 4 partitions, and their commit or flush. What
// counts is rows/cpu-s: all CPU of this process, that of the kernel for its sockets
// and of garbage collection included.
//
//	go test -run '^$' -bench BenchmarkProduce -benchtime 3s ./internal/kafka
func BenchmarkProduce(b *testing.B) {
	for _, codec := range []kafka.Compression{kafka.None, kafka.Lz4} {
		for _, exact := range []bool{false, true} {
			for name, start := range map[string]func(*testing.B, []string, kafka.Compression, bool) func(value []byte){"elbo": produceElbo, "franz-go": produceFranz} {
				b.Run(fmt.Sprintf("codec=%v/mode=%s/client=%s", codec, mode(exact), name), func(b *testing.B) {
					benchProduce(b, start(b, produceBroker(b), codec, exact))
				})
			}
		}
	}
}

func benchProduce(b *testing.B, round func(value []byte)) {
	value := []byte(strings.Repeat("0.123456,", 29))[:256]
	for range 20 { // buffers, pools and connections
		round(value)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, wall, n := cpuTime(b), time.Now(), 0
	for b.Loop() {
		round(value)
		n += commitRows
	}
	used, took := (cpuTime(b) - cpu).Seconds(), time.Since(wall).Seconds()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(n)/used, "rows/cpu-s")
	b.ReportMetric(float64(n)/took, "rows/s")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(n), "allocs/row")
	b.ReportMetric(took/float64(b.N)*1e3, "ms/commit")
	b.ReportMetric(0, "ns/op")
}

func produceElbo(b *testing.B, addrs []string, codec kafka.Compression, exact bool) func(value []byte) {
	c, err := kafka.Open(b.Context(), kafka.Config{Brokers: addrs})
	if err != nil {
		b.Fatal(err)
	}
	cfg := kafka.ProducerConfig{Compression: codec}
	if exact {
		cfg.TransactionalID = "bench"
	}
	p, err := kafka.NewProducer(b.Context(), c, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		p.Close()
		_ = c.Close()
	})
	next := int64(0)
	return func(value []byte) {
		for i := range commitRows {
			if err := p.Append(out(i%benchParts), value[:8], value, nil, 1); err != nil {
				b.Fatal(err)
			}
		}
		next += commitRows
		var err error
		if exact {
			err = p.Commit(b.Context(), outsider, at(next))
		} else {
			err = p.Flush(b.Context())
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func produceFranz(b *testing.B, addrs []string, codec kafka.Compression, exact bool) func(value []byte) {
	opts := []kgo.Opt{kgo.SeedBrokers(addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression())}
	if codec != kafka.None {
		opts = append(opts, kgo.ProducerBatchCompression(benchCodecs()[codec.String()]))
	}
	if exact {
		opts = append(opts, kgo.TransactionalID("bench"))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(cl.Close)
	rs := make([]kgo.Record, commitRows) // used again, which is as cheap as it gets
	return func(value []byte) {
		if exact {
			if err := cl.BeginTransaction(); err != nil {
				b.Fatal(err)
			}
		}
		for i := range rs {
			rs[i] = kgo.Record{Topic: "out", Partition: int32(i % benchParts), Key: value[:8], Value: value}
			cl.Produce(b.Context(), &rs[i], func(_ *kgo.Record, err error) {
				if err != nil {
					b.Error(err)
				}
			})
		}
		err := cl.Flush(b.Context())
		if err == nil && exact { // without a group's offset, which ours has
			err = cl.EndTransaction(b.Context(), kgo.TryCommit)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
