package eval

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/elbo-stream/elbo/vae"
)

// A StrangeRow is one of the rows with the highest scores.
type StrangeRow struct {
	Row     int64   `json:"row"` // its place in the data, from 0
	Score   float64 `json:"score"`
	P       float64 `json:"p"`
	Anomaly *bool   `json:"anomaly,omitempty"` // its label; absent without labels
	Flagged bool    `json:"flagged"`
	Top     []Share `json:"top"`
}

// A Share is what one column or latent adds to a score.
type Share struct {
	Column       string   `json:"column"`
	Contribution float64  `json:"contribution"` // nats
	Value        string   `json:"value"`
	Expected     string   `json:"expected"`
	Deviation    *float64 `json:"deviation,omitempty"` // in the column's own units
}

// Shares turns what a Scorer blames into shares.
func Shares(blames []vae.Blame) []Share {
	out := make([]Share, len(blames))
	for i, b := range blames {
		out[i] = Share{b.Column, float64(b.Contribution), b.Value, b.Expected, nil}
		if !math.IsNaN(b.Deviation) {
			d := b.Deviation
			out[i].Deviation = &d
		}
	}
	return out
}

// A LatentMap shows rows where the autoencoder puts them: along the two latents
// that cost most.
type LatentMap struct {
	X      string        `json:"x"` // what the axes are
	Y      string        `json:"y"`
	Points []LatentPoint `json:"points"`
}

// A LatentPoint is one row: the posterior's mean in two latents.
type LatentPoint struct {
	X       float64 `json:"x"`
	Y       float64 `json:"y"`
	Odd     bool    `json:"odd"` // labelled as an anomaly, or flagged where there are no labels
	Flagged bool    `json:"flagged"`
}

// PlantedFigures say how well one kind of planted anomaly is caught.
type PlantedFigures struct {
	Kind     string  `json:"kind"`
	Strength float64 `json:"strength,omitempty"` // standard deviations of a spike, factor of a scale
	Rows     int     `json:"rows"`
	Recall   float64 `json:"recall"` // share of them above the limit
	AUROC    float64 `json:"auroc"`  // against the rows as they were
	First    float64 `json:"first"`  // how often a column that was changed is blamed first
	Three    float64 `json:"three"`  // how often one is among the first three
	Note     string  `json:"note,omitempty"`
}

// BaselineFigures hold one detector against the model, on the same rows.
type BaselineFigures struct {
	Name         string  `json:"name"`
	AUROC        float64 `json:"auroc"`
	GapError     float64 `json:"gap_error"` // standard error of the difference of AUROC to the model's; 0 means not known
	AP           float64 `json:"ap"`
	PrecisionAtK float64 `json:"precision_at_k"`
	FitSeconds   float64 `json:"fit_seconds"`    // CPU, 0 for the model, which is fitted already
	ScoreMicros  float64 `json:"score_micros"`   // CPU per row
	Note         string  `json:"note,omitempty"` // why there are no figures
}

// MarshalJSON writes null for figures that Note says there are none of.
func (f BaselineFigures) MarshalJSON() ([]byte, error) {
	type plain BaselineFigures
	if f.Note == "" {
		return json.Marshal(plain(f))
	}
	return json.Marshal(struct {
		plain
		AUROC        *float64 `json:"auroc"`
		GapError     *float64 `json:"gap_error"`
		AP           *float64 `json:"ap"`
		PrecisionAtK *float64 `json:"precision_at_k"`
		FitSeconds   *float64 `json:"fit_seconds"`
		ScoreMicros  *float64 `json:"score_micros"`
	}{plain: plain(f)})
}

// Differences that a verdict takes for a tie, in points (hundredths).
const (
	tieAUROC = 0.5
	tieAP    = 2
)

// Verdict says in one line whether the model, the first of the figures, earns its
// cost against the best of the others by AUROC. A difference of less than two
// standard errors is chance. Where there is next to none, as when both find nearly
// everything, the best by AP decides.
func Verdict(f []BaselineFigures) string {
	auroc := func(f BaselineFigures) float64 { return f.AUROC }
	ap := func(f BaselineFigures) float64 { return f.AP }
	b := bestBaseline(f, auroc)
	if b == nil {
		return ""
	}
	first, gap, give := f[0], 100*(f[0].AUROC-b.AUROC), ""
	if b.GapError > 0 {
		give = fmt.Sprintf(", give or take %.1f", 100*b.GapError)
	}
	word := "AUROC"
	of, tie := auroc, float64(tieAUROC)
	if c := bestBaseline(f, ap); math.Abs(gap) <= tieAUROC && math.Abs(first.AP-c.AP)*100 > tieAP {
		word = fmt.Sprintf("AUROC %.3f ties with that of %s, AP", first.AUROC, b.Name)
		b, gap, of, tie, give = c, 100*(first.AP-c.AP), ap, tieAP, ""
	}
	figures := fmt.Sprintf("%s %.3f, best baseline %s %.3f (%+.1f points%s)%s", word, of(first), b.Name, of(*b), gap, give, speed(b.ScoreMicros/first.ScoreMicros))
	switch {
	case math.Abs(gap) > tie && give != "" && math.Abs(gap) < 200*b.GapError:
		return "too close to call: " + figures
	case gap > tie:
		return "the model earns its cost: " + figures
	case gap >= -tie:
		return "no better than a baseline here: " + figures
	}
	return b.Name + " does better here: " + figures
}

// bestBaseline returns the best of the others that have figures, nil without one.
func bestBaseline(f []BaselineFigures, by func(BaselineFigures) float64) (best *BaselineFigures) {
	for i := 1; i < len(f); i++ {
		if f[i].Note == "" && (best == nil || by(f[i]) > by(*best)) {
			best = &f[i]
		}
	}
	return best
}

// speed says how fast the model scores, from the CPU that a baseline takes in
// relation to it; nothing when that was not measured.
func speed(ratio float64) string {
	word := "faster"
	switch {
	case !(ratio > 0) || bad(ratio):
		return ""
	case math.Abs(ratio-1) < 0.05:
		return ", scores as fast"
	case ratio < 1:
		ratio, word = 1/ratio, "slower"
	}
	if ratio < 10 {
		return fmt.Sprintf(", scores %.1fx %s", ratio, word)
	}
	return fmt.Sprintf(", scores %.0fx %s", ratio, word)
}

// PrecisionAtK is the share of anomalies among the k highest scores, k being the
// number of anomalies. Of equal scores at the edge the share counts that may be
// expected.
func PrecisionAtK[S Float](scores []S, labels []bool) (float64, error) {
	if err := check(scores, labels); err != nil {
		return 0, fmt.Errorf("precision at k: %w", err)
	}
	k := countTrue(labels)
	if k == 0 {
		return 0, fmt.Errorf("precision at k: %w", ErrOneClass)
	}
	sorted := slices.Clone(scores)
	slices.Sort(sorted)
	edge := sorted[len(sorted)-k]
	above, hits, ties, tied := 0, 0.0, 0.0, 0.0
	for i, s := range scores {
		switch {
		case s > edge:
			above++
			hits += float64(b2i(labels[i]))
		case s == edge:
			ties++
			tied += float64(b2i(labels[i]))
		}
	}
	return (hits + float64(k-above)*tied/ties) / float64(k), nil
}
