package kafka_test

import (
	"bytes"
	"context"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/segmentio/kafka-go"
	twmb "github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"

	own "github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/arrowipc"
	"github.com/elbo-stream/elbo/pipeline/codec/avro"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
	sink "github.com/elbo-stream/elbo/sinks/kafka"
	source "github.com/elbo-stream/elbo/sources/kafka"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// The benchmarks run against a broker in another process, so that the processor time
// of this one is elbo's alone. They report microseconds of it for each row
// (us-cpu/row), which the clock does not: the broker works on the same cores.

// benchRows is how many rows of 32 numbers a topic holds.
const benchRows = 400_000

// benchCluster starts the broker and fills its topics once.
var benchCluster = sync.OnceValues(func() (string, error) {
	_, addrs, err := startBroker("bench")
	if err != nil {
		return "", err
	}
	return addrs[0], fill(addrs[0])
})

func benchColumns() []codec.Column {
	var all []codec.Column
	for i := range 32 {
		all = append(all, codec.Column{Name: fmt.Sprintf("f%d", i), Type: arrow.PrimitiveTypes.Float32})
	}
	return all
}

// fill writes documents of about 520 bytes, and the same numbers as Arrow IPC, 256
// rows a message.
func fill(addr string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(200_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer cl.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	var first error
	var mu sync.Mutex
	done := func(_ *kgo.Record, err error) {
		if err != nil {
			mu.Lock()
			first = errors.Join(first, err)
			mu.Unlock()
		}
	}
	var fields []arrow.Field
	for _, c := range benchColumns() {
		fields = append(fields, arrow.Field{Name: c.Name, Type: c.Type, Nullable: true})
	}
	schema := arrow.NewSchema(fields, nil)
	avros, err := avroMessages()
	if err != nil {
		return err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := range benchRows {
		doc := fmt.Appendf(nil, `{"id":"%012d","ts":%d`, i, 1700000000000+i)
		for f := range 32 {
			v := float32(rng.NormFloat64())
			doc = fmt.Appendf(doc, `,"f%d":%.6f`, f, v)
			b.Field(f).(*array.Float32Builder).Append(v)
		}
		cl.Produce(context.Background(), &kgo.Record{Topic: "json", Value: append(doc, '}')}, done)
		cl.Produce(context.Background(), &kgo.Record{Topic: "avro", Value: avros[i%len(avros)]}, done)
		if (i+1)%256 == 0 || i+1 == benchRows {
			rec := b.NewRecord()
			var msg bytes.Buffer
			w := ipc.NewWriter(&msg, ipc.WithSchema(schema))
			err := errors.Join(w.Write(rec), w.Close())
			rec.Release()
			if err != nil {
				return err
			}
			cl.Produce(context.Background(), &kgo.Record{Topic: "arrow", Value: msg.Bytes()}, done)
		}
	}
	return errors.Join(cl.Flush(context.Background()), first)
}

// avroSchema is that of the JSON documents.
func avroSchema() string {
	s := `{"type":"record","name":"Row","fields":[{"name":"id","type":"string"},{"name":"ts","type":"long"}`
	for i := range 32 {
		s += fmt.Sprintf(`,{"name":"f%d","type":"float"}`, i)
	}
	return s + "]}"
}

// avroMessages returns messages without a header.
func avroMessages() ([][]byte, error) {
	s, err := twmb.Parse(avroSchema())
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(5, 6))
	all := make([][]byte, 4096)
	for i := range all {
		row := map[string]any{"id": fmt.Sprintf("%012d", i), "ts": int64(1700000000000 + i)}
		for f := range 32 {
			row[fmt.Sprint("f", f)] = float32(rng.NormFloat64())
		}
		if all[i], err = s.Encode(row); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perRow runs f, which returns how many rows it passed, once for each turn.
func perRow(b *testing.B, f func() int64) {
	b.Helper()
	f() // warm
	b.ReportAllocs()
	b.ResetTimer()
	began, rows := cpu(), int64(0)
	for b.Loop() {
		rows += f()
	}
	used := cpu() - began
	b.ReportMetric(float64(used.Nanoseconds())/float64(rows)/1000, "us-cpu/row")
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(rows)/float64(b.N), "rows/op")
}

// steady counts the allocations of a run behind its first rows, which find
// everything to be made: connections, buffers, tables.
type steady struct {
	mu           sync.Mutex
	rows, from   int64
	first, last  uint64
	allocs, over int64
}

const warmRows = benchRows / 4

// hooks reports rows as they are written.
func (s *steady) hooks() pipeline.Hooks {
	s.rows, s.from = 0, 0
	return pipeline.Hooks{Written: func(_ string, rows int64, _ time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		before := s.rows
		s.rows += rows
		switch {
		case before < warmRows && s.rows >= warmRows:
			s.from, s.first = s.rows, mallocs()
		case before < benchRows-warmRows && s.rows >= benchRows-warmRows:
			s.last = mallocs()
			s.allocs += int64(s.last - s.first)
			s.over += s.rows - s.from
		}
	}}
}

func (s *steady) report(b *testing.B) {
	b.ReportMetric(float64(s.allocs)/float64(max(s.over, 1)), "steady-allocs/row")
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// nothing is a sink that keeps nothing.
type nothing struct{ n atomic.Uint64 }

func (s *nothing) Bind(*arrow.Schema) error { return nil }
func (s *nothing) Write(_ context.Context, n uint64, _ arrow.Record) error {
	s.n.Store(n)
	return nil
}
func (s *nothing) Durable() uint64             { return s.n.Load() }
func (s *nothing) Flush(context.Context) error { return nil }
func (s *nothing) Close() error                { return nil }

func (s *nothing) Seal(context.Context, pipeline.Mark) error { return nil }

func cluster(b *testing.B) string {
	b.Helper()
	addr, err := benchCluster()
	if err != nil {
		b.Fatal(err)
	}
	return addr
}

func reader(b *testing.B, addr, topic string, format codec.Format, group string) pipeline.Source {
	b.Helper()
	src, err := source.New(source.Config{Cluster: own.Config{Brokers: []string{addr}}, Topics: []string{topic}, Format: format,
		Group: group, UntilEnd: true})
	if err != nil {
		b.Fatal(err)
	}
	return src
}

// BenchmarkOverhead reads and decodes, and scores nothing.
func BenchmarkOverhead(b *testing.B) {
	doc, err := json.New(json.Config{Columns: benchColumns()})
	if err != nil {
		b.Fatal(err)
	}
	ipc, err := arrowipc.New(arrowipc.Config{Columns: benchColumns()})
	if err != nil {
		b.Fatal(err)
	}
	bare, err := avro.New(b.Context(), avro.Config{Columns: benchColumns(), Schema: avroSchema(), Framing: avro.Bare})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name, topic string
		format      codec.Format
	}{{"json", "json", doc}, {"avro", "avro", bare}, {"arrow", "arrow", ipc}} {
		b.Run("elbo/"+c.name, func(b *testing.B) {
			addr := cluster(b)
			var count steady
			perRow(b, func() int64 {
				cfg := pipeline.Config{Source: reader(b, addr, c.topic, c.format, ""), Sinks: []pipeline.NamedSink{{Sink: &nothing{}}},
					Hooks: count.hooks()}
				if _, err := pipeline.Run(b.Context(), cfg); err != nil {
					b.Fatal(err)
				}
				return count.rows
			})
			count.report(b)
		})
	}
	type row map[string]any
	b.Run("franz-go and encoding-json", func(b *testing.B) {
		addr := cluster(b)
		perRow(b, func() int64 {
			cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics("json"))
			if err != nil {
				b.Fatal(err)
			}
			defer cl.Close()
			n := int64(0)
			for n < benchRows {
				cl.PollFetches(b.Context()).EachRecord(func(r *kgo.Record) {
					var v row
					if err := stdjson.Unmarshal(r.Value, &v); err != nil {
						b.Error(err)
					}
					n++
				})
			}
			return n
		})
	})
	b.Run("confluent-kafka-go and encoding-json", func(b *testing.B) { confluent(b, cluster(b), "json", "json") })
	b.Run("confluent-kafka-go alone", func(b *testing.B) { confluent(b, cluster(b), "json", "count") })
	b.Run("kafka-go Reader and encoding-json", func(b *testing.B) {
		addr := cluster(b)
		perRow(b, func() int64 {
			n := int64(0)
			for p := range 4 {
				n += readAll(b, addr, "json", p, func(m []byte) error { var v row; return stdjson.Unmarshal(m, &v) })
			}
			return n
		})
	})
}

// confluent reads with confluent-kafka-go, in a process of its own that counts its
// processor time.
func confluent(b *testing.B, addr, topic, how string) {
	b.Helper()
	bin := filepath.Join(b.TempDir(), "confluent")
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Dir, build.Env = "peers/confluent", append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		b.Skipf("SKIPPED: confluent-kafka-go cannot be built here (run in %s): %v: %s", build.Dir, err, out)
	}
	var rows, used float64
	for b.Loop() {
		out, err := exec.Command(bin, addr, topic, fmt.Sprint(benchRows), how).Output()
		var n, us float64
		if err == nil {
			_, err = fmt.Sscan(string(out), &n, &us)
		}
		if err != nil {
			b.Fatal(err)
		}
		rows, used = rows+n, used+us
	}
	b.ReportMetric(used/rows, "us-cpu/row")
	b.ReportMetric(rows/b.Elapsed().Seconds(), "rows/s")
}

// readAll reads a partition with kafka-go's Reader.
func readAll(b *testing.B, addr, topic string, partition int, f func([]byte) error) int64 {
	b.Helper()
	conn, err := kafka.DialLeader(b.Context(), "tcp", addr, topic, partition)
	if err != nil {
		b.Fatal(err)
	}
	end, err := conn.ReadLastOffset()
	_ = conn.Close()
	if err != nil {
		b.Fatal(err)
	}
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{addr}, Topic: topic, Partition: partition, MaxBytes: 10 << 20, QueueCapacity: 1000})
	defer r.Close()
	for n := int64(0); n < end; n++ {
		m, err := r.ReadMessage(b.Context())
		if err == nil {
			err = f(m.Value)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return end
}

// benchModel is a small model of the 32 columns: 32-32-16-8 and back.
func benchModel(b *testing.B) *vae.Model {
	b.Helper()
	bld := array.NewRecordBuilder(memory.DefaultAllocator, func() *arrow.Schema {
		var fields []arrow.Field
		for _, c := range benchColumns() {
			fields = append(fields, arrow.Field{Name: c.Name, Type: c.Type, Nullable: true})
		}
		return arrow.NewSchema(fields, nil)
	}())
	defer bld.Release()
	rng := rand.New(rand.NewPCG(3, 4))
	for range 4000 {
		for f := range 32 {
			bld.Field(f).(*array.Float32Builder).Append(float32(rng.NormFloat64()))
		}
	}
	rec := bld.NewRecord()
	m, err := train.Run(b.Context(), train.Config{Name: "bench", Seed: 1, Steps: 30,
		Network: vae.Spec{Encoder: []vae.Layer{{Width: 32, Activation: "relu"}, {Width: 16, Activation: "relu"}},
			Decoder: []vae.Layer{{Width: 16, Activation: "relu"}, {Width: 32, Activation: "relu"}}, Latent: 8}}, train.Records{rec})
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// BenchmarkScore goes from Kafka over a model to Kafka.
func BenchmarkScore(b *testing.B) {
	m := benchModel(b)
	doc, err := json.New(json.Config{Columns: benchColumns()})
	if err != nil {
		b.Fatal(err)
	}
	group := 0
	for _, d := range []sink.Delivery{sink.AtLeastOnce, sink.ExactlyOnce, sink.EffectivelyOnce} {
		b.Run(string(d), func(b *testing.B) {
			addr := cluster(b)
			var count steady
			perRow(b, func() int64 {
				group++
				out, err := sink.New(sink.Config{Cluster: own.Config{Brokers: []string{addr}}, Topic: "out", Delivery: d,
					Columns: []string{score.Score, score.P, score.Anomaly}, NoHeaders: d != sink.EffectivelyOnce,
					Encoder: func() (codec.Encoder, error) { return json.NewEncoder(json.EncoderConfig{}), nil }})
				if err != nil {
					b.Fatal(err)
				}
				cfg := pipeline.Config{Source: reader(b, addr, "json", doc, fmt.Sprintf("bench-%d-%d", os.Getpid(), group)),
					Operators: []pipeline.NamedOperator{{Name: "score", Operator: score.New(score.Config{Model: m, Top: -1})}},
					Sinks:     []pipeline.NamedSink{{Name: "out", Sink: out}}, Hooks: count.hooks()}
				stats, err := pipeline.Run(b.Context(), cfg)
				if err != nil {
					b.Fatal(err)
				}
				return stats.Written["out"]
			})
			count.report(b)
		})
	}
}
