//go:build linux

package kernel

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"
)

// fenced returns a copy of v that lies between two pages that cannot be touched:
// against the one behind it, or against the one before it.
func fenced[T float32 | uint32](t *testing.T, v []T, behind bool) []T {
	t.Helper()
	page := syscall.Getpagesize()
	size := (len(v)*4 + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(m) }) // the test is over
	for _, edge := range [][]byte{m[:page], m[page+size:]} {
		if err := syscall.Mprotect(edge, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	at := page
	if behind {
		at += size - len(v)*4
	}
	g := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(m[at:at+1]))), len(v)+1)[:len(v):len(v)]
	copy(g, v)
	return g
}

// TestGemmTouchesNothingElse runs every family with each buffer against a page
// that faults.
func TestGemmTouchesNothingElse(t *testing.T) {
	rnd := rand.New(rand.NewPCG(23, 24))
	for _, l := range Levels() {
		for _, behind := range []bool{true, false} {
			for _, shape := range [][2]int{{1, 1}, {2, 5}, {7, 6}, {16, 12}, {19, 17}, {33, 64}, {5, 81}, {64, 130}} {
				in, out := shape[0], shape[1]
				t.Run(fmt.Sprintf("%v/behind=%v/%dx%d", l, behind, in, out), func(t *testing.T) {
					guard := func(v []float32) []float32 { return fenced(t, v, behind) }
					c := newGemmCase(rnd, in, out, Leaky)
					x, w, b, y := guard(c.x), guard(c.w), guard(c.b), guard(make([]float32, out*Rows))
					index := fenced(t, c.active, behind)
					p := PackCols(l, w, b, in, out)
					p.w, p.b, p.pairs = guard(p.w), guard(p.b), fenced(t, p.pairs, behind)
					for slices := 1; slices <= tileSlices; slices++ {
						if l == BF16 {
							pairs := fenced(t, make([]uint32, Pairs(in)*Rows), behind)
							RoundPairs(l, pairs, x, in, slices)
							p.DensePairs(y, pairs, 0, p.Groups(), c.act, slices)
							continue
						}
						p.Dense(y, x, c.act, slices)
						p.DenseIndexed(y, x, index, c.act, slices)
					}
					few := PackPanels(l, w, b, in, out)
					few.w, few.b = guard(few.w), guard(few.b)
					for rows := 1; rows <= 7; rows++ {
						few.Dense(guard(make([]float32, rows*out)), out, guard(make([]float32, rows*in)), in, rows, c.act)
					}
					DenseRows(l, y, x, w, b, in, out, c.act)
					DenseInputFast(l, guard(make([]float32, in*Rows)), y, w, in, out)
					DenseWeightsFast(l, w, y, guard(blocked(x, in)), in, out, guard(make([]float32, lanes*out)))
				})
			}
		}
	}
}
