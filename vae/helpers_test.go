package vae_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
)

// number columns, a flag, a level, a time and two vectors: every kind and head.
func mixedSchema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "amount", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "count", Type: arrow.PrimitiveTypes.Int32, Nullable: true},
		{Name: "share", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
		{Name: "fixed", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "flag", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
		{Name: "country", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "at", Type: arrow.FixedWidthTypes.Timestamp_us, Nullable: true},
		{Name: "vec", Type: arrow.ListOf(arrow.PrimitiveTypes.Float32), Nullable: true},
		{Name: "pair", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float64), Nullable: true},
	}, nil)
}

// mixedRecord makes rows of mixedSchema, about one cell in ten missing.
func mixedRecord(rows int, seed uint64) arrow.Record {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := array.NewRecordBuilder(memory.DefaultAllocator, mixedSchema())
	defer b.Release()
	for range rows {
		for i := range mixedSchema().Fields() {
			if rng.IntN(10) == 0 {
				b.Field(i).AppendNull()
				continue
			}
			appendMixed(b.Field(i), i, rng)
		}
	}
	return b.NewRecord()
}

func appendMixed(b array.Builder, i int, rng *rand.Rand) {
	switch b := b.(type) {
	case *array.Float64Builder:
		v := 100 + 20*rng.NormFloat64()
		if rng.IntN(50) == 0 {
			v = math.NaN()
		}
		b.Append(v)
	case *array.Int32Builder:
		b.Append(int32(rng.IntN(1000)))
	case *array.Float32Builder:
		b.Append(rng.Float32())
	case *array.BooleanBuilder:
		b.Append(rng.IntN(3) == 0)
	case *array.StringBuilder:
		b.Append([]string{"de", "fr", "us", "xx"}[rng.IntN(4)])
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(1_700_000_000_000_000 + rng.Int64N(1e13)))
	case *array.ListBuilder:
		b.Append(true)
		n := 3
		if rng.IntN(20) == 0 {
			n = rng.IntN(5)
		}
		for range n {
			b.ValueBuilder().(*array.Float32Builder).Append(rng.Float32() * 4)
		}
	case *array.FixedSizeListBuilder:
		b.Append(true)
		b.ValueBuilder().(*array.Float64Builder).AppendValues([]float64{rng.NormFloat64(), -3}, nil)
	}
}

func mixedColumns() []vae.Column {
	fit := func(c vae.Column, n int, mean, scale float64) vae.Column {
		c.MissingRate, c.Type = 0.1, "as made"
		for range n {
			c.Mean, c.Scale, c.Constant = append(c.Mean, mean), append(c.Scale, scale), append(c.Constant, false)
		}
		return c
	}
	return []vae.Column{
		fit(vae.Column{Name: "amount", Kind: vae.Numeric, Transform: vae.Standardise, Head: vae.Gaussian, Indicator: true}, 1, 100, 20),
		fit(vae.Column{Name: "count", Kind: vae.Numeric, Transform: vae.Log1p, Head: vae.Gaussian}, 1, 6, 1),
		fit(vae.Column{Name: "share", Kind: vae.Numeric, Transform: vae.Raw, Head: vae.Bernoulli}, 1, 0, 1),
		fit(vae.Column{Name: "fixed", Kind: vae.Numeric, Transform: vae.Standardise, Head: vae.GaussianFixed, SD: 0.5}, 1, 100, 20),
		fit(vae.Column{Name: "flag", Kind: vae.Boolean, Head: vae.Bernoulli, Indicator: true}, 0, 0, 1),
		fit(vae.Column{Name: "country", Kind: vae.Categorical, Head: vae.CategoricalHead, Levels: []string{"de", "fr", "us"}}, 0, 0, 1),
		fit(vae.Column{Name: "at", Kind: vae.Timestamp, Head: vae.Gaussian, Parts: []string{"hour", "weekday", "monthday", "yearday"}}, 8, 0, 0.7),
		fit(vae.Column{Name: "vec", Kind: vae.Vector, Width: 3, Transform: vae.Standardise, Head: vae.Gaussian, Indicator: true}, 3, 2, 1),
		fit(vae.Column{Name: "pair", Kind: vae.Vector, Width: 2, Transform: vae.Standardise, Head: vae.Gaussian}, 2, 0, 1),
	}
}

// newModel makes a model of the columns with random weights, without training.
func newModel(cols []vae.Column, seed uint64) (*vae.Model, error) {
	spec := vae.Spec{Columns: cols, Latent: 3, Output: "identity", SDFloor: 0.3, MaxMissing: 0.5,
		Encoder: []vae.Layer{{Width: 8, Activation: "relu"}}, Decoder: []vae.Layer{{Width: 7, Activation: "tanh"}}}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(seed, 2))
	params := make([]float32, spec.Net().Params)
	for i := range params {
		params[i] = float32(rng.NormFloat64()) * 0.3
	}
	scores := make([]float32, 500)
	for i := range scores {
		scores[i] = float32(10 + rng.ExpFloat64()*3)
	}
	cal, err := vae.Calibrate(scores, 0.01)
	if err != nil {
		return nil, err
	}
	return vae.NewModel("test", spec, params, cal, vae.Training{Version: "test", Seed: seed})
}

func mixedModel(t testing.TB) *vae.Model {
	t.Helper()
	m, err := newModel(mixedColumns(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// numericModel has one Gaussian number column, "x", of mean 10 and spread 2.
func numericModel() (*vae.Model, error) {
	return newModel([]vae.Column{{Name: "x", Kind: vae.Numeric, Type: "float64", Transform: vae.Standardise, Head: vae.Gaussian,
		MissingRate: 0.01, Mean: []float64{10}, Scale: []float64{2}, Constant: []bool{false}}}, 3)
}

func xRecord(values ...float64) arrow.Record {
	schema := arrow.NewSchema([]arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Float64, Nullable: true}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	b.Field(0).(*array.Float64Builder).AppendValues(values, nil)
	return b.NewRecord()
}

func mustScore(t testing.TB, m *vae.Model, rec arrow.Record, o vae.Options) *vae.Result {
	t.Helper()
	s, err := m.NewScorer(rec.Schema(), o)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Score(rec)
	if err != nil {
		t.Fatal(err)
	}
	return res
}
