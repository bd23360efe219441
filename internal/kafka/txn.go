package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/addoffsetstotxn"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
	"github.com/segmentio/kafka-go/protocol/endtxn"
	"github.com/segmentio/kafka-go/protocol/txnoffsetcommit"
)

// operationNotAttempted is error 55: another partition of the request was refused.
// Kafka-go has another name for it.
const operationNotAttempted = kafka.BrokerAuthorizationFailed

// settling is the longest pause before the coordinator is asked again whether the
// transaction before is settled, which takes it some milliseconds.
const settling = 20 * time.Millisecond

// persist calls f until it succeeds, fails for good or ctx is done. Its error is f's
// last one, with ctx's when that ended it.
func persist(ctx context.Context, f func(context.Context) error) error {
	busy := 0
	return retry(ctx, func() error {
		for {
			err := f(ctx)
			if !errors.Is(err, concurrentTransactions) {
				return err
			}
			if sleep(ctx, min(time.Millisecond<<min(busy, 10), settling)) != nil {
				return err
			}
			busy++
		}
	})
}

func (p *Producer) askTxn(ctx context.Context, m protocol.Message) (protocol.Message, error) {
	return p.c.askCoordinator(ctx, p.c.txns, txnCoordinator, p.cfg.TransactionalID, p.txn, m)
}

// txnError forgets a coordinator that is none, and passes err on.
func (p *Producer) txnError(what string, err error) error {
	if isCoordinatorError(err) {
		p.c.ForgetTxn(p.cfg.TransactionalID)
	}
	if !p.transactional() {
		return err
	}
	return fmt.Errorf("%s transaction %q: %w", what, p.cfg.TransactionalID, err)
}

// addPartitions makes the partitions that wait for it part of the transaction: those
// of a flush in one request.
func (p *Producer) addPartitions() {
	for {
		p.mu.Lock()
		parts := p.joining
		p.joining = nil
		if len(parts) == 0 || p.err != nil {
			p.adding = false
			p.mu.Unlock()
			return
		}
		p.began = true
		p.mu.Unlock()
		err := p.add(parts)
		p.mu.Lock()
		if err != nil {
			_ = p.spend(err)
		}
		for _, o := range parts {
			o.added = true
			p.again(o)
		}
		p.mu.Unlock()
	}
}

// add tells the coordinator which partitions the transaction writes to.
func (p *Producer) add(parts []*outPart) error {
	rq := &addpartitionstotxn.Request{TransactionalID: p.cfg.TransactionalID, ProducerID: p.id, ProducerEpoch: p.epoch}
	var tps []TopicPartition
	for _, o := range parts {
		tps = append(tps, o.tp)
	}
	for topic, ids := range byTopic(tps) {
		rq.Topics = append(rq.Topics, addpartitionstotxn.RequestTopic{Name: topic, Partitions: ids})
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.Deadline)
	defer cancel()
	return persist(ctx, func(ctx context.Context) error {
		m, err := p.askTxn(ctx, pin(1, p.c, rq))
		if err != nil {
			return p.txnError("add partitions to", err)
		}
		var errs []error
		for _, t := range m.(*addpartitionstotxn.Response).Results {
			for _, r := range t.Results {
				if code := kafka.Error(r.ErrorCode); code != 0 && code != operationNotAttempted {
					errs = append(errs, fmt.Errorf("%s/%d: %w", t.Name, r.PartitionIndex, code))
				}
			}
		}
		if err := worst(errs); err != nil {
			return p.txnError("add partitions to", err)
		}
		return nil
	})
}

// Commit flushes and ends the transaction with success. With a member, the offsets
// of its group become part of the transaction; they are the places behind the last
// messages whose outcome was appended. Nothing appended and no offsets is no
// transaction. An error, ctx's too, spends the producer, and the transaction is not
// committed, unless the error is an UnknownOutcomeError.
func (p *Producer) Commit(ctx context.Context, m *Member, offsets map[TopicPartition]Committed) error {
	if !p.transactional() {
		return errors.New("the producer has no transactional id")
	}
	if err := p.failure(); err != nil {
		return err
	}
	var offsetting sync.WaitGroup
	if m != nil && len(offsets) > 0 {
		offsetting.Go(func() {
			if err := p.sendOffsets(ctx, *m, offsets); err != nil {
				_ = p.fail(err)
			}
		})
	}
	err := p.Flush(ctx)
	offsetting.Wait()
	if err == nil {
		err = p.failure()
	}
	if err != nil {
		return p.fail(err)
	}
	return p.end(ctx, true)
}

// Abort ends the transaction without effect. Batches that were not full are never
// sent. An error, ctx's too, spends the producer.
func (p *Producer) Abort(ctx context.Context) error {
	if !p.transactional() {
		return errors.New("the producer has no transactional id")
	}
	p.mu.Lock()
	for _, o := range p.order {
		if o.open != nil {
			p.recycle(o.open)
			o.open = nil
		}
	}
	p.mu.Unlock()
	if err := p.Flush(ctx); err != nil {
		return p.fail(err)
	}
	return p.end(ctx, false)
}

// sendOffsets makes a group's offsets part of the transaction.
func (p *Producer) sendOffsets(ctx context.Context, m Member, offsets map[TopicPartition]Committed) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Deadline)
	defer cancel()
	p.mu.Lock()
	p.began = true
	p.mu.Unlock()
	err := persist(ctx, func(ctx context.Context) error {
		got, err := p.askTxn(ctx, pin(1, p.c, &addoffsetstotxn.Request{TransactionalID: p.cfg.TransactionalID, ProducerID: p.id,
			ProducerEpoch: p.epoch, GroupID: m.Group}))
		if err == nil {
			err = codeError(got.(*addoffsetstotxn.Response).ErrorCode)
		}
		if err != nil {
			return p.txnError("add offsets to", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	rq := &txnoffsetcommit.Request{TransactionalID: p.cfg.TransactionalID, GroupID: m.Group, ProducerID: p.id, ProducerEpoch: p.epoch,
		GenerationID: m.Generation, MemberID: m.ID, GroupInstanceID: m.Instance}
	topics := make(map[string]int)
	for tp, o := range offsets {
		i, ok := topics[tp.Topic]
		if !ok {
			i = len(rq.Topics)
			topics[tp.Topic] = i
			rq.Topics = append(rq.Topics, txnoffsetcommit.RequestTopic{Name: tp.Topic})
		}
		rq.Topics[i].Partitions = append(rq.Topics[i].Partitions, txnoffsetcommit.RequestPartition{Partition: tp.Partition,
			CommittedOffset: o.Offset, CommittedLeaderEpoch: -1, CommittedMetadata: o.Metadata})
	}
	return persist(ctx, func(ctx context.Context) error { return p.commitOffsets(ctx, m.Group, rq) })
}

// commitOffsets sends offsets to their group. Version 3 is the first that says which
// member commits, so it is the least.
func (p *Producer) commitOffsets(ctx context.Context, group string, rq *txnoffsetcommit.Request) error {
	got, err := p.c.askGroupOn(ctx, group, p.txn, pin(3, p.c, rq))
	if err != nil {
		return p.c.groupError(group, err)
	}
	var errs []error
	for _, t := range got.(*txnoffsetcommit.Response).Topics {
		for _, part := range t.Partitions {
			if err := codeError(part.ErrorCode); err != nil {
				errs = append(errs, fmt.Errorf("offset of %s/%d: %w", t.Name, part.Partition, err))
			}
		}
	}
	if err := worst(errs); err != nil {
		return p.c.groupError(group, err)
	}
	return nil
}

func codeError(code int16) error {
	if code == 0 {
		return nil
	}
	return kafka.Error(code)
}

// end commits or aborts, if there is something to. The same request, sent again, is
// answered like the first one, so it is repeated until its outcome is known.
func (p *Producer) end(ctx context.Context, commit bool) error {
	p.mu.Lock()
	began := p.began
	p.mu.Unlock()
	if !began {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Deadline)
	defer cancel()
	tries := 0
	err := persist(ctx, func(ctx context.Context) error {
		tries++
		m, err := p.askTxn(ctx, pin(1, p.c, &endtxn.Request{TransactionalID: p.cfg.TransactionalID, ProducerID: p.id,
			ProducerEpoch: p.epoch, Committed: commit}))
		if err == nil {
			err = codeError(m.(*endtxn.Response).ErrorCode)
		}
		if err != nil {
			return p.txnError("end", err)
		}
		return nil
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		// What was refused at once had no effect. Anything else may have had it, also
		// before the last refusal.
		if commit && (tries > 1 || IsRetriable(err) || len(codesOf(err, nil)) == 0) {
			err = &UnknownOutcomeError{TransactionalID: p.cfg.TransactionalID, Err: err}
		}
		return p.spend(err)
	}
	for _, o := range p.order {
		o.added = false
	}
	p.began = false
	return nil
}
