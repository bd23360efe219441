package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/elbo-stream/elbo/internal/e2e/oracle"
	"github.com/elbo-stream/elbo/internal/e2e/realkafka"
	"github.com/elbo-stream/elbo/internal/kafka"
)

// A lab is a running Kafka with our connections to it.
type lab struct {
	*realkafka.Cluster
	ours *kafka.Cluster
	ctx  context.Context
}

// TestKafkaLibrary runs internal/kafka against Apache Kafka itself, with foreign
// programs on the other side: what we write they read, what they write we read.
func TestKafkaLibrary(t *testing.T) {
	for _, version := range realkafka.Versions(t) {
		t.Run("version="+version, func(t *testing.T) {
			c := realkafka.Start(t, realkafka.Options{Version: version})
			for name, test := range map[string]func(*testing.T, lab){
				"produce":         testProduce,
				"timestamps":      testTimestamps,
				"transactions":    testTransactions,
				"fencing":         testFencing,
				"stale member":    testStaleMember,
				"offsets":         testOffsets,
				"group range":     testGroupRange,
				"group sticky":    testGroupSticky,
				"group with Java": testGroupWithJava,
				"static member":   testStaticMember,
				"growth":          testGrowth,
			} {
				t.Run(name, func(t *testing.T) { test(t, newLab(t, c, nil)) })
			}
		})
	}
}

// newLab connects to a cluster for at most 90 s. dial nil is a plain one.
func newLab(t *testing.T, c *realkafka.Cluster, dial func(context.Context, string, string) (net.Conn, error)) lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	ours, err := kafka.Open(ctx, kafka.Config{Brokers: c.Brokers, Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	return lab{c, ours, ctx}
}

// topic makes a topic and returns its name.
func (l lab) topic(t *testing.T, name string, partitions int) string {
	t.Helper()
	if err := l.CreateTopic(l.ctx, name, partitions, nil); err != nil {
		t.Fatal(err)
	}
	return name
}

func (l lab) producer(t *testing.T, c kafka.ProducerConfig) *kafka.Producer {
	t.Helper()
	p, err := kafka.NewProducer(l.ctx, l.ours, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ours(hs []oracle.Header) (out []kafka.Header) {
	for _, h := range hs {
		out = append(out, kafka.Header(h))
	}
	return out
}

// oddRecords are records with all that a record may have, in text that each
// foreign tool can print.
func oddRecords(topic string, partitions, n int) (rs []oracle.Record) {
	next := make([]int64, partitions)
	for i := range n {
		p := i % partitions
		r := oracle.Record{Topic: topic, Partition: int32(p), Offset: next[p], Timestamp: 1_700_000_000_000 + int64(i*i%977),
			Key: fmt.Appendf(nil, "key-%05d", i), Value: []byte(strings.Repeat(fmt.Sprintf("value %d;", i), 1+i%40))}
		next[p]++
		switch i % 7 {
		case 1:
			r.Key = nil
		case 2:
			r.Value = nil
		case 3:
			r.Key, r.Value = []byte{}, []byte{}
		case 4:
			r.Headers = []oracle.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}, {Key: "null"}}
		case 5:
			r.Headers = []oracle.Header{{Key: "wörter", Value: []byte("Grüße")}}
		}
		rs = append(rs, r)
	}
	return tidyOrder(rs)
}

// tidyOrder sorts as the oracles do.
func tidyOrder(rs []oracle.Record) []oracle.Record {
	slices.SortStableFunc(rs, func(a, b oracle.Record) int {
		return (kafka.TopicPartition{Topic: a.Topic, Partition: a.Partition}).Compare(kafka.TopicPartition{Topic: b.Topic, Partition: b.Partition})
	})
	return rs
}

// sameRecord compares all of two records; null and empty differ.
func sameRecord(a, b oracle.Record) bool {
	null := func(x, y []byte) bool { return (x == nil) == (y == nil) && bytes.Equal(x, y) }
	return a.Topic == b.Topic && a.Partition == b.Partition && a.Offset == b.Offset && a.Timestamp == b.Timestamp &&
		null(a.Key, b.Key) && null(a.Value, b.Value) &&
		slices.EqualFunc(a.Headers, b.Headers, func(g, h oracle.Header) bool { return g.Key == h.Key && null(g.Value, h.Value) })
}

// compare fails the test at the first record that differs.
func compare(t *testing.T, who string, got, want []oracle.Record) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if !sameRecord(got[i], want[i]) {
			t.Fatalf("%s: record %d is\n%s, want\n%s", who, i, show(got[i]), show(want[i]))
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d records, want %d", who, len(got), len(want))
	}
}

func show(r oracle.Record) string {
	s := fmt.Sprintf("%s/%d@%d time %d key %q value %.40q", r.Topic, r.Partition, r.Offset, r.Timestamp, r.Key, r.Value)
	for _, h := range r.Headers {
		s += fmt.Sprintf(" %s=%q", h.Key, h.Value)
	}
	return s + fmt.Sprintf(" (null key %v, null value %v)", r.Key == nil, r.Value == nil)
}

// foreign compares a topic with what three foreign readers see of it.
func (l lab) foreign(t *testing.T, topic string, want []oracle.Record) {
	t.Helper()
	got, err := oracle.Read(l.ctx, l.Brokers, topic)
	must(t, err)
	compare(t, "franz-go", got, want)
	switch got, err = oracle.Kcat(l.ctx, l.Brokers, topic); {
	case errors.Is(err, oracle.ErrNoKcat):
		t.Logf("SKIPPED: %v", err)
	case err != nil:
		t.Fatal(err)
	default:
		compare(t, "kcat", got, want)
	}
	got, err = l.ConsoleRead(l.ctx, topic, len(want))
	must(t, err)
	compare(t, "console consumer", tidyOrder(got), want)
}

// testProduce writes odd records with each compression and has three foreign
// readers, and Kafka's own log tool, look at them.
func testProduce(t *testing.T, l lab) {
	for codec := kafka.None; codec <= kafka.Zstd; codec++ {
		topic := l.topic(t, "produce-"+codec.String(), 2)
		rs := oddRecords(topic, 2, 2000)
		p := l.producer(t, kafka.ProducerConfig{Compression: codec, MaxBatchBytes: 20_000})
		for _, r := range rs {
			must(t, p.Append(kafka.TopicPartition{Topic: r.Topic, Partition: r.Partition}, r.Key, r.Value, ours(r.Headers), r.Timestamp))
		}
		must(t, p.Flush(l.ctx))
		for tp, next := range p.Written() {
			if next != 1000 {
				t.Errorf("%v: written up to %d, want 1000", tp, next)
			}
		}
		l.foreign(t, topic, rs)
		dump, err := l.DumpLog(l.ctx, 1, topic, 0)
		must(t, err)
		if strings.Contains(dump, "isvalid: false") || !strings.Contains(dump, "compresscodec: "+codec.String()) {
			t.Errorf("%v: Kafka finds fault with the log: %.600s", codec, dump)
		}
	}
}

// testTimestamps writes with times at the edges: the broker takes them all.
func testTimestamps(t *testing.T, l lab) {
	topic := l.topic(t, "timestamps", 1)
	p := l.producer(t, kafka.ProducerConfig{})
	now := time.Now().UnixMilli()
	tp := kafka.TopicPartition{Topic: topic}
	for _, at := range []int64{1, now, now - 3_600_000, now + 3_000_000} {
		must(t, p.Append(tp, nil, []byte("v"), nil, at))
	}
	must(t, p.Append(tp, nil, []byte("v"), nil, 0))
	must(t, p.Flush(l.ctx))
	got, err := oracle.Read(l.ctx, l.Brokers, topic)
	must(t, err)
	for i, want := range []int64{1, now, now - 3_600_000, now + 3_000_000} {
		if got[i].Timestamp != want {
			t.Errorf("record %d has time %d, want %d", i, got[i].Timestamp, want)
		}
	}
	if d := got[4].Timestamp - now; d < 0 || d > 60_000 {
		t.Errorf("a record without a time has %d, want now, %d", got[4].Timestamp, now)
	}
	at, err := l.ours.ListOffsets(l.ctx, []kafka.TopicPartition{tp}, now+1000, false)
	must(t, err)
	if at[tp] != 3 {
		t.Errorf("offset at the time in the future = %d, want 3", at[tp])
	}
	at, err = l.ours.ListOffsets(l.ctx, []kafka.TopicPartition{tp}, now+100_000_000, false)
	must(t, err)
	if at[tp] != -1 {
		t.Errorf("offset after every time = %d, want -1", at[tp])
	}
}

// A spy counts answers to AddPartitionsToTxn that end with the error 51,
// CONCURRENT_TRANSACTIONS.
type spy struct {
	net.Conn
	api  [2]byte // of the request under way
	tail [2]byte // the last bytes of its answer
	busy *atomic.Int64
}

func (s *spy) Write(b []byte) (int, error) {
	if len(b) >= 6 {
		if s.api == [2]byte{0, 24} && s.tail == [2]byte{0, 51} {
			s.busy.Add(1)
		}
		s.api, s.tail = [2]byte{b[4], b[5]}, [2]byte{}
	}
	return s.Conn.Write(b)
}

func (s *spy) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	switch {
	case n >= 2:
		s.tail = [2]byte{b[n-2], b[n-1]}
	case n == 1:
		s.tail = [2]byte{s.tail[1], b[0]}
	}
	return n, err
}

// testTransactions runs transactions one right after the other, so that the end of
// one is not settled when the next begins: every third is aborted, and none but
// the others' records and offsets may be seen.
func testTransactions(t *testing.T, l lab) {
	var busy atomic.Int64
	l = newLab(t, l.Cluster, func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &spy{Conn: c, busy: &busy}, err
	})
	topic := l.topic(t, "transactions", 3)
	source := kafka.TopicPartition{Topic: l.topic(t, "transactions-source", 1)}
	p := l.producer(t, kafka.ProducerConfig{TransactionalID: "transactions", Compression: kafka.Lz4})
	var want []oracle.Record
	next := make([]int64, 3)
	const rounds = 60
	for i := range rounds {
		abort := i%3 == 2
		for k := range 30 {
			r := oracle.Record{Topic: topic, Partition: int32(k % 3), Key: fmt.Appendf(nil, "%d-%d", i, k), Value: []byte("v"), Timestamp: 1_700_000_000_000}
			must(t, p.Append(kafka.TopicPartition{Topic: topic, Partition: r.Partition}, r.Key, r.Value, nil, r.Timestamp))
			r.Offset = next[r.Partition]
			next[r.Partition]++
			if !abort {
				want = append(want, r)
			}
		}
		must(t, p.Flush(l.ctx))
		for q := range next {
			next[q]++ // the marker
		}
		if abort {
			must(t, p.Abort(l.ctx))
			continue
		}
		m := kafka.Member{Group: "transactions", Generation: -1}
		must(t, p.Commit(l.ctx, &m, map[kafka.TopicPartition]kafka.Committed{source: {Offset: int64(i + 1), Metadata: "m"}}))
	}
	l.foreign(t, topic, tidyOrder(want))
	got, err := l.ours.CommittedOffsets(l.ctx, "transactions", []kafka.TopicPartition{source})
	must(t, err)
	if got[source] != (kafka.Committed{Offset: rounds - 1, Metadata: "m"}) {
		t.Errorf("committed %+v, want %d: the last transaction was aborted", got[source], rounds-1)
	}
	t.Logf("%d answers CONCURRENT_TRANSACTIONS in %d transactions", busy.Load(), rounds)
}

// testFencing lets a second producer take the transactional id over.
func testFencing(t *testing.T, l lab) {
	topic := l.topic(t, "fencing", 1)
	tp := kafka.TopicPartition{Topic: topic}
	zombie := l.producer(t, kafka.ProducerConfig{TransactionalID: "fencing"})
	must(t, zombie.Append(tp, []byte("zombie"), nil, nil, 1))
	must(t, zombie.Flush(l.ctx))
	heir := l.producer(t, kafka.ProducerConfig{TransactionalID: "fencing"})
	m := kafka.Member{Group: "fencing", Generation: -1}
	offset := func(n int64) map[kafka.TopicPartition]kafka.Committed {
		return map[kafka.TopicPartition]kafka.Committed{tp: {Offset: n}}
	}
	err := zombie.Commit(l.ctx, &m, offset(1))
	if err == nil {
		t.Error("the fenced producer committed")
	}
	if again := zombie.Append(tp, nil, nil, nil, 1); err != nil && again == nil {
		if again = zombie.Flush(l.ctx); again == nil {
			t.Error("the fenced producer is not spent")
		}
	}
	t.Logf("the zombie is told: %v", err)
	must(t, heir.Append(tp, []byte("heir"), nil, nil, 1))
	must(t, heir.Commit(l.ctx, &m, offset(2)))
	got, err := oracle.Read(l.ctx, l.Brokers, topic)
	must(t, err)
	if len(got) != 1 || string(got[0].Key) != "heir" {
		t.Errorf("read %d records, want the heir's alone: %+v", len(got), got)
	}
	at, err := l.ours.CommittedOffsets(l.ctx, "fencing", []kafka.TopicPartition{tp})
	must(t, err)
	if at[tp].Offset != 2 {
		t.Errorf("committed %d, want the heir's 2", at[tp].Offset)
	}
}
