package kafka_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// frame puts a length and the correlation id before an answer.
func fetchFrame(r *kmsg.FetchResponse) []byte {
	r.Version = 11
	body := r.AppendTo([]byte{0, 0, 0, 1})
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func fetchTopics() []kafka.TopicPartition {
	return []kafka.TopicPartition{{Topic: "a", Partition: 0}, {Topic: "a", Partition: 2}, {Topic: "b", Partition: 0}}
}

// TestFetchRequest gives the request to franz-go's reader.
func TestFetchRequest(t *testing.T) {
	raw := kafka.FetchRequestBytes(fetchTopics(), 1000, true)
	if n := binary.BigEndian.Uint32(raw); int(n) != len(raw)-4 {
		t.Fatalf("length %d of %d bytes", n, len(raw))
	}
	head := []byte{0, 1, 0, 11, 0, 0, 0, 1, 0, 2, 'm', 'e'}
	if !bytes.HasPrefix(raw[4:], head) {
		t.Fatalf("header % x, want % x", raw[4:4+len(head)], head)
	}
	var got kmsg.FetchRequest
	got.Version = 11
	if err := got.ReadFrom(raw[4+len(head):]); err != nil {
		t.Fatal(err)
	}
	part := func(p int32, offset int64, most int32) kmsg.FetchRequestTopicPartition {
		return kmsg.FetchRequestTopicPartition{Partition: p, CurrentLeaderEpoch: -1, FetchOffset: offset, LastFetchedEpoch: -1, LogStartOffset: -1, PartitionMaxBytes: most}
	}
	want := kmsg.NewFetchRequest()
	want.Version, want.MaxWaitMillis, want.MinBytes, want.MaxBytes, want.IsolationLevel, want.SessionEpoch = 11, 500, 2, 3, 1, -1
	want.Topics = []kmsg.FetchRequestTopic{
		{Topic: "a", Partitions: []kmsg.FetchRequestTopicPartition{part(0, 1000, 100), part(2, 1001, 101)}},
		{Topic: "b", Partitions: []kmsg.FetchRequestTopicPartition{part(0, 1002, 102)}},
	}
	if d := cmp.Diff(want.AppendTo(nil), got.AppendTo(nil)); d != "" {
		t.Errorf("request (-want +got):\n%s", d)
	}
}

// answerOf makes an answer to fetchTopics, in another order and with partitions
// nobody asked for.
func answerOf() *kmsg.FetchResponse {
	r := kmsg.NewPtrFetchResponse()
	part := func(p int32, code int16, set string, aborted ...kmsg.FetchResponseTopicPartitionAbortedTransaction) kmsg.FetchResponseTopicPartition {
		q := kmsg.NewFetchResponseTopicPartition()
		q.Partition, q.ErrorCode, q.AbortedTransactions = p, code, aborted
		if set != "" {
			q.RecordBatches = []byte(set)
		}
		return q
	}
	r.Topics = []kmsg.FetchResponseTopic{
		{Topic: "b", Partitions: []kmsg.FetchResponseTopicPartition{part(7, 0, "nobody's"), part(0, 3, "")}},
		{Topic: "a", Partitions: []kmsg.FetchResponseTopicPartition{
			part(2, 0, "set", kmsg.FetchResponseTopicPartitionAbortedTransaction{ProducerID: 1, FirstOffset: 9}, kmsg.FetchResponseTopicPartitionAbortedTransaction{ProducerID: 2, FirstOffset: 4}),
			part(0, 0, "other"), part(0, 0, "again"),
		}},
	}
	return r
}

func TestFetchAnswer(t *testing.T) {
	got, err := kafka.ReadFetch(fetchTopics(), fetchFrame(answerOf()))
	if err != nil {
		t.Fatal(err)
	}
	want := []kafka.FetchedPart{
		{TP: kafka.TopicPartition{Topic: "b"}, Code: 3},
		{TP: kafka.TopicPartition{Topic: "a", Partition: 2}, Set: []byte("set"), Aborted: []kafka.AbortedTxn{{Producer: 2, First: 4}, {Producer: 1, First: 9}}},
		{TP: kafka.TopicPartition{Topic: "a"}, Set: []byte("other")},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("answer (-want +got):\n%s", d)
	}
}

// TestFetchAnswerCut requires an error for an answer that stops at any byte, by its
// length or by its connection, or goes on behind its end.
func TestFetchAnswerCut(t *testing.T) {
	whole := fetchFrame(answerOf())
	for n := range len(whole) {
		if _, err := kafka.ReadFetch(fetchTopics(), whole[:n]); err == nil {
			t.Fatalf("%d of %d bytes are an answer", n, len(whole))
		}
		if n < 8 {
			continue
		}
		short := bytes.Clone(whole[:n])
		binary.BigEndian.PutUint32(short, uint32(n-4))
		if _, err := kafka.ReadFetch(fetchTopics(), short); err == nil {
			t.Fatalf("%d of %d bytes, well framed, are an answer", n, len(whole))
		}
	}
	long := append(bytes.Clone(whole), 0)
	binary.BigEndian.PutUint32(long, uint32(len(long)-4))
	if _, err := kafka.ReadFetch(fetchTopics(), long); err == nil {
		t.Error("an answer with a byte too many is one")
	}
	other := bytes.Clone(whole)
	other[7] = 2
	if _, err := kafka.ReadFetch(fetchTopics(), other); err == nil {
		t.Error("the answer to another request is one")
	}
	r := answerOf()
	r.ErrorCode = 70
	if _, err := kafka.ReadFetch(fetchTopics(), fetchFrame(r)); err == nil {
		t.Error("an error code at the top is ignored")
	}
}

// FuzzFetchResponse requires of any bytes that reading them ends without a panic, and
// that nothing comes that was not asked for, or twice.
func FuzzFetchResponse(f *testing.F) {
	f.Add(fetchFrame(answerOf()))
	f.Add(fetchFrame(kmsg.NewPtrFetchResponse()))
	f.Add([]byte("\xff\xff\xff\xff\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		got, err := kafka.ReadFetch(fetchTopics(), answer)
		seen := make(map[kafka.TopicPartition]bool)
		total := 0
		for _, p := range got {
			if seen[p.TP] {
				t.Fatalf("%s comes twice", p.TP)
			}
			seen[p.TP] = true
			total += len(p.Set)
		}
		if total > len(answer) || err != nil && got != nil {
			t.Fatalf("%d bytes of %d, %v", total, len(answer), err)
		}
	})
}
