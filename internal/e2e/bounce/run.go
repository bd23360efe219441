package bounce

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/elbo-stream/elbo/internal/e2e/oracle"
	"github.com/elbo-stream/elbo/internal/e2e/realkafka"
)

// The names of every run; a cluster serves one.
const (
	inTopic  = "bounce-in"
	outTopic = "bounce-out"
	group    = "bounce"
)

// A run is one Run under way.
type run struct {
	c      *realkafka.Cluster
	copier Copier
	plan   Plan
	dir    string
	log    func(format string, args ...any)

	mu        sync.Mutex
	result    Result
	lastFault time.Time
}

// Run copies once. dir is for the copiers' files, and is the caller's to remove; log is called
// now and then from several goroutines. An error is that the run could not be
// judged, or that messages were not copied in time.
func Run(ctx context.Context, c *realkafka.Cluster, copier Copier, plan Plan, dir string, log func(format string, args ...any)) (Result, error) {
	r := &run{c: c, copier: copier, plan: plan.withDefaults(), dir: dir, log: log}
	for _, topic := range []string{inTopic, outTopic} {
		if err := c.CreateTopic(ctx, topic, r.plan.Partitions, nil); err != nil {
			return r.result, err
		}
	}
	began := time.Now()
	r.lastFault = began
	err := r.copy(ctx)
	r.result.Took = time.Since(began)
	if err != nil {
		return r.result, err
	}
	in, err := oracle.Read(ctx, c.Brokers, inTopic)
	if err != nil {
		return r.result, err
	}
	if len(in) != r.plan.Messages {
		return r.result, fmt.Errorf("the input has %d messages, want %d", len(in), r.plan.Messages)
	}
	out, err := oracle.Read(ctx, c.Brokers, outTopic)
	if err != nil {
		return r.result, err
	}
	r.result.Report = oracle.Check(in, out, r.plan.ID)
	return r.result, nil
}

// Output returns the names of the input and the output of a run, for more oracles.
func Output() (in, out string) { return inTopic, outTopic }

// copy writes the messages and runs copiers and faults until all is copied.
func (r *run) copy(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if r.plan.Spread == 0 {
		if err := r.fill(ctx); err != nil {
			return err
		}
	}
	faulty, calm := context.WithTimeout(ctx, r.plan.Faults)
	defer calm()
	var work, copiers sync.WaitGroup
	fail := func(err error) {
		if err != nil && ctx.Err() == nil {
			cancel(err)
		}
	}
	if r.plan.Spread > 0 {
		work.Go(func() { fail(r.fill(ctx)) })
	}
	if r.plan.Brokers != None {
		work.Go(func() { fail(r.bounceBrokers(ctx, faulty)) })
	}
	over, finish := context.WithCancel(ctx)
	for i := range r.plan.Copiers {
		copiers.Go(func() { fail(r.keepCopying(over, faulty, i)) })
	}
	work.Wait()
	<-faulty.Done()
	err := r.awaitAll(ctx)
	finish()
	copiers.Wait()
	return errors.Join(err, context.Cause(ctx))
}

// fault notes a fault by f, under the lock.
func (r *run) fault(f func(*Result)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.result)
	r.lastFault = time.Now()
}

// pause waits, and says whether it did so to the end.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// fill writes the messages, evenly over Spread.
func (r *run) fill(ctx context.Context) error {
	const step = 50 * time.Millisecond
	k, err := kgo.NewClient(kgo.SeedBrokers(r.c.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(inTopic))
	if err != nil {
		return err
	}
	defer k.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	steps := max(1, int(r.plan.Spread/step))
	written := 0
	for s := 1; s <= steps; s++ {
		for upTo := r.plan.Messages * s / steps; written < upTo; written++ {
			id := fmt.Sprintf("m-%08d", written)
			k.Produce(ctx, &kgo.Record{Partition: int32(written % r.plan.Partitions), Key: []byte(id),
				Value: fmt.Appendf(nil, `{"id":%q,"n":%d,"x":%.3f,"y":%.3f}`, id, written, float64(written%1000)/7, float64(written%77)/3)},
				func(_ *kgo.Record, err error) {
					if err != nil {
						cancel(fmt.Errorf("write the input: %w", err))
					}
				})
		}
		if s < steps && !pause(ctx, step) {
			return context.Cause(ctx)
		}
	}
	if err := k.Flush(ctx); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

// bounceBrokers ends and restarts one broker after the other, until faulty ends. The
// last one is back, in sync, when it returns.
func (r *run) bounceBrokers(ctx, faulty context.Context) error {
	random := rand.New(rand.NewPCG(r.plan.Seed, 1))
	for n := 0; pause(faulty, r.plan.BrokerPause); n++ {
		id := 1 + n%r.c.Nodes()
		hard := r.plan.Brokers == Hard || r.plan.Brokers == Mixed && random.IntN(2) == 0
		var err error
		if hard {
			err = r.c.Kill(id)
		} else if err = r.c.Stop(id); err != nil {
			r.log("broker %d: %v", id, err) // killed in the end, which is a fault as good as any
			err, hard = nil, true
		}
		pause(ctx, time.Duration(random.IntN(1000))*time.Millisecond)
		if err == nil {
			err = errors.Join(r.c.Restart(id), r.c.Ready(ctx), r.c.InSync(ctx))
		}
		if err != nil {
			return fmt.Errorf("bounce broker %d: %w", id, err)
		}
		r.fault(func(res *Result) {
			if hard {
				res.HardBounces++
			} else {
				res.CleanBounces++
			}
		})
	}
	return nil
}

// awaitAll waits until the group has committed every message.
func (r *run) awaitAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.plan.Settle)
	defer cancel()
	k, err := kgo.NewClient(kgo.SeedBrokers(r.c.Brokers...))
	if err != nil {
		return err
	}
	defer k.Close()
	for {
		left, err := r.left(ctx, kadm.NewClient(k))
		if err == nil && left == 0 {
			r.mu.Lock()
			r.result.Settled = time.Since(r.lastFault)
			r.mu.Unlock()
			return nil
		}
		if !pause(ctx, 100*time.Millisecond) {
			return fmt.Errorf("%d messages are not copied %v after the last fault: %w", left, r.plan.Settle, errors.Join(context.Cause(ctx), err))
		}
	}
}

// left counts the messages that the group has not committed.
func (r *run) left(ctx context.Context, a *kadm.Client) (left int64, err error) {
	end, err := a.ListEndOffsets(ctx, inTopic)
	if err == nil {
		err = end.Error()
	}
	if err != nil {
		return int64(r.plan.Messages), err
	}
	at, err := a.FetchOffsets(ctx, group)
	if err != nil {
		return int64(r.plan.Messages), err
	}
	end.Each(func(o kadm.ListedOffset) {
		left += o.Offset
		if c, ok := at.Lookup(inTopic, o.Partition); ok && c.At > 0 {
			left -= c.At
		}
	})
	return left, nil
}
