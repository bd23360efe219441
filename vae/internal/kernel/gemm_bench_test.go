package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// speed runs work, which takes flops operations, in windows of about 200us, each
// beside a window of the level's peak loop, and reports the best of both: on a
// machine that others use too the best short windows are the quiet ones.
func speed(b *testing.B, l Level, flops float64, work func()) {
	const window = 200 * time.Microsecond
	repeat := func(f func()) (n int) {
		for start := time.Now(); time.Since(start) < window; n++ {
			f()
		}
		return n
	}
	round := func() { Peak(l, 1000) }
	best := func(old float64, n int, ops float64, f func()) float64 {
		start := time.Now()
		for range n {
			f()
		}
		return max(old, float64(n)*ops/time.Since(start).Seconds())
	}
	work()
	n, m := max(1, repeat(work)/2), max(1, repeat(round)/2)
	roundOps := Peak(l, 1000)
	var rate, peak float64
	for b.Loop() {
		rate = best(rate, n, flops, work)
		peak = best(peak, m, roundOps, round)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate/1e9, "GFLOP/s")
	b.ReportMetric(100*rate/peak, "%peak")
	b.ReportMetric(flops/rate*1e6, "us")
}

// BenchmarkGemm tells the families' share of the peak on the layers of the net
// 784-128-64-32-2 and on a small one, for a whole tile.
func BenchmarkGemm(b *testing.B) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, l := range Levels() {
		for _, shape := range [][2]int{{784, 128}, {128, 64}, {64, 32}, {32, 4}, {2, 256}, {256, 128}, {64, 784}, {32, 32}} {
			in, out := shape[0], shape[1]
			x, w, bias := aligned[float32](in*Rows), aligned[float32](in*out), gemmRandoms(rnd, out)
			copy(x, gemmRandoms(rnd, in*Rows))
			copy(w, gemmRandoms(rnd, in*out))
			y := aligned[float32](out * Rows)
			dx := aligned[float32](in * Rows)
			xt, tmp := aligned[float32](Blocks(in)*lanes*Rows), make([]float32, lanes*out)
			copy(xt, blocked(x, in))
			p := PackCols(l, w, bias, in, out)
			run := func(name string, work func()) {
				b.Run(fmt.Sprintf("%v/%s/%dx%d", l, name, in, out), func(b *testing.B) { speed(b, l, float64(2*in*out*Rows), work) })
			}
			if l == BF16 {
				pairs := aligned[uint32](Pairs(in) * Rows)
				run("cols", func() { p.DensePairs(y, pairs, 0, p.Groups(), ReLU, tileSlices) })
				run("round", func() { RoundPairs(l, pairs, x, in, tileSlices) })
				continue
			}
			all := make([]uint32, in)
			for k := range all {
				all[k] = uint32(k)
			}
			run("cols", func() { p.Dense(y, x, ReLU, tileSlices) })
			run("parts", func() { // as the last layer is run: the outputs stay in L1
				for g := 0; g < p.Groups(); g += 8 {
					p.DensePart(y, x, g, min(g+8, p.Groups()), Identity, tileSlices)
				}
			})
			run("indexed", func() { p.DenseIndexed(y, x, all, ReLU, tileSlices) })
			run("rows", func() { DenseRows(l, y, x, w, bias, in, out, ReLU) })
			run("dx", func() { DenseInputFast(l, dx, y, w, in, out) })
			clear(y)
			run("dw", func() { DenseWeightsFast(l, w, y, xt, in, out, tmp) })
		}
	}
}

// BenchmarkGemmRow runs all layers of the net 784-128-64-32-2 for a few rows.
func BenchmarkGemmRow(b *testing.B) {
	rnd := rand.New(rand.NewPCG(7, 8))
	for _, l := range Levels() {
		var layers []*Panels
		for _, ws := range [][]int{{784, 128, 64, 32, 4}, {2, 256, 128, 64, 784}} {
			for i := 1; i < len(ws); i++ {
				layers = append(layers, PackPanels(l, gemmRandoms(rnd, ws[i-1]*ws[i]), gemmRandoms(rnd, ws[i]), ws[i-1], ws[i]))
			}
		}
		for _, rows := range []int{1, 2, 3, 4, 5, 6, 12} {
			x, y := aligned[float32](784*16), aligned[float32](784*16)
			b.Run(fmt.Sprintf("%v/rows=%d", l, rows), func(b *testing.B) {
				speed(b, float(l), 2*202368*float64(rows), func() {
					for _, p := range layers {
						p.Dense(y, 784, x, 784, rows, ReLU)
					}
				})
			})
		}
	}
}
