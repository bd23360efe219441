package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// messages is a topic whose rows are messages.
type messages struct {
	*pipelinetest.TopicSource
	decoder pipeline.Decoder
}

func (m messages) Decoder() pipeline.Decoder { return m.decoder }

var _ pipeline.Messages = messages{}

// decoding returns a pipeline whose source has messages of these kinds.
func (b *bench) decoding(d pipeline.Decoder, ops ...pipeline.Operator) pipeline.Config {
	c := b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{}, ops...)
	c.Source = messages{c.Source.(*pipelinetest.TopicSource), d}
	return c
}

// deadPositions lists the positions of dead letters with their operators and reasons.
func deadPositions(recs []arrow.Record) []string {
	var all []string
	for _, rec := range recs {
		for i := range int(rec.NumRows()) {
			all = append(all, fmt.Sprint(rec.Column(4).(*array.Int64).Value(i), " ",
				rec.Column(5).(*array.String).Value(i), " ", rec.Column(6).(*array.String).Value(i)))
		}
	}
	return all
}

// TestDecode checks what becomes of messages of 0 to 3 rows, of which some cannot
// be read and some fail in an operator.
func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name  string
		kinds []string
		ops   []pipeline.Operator
		good  []string // position and number of each row written
		dead  []string
	}{
		{name: "no messages"},
		{name: "one row each", kinds: []string{"good", "good"}, good: []string{"0.0", "1.0"}},
		{name: "none, one and three", kinds: []string{"", "good,good,good", "", "good"}, good: []string{"1.0", "1.1", "1.2", "3.0"}},
		{name: "no row at all", kinds: []string{"", "", ""}},
		{name: "bad messages", kinds: []string{"garbled", "good", "garbled", "garbled", "good,good"},
			good: []string{"1.0", "4.0", "4.1"}, dead: []string{"0 decode decode", "2 decode decode", "3 decode decode"}},
		{name: "every message is bad", kinds: []string{"garbled", "garbled"}, ops: []pipeline.Operator{picky{}},
			dead: []string{"0 decode decode", "1 decode decode"}},
		{name: "one row of three fails", kinds: []string{"good", "good,bad,good", "good"}, ops: []pipeline.Operator{picky{}},
			good: []string{"0.0", "1.0", "1.2", "2.0"}, dead: []string{"1 op bad"}},
		{name: "two rows of one message fail", kinds: []string{"bad,good,panic", "good"}, ops: []pipeline.Operator{picky{}},
			good: []string{"0.1", "1.0"}, dead: []string{"0 op bad"}},
		{name: "fails, bad and empty", kinds: []string{"", "bad", "garbled", "good,panic", ""}, ops: []pipeline.Operator{picky{}},
			good: []string{"3.0"}, dead: []string{"1 op bad", "2 decode decode", "3 op panic"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.kinds)
			conf := b.withDead(b.decoding(splitter{b.mem}, c.ops...))
			stats, err := pipeline.Run(t.Context(), conf)
			if err != nil {
				t.Fatal(err)
			}
			var good []string
			for _, s := range spots(b.out.Records()) {
				good = append(good, fmt.Sprintf("%d.%d", s.position, s.part))
			}
			if !slices.Equal(good, c.good) {
				t.Errorf("rows %v were written, want %v", good, c.good)
			}
			if got := deadPositions(b.dead.Records()); !slices.Equal(got, c.dead) {
				t.Errorf("dead letters %q, want %q", got, c.dead)
			}
			if n := stats.DeadRows(); n != int64(len(c.dead)) {
				t.Errorf("%d dead letters were counted, want %d", n, len(c.dead))
			}
			if stats.RowsRead != int64(len(c.kinds)) {
				t.Errorf("%d messages were read, want %d", stats.RowsRead, len(c.kinds))
			}
		})
	}
}

// TestDeadLettersAreMessages checks that dead letters have the columns of the
// message, whatever it would have been decoded into.
func TestDeadLettersAreMessages(t *testing.T) {
	b := newBench(t, []string{"good,bad"})
	if _, err := pipeline.Run(t.Context(), b.withDead(b.decoding(splitter{b.mem}, picky{}))); err != nil {
		t.Fatal(err)
	}
	want, err := pipeline.DeadLetterSchema(rowSchema)
	if err != nil {
		t.Fatal(err)
	}
	rec := b.dead.Records()[0]
	if !rec.Schema().Equal(want) {
		t.Errorf("dead letters have the schema %v, want %v", rec.Schema(), want)
	}
	if kind := rec.Column(2).(*array.String).Value(0); kind != "good,bad" {
		t.Errorf("the dead letter holds %q, want the whole message", kind)
	}
}

// TestDecodeFail checks that a run without dead letters names the message at fault.
func TestDecodeFail(t *testing.T) {
	b := newBench(t, []string{"good", "good", "good,good", "garbled", "garbled"})
	_, err := pipeline.Run(t.Context(), b.decoding(splitter{b.mem}))
	want := `partition "a", rows 0 to 5: operator decode: the message at 3: the message is garbled`
	if err == nil || err.Error() != want {
		t.Errorf("Run() = %v, want %s", err, want)
	}
	var garbled errGarbled
	if !errors.As(err, &garbled) {
		t.Errorf("the decoder's error is not in the chain of %v", err)
	}
	if b.topic.Commits() != 0 || b.out.Rows() != 0 {
		t.Errorf("%d commits and %d rows, want none", b.topic.Commits(), b.out.Rows())
	}
}

// TestDecodeFailNamesPosition checks it for a partition with gaps.
func TestDecodeFailNamesPosition(t *testing.T) {
	b := newBench(t, nil)
	part := rows(b.mem, "gaps", []string{"good", "garbled"}, []int64{10, 70})
	defer part.Rows.Release()
	c := b.decoding(splitter{b.mem})
	c.Source = messages{pipelinetest.NewTopic(rowSchema, part).Open(pipelinetest.SourceOptions{}), splitter{b.mem}}
	if _, err := pipeline.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "the message at 70: ") {
		t.Errorf("Run() = %v, want an error that names the message at 70", err)
	}
}

// A decode is a Decoder made of a function.
type decode struct {
	splitter
	f func(context.Context, arrow.Record) (pipeline.Decoded, error)
}

func (d decode) Decode(ctx context.Context, rec arrow.Record) (pipeline.Decoded, error) {
	return d.f(ctx, rec)
}

// TestWrongDecoder breaks the contract of Decoder in one way after the other. The
// run ends, also with dead letters, and nothing leaks.
func TestWrongDecoder(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name, want string
		spoil      func(d *pipeline.Decoded) error
	}{
		{"no record", "gave neither a record nor an error", func(d *pipeline.Decoded) error {
			d.Record.Release()
			d.Record = nil
			return nil
		}},
		{"error", "operator decode: boom", func(*pipeline.Decoded) error { return boom }},
		{"panic", "operator decode: panic: eek", func(d *pipeline.Decoded) error {
			d.Record.Release()
			panic("eek")
		}},
		{"another schema", "the schema is not the one it was bound to", func(d *pipeline.Decoded) error {
			defer d.Record.Release()
			d.Record = array.NewRecord(rowSchema, d.Record.Columns()[:3], d.Record.NumRows())
			return nil
		}},
		{"no origin", "made 3 rows of 4 messages, and does not say of which", func(d *pipeline.Decoded) error {
			d.Origin = nil
			return nil
		}},
		{"origin too short", "named the messages of 2 rows and made 3", func(d *pipeline.Decoded) error {
			d.Origin = d.Origin[:2]
			return nil
		}},
		{"origin falls", "named message 0 behind message 1, of 4", func(d *pipeline.Decoded) error {
			d.Origin = []int{1, 0, 1}
			return nil
		}},
		{"origin below none", "named message -1 behind message 0, of 4", func(d *pipeline.Decoded) error {
			d.Origin[0] = -1
			return nil
		}},
		{"origin beyond all", "named message 4 behind message 1, of 4", func(d *pipeline.Decoded) error {
			d.Origin[2] = 4
			return nil
		}},
		{"bad message twice", "named bad message 2 behind message 2, of 4", func(d *pipeline.Decoded) error {
			d.Bad = append(d.Bad, d.Bad[0])
			return nil
		}},
		{"bad message below none", "named bad message -1 behind message -1, of 4", func(d *pipeline.Decoded) error {
			d.Bad[0].Message = -1
			return nil
		}},
		{"bad message beyond all", "named bad message 4 behind message -1, of 4", func(d *pipeline.Decoded) error {
			d.Bad[0].Message = 4
			return nil
		}},
		{"bad message without a reason", "named bad message 2 without an error", func(d *pipeline.Decoded) error {
			d.Bad[0].Err = nil
			return nil
		}},
		{"bad message with rows", "made rows of message 1, which it calls bad", func(d *pipeline.Decoded) error {
			d.Bad[0].Message = 1
			return nil
		}},
	} {
		for _, onError := range []pipeline.OnError{pipeline.Fail, pipeline.DeadLetter} {
			t.Run(fmt.Sprint(c.name, " ", onError), func(t *testing.T) {
				b := newBench(t, []string{"good", "good,good", "garbled", ""})
				conf := b.decoding(decode{splitter{b.mem}, func(ctx context.Context, rec arrow.Record) (pipeline.Decoded, error) {
					d, err := splitter{b.mem}.Decode(ctx, rec)
					if err == nil {
						err = c.spoil(&d)
					}
					return d, err
				}}, picky{})
				if onError == pipeline.DeadLetter {
					conf = b.withDead(conf)
				}
				_, err := pipeline.Run(t.Context(), conf)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Run() = %v, want an error with %q", err, c.want)
				}
				if b.topic.Commits() != 0 || b.out.Rows() != 0 || b.dead.Rows() != 0 {
					t.Error("rows were written or marks committed")
				}
			})
		}
	}
}

// TestDecodedRowForRow checks that a Decoder may leave Origin out, and then has no
// bad messages.
func TestDecodedRowForRow(t *testing.T) {
	for _, bad := range []bool{false, true} {
		b := newBench(t, []string{"good", "good"})
		_, err := pipeline.Run(t.Context(), b.withDead(b.decoding(decode{splitter{b.mem}, func(ctx context.Context, rec arrow.Record) (pipeline.Decoded, error) {
			d, err := splitter{b.mem}.Decode(ctx, rec)
			d.Origin = nil
			if bad {
				d.Bad = []pipeline.BadMessage{{Message: 1, Err: errGarbled{}}}
			}
			return d, err
		}})))
		if bad {
			if err == nil || !strings.Contains(err.Error(), "made rows of message 1, which it calls bad") {
				t.Errorf("Run() = %v, want an error about message 1", err)
			}
		} else if err != nil || b.out.Rows() != 2 {
			t.Errorf("Run() = %v and %d rows, want 2", err, b.out.Rows())
		}
	}
}

// TestDecodeLimits checks that bad messages count for the limits of dead letters.
func TestDecodeLimits(t *testing.T) {
	for _, c := range []struct {
		name  string
		kinds []string
		limit pipeline.DeadLetterLimit
		want  string // "" for no error
	}{
		{"within a row", []string{"garbled", "bad", "good", "garbled"}, pipeline.DeadLetterLimit{InRow: 2, Share: -1}, ""},
		{"too many in a row", []string{"good", "garbled", "bad", "garbled"}, pipeline.DeadLetterLimit{InRow: 2, Share: -1},
			`more than 2 rows of partition "a" failed one after the other, the last: operator decode: the message is garbled`},
		{"across batches", append(repeat(6, nil), slices.Repeat([]string{"garbled"}, 5)...), pipeline.DeadLetterLimit{InRow: 4, Share: -1},
			"more than 4 rows of partition"},
		{"a message of many rows is one", []string{"bad,bad,bad,bad,bad"}, pipeline.DeadLetterLimit{InRow: 1, Share: -1}, ""},
		{"an empty message parts them", []string{"garbled", "", "garbled"}, pipeline.DeadLetterLimit{InRow: 1, Share: -1}, ""},
		{"share", slices.Repeat([]string{"garbled", "good", "", "good,good"}, 2500), pipeline.DeadLetterLimit{InRow: -1, Share: 0.2},
			"25.0% of the last 10000 rows failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.kinds)
			conf := b.withDead(b.decoding(splitter{b.mem}, picky{}))
			conf.DeadLetterLimit = c.limit
			_, err := pipeline.Run(t.Context(), conf)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Run() = %v, want an error with %q", err, c.want)
			}
		})
	}
}

// wrongBind is a Decoder whose Bind gives what it is told to.
type wrongBind struct {
	splitter
	out *arrow.Schema
	err error
}

func (w wrongBind) Bind(*arrow.Schema) (*arrow.Schema, error) { return w.out, w.err }

func TestBindDecoder(t *testing.T) {
	b := newBench(t, repeat(1, nil))
	plan, err := pipeline.Bind(t.Context(), b.decoding(splitter{b.mem}))
	if err != nil {
		t.Fatal(err)
	}
	if !plan.Source.Equal(rowSchema) || !plan.Rows.Equal(splitSchema) || plan.Out() != plan.Rows || len(plan.Steps) != 0 {
		t.Errorf("the plan is %+v", plan)
	}
	plan, err = pipeline.Bind(t.Context(), b.decoding(splitter{b.mem}, picky{}, noKind{}))
	if err != nil || len(plan.Steps) != 2 || !plan.Rows.Equal(splitSchema) || plan.Out().HasField("kind") {
		t.Errorf("with operators the plan is %+v, %v", plan, err)
	}
	plan, err = pipeline.Bind(t.Context(), b.config(pipelinetest.SourceOptions{}, pipelinetest.SinkOptions{}))
	if err != nil || plan.Rows != plan.Source {
		t.Errorf("without messages the plan is %+v, %v", plan, err)
	}
	for want, d := range map[string]pipeline.Decoder{
		"bind operator decode: boom": wrongBind{err: errors.New("boom")},
		"bind operator decode: no schema; Bind must return one without an error": wrongBind{},
	} {
		_, err := pipeline.Bind(t.Context(), b.decoding(d))
		var fault *pipeline.BindError
		if err == nil || err.Error() != want || !errors.As(err, &fault) {
			t.Errorf("Bind() = %v, want a BindError: %s", err, want)
		}
	}
}

func TestDecodeHooks(t *testing.T) {
	b := newBench(t, []string{"good,good", "garbled", "bad,bad", "garbled"})
	var mu sync.Mutex
	got := make(map[string]int64)
	add := func(key string, n int64) {
		mu.Lock()
		defer mu.Unlock()
		got[key] += n
	}
	c := b.withDead(b.decoding(splitter{b.mem}, picky{}))
	c.Hooks = pipeline.Hooks{
		Read: func(_ string, rows, _ int64) { add("read", rows) },
		Applied: func(op string, rows int64, _ time.Duration, err error) {
			if op == "decode" {
				add(fmt.Sprint(op, " ", err == nil), rows)
			}
		},
		Written:      func(sink string, rows int64, _ time.Duration) { add("written "+sink, rows) },
		DeadLettered: func(op, reason string, rows int64) { add("dead "+op+" "+reason, rows) },
	}
	if _, err := pipeline.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{"read": 4, "decode true": 4, "written out": 2, "written dead letters": 3, "dead decode decode": 2, "dead op bad": 1}
	if !maps.Equal(got, want) {
		t.Errorf("hooks told\n%v, want\n%v", got, want)
	}
}
