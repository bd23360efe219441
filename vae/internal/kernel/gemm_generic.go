package kernel

import "unsafe"

// genericGroup is the most neurons in a group of a Generic layer: one, so that
// its packed weights are row-major. Eight rows of one neuron are as many chains
// as the compiler keeps in registers; two neurons for four rows spill.
const genericGroup = 1

// A quad is four neighbouring rows of one input. A tile has quadsPerInput of them
// for each input; indexing them costs one bounds check for four loads.
type quad = [4]float32

const quadsPerInput = Rows / 4

func quadsOf(v []float32) []quad {
	if len(v) < 4 {
		return nil
	}
	return unsafe.Slice((*quad)(ptr(v)), len(v)/4)
}

// denseGeneric is a layer in plain Go: y = act(W x + b) for the first 16*slices
// rows of a tile, with row-major weights. It has the bits of Dense.
func denseGeneric(y, x, w, b []float32, in int, act Activation, slices int) {
	quads := quadsOf(x[:in*Rows])
	for j, bias := range b {
		row := w[j*in : (j+1)*in]
		out := y[j*Rows : j*Rows+slices*lanes]
		for r := 0; r < len(out); r += 8 {
			*(*[8]float32)(out[r:]) = chain8(quads, row, bias, r/4)
		}
		if act != Identity {
			Activate(act, out, out)
		}
	}
}

// indexedGeneric is denseGeneric over the inputs in index alone.
func indexedGeneric(y, x, w, b []float32, index []uint32, in int, act Activation, slices int) {
	quads := quadsOf(x[:in*Rows])
	for j, bias := range b {
		row := w[j*in : (j+1)*in]
		out := y[j*Rows : j*Rows+slices*lanes]
		for r := 0; r < len(out); r += 8 {
			*(*[8]float32)(out[r:]) = indexed8(quads, row, index, bias, r/4)
		}
		Activate(act, out, out)
	}
}

// chain8 computes one neuron for the eight rows of quads q and q+1. Four inputs
// make a round; the bounds checks between the quads, which never fail, keep the
// compiler from having all products of a round at hand at once: the sums would
// then not fit into the registers of amd64, at half the speed.
func chain8(x []quad, w []float32, b float32, q int) [8]float32 {
	p0, p1, p2, p3, p4, p5, p6, p7 := b, b, b, b, b, b, b, b
	rounds := quadsOf(w)
	for i := range rounds {
		u := &rounds[i]
		t := &x[q]
		p0 += float32(u[0] * t[0])
		p1 += float32(u[0] * t[1])
		p2 += float32(u[0] * t[2])
		p3 += float32(u[0] * t[3])
		t = &x[q+1]
		p4 += float32(u[0] * t[0])
		p5 += float32(u[0] * t[1])
		p6 += float32(u[0] * t[2])
		p7 += float32(u[0] * t[3])
		t = &x[q+quadsPerInput]
		p0 += float32(u[1] * t[0])
		p1 += float32(u[1] * t[1])
		p2 += float32(u[1] * t[2])
		p3 += float32(u[1] * t[3])
		t = &x[q+quadsPerInput+1]
		p4 += float32(u[1] * t[0])
		p5 += float32(u[1] * t[1])
		p6 += float32(u[1] * t[2])
		p7 += float32(u[1] * t[3])
		t = &x[q+2*quadsPerInput]
		p0 += float32(u[2] * t[0])
		p1 += float32(u[2] * t[1])
		p2 += float32(u[2] * t[2])
		p3 += float32(u[2] * t[3])
		t = &x[q+2*quadsPerInput+1]
		p4 += float32(u[2] * t[0])
		p5 += float32(u[2] * t[1])
		p6 += float32(u[2] * t[2])
		p7 += float32(u[2] * t[3])
		t = &x[q+3*quadsPerInput]
		p0 += float32(u[3] * t[0])
		p1 += float32(u[3] * t[1])
		p2 += float32(u[3] * t[2])
		p3 += float32(u[3] * t[3])
		t = &x[q+3*quadsPerInput+1]
		p4 += float32(u[3] * t[0])
		p5 += float32(u[3] * t[1])
		p6 += float32(u[3] * t[2])
		p7 += float32(u[3] * t[3])
		q += 4 * quadsPerInput
	}
	for _, u := range w[len(w)&^3:] {
		t := &x[q]
		p0 += float32(u * t[0])
		p1 += float32(u * t[1])
		p2 += float32(u * t[2])
		p3 += float32(u * t[3])
		t = &x[q+1]
		p4 += float32(u * t[0])
		p5 += float32(u * t[1])
		p6 += float32(u * t[2])
		p7 += float32(u * t[3])
		q += quadsPerInput
	}
	return [8]float32{p0, p1, p2, p3, p4, p5, p6, p7}
}

// indexed8 is chain8 over the inputs in index alone.
func indexed8(x []quad, w []float32, index []uint32, b float32, q int) [8]float32 {
	p0, p1, p2, p3, p4, p5, p6, p7 := b, b, b, b, b, b, b, b
	for _, k := range index {
		u := w[k]
		t := &x[int(k)*quadsPerInput+q]
		p0 += float32(u * t[0])
		p1 += float32(u * t[1])
		p2 += float32(u * t[2])
		p3 += float32(u * t[3])
		t = &x[int(k)*quadsPerInput+q+1]
		p4 += float32(u * t[0])
		p5 += float32(u * t[1])
		p6 += float32(u * t[2])
		p7 += float32(u * t[3])
	}
	return [8]float32{p0, p1, p2, p3, p4, p5, p6, p7}
}
