package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// pruned returns weights of which about a share is other than zero, in blocks.
func pruned(rnd *rand.Rand, in, out, block int, density float64) []float32 {
	w := make([]float32, in*out)
	for from := 0; from < out; from += block {
		for k := range in {
			if rnd.Float64() >= density {
				continue
			}
			for o := from; o < min(from+block, out); o++ {
				w[o*in+k] = float32(rnd.NormFloat64())
			}
		}
	}
	return w
}

// TestSparseIsDenseWithZeros holds the sparse kernels to the bits of the dense ones
// over all small shapes.
func TestSparseIsDenseWithZeros(t *testing.T) {
	rnd := rand.New(rand.NewPCG(31, 32))
	const most = 70
	xs, bs := gemmRandoms(rnd, most*Rows), gemmRandoms(rnd, most)
	want, got := make([]float32, most*Rows), make([]float32, most*Rows)
	for _, out := range gemmSizes(1, 30) {
		for _, in := range gemmSizes(0, most) {
			if testing.Short() && (in+out)%3 == 1 { // for emulators
				continue
			}
			density := []float64{0, 0.1, 0.5, 1}[(in+out)%4]
			act, slices := Activation((in+out)%3), 1+(in+out/3)%4
			for _, block := range []int{1, 4} {
				x, b, w := xs[:in*Rows], bs[:out], pruned(rnd, in, out, block, density)
				for _, l := range Levels() {
					if l == BF16 {
						continue
					}
					PackCols(l, w, b, in, out).Dense(want, x, act, slices)
					s := PackSparse(l, w, b, in, out, block)
					for i := range got {
						got[i] = 7
					}
					s.Dense(got, x, act, slices)
					for o := range out {
						for r := range Rows {
							i := o*Rows + r
							if r >= slices*lanes {
								if got[i] != 7 {
									t.Fatalf("%v %d->%d in blocks of %d: lane %d beyond %d slices was written", l, in, out, block, r, slices)
								}
							} else if got[i] != want[i] {
								t.Fatalf("%v %d->%d in blocks of %d, density %v: neuron %d row %d = %v, dense %v", l, in, out, block, density, o, r, got[i], want[i])
							}
						}
					}
				}
			}
		}
	}
}

// TestSparseParts computes runs of groups alone.
func TestSparseParts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(33, 34))
	const in, out = 37, 27
	x, b := gemmRandoms(rnd, in*Rows), gemmRandoms(rnd, out)
	for _, block := range []int{1, 4} {
		w := pruned(rnd, in, out, block, 0.3)
		for _, l := range Levels() {
			s := PackSparse(l, w, b, in, out, block)
			all := make([]float32, out*Rows)
			s.Dense(all, x, ReLU, tileSlices)
			for g0 := range s.Groups() + 1 {
				for g1 := g0; g1 <= s.Groups(); g1++ {
					from, to := s.Span(g0, g1)
					y := make([]float32, (to-from)*Rows)
					s.DensePart(y, x, g0, g1, ReLU, tileSlices)
					for i, v := range y {
						if v != all[from*Rows+i] {
							t.Fatalf("%v groups %d to %d of blocks of %d: element %d is %v, alone %v", l, g0, g1, block, i, all[from*Rows+i], v)
						}
					}
				}
			}
		}
	}
}

// TestSparseNaN: an input that is not finite reaches its own row, and only outputs
// that list it.
func TestSparseNaN(t *testing.T) {
	const in, out, bad, row = 9, 8, 4, 21
	w := make([]float32, in*out)
	for o := range 4 {
		w[o*in+bad] = 1
	}
	for o := range out {
		w[o*in] = 2
	}
	x := make([]float32, in*Rows)
	x[bad*Rows+row] = float32(math.NaN())
	for _, l := range Levels() {
		y := make([]float32, out*Rows)
		PackSparse(l, w, make([]float32, out), in, out, 4).Dense(y, x, ReLU, tileSlices)
		for o := range out {
			for r := range Rows {
				if nan := y[o*Rows+r] != y[o*Rows+r]; nan != (o < 4 && r == row) {
					t.Fatalf("%v: output %d row %d is NaN: %v", l, o, r, nan)
				}
			}
		}
	}
}

// TestSparseRefusesShortBuffers: what does not fit is a mistake of the caller.
func TestSparseRefusesShortBuffers(t *testing.T) {
	s := PackSparse(Generic, make([]float32, 12), make([]float32, 4), 3, 4, 4)
	x, y := make([]float32, 3*Rows), make([]float32, 4*Rows)
	for name, f := range map[string]func(){
		"short x":        func() { s.Dense(y, x[:3*Rows-1], Identity, 4) },
		"short y":        func() { s.Dense(y[:4*Rows-1], x, Identity, 4) },
		"five slices":    func() { s.Dense(y, x, Identity, 5) },
		"tanh":           func() { s.Dense(y, x, Tanh, 4) },
		"no such groups": func() { s.DensePart(y, x, 0, 2, Identity, 4) },
		"blocks of two":  func() { PackSparse(Generic, make([]float32, 12), make([]float32, 4), 3, 4, 2) },
		"weights":        func() { PackSparse(Generic, make([]float32, 11), make([]float32, 4), 3, 4, 4) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func TestSparseAllocatesNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(35, 36))
	x, y := gemmRandoms(rnd, 30*Rows), make([]float32, 20*Rows)
	for _, l := range Levels() {
		s := PackSparse(l, pruned(rnd, 30, 20, 4, 0.2), make([]float32, 20), 30, 20, 4)
		if n := testing.AllocsPerRun(10, func() { s.Dense(y, x, ReLU, tileSlices) }); n != 0 {
			t.Errorf("%v: %v allocations", l, n)
		}
	}
}

func TestChooseBlock(t *testing.T) {
	rnd := rand.New(rand.NewPCG(37, 38))
	for _, c := range []struct {
		block   int
		density float64
		want    int
	}{{4, 1, 0}, {4, 0.95, 0}, {4, 0.5, 4}, {4, 0.1, 4}, {1, 0.6, 0}, {1, 0.05, 1}} {
		if got := ChooseBlock(pruned(rnd, 200, 64, c.block, c.density), 200, 64); got != c.want {
			t.Errorf("density %v in blocks of %d: ChooseBlock = %d, want %d", c.density, c.block, got, c.want)
		}
	}
}

// BenchmarkSparse tells the speed of pruned layers as if they were dense, beside the
// dense kernel.
func BenchmarkSparse(b *testing.B) {
	rnd := rand.New(rand.NewPCG(39, 40))
	for _, l := range Levels() {
		if l == BF16 {
			continue
		}
		for _, shape := range [][2]int{{784, 128}, {128, 784}, {64, 64}, {1024, 1024}} {
			in, out := shape[0], shape[1]
			x, y, bias := aligned[float32](in*Rows), aligned[float32](out*Rows), make([]float32, out)
			copy(x, gemmRandoms(rnd, in*Rows))
			run := func(name string, work func()) {
				b.Run(fmt.Sprintf("%v/%dx%d/%s", l, in, out, name), func(b *testing.B) { speed(b, l, float64(2*in*out*Rows), work) })
			}
			dense := PackCols(l, pruned(rnd, in, out, 1, 1), bias, in, out)
			run("dense", func() { dense.Dense(y, x, ReLU, tileSlices) })
			for _, block := range []int{4, 1} {
				for _, d := range []float64{1, .85, .7, .5, .38, .3, .2, .1, .05} {
					s := PackSparse(l, pruned(rnd, in, out, block, d), bias, in, out, block)
					run(fmt.Sprintf("block=%d/density=%v", block, d), func() { s.Dense(y, x, ReLU, tileSlices) })
				}
			}
		}
	}
}
