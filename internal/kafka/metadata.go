package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"github.com/elbo-stream/elbo/internal/hint"
)

// A topic is what is known of a topic.
type topic struct {
	leaders []int32 // by partition; -1 while there is none
	err     error   // why nothing is known
	stale   bool    // to be asked again before the next use
	answers int     // how often it was asked
}

// A refresh is one request for metadata that several wait for.
type refresh struct {
	done chan struct{}
	err  error
}

// The pauses between questions that taught nothing: they double from the first to
// the last.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = time.Second
)

// pause is how long to wait after n failures in a row.
func pause(n int) time.Duration { return min(firstPause<<min(n, 10), lastPause) }

// sleep waits, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stale says that a topic's leaders may have moved: they are asked for before the
// next use.
func (cl *Cluster) Stale(topic string) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.entry(topic).stale = true
}

// entry returns what is known of a topic. The caller holds mu.
func (cl *Cluster) entry(name string) *topic {
	t := cl.topics[name]
	if t == nil {
		t = &topic{stale: true}
		cl.topics[name] = t
	}
	return t
}

// Leader returns the broker that leads a partition, from memory unless the topic is
// stale or unknown. While an election is under way it fails with a retriable error;
// whoever asks again and again is slowed down.
func (cl *Cluster) Leader(ctx context.Context, tp TopicPartition) (int32, error) {
	if id, ok := cl.known(tp); ok {
		return id, nil
	}
	if err := cl.renew(ctx, tp.Topic); err != nil {
		return 0, err
	}
	return cl.leaderOf(tp)
}

// leaderOf is what the last answer said of a partition.
func (cl *Cluster) leaderOf(tp TopicPartition) (int32, error) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	t := cl.entry(tp.Topic)
	switch {
	case t.err != nil:
		return 0, t.err
	case tp.Partition < 0 || int(tp.Partition) >= len(t.leaders):
		return 0, fmt.Errorf("partition %s of %d: %w", tp, len(t.leaders), kafka.UnknownTopicOrPartition)
	case t.leaders[tp.Partition] < 0:
		t.stale = true
		return 0, fmt.Errorf("partition %s: %w", tp, kafka.LeaderNotAvailable)
	}
	return t.leaders[tp.Partition], nil
}

// byLeader sorts partitions by their leaders; those without one are in faults. It asks
// for all topics together, and once, however many partitions have no leader.
func (cl *Cluster) byLeader(ctx context.Context, tps []TopicPartition) (leaders map[int32][]TopicPartition, faults map[TopicPartition]error) {
	cl.mu.Lock()
	for _, tp := range tps {
		cl.entry(tp.Topic) // what is new is stale, and goes with the first question
	}
	cl.mu.Unlock()
	leaders, faults = make(map[int32][]TopicPartition), make(map[TopicPartition]error)
	asked := make(map[string]error)
	for _, tp := range tps {
		id, ok := cl.known(tp)
		if !ok {
			err, done := asked[tp.Topic]
			if !done {
				err = cl.renew(ctx, tp.Topic)
				asked[tp.Topic] = err
			}
			if err == nil {
				id, err = cl.leaderOf(tp)
			}
			if err != nil {
				faults[tp] = err
				continue
			}
		}
		leaders[id] = append(leaders[id], tp)
	}
	return leaders, faults
}

// known returns the leader of a partition if that is known.
func (cl *Cluster) known(tp TopicPartition) (int32, bool) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	t := cl.topics[tp.Topic]
	if t == nil || t.stale || tp.Partition < 0 || int(tp.Partition) >= len(t.leaders) {
		return 0, false
	}
	id := t.leaders[tp.Partition]
	return id, id >= 0
}

// renew asks for a topic's metadata. Whoever comes while a question is under way
// waits for its answer. Questions in a row that taught nothing are spaced out.
func (cl *Cluster) renew(ctx context.Context, name string) error {
	cl.mu.Lock()
	t := cl.entry(name)
	t.stale = true
	before := t.answers
	cl.mu.Unlock()
	for {
		cl.mu.Lock()
		if t.answers > before {
			defer cl.mu.Unlock()
			return t.err
		}
		r, mine := cl.refresh, cl.refresh == nil
		if mine {
			r = &refresh{done: make(chan struct{})}
			cl.refresh = r
		}
		cl.mu.Unlock()
		if mine {
			cl.run(ctx, r)
			if r.err != nil {
				return r.err
			}
			continue
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		// That another caller gave up is no reason to.
		if r.err != nil && !errors.Is(r.err, context.Canceled) && !errors.Is(r.err, context.DeadlineExceeded) {
			return r.err
		}
	}
}

// run asks for the topics that are stale.
func (cl *Cluster) run(ctx context.Context, r *refresh) {
	cl.mu.Lock()
	if time.Since(cl.answered) > 2*lastPause {
		cl.gap = firstPause
	}
	wait := cl.gap - time.Since(cl.answered)
	cl.mu.Unlock()
	if wait > 0 {
		r.err = sleep(ctx, wait)
	}
	taught := false
	if r.err == nil {
		cl.mu.Lock()
		var ask []string
		for name, t := range cl.topics {
			if t.stale {
				ask = append(ask, name)
			}
		}
		cl.mu.Unlock()
		slices.Sort(ask)
		taught, r.err = cl.askMetadata(ctx, ask, usualHedge)
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.answered = time.Now()
	cl.gap = min(2*cl.gap, lastPause)
	if taught {
		cl.gap = firstPause
	}
	cl.refresh = nil
	close(r.done)
}

// askMetadata asks for topics, none of them for the brokers alone, and reports
// whether the answer taught anything new. The error is never a topic's own.
func (cl *Cluster) askMetadata(ctx context.Context, topics []string, hedge time.Duration) (taught bool, err error) {
	m, err := cl.askAny(ctx, &metadata.Request{TopicNames: topics}, hedge)
	if err != nil {
		return false, err
	}
	res := m.(*metadata.Response)
	cl.learnBrokers(res.Brokers)
	cl.mu.Lock()
	defer cl.mu.Unlock()
	missing := make(map[string]bool, len(topics))
	for _, name := range topics {
		missing[name] = true
	}
	for _, r := range res.Topics {
		if missing[r.Name] {
			delete(missing, r.Name)
			taught = cl.entry(r.Name).learn(r) || taught
		}
	}
	for name := range missing {
		taught = cl.entry(name).learn(metadata.ResponseTopic{Name: name, ErrorCode: int16(kafka.UnknownTopicOrPartition)}) || taught
	}
	return taught, nil
}

// learn takes an answer over and reports whether it is news.
func (t *topic) learn(r metadata.ResponseTopic) (taught bool) {
	t.answers++
	if r.ErrorCode != 0 {
		t.stale, t.err, t.leaders = true, fmt.Errorf("topic %q: %w", r.Name, kafka.Error(r.ErrorCode)), nil
		return false
	}
	leaders := leadersOf(r)
	taught = t.err != nil || !slices.Equal(t.leaders, leaders)
	t.stale, t.err, t.leaders = false, nil, leaders
	return taught
}

// leadersOf returns the leaders of a topic by partition, -1 for none. A partition's
// error adds nothing: it may be about a replica while the leader is well.
func leadersOf(r metadata.ResponseTopic) []int32 {
	leaders := make([]int32, len(r.Partitions))
	for i := range leaders {
		leaders[i] = -1
	}
	for _, p := range r.Partitions {
		if p.PartitionIndex >= 0 && int(p.PartitionIndex) < len(leaders) {
			leaders[p.PartitionIndex] = max(p.LeaderID, -1)
		}
	}
	return leaders
}

// learnBrokers takes a list of all brokers over and hangs up on those that are gone.
func (cl *Cluster) learnBrokers(all []metadata.ResponseBroker) {
	if len(all) == 0 {
		return
	}
	keep := make(map[string]bool)
	cl.mu.Lock()
	clear(cl.brokers)
	for _, b := range all {
		addr := hostPort(b.Host, b.Port)
		cl.brokers[b.NodeID] = addr
		keep[addr] = true
	}
	for _, addr := range cl.c.Brokers {
		keep[addr] = true
	}
	maps.DeleteFunc(cl.trouble, func(addr string, _ time.Time) bool { return !keep[addr] })
	cl.mu.Unlock()
	cl.hangUpWhere(func(k connKey) bool { return !keep[k.addr] })
}

// Topics asks for the names of all topics but Kafka's own, in order.
func (cl *Cluster) Topics(ctx context.Context) ([]string, error) {
	m, err := cl.AskAny(ctx, &metadata.Request{TopicNames: nil})
	if err != nil {
		return nil, err
	}
	res := m.(*metadata.Response)
	cl.learnBrokers(res.Brokers)
	var names []string
	for _, t := range res.Topics {
		if !t.IsInternal && t.ErrorCode == 0 {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// topicPatience is how long a topic may be unknown that was made just now.
const topicPatience = 4 * time.Second

// Partitions asks how many partitions a topic has. While the topic is being created
// it waits, for RequestTimeout at most; a topic that is not there is an error that
// is kafka.UnknownTopicOrPartition and says which topic may have been meant.
func (cl *Cluster) Partitions(ctx context.Context, topic string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, cl.c.RequestTimeout)
	defer cancel()
	began := time.Now()
	for n := 0; ; n++ {
		counts, faults, err := cl.partitionCounts(ctx, []string{topic})
		if err == nil {
			err = faults[topic]
		}
		unknown := errors.Is(err, kafka.UnknownTopicOrPartition)
		if !isLeaderError(err) && !(unknown && time.Since(began) < topicPatience) {
			if unknown {
				all, _ := cl.Topics(ctx) // for the hint alone
				err = fmt.Errorf("it is not there%s; create it first: %w", hint.DidYouMean(topic, all), err)
			}
			return counts[topic], err
		}
		if sleep(ctx, pause(n)) != nil {
			return 0, err
		}
	}
}

// partitionCounts asks how many partitions topics have, in one request. A topic with
// a fault has none.
func (cl *Cluster) partitionCounts(ctx context.Context, topics []string) (counts map[string]int, faults map[string]error, err error) {
	counts, faults = make(map[string]int, len(topics)), make(map[string]error)
	if len(topics) == 0 {
		return counts, faults, nil
	}
	if _, err := cl.askMetadata(ctx, topics, usualHedge); err != nil {
		return nil, nil, err
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	for _, name := range topics {
		t := cl.entry(name)
		counts[name] = len(t.leaders)
		if t.err != nil {
			faults[name] = t.err
		}
	}
	return counts, faults, nil
}

// isLeaderError says that metadata is behind: another question may help.
func isLeaderError(err error) bool {
	return errors.Is(err, kafka.LeaderNotAvailable) || errors.Is(err, kafka.NotLeaderForPartition)
}
