package kafka_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/internal/kafka/kafkatest"
)

// long says that there is time for all of the fault tests.
func long() bool { return os.Getenv("ELBO_LONG") != "" }

// A copier writes the numbers of [0, rows) to a topic, as if it read them from a
// source: exactly once in transactions, or at least once without. On any error it
// follows the recovery rule: a new producer, then the committed offset, then on from
// there.
type copier struct {
	f         *kfake.Cluster
	proxy     *kafkatest.Proxy
	topic     string // its name is the group's and the transactional id as well
	exact     bool
	rows      int
	each      int         // rows of a commit
	committed func(n int) // is told of each commit; may be nil
	codec     kafka.Compression
	tries     int           // sessions
	timeout   time.Duration // of one request
}

func (c *copier) run(ctx context.Context) error {
	for {
		c.tries++
		err := c.session(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%d sessions, the last one: %w", c.tries, err)
		case kafka.IsPermanent(err):
			return err
		}
	}
}

// session copies from the committed offset on, until it is done or fails.
func (c *copier) session(ctx context.Context) error {
	cfg := kafka.Config{Brokers: c.f.ListenAddrs(), Dial: c.proxy.Dial, RequestTimeout: c.timeout}
	cl, err := kafka.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = cl.Close() }()
	pc := kafka.ProducerConfig{Deadline: 20 * time.Second, MaxBatchBytes: 1000, Compression: c.codec}
	if c.exact {
		pc.TransactionalID = c.topic
	}
	p, err := kafka.NewProducer(ctx, cl, pc)
	if err != nil {
		return err
	}
	defer p.Close()
	src := kafka.TopicPartition{Topic: "in", Partition: 1}
	kept, err := cl.CommittedOffsets(ctx, c.topic, []kafka.TopicPartition{src})
	if err != nil {
		return err
	}
	m := kafka.Member{Group: c.topic, Generation: -1}
	for next := int(max(0, kept[src].Offset)); next < c.rows; {
		to := min(next+c.each, c.rows)
		for i := next; i < to; i++ {
			tp := kafka.TopicPartition{Topic: c.topic, Partition: int32(i % 4)}
			if err := p.Append(tp, fmt.Append(nil, i), fmt.Append(nil, "value ", i), nil, 0); err != nil {
				return err
			}
		}
		done := map[kafka.TopicPartition]kafka.Committed{src: {Offset: int64(to)}}
		if c.exact {
			err = p.Commit(ctx, &m, done)
		} else if err = p.Flush(ctx); err == nil {
			err = cl.CommitOffsets(ctx, m, done)
		}
		if err != nil {
			return err
		}
		if next = to; c.committed != nil {
			c.committed(next)
		}
	}
	return nil
}

// copies runs a copier and judges what it wrote.
func copies(t *testing.T, c *copier) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	if err := c.run(ctx); err != nil {
		t.Errorf("%s: %v", c.topic, err)
		return
	}
	judge(t, c)
}

func judge(t *testing.T, c *copier) {
	t.Helper()
	seen := map[string]int{}
	for _, r := range kafkatest.Oracle(t, c.f.ListenAddrs(), c.topic, true) {
		seen[string(r.Key)]++
	}
	lost, doubled := 0, 0
	for i := range c.rows {
		switch n := seen[fmt.Sprint(i)]; {
		case n == 0:
			lost++
		case n > 1:
			doubled += n - 1
		}
	}
	allowed := 0
	if !c.exact {
		allowed = (c.tries - 1) * c.each
	}
	if lost > 0 || doubled > allowed || len(seen) != c.rows {
		t.Errorf("%s: %d rows of %d, %d lost, %d doubled (%d are allowed), %d sessions", c.topic, len(seen), c.rows, lost, doubled, allowed, c.tries)
	}
}

func mode(exact bool) string {
	if exact {
		return "exactly"
	}
	return "idempotent"
}

// workers is how many copiers run at the same time.
const workers = 8

// atOnce calls f with each of all, workers at the same time.
func atOnce[T any](all []T, f func(T)) {
	slots := make(chan struct{}, workers)
	var wg sync.WaitGroup
	for _, x := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(x)
		})
	}
	wg.Wait()
}

// F1: each request is refused with each error, or its answer is lost, one to three
// times.
func TestProducerFaultsOfEachRequest(t *testing.T) {
	codes := []*kerr.Error{kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.CoordinatorNotAvailable,
		kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.UnknownTopicOrPartition, kerr.UnknownServerError,
		kerr.KafkaStorageError, nil, nil} // nil: no answer, before and after the broker did it
	fates := []kafkatest.Fate{10: kafkatest.CutBefore, 11: kafkatest.CutAfter}
	for exact, keys := range map[bool][]kmsg.Key{
		true: {kmsg.Produce, kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit, kmsg.EndTxn,
			kmsg.FindCoordinator, kmsg.Metadata, kmsg.OffsetFetch},
		false: {kmsg.Produce, kmsg.InitProducerID, kmsg.OffsetCommit, kmsg.FindCoordinator, kmsg.Metadata, kmsg.OffsetFetch},
	} {
		for _, key := range keys {
			t.Run(mode(exact)+"/"+key.Name(), func(t *testing.T) {
				f := kafkatest.Start(t, kfake.SeedTopics(4, "in"))
				type pair struct{ code, times int }
				var pairs []pair
				for code := range codes {
					for times := 1; times <= 3; times++ {
						pairs = append(pairs, pair{code, times})
					}
				}
				atOnce(pairs, func(x pair) {
					c := &copier{f: f, proxy: kafkatest.NewProxy(t), topic: fmt.Sprintf("%s-%d-%d-%d", mode(exact), key, x.code, x.times), exact: exact, rows: 40, each: 5}
					if err := f.CreateTopic(c.topic, 4, nil); err != nil {
						t.Error(err)
						return
					}
					hit := refuse(c, key, codes[x.code], fates[x.code], x.times)
					copies(t, c)
					if n := hit(); n == 0 {
						t.Errorf("%s: the fault was not met", c.topic)
					}
				})
			})
		}
	}
}

// refuse has the requests of a kind fail: the first ones, or those after the third
// commit for what is asked for with each. Hit says how many did.
func refuse(c *copier, key kmsg.Key, code *kerr.Error, fate kafkatest.Fate, times int) (hit func() int) {
	from := 0
	switch key {
	case kmsg.Produce, kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.OffsetCommit:
		from = 15
	}
	var mu sync.Mutex
	armed, n := from == 0, 0
	c.committed = func(next int) {
		mu.Lock()
		defer mu.Unlock()
		armed = armed || next == from
	}
	claim := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if !armed || n == times {
			return false
		}
		n++
		return true
	}
	if code == nil {
		c.proxy.On(func(r kafkatest.Request) kafkatest.Fate {
			if r.Key == key && claim() {
				return fate
			}
			return kafkatest.Pass
		})
	} else {
		c.f.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: code, Count: -1, When: func(r kmsg.Request) bool { return about(r, c.topic) && claim() }})
	}
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// about reports whether a request is that of the copier of a topic, as far as can be
// told.
func about(r kmsg.Request, topic string) bool {
	switch r := r.(type) {
	case *kmsg.ProduceRequest:
		return r.Topics[0].Topic == topic
	case *kmsg.InitProducerIDRequest:
		return r.TransactionalID == nil || *r.TransactionalID == topic
	case *kmsg.AddPartitionsToTxnRequest:
		return r.TransactionalID == topic
	case *kmsg.AddOffsetsToTxnRequest:
		return r.TransactionalID == topic
	case *kmsg.TxnOffsetCommitRequest:
		return r.TransactionalID == topic
	case *kmsg.EndTxnRequest:
		return r.TransactionalID == topic
	case *kmsg.FindCoordinatorRequest:
		return r.CoordinatorKey == topic
	case *kmsg.OffsetFetchRequest:
		return r.Group == topic
	case *kmsg.OffsetCommitRequest:
		return r.Group == topic
	case *kmsg.MetadataRequest:
		return len(r.Topics) == 1 && *r.Topics[0].Topic == topic
	}
	return false
}

// F2: the connection is cut before, within and after request N, whatever it is.
func TestProducerCuts(t *testing.T) {
	const last = 200
	for _, exact := range []bool{true, false} {
		t.Run(mode(exact), func(t *testing.T) {
			f := kafkatest.Start(t, kfake.SeedTopics(4, "in"))
			rows := 48 * 8 // at least 5 requests for 8 rows: all may go to one leader
			if !exact {
				rows = 120 * 8 // at least 2
			}
			type cut struct {
				n    int
				fate kafkatest.Fate
			}
			var cuts []cut
			for n := 1; n <= last; n++ {
				if n > 24 && n%16 != 8 && !long() { // the first transactions have all there is
					continue
				}
				for _, fate := range []kafkatest.Fate{kafkatest.CutBefore, kafkatest.CutHalf, kafkatest.CutAfter} {
					cuts = append(cuts, cut{n, fate})
				}
			}
			var mu sync.Mutex
			sessions := 0
			atOnce(cuts, func(x cut) {
				c := &copier{f: f, proxy: kafkatest.NewProxy(t), topic: fmt.Sprintf("%s-%d-%d", mode(exact), x.n, x.fate), exact: exact, rows: rows, each: 8}
				if err := f.CreateTopic(c.topic, 4, nil); err != nil {
					t.Error(err)
					return
				}
				met := false
				c.proxy.On(func(r kafkatest.Request) kafkatest.Fate {
					if r.Total == x.n {
						met = true
						return x.fate
					}
					return kafkatest.Pass
				})
				copies(t, c)
				if !met {
					t.Errorf("%s: there was no request %d", c.topic, x.n)
				}
				mu.Lock()
				defer mu.Unlock()
				sessions += c.tries
			})
			t.Logf("%d cuts, %d sessions", len(cuts), sessions)
		})
	}
}

// shake runs copiers of both kinds while something is done to the brokers again and
// again, until they have copied all and it was done often enough.
func shake(t *testing.T, often time.Duration, what func(f *kfake.Cluster)) {
	rows, times := 20_000, 30
	if long() {
		rows, times = 1_000_000, 600
	}
	f := kafkatest.Start(t, kfake.SeedTopics(4, "in", "exactly", "idempotent"))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	copiers := []*copier{}
	var gaps []time.Duration // between commits of the exact one
	for _, exact := range []bool{true, false} {
		c := &copier{f: f, proxy: kafkatest.NewProxy(t), topic: mode(exact), exact: exact, rows: rows, each: 100, codec: kafka.Lz4}
		copiers = append(copiers, c)
		last := time.Now()
		c.committed = func(int) {
			gaps = append(gaps, time.Since(last))
			last = time.Now()
		}
		if !exact {
			c.committed = nil
		}
		all.Go(func() {
			if err := c.run(ctx); err != nil {
				t.Errorf("%s: %v", c.topic, err)
			}
		})
	}
	over := make(chan struct{})
	go func() { all.Wait(); close(over) }()
	tick := time.NewTicker(often)
	defer tick.Stop()
	n := 0
	for running := true; running; {
		select {
		case <-tick.C:
			if n < times {
				what(f)
				n++
			}
		case <-over:
			running = false
		}
	}
	for _, c := range copiers {
		t.Logf("%s: %d sessions, %d faults", c.topic, c.tries, n)
		judge(t, c)
	}
	slices.Sort(gaps)
	t.Logf("%d commits; the longest took %v, of a hundred the second longest %v", len(gaps), gaps[len(gaps)-1], gaps[len(gaps)*99/100])
}

// F3: partitions get other leaders.
func TestProducerLeaderShuffles(t *testing.T) {
	shake(t, 30*time.Millisecond, (*kfake.Cluster).ShufflePartitionLeaders)
}

// F4: groups and transactions get other coordinators.
func TestProducerCoordinatorRehashes(t *testing.T) {
	shake(t, 50*time.Millisecond, (*kfake.Cluster).RehashCoordinators)
}

// Answers that never come are waited for, and asked for again.
func TestProducerSwallowedAnswers(t *testing.T) {
	f := kafkatest.Start(t, kfake.SeedTopics(4, "in", "exactly", "idempotent"))
	atOnce([]bool{true, false}, func(exact bool) {
		c := &copier{f: f, proxy: kafkatest.NewProxy(t), topic: mode(exact), exact: exact, rows: 200, each: 20, timeout: 200 * time.Millisecond}
		c.proxy.On(func(r kafkatest.Request) kafkatest.Fate {
			if r.Total%17 == 16 {
				return kafkatest.Swallow
			}
			return kafkatest.Pass
		})
		copies(t, c)
	})
}
