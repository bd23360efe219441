package eval

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/elbo-stream/elbo/vae"
)

// training draws the loss curves.
func (p *page) training(r *Report) {
	if len(r.Curve) < 2 {
		return
	}
	pick := func(f func(vae.Point) float64) (out []CurvePoint) {
		for _, c := range r.Curve {
			out = append(out, CurvePoint{float64(c.Step), f(c)})
		}
		return out
	}
	p.f("<h2>Training</h2>\n<div class=\"charts\">\n<figure><figcaption>Loss, nats a row</figcaption>\n")
	p.lines("step", "nats", []line{{"a", "held-out negative ELBO", pick(func(c vae.Point) float64 { return c.HeldOut })},
		{"n", "training loss", pick(func(c vae.Point) float64 { return c.Loss })}})
	p.f("</figure>\n<figure><figcaption>Its parts on training batches, nats a row</figcaption>\n")
	p.lines("step", "nats", []line{{"n", "reconstruction", pick(func(c vae.Point) float64 { return c.Recon })},
		{"a", "KL", pick(func(c vae.Point) float64 { return c.KL })}})
	p.f("</figure>\n</div>\n")
}

// A line is a curve with a name; class n or a is its colour.
type line struct {
	class, name string
	points      []CurvePoint
}

// lines draws curves over one scale of their own. Values far above the rest, such
// as those of the first steps, are cut off.
func (p *page) lines(xName, yName string, all []line) {
	var xs, ys []float64
	for _, l := range all {
		for _, q := range l.points {
			xs, ys = append(xs, q.X), append(ys, q.Y)
		}
	}
	slices.Sort(ys)
	x0, x1 := slices.Min(xs), slices.Max(xs)
	y0, y1 := ys[0], ys[int(0.97*float64(len(ys)-1))]
	if !(y1 > y0) {
		y0, y1 = y0-1, y1+1
	}
	y0, y1 = y0-(y1-y0)*.04, y1+(y1-y0)*.04
	x := func(v float64) float64 { return plotLeft + plotWide*(v-x0)/max(x1-x0, 1) }
	y := func(v float64) float64 { return plotTop + plotHigh*(1-(min(max(v, y0), y1)-y0)/(y1-y0)) }
	p.f("<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s by %s\">\n", chartWide, chartHigh, text(yName), text(xName))
	for i := range 5 {
		v := float64(i) / 4
		vx, vy := x0+v*(x1-x0), y0+v*(y1-y0)
		p.f("<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", x(x0), y(vy), x(x1), y(vy))
		p.f("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>", x(x0)-6, y(vy)+4, axis(vy, y1-y0))
		anchor := "middle"
		if i == 4 { // it would stick out of the picture
			anchor = "end"
		}
		p.f("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x(vx), y(y0)+16, anchor, axis(vx, x1-x0))
	}
	p.f("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", x((x0+x1)/2), y(y0)+34, text(xName))
	for _, l := range all {
		points := make([]string, len(l.points))
		for i, q := range l.points {
			points[i] = fmt.Sprintf("%.1f,%.1f", x(q.X), y(q.Y))
		}
		p.f("<polyline class=\"line %s\" points=\"%s\"><title>%s</title></polyline>\n", l.class, strings.Join(points, " "), text(l.name))
	}
	p.f("</svg>\n<p class=\"key\">")
	for _, l := range all {
		colour := "normal"
		if l.class == "a" {
			colour = "anomaly"
		}
		p.f("<i style=\"background:var(--%s)\"></i>%s", colour, text(l.name))
	}
	p.f("</p>\n")
}

// axis writes a number of an axis that spans so much.
func axis(v, span float64) string {
	if span >= 20 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// latents draws the map of the rows.
func (p *page) latents(r *Report) {
	m := r.Latents
	if m == nil || len(m.Points) == 0 {
		return
	}
	hi := 2.0
	for _, q := range m.Points {
		hi = max(hi, math.Abs(q.X), math.Abs(q.Y))
	}
	hi = min(2*math.Ceil(hi/2), 8) // what is further out stands at the edge
	lo := -hi
	x := func(v float64) float64 { return plotLeft + plotWide*(min(max(v, lo), hi)-lo)/(hi-lo) }
	y := func(v float64) float64 { return plotTop + plotHigh*(1-(min(max(v, lo), hi)-lo)/(hi-lo)) }
	p.f("<h2>Where the model puts the rows</h2>\n<figure class=\"map\"><figcaption>Posterior means in the two latents that cost most</figcaption>\n"+
		"<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"map of the rows in two latents\">\n", chartWide, chartHigh)
	for i := range 5 {
		v := lo + float64(i)/4*(hi-lo)
		p.f("<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", x(lo), y(v), x(hi), y(v))
		p.f("<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>", x(v), y(lo), x(v), y(hi))
		p.f("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.3g</text>", x(lo)-6, y(v)+4, v)
		p.f("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.3g</text>\n", x(v), y(lo)+16, v)
	}
	p.f("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", x((lo+hi)/2), y(lo)+34, text(m.X))
	p.f("<text transform=\"translate(12 %.1f) rotate(-90)\" text-anchor=\"middle\">%s</text>\n", y((lo+hi)/2), text(m.Y))
	for _, odd := range []bool{false, true} { // the odd ones on top
		p.f("<g class=\"dots %s\">", map[bool]string{false: "n", true: "a"}[odd])
		for _, q := range m.Points {
			if q.Odd == odd {
				p.f("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%g\"/>", x(q.X), y(q.Y), map[bool]float64{false: 1.6, true: 2.4}[odd])
			}
		}
		p.f("</g>\n")
	}
	what := "flagged"
	if r.Anomalies != nil {
		what = "labelled anomaly"
	}
	p.f("</svg>\n<p class=\"key\"><i style=\"background:var(--normal)\"></i>others<i style=\"background:var(--anomaly)\"></i>%s · %s rows</p></figure>\n",
		what, thousands(len(m.Points)))
}

// strangest lists the rows with the highest scores and what is to blame.
func (p *page) strangest(r *Report) {
	if len(r.Strangest) == 0 {
		return
	}
	p.f("<h2>Strangest rows</h2>\n<div class=\"scroll\"><table class=\"rows\">\n<tr><th>row</th><th>score</th><th>p</th>")
	labelled := r.Strangest[0].Anomaly != nil
	if labelled {
		p.f("<th>label</th>")
	}
	p.f("<th class=\"l\">what adds most to the score, nats</th></tr>\n")
	for _, s := range r.Strangest {
		p.f("<tr><td>%s</td><td>%s</td><td>%.2g</td>", thousands(int(s.Row)), short(s.Score), s.P)
		if labelled {
			p.f("<td>%s</td>", map[bool]string{true: "anomaly", false: "normal"}[*s.Anomaly])
		}
		p.f("<td class=\"l\">")
		most := 1e-9
		for _, t := range s.Top {
			most = max(most, t.Contribution)
		}
		for _, t := range s.Top {
			p.f("<div class=\"share\"><span class=\"bar hot\" style=\"background-size:%.0f%% 100%%\"></span><strong>%s</strong> %s: %s, expected %s</div>",
				100*max(t.Contribution, 0)/most, fmt.Sprintf("%.2f", t.Contribution), text(t.Column), text(t.Value), text(t.Expected))
		}
		p.f("</td></tr>\n")
	}
	p.f("</table></div>\n")
}

// fit lists how well each column is rebuilt.
func (p *page) fit(r *Report) {
	if len(r.Fit) == 0 {
		return
	}
	rows := [][]string{{"column", "held-out error, nats", "learned standard deviation"}}
	for _, c := range r.Fit[:min(len(r.Fit), maxBars)] {
		sd := "-"
		if c.SD > 0 {
			sd = fmt.Sprintf("%.3g", c.SD)
		}
		rows = append(rows, []string{c.Name, short(c.HeldOut), sd})
	}
	p.f("<h2>How well each column is rebuilt</h2>\n")
	p.table(rows)
	if n := len(r.Fit); n > maxBars {
		p.f("<p class=\"key\">the first %d of %d columns</p>\n", maxBars, n)
	} else {
		p.f("<p class=\"key\">on rows held out of training; the standard deviation is on the standardised scale, 1 is no better than the mean</p>\n")
	}
}

// planted lists what the model would catch.
func (p *page) planted(r *Report) {
	if len(r.Planted) == 0 {
		return
	}
	p.f("<h2>What it would catch: anomalies planted into these rows</h2>\n")
	p.table(plantedRows(r.Planted))
}

// plantedRows is the table of planted anomalies.
func plantedRows(all []PlantedFigures) [][]string {
	rows := [][]string{{"planted", "rows", "caught", "AUROC", "blamed 1st", "in three"}}
	for _, f := range all {
		name := strings.ReplaceAll(f.Kind, "_", " ")
		switch {
		case f.Kind == Spike && f.Strength > 0:
			name += fmt.Sprintf(" of %g sd", f.Strength)
		case f.Kind == Scale && f.Strength > 0:
			name += fmt.Sprintf(" by %g", f.Strength)
		}
		if f.Note != "" {
			rows = append(rows, []string{name, f.Note, "", "", "", ""})
			continue
		}
		rows = append(rows, []string{name, thousands(f.Rows), percent1(f.Recall), fmt.Sprintf("%.3f", f.AUROC), percent1(f.First), percent1(f.Three)})
	}
	return rows
}

func percent1(v float64) string { return fmt.Sprintf("%.1f%%", 100*v) }

// baselines lists other detectors.
func (p *page) baselines(r *Report) {
	if len(r.Baselines) == 0 {
		return
	}
	p.f("<h2>Against other detectors, all built in; CPU times</h2>\n")
	if r.Verdict != "" {
		p.f("<p>%s</p>\n", text(r.Verdict))
	}
	p.table(baselineRows(r.Baselines))
	for _, b := range r.Baselines {
		if b.Note != "" {
			p.f("<p class=\"key\">%s: %s</p>\n", text(b.Name), text(b.Note))
		}
	}
}

func baselineRows(all []BaselineFigures) [][]string {
	rows := [][]string{{"detector", "AUROC", "AP", "prec. at k", "fit, s", "score, us"}}
	for _, b := range all {
		if b.Note != "" { // it stands below the table
			rows = append(rows, []string{b.Name, "-", "-", "-", "-", "-"})
			continue
		}
		fit := "-"
		if b.FitSeconds > 0 {
			fit = fmt.Sprintf("%.3f", b.FitSeconds)
		}
		rows = append(rows, []string{b.Name, fmt.Sprintf("%.4f", b.AUROC), fmt.Sprintf("%.4f", b.AP), fmt.Sprintf("%.3f", b.PrecisionAtK),
			fit, fmt.Sprintf("%.2f", b.ScoreMicros)})
	}
	return rows
}

// planted and baselines of the terminal's report.
func (t *textWriter) planted(r *Report) {
	if len(r.Planted) > 0 {
		t.table("what it would catch: anomalies planted into these rows", plantedRows(r.Planted))
	}
}

func (t *textWriter) baselines(r *Report) {
	if len(r.Baselines) == 0 {
		return
	}
	t.table("against other detectors, all built in; CPU times", baselineRows(r.Baselines))
	for _, b := range r.Baselines {
		if b.Note != "" {
			fmt.Fprintf(t, "  %s: %s\n", plain(b.Name, 32), plain(b.Note, 1000))
		}
	}
	if r.Verdict != "" {
		fmt.Fprintf(t, "  %s\n", r.Verdict)
	}
}
