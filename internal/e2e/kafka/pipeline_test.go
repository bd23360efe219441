// Package kafka_test runs whole pipelines from Kafka to Kafka against a broker in
// this process, and lets franz-go judge what they wrote.
package kafka_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
	sink "github.com/elbo-stream/elbo/sinks/kafka"
	source "github.com/elbo-stream/elbo/sources/kafka"
)

var columns = []codec.Column{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "x", Type: arrow.PrimitiveTypes.Float64}}

func logger(t testing.TB) *slog.Logger {
	if os.Getenv("ELBO_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start returns a broker and its address list.
func start(t testing.TB, opts ...kfake.Opt) (*kfake.Cluster, []string) {
	t.Helper()
	f, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.SeedTopics(8, "in"), kfake.SeedTopics(4, "out"), kfake.SeedTopics(2, "dead")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f, f.ListenAddrs()
}

// startQuick returns a broker that takes short sessions.
func startQuick(t testing.TB, opts ...kfake.Opt) (*kfake.Cluster, []string) {
	t.Helper()
	return start(t, append(opts, kfake.GroupMinSessionTimeout(time.Second))...)
}

// produce writes n records with ids from first on, by franz-go.
func produce(t testing.TB, brokers []string, topic string, first, n int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(topic),
		kgo.AlwaysRetryEOF(), // a broker that stops just when it is reached is not one that wants a password
		kgo.MetadataMinAge(10*time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var recs []*kgo.Record
	for i := first; i < first+n; i++ {
		recs = append(recs, &kgo.Record{Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, `{"id":%d,"x":%d.5}`, i, i%100)})
	}
	err = cl.ProduceSync(t.Context(), recs...).FirstErr()
	if err != nil && strings.Contains(err.Error(), "unable to initialize a producer ID") { // no broker was there: nothing was written
		time.Sleep(100 * time.Millisecond)
		produce(t, brokers, topic, first, n)
		return
	}
	if err != nil {
		t.Error(err)
	}
}

// A job is a pipeline from topic in to topic out.
type job struct {
	brokers  []string
	delivery sink.Delivery
	untilEnd bool
	instance string
	session  time.Duration
}

func (j job) config(t testing.TB) pipeline.Config {
	t.Helper()
	log := logger(t)
	format, err := json.New(json.Config{Columns: columns})
	if err != nil {
		t.Fatal(err)
	}
	src, err := source.New(source.Config{Cluster: kafka.Config{Brokers: j.brokers, Log: log}, Topics: []string{"in"}, Group: "g",
		Instance: j.instance, Format: format, UntilEnd: j.untilEnd, BatchRows: 500, Log: log, Session: j.session, Rebalance: 2 * j.session,
		Fetch: kafka.FetchConfig{MaxWait: 50 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := sink.New(sink.Config{Cluster: kafka.Config{Brokers: j.brokers, Log: log}, Topic: "out", Delivery: j.delivery,
		Encoder: func() (codec.Encoder, error) { return &idEncoder{}, nil }, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return pipeline.Config{Source: src, Sinks: []pipeline.NamedSink{{Name: "out", Sink: out}}, CommitInterval: 50 * time.Millisecond}
}

// situation describes the group g and the topics, for who wonders why nothing moves.
func situation(t testing.TB, brokers []string) string {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err.Error()
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var b strings.Builder
	groups, err := adm.DescribeGroups(ctx, "g")
	fmt.Fprintf(&b, "group (error %v):", err)
	for _, g := range groups.Sorted() {
		fmt.Fprintf(&b, " %s, %d members", g.State, len(g.Members))
	}
	offsets, err := adm.FetchOffsets(ctx, "g")
	fmt.Fprintf(&b, "; offsets (error %v):", err)
	for _, o := range offsets.Sorted() {
		fmt.Fprintf(&b, " %s/%d at %d", o.Topic, o.Partition, o.At)
	}
	for _, topic := range []string{"in", "out"} {
		ends, err := adm.ListEndOffsets(ctx, topic)
		stable, err2 := adm.ListCommittedOffsets(ctx, topic)
		fmt.Fprintf(&b, "; %s (errors %v, %v):", topic, err, err2)
		ends.Each(func(o kadm.ListedOffset) {
			s, _ := stable.Lookup(topic, o.Partition)
			fmt.Fprintf(&b, " /%d stable to %d of %d", o.Partition, s.Offset, o.Offset)
		})
	}
	return b.String()
}

// output reads what read_committed sees of a topic, to the end that it has now.
func output(t testing.TB, brokers []string, topic string, want int) map[string]int {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	seen := map[string]int{}
	n, last := 0, time.Now()
	for quiet := 0; quiet < 3; {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		recs := cl.PollFetches(ctx).Records()
		cancel()
		if len(recs) == 0 && n >= want {
			quiet++
		}
		if len(recs) > 0 {
			last = time.Now()
		} else if time.Since(last) > 30*time.Second {
			t.Errorf("nothing came for 30 s after %d of %d records: %s", n, want, situation(t, brokers))
			break
		}
		for _, r := range recs {
			n++
			var from string
			for _, h := range r.Headers {
				switch h.Key {
				case sink.HeaderPartition:
					from = string(h.Value) + "/"
				case sink.HeaderOffset:
					from += string(h.Value)
				}
			}
			seen[from]++
		}
	}
	return seen
}

func TestUntilEnd(t *testing.T) {
	for _, d := range []sink.Delivery{sink.ExactlyOnce, sink.EffectivelyOnce, sink.AtLeastOnce} {
		t.Run(string(d), func(t *testing.T) {
			_, brokers := start(t)
			for round := range 3 {
				produce(t, brokers, "in", round*5000, 5000)
				began := time.Now()
				stats, err := pipeline.Run(t.Context(), job{brokers: brokers, delivery: d, untilEnd: true}.config(t))
				if err != nil {
					t.Fatal(err)
				}
				if stats.RowsRead != 5000 {
					t.Errorf("round %d: %d rows read, want 5000", round, stats.RowsRead)
				}
				t.Logf("round %d took %v", round, time.Since(began))
			}
			seen := output(t, brokers, "out", 15000)
			for k, n := range seen {
				if n != 1 {
					t.Fatalf("row %s is there %d times", k, n)
				}
			}
			if len(seen) != 15000 {
				t.Errorf("%d rows, want 15000", len(seen))
			}
		})
	}
}
