package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestSparseTouchesNothingElse runs the sparse kernels with each buffer against a page
// that faults.
func TestSparseTouchesNothingElse(t *testing.T) {
	rnd := rand.New(rand.NewPCG(61, 62))
	for _, l := range Levels() {
		for _, behind := range []bool{true, false} {
			for _, shape := range [][2]int{{0, 3}, {1, 1}, {2, 5}, {7, 6}, {19, 17}, {33, 64}, {130, 7}} {
				for _, block := range []int{1, 4} {
					for _, density := range []float64{0, 0.2, 1} {
						in, out := shape[0], shape[1]
						if testing.Short() && (density != 0.2 || in%16 == 0) { // for emulators
							continue
						}
						t.Run(fmt.Sprintf("%v/behind=%v/%dx%d/block=%d/density=%v", l, behind, in, out, block, density), func(t *testing.T) {
							guard := func(v []float32) []float32 { return fenced(t, v, behind) }
							s := PackSparse(l, pruned(rnd, in, out, block, density), gemmRandoms(rnd, out), in, out, block)
							s.w, s.b, s.steps, s.counts = guard(s.w), guard(s.b), fenced(t, s.steps, behind), fenced(t, s.counts, behind)
							x, y := guard(gemmRandoms(rnd, in*Rows)), guard(make([]float32, out*Rows))
							for slices := 1; slices <= tileSlices; slices++ {
								s.Dense(y, x, Leaky, slices)
							}
						})
					}
				}
			}
		}
	}
}

// TestQuantizeTouchesNothingElse does so with int8 layers and the rounding of their
// inputs.
func TestQuantizeTouchesNothingElse(t *testing.T) {
	rnd := rand.New(rand.NewPCG(63, 64))
	for _, l := range Levels() {
		for _, behind := range []bool{true, false} {
			for _, shape := range [][2]int{{0, 3}, {1, 1}, {2, 5}, {7, 6}, {8, 3}, {19, 17}, {33, 64}, {130, 7}} {
				in, out := shape[0], shape[1]
				t.Run(fmt.Sprintf("%v/behind=%v/%dx%d", l, behind, in, out), func(t *testing.T) {
					guard := func(v []float32) []float32 { return fenced(t, v, behind) }
					q := PackBytes(l, fitting(rnd, in, out), gemmRandoms(rnd, out), gemmRandoms(rnd, out), in, out)
					q.w, q.init, q.scale, q.offset = fenced(t, q.w, behind), fenced(t, q.init, behind), guard(q.scale), guard(q.offset)
					x, y := guard(gemmRandoms(rnd, in*Rows)), guard(make([]float32, out*Rows))
					inverse, zero := guard(gemmRandoms(rnd, in)), guard(gemmRandoms(rnd, in))
					u := fenced(t, make([]uint32, Quads(in)*Rows), behind)
					for slices := 1; slices <= tileSlices; slices++ {
						QuantizeQuads(l, u, x, inverse, zero, slices)
						q.Dense(y, u, Leaky, slices)
					}
				})
			}
		}
	}
}
