package bench_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/internal/bench"
	"github.com/elbo-stream/elbo/vae"
)

// sparseModel returns a model of standardised columns whose mean lies near zero,
// as where most values are zero: random weights in the default network.
func sparseModel(columns int) (*vae.Model, error) {
	var spec vae.Spec
	for k := range columns {
		spec.Columns = append(spec.Columns, vae.Column{Name: fmt.Sprintf("c%d", k), Kind: vae.Numeric, Type: "float32",
			Transform: vae.Standardise, Head: vae.Gaussian, MissingRate: 1e-9, Mean: []float64{0.2}, Scale: []float64{0.7}, Constant: []bool{false}})
	}
	spec.DefaultNetwork()
	rnd := rand.New(rand.NewPCG(1, 0))
	params := make([]float32, spec.Net().Params)
	for i := range params {
		params[i] = float32(0.05 * rnd.NormFloat64())
	}
	cal, err := vae.Calibrate(make([]float32, vae.MinCalibration), 0.001)
	if err != nil {
		return nil, err
	}
	return vae.NewModel("sparse", spec, params, cal, vae.Training{})
}

// sparseRecord draws rows in which the given share of the columns, anywhere among
// them, is zero throughout, and so in every tile. The caller releases it.
func sparseRecord(columns, rows int, zeros float64) arrow.Record {
	rnd := rand.New(rand.NewPCG(2, 0))
	fields := make([]arrow.Field, columns)
	for k := range fields {
		fields[k] = arrow.Field{Name: fmt.Sprintf("c%d", k), Type: arrow.PrimitiveTypes.Float32}
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	zero := int(math.Round(zeros * float64(columns)))
	for place, k := range rnd.Perm(columns) {
		v := make([]float32, rows)
		for i := range v {
			if place >= zero {
				v[i] = rnd.Float32() + 0.01
			}
		}
		b.Field(k).(*array.Float32Builder).AppendValues(v, nil)
	}
	return b.NewRecord()
}

// BenchmarkSparse scores 784 columns, of which some are zero, through the default
// network. x_dense compares with a record of the same size without zeros, scored
// in turn with it.
func BenchmarkSparse(b *testing.B) {
	if bench.CPUTime() == 0 {
		b.Skip("this system does not tell the processor time of a process")
	}
	const columns, rows, calls = 784, 1024, 8
	m, err := sparseModel(columns)
	if err != nil {
		b.Fatal(err)
	}
	dense := sparseRecord(columns, rows, 0)
	defer dense.Release()
	s, err := m.NewScorer(dense.Schema(), vae.Options{Top: -1})
	if err != nil {
		b.Fatal(err)
	}
	score := func(rec arrow.Record) time.Duration {
		start := bench.CPUTime()
		for range calls {
			if _, err := s.Score(rec); err != nil {
				b.Fatal(err)
			}
		}
		return bench.CPUTime() - start
	}
	for _, percent := range []int{0, 40, 65} {
		b.Run(fmt.Sprintf("zero=%d%%", percent), func(b *testing.B) {
			rec := sparseRecord(columns, rows, float64(percent)/100)
			defer rec.Release()
			var without, with time.Duration
			rounds := 0
			for b.Loop() {
				without += score(dense)
				with += score(rec)
				rounds++
			}
			b.ReportMetric(float64(rounds*calls*rows)/with.Seconds(), "rows/cpu-s")
			b.ReportMetric(without.Seconds()/with.Seconds(), "x_dense")
		})
	}
}

// TestSparseRecord keeps the benchmark's rows what it says: the share of columns
// that are zero, and rows that its model scores.
func TestSparseRecord(t *testing.T) {
	const columns, rows = 20, 70
	m, err := sparseModel(columns)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		share float64
		want  int
	}{{0, 0}, {0.4, 8}, {0.65, 13}, {1, 20}} {
		rec := sparseRecord(columns, rows, c.share)
		zero := 0
		for k := range columns {
			all := true
			for _, v := range rec.Column(k).(*array.Float32).Float32Values() {
				all = all && v == 0
			}
			if all {
				zero++
			}
		}
		if zero != c.want {
			t.Errorf("share %v: %d of %d columns are zero, want %d", c.share, zero, columns, c.want)
		}
		s, err := m.NewScorer(rec.Schema(), vae.Options{Top: -1})
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.Score(rec)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range res.Score {
			if !(math.Abs(float64(v)) < 1e6) {
				t.Fatalf("share %v: score of row %d is %v", c.share, i, v)
			}
		}
		rec.Release()
	}
}
