package oracle

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Read returns every committed record of the topics, in order of topic, partition
// and offset, as franz-go reads them. Before it reads it waits, as long as ctx
// lasts, until no transaction is open in them, and it reads up to the end that was
// there then.
func Read(ctx context.Context, brokers []string, topics ...string) ([]Record, error) {
	return read(ctx, brokers, kgo.ReadCommitted(), topics)
}

// ReadAll is Read of all records, those of aborted transactions included.
func ReadAll(ctx context.Context, brokers []string, topics ...string) ([]Record, error) {
	return read(ctx, brokers, kgo.ReadUncommitted(), topics)
}

func read(ctx context.Context, brokers []string, isolation kgo.IsolationLevel, topics []string) ([]Record, error) {
	from, end, err := bounds(ctx, brokers, topics)
	if err != nil {
		return nil, err
	}
	offsets, open := map[string]map[int32]kgo.Offset{}, map[string]map[int32]int64{}
	left := 0
	from.Each(func(o kadm.ListedOffset) {
		last, _ := end.Lookup(o.Topic, o.Partition)
		if o.Offset >= last.Offset {
			return
		}
		if offsets[o.Topic] == nil {
			offsets[o.Topic], open[o.Topic] = map[int32]kgo.Offset{}, map[int32]int64{}
		}
		offsets[o.Topic][o.Partition] = kgo.NewOffset().At(o.Offset)
		open[o.Topic][o.Partition] = last.Offset
		left++
	})
	if left == 0 {
		return nil, nil
	}
	// Markers are kept since the last thing in a log is often one.
	k, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.FetchIsolationLevel(isolation),
		kgo.KeepControlRecords(), kgo.ConsumePartitions(offsets))
	if err != nil {
		return nil, err
	}
	defer k.Close()
	var out []Record
	for left > 0 {
		fetches := k.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read %v: %d partitions not read to their end %v: %w", topics, left, open, err)
		}
		for _, e := range fetches.Errors() {
			return nil, fmt.Errorf("read %s/%d: %w", e.Topic, e.Partition, e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if last, ok := open[r.Topic][r.Partition]; ok && r.Offset >= last-1 {
				delete(open[r.Topic], r.Partition)
				left--
			}
			if !r.Attrs.IsControl() {
				out = append(out, fromFranz(r))
			}
		})
	}
	return tidy(out), nil
}

func fromFranz(r *kgo.Record) Record {
	o := Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		o.Headers = append(o.Headers, Header{h.Key, h.Value})
	}
	return o
}

// bounds returns where each partition of the topics begins and ends, as soon as no
// transaction is open in them.
func bounds(ctx context.Context, brokers, topics []string) (from, end kadm.ListedOffsets, err error) {
	k, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return nil, nil, err
	}
	defer k.Close()
	a := kadm.NewClient(k)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		from, err = a.ListStartOffsets(ctx, topics...)
		if err == nil {
			err = from.Error()
		}
		if err == nil {
			end, err = settled(ctx, a, topics)
		}
		if err == nil {
			return from, end, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("ends of %v: %w: %w", topics, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// settled returns the ends of the topics' partitions, and an error if a
// transaction is open in one of them.
func settled(ctx context.Context, a *kadm.Client, topics []string) (kadm.ListedOffsets, error) {
	end, err := a.ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	stable, err := a.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	if err := end.Error(); err != nil {
		return nil, err
	}
	if err := stable.Error(); err != nil {
		return nil, err
	}
	end.Each(func(o kadm.ListedOffset) {
		if s, ok := stable.Lookup(o.Topic, o.Partition); err == nil && (!ok || s.Offset < o.Offset) {
			err = fmt.Errorf("%s/%d: a transaction is open at offset %d, the end is %d", o.Topic, o.Partition, s.Offset, o.Offset)
		}
	})
	return end, err
}
