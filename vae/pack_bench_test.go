package vae_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
)

// benchTable is a record of equal columns with rows of plain values, none
// missing but for the share of nulls.
func benchTable(c packCase, columns, rows, width int, nulls float64) (*vae.Spec, arrow.Record) {
	rng := rand.New(rand.NewPCG(1, 2))
	spec := &vae.Spec{MaxMissing: 0.9}
	var fields []arrow.Field
	var arrays []arrow.Array
	for i := range columns {
		col := vae.Column{Name: fmt.Sprint("c", i), Kind: c.kind, Head: c.head, Transform: c.t}
		switch c.kind {
		case vae.Vector:
			col.Width = width
		case vae.Timestamp:
			col.Parts = []string{"hour", "weekday", "monthday", "yearday"}
		case vae.Categorical:
			col.Levels = []string{"de", "fr", "uk", "us"}
		}
		for range col.Features() {
			if c.t == vae.Raw {
				col.Mean, col.Scale = append(col.Mean, 0), append(col.Scale, 1)
			} else if c.kind != vae.Categorical && c.kind != vae.Boolean {
				col.Mean, col.Scale = append(col.Mean, 0.4), append(col.Scale, 0.3)
			}
		}
		spec.Columns = append(spec.Columns, col)
		b := array.NewBuilder(memory.DefaultAllocator, c.typ)
		for range rows {
			benchValue(b, rng, width, nulls)
		}
		fields = append(fields, arrow.Field{Name: col.Name, Type: c.typ, Nullable: true})
		arrays = append(arrays, b.NewArray())
	}
	return spec, array.NewRecord(arrow.NewSchema(fields, nil), arrays, int64(rows))
}

func benchValue(b array.Builder, rng *rand.Rand, width int, nulls float64) {
	if rng.Float64() < nulls {
		b.AppendNull()
		return
	}
	levels := []string{"de", "fr", "uk", "us"}
	switch b := b.(type) {
	case *array.Float32Builder:
		b.Append(rng.Float32())
	case *array.Float64Builder:
		b.Append(rng.Float64())
	case *array.Int64Builder:
		b.Append(rng.Int64N(100))
	case *array.Int32Builder:
		b.Append(rng.Int32N(100))
	case *array.Uint8Builder:
		b.Append(uint8(rng.IntN(100)))
	case *array.BooleanBuilder:
		b.Append(rng.IntN(2) == 0)
	case *array.StringBuilder:
		b.Append(levels[rng.IntN(4)])
	case *array.BinaryDictionaryBuilder:
		if err := b.AppendString(levels[rng.IntN(4)]); err != nil {
			panic(err)
		}
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(1_700_000_000_000_000 + rng.Int64N(1e13)))
	case array.ListLikeBuilder:
		b.Append(true)
		for range width {
			benchValue(b.ValueBuilder(), rng, 0, 0)
		}
	}
}

// benchCases names what is measured.
func benchCases() map[string]packCase {
	p, w := arrow.PrimitiveTypes, arrow.FixedWidthTypes
	return map[string]packCase{
		"float32":      {vae.Numeric, p.Float32, vae.Gaussian, vae.Standardise},
		"unit":         {vae.Numeric, p.Float32, vae.Bernoulli, vae.Raw},
		"float64":      {vae.Numeric, p.Float64, vae.Gaussian, vae.Standardise},
		"log1p":        {vae.Numeric, p.Float64, vae.Gaussian, vae.Log1p},
		"int64":        {vae.Numeric, p.Int64, vae.Gaussian, vae.Standardise},
		"int32":        {vae.Numeric, p.Int32, vae.Gaussian, vae.Standardise},
		"uint8":        {vae.Numeric, p.Uint8, vae.Gaussian, vae.Standardise},
		"boolean":      {vae.Boolean, w.Boolean, vae.Bernoulli, ""},
		"string":       {vae.Categorical, arrow.BinaryTypes.String, vae.CategoricalHead, ""},
		"dictionary":   {vae.Categorical, &arrow.DictionaryType{IndexType: p.Int32, ValueType: arrow.BinaryTypes.String}, vae.CategoricalHead, ""},
		"timestamp":    {vae.Timestamp, w.Timestamp_us, vae.Gaussian, ""},
		"list_float32": {vae.Vector, arrow.ListOf(p.Float32), vae.Gaussian, vae.Standardise},
		"fsl_float64":  {vae.Vector, arrow.FixedSizeListOf(64, p.Float64), vae.Gaussian, vae.Standardise},
	}
}

// BenchmarkPack packs records in tiles of 64 rows, or one row at a time. ns/cell
// counts a cell for each feature, in the fastest
// pass over the record.
func BenchmarkPack(b *testing.B) {
	for name, c := range benchCases() {
		for _, nulls := range []float64{0, 0.05} {
			for _, n := range []int{64, 1} {
				columns, width := 64, 1
				if c.kind == vae.Vector {
					columns, width = 2, 64
				}
				if name == "float32" || name == "unit" {
					columns = 784
				}
				b.Run(fmt.Sprintf("type=%s/nulls=%v/rows=%d", name, nulls, n), func(b *testing.B) {
					benchPack(b, c, columns, width, n, nulls)
				})
			}
		}
	}
}

func benchPack(b *testing.B, c packCase, columns, width, n int, nulls float64) {
	rows := 1000
	if n == 1 {
		rows = 8 // few rows come in small records
	}
	spec, rec := benchTable(c, columns, rows, width, nulls)
	p, err := spec.NewPacker(rec.Schema())
	if err != nil {
		b.Fatal(err)
	}
	k, err := p.Bind(rec)
	if err != nil {
		b.Fatal(err)
	}
	features, inputs := spec.Inputs()
	x, missing, flags := make([]float32, inputs*vae.TileRows), make([]uint64, features), make([]vae.RowFlags, n)
	fs, rs := vae.TileRows, 1
	if n == 1 {
		fs, rs = 1, inputs
	}
	b.ReportAllocs()
	fastest := time.Hour // pass over the record: on a busy machine the mean says little
	for b.Loop() {
		start := time.Now()
		for from := 0; from < rows; from += n {
			k.Pack(from, min(n, rows-from), x, fs, rs, missing, flags)
		}
		fastest = min(fastest, time.Since(start))
	}
	b.ReportMetric(float64(fastest)/float64(rows*features), "ns/cell")
}

// BenchmarkBindTo binds a record of 784 float32 columns.
func BenchmarkBindTo(b *testing.B) {
	spec, rec := benchTable(benchCases()["float32"], 784, 64, 1, 0)
	p, err := spec.NewPacker(rec.Schema())
	if err != nil {
		b.Fatal(err)
	}
	var k vae.Packed
	b.ReportAllocs()
	fastest := time.Hour
	for b.Loop() {
		start := time.Now()
		if err := p.BindTo(&k, rec); err != nil {
			b.Fatal(err)
		}
		fastest = min(fastest, time.Since(start))
	}
	b.ReportMetric(float64(fastest)/784, "ns/column")
}
