package vae

import (
	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// vector packs a column of lists and returns the rows that miss any of it.
func (b *Packed) vector(s *step, c *bound, valid uint64) (gone uint64) {
	w := &b.work
	fits := valid
	for r := range w.n {
		w.starts[r] = -1
		if valid>>r&1 == 0 {
			continue
		}
		from, to := c.list.ValueOffsets(w.from + r)
		if int(to-from) != s.features {
			fits &^= 1 << r
			continue
		}
		w.starts[r] = int(from)
	}
	w.misfit |= valid &^ fits
	if w.fs == 1 && !w.tile && s.whole && c.inner == nil {
		return b.vectorRows(s, c, fits)
	}
	for j := 0; j < s.features; j += blockWidth {
		k := min(blockWidth, s.features-j)
		if s.narrow {
			gather(w.f32[:], numbersOf[float32](c), w.starts[:w.n], j, k)
		} else {
			b.gatherWide(s, c, j, k)
		}
		for i := range k {
			here := fits
			if c.inner != nil {
				here &= b.elements(c, j+i)
			}
			if s.narrow {
				gone |= b.narrow(s, s.feature+j+i, w.f32[i*TileRows:][:w.n], here)
			} else {
				gone |= b.wide(s, s.feature+j+i, w.f64[i*TileRows:][:w.n], here)
			}
		}
	}
	return gone
}

// vectorRows packs lists of float32 row by row and returns the rows that miss any
// of it; fits has those whose list has the right length.
func (b *Packed) vectorRows(s *step, c *bound, fits uint64) (gone uint64) {
	w, norms := &b.work, &b.p.norms
	from, to := s.feature, s.feature+s.features
	gone = w.all &^ fits
	for f := range w.missing[from:to] {
		w.missing[from+f] = gone
	}
	for r, start := range w.starts[:w.n] {
		dst := w.x[r*w.rs+from:][:s.features]
		if start < 0 {
			clear(dst)
			continue
		}
		src := numbersOf[float32](c)[start : start+s.features]
		copy(dst, src)
		odd := false
		if s.unit {
			odd = notUnit(src)
		} else {
			odd = !kernel.PackRow(b.p.level, dst, norms.hi[from:to], norms.inv[from:to], norms.lo[from:to], MaxAbs)
		}
		if !odd {
			continue
		}
		for i := range src {
			off, nonfinite := outside(src[i : i+1])
			if !s.unit {
				off = 0
			}
			if off|nonfinite != 0 {
				dst[i] = 0
				w.missing[from+i] |= 1 << r
				w.misfit |= off << r
				w.nonfinite |= nonfinite << r
				gone |= 1 << r
			}
		}
	}
	return gone
}

// elements returns the rows whose element j is not null.
func (b *Packed) elements(c *bound, j int) (valid uint64) {
	w := &b.work
	for r, s := range w.starts[:w.n] {
		if s >= 0 {
			at := c.innerAt + s + j
			valid |= uint64(c.inner[at>>3]>>(at&7)&1) << r
		}
	}
	return valid
}

// gather reads elements [j, j+k) of the lists that begin at starts and turns
// them round: element by element. Lists that begin below 0 give zeros.
func gather[D float32 | float64, T integer | float32 | float64](dst []D, src []T, starts []int, j, k int) {
	for r, s := range starts {
		if s < 0 {
			for i := range k {
				dst[i*TileRows+r] = 0
			}
			continue
		}
		if k != blockWidth {
			for i, v := range src[s+j : s+j+k] {
				dst[i*TileRows+r] = D(v)
			}
			continue
		}
		d, v := (*[(blockWidth-1)*TileRows + 1]D)(dst[r:]), (*[blockWidth]T)(src[s+j:])
		for i := range v {
			d[i*TileRows] = D(v[i])
		}
	}
}

// gatherWide is gather to float64.
func (b *Packed) gatherWide(s *step, c *bound, j, k int) {
	dst, starts := b.work.f64[:], b.work.starts[:b.work.n]
	switch s.num {
	case arrow.FLOAT32:
		gather(dst, numbersOf[float32](c), starts, j, k)
	case arrow.FLOAT64:
		gather(dst, numbersOf[float64](c), starts, j, k)
	case arrow.INT8:
		gather(dst, numbersOf[int8](c), starts, j, k)
	case arrow.INT16:
		gather(dst, numbersOf[int16](c), starts, j, k)
	case arrow.INT32:
		gather(dst, numbersOf[int32](c), starts, j, k)
	case arrow.INT64:
		gather(dst, numbersOf[int64](c), starts, j, k)
	case arrow.UINT8:
		gather(dst, numbersOf[uint8](c), starts, j, k)
	case arrow.UINT16:
		gather(dst, numbersOf[uint16](c), starts, j, k)
	case arrow.UINT32:
		gather(dst, numbersOf[uint32](c), starts, j, k)
	case arrow.UINT64:
		gather(dst, numbersOf[uint64](c), starts, j, k)
	}
}

// narrow packs float32 values of feature f and returns the rows that miss it.
func (b *Packed) narrow(s *step, f int, v []float32, valid uint64) (gone uint64) {
	w, norms := &b.work, &b.p.norms
	lanes := w.lanesOf(f)
	var off uint64
	if s.unit && notUnit(v) {
		off, _ = outside(v)
	}
	bad := kernel.Pack32(b.p.level, lanes, v, nil, norms.hi[f], norms.inv[f], norms.lo[f], MaxAbs)
	w.nonfinite |= bad & valid
	w.misfit |= off & valid
	if gone = w.all&^valid | off | bad; gone != 0 {
		zero(lanes[:w.n], gone)
	}
	w.put(f, lanes)
	w.missing[f] = gone
	return gone
}
