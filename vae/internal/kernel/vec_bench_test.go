package kernel

import (
	"fmt"
	"testing"
)

// benchLevels runs f at every level. Everything works on a tile of 100 features,
// or on as many floats.
func benchLevels(b *testing.B, name string, f func(l Level)) {
	for _, l := range Levels() {
		b.Run(fmt.Sprintf("%s/level=%v", name, l), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f(l)
			}
		})
	}
}

const benchFeatures = 100

func benchTile() []float32 { return normals(newRand(), benchFeatures*Rows) }

func BenchmarkVecActivate(b *testing.B) {
	x, y, g := benchTile(), benchTile(), benchTile()
	for a := ReLU; a <= Softplus; a++ {
		benchLevels(b, a.String(), func(l Level) { vecActivate(l, a, y, x) })
	}
	for a := ReLU; a <= Softplus; a++ {
		Activate(a, y, x)
		benchLevels(b, a.String()+"_back", func(l Level) {
			copy(g, x) // else it decays to denormal numbers
			vecBackprop(l, a, g, x, y)
		})
	}
}

func BenchmarkVecHead(b *testing.B) {
	x, y, t := benchTile(), benchTile(), benchTile()
	w, err, weight, dls := normals(newRand(), benchFeatures), make([]float32, Rows), normals(newRand(), Rows), make([]float32, benchFeatures)
	row, rowW := whole(benchFeatures+Lanes-1), padded(w)
	benchLevels(b, "gauss_sum", func(l Level) { clear(err); vecGaussSum(l, err, y, x, w, 4) })
	benchLevels(b, "gauss_sum_1_slice", func(l Level) { clear(err); vecGaussSum(l, err, y, x, w, 1) })
	benchLevels(b, "sigmoid_sum", func(l Level) { clear(err); vecGaussSigmoidSum(l, err, y, x, w, 4) })
	benchLevels(b, "bern_sum", func(l Level) { clear(err); vecBernSum(l, err, y, x, 4, 0) })
	benchLevels(b, "gauss_terms", func(l Level) { vecGaussTerms(l, t, y, x, w, 4) })
	benchLevels(b, "bern_terms", func(l Level) { vecBernTerms(l, t, y, x, 4, 0) })
	benchLevels(b, "add_terms", func(l Level) { clear(err); vecAddTerms(l, err, y, 4) })
	benchLevels(b, "cat_terms", func(l Level) { vecCatTerms(l, err, y, x, 4, 0) })
	benchLevels(b, "cat_grad", func(l Level) { vecCatGrad(l, t, y, x, weight, 0) })
	benchLevels(b, "gauss_grad", func(l Level) { vecGaussGrad(l, t, dls, y, x, nil, weight, w) })
	benchLevels(b, "bern_grad", func(l Level) { vecBernGrad(l, t, y, x, nil, weight, 0) })
	benchLevels(b, "sum_lanes", func(l Level) { clear(dls); vecSumLanes(l, dls, y) })
	benchLevels(b, "gauss_row", func(l Level) { vecGaussRow(l, t[:row], y[:row], x[:row], rowW) })
}

func BenchmarkVecLatents(b *testing.B) {
	x, kl, z, sd := benchTile(), benchTile(), benchTile(), benchTile()
	weight := normals(newRand(), Rows)
	t := latentTiles{x, x, x, x, x, x}
	benchLevels(b, "clamp", func(l Level) { vecClampLogVar(l, z, x) })
	benchLevels(b, "kl", func(l Level) { vecKL(l, kl, x, x) })
	benchLevels(b, "sample", func(l Level) { vecSample(l, z, sd, x, x, x) })
	benchLevels(b, "kl_back", func(l Level) { vecKLBack(l, z, sd, x, t, weight, 1, 0.1) })
}

// BenchmarkVecMove works on the 784 features of the largest tile that is usual.
func BenchmarkVecMove(b *testing.B) {
	const n = 784
	tile, blocks := normals(newRand(), n*Rows), make([]float32, n*Rows)
	store := normals(newRand(), 1000*n)
	var rows [Rows]*float32
	for i := range rows {
		rows[i] = &store[i*37%1000*n]
	}
	acc, acc6 := make([]float32, 1), make([]float32, 6)
	wide := make([]float64, Rows)
	benchLevels(b, "transpose", func(l Level) { vecTranspose(l, blocks, tile, n) })
	benchLevels(b, "gather", func(l Level) { vecGatherRows(l, tile, &rows, n) })
	benchLevels(b, "chain_1_row", func(l Level) { clear(acc); vecChain(l, acc, tile, n, n) })
	benchLevels(b, "chain_6_rows", func(l Level) { clear(acc6); vecChain(l, acc6, tile, n, n) })
	benchLevels(b, "pack32_64_values", func(l Level) { Pack32(l, blocks[:Rows], tile[:Rows], nil, 0.1, 2, 0, 9) })
	benchLevels(b, "pack64_64_values", func(l Level) { Pack64(l, blocks[:Rows], wide, 0.1, 2, 9) })
	benchLevels(b, "pack_row", func(l Level) { PackRow(l, blocks[:n], tile[:n], tile[:n], tile[:n], 9) })
}

// BenchmarkVecSteps works on 65,536 parameters.
func BenchmarkVecSteps(b *testing.B) {
	const n = 1 << 16
	p, g, m, v := normals(newRand(), n), normals(newRand(), n), normals(newRand(), n), make([]float32, n)
	for i := range v {
		v[i] = m[i] * m[i]
	}
	benchLevels(b, "adam", func(l Level) { AdamStep(l, p, g, m, v, AdamRates{0.9, 0.999, 0.1, 0.001, 1e-3, 1, 1e-8, 1, 0}) })
	benchLevels(b, "sgd", func(l Level) { SGDStep(l, p, g, nil, SGDRates{1e-6, 0, 0, false}) })
	benchLevels(b, "momentum", func(l Level) { SGDStep(l, p, g, m, SGDRates{1e-6, 0.9, 0, false}) })
	benchLevels(b, "rmsprop", func(l Level) { RMSPropStep(l, p, g, v, nil, RMSPropRates{1e-6, 0.99, 0.01, 1e-8, 0, 0}) })
	benchLevels(b, "add", func(l Level) { Add(l, m, g) })
	benchLevels(b, "sum_squares", func(l Level) { SumSquares(l, p) })
}
