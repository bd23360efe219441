package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/addoffsetstotxn"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
	"github.com/segmentio/kafka-go/protocol/endtxn"
	"github.com/segmentio/kafka-go/protocol/txnoffsetcommit"
)

func (p *Producer) askTxn(ctx context.Context, m protocol.Message) (protocol.Message, error) {
	return p.c.askCoordinator(ctx, p.c.txns, txnCoordinator, p.cfg.TransactionalID, p.txn, m)
}

// txnError forgets a coordinator that is none, and passes err on.
func (p *Producer) txnError(what string, code kafka.Error) error {
	if isCoordinatorError(code) {
		p.c.ForgetTxn(p.cfg.TransactionalID)
	}
	if p.cfg.TransactionalID == "" {
		return code
	}
	return fmt.Errorf("%s transaction %q: %w", what, p.cfg.TransactionalID, code)
}

// addPartition tells the coordinator that the transaction writes to tp.
func (p *Producer) addPartition(tp TopicPartition) error {
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.Deadline)
	defer cancel()
	return retry(ctx, func() error {
		m, err := p.askTxn(ctx, pin(1, p.c, &addpartitionstotxn.Request{TransactionalID: p.cfg.TransactionalID, ProducerID: p.id,
			ProducerEpoch: p.epoch, Topics: []addpartitionstotxn.RequestTopic{{Name: tp.Topic, Partitions: []int32{tp.Partition}}}}))
		if err != nil {
			return err
		}
		for _, t := range m.(*addpartitionstotxn.Response).Results {
			for _, r := range t.Results {
				if r.ErrorCode != 0 {
					return p.txnError("add a partition to", kafka.Error(r.ErrorCode))
				}
			}
		}
		return nil
	})
}

// Commit flushes and ends the transaction with success. With a member, the offsets
// of its group become part of the transaction; they are the places behind the last
// messages whose outcome was appended. Nothing appended and no offsets is no
// transaction. When it fails nobody knows the outcome until a new producer has
// the transactional id; then the committed offsets tell.
func (p *Producer) Commit(ctx context.Context, m *Member, offsets map[TopicPartition]Committed) error {
	if p.cfg.TransactionalID == "" {
		return errors.New("the producer has no transactional id")
	}
	if err := p.Flush(ctx); err != nil {
		return err
	}
	if !p.began && (m == nil || len(offsets) == 0) {
		return nil
	}
	if m != nil && len(offsets) > 0 {
		if err := p.sendOffsets(ctx, *m, offsets); err != nil {
			return p.spent(err)
		}
	}
	return p.end(ctx, true)
}

// Abort ends the transaction without effect. What was appended is given up.
func (p *Producer) Abort(ctx context.Context) error {
	for _, o := range p.parts {
		o.open = nil
	}
	if err := p.Flush(ctx); err != nil {
		return err
	}
	if !p.began {
		return nil
	}
	return p.end(ctx, false)
}

// spent notes an error and returns it.
func (p *Producer) spent(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spend(err)
}

// sendOffsets makes a group's offsets part of the transaction.
func (p *Producer) sendOffsets(ctx context.Context, m Member, offsets map[TopicPartition]Committed) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Deadline)
	defer cancel()
	err := retry(ctx, func() error {
		got, err := p.askTxn(ctx, pin(1, p.c, &addoffsetstotxn.Request{TransactionalID: p.cfg.TransactionalID, ProducerID: p.id,
			ProducerEpoch: p.epoch, GroupID: m.Group}))
		if err != nil {
			return err
		}
		if code := got.(*addoffsetstotxn.Response).ErrorCode; code != 0 {
			return p.txnError("add offsets to", kafka.Error(code))
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
	return retry(ctx, func() error {
		got, err := p.c.askGroupOn(ctx, m.Group, p.txn, rq)
		if err != nil {
			return err
		}
		for _, t := range got.(*txnoffsetcommit.Response).Topics {
			for _, part := range t.Partitions {
				if part.ErrorCode != 0 {
					return p.c.groupError(m.Group, fmt.Errorf("offset of %s/%d: %w", t.Name, part.Partition, kafka.Error(part.ErrorCode)))
				}
			}
		}
		return nil
	})
}

// end commits or aborts.
func (p *Producer) end(ctx context.Context, commit bool) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Deadline)
	defer cancel()
	err := retry(ctx, func() error {
		m, err := p.askTxn(ctx, pin(1, p.c, &endtxn.Request{TransactionalID: p.cfg.TransactionalID, ProducerID: p.id,
			ProducerEpoch: p.epoch, Committed: commit}))
		if err != nil {
			return err
		}
		if code := m.(*endtxn.Response).ErrorCode; code != 0 {
			return p.txnError("end", kafka.Error(code))
		}
		return nil
	})
	if err != nil {
		return p.spent(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.added)
	p.began = false
	return nil
}

// IsPermanent reports whether an error will come again however often the work is
// begun anew: a missing right, a message that is too large, a login that is refused.
func IsPermanent(err error) bool {
	var lasting interface{ Permanent() bool }
	var auth *AuthError
	if errors.As(err, &auth) || errors.As(err, &lasting) && lasting.Permanent() {
		return true
	}
	var code kafka.Error
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case kafka.TopicAuthorizationFailed, kafka.GroupAuthorizationFailed, kafka.ClusterAuthorizationFailed,
		kafka.TransactionalIDAuthorizationFailed, kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.UnsupportedVersion,
		kafka.UnsupportedForMessageFormat, kafka.InvalidTransactionTimeout, kafka.InvalidTopic, kafka.SASLAuthenticationFailed:
		return true
	}
	return false
}
