package train

import (
	"math"
	"testing"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// keys gives keys at the ends of the range, at the ends of the tables' intervals
// and between.
func keys(f func(key uint64)) {
	for _, k := range []uint64{0, 1, 1 << 11, 1<<63 - 1, 1 << 63, math.MaxUint64, math.MaxUint64 - 1<<11} {
		f(k)
	}
	for i := range uint64(256) {
		f(i << 56)
		f(i<<56 - 1)
	}
	for i := range uint64(200_000) {
		f(mix(i))
	}
}

func TestLogUniform(t *testing.T) {
	keys(func(k uint64) {
		want := math.Log((float64(k>>11) + 0.5) / (1 << 53))
		if got := logUniform(k); !(math.Abs(got-want) <= 4e-16*(1+math.Abs(want))) {
			t.Fatalf("logUniform(%#x) = %v, want %v", k, got, want)
		}
		if r := -2 * logUniform(k); !(r >= 0) {
			t.Fatalf("logUniform(%#x) = %v, want at most 0", k, -r/2)
		}
	})
}

func TestOnCircle(t *testing.T) {
	keys(func(k uint64) {
		sin, cos := math.Sincos(2 * math.Pi * ((float64(k>>11) + 0.5) / (1 << 53)))
		if s, c := onCircle(k); !(math.Abs(s-sin) <= 2e-15 && math.Abs(c-cos) <= 2e-15) {
			t.Fatalf("onCircle(%#x) = %v, %v, want %v, %v", k, s, c, sin, cos)
		}
	})
}

func BenchmarkNormals(b *testing.B) {
	dst := make([]float32, 8*kernel.Rows)
	for b.Loop() {
		Normals(dst, 1, 2, 3, 8)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(dst)), "ns/number")
}
