//go:build noasm || !(amd64 || arm64)

package kernel

import "unsafe"

func gemm(Level, int, *gemmArgs) { panic("kernel: no assembly in this build") }

func gemmPeak(Level, int) float64 { panic("kernel: no assembly in this build") }

func gemmRoundPairs(unsafe.Pointer, unsafe.Pointer, int, int) {
	panic("kernel: no assembly in this build")
}

func gemmSparse(Level, int, *gemmArgs) { panic("kernel: no assembly in this build") }

func multiplyBytes(byteSet, int, unsafe.Pointer, unsafe.Pointer, unsafe.Pointer, unsafe.Pointer, unsafe.Pointer, unsafe.Pointer, int, int, int) {
	panic("kernel: no assembly in this build")
}

func nativeQuantize(Level, unsafe.Pointer, unsafe.Pointer, unsafe.Pointer, unsafe.Pointer, int, int) bool {
	return false
}
