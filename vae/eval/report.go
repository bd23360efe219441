package eval

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/elbo-stream/elbo/vae"
)

// Format is the version of a Report's JSON. It rises when a field changes its
// meaning or goes away; a new field does not raise it.
const Format = 1

// Report is what an evaluation found. Field names in JSON are stable; a figure
// that could not be computed is null, and Notes says why.
type Report struct {
	Format int    `json:"format"`
	Title  string `json:"title,omitempty"`
	Model  string `json:"model,omitempty"` // name@digest
	Data   string `json:"data,omitempty"`  // what was judged, as the user named it

	Rows      int     `json:"rows"`      // rows judged
	Anomalies *int    `json:"anomalies"` // rows labelled as anomalies; null without labels
	Skipped   Skipped `json:"skipped"`

	AUROC *float64 `json:"auroc"`
	AP    *float64 `json:"ap"`
	// PrecisionAtK is the share of anomalies among as many of the highest scores as
	// there are anomalies.
	PrecisionAtK *float64 `json:"precision_at_k,omitempty"`
	Parts        []Part   `json:"parts,omitempty"` // the same figures for reconstruction error and KL alone

	Limit     *float64   `json:"limit"` // in the unit of the score; null when verdicts came from elsewhere
	Flagged   *int       `json:"flagged"`
	AtLimit   *Verdicts  `json:"at_limit"` // needs labels and verdicts
	Best      *Verdicts  `json:"best_f1"`  // the best F1 that any limit reaches on these rows
	AlertRate *AlertRate `json:"alert_rate"`

	Recon   *Gap            `json:"recon"`
	Columns []ColumnShare   `json:"columns,omitempty"`
	Size    *ModelSize      `json:"model_size"`
	Kinds   []KindFigures   `json:"kinds,omitempty"`
	Quants  []QuantileValue `json:"score_quantiles"`

	Histogram *Histogram   `json:"histogram"`
	ROC       []CurvePoint `json:"roc,omitempty"` // thinned to CurvePoints
	PR        []CurvePoint `json:"pr,omitempty"`
	Notes     []string     `json:"notes,omitempty"` // what is missing from the report, and why

	Planted   []PlantedFigures  `json:"planted,omitempty"`
	Baselines []BaselineFigures `json:"baselines,omitempty"` // the model first
	Verdict   string            `json:"verdict,omitempty"`
	Curve     []vae.Point       `json:"curve,omitempty"` // of the training
	Fit       []vae.ColumnFit   `json:"fit,omitempty"`
	Strangest []StrangeRow      `json:"strangest,omitempty"`
	Latents   *LatentMap        `json:"latents,omitempty"`
}

// CurvePoints is the most points that a curve of a Report has.
const CurvePoints = 400

// Skipped counts rows that were not judged, by reason.
type Skipped struct {
	NoScore int64 `json:"no_score"` // null or NaN
	NoLabel int64 `json:"no_label"`
}

// Part holds the ranking figures of one part of the score.
type Part struct {
	Name  string   `json:"name"`
	AUROC *float64 `json:"auroc"`
	AP    *float64 `json:"ap"`
	Mean  float64  `json:"mean"` // nats
}

// Verdicts holds the counts at one limit and what follows from them.
type Verdicts struct {
	Limit *float64 `json:"limit"`
	Confusion
	Precision         float64 `json:"precision"`
	Recall            float64 `json:"recall"`
	F1                float64 `json:"f1"`
	FalsePositiveRate float64 `json:"false_positive_rate"`
}

func verdicts(limit *float64, c Confusion) *Verdicts {
	return &Verdicts{limit, c, c.Precision(), c.Recall(), c.F1(), c.FalsePositiveRate()}
}

// Gap sets the mean reconstruction error of the training rows beside that of
// unseen normal rows, both in nats per row. A large Difference means that the
// model has learned its rows by heart.
type Gap struct {
	Train      float64 `json:"train"`
	Unseen     float64 `json:"unseen"`
	Difference float64 `json:"difference"` // Unseen - Train
	TrainRows  int64   `json:"train_rows"`
	UnseenRows int64   `json:"unseen_rows"`
}

// NewGap fills in the difference.
func NewGap(train float64, trainRows int64, unseen float64, unseenRows int64) *Gap {
	return &Gap{train, unseen, unseen - train, trainRows, unseenRows}
}

// ColumnShare is a column's mean contribution to the score, in nats per row.
type ColumnShare struct {
	Name    string   `json:"name"`
	Mean    float64  `json:"mean"`    // over all rows
	Normal  *float64 `json:"normal"`  // over rows labelled normal
	Anomaly *float64 `json:"anomaly"` // over rows labelled as anomalies
}

// ModelSize says what the model costs.
type ModelSize struct {
	Parameters    int64   `json:"parameters"`
	Bytes         int64   `json:"bytes"`                // the model file
	MultiplyAdds  int64   `json:"multiply_adds"`        // per row
	RowsPerSecond float64 `json:"rows_per_second"`      // measured while scoring; 0 means not measured
	PeakBytes     int64   `json:"peak_bytes,omitempty"` // memory of the process; 0 means not measured
}

// KindFigures holds the figures of one kind of row, ranked against the normal rows.
type KindFigures struct {
	Kind    string   `json:"kind"`
	Rows    int      `json:"rows"`
	Flagged *int     `json:"flagged"`
	Recall  *float64 `json:"recall"`
	AUROC   *float64 `json:"auroc"`
	AP      *float64 `json:"ap"`
	Median  float64  `json:"median_score"`
}

// QuantileValue is a score and the share of rows below it.
type QuantileValue struct {
	Share float64 `json:"share"`
	Score float64 `json:"score"`
}

// Input is what Build looks at; it borrows all of it. Only Scores is needed.
// Slices that are not nil have one element for each score. A model with two
// members may leave Recon and KL out.
type Input struct {
	Title, Model, Data string

	Scores    []float64
	Recon, KL []float64
	Labels    []bool   // true is an anomaly; nil without labels
	Kinds     []string // kind of anomaly, "" for normal rows; nil without kinds
	Skipped   Skipped

	Limit    *float64 // flags scores above it
	Flagged  []bool   // verdicts from elsewhere; they win over Limit
	Promised *float64 // promised share of flagged normal rows; nil means no promise

	Gap     *Gap
	Columns []ColumnShare
	Size    *ModelSize
	Bins    int // of the histogram; 0 means 20
}

func (in *Input) validate() error {
	var errs []error
	lengths := func(name string, n int, absent bool) {
		if !absent && n != len(in.Scores) {
			errs = append(errs, fmt.Errorf("%s: %d rows, but %d scores", name, n, len(in.Scores)))
		}
	}
	lengths("recon", len(in.Recon), in.Recon == nil)
	lengths("kl", len(in.KL), in.KL == nil)
	lengths("labels", len(in.Labels), in.Labels == nil)
	lengths("kinds", len(in.Kinds), in.Kinds == nil)
	lengths("flagged", len(in.Flagged), in.Flagged == nil)
	if in.Limit != nil && bad(*in.Limit) {
		errs = append(errs, fmt.Errorf("limit: %g is not a finite number", *in.Limit))
	}
	if err := checkScores(in.Scores); err != nil {
		errs = append(errs, fmt.Errorf("scores: %w", err))
	}
	return errors.Join(errs...)
}

// Build computes a report. Labels of one class only are no error here: the
// figures that need both stay null and a note says so. It fails for a NaN score,
// no rows at all, or slices of different lengths, naming everything wrong.
func Build(in Input) (*Report, error) {
	if err := in.validate(); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	r := &Report{Format: Format, Title: in.Title, Model: in.Model, Data: in.Data, Rows: len(in.Scores),
		Skipped: in.Skipped, Limit: in.Limit, Recon: in.Gap, Size: in.Size}
	r.Columns = slices.Clone(in.Columns)
	slices.SortStableFunc(r.Columns, func(a, b ColumnShare) int { return compareDown(a.blame(), b.blame()) })
	flagged := in.Flagged
	if flagged == nil && in.Limit != nil {
		flagged = Flag(in.Scores, *in.Limit)
	} else if flagged != nil {
		r.Limit = nil
	}
	if err := r.spread(in); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if in.Labels == nil {
		r.note("no labels: AUROC, average precision and figures at the limit need them")
	} else {
		r.rank(in)
	}
	if flagged == nil {
		r.note("no limit: alerts were not counted")
	} else if err := r.judge(in, flagged); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	r.kinds(in, flagged)
	return r, nil
}

func (r *Report) note(s string) { r.Notes = append(r.Notes, s) }

// blame is what columns are sorted by.
func (c ColumnShare) blame() float64 {
	if c.Anomaly != nil {
		return *c.Anomaly
	}
	return c.Mean
}

func compareDown(a, b float64) int {
	switch {
	case a > b:
		return -1
	case a < b:
		return 1
	}
	return 0
}

// spread fills what needs scores alone.
func (r *Report) spread(in Input) error {
	h, err := NewHistogram(in.Scores, in.Labels, in.Bins)
	if err != nil {
		return err
	}
	r.Histogram = h
	shares := []float64{0, .5, .9, .99, .999, 1}
	values, err := Quantiles(in.Scores, shares...)
	if err != nil {
		return err
	}
	for i, v := range values {
		if math.IsInf(v, 0) { // JSON has no infinity
			r.note(fmt.Sprintf("the %g quantile of the score is infinite", shares[i]))
			continue
		}
		r.Quants = append(r.Quants, QuantileValue{shares[i], v})
	}
	for _, part := range []struct {
		name   string
		values []float64
	}{{"recon", in.Recon}, {"kl", in.KL}} {
		if part.values == nil {
			continue
		}
		p := Part{Name: part.name, Mean: mean(part.values)}
		if bad(p.Mean) {
			r.note(part.name + " holds values that are not finite; it is left out")
			continue
		}
		if in.Labels != nil {
			p.AUROC, p.AP = r.pair(part.name, part.values, in.Labels)
		}
		r.Parts = append(r.Parts, p)
	}
	return nil
}

func bad(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }

func mean(values []float64) float64 {
	var sum float64
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// pair computes both ranking figures; without two classes it returns nil twice,
// and rank has written the note.
func (r *Report) pair(name string, scores []float64, labels []bool) (auroc, ap *float64) {
	a, err := AUROC(scores, labels)
	if err != nil {
		if !errors.Is(err, ErrOneClass) {
			r.note(fmt.Sprintf("%s: %v", name, err))
		}
		return nil, nil
	}
	p, err := AveragePrecision(scores, labels)
	if err != nil {
		return &a, nil
	}
	return &a, &p
}

// rank fills what compares anomalies with normal rows.
func (r *Report) rank(in Input) {
	n := countTrue(in.Labels)
	r.Anomalies = &n
	roc, pr, err := Curves(in.Scores, in.Labels)
	if err != nil {
		r.note(err.Error())
		return
	}
	r.AUROC, r.AP = r.pair("score", in.Scores, in.Labels)
	if k, err := PrecisionAtK(in.Scores, in.Labels); err == nil {
		r.PrecisionAtK = &k
	}
	r.ROC, r.PR = thin(roc, CurvePoints), thin(pr, CurvePoints)
	if limit, c, err := BestF1(in.Scores, in.Labels); err == nil {
		r.Best = verdicts(&limit, c)
	}
}

// judge fills what needs verdicts. The promise is about false alarms, so with
// labels it is held against the normal rows alone.
func (r *Report) judge(in Input, flagged []bool) error {
	alerts, rows, of := countTrue(flagged), len(flagged), alertsOf(in)
	all := alerts // alerts may come to mean those among normal rows
	r.Flagged = &all
	if in.Labels != nil {
		c, err := Count(flagged, in.Labels)
		if err != nil {
			return err
		}
		r.AtLimit = verdicts(r.Limit, c)
		alerts, rows = c.FalsePositives, c.FalsePositives+c.TrueNegatives
	}
	if in.Promised == nil {
		return nil
	}
	if rows == 0 {
		r.note("no normal row: the alert rate was not judged")
		return nil
	}
	rate, err := Rate(alerts, rows, *in.Promised, .95)
	if err != nil {
		return err
	}
	r.AlertRate = &rate
	r.note("alert rate counts alerts among " + of)
	return nil
}

func alertsOf(in Input) string {
	if in.Labels != nil {
		return "rows labelled normal"
	}
	return "all rows, for want of labels"
}

// kinds fills the table by kind of anomaly.
func (r *Report) kinds(in Input, flagged []bool) {
	rows := map[string][]int{}
	var normal, names = []int{}, []string{}
	for i, k := range in.Kinds {
		if k == "" || (in.Labels != nil && !in.Labels[i]) {
			normal = append(normal, i)
			continue
		}
		if rows[k] == nil {
			names = append(names, k)
		}
		rows[k] = append(rows[k], i)
	}
	slices.Sort(names)
	for _, name := range names {
		f := KindFigures{Kind: name, Rows: len(rows[name])}
		scores, labels := make([]float64, 0, len(normal)+f.Rows), make([]bool, len(normal)+f.Rows)
		hits := 0
		for i, row := range append(slices.Clone(rows[name]), normal...) {
			scores = append(scores, in.Scores[row])
			labels[i] = i < f.Rows
			if i < f.Rows && flagged != nil && flagged[row] {
				hits++
			}
		}
		if flagged != nil {
			recall := ratio(hits, f.Rows)
			f.Flagged, f.Recall = &hits, &recall
		}
		f.AUROC, f.AP = r.pair("kind "+name, scores, labels)
		if q, err := Quantiles(scores[:f.Rows], .5); err == nil && !bad(q[0]) {
			f.Median = q[0]
		}
		r.Kinds = append(r.Kinds, f)
	}
}

// thin keeps at most n points of a curve: its ends, and points evenly spaced
// along its length, so that corners stay.
func thin(curve []CurvePoint, n int) []CurvePoint {
	if len(curve) <= n {
		return curve
	}
	dist := func(i int) float64 {
		return math.Abs(curve[i].X-curve[i-1].X) + math.Abs(curve[i].Y-curve[i-1].Y)
	}
	var total, walked float64
	for i := 1; i < len(curve); i++ {
		total += dist(i)
	}
	out := []CurvePoint{curve[0]}
	for i := 1; i < len(curve)-1; i++ {
		walked += dist(i)
		if walked >= total*float64(len(out))/float64(n-1) && len(out) < n-1 {
			out = append(out, curve[i])
		}
	}
	return append(out, curve[len(curve)-1])
}
