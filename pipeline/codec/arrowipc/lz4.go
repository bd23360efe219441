package arrowipc

import (
	"encoding/binary"
	"errors"
)

var errLZ4 = errors.New("lz4: the frame is broken")

// unpackLZ4 appends what an LZ4 frame holds to dst, up to its capacity. Checksums
// are passed over: brokers check whole batches.
func unpackLZ4(dst, src []byte) ([]byte, error) {
	const magic, size64, contentSize, contentSum, blockSum, dictID = 0x184d2204, 1 << 6, 1 << 3, 1 << 2, 1 << 4, 1 << 0
	if len(src) < 7 || binary.LittleEndian.Uint32(src) != magic || src[4]>>6 != size64>>6 {
		return dst, errLZ4
	}
	flags := src[4]
	skip := 7 // magic, flags, block size, header checksum
	if flags&contentSize != 0 {
		skip += 8
	}
	if flags&dictID != 0 {
		return dst, errors.New("lz4: a frame with a dictionary")
	}
	if len(src) < skip {
		return dst, errLZ4
	}
	for src = src[skip:]; ; {
		if len(src) < 4 {
			return dst, errLZ4
		}
		size := binary.LittleEndian.Uint32(src)
		src = src[4:]
		if size == 0 {
			break
		}
		n := int(size &^ (1 << 31))
		if n > len(src) {
			return dst, errLZ4
		}
		if size>>31 != 0 { // not compressed
			if n > cap(dst)-len(dst) {
				return dst, errLZ4
			}
			dst = append(dst, src[:n]...)
		} else {
			var ok bool
			if dst, ok = unpackBlock(dst, src[:n]); !ok {
				return dst, errLZ4
			}
		}
		if src = src[n:]; flags&blockSum != 0 {
			if len(src) < 4 {
				return dst, errLZ4
			}
			src = src[4:]
		}
	}
	if flags&contentSum != 0 && len(src) < 4 {
		return dst, errLZ4
	}
	return dst, nil
}

// unpackBlock appends what an LZ4 block holds to dst, up to its capacity. The block
// may refer to all that dst has.
func unpackBlock(dst, src []byte) ([]byte, bool) {
	for len(src) > 0 {
		token := src[0]
		var literals, match int
		var ok bool
		if literals, src, ok = lz4Length(int(token>>4), src[1:]); !ok || literals > len(src) || literals > cap(dst)-len(dst) {
			return dst, false
		}
		dst = append(dst, src[:literals]...)
		if src = src[literals:]; len(src) == 0 {
			return dst, true // the last sequence has no match
		}
		if len(src) < 2 {
			return dst, false
		}
		back := int(binary.LittleEndian.Uint16(src))
		match, src, ok = lz4Length(int(token&15), src[2:])
		match += 4
		if !ok || back == 0 || back > len(dst) || match > cap(dst)-len(dst) {
			return dst, false
		}
		for match > 0 { // a match may reach into what it writes
			n := min(match, back)
			dst = append(dst, dst[len(dst)-back:len(dst)-back+n]...)
			match -= n
		}
	}
	return dst, true
}

// lz4Length reads what follows a length of 15.
func lz4Length(n int, src []byte) (int, []byte, bool) {
	if n < 15 {
		return n, src, true
	}
	for len(src) > 0 {
		b := src[0]
		src = src[1:]
		if n += int(b); b < 255 {
			return n, src, true
		}
	}
	return n, src, false
}

// A lz4Writer compresses; it keeps the places where four bytes were last seen.
type lz4Writer struct {
	seen [1 << 12]int32
}

// lz4Block is the size of the largest block that frames here have.
const lz4Block = 4 << 20

// appendFrame appends src as a frame of independent blocks, without checksums but
// that of the header, which is always the same.
func (w *lz4Writer) appendFrame(dst, src []byte) []byte {
	dst = append(dst, 0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73)
	for len(src) > 0 {
		block := src[:min(len(src), lz4Block)]
		src = src[len(block):]
		at := len(dst)
		dst = w.appendBlock(append(dst, 0, 0, 0, 0), block)
		size := uint32(len(dst) - at - 4)
		if int(size) >= len(block) {
			dst = append(dst[:at+4], block...)
			size = uint32(len(block)) | 1<<31
		}
		binary.LittleEndian.PutUint32(dst[at:], size)
	}
	return append(dst, 0, 0, 0, 0)
}

// appendBlock appends src as a block: it takes the first match that it finds.
func (w *lz4Writer) appendBlock(dst, src []byte) []byte {
	const lastMatch, lastLiterals = 12, 5 // bytes at the end that no match begins in, and that none has
	clear(w.seen[:])
	done := 0
	for i := 1; i < len(src)-lastMatch; {
		v := binary.LittleEndian.Uint32(src[i:])
		slot := &w.seen[v*2654435761>>20]
		back := int(*slot)
		*slot = int32(i)
		if i-back > 65535 || binary.LittleEndian.Uint32(src[back:]) != v {
			i += 1 + (i-done)>>6 // faster where nothing is found
			continue
		}
		end := i + 4
		for end < len(src)-lastLiterals && src[end] == src[back+end-i] {
			end++
		}
		dst = appendSequence(dst, src[done:i], i-back, end-i)
		i, done = end, end
	}
	return appendSequence(dst, src[done:], 0, 0)
}

// appendSequence appends literals and a match, or the last literals without one.
func appendSequence(dst, literals []byte, back, match int) []byte {
	token := min(len(literals), 15) << 4
	if match > 0 {
		token |= min(match-4, 15)
	}
	dst = appendLength(append(dst, byte(token)), len(literals))
	dst = append(dst, literals...)
	if match > 0 {
		dst = appendLength(binary.LittleEndian.AppendUint16(dst, uint16(back)), match-4)
	}
	return dst
}

// appendLength appends what of a length the token does not hold.
func appendLength(dst []byte, n int) []byte {
	if n < 15 {
		return dst
	}
	for n -= 15; n >= 255; n -= 255 {
		dst = append(dst, 255)
	}
	return append(dst, byte(n))
}
