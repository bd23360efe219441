package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A fakeBrokers is a cluster in memory, for bubbles of synctest: it limits answers as
// Kafka does, and answers through kmsg's encoder.
type fakeBrokers struct {
	t  *testing.T
	mu sync.Mutex

	logs    map[TopicPartition][]fakeBatch
	start   map[TopicPartition]int64
	leaders map[TopicPartition]int32
	grown   chan struct{} // closed when a log grows

	// Ask may answer for a partition by a code, or for all by an error. It may be nil.
	ask      func(n int, broker int32, rq *fetchRequest) (map[TopicPartition]kafka.Error, error)
	requests [][]fetchAsk
	cuts     bool // a batch that does not fit is cut; Kafka itself leaves it out
	stale    int
}

type fakeBatch struct {
	raw  []byte
	last int64
}

func newFakeBrokers(t *testing.T, parts int) *fakeBrokers {
	b := &fakeBrokers{t: t, logs: make(map[TopicPartition][]fakeBatch), start: make(map[TopicPartition]int64),
		leaders: make(map[TopicPartition]int32), grown: make(chan struct{})}
	for p := range parts {
		b.leaders[fakePart(p)] = 1
	}
	return b
}

// asked returns how many requests came.
func (b *fakeBrokers) asked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.requests)
}

// holds returns how many bytes of credit are in use.
func (f *Fetcher) holds() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held
}

func fakePart(p int) TopicPartition { return TopicPartition{Topic: "t", Partition: int32(p)} }

// write appends a batch of n records whose values have size bytes.
func (b *fakeBrokers) write(p, n, size int) {
	var w BatchWriter
	for range n {
		if err := w.Append(nil, make([]byte, size), nil, 0); err != nil {
			b.t.Fatal(err)
		}
	}
	raw, err := w.Finish(-1, -1, -1, false)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	tp := fakePart(p)
	next := b.end(tp)
	binary.BigEndian.PutUint64(raw, uint64(next))
	b.logs[tp] = append(b.logs[tp], fakeBatch{raw, next + int64(n) - 1})
	close(b.grown)
	b.grown = make(chan struct{})
}

func (b *fakeBrokers) end(tp TopicPartition) int64 {
	if l := b.logs[tp]; len(l) > 0 {
		return l[len(l)-1].last + 1
	}
	return b.start[tp]
}

func (b *fakeBrokers) Leader(_ context.Context, tp TopicPartition) (int32, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id, ok := b.leaders[tp]
	switch {
	case !ok:
		return 0, kafka.UnknownTopicOrPartition
	case id < 0:
		return 0, kafka.LeaderNotAvailable
	}
	return id, nil
}

func (b *fakeBrokers) Stale(string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stale++
}

func (b *fakeBrokers) ListOffsets(_ context.Context, tps []TopicPartition, at int64, _ bool) (map[TopicPartition]int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	got := make(map[TopicPartition]int64)
	for _, tp := range tps {
		if got[tp] = b.start[tp]; at == -1 {
			got[tp] = b.end(tp)
		}
	}
	return got, nil
}

func (b *fakeBrokers) AskBroker(ctx context.Context, broker int32, _ string, m protocol.Message) (protocol.Message, error) {
	rq := m.(*fetchRequest)
	b.mu.Lock()
	n := len(b.requests)
	b.requests = append(b.requests, slices.Clone(rq.asks))
	b.mu.Unlock()
	var codes map[TopicPartition]kafka.Error
	if b.ask != nil {
		var err error
		if codes, err = b.ask(n, broker, rq); err != nil {
			return nil, err
		}
	}
	timeout := time.After(rq.maxWait)
	for waited := false; ; {
		res, news, grown := b.answer(broker, rq, codes)
		if news || waited {
			res.Version = 11
			body := res.AppendTo([]byte{0, 0, 0, ownCorrelation})
			return rq.RawExchange(struct {
				io.Reader
				io.Writer
			}{bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)), io.Discard})
		}
		select {
		case <-grown:
		case <-timeout:
			waited = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// answer builds an answer and reports whether it is worth sending at once.
func (b *fakeBrokers) answer(broker int32, rq *fetchRequest, codes map[TopicPartition]kafka.Error) (res *kmsg.FetchResponse, news bool, grown <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	res = kmsg.NewPtrFetchResponse()
	total := int(rq.maxBytes)
	for i := range rq.asks {
		a := &rq.asks[i]
		q := kmsg.NewFetchResponseTopicPartition()
		q.Partition, q.ErrorCode, q.HighWatermark, q.LogStartOffset = a.tp.Partition, int16(codes[a.tp]), b.end(a.tp), b.start[a.tp]
		switch {
		case q.ErrorCode != 0:
		case b.leaders[a.tp] != broker:
			q.ErrorCode = int16(kafka.NotLeaderForPartition)
		case a.offset < b.start[a.tp] || a.offset > b.end(a.tp):
			q.ErrorCode = int16(kafka.OffsetOutOfRange)
		default:
			most := max(0, min(int(a.maxBytes), total))
			for _, batch := range b.logs[a.tp] {
				if batch.last < a.offset {
					continue
				}
				if len(q.RecordBatches) == 0 && total == int(rq.maxBytes) {
					most = max(most, len(batch.raw)) // the first batch comes whole
				}
				q.RecordBatches = append(q.RecordBatches, batch.raw...)
			}
			q.RecordBatches = q.RecordBatches[:min(len(q.RecordBatches), most)]
			if _, err := behind(q.RecordBatches, a.offset); !b.cuts && err != nil {
				if next, _ := behind(q.RecordBatches, a.offset); next == a.offset {
					q.RecordBatches = nil
				}
			}
			total -= len(q.RecordBatches)
		}
		news = news || q.ErrorCode != 0 || len(q.RecordBatches) > 0
		if n := len(res.Topics); n == 0 || res.Topics[n-1].Topic != a.tp.Topic {
			res.Topics = append(res.Topics, kmsg.FetchResponseTopic{Topic: a.tp.Topic})
		}
		t := &res.Topics[len(res.Topics)-1]
		t.Partitions = append(t.Partitions, q)
	}
	return res, news, b.grown
}

// fakeFetcher runs f in a bubble with a fetcher that has all partitions from 0 on.
func fakeFetcher(t *testing.T, parts int, cfg FetchConfig, f func(t *testing.T, b *fakeBrokers, f *Fetcher, log *strings.Builder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newFakeBrokers(t, parts)
		fetcher := newFetcher(b, cfg)
		var log strings.Builder
		fetcher.log = slog.New(slog.NewTextHandler(&log, nil))
		defer fetcher.Close()
		f(t, b, fetcher, &log)
	})
}

// follow reads until partitions 0.. have come to ends, and requires every offset
// once, in order. It returns the first error of a partition.
func follow(t *testing.T, f *Fetcher, ends ...int64) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	next := make([]int64, len(ends))
	for !slices.Equal(next, ends) {
		c, err := f.Next(ctx)
		if err != nil {
			t.Fatalf("Next: %v; at %v of %v", err, next, ends)
		}
		if c.Err != nil {
			return c.Err
		}
		at := &next[c.TP.Partition]
		if c.First != *at {
			t.Fatalf("%s: a chunk begins at %d, want %d", c.TP, c.First, *at)
		}
		if err := c.Records(func(r *Record) error {
			if r.Offset != *at {
				return fmt.Errorf("%s: offset %d, want %d", c.TP, r.Offset, *at)
			}
			*at++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		c.Release()
	}
	return nil
}

// TestFetchLargeBatches requires that batches come which are larger than every limit,
// whatever place their partition has, and soon.
func TestFetchLargeBatches(t *testing.T) {
	cfg := FetchConfig{PartitionBytes: 1000, MaxBytes: 2000, Credits: 5000, PartitionCredits: 3000}
	for _, cuts := range []bool{false, true} {
		t.Run(fmt.Sprint("cuts=", cuts), func(t *testing.T) {
			fakeFetcher(t, 5, cfg, func(t *testing.T, b *fakeBrokers, f *Fetcher, _ *strings.Builder) {
				b.cuts = cuts
				ends := make([]int64, 5)
				for p := range ends {
					f.Add(fakePart(p), 1, 0)
					for range 10 {
						b.write(p, 3, 100)
						b.write(p, 2, 10000+p)
						b.write(p, 1, 20)
					}
					ends[p] = 60
				}
				if err := follow(t, f, ends...); err != nil {
					t.Fatal(err)
				}
				if n := b.asked(); n > 3*10*len(ends)*2 {
					t.Errorf("%d requests for %d batches", n, 3*10*len(ends))
				}
			})
		})
	}
}

// TestFetchTurns requires that small batches of some partitions do not starve large
// ones of others, though each answer has room for two of the small ones.
func TestFetchTurns(t *testing.T) {
	cfg := FetchConfig{PartitionBytes: 1000, MaxBytes: 2000}
	fakeFetcher(t, 4, cfg, func(t *testing.T, b *fakeBrokers, f *Fetcher, _ *strings.Builder) {
		for range 200 {
			for p := range 4 {
				b.write(p, 1, 850+p%2*500)
			}
		}
		for p := range 4 {
			f.Add(fakePart(p), 1, 0)
		}
		var got [4]int
		for range 200 {
			c, err := f.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got[c.TP.Partition]++
			c.Release()
		}
		if slices.Min(got[:]) < 30 {
			t.Errorf("of 200 chunks the partitions have %v", got)
		}
	})
}

// TestFetchErrors gives every partition's first answers a code.
func TestFetchErrors(t *testing.T) {
	for _, c := range []struct {
		code  kafka.Error
		times int
		final bool
	}{
		{kafka.NotLeaderForPartition, 40, false}, {kafka.LeaderNotAvailable, 40, false}, {kafka.UnknownTopicOrPartition, 40, false},
		{kafka.FencedLeaderEpoch, 40, false}, {kafka.UnknownLeaderEpoch, 40, false}, {kafka.OffsetNotAvailable, 40, false},
		{kafka.ReplicaNotAvailable, 40, false}, {kafka.KafkaStorageError, 40, false}, {kafka.RequestTimedOut, 40, false},
		{kafka.InvalidMessage, 5, false}, {kafka.Unknown, 5, false}, // the broker's log is broken, perhaps
		{kafka.InvalidMessage, 1 << 30, true}, {kafka.Unknown, 1 << 30, true}, {kafka.UnknownTopicOrPartition, 1 << 30, true},
		{kafka.TopicAuthorizationFailed, 1, true}, {kafka.UnsupportedCompressionType, 1, true}, {kafka.OffsetOutOfRange, 3, false},
	} {
		t.Run(fmt.Sprintf("%d times %d", c.code, c.times), func(t *testing.T) {
			fakeFetcher(t, 2, FetchConfig{}, func(t *testing.T, b *fakeBrokers, f *Fetcher, log *strings.Builder) {
				left := map[TopicPartition]int{fakePart(0): c.times, fakePart(1): c.times}
				b.ask = func(_ int, _ int32, rq *fetchRequest) (map[TopicPartition]kafka.Error, error) {
					codes := make(map[TopicPartition]kafka.Error)
					for _, a := range rq.asks {
						if left[a.tp]--; left[a.tp] >= 0 {
							codes[a.tp] = c.code
						}
					}
					return codes, nil
				}
				for p := range 2 {
					b.write(p, 10, 10)
					f.Add(fakePart(p), 1, 0)
				}
				began := time.Now()
				err := follow(t, f, 10, 10)
				if c.final != (err != nil) || err != nil && !errors.Is(err, c.code) {
					t.Errorf("error %v, want one: %v", err, c.final)
				}
				if took := time.Since(began); took > 2*time.Minute {
					t.Errorf("it took %v", took)
				}
				if long := time.Since(began) > quiet; !c.final && long != strings.Contains(log.String(), "cannot be read at present") {
					t.Errorf("after %v the log says %q", time.Since(began), log)
				}
			})
		})
	}
}

// TestFetchOutage requires that an outage of any length ends in nothing but a warning
// and a word that it is over.
func TestFetchOutage(t *testing.T) {
	fakeFetcher(t, 1, FetchConfig{}, func(t *testing.T, b *fakeBrokers, f *Fetcher, log *strings.Builder) {
		until := time.Now().Add(10 * time.Minute)
		b.ask = func(int, int32, *fetchRequest) (map[TopicPartition]kafka.Error, error) {
			if time.Now().Before(until) {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, nil
		}
		b.write(0, 5, 5)
		f.Add(fakePart(0), 1, 0)
		if err := follow(t, f, 5); err != nil {
			t.Fatal(err)
		}
		if n := b.asked(); n > 700 {
			t.Errorf("%d requests in 10 minutes", n)
		}
		if late := time.Since(until); late > 2*time.Second {
			t.Errorf("read %v after the outage", late)
		}
		if n := strings.Count(log.String(), "WARN"); n != 1 || !strings.Contains(log.String(), "is read again") {
			t.Errorf("log:\n%s", log)
		}
	})
}

// TestFetchReserve requires that a fetcher reads ahead, and stops reading ahead.
func TestFetchReserve(t *testing.T) {
	fakeFetcher(t, 1, FetchConfig{PartitionBytes: 1000}, func(t *testing.T, b *fakeBrokers, f *Fetcher, _ *strings.Builder) {
		for range 20 {
			b.write(0, 1, 900)
		}
		f.Add(fakePart(0), 1, 0)
		for i := range 18 {
			synctest.Wait()
			if n := b.asked(); n != i+2 {
				t.Fatalf("%d requests before chunk %d is taken, want %d", n, i, i+2)
			}
			c, err := f.Next(t.Context())
			if err != nil || c.First != int64(i) {
				t.Fatalf("chunk %d: %v", i, err)
			}
			c.Release()
		}
	})
}

// TestFetchCredits requires that chunks nobody releases hold up their own partition,
// then all of them, and no more.
func TestFetchCredits(t *testing.T) {
	cfg := FetchConfig{PartitionBytes: 4096, Credits: 64 << 10, PartitionCredits: 16 << 10}
	fakeFetcher(t, 2, cfg, func(t *testing.T, b *fakeBrokers, f *Fetcher, _ *strings.Builder) {
		for range 100 {
			b.write(0, 1, 4000)
			b.write(1, 1, 4000)
		}
		f.Add(fakePart(0), 1, 0)
		f.Add(fakePart(1), 1, 0)
		var kept []*Chunk
		next := []int64{0, 0}
		for next[1] < 100 { // partition 0's are kept
			c, err := f.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			next[c.TP.Partition] = c.Next
			if c.TP.Partition == 0 {
				kept = append(kept, c)
			} else {
				c.Release()
			}
			if f.holds() > cfg.Credits+8192 {
				t.Fatalf("%d bytes are held", f.holds())
			}
		}
		if n := len(kept); n < 4 || n > 6 {
			t.Errorf("%d chunks of 4 KiB came on a credit of 16", n)
		}
		for _, c := range kept {
			c.Release()
			c.Release()
		}
		for next[0] < 100 {
			c, err := f.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if c.First != next[0] {
				t.Fatalf("a chunk begins at %d, want %d", c.First, next[0])
			}
			next[0] = c.Next
			c.Release()
		}
		synctest.Wait()
		if f.holds() != 0 {
			t.Errorf("%d bytes are held at the end", f.holds())
		}
	})
}

// TestFetchUnpackedCredits requires that what grows when unpacked counts.
func TestFetchUnpackedCredits(t *testing.T) {
	fakeFetcher(t, 1, FetchConfig{}, func(t *testing.T, b *fakeBrokers, f *Fetcher, _ *strings.Builder) {
		var w BatchWriter
		w.Reset(Zstd, nil)
		if err := w.Append(nil, make([]byte, 1<<20), nil, 0); err != nil {
			t.Fatal(err)
		}
		raw, err := w.Finish(-1, -1, -1, false)
		if err != nil {
			t.Fatal(err)
		}
		b.logs[fakePart(0)] = []fakeBatch{{bytes.Clone(raw), 0}}
		f.Add(fakePart(0), 1, 0)
		c, err := f.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := c.Records(func(*Record) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if f.holds() < 1<<20 {
			t.Errorf("%d bytes are held of a record of 1 MiB", f.holds())
		}
		c.Release()
		if f.holds() != 0 {
			t.Errorf("%d bytes are held after Release", f.holds())
		}
	})
}

// TestFetchRemove removes partitions at every moment of a request.
func TestFetchRemove(t *testing.T) {
	fakeFetcher(t, 3, FetchConfig{PartitionBytes: 1000}, func(t *testing.T, b *fakeBrokers, f *Fetcher, _ *strings.Builder) {
		for p := range 3 {
			for range 50 {
				b.write(p, 1, 900)
			}
		}
		for epoch := int64(1); epoch <= 60; epoch++ {
			for p := range 3 {
				f.Add(fakePart(p), epoch, epoch%40)
			}
			for range epoch % 7 {
				if c, err := f.Next(t.Context()); err != nil {
					t.Fatal(err)
				} else {
					c.Release()
				}
			}
			f.Remove(fakePart(0), fakePart(1))
			seen := int64(-1)
			for range 3 {
				c, err := f.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if c.TP != fakePart(2) || c.Epoch != epoch || seen >= 0 && c.First != seen {
					t.Fatalf("epoch %d: chunk of %s, epoch %d, from %d behind %d", epoch, c.TP, c.Epoch, c.First, seen)
				}
				seen = c.Next
				c.Release()
			}
			f.Remove(fakePart(2))
		}
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.held != 0 || len(f.leaders) != 0 {
			t.Errorf("%d bytes held, %d leaders asked without partitions", f.held, len(f.leaders))
		}
	})
}

// TestFetchIdle requires that a partition without news costs a request each MaxWait,
// and that news come at once.
func TestFetchIdle(t *testing.T) {
	fakeFetcher(t, 1, FetchConfig{}, func(t *testing.T, b *fakeBrokers, f *Fetcher, _ *strings.Builder) {
		f.Add(fakePart(0), 1, 0)
		time.Sleep(time.Minute)
		if n := b.asked(); n < 110 || n > 140 {
			t.Errorf("%d requests in a minute of nothing", n)
		}
		began := time.Now()
		b.write(0, 1, 1)
		if err := follow(t, f, 1); err != nil || time.Since(began) > 0 {
			t.Errorf("news after %v, %v", time.Since(began), err)
		}
		if err := f.closeInTime(); err != nil {
			t.Error(err)
		}
	})
}

// closeInTime closes while Next waits, which ends.
func (f *Fetcher) closeInTime() error {
	got := make(chan error, 1)
	go func() {
		_, err := f.Next(context.Background())
		got <- err
	}()
	synctest.Wait()
	f.Close()
	if err := <-got; !errors.Is(err, ErrClosed) {
		return fmt.Errorf("Next = %v, want ErrClosed", err)
	}
	f.Add(fakePart(0), 1, 0) // does nothing
	f.Close()
	return nil
}

// TestFetchBadBatch requires that a batch that cannot be read is told, and ends the
// partition.
func TestFetchBadBatch(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(good []byte) []byte
		want error
	}{
		{"an old version", func(good []byte) []byte { good[atMagic] = 1; return good }, ErrOldBatch},
		{"a checksum", func(good []byte) []byte { good[len(good)-1]++; return good }, ErrChecksum},
	} {
		t.Run(c.name, func(t *testing.T) {
			fakeFetcher(t, 1, FetchConfig{}, func(t *testing.T, b *fakeBrokers, f *Fetcher, _ *strings.Builder) {
				b.write(0, 1, 5)
				b.write(0, 1, 5)
				l := b.logs[fakePart(0)]
				l[1].raw = c.set(l[1].raw)
				f.Add(fakePart(0), 1, 0)
				chunk, err := f.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				err = chunk.Records(func(*Record) error { n++; return nil })
				var be *BatchError
				if n != 1 || !errors.Is(err, c.want) || !errors.As(err, &be) || be.Offset != 1 {
					t.Errorf("%d records, then %v", n, err)
				}
				chunk.Release()
			})
		})
	}
}

// TestFetchPast requires that a broker which gives only what is before the offset
// does not keep the fetcher for ever.
func TestFetchPast(t *testing.T) {
	fakeFetcher(t, 1, FetchConfig{}, func(t *testing.T, b *fakeBrokers, f *Fetcher, _ *strings.Builder) {
		b.write(0, 1, 5)
		l := b.logs[fakePart(0)]
		l[0].last = 100 // it says more than it has
		f.Add(fakePart(0), 1, 50)
		if c, err := f.Next(t.Context()); err != nil || c.Err == nil {
			t.Errorf("%v, %v; want an error", c, err)
		}
	})
}
