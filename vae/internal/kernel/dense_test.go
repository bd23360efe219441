package kernel_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

const rows = kernel.Rows

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// randoms returns n normal numbers.
func randoms[F kernel.Float](r *rand.Rand, n int) []F {
	v := make([]F, n)
	for i := range v {
		v[i] = F(r.NormFloat64())
	}
	return v
}

// close32 says whether got is within terms*2^-23*scale of want.
func close32(got float32, want, scale float64, terms int) bool {
	return math.Abs(float64(got)-want) <= float64(terms)*0x1p-23*scale
}

// naiveDense returns the output of neuron n for row r, and the sum of the
// products' sizes.
func naiveDense(x, w, b []float32, in, n, r int) (y, size float64) {
	y = float64(b[n])
	size = math.Abs(y)
	for k := range in {
		p := float64(w[n*in+k]) * float64(x[k*rows+r])
		y += p
		size += math.Abs(p)
	}
	return y, size
}

func naiveInput(dy, w []float32, in, out, k, r int) (dx, size float64) {
	for n := range out {
		p := float64(w[n*in+k]) * float64(dy[n*rows+r])
		dx += p
		size += math.Abs(p)
	}
	return dx, size
}

func naiveWeight(dy, x []float32, n, k int) (dw, size float64) {
	for r := range rows {
		p := float64(dy[n*rows+r])
		if k >= 0 { // the bias has an input of 1
			p *= float64(x[k*rows+r])
		}
		dw += p
		size += math.Abs(p)
	}
	return dw, size
}

// TestDenseAgreesWithFloat64 holds the three loops to a float64 reference over
// all small sizes; a few rows of each tile, other ones every time.
func TestDenseAgreesWithFloat64(t *testing.T) {
	rnd := newRand(1)
	const most = 70
	xs, dys := randoms[float32](rnd, most*rows), randoms[float32](rnd, most*rows)
	ws, bs := randoms[float32](rnd, most*most), randoms[float32](rnd, most)
	y, dx, dw, db := make([]float32, most*rows), make([]float32, most*rows), make([]float32, most*most), make([]float32, most)
	turn := 0
	for out := 1; out <= most; out++ {
		for in := 0; in <= most; in++ {
			x, dy, w, b := xs[:in*rows], dys[:out*rows], ws[:out*in], bs[:out]
			kernel.Dense(y[:out*rows], x, w, b, in, out)
			kernel.DenseInput(dx[:in*rows], dy, w, in, out)
			clear(dw)
			clear(db)
			kernel.DenseWeights(dw[:out*in], db[:out], dy, x, in, out)
			turn++
			for n := range out {
				for r := turn % 13; r < rows; r += 13 {
					if want, size := naiveDense(x, w, b, in, n, r); !close32(y[n*rows+r], want, size, in) {
						t.Fatalf("Dense %dx%d: y[%d][%d] = %v, want %v", out, in, n, r, y[n*rows+r], want)
					}
				}
				if want, size := naiveWeight(dy, x, n, -1); !close32(db[n], want, size, rows) {
					t.Fatalf("DenseWeights %dx%d: db[%d] = %v, want %v", out, in, n, db[n], want)
				}
			}
			for k := range in {
				for r := turn % 13; r < rows; r += 13 {
					if want, size := naiveInput(dy, w, in, out, k, r); !close32(dx[k*rows+r], want, size, out) {
						t.Fatalf("DenseInput %dx%d: dx[%d][%d] = %v, want %v", out, in, k, r, dx[k*rows+r], want)
					}
				}
				n := (turn + k) % out
				if want, size := naiveWeight(dy, x, n, k); !close32(dw[n*in+k], want, size, rows) {
					t.Fatalf("DenseWeights %dx%d: dw[%d][%d] = %v, want %v", out, in, n, k, dw[n*in+k], want)
				}
			}
		}
	}
}

// TestDenseIsOneChain holds every output to the exact bits of the chain that the
// package promises, whatever register shape computes it.
func TestDenseIsOneChain(t *testing.T) {
	rnd := newRand(2)
	for _, size := range [][2]int{{1, 1}, {1, 9}, {2, 3}, {3, 5}, {4, 4}, {5, 17}, {7, 30}, {6, 1}, {9, 2}, {33, 70}, {16, 1000}} {
		out, in := size[0], size[1]
		x, dy := randoms[float32](rnd, in*rows), randoms[float32](rnd, out*rows)
		w, b := randoms[float32](rnd, out*in), randoms[float32](rnd, out)
		y, dx := make([]float32, out*rows), make([]float32, in*rows)
		dw, db := randoms[float32](rnd, out*in), randoms[float32](rnd, out)
		dw0, db0 := append([]float32(nil), dw...), append([]float32(nil), db...)
		kernel.Dense(y, x, w, b, in, out)
		kernel.DenseInput(dx, dy, w, in, out)
		kernel.DenseWeights(dw, db, dy, x, in, out)
		for i, got := range y {
			want := b[i/rows]
			for k := range in {
				want += float32(w[i/rows*in+k] * x[k*rows+i%rows])
			}
			if got != want {
				t.Fatalf("Dense %dx%d: element %d = %v, want %v", out, in, i, got, want)
			}
		}
		for i, got := range dx {
			var want float32
			for n := range out {
				want += float32(w[n*in+i/rows] * dy[n*rows+i%rows])
			}
			if got != want {
				t.Fatalf("DenseInput %dx%d: element %d = %v, want %v", out, in, i, got, want)
			}
		}
		for i, got := range dw {
			var want float32
			for r := range rows {
				want += float32(dy[i/in*rows+r] * x[i%in*rows+r])
			}
			if want += dw0[i]; got != want {
				t.Fatalf("DenseWeights %dx%d: element %d = %v, want %v", out, in, i, got, want)
			}
		}
		for n, got := range db {
			var want float32
			for r := range rows {
				want += dy[n*rows+r]
			}
			if want += db0[n]; got != want {
				t.Fatalf("DenseWeights %dx%d: bias %d = %v, want %v", out, in, n, got, want)
			}
		}
	}
}

// TestDenseKeepsNaNInItsRow and infinities: what is not finite in one row stays
// in that row.
func TestDenseKeepsNaNInItsRow(t *testing.T) {
	const in, out, bad = 11, 7, 29
	rnd := newRand(3)
	w, b := randoms[float32](rnd, out*in), randoms[float32](rnd, out)
	for _, v := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
		x, clean := randoms[float32](rnd, in*rows), make([]float32, out*rows)
		kernel.Dense(clean, x, w, b, in, out)
		x[5*rows+bad], x[6*rows+bad] = v, -v
		y := make([]float32, out*rows)
		kernel.Dense(y, x, w, b, in, out)
		for i := range y {
			if i%rows != bad && y[i] != clean[i] {
				t.Fatalf("%v in row %d changes row %d", v, bad, i%rows)
			}
			if i%rows == bad && !math.IsNaN(float64(y[i])) && !math.IsInf(float64(y[i]), 0) {
				t.Fatalf("%v in row %d gives %v", v, bad, y[i])
			}
		}
	}
}

func TestDensePanicsOnAWrongLength(t *testing.T) {
	const in, out = 3, 2
	s := func(n int) []float32 { return make([]float32, n) }
	for name, f := range map[string]func(){
		"short x":       func() { kernel.Dense(s(out*rows), s(in*rows-1), s(in*out), s(out), in, out) },
		"long y":        func() { kernel.Dense(s(out*rows+1), s(in*rows), s(in*out), s(out), in, out) },
		"short weights": func() { kernel.Dense(s(out*rows), s(in*rows), s(in*out-1), s(out), in, out) },
		"short bias":    func() { kernel.Dense(s(out*rows), s(in*rows), s(in*out), s(out-1), in, out) },
		"short dx":      func() { kernel.DenseInput(s(in*rows-1), s(out*rows), s(in*out), in, out) },
		"input weights": func() { kernel.DenseInput(s(in*rows), s(out*rows), s(in*out+1), in, out) },
		"short dy":      func() { kernel.DenseWeights(s(in*out), s(out), s(out*rows-1), s(in*rows), in, out) },
		"long dw":       func() { kernel.DenseWeights(s(in*out+1), s(out), s(out*rows), s(in*rows), in, out) },
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

func TestLoopsAllocateNothing(t *testing.T) {
	const in, out = 13, 6
	s := func(n int) []float32 { return make([]float32, n) }
	x, y, w, b := s(in*rows), s(out*rows), s(in*out), s(out)
	if n := testing.AllocsPerRun(10, func() {
		kernel.Dense(y, x, w, b, in, out)
		kernel.DenseInput(x, y, w, in, out)
		kernel.DenseWeights(w, b, y, x, in, out)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkDense(b *testing.B) {
	for _, size := range [][2]int{{784, 128}, {128, 64}, {32, 64}, {64, 784}} {
		in, out := size[0], size[1]
		rnd := newRand(1)
		x, y := randoms[float32](rnd, in*rows), randoms[float32](rnd, out*rows)
		w, bias := randoms[float32](rnd, out*in), randoms[float32](rnd, out)
		dw, dx := make([]float32, out*in), make([]float32, in*rows)
		for name, f := range map[string]func(){
			"forward": func() { kernel.Dense(y, x, w, bias, in, out) },
			"input":   func() { kernel.DenseInput(dx, y, w, in, out) },
			"weights": func() { kernel.DenseWeights(dw, bias, y, x, in, out) },
		} {
			b.Run(fmt.Sprintf("in=%d/out=%d/pass=%s", in, out, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					f()
				}
				b.ReportMetric(float64(b.N)*float64(in*out*rows)/b.Elapsed().Seconds()/1e9, "GMAC/s")
			})
		}
	}
}
