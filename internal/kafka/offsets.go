package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"
)

// Committed is what a group keeps for a partition.
type Committed struct {
	Offset   int64 // -1 means none
	Metadata string
}

// retry calls f until it succeeds, fails for good or ctx is done.
func retry(ctx context.Context, f func() error) error {
	for n := 0; ; n++ {
		err := f()
		if err == nil || !IsRetriable(err) {
			return err
		}
		if ctx.Err() != nil || sleep(ctx, pause(n)) != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// ListOffsets returns an offset of each partition: the first message at or after a
// time in ms (-1 when there is none), or with at -1 the end and with -2 the start
// of the log. Committed makes the end that of the last settled transaction.
func (cl *Cluster) ListOffsets(ctx context.Context, tps []TopicPartition, at int64, committed bool) (map[TopicPartition]int64, error) {
	got := make(map[TopicPartition]int64, len(tps))
	err := retry(ctx, func() error {
		byLeader := make(map[int32][]TopicPartition)
		for _, tp := range tps {
			if _, ok := got[tp]; ok {
				continue
			}
			id, err := cl.Leader(ctx, tp)
			if err != nil {
				return err
			}
			byLeader[id] = append(byLeader[id], tp)
		}
		var errs []error
		for id, some := range byLeader {
			errs = append(errs, cl.listOffsets(ctx, id, some, at, committed, got))
		}
		return errors.Join(errs...)
	})
	return got, err
}

func (cl *Cluster) listOffsets(ctx context.Context, leader int32, tps []TopicPartition, at int64, committed bool, got map[TopicPartition]int64) error {
	rq := &listoffsets.Request{ReplicaID: -1}
	if committed {
		rq.IsolationLevel = 1
	}
	topics := make(map[string]int)
	for _, tp := range tps {
		i, ok := topics[tp.Topic]
		if !ok {
			i = len(rq.Topics)
			topics[tp.Topic] = i
			rq.Topics = append(rq.Topics, listoffsets.RequestTopic{Topic: tp.Topic})
		}
		rq.Topics[i].Partitions = append(rq.Topics[i].Partitions,
			listoffsets.RequestPartition{Partition: tp.Partition, CurrentLeaderEpoch: -1, Timestamp: at})
	}
	m, err := cl.AskBroker(ctx, leader, laneControl, rq)
	if err != nil {
		for t := range topics {
			cl.Stale(t)
		}
		return err
	}
	var errs []error
	for _, t := range m.(*listoffsets.Response).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				cl.Stale(t.Topic)
				errs = append(errs, fmt.Errorf("partition %s/%d: %w", t.Topic, p.Partition, kafka.Error(p.ErrorCode)))
				continue
			}
			got[TopicPartition{t.Topic, p.Partition}] = p.Offset
		}
	}
	return errors.Join(errs...)
}

// CommittedOffsets returns what a group has committed.
func (cl *Cluster) CommittedOffsets(ctx context.Context, group string, tps []TopicPartition) (map[TopicPartition]Committed, error) {
	topics := make(map[string]int)
	rq := &offsetfetch.Request{GroupID: group}
	for _, tp := range tps {
		i, ok := topics[tp.Topic]
		if !ok {
			i = len(rq.Topics)
			topics[tp.Topic] = i
			rq.Topics = append(rq.Topics, offsetfetch.RequestTopic{Name: tp.Topic})
		}
		rq.Topics[i].PartitionIndexes = append(rq.Topics[i].PartitionIndexes, tp.Partition)
	}
	got := make(map[TopicPartition]Committed, len(tps))
	err := retry(ctx, func() error {
		m, err := cl.AskGroup(ctx, group, rq)
		if err != nil {
			return err
		}
		res := m.(*offsetfetch.Response)
		if e := kafka.Error(res.ErrorCode); e != 0 && e != kafka.GroupIdNotFound { // an unknown group has committed nothing
			return cl.groupError(group, e)
		}
		for _, t := range res.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					return cl.groupError(group, kafka.Error(p.ErrorCode))
				}
				got[TopicPartition{t.Name, p.PartitionIndex}] = Committed{p.CommittedOffset, p.Metadata}
			}
		}
		return nil
	})
	return got, err
}

// groupError forgets a coordinator that is none, and passes err on.
func (cl *Cluster) groupError(group string, err error) error {
	if isCoordinatorError(err) {
		cl.ForgetGroup(group)
	}
	return fmt.Errorf("group %q: %w", group, err)
}

// CommitOffsets commits offsets as a member of its group. It tries again while that
// may help and ctx lasts; that a rebalance is under way (27) is such a case.
func (cl *Cluster) CommitOffsets(ctx context.Context, m Member, offsets map[TopicPartition]Committed) error {
	topics := make(map[string]int)
	rq := &offsetcommit.Request{GroupID: m.Group, GenerationID: m.Generation, MemberID: m.ID, GroupInstanceID: m.Instance, RetentionTimeMs: -1}
	for tp, o := range offsets {
		i, ok := topics[tp.Topic]
		if !ok {
			i = len(rq.Topics)
			topics[tp.Topic] = i
			rq.Topics = append(rq.Topics, offsetcommit.RequestTopic{Name: tp.Topic})
		}
		rq.Topics[i].Partitions = append(rq.Topics[i].Partitions, offsetcommit.RequestPartition{PartitionIndex: tp.Partition,
			CommittedOffset: o.Offset, CommittedMetadata: o.Metadata, CommittedLeaderEpoch: -1})
	}
	return retry(ctx, func() error {
		got, err := cl.AskGroup(ctx, m.Group, protocol.Message(rq))
		if err != nil {
			return err
		}
		for _, t := range got.(*offsetcommit.Response).Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					return cl.groupError(m.Group, fmt.Errorf("partition %s/%d: %w", t.Name, p.PartitionIndex, kafka.Error(p.ErrorCode)))
				}
			}
		}
		return nil
	})
}
