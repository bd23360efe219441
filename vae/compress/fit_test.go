package compress

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// TestFitFindsSparseWeights plants weights of which only a few are other than zero
// and hides them under noise: they must be found again, at their places.
func TestFitFindsSparseWeights(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const n, in, out, keep = 600, 40, 8, 6
	x, y := mat.NewDense(n, in, nil), mat.NewDense(n, out, nil)
	w0 := make([]float32, out*in)
	truth := map[int][]int{}
	for g := 0; g < out; g += 4 {
		truth[g] = rng.Perm(in)[:keep]
		for _, k := range truth[g] {
			for o := g; o < g+4; o++ {
				w0[o*in+k] = float32(1 + rng.Float64())
			}
		}
	}
	for r := range n {
		common := rng.NormFloat64()
		for k := range in {
			x.Set(r, k, rng.NormFloat64()+common)
		}
		for o := range out {
			s := 0.5
			for k := range in {
				s += float64(w0[o*in+k]) * x.At(r, k)
			}
			y.Set(r, o, s+0.01*rng.NormFloat64())
		}
	}
	for i := range w0 {
		w0[i] += float32(0.05 * rng.NormFloat64())
	}
	f, err := newFit(x, y, w0)
	if err != nil {
		t.Fatal(err)
	}
	for g := 0; g < out; g += 4 {
		kept, w, bias, err := f.prune(g, g+4, keep)
		if err != nil {
			t.Fatal(err)
		}
		if len(kept) != keep {
			t.Fatalf("%d inputs kept, want %d", len(kept), keep)
		}
		for _, k := range truth[g] {
			found := false
			for i, have := range kept {
				if have != k {
					continue
				}
				found = true
				for o := range w {
					if d := math.Abs(w[o][i] - float64(w0[(g+o)*in+k])); d > 0.2 {
						t.Errorf("output %d, input %d: %v, planted about %v", g+o, k, w[o][i], w0[(g+o)*in+k])
					}
				}
			}
			if !found {
				t.Errorf("group %d lost input %d; it kept %v", g, k, kept)
			}
		}
		for o, b := range bias {
			if math.Abs(b-0.5) > 0.05 {
				t.Errorf("bias of output %d is %v, planted 0.5", g+o, b)
			}
		}
	}
}

// TestFitKeepsWhatRowsDoNotTell holds the fit to the weights it began with where
// two inputs are always equal, and where one never varies.
func TestFitKeepsWhatRowsDoNotTell(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const n, in = 200, 3
	w0 := []float32{2, 1, 5}
	x, y := mat.NewDense(n, in, nil), mat.NewDense(n, 1, nil)
	for r := range n {
		v := rng.NormFloat64()
		x.SetRow(r, []float64{v, v, 0})
		y.Set(r, 0, 3*v)
	}
	f, err := newFit(x, y, w0)
	if err != nil {
		t.Fatal(err)
	}
	_, w, bias, err := f.prune(0, 1, in)
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range w0 {
		if math.Abs(w[0][k]-float64(want)) > 0.01 {
			t.Errorf("weight %d is %v, want it to stay %v", k, w[0][k], want)
		}
	}
	if math.Abs(bias[0]) > 1e-6 {
		t.Errorf("bias is %v, want 0", bias[0])
	}
	kept, w, _, err := f.prune(0, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(kept) != 1 || kept[0] == 2 || math.Abs(w[0][0]-3) > 0.01 {
		t.Errorf("one input kept: %v with %v, want input 0 or 1 with 3: it makes up for the other", kept, w)
	}
}
