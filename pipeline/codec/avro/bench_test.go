package avro_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	twmb "github.com/twmb/avro"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/avro"
)

const benchRows = 4096

// benchSchema has an id, a time and 32 features of a type.
func benchSchema(feature string) string {
	s := `{"type":"record","name":"Row","fields":[{"name":"id","type":"string"},{"name":"ts","type":"long"}`
	for i := range 32 {
		s += fmt.Sprintf(`,{"name":"f%d","type":%s}`, i, feature)
	}
	return s + "]}"
}

func benchColumns() []codec.Column {
	cols := []codec.Column{{Name: "id", Type: arrow.BinaryTypes.String}, {Name: "ts", Type: arrow.PrimitiveTypes.Int64}}
	for f := range 32 {
		cols = append(cols, codec.Column{Name: fmt.Sprint("f", f), Type: arrow.PrimitiveTypes.Float32})
	}
	return cols
}

// benchValues are messages without a header.
func benchValues(b testing.TB, schema string) *array.Binary {
	s := twmb.MustParse(schema)
	r, nullable := rand.New(rand.NewPCG(1, 2)), strings.Contains(schema, "null")
	var values [][]byte
	for i := range benchRows {
		row := map[string]any{"id": fmt.Sprintf("sensor-%d", i), "ts": int64(1700000000000 + i)}
		for f := range 32 {
			row[fmt.Sprint("f", f)] = float32(r.NormFloat64())
			if nullable && (i+f)%7 == 0 {
				row[fmt.Sprint("f", f)] = nil
			}
		}
		v, err := s.Encode(row)
		if err != nil {
			b.Fatal(err)
		}
		values = append(values, v)
	}
	return binaryOf(values...)
}

// rate reports rows for each second of CPU, garbage collection included.
func rate(b *testing.B, rows int, f func()) {
	b.Helper()
	b.ReportAllocs()
	begin, n := cpuSeconds(), 0
	for b.Loop() {
		f()
		n += rows
	}
	b.ReportMetric(float64(n)/(cpuSeconds()-begin), "rows/cpu-s")
}

func cpuSeconds() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

func BenchmarkDecode(b *testing.B) {
	for _, feature := range []string{`"float"`, `"double"`, `["null","float"]`} {
		b.Run("feature="+feature, func(b *testing.B) {
			values := benchValues(b, benchSchema(feature))
			f, err := avro.New(context.Background(), avro.Config{Columns: benchColumns(), Framing: avro.Bare, Schema: benchSchema(feature)})
			if err != nil {
				b.Fatal(err)
			}
			d := f.NewDecoder(memory.DefaultAllocator)
			defer d.Release()
			b.SetBytes(int64(len(values.ValueBytes())))
			rate(b, benchRows, func() {
				got, err := d.Decode(context.Background(), values)
				if err != nil || got.Record.NumRows() != benchRows {
					b.Fatal(err, got.Faults)
				}
				got.Record.Release()
			})
		})
	}
}
