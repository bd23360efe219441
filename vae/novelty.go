package vae

import (
	"math"
	"math/bits"
)

// A feature that had one value in all or nearly all training rows tells nothing
// to a Gaussian, whose standard deviation there is about zero: any other value
// would be infinitely strange, or, with a scale made up, of a strangeness made
// up. Such a feature is taken out of the densities. In its place stands a
// Bernoulli of "another value than usual", whose rate is smoothed: (k+1)/(n+2)
// when k of n training rows had another one (Laplace's rule of succession). So
// news costs log(n+2) nats at most, whatever its size or unit.

// usualShare is the share of training rows with one value from which on a feature
// counts as nearly constant.
const usualShare = 0.999

// usualTolerance is how far, relative to the usual value, a value may lie from it
// and still be the usual one.
const usualTolerance = 1e-6

// A usual finds the most frequent value of a feature in one pass: the majority
// vote of Boyer and Moore (1981). seen counts the value since it was adopted,
// which is all of its rows but for a few at the beginning.
type usual struct {
	value       float64
	votes, seen int64
}

func (u *usual) add(v float64) {
	switch {
	case v == u.value:
		u.votes++
		u.seen++
	case u.votes == 0:
		u.value, u.votes, u.seen = v, 1, 1
	default:
		u.votes--
	}
}

// rate returns the smoothed rate of other values among n rows, and whether the
// value is the usual one.
func (u *usual) rate(n int64) (rate float64, nearly bool) {
	if n == 0 || float64(u.seen) < usualShare*float64(n) {
		return 0, false
	}
	return float64(n-u.seen+1) / float64(n+2), true
}

// A level that training never saw is news of the same kind: its rate is 1/(n+2),
// and the column leaves the densities as one that is missing does. So is a gap in a
// column that had hardly any. Gaps that training often saw cost nothing: they say
// what was not asked or not delivered, and in a wide table that would drown what
// the values say.

// A watch looks at one input for values that training hardly ever saw.
type watch struct {
	column, input int
	gap           bool    // for a missing value; the column's inputs begin at input
	usual         float32 // as packed
	tolerance     float32
	level         bool // of a categorical column: its reserved input
	odd           bool // of a boolean of numbers: neither 0 nor 1
	// cost is what the news adds to a score, in nats: the Bernoulli's log odds
	// against it, so that a row without news costs nothing.
	cost float64
}

// zero says whether a packed zero is as usual.
func (k *watch) zero() bool { return k.usual <= k.tolerance && k.usual >= -k.tolerance }

// oddsAgainst is what an event of that rate costs, in nats, where its absence costs
// nothing.
func oddsAgainst(rate float64) float64 { return math.Log1p(-rate) - math.Log(rate) }

// seldomMissing says whether a gap in the column is news.
func (c *Column) seldomMissing() bool { return !c.Indicator || c.MissingRate <= 1-usualShare }

// watches lists what to look at in packed rows: first the gaps, whose number is
// returned.
func (s *Spec) watches() (list []watch, gaps int) {
	at := 0
	for i := range s.Columns {
		c := &s.Columns[i]
		if c.seldomMissing() {
			list = append(list, watch{column: i, input: at, gap: true, cost: oddsAgainst(c.MissingRate)})
		}
		at += c.Features()
	}
	gaps, at = len(list), 0
	for i := range s.Columns {
		c := &s.Columns[i]
		n := c.Features()
		for j, rate := range c.Rare {
			if rate == 0 {
				continue
			}
			w := watch{column: i, input: min(at+j, at+n-1), cost: oddsAgainst(rate)}
			switch c.Kind {
			case Categorical:
				w.input, w.level = at+n-1, true
			case Boolean:
				if w.odd = j == 1; c.Usual {
					w.usual = 1
				}
			default:
				w.tolerance = float32(usualTolerance * math.Abs(c.Mean[j]) / c.Scale[j])
			}
			list = append(list, w)
		}
		at += n
	}
	return list, gaps
}

// findNews notes the rows in which a watched input is not as usual, and takes the
// news out of what the densities see.
func (b *Packed) findNews() {
	w := &b.work
	b.found = b.found[:0]
	if w.any {
		b.findGaps()
	}
	for i := b.p.gapWatches; i < len(b.p.watches); i++ {
		k := &b.p.watches[i]
		if k.odd {
			b.note(i, w.odd[k.column])
			continue
		}
		if w.tile && k.zero() && allZero(w.x[k.input*TileRows:][:w.padded]) {
			continue
		}
		var news uint64
		for r := range w.n {
			v := w.x[k.input*w.fs+r*w.rs]
			if d := v - k.usual; d > k.tolerance || d < -k.tolerance {
				news |= 1 << r
			}
		}
		news &^= w.missing[k.input] // a gap has its own cost
		if news == 0 {
			continue
		}
		b.note(i, news)
		for rows := news; rows != 0; rows &= rows - 1 {
			w.x[k.input*w.fs+bits.TrailingZeros64(rows)*w.rs] = k.usual
		}
		if k.level {
			first := b.p.steps[k.column].feature
			for f := first; f <= k.input; f++ {
				w.missing[f] |= news
			}
			w.any = true
		}
	}
}

// findGaps notes the rows that miss a column that hardly ever was missing.
func (b *Packed) findGaps() {
	w := &b.work
	for i := range b.p.gapWatches {
		k := &b.p.watches[i]
		var gone uint64
		for _, m := range w.missing[k.input : k.input+b.p.steps[k.column].features] {
			gone |= m
		}
		b.note(i, gone)
	}
}

// A finding is a watch with the rows of a tile in which it saw something new.
type finding struct {
	watch *watch
	rows  uint64
}

func (b *Packed) note(watch int, rows uint64) {
	if rows != 0 {
		b.found = append(b.found, finding{&b.p.watches[watch], rows})
	}
}

// News returns what is new in lane r of the tile that Pack made last: what it adds
// to the score, in nats.
func (b *Packed) News(r int) (cost float64) {
	for _, f := range b.found {
		if f.rows>>r&1 != 0 {
			cost += f.watch.cost
		}
	}
	return cost
}
