package kernel

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// buffers makes the arguments of a call: where they stand in memory is what the
// tests below vary, what they hold depends on the seed only.
type buffers struct {
	alloc func(n int) []float32
	rnd   *rand.Rand
	poke  func(v []float32) // changes an input, unless nil
}

func newBuffers(alloc func(n int) []float32) *buffers {
	return &buffers{alloc: alloc, rnd: rand.New(rand.NewPCG(3, 5))}
}

func plain(n int) []float32 { return make([]float32, n) }

func (b *buffers) fill(n int, f func() float64) []float32 {
	v := b.alloc(n)
	for i := range v {
		v[i] = float32(f())
	}
	if b.poke != nil && n > 0 {
		b.poke(v)
	}
	return v
}

func (b *buffers) normal(n int) []float32 { return b.fill(n, b.rnd.NormFloat64) }
func (b *buffers) wide(n int) []float32 {
	return b.fill(n, func() float64 { return 6 * b.rnd.NormFloat64() })
}
func (b *buffers) share(n int) []float32 { return b.fill(n, b.rnd.Float64) }
func (b *buffers) logVar(n int) []float32 {
	return b.fill(n, func() float64 { return min(max(3*b.rnd.NormFloat64(), LogVarMin), LogVarMax) })
}

// A call runs one function of a level on buffers for n features (or 16*n floats)
// and returns what it wrote.
type call struct {
	name string
	run  func(l Level, n int, b *buffers) [][]float32
	same bool // plain Go gives the same bits
}

// calls lists every vector function.
func calls() []call {
	list := slices.Concat(latentCalls(), rowCalls(), gradientCalls(), moveCalls(), stepCalls(), headCalls())
	for a := Identity; a <= Softplus; a++ {
		list = append(list, call{a.String(), func(l Level, n int, b *buffers) [][]float32 {
			y, x := b.alloc(16*n), b.wide(16*n)
			vecActivate(l, a, y, x)
			return [][]float32{y}
		}, a <= Leaky})
		list = append(list, call{a.String() + " back", func(l Level, n int, b *buffers) [][]float32 {
			g, x, y := b.normal(16*n), b.wide(16*n), b.alloc(16*n)
			vecActivate(l, a, y, x)
			vecBackprop(l, a, g, x, y)
			return [][]float32{g}
		}, a <= Leaky})
	}
	return list
}

func latentCalls() []call {
	return []call{
		{"clamp", func(l Level, n int, b *buffers) [][]float32 {
			lv, raw := b.alloc(16*n), b.fill(16*n, func() float64 { return 10 * b.rnd.NormFloat64() })
			vecClampLogVar(l, lv, raw)
			return [][]float32{lv}
		}, true},
		{"kl", func(l Level, n int, b *buffers) [][]float32 {
			kl, mu, lv := b.alloc(16*n), b.normal(16*n), b.logVar(16*n)
			vecKL(l, kl, mu, lv)
			return [][]float32{kl}
		}, false},
		{"sample", func(l Level, n int, b *buffers) [][]float32 {
			z, sd, mu, lv, noise := b.alloc(16*n), b.alloc(16*n), b.normal(16*n), b.logVar(16*n), b.normal(16*n)
			vecSample(l, z, sd, mu, lv, noise)
			return [][]float32{z, sd}
		}, false},
		{"kl back", func(l Level, n int, b *buffers) [][]float32 {
			m := n * Rows
			dmu, dlv, dz, weight := b.alloc(m), b.alloc(m), b.normal(m), b.share(Rows)
			t := latentTiles{b.normal(m), b.logVar(m), b.fill(m, func() float64 { return 10 * b.rnd.NormFloat64() }), b.share(m), b.normal(m), b.share(m)}
			vecKLBack(l, dmu, dlv, dz, t, weight, 0.7, 0.3)
			return [][]float32{dmu, dlv}
		}, false},
	}
}

func rowCalls() []call {
	return []call{
		{"row", func(l Level, n int, b *buffers) [][]float32 {
			q, y, x, w := b.alloc(16*n), b.normal(16*n), b.share(16*n), b.share(16*n)
			vecGaussRow(l, q, y, x, w)
			return [][]float32{q}
		}, true},
		{"bern row", func(l Level, n int, b *buffers) [][]float32 {
			q, y, x := b.alloc(16*n), b.wide(16*n), b.share(16*n)
			vecBernRow(l, q, y, x, 0.01)
			return [][]float32{q}
		}, false},
		{"chain", func(l Level, n int, b *buffers) [][]float32 {
			acc, q := b.normal(n), b.normal(n*n)
			vecChain(l, acc, q, n, n)
			return [][]float32{acc}
		}, true},
		{"sum lanes", func(l Level, n int, b *buffers) [][]float32 {
			db, dy := b.normal(n), b.normal(n*Rows)
			vecSumLanes(l, db, dy)
			return [][]float32{db}
		}, true},
	}
}

func gradientCalls() []call {
	return []call{
		{"gauss grad", func(l Level, n int, b *buffers) [][]float32 {
			g, dls, y, x, weight, w := b.alloc(n*Rows), b.alloc(n), b.normal(n*Rows), b.share(n*Rows), b.share(Rows), b.share(n)
			vecGaussGrad(l, g, dls, y, x, nil, weight, w)
			return [][]float32{g, dls}
		}, true},
		{"gauss grad, masked", func(l Level, n int, b *buffers) [][]float32 {
			g, dls, y, x, weight, w := b.alloc(n*Rows), b.alloc(n), b.normal(n*Rows), b.share(n*Rows), b.share(Rows), b.share(n)
			vecGaussGrad(l, g, dls, y, x, b.share(n*Rows), weight, w)
			return [][]float32{g, dls}
		}, true},
		{"bern grad", func(l Level, n int, b *buffers) [][]float32 {
			g, y, x, weight := b.alloc(n*Rows), b.wide(n*Rows), b.share(n*Rows), b.share(Rows)
			vecBernGrad(l, g, y, x, nil, weight, 0.01)
			return [][]float32{g}
		}, false},
		{"bern grad, masked", func(l Level, n int, b *buffers) [][]float32 {
			g, y, x, weight := b.alloc(n*Rows), b.wide(n*Rows), b.share(n*Rows), b.share(Rows)
			vecBernGrad(l, g, y, x, b.share(n*Rows), weight, 0)
			return [][]float32{g}
		}, false},
		{"cat grad", func(l Level, n int, b *buffers) [][]float32 {
			g, y, x, weight := b.alloc(n*Rows), b.wide(n*Rows), b.share(n*Rows), b.share(Rows)
			vecCatGrad(l, g, y, x, weight, 0.1)
			return [][]float32{g}
		}, false},
	}
}

func moveCalls() []call {
	return []call{
		{"transpose", func(l Level, n int, b *buffers) [][]float32 {
			dst, src := b.alloc((n+Lanes-1)/Lanes*Lanes*Rows), b.normal(n*Rows)
			vecTranspose(l, dst, src, n)
			return [][]float32{dst}
		}, true},
		{"gather", func(l Level, n int, b *buffers) [][]float32 {
			dst := b.alloc(n * Rows)
			var rows [Rows]*float32
			for i := range rows {
				if rows[i] = new(float32); n > 0 {
					rows[i] = &b.normal(n)[0]
				}
			}
			vecGatherRows(l, dst, &rows, n)
			return [][]float32{dst}
		}, true},
		{"pack", func(l Level, n int, b *buffers) [][]float32 {
			n = min(n, Rows)
			dst, src := b.alloc(n), b.normal(n)
			bad := Pack32(l, dst, src, nil, 0.1, 1.7, 1e-9, 2)
			return [][]float32{dst, {float32(bad)}}
		}, true},
		{"pack of float64", func(l Level, n int, b *buffers) [][]float32 {
			n = min(n, Rows)
			dst, mem := b.alloc(n), b.alloc(2*n)
			src := make([]float64, n)
			if n > 0 && uintptr(unsafe.Pointer(&mem[0]))%8 == 0 {
				src = unsafe.Slice((*float64)(unsafe.Pointer(&mem[0])), n)
			}
			for i, v := range b.normal(n) {
				src[i] = float64(v)
			}
			bad := Pack64(l, dst, src, 0.1, 1.7, 2)
			return [][]float32{dst, {float32(bad)}}
		}, true},
		{"pack row", func(l Level, n int, b *buffers) [][]float32 {
			v, hi, inv, lo := b.normal(n), b.normal(n), b.share(n), b.share(n)
			PackRow(l, v, hi, inv, lo, 2)
			return [][]float32{v}
		}, true},
	}
}

func stepCalls() []call {
	return []call{
		{"adam", func(l Level, n int, b *buffers) [][]float32 {
			p, g, m, v := b.normal(n), b.normal(n), b.normal(n), b.share(n)
			AdamStep(l, p, g, m, v, AdamRates{0.9, 0.999, 0.1, 0.001, 1e-3, 1.1, 1e-8, 0.99, 0.01})
			return [][]float32{p, m, v}
		}, true},
		{"sgd", func(l Level, n int, b *buffers) [][]float32 {
			p, g := b.normal(n), b.normal(n)
			SGDStep(l, p, g, nil, SGDRates{0.1, 0, 0.01, false})
			return [][]float32{p}
		}, true},
		{"momentum", func(l Level, n int, b *buffers) [][]float32 {
			p, g, v := b.normal(n), b.normal(n), b.normal(n)
			SGDStep(l, p, g, v, SGDRates{0.1, 0.9, 0.01, n%2 == 0})
			return [][]float32{p, v}
		}, true},
		{"rmsprop", func(l Level, n int, b *buffers) [][]float32 {
			p, g, s, v := b.normal(n), b.normal(n), b.share(n), b.normal(n)
			if n%2 == 0 {
				v = nil
			}
			RMSPropStep(l, p, g, s, v, RMSPropRates{0.01, 0.99, 0.01, 1e-8, 0.8, 0.02})
			return [][]float32{p, s, v}
		}, true},
		{"add, scale and sum of squares", func(l Level, n int, b *buffers) [][]float32 {
			dst, src := b.normal(n), b.normal(n)
			Add(l, dst, src)
			Scale(l, dst, 0.7)
			bits := math.Float64bits(SumSquares(l, src))
			return [][]float32{dst, {math.Float32frombits(uint32(bits >> 32)), math.Float32frombits(uint32(bits))}}
		}, true},
	}
}

// headCalls are the sums and terms, for every number of slices.
func headCalls() (list []call) {
	for s := 1; s <= Rows/Lanes; s++ {
		sum := func(name string, same bool, f func(l Level, err, y, x, w []float32)) {
			list = append(list, call{fmt.Sprint(name, ", ", s, " slices"), func(l Level, n int, b *buffers) [][]float32 {
				err, y, x, w := b.normal(Rows), b.wide(n*Rows), b.share(n*Rows), b.share(n)
				f(l, err, y, x, w)
				return [][]float32{err}
			}, same})
		}
		terms := func(name string, same bool, f func(l Level, t, y, x, w []float32)) {
			list = append(list, call{fmt.Sprint(name, ", ", s, " slices"), func(l Level, n int, b *buffers) [][]float32 {
				t, y, x, w := b.normal(n*Rows), b.wide(n*Rows), b.share(n*Rows), b.share(n)
				f(l, t, y, x, w)
				return [][]float32{t}
			}, same})
		}
		sum("gauss sum", true, func(l Level, err, y, x, w []float32) { vecGaussSum(l, err, y, x, w, s) })
		sum("sigmoid sum", false, func(l Level, err, y, x, w []float32) { vecGaussSigmoidSum(l, err, y, x, w, s) })
		sum("bern sum", false, func(l Level, err, y, x, _ []float32) { vecBernSum(l, err, y, x, s, 0.01) })
		sum("add terms", true, func(l Level, err, y, _, _ []float32) { vecAddTerms(l, err, y, s) })
		sum("cat terms", false, func(l Level, err, y, x, _ []float32) { vecCatTerms(l, err, y, x, s, 0.05*float32(s-1)) })
		terms("gauss terms", true, func(l Level, t, y, x, w []float32) { vecGaussTerms(l, t, y, x, w, s) })
		terms("bern terms", false, func(l Level, t, y, x, _ []float32) { vecBernTerms(l, t, y, x, s, 0) })
		terms("mask terms", true, func(l Level, t, _, x, w []float32) { vecMaskTerms(l, t, x, w, s) })
	}
	return list
}

// sizes are the numbers of features that the calls are tried with.
var sizes = []int{0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33}

// TestVecAgreesWithGeneric holds each native level to plain Go within rounding,
// or to its bits where the call says so.
func TestVecAgreesWithGeneric(t *testing.T) {
	for _, c := range calls() {
		for _, n := range sizes {
			want := c.run(Generic, n, newBuffers(plain))
			for _, l := range natives() {
				for o, got := range c.run(l, n, newBuffers(plain)) {
					for i, v := range got {
						if !close32(v, want[o][i], 1e-6, 3e-6) {
							t.Fatalf("%v %s: %d features: element %d of output %d = %v, want %v", l, c.name, n, i, o, v, want[o][i])
						}
					}
					if c.same && !same(got, want[o]) {
						t.Fatalf("%v %s: %d features: not the bits of plain Go, at %d of output %d", l, c.name, n, differs(got, want[o]), o)
					}
				}
			}
		}
	}
}

// vecBits is the hash of everything that the native levels compute in
// TestVecBits, on every architecture.
const vecBits = 0x7956d60a391c7076

// TestVecBits pins the bits of all functions: AVX2, AVX-512 and NEON agree with
// one another by agreeing with it. A change of a polynomial changes it.
func TestVecBits(t *testing.T) {
	for _, l := range natives() {
		h := fnv.New64a()
		for _, c := range calls() {
			for _, n := range sizes {
				for _, v := range c.run(l, n, newBuffers(plain)) {
					hashFloats(h.Write, v)
				}
			}
			for i, odd := range specials() {
				b := newBuffers(plain)
				b.poke = func(v []float32) { v[7*i%len(v)] = odd }
				for _, v := range c.run(l, 9, b) {
					hashFloats(h.Write, v)
				}
			}
		}
		x := inputs()
		y, g := make([]float32, len(x)), make([]float32, len(x))
		for a := ReLU; a <= Softplus; a++ {
			vecActivate(l, a, y, x)
			hashFloats(h.Write, y)
			for i := range g {
				g[i] = 1
			}
			vecBackprop(l, a, g, x, y)
			hashFloats(h.Write, g)
		}
		if got := h.Sum64(); got != vecBits {
			t.Errorf("%v: hash of all results = %#x, want %#x", l, got, uint64(vecBits))
		}
	}
}

// hashFloats writes the bits of v, all NaNs alike.
func hashFloats(write func([]byte) (int, error), v []float32) {
	for _, x := range v {
		bits := math.Float32bits(x)
		if x != x {
			bits = 0x7fc00000
		}
		write(binary.LittleEndian.AppendUint32(nil, bits))
	}
}

// TestVecUnaligned moves every buffer by one, two and three floats.
func TestVecUnaligned(t *testing.T) {
	for _, c := range calls() {
		for _, l := range Levels() {
			want := c.run(l, 9, newBuffers(plain))
			for off := 1; off < 4; off++ {
				got := c.run(l, 9, newBuffers(func(n int) []float32 { return make([]float32, n+off)[off:] }))
				for o := range got {
					if !same(got[o], want[o]) {
						t.Fatalf("%v %s: moved by %d floats, output %d differs", l, c.name, off, o)
					}
				}
			}
		}
	}
}

// FuzzVec tries any size and alignment, and any bits in one element of an input.
func FuzzVec(f *testing.F) {
	f.Add(uint8(3), uint8(0), uint8(0), uint16(0), uint32(0x7fc00000))
	f.Add(uint8(40), uint8(17), uint8(1), uint16(100), uint32(0xff800000))
	f.Add(uint8(11), uint8(8), uint8(3), uint16(5), uint32(1))
	list := calls()
	f.Fuzz(func(t *testing.T, which, size, off uint8, at uint16, bits uint32) {
		c, n := list[int(which)%len(list)], int(size)%64
		make := func() *buffers {
			k := int(off) % 16
			b := newBuffers(func(n int) []float32 { return make([]float32, n+k)[k:] })
			b.poke = func(v []float32) { v[int(at)%len(v)] = math.Float32frombits(bits) }
			return b
		}
		var first [][]float32
		for _, l := range natives() {
			got := c.run(l, n, make())
			if first == nil {
				first = got
			}
			for o := range got {
				if i := differs(got[o], first[o]); i >= 0 {
					t.Fatalf("%v %s: %d features: element %d of output %d = %v, another level has %v", l, c.name, n, i, o, got[o][i], first[o][i])
				}
			}
		}
		if c.same && len(first) > 0 {
			want := c.run(Generic, n, make())
			for o := range want {
				if !slices.EqualFunc(first[o], want[o], func(a, b float32) bool { return close32(a, b, 0, 0) }) {
					t.Fatalf("%s: %d features: output %d is not that of plain Go", c.name, n, o)
				}
			}
		}
	})
}

// close32 tells whether got is want within abs + rel*|want|; NaN is like NaN.
func close32(got, want float32, rel, abs float64) bool {
	if got == want || got != got && want != want {
		return true
	}
	return math.Abs(float64(got)-float64(want)) <= abs+rel*math.Abs(float64(want))
}
