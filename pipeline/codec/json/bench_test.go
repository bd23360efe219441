package json_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	stdjson "encoding/json"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
)

const benchRows = 4096

// benchDocs are documents of about 522 bytes: id, ts and 32 features.
func benchDocs() *array.Binary {
	r := rand.New(rand.NewPCG(1, 2))
	var docs [][]byte
	for i := range benchRows {
		b := fmt.Appendf(nil, `{"id":"sensor-%d","ts":%d`, i, 1700000000000+i)
		for f := range 32 {
			v := math.Round(r.NormFloat64()*1e6) / 1e6
			b = fmt.Appendf(b, `,"f%d":%s`, f, strconv.FormatFloat(v, 'f', -1, 64))
		}
		docs = append(docs, append(b, '}'))
	}
	return binaryOf(docs...)
}

func benchColumns() []codec.Column {
	cols := []codec.Column{{Name: "id", Type: arrow.BinaryTypes.String}, {Name: "ts", Type: arrow.PrimitiveTypes.Int64}}
	for f := range 32 {
		cols = append(cols, codec.Column{Name: fmt.Sprint("f", f), Type: arrow.PrimitiveTypes.Float32})
	}
	return cols
}

// rate reports rows a second of one goroutine; -cpu 1 counts the garbage collector in.
func rate(b *testing.B, rows int, f func()) {
	b.Helper()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		f()
		n += rows
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkDecode(b *testing.B) {
	docs := benchDocs()
	f, err := json.New(json.Config{Columns: benchColumns()})
	if err != nil {
		b.Fatal(err)
	}
	d := f.NewDecoder(memory.DefaultAllocator)
	defer d.Release()
	b.SetBytes(int64(len(docs.ValueBytes())))
	rate(b, benchRows, func() {
		got, err := d.Decode(context.Background(), docs)
		if err != nil || got.Record.NumRows() != benchRows {
			b.Fatal(err, got.Faults)
		}
		got.Record.Release()
	})
}

// BenchmarkStandard is encoding/json into a map, for comparison.
func BenchmarkStandard(b *testing.B) {
	docs := benchDocs()
	rate(b, benchRows, func() {
		for i := range docs.Len() {
			var v map[string]any
			if err := stdjson.Unmarshal(docs.Value(i), &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}
