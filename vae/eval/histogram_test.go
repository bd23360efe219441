package eval_test

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/vae/eval"
)

func TestHistogramCountsEveryRow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		scores := rapid.SliceOfN(rapid.Float64(), 1, 50).Draw(rt, "scores")
		labels := rapid.SliceOfN(rapid.Bool(), len(scores), len(scores)).Draw(rt, "labels")
		bins := rapid.IntRange(1, 40).Draw(rt, "bins")
		for i, s := range scores {
			if math.IsNaN(s) {
				scores[i] = 0
			}
		}
		h, err := eval.NewHistogram(scores, labels, bins)
		if err != nil || len(h.Edges) != bins+1 || len(h.Normal) != bins || len(h.Anomaly) != bins {
			rt.Fatalf("NewHistogram = %+v, %v", h, err)
		}
		total := h.Below + h.Above
		for i := range h.Normal {
			total += h.Normal[i] + h.Anomaly[i]
			if !(h.Edges[i] <= h.Edges[i+1]) {
				rt.Fatalf("edges fall: %v", h.Edges)
			}
		}
		if total != len(scores) {
			rt.Fatalf("%d of %d rows are in %+v", total, len(scores), h)
		}
		width := rapid.IntRange(60, 200).Draw(rt, "width")
		var b bytes.Buffer
		if err := h.WriteText(&b, width, &scores[0]); err != nil {
			rt.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(line) - 1; n > width {
				rt.Fatalf("line of %d columns in %d: %q", n, width, line)
			}
		}
	})
}

// The range over the bulk's width may overflow: bins are even then.
func TestHistogramOfHugeRange(t *testing.T) {
	h, err := eval.NewHistogram([]float64{1, 1, 1, 1.1235582092889474e+307, 0.25, 0.125, 0.125, 0.125, 0.125, 0.125}, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(h.Edges) || math.IsInf(h.Edges[1], 0) || h.Normal[0] != 9 || h.Normal[1] != 1 {
		t.Errorf("NewHistogram = %+v", h)
	}
}

func TestHistogramShape(t *testing.T) {
	even, err := eval.NewHistogram([]float32{0, 1, 2, 3, 4}, nil, 4)
	if must(t, even, err).Log || even.Edges[1] != 1 || even.Normal[3] != 2 || even.Anomaly != nil {
		t.Errorf("even scores: %+v, want edges 0 1 2 3 4 and the last two in one bin", even)
	}
	tail := []float64{1000}
	for i := range 100 {
		tail = append(tail, float64(i)/100)
	}
	long, err := eval.NewHistogram(tail, nil, 10)
	if !must(t, long, err).Log || long.Normal[0] > 60 || long.Edges[10] != 1000 {
		t.Errorf("a long tail: %+v, want widening bins", long)
	}
	if one, err := eval.NewHistogram([]float64{5, 5}, nil, 3); err != nil || one.Normal[1] != 2 {
		t.Errorf("equal scores: %+v, %v, want both in the middle", one, err)
	}
	if inf, err := eval.NewHistogram([]float64{math.Inf(-1), math.Inf(1)}, nil, 3); err != nil || inf.Below != 1 || inf.Above != 1 {
		t.Errorf("infinite scores: %+v, %v", inf, err)
	}
	for _, bins := range []int{-1, 10_001} {
		if _, err := eval.NewHistogram([]float64{1}, nil, bins); err == nil {
			t.Errorf("%d bins: got no error", bins)
		}
	}
}
