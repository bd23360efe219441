package generate

import (
	"math"
	"strconv"
	"time"
)

// The named kinds of planted anomalies.
const (
	Spike             = "spike"              // one value far out
	BrokenCorrelation = "broken_correlation" // each value ordinary alone, the combination is not
	Swap              = "swap"               // two columns hold each other's values
	Scale             = "scale"              // a group of columns is several times too large or too small
	WrongCategory     = "wrong_category"     // a merchant that does not fit the other columns
	UnseenCategory    = "unseen_category"    // a merchant that no normal row ever has
	Missing           = "missing"            // three values are null; normal rows have none
)

// Kinds returns the names of all anomaly kinds.
func Kinds() []string {
	return []string{Spike, BrokenCorrelation, Swap, Scale, WrongCategory, UnseenCategory, Missing}
}

// The numeric columns, by their place in Row.Values.
const (
	amount = iota
	tax
	fee
	weight
	payload
	latency
	load
	temperature
	numerics
)

// Numerics returns the names of the numeric columns, in the order of Row.Values.
func Numerics() []string { return append([]string(nil), numericNames[:]...) }

var numericNames = [numerics]string{
	"amount", "tax", "fee", "weight_kg", "payload_kb", "latency_ms", "load_pct", "temperature_c",
}

// A Row is one payment as the terminal's machine saw it.
type Row struct {
	// Index is the row's number in the stream, from 0.
	Index int64
	// Time is when the payment happened; it rises strictly with Index.
	Time time.Time
	// Merchant is the merchant's kind.
	Merchant string
	// Online says that no terminal was involved.
	Online bool
	// Values are the numeric columns, see Numerics.
	Values [numerics]float64
	// Null says which of Values are missing.
	Null [numerics]bool
	// Anomaly is the kind of the planted anomaly, "" for a normal row.
	Anomaly string
}

// ID returns the row's identifier, "pay-" and eight digits or more.
func (r *Row) ID() string { return string(r.appendID(nil)) }

func (r *Row) appendID(dst []byte) []byte {
	dst = append(dst, "pay-"...)
	for limit := int64(10_000_000); limit > r.Index && limit > 1; limit /= 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, r.Index, 10)
}

// A mode is one way of doing business: a cluster of rows. A numeric column is
// base + size*s + stress*h + noise*e, where s (how big the payment is) and h
// (how busy the machine is) are drawn once per row and e once per value. The
// signs of size and stress differ between modes, and so do the correlations.
type mode struct {
	share     float64 // part of all rows
	online    float64 // part of this mode's rows
	merchants [3]string
	columns   [numerics]column
}

type column struct{ base, size, stress, noise float64 }

// sd returns the column's standard deviation within its mode.
func (c column) sd() float64 {
	return math.Sqrt(float64(c.size*c.size) + float64(c.stress*c.stress) + float64(c.noise*c.noise))
}

// modes are read only.
var modes = [...]mode{
	{0.4, 0.03, [3]string{"grocery", "bakery", "pharmacy"}, [numerics]column{
		amount: {24, 4, 0, 0.8}, tax: {2.4, 0.4, 0, 0.08}, fee: {0.5, 0.08, 0, 0.02},
		weight: {6, 1.2, 0, 0.3}, payload: {3, 0.4, 0, 0.1}, latency: {80, 0, 12, 3},
		load: {40, 0, 6, 1.5}, temperature: {45, 0, 3, 0.8}}},
	{0.3, 0.98, [3]string{"books", "games", "electronics"}, [numerics]column{
		amount: {90, 16, 0, 3}, tax: {18, 3, 0, 0.6}, fee: {3, -0.5, 0, 0.1},
		weight: {2, 0.35, 0, 0.08}, payload: {14, 2.4, 0, 0.5}, latency: {220, 0, 32, 8},
		load: {55, 0, -7, 1.6}, temperature: {52, 0, -3, 0.7}}},
	{0.2, 0.7, [3]string{"airline", "hotel", "rail"}, [numerics]column{
		amount: {480, 80, 0, 16}, tax: {20, -3, 0, 0.7}, fee: {9, 1.5, 0, 0.3},
		weight: {18, 3, 0, 0.7}, payload: {40, -6, 0, 1.4}, latency: {400, 0, 50, 12},
		load: {30, 0, 4.5, 1}, temperature: {38, 0, -2.5, 0.6}}},
	{0.1, 0.95, [3]string{"streaming", "insurance", "telephone"}, [numerics]column{
		amount: {15, 2.2, 0, 0.5}, tax: {3, 0.45, 0, 0.1}, fee: {0.4, 0, 0.06, 0.015},
		weight: {0.5, 0.07, 0, 0.02}, payload: {6, 0, -0.9, 0.2}, latency: {140, 0, -20, 5},
		load: {68, 0, 6, 1.5}, temperature: {58, 0, 3, 0.8}}},
}

// unseen are the merchants of UnseenCategory; read only.
var unseen = [...]string{"casino", "lottery"}

// merchantLevels returns every merchant of a normal row, then the unseen ones.
func merchantLevels() (normal, odd []string) {
	for _, m := range modes {
		normal = append(normal, m.merchants[:]...)
	}
	return normal, unseen[:]
}

const (
	startMicros = 1_767_225_600_000_000 // 2026-01-01 00:00:00 UTC
	stepMicros  = 1_000_000
)

// rows is the pure function from an index to a row.
type rows struct {
	seed uint64
	// limit is AnomalyRate in units of 2^-53.
	limit uint64
	kinds []string
}

// at fills r with row i. It writes every field.
func (g *rows) at(i int64, r *Row) {
	s := streamOf(g.seed, uint64(i), 0)
	r.Index = i
	r.Time = time.UnixMicro(startMicros + i*stepMicros + int64(s.below(stepMicros))).UTC()
	r.Null = [numerics]bool{}
	r.Anomaly = ""

	m := pickMode(s.uniform())
	r.Merchant = modes[m].merchants[s.below(3)]
	r.Online = s.uniform() < modes[m].online
	size, stress := s.normal(), s.normal()
	var noise [numerics]float64
	for c := range noise {
		noise[c] = s.normal()
	}

	// The anomaly has numbers of its own: a normal row is the same row whatever
	// the rate and the kinds are.
	a := streamOf(g.seed, uint64(i), 1)
	if a.next()>>11 < g.limit {
		r.Anomaly = g.kinds[a.below(len(g.kinds))]
	}
	var flipped [numerics]bool
	if r.Anomaly == BrokenCorrelation {
		size, stress, flipped = breakUp(&a, size, stress)
	}
	for c := range r.Values {
		sign := 1.0
		if flipped[c] {
			sign = -1
		}
		r.Values[c] = round(modes[m].columns[c].value(sign*size, sign*stress, noise[c]))
	}
	plant(&a, m, r)
}

func pickMode(u float64) int {
	for m := range modes {
		if u -= modes[m].share; u < 0 {
			return m
		}
	}
	return len(modes) - 1
}

// value keeps every product in a conversion of its own, which forbids the
// compiler to fuse it with the addition: fused or not differs in the last bit.
func (c column) value(size, stress, noise float64) float64 {
	return c.base + float64(c.size*size) + float64(c.stress*stress) + float64(c.noise*noise)
}

// round keeps three decimals.
func round(x float64) float64 { return math.Round(x*1000) / 1000 }

// breakUp moves size and stress away from their mean, yet not beyond what is
// ordinary, and turns them round for half of the columns.
func breakUp(a *stream, size, stress float64) (float64, float64, [numerics]bool) {
	outward := func(x float64) float64 {
		if x < 0 {
			return math.Max(x, -1) - 1.2
		}
		return math.Min(x, 1) + 1.2
	}
	var flipped [numerics]bool
	first := a.below(2)
	for c := range flipped {
		flipped[c] = c%2 == first
	}
	return outward(size), outward(stress), flipped
}

// plant puts the row's anomaly into its finished values.
func plant(a *stream, m int, r *Row) {
	switch r.Anomaly {
	case Spike:
		c := a.below(numerics)
		col := modes[m].columns[c]
		r.Values[c] = round(col.base + float64(col.sd()*(10+float64(10*a.uniform()))))
	case Swap:
		pairs := [...][2]int{{amount, latency}, {tax, load}, {fee, temperature}, {weight, payload}}
		p := pairs[a.below(len(pairs))]
		r.Values[p[0]], r.Values[p[1]] = r.Values[p[1]], r.Values[p[0]]
	case Scale:
		groups := [...][]int{{amount, tax, fee}, {weight, payload}, {latency, load}}
		g := groups[a.below(len(groups))]
		by := 2.5 + float64(2.5*a.uniform())
		if a.below(2) == 0 {
			by = 1 / by
		}
		for _, c := range g {
			r.Values[c] = round(r.Values[c] * by)
		}
	case WrongCategory:
		other := (m + 1 + a.below(len(modes)-1)) % len(modes)
		r.Merchant = modes[other].merchants[a.below(3)]
	case UnseenCategory:
		r.Merchant = unseen[a.below(len(unseen))]
	case Missing:
		for left := 3; left > 0; {
			if c := a.below(numerics); !r.Null[c] {
				r.Null[c] = true
				left--
			}
		}
	}
}
