package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/pipeline"
	sink "github.com/elbo-stream/elbo/sinks/kafka"
)

// A member runs pipelines one after the other until told to stop: it is drained,
// or quit in the middle, and starts again.
type member struct {
	job
	rng    *rand.Rand
	runs   int
	failed int
}

// live runs until stop; from calm on the run is let alone. Kfake may count the members that join wrongly once a
// coordinator has moved under them, and then waits for the rebalance time-out, which
// every coming and going begins anew; Kafka does not (internal/kafka's TestGroupOnKafka).
func (m *member) live(t testing.TB, calm, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		ctx, quit := context.WithCancel(t.Context())
		drain := make(chan struct{})
		over := make(chan struct{})
		life := time.Duration(200+m.rng.IntN(2500)) * time.Millisecond
		kind := m.rng.IntN(2)
		go func() {
			timer := time.NewTimer(life)
			defer timer.Stop()
			select {
			case <-timer.C:
				if kind == 0 {
					quit()
				} else {
					close(drain)
				}
				return
			case <-over:
				return
			case <-calm:
			}
			select {
			case <-over:
			case <-stop:
				close(drain)
			}
		}()
		cfg := m.config(t)
		cfg.Drain = drain
		_, err := pipeline.Run(ctx, cfg)
		close(over)
		if err != nil && !errors.Is(err, context.Canceled) {
			m.failed++ // as good as a crash: a last commit may fail, and a next run goes on
			t.Logf("a run failed: %v", err)
		}
		quit()
		m.runs++
	}
}

// disturb does something to the broker every few milliseconds until told to stop.
func disturb(f *kfake.Cluster, rng *rand.Rand, stop <-chan struct{}, faults *atomic.Int64, what func(n int)) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(20+rng.IntN(80)) * time.Millisecond):
		}
		what(n)
		faults.Add(1)
	}
}

// inject makes the broker answer the next request of a kind with an error.
func inject(f *kfake.Cluster, rng *rand.Rand) {
	code := []int16{kerr.ConcurrentTransactions.Code, kerr.CoordinatorLoadInProgress.Code, kerr.UnknownServerError.Code}[rng.IntN(3)]
	switch rng.IntN(6) {
	case 0:
		f.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
			req := r.(*kmsg.ProduceRequest)
			res := req.ResponseKind().(*kmsg.ProduceResponse)
			for _, t := range req.Topics {
				st := kmsg.NewProduceResponseTopic()
				st.Topic, st.TopicID = t.Topic, t.TopicID
				for _, p := range t.Partitions {
					sp := kmsg.NewProduceResponseTopicPartition()
					sp.Partition, sp.ErrorCode = p.Partition, kerr.NotLeaderForPartition.Code
					st.Partitions = append(st.Partitions, sp)
				}
				res.Topics = append(res.Topics, st)
			}
			return res, nil, true
		})
	case 1:
		f.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
			res := r.ResponseKind().(*kmsg.EndTxnResponse)
			res.ErrorCode = code
			return res, nil, true
		})
	case 2:
		f.ControlKey(int16(kmsg.AddOffsetsToTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
			res := r.ResponseKind().(*kmsg.AddOffsetsToTxnResponse)
			res.ErrorCode = kerr.NotCoordinator.Code
			return res, nil, true
		})
	case 3:
		f.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			return nil, errors.New("cut"), true // the connection goes
		})
	case 4:
		f.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
			return nil, errors.New("cut"), true
		})
	case 5:
		f.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			return nil, errors.New("cut"), true
		})
	}
}

// TestChaos runs three members that come and go, on a broker whose leaders and
// coordinators move and that answers with errors.
func TestChaos(t *testing.T) {
	for _, d := range []sink.Delivery{sink.ExactlyOnce, sink.EffectivelyOnce} {
		for _, static := range []bool{true, false} {
			name := fmt.Sprintf("%s/static=%v", d, static)
			t.Run(name, func(t *testing.T) { chaos(t, d, static) })
		}
	}
}

func chaos(t *testing.T, d sink.Delivery, static bool) {
	const rows, members = 100_000, 3
	f, brokers := start(t, kfake.GroupMinSessionTimeout(time.Second))
	stop, calm := make(chan struct{}), make(chan struct{})
	var all, noise sync.WaitGroup
	var faults atomic.Int64
	rng := rand.New(rand.NewPCG(1, 7))
	ms := make([]*member, members)
	for i := range ms {
		ms[i] = &member{job: job{brokers: brokers, delivery: d, session: 1500 * time.Millisecond}, rng: rand.New(rand.NewPCG(uint64(i), 3))}
		if static {
			ms[i].instance = fmt.Sprint("host-", i)
		}
		all.Go(func() { ms[i].live(t, calm, stop) })
	}
	noise.Go(func() {
		disturb(f, rng, calm, &faults, func(n int) {
			switch n % 10 {
			case 3:
				f.ShufflePartitionLeaders()
			case 7:
				f.RehashCoordinators()
			default:
				inject(f, rng)
			}
		})
	})
	for i := 0; i < rows; i += 5000 {
		produce(t, brokers, "in", i, 5000)
		time.Sleep(200 * time.Millisecond)
	}
	close(calm)
	noise.Wait()
	output(t, brokers, "out", rows)
	close(stop)
	all.Wait()
	runs, failed := 0, 0
	for _, m := range ms {
		runs += m.runs
		failed += m.failed
	}
	seen := output(t, brokers, "out", rows) // what the last drain wrote too
	t.Logf("%d runs (%d failed), %d faults", runs, failed, faults.Load())
	once(t, seen, rows)
}
