package kernel

import "unsafe"

// Panels is a dense layer packed for few rows: neurons stand in the lanes, 64 of
// them side by side, weights as [panel][k][64]. The last panel holds what is left
// of the neurons, padded with zeros to a multiple of 16. So one row reads all
// weights as a single stream. It is immutable and safe for concurrent use. At one
// level it gives the bits of Packed.
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
	for from := 0; from < out; from += panel {
		width := min(panel, padded-from)
		for j := from; j < min(from+width, out); j++ {
			for k := range in {
				p.w[from*in+k*width+j-from] = w[j*in+k]
			}
		}
	}
	return p
}

// panel is the number of neurons in a whole panel.
const panel = 4 * lanes

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
	a := gemmArgs{x: ptr(p.w), y: ptr(y), w: ptr(x), init: ptr(p.b), k: p.In, groups: p.Out / panel, slices: panel / lanes,
		xk: panel * 4, xs: lanes * 4, xg: p.In * panel * 4, wk: 4, wj: ldx * 4, yj: ldy * 4, yg: panel * 4,
		vector: 1, initg: panel * 4, act: int(act), aheadX: aheadPanels}
	if a.groups > 0 {
		gemm(p.level, rows, &a)
	}
	done := a.groups * panel
	if done == p.Out {
		return
	}
	a.x, a.init, a.y = unsafe.Add(a.x, done*p.In*4), unsafe.Add(a.init, done*4), unsafe.Add(a.y, done*4)
	a.groups, a.slices, a.xk = 1, (p.Out-done)/lanes, Blocks(p.Out-done)*lanes*4
	if a.slices > 0 {
		gemm(p.level, rows, &a)
	}
	done += a.slices * lanes
	if done == p.Out {
		return
	}
	var tmp [maxGroup * lanes]float32 // the last slice is not whole
	if p.In > 0 {
		a.x = unsafe.Add(a.x, a.slices*lanes*4)
	}
	a.init = unsafe.Add(a.init, a.slices*lanes*4)
	a.y, a.yj, a.slices = unsafe.Pointer(&tmp), lanes*4, 1
	gemm(p.level, rows, &a)
	for r := range rows {
		copy(y[r*ldy+done:r*ldy+p.Out], tmp[r*lanes:])
	}
}

// generic is few in plain Go.
func (p *Panels) generic(y []float32, ldy int, x []float32, ldx, rows int, act Activation) {
	padded := len(p.b)
	for r := range rows {
		in := x[r*ldx : r*ldx+p.In]
		for j := 0; j < padded; j += 8 {
			from := j / panel * panel
			width := min(panel, padded-from)
			var sums [8]float32
			if p.In > 0 {
				panel8(&sums, in, p.w[from*p.In+j-from:], p.b[j:], width)
			} else {
				copy(sums[:], p.b[j:])
			}
			if j < p.Out {
				out := y[r*ldy+j : r*ldy+min(j+8, p.Out)]
				Activate(act, out, sums[:len(out)])
			}
		}
	}
}

// panel8 computes eight neighbouring neurons for one row; their weights for the
// next input are width further on.
func panel8(y *[8]float32, x, w, b []float32, width int) {
	s0, s1, s2, s3, s4, s5, s6, s7 := b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
	for k, u := range x {
		t := w[k*width : k*width+4 : k*width+4]
		s0 += float32(u * t[0])
		s1 += float32(u * t[1])
		s2 += float32(u * t[2])
		s3 += float32(u * t[3])
		t = w[k*width+4 : k*width+8 : k*width+8]
		s4 += float32(u * t[0])
		s5 += float32(u * t[1])
		s6 += float32(u * t[2])
		s7 += float32(u * t[3])
	}
	*y = [8]float32{s0, s1, s2, s3, s4, s5, s6, s7}
}
