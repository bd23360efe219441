package kernel

import "unsafe"

// Panels is a dense layer packed for few rows: neurons stand in the lanes,
// weights as [panel][k][16], zero padded. It is immutable and safe for concurrent
// use. At one level it gives the bits of Packed.
type Panels struct {
	In, Out int
	level   Level
	w, b    []float32
}

// PackPanels packs the weights w [out][in] and biases b [out] for a level, as
// PackCols does. BF16 is packed as AVX512: few rows are bound by memory latency,
// not by products. It panics when a length does not fit.
func PackPanels(level Level, w, b []float32, in, out int) *Panels {
	if len(w) != in*out || len(b) != out {
		panic("kernel: weights do not fit the layer")
	}
	padded := Blocks(out) * lanes
	p := &Panels{In: in, Out: out, level: float(level), w: aligned[float32](padded * in), b: aligned[float32](padded)}
	copy(p.b, b)
	for j := range out {
		for k := range in {
			p.w[(j/lanes*in+k)*lanes+j%lanes] = w[j*in+k]
		}
	}
	return p
}

// Dense computes y = act(W x + b) for a few rows that stand row-major: row r of
// x is x[r*ldx:][:In], row r of y is y[r*ldy:][:Out]; nothing else of y is
// written. It is made for 1 to 15 rows and right for any number. act is Identity,
// ReLU or Leaky, and a NaN comes through each. y and x must not overlap. It
// panics when a buffer is too short.
func (p *Panels) Dense(y []float32, ldy int, x []float32, ldx, rows int, act Activation) {
	checkLinear(act)
	if rows < 0 || ldy < p.Out || ldx < p.In {
		panic("kernel: rows are shorter than the layer")
	}
	if rows > 0 && (len(y) < (rows-1)*ldy+p.Out || len(x) < (rows-1)*ldx+p.In) {
		panic("kernel: y or x is too short for the rows")
	}
	s := groupsOf(rows, maxGroup)
	for g := range s.groups {
		from, to := s.before(g), s.before(g+1)
		p.few(y[from*ldy:], ldy, x[from*ldx:], ldx, to-from, act)
	}
}

// few computes at most six rows.
func (p *Panels) few(y []float32, ldy int, x []float32, ldx, rows int, act Activation) {
	if p.level == Generic {
		p.generic(y, ldy, x, ldx, rows, act)
		return
	}
	whole, rest := p.Out/lanes, p.Out%lanes
	a := gemmArgs{x: ptr(p.w), y: ptr(y), w: ptr(x), init: ptr(p.b), k: p.In, groups: 1, slices: whole,
		xk: lanes * 4, xs: p.In * lanes * 4, wk: 4, wj: ldx * 4, yj: ldy * 4, vector: 1, act: int(act), aheadX: aheadPanels}
	if whole > 0 {
		gemm(p.level, rows, &a)
	}
	if rest == 0 {
		return
	}
	var tmp [maxGroup * lanes]float32
	a.x = unsafe.Add(a.x, whole*a.xs)
	a.init = unsafe.Add(a.init, whole*lanes*4)
	a.y, a.yj, a.groups, a.slices = unsafe.Pointer(&tmp), lanes*4, 1, 1
	gemm(p.level, rows, &a)
	for r := range rows {
		copy(y[r*ldy+whole*lanes:r*ldy+p.Out], tmp[r*lanes:])
	}
}

// generic is few in plain Go.
func (p *Panels) generic(y []float32, ldy int, x []float32, ldx, rows int, act Activation) {
	for r := range rows {
		in := x[r*ldx : r*ldx+p.In]
		for j := 0; j < p.Out; j += lanes {
			var sums [lanes]float32
			w, b := p.w[j*p.In:(j+lanes)*p.In], p.b[j:j+lanes]
			panel8((*[8]float32)(sums[:8]), in, w, b)
			panel8((*[8]float32)(sums[8:]), in, w[min(8, len(w)):], b[8:])
			out := y[r*ldy+j : r*ldy+min(j+lanes, p.Out)]
			Activate(act, out, sums[:len(out)])
		}
	}
}

// panel8 computes eight neighbouring neurons of a panel for one row.
func panel8(y *[8]float32, x, w, b []float32) {
	s0, s1, s2, s3, s4, s5, s6, s7 := b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
	for k, u := range x {
		t := w[k*lanes : k*lanes+4 : k*lanes+4]
		s0 += float32(u * t[0])
		s1 += float32(u * t[1])
		s2 += float32(u * t[2])
		s3 += float32(u * t[3])
		t = w[k*lanes+4 : k*lanes+8 : k*lanes+8]
		s4 += float32(u * t[0])
		s5 += float32(u * t[1])
		s6 += float32(u * t[2])
		s7 += float32(u * t[3])
	}
	*y = [8]float32{s0, s1, s2, s3, s4, s5, s6, s7}
}
