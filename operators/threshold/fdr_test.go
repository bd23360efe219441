package threshold_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/operators/threshold"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
	"github.com/elbo-stream/elbo/vae"
)

func TestDiscoveries(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		p    []float64
		fdr  float64
		rule threshold.Correction
		want string
	}{
		// The fifteen p-values of Benjamini and Hochberg's own example.
		{[]float64{.0001, .0004, .0019, .0095, .0201, .0278, .0298, .0344, .0459, .3240, .4262, .5719, .6528, .7590, 1},
			0.05, threshold.BH, "1111"},
		{[]float64{.0001, .0004, .0019, .0095, .0201, .0278, .0298, .0344, .0459, .3240, .4262, .5719, .6528, .7590, 1},
			0.05, threshold.BY, "111"},
		{[]float64{.04, .03, nan, .02, .01}, 0.04, threshold.BH, "11011"}, // the step up: the last carries all
		{[]float64{.01, .02, .03, .9}, 0.04, threshold.BH, "111"},
		{[]float64{.01, .02, .03, .035}, 0.02, threshold.Storey, "1111"}, // half of the rows counted as normal
		{[]float64{.9, .8, .7, .01}, 0.02, threshold.Storey, ""},
		{[]float64{.5, .6}, 0.1, threshold.BH, ""},
		{[]float64{nan}, 0.1, threshold.Storey, ""},
		{nil, 0.1, threshold.BY, ""},
	} {
		got := ""
		for _, f := range threshold.Discoveries(c.p, c.fdr, c.rule) {
			got += map[bool]string{true: "1", false: "0"}[f]
		}
		if got = strings.TrimRight(got, "0"); got != c.want {
			t.Errorf("Discoveries(%v, %g, %s) = %q, want %q", c.p, c.fdr, c.rule, got, c.want)
		}
	}
	if err := threshold.Correction("bonferroni").Valid(); err == nil {
		t.Error("an unknown correction was taken")
	}
}

// rows makes scored rows of p-values, scores and keys.
func rows(p []float64, scores []float32, keys []string) arrow.Record {
	b := array.NewRecordBuilder(memory.NewGoAllocator(), arrow.NewSchema([]arrow.Field{
		{Name: score.P, Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: score.Score, Type: arrow.PrimitiveTypes.Float32},
		{Name: score.Anomaly, Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
		{Name: "key", Type: arrow.BinaryTypes.String, Nullable: true}}, nil))
	defer b.Release()
	b.Field(0).(*array.Float64Builder).AppendValues(p, nil)
	for i := range p {
		if scores == nil {
			b.Field(1).(*array.Float32Builder).Append(0)
		} else {
			b.Field(1).(*array.Float32Builder).Append(scores[i])
		}
		b.Field(2).(*array.BooleanBuilder).Append(false)
		if keys == nil || keys[i] == "" {
			b.Field(3).AppendNull()
		} else {
			b.Field(3).(*array.StringBuilder).Append(keys[i])
		}
	}
	return b.NewRecord()
}

func stream(t testing.TB, c threshold.StreamConfig, in *arrow.Schema) *threshold.Stream {
	t.Helper()
	op, err := threshold.NewStream(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := op.Bind(in); err != nil {
		t.Fatal(err)
	}
	return op
}

func verdicts(t testing.TB, op pipeline.Operator, in arrow.Record) []bool {
	t.Helper()
	out, err := op.Apply(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Release()
	got := out.Column(2).(*array.Boolean)
	flags := make([]bool, got.Len())
	for i := range flags {
		flags[i] = got.IsValid(i) && got.Value(i)
	}
	return flags
}

// In 500 windows of 1,000 rows with 0, 1 or 5 percent of anomalies the mean share
// of false discoveries is at most the promised one, for each rule, with conformal
// p-values of fresh calibration rows for each window.
func TestFalseDiscoveryRate(t *testing.T) {
	const windows, size, fdr = 500, 1000, 0.1
	for _, anomalies := range []int{0, 10, 50} {
		rng := rand.New(rand.NewPCG(11, uint64(anomalies)))
		share, power := map[string]float64{}, map[string]float64{}
		for range windows {
			p := window(t, rng, size, anomalies)
			flags := map[string][]bool{}
			for _, c := range []threshold.Correction{threshold.BH, threshold.BY, threshold.Storey} {
				flags[string(c)] = threshold.Discoveries(p, fdr, c)
			}
			in := rows(p, nil, nil)
			flags["online"] = verdicts(t, stream(t, threshold.StreamConfig{FDR: fdr, Window: size}, in.Schema()), in)
			flags["online, any"] = verdicts(t, stream(t, threshold.StreamConfig{FDR: fdr, Window: size, AnyDependence: true}, in.Schema()), in)
			in.Release()
			for rule, f := range flags {
				hit, miss := 0, 0
				for i := range f {
					switch {
					case f[i] && i%20 == 7 && i/20 < anomalies:
						hit++
					case f[i]:
						miss++
					}
					if f[i] && rule == "online" && !flags["bh"][i] {
						t.Fatal("the stream flags a row that BH does not")
					}
				}
				share[rule] += float64(miss) / float64(max(1, hit+miss)) / windows
				power[rule] += float64(hit) / float64(max(1, anomalies)) / windows
			}
		}
		for rule, got := range share {
			t.Logf("%d anomalies, %s: false discoveries %.3f, found %.2f", anomalies, rule, got, power[rule])
			if got > fdr*1.1 { // the mean of 500 shares has a standard error of 0.003 to 0.013
				t.Errorf("%d anomalies, %s: %.3f of the discoveries are false, promised %g", anomalies, rule, got, fdr)
			}
		}
		if anomalies > 0 && (power["bh"] < 0.6 || power["online"] < 0.4*power["bh"]) {
			t.Errorf("%d anomalies: found %v", anomalies, power)
		}
	}
}

// window draws the conformal p-values of a window; row 20k+7 is an anomaly for k
// below anomalies.
func window(t testing.TB, rng *rand.Rand, size, anomalies int) []float64 {
	held := make([]float32, 20_000)
	for i := range held {
		held[i] = float32(rng.NormFloat64())
	}
	cal, err := vae.Calibrate(held, 0.01)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]float64, size)
	for i := range p {
		s := rng.NormFloat64()
		if i%20 == 7 && i/20 < anomalies {
			s += 5
		}
		p[i] = cal.Conformal(float64(float32(s)))
	}
	return p
}

func TestStreamConformance(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	var inputs []arrow.Record
	for _, n := range []int{300, 0, 1, 257} {
		p, keys := make([]float64, n), make([]string, n)
		for i := range p {
			p[i] = math.Pow(rng.Float64(), 6)
			keys[i] = []string{"a", "b", "", "c"}[rng.IntN(4)]
			if i%50 == 3 {
				p[i] = math.NaN()
			}
		}
		inputs = append(inputs, rows(p, nil, keys))
	}
	cal, err := vae.Calibrate(make([]float32, 5000), 0.01)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]threshold.StreamConfig{
		"plain": {FDR: 0.2, Window: 100}, "by key": {FDR: 0.5, Window: 17, By: "key"},
		"conformal": {FDR: 0.2, Window: 10, Conformal: cal, AnyDependence: true},
	} {
		t.Run(name, func(t *testing.T) {
			pipelinetest.Stateful(t, pipelinetest.StatefulTest{Inputs: inputs,
				New: func(t *testing.T, mem memory.Allocator) pipeline.Stateful {
					c.Allocator = mem
					op, err := threshold.NewStream(c)
					if err != nil {
						t.Fatal(err)
					}
					return op
				}})
		})
	}
}

// The rows of a key are judged as if there were no others.
func TestStreamByKey(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 200).Draw(r, "n")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		c := threshold.StreamConfig{FDR: 0.3, Window: rapid.IntRange(1, 20).Draw(r, "window"), By: "key"}
		p, keys := make([]float64, n), make([]string, n)
		alone := map[string][]float64{}
		for i := range p {
			p[i], keys[i] = rng.Float64()*0.2, string(rune('a'+rng.IntN(3)))
			alone[keys[i]] = append(alone[keys[i]], p[i])
		}
		in := rows(p, nil, keys)
		got := verdicts(t, stream(t, c, in.Schema()), in)
		c.By = ""
		want := map[string][]bool{}
		for key, p := range alone {
			in := rows(p, nil, nil)
			want[key] = verdicts(t, stream(t, c, in.Schema()), in)
		}
		for i, key := range keys {
			if got[i] != want[key][0] {
				r.Fatalf("row %d of key %s: %v together, %v alone", i, key, got[i], want[key][0])
			}
			want[key] = want[key][1:]
		}
	})
}

func TestStreamFaults(t *testing.T) {
	few, err := vae.Calibrate(make([]float32, 500), 0.01)
	if err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]threshold.StreamConfig{
		"fdr 0":          {},
		"fdr 1":          {FDR: 1},
		"window -1":      {FDR: 0.1, Window: -1},
		"window 2000000": {FDR: 0.1, Window: 2_000_000},
		"more rows":      {FDR: 0.1, Conformal: few},
	} {
		if _, err := threshold.NewStream(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error with %q", c, err, want)
		}
	}
	in := scored()
	defer in.Release()
	for _, by := range []string{"nothing", score.Score} {
		op, err := threshold.NewStream(threshold.StreamConfig{FDR: 0.1, By: by})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Bind(in.Schema()); err == nil || !strings.Contains(err.Error(), "by: ") {
			t.Errorf("by %s: %v", by, err)
		}
	}
	op := stream(t, threshold.StreamConfig{FDR: 0.1, Window: 10}, in.Schema())
	for _, state := range []string{`{"window":9,"shared":{"rows":0,"found":0}}`, `{"window":10,"shared":{"rows":10,"found":0}}`,
		`{"window":10,"shared":{"rows":2,"found":3}}`, `{"window":10,"shared":{"rows":0,"found":0}} x`,
		`{"window":10,"shared":{"rows":0,"found":0},"keys":[{"key":"a","rows":-1,"found":-2}]}`} {
		if err := op.Restore([]byte(state)); err == nil {
			t.Errorf("state %s was taken", state)
		}
	}
}

func ExampleDiscoveries() {
	p := []float64{0.001, 0.8, 0.04, 0.002, 0.5}
	fmt.Println(threshold.Discoveries(p, 0.1, threshold.BH))
	// Output: [true false true true false]
}

func ExampleNewStream() {
	op, err := threshold.NewStream(threshold.StreamConfig{FDR: 0.1, Window: 10})
	if err != nil {
		fmt.Println(err)
		return
	}
	in := rows([]float64{0.001, 0.8, 0.015, 0.04, 0.5}, nil, nil)
	defer in.Release()
	if _, err := op.Bind(in.Schema()); err != nil {
		fmt.Println(err)
		return
	}
	out, err := op.Apply(context.Background(), in)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer out.Release()
	fmt.Println(out.Column(2)) // the limit was 0.01, then 0.02, then 0.03
	// Output: [true false true false false]
}
