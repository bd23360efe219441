package eval

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Float is the type of a score.
type Float interface{ ~float32 | ~float64 }

// ErrOneClass is returned for a figure that compares anomalies with normal rows
// when the labels hold only one of the two.
var ErrOneClass = errors.New("labels hold one class only")

// ErrNaN is returned for scores that hold a NaN, which has no rank.
var ErrNaN = errors.New("score is NaN")

// check tells what is wrong with scores and labels before anything is computed.
func check[S Float](scores []S, labels []bool) error {
	if len(scores) != len(labels) {
		return fmt.Errorf("%d scores but %d labels", len(scores), len(labels))
	}
	return checkScores(scores)
}

func checkScores[S Float](scores []S) error {
	if len(scores) == 0 {
		return errors.New("no rows to judge")
	}
	for i, s := range scores {
		if s != s {
			return fmt.Errorf("row %d: %w; leave rows without a score out and count them", i, ErrNaN)
		}
	}
	return nil
}

func countTrue(labels []bool) int {
	n := 0
	for _, l := range labels {
		if l {
			n++
		}
	}
	return n
}

// bothClasses returns the number of anomalies and of normal rows.
func bothClasses(labels []bool) (anomalies, normal int, err error) {
	anomalies = countTrue(labels)
	normal = len(labels) - anomalies
	switch {
	case anomalies == 0:
		return 0, 0, fmt.Errorf("%w: no row of %d is an anomaly", ErrOneClass, len(labels))
	case normal == 0:
		return 0, 0, fmt.Errorf("%w: all of %d rows are anomalies", ErrOneClass, len(labels))
	}
	return anomalies, normal, nil
}

// order returns the rows from the highest score to the lowest.
func order[S Float](scores []S) []int {
	rows := make([]int, len(scores))
	for i := range rows {
		rows[i] = i
	}
	slices.SortFunc(rows, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
	return rows
}

// step is what lies at or above one distinct score.
type step struct {
	score            float64
	anomalies, false int
}

// steps walks the distinct scores from the highest down, with running counts.
func steps[S Float](scores []S, labels []bool) []step {
	var out []step
	rows := order(scores)
	tp, fp := 0, 0
	for i, r := range rows {
		if labels[r] {
			tp++
		} else {
			fp++
		}
		if i+1 == len(rows) || scores[rows[i+1]] != scores[r] {
			out = append(out, step{float64(scores[r]), tp, fp})
		}
	}
	return out
}

// AUROC is the probability that an anomaly scores above a normal row, equal
// scores counting half: the area under the ROC curve. It fails with ErrOneClass
// and ErrNaN.
func AUROC[S Float](scores []S, labels []bool) (float64, error) {
	if err := check(scores, labels); err != nil {
		return 0, fmt.Errorf("auroc: %w", err)
	}
	p, n, err := bothClasses(labels)
	if err != nil {
		return 0, fmt.Errorf("auroc: %w", err)
	}
	// Twice the number of pairs won, in whole numbers: exact.
	var twice float64
	tp, fp := 0, 0
	for _, s := range steps(scores, labels) {
		twice += float64(s.false-fp) * float64(tp+s.anomalies)
		tp, fp = s.anomalies, s.false
	}
	return twice / 2 / float64(p) / float64(n), nil
}

// AveragePrecision is the sum over distinct scores, from the highest down, of
// precision times the recall gained: scikit-learn's average_precision_score. It
// interpolates nothing. A random order has the share of anomalies as its value.
// It fails with ErrOneClass and ErrNaN.
func AveragePrecision[S Float](scores []S, labels []bool) (float64, error) {
	if err := check(scores, labels); err != nil {
		return 0, fmt.Errorf("average precision: %w", err)
	}
	p, _, err := bothClasses(labels)
	if err != nil {
		return 0, fmt.Errorf("average precision: %w", err)
	}
	var sum float64
	tp := 0
	for _, s := range steps(scores, labels) {
		sum += float64(s.anomalies) / float64(s.anomalies+s.false) * float64(s.anomalies-tp)
		tp = s.anomalies
	}
	return sum / float64(p), nil
}

// Confusion counts rows by label and verdict. Ratios without a denominator are
// zero: precision where nothing was flagged, recall where there is no anomaly.
type Confusion struct {
	TruePositives  int `json:"true_positives"`
	FalsePositives int `json:"false_positives"`
	TrueNegatives  int `json:"true_negatives"`
	FalseNegatives int `json:"false_negatives"`
}

// Count compares verdicts with labels, row by row.
func Count(flagged, labels []bool) (Confusion, error) {
	var c Confusion
	if len(flagged) != len(labels) {
		return c, fmt.Errorf("confusion: %d verdicts but %d labels", len(flagged), len(labels))
	}
	for i, f := range flagged {
		switch {
		case f && labels[i]:
			c.TruePositives++
		case f:
			c.FalsePositives++
		case labels[i]:
			c.FalseNegatives++
		default:
			c.TrueNegatives++
		}
	}
	return c, nil
}

// At counts with the rows whose score is above limit as flagged.
func At[S Float](scores []S, labels []bool, limit float64) (Confusion, error) {
	if err := check(scores, labels); err != nil {
		return Confusion{}, fmt.Errorf("confusion: %w", err)
	}
	return Count(Flag(scores, limit), labels)
}

// Flag returns, for each score, whether it is above limit.
func Flag[S Float](scores []S, limit float64) []bool {
	flagged := make([]bool, len(scores))
	for i, s := range scores {
		flagged[i] = float64(s) > limit
	}
	return flagged
}

// Rows is the number of rows counted.
func (c Confusion) Rows() int {
	return c.TruePositives + c.FalsePositives + c.TrueNegatives + c.FalseNegatives
}

// Alerts is the number of flagged rows.
func (c Confusion) Alerts() int { return c.TruePositives + c.FalsePositives }

// Precision is the share of flagged rows that are anomalies.
func (c Confusion) Precision() float64 { return ratio(c.TruePositives, c.Alerts()) }

// Recall is the share of anomalies that are flagged.
func (c Confusion) Recall() float64 {
	return ratio(c.TruePositives, c.TruePositives+c.FalseNegatives)
}

// FalsePositiveRate is the share of normal rows that are flagged.
func (c Confusion) FalsePositiveRate() float64 {
	return ratio(c.FalsePositives, c.FalsePositives+c.TrueNegatives)
}

// F1 is the harmonic mean of precision and recall.
func (c Confusion) F1() float64 {
	return ratio(2*c.TruePositives, 2*c.TruePositives+c.FalsePositives+c.FalseNegatives)
}

func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// BestF1 returns the limit with the highest F1 and the counts there; of several
// it takes the highest limit, which flags least. The limit lies between two
// scores that occur, so that it may be rounded to float32. It looks at the
// labels of the rows it is judged on: a bound for what a limit can reach, not a
// figure to promise.
func BestF1[S Float](scores []S, labels []bool) (limit float64, at Confusion, err error) {
	if err := check(scores, labels); err != nil {
		return 0, at, fmt.Errorf("best f1: %w", err)
	}
	p, n, err := bothClasses(labels)
	if err != nil {
		return 0, at, fmt.Errorf("best f1: %w", err)
	}
	all := steps(scores, labels)
	best := -1
	for i, s := range all {
		c := Confusion{s.anomalies, s.false, n - s.false, p - s.anomalies}
		if best < 0 || c.F1() > at.F1() {
			best, at = i, c
		}
	}
	if best+1 == len(all) {
		return below(all[best].score), at, nil
	}
	return between(all[best+1].score, all[best].score), at, nil
}

// between returns x with low <= x < high, half way where float32 can say that.
func between(low, high float64) float64 {
	if math.IsInf(low, 0) || math.IsInf(high, 0) {
		if math.IsInf(low, -1) {
			return below(high)
		}
		return low
	}
	if mid := float64(float32(low/2 + high/2)); mid >= low && mid < high {
		return mid
	}
	return low
}

// below returns a finite number under x that float32 also holds under x.
func below(x float64) float64 {
	if math.IsInf(x, 1) {
		return math.MaxFloat32
	}
	return math.Max(x-math.Max(1, math.Abs(x)*1e-3), -math.MaxFloat64)
}

// CurvePoint is one point of a ROC curve (X false positive rate, Y recall) or of
// a precision-recall curve (X recall, Y precision).
type CurvePoint struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// Curves returns the ROC curve, from (0,0) to (1,1), and the precision-recall
// curve, from the highest score down, with one point for each distinct score.
func Curves[S Float](scores []S, labels []bool) (roc, pr []CurvePoint, err error) {
	if err := check(scores, labels); err != nil {
		return nil, nil, fmt.Errorf("curves: %w", err)
	}
	p, n, err := bothClasses(labels)
	if err != nil {
		return nil, nil, fmt.Errorf("curves: %w", err)
	}
	roc = append(roc, CurvePoint{0, 0})
	for _, s := range steps(scores, labels) {
		recall := ratio(s.anomalies, p)
		roc = append(roc, CurvePoint{ratio(s.false, n), recall})
		pr = append(pr, CurvePoint{recall, ratio(s.anomalies, s.anomalies+s.false)})
	}
	return roc, pr, nil
}
