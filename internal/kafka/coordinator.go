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
// once; a connection that fails makes it be looked up again, and so does the caller
// by ForgetGroup when an answer tells that it moved (see isCoordinatorError).
func (cl *Cluster) AskGroup(ctx context.Context, group string, m protocol.Message) (protocol.Message, error) {
	return cl.askGroupOn(ctx, group, laneControl, m)
}

// askGroupOn is AskGroup on a lane of its own, for requests that wait.
func (cl *Cluster) askGroupOn(ctx context.Context, group, lane string, m protocol.Message) (protocol.Message, error) {
	return cl.askCoordinator(ctx, cl.groups, groupCoordinator, group, lane, m)
}

// AskTxn sends m to the coordinator of a transactional id, as AskGroup does.
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
	id, err := cl.coordinator(ctx, known, kind, key)
	if err != nil {
		return nil, err
	}
	got, err := cl.AskBroker(ctx, id, lane, m)
	if err != nil {
		cl.forget(known, key)
	}
	return got, err
}

// coordinator returns the coordinator's broker, from memory if it is there.
func (cl *Cluster) coordinator(ctx context.Context, known map[string]int32, kind int8, key string) (int32, error) {
	cl.mu.Lock()
	id, ok := known[key]
	cl.mu.Unlock()
	if ok {
		return id, nil
	}
	return cl.findCoordinator(ctx, known, kind, key)
}

// findCoordinator asks for a coordinator, once, and remembers it. While one is being
// elected it fails with a retriable error.
func (cl *Cluster) findCoordinator(ctx context.Context, known map[string]int32, kind int8, key string) (int32, error) {
	m, err := cl.AskAny(ctx, &findcoordinator.Request{Key: key, KeyType: kind})
	if err != nil {
		return 0, err
	}
	r := m.(*findcoordinator.Response)
	if r.ErrorCode != 0 {
		return 0, fmt.Errorf("coordinator of %q: %w", key, kafka.Error(r.ErrorCode))
	}
	if r.NodeID < 0 || r.Host == "" {
		return 0, fmt.Errorf("coordinator of %q: broker %d at %q: %w", key, r.NodeID, r.Host, kafka.GroupCoordinatorNotAvailable)
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.brokers[r.NodeID] = hostPort(r.Host, r.Port)
	known[key] = r.NodeID
	return r.NodeID, nil
}

// IsRetriable reports whether asking again, maybe another broker, may help: the
// connection failed, or the broker said so. Of several errors at once each must be
// so.
func IsRetriable(err error) bool {
	if err == nil || errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled) || IsPermanent(err) {
		return false
	}
	codes := codesOf(err, nil)
	for _, code := range codes {
		switch {
		case code.Temporary(), code == kafka.RebalanceInProgress, code == concurrentTransactions, code == kafka.BrokerNotAvailable:
		default:
			return false
		}
	}
	return true // no code is a connection's error
}

// codesOf appends every broker's error code in err to codes.
func codesOf(err error, codes []kafka.Error) []kafka.Error {
	if code, ok := err.(kafka.Error); ok {
		return append(codes, code)
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return codesOf(inner, codes)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			codes = codesOf(inner, codes)
		}
	}
	return codes
}

// worst joins errors; those that asking again may cure count only when there are no
// others.
func worst(errs []error) error {
	var all, final []error
	for _, err := range errs {
		if err == nil {
			continue
		}
		all = append(all, err)
		if !IsRetriable(err) {
			final = append(final, err)
		}
	}
	if len(final) > 0 {
		all = final
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return several(all)
}

// concurrentTransactions is error 51: the transaction before is not settled yet.
const concurrentTransactions = kafka.ConcurrentTransactions

// isCoordinatorError says that the coordinator moved or is not there yet.
func isCoordinatorError(err error) bool {
	return errors.Is(err, kafka.NotCoordinatorForGroup) || errors.Is(err, kafka.GroupCoordinatorNotAvailable) ||
		errors.Is(err, kafka.GroupLoadInProgress)
}
