package kafka

import (
	"context"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go/protocol/describeconfigs"
)

// split returns two batches with the records of b, or nil when it has but one.
// Batches of its partition will be smaller from then on. B's partition is busy.
func (p *Producer) split(b *outBatch) []*outBatch {
	if b.Len() < 2 {
		return nil
	}
	bt := batch{raw: b.raw, last: int64(b.count - 1), count: b.count}
	binary.BigEndian.PutUint64(b.raw[atFirstTime:], uint64(b.first))
	rs, err := bt.open(b.raw[atRecords:])
	if err != nil {
		return nil // the broker's refusal counts
	}
	halves := []*outBatch{p.batch(), p.batch()}
	var r Record
	var headers []Header
	for i := range b.Len() {
		if ok, err := rs.read(&r); !ok || err != nil {
			return nil
		}
		headers = r.Headers.AppendTo(headers[:0])
		h := halves[0]
		if i >= b.Len()/2 {
			h = halves[1]
		}
		if err := h.Append(r.Key, r.Value, headers, r.Timestamp); err != nil {
			return nil
		}
	}
	for _, h := range halves {
		h.since = b.since
		p.count(h)
	}
	return halves
}

// maxMessageBytes asks how large a topic's batches may be; 0 is not known. It is for
// error messages, so it does not try hard.
func (cl *Cluster) maxMessageBytes(ctx context.Context, topic string) int {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	const topics, name = 2, "max.message.bytes"
	m, err := cl.AskAny(ctx, &describeconfigs.Request{Resources: []describeconfigs.RequestResource{
		{ResourceType: topics, ResourceName: topic, ConfigNames: []string{name}}}})
	if err != nil {
		return 0
	}
	for _, r := range m.(*describeconfigs.Response).Resources {
		for _, e := range r.ConfigEntries {
			if n, err := strconv.Atoi(e.ConfigValue); err == nil && e.ConfigName == name {
				return n
			}
		}
	}
	return 0
}
