package eval

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Histogram counts scores in bins: bin i holds Edges[i] <= score < Edges[i+1],
// the last bin its upper edge too. Infinite scores are in Below and Above.
// Without labels every row counts as normal.
type Histogram struct {
	Edges   []float64 `json:"edges"`   // one more than bins
	Normal  []int     `json:"normal"`  // rows per bin that are not anomalies
	Anomaly []int     `json:"anomaly"` // rows per bin that are; empty without labels
	Below   int       `json:"below"`
	Above   int       `json:"above"`
	Log     bool      `json:"log"` // bins widen from left to right, for a long tail
}

// NewHistogram counts scores in bins from the smallest to the largest finite
// score. Bins have one width, or widen geometrically when the largest score is
// far beyond the bulk. labels may be nil. bins 0 means 20.
func NewHistogram[S Float](scores []S, labels []bool, bins int) (*Histogram, error) {
	if labels == nil {
		if err := checkScores(scores); err != nil {
			return nil, fmt.Errorf("histogram: %w", err)
		}
	} else if err := check(scores, labels); err != nil {
		return nil, fmt.Errorf("histogram: %w", err)
	}
	if bins == 0 {
		bins = 20
	}
	if bins < 1 || bins > 10_000 {
		return nil, fmt.Errorf("histogram: %d bins, want 1 to 10000", bins)
	}
	h := &Histogram{Normal: make([]int, bins)}
	h.setEdges(finite(scores), bins)
	if labels != nil {
		h.Anomaly = make([]int, bins)
	}
	for i, s := range scores {
		h.add(float64(s), labels != nil && labels[i])
	}
	return h, nil
}

// finite returns the finite scores, sorted.
func finite[S Float](scores []S) []float64 {
	var out []float64
	for _, s := range scores {
		if v := float64(s); !math.IsInf(v, 0) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

func (h *Histogram) setEdges(sorted []float64, bins int) {
	low, high, q50, q90 := 0.0, 1.0, 0.5, 0.9
	if len(sorted) > 0 {
		low, high = sorted[0], sorted[len(sorted)-1]
		q50, q90 = quantile(sorted, .5), quantile(sorted, .9)
	}
	if !(high > low) {
		low, high = low-math.Max(.5, math.Abs(low)*1e-3), high+math.Max(.5, math.Abs(high)*1e-3)
	}
	unit := q50 - low
	h.Log = unit > 0 && high-low > 8*(q90-low) && !math.IsInf((high-low)/unit, 0)
	h.Edges = make([]float64, bins+1)
	for i := range h.Edges {
		share := float64(i) / float64(bins)
		if h.Log {
			h.Edges[i] = low + unit*math.Expm1(share*math.Log1p((high-low)/unit))
		} else {
			h.Edges[i] = low*(1-share) + high*share
		}
		h.Edges[i] = min(h.Edges[i], high) // rounding
	}
	h.Edges[0], h.Edges[bins] = low, high
}

func (h *Histogram) add(s float64, anomaly bool) {
	switch bins := len(h.Normal); {
	case s < h.Edges[0]:
		h.Below++
	case s > h.Edges[bins]:
		h.Above++
	default:
		b := h.bin(s)
		if anomaly {
			h.Anomaly[b]++
		} else {
			h.Normal[b]++
		}
	}
}

// bin returns the bin of a score within the edges.
func (h *Histogram) bin(s float64) int {
	i, exact := slices.BinarySearch(h.Edges, s)
	if !exact {
		i--
	}
	return min(max(i, 0), len(h.Normal)-1)
}

func (h *Histogram) anomaly(i int) int {
	if len(h.Anomaly) == 0 {
		return 0
	}
	return h.Anomaly[i]
}

// WriteText draws the histogram as lines of text, one bin each, no wider than
// width columns (at least 40; 0 means 80). The bar of normal rows is solid, that
// of anomalies shaded; a bin that is not empty shows at least a sliver. limit, if
// not nil, marks the bin that holds the alert limit.
func (h *Histogram) WriteText(w io.Writer, width int, limit *float64) error {
	if width == 0 {
		width = 80
	}
	width = max(width, 40)
	left, edgeWidth, countWidth, most := make([]string, len(h.Normal)), 0, 0, 1
	counts := make([]string, len(h.Normal))
	for i := range h.Normal {
		left[i] = short(h.Edges[i])
		edgeWidth = max(edgeWidth, len(left[i]))
		counts[i] = thousands(h.Normal[i])
		if a := h.anomaly(i); a > 0 {
			counts[i] += " + " + thousands(a)
		}
		countWidth = max(countWidth, len(counts[i]))
		most = max(most, h.Normal[i]+h.anomaly(i))
	}
	const mark = " < limit"
	room := width - edgeWidth - countWidth - len("  | ") - len(mark)
	var b strings.Builder
	for i := range h.Normal {
		line := fmt.Sprintf("%*s ▏%s %s", edgeWidth, left[i],
			bar(h.Normal[i], h.anomaly(i), most, max(room, 4)), counts[i])
		if limit != nil && *limit >= h.Edges[0] && *limit <= h.Edges[len(h.Normal)] && h.bin(*limit) == i {
			line += mark
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	if h.Below+h.Above > 0 {
		fmt.Fprintf(&b, "infinite: %s below, %s above\n", thousands(h.Below), thousands(h.Above))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// bar draws normal rows solid, with eighths of a cell, then anomalies shaded.
func bar(normal, anomaly, most, room int) string {
	eighths := func(n int) int {
		if n == 0 {
			return 0
		}
		return max(1, int(math.Round(float64(n)/float64(most)*float64(room)*8)))
	}
	shaded := 0
	if anomaly > 0 {
		shaded = max(1, eighths(anomaly)/8)
	}
	e := min(eighths(normal), (room-shaded)*8)
	s := strings.Repeat("█", max(e, 0)/8)
	if e > 0 && e%8 != 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[e%8-1])
	}
	return s + strings.Repeat("▒", shaded)
}

// thousands writes a whole number with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// short writes a number in about four figures.
func short(x float64) string {
	a := math.Abs(x)
	switch {
	case x == 0:
		return "0"
	case a >= 1e6 || a < 1e-3:
		return fmt.Sprintf("%.2e", x)
	case a >= 1000:
		return fmt.Sprintf("%.0f", x)
	case a >= 100:
		return fmt.Sprintf("%.1f", x)
	case a >= 1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.4f", x)
}
