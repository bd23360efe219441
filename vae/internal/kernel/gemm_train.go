package kernel

import "unsafe"

// DenseRows computes y = act(W x + b) for a whole tile straight from row-major
// weights: x is [in][Rows], y [out][Rows], w [out][in], b [out]. act is Identity,
// ReLU or Leaky. It gives the bits of Packed.Dense at the same level. y must not
// overlap the others. It panics when a length does not fit.
func DenseRows(level Level, y, x, w, b []float32, in, out int, act Activation) {
	checkTile("y", len(y), out)
	checkTile("x", len(x), in)
	if len(w) != in*out || len(b) != out {
		panic("kernel: weights do not fit the layer")
	}
	checkLinear(act)
	if level = float(level); level == Generic {
		denseGeneric(y, x, w, b, in, act, tileSlices)
		return
	}
	a := gemmArgs{x: ptr(x), k: in, slices: tileSlices, xk: Rows * 4, xs: lanes * 4,
		wk: 4, wj: in * 4, yj: Rows * 4, act: int(act), aheadW: aheadRows}
	inGroups(level, &a, out, func(j, n int) {
		a.y = unsafe.Add(ptr(y), j*Rows*4)
		a.w = unsafe.Add(ptr(w), j*in*4)
		a.init = unsafe.Add(ptr(b), j*4)
		a.wg, a.yg, a.initg = n*in*4, n*Rows*4, n*4
	})
}

// DenseInputFast computes dx = W^T dy for a whole tile: dy is [out][Rows], dx
// [in][Rows], w [out][in]. Each element is one chain over the outputs in
// ascending order. dx must not overlap the others. It panics when a length does
// not fit.
func DenseInputFast(level Level, dx, dy, w []float32, in, out int) {
	checkTile("dx", len(dx), in)
	checkTile("dy", len(dy), out)
	if len(w) != in*out {
		panic("kernel: weights do not fit the layer")
	}
	if out == 0 {
		clear(dx)
		return
	}
	if level = float(level); level == Generic {
		DenseInput(dx, dy, w, in, out)
		return
	}
	var zeros [maxGroup]float32
	a := gemmArgs{x: ptr(dy), init: unsafe.Pointer(&zeros), k: out, slices: tileSlices, xk: Rows * 4, xs: lanes * 4,
		wk: in * 4, wj: 4, yj: Rows * 4, aheadW: aheadInputs * in * 4}
	inGroups(level, &a, in, func(j, n int) {
		a.y = unsafe.Add(ptr(dx), j*Rows*4)
		a.w = unsafe.Add(ptr(w), j*4)
		a.wg, a.yg = n*4, n*Rows*4
	})
}

// Blocks returns the number of slices of 16 that hold n values.
func Blocks(n int) int { return (n + lanes - 1) / lanes }

// DenseWeightsFast adds the gradient of a layer's weights over the rows of a
// tile: dw += dy x^T, dw being [out][in] and dy [out][Rows]. xt is the tile x
// transposed in blocks of 16 inputs, [Blocks(in)][Rows][16]; the last block may
// hold anything finite beyond the inputs. Each weight is one chain over the rows
// in ascending order that starts at its old value. Lanes beyond the rows in use
// must be zero in dy. tmp is scratch of at least 16*out values, needed when in
// is no multiple of 16. dw, tmp and the others must not overlap. It panics when a
// length does not fit. The gradients of the biases are left to the caller.
func DenseWeightsFast(level Level, dw, dy, xt []float32, in, out int, tmp []float32) {
	checkTile("dy", len(dy), out)
	if len(dw) != in*out {
		panic("kernel: weights do not fit the layer")
	}
	if len(xt) != Blocks(in)*lanes*Rows {
		panic("kernel: len(xt) is not Blocks(in)*16*Rows")
	}
	rest := in % lanes
	if rest != 0 && len(tmp) < lanes*out {
		panic("kernel: tmp is shorter than 16*out")
	}
	if level = float(level); level == Generic {
		weightsGeneric(dw, dy, xt, in, out)
		return
	}
	whole := in - rest
	if whole > 0 {
		weightsSlices(level, dw, dy, xt, in*4, whole/lanes, out)
	}
	if rest == 0 {
		return
	}
	// The last slice goes through a copy that has all 16 inputs.
	for j := range out {
		copy(tmp[j*lanes:j*lanes+rest], dw[j*in+whole:])
		clear(tmp[j*lanes+rest : (j+1)*lanes])
	}
	weightsSlices(level, tmp, dy, xt[whole*Rows:], lanes*4, 1, out)
	for j := range out {
		copy(dw[j*in+whole:(j+1)*in], tmp[j*lanes:])
	}
}

// weightsSlices adds to whole slices of dw, whose rows are stride bytes apart.
func weightsSlices(level Level, dw, dy, xt []float32, stride, slices, out int) {
	a := gemmArgs{x: ptr(xt), k: Rows, slices: slices, xk: lanes * 4, xs: Rows * lanes * 4,
		wk: 4, wj: Rows * 4, yj: stride, vector: 1, initj: stride}
	inGroups(level, &a, out, func(j, n int) {
		a.y = unsafe.Add(ptr(dw), j*stride)
		a.init = a.y
		a.w = unsafe.Add(ptr(dy), j*Rows*4)
		a.wg, a.yg, a.initg = n*Rows*4, n*stride, n*stride
	})
}

func weightsGeneric(dw, dy, xt []float32, in, out int) {
	for j := range out {
		g := (*[Rows]float32)(dy[j*Rows:])
		for k := 0; k < in; k += lanes {
			d := dw[j*in+k : j*in+min(k+lanes, in)]
			for r, u := range g {
				t := (*[lanes]float32)(xt[k*Rows+r*lanes:])
				for i := range d {
					d[i] += float32(u * t[i&(lanes-1)])
				}
			}
		}
	}
}

// inGroups calls the kernel for the large groups of out scalars and for the
// others. place sets the pointers for the scalars from j on and the steps of
// groups of n.
func inGroups(level Level, a *gemmArgs, out int, place func(j, n int)) {
	s := groupsOf(out, maxGroup)
	if s.large > 0 {
		a.groups = s.large
		place(0, s.n)
		gemm(level, s.n, a)
	}
	if small := s.groups - s.large; small > 0 {
		a.groups = small
		place(s.large*s.n, s.n-1)
		gemm(level, s.n-1, a)
	}
}

// float returns the level whose kernels compute in float32 when level is asked
// for: bfloat16 is for packed layers alone.
func float(level Level) Level {
	if !native(level) {
		return Generic
	}
	if level == BF16 {
		return AVX512
	}
	return level
}
