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
)

// A refresh is one request for metadata that several wait for.
type refresh struct {
	done chan struct{}
	err  error
}

// The pauses between refreshes that found no leader: they double from the first to
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
	cl.stale[topic] = true
}

// Leader returns the broker that leads a partition, from memory unless the topic is
// stale or unknown. While an election is under way it fails with a retriable error.
func (cl *Cluster) Leader(ctx context.Context, tp TopicPartition) (int32, error) {
	cl.mu.Lock()
	leaders, ok := cl.topics[tp.Topic]
	fresh := ok && !cl.stale[tp.Topic]
	cl.mu.Unlock()
	if !fresh || int(tp.Partition) >= len(leaders) {
		if err := cl.renew(ctx, tp.Topic); err != nil {
			return 0, err
		}
		cl.mu.Lock()
		leaders = cl.topics[tp.Topic]
		cl.mu.Unlock()
	}
	switch {
	case leaders == nil || int(tp.Partition) >= len(leaders):
		return 0, fmt.Errorf("partition %s: %w", tp, kafka.UnknownTopicOrPartition)
	case leaders[tp.Partition] < 0:
		cl.Stale(tp.Topic)
		return 0, fmt.Errorf("partition %s: %w", tp, kafka.LeaderNotAvailable)
	}
	return leaders[tp.Partition], nil
}

// Partitions asks how many partitions a topic has.
func (cl *Cluster) Partitions(ctx context.Context, topic string) (int, error) {
	cl.Stale(topic)
	for {
		err := cl.renew(ctx, topic)
		cl.mu.Lock()
		n := len(cl.topics[topic])
		cl.mu.Unlock()
		switch {
		case err == nil && n > 0:
			return n, nil
		case err == nil:
			return 0, fmt.Errorf("topic %q: %w", topic, kafka.UnknownTopicOrPartition)
		case !isLeaderError(err):
			return 0, err
		}
		if err := sleep(ctx, lastPause/10); err != nil {
			return 0, err
		}
	}
}

// Topics asks for the names of all topics but Kafka's own.
func (cl *Cluster) Topics(ctx context.Context) ([]string, error) {
	if err := cl.askMetadata(ctx, nil); err != nil {
		return nil, err
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return slices.Sorted(maps.Keys(cl.topics)), nil
}

// renew asks for a topic's metadata; whoever comes while the question is under way
// waits for its answer. Questions in a row that found no leader are spaced out.
func (cl *Cluster) renew(ctx context.Context, topic string) error {
	cl.mu.Lock()
	if r := cl.refresh; r != nil {
		cl.stale[topic] = true
		cl.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		cl.mu.Lock()
		answered := !cl.stale[topic]
		cl.mu.Unlock()
		if answered {
			return nil
		}
		return cl.renew(ctx, topic)
	}
	r := &refresh{done: make(chan struct{})}
	cl.refresh = r
	cl.stale[topic] = true
	ask := slices.Collect(maps.Keys(cl.stale))
	failures := cl.failures
	cl.mu.Unlock()

	var err error
	if failures > 0 {
		err = sleep(ctx, pause(failures-1))
	}
	if err == nil {
		err = cl.askMetadata(ctx, ask)
	}
	cl.mu.Lock()
	cl.refresh = nil
	if err != nil {
		cl.failures++
	} else {
		cl.failures = 0
		for _, t := range ask {
			if slices.Contains(cl.topics[t], -1) {
				cl.failures = failures + 1
			}
		}
	}
	cl.mu.Unlock()
	close(r.done)
	return err
}

// askMetadata asks for topics: nil means all, none the brokers alone.
func (cl *Cluster) askMetadata(ctx context.Context, topics []string) error {
	m, err := cl.AskAny(ctx, &metadata.Request{TopicNames: topics})
	if err != nil {
		return err
	}
	res := m.(*metadata.Response)
	cl.mu.Lock()
	defer cl.mu.Unlock()
	for _, b := range res.Brokers {
		cl.brokers[b.NodeID] = hostPort(b.Host, b.Port)
	}
	if topics == nil {
		clear(cl.topics)
	}
	var errs []error
	for _, t := range res.Topics {
		if topics == nil && t.IsInternal {
			continue
		}
		switch e := kafka.Error(t.ErrorCode); e {
		case 0:
			leaders := make([]int32, len(t.Partitions))
			for _, p := range t.Partitions {
				if int(p.PartitionIndex) < len(leaders) {
					leaders[p.PartitionIndex] = p.LeaderID
				}
				if p.ErrorCode != 0 && int(p.PartitionIndex) < len(leaders) {
					leaders[p.PartitionIndex] = -1
				}
			}
			cl.topics[t.Name] = leaders
			delete(cl.stale, t.Name)
		default:
			if topics == nil {
				continue
			}
			delete(cl.topics, t.Name)
			errs = append(errs, fmt.Errorf("topic %q: %w", t.Name, e))
			if !e.Temporary() {
				delete(cl.stale, t.Name)
			}
		}
	}
	return errors.Join(errs...)
}

// isLeaderError says that metadata is behind: another question may help.
func isLeaderError(err error) bool {
	return errors.Is(err, kafka.LeaderNotAvailable) || errors.Is(err, kafka.NotLeaderForPartition)
}
