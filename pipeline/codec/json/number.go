package json

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unsafe"
)

// powers are the powers of ten that a float64 holds exactly.
var powers = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// whole are the powers of ten that a uint64 holds.
var whole = [...]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19}

// inNumber tells the bytes that may stand inside of a number.
var inNumber = [256]bool{'0': true, '1': true, '2': true, '3': true, '4': true, '5': true, '6': true, '7': true,
	'8': true, '9': true, '.': true, 'e': true, 'E': true, '+': true, '-': true}

// number checks a number, of which the first byte is a digit or a minus.
func (d *decoder) number(doc []byte, p int) int {
	end, ok := numeralEnd(doc, p)
	if !ok {
		return d.unexpected(doc, end, "a digit")
	}
	return end
}

// numeralEnd returns the position behind the number at p, or where a digit is missed.
func numeralEnd(doc []byte, p int) (end int, ok bool) {
	if p < len(doc) && doc[p] == '-' {
		p++
	}
	q := digits(doc, p)
	if q == p {
		return p, false
	}
	if p++; doc[p-1] != '0' {
		p = q // a 0 stands alone
	}
	if p < len(doc) && doc[p] == '.' {
		if q = digits(doc, p+1); q == p+1 {
			return q, false
		}
		p = q
	}
	if p < len(doc) && (doc[p] == 'e' || doc[p] == 'E') {
		p++
		if p < len(doc) && (doc[p] == '+' || doc[p] == '-') {
			p++
		}
		if q = digits(doc, p); q == p {
			return q, false
		}
		p = q
	}
	return p, true
}

// digits returns the position behind the digits at p.
func digits(doc []byte, p int) int {
	for p < len(doc) && doc[p]-'0' <= 9 {
		p++
	}
	return p
}

// run8 reads up to eight digits at p, which must have eight bytes behind it. It
// returns their number n, and v, their value when n is not zero.
func run8(doc []byte, p int) (v uint64, n int) {
	const zeros, tops = 0x3030303030303030, 0x8080808080808080
	w := binary.LittleEndian.Uint64(doc[p:]) ^ zeros
	// Carries mark more than the first byte that is no digit; only that one counts.
	other := ((w + 0x7676767676767676) | w) & tops
	n = 8
	if other != 0 {
		n = leading(other)
		w <<= (64 - 8*n) & 63 // leading zeros, and what is no digit falls out
	}
	w = w*10 + w>>8
	v = ((w&0x000000ff000000ff)*0x000f424000000064 + (w>>16&0x000000ff000000ff)*0x0000271000000001) >> 32
	return v, n
}

// leading counts the bytes below the first that has its top bit set; no other bit
// is set. It is bits.TrailingZeros64(tops) / 8 without the instruction that is slow
// where nothing newer than amd64's first level may be used.
func leading(tops uint64) int {
	return int((tops & -tops >> 7) * 0x0001020304050607 >> 56)
}

// decimal reads a number of at most 18 digits without an exponent at p. The number
// is m / 10^scale, negated when neg is 1. An end of 0 means: look closer, which includes
// everything that is no number.
func decimal(doc []byte, p int) (m uint64, scale, neg, end int) {
	if p+19 > len(doc) {
		return decimalAtEnd(doc, p)
	}
	neg = minus(doc[p])
	start := p + neg
	p = start + 1
	if m = uint64(doc[start] - '0'); m > 9 || doc[p] != '.' {
		if m, p = integer(doc, start); p == 0 {
			return 0, 0, 0, 0
		}
	}
	if doc[p] == '.' {
		var frac uint64
		frac, scale = run8(doc, p+1)
		if scale == 0 {
			return 0, 0, 0, 0
		}
		p += 1 + scale
		m = m*whole[scale] + frac
		if scale == 8 {
			for ; p < len(doc) && doc[p]-'0' <= 9; p++ {
				m = m*10 + uint64(doc[p]-'0')
				scale++
			}
			if p-start > 19 { // a point and 18 digits
				return 0, 0, 0, 0
			}
		}
	}
	if p >= len(doc) || inNumber[doc[p]] {
		return 0, 0, 0, 0
	}
	return m, scale, neg, p
}

// minus is 1 for a minus and 0 for everything else. Signs come at random, so that
// they are better not branched on.
func minus(c byte) (n int) {
	if c == '-' {
		n = 1
	}
	return n
}

// integer reads a number's digits before the point, at most eight of them, or up
// to 18 when there is no point. Its end has ten bytes of doc behind it if there is a point.
func integer(doc []byte, p int) (m uint64, end int) {
	m, n := run8(doc, p)
	if n == 0 || doc[p] == '0' && n > 1 {
		return 0, 0
	}
	end = p + n
	if n < 8 {
		return m, end
	}
	for ; end < len(doc) && doc[end]-'0' <= 9; end++ {
		m = m*10 + uint64(doc[end]-'0')
	}
	if end >= len(doc) || end-p > 18 || doc[end] == '.' && end-p > 8 {
		return 0, 0
	}
	return m, end
}

// decimalAtEnd is decimal, byte by byte.
func decimalAtEnd(doc []byte, p int) (m uint64, scale, neg, end int) {
	if p < len(doc) {
		neg = minus(doc[p])
		p += neg
	}
	start, point := p, -1
	for ; p < len(doc); p++ {
		c := doc[p] - '0'
		if c > 9 {
			if doc[p] != '.' || point >= 0 || p == start {
				break
			}
			point = p
			continue
		}
		m = m*10 + uint64(c)
	}
	n := p - start
	if point >= 0 {
		n, scale = n-1, p-point-1
	}
	if n == 0 || n > 18 || point == p-1 || p >= len(doc) || inNumber[doc[p]] {
		return 0, 0, 0, 0
	}
	if doc[start] == '0' && n > 1 && point != start+1 {
		return 0, 0, 0, 0
	}
	return m, scale, neg, p
}

// exact64 returns m / 10^scale rounded to the nearest float64, when it can without
// a doubt: both are exact then, and a division is rounded once.
func exact64(m uint64, scale, neg int) (float64, bool) {
	v := float64(m)
	if scale > 0 {
		v /= powers[scale]
	}
	return math.Float64frombits(math.Float64bits(v) | uint64(neg)<<63), m <= 1<<53
}

// exact32 is exact64 for the nearest float32. Rounding twice is rounding once,
// unless the float64 stands in the middle of two float32: then the digits decide.
// Nothing of 18 digits is subnormal or too large.
func exact32(m uint64, scale, neg int) (float32, bool) {
	v, ok := exact64(m, scale, neg)
	return float32(v), ok && math.Float64bits(v)&(1<<29-1) != 1<<28
}

// quick32 reads the usual float32: one digit, a point, and up to eight digits. An
// end of 0 means: look closer.
func quick32(doc []byte, p int) (v float32, end int) {
	if len(doc)-p < 12 { // sign, digit, point, eight digits, and what follows
		return slow32(doc, p)
	}
	neg := minus(doc[p])
	end = p + neg
	m := uint64(doc[end] - '0')
	if m > 9 || doc[end+1] != '.' {
		return slow32(doc, p)
	}
	frac, n := run8(doc, end+2)
	end += 2 + n
	if n == 0 || inNumber[doc[end]] {
		return slow32(doc, p)
	}
	x := math.Float64bits(float64(int64(m*whole[n]+frac)) / powers[n])
	if x&(1<<29-1) == 1<<28 {
		return 0, 0
	}
	return float32(math.Float64frombits(x | uint64(neg)<<63)), end
}

// slow32 is quick32 for every plain decimal.
func slow32(doc []byte, p int) (v float32, end int) {
	m, scale, neg, end := decimal(doc, p)
	if end == 0 {
		return 0, 0
	}
	v, ok := exact32(m, scale, neg)
	if !ok {
		return 0, 0
	}
	return v, end
}

// view is b as a string, for calls that keep none of it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// parseFloat reads a checked number.
func parseFloat(tok []byte, bits int) (float64, bool) {
	v, err := strconv.ParseFloat(view(tok), bits)
	return v, err == nil
}

// A bound is what parseScaled found.
type bound int

const (
	fits     bound = iota
	fraction       // there is something behind the point
	beyond         // does not fit in an int64
)

// parseScaled returns the floor of a checked number times 10^shift.
func parseScaled(tok []byte, shift int) (int64, bound) {
	neg := tok[0] == '-'
	if neg {
		tok = tok[1:]
	}
	m, exp, rest := mantissa(tok)
	exp += shift
	for ; exp > 0 && m > 0; exp-- {
		hi, lo := bits.Mul64(m, 10)
		if hi != 0 {
			return 0, beyond
		}
		m = lo
	}
	for ; exp < 0 && m > 0; exp++ {
		rest = rest || m%10 != 0
		m /= 10
	}
	if neg && rest {
		m++
	}
	if m > math.MaxInt64 && !(neg && m == 1<<63) {
		return 0, beyond
	}
	v := int64(m)
	if neg {
		v = -v
	}
	if rest {
		return v, fraction
	}
	return v, fits
}

// mantissa splits a checked number without a sign into m * 10^exp, and says
// whether digits that do not fit are not all zero.
func mantissa(tok []byte) (m uint64, exp int, rest bool) {
	point := false
	for i, c := range tok {
		switch {
		case c == '.':
			point = true
			continue
		case c == 'e' || c == 'E':
			e, err := strconv.Atoi(view(tok[i+1:]))
			if err != nil || e > 1e6 || e < -1e6 { // beyond any number of digits that matters
				e = 1e8
				if tok[i+1] == '-' {
					e = -1e8
				}
			}
			return m, exp + e, rest
		}
		if m < math.MaxUint64/10-1 {
			m = m*10 + uint64(c-'0')
			if point {
				exp--
			}
			continue
		}
		rest = rest || c != '0'
		if !point {
			exp++
		}
	}
	return m, exp, rest
}

// nonFinite returns the value of a literal that JSON does not have, or 0.
func nonFinite(tok []byte) float64 {
	switch view(tok) {
	case "NaN":
		return math.NaN()
	case "Infinity":
		return math.Inf(1)
	case "-Infinity":
		return math.Inf(-1)
	}
	return 0
}

// isNumeral says whether all of b is a number as JSON writes it.
func isNumeral(b []byte) bool {
	end, ok := numeralEnd(b, 0)
	return ok && end == len(b)
}
