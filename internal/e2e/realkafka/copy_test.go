package realkafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/elbo-stream/elbo/internal/e2e/oracle"
	"github.com/elbo-stream/elbo/internal/e2e/realkafka"
)

// fill writes n records over partitions with ids as keys, by franz-go.
func fill(ctx context.Context, t *testing.T, c *realkafka.Cluster, topic string, partitions, n int) {
	t.Helper()
	k, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for i := range n {
		r := &kgo.Record{Topic: topic, Partition: int32(i % partitions), Key: fmt.Appendf(nil, "id-%06d", i), Value: fmt.Appendf(nil, `{"id":%d}`, i)}
		if i%3 == 0 {
			r.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte("v")}, {Key: "empty", Value: []byte{}}}
		}
		k.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := k.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// copyByFranz copies a topic in transactions of franz-go's, every fifth of which is aborted
// at first, until it has copied n records.
func copyByFranz(ctx context.Context, t *testing.T, c *realkafka.Cluster, in, out string, n int) {
	t.Helper()
	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(c.Brokers...), kgo.TransactionalID("copier"),
		kgo.ConsumerGroup("copiers"), kgo.ConsumeTopics(in), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.SessionTimeout(10*time.Second), kgo.TransactionTimeout(20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for turn, copied := 1, 0; copied < n; turn++ {
		fetches := s.PollRecords(ctx, 100)
		if err := ctx.Err(); err != nil {
			t.Fatalf("copied %d of %d: %v", copied, n, err)
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := s.Begin(); err != nil {
			t.Fatal(err)
		}
		failed := false
		fetches.EachRecord(func(r *kgo.Record) {
			s.Produce(ctx, &kgo.Record{Topic: out, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Logf("produce: %v", err)
				}
			})
		})
		if err := s.Client().Flush(ctx); err != nil {
			failed = true
		}
		committed, err := s.End(ctx, kgo.TransactionEndTry(turn%5 != 0 && !failed))
		switch {
		case err != nil:
			t.Fatalf("end: %v", err)
		case committed:
			copied += fetches.NumRecords()
		}
	}
}

// look compares a copy with its input by every foreign reader that is here.
func look(ctx context.Context, t *testing.T, c *realkafka.Cluster, in, out string) {
	t.Helper()
	want, err := oracle.Read(ctx, c.Brokers, in)
	if err != nil {
		t.Fatal(err)
	}
	readers := map[string]func() ([]oracle.Record, error){
		"franz-go": func() ([]oracle.Record, error) { return oracle.Read(ctx, c.Brokers, out) },
		"kcat":     func() ([]oracle.Record, error) { return oracle.Kcat(ctx, c.Brokers, out) },
		"console":  func() ([]oracle.Record, error) { return c.ConsoleRead(ctx, out, 0) },
	}
	for name, read := range readers {
		got, err := read()
		if errors.Is(err, oracle.ErrNoKcat) {
			t.Logf("SKIPPED: %v", err)
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := oracle.Check(want, got, oracle.ByKey).Err(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		byKey := map[string]oracle.Record{}
		for _, r := range got {
			byKey[string(r.Key)] = r
		}
		for _, w := range want {
			g := byKey[string(w.Key)]
			if g.Partition != w.Partition || !bytes.Equal(g.Value, w.Value) || !slices.EqualFunc(g.Headers, w.Headers, func(a, b oracle.Header) bool {
				return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
			}) {
				t.Fatalf("%s: record %s = %+v, want %+v", name, w.Key, g, w)
			}
		}
	}
}

// TestForeignCopyIsExact proves the oracles and the cluster by a copier that is
// known to be right, while nodes come and go.
func TestForeignCopyIsExact(t *testing.T) {
	for _, version := range realkafka.Versions(t) {
		for _, nodes := range []int{1, 3} {
			t.Run(fmt.Sprintf("version=%s/nodes=%d", version, nodes), func(t *testing.T) {
				c := realkafka.Start(t, realkafka.Options{Version: version, Nodes: nodes})
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				for _, topic := range []string{"in", "out"} {
					if err := c.CreateTopic(ctx, topic, 4, nil); err != nil {
						t.Fatal(err)
					}
				}
				const n = 6000
				fill(ctx, t, c, "in", 4, n)
				bounced := make(chan struct{})
				go func() {
					defer close(bounced)
					for id := 1; id <= nodes; id++ {
						end := c.Kill
						if id%2 == 0 {
							end = c.Stop
						}
						if err := errors.Join(end(id), c.Restart(id), c.Ready(ctx), c.InSync(ctx)); err != nil {
							t.Errorf("bounce node %d: %v", id, err)
						}
					}
				}()
				copyByFranz(ctx, t, c, "in", "out", n)
				<-bounced
				look(ctx, t, c, "in", "out")
			})
		}
	}
}

// TestConsoleTools writes by the console producer and kcat, with every codec, and
// reads by the three readers.
func TestConsoleTools(t *testing.T) {
	for _, version := range realkafka.Versions(t) {
		t.Run("version="+version, func(t *testing.T) {
			c := realkafka.Start(t, realkafka.Options{Version: version})
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
				if err := c.CreateTopic(ctx, codec, 1, nil); err != nil {
					t.Fatal(err)
				}
				var rs []oracle.Record
				for i := range 20 {
					r := oracle.Record{Key: fmt.Appendf(nil, "console-%d", i), Value: []byte("value"), Headers: []oracle.Header{{Key: "h", Value: []byte("1")}, {Key: "null"}}}
					if i == 3 {
						r.Value, r.Headers = nil, nil
					}
					rs = append(rs, r)
				}
				if err := c.ConsoleWrite(ctx, codec, codec, rs); err != nil {
					t.Fatal(err)
				}
				err := oracle.KcatProduce(ctx, c.Brokers, codec, 0, codec, []oracle.Header{{Key: "k", Value: []byte("2")}}, []string{"kcat-0|a", "kcat-1|b"})
				if errors.Is(err, oracle.ErrNoKcat) {
					t.Skipf("SKIPPED: %v", err)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			topic := "zstd"
			got, err := c.ConsoleRead(ctx, topic, 0)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 22 || got[3].Value != nil || got[3].Headers != nil || len(got[4].Headers) != 2 || got[4].Headers[1].Value != nil {
				t.Errorf("console: %d records, want 22; the fourth is %+v, the fifth %+v", len(got), got[3], got[4])
			}
			for _, topic := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
				look(ctx, t, c, topic, topic)
			}
			dump, err := c.DumpLog(ctx, 1, topic, 0)
			if err != nil || !bytes.Contains([]byte(dump), []byte("isvalid: true")) {
				t.Errorf("dump: %v: %s", err, dump)
			}
		})
	}
}
