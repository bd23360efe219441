// Package optest has a small model and its rows for the tests of the operators.
//
//	m, err := optest.Model()
//	in := optest.Record(optest.Normal(300)...)
//
// The rows are made up and the same in every run; optest is imported by tests only.
package optest

import (
	"context"
	"math"
	"math/rand/v2"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// Schema has two numbers, a flag, a level, a vector, a time, and a column that
// is no part of the model.
func Schema() *arrow.Schema {
	f := func(name string, t arrow.DataType) arrow.Field {
		return arrow.Field{Name: name, Type: t, Nullable: true}
	}
	return arrow.NewSchema([]arrow.Field{f("x", arrow.PrimitiveTypes.Float64), f("y", arrow.PrimitiveTypes.Float32),
		f("ok", arrow.FixedWidthTypes.Boolean), f("level", arrow.BinaryTypes.String),
		f("v", arrow.ListOf(arrow.PrimitiveTypes.Float64)), f("at", arrow.FixedWidthTypes.Timestamp_us),
		f("id", arrow.PrimitiveTypes.Int64)}, nil)
}

// A Row is one row of Schema; a nil part is null.
type Row struct{ X, Y, OK, Level, V, At any }

// Record makes a record of rows, numbered in id. The caller releases it.
func Record(rows ...Row) arrow.Record {
	b := array.NewRecordBuilder(memory.NewGoAllocator(), Schema())
	defer b.Release()
	for i, r := range rows {
		for c, v := range []any{r.X, r.Y, r.OK, r.Level, r.V, r.At, int64(i)} {
			add(b.Field(c), v)
		}
	}
	return b.NewRecord()
}

func add(b array.Builder, v any) {
	if v == nil {
		b.AppendNull()
		return
	}
	switch b := b.(type) {
	case *array.Float64Builder:
		b.Append(v.(float64))
	case *array.Float32Builder:
		b.Append(float32(v.(float64)))
	case *array.BooleanBuilder:
		b.Append(v.(bool))
	case *array.StringBuilder:
		b.Append(v.(string))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(v.(int64)))
	case *array.Int64Builder:
		b.Append(v.(int64))
	case *array.ListBuilder:
		b.Append(true)
		b.ValueBuilder().(*array.Float64Builder).AppendValues(v.([]float64), nil)
	}
}

// Normal returns n normal rows; all parts follow from one hidden number.
func Normal(n int) []Row {
	rng := rand.New(rand.NewPCG(5, 6))
	rows := make([]Row, n)
	for i := range rows {
		u := rng.Float64()
		rows[i] = Row{X: 10 * u, Y: -u + 0.05*rng.NormFloat64(), OK: u > 0.5, Level: []string{"high", "low"}[int(2*u)],
			V: []float64{u, 1 - u}, At: 1_700_000_000_000_000 + int64(3600e6*u)}
		if i%10 == 3 {
			rows[i].Y = nil
		}
	}
	return rows
}

// Strange returns one row for every way to be unusual, in this order: far away,
// an unseen level, a NaN, an infinity, mostly missing, a vector of another
// length, all of it missing.
func Strange() []Row {
	n := Normal(6)
	n[0].X = 1e12
	n[1].Level = "never seen"
	n[2].X = math.NaN()
	n[3].X = math.Inf(-1)
	n[4] = Row{X: 1.0}
	n[5].V = []float64{1}
	return append(n, Row{})
}

// Inputs returns records for conformance tests: normal rows, then strange ones.
func Inputs() []arrow.Record {
	return []arrow.Record{Record(Normal(200)...), Record(append(Strange(), Normal(70)...)...)}
}

// Model trains a model of all columns but id on 300 normal rows.
func Model() (*vae.Model, error) {
	layer := []vae.Layer{{Width: 8, Activation: "tanh"}}
	return train.Run(context.Background(), train.Config{Name: "small", Seed: 1, Steps: 150, Rate: 0.01, Batch: 64, Ignore: []string{"id"},
		TargetRate: 0.01, Network: vae.Spec{Encoder: layer, Decoder: layer, Latent: 3}}, train.Records{Record(Normal(300)...)})
}
