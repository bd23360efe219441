package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// copyByFranz copies by franz-go's group transactions, one transactional id for
// each process.
func copyByFranz(ctx context.Context, j job, index string) error {
	options := []kgo.Opt{kgo.SeedBrokers(j.brokers...), kgo.TransactionalID(j.group + "-" + index), kgo.TransactionTimeout(20 * time.Second),
		kgo.ConsumerGroup(j.group), kgo.ConsumeTopics(j.in), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(j.session), kgo.HeartbeatInterval(j.session / 10),
		kgo.RecordPartitioner(kgo.ManualPartitioner())}
	if j.instance != "" {
		options = append(options, kgo.InstanceID(j.instance))
	}
	for ctx.Err() == nil {
		s, err := kgo.NewGroupTransactSession(options...)
		if err != nil {
			return err
		}
		err = copySession(ctx, j, s)
		s.Close()
		if err != nil && ctx.Err() == nil {
			slog.Warn("session ended, a new one begins", "error", err)
		}
	}
	return nil
}

func copySession(ctx context.Context, j job, s *kgo.GroupTransactSession) error {
	for ctx.Err() == nil {
		fetches := s.PollRecords(ctx, j.rows)
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := s.Begin(); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		p := kgo.AbortingFirstErrPromise(s.Client())
		fetches.EachRecord(func(r *kgo.Record) {
			s.Produce(context.Background(), &kgo.Record{Topic: j.out, Partition: r.Partition, Key: r.Key, Value: r.Value}, p.Promise())
		})
		flushed := s.Client().Flush(context.Background()) == nil && p.Err() == nil
		_, err := s.End(context.Background(), kgo.TransactionEndTry(flushed))
		if err != nil && !errors.Is(err, kerr.OperationNotAttempted) {
			return fmt.Errorf("end: %w", err)
		}
	}
	return nil
}
