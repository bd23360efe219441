package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
	sink "github.com/elbo-stream/elbo/sinks/kafka"
	source "github.com/elbo-stream/elbo/sources/kafka"
)

// reader returns a source of topic in, changed by edit.
func newSource(t testing.TB, brokers []string, edit func(*source.Config)) *source.Source {
	t.Helper()
	format, err := json.New(json.Config{Columns: columns, Required: []string{"id"}})
	if err != nil {
		t.Fatal(err)
	}
	c := source.Config{Cluster: kafka.Config{Brokers: brokers}, Topics: []string{"in"}, Group: "g", Format: format, BatchRows: 500,
		Fetch: kafka.FetchConfig{MaxWait: 50 * time.Millisecond}, Log: logger(t)}
	if edit != nil {
		edit(&c)
	}
	src, err := source.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func newSink(t testing.TB, brokers []string) *sink.Sink {
	t.Helper()
	out, err := sink.New(sink.Config{Cluster: kafka.Config{Brokers: brokers}, Topic: "out", Delivery: sink.ExactlyOnce,
		Encoder: func() (codec.Encoder, error) { return &idEncoder{}, nil }, Log: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// slow is an operator that takes its time.
type slow struct {
	d time.Duration
	n atomic.Int64
}

func (s *slow) Bind(in *arrow.Schema) (*arrow.Schema, error) { return in, nil }
func (s *slow) Apply(ctx context.Context, rec arrow.Record) (arrow.Record, error) {
	s.n.Add(1)
	select {
	case <-time.After(s.d):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	rec.Retain()
	return rec, nil
}

// once complains of rows that are not there, or more than once.
func once(t testing.TB, seen map[string]int, rows int) {
	t.Helper()
	onceBut(t, seen, rows, 0)
}

// onceBut lets some rows be there twice, and tells how many are.
func onceBut(t testing.TB, seen map[string]int, rows, most int) {
	t.Helper()
	twice := 0
	for _, n := range seen {
		if n > 1 {
			twice++
		}
	}
	if len(seen) != rows || twice > most {
		t.Errorf("lost %d of %d rows, doubled %d", rows-len(seen), rows, twice)
	} else if twice > 0 {
		t.Logf("doubled %d of %d rows", twice, rows)
	}
}

// TestSlowModel is F12: a batch takes longer than the session, and nothing moves.
func TestSlowModel(t *testing.T) {
	f, brokers := start(t, kfake.GroupMinSessionTimeout(time.Second))
	produce(t, brokers, "in", 0, 4000)
	var joins atomic.Int64
	f.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		joins.Add(1)
		f.KeepControl()
		return nil, nil, false
	})
	op := &slow{d: 2500 * time.Millisecond}
	cfg := pipeline.Config{Source: newSource(t, brokers, func(c *source.Config) { c.Session, c.UntilEnd = time.Second, true }),
		Operators: []pipeline.NamedOperator{{Name: "slow", Operator: op}}, Sinks: []pipeline.NamedSink{{Name: "out", Sink: newSink(t, brokers)}},
		Workers: 4, CommitInterval: 50 * time.Millisecond}
	stats, err := pipeline.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if stats.RowsRead != 4000 {
		t.Errorf("%d rows read, want 4000 once", stats.RowsRead)
	}
	if n := joins.Load(); n > 2 { // for an id, and with it
		t.Errorf("%d joins: a slow batch made the group move", n)
	}
	once(t, output(t, brokers, "out", 4000), 4000)
}

// badValues returns a value of each class of fault.
func badValues() []string {
	return []string{`{"id":`, `{"id":"x","x":1}`, `{"x":1}`, `[1,2]`, "\xff\xfe"}
}

func produceValues(t testing.TB, brokers []string, values []string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic("in"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var recs []*kgo.Record
	for i, v := range values {
		recs = append(recs, &kgo.Record{Key: fmt.Appendf(nil, "k%d", i), Value: []byte(v), Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte("t")}}})
	}
	if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// withLetters is a pipeline whose dead letters go to a topic with the rows.
func withLetters(t testing.TB, brokers []string) pipeline.Config {
	t.Helper()
	out := newSink(t, brokers)
	dead, err := sink.NewLetters(sink.LettersConfig{Cluster: kafka.Config{Brokers: brokers}, Topic: "dead"})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := out.JoinLetters(dead); !ok || err != nil {
		t.Fatalf("JoinLetters = %v, %v", ok, err)
	}
	return pipeline.Config{Source: newSource(t, brokers, func(c *source.Config) { c.UntilEnd = true }),
		Sinks: []pipeline.NamedSink{{Name: "out", Sink: out}}, OnError: pipeline.DeadLetter, DeadLetters: out,
		CommitInterval: 50 * time.Millisecond}
}

// TestPoison is F13: one message in a hundred is bad, of five kinds, and each is a
// dead letter once, with its bytes and its own headers.
func TestPoison(t *testing.T) {
	_, brokers := start(t)
	bad := badValues()
	var values []string
	for i := range 5000 {
		v := fmt.Sprintf(`{"id":%d,"x":1}`, i)
		if i%100 == 7 {
			v = bad[i/100%len(bad)]
		}
		values = append(values, v)
	}
	produceValues(t, brokers, values)
	stats, err := pipeline.Run(t.Context(), withLetters(t, brokers))
	if err != nil {
		t.Fatal(err)
	}
	if stats.DeadRows() != 50 {
		t.Errorf("%d dead letters, want 50: %v", stats.DeadRows(), stats.Dead)
	}
	once(t, output(t, brokers, "out", 4950), 4950)
	once(t, output(t, brokers, "dead", 50), 50)
	want := map[string]int{}
	for i, v := range values {
		if i%100 == 7 {
			want[fmt.Sprintf("k%d", i)+v]++
		}
	}
	for _, r := range records(t, brokers, "dead", 50) {
		if want[string(r.Key)+string(r.Value)]--; want[string(r.Key)+string(r.Value)] < 0 {
			t.Errorf("dead letter %q %q: not what was sent", r.Key, r.Value)
		}
		headers := map[string]string{}
		for _, h := range r.Headers {
			headers[h.Key] = string(h.Value)
		}
		if headers["trace"] != "t" || headers[sink.HeaderClass] == "" || headers[sink.HeaderDetail] == "" || headers[sink.HeaderAttempt] != "1" {
			t.Errorf("dead letter %q: headers %v", r.Key, headers)
		}
	}
}

// records reads n committed records of a topic.
func records(t testing.TB, brokers []string, topic string, n int) []*kgo.Record {
	t.Helper()
	var all []*kgo.Record
	readUntil(t, brokers, topic, func(r *kgo.Record) bool {
		all = append(all, r)
		return len(all) >= n
	})
	return all
}

// readUntil gives committed records of a topic to f until it says that it is enough,
// or none has come for 20 s.
func readUntil(t testing.TB, brokers []string, topic string, f func(*kgo.Record) (enough bool)) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for enough := false; !enough; {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		recs := cl.PollFetches(ctx).Records()
		cancel()
		if len(recs) == 0 {
			t.Errorf("topic %s: nothing more came for 20 s", topic)
			return
		}
		for _, r := range recs {
			enough = f(r) || enough
		}
	}
}

// TestAllPoison is F14: a topic of nothing but bad messages ends the run within the
// limit and a batch.
func TestAllPoison(t *testing.T) {
	_, brokers := start(t)
	values := make([]string, 8000)
	for i := range values {
		values[i] = "no json"
	}
	produceValues(t, brokers, values)
	cfg := withLetters(t, brokers)
	cfg.DeadLetterLimit = pipeline.DeadLetterLimit{InRow: 200, Share: -1}
	stats, err := pipeline.Run(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "more than 200 rows") {
		t.Fatalf("error %v, want the limit's", err)
	}
	if n := len(output(t, brokers, "dead", 0)); n > 8*(200+500) {
		t.Errorf("%d dead letters before the limit of 200 and a batch of 500 a partition; %v", n, stats.Dead)
	}
}

// TestRetention is F15: what was to be read next is gone.
func TestRetention(t *testing.T) {
	for _, c := range []struct {
		gap  source.Where
		rows int
		fail string
	}{{source.Fail, 0, "is not there any more"}, {source.Earliest, 4000, ""}, {source.Latest, 0, ""}} {
		t.Run(string(c.gap), func(t *testing.T) {
			_, brokers := start(t)
			produce(t, brokers, "in", 0, 8000)
			cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			adm := kadm.NewClient(cl)
			// The group is at the beginning, and half of each partition goes.
			ends, err := adm.ListEndOffsets(t.Context(), "in")
			if err != nil {
				t.Fatal(err)
			}
			at, cut := kadm.Offsets{}, kadm.Offsets{}
			lost, left := int64(0), int64(0)
			ends.Each(func(o kadm.ListedOffset) {
				at.AddOffset("in", o.Partition, 0, -1)
				cut.AddOffset("in", o.Partition, o.Offset/2, -1)
				lost += o.Offset / 2
				left += o.Offset - o.Offset/2
			})
			if err := adm.CommitAllOffsets(t.Context(), "g", at); err != nil {
				t.Fatal(err)
			}
			if _, err := adm.DeleteRecords(t.Context(), cut); err != nil {
				t.Fatal(err)
			}
			src := newSource(t, brokers, func(s *source.Config) { s.OnGap, s.UntilEnd = c.gap, true })
			stats, err := pipeline.Run(t.Context(), pipeline.Config{Source: src, Sinks: []pipeline.NamedSink{{Name: "out", Sink: newSink(t, brokers)}},
				CommitInterval: 50 * time.Millisecond})
			if c.fail != "" {
				if err == nil || !strings.Contains(err.Error(), c.fail) {
					t.Fatalf("error %v, want %q", err, c.fail)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantRows, wantGap := left, lost
			if c.gap == source.Latest {
				wantRows, wantGap = 0, lost+left
			}
			if _, gap := src.Lags(); stats.RowsRead != wantRows || gap != wantGap {
				t.Errorf("%d rows read and %d counted as gone, want %d and %d", stats.RowsRead, gap, wantRows, wantGap)
			}
		})
	}
}

// TestGrowth is F18: partitions that come while a pipeline runs are read.
func TestGrowth(t *testing.T) {
	_, brokers := start(t)
	produce(t, brokers, "in", 0, 1000)
	drain := make(chan struct{})
	over := make(chan error, 1)
	cfg := pipeline.Config{Source: newSource(t, brokers, func(c *source.Config) { c.Discover = 200 * time.Millisecond }),
		Sinks: []pipeline.NamedSink{{Name: "out", Sink: newSink(t, brokers)}}, Drain: drain, CommitInterval: 50 * time.Millisecond}
	go func() { _, err := pipeline.Run(t.Context(), cfg); over <- err }()
	once(t, output(t, brokers, "out", 1000), 1000)
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).UpdatePartitions(t.Context(), 16, "in"); err != nil {
		t.Fatal(err)
	}
	produce(t, brokers, "in", 1000, 4000)
	once(t, output(t, brokers, "out", 5000), 5000)
	close(drain)
	if err := <-over; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestSlowSink: a sink that takes nothing holds up the reading, and what is held
// stays within the bounds.
func TestSlowSink(t *testing.T) {
	_, brokers := start(t)
	produce(t, brokers, "in", 0, 60_000)
	var most atomic.Int64
	gate := make(chan struct{})
	drain := make(chan struct{})
	over := make(chan error, 1)
	cfg := pipeline.Config{Source: newSource(t, brokers, func(c *source.Config) { c.Fetch.Credits = 1 << 20 }),
		Sinks: []pipeline.NamedSink{{Name: "stuck", Sink: &stuck{gate: gate}}}, Drain: drain, MaxBatches: 4, MaxBytes: 1 << 20,
		Hooks: pipeline.Hooks{InFlight: func(_ int, bytes int64) {
			for m := most.Load(); bytes > m && !most.CompareAndSwap(m, bytes); m = most.Load() {
			}
		}}}
	go func() { _, err := pipeline.Run(t.Context(), cfg); over <- err }()
	time.Sleep(time.Second) // nothing is awaited: for so long it must not grow
	if m := most.Load(); m == 0 || m > 2<<20 {
		t.Errorf("%d bytes in flight, want 1 to 2 MiB", m)
	}
	close(gate)
	close(drain)
	if err := <-over; err != nil {
		t.Fatal(err)
	}
}

// stuck is a sink that takes nothing until its gate opens.
type stuck struct {
	nothing
	gate chan struct{}
}

func (s *stuck) Write(ctx context.Context, n uint64, rec arrow.Record) error {
	select {
	case <-s.gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.nothing.Write(ctx, n, rec)
}
