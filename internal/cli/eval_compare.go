package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/compress"
	"github.com/elbo-stream/elbo/vae/eval"
)

// compared is a model beside others.
type compared struct {
	Model string   `json:"model"`
	Path  string   `json:"path"`
	Size  vae.Size `json:"size"`
	// RowsPerSecond is on one core, from Arrow columns to scores.
	RowsPerSecond float64 `json:"rows_per_s"`
	Times         float64 `json:"times_as_fast"` // as the first
	ELBO          float64 `json:"elbo"`          // mean over normal rows, nats
	Spearman      float64 `json:"spearman"`      // of the scores, with the first
	// Changed is the share of rows whose alert is not the first model's.
	Changed float64  `json:"changed"`
	AUROC   *float64 `json:"auroc,omitempty"`
	AP      *float64 `json:"average_precision,omitempty"`
	Note    string   `json:"note,omitempty"` // of a model that failed its gate

	scores []float64
	flags  []bool
	elbo   float64
	normal int64
}

// comparison is what eval --compare says.
type comparison struct {
	Rows    int64       `json:"rows"`    // judged by all models
	NotAll  int64       `json:"not_all"` // rows that some model did not judge, or without a label
	Models  []*compared `json:"models"`
	Labeled bool        `json:"labelled"`
}

func (a *app) compareVerb(ctx context.Context, f evalFlags) error {
	if len(f.compare) < 2 {
		return usage("--compare: give two models or more, as in --compare big.elbo,small.elbo")
	}
	if f.model != "" || f.report != "" || f.baselines != nil || f.kind != "" {
		return usage("--compare goes with -i, --label and --json, not with -m, --report, --baselines or --kind")
	}
	src, err := a.open(f.in, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	schema, err := src.Schema(ctx)
	if err != nil {
		return err
	}
	label := -1
	if f.label != "" {
		at := schema.FieldIndices(f.label)
		if len(at) != 1 {
			return usage("--label %s: %d columns of that name", f.label, len(at))
		}
		label = at[0]
	}
	c := &comparison{Labeled: label >= 0}
	models, err := a.comparable(f.compare)
	if err != nil {
		return err
	}
	var ops []*score.Operator
	for i, path := range f.compare {
		m := models[i]
		op := score.New(score.Config{Model: m, Top: -1})
		if _, err := op.Bind(schema); err != nil {
			return badConfig(fmt.Errorf("%s: %w", path, err))
		}
		ops = append(ops, op)
		one := &compared{Model: m.ID(), Path: path, Size: m.Size()}
		if m.Compression != nil && len(m.Compression.Gate.Failed) > 0 {
			one.Note = "written by force: it failed its gate"
		}
		c.Models = append(c.Models, one)
	}
	var labels []bool
	var first arrow.Record
	for batch, err := range src.Batches(ctx, nil) {
		if err != nil {
			return err
		}
		if labels, err = c.add(ctx, ops, batch.Record, label, labels); err != nil {
			batch.Release()
			return err
		}
		if first == nil && batch.Record.NumRows() > 0 {
			first = batch.Record
			first.Retain()
			defer first.Release()
		}
		batch.Release()
	}
	if c.Rows == 0 {
		return fmt.Errorf("no row is judged by all of the models: nothing to compare")
	}
	speeds, err := compress.Speeds(first, models...)
	if err != nil {
		return err
	}
	if err := c.finish(speeds, labels); err != nil {
		return err
	}
	if f.json {
		return json.NewEncoder(a.out).Encode(c)
	}
	return a.compareTable(c)
}

// comparable loads models that read the same columns.
func (a *app) comparable(paths []string) (models []*vae.Model, err error) {
	for _, path := range paths {
		m, err := a.load(path)
		if err != nil {
			return nil, err
		}
		models = append(models, m)
		first, own := models[0].Spec.Columns, m.Spec.Columns
		for i := range max(len(first), len(own)) {
			switch {
			case i >= len(own):
				err = fmt.Errorf("%s has no column %q, which %s has", path, first[i].Name, paths[0])
			case i >= len(first) || first[i].Name != own[i].Name:
				err = fmt.Errorf("%s has column %q, which %s has not at that place", path, own[i].Name, paths[0])
			case first[i].Kind != own[i].Kind:
				err = fmt.Errorf("column %q is %s in %s and %s in %s", own[i].Name, own[i].Kind, path, first[i].Kind, paths[0])
			}
			if err != nil {
				return nil, badConfig(fmt.Errorf("%w: models of different columns cannot be compared", err))
			}
		}
	}
	return models, nil
}

// add scores one record by all models and keeps the rows that all of them judge.
func (c *comparison) add(ctx context.Context, ops []*score.Operator, rec arrow.Record, label int, labels []bool) ([]bool, error) {
	out := make([]arrow.Record, len(ops))
	defer func() {
		for _, o := range out {
			if o != nil {
				o.Release()
			}
		}
	}()
	for i, op := range ops {
		var err error
		if out[i], err = op.Apply(ctx, rec); err != nil {
			return nil, err
		}
	}
	column := func(i int, name string) arrow.Array { return out[i].Column(out[i].Schema().FieldIndices(name)[0]) }
	var of eval.Judged // of the first model, for its reading of labels
	var marks arrow.Array
	if label >= 0 {
		marks = rec.Column(label)
	}
	if err := of.Add(column(0, score.Score), marks); err != nil {
		return nil, err
	}
	c.NotAll += of.Seen - int64(len(of.Rows))
	for k, row := range of.Rows {
		r := int(row)
		if slices.ContainsFunc(out, func(o arrow.Record) bool {
			v := o.Column(o.Schema().FieldIndices(score.Score)[0]).(*array.Float32)
			return v.IsNull(r) || math.IsNaN(float64(v.Value(r)))
		}) {
			c.NotAll++
			continue
		}
		c.Rows++
		normal := label < 0 || !of.Labels[k]
		if label >= 0 {
			labels = append(labels, of.Labels[k])
		}
		for i, m := range c.Models {
			verdict := column(i, score.Anomaly).(*array.Boolean)
			m.scores = append(m.scores, float64(column(i, score.Score).(*array.Float32).Value(r)))
			m.flags = append(m.flags, verdict.IsValid(r) && verdict.Value(r))
			if normal {
				m.elbo -= float64(column(i, score.Recon).(*array.Float32).Value(r)) + float64(column(i, score.KL).(*array.Float32).Value(r))
				m.normal++
			}
		}
	}
	return labels, nil
}

// finish turns what was gathered into figures.
func (c *comparison) finish(speeds []float64, labels []bool) (err error) {
	for i, m := range c.Models {
		m.RowsPerSecond, m.Times = speeds[i], speeds[i]/speeds[0]
		m.ELBO = m.elbo / float64(max(m.normal, 1))
		if m.Spearman, err = eval.Spearman(c.Models[0].scores, m.scores); err != nil {
			return err
		}
		for r, f := range m.flags {
			if f != c.Models[0].flags[r] {
				m.Changed++
			}
		}
		m.Changed /= float64(len(m.flags))
		if labels == nil {
			continue
		}
		auroc, err := eval.AUROC(m.scores, labels)
		if err != nil {
			return err
		}
		ap, err := eval.AveragePrecision(m.scores, labels)
		if err != nil {
			return err
		}
		m.AUROC, m.AP = &auroc, &ap
	}
	return nil
}

func (a *app) compareTable(c *comparison) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := "MODEL\tBYTES\tMULTIPLY-ADDS\tROWS/S\tTIMES\tELBO\tRANK CORR.\tCHANGED\t"
	if c.Labeled {
		head += "AUROC\tAVG PREC.\t"
	}
	fmt.Fprintln(w, head)
	for _, m := range c.Models {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.2f\t%.4g\t%.5f\t%.3g%%\t", m.Model, count(int64(m.Size.Bytes)), count(int64(m.Size.MultiplyAdds)),
			count(int64(m.RowsPerSecond)), m.Times, m.ELBO, m.Spearman, 100*m.Changed)
		if c.Labeled {
			fmt.Fprintf(w, "%.4f\t%.4f\t", *m.AUROC, *m.AP)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.out, "\n%s rows; ROWS/S on one core; ELBO: mean of normal rows, nats; RANK CORR. and CHANGED alerts: against %s.\n",
		count(c.Rows), c.Models[0].Model)
	if err == nil && c.NotAll > 0 {
		_, err = fmt.Fprintf(a.out, "%s rows are left out: some model does not judge them, or they have no label.\n", count(c.NotAll))
	}
	for _, m := range c.Models {
		if err == nil && m.Note != "" {
			_, err = fmt.Fprintf(a.out, "%s: %s\n", m.Model, m.Note)
		}
	}
	return err
}
