package eval

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
)

// AlertRate sets the achieved share of flagged rows against the promised one.
// Low and High bound the true rate at the given confidence (Clopper-Pearson:
// exact, so a little wide). Kept says that the promise lies within them. The
// interval takes the rows for independent, which rows of one incident are not.
type AlertRate struct {
	Promised   float64 `json:"promised"`
	Achieved   float64 `json:"achieved"`
	Alerts     int     `json:"alerts"`
	Rows       int     `json:"rows"`
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	Confidence float64 `json:"confidence"`
	Kept       bool    `json:"kept"`
}

// Rate judges alerts among rows against a promised rate (0 to 1); confidence is
// 0.95 where a caller has no other wish. Rows should be normal ones where the
// promise is a rate of false alarms.
func Rate(alerts, rows int, promised, confidence float64) (AlertRate, error) {
	var errs []error
	if rows < 1 || alerts < 0 || alerts > rows {
		errs = append(errs, fmt.Errorf("%d alerts among %d rows", alerts, rows))
	}
	if !(promised >= 0 && promised <= 1) {
		errs = append(errs, fmt.Errorf("promised rate %g is not within 0 and 1", promised))
	}
	if !(confidence > 0 && confidence < 1) {
		errs = append(errs, fmt.Errorf("confidence %g is not between 0 and 1", confidence))
	}
	if len(errs) > 0 {
		return AlertRate{}, fmt.Errorf("alert rate: %w", errors.Join(errs...))
	}
	r := AlertRate{Promised: promised, Achieved: ratio(alerts, rows), Alerts: alerts, Rows: rows,
		Low: 0, High: 1, Confidence: confidence}
	tail := (1 - confidence) / 2
	k, n := float64(alerts), float64(rows)
	if alerts > 0 {
		r.Low = mathext.InvRegIncBeta(k, n-k+1, tail)
	}
	if alerts < rows {
		r.High = mathext.InvRegIncBeta(k+1, n-k, 1-tail)
	}
	r.Kept = promised >= r.Low && promised <= r.High
	return r, nil
}

// verdict says in words how the achieved rate stands to the promise.
func (r AlertRate) verdict() string {
	switch {
	case r.Kept:
		return "kept"
	case r.Achieved > r.Promised:
		return "more alerts than promised"
	}
	return "fewer alerts than promised"
}

// Quantiles returns the values below which the shares qs (0 to 1) of the scores
// lie, linear between neighbours as numpy's default has it.
func Quantiles[S Float](scores []S, qs ...float64) ([]float64, error) {
	if err := checkScores(scores); err != nil {
		return nil, fmt.Errorf("quantiles: %w", err)
	}
	sorted := slices.Clone(scores)
	slices.Sort(sorted)
	out := make([]float64, len(qs))
	for i, q := range qs {
		if !(q >= 0 && q <= 1) {
			return nil, fmt.Errorf("quantiles: %g is not within 0 and 1", q)
		}
		out[i] = quantile(sorted, q)
	}
	return out, nil
}

func quantile[S Float](sorted []S, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	low := float64(sorted[i])
	if i+1 == len(sorted) || at == float64(i) {
		return low
	}
	high := float64(sorted[i+1])
	if low == high { // also two infinities
		return low
	}
	return low + (high-low)*(at-float64(i))
}

// midranks gives each score its rank from 1, equal scores their mean rank.
func midranks[S Float](scores []S) []float64 {
	rows := order(scores)
	slices.Reverse(rows)
	ranks := make([]float64, len(scores))
	for i := 0; i < len(rows); {
		j := i + 1
		for j < len(rows) && scores[rows[j]] == scores[rows[i]] {
			j++
		}
		for _, r := range rows[i:j] {
			ranks[r] = float64(i+j+1) / 2
		}
		i = j
	}
	return ranks
}

// Spearman is the rank correlation of two score sets of the same rows, -1 to 1,
// equal scores sharing their rank. Scores that are all equal have none: an error.
func Spearman[A, B Float](a []A, b []B) (float64, error) {
	if len(a) != len(b) {
		return 0, fmt.Errorf("spearman: %d scores against %d", len(a), len(b))
	}
	if err := errors.Join(checkScores(a), checkScores(b)); err != nil {
		return 0, fmt.Errorf("spearman: %w", err)
	}
	ra, rb := midranks(a), midranks(b)
	mean := float64(len(a)+1) / 2
	var ab, aa, bb float64
	for i := range ra {
		x, y := ra[i]-mean, rb[i]-mean
		ab += x * y
		aa += x * x
		bb += y * y
	}
	if aa == 0 || bb == 0 {
		return 0, errors.New("spearman: all scores of a set are equal, so they have no order")
	}
	return max(-1, min(1, ab/math.Sqrt(aa*bb))), nil
}

// Flips counts rows whose verdict differs between two score sets.
type Flips struct {
	Rows int     `json:"rows"`
	On   int     `json:"on"`   // flagged by the second set only
	Off  int     `json:"off"`  // flagged by the first set only
	Rate float64 `json:"rate"` // (On + Off) / Rows
}

// FlipRate compares the verdicts of two score sets of the same rows, each at its
// own limit.
func FlipRate[A, B Float](a []A, limitA float64, b []B, limitB float64) (Flips, error) {
	if len(a) != len(b) {
		return Flips{}, fmt.Errorf("flip rate: %d scores against %d", len(a), len(b))
	}
	if err := errors.Join(checkScores(a), checkScores(b)); err != nil {
		return Flips{}, fmt.Errorf("flip rate: %w", err)
	}
	f := Flips{Rows: len(a)}
	for i := range a {
		was, is := float64(a[i]) > limitA, float64(b[i]) > limitB
		switch {
		case is && !was:
			f.On++
		case was && !is:
			f.Off++
		}
	}
	f.Rate = ratio(f.On+f.Off, f.Rows)
	return f, nil
}
