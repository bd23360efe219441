package kafka_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	wire "github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
	"github.com/elbo-stream/elbo/sinks/kafka"
)

// TestMurmur2 compares with franz-go, whose partitioner is Java's.
func TestMurmur2(t *testing.T) {
	p := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key")
		n := rapid.IntRange(1, 1000).Draw(t, "partitions")
		if got, want := int(kafka.Murmur2(key)&0x7fffffff)%n, p.Partition(&kgo.Record{Key: key}, n); got != want {
			t.Fatalf("key %x of %d: partition %d, want %d", key, n, got, want)
		}
	})
}

// TestPlaces: what stands beside an offset is read as it was written, or not at all.
func TestPlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[wire.TopicPartition]int64{}
		for range rapid.IntRange(0, 50).Draw(t, "n") {
			tp := wire.TopicPartition{Topic: rapid.StringMatching(`[a-z0-9._-]{1,20}`).Draw(t, "topic"), Partition: rapid.Int32Range(0, 99).Draw(t, "partition")}
			want[tp] = rapid.Int64Range(0, 1<<62).Draw(t, "offset")
		}
		text := kafka.PlacesText(want)
		if len(text) > 4096 {
			t.Fatalf("%d bytes of metadata; Kafka takes 4096", len(text))
		}
		if got := kafka.ParsePlaces(text); text != "" && !maps.Equal(got, want) {
			t.Fatalf("%q is read as %v, want %v", text, got, want)
		}
	})
}

func FuzzParsePlaces(f *testing.F) {
	for _, s := range []string{"", "elbo1", "elbo1 t 0=5 1=7", "elbo1 0=5", "elbo1 t 0=-1", "other", "elbo1 t x=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for tp, at := range kafka.ParsePlaces(s) {
			if tp.Partition < 0 || at < 0 || tp.Topic == "" {
				t.Errorf("%q: %v at %d", s, tp, at)
			}
		}
	})
}

// TestDone: batches are done in any order, and Durable is the end of the whole front.
func TestDone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "n")
		numbers := make([]uint64, n)
		for i := range numbers {
			numbers[i] = uint64(i + 1)
		}
		raised := 0
		d := kafka.NewDone(func() { raised++ })
		added := map[uint64]bool{}
		for _, x := range rapid.Permutation(numbers).Draw(t, "order") {
			before, calls := d.Get(), raised
			d.Add(x)
			added[x] = true
			want := uint64(0)
			for added[want+1] {
				want++
			}
			if got := d.Get(); got != want || got < before || (raised > calls) != (got > before) {
				t.Fatalf("Get = %d behind %d, want %d; raised %d times", got, before, want, raised-calls)
			}
		}
	})
}

func config() kafka.Config {
	return kafka.Config{Cluster: wire.Config{Brokers: []string{"b:1"}}, Topic: "out",
		Encoder: func() (codec.Encoder, error) { return json.NewEncoder(json.EncoderConfig{}), nil }}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*kafka.Config)
		want string
	}{
		{"no topic", func(c *kafka.Config) { c.Topic = "" }, "topic: must be set"},
		{"no brokers", func(c *kafka.Config) { c.Cluster.Brokers = nil }, "brokers: name at least one"},
		{"delivery", func(c *kafka.Config) { c.Delivery = "twice" }, "delivery: twice is none of"},
		{"partition", func(c *kafka.Config) { c.Partition = "x" }, "partition: x is neither"},
		{"headers", func(c *kafka.Config) { c.Delivery, c.NoHeaders = kafka.EffectivelyOnce, true }, "keep them"},
		{"negative", func(c *kafka.Config) { c.CommitRows = -1 }, "commit rows: is negative"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config()
			c.edit(&cfg)
			if _, err := kafka.New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("New = %v, want %q", err, c.want)
			}
		})
	}
}

func TestBindTellsEveryFault(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.PrimitiveTypes.Float64}, {Name: "elbo_anomaly", Type: arrow.FixedWidthTypes.Boolean}}, nil)
	cfg := config()
	cfg.Where, cfg.Key, cfg.Columns = "elbo_anomly", "a", []string{"b"}
	s, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Bind(schema)
	for _, want := range []string{`where: there is no column "elbo_anomly" (did you mean "elbo_anomaly"?)`, `key: column "a" is float64`, `columns: there is no column "b"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Bind = %v, want %q", err, want)
		}
	}
}

func TestJoin(t *testing.T) {
	exact := func(broker string) *kafka.Sink {
		c := config()
		c.Delivery, c.Cluster.Brokers = kafka.ExactlyOnce, []string{broker}
		s, err := kafka.New(c)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a := exact("b:1")
	if ok, err := a.Join(exact("b:1")); !ok || err != nil {
		t.Errorf("Join of one cluster = %v, %v", ok, err)
	}
	if ok, err := a.Join(exact("c:1")); ok || err == nil || !strings.Contains(err.Error(), "different clusters") {
		t.Errorf("Join of two clusters = %v, %v", ok, err)
	}
	plain, err := kafka.New(config())
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := a.Join(plain); ok || err != nil {
		t.Errorf("Join of another delivery = %v, %v", ok, err)
	}
}

func ExampleNew() {
	s, err := kafka.New(kafka.Config{Cluster: wire.Config{Brokers: []string{"localhost:9092"}}, Topic: "payments.scores",
		Encoder:  func() (codec.Encoder, error) { return json.NewEncoder(json.EncoderConfig{}), nil },
		Delivery: kafka.ExactlyOnce, Where: "elbo_anomaly"})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	// Output:
}
