package train_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// record makes a record of n rows: cell gives the value of a column in a row,
// nil for missing. Types follow from row 0's declared fields.
func record(n int, fields []arrow.Field, cell func(row int, name string) any) arrow.Record {
	b := array.NewRecordBuilder(memory.NewGoAllocator(), arrow.NewSchema(fields, nil))
	defer b.Release()
	for r := range n {
		for i, f := range fields {
			put(b.Field(i), cell(r, f.Name))
		}
	}
	return b.NewRecord()
}

func put(b array.Builder, v any) {
	switch v := v.(type) {
	case nil:
		b.AppendNull()
	case float64:
		b.(*array.Float64Builder).Append(v)
	case int64:
		b.(*array.Int64Builder).Append(v)
	case bool:
		b.(*array.BooleanBuilder).Append(v)
	case string:
		b.(*array.StringBuilder).Append(v)
	case arrow.Timestamp:
		b.(*array.TimestampBuilder).Append(v)
	case []float64:
		l := b.(*array.ListBuilder)
		l.Append(true)
		l.ValueBuilder().(*array.Float64Builder).AppendValues(v, nil)
	default:
		panic(fmt.Sprintf("no builder for %T", v))
	}
}

func field(name string, t arrow.DataType) arrow.Field {
	return arrow.Field{Name: name, Type: t, Nullable: true}
}

var (
	f64  = arrow.PrimitiveTypes.Float64
	i64  = arrow.PrimitiveTypes.Int64
	flag = arrow.FixedWidthTypes.Boolean
	text = arrow.BinaryTypes.String
	when = arrow.FixedWidthTypes.Timestamp_us
	list = arrow.ListOf(arrow.PrimitiveTypes.Float64)
)

// circle has points on a circle: y follows from x but for its sign, and a third
// column is their product. The rows come in units of 100.
func circle(rows int) train.Records {
	rng := rand.New(rand.NewPCG(1, 2))
	var out train.Records
	for at := 0; at < rows; at += 100 {
		var angle float64
		out = append(out, record(min(100, rows-at), []arrow.Field{field("x", f64), field("y", f64), field("xy", f64)},
			func(_ int, name string) any {
				switch name {
				case "x":
					angle = rng.Float64() * 2 * math.Pi
					return math.Cos(angle) + 0.05*rng.NormFloat64()
				case "y":
					return math.Sin(angle) + 0.05*rng.NormFloat64()
				}
				return math.Cos(angle) * math.Sin(angle)
			}))
	}
	return out
}

// mixed has a column of every kind, some with missing values; all follow from
// one hidden number.
func mixed(rows int) train.Records {
	rng := rand.New(rand.NewPCG(3, 4))
	var u float64
	fields := []arrow.Field{field("number", f64), field("gap", f64), field("flag", flag), field("level", text),
		field("vector", list), field("time", when), field("share", f64), field("never", f64), field("always", f64)}
	return train.Records{record(rows, fields, func(r int, name string) any {
		switch name {
		case "number":
			u = rng.Float64()
			return 100 + 10*u
		case "gap":
			if r%5 == 0 {
				return nil
			}
			return -u + 0.1*rng.NormFloat64()
		case "flag":
			return u > 0.5
		case "level":
			return []string{"low", "middle", "high"}[int(3*u)]
		case "vector":
			return []float64{u, 1 - u}
		case "time":
			return arrow.Timestamp(1_700_000_000_000_000 + int64(u*3600e6))
		case "share":
			if u > 0.3 {
				return 1.0
			}
			return 0.0
		case "always":
			return 7.0
		}
		return nil // never
	})}
}

// tiny is a configuration that trains within a tenth of a second.
func tiny() train.Config {
	layer := []vae.Layer{{Width: 8, Activation: "tanh"}}
	return train.Config{Seed: 1, Steps: 60, Batch: 64, EvalEvery: 15, Rate: 0.01,
		Network: vae.Spec{Encoder: layer, Decoder: layer, Latent: 2}}
}

func fit(t *testing.T, c train.Config, d train.Data) *vae.Model {
	t.Helper()
	m, err := train.Run(t.Context(), c, d)
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return m
}

func bytesOf(t *testing.T, m *vae.Model) string {
	t.Helper()
	b, err := m.Bytes()
	if err != nil {
		t.Fatalf("Bytes: %v", err)
	}
	return string(b)
}
