package kafka

import (
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
)

// IsFenced reports whether a producer was refused because its transactional id has a
// newer owner, or because its transaction took longer than TxnTimeout: the answer is
// the same. The owner asks its group (see Group.Confirm) before it makes a new
// producer, which would fence the newer owner in turn.
func IsFenced(err error) bool {
	return anyOf(err, kafka.InvalidProducerEpoch, kafka.InvalidTransactionState, kafka.InvalidProducerIDMapping, kafka.ProducerFenced)
}

// IsMemberGone reports whether a commit was refused because the membership that it
// names is over: another member has the partition, or will have it. The owner ends
// what it does under that assignment and makes no new producer for it.
func IsMemberGone(err error) bool {
	return errors.Is(err, ErrNotMember) || anyOf(err, kafka.IllegalGeneration, kafka.UnknownMemberId, kafka.FencedInstanceID)
}

func anyOf(err error, codes ...kafka.Error) bool {
	for _, code := range codes {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// canResend reports whether the same batch may be taken when it is sent once more.
func canResend(err error) bool {
	return IsRetriable(err) && !errors.Is(err, kafka.RebalanceInProgress)
}

// isLeaderLost reports whether another broker may lead the partition by now: the one
// that was asked says so, or does not answer.
func isLeaderLost(err error) bool {
	return len(codesOf(err, nil)) == 0 || anyOf(err, kafka.UnknownTopicOrPartition, kafka.LeaderNotAvailable, kafka.NotLeaderForPartition,
		kafka.BrokerNotAvailable, kafka.NetworkException, kafka.KafkaStorageError, kafka.FencedLeaderEpoch, kafka.UnknownLeaderEpoch)
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
		kafka.UnsupportedForMessageFormat, kafka.UnsupportedCompressionType, kafka.InvalidTransactionTimeout, kafka.InvalidTopic,
		kafka.OffsetMetadataTooLarge, kafka.SASLAuthenticationFailed:
		return true
	}
	return false
}

// A TooLargeError says that a topic does not take a message; batches of several are
// split before it comes to that. It is kafka.MessageSizeTooLarge.
type TooLargeError struct {
	TP      TopicPartition
	Bytes   int // of the message and what stands around it, as they were sent
	Records int // 1, unless the batch could not be split
	Limit   int // the topic's max.message.bytes; 0 is not known
}

// Error names the size, the limit and the settings that raise it.
func (e *TooLargeError) Error() string {
	limit := ""
	if e.Limit > 0 {
		limit = fmt.Sprintf(", which is %d", e.Limit)
	}
	return fmt.Sprintf("a message of %d bytes is more than the topic takes: raise its max.message.bytes%s, or the brokers' message.max.bytes",
		e.Bytes, limit)
}

// Unwrap returns the broker's error.
func (e *TooLargeError) Unwrap() error { return kafka.MessageSizeTooLarge }

// An UnknownOutcomeError says that a transaction may or may not be committed. A new
// producer with the same transactional id settles it; then the committed offsets
// tell which.
type UnknownOutcomeError struct {
	TransactionalID string
	Err             error // what the last attempt to commit ended with
}

// Error names the transaction and the last attempt's error.
func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("transaction %q may be committed or not: %v", e.TransactionalID, e.Err)
}

// Unwrap returns what the last attempt ended with.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }
