package kernel

import (
	"sync"
	"unsafe"
)

// gemmArgs describes one call of a matrix kernel. All matrix products of this
// package are the same loop over different strides: for each group of n scalars
// and each slice of 16 neighbouring lanes
//
//	y[j][lane] = end(init[j][lane] + sum over k of w[j][k] * x[k][lane]),  j < n
//
// where every sum is one chain of fused multiply-adds over k in ascending order.
// Strides are in bytes and may be anything, so that w is read along a packed
// stream, along rows or along columns. A slice of y and of a vector init is
// contiguous with the next one. Neither y nor init may overlap x or w; init may
// be y itself.
//
// The struct lives on the caller's stack. The kernels read it and use its last
// fields as their own variables; they check nothing, and groups must not be 0.
type gemmArgs struct {
	x, y, w, init unsafe.Pointer
	index         unsafe.Pointer // indexed kernels: the uint32 k to visit, ascending; sparse ones: each group's uint32 steps in x, one list after the other
	counts        unsafe.Pointer // sparse kernels: the uint32 lengths of the groups' lists

	k, groups, slices int
	xk, xs, xg        int // step of x from k to k, slice to slice, group to group
	wk, wj, wg        int // step of w from k to k, scalar to scalar, group to group
	yj, yg            int // step of y from scalar to scalar, group to group
	// vector says that init holds a value per lane, at initj bytes from scalar to
	// scalar; otherwise it holds a value per scalar, 4 bytes apart.
	vector       int
	initj, initg int
	act          int // Identity, ReLU or Leaky
	// Distances in bytes by which the streams of w and x are prefetched. The
	// addresses may lie outside the buffers: a prefetch never faults.
	aheadW, aheadX int

	//lint:ignore U1000 used by assembly
	atX, atY, atW, atInit, left, groupY, groupInit, groupX, leftGroups, atIndex, atCounts uintptr // the kernel's own
}

// lanes is the number of rows in a slice, tileSlices of slices in a tile.
const (
	lanes      = 16
	tileSlices = Rows / lanes
)

// maxGroup is the most scalars that a kernel takes at once.
const maxGroup = 6

// grouping splits out scalars into groups of n and n-1, as even as possible.
type grouping struct {
	n      int // scalars in a large group
	groups int
	large  int // the first large groups have n scalars, the others n-1
}

func groupsOf(out, most int) grouping {
	if out == 0 {
		return grouping{n: 1}
	}
	g := (out + most - 1) / most
	n := (out + g - 1) / g
	return grouping{n: n, groups: g, large: out - g*(n-1)}
}

// before returns the number of scalars in the first g groups.
func (s grouping) before(g int) int { return g*s.n - max(g-s.large, 0) }

// nativeSet has the bit of each level that this CPU and build have assembly for.
var nativeSet = sync.OnceValue(func() (set uint) {
	for _, l := range nativeLevels() {
		set |= 1 << l
	}
	return set
})

// native says whether this CPU and build have assembly for the level.
func native(l Level) bool { return nativeSet()>>l&1 != 0 }

// aligned returns n zeros that start on a cache line.
func aligned[T float32 | uint32](n int) []T {
	const line = 64
	v := make([]T, n+line/4)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(v)))) & (line - 1) / 4
	return v[skip : skip+n : skip+n]
}

// ptr returns the address of the first element, or nil.
func ptr[T float32 | uint32](v []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(v)) }

func checkLinear(a Activation) {
	if a > Leaky {
		panic("kernel: matrix kernels end in identity, relu or leaky_relu, not " + a.String())
	}
}

func checkSlices(slices int) {
	if slices < 0 || slices > tileSlices {
		panic("kernel: a tile has 0 to 4 slices")
	}
}

// How far ahead the streams are prefetched, in bytes; found by measurement.
const (
	aheadPacked = 2048
	aheadRows   = 256
	aheadPanels = 2048
	aheadInputs = 4 // rows of weights
)

// Peak runs n rounds of independent chains of fused multiply-adds in registers
// and returns the floating point operations that they were, two for each
// multiply-add: timed, it tells the ceiling of the level on this core. Generic
// multiplies and adds in plain Go.
func Peak(level Level, n int) (flops float64) {
	if native(level) {
		return gemmPeak(level, max(n, 0))
	}
	return peakGeneric(max(n, 0))
}

func peakGeneric(n int) float64 {
	a, b, c, d, e, f, g, h := float32(1), float32(2), float32(3), float32(4), float32(5), float32(6), float32(7), float32(8)
	u, v := float32(0.5), float32(0.25)
	for range n {
		a = float32(a*u) + v
		b = float32(b*u) + v
		c = float32(c*u) + v
		d = float32(d*u) + v
		e = float32(e*u) + v
		f = float32(f*u) + v
		g = float32(g*u) + v
		h = float32(h*u) + v
	}
	if a+b+c+d+e+f+g+h == 0 {
		return 0 // never: so that the sums are needed
	}
	return 16 * float64(n)
}
