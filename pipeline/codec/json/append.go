package json

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/float16"
)

// The functions of this file append one value. Most have no error; all have the
// result, so that they fit valueWriter.

func appendBool(dst []byte, v bool) ([]byte, error) { return strconv.AppendBool(dst, v), nil }

func appendInt[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32](dst []byte, v T) ([]byte, error) {
	return strconv.AppendInt(dst, int64(v), 10), nil
}

func appendUint(dst []byte, v uint64) ([]byte, error) { return strconv.AppendUint(dst, v, 10), nil }

func appendFloat16(dst []byte, v float16.Num) ([]byte, error) {
	return appendFloat(dst, float64(v.Float32()), 32), nil
}

func appendFloat32(dst []byte, v float32) ([]byte, error) {
	return appendFloat(dst, float64(v), 32), nil
}

func appendFloat64(dst []byte, v float64) ([]byte, error) { return appendFloat(dst, v, 64), nil }

// appendFloat writes as ECMAScript does: an exponent only for the very large and
// the very small.
func appendFloat(dst []byte, v float64, bits int) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(dst, "null"...)
	}
	form := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(dst, v, form, -1, bits)
}

// appendText writes a string in quotes.
func appendText(dst []byte, s string) ([]byte, error) {
	dst = append(dst, '"')
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	done := 0 // bytes of b that dst has
	for i := 0; i < len(b); {
		if len(b)-i >= 8 {
			n := plainBytes(binary.LittleEndian.Uint64(b[i:]))
			if i += n; n == 8 {
				continue
			}
		}
		c := b[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, b[done:i]...), "\uFFFD"...)
				done = i + 1
			}
			i += n
			continue
		}
		if c < ' ' || c == '"' || c == '\\' {
			dst = appendEscape(append(dst, b[done:i]...), c)
			done = i + 1
		}
		i++
	}
	return append(append(dst, b[done:]...), '"'), nil
}

func appendEscape(dst []byte, c byte) []byte {
	const hexDigits = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

func appendBase64(dst []byte, b []byte) ([]byte, error) {
	return append(base64.StdEncoding.AppendEncode(append(dst, '"'), b), '"'), nil
}

// timestampIn returns the function for timestamps of a unit.
func timestampIn(unit arrow.TimeUnit) func(dst []byte, v arrow.Timestamp) ([]byte, error) {
	places := 3 * int(unit)
	second := int64(whole[places])
	return func(dst []byte, v arrow.Timestamp) ([]byte, error) {
		seconds := floorDiv(int64(v), second)
		day := floorDiv(seconds, 86400)
		dst, err := appendDate(dst, day)
		if err != nil {
			return dst, err
		}
		of := int(seconds - 86400*day)
		dst = append(dst[:len(dst)-1], 'T') // where the date's quote was
		dst = appendPadded(dst, int64(of/3600), 2)
		dst = appendPadded(append(dst, ':'), int64(of/60%60), 2)
		dst = appendPadded(append(dst, ':'), int64(of%60), 2)
		if places > 0 {
			dst = appendPadded(append(dst, '.'), int64(v)-seconds*second, places)
		}
		return append(dst, 'Z', '"'), nil
	}
}

// appendDate writes the date that is day days after 1970-01-01.
func appendDate(dst []byte, day int64) ([]byte, error) {
	const first, last = -719528, 2932896 // 0000-01-01, 9999-12-31
	if day < first || day > last {
		return dst, fmt.Errorf("day %d since 1970 is in no year from 0 to 9999", day)
	}
	year, month, dayOf := civil(day)
	dst = appendPadded(append(dst, '"'), year, 4)
	dst = appendPadded(append(dst, '-'), month, 2)
	dst = appendPadded(append(dst, '-'), dayOf, 2)
	return append(dst, '"'), nil
}

// civil is the inverse of days. Years begin in March here; an era is 400 years.
func civil(n int64) (year, month, day int64) {
	n += 719468 + 146097 // from 1 March of the year -400
	era, of := n/146097, n%146097
	y := (of - of/1460 + of/36524 - of/146096) / 365
	of -= 365*y + y/4 - y/100
	m := (5*of + 2) / 153
	day = of - (153*m+2)/5 + 1
	year, month = 400*(era-1)+y, m+3
	if month > 12 {
		year, month = year+1, month-12
	}
	return year, month, day
}

// appendPadded writes v, which is not negative, with n digits.
func appendPadded(dst []byte, v int64, n int) []byte {
	for i := n - 1; i >= 0; i-- {
		dst = append(dst, byte('0'+v/int64(whole[i])%10))
	}
	return dst
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
