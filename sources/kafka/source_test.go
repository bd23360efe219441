package kafka_test

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	wire "github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
	"github.com/elbo-stream/elbo/sources/kafka"
)

func format(t testing.TB) codec.Format {
	t.Helper()
	f, err := json.New(json.Config{Columns: []codec.Column{{Name: "x", Type: arrow.PrimitiveTypes.Float64}}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*kafka.Config)
		want string
	}{
		{"no topics", func(c *kafka.Config) { c.Topics = nil }, "topics: name at least one"},
		{"both", func(c *kafka.Config) { c.Pattern = regexp.MustCompile("a") }, "choose one"},
		{"no brokers", func(c *kafka.Config) { c.Cluster.Brokers = nil }, "brokers: name at least one"},
		{"no format", func(c *kafka.Config) { c.Format = nil }, "value: must be set"},
		{"on_gap", func(c *kafka.Config) { c.OnGap = "skip" }, "on_gap: skip is none of"},
		{"meta", func(c *kafka.Config) { c.Meta = []string{"kafka_lag"} }, `meta: unknown column "kafka_lag"`},
		{"instance", func(c *kafka.Config) { c.Group, c.Instance = "", "a" }, "instance: needs a group"},
		{"negative", func(c *kafka.Config) { c.Session = -1 }, "session: is negative"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := kafka.Config{Cluster: wire.Config{Brokers: []string{"b:1"}}, Topics: []string{"t"}, Group: "g", Format: format(t)}
			c.edit(&cfg)
			if _, err := kafka.New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("New = %v, want %q", err, c.want)
			}
		})
	}
}

// TestBuilder: every message is in the batch as it was, its place too, and nothing
// leaks.
func TestBuilder(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer mem.AssertSize(t, 0)
	rapid.Check(t, func(t *rapid.T) {
		b := kafka.NewBuilder(mem, 100)
		defer b.Release()
		bytesOrNil := rapid.Custom(func(t *rapid.T) []byte {
			if rapid.Bool().Draw(t, "null") {
				return nil
			}
			return rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "bytes")
		})
		for range 2 { // the second batch is in the same memory
			var want []wire.Record
			at := rapid.Int64Range(0, 1000).Draw(t, "first")
			first := at
			for range rapid.IntRange(0, 20).Draw(t, "n") {
				at += rapid.Int64Range(0, 2).Draw(t, "gap")
				r := wire.Record{Offset: at, Timestamp: rapid.Int64Range(-1, 5).Draw(t, "time"), Key: bytesOrNil.Draw(t, "key"), Value: bytesOrNil.Draw(t, "value")}
				want = append(want, r)
				b.Append(&r)
				at++
			}
			next := at + rapid.Int64Range(0, 3).Draw(t, "tail")
			got := b.Finish(wire.TopicPartition{Topic: "t", Partition: 3}, 9, first, next)
			checkBatch(t, got.Record, want)
			if got.Mark.Partition != "t/3" || got.Mark.Epoch != 9 || got.Mark.Next != next || got.First != first {
				t.Fatalf("place %v from %d", got.Mark, got.First)
			}
			if int64(len(want)) != next-first && len(got.Positions) != len(want) {
				t.Fatalf("%d positions of %d rows in [%d, %d)", len(got.Positions), len(want), first, next)
			}
			got.Release()
		}
	})
}

func checkBatch(t *rapid.T, rec arrow.Record, want []wire.Record) {
	if int(rec.NumRows()) != len(want) {
		t.Fatalf("%d rows, want %d", rec.NumRows(), len(want))
	}
	col := func(name string) arrow.Array { return rec.Column(rec.Schema().FieldIndices(name)[0]) }
	offsets, times := col(kafka.ColumnOffset).(*array.Int64), col(kafka.ColumnTimestamp).(*array.Timestamp)
	topic := col(kafka.ColumnTopic).(*array.Dictionary)
	for i, w := range want {
		for _, c := range []struct {
			name string
			want []byte
		}{{kafka.ColumnKey, w.Key}, {kafka.ColumnValue, w.Value}} {
			a := col(c.name).(*array.Binary)
			if a.IsNull(i) != (c.want == nil) || a.IsValid(i) && !bytes.Equal(a.Value(i), c.want) {
				t.Fatalf("row %d: %s is %x, want %x", i, c.name, a.Value(i), c.want)
			}
		}
		if offsets.Value(i) != w.Offset || times.IsNull(i) != (w.Timestamp < 0) || times.IsValid(i) && int64(times.Value(i)) != w.Timestamp {
			t.Fatalf("row %d: offset %d, time %v; want %d, %d", i, offsets.Value(i), times.Value(i), w.Offset, w.Timestamp)
		}
		if topic.Dictionary().(*array.String).Value(topic.GetValueIndex(i)) != "t" || col(kafka.ColumnPartition).(*array.Int32).Value(i) != 3 {
			t.Fatalf("row %d: not of t/3", i)
		}
	}
}

// TestGather compares with picking value by value.
func TestGather(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer mem.AssertSize(t, 0)
	b := kafka.NewBuilder(mem, 100)
	for i := range int64(40) {
		r := wire.Record{Offset: i * 2, Timestamp: i%3 - 1, Key: []byte{byte(i)}, Value: []byte("v")}
		if i%5 == 0 {
			r.Key = nil
		}
		b.Append(&r)
	}
	batch := b.Finish(wire.TopicPartition{Topic: "t"}, 1, 0, 80)
	defer batch.Release()
	defer b.Release()
	rapid.Check(t, func(t *rapid.T) {
		var origin []int32
		for at := int32(0); ; {
			at += rapid.Int32Range(0, 4).Draw(t, "step")
			if at >= 40 {
				break
			}
			origin = append(origin, at)
		}
		for i, col := range batch.Record.Columns() {
			got, err := kafka.Gather(mem, col, origin)
			if err != nil {
				t.Fatal(err)
			}
			if got.Len() != len(origin) {
				t.Fatalf("%s: %d rows, want %d", batch.Record.ColumnName(i), got.Len(), len(origin))
			}
			for k, o := range origin {
				if got.IsNull(k) != col.IsNull(int(o)) || got.ValueStr(k) != col.ValueStr(int(o)) {
					t.Fatalf("%s row %d: %s, want %s", batch.Record.ColumnName(i), k, got.ValueStr(k), col.ValueStr(int(o)))
				}
			}
			got.Release()
		}
	})
}
