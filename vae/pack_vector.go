package vae

import (
	"math"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// vector packs a column of lists and returns the rows that miss any of it.
func (b *Packed) vector(s *step, c *bound, valid uint64) (gone uint64) {
	w := &b.work
	fits := valid
	for r := range w.n {
		w.starts[r] = -1
		if valid>>r&1 == 0 {
			continue
		}
		from, to := c.list.ValueOffsets(w.from + r)
		if int(to-from) != s.features {
			fits &^= 1 << r
			continue
		}
		w.starts[r] = int(from)
	}
	w.misfit |= valid &^ fits
	for j := 0; j < s.features; j += blockWidth {
		k := min(blockWidth, s.features-j)
		if s.narrow {
			gather(w.f32[:], numbersOf[float32](c), w.starts[:w.n], j, k)
		} else {
			b.gatherWide(s, c, j, k)
		}
		for i := range k {
			here := fits
			if c.inner != nil {
				here &= b.elements(c, j+i)
			}
			if s.narrow {
				gone |= b.narrow(s, s.feature+j+i, w.f32[i*TileRows:][:w.n], here)
			} else {
				gone |= b.wide(s, s.feature+j+i, w.f64[i*TileRows:][:w.n], here)
			}
		}
	}
	return gone
}

// elements returns the rows whose element j is not null.
func (b *Packed) elements(c *bound, j int) (valid uint64) {
	w := &b.work
	for r, s := range w.starts[:w.n] {
		if s >= 0 {
			valid |= bitsAt(c.inner, c.innerAt+s+j, 1) << r
		}
	}
	return valid
}

// gather reads elements [j, j+k) of the lists that begin at starts and turns
// them round: element by element. Lists that begin below 0 give zeros.
func gather[D float32 | float64, T integer | float32 | float64](dst []D, src []T, starts []int, j, k int) {
	for r, s := range starts {
		if s < 0 {
			for i := range k {
				dst[i*TileRows+r] = 0
			}
			continue
		}
		for i, v := range src[s+j : s+j+k] {
			dst[i*TileRows+r] = D(v)
		}
	}
}

// gatherWide is gather to float64.
func (b *Packed) gatherWide(s *step, c *bound, j, k int) {
	dst, starts := b.work.f64[:], b.work.starts[:b.work.n]
	switch s.num {
	case arrow.FLOAT32:
		gather(dst, numbersOf[float32](c), starts, j, k)
	case arrow.FLOAT64:
		gather(dst, numbersOf[float64](c), starts, j, k)
	case arrow.INT8:
		gather(dst, numbersOf[int8](c), starts, j, k)
	case arrow.INT16:
		gather(dst, numbersOf[int16](c), starts, j, k)
	case arrow.INT32:
		gather(dst, numbersOf[int32](c), starts, j, k)
	case arrow.INT64:
		gather(dst, numbersOf[int64](c), starts, j, k)
	case arrow.UINT8:
		gather(dst, numbersOf[uint8](c), starts, j, k)
	case arrow.UINT16:
		gather(dst, numbersOf[uint16](c), starts, j, k)
	case arrow.UINT32:
		gather(dst, numbersOf[uint32](c), starts, j, k)
	case arrow.UINT64:
		gather(dst, numbersOf[uint64](c), starts, j, k)
	}
}

// narrow packs float32 values of feature f and returns the rows that miss it.
func (b *Packed) narrow(s *step, f int, v []float32, valid uint64) (gone uint64) {
	w, norms := &b.work, &b.p.norms
	lanes := w.lanesOf(f)
	var off uint64
	if s.unit && notUnit(v) {
		off, _ = outside(v)
	}
	bad := kernel.Pack32(b.p.level, lanes, v, norms.hi[f], norms.inv[f], norms.lo[f], MaxAbs)
	w.nonfinite |= bad & valid
	w.misfit |= off & valid
	if gone = w.all&^valid | off | bad; gone != 0 {
		zero(lanes[:w.n], gone)
	}
	w.put(f, lanes)
	w.missing[f] = gone
	return gone
}

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
			sin, cos := math.Sincos(2 * math.Pi * in.turn(turn))
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

// turn returns the share of a cycle that has passed.
func (m moment) turn(part string) float64 {
	switch part {
	case "hour":
		return m.day
	case "weekday":
		return (m.weekday + m.day) / 7
	case "monthday":
		return (m.monthday + m.day) / 31
	}
	return (m.yearday + m.day) / 366
}
