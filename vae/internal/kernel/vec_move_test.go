package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
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
	for _, s := range []standard{newStandard(0, 1, 1e9), newStandard(1e6+0.123456789, 0.01, 10), newStandard(-3, 7, 2)} {
		for n := range Rows + 1 {
			src32, src64 := make([]float32, n), make([]float64, n)
			for i := range n {
				src64[i] = s.mean + rnd.NormFloat64()/s.inv64
				if rnd.IntN(8) == 0 {
					src64[i] = odd[rnd.IntN(len(odd))]
				}
				src32[i] = float32(src64[i])
			}
			for _, l := range Levels() {
				dst := normals(rnd, Rows)
				bad := vecPackF32(l, dst, src32, &s)
				checkPacked(t, fmt.Sprint(l, " float32 ", n), dst, bad, n, &s, func(i int) float64 { return float64(src32[i]) })
				dst = normals(rnd, Rows)
				bad = vecPackF64(l, dst, src64, &s)
				checkPacked(t, fmt.Sprint(l, " float64 ", n), dst, bad, n, &s, func(i int) float64 { return src64[i] })
			}
		}
	}
}

func checkPacked(t *testing.T, what string, dst []float32, bad uint64, n int, s *standard, src func(int) float64) {
	t.Helper()
	for i, got := range dst {
		want, isBad := 0.0, false
		if i < n {
			v := src(i)
			isBad = v-v != 0
			if !isBad {
				want = min(max((v-s.mean)*s.inv64, -float64(s.limit)), float64(s.limit))
			}
		}
		if bad>>i&1 == 1 != isBad {
			t.Fatalf("%s: bad bit of lane %d = %v, want %v", what, i, !isBad, isBad)
		}
		if math.Abs(float64(got)-want) > 1e-6*math.Abs(want)+1e-7 {
			t.Fatalf("%s: lane %d = %v, want %v", what, i, got, want)
		}
	}
}

// TestVecPackLevels holds the native levels to one another.
func TestVecPackLevels(t *testing.T) {
	rnd := newRand()
	for range 200 {
		s := newStandard(rnd.NormFloat64()*10, math.Exp(rnd.NormFloat64()), 5)
		src := normals(rnd, Rows)
		src64 := make([]float64, Rows)
		for i, v := range src {
			src64[i] = float64(v) + 1e-9*rnd.Float64()
		}
		dst64, want64 := make([]float32, Rows), make([]float32, Rows)
		packF64(Generic, &want64[0], &src64[0], 4, &s)
		for _, l := range natives() {
			vecPackF64(l, dst64, src64, &s)
			if !same(dst64, want64) {
				t.Fatalf("%v: float64 columns differ from plain Go", l)
			}
		}
	}
}

func TestVecPackRow(t *testing.T) {
	src := normals(newRand(), 37)
	var at []unsafe.Pointer
	for i := range src {
		at = append(at, unsafe.Pointer(&src[len(src)-1-i]))
	}
	dst := make([]float32, len(at))
	vecPackRow(dst, at)
	slices.Reverse(dst)
	if !same(dst, src) {
		t.Errorf("got %v, want %v", dst, src)
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
