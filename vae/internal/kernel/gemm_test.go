package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

func gemmRandoms(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// gemmSizes returns from..to, a part of them with -short (for emulators).
func gemmSizes(from, to int) (sizes []int) {
	for n := from; n <= to; n++ {
		if !testing.Short() || n < 20 && n%3 == 1 || n%16 < 2 || n == to {
			sizes = append(sizes, n)
		}
	}
	return sizes
}

// product is a dense layer in float64 with the sizes of its terms.
func product(y, size []float64, x, w, b []float32, in, out int) {
	for j := range out {
		for r := range Rows {
			s := float64(b[j])
			m := math.Abs(s)
			for k := range in {
				p := float64(w[j*in+k]) * float64(x[k*Rows+r])
				s += p
				m += math.Abs(p)
			}
			y[j*Rows+r], size[j*Rows+r] = s, m
		}
	}
}

func linear(a Activation, v float64) float64 {
	switch {
	case a == ReLU && v < 0:
		return 0
	case a == Leaky && v < 0:
		return v * float64(float32(leakySlope))
	}
	return v
}

// TestGemmAgreesWithFloat64 holds every family at every level to a float64
// reference over all small shapes.
func TestGemmAgreesWithFloat64(t *testing.T) {
	const most = 70
	rnd := rand.New(rand.NewPCG(1, 2))
	xs, ws, bs := gemmRandoms(rnd, most*Rows), gemmRandoms(rnd, most*most), gemmRandoms(rnd, most)
	ref, size := make([]float64, most*Rows), make([]float64, most*Rows)
	y := make([]float32, most*Rows)
	rowsX := make([]float32, Rows*most)
	for _, out := range gemmSizes(1, most) {
		for _, in := range gemmSizes(0, most) {
			x, w, b := xs[:in*Rows], ws[:out*in], bs[:out]
			product(ref, size, x, w, b, in, out)
			act := Activation((in + out) % 3)
			slices := (in + out/3) % 5
			rows := (in+out/2)%15 + 1
			for r := range Rows {
				for k := range in {
					rowsX[r*in+k] = x[k*Rows+r]
				}
			}
			bound := float64(in+1) * 0x1p-24
			for _, l := range Levels() {
				check := func(what string, got float32, j, r int) {
					t.Helper()
					want := linear(act, ref[j*Rows+r])
					if !(math.Abs(float64(got)-want) <= bound*size[j*Rows+r]) {
						t.Fatalf("%v %s %d->%d %v: neuron %d row %d = %v, want %v", l, what, in, out, act, j, r, got, want)
					}
				}
				if l != BF16 {
					clear(y)
					PackCols(l, w, b, in, out).Dense(y, x, act, slices)
					for j := range out {
						for r := range Rows {
							if r < slices*lanes {
								check("cols", y[j*Rows+r], j, r)
							} else if y[j*Rows+r] != 0 {
								t.Fatalf("%v cols %d->%d: wrote row %d", l, in, out, r)
							}
						}
					}
				}
				DenseRows(l, y[:out*Rows], x, w, b, in, out, act)
				for i, v := range y[:out*Rows] {
					check("rows", v, i/Rows, i%Rows)
				}
				PackPanels(l, w, b, in, out).Dense(y, out, rowsX, in, rows, act)
				for i, v := range y[:out*rows] {
					check("panels", v, i%out, i/out)
				}
			}
		}
	}
}

// TestGemmBackwardAgreesWithFloat64 does the same for the gradients.
func TestGemmBackwardAgreesWithFloat64(t *testing.T) {
	const most = 70
	rnd := rand.New(rand.NewPCG(3, 4))
	xs, dys, ws := gemmRandoms(rnd, most*Rows), gemmRandoms(rnd, most*Rows), gemmRandoms(rnd, most*most)
	for _, out := range gemmSizes(0, most) {
		for _, in := range gemmSizes(0, most) {
			x, dy, w := xs[:in*Rows], dys[:out*Rows], ws[:out*in]
			xt := blocked(x, in)
			wantX, sizeX := make([]float64, in*Rows), make([]float64, in*Rows)
			for k := range in {
				for r := range Rows {
					for j := range out {
						p := float64(w[j*in+k]) * float64(dy[j*Rows+r])
						wantX[k*Rows+r] += p
						sizeX[k*Rows+r] += math.Abs(p)
					}
				}
			}
			for _, l := range Levels() {
				dx := make([]float32, in*Rows)
				DenseInputFast(l, dx, dy, w, in, out)
				for i, v := range dx {
					if !(math.Abs(float64(v)-wantX[i]) <= float64(out)*0x1p-24*sizeX[i]) {
						t.Fatalf("%v dx %d->%d: [%d] = %v, want %v", l, in, out, i, v, wantX[i])
					}
				}
				dw := append([]float32(nil), w...)
				DenseWeightsFast(l, dw, dy, xt, in, out, make([]float32, lanes*out))
				for j := range out {
					for k := range in {
						want := float64(w[j*in+k])
						size := math.Abs(want)
						for r := range Rows {
							p := float64(dy[j*Rows+r]) * float64(x[k*Rows+r])
							want += p
							size += math.Abs(p)
						}
						if got := dw[j*in+k]; !(math.Abs(float64(got)-want) <= (Rows+1)*0x1p-24*size) {
							t.Fatalf("%v dw %d->%d: [%d][%d] = %v, want %v", l, in, out, j, k, got, want)
						}
					}
				}
			}
		}
	}
}

// blocked transposes a tile to [Blocks(in)][Rows][16].
func blocked(x []float32, in int) []float32 {
	xt := make([]float32, Blocks(in)*lanes*Rows)
	for k := range in {
		for r := range Rows {
			xt[(k/lanes*Rows+r)*lanes+k%lanes] = x[k*Rows+r]
		}
	}
	return xt
}
