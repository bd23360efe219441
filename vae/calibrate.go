package vae

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
)

// A Calibration turns a score into its tail probability among held-out normal
// rows, and a target rate into a limit.
//
// With v the held-out scores, low their minimum and t = log(max(s-low, 0) +
// soft), soft a thousandth of median-low: up to Start the probability is
// empirical, (k+1)/(n+1) with k held-out scores at or above s (never below Tail);
// beyond it an exponential tail in t, with the mean excess of the 50 highest rows,
// extends past what was seen. Start leaves 10 rows above it, but no more than the highest
// tenth and no fewer than the highest thousandth. Valid as far as new normal rows
// are exchangeable with the held-out ones.
type Calibration struct {
	Rows int64 `json:"rows"` // held-out rows, and the training rows of CalibrateTrained
	// Trained is how many of Rows were trained on; see CalibrateTrained.
	Trained int64     `json:"trained,omitempty"`
	Knots   []float64 `json:"knots"` // held-out scores at evenly spaced ranks, ascending
	Low     float64   `json:"low"`
	Soft    float64   `json:"soft"`
	Start   float64   `json:"start"` // t where the tail begins
	Tail    float64   `json:"tail"`  // share of rows beyond Start
	// Excess is the mean excess of t in the tail.
	Excess     float64 `json:"excess"`
	TargetRate float64 `json:"target_rate"`
	Limit      float64 `json:"limit"` // score above which a row is an anomaly at TargetRate
	// Fixed says that Limit was given, not computed from TargetRate.
	Fixed bool `json:"fixed,omitempty"`
	// Rule says how Limit was found; empty means by TargetRate, or given when Fixed.
	Rule Rule `json:"rule,omitempty"`
	// Highest holds the highest scores, ascending, where Knots leave some out.
	Highest []float32 `json:"highest,omitempty"`

	// Where P begins to search: first[i] is the number of knots whose u (exp of t)
	// has a key below base+i. edge is the u of Start.
	first []int32
	base  uint64
	edge  float64
	parts []bodyPart // of Surprise
}

const (
	maxKnots = 1001
	// The tail begins where tailRows held-out rows are above, but never beyond the
	// highest tailShare of them; its slope is that of slopeRows, likewise.
	tailRows  = 10
	slopeRows = 50
	tailShare = 0.1
	// MinCalibration is the fewest held-out rows that Calibrate takes.
	MinCalibration = 10
)

// Calibrate fits a calibration to the scores (nats) of held-out normal rows.
func Calibrate(scores []float32, targetRate float64) (*Calibration, error) {
	if len(scores) < MinCalibration {
		return nil, fmt.Errorf("calibrate on %d rows: at least %d are needed", len(scores), MinCalibration)
	}
	v := make([]float64, len(scores))
	for i, s := range scores {
		if v[i] = float64(s); !finite(v[i]) {
			return nil, fmt.Errorf("calibrate: score %d is %v", i, s)
		}
	}
	slices.Sort(v)
	n := len(v)
	c := &Calibration{Rows: int64(n), Low: v[0]}
	c.Soft = max(1e-3*(v[n/2]-v[0]), 1e-9)
	c.Tail = min(tailShare, max(tailRows/float64(n), 1.0/(maxKnots-1)))
	c.Start = c.t(v[int((1-c.Tail)*float64(n))])
	c.Excess = c.meanExcess(v, min(tailShare, max(slopeRows/float64(n), c.Tail)))
	k := min(n, maxKnots)
	for i := range k {
		c.Knots = append(c.Knots, v[rankOf(i, k, n)])
	}
	if n > maxKnots {
		for _, s := range v[n-min(maxHighest, n):] {
			c.Highest = append(c.Highest, float32(s))
		}
	}
	c.index()
	return c, c.SetTargetRate(targetRate)
}

// meanExcess is the mean of t over where a share of the ascending scores is above.
func (c *Calibration) meanExcess(v []float64, share float64) float64 {
	start := c.t(v[int((1-share)*float64(len(v)))])
	above, sum := 0, 0.0
	for _, s := range v {
		if t := c.t(s); t > start {
			above++
			sum += t - start
		}
	}
	if above == 0 {
		return 1e-9
	}
	return max(1e-9, sum/float64(above))
}

// rankOf is the rank that knot i of k stands for among n scores.
func rankOf(i, k, n int) int {
	if k == n {
		return i
	}
	return int(math.Round(float64(i) * float64(n-1) / float64(k-1)))
}

func (c *Calibration) u(s float64) float64 { return max(s-c.Low, 0) + c.Soft }

func (c *Calibration) t(s float64) float64 { return math.Log(c.u(s)) }

// SetTargetRate sets the limit for a rate of false alarms among normal rows.
func (c *Calibration) SetTargetRate(rate float64) error {
	if !(rate > 0 && rate < 1) {
		return fmt.Errorf("target rate %v: want a share of rows above 0 and below 1, such as 0.001", rate)
	}
	if rate < c.Tail {
		limit := c.Low + math.Exp(c.Start+c.Excess*math.Log(c.Tail/rate)) - c.Soft
		if !finite(limit) {
			return fmt.Errorf("target rate %v: the scores spread too far to tell a limit that rare; ask for a larger rate", rate)
		}
		c.set(max(limit, c.edgeScore()), rate, "", false)
		return nil
	}
	c.set(c.untie(min(c.body(rate), c.edgeScore()), rate), rate, "", false)
	return nil
}

// edgeScore is the score where the tail begins; scores are float32, and rounding
// to that undoes the logarithm exactly.
func (c *Calibration) edgeScore() float64 {
	return float64(float32(c.Low + math.Exp(c.Start) - c.Soft))
}

// body is the limit for a rate that the knots themselves support: between two of
// them where others were left out, else the next higher score.
func (c *Calibration) body(rate float64) float64 {
	last := len(c.Knots) - 1
	at := (1 - rate) * float64(last)
	i := min(max(int(at), 0), last)
	switch low := c.Knots[i]; {
	case at == float64(i) || i == last:
		return low
	case int64(len(c.Knots)) == c.Rows:
		return c.Knots[i+1]
	default:
		return float64(float32(low + (at-float64(i))*(c.Knots[i+1]-low)))
	}
}

func (c *Calibration) set(limit, rate float64, rule Rule, fixed bool) {
	c.Limit, c.TargetRate, c.Rule, c.Fixed = limit, rate, rule, fixed
}

// SetLimit sets a fixed limit, in nats.
func (c *Calibration) SetLimit(limit float64) error {
	if !finite(limit) {
		return fmt.Errorf("limit %v: want a finite score in nats", limit)
	}
	c.set(limit, c.P(limit), "", true)
	return nil
}

// P returns the tail probability of a score: the share of normal rows that are
// expected to score as high, in (0, 1]. NaN gives NaN.
func (c *Calibration) P(score float64) float64 {
	if math.IsNaN(score) {
		return score
	}
	u := c.u(score)
	if !(u < c.edge) { // the logarithm is dear, and few rows are out here
		if t := math.Log(u); t > c.Start {
			return max(c.Tail*math.Exp(-(t-c.Start)/c.Excess), math.SmallestNonzeroFloat64)
		}
	}
	n, k := int(c.Rows), len(c.Knots)
	i := c.below(score, u)
	below := 0.0
	switch {
	case i == k:
		below = float64(n)
	case i > 0:
		lo, hi := rankOf(i-1, k, n), rankOf(i, k, n)
		share := (score - c.Knots[i-1]) / (c.Knots[i] - c.Knots[i-1])
		below = float64(lo) + share*float64(hi-lo)
		if k == n {
			below = float64(i)
		}
	}
	return max((float64(n)-below+1)/float64(n+1), c.Tail)
}

// below returns the number of knots below score, whose u is given.
func (c *Calibration) below(score, u float64) int {
	if len(c.first) == 0 {
		return sort.SearchFloat64s(c.Knots, score)
	}
	i := int(c.first[min(key(u)-c.base, uint64(len(c.first)-1))])
	for i > 0 && c.Knots[i-1] >= score {
		i--
	}
	for i < len(c.Knots) && c.Knots[i] < score {
		i++
	}
	return i
}

// key grows with u, some 128 steps for each factor of two.
func key(u float64) uint64 { return math.Float64bits(u) >> 45 }

// index makes the table that below begins with. Without it P is the same,
// slower.
func (c *Calibration) index() {
	if len(c.first) > 0 || !(c.Soft > 0) {
		return
	}
	c.edge = math.Exp(c.Start) * (1 - 1e-9) // surely below
	c.base = key(c.Soft)
	n := int(min(key(c.u(c.Knots[len(c.Knots)-1]))-c.base, 1<<16)) + 1
	c.first = make([]int32, n)
	k := 0
	for i := range c.first {
		for k < len(c.Knots) && key(c.u(c.Knots[k])) < c.base+uint64(i) {
			k++
		}
		c.first[i] = int32(k)
	}
	c.tabulate()
}

// Severity maps a tail probability to the fixed scale from 0 to 100: ten for each
// factor of ten, so 30 is one normal row in a thousand and 100 one in 10^10.
func Severity(p float64) float32 { return float32(min(max(-10*math.Log10(p), 0), 100)) }

func (c *Calibration) validate() error {
	if c.Rows < MinCalibration || c.Rows > 1<<53 || len(c.Knots) < 2 || len(c.Knots) > maxKnots || int64(len(c.Knots)) > c.Rows {
		return fmt.Errorf("calibration: %d rows and %d knots", c.Rows, len(c.Knots))
	}
	if !slices.IsSorted(c.Knots) {
		return errors.New("calibration: knots are not sorted")
	}
	for _, v := range append([]float64{c.Low, c.Soft, c.Start, c.Excess, c.Limit, c.TargetRate}, c.Knots...) {
		if !finite(v) {
			return errors.New("calibration: a number is not finite")
		}
	}
	if !(c.Tail > 0 && c.Tail <= tailShare) {
		return fmt.Errorf("calibration: tail %v", c.Tail)
	}
	if !(c.Soft > 0 && c.Excess > 0) {
		return errors.New("calibration: a spread is not above 0")
	}
	if err := c.validateRule(); err != nil {
		return err
	}
	c.index()
	return nil
}
