package eval

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// TextOptions say how WriteText draws.
type TextOptions struct {
	Width  int  // columns of the terminal; 0 means 80, less than 40 counts as 40
	Color  bool // mark headings and broken promises with ANSI colours
	NoPlot bool // leave the histogram out
}

// textWriter collects aligned blocks of a report.
type textWriter struct {
	strings.Builder
	o TextOptions
}

// WriteText writes the report for a terminal: aligned columns, plain text unless
// o.Color is set. Column and kind names are cut to fit and stripped of control
// characters, so that a name cannot move the cursor.
func (r *Report) WriteText(w io.Writer, o TextOptions) error {
	if o.Width == 0 {
		o.Width = 80
	}
	o.Width = max(o.Width, 40)
	t := &textWriter{o: o}
	t.summary(r)
	t.verdicts(r)
	t.parts(r)
	t.kinds(r)
	t.columns(r)
	t.planted(r)
	t.baselines(r)
	if r.Histogram != nil && !o.NoPlot {
		t.heading("scores, nats" + legend(r))
		if err := r.Histogram.WriteText(t, o.Width, r.Limit); err != nil {
			return err
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(t, "\nnote: %s", plain(n, 1000))
	}
	if len(r.Notes) > 0 {
		t.WriteByte('\n')
	}
	_, err := io.WriteString(w, t.String())
	return err
}

func legend(r *Report) string {
	if r.Anomalies == nil {
		return ""
	}
	return " (█ normal ▒ anomaly)"
}

func (t *textWriter) heading(s string) {
	if t.Len() > 0 {
		t.WriteByte('\n')
	}
	if t.o.Color {
		s = "\x1b[1m" + s + "\x1b[0m"
	}
	t.WriteString(s + "\n")
}

// fact writes one aligned line; an absent value writes nothing.
func (t *textWriter) fact(name, value string) {
	if value != "" {
		fmt.Fprintf(t, "  %-20s %s\n", name, value)
	}
}

func (t *textWriter) summary(r *Report) {
	title := r.Title
	if title == "" {
		title = "evaluation"
	}
	t.heading(plain(title, t.o.Width))
	t.fact("model", plain(r.Model, t.o.Width-23))
	t.fact("data", plain(r.Data, t.o.Width-23))
	rows := thousands(r.Rows)
	if r.Anomalies != nil {
		rows += fmt.Sprintf(", %s anomalies", thousands(*r.Anomalies))
	}
	t.fact("rows", rows)
	if n := r.Skipped.NoScore + r.Skipped.NoLabel; n > 0 {
		t.fact("not judged", fmt.Sprintf("%s without a score, %s without a label",
			thousands(int(r.Skipped.NoScore)), thousands(int(r.Skipped.NoLabel))))
	}
	t.fact("AUROC", figure(r.AUROC))
	t.fact("average precision", figure(r.AP))
	t.fact("precision at k", figure(r.PrecisionAtK))
	if g := r.Recon; g != nil {
		t.fact("recon, training", fmt.Sprintf("%s nats (%s rows)", short(g.Train), thousands(int(g.TrainRows))))
		t.fact("recon, unseen", fmt.Sprintf("%s nats (%s rows), gap %s",
			short(g.Unseen), thousands(int(g.UnseenRows)), short(g.Difference)))
	}
	if s := r.Size; s != nil {
		t.fact("model size", fmt.Sprintf("%s parameters, %s", thousands(int(s.Parameters)), bytesText(s.Bytes)))
		t.fact("cost", thousands(int(s.MultiplyAdds))+" multiply-adds a row")
		t.fact("scoring", speedText(s))
	}
}

func speedText(s *ModelSize) string {
	var parts []string
	if s.RowsPerSecond > 0 {
		parts = append(parts, thousands(int(s.RowsPerSecond))+" rows/s")
	}
	if s.PeakBytes > 0 {
		parts = append(parts, bytesText(s.PeakBytes)+" memory")
	}
	return strings.Join(parts, ", ")
}

func (t *textWriter) verdicts(r *Report) {
	if r.Flagged == nil && r.Best == nil {
		return
	}
	t.heading("alerts")
	if r.Limit != nil {
		t.fact("limit", short(*r.Limit)+" nats")
	}
	if r.Flagged != nil {
		t.fact("flagged", fmt.Sprintf("%s of %s rows", thousands(*r.Flagged), thousands(r.Rows)))
	}
	if v := r.AtLimit; v != nil {
		t.fact("precision", fmt.Sprintf("%.3f", v.Precision))
		t.fact("recall", fmt.Sprintf("%.3f", v.Recall))
		t.fact("F1", fmt.Sprintf("%.3f", v.F1))
	}
	if a := r.AlertRate; a != nil {
		verdict := a.verdict()
		if !a.Kept && t.o.Color {
			verdict = "\x1b[31m" + verdict + "\x1b[0m"
		}
		t.fact("alert rate", fmt.Sprintf("%s, promised %s: %s", percent(a.Achieved), percent(a.Promised), verdict))
		t.fact("", fmt.Sprintf("%s interval %s to %s", percent(a.Confidence), percent(a.Low), percent(a.High)))
	}
	if b := r.Best; b != nil {
		t.fact("best F1 possible", fmt.Sprintf("%.3f at limit %s", b.F1, short(*b.Limit)))
	}
}

func (t *textWriter) parts(r *Report) {
	if len(r.Parts) == 0 {
		return
	}
	rows := [][]string{{"part", "mean", "AUROC", "AP"}}
	for _, p := range r.Parts {
		rows = append(rows, []string{p.Name, short(p.Mean), figure(p.AUROC), figure(p.AP)})
	}
	t.table("parts of the score alone", rows)
}

func (t *textWriter) kinds(r *Report) {
	if len(r.Kinds) == 0 {
		return
	}
	rows := [][]string{{"kind", "rows", "flagged", "recall", "AUROC", "AP", "median"}}
	for _, k := range r.Kinds {
		flagged := ""
		if k.Flagged != nil {
			flagged = thousands(*k.Flagged)
		}
		rows = append(rows, []string{k.Kind, thousands(k.Rows), flagged, figure(k.Recall),
			figure(k.AUROC), figure(k.AP), short(k.Median)})
	}
	t.table("by kind of anomaly", rows)
}

// maxColumns is the most columns that the terminal table shows.
const maxColumns = 15

func (t *textWriter) columns(r *Report) {
	if len(r.Columns) == 0 {
		return
	}
	head := "mean contribution to the score, nats"
	if len(r.Columns) > maxColumns {
		head += fmt.Sprintf(" (first %d of %d columns)", maxColumns, len(r.Columns))
	}
	labelled := r.Columns[0].Anomaly != nil || r.Columns[0].Normal != nil
	rows := [][]string{{"column", "all"}}
	if labelled {
		rows[0] = append(rows[0], "normal", "anomaly")
	}
	for _, c := range r.Columns[:min(maxColumns, len(r.Columns))] {
		row := []string{c.Name, short(c.Mean)}
		if labelled {
			row = append(row, shortOr(c.Normal), shortOr(c.Anomaly))
		}
		rows = append(rows, row)
	}
	t.table(head, rows)
}

// table writes a heading and rows whose first column is left-aligned and whose
// others are right-aligned.
func (t *textWriter) table(head string, rows [][]string) {
	t.heading(head)
	widths := make([]int, len(rows[0]))
	first := max(10, t.o.Width-2-10*(len(widths)-1))
	for _, row := range rows {
		row[0] = plain(row[0], min(first, 32))
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := "  " + row[0] + strings.Repeat(" ", widths[0]-utf8.RuneCountInString(row[0]))
		for i, cell := range row[1:] {
			line += "  " + strings.Repeat(" ", widths[i+1]-utf8.RuneCountInString(cell)) + cell
		}
		t.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// plain cuts s to n runes and replaces what is not printable.
func plain(s string, n int) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 ||
			(c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) {
			return '?'
		}
		return c
	}, s)
	if runes := []rune(s); len(runes) > n {
		return string(runes[:max(n-1, 0)]) + "…"
	}
	return s
}

func figure(x *float64) string {
	if x == nil {
		return ""
	}
	return fmt.Sprintf("%.4f", *x)
}

func shortOr(x *float64) string {
	if x == nil {
		return ""
	}
	return short(*x)
}

func percent(x float64) string {
	switch {
	case x == 0:
		return "0%"
	case x < .001:
		return fmt.Sprintf("%.4f%%", 100*x)
	}
	return fmt.Sprintf("%.4g%%", 100*x)
}

// bytesText writes a size with its binary unit.
func bytesText(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
