package kernel

import (
	"math"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// Layers of int8 weights and unsigned 8-bit inputs. Products are summed in int32,
// which is exact, so that all levels give the same integers; what is rounded besides
// (bytes, scaled sums) is rounded one operation at a time, so that plain Go gives the
// same bits too.
//
// A tile in quads is [Quads(in)][Rows] uint32: byte i of an element is input 4q+i.
// The number of quads is even.

// Quads returns the number of quads that hold n inputs, an even number.
func Quads(n int) int { return (n + 7) / 8 * 2 }

// QuantizeQuads rounds the first 16*slices rows of a tile x [in][Rows] to bytes in
// quads, dst [Quads(in)][Rows]: the whole number nearest to x*inverse + zero, the even
// one of two, within 0 and 255. Bytes beyond the inputs are 0, and so is that of a
// NaN. It panics when a buffer is too short.
func QuantizeQuads(level Level, dst []uint32, x, inverse, zero []float32, slices int) {
	checkSlices(slices)
	in := len(inverse)
	must(len(zero) == in && len(x) >= in*Rows && len(dst) >= Quads(in)*Rows, "dst, x or zero is too short for the inputs")
	done := 0
	if whole := in / 4; whole > 0 && slices > 0 && nativeQuantize(level, ptr(dst), ptr(x), ptr(inverse), ptr(zero), whole, slices) {
		done = whole * 4
	}
	n := slices * lanes
	for q := done / 4; q < Quads(in); q++ {
		clear(dst[q*Rows : q*Rows+n])
	}
	for k := done; k < in; k++ {
		d := dst[k/4*Rows : k/4*Rows+n]
		for r, v := range x[k*Rows : k*Rows+n] {
			d[r] |= quantized(v, inverse[k], zero[k]) << (8 * (k % 4))
		}
	}
}

func quantized(x, inverse, zero float32) uint32 {
	v := float32(x*inverse) + zero
	if !(v > 0) {
		return 0
	}
	return uint32(math.RoundToEven(float64(min(v, 255))))
}

// The sums of products on AVX2 meet in 16 bits before they meet in 32, so a neuron's
// weights must keep within byteRoom in every set of four that meets there.
const byteRoom = 128 // 255*128 is below 1<<15

// byteSets calls f with the inputs that meet in 16 bits: of eight neighbouring ones
// the first two of each quad, and the last two.
func byteSets(in int, f func(set [4]int)) {
	for k := 0; k < in; k += 8 {
		f([4]int{k, k + 1, k + 4, k + 5})
		f([4]int{k + 2, k + 3, k + 6, k + 7})
	}
}

// FitsBytes says whether one neuron's weights, in the order of its inputs, keep
// within what AVX2 needs: in each set of four that meets in 16 bits the positive ones
// add up to 128 at most, and the negative ones to -128 at least.
func FitsBytes(w []int8) bool {
	fits := true
	byteSets(len(w), func(set [4]int) {
		up, down := 0, 0
		for _, k := range set {
			if k < len(w) {
				up, down = up+max(int(w[k]), 0), down+min(int(w[k]), 0)
			}
		}
		fits = fits && up <= byteRoom && down >= -byteRoom
	})
	return fits
}

// ByteScale returns the smallest scale for one neuron's weights, up to a hundredth,
// such that weights divided by it and rounded to even are within -127 and 127 and keep
// the rule of FitsBytes. It is 1 for weights that are all zero.
func ByteScale(w []float32) float32 {
	top := 0.0
	for _, v := range w {
		top = max(top, math.Abs(float64(v))/127)
	}
	byteSets(len(w), func(set [4]int) {
		up, down := 0.0, 0.0
		for _, k := range set {
			if k < len(w) {
				up, down = up+max(float64(w[k]), 0), down-min(float64(w[k]), 0)
			}
		}
		top = max(top, up/byteRoom, down/byteRoom)
	})
	if top == 0 {
		return 1
	}
	q := make([]int8, len(w))
	for scale := float32(top); ; scale *= 1.005 {
		fits := true
		for k, v := range w {
			n := math.RoundToEven(float64(v) / float64(scale))
			fits = fits && math.Abs(n) <= 127
			q[k] = int8(min(max(n, -127), 127))
		}
		if fits && FitsBytes(q) {
			return scale
		}
	}
}

// A Quantized is a dense layer of int8 weights packed for one level: weights as
// [group][pair of quads][neuron][2] quads. It is immutable and safe for concurrent
// use.
type Quantized struct {
	In, Out       int
	set           byteSet
	split         grouping
	w             []uint32
	scale, offset []float32
	init          []uint32 // int32 that a neuron's sum begins with
}

// byteSet is the instructions that int8 products are made of.
type byteSet uint8

const (
	bytesGeneric byteSet = iota
	bytesAVX2            // VPMADDUBSW, whose sums do not saturate by the rule of FitsBytes
	bytesVNNI            // AVX512-VNNI
	bytesNEON            // SDOT
)

// String names the instruction.
func (s byteSet) String() string { return [...]string{"plain Go", "VPMADDUBSW", "VPDPBUSD", "SDOT"}[s] }

// byteSetOf returns what a level multiplies bytes with on this CPU.
func byteSetOf(level Level) byteSet {
	switch {
	case !native(level):
	case (level == AVX512 || level == BF16) && cpu.X86.HasAVX512VNNI:
		return bytesVNNI
	case level == AVX2, level == AVX512, level == BF16:
		return bytesAVX2
	case level == NEON && cpu.ARM64.HasASIMDDP:
		return bytesNEON
	}
	return bytesGeneric
}

// most is the most neurons of a group.
func (s byteSet) most() int {
	switch s {
	case bytesAVX2:
		return 3
	case bytesVNNI, bytesNEON:
		return 6
	}
	return 1
}

// PackBytes packs the weights w [out][in], from -127 to 127, with a scale and an offset
// for each output, for a level. Weights that do not keep the rule of FitsBytes, which a
// careful quantiser does not make, are packed as Generic where AVX2 would multiply
// them. It panics when a length does not fit.
func PackBytes(level Level, w []int8, scale, offset []float32, in, out int) *Quantized {
	return packBytes(byteSetOf(level), w, scale, offset, in, out)
}

func packBytes(set byteSet, w []int8, scale, offset []float32, in, out int) *Quantized {
	must(len(w) == in*out && len(scale) == out && len(offset) == out, "weights do not fit the layer")
	for o := 0; o < out && set == bytesAVX2; o++ {
		if !FitsBytes(w[o*in : (o+1)*in]) {
			set = bytesGeneric
		}
	}
	q := &Quantized{In: in, Out: out, set: set, split: groupsOf(out, set.most()), scale: aligned[float32](out), offset: aligned[float32](out),
		w: aligned[uint32](out * Quads(in)), init: aligned[uint32](out)}
	copy(q.scale, scale)
	copy(q.offset, offset)
	at := 0
	for g := range q.split.groups {
		from, to := q.Span(g, g+1)
		for pair := range Quads(in) / 2 {
			for o := from; o < to; o++ {
				for k := 8 * pair; k < min(8*pair+8, in); k++ {
					q.w[at+k/4%2] |= uint32(uint8(w[o*in+k])) << (8 * (k % 4))
				}
				at += 2
			}
		}
	}
	if set == bytesNEON { // whose inputs are moved by 128
		for o := range out {
			sum := int32(0)
			for _, v := range w[o*in : (o+1)*in] {
				sum += int32(v)
			}
			q.init[o] = uint32(128 * sum)
		}
	}
	return q
}

// Groups returns the number of groups of neurons.
func (q *Quantized) Groups() int { return q.split.groups }

// Span returns the neurons [from, to) that the groups [g0, g1) cover.
func (q *Quantized) Span(g0, g1 int) (from, to int) { return q.split.before(g0), q.split.before(g1) }

// Dense computes y = act(scale * (W u) + offset) for the first 16*slices rows of a
// tile in quads u: y is [Out][Rows]; its other lanes are left alone. act is Identity,
// ReLU or Leaky. It panics when a buffer is too short.
func (q *Quantized) Dense(y []float32, u []uint32, act Activation, slices int) {
	checkLinear(act)
	checkSlices(slices)
	must(len(y) >= q.Out*Rows, "y is too short for the neurons")
	must(len(u) >= Quads(q.In)*Rows, "u is too short for the inputs")
	if slices == 0 {
		return
	}
	pairs := Quads(q.In) / 2
	for g := range q.split.groups {
		from, to := q.Span(g, g+1)
		if q.set == bytesGeneric {
			q.generic(y[from*Rows:], u, from, act, slices)
			continue
		}
		multiplyBytes(q.set, to-from, unsafe.Add(ptr(y), from*Rows*4), ptr(u), unsafe.Add(ptr(q.w), from*pairs*8),
			unsafe.Add(ptr(q.scale), from*4), unsafe.Add(ptr(q.offset), from*4), unsafe.Add(ptr(q.init), from*4), pairs, slices, int(act))
	}
}

// generic computes one neuron in plain Go.
func (q *Quantized) generic(y []float32, u []uint32, o int, act Activation, slices int) {
	n := slices * lanes
	quads := Quads(q.In)
	var sums [Rows]int32
	for k, w := range q.w[o*quads : (o+1)*quads] {
		w0, w1, w2, w3 := int32(int8(w)), int32(int8(w>>8)), int32(int8(w>>16)), int32(int8(w>>24))
		for r, v := range u[k*Rows : k*Rows+n] {
			sums[r] += w0*int32(v&255) + w1*int32(v>>8&255) + w2*int32(v>>16&255) + w3*int32(v>>24)
		}
	}
	for r, s := range sums[:n] {
		y[r] = float32(float32(s)*q.scale[o]) + q.offset[o]
	}
	Activate(act, y[:n], y[:n])
}
