package cli

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/operators/threshold"
	"github.com/elbo-stream/elbo/vae"
)

// pRows makes rows of p-values; those below 0 are not judged.
func pRows(mem memory.Allocator, p []float64) arrow.Record {
	b := array.NewRecordBuilder(mem, arrow.NewSchema([]arrow.Field{{Name: score.P, Type: arrow.PrimitiveTypes.Float64},
		{Name: score.Score, Type: arrow.PrimitiveTypes.Float32},
		{Name: score.Anomaly, Type: arrow.FixedWidthTypes.Boolean, Nullable: true}}, nil))
	defer b.Release()
	for _, v := range p {
		b.Field(0).(*array.Float64Builder).Append(v)
		b.Field(1).(*array.Float32Builder).Append(float32(1 - v))
		if v < 0 {
			b.Field(2).AppendNull()
		} else {
			b.Field(2).(*array.BooleanBuilder).Append(v < 0.01)
		}
	}
	return b.NewRecord()
}

// keptSink collects what a sink is given: 1, 0 and - for not judged.
type keptSink struct {
	nowhere
	verdicts string
	fail     error
}

func (k *keptSink) Write(ctx context.Context, n uint64, rec arrow.Record) error {
	if n != k.n+1 {
		return fmt.Errorf("batch %d after %d", n, k.n)
	}
	b := rec.Column(2).(*array.Boolean)
	for i := range b.Len() {
		switch {
		case b.IsNull(i):
			k.verdicts += "-"
		case b.Value(i):
			k.verdicts += "1"
		default:
			k.verdicts += "0"
		}
	}
	return errors.Join(k.nowhere.Write(ctx, n, rec), k.fail)
}

// Verdicts are those of whole windows, wherever the batches were cut, and nothing
// stays in memory.
func TestWindowsDoNotDependOnBatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		p := make([]float64, rapid.IntRange(0, 80).Draw(t, "rows"))
		for i := range p {
			if p[i] = rng.Float64() * rng.Float64() * rng.Float64(); rng.IntN(9) == 0 {
				p[i] = -1
			}
		}
		size := rapid.IntRange(1, 30).Draw(t, "window")
		// The reference: all judged rows, window by window.
		var judged []float64
		for _, v := range p {
			if v >= 0 {
				judged = append(judged, v)
			}
		}
		var found []bool
		for w := range slices.Chunk(judged, size) {
			found = append(found, threshold.Discoveries(w, 0.3, threshold.BH)...)
		}
		want := ""
		for _, v := range p {
			switch {
			case v < 0:
				want += "-"
			default:
				want += map[bool]string{true: "1", false: "0"}[found[0]]
				found = found[1:]
			}
		}
		mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
		k := &keptSink{}
		w := &windowed{Sink: k, size: size, fdr: 0.3, rule: threshold.BH, mem: mem}
		if err := w.Bind(emptyP(mem)); err != nil {
			t.Fatal(err)
		}
		n := uint64(0)
		for len(p) > 0 || n == 0 {
			cut := rng.IntN(len(p) + 1)
			n++
			rec := pRows(mem, p[:cut])
			if err := w.Write(context.Background(), n, rec); err != nil {
				t.Fatal(err)
			}
			rec.Release()
			p = p[cut:]
		}
		if err := errors.Join(w.Flush(context.Background()), w.Close()); err != nil {
			t.Fatal(err)
		}
		if k.verdicts != want || w.Durable() != n {
			t.Fatalf("verdicts %s after batch %d, want %s after %d", k.verdicts, w.Durable(), want, n)
		}
		if left := mem.CurrentAlloc(); left != 0 {
			t.Fatalf("%d bytes in use", left)
		}
	})
}

func emptyP(mem memory.Allocator) *arrow.Schema {
	rec := pRows(mem, nil)
	defer rec.Release()
	return rec.Schema()
}

func TestWindowedGivesUp(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	broken := errors.New("broken")
	w := &windowed{Sink: &keptSink{fail: broken}, size: 2, fdr: 0.3, rule: threshold.BH, mem: mem}
	if err := w.Bind(emptyP(mem)); err != nil {
		t.Fatal(err)
	}
	rec := pRows(mem, []float64{0.5})
	defer mem.AssertSize(t, 0)
	defer rec.Release()
	if err := w.Write(t.Context(), 1, rec); err != nil {
		t.Errorf("a window that is not whole: %v", err)
	}
	if err := w.Write(t.Context(), 2, rec); !errors.Is(err, broken) {
		t.Errorf("Write = %v, want the sink's error", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Bind(arrow.NewSchema(nil, nil)); err == nil {
		t.Error("Bind without columns: no error")
	}
}

func TestWindowedConformal(t *testing.T) {
	scores := make([]float32, 2000)
	for i := range scores {
		scores[i] = float32(i) / 2000
	}
	cal, err := vae.Calibrate(scores, 0.01)
	if err != nil {
		t.Fatal(err)
	}
	mem := memory.NewGoAllocator()
	k := &keptSink{}
	w := &windowed{Sink: k, size: 4, fdr: 0.1, rule: threshold.BH, conformal: cal, mem: mem}
	if err := w.Bind(emptyP(mem)); err != nil {
		t.Fatal(err)
	}
	rec := pRows(mem, []float64{0, 0.5, 0.001, 0.9}) // scores 1, 0.5, 0.999, 0.1
	defer rec.Release()
	if err := w.Write(t.Context(), 1, rec); err != nil || k.verdicts != "1010" {
		t.Errorf("verdicts %s, %v", k.verdicts, err)
	}
}

func TestCrossRate(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	scores := make([]float32, 40_000)
	for i := range scores {
		scores[i] = float32(rng.ExpFloat64())
	}
	r := crossRate(scores, 0.01, ruleFlags{})
	if r == nil || r.Rows != 40_000 || r.Achieved < 0.008 || r.Achieved > 0.0125 || r.Promised != 0.01 {
		t.Errorf("rate %+v", r)
	}
	if r := crossRate(scores[:12], 0.01, ruleFlags{}); r != nil {
		t.Errorf("halves of six rows: %+v", r)
	}
	if r := crossRate(scores[:100], 0.01, ruleFlags{hasQuantile: true, quantile: 0.999}); r != nil {
		t.Errorf("a quantile that half of the rows do not tell: %+v", r)
	}
}
