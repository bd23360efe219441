// Package oracle judges what went through Kafka, with readers that are not ours:
// franz-go and kcat. Check compares an input topic with its copy and names every
// record that is lost, doubled, unknown or out of order.
//
//	in, err := oracle.Read(ctx, brokers, "in")
//	out, err := oracle.Read(ctx, brokers, "out")
//	if err := oracle.Check(in, out, oracle.ByKey).Err(); err != nil { ... }
//
// The thing people get wrong is what "the end" is while a transaction is open: a
// reader of committed records stops before it. Read therefore waits until no
// transaction is open, and says so when that does not come.
package oracle

import (
	"cmp"
	"slices"
)

// A Header is one of a record's headers. A nil Value is null.
type Header struct {
	Key   string
	Value []byte
}

// A Record is a record as a foreign reader saw it. Nil Key and Value are null.
type Record struct {
	Topic      string
	Partition  int32
	Offset     int64
	Timestamp  int64 // milliseconds since 1970
	Key, Value []byte
	Headers    []Header
}

// Header returns the first header with that key, and whether there is one.
func (r Record) Header(key string) ([]byte, bool) {
	for _, h := range r.Headers {
		if h.Key == key {
			return h.Value, true
		}
	}
	return nil, false
}

// tidy sorts by topic, partition and offset and drops records that a reader
// delivered twice: one place in a log is one record.
func tidy(rs []Record) []Record {
	place := func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	}
	slices.SortFunc(rs, place)
	return slices.CompactFunc(rs, func(a, b Record) bool { return place(a, b) == 0 })
}
