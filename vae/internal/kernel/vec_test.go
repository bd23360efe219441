package kernel

import (
	"fmt"
	"math"
	"testing"
)

// natives are the levels with code of their own.
func natives() []Level { return Levels()[1:] }

// activation is one of the functions in float64.
func exact(a Activation, x float64) float64 {
	switch a {
	case ReLU:
		return math.Max(x, 0)
	case Leaky:
		if x < 0 {
			return float64(float32(leakySlope)) * x
		}
		return x
	}
	switch {
	case math.IsInf(x, -1) && (a == GELU || a == SiLU):
		return 0
	case a == GELU && math.IsInf(x, 1):
		return x
	}
	return activate(a, x)
}

// dense returns floats over the whole range: every 2^step-th bit pattern.
func dense(step int) []float32 {
	var v []float32
	for b := uint64(0); b < 1<<32; b += 1 << step {
		v = append(v, math.Float32frombits(uint32(b)))
	}
	return v
}

// grid returns n floats evenly over lo..hi.
func grid(lo, hi float64, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(lo + (hi-lo)*float64(i)/float64(n-1))
	}
	return v
}

func specials() []float32 {
	inf := float32(math.Inf(1))
	v := []float32{0, float32(math.Copysign(0, -1)), 1, -1, inf, -inf, float32(math.NaN()), math.MaxFloat32, -math.MaxFloat32,
		math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, 1e-38, -1e-38, 1e-20, -1e-20, 0.5, -0.5, 88, -88, 89, -89, 87.3, -87.3,
		88.37627, -88.37627, 103.9, -103.9, 127, -127, 6, -6, -12, 12, 13.3, -13.3, 1e-8, -1e-8, 0.34657359, -0.34657359}
	return append(v, math.Float32frombits(0x7f800001), math.Float32frombits(0xffc12345), math.Float32frombits(0x7fffffff))
}

// inputs are the values that every elementwise function is tested on.
func inputs() []float32 {
	v := append(dense(14), specials()...)
	for _, r := range []float64{1e-3, 1, 12, 110, 1000} {
		v = append(v, grid(-r, r, 1<<15)...)
	}
	for len(v)%Lanes != 0 {
		v = append(v, 0)
	}
	return v
}

// close tells whether got is want within rel units of 2^-24 relative, or abs.
func near(got float32, want, rel, abs float64) bool {
	if math.IsNaN(want) {
		return got != got
	}
	w := float32(want)
	if got == w {
		return true
	}
	return math.Abs(float64(got)-want) <= rel*0x1p-24*math.Abs(want)+abs
}

func TestVecActivate(t *testing.T) {
	x := inputs()
	for _, l := range Levels() {
		for a := ReLU; a <= Softplus; a++ {
			t.Run(fmt.Sprint(l, " ", a), func(t *testing.T) {
				y := make([]float32, len(x))
				vecActivate(l, a, y, x)
				worst, where := 0.0, float32(0)
				for i, v := range x {
					if l == Generic && math.IsInf(float64(v), -1) {
						continue // x*0 there
					}
					want := exact(a, float64(v))
					if e := math.Abs(float64(y[i])-want) / math.Abs(want) / 0x1p-24; math.Abs(want) > 1e-35 && e > worst {
						worst, where = e, v
					}
					bound := 4.0
					if a == GELU && v < -0.6 {
						bound = 8 // far below 0, where its values are small
					}
					if !near(y[i], want, bound, 1e-36) {
						t.Fatalf("%v(%v) = %v, want %v", a, v, y[i], want)
					}
				}
				t.Logf("largest error %.2f half units, at %v", worst, where)
			})
		}
	}
}
