package train

import (
	"math"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// Normals fills dst, a tile [latents][kernel.Rows], with standard normal numbers
// (Box and Muller 1958, in float64). The number at latent l and lane r depends
// on seed, step, from+r and l alone: from is the place of the tile's first row
// in its batch, so that any split of a batch draws the same numbers. It panics
// when dst has another length.
func Normals(dst []float32, seed, step uint64, from, latents int) {
	if len(dst) != latents*kernel.Rows {
		panic("train: len(dst) is not latents*kernel.Rows")
	}
	key := stir(mix(seed+golden64), step)
	for r := range kernel.Rows {
		row := stir(key, uint64(from+r))
		for l := 0; l < latents; l += 2 { // one radius and angle serve two latents
			k := stir(row, uint64(l))
			radius := math.Sqrt(-2 * logUniform(k))
			sin, cos := onCircle(mix(k + golden64))
			dst[l*kernel.Rows+r] = float32(radius * cos)
			if l+1 < latents {
				dst[(l+1)*kernel.Rows+r] = float32(radius * sin)
			}
		}
	}
}

// The logarithm and the point on the circle below are table and polynomial: about
// as good as those of package math (absolute error below 2e-15) at a fifth of
// their time, which was a quarter of a step of a small network. Products are
// converted before they are added, so that all architectures give the same bits.

// A logEntry is 1/c and log(c) of the middle c of one of 128 intervals of [1, 2).
type logEntry struct{ inverse, log float64 }

// A point is the sine and cosine of the middle of one of 256 equal arcs.
type point struct{ sin, cos float64 }

var (
	logTable    = makeLogTable()
	circleTable = makeCircleTable()
)

func makeLogTable() (t [128]logEntry) {
	for i := range t {
		c := 1 + (float64(i)+0.5)/128
		t[i] = logEntry{1 / c, -math.Log(1 / c)} // of the rounded inverse
	}
	return t
}

func makeCircleTable() (t [256]point) {
	for i := range t {
		t[i].sin, t[i].cos = math.Sincos(2 * math.Pi * (float64(i) + 0.5) / 256)
	}
	return t
}

// logUniform returns the logarithm of the number in (0, 1) that the upper 53 bits
// of key stand for.
func logUniform(key uint64) float64 {
	b := math.Float64bits((float64(key>>11) + 0.5) / (1 << 53))
	e := &logTable[b>>45&127]
	r := float64(math.Float64frombits(b&(1<<52-1)|1023<<52)*e.inverse) - 1
	// log(1+r) for abs(r) <= 1/256.
	p := float64(r*(-1./6)) + 1./5
	p = float64(r*p) - 1./4
	p = float64(r*p) + 1./3
	p = float64(r*p) - 1./2
	p = float64(float64(r*r)*p) + r
	return min(float64(float64(int(b>>52)-1023)*math.Ln2)+e.log+p, 0)
}

// onCircle returns sine and cosine of the angle 2*pi*u, where u in (0, 1) is what
// the upper 53 bits of key stand for.
func onCircle(key uint64) (sin, cos float64) {
	at := &circleTable[key>>56]
	const arc = 2 * math.Pi / 256
	d := float64((float64(int64(key>>11&(1<<45-1)))+0.5)*(arc/(1<<45))) - arc/2
	q := float64(d * d)
	s := float64(q*(1./120)) - 1./6
	s = float64(float64(d*q)*s) + d
	c := float64(q*(-1./720)) + 1./24
	c = float64(q*c) - 1./2
	c = float64(q*c) + 1
	return float64(at.sin*c) + float64(at.cos*s), float64(at.cos*c) - float64(at.sin*s)
}
