package kernel

import (
	"syscall"
	"testing"
	"unsafe"
)

// guarded returns an allocator whose buffers touch a page that cannot be read or
// written: right behind them, or right before them.
func guarded(t *testing.T, behind bool) func(n int) []float32 {
	page := syscall.Getpagesize()
	return func(n int) []float32 {
		size := (4*n+page-1)/page*page + 2*page
		mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Munmap(mem); err != nil {
				t.Error(err)
			}
		})
		for _, guard := range [][]byte{mem[:page], mem[size-page:]} {
			if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
				t.Fatal(err)
			}
		}
		if n == 0 {
			return nil
		}
		at := page
		if behind {
			at = size - page - 4*n
		}
		return unsafe.Slice((*float32)(unsafe.Pointer(&mem[at])), n)
	}
}

// TestVecStaysInItsBuffers runs every function with a guard page behind and then
// before each buffer; a touch ends the test binary.
func TestVecStaysInItsBuffers(t *testing.T) {
	for _, c := range calls() {
		t.Run(c.name, func(t *testing.T) {
			for _, l := range Levels() {
				for _, n := range []int{1, 3, 8, 13} {
					want := c.run(l, n, newBuffers(plain))
					for _, behind := range []bool{true, false} {
						for o, got := range c.run(l, n, newBuffers(guarded(t, behind))) {
							if !same(got, want[o]) {
								t.Fatalf("%v: %d features: output %d differs between buffers", l, n, o)
							}
						}
					}
				}
			}
		})
	}
}
