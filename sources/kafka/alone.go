package kafka

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// A membership says which partitions are this source's: a kafka.Group, or alone.
type membership interface {
	Join(ctx context.Context, owned []kafka.TopicPartition) (kafka.Assignment, error)
	Changed() <-chan struct{}
	Lost() <-chan struct{}
	Member() kafka.Member
	Alive() bool
	Confirm(ctx context.Context) error
	Leave(ctx context.Context) error
}

var (
	_ membership = (*kafka.Group)(nil)
	_ membership = (*alone)(nil)
)

// alone reads every partition by itself and looks for new ones now and then.
type alone struct {
	cluster  *kafka.Cluster
	topics   func(context.Context) ([]string, error)
	discover time.Duration

	mu      sync.Mutex
	changed chan struct{}
	timer   *time.Timer
	round   int32
}

func newAlone(c *kafka.Cluster, topics func(context.Context) ([]string, error), discover time.Duration) *alone {
	return &alone{cluster: c, topics: topics, discover: discover}
}

// Join lists all partitions of all topics.
func (a *alone) Join(ctx context.Context, _ []kafka.TopicPartition) (kafka.Assignment, error) {
	topics, err := a.topics(ctx)
	if err != nil {
		return kafka.Assignment{}, err
	}
	var parts []kafka.TopicPartition
	for _, t := range topics {
		n, err := a.cluster.Partitions(ctx, t)
		if err != nil {
			return kafka.Assignment{}, fmt.Errorf("partitions of topic %q: %w", t, err)
		}
		for i := range n {
			parts = append(parts, kafka.TopicPartition{Topic: t, Partition: int32(i)})
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.round++
	changed := make(chan struct{})
	a.changed = changed
	a.timer = time.AfterFunc(a.discover, func() { close(changed) })
	return kafka.Assignment{Generation: a.round, Parts: parts}, nil
}

// Changed closes when it is time to look again.
func (a *alone) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// Lost never closes: nobody else takes the partitions.
func (*alone) Lost() <-chan struct{} { return nil }

// Member fences nothing.
func (*alone) Member() kafka.Member { return kafka.Member{Generation: -1} }

// Alive is always true.
func (*alone) Alive() bool { return true }

// Confirm finds nothing wrong.
func (*alone) Confirm(context.Context) error { return nil }

// Leave stops looking.
func (a *alone) Leave(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
	return nil
}
