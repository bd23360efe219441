package kernel

// The loops below keep eight chains in registers and work on them in two halves.
// Each half takes its own slice, whose bounds check keeps the compiler from
// having all eight products at hand at once: with the sums they would not fit
// into the 15 registers of amd64, and the spills cost more than a third of the
// speed. BenchmarkDense tells.

// Dense computes y = W x + b for a tile: x is [in][Rows], y [out][Rows], w
// [out][in], b [out]. Each output is one chain over the inputs in ascending
// order that starts at the bias. It panics when a length does not fit.
func Dense[F Float](y, x, w, b []F, in, out int) {
	checkTile("y", len(y), out)
	checkTile("x", len(x), in)
	if len(w) != in*out || len(b) != out {
		panic("kernel: weights do not fit the layer")
	}
	if in == 0 {
		for i := range y {
			y[i] = b[i/Rows]
		}
		return
	}
	for r := 0; r < Rows; r += 8 {
		for n, v := range b {
			dense8(y[n*Rows+r:], x[r:], w[n*in:(n+1)*in], v)
		}
	}
}

func checkTile(name string, have, features int) {
	if have != features*Rows {
		panic("kernel: len(" + name + ") is not features*Rows")
	}
}

// dense8 computes one neuron for eight rows.
func dense8[F Float](y, x, w []F, b F) {
	p0, p1, p2, p3, p4, p5, p6, p7 := b, b, b, b, b, b, b, b
	for k, u := range w {
		t := x[k*Rows : k*Rows+4 : k*Rows+4]
		p0 += F(u * t[0])
		p1 += F(u * t[1])
		p2 += F(u * t[2])
		p3 += F(u * t[3])
		t = x[k*Rows+4 : k*Rows+8 : k*Rows+8]
		p4 += F(u * t[0])
		p5 += F(u * t[1])
		p6 += F(u * t[2])
		p7 += F(u * t[3])
	}
	y = y[:8]
	y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7] = p0, p1, p2, p3, p4, p5, p6, p7
}

// DenseInput computes the gradient that reaches a layer's input, dx = W^T dy:
// dy is [out][Rows], dx [in][Rows]. Each element is one chain over the outputs
// in ascending order. It panics when a length does not fit.
func DenseInput[F Float](dx, dy, w []F, in, out int) {
	checkTile("dx", len(dx), in)
	checkTile("dy", len(dy), out)
	if len(w) != in*out {
		panic("kernel: weights do not fit the layer")
	}
	for r := 0; r < Rows; r += 8 {
		for k := range in {
			input8(dx[k*Rows+r:], dy[r:], w[k:], in, out)
		}
	}
}

// input8 computes one input's gradient for eight rows; w starts at that input.
func input8[F Float](dx, dy, w []F, in, out int) {
	var p0, p1, p2, p3, p4, p5, p6, p7 F
	for n := range out {
		u := w[n*in]
		t := dy[n*Rows : n*Rows+4 : n*Rows+4]
		p0 += F(u * t[0])
		p1 += F(u * t[1])
		p2 += F(u * t[2])
		p3 += F(u * t[3])
		t = dy[n*Rows+4 : n*Rows+8 : n*Rows+8]
		p4 += F(u * t[0])
		p5 += F(u * t[1])
		p6 += F(u * t[2])
		p7 += F(u * t[3])
	}
	dx = dx[:8]
	dx[0], dx[1], dx[2], dx[3], dx[4], dx[5], dx[6], dx[7] = p0, p1, p2, p3, p4, p5, p6, p7
}

// DenseWeights adds the gradients of a layer's weights and biases over the rows
// of a tile: dw += dy x^T, db += sum of dy. The sum over rows is one chain in
// ascending order. Lanes beyond the rows in use must be zero in dy. It panics
// when a length does not fit.
func DenseWeights[F Float](dw, db, dy, x []F, in, out int) {
	checkTile("dy", len(dy), out)
	checkTile("x", len(x), in)
	if len(dw) != in*out || len(db) != out {
		panic("kernel: weights do not fit the layer")
	}
	k := 0
	for ; k+6 <= in; k += 6 {
		t := (*[6 * Rows]F)(x[k*Rows:])
		for n := range out {
			weights6((*[6]F)(dw[n*in+k:]), (*[Rows]F)(dy[n*Rows:]), t)
		}
	}
	for n := range out {
		g := dy[n*Rows : (n+1)*Rows]
		for k := k; k < in; k++ {
			dw[n*in+k] += dot(g, x[k*Rows:(k+1)*Rows])
		}
		db[n] += sum(g)
	}
}

// weights6 adds to the weights of one neuron's next six inputs.
func weights6[F Float](d *[6]F, g *[Rows]F, x *[6 * Rows]F) {
	var p0, p1, p2, p3, p4, p5 F
	for r, u := range g {
		p0 += F(u * x[r])
		p1 += F(u * x[Rows+r])
		p2 += F(u * x[2*Rows+r])
		p3 += F(u * x[3*Rows+r])
		p4 += F(u * x[4*Rows+r])
		p5 += F(u * x[5*Rows+r])
	}
	d[0] += p0
	d[1] += p1
	d[2] += p2
	d[3] += p3
	d[4] += p4
	d[5] += p5
}

func dot[F Float](a, b []F) F {
	var s F
	b = b[:len(a)]
	for i, v := range a {
		s += F(v * b[i])
	}
	return s
}

func sum[F Float](a []F) F {
	var s F
	for _, v := range a {
		s += v
	}
	return s
}
