package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// sameBits says whether two results are equal to the last bit; any NaN is as good
// as another.
func sameBits(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

func wantSame(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range got {
		if !sameBits(got[i], want[i]) {
			t.Fatalf("%s: [%d] = %v (%#x), want %v (%#x)", what, i, got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

// floatLevels returns the levels here that compute in float32.
func floatLevels() (levels []Level) {
	for _, l := range Levels() {
		if l != BF16 {
			levels = append(levels, l)
		}
	}
	return levels
}

// A gemmCase is a layer with its input, of which some features are all zero.
type gemmCase struct {
	in, out int
	x, w, b []float32
	active  []uint32
	act     Activation
}

func newGemmCase(rnd *rand.Rand, in, out int, act Activation) *gemmCase {
	c := &gemmCase{in: in, out: out, x: gemmRandoms(rnd, in*Rows), w: gemmRandoms(rnd, in*out), b: gemmRandoms(rnd, out), act: act}
	for k := range in {
		if rnd.IntN(3) == 0 {
			clear(c.x[k*Rows : (k+1)*Rows])
		} else {
			c.active = append(c.active, uint32(k))
		}
	}
	return c
}

// families computes the layer in every way that a level has, for all rows.
func (c *gemmCase) families(l Level) map[string][]float32 {
	results := map[string][]float32{}
	tile := func(name string) []float32 {
		results[name] = make([]float32, c.out*Rows)
		return results[name]
	}
	p := PackCols(l, c.w, c.b, c.in, c.out)
	p.Dense(tile("cols"), c.x, c.act, tileSlices)
	p.DenseIndexed(tile("indexed"), c.x, c.active, c.act, tileSlices)
	y := tile("parts")
	for g := 0; g < p.Groups(); {
		to := min(g+1+g%3, p.Groups())
		from, end := p.Span(g, to)
		p.DensePart(y[from*Rows:end*Rows], c.x, g, to, c.act, tileSlices)
		g = to
	}
	DenseRows(l, tile("rows"), c.x, c.w, c.b, c.in, c.out, c.act)
	few := PackPanels(l, c.w, c.b, c.in, c.out)
	for _, rows := range []int{1, 2, 3, 4, 5, 6, 7, 13, 64} {
		x, y := make([]float32, Rows*(c.in+3)), make([]float32, rows*(c.out+5))
		for r := range Rows {
			for k := range c.in {
				x[r*(c.in+3)+k] = c.x[k*Rows+r]
			}
		}
		name := fmt.Sprintf("%d rows", rows)
		to := tile(name)
		for from := 0; from < Rows; from += rows {
			n := min(rows, Rows-from)
			few.Dense(y, c.out+5, x[from*(c.in+3):], c.in+3, n, c.act)
			for r := range n {
				for j := range c.out {
					to[j*Rows+from+r] = y[r*(c.out+5)+j]
				}
			}
		}
	}
	return results
}

// TestGemmFamiliesHaveTheSameBits: an output depends on nothing but its row and
// its neuron, and native levels do not differ.
func TestGemmFamiliesHaveTheSameBits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	for _, out := range []int{1, 2, 3, 4, 5, 6, 7, 11, 13, 16, 17, 31, 48, 63, 64, 65, 80, 97, 130} {
		for _, in := range []int{0, 1, 2, 3, 4, 5, 7, 16, 33, 64, 131} {
			c := newGemmCase(rnd, in, out, Activation(rnd.IntN(3)))
			var native []float32
			for _, l := range floatLevels() {
				all := c.families(l)
				for name, got := range all {
					wantSame(t, fmt.Sprintf("%v %d->%d %v, %s against cols", l, in, out, c.act, name), got, all["cols"])
				}
				if l == Generic {
					continue
				}
				if native != nil {
					wantSame(t, fmt.Sprintf("%v %d->%d %v against another level", l, in, out, c.act), all["cols"], native)
				}
				native = all["cols"]
			}
		}
	}
}

// TestGemmIsOneChain holds native levels to the very sequence of operations:
// fused multiply-adds over the inputs in ascending order from the bias on. The
// numbers have 12 bits, so that float64 holds each sum before it is rounded.
func TestGemmIsOneChain(t *testing.T) {
	rnd := rand.New(rand.NewPCG(13, 14))
	fma := func(a, b, c float32) float32 { // exact, then rounded once
		return float32(float64(a)*float64(b) + float64(c))
	}
	t.Logf("levels: %v", Levels()) // an emulator's run must tell what it covered
	const in, out = 100, 13
	c := newGemmCase(rnd, in, out, Identity)
	for i := range c.x {
		c.x[i] = float32(rnd.IntN(1<<12)-1<<11) / (1 << 11)
	}
	for i := range c.w {
		c.w[i] = float32(rnd.IntN(1<<12)-1<<11) / (1 << 11)
	}
	want := make([]float32, out*Rows)
	for i := range want {
		s := c.b[i/Rows]
		for k := range in {
			s = fma(c.w[i/Rows*in+k], c.x[k*Rows+i%Rows], s)
		}
		want[i] = s
	}
	for _, l := range floatLevels()[1:] {
		got := make([]float32, out*Rows)
		DenseRows(l, got, c.x, c.w, c.b, in, out, Identity)
		wantSame(t, l.String(), got, want)
	}
}

// TestGemmGradientsHaveTheSameBits: those of native levels do not differ, and
// neither do those of misaligned buffers.
func TestGemmGradientsHaveTheSameBits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(15, 16))
	shift := func(v []float32, by int) []float32 {
		s := aligned[float32](len(v) + by)[by:]
		copy(s, v)
		return s
	}
	for _, shape := range [][2]int{{1, 1}, {15, 7}, {16, 6}, {17, 13}, {64, 64}, {100, 31}, {130, 3}} {
		in, out := shape[0], shape[1]
		c := newGemmCase(rnd, in, out, Leaky)
		dy, xt := gemmRandoms(rnd, out*Rows), blocked(c.x, in)
		var native [3][]float32
		for _, l := range floatLevels()[1:] {
			for by := range 4 {
				dx, dw, y := shift(make([]float32, in*Rows), by), shift(c.w, by), shift(make([]float32, out*Rows), by)
				DenseInputFast(l, dx, shift(dy, 3-by), shift(c.w, 1), in, out)
				DenseWeightsFast(l, dw, shift(dy, by), shift(xt, 3-by), in, out, shift(make([]float32, lanes*out), 1))
				DenseRows(l, y, shift(c.x, by), shift(c.w, 2), shift(c.b, 3), in, out, c.act)
				for i, got := range [][]float32{dx, dw, y} {
					if native[i] == nil {
						native[i] = got
					}
					wantSame(t, fmt.Sprintf("%v %d->%d, shifted by %d, result %d", l, in, out, by, i), got, native[i])
				}
			}
		}
	}
}

// TestGemmKeepsOddNumbersInTheirLane: what is not finite stays in its row, comes
// through every activation, and denormals are numbers like others.
func TestGemmKeepsOddNumbersInTheirLane(t *testing.T) {
	rnd := rand.New(rand.NewPCG(17, 18))
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	const in, out = 37, 19
	for _, act := range []Activation{Identity, ReLU, Leaky} {
		clean := newGemmCase(rnd, in, out, act)
		odd := *clean
		odd.x = append([]float32(nil), clean.x...)
		for _, row := range []int{0, 15, 16, 31, 41, 63} {
			odd.x[5*Rows+row] = []float32{nan, inf, -inf}[row%3]
		}
		odd.x[6*Rows+15], odd.x[7*Rows+15] = inf, -inf
		odd.active, clean.active = nil, nil
		for k := range in {
			odd.active, clean.active = append(odd.active, uint32(k)), append(clean.active, uint32(k))
		}
		for _, l := range floatLevels() {
			want := clean.families(l)["cols"]
			for name, got := range odd.families(l) {
				for i, v := range got {
					switch row := i % Rows; row {
					case 15:
						if v == v {
							t.Fatalf("%v %s %v: row %d = %v, want NaN", l, name, act, row, v)
						}
					case 0, 63: // NaN times any weight
						if v == v {
							t.Fatalf("%v %s %v: row %d = %v, want NaN", l, name, act, row, v)
						}
					case 16, 31, 41:
						if !math.IsInf(float64(v), 0) && act == Identity {
							t.Fatalf("%v %s %v: row %d = %v, want an infinity", l, name, act, row, v)
						}
					default:
						if !sameBits(v, want[i]) {
							t.Fatalf("%v %s %v: row %d = %v, want %v", l, name, act, row, v, want[i])
						}
					}
				}
			}
		}
	}
}

func TestGemmActivationsOfSpecialNumbers(t *testing.T) {
	nan, inf, tiny := float32(math.NaN()), float32(math.Inf(1)), float32(math.SmallestNonzeroFloat32)
	for _, c := range []struct{ in, relu, leaky float32 }{
		{nan, nan, nan}, {-nan, nan, nan}, {inf, inf, inf}, {-inf, 0, -inf}, {tiny, tiny, tiny}, {-tiny, 0, 0},
		{1e-39, 1e-39, 1e-39}, {-1e-37, 0, -1e-37 * float32(leakySlope)}, {3, 3, 3}, {-3, 0, -3 * float32(leakySlope)}, {0, 0, 0},
	} {
		for _, l := range floatLevels() {
			for n := 1; n <= 7; n++ { // the bias is the result
				b := make([]float32, n)
				for i := range b {
					b[i] = c.in
				}
				p := PackCols(l, nil, b, 0, n)
				for act, want := range map[Activation]float32{Identity: c.in, ReLU: c.relu, Leaky: c.leaky} {
					y := make([]float32, n*Rows)
					p.Dense(y, nil, act, tileSlices)
					for i, v := range y {
						if v != want && (v == v || want == want) {
							t.Fatalf("%v, %d neurons: %v(%v) = %v at %d, want %v", l, n, act, c.in, v, i, want)
						}
					}
				}
			}
		}
	}
}

// TestGemmWritesNothingElse: lanes beyond the slices, and what lies between and
// behind the rows of few rows, are left alone.
func TestGemmWritesNothingElse(t *testing.T) {
	rnd := rand.New(rand.NewPCG(19, 20))
	const mark = -123.5
	for _, l := range floatLevels() {
		for _, out := range []int{1, 4, 5, 12, 16, 17, 47, 64, 70, 129} {
			c := newGemmCase(rnd, 9, out, ReLU)
			p, few := PackCols(l, c.w, c.b, 9, out), PackPanels(l, c.w, c.b, 9, out)
			for slices := range tileSlices + 1 {
				y := make([]float32, out*Rows+8)
				for i := range y {
					y[i] = mark
				}
				p.Dense(y, c.x, ReLU, slices)
				p.DenseIndexed(y, c.x, c.active, ReLU, slices)
				for i, v := range y {
					if used := i < out*Rows && i%Rows < slices*lanes; used == (v == mark) {
						t.Fatalf("%v %d neurons, %d slices: [%d] = %v", l, out, slices, i, v)
					}
				}
			}
			for rows := range 16 {
				ldy := out + 3
				y := make([]float32, rows*ldy+8)
				for i := range y {
					y[i] = mark
				}
				few.Dense(y, ldy, c.x, 9, rows, ReLU)
				for i, v := range y {
					if used := i < rows*ldy && i%ldy < out; used == (v == mark) {
						t.Fatalf("%v %d neurons, %d rows: [%d] = %v", l, out, rows, i, v)
					}
				}
			}
		}
	}
}

func TestGroupsOf(t *testing.T) {
	for most := 1; most <= maxGroup; most++ {
		for out := range 300 {
			s := groupsOf(out, most)
			at := 0
			for g := range s.groups {
				n := s.before(g+1) - s.before(g)
				if s.before(g) != at || n < 1 || n > most || n != s.n && n != s.n-1 {
					t.Fatalf("groupsOf(%d, %d) = %+v: group %d is [%d, %d)", out, most, s, g, s.before(g), s.before(g+1))
				}
				at += n
			}
			if at != out || s.groups != (out+most-1)/most {
				t.Fatalf("groupsOf(%d, %d) = %+v covers %d", out, most, s, at)
			}
		}
	}
}

func TestGemmPanicsOnWrongShapes(t *testing.T) {
	v := func(n int) []float32 { return make([]float32, n) }
	p, few := PackCols(Generic, v(6), v(2), 3, 2), PackPanels(Generic, v(6), v(2), 3, 2)
	for name, f := range map[string]func(){
		"weights do not fit":      func() { PackCols(Generic, v(5), v(2), 3, 2) },
		"weights do not fit ":     func() { PackPanels(Generic, v(6), v(3), 3, 2) },
		"y is too short":          func() { p.Dense(v(2*Rows-1), v(3*Rows), ReLU, 4) },
		"x is too short":          func() { p.Dense(v(2*Rows), v(3*Rows-1), ReLU, 4) },
		"not tanh":                func() { p.Dense(v(2*Rows), v(3*Rows), Tanh, 4) },
		"0 to 4 slices":           func() { p.Dense(v(2*Rows), v(3*Rows), ReLU, 5) },
		"no such groups":          func() { p.DensePart(v(2*Rows), v(3*Rows), 0, 3, ReLU, 4) },
		"beyond the layer":        func() { p.DenseIndexed(v(2*Rows), v(3*Rows), []uint32{3}, ReLU, 4) },
		"not packed for BF16":     func() { p.DensePairs(v(2*Rows), nil, 0, 1, ReLU, 4) },
		"rows are shorter":        func() { few.Dense(v(100), 1, v(100), 3, 2, ReLU) },
		"too short for the rows":  func() { few.Dense(v(3), 2, v(100), 3, 2, ReLU) },
		"len(y)":                  func() { DenseRows(Generic, v(5), v(3*Rows), v(6), v(2), 3, 2, ReLU) },
		"len(dx)":                 func() { DenseInputFast(Generic, v(5), v(2*Rows), v(6), 3, 2) },
		"len(xt)":                 func() { DenseWeightsFast(Generic, v(6), v(2*Rows), v(3), 3, 2, v(32)) },
		"tmp is shorter":          func() { DenseWeightsFast(Generic, v(6), v(2*Rows), v(16*Rows), 3, 2, v(31)) },
		"too short for the input": func() { RoundPairs(Generic, make([]uint32, Rows), v(3*Rows), 3, 4) },
	} {
		t.Run(strings.TrimSpace(name), func(t *testing.T) {
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), strings.TrimSpace(name)) {
					t.Errorf("panic %v, want one with %q", r, name)
				}
			}()
			f()
		})
	}
}

func TestPeakCountsItsOperations(t *testing.T) {
	for _, l := range Levels() {
		one := Peak(l, 1)
		if one <= 0 || Peak(l, 1000) != 1000*one || Peak(l, 0) != 0 || Peak(l, -1) != 0 {
			t.Errorf("%v: Peak(1) = %v, Peak(1000) = %v", l, one, Peak(l, 1000))
		}
	}
}

func TestGemmAllocatesNothing(t *testing.T) {
	c := newGemmCase(rand.New(rand.NewPCG(21, 22)), 20, 21, ReLU)
	for _, l := range floatLevels() {
		p, few := PackCols(l, c.w, c.b, c.in, c.out), PackPanels(l, c.w, c.b, c.in, c.out)
		y, xt, tmp := make([]float32, c.out*Rows), blocked(c.x, c.in), make([]float32, c.out*lanes)
		dx, dw := make([]float32, c.in*Rows), make([]float32, c.in*c.out)
		if n := testing.AllocsPerRun(3, func() {
			p.Dense(y, c.x, c.act, 4)
			p.DenseIndexed(y, c.x, c.active, c.act, 4)
			few.Dense(y, c.out, c.x, c.in, 5, c.act)
			DenseRows(l, y, c.x, c.w, c.b, c.in, c.out, c.act)
			DenseInputFast(l, dx, y, c.w, c.in, c.out)
			DenseWeightsFast(l, dw, y, xt, c.in, c.out, tmp)
		}); n != 0 {
			t.Errorf("%v: %v allocations, want 0", l, n)
		}
	}
}

// FuzzGemm holds all families to each other and to a float64 reference.
func FuzzGemm(f *testing.F) {
	f.Add(uint64(1), uint8(17), uint8(23), uint8(1))
	f.Add(uint64(2), uint8(0), uint8(1), uint8(2))
	f.Add(uint64(3), uint8(200), uint8(129), uint8(0))
	f.Fuzz(func(t *testing.T, seed uint64, in, out, act uint8) {
		if out == 0 {
			out = 1
		}
		c := newGemmCase(rand.New(rand.NewPCG(seed, 1)), int(in), int(out), Activation(act%3))
		ref, size := make([]float64, c.out*Rows), make([]float64, c.out*Rows)
		product(ref, size, c.x, c.w, c.b, c.in, c.out)
		for _, l := range floatLevels() {
			all := c.families(l)
			for name, got := range all {
				wantSame(t, fmt.Sprintf("%v %s against cols", l, name), got, all["cols"])
			}
			for i, v := range all["cols"] {
				if want := linear(c.act, ref[i]); !(math.Abs(float64(v)-want) <= float64(c.in+1)*0x1p-24*size[i]) {
					t.Fatalf("%v: [%d] = %v, want %v", l, i, v, want)
				}
			}
		}
	})
}
