package eval

import (
	"fmt"
	"math"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// Judged holds the rows of score and label columns that can be judged, and
// counts those that cannot. The zero value is empty; Add appends to it.
type Judged struct {
	Scores []float64
	Labels []bool
	Rows   []int64 // number of each judged row, counted over all Add calls
	Seen   int64   // rows looked at

	NoScore int64 // rows whose score is null or NaN
	NoLabel int64 // rows whose label is null; a row without both counts as NoScore
}

// Add looks at one batch: a float32 or float64 score column and a label column.
// A label is a boolean, a number that is 0 (normal) or 1 (anomaly), or one of the
// words 0, 1, true, false, normal, anomaly in any case; anything else is an
// error that names the row. labels nil means that there are none: all rows with
// a score are kept and Labels stays empty. Add borrows both columns.
func (j *Judged) Add(scores, labels arrow.Array) error {
	score, err := floats(scores)
	if err != nil {
		return fmt.Errorf("scores: %w", err)
	}
	if labels != nil && labels.Len() != scores.Len() {
		return fmt.Errorf("%d scores but %d labels", scores.Len(), labels.Len())
	}
	for i := range scores.Len() {
		row := j.Seen
		j.Seen++
		if scores.IsNull(i) || math.IsNaN(score(i)) {
			j.NoScore++
			continue
		}
		if labels != nil {
			if labels.IsNull(i) {
				j.NoLabel++
				continue
			}
			l, err := label(labels, i)
			if err != nil {
				return fmt.Errorf("labels: row %d: %w", row, err)
			}
			j.Labels = append(j.Labels, l)
		}
		j.Scores = append(j.Scores, score(i))
		j.Rows = append(j.Rows, row)
	}
	return nil
}

// Collect is Add on an empty Judged.
func Collect(scores, labels arrow.Array) (*Judged, error) {
	j := new(Judged)
	if err := j.Add(scores, labels); err != nil {
		return nil, err
	}
	return j, nil
}

// floats returns the reader of a float column.
func floats(a arrow.Array) (func(int) float64, error) {
	switch a := a.(type) {
	case *array.Float32:
		return func(i int) float64 { return float64(a.Value(i)) }, nil
	case *array.Float64:
		return a.Value, nil
	}
	return nil, fmt.Errorf("column is %s, want float32 or float64", a.DataType())
}

// label reads one label that is not null.
func label(a arrow.Array, i int) (bool, error) {
	if b, ok := a.(*array.Boolean); ok {
		return b.Value(i), nil
	}
	text := strings.ToLower(strings.TrimSpace(a.ValueStr(i)))
	switch text {
	case "0", "false", "normal":
		return false, nil
	case "1", "true", "anomaly":
		return true, nil
	}
	return false, fmt.Errorf("label %q is neither 0, false, normal nor 1, true, anomaly", a.ValueStr(i))
}
