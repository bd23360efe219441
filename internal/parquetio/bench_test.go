package parquetio_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/parquetio"
)

// floats is a record of columns of float32 that never repeat.
func floats(columns, rows int) arrow.Record {
	rng := rand.New(rand.NewPCG(1, 1))
	var fields []arrow.Field
	for i := range columns {
		fields = append(fields, arrow.Field{Name: fmt.Sprint("c", i), Type: arrow.PrimitiveTypes.Float32})
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	for i := range columns {
		for range rows {
			b.Field(i).(*array.Float32Builder).Append(float32(rng.NormFloat64()))
		}
	}
	return b.NewRecord()
}

func BenchmarkRead(b *testing.B) {
	rec := floats(32, 1<<17)
	for _, o := range benchOptions {
		file := write(b, rec.Schema(), []arrow.Record{rec}, o)
		b.Run(fmt.Sprintf("codec=%s/encoding=%s", o.Compression, o.Encoding), func(b *testing.B) {
			b.SetBytes(32 << 19)
			b.ReportAllocs()
			for b.Loop() {
				f, err := parquetio.Open(bytes.NewReader(file), int64(len(file)), "")
				if err != nil {
					b.Fatal(err)
				}
				for g := range f.Groups() {
					for rec, err := range f.Read(b.Context(), g, parquetio.ReadOptions{}) {
						if err != nil {
							b.Fatal(err)
						}
						rec.Release()
					}
				}
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	rec := floats(32, 1<<17)
	for _, o := range benchOptions {
		b.Run(fmt.Sprintf("codec=%s/encoding=%s", o.Compression, o.Encoding), func(b *testing.B) {
			b.SetBytes(32 << 19)
			b.ReportAllocs()
			for b.Loop() {
				w, err := parquetio.NewWriter(io.Discard, rec.Schema(), o)
				if err == nil {
					err = w.Write(rec)
				}
				if err == nil {
					err = w.Close()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

var benchOptions = []parquetio.WriterOptions{
	{Compression: parquetio.Uncompressed, Encoding: parquetio.Plain},
	{Compression: parquetio.Zstd, Encoding: parquetio.Auto},
	{Compression: parquetio.Lz4Raw, Encoding: parquetio.Auto},
	{Compression: parquetio.Snappy, Encoding: parquetio.Plain},
}
