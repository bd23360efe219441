package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// byteSetsHere lists what this CPU multiplies bytes with, at any level.
func byteSetsHere() []byteSet {
	sets := []byteSet{bytesGeneric}
	for _, l := range Levels() {
		if s := byteSetOf(l); s != bytesGeneric && s != sets[len(sets)-1] {
			sets = append(sets, s)
		}
		if l == AVX512 && byteSetOf(l) == bytesVNNI { // and what a CPU without VNNI would take
			sets = append(sets, bytesAVX2)
		}
	}
	return sets
}

// fitting returns weights that keep the rule of FitsBytes, as large as it lets them.
func fitting(rnd *rand.Rand, in, out int) []int8 {
	w := make([]int8, in*out)
	real := make([]float32, in)
	for o := range out {
		for k := range real {
			real[k] = float32(rnd.NormFloat64())
		}
		scale := ByteScale(real)
		for k, v := range real {
			w[o*in+k] = int8(math.RoundToEven(float64(v) / float64(scale)))
		}
	}
	return w
}

func randomBytes(rnd *rand.Rand, in int, most int) (u []uint32, at func(k, r int) int) {
	u = make([]uint32, Quads(in)*Rows)
	b := make([]uint8, Quads(in)*4*Rows)
	for k := range in {
		for r := range Rows {
			b[k*Rows+r] = uint8(most)
			if most < 0 {
				b[k*Rows+r] = uint8(rnd.IntN(256))
			}
			u[k/4*Rows+r] |= uint32(b[k*Rows+r]) << (8 * (k % 4))
		}
	}
	return u, func(k, r int) int { return int(b[k*Rows+r]) }
}

// TestQuantizedSums holds the kernels to sums of whole numbers over all small shapes:
// with scale 1 they are the outputs, exactly.
func TestQuantizedSums(t *testing.T) {
	rnd := rand.New(rand.NewPCG(41, 42))
	shapes := [][2]int{{784, 20}, {1024, 7}, {130, 13}}
	if testing.Short() { // for emulators
		shapes = [][2]int{{130, 13}}
	}
	for _, out := range gemmSizes(1, 20) {
		for _, in := range gemmSizes(0, 70) {
			if testing.Short() && (in+out)%3 != 0 {
				continue
			}
			shapes = append(shapes, [2]int{in, out})
		}
	}
	t.Logf("sets of instructions: %v", byteSetsHere())
	for n, shape := range shapes {
		in, out := shape[0], shape[1]
		w := fitting(rnd, in, out)
		u, at := randomBytes(rnd, in, []int{-1, 255, -1, 0, -1}[n%5])
		act, slices := Activation(n%3), 1+n%4
		scale, offset := make([]float32, out), make([]float32, out)
		for o := range scale {
			scale[o], offset[o] = 1, float32(o)-3
		}
		for _, set := range byteSetsHere() {
			y := make([]float32, out*Rows)
			for i := range y {
				y[i] = 0.25
			}
			packBytes(set, w, scale, offset, in, out).Dense(y, u, act, slices)
			for o := range out {
				for r := range Rows {
					sum := 0
					for k := range in {
						sum += int(w[o*in+k]) * at(k, r)
					}
					want := [1]float32{float32(sum) + offset[o]}
					Activate(act, want[:], want[:])
					if r >= slices*lanes {
						want[0] = 0.25
					}
					if y[o*Rows+r] != want[0] {
						t.Fatalf("set %v, %d->%d %v, %d slices: neuron %d row %d = %v, want %v", set, in, out, act, slices, o, r, y[o*Rows+r], want[0])
					}
				}
			}
		}
	}
}

// TestQuantizedExtremes puts every set of four weights at the bound of the rule, with
// the largest inputs: one more would saturate.
func TestQuantizedExtremes(t *testing.T) {
	const in, out = 48, 6
	w := make([]int8, in*out)
	patterns := [][8]int8{{127, 1, 0, -127, 0, 0, -1, 0}, {64, 64, -64, -64, 0, 0, 0, 0}, {32, 32, -32, -32, 32, 32, -32, -32},
		{-127, -1, 127, 1, 0, 0, 0, 0}, {127, -127, 127, -127, 1, -1, 1, -1}, {-128 + 1, 0, 0, 0, -1, 0, 128 - 1, 1}}
	for o := range out {
		for k := range in {
			w[o*in+k] = patterns[o][k%8]
		}
		if !FitsBytes(w[o*in : (o+1)*in]) {
			t.Fatalf("pattern %d is beyond the rule", o)
		}
	}
	ones := []float32{1, 1, 1, 1, 1, 1}
	for _, most := range []int{255, 254, 1, 0} {
		u, at := randomBytes(nil, in, most)
		for _, set := range byteSetsHere() {
			y := make([]float32, out*Rows)
			packBytes(set, w, ones, make([]float32, out), in, out).Dense(y, u, Identity, tileSlices)
			for o := range out {
				sum := 0
				for k := range in {
					sum += int(w[o*in+k]) * at(k, 0)
				}
				if y[o*Rows] != float32(sum) {
					t.Errorf("set %v, inputs of %d, pattern %d: %v, want %d", set, most, o, y[o*Rows], sum)
				}
			}
		}
	}
	w[3] = 127 // 255 times 127 and 1 and 32: beyond 16 bits on AVX2
	w[2] = 127
	if FitsBytes(w[:in]) {
		t.Fatal("FitsBytes lets two weights of 127 meet")
	}
	if set := packBytes(bytesAVX2, w, ones, make([]float32, out), in, out).set; set != bytesGeneric {
		t.Errorf("weights that saturate are packed for set %v", set)
	}
}

// TestQuantizedScales: scale and offset are rounded one after the other on all sets.
func TestQuantizedScales(t *testing.T) {
	rnd := rand.New(rand.NewPCG(43, 44))
	const in, out = 61, 11
	w := fitting(rnd, in, out)
	scale, offset := gemmRandoms(rnd, out), gemmRandoms(rnd, out)
	u, _ := randomBytes(rnd, in, -1)
	var want []float32
	for _, set := range byteSetsHere() {
		y := make([]float32, out*Rows)
		packBytes(set, w, scale, offset, in, out).Dense(y, u, Leaky, tileSlices)
		if want == nil {
			want = y
		}
		for i := range y {
			if y[i] != want[i] {
				t.Fatalf("set %v: element %d is %v, plain Go %v", set, i, y[i], want[i])
			}
		}
	}
}

// TestQuantizeQuads holds the rounding of every level to plain Go's, with everything
// that a float can be.
func TestQuantizeQuads(t *testing.T) {
	rnd := rand.New(rand.NewPCG(45, 46))
	odd := []float32{0, float32(math.Copysign(0, -1)), float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 1e-45, 3e38, -3e38,
		0.5, 1.5, 2.5, 254.5, 255, 255.5, 256, -0.5, -0.49999997, 1e10, 2147483648, -2147483648}
	for in := range 19 {
		x, inverse, zero := make([]float32, in*Rows), make([]float32, in), make([]float32, in)
		for k := range in {
			inverse[k], zero[k] = 1, 0
			if k%2 == 1 {
				inverse[k], zero[k] = float32(rnd.NormFloat64()*40), float32(rnd.NormFloat64()*100)
			}
		}
		for i := range x {
			x[i] = float32(rnd.NormFloat64())
			if rnd.IntN(2) == 0 {
				x[i] = odd[rnd.IntN(len(odd))]
			}
		}
		for slices := 1; slices <= tileSlices; slices++ {
			for _, l := range Levels() {
				if testing.Short() && in%4 == 2 {
					continue
				}
				dst := make([]uint32, Quads(in)*Rows)
				for i := range dst {
					dst[i] = 0xdeadbeef
				}
				QuantizeQuads(l, dst, x, inverse, zero, slices)
				for q := range Quads(in) {
					for r := range Rows {
						want := uint32(0xdeadbeef)
						if r < slices*lanes {
							want = 0
							for k := 4 * q; k < min(4*q+4, in); k++ {
								v := float64(float32(x[k*Rows+r]*inverse[k]) + zero[k])
								b := 0.0
								if v > 0 {
									b = math.RoundToEven(min(v, 255))
								}
								want |= uint32(b) << (8 * (k % 4))
							}
						}
						if got := dst[q*Rows+r]; got != want {
							t.Fatalf("%v, %d inputs, %d slices: quad %d row %d is %08x, want %08x", l, in, slices, q, r, got, want)
						}
					}
				}
			}
		}
	}
}

// TestByteScale: the scale is the smallest that keeps the rule, up to a hundredth.
func TestByteScale(t *testing.T) {
	rnd := rand.New(rand.NewPCG(47, 48))
	for n := range 200 {
		w := gemmRandoms(rnd, n)
		scale := ByteScale(w)
		round := func(scale float64) (q []int8, fits bool) {
			q, fits = make([]int8, n), true
			for k, v := range w {
				i := math.RoundToEven(float64(v) / scale)
				fits = fits && math.Abs(i) <= 127
				q[k] = int8(min(max(i, -127), 127))
			}
			return q, fits && FitsBytes(q)
		}
		if _, ok := round(float64(scale)); !ok {
			t.Fatalf("%d weights: the scale %v breaks the rule", n, scale)
		}
		if n == 0 {
			continue
		}
		if _, ok := round(float64(scale) * 0.98); ok {
			t.Errorf("%d weights: a scale of %v would do, found %v", n, scale*0.98, scale)
		}
	}
	if got := ByteScale(make([]float32, 5)); got != 1 {
		t.Errorf("scale of zeros is %v, want 1", got)
	}
}

func TestQuantizedRefusesShortBuffers(t *testing.T) {
	q := PackBytes(Generic, make([]int8, 12), make([]float32, 4), make([]float32, 4), 3, 4)
	u, y := make([]uint32, 2*Rows), make([]float32, 4*Rows)
	for name, f := range map[string]func(){
		"short u":     func() { q.Dense(y, u[:2*Rows-1], Identity, 4) },
		"short y":     func() { q.Dense(y[:4*Rows-1], u, Identity, 4) },
		"five slices": func() { q.Dense(y, u, Identity, 5) },
		"tanh":        func() { q.Dense(y, u, Tanh, 4) },
		"weights":     func() { PackBytes(Generic, make([]int8, 11), make([]float32, 4), make([]float32, 4), 3, 4) },
		"bytes": func() {
			QuantizeQuads(Generic, u[:Rows], make([]float32, 3*Rows), make([]float32, 3), make([]float32, 3), 4)
		},
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

func TestQuantizedAllocatesNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(49, 50))
	x, y, u := gemmRandoms(rnd, 30*Rows), make([]float32, 20*Rows), make([]uint32, Quads(30)*Rows)
	one := make([]float32, 30)
	for _, l := range Levels() {
		q := PackBytes(l, fitting(rnd, 30, 20), make([]float32, 20), make([]float32, 20), 30, 20)
		if n := testing.AllocsPerRun(10, func() {
			QuantizeQuads(l, u, x, one, one, tileSlices)
			q.Dense(y, u, ReLU, tileSlices)
		}); n != 0 {
			t.Errorf("%v: %v allocations", l, n)
		}
	}
}

// BenchmarkQuantized tells the speed of int8 layers beside the float32 ones, as
// operations of the float32 ones.
func BenchmarkQuantized(b *testing.B) {
	rnd := rand.New(rand.NewPCG(51, 52))
	for _, l := range Levels() {
		if l == BF16 {
			continue
		}
		for _, shape := range [][2]int{{784, 128}, {128, 784}, {64, 64}, {1024, 1024}} {
			in, out := shape[0], shape[1]
			x, y, u := aligned[float32](in*Rows), aligned[float32](out*Rows), aligned[uint32](Quads(in)*Rows)
			copy(x, gemmRandoms(rnd, in*Rows))
			one := make([]float32, max(in, out))
			for i := range one {
				one[i] = 1
			}
			dense := PackCols(l, gemmRandoms(rnd, in*out), one[:out], in, out)
			q := PackBytes(l, fitting(rnd, in, out), one[:out], one[:out], in, out)
			run := func(name string, work func()) {
				b.Run(fmt.Sprintf("%v/%dx%d/%s", l, in, out, name), func(b *testing.B) { speed(b, l, float64(2*in*out*Rows), work) })
			}
			run("float32", func() { dense.Dense(y, x, ReLU, tileSlices) })
			run("int8", func() { q.Dense(y, u, ReLU, tileSlices) })
			run("round", func() { QuantizeQuads(l, u, x, one[:in], one[:in], tileSlices) })
		}
	}
}
