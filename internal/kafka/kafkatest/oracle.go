package kafkatest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// patience bounds everything that Oracle does.
const patience = 60 * time.Second

// Oracle returns the records of a topic as franz-go decodes them, by partition and
// offset. With committed these are the ones of transactions that were committed, up
// to the first that is open; without, all up to the end, aborted and open ones too.
// Each offset comes once. It waits for leaders, but not for records, and fails the
// test when the topic cannot be read.
func Oracle(t testing.TB, brokers []string, topic string, committed bool) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	o := oracle{cl: cl, adm: kadm.NewClient(cl), topic: topic, committed: committed}
	all, err := o.read(ctx)
	if err != nil {
		t.Fatalf("read topic %s: %v", topic, err)
	}
	slices.SortFunc(all, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return all
}

type oracle struct {
	cl        *kgo.Client
	adm       *kadm.Client
	topic     string
	committed bool
}

// read reads each partition up to where it ended when it was asked.
func (o oracle) read(ctx context.Context) (all []*kgo.Record, err error) {
	var ends kadm.ListedOffsets
	if err := again(ctx, func() (err error) {
		if o.committed {
			ends, err = o.adm.ListCommittedOffsets(ctx, o.topic)
		} else {
			ends, err = o.adm.ListEndOffsets(ctx, o.topic)
		}
		if err == nil {
			err = ends.Error()
		}
		return err
	}); err != nil {
		return nil, err
	}
	for _, end := range ends[o.topic] {
		at := int64(0)
		for at < end.Offset {
			got, next, err := o.fetch(ctx, end.Partition, at)
			if err != nil {
				return nil, fmt.Errorf("partition %d, offset %d of %d: %w", end.Partition, at, end.Offset, err)
			}
			for _, r := range got {
				if r.Offset < end.Offset {
					all = append(all, r)
				}
			}
			at = next
		}
	}
	return all, nil
}

// fetch reads once, and returns where to go on.
func (o oracle) fetch(ctx context.Context, partition int32, at int64) (got []*kgo.Record, next int64, err error) {
	err = again(ctx, func() error {
		meta, err := o.adm.Metadata(ctx, o.topic)
		if err != nil {
			return err
		}
		rq := kmsg.NewPtrFetchRequest()
		rq.MaxBytes, rq.SessionEpoch = 50<<20, -1
		isolation := kgo.ReadUncommitted()
		if o.committed {
			rq.IsolationLevel, isolation = 1, kgo.ReadCommitted()
		}
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID = o.topic, meta.Topics[o.topic].ID
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = partition, at, 50<<20
		rt.Partitions = append(rt.Partitions, rp)
		rq.Topics = append(rq.Topics, rt)
		leader := meta.Topics[o.topic].Partitions[partition].Leader
		res, err := rq.RequestWith(ctx, o.cl.Broker(int(leader)))
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(res.ErrorCode); err != nil {
			return err
		}
		if len(res.Topics) != 1 || len(res.Topics[0].Partitions) != 1 {
			return fmt.Errorf("the answer is about %d topics", len(res.Topics))
		}
		fp, to := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: at, IsolationLevel: isolation, Topic: o.topic, Partition: partition},
			&res.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
		if fp.Err == nil && to == at {
			return fmt.Errorf("nothing was read")
		}
		got, next = fp.Records, to
		return fp.Err
	})
	return got, next, err
}

// again calls f until it succeeds or ctx is done: leaders may be on the move.
func again(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}
