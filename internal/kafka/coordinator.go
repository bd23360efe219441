package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
)

// The kinds of coordinators.
const (
	groupCoordinator = 0
	txnCoordinator   = 1
)

// AskGroup sends m to the coordinator of a group. The coordinator is looked up
// once; an answer that tells that it moved makes the caller call ForgetGroup.
func (cl *Cluster) AskGroup(ctx context.Context, group string, m protocol.Message) (protocol.Message, error) {
	return cl.askCoordinator(ctx, cl.groups, groupCoordinator, group, laneControl, m)
}

// askGroupOn is AskGroup on a lane of its own, for requests that wait.
func (cl *Cluster) askGroupOn(ctx context.Context, group, lane string, m protocol.Message) (protocol.Message, error) {
	return cl.askCoordinator(ctx, cl.groups, groupCoordinator, group, lane, m)
}

// AskTxn sends m to the coordinator of a transactional id.
func (cl *Cluster) AskTxn(ctx context.Context, id string, m protocol.Message) (protocol.Message, error) {
	return cl.askCoordinator(ctx, cl.txns, txnCoordinator, id, "txn", m)
}

// ForgetGroup says that a group's coordinator may have moved.
func (cl *Cluster) ForgetGroup(group string) { cl.forget(cl.groups, group) }

// ForgetTxn says that the coordinator of a transactional id may have moved.
func (cl *Cluster) ForgetTxn(id string) { cl.forget(cl.txns, id) }

func (cl *Cluster) forget(known map[string]int32, key string) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	delete(known, key)
}

func (cl *Cluster) askCoordinator(ctx context.Context, known map[string]int32, kind int8, key, lane string, m protocol.Message) (protocol.Message, error) {
	cl.mu.Lock()
	id, ok := known[key]
	cl.mu.Unlock()
	if !ok {
		var err error
		if id, err = cl.findCoordinator(ctx, kind, key); err != nil {
			return nil, err
		}
		cl.mu.Lock()
		known[key] = id
		cl.mu.Unlock()
	}
	got, err := cl.AskBroker(ctx, id, lane, m)
	if err != nil {
		cl.forget(known, key)
	}
	return got, err
}

// findCoordinator asks once; while a coordinator is being elected it fails with a
// retriable error.
func (cl *Cluster) findCoordinator(ctx context.Context, kind int8, key string) (int32, error) {
	m, err := cl.AskAny(ctx, &findcoordinator.Request{Key: key, KeyType: kind})
	if err != nil {
		return 0, err
	}
	r := m.(*findcoordinator.Response)
	if r.ErrorCode != 0 {
		return 0, fmt.Errorf("coordinator of %q: %w", key, kafka.Error(r.ErrorCode))
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.brokers[r.NodeID] = hostPort(r.Host, r.Port)
	return r.NodeID, nil
}

// IsRetriable reports whether asking again, maybe another broker, may help: the
// connection failed, or the broker said so.
func IsRetriable(err error) bool {
	if err == nil || errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled) {
		return false
	}
	var auth *AuthError
	if errors.As(err, &auth) {
		return false
	}
	var code kafka.Error
	if errors.As(err, &code) {
		return code.Temporary() || code == kafka.NotCoordinatorForGroup || code == concurrentTransactions
	}
	return true // a connection's error
}

// concurrentTransactions is error 51: the transaction before is not settled yet.
const concurrentTransactions = kafka.Error(51)

// isCoordinatorError says that the coordinator moved or is not there yet.
func isCoordinatorError(err error) bool {
	return errors.Is(err, kafka.NotCoordinatorForGroup) || errors.Is(err, kafka.GroupCoordinatorNotAvailable) ||
		errors.Is(err, kafka.GroupLoadInProgress)
}
