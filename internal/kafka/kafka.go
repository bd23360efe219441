// Package kafka is what both Kafka ends share: connections, record batches,
// fetching, the idempotent and transactional producer, and the group member.
//
//	c, err := kafka.Open(ctx, kafka.Config{Brokers: []string{"localhost:9092"}})
//	f := kafka.NewFetcher(c, kafka.FetchConfig{ReadCommitted: true})
//	f.Add(kafka.TopicPartition{Topic: "payments", Partition: 3}, 1, 0)
//
// It speaks the protocol through segmentio/kafka-go's package protocol, on its
// own connections: kafka-go's Reader, Writer and Transport lose and repeat
// records or hide errors (docs/decisions). The thing people get wrong is who owns
// fetched bytes: a Chunk's records are views, valid until its Release.
package kafka

import (
	"cmp"
	"strconv"
	"strings"
)

// A TopicPartition names one partition of a topic.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// String returns topic/partition, as in "payments/3". It is the name that marks
// carry; a topic's name has no slash.
func (tp TopicPartition) String() string {
	return tp.Topic + "/" + strconv.Itoa(int(tp.Partition))
}

// ParseTopicPartition reads what String gave.
func ParseTopicPartition(s string) (TopicPartition, bool) {
	i := strings.LastIndexByte(s, '/')
	if i <= 0 {
		return TopicPartition{}, false
	}
	n, err := strconv.ParseInt(s[i+1:], 10, 32)
	if err != nil || n < 0 {
		return TopicPartition{}, false
	}
	return TopicPartition{s[:i], int32(n)}, true
}

// Compare orders by topic, then by partition.
func (tp TopicPartition) Compare(o TopicPartition) int {
	return cmp.Or(strings.Compare(tp.Topic, o.Topic), cmp.Compare(tp.Partition, o.Partition))
}

// A Header is one key and value beside a record. A nil Value is null.
type Header struct {
	Key   string
	Value []byte
}

// A Member is what fences a commit to a group: a commit with an older generation
// or another member id is refused by the coordinator.
type Member struct {
	Group      string
	Generation int32
	ID         string
	Instance   string // static membership; "" without it
}
