package eval

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// style colours the page; dark where the reader's system is dark. Charts take
// their colours from it through classes.
const style = `
:root{color-scheme:light dark;--fg:#1c2330;--soft:#5d6878;--bg:#fff;--card:#f6f7f9;--line:#d9dee5;
--normal:#4577b5;--anomaly:#d9622b;--good:#22804a;--bad:#c0392b}
@media (prefers-color-scheme:dark){:root{--fg:#e4e8ee;--soft:#9aa5b4;--bg:#14181f;--card:#1d232d;--line:#343d4a;
--normal:#6d9fdd;--anomaly:#f08a54;--good:#5cc489;--bad:#ef7d6f}}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;color:var(--fg);background:var(--bg);
margin:0 auto;padding:24px 20px 48px;max-width:1040px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:16px;margin:32px 0 8px}
p.sub{color:var(--soft);margin:0 0 20px;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(156px,1fr));gap:12px}
.card{background:var(--card);border-radius:8px;padding:12px 14px}
.card b{display:block;font-size:22px;white-space:nowrap;font-weight:600;font-variant-numeric:tabular-nums}
.card span,.card small{color:var(--soft);font-size:13px;display:block}
.good{color:var(--good)}.bad{color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(320px,100%),1fr));gap:20px}
figure{margin:0;background:var(--card);border-radius:8px;padding:12px}figcaption{font-weight:600;margin-bottom:6px}
.wide{margin-top:20px}
svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font-size:11px;font-variant-numeric:tabular-nums}
.tall{min-width:640px}
svg .grid{stroke:var(--line);stroke-width:1}svg .axis{stroke:var(--soft);stroke-width:1}
svg .curve{fill:none;stroke:var(--normal);stroke-width:2}svg .chance{stroke:var(--soft);stroke-dasharray:4 4}
svg .line{fill:none;stroke-width:2}svg .line.n{fill:none;stroke:var(--normal)}svg .line.a{fill:none;stroke:var(--anomaly)}
svg .dots.n{opacity:.45}.map{max-width:560px}
.share{display:flex;gap:8px;align-items:center;padding:1px 0}.share .bar{flex:none;width:60px}.share strong{font-weight:600;min-width:3.2em;text-align:right}
@media (max-width:640px){table.rows tr:first-child{display:none}table.rows,table.rows tbody,table.rows tr{display:block}
table.rows tr{border-bottom:1px solid var(--line);padding:6px 0}table.rows td{display:inline-block;border:0;padding:2px 8px 2px 0;min-width:0}
table.rows td.l{display:block;white-space:normal}table.rows td:first-child::before{content:"row "}table.rows td:nth-child(2)::before{content:"score "}
table.rows td:nth-child(3)::before{content:"p "}}
th.l,td.l{text-align:left}table.rows td{vertical-align:top}table.rows td:first-child{min-width:4em}
svg .limit{stroke:var(--fg);stroke-dasharray:5 3}svg .here{fill:var(--anomaly)}
svg .n{fill:var(--normal)}svg .a{fill:var(--anomaly)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:5px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:500}th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:9em}
.bar{display:block;width:160px;height:10px;border-radius:3px;background:linear-gradient(var(--normal),var(--normal)) no-repeat left/0 100%}
.bar.hot{background-image:linear-gradient(var(--anomaly),var(--anomaly))}
td.b{width:170px}
.key{color:var(--soft);font-size:13px;margin:6px 0 0}.key i{display:inline-block;width:11px;height:11px;border-radius:2px;margin:0 4px 0 12px;vertical-align:-1px}
ul{padding-left:20px;color:var(--soft)}
@media print{body{max-width:none}.card,figure{border:1px solid var(--line)}}
`

// page collects the HTML of a report. Every string from outside passes text.
type page struct{ strings.Builder }

func (p *page) f(format string, args ...any) { fmt.Fprintf(&p.Builder, format, args...) }

// text escapes a string from outside.
func text(s string) string { return html.EscapeString(plain(s, 4000)) }

// WriteHTML writes the report as one page that needs nothing else: no script, no
// outside style, font or picture, and a policy that forbids them. All names are
// escaped. It shows light or dark as the reader's system does.
func (r *Report) WriteHTML(w io.Writer) error {
	p := new(page)
	title := r.Title
	if title == "" {
		title = "elbo evaluation"
	}
	p.f("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"+
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"+
		"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"+
		"<title>%s</title>\n<style>%s</style>\n</head>\n<body>\n<h1>%s</h1>\n", text(title), style, text(title))
	p.subtitle(r)
	p.cards(r)
	p.baselines(r)
	p.charts(r)
	p.alerts(r)
	p.strangest(r)
	p.planted(r)
	p.partsTable(r)
	p.kindsTable(r)
	p.columnsTable(r)
	p.latents(r)
	p.training(r)
	p.fit(r)
	p.sizeTable(r)
	if len(r.Notes) > 0 {
		p.f("<h2>Notes</h2>\n<ul>\n")
		for _, n := range r.Notes {
			p.f("<li>%s</li>\n", text(n))
		}
		p.f("</ul>\n")
	}
	p.f("</body>\n</html>\n")
	_, err := io.WriteString(w, p.String())
	return err
}

func (p *page) subtitle(r *Report) {
	var parts []string
	if r.Model != "" {
		parts = append(parts, "model "+text(r.Model))
	}
	if r.Data != "" {
		parts = append(parts, "data "+text(r.Data))
	}
	if n := r.Skipped.NoScore; n > 0 {
		parts = append(parts, thousands(int(n))+" rows without a score skipped")
	}
	if n := r.Skipped.NoLabel; n > 0 {
		parts = append(parts, thousands(int(n))+" rows without a label skipped")
	}
	p.f("<p class=\"sub\">%s</p>\n", strings.Join(parts, " · "))
}

func (p *page) card(name, value, note, class string) {
	p.f("<div class=\"card\"><span>%s</span><b class=\"%s\">%s</b><small>%s</small></div>\n",
		text(name), class, text(value), text(note))
}

func (p *page) cards(r *Report) {
	p.f("<div class=\"cards\">\n")
	note := ""
	if r.Anomalies != nil {
		note = fmt.Sprintf("%s anomalies, %s", thousands(*r.Anomalies), percent(ratio(*r.Anomalies, r.Rows)))
	}
	p.card("rows", thousands(r.Rows), note, "")
	if r.AUROC != nil {
		p.card("AUROC", fmt.Sprintf("%.4f", *r.AUROC), "chance is 0.5", "")
	}
	if r.AP != nil {
		p.card("average precision", fmt.Sprintf("%.4f", *r.AP), fmt.Sprintf("chance is %.4f", ratio(*r.Anomalies, r.Rows)), "")
	}
	if v := r.AtLimit; v != nil {
		p.card("precision / recall", fmt.Sprintf("%.2f / %.2f", v.Precision, v.Recall), fmt.Sprintf("at the limit, F1 %.3f", v.F1), "")
	} else if r.Flagged != nil {
		p.card("flagged", thousands(*r.Flagged), "rows", "")
	}
	if a := r.AlertRate; a != nil {
		class := "good"
		if !a.Kept {
			class = "bad"
		}
		p.card("alert rate", percent(a.Achieved), fmt.Sprintf("promised %s: %s", percent(a.Promised), a.verdict()), class)
	}
	if g := r.Recon; g != nil {
		p.card("recon on unseen rows", short(g.Unseen), fmt.Sprintf("training %s, gap %s nats", short(g.Train), short(g.Difference)), "")
	}
	p.f("</div>\n")
}

func (p *page) charts(r *Report) {
	p.f("<h2>Pictures</h2>\n")
	if len(r.ROC) > 0 && len(r.PR) > 0 {
		p.f("<div class=\"charts\">\n")
		roc, pr := chart{x: "false positive rate", y: "recall", curve: r.ROC, chance: [4]float64{0, 0, 1, 1}},
			chart{x: "recall", y: "precision", curve: r.PR}
		share := ratio(*r.Anomalies, r.Rows)
		pr.chance = [4]float64{0, share, 1, share}
		if v := r.AtLimit; v != nil {
			roc.here = &CurvePoint{v.FalsePositiveRate, v.Recall}
			if v.TruePositives+v.FalsePositives > 0 {
				pr.here = &CurvePoint{v.Recall, v.Precision}
			}
		}
		p.f("<figure><figcaption>ROC curve</figcaption>\n")
		p.curve(roc)
		p.f("</figure>\n<figure><figcaption>Precision and recall</figcaption>\n")
		p.curve(pr)
		p.f("</figure>\n</div>\n")
		p.key("chance, dashed", r.AtLimit != nil)
	}
	if r.Histogram != nil {
		p.f("<figure class=\"wide\"><figcaption>Scores, nats</figcaption>\n<div class=\"scroll\"><div class=\"tall\">\n")
		p.histogram(r.Histogram, r.Limit)
		p.f("</div></div>\n<p class=\"key\">height is the square root of the number of rows, so that few rows show")
		if len(r.Histogram.Anomaly) > 0 {
			p.f("<i style=\"background:var(--normal)\"></i>normal<i style=\"background:var(--anomaly)\"></i>anomaly")
		}
		if r.Limit != nil {
			p.f(" · dashed: limit")
		}
		p.f("</p></figure>\n")
	}
}

func (p *page) key(words string, here bool) {
	p.f("<p class=\"key\">%s", text(words))
	if here {
		p.f("<i style=\"background:var(--anomaly);border-radius:6px\"></i>the alert limit")
	}
	p.f("</p>\n")
}

func (p *page) alerts(r *Report) {
	if r.AtLimit == nil && r.Best == nil {
		return
	}
	p.f("<h2>Alerts</h2>\n")
	rows := [][]string{{"", "limit", "true alerts", "false alerts", "missed", "precision", "recall", "F1", "false alarm rate"}}
	line := func(name string, v *Verdicts) {
		if v != nil {
			rows = append(rows, []string{name, shortOr(v.Limit), thousands(v.TruePositives), thousands(v.FalsePositives),
				thousands(v.FalseNegatives), fmt.Sprintf("%.3f", v.Precision), fmt.Sprintf("%.3f", v.Recall),
				fmt.Sprintf("%.3f", v.F1), percent(v.FalsePositiveRate)})
		}
	}
	line("at the limit", r.AtLimit)
	line("best F1 on these labels", r.Best)
	p.table(rows)
	if a := r.AlertRate; a != nil {
		p.f("<p class=\"key\">%s alerts among %s rows: %s, with %s confidence between %s and %s; promised %s.</p>\n",
			thousands(a.Alerts), thousands(a.Rows), percent(a.Achieved), percent(a.Confidence),
			percent(a.Low), percent(a.High), percent(a.Promised))
	}
}

// table writes cells of text; the first row is the heading.
func (p *page) table(rows [][]string) {
	p.f("<div class=\"scroll\"><table>\n")
	for i, row := range rows {
		tag := "td"
		if i == 0 {
			tag = "th"
		}
		p.f("<tr>")
		for _, cell := range row {
			p.f("<%s>%s</%s>", tag, text(cell), tag)
		}
		p.f("</tr>\n")
	}
	p.f("</table></div>\n")
}

func (p *page) partsTable(r *Report) {
	if len(r.Parts) == 0 {
		return
	}
	rows := [][]string{{"part alone", "mean, nats", "AUROC", "average precision"}}
	for _, part := range r.Parts {
		rows = append(rows, []string{part.Name, short(part.Mean), figure(part.AUROC), figure(part.AP)})
	}
	p.f("<h2>Parts of the score</h2>\n")
	p.table(rows)
}

func (p *page) kindsTable(r *Report) {
	if len(r.Kinds) == 0 {
		return
	}
	rows := [][]string{{"kind", "rows", "flagged", "recall", "AUROC", "average precision", "median score"}}
	for _, k := range r.Kinds {
		flagged := ""
		if k.Flagged != nil {
			flagged = thousands(*k.Flagged)
		}
		rows = append(rows, []string{k.Kind, thousands(k.Rows), flagged, figure(k.Recall), figure(k.AUROC), figure(k.AP), short(k.Median)})
	}
	p.f("<h2>By kind of anomaly</h2>\n")
	p.table(rows)
}

// maxBars is the most columns that the page lists.
const maxBars = 100

func (p *page) columnsTable(r *Report) {
	if len(r.Columns) == 0 {
		return
	}
	labelled := r.Columns[0].Anomaly != nil
	most := 0.0
	for _, c := range r.Columns {
		most = max(most, c.blame())
	}
	p.f("<h2>Mean contribution of each column, nats</h2>\n<div class=\"scroll\"><table>\n<tr><th>column</th><th>all rows</th>")
	if labelled {
		p.f("<th>normal</th><th>anomaly</th>")
	}
	p.f("<th></th></tr>\n")
	for _, c := range r.Columns[:min(maxBars, len(r.Columns))] {
		p.f("<tr><td>%s</td><td>%s</td>", text(c.Name), short(c.Mean))
		hot := ""
		if labelled {
			p.f("<td>%s</td><td>%s</td>", shortOr(c.Normal), shortOr(c.Anomaly))
			hot = " hot"
		}
		share := 0.0
		if most > 0 {
			share = max(c.blame(), 0) / most
		}
		p.f("<td class=\"b\"><span class=\"bar%s\" style=\"background-size:%.1f%% 100%%\"></span></td></tr>\n", hot, 100*share)
	}
	p.f("</table></div>\n")
	if n := len(r.Columns); n > maxBars {
		p.f("<p class=\"key\">the first %d of %d columns</p>\n", maxBars, n)
	}
}

func (p *page) sizeTable(r *Report) {
	s := r.Size
	if s == nil {
		return
	}
	rows := [][]string{{"what it takes", ""}, {"parameters", thousands(int(s.Parameters))}, {"file", bytesText(s.Bytes)},
		{"multiply-adds a row", thousands(int(s.MultiplyAdds))}}
	if s.RowsPerSecond > 0 {
		rows = append(rows, []string{"rows per second, scoring", thousands(int(s.RowsPerSecond))})
	}
	if s.PeakBytes > 0 {
		rows = append(rows, []string{"memory", bytesText(s.PeakBytes)})
	}
	p.f("<h2>Cost</h2>\n")
	p.table(rows)
}
