package compress

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
)

// Limits of the gate: what a compressed model must keep of its parent.
const (
	// MinSpearman is the lowest rank correlation of the scores.
	MinSpearman = 0.999
	// MaxChanged is the largest share of rows of which the alert changes; of a few rows
	// one may.
	MaxChanged = 0.001
	// MaxAUROCLoss is how much AUROC may fall on labelled rows.
	MaxAUROCLoss = 0.002
)

// Rules are the limits that a compressed model must keep.
type Rules struct {
	Spearman float64 // lowest rank correlation; 0 means MinSpearman
	Changed  float64 // largest share of changed alerts; 0 means MaxChanged
	AUROC    float64 // largest loss; 0 means MaxAUROCLoss
}

func (r Rules) withDefaults() Rules {
	set := func(v *float64, to float64) {
		if *v == 0 {
			*v = to
		}
	}
	set(&r.Spearman, MinSpearman)
	set(&r.Changed, MaxChanged)
	set(&r.AUROC, MaxAUROCLoss)
	return r
}

// Rows are what a gate judges by.
type Rows struct {
	HeldOut arrow.Record // rows that neither model was fitted to
	// Labelled rows, and the label of each of them, true for anomalies; nil without.
	Labelled []arrow.Record
	Labels   []bool
}

// Compare says how m, a model of the same columns, differs from its parent on rows.
func Compare(parent, m *vae.Model, rows Rows, rules Rules) (vae.Gate, error) {
	j, err := newJudge(parent, rows, rules)
	if err != nil {
		return vae.Gate{}, err
	}
	return j.gate(m)
}

// A judge scores candidates against one parent.
type judge struct {
	rows     Rows
	rules    Rules
	parent   *vae.Model
	held     *vae.Result
	labelled []float32 // scores
}

func newJudge(parent *vae.Model, rows Rows, rules Rules) (*judge, error) {
	j := &judge{rows: rows, rules: rules.withDefaults(), parent: parent}
	var err error
	if j.held, err = score(parent, rows.HeldOut); err == nil && rows.Labelled != nil {
		j.labelled, err = scores(parent, rows.Labelled)
	}
	return j, err
}

func score(m *vae.Model, rec arrow.Record) (*vae.Result, error) {
	s, err := m.NewScorer(rec.Schema(), vae.Options{Top: -1})
	if err != nil {
		return nil, err
	}
	return s.Score(rec)
}

// scores scores records one after the other.
func scores(m *vae.Model, list []arrow.Record) (all []float32, err error) {
	s, err := m.NewScorer(list[0].Schema(), vae.Options{Top: -1, ScoresOnly: true})
	if err != nil {
		return nil, err
	}
	for _, rec := range list {
		res, err := s.Score(rec)
		if err != nil {
			return nil, err
		}
		all = append(all, res.Score...)
	}
	return all, nil
}

// gate compares a candidate with the parent.
func (j *judge) gate(m *vae.Model) (vae.Gate, error) {
	res, err := score(m, j.rows.HeldOut)
	if err != nil {
		return vae.Gate{}, err
	}
	g := vae.Gate{Rows: int64(len(res.Score))}
	if g.Spearman, err = eval.Spearman(j.held.Score, res.Score); err != nil {
		return g, err
	}
	for i, a := range res.Anomaly {
		if a != j.held.Anomaly[i] {
			g.Changed++
		}
	}
	g.Changed /= float64(len(res.Anomaly))
	if j.labelled != nil {
		own, err := scores(m, j.rows.Labelled)
		if err != nil {
			return g, err
		}
		if g.Labels, err = j.labels(own); err != nil {
			return g, err
		}
	}
	g.Spearman, g.Changed = round(g.Spearman), round(g.Changed)
	g.Failed = j.failed(&g)
	return g, nil
}

func (j *judge) labels(own []float32) (*vae.GateLabels, error) {
	l := &vae.GateLabels{Rows: int64(len(j.rows.Labels))}
	for _, of := range []struct {
		scores    []float32
		auroc, ap *float64
	}{{j.labelled, &l.ParentAUROC, &l.ParentAP}, {own, &l.AUROC, &l.AP}} {
		var err error
		if *of.auroc, err = eval.AUROC(of.scores, j.rows.Labels); err != nil {
			return nil, err
		}
		if *of.ap, err = eval.AveragePrecision(of.scores, j.rows.Labels); err != nil {
			return nil, err
		}
		*of.auroc, *of.ap = round(*of.auroc), round(*of.ap)
	}
	return l, nil
}

func round(v float64) float64 { return math.Round(v*1e6) / 1e6 }

// failed lists the rules that a gate's figures break.
func (j *judge) failed(g *vae.Gate) (list []string) {
	if !(g.Spearman >= j.rules.Spearman) {
		list = append(list, fmt.Sprintf("rank correlation of the scores %.5f, want %g or more", g.Spearman, j.rules.Spearman))
	}
	rows := float64(g.Rows)
	if changed := math.Round(g.Changed * rows); !(changed <= math.Ceil(j.rules.Changed*rows)) {
		list = append(list, fmt.Sprintf("alerts changed on %.0f of %d rows, want %g%% or fewer", changed, g.Rows, 100*j.rules.Changed))
	}
	if l := g.Labels; l != nil && !(l.ParentAUROC-l.AUROC <= j.rules.AUROC) {
		list = append(list, fmt.Sprintf("AUROC %.4f, of the parent %.4f: a loss of %g or less is wanted", l.AUROC, l.ParentAUROC, j.rules.AUROC))
	}
	return list
}

// speedRows is the most rows that a speed is measured with, speedRounds the rounds
// in which models take turns.
const (
	speedRows   = 4096
	speedRounds = 7
	speedLeast  = 4 * time.Millisecond
)

// Speeds returns the rows a second that each model scores of rec on one core, from
// Arrow columns to scores: the best of several rounds in which they take turns.
func Speeds(rec arrow.Record, models ...*vae.Model) ([]float64, error) {
	rec = rec.NewSlice(0, min(rec.NumRows(), speedRows))
	defer rec.Release()
	scorers, times, best := make([]*vae.Scorer, len(models)), make([]int, len(models)), make([]float64, len(models))
	once := func(i int) (time.Duration, error) {
		began := time.Now()
		_, err := scorers[i].Score(rec)
		return time.Since(began), err
	}
	for i, m := range models {
		var err error
		if scorers[i], err = m.NewScorer(rec.Schema(), vae.Options{Top: -1, ScoresOnly: true}); err != nil {
			return nil, err
		}
		var took time.Duration
		for range 2 { // the first is for the caches
			if took, err = once(i); err != nil {
				return nil, err
			}
		}
		times[i] = int(speedLeast/max(took, 1)) + 1
	}
	for range speedRounds {
		for i := range models {
			var took []time.Duration
			for range times[i] {
				d, err := once(i)
				if err != nil {
					return nil, err
				}
				took = append(took, d)
			}
			best[i] = max(best[i], float64(rec.NumRows())/slices.Min(took).Seconds())
		}
	}
	return best, nil
}
