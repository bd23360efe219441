package kafka_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	own "github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
	sink "github.com/elbo-stream/elbo/sinks/kafka"
	source "github.com/elbo-stream/elbo/sources/kafka"
	"github.com/elbo-stream/elbo/vae"
)

// BenchmarkLatency measures from the moment a row is produced until a read_committed
// reader has its score, at a steady rate; with the producer, the broker and the reader
// on the same two cores, 100,000 rows a second are more than half of what they can
// do. It reports milliseconds: the median, the 99th percentile and the largest. The
// default commit interval is 100 ms.
func BenchmarkLatency(b *testing.B) {
	const length = 5 * time.Second
	m := benchModel(b)
	doc, err := json.New(json.Config{Columns: benchColumns()})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		delivery sink.Delivery
		rate     int // rows a second
	}{{sink.AtLeastOnce, 10_000}, {sink.ExactlyOnce, 10_000}, {sink.ExactlyOnce, 50_000}, {sink.AtLeastOnce, 100_000}, {sink.ExactlyOnce, 100_000}} {
		b.Run(fmt.Sprintf("%s/%d", c.delivery, c.rate), func(b *testing.B) {
			addr := cluster(b)
			var took []time.Duration
			for b.Loop() {
				took = append(took, latencies(b, addr, doc, c.delivery, m, c.rate, length)...)
			}
			slices.Sort(took)
			for _, p := range []struct {
				name string
				at   float64
			}{{"p50-ms", 0.5}, {"p99-ms", 0.99}, {"max-ms", 1}} {
				b.ReportMetric(float64(took[int(p.at*float64(len(took)-1))].Microseconds())/1000, p.name)
			}
		})
	}
}

func latencies(b *testing.B, addr string, doc codec.Format, d sink.Delivery, m *vae.Model, rate int, length time.Duration) []time.Duration {
	b.Helper()
	src, err := source.New(source.Config{Cluster: own.Config{Brokers: []string{addr}}, Topics: []string{"live"}, Format: doc,
		Group: fmt.Sprintf("latency-%d", time.Now().UnixNano()), Start: source.Start{Where: source.Latest}})
	if err != nil {
		b.Fatal(err)
	}
	out, err := sink.New(sink.Config{Cluster: own.Config{Brokers: []string{addr}}, Topic: "live-out", Delivery: d, Columns: []string{score.Score},
		Encoder: func() (codec.Encoder, error) { return json.NewEncoder(json.EncoderConfig{}), nil }})
	if err != nil {
		b.Fatal(err)
	}
	drain, over := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := pipeline.Run(b.Context(), pipeline.Config{Source: src, Drain: drain, Sinks: []pipeline.NamedSink{{Name: "out", Sink: out}},
			Operators: []pipeline.NamedOperator{{Name: "score", Operator: score.New(score.Config{Model: m, Top: -1})}}})
		over <- err
	}()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic("live"), kgo.ProducerLinger(0), kgo.ConsumeTopics("live-out"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(20*time.Millisecond))
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(b.Context(), time.Second) // until both ends have joined
	cl.PollFetches(ctx)
	cancel()
	docs := make([][]byte, 1000)
	for i := range docs {
		docs[i] = benchDocument(i)
	}
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for began := time.Now(); time.Since(began) < length; <-tick.C {
			for i := range rate / 100 {
				cl.Produce(b.Context(), &kgo.Record{Value: docs[i%len(docs)], Timestamp: time.Now()}, nil)
			}
		}
	}()
	var took []time.Duration
	ctx, cancel = context.WithTimeout(b.Context(), length+time.Second)
	defer cancel()
	for ctx.Err() == nil {
		fs := cl.PollFetches(ctx)
		now := time.Now()
		fs.EachRecord(func(r *kgo.Record) { took = append(took, now.Sub(r.Timestamp)) })
	}
	close(drain)
	if err := <-over; err != nil {
		b.Fatal(err)
	}
	if len(took) < rate*int(length.Seconds())/2 {
		b.Fatalf("%d rows came of %d", len(took), rate*int(length.Seconds()))
	}
	return took
}

func benchDocument(i int) []byte {
	doc := fmt.Appendf(nil, `{"id":"%012d","ts":%d`, i, 1700000000000+i)
	for f := range 32 {
		doc = fmt.Appendf(doc, `,"f%d":%.6f`, f, float64((i*31+f*17)%1000)/500-1)
	}
	return append(doc, '}')
}
