package cli

import (
	"math"
	"testing"
)

// A sample of a large table has about baselineRows rows, from all of it and with
// no regard to its order; a small table is taken whole.
func TestInSample(t *testing.T) {
	for _, total := range []int64{10, baselineRows} {
		for row := range total {
			if !inSample(row, total) {
				t.Fatalf("row %d of %d is left out", row, total)
			}
		}
	}
	const total, period = 400_000, 10
	var n int64
	var by [period]int64
	for row := range int64(total) {
		if inSample(row, total) {
			n++
			by[row%period]++
		}
	}
	if math.Abs(float64(n)-baselineRows) > 600 { // four standard deviations
		t.Errorf("%d rows of %d, want about %d", n, total, baselineRows)
	}
	for i, k := range by {
		if math.Abs(float64(k)-baselineRows/period) > 200 {
			t.Errorf("%d rows whose number ends in %d, want about %d", k, i, baselineRows/period)
		}
	}
}

// To count usual rows often moves precision, and no rank.
func TestFiguresOf(t *testing.T) {
	scores, labels := []float64{4, 3, 2, 1}, []bool{true, false, true, false}
	once, err := figuresOf("d", scores, labels, 1)
	if err != nil {
		t.Fatal(err)
	}
	often, err := figuresOf("d", scores, labels, 10)
	if err != nil {
		t.Fatal(err)
	}
	if once.AUROC != 0.75 || often.AUROC != 0.75 {
		t.Errorf("AUROC %v, and %v with usual rows counted ten times, want 0.75", once.AUROC, often.AUROC)
	}
	if want := 0.5*1 + 0.5*2/3; math.Abs(once.AP-want) > 1e-12 {
		t.Errorf("AP %v, want %v", once.AP, want)
	}
	if want := 0.5*1 + 0.5*2/12; math.Abs(often.AP-want) > 1e-12 {
		t.Errorf("AP with usual rows counted ten times %v, want %v", often.AP, want)
	}
	if once.PrecisionAtK != 0.5 || often.PrecisionAtK != 0.5 {
		t.Errorf("precision at k %v and %v, want 0.5", once.PrecisionAtK, often.PrecisionAtK)
	}
	if len(scores) != 4 || scores[3] != 1 {
		t.Errorf("scores became %v", scores)
	}
}
