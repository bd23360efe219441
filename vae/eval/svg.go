package eval

import (
	"fmt"
	"math"
	"strings"
)

// chart is a curve in the unit square.
type chart struct {
	x, y   string // what the axes measure
	curve  []CurvePoint
	chance [4]float64  // a dashed line: x1 y1 x2 y2
	here   *CurvePoint // the alert limit, if known
}

// The curve's drawing area within its 400 x 320 picture.
const (
	plotLeft, plotTop    = 44.0, 10.0
	plotWide, plotHigh   = 346.0, 266.0
	chartWide, chartHigh = 400, 320
)

func (p *page) curve(c chart) {
	x := func(v float64) float64 { return plotLeft + plotWide*v }
	y := func(v float64) float64 { return plotTop + plotHigh*(1-v) }
	p.f("<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s against %s\">\n", chartWide, chartHigh, text(c.y), text(c.x))
	for i := range 5 {
		v := float64(i) / 4
		p.f("<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", x(0), y(v), x(1), y(v))
		p.f("<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", x(v), y(0), x(v), y(1))
		p.f("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%g</text>", x(0)-6, y(v)+4, v)
		p.f("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%g</text>\n", x(v), y(0)+16, v)
	}
	p.f("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", x(.5), y(0)+34, text(c.x))
	p.f("<text transform=\"translate(12 %.1f) rotate(-90)\" text-anchor=\"middle\">%s</text>\n", y(.5), text(c.y))
	p.f("<line class=\"chance\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
		x(c.chance[0]), y(c.chance[1]), x(c.chance[2]), y(c.chance[3]))
	points := make([]string, len(c.curve))
	for i, q := range c.curve {
		points[i] = fmt.Sprintf("%.1f,%.1f", x(q.X), y(q.Y))
	}
	p.f("<polyline class=\"curve\" points=\"%s\"/>\n", strings.Join(points, " "))
	if c.here != nil {
		p.f("<circle class=\"here\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"><title>%s %.3f, %s %.3f</title></circle>\n",
			x(c.here.X), y(c.here.Y), text(c.x), c.here.X, text(c.y), c.here.Y)
	}
	p.f("</svg>\n")
}

// histogram draws equal bars for bins, labelled by their edges.
func (p *page) histogram(h *Histogram, limit *float64) {
	const wide, high, left, top, plot = 900, 250, 44.0, 10.0, 200.0
	bins, most := len(h.Normal), 1
	for i := range h.Normal {
		most = max(most, h.Normal[i], h.anomaly(i))
	}
	cell := (wide - left - 12) / float64(bins)
	y := func(n float64) float64 { return top + plot*(1-math.Sqrt(n/float64(most))) }
	p.f("<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"histogram of scores\">\n", wide, high)
	for _, n := range gridCounts(most) {
		p.f("<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>", left, y(float64(n)), wide-12, y(float64(n)))
		p.f("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", left-6, y(float64(n))+4, compact(n))
	}
	bar := func(class string, x, w float64, n int) {
		if n > 0 {
			p.f("<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%s</title></rect>\n",
				class, x, y(float64(n)), w, top+plot-y(float64(n)), thousands(n)+" rows")
		}
	}
	every := max(1, int(math.Ceil(58/cell)))
	for i := range bins {
		x := left + cell*float64(i)
		if len(h.Anomaly) == 0 {
			bar("n", x+1, cell-2, h.Normal[i])
		} else {
			bar("n", x+1, cell/2-1, h.Normal[i])
			bar("a", x+cell/2, cell/2-1, h.Anomaly[i])
		}
		if i%every == 0 {
			p.f("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", x, top+plot+18, short(h.Edges[i]))
		}
	}
	if bins%every == 0 {
		p.f("<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", wide-2, top+plot+18, short(h.Edges[bins]))
	}
	p.f("<line class=\"axis\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>\n", left, top+plot, wide-12, top+plot)
	if limit != nil && *limit >= h.Edges[0] && *limit <= h.Edges[bins] {
		i := h.bin(*limit)
		within := 0.0
		if d := h.Edges[i+1] - h.Edges[i]; d > 0 {
			within = (*limit - h.Edges[i]) / d
		}
		x := left + cell*(float64(i)+within)
		p.f("<line class=\"limit\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"><title>limit %s</title></line>\n",
			x, top, x, top+plot, short(*limit))
	}
	p.f("</svg>\n")
}

// gridCounts returns round numbers up to most that lie well apart on a square
// root scale.
func gridCounts(most int) []int {
	unit := 1
	for unit*10 <= most {
		unit *= 10
	}
	out := []int{0}
	for _, n := range []int{unit / 10, unit / 2, unit, 2 * unit, 5 * unit} {
		gap := math.Sqrt(float64(n)/float64(most)) - math.Sqrt(float64(out[len(out)-1])/float64(most))
		if n > out[len(out)-1] && n <= most && gap > .1 {
			out = append(out, n)
		}
	}
	return out
}

// compact writes a round count in few letters.
func compact(n int) string {
	switch {
	case n >= 1_000_000 && n%100_000 == 0:
		return fmt.Sprintf("%gM", float64(n)/1e6)
	case n >= 1_000 && n%100 == 0:
		return fmt.Sprintf("%gk", float64(n)/1e3)
	}
	return fmt.Sprint(n)
}
