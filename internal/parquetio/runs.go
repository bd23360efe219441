package parquetio

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/parquet-go/parquet-go/encoding/rle"
)

// runPadding is how far the last bit-packed run may go beyond the values: the
// format pads to eight, DuckDB to 256.
const runPadding = 255

// checkRuns walks the run headers of the RLE/bit-packed hybrid and says whether
// they expand to about n values: five bytes may claim two billion. It returns
// how many bytes of padding the writer cut from the last run.
func checkRuns(src []byte, width, n int) (cut int, err error) {
	total := 0
	for len(src) > 0 {
		u, k := binary.Uvarint(src)
		if k <= 0 || u > 1<<32 {
			return 0, errShort
		}
		src = src[k:]
		used := (width + 7) / 8
		count := int(u >> 1)
		if u&1 == 1 {
			used = count * width
			count *= 8
		}
		if used > len(src) {
			if u&1 == 0 || total+len(src)*8/max(width, 1) < n {
				return 0, errShort
			}
			cut = used - len(src)
			if cut > 32*width {
				return 0, errShort
			}
			used = len(src)
		}
		src = src[used:]
		if total += count; total > n+runPadding {
			return 0, errTooMany
		}
	}
	if total < n {
		return 0, errShort
	}
	return cut, nil
}

// padded returns src with cut zero bytes behind it.
func padded(src []byte, cut int) []byte {
	if cut == 0 {
		return src
	}
	return append(append(make([]byte, 0, len(src)+cut), src...), make([]byte, cut)...)
}

// levels decodes exactly n levels of which the highest may be limit.
func levels(buf *[]byte, src []byte, n, limit int) ([]byte, error) {
	width := bitLen(limit)
	cut, err := checkRuns(src, width, n)
	if err != nil {
		return nil, fmt.Errorf("levels: %w", err)
	}
	enc := rle.Encoding{BitWidth: width}
	out, err := enc.DecodeLevels(scratch(buf, n+runPadding+1)[:0], padded(src, cut))
	if err != nil {
		return nil, err
	}
	if len(out) < n {
		return nil, fmt.Errorf("levels: %w", errShort)
	}
	*buf = out
	out = out[:n]
	if limit&(limit+1) != 0 { // not all values of that width are levels
		for _, l := range out {
			if int(l) > limit {
				return nil, fmt.Errorf("level %d above %d", l, limit)
			}
		}
	}
	return out, nil
}

// indexes decodes exactly n dictionary indexes below size.
func indexes(buf *[]int32, src []byte, n, size int) ([]int32, error) {
	if n == 0 {
		return (*buf)[:0], nil
	}
	if len(src) == 0 || src[0] > 32 {
		return nil, fmt.Errorf("indexes: %w", errShort)
	}
	width := int(src[0])
	cut, err := checkRuns(src[1:], width, n)
	if err != nil {
		return nil, fmt.Errorf("indexes: %w", err)
	}
	if cap(*buf) < n+runPadding+1 {
		*buf = make([]int32, n+n/4+runPadding+1)
	}
	enc := rle.Encoding{BitWidth: width}
	out, err := enc.DecodeInt32((*buf)[:0], padded(src[1:], cut))
	if err != nil {
		return nil, err
	}
	if len(out) < n {
		return nil, fmt.Errorf("indexes: %w", errShort)
	}
	*buf = out
	out = out[:n]
	top := uint32(0)
	for _, ix := range out {
		top = max(top, uint32(ix))
	}
	if uint64(top) >= uint64(size) {
		return nil, fmt.Errorf("%w: %d of %d", errDictIndex, top, size)
	}
	return out, nil
}

// checkDelta walks the headers of a DELTA_BINARY_PACKED block of n values and
// returns the bytes behind it. wide says that it does not fit 32-bit arithmetic:
// DuckDB counts unsigned 32-bit values in 64 bits.
func checkDelta(src []byte, n int) (rest []byte, wide bool, err error) {
	var head [4]uint64 // block size, miniblocks, values, first value
	for i := range head {
		u, k := binary.Uvarint(src)
		if k <= 0 {
			return nil, false, errShort
		}
		head[i], src = u, src[k:]
	}
	if head[2] != uint64(n) {
		return nil, false, fmt.Errorf("delta block of %d values, %d expected", head[2], n)
	}
	if head[1] == 0 || head[1] > 512 || head[0] == 0 || head[0] > 1<<16 || head[0]%head[1] != 0 || head[0]/head[1]%8 != 0 {
		return nil, false, fmt.Errorf("delta block of %d values in %d miniblocks", head[0], head[1])
	}
	mini := int(head[0] / head[1])
	wide = head[3] > math.MaxUint32 // zigzag of a value beyond 32 bits
	for left := n - 1; left > 0; {
		_, k := binary.Uvarint(src) // least delta
		if k <= 0 || len(src)-k < int(head[1]) {
			return nil, false, errShort
		}
		widths := src[k : k+int(head[1])]
		src = src[k+int(head[1]):]
		for _, w := range widths {
			if left <= 0 {
				break
			}
			if w > 64 {
				return nil, false, fmt.Errorf("delta miniblock of %d bits", w)
			}
			wide = wide || w > 32
			used := mini * int(w) / 8
			if used > len(src) {
				return nil, false, errShort
			}
			src = src[used:]
			left -= mini
		}
	}
	return src, wide, nil
}

func bitLen(limit int) int {
	n := 0
	for ; limit > 0; limit >>= 1 {
		n++
	}
	return n
}

// scratch returns n bytes of *b, which grows when needed. What grows was
// bounded by the caller.
func scratch(b *[]byte, n int) []byte {
	if cap(*b) < n {
		*b = make([]byte, n+min(n/4, 1<<20)+64)
	}
	return (*b)[:n]
}

// addInt32 adds sizes that end as Arrow offsets.
func addInt32(a, b int) (int, error) {
	if a+b > math.MaxInt32 {
		return 0, fmt.Errorf("more than 2 GiB in one batch: read fewer rows at once")
	}
	return a + b, nil
}
