package vae

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// The loops here work on the lanes of one feature: values of up to TileRows rows
// that stand next to each other. They know nothing of Arrow.

// sliceRows is how many lanes the kernels take at a time: those after the last
// row, up to a multiple of it, must be zero.
const sliceRows = 16

// norms say how every feature is standardised: x = (v-mean)/scale. In float32 it
// is fma(v-hi, inv, -lo), within 2 units in the last place of the exact value.
type norms struct {
	mean, scale, inv64 []float64
	hi, inv, lo        []float32
}

func (s *Spec) norms() norms {
	features, _ := s.Inputs()
	f64 := func() []float64 { return make([]float64, 0, features) }
	f32 := func() []float32 { return make([]float32, 0, features) }
	n := norms{f64(), f64(), f64(), f32(), f32(), f32()}
	for i := range s.Columns {
		c := &s.Columns[i]
		for j := range c.Features() {
			mean, scale := 0.0, 1.0
			if c.Mean != nil {
				mean, scale = c.Mean[j], c.Scale[j]
			}
			hi := float32(mean)
			n.mean, n.scale, n.inv64 = append(n.mean, mean), append(n.scale, scale), append(n.inv64, 1/scale)
			n.hi, n.inv = append(n.hi, hi), append(n.inv, float32(1/scale))
			n.lo = append(n.lo, float32((mean-float64(hi))/scale))
		}
	}
	return n
}

// shift returns what scoring adds to each feature, so that a raw value of zero
// stays zero and can be skipped: the standardised value of a mean that lies within
// one scale of zero, as it does where most values are zero. Beyond that the sum
// would cost digits. It returns nil when nothing is shifted.
func (s *Spec) shift() []float32 {
	if s.Output != "" && s.Output != kernel.Identity.String() {
		return nil // the last layer's biases could not take it out again
	}
	features, _ := s.Inputs()
	shift, any := make([]float32, 0, features), false
	for i := range s.Columns {
		c := &s.Columns[i]
		movable := c.Mean != nil && (c.Kind == Numeric || c.Kind == Vector) && (c.Head == Gaussian || c.Head == GaussianFixed)
		for j := range c.Features() {
			by := float32(0)
			if movable && !c.Constant[j] && math.Abs(c.Mean[j]) <= c.Scale[j] {
				by = float32(c.Mean[j] / c.Scale[j])
			}
			shift, any = append(shift, by), any || by != 0
		}
	}
	if !any {
		return nil
	}
	return shift
}

// add changes the means so that each feature has shift added.
func (n *norms) add(shift []float32) {
	for f, by := range shift {
		if by != 0 {
			n.mean[f], n.hi[f], n.lo[f] = 0, 0, 0
		}
	}
}

// narrow says whether features [from, from+n) can be standardised in float32:
// nothing overflows that is not beyond MaxAbs anyway.
func (n *norms) narrow(from, count int) bool {
	for f := from; f < from+count; f++ {
		if !(math.Abs(n.mean[f]) <= 1e37 && n.scale[f] >= 1e-30 && n.scale[f] <= 1e30) {
			return false
		}
	}
	return true
}

// exact says whether one of features [from, from+n) must be divided, because the
// inverse of its scale is not a normal number.
func (n *norms) exact(from, count int) bool {
	for f := from; f < from+count; f++ {
		if !(n.scale[f] >= 1e-300 && n.scale[f] <= 1e300) {
			return true
		}
	}
	return false
}

// plain says whether features [from, from+n) are left as they are.
func (n *norms) plain(from, count int) bool {
	for f := from; f < from+count; f++ {
		if n.mean[f] != 0 || n.scale[f] != 1 {
			return false
		}
	}
	return true
}

const (
	signBit = 1 << 31
	oneBits = 0x3f800000 // of float32(1)
	// Added to a number's bits without the sign, it carries into the sign when
	// the number is above 1, infinite or NaN.
	overOne = signBit - 1 - oneBits
)

// packExact is kernel.Pack64 with a division.
func packExact(dst []float32, src []float64, mean, scale float64) (bad uint64) {
	for r, v := range src {
		if v-v != 0 {
			dst[r] = 0
			bad |= 1 << r
			continue
		}
		dst[r] = float32(min(max((v-mean)/scale, -MaxAbs), MaxAbs))
	}
	return bad
}

// notUnit says whether any of v may lie outside [0,1] or be NaN; it may be wrong
// about -0 only.
func notUnit(v []float32) bool {
	const signs, over = signBit<<32 | signBit, overOne<<32 | overOne
	var seen, more uint64
	n := len(v) &^ 3
	for _, p := range unsafe.Slice((*[2]uint64)(unsafe.Pointer(unsafe.SliceData(v))), n/4) {
		seen |= p[0]&^signs + over | p[0]
		more |= p[1]&^signs + over | p[1]
	}
	for _, x := range v[n:] {
		b := uint64(math.Float32bits(x))
		seen |= b&^signs + overOne | b
	}
	return (seen|more)&signs != 0
}

// outside returns the lanes whose value is finite but not within [0,1], and
// those that are not finite.
func outside[T float32 | float64](v []T) (off, nonfinite uint64) {
	for r, x := range v {
		switch {
		case x-x != 0:
			nonfinite |= 1 << r
		case x < 0 || x > 1:
			off |= 1 << r
		}
	}
	return off, nonfinite
}

// expand writes 1 to the lanes whose bit is set and 0 to the others.
func expand(dst []float32, set uint64) {
	if set == 0 {
		clear(dst)
		return
	}
	for ; len(dst) >= 4; dst = dst[4:] {
		d := (*[4]float32)(dst)
		b := uint32(set)
		d[0] = math.Float32frombits(b & 1 * oneBits)
		d[1] = math.Float32frombits(b >> 1 & 1 * oneBits)
		d[2] = math.Float32frombits(b >> 2 & 1 * oneBits)
		d[3] = math.Float32frombits(b >> 3 & 1 * oneBits)
		set >>= 4
	}
	for r := range dst {
		dst[r] = float32(set >> r & 1)
	}
}

// zero clears the lanes whose bit is set.
func zero(dst []float32, mask uint64) {
	for ; mask != 0; mask &= mask - 1 {
		dst[bits.TrailingZeros64(mask)] = 0
	}
}

// bitsAt returns n bits of a bitmap from bit at on, n at most 64.
func bitsAt(bitmap []byte, at, n int) (w uint64) {
	b, shift := bitmap[at>>3:], at&7
	if len(b) >= 9 {
		w = binary.LittleEndian.Uint64(b)>>shift | uint64(b[8])<<(64-shift)
	} else {
		for i, v := range b {
			if 8*i >= shift {
				w |= uint64(v) << (8*i - shift)
			} else {
				w |= uint64(v) >> shift
			}
		}
	}
	return w & firstBits(n)
}

// firstBits has the lowest n bits set.
func firstBits(n int) uint64 { return 1<<n - 1 }
