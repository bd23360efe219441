package eval_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
)

var update = flag.Bool("update", false, "rewrite golden files")

func ptr[T any](v T) *T { return &v }

// input is an evaluation with everything in it; names try to break the page.
func input() eval.Input {
	rng := rand.New(rand.NewPCG(1, 2))
	in := eval.Input{Title: "payments <script>alert(1)</script>", Model: "pay@1f3a", Data: "test/\x1b[2J*.parquet",
		Limit: ptr(60.), Promised: ptr(.01), Skipped: eval.Skipped{NoScore: 3, NoLabel: 1234},
		Gap:  eval.NewGap(20.25, 9000, 21.5, 1000),
		Size: &eval.ModelSize{Parameters: 20000, Bytes: 83210, MultiplyAdds: 19712, RowsPerSecond: 1.25e6, PeakBytes: 64 << 20},
		Columns: []eval.ColumnShare{{Name: "hour", Mean: 1.25, Normal: ptr(1.2), Anomaly: ptr(2.)},
			{Name: `am"ount & 'más' <b>`, Mean: 3.5, Normal: ptr(2.5), Anomaly: ptr(40.)},
			{Name: strings.Repeat("long", 30), Mean: -1, Normal: ptr(-1.), Anomaly: ptr(-.5)}}}
	kinds := []string{"spike", "swap", "broken"}
	for i := range 2000 {
		recon, kl, kind := 20+5*rng.NormFloat64(), 3*rng.ExpFloat64(), ""
		if i%25 == 0 {
			kind = kinds[rng.IntN(3)]
			recon += math.Exp(1 + 3*rng.Float64()*rng.Float64()*2)
		}
		in.Recon, in.KL = append(in.Recon, recon), append(in.KL, kl)
		in.Scores = append(in.Scores, recon+kl)
		in.Labels, in.Kinds = append(in.Labels, kind != ""), append(in.Kinds, kind)
	}
	return in
}

func build(t testing.TB, in eval.Input) *eval.Report {
	t.Helper()
	r, err := eval.Build(in)
	return must(t, r, err)
}

// detailed is a report with everything that is added to a built one.
func detailed(t testing.TB) *eval.Report {
	r := build(t, input())
	odd := `<i>"odd"</i> & more`
	r.Planted = []eval.PlantedFigures{{Kind: eval.Spike, Strength: 3, Rows: 1000, Recall: .5, AUROC: .99, First: .9, Three: .98}, {Kind: eval.Unseen, Note: "no suitable column"}}
	r.Baselines = []eval.BaselineFigures{{Name: "elbo", AUROC: .98, AP: .9, PrecisionAtK: .8, ScoreMicros: 1.5}, {Name: "kNN5", AUROC: .9, AP: .7, PrecisionAtK: .6, FitSeconds: .1, ScoreMicros: 20}, {Name: "PCA95", Note: odd}}
	r.Verdict = eval.Verdict(r.Baselines)
	for i := range 20 {
		r.Curve = append(r.Curve, vae.Point{Step: 75 * (i + 1), Loss: 30 / float64(i+1), Recon: 25 / float64(i+1), KL: 5 / float64(i+1), HeldOut: 31 / float64(i+1)})
	}
	r.Fit = []vae.ColumnFit{{Name: odd, HeldOut: 1.5, SD: .3}, {Name: "flag", HeldOut: .1}}
	r.Strangest = []eval.StrangeRow{{Row: 12345, Score: 99, P: 1e-9, Anomaly: ptr(true), Flagged: true, Top: []eval.Share{{Column: odd, Contribution: 40, Value: odd, Expected: odd, Deviation: ptr(3.)}}}}
	r.Latents = &eval.LatentMap{X: odd, Y: "latent 1", Points: []eval.LatentPoint{{X: 1, Y: -2}, {X: 90, Y: 3, Odd: true, Flagged: true}}}
	return r
}

// golden compares with a file of testdata, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test ./vae/eval -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

func TestReportText(t *testing.T) {
	for _, width := range []int{40, 80, 120} {
		var b bytes.Buffer
		if err := build(t, input()).WriteText(&b, eval.TextOptions{Width: width}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(b.String(), "\x1b\r\x07") {
			t.Errorf("width %d: plain text holds control characters", width)
		}
		if width == 80 {
			golden(t, "report.txt", b.Bytes())
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(line) - 1; n > width && width >= 80 && !strings.HasPrefix(line, "note:") {
				t.Errorf("width %d: line has %d columns: %s", width, n, line)
			}
		}
	}
	var b bytes.Buffer
	if err := build(t, input()).WriteText(&b, eval.TextOptions{Color: true, NoPlot: true}); err != nil {
		t.Fatal(err)
	}
	if s := b.String(); !strings.Contains(s, "\x1b[1m") || strings.Contains(s, "[2J*") && strings.Contains(s, "\x1b[2J") || strings.Contains(s, "█ ") {
		t.Errorf("coloured text without a plot: %q", s)
	}
}

func TestReportJSON(t *testing.T) {
	r := build(t, input())
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back eval.Report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*r, back); diff != "" {
		t.Errorf("report after JSON (-want +got):\n%s", diff)
	}
	var names []string
	tags(reflect.TypeFor[eval.Report](), "", &names)
	golden(t, "names.txt", []byte(strings.Join(names, "\n")+"\n"))
}

// tags lists the JSON names of a type: what scripts rely on.
func tags(typ reflect.Type, at string, out *[]string) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		*out = append(*out, strings.TrimSuffix(at, "."))
		return
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous {
			tags(f.Type, at, out)
			continue
		}
		tags(f.Type, at+name+".", out)
	}
}

func TestReportFigures(t *testing.T) {
	in := input()
	r := build(t, in)
	auroc, err := eval.AUROC(in.Scores, in.Labels)
	if *r.AUROC != must(t, auroc, err) {
		t.Errorf("AUROC = %v, want %v", *r.AUROC, auroc)
	}
	rows, flagged := 0, 0
	for _, k := range r.Kinds {
		rows, flagged = rows+k.Rows, flagged+*k.Flagged
	}
	if rows != *r.Anomalies || flagged != r.AtLimit.TruePositives {
		t.Errorf("kinds add up to %d rows, %d flagged, want %d and %d", rows, flagged, *r.Anomalies, r.AtLimit.TruePositives)
	}
	if r.AtLimit.Rows() != r.Rows || *r.Flagged != r.AtLimit.Alerts() || r.AlertRate.Alerts != r.AtLimit.FalsePositives {
		t.Errorf("counts disagree: %+v, flagged %d, %+v", r.AtLimit, *r.Flagged, r.AlertRate)
	}
	if !strings.HasPrefix(r.Columns[0].Name, "am") || r.Recon.Difference != 1.25 {
		t.Errorf("first column %q, gap %g; want the most blamed one and 1.25", r.Columns[0].Name, r.Recon.Difference)
	}
	sum := 0
	for i := range r.Histogram.Normal {
		sum += r.Histogram.Normal[i] + r.Histogram.Anomaly[i]
	}
	if sum != r.Rows {
		t.Errorf("histogram holds %d rows, want %d", sum, r.Rows)
	}
}

func TestReportWithLittle(t *testing.T) {
	inf := math.Inf(1)
	for name, c := range map[string]struct {
		in   eval.Input
		note string
	}{
		"scores only":  {eval.Input{Scores: []float64{1, 2, 3}}, "no labels"},
		"one row":      {eval.Input{Scores: []float64{7}, Labels: []bool{true}, Limit: ptr(1.), Promised: ptr(.1)}, "no normal row"},
		"one class":    {eval.Input{Scores: []float64{1, 2}, Labels: []bool{false, false}, Limit: ptr(5.), Promised: ptr(0.)}, "one class"},
		"infinite":     {eval.Input{Scores: []float64{-inf, inf, 2}, Labels: []bool{false, true, false}, Recon: []float64{inf, 1, 2}}, "infinite"},
		"NaN in recon": {eval.Input{Scores: []float64{1, 2}, Labels: []bool{false, true}, Recon: []float64{math.NaN(), 1}}, "recon"},
		"verdicts":     {eval.Input{Scores: []float64{1, 2}, Flagged: []bool{true, false}, Limit: ptr(9.), Promised: ptr(.5)}, "all rows"},
	} {
		t.Run(name, func(t *testing.T) {
			r := build(t, c.in)
			b, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, c.note) {
				t.Errorf("notes = %q, want %q among them", notes, c.note)
			}
			if err := errorsOf(r); err != nil {
				t.Errorf("%s: %v", b, err)
			}
		})
	}
	_, err := eval.Build(eval.Input{Scores: []float64{1, math.NaN()}, Labels: []bool{true}, KL: []float64{1}, Limit: ptr(math.NaN())})
	for _, want := range []string{"labels: 1 rows", "kl: 1 rows", "limit: NaN is not", "row 1: score is NaN"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Build of nonsense: %v, want it to say %q", err, want)
		}
	}
}

// errorsOf draws a report in every form.
func errorsOf(r *eval.Report) error {
	if err := r.WriteText(io.Discard, eval.TextOptions{}); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		return err
	}
	if s := b.String(); strings.Contains(s, "NaN") || strings.Contains(s, "%!") {
		return fmt.Errorf("page holds NaN or a bad verb: %s", s)
	}
	return nil
}

func TestReportHTML(t *testing.T) {
	var b bytes.Buffer
	if err := detailed(t).WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, bad := range []string{"<script", "http://", "https://", "src=", "<b>", "\x1b", "NaN", "%!", "@import", "url("} {
		if strings.Contains(page, bad) {
			t.Errorf("page holds %q", bad)
		}
	}
	for _, want := range []string{"&lt;script&gt;", "am&#34;ount &amp; &#39;más&#39; &lt;b&gt;", "Strangest rows", "Where the model puts the rows", "How well each column", "Against other detectors", "spike of 3 sd", "held-out negative ELBO",
		"prefers-color-scheme", "ROC curve", "default-src 'none'"} {
		if !strings.Contains(page, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	body := strings.TrimSuffix(page[strings.Index(page, "<body>"):], "</html>\n")
	// The body is XML too: every tag is closed, every name escaped.
	for d := xml.NewDecoder(strings.NewReader(body)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("body: %v", err)
		}
	}
	if path := os.Getenv("ELBO_REPORT_HTML"); path != "" { // to look at it in a browser
		if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}
