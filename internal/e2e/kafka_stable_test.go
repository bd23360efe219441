package e2e_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/elbo-stream/elbo/internal/e2e/realkafka"
	"github.com/elbo-stream/elbo/internal/kafka"
)

// TestKafkaOffsetsAreStable takes a transactional id over right after its
// transaction was ended, and asks for the offset: it must be the transaction's,
// though the coordinator of the group learns of its end on the side.
func TestKafkaOffsetsAreStable(t *testing.T) {
	for _, version := range realkafka.Versions(t) {
		t.Run("version="+version, func(t *testing.T) {
			c := realkafka.Start(t, realkafka.Options{Version: version})
			l := newLab(t, c, nil)
			const workers, rounds = 8, 25
			topic := l.topic(t, "stable", workers)
			var behind atomic.Int64
			var all sync.WaitGroup
			for w := range workers {
				all.Go(func() {
					tp := kafka.TopicPartition{Topic: topic, Partition: int32(w)}
					m := kafka.Member{Group: "stable", Generation: -1}
					for i := range rounds {
						p, err := kafka.NewProducer(l.ctx, l.ours, kafka.ProducerConfig{TransactionalID: fmt.Sprintf("stable-%d", w)})
						if err != nil {
							t.Error(err)
							return
						}
						at, err := l.ours.CommittedOffsets(l.ctx, "stable", []kafka.TopicPartition{tp})
						if err != nil {
							t.Error(err)
							return
						}
						if want := int64(i); at[tp].Offset != want && i > 0 {
							behind.Add(1)
						}
						if err := p.Append(tp, nil, []byte("v"), nil, 1); err != nil {
							t.Error(err)
						}
						if err := p.Commit(l.ctx, &m, map[kafka.TopicPartition]kafka.Committed{tp: {Offset: int64(i) + 1}}); err != nil {
							t.Error(err)
						}
						p.Close()
					}
				})
			}
			all.Wait()
			if n := behind.Load(); n > 0 {
				t.Errorf("%d of %d times the offset was that of an earlier transaction", n, workers*rounds)
			}
		})
	}
}
