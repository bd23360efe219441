package vae

import (
	"math"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
)

// instants writes the sines and cosines of times to the wide lanes, one feature
// after the other.
func (b *Packed) instants(s *step, c *bound) {
	w := &b.work
	for r := range w.n {
		var sec, nanos int64
		switch i := w.from + r; s.id {
		case arrow.TIMESTAMP:
			v := numbersOf[int64](c)[i]
			rest := v % s.perSecond
			if sec = v / s.perSecond; rest < 0 {
				sec, rest = sec-1, rest+s.perSecond
			}
			nanos = rest * (1e9 / s.perSecond)
		case arrow.DATE32:
			sec = int64(numbersOf[int32](c)[i]) * daySeconds
		case arrow.DATE64:
			sec = numbersOf[int64](c)[i] / 1000
		}
		in := civil(sec, nanos)
		for p, turn := range s.turns {
			sin, cos := sincos(in.turn(turn))
			w.f64[2*p*TileRows+r], w.f64[(2*p+1)*TileRows+r] = sin, cos
		}
	}
}

const daySeconds = 86400

// A moment is where a time stands in the cycles of the calendar, in days that
// begin at 0, UTC.
type moment struct{ day, weekday, monthday, yearday float64 }

// civil returns the moment of a time in seconds since 1970 and nanoseconds
// within: days to year, month and day in the manner of Hinnant's
// civil_from_days, with years that begin in March.
func civil(sec, nanos int64) moment {
	days := sec / daySeconds
	rest := sec - days*daySeconds
	if rest < 0 {
		days, rest = days-1, rest+daySeconds
	}
	day := (float64(rest) + float64(nanos)/1e9) / daySeconds
	weekday := (days + 4) % 7 // the first day was a Thursday
	if weekday < 0 {
		weekday += 7
	}
	z := days + 719468 // since the first of March of year 0
	era := z / 146097
	if z < 0 {
		era = (z - 146096) / 146097
	}
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100) // since the first of March
	month := (5*doy + 2) / 153
	monthday := doy - (153*month+2)/5
	yearday := doy - 306 // since the first of January that follows
	if yearday < 0 {
		yearday = doy + 59
		if yoe%4 == 0 && (yoe%100 != 0 || yoe == 0) {
			yearday++
		}
	}
	return moment{day, float64(weekday), float64(monthday), float64(yearday)}
}

// A turn is a cycle that a time goes through.
type turn uint8

const (
	hours turn = iota
	weekdays
	monthdays
	yeardays
)

// turnsOf returns the cycles of that name.
func turnsOf(parts []string) []turn {
	turns := make([]turn, len(parts))
	for i, p := range parts {
		turns[i] = turn(slices.Index(timeParts, p))
	}
	return turns
}

// turn returns the share of a cycle that has passed.
func (m moment) turn(t turn) float64 {
	switch t {
	case hours:
		return m.day
	case weekdays:
		return (m.weekday + m.day) / 7
	case monthdays:
		return (m.monthday + m.day) / 31
	}
	return (m.yearday + m.day) / 366
}

// sincos returns the sine and cosine of a share of a circle, from 0 to 1, within
// 1e-15: the polynomials are those of fdlibm (Sun Microsystems 1993) for an
// eighth of a circle to both sides of a quarter. Products are rounded before
// they are added, so that all machines agree.
func sincos(turn float64) (sin, cos float64) {
	quarter := int(turn*4 + 0.5)
	r := (turn - 0.25*float64(quarter)) * (2 * math.Pi)
	z := r * r
	s := float64(z*1.58969099521155010221e-10) - 2.50507602534068634195e-08
	s = float64(z*s) + 2.75573137070700676789e-06
	s = float64(z*s) - 1.98412698298579493134e-04
	s = float64(z*s) + 8.33333333332248946124e-03
	s = float64(z*s) - 1.66666666666666324348e-01
	c := float64(z*-1.13596475577881948265e-11) + 2.08757232129817482790e-09
	c = float64(z*c) - 2.75573143513906633035e-07
	c = float64(z*c) + 2.48015872894767294178e-05
	c = float64(z*c) - 1.38888888888741095749e-03
	c = float64(z*c) + 4.16666666666666019037e-02
	both := [2]float64{r + float64(r*float64(z*s)), 1 - (0.5*z - float64(z*float64(z*c)))}
	minus := func(v float64, if2 int) float64 { // -v when the bit of value 2 is set
		return math.Float64frombits(math.Float64bits(v) ^ uint64(if2&2)<<62)
	}
	return minus(both[quarter&1], quarter), minus(both[quarter&1^1], quarter+1)
}
