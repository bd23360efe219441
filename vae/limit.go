package vae

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
)

// A Rule names how a limit was found.
type Rule string

// The rules beside the default one. Quantile: the score that a share of normal
// rows stays below, no tail fitted. Pareto: peaks over a threshold, a generalised
// Pareto distribution fitted to the highest scores. BestF1: the highest F1 on
// labelled rows.
const (
	Quantile Rule = "quantile"
	Pareto   Rule = "pot"
	BestF1   Rule = "best_f1"
)

const (
	maxHighest = 1000
	// minExcesses is the fewest excesses that a Pareto distribution is fitted to:
	// its shape has a standard error of about 0.2 then.
	minExcesses = 30
)

// SetQuantile sets the limit to the smallest calibration score that q (such as
// 0.999) of new normal rows do not exceed: of n scores the one of rank q(n+1),
// rounded up. A new normal row that is exchangeable with them then exceeds it with
// a probability of at most 1-q, whatever their distribution (the conformal
// quantile: Vovk, Gammerman and Shafer 2005). The error says when n is too small.
func (c *Calibration) SetQuantile(q float64) error {
	if !(q > 0 && q < 1) {
		return fmt.Errorf("quantile %v: want a share of rows above 0 and below 1, such as 0.999", q)
	}
	n := float64(c.Rows)
	rank := math.Ceil(q*(n+1) - 1e-9)
	if rank > n {
		return fmt.Errorf("quantile %v: %d normal rows tell quantiles up to %.6g; calibrate on more rows, or use a target rate, which extends the tail", q, c.Rows, n/(n+1))
	}
	c.set(c.ranked(int64(rank)-1), 1-q, Quantile, false)
	return nil
}

// ranked returns the calibration score of a rank from 0, or where it was not kept
// the next higher one that was.
func (c *Calibration) ranked(rank int64) float64 {
	if from := c.Rows - int64(len(c.Highest)); rank >= from {
		return float64(c.Highest[rank-from])
	}
	k := len(c.Knots)
	i := sort.Search(k, func(i int) bool { return int64(rankOf(i, k, int(c.Rows))) >= rank })
	return c.Knots[min(i, k-1)]
}

// SetPareto sets the limit for a rate of false alarms by peaks over a threshold:
// a generalised Pareto distribution is fitted to the excesses of the highest tenth
// of the calibration scores, 1,000 at most, and the limit is its quantile. Unlike
// SetTargetRate it allows light and bounded tails. Where the rate is not beyond the
// threshold, or fewer than 30 scores are above it, the limit is that of
// SetTargetRate and note says so.
func (c *Calibration) SetPareto(rate float64) (note string, err error) {
	trial := *c // SetTargetRate also checks the rate
	if err := trial.SetTargetRate(rate); err != nil {
		return "", err
	}
	start, excesses := c.excesses()
	share := float64(len(excesses)) / float64(c.Rows)
	switch {
	case len(excesses) < minExcesses:
		note = fmt.Sprintf("%d scores above the threshold are too few for a Pareto tail (at least %d): the limit is that of the target rate", len(excesses), minExcesses)
	case rate >= share:
		note = fmt.Sprintf("a rate of %g is no tail (the threshold leaves %.3g above it): the limit is that of the target rate", rate, share)
	}
	if note != "" {
		*c = trial
		return note, nil
	}
	limit := start + fitPareto(excesses).quantile(rate/share)
	if !finite(limit) {
		return "", fmt.Errorf("target rate %v: the scores spread too far to tell a limit that rare; ask for a larger rate", rate)
	}
	c.set(limit, rate, Pareto, false)
	return "", nil
}

// excesses returns the threshold of SetPareto and what the scores above it exceed
// it by, ascending.
func (c *Calibration) excesses() (start float64, over []float64) {
	m := int(min(c.Rows/10, maxHighest-1))
	start = c.ranked(c.Rows - 1 - int64(m))
	for rank := c.Rows - int64(m); rank < c.Rows; rank++ {
		if e := c.ranked(rank) - start; e > 0 {
			over = append(over, e)
		}
	}
	return start, over
}

// Conformal returns the conformal p-value of a score: (1 + k)/(n + 1) with k of
// the n calibration scores at or above it (Bates, Candès, Lei, Romano and Sesia,
// Testing for outliers with conformal p-values, Annals of Statistics 2023). For a
// normal row that is exchangeable with the calibration rows it is at most p with a
// probability of at most p. Unlike P it claims nothing beyond the highest score:
// the smallest is 1/(n+1). It is exact for the 1,000 highest scores, and at most
// one knot in a thousand too large below them. NaN gives NaN.
func (c *Calibration) Conformal(score float64) float64 {
	if math.IsNaN(score) {
		return score
	}
	return (1 + float64(c.atLeast(score))) / float64(c.Rows+1)
}

// atLeast returns how many calibration scores are at or above a score, or a bound
// above that.
func (c *Calibration) atLeast(score float64) int64 {
	if h := c.Highest; len(h) > 0 && score > float64(h[0]) {
		return int64(len(h) - sort.Search(len(h), func(i int) bool { return float64(h[i]) >= score }))
	}
	n, k := int(c.Rows), len(c.Knots)
	i := sort.SearchFloat64s(c.Knots, score)
	if i == 0 {
		return c.Rows
	}
	return int64(n - rankOf(i-1, k, n) - 1)
}

// untie lowers a limit that equal scores lie on by the least step of a float32, so
// that they are above it, where the rate is off by more than a factor of 1.5
// without them and is not with them. Equal rows come in such heaps; a limit on a
// heap flags none of it.
func (c *Calibration) untie(limit, rate float64) float64 {
	below := math.Nextafter32(float32(limit), float32(math.Inf(-1)))
	if from := c.Rows - int64(len(c.Highest)); from > 0 && (len(c.Highest) == 0 && from > int64(len(c.Knots)) ||
		len(c.Highest) > 0 && limit <= float64(c.Highest[0])) {
		return limit // nobody knows how many lie on it
	}
	with := float64(c.atLeast(limit)) / float64(c.Rows)
	without := float64(c.atLeast(float64(math.Nextafter32(float32(limit), float32(math.Inf(1)))))) / float64(c.Rows)
	if without < rate/1.5 && with <= 1.5*rate && float64(float32(limit)) == limit {
		return float64(below)
	}
	return limit
}

// CalibrateTrained is Calibrate with the scores of rows that were trained on, which
// count like held-out ones where these show how far they can be trusted. A rare
// limit needs many rows: with 2,000 held out, two are above the limit for 0.001, and
// no fit to their like keeps the rate within a factor of two.
//
// There must be 1,000 held-out rows at least, and no share of the training rows'
// quantiles from 0.1 down that 15 held-out rows tell may be exceeded by more than
// twice as many held-out rows (1.5 times where a hundred tell it, and then no
// fewer than a part in 1.5 either). Otherwise the network has learned its rows by heart, or the
// held-out ones are of another kind, and these stand alone. A smaller excess at the
// rarest such share is made good: so many rows below that quantile are left out, evenly,
// that the held-out rows' share is above it. Conformal is not exact with training
// rows among Rows.
func CalibrateTrained(held, trained []float32, targetRate float64) (*Calibration, error) {
	own, err := Calibrate(held, targetRate)
	if err != nil {
		return nil, err
	}
	joined := join(held, trained)
	if joined == nil {
		return own, nil
	}
	c, err := Calibrate(joined, targetRate)
	if err != nil { // a trained row's score is not finite, which no held-out one is
		return own, nil
	}
	c.Trained = max(c.Rows-own.Rows, 0)
	return c, nil
}

// join returns the scores to calibrate with, ascending; nil where training rows
// cannot be trusted.
func join(held, trained []float32) []float32 {
	if len(held) < 1000 || len(trained) < len(held) {
		return nil
	}
	h, t := slices.Sorted(slices.Values(held)), slices.Sorted(slices.Values(trained))
	rarest, anchor := 0.0, float32(0) // the share of held-out rows above the rarest quantile
	for _, share := range []float64{0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001} {
		want := share * float64(len(h))
		if want < 15 {
			break
		}
		least, most := 1/1.5, 1.5
		if want < 100 { // too few on the safe side may be chance
			least, most = 0, 2
		}
		anchor = t[int((1-share)*float64(len(t)))]
		got := float64(len(h) - upper(h, anchor))
		if got > want*most || got < want*least {
			return nil
		}
		rarest = max(got, want) / float64(len(h))
	}
	all := slices.Sorted(slices.Values(slices.Concat(h, t)))
	below := upper(all, anchor)
	above := len(all) - below
	keep := int(math.Round(float64(above)/rarest)) - above
	if keep >= below {
		return all
	}
	out := make([]float32, 0, keep+above)
	for i := range keep {
		out = append(out, all[i*below/keep])
	}
	return append(out, all[below:]...)
}

// upper returns how many of the ascending scores are at or below v.
func upper(scores []float32, v float32) int {
	return sort.Search(len(scores), func(i int) bool { return scores[i] > v })
}

func (c *Calibration) validateRule() error {
	if !slices.Contains([]Rule{"", Quantile, Pareto, BestF1}, c.Rule) {
		return fmt.Errorf("calibration: rule %q", c.Rule)
	}
	if c.Trained < 0 || c.Trained > c.Rows || len(c.Highest) > maxHighest || int64(len(c.Highest)) > c.Rows {
		return fmt.Errorf("calibration: %d rows of %d trained on, %d highest", c.Trained, c.Rows, len(c.Highest))
	}
	for _, v := range c.Highest {
		if v-v != 0 {
			return errors.New("calibration: a highest score is not finite")
		}
	}
	if !slices.IsSorted(c.Highest) {
		return errors.New("calibration: highest scores are not sorted")
	}
	return nil
}
