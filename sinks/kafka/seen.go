package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// effectively_once keeps rows from being written twice without transactions: what
// was written behind the last committed offset is read back from the outputs at
// each assignment, and left out. Where to begin reading stands beside the committed
// offset, as its metadata: places in the outputs, behind which all rows lie that
// were written and not committed.

// A spot is a row of one source partition in one output topic.
type spot struct {
	topic  string
	offset int64
	row    int
}

// seen are the rows of a source partition that the outputs hold already. Nil is
// empty.
type seen struct{ rows map[spot]struct{} }

// has reports whether a row was written before, and forgets it.
func (s *seen) has(topic string, from place) bool {
	if s == nil || len(s.rows) == 0 {
		return false
	}
	at := spot{topic, from.offset, from.row}
	_, ok := s.rows[at]
	delete(s.rows, at)
	return ok
}

// pass forgets rows before next and reports whether any are left.
func (s *seen) pass(next int64) (left bool) {
	if s == nil {
		return false
	}
	maps.DeleteFunc(s.rows, func(at spot, _ struct{}) bool { return at.offset < next })
	return len(s.rows) > 0
}

// places are offsets in the outputs: all that is written from now on lies at or
// behind them.
type places map[kafka.TopicPartition]int64

// placesVersion begins the metadata, so that another program's is recognised.
const placesVersion = "elbo1"

// maxPlaces bounds the metadata; Kafka's own bound is 4,096 bytes by default.
const maxPlaces = 4000

// String returns the places as metadata, "" when they are too many: then the whole
// output is read back.
func (p places) String() string {
	var b strings.Builder
	b.WriteString(placesVersion)
	topic := ""
	for _, tp := range slices.SortedFunc(maps.Keys(p), kafka.TopicPartition.Compare) {
		if tp.Topic != topic {
			topic = tp.Topic
			b.WriteString(" " + topic)
		}
		b.WriteString(" " + strconv.Itoa(int(tp.Partition)) + "=" + strconv.FormatInt(p[tp], 10))
	}
	if b.Len() > maxPlaces {
		return ""
	}
	return b.String()
}

// parsePlaces reads what String gave; nil when the text is something else.
func parsePlaces(text string) places {
	words := strings.Fields(text)
	if len(words) == 0 || words[0] != placesVersion {
		return nil
	}
	p, topic := places{}, ""
	for _, w := range words[1:] {
		number, offset, ok := strings.Cut(w, "=")
		if !ok {
			topic = w
			continue
		}
		n, err1 := strconv.ParseInt(number, 10, 32)
		at, err2 := strconv.ParseInt(offset, 10, 64)
		if err := errors.Join(err1, err2); err != nil || topic == "" || n < 0 || at < 0 {
			return nil
		}
		p[kafka.TopicPartition{Topic: topic, Partition: int32(n)}] = at
	}
	return p
}

// A history knows which places belong to which committed offset of one source
// partition. It is guarded by Sink.mu.
type history struct {
	base    places // of the epoch's beginning: while rows seen are left, they lie behind it
	now     places
	entries []historyEntry // rising
}

type historyEntry struct {
	next int64
	at   places
}

// note adds the places of a commit. written are the offsets behind what the
// producer's last acknowledged batches hold.
func (h *history) note(next int64, written map[kafka.TopicPartition]int64, left bool) {
	maps.Copy(h.now, written)
	at := h.base
	if !left {
		at = maps.Clone(h.now)
	}
	h.entries = append(h.entries, historyEntry{next, at})
}

// before returns the places that belong to a committed offset, and forgets older
// ones.
func (h *history) before(offset int64) places {
	at := h.base
	n := 0
	for n < len(h.entries) && h.entries[n].next <= offset {
		at = h.entries[n].at
		n++
	}
	h.base = at
	h.entries = slices.Delete(h.entries, 0, n)
	return at
}

// metadata returns what is to stand beside a committed offset.
func (s *Sink) metadata(partition string, offset int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.writers[partition]
	if w == nil || w.history == nil {
		return ""
	}
	return w.history.before(offset).String()
}

// readBack finds the rows of a source partition that are in the outputs and not
// covered by its committed offset.
func (s *Sink) readBack(ctx context.Context, source kafka.TopicPartition) (*seen, *history, error) {
	var outputs []kafka.TopicPartition
	for topic, n := range s.partitions {
		for i := range n {
			outputs = append(outputs, kafka.TopicPartition{Topic: topic, Partition: int32(i)})
		}
	}
	committed := kafka.Committed{Offset: -1}
	if s.up != nil {
		all, err := s.cluster.CommittedOffsets(ctx, s.up.Group(), []kafka.TopicPartition{source})
		if err != nil {
			return nil, nil, fmt.Errorf("committed offset of partition %s: %w", source, err)
		}
		if c, ok := all[source]; ok {
			committed = c
		}
	}
	const latest, earliest = -1, -2
	ends, err := s.cluster.ListOffsets(ctx, outputs, latest, false)
	if err != nil {
		return nil, nil, fmt.Errorf("ends of the outputs: %w", err)
	}
	starts, err := s.cluster.ListOffsets(ctx, outputs, earliest, false)
	if err != nil {
		return nil, nil, fmt.Errorf("starts of the outputs: %w", err)
	}
	if s.up != nil && committed.Offset < 0 {
		// The source stores an offset before it reads the first row, so nothing was
		// written yet.
		return &seen{}, &history{base: ends, now: maps.Clone(places(ends))}, nil
	}
	known := parsePlaces(committed.Metadata)
	base := places{}
	for _, tp := range outputs {
		base[tp] = max(starts[tp], known[tp])
	}
	got, err := s.scan(ctx, source, base, ends, max(0, committed.Offset))
	if err != nil {
		return nil, nil, fmt.Errorf("read back what was written of partition %s: %w", source, err)
	}
	if len(got.rows) > 0 {
		s.c.Log.Info("rows written before and not committed are left out", "partition", source.String(), "rows", len(got.rows))
	}
	h := &history{base: ends, now: maps.Clone(ends)}
	if len(got.rows) > 0 {
		h.base = base
	}
	return got, h, nil
}

// scan reads the outputs from base to ends and gathers the rows of source at or
// behind an offset.
func (s *Sink) scan(ctx context.Context, source kafka.TopicPartition, base, ends places, from int64) (*seen, error) {
	got := &seen{rows: make(map[spot]struct{})}
	fetcher := kafka.NewFetcher(s.cluster, kafka.FetchConfig{})
	defer fetcher.Close()
	open := 0
	for tp, at := range base {
		if at < ends[tp] {
			fetcher.Add(tp, 1, at)
			open++
		}
	}
	for open > 0 {
		c, err := fetcher.Next(ctx)
		if err != nil {
			return nil, err
		}
		err = c.Err
		if err == nil {
			err = c.Records(func(r *kafka.Record) error {
				if at, ok := whence(r, source); ok && at.offset >= from && r.Offset < ends[c.TP] {
					got.rows[spot{c.TP.Topic, at.offset, at.row}] = struct{}{}
				}
				return nil
			})
		}
		tp, next := c.TP, c.Next
		c.Release()
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", tp, err)
		}
		if next >= ends[tp] {
			fetcher.Remove(tp)
			open--
		}
	}
	return got, nil
}

// whence reads the headers that say which row of source a message is.
func whence(r *kafka.Record, source kafka.TopicPartition) (place, bool) {
	p := place{topic: source.Topic, partition: source.Partition, offset: -1}
	topic, partition := false, false
	for key, value := range r.Headers.All() {
		switch string(key) {
		case HeaderTopic:
			topic = string(value) == source.Topic
		case HeaderPartition:
			partition = string(value) == strconv.Itoa(int(source.Partition))
		case HeaderOffset:
			if n, err := strconv.ParseInt(string(value), 10, 64); err == nil {
				p.offset = n
			}
		case HeaderRow:
			p.row, _ = strconv.Atoi(string(value))
		}
	}
	return p, topic && partition && p.offset >= 0
}
