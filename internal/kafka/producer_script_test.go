package kafka_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// A ledger is what the scripted leaders know: it answers as it is told, and takes
// batches as Java's brokers do.
type ledger struct {
	*script
	mu    sync.Mutex
	codes []int16          // answers to the next batches, of which those with code 0, 7 or 20 are written
	next  map[string]int32 // sequence by partition
	end   map[string]int64 // offset by partition
	raw   map[string][][]byte
}

// newLedger returns brokers that lead partitions of the topic t, and a producer's id
// 7 with epoch 3.
func newLedger(t *testing.T, leaders ...int32) *ledger {
	l := &ledger{script: newScript(t, 1, 2, 3), next: map[string]int32{}, end: map[string]int64{}, raw: map[string][][]byte{}}
	l.leaders["t"] = leaders
	l.on(kmsg.InitProducerID, func(_ int32, r kmsg.Request) kmsg.Response {
		res := r.ResponseKind().(*kmsg.InitProducerIDResponse)
		res.ProducerID, res.ProducerEpoch = 7, 3
		return res
	})
	l.on(kmsg.Produce, l.produce)
	l.on(kmsg.AddPartitionsToTxn, func(_ int32, r kmsg.Request) kmsg.Response { return addAnswer(r, nil) })
	l.on(kmsg.AddOffsetsToTxn, func(_ int32, r kmsg.Request) kmsg.Response { return r.ResponseKind() })
	l.on(kmsg.TxnOffsetCommit, func(_ int32, r kmsg.Request) kmsg.Response {
		res := r.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
		for _, t := range r.(*kmsg.TxnOffsetCommitRequest).Topics {
			st := kmsg.TxnOffsetCommitResponseTopic{Topic: t.Topic}
			for _, p := range t.Partitions {
				st.Partitions = append(st.Partitions, kmsg.TxnOffsetCommitResponseTopicPartition{Partition: p.Partition})
			}
			res.Topics = append(res.Topics, st)
		}
		return res
	})
	l.on(kmsg.EndTxn, func(_ int32, r kmsg.Request) kmsg.Response { return r.ResponseKind() })
	return l
}

// addAnswer answers AddPartitionsToTxn with a code by partition; nil is none.
func addAnswer(r kmsg.Request, codes map[int32]int16) kmsg.Response {
	res := r.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	for _, t := range r.(*kmsg.AddPartitionsToTxnRequest).Topics {
		st := kmsg.AddPartitionsToTxnResponseTopic{Topic: t.Topic}
		for _, p := range t.Partitions {
			st.Partitions = append(st.Partitions, kmsg.AddPartitionsToTxnResponseTopicPartition{Partition: p, ErrorCode: codes[p]})
		}
		res.Topics = append(res.Topics, st)
	}
	return res
}

// javaIncrement is DefaultRecordBatch.incrementSequence.
func javaIncrement(sequence, n int32) int32 {
	if sequence > math.MaxInt32-n {
		return n - (math.MaxInt32 - sequence) - 1
	}
	return sequence + n
}

func (l *ledger) produce(_ int32, r kmsg.Request) kmsg.Response {
	l.mu.Lock()
	defer l.mu.Unlock()
	res := r.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range r.(*kmsg.ProduceRequest).Topics {
		st := kmsg.ProduceResponseTopic{Topic: t.Topic}
		for _, p := range t.Partitions {
			st.Partitions = append(st.Partitions, l.take(fmt.Sprint(t.Topic, "/", p.Partition), p))
		}
		res.Topics = append(res.Topics, st)
	}
	return res
}

// take answers one batch.
func (l *ledger) take(name string, p kmsg.ProduceRequestTopicPartition) kmsg.ProduceResponseTopicPartition {
	sp := kmsg.NewProduceResponseTopicPartition()
	sp.Partition, sp.BaseOffset = p.Partition, -1
	var bt kmsg.RecordBatch
	if err := bt.ReadFrom(p.Records); err != nil || bt.ProducerID != 7 || bt.ProducerEpoch != 3 {
		l.t.Errorf("a batch of producer %d, epoch %d: %v", bt.ProducerID, bt.ProducerEpoch, err)
	}
	code := int16(0)
	if len(l.codes) > 0 {
		code, l.codes = l.codes[0], l.codes[1:]
	}
	l.raw[name] = append(l.raw[name], p.Records)
	sp.ErrorCode = code
	if code != 0 && code != 7 && code != 20 {
		return sp
	}
	switch next, seen := l.next[name]; {
	case seen && javaIncrement(bt.FirstSequence, bt.NumRecords) == next:
		if code == 0 {
			sp.BaseOffset = l.end[name] - int64(bt.NumRecords) // again
		}
	case seen && bt.FirstSequence != next:
		sp.ErrorCode = 45
	default:
		l.next[name] = javaIncrement(bt.FirstSequence, bt.NumRecords)
		if code == 0 {
			sp.BaseOffset = l.end[name]
		}
		l.end[name] += int64(bt.NumRecords)
	}
	return sp
}

// sent returns the batches that came for a partition, once each or again.
func (l *ledger) sent(name string) [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.raw[name])
}

func (l *ledger) producer(cfg kafka.ProducerConfig) *kafka.Producer {
	l.t.Helper()
	p, err := kafka.NewProducer(l.t.Context(), l.open(), cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(p.Close)
	return p
}

func part(i int) kafka.TopicPartition { return kafka.TopicPartition{Topic: "t", Partition: int32(i)} }

func (l *ledger) write(p *kafka.Producer, partition, n int) {
	l.t.Helper()
	for i := range n {
		if err := p.Append(part(partition), nil, fmt.Append(nil, "value ", i), nil, 1); err != nil {
			l.t.Fatal(err)
		}
	}
}

// What each answer means: the same bytes again, acknowledged, or the producer's end.
func TestProducerAnswers(t *testing.T) {
	const again, acked, spent = "again", "acked", "spent"
	cases := map[int16]string{46: acked}
	for _, code := range []int16{3, 5, 6, 7, 8, 13, 14, 15, 16, 19, 20, 51, 56, 74, 75, 89, 2} {
		cases[code] = again
	}
	for _, code := range []int16{-1, 1, 4, 17, 21, 22, 25, 29, 35, 42, 43, 45, 47, 48, 49, 53, 59, 76, 87, 90} {
		cases[code] = spent
	}
	for code, want := range cases {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLedger(t, 1)
				p := l.producer(kafka.ProducerConfig{Compression: kafka.Lz4})
				l.codes = []int16{0, code}
				l.write(p, 0, 5)
				if err := p.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				l.write(p, 0, 7)
				err := p.Flush(t.Context())
				if (err != nil) != (want == spent) {
					t.Fatalf("Flush = %v, want %s", err, want)
				}
				if err != nil && (!errors.Is(err, kafkago.Error(code)) || !strings.Contains(err.Error(), "write 7 records to t/0")) {
					t.Errorf("Flush = %v, want error %d and the partition", err, code)
				}
				raw := l.sent("t/0")[1:]
				if n := map[string]int{again: 2, acked: 1, spent: 1}[want]; len(raw) != n {
					t.Fatalf("the batch was sent %d times, want %d", len(raw), n)
				}
				for _, b := range raw {
					if !bytes.Equal(b, raw[0]) {
						t.Error("other bytes were sent again")
					}
				}
			})
		})
	}
}

// A batch that is taken for damaged is not sent for ever.
func TestProducerDamagedBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(t, 1)
		p := l.producer(kafka.ProducerConfig{})
		l.codes = slices.Repeat([]int16{2}, 100)
		l.write(p, 0, 5)
		if err := p.Flush(t.Context()); !errors.Is(err, kafkago.InvalidMessage) {
			t.Errorf("Flush = %v, want %v", err, kafkago.InvalidMessage)
		}
		if n := len(l.sent("t/0")); n != 4 {
			t.Errorf("it was sent %d times, want 4", n)
		}
	})
}

// A topic that is not there is waited for, but not for ever; with the deadline all
// ends.
func TestProducerGivesUp(t *testing.T) {
	for _, c := range []struct {
		code     int16
		deadline time.Duration
		from, to time.Duration
		words    string
	}{
		{3, 0, 10 * time.Second, 12 * time.Second, "write 5 records to t/0: [3]"},
		{6, 0, 118 * time.Second, 120 * time.Second, "gave up after 2m0s: write 5 records"},
		{19, 3 * time.Second, 1 * time.Second, 3 * time.Second, "gave up after 3s: write 5 records"},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger(t, 1)
			p := l.producer(kafka.ProducerConfig{Deadline: c.deadline})
			l.codes = slices.Repeat([]int16{c.code}, 10_000)
			l.write(p, 0, 5)
			began := time.Now()
			err := p.Flush(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("Flush = %v, want it to have %q", err, c.words)
			}
			if took := time.Since(began); took < c.from || took > c.to {
				t.Errorf("code %d: it took %v, want %v to %v", c.code, took, c.from, c.to)
			}
			if n := len(l.sent("t/0")); n > 200 {
				t.Errorf("code %d: it was sent %d times", c.code, n)
			}
		})
	}
}

// No answer at all is one of the things that end with the deadline, and a flush that
// is given up does not spend the producer.
func TestProducerSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(t, 1)
		p := l.producer(kafka.ProducerConfig{Deadline: 100 * time.Second})
		l.on(kmsg.Produce, func(int32, kmsg.Request) kmsg.Response { return nil })
		l.write(p, 0, 5)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush = %v, want a time-out", err)
		}
		l.write(p, 0, 1)
		err := p.Flush(t.Context())
		if err == nil || !strings.Contains(err.Error(), "gave up after 1m40s") {
			t.Errorf("Flush = %v, want that it gave up", err)
		}
		if took := time.Since(began); took < 90*time.Second || took > 100*time.Second {
			t.Errorf("it took %v, want 100 s", took)
		}
		if n := len(l.of(kmsg.Produce)); n != 4 {
			t.Errorf("it was sent %d times, want 4: each waits for 30 s", n)
		}
	})
}

// Sequences go on where Java's would, past 2^31-1, over batches and transactions.
func TestProducerSequenceWraps(t *testing.T) {
	for from := int32(math.MaxInt32 - 12); from < math.MaxInt32-7; from++ {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger(t, 1)
			p := l.producer(kafka.ProducerConfig{TransactionalID: "x"})
			kafka.SetSequence(p, part(0), from)
			l.next["t/0"] = from
			for i := range 6 {
				l.codes = []int16{7} // each is sent twice
				l.write(p, 0, 5)
				err := p.Flush(t.Context())
				if err == nil && i%2 == 1 {
					err = p.Commit(t.Context(), nil, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if l.end["t/0"] != 30 || p.Written()[part(0)] != 30 {
				t.Errorf("%d records are in the log, written up to %d; want 30", l.end["t/0"], p.Written()[part(0)])
			}
		})
	}
}

// A flush is one request to the coordinator and one to each leader.
func TestProducerSendsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(t, 1, 2, 3, 1, 2, 3, 1, 1)
		p := l.producer(kafka.ProducerConfig{TransactionalID: "x"})
		for round := range 3 {
			for i := range 8 {
				l.write(p, i, 3)
			}
			if err := p.Commit(t.Context(), &kafka.Member{Group: "g", Generation: -1}, at(1)); err != nil {
				t.Fatal(err)
			}
			// The leaders are unknown before the first round, when each partition waits by itself.
			if n := len(l.of(kmsg.Produce)); round > 0 && n != 3 {
				t.Errorf("%d produce requests for 3 leaders, want 3", n)
			}
			for key, n := range map[kmsg.Key]int{kmsg.AddPartitionsToTxn: 1, kmsg.AddOffsetsToTxn: 1, kmsg.TxnOffsetCommit: 1, kmsg.EndTxn: 1} {
				if got := len(l.of(key)); got != n {
					t.Errorf("%d %s requests, want %d", got, key.Name(), n)
				}
			}
			l.script.mu.Lock()
			l.asked = nil
			l.script.mu.Unlock()
		}
	})
}

// The coordinator that settles the transaction before is asked again soon, a refused
// partition by its own error and not by that of the others.
func TestProducerAddsPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(t, 1, 1)
		busy := 5
		l.on(kmsg.AddPartitionsToTxn, func(_ int32, r kmsg.Request) kmsg.Response {
			if busy--; busy >= 0 {
				return addAnswer(r, map[int32]int16{0: 51, 1: 51})
			}
			return addAnswer(r, nil)
		})
		p := l.producer(kafka.ProducerConfig{TransactionalID: "x"})
		l.write(p, 0, 3)
		l.write(p, 1, 3)
		began := time.Now()
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 60*time.Millisecond {
			t.Errorf("it took %v, want less than 60 ms", took)
		}
		l.on(kmsg.AddPartitionsToTxn, func(_ int32, r kmsg.Request) kmsg.Response {
			return addAnswer(r, map[int32]int16{0: 55, 1: 29})
		})
		if err := p.Commit(t.Context(), nil, nil); err != nil {
			t.Fatal(err)
		}
		l.write(p, 0, 3)
		l.write(p, 1, 3)
		err := p.Commit(t.Context(), nil, nil)
		if !errors.Is(err, kafkago.TopicAuthorizationFailed) || !kafka.IsPermanent(err) || !strings.Contains(err.Error(), "t/1") {
			t.Errorf("Commit = %v, want the missing right for t/1", err)
		}
		if n := len(l.of(kmsg.EndTxn)); n != 1 {
			t.Errorf("%d EndTxn requests, want 1", n)
		}
	})
}

// A commit whose outcome is unknown says so; one that was refused does not.
func TestProducerUnknownOutcome(t *testing.T) {
	silence := int16(math.MaxInt16)
	for name, c := range map[string]struct {
		codes   []int16 // answers to EndTxn; the last one is repeated
		ok      bool
		unknown bool
		fenced  bool
	}{
		"good":                          {codes: []int16{0}, ok: true},
		"moved":                         {codes: []int16{16, 15, 14, 51, 0}, ok: true},
		"refused":                       {codes: []int16{48}, fenced: true},
		"fenced":                        {codes: []int16{47}, fenced: true},
		"no right":                      {codes: []int16{53}},
		"no answer":                     {codes: []int16{silence}, unknown: true},
		"an answer after none":          {codes: []int16{silence, 0}, ok: true},
		"refused after no answer":       {codes: []int16{silence, 47}, unknown: true, fenced: true},
		"refused after time-out":        {codes: []int16{7, 48}, unknown: true, fenced: true},
		"coordinator never gets better": {codes: []int16{15}, unknown: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLedger(t, 1)
				p := l.producer(kafka.ProducerConfig{TransactionalID: "x"})
				l.on(kmsg.EndTxn, func(_ int32, r kmsg.Request) kmsg.Response {
					code := c.codes[min(len(l.of(kmsg.EndTxn)), len(c.codes))-1]
					if code == silence {
						return nil
					}
					res := r.ResponseKind().(*kmsg.EndTxnResponse)
					res.ErrorCode = code
					return res
				})
				l.write(p, 0, 3)
				began := time.Now()
				err := p.Commit(t.Context(), nil, nil)
				var unknown *kafka.UnknownOutcomeError
				if (err == nil) != c.ok || errors.As(err, &unknown) != c.unknown || kafka.IsFenced(err) != c.fenced {
					t.Errorf("Commit = %v; want success: %t, unknown: %t, fenced: %t", err, c.ok, c.unknown, c.fenced)
				}
				if took := time.Since(began); took > 2*time.Minute+time.Second {
					t.Errorf("it took %v, want two minutes at most", took)
				}
				if err != nil && p.Flush(t.Context()) != err { //nolint:errorlint // the very same
					t.Error("the producer is not spent")
				}
			})
		})
	}
}

// However much is appended, memory stays within bounds, with many partitions that
// have little and with few that have much.
func TestProducerMemory(t *testing.T) {
	for _, parts := range []int{1, 3, 500} {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger(t, slices.Repeat([]int32{1, 2, 3, 1, 2}, 100)...)
			const bound, slack = 1 << 20, 300_000 // three batches
			p := l.producer(kafka.ProducerConfig{MaxBytes: bound, MaxBatchBytes: 100_000, Compression: kafka.Snappy})
			open := make(chan struct{})
			l.on(kmsg.Produce, func(b int32, r kmsg.Request) kmsg.Response {
				<-open
				return l.produce(b, r)
			})
			const records = 30_000
			done := make(chan error, 1)
			peak := int64(0)
			go func() {
				value := make([]byte, 1000)
				for i := range records {
					binary.BigEndian.PutUint64(value, uint64(i)*0x9e3779b97f4a7c15)
					if err := p.Append(part(i%parts), nil, value, nil, 1); err != nil {
						done <- err
						return
					}
					peak = max(peak, kafka.Held(p))
				}
				done <- p.Flush(t.Context())
			}()
			synctest.Wait() // until Append waits
			if held := kafka.Held(p); held < bound/2 || held > bound+slack {
				t.Errorf("%d partitions: %d bytes are held while nothing is taken, want about %d", parts, held, bound)
			}
			close(open)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if peak > bound+slack {
				t.Errorf("%d partitions: %d bytes were held, want %d at most", parts, peak, bound)
			}
			n := int64(0)
			for _, end := range l.end {
				n += end
			}
			if n != records {
				t.Errorf("%d partitions: %d records arrived, want %d", parts, n, records)
			}
		})
	}
}

// A leader that is gone is looked for; the others are not held up.
func TestProducerFollowsLeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(t, 1, 2)
		p := l.producer(kafka.ProducerConfig{})
		l.write(p, 0, 1)
		l.write(p, 1, 1)
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.script.mu.Lock()
		l.leaders["t"] = []int32{3, 2}
		l.script.mu.Unlock()
		l.breakDial(1, errors.New("down"))
		l.cut()
		l.write(p, 0, 1)
		l.write(p, 1, 1)
		began := time.Now()
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v, want less than a second", took)
		}
		asks := l.of(kmsg.Produce)
		behind := asks[2:] // the two of before
		if !slices.ContainsFunc(behind, func(a ask) bool { return a.broker == 3 }) {
			t.Errorf("no request went to broker 3, of %d", len(behind))
		}
	})
}

// A broker that does not know members' generations must not be asked to commit.
func TestProducerOldBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(t, 1)
		l.ranges[int16(kmsg.TxnOffsetCommit)] = [2]int16{0, 2}
		p := l.producer(kafka.ProducerConfig{TransactionalID: "x"})
		l.write(p, 0, 1)
		err := p.Commit(t.Context(), &kafka.Member{Group: "g", Generation: 4, ID: "m"}, at(1))
		var version *kafka.VersionError
		if !errors.As(err, &version) || !kafka.IsPermanent(err) {
			t.Errorf("Commit = %v, want a version error", err)
		}
		if n := len(l.of(kmsg.TxnOffsetCommit)); n != 0 {
			t.Errorf("%d TxnOffsetCommit requests, want none", n)
		}
	})
}
