package kernel

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

func newRand() *rand.Rand { return rand.New(rand.NewPCG(7, 11)) }

// normals returns n normal numbers.
func normals(rnd *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rnd.NormFloat64())
	}
	return v
}

// same tells whether a and b have the same bits, any NaN being like another.
func same(a, b []float32) bool { return differs(a, b) < 0 }

// differs returns the first index at which a and b do not have the same bits.
func differs(a, b []float32) int {
	if len(a) != len(b) {
		return 0
	}
	for i, v := range a {
		if w := b[i]; math.Float32bits(v) != math.Float32bits(w) && (v == v || w == w) {
			return i
		}
	}
	return -1
}

func TestVecTranspose(t *testing.T) {
	rnd := newRand()
	for n := range 40 {
		src := normals(rnd, n*Rows)
		for _, l := range Levels() {
			dst := normals(rnd, (n+Lanes-1)/Lanes*Rows*Lanes)
			vecTranspose(l, dst, src, n)
			for i, got := range dst {
				f, r := i/(Rows*Lanes)*Lanes+i%Lanes, i/Lanes%Rows
				want := float32(0)
				if f < n {
					want = src[f*Rows+r]
				}
				if got != want {
					t.Fatalf("%v: %d features: feature %d of row %d = %v, want %v", l, n, f, r, got, want)
				}
			}
		}
	}
}

func TestVecGather(t *testing.T) {
	rnd := newRand()
	for n := range 50 {
		stride := n + rnd.IntN(3)
		store := normals(rnd, 100*stride)
		for _, l := range Levels() {
			var rows [Rows]*float32
			index := rnd.Perm(100)
			if n == 0 {
				continue
			}
			for i := range rows {
				rows[i] = &store[index[i]*stride]
			}
			dst := make([]float32, n*Rows)
			vecGatherRows(l, dst, &rows, n)
			for i, got := range dst {
				if want := store[index[i%Rows]*stride+i/Rows]; got != want {
					t.Fatalf("%v: %d features: feature %d of lane %d = %v, want %v", l, n, i/Rows, i%Rows, got, want)
				}
			}
		}
	}
}

func TestVecPack(t *testing.T) {
	rnd := newRand()
	inf := math.Inf(1)
	odd := []float64{math.NaN(), inf, -inf, 0, 1e30, -1e30, 1e-310, math.MaxFloat32}
	for _, s := range []standard{{0, 1, 1e9}, {1e6 + 0.123456789, 0.01, 10}, {-3, 7, 2}} {
		for n := range Rows + 1 {
			src32, src64 := make([]float32, n), make([]float64, n)
			for i := range n {
				src64[i] = s.mean + rnd.NormFloat64()*s.scale
				if rnd.IntN(8) == 0 {
					src64[i] = odd[rnd.IntN(len(odd))]
				}
				src32[i] = float32(src64[i])
			}
			for _, l := range Levels() {
				dst := slices.Repeat([]float32{77}, Rows)
				bad := s.pack32(l, dst, src32)
				checkPacked(t, fmt.Sprint(l, " float32 ", n), dst, bad, n, s, func(i int) float64 { return float64(src32[i]) })
				dst = slices.Repeat([]float32{77}, Rows)
				bad = Pack64(l, dst, src64, s.mean, 1/s.scale, s.limit)
				checkPacked(t, fmt.Sprint(l, " float64 ", n), dst, bad, n, s, func(i int) float64 { return src64[i] })
			}
		}
	}
}

func checkPacked(t *testing.T, what string, dst []float32, bad uint64, n int, s standard, src func(int) float64) {
	t.Helper()
	for i, got := range dst {
		if i >= n {
			if got != 77 {
				t.Fatalf("%s: lane %d, beyond the last, was written", what, i)
			}
			continue
		}
		v := src(i)
		want, isBad := 0.0, v-v != 0
		if !isBad {
			want = min(max((v-s.mean)/s.scale, -float64(s.limit)), float64(s.limit))
		}
		if bad>>i&1 == 1 != isBad {
			t.Fatalf("%s: bad bit of lane %d = %v, want %v", what, i, !isBad, isBad)
		}
		if math.Abs(float64(got)-want) > 1e-6*math.Abs(want)+1e-7 {
			t.Fatalf("%s: lane %d = %v, want %v", what, i, got, want)
		}
	}
}

// TestVecPackLevels demands the same bits of all levels, and of rows and columns.
func TestVecPackLevels(t *testing.T) {
	rnd := newRand()
	odd := specials()
	for range 2000 {
		s := standard{rnd.NormFloat64() * 10, math.Exp(rnd.NormFloat64()), 5}
		src := normals(rnd, Rows)
		src64 := make([]float64, Rows)
		for i := range src {
			if rnd.IntN(16) == 0 {
				src[i] = odd[rnd.IntN(len(odd))]
			}
			src64[i] = float64(src[i]) + 1e-9*rnd.Float64()
		}
		want32, want64 := make([]float32, Rows), make([]float32, Rows)
		bad32 := s.pack32(Generic, want32, src)
		bad64 := Pack64(Generic, want64, src64, s.mean, 1/s.scale, s.limit)
		for _, l := range Levels() {
			got32, got64, row := make([]float32, Rows), make([]float32, Rows), slices.Clone(src)
			if bad := s.pack32(l, got32, src); bad != bad32 || !same(got32, want32) {
				t.Fatalf("%v: float32 column: bad %x, want %x; lane %d differs", l, bad, bad32, differs(got32, want32))
			}
			if bad := Pack64(l, got64, src64, s.mean, 1/s.scale, s.limit); bad != bad64 || !same(got64, want64) {
				t.Fatalf("%v: float64 column: bad %x, want %x; lane %d differs", l, bad, bad64, differs(got64, want64))
			}
			n := rnd.IntN(Rows + 1)
			hi, inv, lo := s.split()
			all := func(v float32) []float32 { return slices.Repeat([]float32{v}, n) }
			if ok := PackRow(l, row[:n], all(hi), all(inv), all(lo), s.limit); ok != (bad32<<(Rows-n) == 0) || !same(row[:n], want32[:n]) {
				t.Fatalf("%v: row of %d: %v, or lane %d differs", l, n, ok, differs(row[:n], want32[:n]))
			}
		}
	}
}

// A standard is how a column is standardised.
type standard struct {
	mean, scale float64
	limit       float32
}

func (s standard) split() (hi, inv, lo float32) {
	hi = float32(s.mean)
	return hi, float32(1 / s.scale), float32((s.mean - float64(hi)) / s.scale)
}

func (s standard) pack32(l Level, dst, src []float32) uint64 {
	hi, inv, lo := s.split()
	return Pack32(l, dst, src, nil, hi, inv, lo, s.limit)
}

// TestFMA32 is against exact arithmetic.
func TestVecFMA32(t *testing.T) {
	rnd := newRand()
	for range 100000 {
		x, y := float32(rnd.NormFloat64()), float32(rnd.NormFloat64())
		z := float32(rnd.NormFloat64() * math.Ldexp(1, rnd.IntN(60)-40))
		if rnd.IntN(2) == 0 { // halfway cases
			x, y = float32(1+rnd.IntN(1<<12)), float32(1+rnd.IntN(1<<12))
			z = float32(math.Ldexp(float64(1+rnd.IntN(1<<12)), rnd.IntN(40)))
		}
		exact := new(big.Float).SetPrec(300).Mul(big.NewFloat(float64(x)), big.NewFloat(float64(y)))
		exact.Add(exact, big.NewFloat(float64(z)))
		if want, _ := exact.Float32(); fma32(x, y, z) != want {
			t.Fatalf("fma32(%v, %v, %v) = %v, want %v", x, y, z, fma32(x, y, z), want)
		}
	}
}

func TestVecChain(t *testing.T) {
	rnd := newRand()
	for rows := range 20 {
		for _, n := range []int{0, 1, 2, 7, 16, 33, 100} {
			stride := n + rnd.IntN(4)
			q, start := normals(rnd, max(1, rows*stride)), normals(rnd, rows)
			want := slices.Clone(start)
			for i := range want {
				for _, v := range q[i*stride : i*stride+n] {
					want[i] += v
				}
			}
			for _, l := range Levels() {
				acc := slices.Clone(start)
				vecChain(l, acc, q, n, stride)
				if !same(acc, want) {
					t.Fatalf("%v: %d rows of %d: got %v, want %v", l, rows, n, acc, want)
				}
			}
		}
	}
}
