package vae

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestSincos holds the sine and cosine of turns to the math package's.
func TestSincos(t *testing.T) {
	for i := range 100001 {
		turn := float64(i) / 100000
		sin, cos := sincos(turn)
		ws, wc := math.Sincos(2 * math.Pi * turn)
		if math.Abs(sin-ws) > 1e-15 || math.Abs(cos-wc) > 1e-15 {
			t.Fatalf("sincos(%v) = %v, %v, want %v, %v", turn, sin, cos, ws, wc)
		}
	}
}

// TestCivil holds the calendar to the time package's, over all leap years.
func TestCivil(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	check := func(sec, nanos int64) {
		got, u := civil(sec, nanos), time.Unix(sec, nanos).UTC()
		want := moment{(float64(u.Hour()*3600+u.Minute()*60+u.Second()) + float64(nanos)/1e9) / 86400,
			float64(u.Weekday()), float64(u.Day() - 1), float64(u.YearDay() - 1)}
		if got != want {
			t.Fatalf("civil(%d, %d) = %+v, want %+v (%v)", sec, nanos, got, want, u)
		}
	}
	for day := int64(-1_200_000); day < 1_200_000; day++ { // more than years -1300 to 5200
		check(day*86400, 0)
		if day%97 == 0 {
			check(day*86400+86399, 999_999_999)
		}
	}
	for range 100000 {
		check(int64(rng.Uint64())>>rng.IntN(60)/1000, rng.Int64N(1e9))
	}
}

// TestBitsAt holds the bits of a bitmap to those read one by one, to its end.
func TestBitsAt(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	for size := 1; size < 20; size++ {
		bitmap := make([]byte, size)
		for i := range bitmap {
			bitmap[i] = byte(rng.Uint32())
		}
		for at := range 8 * size {
			for n := 0; n <= min(64, 8*size-at); n++ {
				var want uint64
				for i := range n {
					want |= uint64(bitmap[(at+i)/8]>>((at+i)%8)&1) << i
				}
				if got := bitsAt(bitmap, at, n); got != want {
					t.Fatalf("bitsAt(%x, %d, %d) = %x, want %x", bitmap, at, n, got, want)
				}
			}
		}
	}
}

// TestNotUnit finds every value outside [0,1], at every place, and no other.
func TestNotUnit(t *testing.T) {
	above, below := math.Nextafter32(1, 2), math.Nextafter32(0, -1)
	for n := 1; n <= TileRows; n++ {
		v := make([]float32, n)
		for i := range v {
			v[i] = []float32{0, 1, 0.5, math.Nextafter32(1, 0), math.SmallestNonzeroFloat32}[i%5]
		}
		if notUnit(v) {
			t.Fatalf("%d values of [0,1] seem to be outside", n)
		}
		for i := range v {
			for _, odd := range []float32{above, below, 2, -1, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), -float32(math.NaN())} {
				was := v[i]
				v[i] = odd
				if !notUnit(v) {
					t.Fatalf("%v at %d of %d is not seen", odd, i, n)
				}
				v[i] = was
			}
		}
	}
}

// TestMissingColumnsAreCounted: the planes count columns per row.
func TestMissingColumnsAreCounted(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	var w work
	var want [TileRows]int
	for range 70000 {
		rows := rng.Uint64() & rng.Uint64()
		if w.planes[planes-1]&rows != 0 {
			break // MaxColumns
		}
		w.gone(rows)
		for r := range want {
			want[r] += int(rows >> r & 1)
		}
	}
	for r, n := range want {
		got := 0
		for i, p := range w.planes {
			got |= int(p>>r&1) << i
		}
		if got != n {
			t.Fatalf("row %d: %d columns, want %d", r, got, n)
		}
	}
}

// TestTruths: a column of numbers is taken as it is only where every one is 0 or 1.
func TestTruths(t *testing.T) {
	odd := []float64{0.5, -1, 2, 0.25, 1.0000001, math.NaN(), math.Inf(1), math.Copysign(0, -1), 5e-324, 1e-45, -0.5, 1.5}
	for n := range 67 {
		src32, src64 := make([]float32, n), make([]float64, n)
		for i := range n {
			src64[i] = float64(i * i % 3 % 2)
			src32[i] = float32(src64[i])
		}
		dst := make([]float32, n)
		if !truths32(dst, src32) || !slices.Equal(dst, src32) {
			t.Fatalf("%d zeros and ones became %v", n, dst)
		}
		clear(dst)
		if !truths64(dst, src64) || !slices.Equal(dst, src32) {
			t.Fatalf("%d zeros and ones of float64 became %v", n, dst)
		}
		for i := range n {
			was := src64[i]
			for _, v := range odd {
				src64[i], src32[i] = v, float32(v)
				if truths64(dst, src64) {
					t.Fatalf("%v at %d of %d is not seen", v, i, n)
				}
				if x := float32(v); (x != 0 || math.Signbit(float64(x))) && x != 1 && truths32(dst, src32) {
					t.Fatalf("%v at %d of %d is not seen in float32", v, i, n)
				}
			}
			src64[i], src32[i] = was, float32(was)
		}
	}
}
