package bench_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/internal/bench"
	"github.com/elbo-stream/elbo/vae"
)

// small is a net that scores in microseconds.
var small = bench.Net{Name: "small", Encoder: []int{5, 7, 3}, Decoder: []int{3, 4, 5}, MaxBatch: 128}

// reference computes the squared error and the KL divergence of one row in
// float64, from the layout that the other systems read.
func reference(n bench.Net, weights, x []float64) (squares, kl float64) {
	layer := func(x []float64, out int, act func(float64) float64) []float64 {
		y := make([]float64, out)
		for o := range y {
			for k, v := range x {
				y[o] += weights[o*len(x)+k] * v
			}
			y[o] = act(y[o] + weights[out*len(x)+o])
		}
		weights = weights[out*(len(x)+1):]
		return y
	}
	relu := func(v float64) float64 { return max(v, 0) }
	same := func(v float64) float64 { return v }
	h := x
	last := len(n.Encoder) - 1
	for _, out := range n.Encoder[1:last] {
		h = layer(h, out, relu)
	}
	latent := n.Encoder[last]
	h = layer(h, 2*latent, same)
	for l, mu := range h[:latent] {
		lv := h[latent+l]
		kl += 0.5 * (mu*mu + math.Exp(lv) - 1 - lv)
	}
	h = h[:latent]
	for _, out := range n.Decoder[1 : len(n.Decoder)-1] {
		h = layer(h, out, relu)
	}
	for i, y := range layer(h, n.Decoder[len(n.Decoder)-1], func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }) {
		squares += (y - x[i]) * (y - x[i])
	}
	return squares, kl
}

// TestNetDoesTheSharedJob: the reconstruction error less its offset is the
// squared error, and the weights have the layout that is said.
func TestNetDoesTheSharedJob(t *testing.T) {
	b, err := bench.Find("B")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []bench.Net{small, b} {
		t.Run(n.Name, func(t *testing.T) {
			w := n.RandomWeights(3)
			m, err := n.Model(w)
			if err != nil {
				t.Fatal(err)
			}
			rec := n.Record(70)
			defer rec.Release()
			s, err := m.NewScorer(rec.Schema(), vae.Options{Top: -1})
			if err != nil {
				t.Fatal(err)
			}
			res, err := s.Score(rec)
			if err != nil {
				t.Fatal(err)
			}
			w64 := make([]float64, len(w))
			for i, v := range w {
				w64[i] = float64(v)
			}
			for i := range res.Score {
				x := make([]float64, n.Encoder[0])
				for k := range x {
					x[k] = float64(bench.Value(uint32(k), uint32(i)))
				}
				squares, kl := reference(n, w64, x)
				if got := float64(res.Recon[i]) - n.Offset(); !(math.Abs(got-squares) <= 1e-4*(1+squares)) {
					t.Fatalf("row %d: squared error %v, want %v", i, got, squares)
				}
				if got := float64(res.KL[i]); !(math.Abs(got-kl) <= 1e-4*(1+kl)) {
					t.Fatalf("row %d: KL %v, want %v", i, got, kl)
				}
			}
		})
	}
}

// TestNets: the sizes that the comparison is about.
func TestNets(t *testing.T) {
	want := map[string]int{"A": 202_368, "B": 8_960, "C": 3_244_032}
	for _, n := range bench.Nets() {
		spec := n.Spec()
		if err := spec.Validate(); err != nil {
			t.Errorf("net %s: %v", n.Name, err)
		}
		if got := spec.Net().MACs(); got != want[n.Name] {
			t.Errorf("net %s has %d multiply-adds, want %d", n.Name, got, want[n.Name])
		}
		if got := len(n.RandomWeights(1)); got != n.Weights() {
			t.Errorf("net %s: %d random weights, want %d", n.Name, got, n.Weights())
		}
	}
	if _, err := bench.Find("D"); err == nil || !strings.Contains(err.Error(), "A, B, C") {
		t.Errorf("Find(D): %v, want an error that names the nets", err)
	}
	if _, err := small.Model(make([]float32, 3)); err == nil {
		t.Error("Model took three weights")
	}
}

// TestValue pins inputs that other languages compute too; the figures are
// theirs.
func TestValue(t *testing.T) {
	for _, c := range []struct {
		k, i uint32
		want float32
	}{{0, 0, 0}, {1, 0, 0.14116311073303223}, {0, 1, 0.5231385231018066}, {783, 65535, 0.19626671075820923}} {
		if got := bench.Value(c.k, c.i); got != c.want {
			t.Errorf("Value(%d, %d) = %v, want %v", c.k, c.i, got, c.want)
		}
	}
}

func TestMeasure(t *testing.T) {
	m, err := small.Model(small.RandomWeights(1))
	if err != nil {
		t.Fatal(err)
	}
	rec := small.Record(100)
	defer rec.Release()
	ctx := context.Background()
	for _, p := range []bench.Point{{1, 1, ""}, {64, 1, vae.Float32}, {30, 3, ""}, {100, 2, ""}} {
		f, err := bench.Measure(ctx, m, rec, p, 5*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if f.Batch != p.Batch || f.Workers != p.Workers || !(f.RowsPerSec > 0 && f.GFLOPS > 0 && f.RowsPerCPU >= 0) || !(f.P50 > 0 && f.P50 <= f.P99) || f.BytesPerRow != 20 {
			t.Errorf("Measure(%+v) = %+v", p, f)
		}
		if want := 2e-9 * float64(m.Size().MultiplyAdds) * f.RowsPerSec; math.Abs(f.GFLOPS-want) > 1e-9*want {
			t.Errorf("%v GFLOP/s at %v rows/s, want %v", f.GFLOPS, f.RowsPerSec, want)
		}
	}
	for _, p := range []bench.Point{{0, 1, ""}, {1, 0, ""}, {101, 1, ""}, {1, 1, "float12"}} {
		if _, err := bench.Measure(ctx, m, rec, p, time.Millisecond); err == nil {
			t.Errorf("Measure(%+v): no error", p)
		}
	}
	cut, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := bench.Measure(cut, m, rec, bench.Point{Batch: 1, Workers: 2}, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("Measure with an ended context: %v", err)
	}
}

func TestSweep(t *testing.T) {
	m, err := small.Model(small.RandomWeights(1))
	if err != nil {
		t.Fatal(err)
	}
	rec := small.Record(64)
	defer rec.Release()
	var got, skipped []bench.Point
	s := bench.Sweep{Model: m, Batches: []int{1, 64, 128}, Workers: []int{1, 2}, Long: time.Millisecond, Peak: 100,
		Each: func(f bench.Figure) {
			got = append(got, bench.Point{Batch: f.Batch, Workers: f.Workers})
			rate := f.RowsPerCPU
			if rate == 0 {
				rate = f.RowsPerSec / float64(f.Workers)
			}
			if want := 2e-9 * float64(m.Size().MultiplyAdds) * rate; math.Abs(f.PercentOfPeak-want) > 1e-9*want {
				t.Errorf("%v%% of a peak of 100 GFLOP/s at %v rows/s, want %v%%", f.PercentOfPeak, rate, want)
			}
		},
		Skipped: func(p bench.Point, _ string) { skipped = append(skipped, p) }}
	if err := s.Run(context.Background(), rec); err != nil {
		t.Fatal(err)
	}
	if want := []bench.Point{{1, 1, ""}, {64, 1, ""}, {1, 2, ""}, {64, 2, ""}}; !equal(got, want) {
		t.Errorf("measured %v, want %v", got, want)
	}
	if want := []bench.Point{{128, 1, ""}, {128, 2, ""}}; !equal(skipped, want) {
		t.Errorf("skipped %v, want %v", skipped, want)
	}
}

func equal(a, b []bench.Point) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestCPUSeconds(t *testing.T) {
	burn := func(long time.Duration) func() error {
		return func() error {
			for start := bench.CPUTime(); bench.CPUTime()-start < long; {
			}
			return nil
		}
	}
	if bench.CPUTime() == 0 {
		t.Skip("SKIPPED: this system does not tell the processor time of a process; CPUSeconds was not tested")
	}
	got, err := bench.CPUSeconds(burn(2*time.Millisecond), 20*time.Millisecond)
	if err != nil || !(got >= 0.002 && got < 0.02) {
		t.Errorf("CPUSeconds of 2 ms of work = %v, %v", got, err)
	}
	wrong := errors.New("wrong")
	if _, err := bench.CPUSeconds(func() error { return wrong }, time.Second); !errors.Is(err, wrong) {
		t.Errorf("error %v, want that of the call", err)
	}
}

func TestTrainSteps(t *testing.T) {
	if rate, err := bench.TrainSteps(small, 100, time.Millisecond); err != nil || !(rate > 0) {
		t.Errorf("TrainSteps = %v, %v", rate, err)
	}
}

func columns() []vae.Column {
	fitted := func(c vae.Column) vae.Column {
		for range c.Features() {
			c.Mean, c.Scale, c.Constant = append(c.Mean, 3), append(c.Scale, 2), append(c.Constant, false)
		}
		return c
	}
	c := func(name, kind, typ string) vae.Column {
		return vae.Column{Name: name, Kind: vae.Kind(kind), Type: typ, Head: vae.Gaussian, Transform: vae.Standardise, MissingRate: 1e-9}
	}
	var cols []vae.Column
	for _, typ := range []string{"float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "odd"} {
		cols = append(cols, fitted(c("n_"+typ, "numeric", typ)))
	}
	gaps := fitted(c("gaps", "numeric", "float64"))
	gaps.MissingRate, gaps.Transform = 0.5, vae.Log1p
	share := fitted(c("share", "numeric", "float32"))
	share.Head, share.Transform = vae.Bernoulli, vae.Raw
	yes := c("yes", "boolean", "bool")
	yes.Head = vae.Bernoulli
	one := c("one", "boolean", "uint8")
	one.Head = vae.Bernoulli
	level := c("level", "categorical", "utf8")
	level.Head, level.Levels = vae.CategoricalHead, []string{"a", "bcd"}
	vector := c("vector", "vector", "list<float>")
	vector.Width = 3
	cols = append(cols, gaps, share, yes, one, level, fitted(vector))
	for _, typ := range []string{"timestamp[s]", "timestamp[ns]", "date32"} {
		when := c("at_"+typ, "timestamp", typ)
		when.Parts = []string{"hour"}
		cols = append(cols, fitted(when))
	}
	return cols
}

// TestRowsFitTheModel: whatever kinds of columns a model has, the rows drawn for
// it are taken, and only what may be missing is.
func TestRowsFitTheModel(t *testing.T) {
	spec := vae.Spec{Columns: columns()}
	spec.DefaultNetwork()
	if err := spec.Validate(); err != nil {
		t.Fatal(err)
	}
	rec, err := bench.Rows(&spec, 500, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Release()
	again, err := bench.Rows(&spec, 500, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Release()
	if !array.RecordEqual(rec, again) {
		t.Error("the same seed gives other rows")
	}
	packer, err := spec.NewPacker(rec.Schema())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := packer.Bind(rec); err != nil {
		t.Fatal(err)
	}
	for i, c := range spec.Columns {
		nulls := rec.Column(i).NullN()
		if c.Name == "gaps" && (nulls < 150 || nulls > 350) || c.Name != "gaps" && nulls > 0 {
			t.Errorf("column %q: %d of 500 values are missing", c.Name, nulls)
		}
		if got := rec.Column(i).DataType().String(); c.Kind == vae.Numeric && c.Type != "odd" && got != c.Type {
			t.Errorf("column %q has type %s", c.Name, got)
		}
	}
}

func TestRowBytes(t *testing.T) {
	spec := vae.Spec{Columns: columns()}
	rec, err := bench.Rows(&spec, 800, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Release()
	// Eleven numbers of 4+8+1+2+4+8+1+2+4+8+8 bytes, 8 and a bit of validity, 4, a
	// bit, 1, offsets and letters, 3 floats, and three times of 8.
	letters := 0.0
	level := rec.Column(rec.Schema().FieldIndices("level")[0]).(*array.String)
	for i := range level.Len() {
		letters += float64(len(level.Value(i)))
	}
	want := 50 + 8.125 + 4 + 0.125 + 1 + 4 + letters/800 + 12 + 24
	if got := bench.RowBytes(rec, &spec); math.Abs(got-want) > 1e-9 {
		t.Errorf("RowBytes = %v, want %v", got, want)
	}
	part := rec.NewSlice(0, 0)
	defer part.Release()
	if got := bench.RowBytes(part, &spec); got != 0 {
		t.Errorf("RowBytes of no rows = %v", got)
	}
	other := array.NewRecord(arrow.NewSchema(nil, nil), nil, 3)
	defer other.Release()
	if got := bench.RowBytes(other, &spec); got != 0 {
		t.Errorf("RowBytes of other columns = %v", got)
	}
}
