package kernel

// Dense computes y = W x + b for a tile: x is [in][Rows], y [out][Rows], w
// [out][in], b [out]. Each output is one chain over the inputs in ascending
// order that starts at the bias. It panics when a length does not fit.
func Dense[F Float](y, x, w, b []F, in, out int) {
	checkTile("y", len(y), out)
	checkTile("x", len(x), in)
	if len(w) != in*out || len(b) != out {
		panic("kernel: weights do not fit the layer")
	}
	n := 0
	for ; n+2 <= out; n += 2 {
		w0, w1 := w[n*in:(n+1)*in], w[(n+1)*in:(n+2)*in]
		for r := 0; r < Rows; r += 4 {
			dense2x4(y[n*Rows+r:], x[r:], w0, w1, b[n], b[n+1])
		}
	}
	if n < out {
		w0 := w[n*in : (n+1)*in]
		for r := 0; r < Rows; r += 4 {
			dense1x4(y[n*Rows+r:], x[r:], w0, b[n])
		}
	}
}

func checkTile(name string, have, features int) {
	if have != features*Rows {
		panic("kernel: len(" + name + ") is not features*Rows")
	}
}

// dense2x4 computes two neurons for four rows: eight chains in registers.
func dense2x4[F Float](y, x, w0, w1 []F, b0, b1 F) {
	p0, p1, p2, p3 := b0, b0, b0, b0
	q0, q1, q2, q3 := b1, b1, b1, b1
	w1 = w1[:len(w0)]
	for k, u := range w0 {
		v := w1[k]
		t := x[k*Rows : k*Rows+4 : k*Rows+4]
		p0 += F(u * t[0])
		p1 += F(u * t[1])
		p2 += F(u * t[2])
		p3 += F(u * t[3])
		q0 += F(v * t[0])
		q1 += F(v * t[1])
		q2 += F(v * t[2])
		q3 += F(v * t[3])
	}
	y[0], y[1], y[2], y[3] = p0, p1, p2, p3
	z := y[Rows : Rows+4]
	z[0], z[1], z[2], z[3] = q0, q1, q2, q3
}

func dense1x4[F Float](y, x, w []F, b F) {
	p0, p1, p2, p3 := b, b, b, b
	for k, u := range w {
		t := x[k*Rows : k*Rows+4 : k*Rows+4]
		p0 += F(u * t[0])
		p1 += F(u * t[1])
		p2 += F(u * t[2])
		p3 += F(u * t[3])
	}
	y[0], y[1], y[2], y[3] = p0, p1, p2, p3
}

// DenseInput computes the gradient that reaches a layer's input, dx = W^T dy:
// dy is [out][Rows], dx [in][Rows]. Each element is one chain over the outputs
// in ascending order.
func DenseInput[F Float](dx, dy, w []F, in, out int) {
	checkTile("dx", len(dx), in)
	checkTile("dy", len(dy), out)
	k := 0
	for ; k+2 <= in; k += 2 {
		for r := 0; r < Rows; r += 4 {
			input2x4(dx[k*Rows+r:], dy[r:], w[k:], in, out)
		}
	}
	for ; k < in; k++ {
		d := dx[k*Rows : (k+1)*Rows]
		clear(d)
		for n := range out {
			u := w[n*in+k]
			for r, g := range dy[n*Rows : (n+1)*Rows] {
				d[r] += F(u * g)
			}
		}
	}
}

func input2x4[F Float](dx, dy, w []F, in, out int) {
	var p0, p1, p2, p3, q0, q1, q2, q3 F
	for n := range out {
		u, v := w[n*in], w[n*in+1]
		t := dy[n*Rows : n*Rows+4 : n*Rows+4]
		p0 += F(u * t[0])
		p1 += F(u * t[1])
		p2 += F(u * t[2])
		p3 += F(u * t[3])
		q0 += F(v * t[0])
		q1 += F(v * t[1])
		q2 += F(v * t[2])
		q3 += F(v * t[3])
	}
	dx[0], dx[1], dx[2], dx[3] = p0, p1, p2, p3
	z := dx[Rows : Rows+4]
	z[0], z[1], z[2], z[3] = q0, q1, q2, q3
}

// DenseWeights adds the gradients of a layer's weights and biases over the rows
// of a tile: dw += dy x^T, db += sum of dy. The sum over rows is one chain in
// ascending order. Lanes beyond the rows in use must be zero in dy.
func DenseWeights[F Float](dw, db, dy, x []F, in, out int) {
	checkTile("dy", len(dy), out)
	checkTile("x", len(x), in)
	n := 0
	for ; n+2 <= out; n += 2 {
		g0, g1 := dy[n*Rows:(n+1)*Rows], dy[(n+1)*Rows:(n+2)*Rows]
		d0, d1 := dw[n*in:(n+1)*in], dw[(n+1)*in:(n+2)*in]
		k := 0
		for ; k+4 <= in; k += 4 {
			weights2x4(d0[k:k+4], d1[k:k+4], g0, g1, x[k*Rows:(k+4)*Rows])
		}
		for ; k < in; k++ {
			t := x[k*Rows : (k+1)*Rows]
			d0[k] += dot(g0, t)
			d1[k] += dot(g1, t)
		}
		db[n] += sum(g0)
		db[n+1] += sum(g1)
	}
	if n < out {
		g := dy[n*Rows : (n+1)*Rows]
		for k := range in {
			dw[n*in+k] += dot(g, x[k*Rows:(k+1)*Rows])
		}
		db[n] += sum(g)
	}
}

func weights2x4[F Float](d0, d1, g0, g1, x []F) {
	var p0, p1, p2, p3, q0, q1, q2, q3 F
	x0, x1, x2, x3 := x[:Rows:Rows], x[Rows:2*Rows:2*Rows], x[2*Rows:3*Rows:3*Rows], x[3*Rows:4*Rows]
	g0, g1 = g0[:Rows], g1[:Rows]
	for r := range Rows {
		u, v := g0[r], g1[r]
		p0 += F(u * x0[r])
		p1 += F(u * x1[r])
		p2 += F(u * x2[r])
		p3 += F(u * x3[r])
		q0 += F(v * x0[r])
		q1 += F(v * x1[r])
		q2 += F(v * x2[r])
		q3 += F(v * x3[r])
	}
	d0, d1 = d0[:4], d1[:4]
	d0[0] += p0
	d0[1] += p1
	d0[2] += p2
	d0[3] += p3
	d1[0] += q0
	d1[1] += q1
	d1[2] += q2
	d1[3] += q3
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
