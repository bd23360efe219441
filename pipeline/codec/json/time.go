package json

import (
	"math"
	"math/bits"

	"github.com/apache/arrow/go/v15/arrow"
)

// timeOf reads a timestamp in the unit of c's type.
func (d *decoder) timeOf(c *column, tok []byte) (int64, error) {
	unit := 3 * int(c.typ.(*arrow.TimestampType).Unit) // decimal digits of a second: s, ms, us, ns
	if c.time == RFC3339 {
		if tok[0] != '"' {
			return 0, errType
		}
		d.scratch = unescape(d.scratch[:0], tok[1:len(tok)-1])
		return parseTime(d.scratch, unit)
	}
	s, err := d.numeral(tok)
	if err != nil {
		return 0, err
	}
	if nonFinite(s) != 0 {
		return 0, errRange
	}
	v, b := parseScaled(s, unit-c.time.digits())
	if b == beyond {
		return 0, errRange
	}
	return v, nil
}

// parseTime reads an RFC 3339 time as a number of units of 10^-unit seconds since
// 1970, cut off towards the past. Between date and time stands T, t or a space.
func parseTime(b []byte, unit int) (int64, error) {
	if len(b) < len("2006-01-02T15:04:05Z") || b[4] != '-' || b[7] != '-' || b[10] != 'T' && b[10] != 't' && b[10] != ' ' ||
		b[13] != ':' || b[16] != ':' {
		return 0, errTime
	}
	year, month, day := 100*two(b, 0)+two(b, 2), two(b, 5), two(b, 8)
	hour, minute, second := two(b, 11), two(b, 14), two(b, 17)
	if min(two(b, 0), two(b, 2), month-1, day-1, hour, minute, second) < 0 ||
		month > 12 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 59 {
		return 0, errTime
	}
	b = b[19:]
	var frac int64 // in units
	if b[0] == '.' {
		n := digits(b, 1)
		if n == 1 {
			return 0, errTime
		}
		for i := 1; i <= unit; i++ {
			frac *= 10
			if i < n {
				frac += int64(b[i] - '0')
			}
		}
		b = b[n:]
	}
	offset, ok := zone(b)
	if !ok {
		return 0, errTime
	}
	seconds := 86400*days(year, month, day) + int64(3600*hour+60*minute+second) - offset
	return scaleTime(seconds, frac, unit)
}

// scaleTime returns seconds * 10^unit + frac.
func scaleTime(seconds, frac int64, unit int) (int64, error) {
	hi, lo := bits.Mul64(uint64(max(seconds, -seconds)), whole[unit])
	if hi != 0 || lo > math.MaxInt64 {
		// The earliest second may fit thanks to its fraction.
		if seconds < 0 && hi == 0 && lo-uint64(frac) <= 1<<63 {
			return -int64(lo - uint64(frac)), nil
		}
		return 0, errRange
	}
	v := int64(lo)
	if seconds < 0 {
		return frac - v, nil
	}
	if v > math.MaxInt64-frac {
		return 0, errRange
	}
	return v + frac, nil
}

// two reads two digits; anything else gives a large negative number.
func two(b []byte, i int) int {
	hi, lo := b[i]-'0', b[i+1]-'0'
	if hi > 9 || lo > 9 {
		return -1 << 20
	}
	return int(hi)*10 + int(lo)
}

// zone reads Z, z or an offset such as +01:30, in seconds.
func zone(b []byte) (offset int64, ok bool) {
	if len(b) == 1 && (b[0] == 'Z' || b[0] == 'z') {
		return 0, true
	}
	if len(b) != 6 || b[0] != '+' && b[0] != '-' || b[3] != ':' {
		return 0, false
	}
	hour, minute := two(b, 1), two(b, 4)
	if hour < 0 || minute < 0 || hour > 23 || minute > 59 {
		return 0, false
	}
	offset = int64(3600*hour + 60*minute)
	if b[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// days returns the days from 1970 to a date of the Gregorian calendar. The year
// begins in March here, so that the leap day is the last one.
func days(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	// floor divisions: year is -1 at the least
	y := year + 400
	n := 365*y + y/4 - y/100 + y/400 + (153*(month-3)+2)/5 + day - 1
	return int64(n) - 719468 - 146097
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}
