package compress

import (
	"errors"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// A fit is a dense layer seen as a least-squares problem: which weights, most of
// them zero, give the outputs that are wanted on a sample of rows? Weights w of a
// group of outputs minimise
//
//	mean over rows of (w x + b - y)^2 + ridge * sum_k G_kk (w_k - w0_k)^2
//
// where x are the inputs as the compressed layers before leave them, y the outputs
// of the uncompressed layer, G the mean of x x^T and w0 the uncompressed weights:
// what the rows do not tell stays as it was.
//
// Inputs are taken out one after the other, the least missed first, and the others
// make up for them: the saliency w_k^2 / [G^-1]_kk is what the error grows by when
// input k goes and the others are solved again (Optimal Brain Surgeon: Hassibi and
// Stork 1993; layer by layer: Frantar and Alistarh, Optimal Brain Compression,
// 2022).
type fit struct {
	in, out int
	gram    *mat.SymDense // [in+1][in+1], the last input is the constant 1
	cross   *mat.Dense    // [in+1][out]
	all     *mat.SymDense // inverse of gram, for the first round of every group
	// gain weighs the squared errors of the outputs against each other, where they
	// share their inputs.
	gain []float64
}

const (
	ridge  = 1e-3
	rounds = 6 // in which a group loses its inputs, fewer each time
)

var errSingular = errors.New("the rows do not tell the weights of a layer apart")

// newFit prepares the fit of weights w [out][in], from rows of inputs x and wanted
// outputs y.
func newFit(x, y *mat.Dense, w []float32) (*fit, error) {
	n, in := x.Dims()
	_, out := y.Dims()
	f := &fit{in: in, out: out, gram: mat.NewSymDense(in+1, nil), cross: mat.NewDense(in+1, out, nil), gain: make([]float64, out)}
	for o := range f.gain {
		f.gain[o] = 1
	}
	one := mat.NewDense(n, in+1, nil)
	one.Slice(0, n, 0, in).(*mat.Dense).Copy(x)
	for r := range n {
		one.Set(r, in, 1)
	}
	f.gram.SymOuterK(1/float64(n), one.T())
	f.cross.Mul(one.T(), y)
	f.cross.Scale(1/float64(n), f.cross)
	mean := 0.0
	for k := range in {
		mean += f.gram.At(k, k) / float64(in)
	}
	for k := range in {
		d := ridge * (f.gram.At(k, k) + 1e-3*mean + 1e-12)
		f.gram.SetSym(k, k, f.gram.At(k, k)+d)
		for o := range out {
			f.cross.Set(k, o, f.cross.At(k, o)+d*float64(w[o*in+k]))
		}
	}
	f.gram.SetSym(in, in, f.gram.At(in, in)*(1+1e-9))
	var chol mat.Cholesky
	if !chol.Factorize(f.gram) {
		return nil, errSingular
	}
	f.all = new(mat.SymDense)
	return f, chol.InverseTo(f.all)
}

// prune finds the kept inputs of the outputs [from, to), which share them, and
// their weights: all other inputs have weight zero. The kept inputs ascend; the
// weights are [output][kept], and bias has one number for each output.
func (f *fit) prune(from, to, keep int) (kept []int, w [][]float64, bias []float64, err error) {
	keep = min(max(keep, 0), f.in)
	set := make([]int, f.in+1) // with the constant, last
	for k := range set {
		set[k] = k
	}
	for round := 1; round <= rounds && len(set)-1 > keep; round++ {
		left := 1 - float64(round)/rounds // the cubic schedule of Zhu and Gupta 2017
		n := keep
		if round < rounds {
			n = max(keep, f.in-int(math.Round(float64(f.in-keep)*(1-left*left*left))))
		}
		if n >= len(set)-1 {
			continue
		}
		inverse := f.all
		if len(set) < f.in+1 {
			if inverse, err = f.inverse(set); err != nil {
				return nil, nil, nil, err
			}
		}
		set = f.drop(set, inverse, from, to, n)
	}
	solved, err := f.solve(set, from, to)
	if err != nil {
		return nil, nil, nil, err
	}
	for o := range to - from {
		row := make([]float64, len(set)-1)
		for i := range row {
			row[i] = solved.At(i, o)
		}
		w, bias = append(w, row), append(bias, solved.At(len(set)-1, o))
	}
	return set[:len(set)-1], w, bias, nil
}

// inverse returns the inverse of the Gram matrix of the inputs in set.
func (f *fit) inverse(set []int) (*mat.SymDense, error) {
	var chol mat.Cholesky
	if !chol.Factorize(f.sub(set)) {
		return nil, errSingular
	}
	inverse := new(mat.SymDense)
	return inverse, chol.InverseTo(inverse)
}

func (f *fit) sub(set []int) *mat.SymDense {
	s := mat.NewSymDense(len(set), nil)
	for i, a := range set {
		for j := i; j < len(set); j++ {
			s.SetSym(i, j, f.gram.At(a, set[j]))
		}
	}
	return s
}

// right returns the rows of the cross products in set, for the outputs.
func (f *fit) right(set []int, from, to int) *mat.Dense {
	a := mat.NewDense(len(set), to-from, nil)
	for i, k := range set {
		for o := from; o < to; o++ {
			a.Set(i, o-from, f.cross.At(k, o))
		}
	}
	return a
}

// drop returns the n inputs of set that would be missed most, and the constant.
func (f *fit) drop(set []int, inverse *mat.SymDense, from, to, n int) []int {
	var w mat.Dense
	w.Mul(inverse, f.right(set, from, to))
	last := len(set) - 1
	saliency := make([]float64, last)
	for i := range saliency {
		for o := range to - from {
			v := w.At(i, o)
			saliency[i] += f.gain[from+o] * v * v
		}
		saliency[i] /= inverse.At(i, i)
	}
	order := make([]int, last)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case saliency[a] > saliency[b]:
			return -1
		case saliency[a] < saliency[b]:
			return 1
		}
		return a - b
	})
	kept := slices.Sorted(slices.Values(order[:n]))
	out := make([]int, 0, n+1)
	for _, i := range kept {
		out = append(out, set[i])
	}
	return append(out, f.in)
}

// solve returns the weights of the inputs in set, [set][outputs].
func (f *fit) solve(set []int, from, to int) (*mat.Dense, error) {
	var chol mat.Cholesky
	if !chol.Factorize(f.sub(set)) {
		return nil, errSingular
	}
	w := new(mat.Dense)
	return w, chol.SolveTo(w, f.right(set, from, to))
}
