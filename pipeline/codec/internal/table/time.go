package table

import (
	"math"
	"math/bits"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
)

// A Scale turns counts of one unit of time into another: it multiplies by Mul, then
// divides by Div, cutting off towards the past.
type Scale struct{ Mul, Div int64 }

// powerOf1000 is how many of a unit a second has.
func powerOf1000(n arrow.TimeUnit) int64 {
	return [...]int64{1, 1e3, 1e6, 1e9}[n]
}

// ScaleOf returns the scale between two units.
func ScaleOf(from, to arrow.TimeUnit) Scale {
	if to >= from {
		return Scale{powerOf1000(to - from), 1}
	}
	return Scale{1, powerOf1000(from - to)}
}

// Days returns the scale from days to a unit.
func Days(to arrow.TimeUnit) Scale { return Scale{86400 * powerOf1000(to), 1} }

// Of returns v in the other unit, and false when it does not fit.
func (s Scale) Of(v int64) (int64, bool) {
	hi, lo := bits.Mul64(uint64(max(v, -v)), uint64(s.Mul))
	switch {
	case hi != 0 || lo > 1<<63 || lo == 1<<63 && v > 0:
		return 0, false
	case v < 0:
		v = int64(-lo)
	default:
		v = int64(lo)
	}
	q := v / s.Div
	if v%s.Div < 0 {
		q--
	}
	return q, true
}

// Instant returns seconds and nanoseconds since 1970 in a unit, and false when they
// do not fit. The nanoseconds are from 0 to 999,999,999.
func Instant(seconds int64, nanos int32, unit arrow.TimeUnit) (int64, bool) {
	per := powerOf1000(unit)
	frac := int64(nanos) / (1e9 / per)
	if seconds < 0 && frac > 0 { // the earliest second may fit thanks to its fraction
		seconds, frac = seconds+1, frac-per
	}
	v, ok := Scale{per, 1}.Of(seconds)
	if !ok || frac > 0 && v > math.MaxInt64-frac || frac < 0 && v < math.MinInt64-frac {
		return 0, false
	}
	return v + frac, true
}

// Units are the names of units that a configuration may say, by arrow.TimeUnit.
func Units() []string { return []string{"s", "ms", "us", "ns"} }

// UnitOf returns the unit of a name, and false when it is none.
func UnitOf(name string) (arrow.TimeUnit, bool) {
	i := slices.Index(Units(), name)
	return arrow.TimeUnit(max(i, 0)), i >= 0
}
