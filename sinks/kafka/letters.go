package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/codec"
)

// The headers that dead letters have besides those of the original message.
const (
	HeaderClass   = "elbo-error-class"  // the label that it is counted under
	HeaderDetail  = "elbo-error-detail" // the error's text
	HeaderStep    = "elbo-error-step"   // the decoder's or operator's name
	HeaderAttempt = "elbo-attempt"      // how often the message became a dead letter, from 1
)

const columnValue = "kafka_value"

// LettersConfig says where dead letters go. Cluster and Topic must be set.
type LettersConfig struct {
	Cluster kafka.Config
	Topic   string
	// Encoder writes the rows of sources that have no messages; messages keep their
	// bytes. Nil means that there are only messages.
	Encoder     func() (codec.Encoder, error)
	Compression kafka.Compression
	Log         *slog.Logger // nil means silence
}

// A LetterSink writes dead letters: the original key, value, headers and time,
// and headers that say what is wrong. On its own it is at least once; joined to a
// Sink (JoinLetters) it keeps that one's promise.
type LetterSink struct {
	c        LettersConfig
	letters  *letters
	cluster  *kafka.Cluster
	producer *kafka.Producer
	framers  map[string]*letterFramer
	parts    int
	done     done
}

var _ pipeline.Sink = (*LetterSink)(nil)

// NewLetters checks the configuration. It connects to nothing; the first dead
// letter does.
func NewLetters(c LettersConfig) (*LetterSink, error) {
	var errs []error
	if c.Topic == "" {
		errs = append(errs, errors.New("topic: must be set"))
	}
	if len(c.Cluster.Brokers) == 0 {
		errs = append(errs, errors.New("brokers: name at least one, as in localhost:9092"))
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &LetterSink{c: c, framers: map[string]*letterFramer{}, done: done{beyond: map[uint64]struct{}{}}}, errors.Join(errs...)
}

// JoinLetters makes s take the dead letters of dead, together with its rows, and
// reports whether it does; dead is not used any more then. It is called before Bind.
func (s *Sink) JoinLetters(dead pipeline.Sink) (bool, error) {
	l, ok := dead.(*LetterSink)
	if !ok || s.pendingLetters != nil || !s.c.Cluster.Same(l.c.Cluster) {
		return false, nil
	}
	s.pendingLetters = &l.c
	return true, l.Close()
}

// BindLetters fixes the columns of dead letters.
func (s *Sink) BindLetters(in *arrow.Schema) (err error) {
	if s.pendingLetters == nil {
		return errors.New("no topic for dead letters; add dead_letters: {kafka: {topic: ...}}")
	}
	s.letters, err = bindLetters(*s.pendingLetters, in)
	return err
}

// Bind fixes the columns.
func (s *LetterSink) Bind(in *arrow.Schema) (err error) {
	s.letters, err = bindLetters(s.c, in)
	return err
}

// Write writes dead letters and waits for their acknowledgement.
func (s *LetterSink) Write(ctx context.Context, n uint64, rec arrow.Record) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	give := func(m *message) error {
		return s.producer.Append(m.to, m.key, m.value, m.headers, m.timestamp)
	}
	for lo := 0; lo < int(rec.NumRows()); {
		name, hi := s.letters.stretch(rec, lo)
		f := s.framers[name]
		if f == nil {
			f = newLetterFramer(s.letters, sourceOf(name), s.parts)
			s.framers[name] = f
		}
		part := rec.NewSlice(int64(lo), int64(hi))
		err := f.each(part, give)
		part.Release()
		if err != nil {
			return err
		}
		lo = hi
	}
	if err := s.producer.Flush(ctx); err != nil {
		return err
	}
	s.done.add(n)
	return nil
}

func (s *LetterSink) open(ctx context.Context) (err error) {
	if s.producer != nil {
		return nil
	}
	if s.cluster == nil {
		if s.cluster, err = kafka.Open(ctx, s.c.Cluster); err != nil {
			return err
		}
	}
	if s.parts, err = s.cluster.Partitions(ctx, s.c.Topic); err != nil {
		return fmt.Errorf("topic %q: %w", s.c.Topic, err)
	}
	s.producer, err = kafka.NewProducer(ctx, s.cluster, kafka.ProducerConfig{Compression: s.c.Compression})
	return err
}

// Durable returns the last batch written.
func (s *LetterSink) Durable() uint64 { return s.done.get() }

// Flush has nothing to do: Write waits.
func (s *LetterSink) Flush(context.Context) error { return nil }

// Close closes the connections.
func (s *LetterSink) Close() error {
	if s.producer != nil {
		s.producer.Close()
	}
	if s.cluster != nil {
		return s.cluster.Close()
	}
	return nil
}

// letters is a LettersConfig, bound to a schema. Columns are -1 where there are
// none.
type letters struct {
	topic                                     string
	encoder                                   func() (codec.Encoder, error)
	schema                                    *arrow.Schema
	key, value, headers, time                 int
	partition, position, step, reason, detail int
}

func bindLetters(c LettersConfig, in *arrow.Schema) (*letters, error) {
	at := func(name string) int {
		if i := in.FieldIndices(name); len(i) > 0 {
			return i[0]
		}
		return -1
	}
	l := &letters{topic: c.Topic, encoder: c.Encoder, schema: in,
		key: at(columnKey), value: at(columnValue), headers: at(columnHeaders), time: at(columnTimestamp),
		partition: at(pipeline.DeadPartition), position: at(pipeline.DeadPosition), step: at(pipeline.DeadOperator),
		reason: at(pipeline.DeadReason), detail: at(pipeline.DeadDetail)}
	if l.value >= 0 {
		return l, nil
	}
	if c.Encoder == nil {
		return nil, errors.New("dead letters: the source has no messages, and there is no format to write its rows in")
	}
	enc, err := c.Encoder()
	if err != nil {
		return nil, err
	}
	return l, enc.Bind(in)
}

// stretch returns the source's partition of row lo and where its rows end.
func (l *letters) stretch(rec arrow.Record, lo int) (partition string, hi int) {
	names := rec.Column(l.partition).(*array.String)
	partition, hi = names.Value(lo), lo+1
	for hi < int(rec.NumRows()) && names.Value(hi) == partition {
		hi++
	}
	return strings.Clone(partition), hi
}

// A letterFramer makes messages of the dead letters of one source partition.
type letterFramer struct {
	*letters
	source kafka.TopicPartition
	to     kafka.TopicPartition
	enc    codec.Encoder
	value  []byte
}

func newLetterFramer(l *letters, source kafka.TopicPartition, parts int) *letterFramer {
	return &letterFramer{letters: l, source: source,
		to: kafka.TopicPartition{Topic: l.topic, Partition: source.Partition % int32(max(parts, 1))}}
}

// each gives the message of every dead letter. They are few, so it may allocate.
func (f *letterFramer) each(rec arrow.Record, give func(*message) error) error {
	if f.letters.value < 0 {
		if err := f.encode(rec); err != nil {
			return &encodeError{err}
		}
	}
	rows := rowReader{source: f.source, lastRow: -1}
	if f.letters.headers >= 0 {
		rows.headers, _ = rec.Column(f.letters.headers).(*array.List)
	}
	if f.letters.time >= 0 {
		rows.times, _ = rec.Column(f.letters.time).(*array.Timestamp)
	}
	if f.letters.key >= 0 {
		rows.key = rec.Column(f.letters.key)
	}
	for i := range int(rec.NumRows()) {
		m := message{to: f.to, timestamp: rows.timestamp(i)}
		_, m.key = rows.keyOf(i, nil)
		var err error
		if m.value, err = f.bytes(rec, i); err != nil {
			return &encodeError{err}
		}
		m.from = place{topic: f.source.Topic, partition: f.source.Partition, offset: rec.Column(f.position).(*array.Int64).Value(i)}
		m.headers = rows.sourceHeaders(i, f.reasons(rec, i, m.from))
		if err := give(&m); err != nil {
			return err
		}
	}
	return nil
}

func (f *letterFramer) encode(rec arrow.Record) error {
	if f.enc == nil {
		enc, err := f.encoder()
		if err == nil {
			err = enc.Bind(f.schema)
		}
		if err != nil {
			return err
		}
		f.enc = enc
	}
	return f.enc.Reset(rec)
}

func (f *letterFramer) bytes(rec arrow.Record, i int) ([]byte, error) {
	if f.letters.value < 0 {
		var err error
		f.value, err = f.enc.Append(f.value[:0], i, i+1)
		return f.value, err
	}
	values := rec.Column(f.letters.value).(*array.Binary)
	if values.IsNull(i) {
		return nil, nil
	}
	return values.Value(i), nil
}

func (f *letterFramer) reasons(rec arrow.Record, i int, from place) []kafka.Header {
	text := func(col int) []byte { return []byte(rec.Column(col).(*array.String).Value(i)) }
	attempt := 1
	if f.letters.headers >= 0 {
		attempt += attempts(rec.Column(f.letters.headers), i)
	}
	return []kafka.Header{
		{Key: HeaderClass, Value: text(f.reason)},
		{Key: HeaderDetail, Value: text(f.detail)},
		{Key: HeaderStep, Value: text(f.step)},
		{Key: HeaderTopic, Value: []byte(from.topic)},
		{Key: HeaderPartition, Value: strconv.AppendInt(nil, int64(from.partition), 10)},
		{Key: HeaderOffset, Value: strconv.AppendInt(nil, from.offset, 10)},
		{Key: HeaderAttempt, Value: strconv.AppendInt(nil, int64(attempt), 10)},
	}
}

// attempts returns the number in a message's header elbo-attempt, 0 without one.
func attempts(col arrow.Array, i int) int {
	list := col.(*array.List)
	if list.IsNull(i) {
		return 0
	}
	lo, hi := list.ValueOffsets(i)
	items := list.ListValues().(*array.Struct)
	keys, values := items.Field(0).(*array.String), items.Field(1).(*array.Binary)
	for k := int(lo); k < int(hi); k++ {
		if keys.Value(k) == HeaderAttempt && values.IsValid(k) {
			n, _ := strconv.Atoi(string(values.Value(k)))
			return max(0, min(n, 1_000_000))
		}
	}
	return 0
}
