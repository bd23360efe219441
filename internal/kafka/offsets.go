package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"
)

// Committed is what a group keeps for a partition.
type Committed struct {
	Offset   int64 // of the next record to read; -1 means none
	Metadata string
}

// unknownPatience is how long a topic or partition may be unknown before that is
// believed: a broker that just started does not know all of them.
const unknownPatience = 10 * time.Second

// retry calls f until it succeeds, fails for good or ctx is done. Its error is f's
// last one, with ctx's when that ended it.
func retry(ctx context.Context, f func() error) error {
	var unknown time.Time // since when
	for n := 0; ; n++ {
		err := f()
		if err == nil || !IsRetriable(err) {
			return err
		}
		if !errors.Is(err, kafka.UnknownTopicOrPartition) {
			unknown = time.Time{}
		} else if unknown.IsZero() {
			unknown = time.Now()
		} else if time.Since(unknown) > unknownPatience {
			return err
		}
		if ctx.Err() == nil {
			_ = sleep(ctx, pause(n)) // ctx tells
		}
		if e := ctx.Err(); e != nil {
			if errors.Is(err, e) {
				return err
			}
			return fmt.Errorf("%w: %w", e, err)
		}
	}
}

// ListOffsets returns an offset of each partition: the first message at or after a
// time in ms (-1 when there is none), or with at -1 the end and with -2 the start
// of the log. Committed makes the end that of the last settled transaction. It asks
// again while that may help and ctx lasts; the partitions that it could not learn are
// missing from the map and named in the error.
func (cl *Cluster) ListOffsets(ctx context.Context, tps []TopicPartition, at int64, committed bool) (map[TopicPartition]int64, error) {
	got, faults := cl.ListEachOffset(ctx, tps, at, committed)
	var errs []error
	for _, tp := range slices.SortedFunc(maps.Keys(faults), TopicPartition.Compare) {
		errs = append(errs, faults[tp])
	}
	return got, worst(errs)
}

// ListEachOffset is ListOffsets with an error for each partition that it could not
// learn the offset of.
func (cl *Cluster) ListEachOffset(ctx context.Context, tps []TopicPartition, at int64, committed bool) (map[TopicPartition]int64, map[TopicPartition]error) {
	got := make(map[TopicPartition]int64, len(tps))
	final := make(map[TopicPartition]error)
	var faults map[TopicPartition]error
	err := retry(ctx, cl.telling("list offsets", func() error {
		var ask []TopicPartition
		for _, tp := range tps {
			if _, ok := got[tp]; !ok && final[tp] == nil {
				ask = append(ask, tp)
			}
		}
		var leaders map[int32][]TopicPartition
		leaders, faults = cl.byLeader(ctx, ask)
		for _, id := range slices.Sorted(maps.Keys(leaders)) {
			cl.listOffsets(ctx, id, leaders[id], at, committed, got, faults)
		}
		var errs []error
		for tp, err := range faults {
			if IsRetriable(err) {
				errs = append(errs, err)
			} else {
				final[tp] = err
			}
		}
		return worst(errs)
	}))
	for tp, fault := range faults {
		if final[tp] == nil && err != nil {
			final[tp] = fault
		}
	}
	return got, final
}

// listOffsets asks one leader. Each partition ends up in got or in faults.
func (cl *Cluster) listOffsets(ctx context.Context, leader int32, tps []TopicPartition, at int64, committed bool, got map[TopicPartition]int64, faults map[TopicPartition]error) {
	rq := &listoffsets.Request{ReplicaID: -1}
	if committed {
		rq.IsolationLevel = 1
	}
	for topic, parts := range byTopic(tps) {
		t := listoffsets.RequestTopic{Topic: topic}
		for _, p := range parts {
			t.Partitions = append(t.Partitions, listoffsets.RequestPartition{Partition: p, CurrentLeaderEpoch: -1, Timestamp: at})
		}
		rq.Topics = append(rq.Topics, t)
	}
	for _, tp := range tps {
		faults[tp] = fmt.Errorf("partition %s: the answer says nothing of it", tp)
	}
	m, err := cl.AskBroker(ctx, leader, laneControl, rq)
	if err != nil {
		for _, tp := range tps {
			cl.Stale(tp.Topic)
			faults[tp] = fmt.Errorf("partition %s: %w", tp, err)
		}
		return
	}
	for _, t := range m.(*listoffsets.Response).Topics {
		for _, p := range t.Partitions {
			tp := TopicPartition{t.Topic, p.Partition}
			switch _, asked := faults[tp]; {
			case !asked:
			case p.ErrorCode != 0:
				cl.Stale(t.Topic)
				faults[tp] = fmt.Errorf("partition %s: %w", tp, kafka.Error(p.ErrorCode))
			default:
				got[tp] = p.Offset
				delete(faults, tp)
			}
		}
	}
}

// byTopic sorts partitions into topics.
func byTopic(tps []TopicPartition) map[string][]int32 {
	topics := make(map[string][]int32)
	for _, tp := range tps {
		topics[tp.Topic] = append(topics[tp.Topic], tp.Partition)
	}
	return topics
}

// CommittedOffsets returns what a group has committed, for every partition asked: -1
// where it has nothing. It asks again while that may help and ctx lasts.
func (cl *Cluster) CommittedOffsets(ctx context.Context, group string, tps []TopicPartition) (map[TopicPartition]Committed, error) {
	rq := &offsetfetch.Request{GroupID: group}
	for topic, parts := range byTopic(tps) {
		rq.Topics = append(rq.Topics, offsetfetch.RequestTopic{Name: topic, PartitionIndexes: parts})
	}
	got := make(map[TopicPartition]Committed, len(tps))
	err := retry(ctx, cl.telling("read committed offsets", func() error {
		m, err := cl.AskGroup(ctx, group, rq)
		if err != nil {
			return err
		}
		res := m.(*offsetfetch.Response)
		switch e := kafka.Error(res.ErrorCode); e {
		case 0:
		case kafka.GroupIdNotFound: // it has committed nothing
			for _, tp := range tps {
				got[tp] = Committed{Offset: -1}
			}
		default:
			return cl.groupError(group, e)
		}
		for _, t := range res.Topics {
			for _, p := range t.Partitions {
				tp := TopicPartition{t.Name, p.PartitionIndex}
				if p.ErrorCode != 0 {
					return cl.groupError(group, fmt.Errorf("partition %s: %w", tp, kafka.Error(p.ErrorCode)))
				}
				got[tp] = Committed{max(p.CommittedOffset, -1), p.Metadata}
			}
		}
		for _, tp := range tps { // none would be taken for never
			if _, ok := got[tp]; !ok {
				return fmt.Errorf("group %q: the answer says nothing of partition %s", group, tp)
			}
		}
		return nil
	}, "group", group))
	if err != nil {
		return nil, err
	}
	return got, nil
}

// groupError forgets a coordinator that is none, and passes err on.
func (cl *Cluster) groupError(group string, err error) error {
	if isCoordinatorError(err) {
		cl.ForgetGroup(group)
	}
	return fmt.Errorf("group %q: %w", group, err)
}

// CommitOffsets commits offsets as a member of its group; with the generation -1 and
// no member id as an outsider, which the coordinator takes only while the group has no
// members. It tries again while that may help and ctx lasts; that a rebalance is under
// way (27) is such a case. An error of a member that is none any more (22, 25, 82)
// is final. After an error some of the offsets may be committed.
func (cl *Cluster) CommitOffsets(ctx context.Context, m Member, offsets map[TopicPartition]Committed) error {
	rq := &offsetcommit.Request{GroupID: m.Group, GenerationID: m.Generation, MemberID: m.ID, GroupInstanceID: m.Instance, RetentionTimeMs: -1}
	for topic, parts := range byTopic(slices.Collect(maps.Keys(offsets))) {
		t := offsetcommit.RequestTopic{Name: topic}
		for _, p := range parts {
			o := offsets[TopicPartition{topic, p}]
			t.Partitions = append(t.Partitions, offsetcommit.RequestPartition{PartitionIndex: p,
				CommittedOffset: o.Offset, CommittedMetadata: o.Metadata, CommittedLeaderEpoch: -1})
		}
		rq.Topics = append(rq.Topics, t)
	}
	return retry(ctx, cl.telling("commit offsets", func() error {
		got, err := cl.AskGroup(ctx, m.Group, rq)
		if err != nil {
			return err
		}
		var errs []error
		for _, t := range got.(*offsetcommit.Response).Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					errs = append(errs, fmt.Errorf("partition %s/%d: %w", t.Name, p.PartitionIndex, kafka.Error(p.ErrorCode)))
				}
			}
		}
		if err := worst(errs); err != nil {
			return cl.groupError(m.Group, err)
		}
		return nil
	}, "group", m.Group))
}
