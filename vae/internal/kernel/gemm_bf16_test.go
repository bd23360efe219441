package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func fromBfloat16(v uint16) float32 { return math.Float32frombits(uint32(v) << 16) }

func TestBfloat16(t *testing.T) {
	rnd := rand.New(rand.NewPCG(25, 26))
	for range 100000 {
		v := math.Float32frombits(rnd.Uint32())
		got := fromBfloat16(bfloat16(v))
		if v != v {
			if got == got {
				t.Fatalf("bfloat16(NaN %#x) = %v", math.Float32bits(v), got)
			}
			continue
		}
		u := math.Float32bits(v) &^ 0xffff
		down, up := math.Float32frombits(u), math.Float32frombits(u+0x10000) // towards and away from 0
		if math.IsInf(float64(up), 0) {
			continue // below
		}
		a, b := math.Abs(float64(v)-float64(down)), math.Abs(float64(up)-float64(v))
		want := down
		if b < a || a == b && u>>16&1 == 1 {
			want = up
		}
		if got != want {
			t.Fatalf("bfloat16(%v) = %v, want %v", v, got, want)
		}
	}
	inf := float32(math.Inf(1))
	for _, c := range [][2]float32{{inf, inf}, {-inf, -inf}, {math.MaxFloat32, inf}, {0, 0}, {1, 1}, {1 + 0x1p-8, 1}, {1 + 0x3p-8, 1 + 0x1p-6}, {0x1p-149, 0}} {
		if got := fromBfloat16(bfloat16(c[0])); got != c[1] {
			t.Errorf("bfloat16(%v) = %v, want %v", c[0], got, c[1])
		}
	}
}

// TestRoundPairs holds the assembly to the plain Go, and the layout to its words.
func TestRoundPairs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(27, 28))
	for in := range 12 {
		for n := range tileSlices + 1 {
			x := gemmRandoms(rnd, in*Rows)
			for i := range x {
				if rnd.IntN(4) == 0 {
					x[i] = math.Float32frombits(rnd.Uint32())
				}
			}
			want := make([]uint32, Pairs(in)*Rows)
			for i := range want {
				if i%Rows >= n*lanes {
					continue
				}
				k := i / Rows * 2
				want[i] = uint32(bfloat16(x[k*Rows+i%Rows]))
				if k+1 < in {
					want[i] |= uint32(bfloat16(x[(k+1)*Rows+i%Rows])) << 16
				}
			}
			for _, l := range Levels() {
				got := make([]uint32, Pairs(in)*Rows)
				RoundPairs(l, got, x, in, n)
				if !slices.Equal(got, want) {
					t.Fatalf("%v: %d inputs, %d slices: %x, want %x", l, in, n, got, want)
				}
			}
		}
	}
}

// TestPackPairs multiplies the packed pairs out.
func TestPackPairs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(29, 30))
	for _, shape := range [][2]int{{0, 3}, {1, 1}, {5, 7}, {8, 6}, {31, 20}} {
		in, out := shape[0], shape[1]
		w := gemmRandoms(rnd, in*out)
		s := groupsOf(out, maxGroup)
		packed := packPairs(w, in, s)
		for g := range s.groups {
			n := s.before(g+1) - s.before(g)
			for j := range n {
				for k := range in {
					pair := packed[s.before(g)*Pairs(in)+k/2*n+j]
					want := bfloat16(w[(s.before(g)+j)*in+k])
					if got := uint16(pair >> (16 * (k & 1))); got != want {
						t.Fatalf("%d->%d neuron %d input %d: %#x, want %#x", in, out, s.before(g)+j, k, got, want)
					}
				}
			}
		}
	}
}

// TestDensePairsAgreesWithFloat64 takes the rounded operands to float64.
func TestDensePairsAgreesWithFloat64(t *testing.T) {
	if !native(BF16) {
		t.Skip("SKIPPED: this CPU has no AVX512-BF16; the product of bfloat16 pairs was not run (internal/emulate/README.md says how)")
	}
	rnd := rand.New(rand.NewPCG(31, 32))
	round := func(v []float32) []float32 {
		r := make([]float32, len(v))
		for i, f := range v {
			r[i] = fromBfloat16(bfloat16(f))
		}
		return r
	}
	for _, out := range gemmSizes(1, 40) {
		for _, in := range gemmSizes(0, 40) {
			x, w, b := gemmRandoms(rnd, in*Rows), gemmRandoms(rnd, in*out), gemmRandoms(rnd, out)
			act := Activation((in + out) % 3)
			p := PackCols(BF16, w, b, in, out)
			ref, size := make([]float64, out*Rows), make([]float64, out*Rows)
			product(ref, size, round(x), round(w), b, in, out)
			pairs, y := make([]uint32, Pairs(in)*Rows), make([]float32, out*Rows)
			RoundPairs(BF16, pairs, x, in, tileSlices)
			for n := range tileSlices + 1 {
				clear(y)
				p.DensePairs(y, pairs, 0, p.Groups(), act, n)
				for i, v := range y {
					want := linear(act, ref[i])
					if i%Rows >= n*lanes {
						want = 0
					}
					if !(math.Abs(float64(v)-want) <= float64(in+2)*0x1p-24*size[i]) {
						t.Fatalf("%d->%d %v, %d slices: [%d] = %v, want %v", in, out, act, n, i, v, want)
					}
				}
			}
		}
	}
}
