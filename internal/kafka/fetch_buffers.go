package kafka

import (
	"math/bits"
	"sync"
)

// Buffers are memory for answers and for what is unpacked of them, kept by size
// between chunks. They are safe for concurrent use.
type buffers struct {
	most int64 // bytes kept at most while nobody uses them

	mu   sync.Mutex
	idle int64
	free [bufferSizes][][]byte
}

const (
	smallBuffer = 12 // bits of the smallest buffer's size, 4 KiB
	bufferSizes = 4*(31-smallBuffer) + 1
)

// sizeClass returns the number and the size of the smallest class that holds n
// bytes. There are four classes to each power of two, so at most a fifth is unused.
func sizeClass(n int) (class, size int) {
	if n <= 1<<smallBuffer {
		return 0, 1 << smallBuffer
	}
	power := bits.Len(uint(n-1)) - 1 // 2^power < n <= 2^(power+1)
	quarter := 1 << (power - 2)
	step := (n - 1<<power + quarter - 1) / quarter
	return 4*(power-smallBuffer) + step, 1<<power + step*quarter
}

// get returns n bytes of any content. The capacity is what put takes back.
func (p *buffers) get(n int) []byte {
	class, size := sizeClass(n)
	if class >= bufferSizes {
		return make([]byte, n)
	}
	p.mu.Lock()
	list := p.free[class]
	if len(list) == 0 {
		p.mu.Unlock()
		return make([]byte, n, size)
	}
	b := list[len(list)-1]
	list[len(list)-1] = nil
	p.free[class] = list[:len(list)-1]
	p.idle -= int64(size)
	p.mu.Unlock()
	return b[:n]
}

// put takes memory back that nobody uses any more, wherever it came from.
func (p *buffers) put(b []byte) {
	class, size := sizeClass(cap(b))
	if class >= bufferSizes || size != cap(b) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.idle+int64(size) <= p.most {
		p.free[class] = append(p.free[class], b)
		p.idle += int64(size)
	}
}
