package kafka

import (
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/kafka"
	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
)

// TestFramerAllocatesNothing: a record costs the same few allocations with one row as
// with thousands.
func TestFramerAllocatesNothing(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "elbo_score", Type: arrow.PrimitiveTypes.Float32}, {Name: "id", Type: arrow.BinaryTypes.String}}, nil)
	record := func(rows int) arrow.Record {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		defer b.Release()
		for i := range rows {
			b.Field(0).(*array.Float32Builder).Append(float32(i) / 7)
			b.Field(1).(*array.StringBuilder).Append("row")
		}
		return b.NewRecord()
	}
	o, err := bind(Config{Topic: "out", Key: "id", Columns: []string{"elbo_score", "id"},
		Encoder: func() (codec.Encoder, error) { return json.NewEncoder(json.EncoderConfig{}), nil }}, schema)
	if err != nil {
		t.Fatal(err)
	}
	f, err := newFramer(o, kafka.TopicPartition{Topic: "in", Partition: 3}, 7)
	if err != nil {
		t.Fatal(err)
	}
	cost := func(rec arrow.Record) float64 {
		defer rec.Release()
		return testing.AllocsPerRun(5, func() {
			n := 0
			if err := f.each(rec, 1000, func(*message) error { n++; return nil }); err != nil || n != int(rec.NumRows()) {
				t.Fatalf("%d messages of %d rows, error %v", n, rec.NumRows(), err)
			}
		})
	}
	if one, many := cost(record(1)), cost(record(4000)); many > one {
		t.Errorf("%v allocations for 4,000 rows, %v for one", many, one)
	}
}
