package kernel

import "unsafe"

// The plain Go form of the packed layer works on two neurons and four rows at a
// time, which is as many chains as the registers of amd64 hold.
const genericGroup = 2

// generic is DensePart in plain Go.
func (p *Packed) generic(y, x []float32, g0, g1 int, act Activation, slices int) {
	// Four rows of one input are an element, a tile's row of inputs is 16 of them:
	// indexing an array's elements needs one bounds check for four loads.
	quads := unsafe.Slice((*[4]float32)(ptr(x)), p.In*Rows/4)
	first, _ := p.Span(g0, g1)
	for g := g0; g < g1; g++ {
		from, to := p.Span(g, g+1)
		w := p.w[from*p.In : to*p.In]
		out := y[(from-first)*Rows : (to-first)*Rows]
		for q := range slices * lanes / 4 {
			if to-from == 2 {
				pairs := unsafe.Slice((*[2]float32)(ptr(w)), p.In)
				dense2x4((*[Rows + 4]float32)(out[4*q:]), quads, pairs, p.b[from], p.b[from+1], q)
			} else {
				dense1x4((*[4]float32)(out[4*q:]), quads, w, p.b[from], q)
			}
		}
		for j := range to - from {
			v := out[j*Rows : j*Rows+slices*lanes]
			Activate(act, v, v)
		}
	}
}

// dense2x4 computes two neurons for the four rows that start at 4*q; the second
// neuron's results stand Rows behind the first one's.
func dense2x4(y *[Rows + 4]float32, x [][4]float32, w [][2]float32, b0, b1 float32, q int) {
	p0, p1, p2, p3 := b0, b0, b0, b0
	q0, q1, q2, q3 := b1, b1, b1, b1
	for i := range w {
		u := &w[i]
		if uint(q) >= uint(len(x)) {
			break // never: for the compiler
		}
		t := &x[q]
		q += Rows / 4
		p0 += float32(u[0] * t[0])
		p1 += float32(u[0] * t[1])
		p2 += float32(u[0] * t[2])
		p3 += float32(u[0] * t[3])
		q0 += float32(u[1] * t[0])
		q1 += float32(u[1] * t[1])
		q2 += float32(u[1] * t[2])
		q3 += float32(u[1] * t[3])
	}
	y[0], y[1], y[2], y[3] = p0, p1, p2, p3
	y[Rows], y[Rows+1], y[Rows+2], y[Rows+3] = q0, q1, q2, q3
}

func dense1x4(y *[4]float32, x [][4]float32, w []float32, b float32, q int) {
	p0, p1, p2, p3 := b, b, b, b
	for _, u := range w {
		t := &x[q]
		q += Rows / 4
		p0 += float32(u * t[0])
		p1 += float32(u * t[1])
		p2 += float32(u * t[2])
		p3 += float32(u * t[3])
	}
	y[0], y[1], y[2], y[3] = p0, p1, p2, p3
}

// genericIndexed is DenseIndexed in plain Go.
func (p *Packed) genericIndexed(y, x []float32, index []uint32, act Activation, slices int) {
	for g := range p.split.groups {
		from, to := p.Span(g, g+1)
		n := to - from
		w := p.w[from*p.In:]
		for j := range n {
			out := y[(from+j)*Rows : (from+j)*Rows+slices*lanes]
			for i := range out {
				out[i] = p.b[from+j]
			}
			for _, k := range index {
				u, t := w[int(k)*n+j], x[int(k)*Rows:int(k)*Rows+len(out)]
				for i, v := range t {
					out[i] += float32(u * v)
				}
			}
			Activate(act, out, out)
		}
	}
}
