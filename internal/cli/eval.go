package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
)

type evalFlags struct {
	in                 inputFlags
	model, label, kind string
	report             string
	json, overwrite    bool
	baselines, compare []string
	inject             bool
	seed               uint64
}

func (a *app) eval() *cobra.Command {
	var f evalFlags
	cmd := &cobra.Command{
		Use:   "eval -m MODEL -i INPUT [--label COLUMN]",
		Short: "Judge a model on rows, with labels or without",
		Example: `  elbo eval -m pay.elbo -i test.parquet --label label
  elbo eval -m pay.elbo -i test.parquet --label label --json --report report.html
  elbo eval -m pay.elbo -i normal.parquet                # what would it catch? plants anomalies
  elbo eval -m pay.elbo -i test.parquet --label label --baselines 'day/*.parquet'
  elbo eval --compare big.elbo,small.elbo -i test.parquet --label label`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := a.untilDrain(cmd.Context())
			defer cancel()
			if f.compare != nil {
				return a.compareVerb(ctx, f)
			}
			return a.evalVerb(ctx, f)
		},
	}
	fl := cmd.Flags()
	f.in.add(fl)
	fl.StringVarP(&f.model, "model", "m", "", "model file")
	fl.StringVar(&f.label, "label", "", "column that says which rows are anomalies: 0/1, false/true or normal/anomaly")
	fl.StringVar(&f.kind, "kind", "", "column of strings that names the kind of an anomaly, empty for normal rows")
	fl.StringVar(&f.report, "report", "", "write a self-contained HTML page")
	fl.BoolVar(&f.json, "json", false, "print the report as JSON")
	fl.StringArrayVar(&f.baselines, "baselines", nil, "training rows: fit five plain detectors to them and compare")
	fl.StringSliceVar(&f.compare, "compare", nil, "models to compare side by side, the first is what the others are held to; takes the place of -m")
	fl.BoolVar(&f.inject, "inject", true, "without --label, plant anomalies into the rows and say which are caught")
	fl.Uint64Var(&f.seed, "seed", 1, "of the planted anomalies")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace an existing report")
	return cmd
}

// judged gathers what a report needs of scored records.
type judged struct {
	label, kind int // columns, -1 without
	rows        eval.Judged
	kept        *keptRows     // rows to show one by one
	looking     time.Duration // spent on that, which is no scoring
	all         struct {
		recon, kl []float64
		flagged   []bool
		kinds     []string
	}
}

// add looks at one scored record.
func (j *judged) add(rec arrow.Record) error {
	column := func(name string) arrow.Array { return rec.Column(rec.Schema().FieldIndices(name)[0]) }
	var labels arrow.Array
	if j.label >= 0 {
		labels = rec.Column(j.label)
	}
	if err := j.rows.Add(column(score.Score), labels); err != nil {
		return err
	}
	for _, v := range column(score.Recon).(*array.Float32).Float32Values() {
		j.all.recon = append(j.all.recon, float64(v))
	}
	for _, v := range column(score.KL).(*array.Float32).Float32Values() {
		j.all.kl = append(j.all.kl, float64(v))
	}
	verdicts := column(score.Anomaly).(*array.Boolean)
	began := time.Now()
	j.kept.look(rec, column(score.Score).(*array.Float32).Float32Values(), func(i int) bool { return verdicts.IsValid(i) && verdicts.Value(i) })
	j.looking += time.Since(began)
	for i := range verdicts.Len() {
		j.all.flagged = append(j.all.flagged, verdicts.IsValid(i) && verdicts.Value(i))
		if j.kind >= 0 {
			kind := ""
			if c := rec.Column(j.kind); c.IsValid(i) {
				kind = c.ValueStr(i)
			}
			j.all.kinds = append(j.all.kinds, kind)
		}
	}
	return nil
}

// of returns the elements of all that belong to judged rows.
func of[T any](all []T, rows []int64) []T {
	if all == nil {
		return nil
	}
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = all[r]
	}
	return out
}

func (a *app) evalVerb(ctx context.Context, f evalFlags) error {
	m, err := a.load(f.model)
	if err != nil {
		return err
	}
	src, err := a.open(f.in, 0)
	if err != nil {
		return err
	}
	schema, err := src.Schema(ctx)
	if err != nil {
		return err
	}
	j := &judged{label: -1, kind: -1, kept: newKept(src.Rows())}
	defer j.kept.release()
	var faults []error
	find := func(flag, name string, at *int) {
		if name == "" {
			return
		}
		if found := schema.FieldIndices(name); len(found) == 1 {
			*at = found[0]
		} else {
			faults = append(faults, fmt.Errorf("--%s %q: no such column (there are: %s)", flag, name, shorten(names(schema))))
		}
	}
	find("label", f.label, &j.label)
	find("kind", f.kind, &j.kind)
	if faults != nil {
		return badConfig(joinClose(errors.Join(faults...), src))
	}
	started := time.Now()
	if err := a.scan(ctx, m, src, j.add); err != nil {
		return err
	}
	report, err := eval.Build(a.evalInput(f, m, j, time.Since(started)-j.looking))
	if err != nil {
		return err
	}
	// The verdicts are those of score, which leaves some rows unjudged; all others
	// were made by this limit.
	report.Limit = &m.Calibration.Limit
	if report.AtLimit != nil {
		report.AtLimit.Limit = report.Limit
	}
	if err := a.addDetail(ctx, f, m, j, report); err != nil {
		return err
	}
	return a.printReport(f, report)
}

// addDetail adds what needs more than scores: single rows, planted anomalies and
// other detectors.
func (a *app) addDetail(ctx context.Context, f evalFlags, m *vae.Model, j *judged, r *eval.Report) (err error) {
	r.Curve, r.Fit = m.Training.Curve, m.Training.Columns
	labelled := j.label >= 0
	var label func(int64) bool
	if labelled {
		odd := map[int64]bool{}
		for i, row := range j.rows.Rows {
			odd[row] = j.rows.Labels[i]
		}
		label = func(row int64) bool { return odd[row] }
	}
	if err := j.kept.describe(m, r, label); err != nil {
		return err
	}
	var planted []*eval.Injected
	defer func() {
		for _, in := range planted {
			in.Release()
		}
	}()
	if !labelled && f.inject {
		keep := func(kind string, in *eval.Injected) {
			if kind == eval.Missing { // a gap is the mean to baselines: they could not see it
				in.Release()
				return
			}
			planted = append(planted, in)
		}
		if r.Planted, err = a.plant(m, j.kept, f.seed, keep); err != nil {
			return err
		}
	}
	if len(f.baselines) == 0 {
		return nil
	}
	var test *baselineTest
	switch {
	case labelled:
		test, err = a.testRows(ctx, m, f, j)
	case planted != nil:
		test, err = a.plantedTest(m, j.kept, planted)
	default:
		return usage("--baselines needs --label, or planted anomalies to judge on")
	}
	if err != nil {
		return err
	}
	r.Baselines, err = a.compare(ctx, m, f, test)
	if errors.Is(err, eval.ErrOneClass) {
		r.Notes = append(r.Notes, "baselines: "+err.Error())
		return nil
	}
	r.Verdict = eval.Verdict(r.Baselines)
	r.Notes = append(r.Notes, test.notes...)
	return err
}

// evalInput joins what the rows and the model say.
func (a *app) evalInput(f evalFlags, m *vae.Model, j *judged, took time.Duration) eval.Input {
	rows := j.rows.Rows
	size := m.Size()
	bytes := int64(size.Bytes)
	if st, err := os.Stat(f.model); err == nil {
		bytes = st.Size()
	}
	in := eval.Input{Title: "elbo eval", Model: m.ID(), Data: strings.Join(f.in.paths, ", "), Scores: j.rows.Scores, Labels: j.rows.Labels,
		Recon: of(j.all.recon, rows), KL: of(j.all.kl, rows), Kinds: of(j.all.kinds, rows), Flagged: of(j.all.flagged, rows),
		Limit: &m.Calibration.Limit, Promised: &m.Calibration.TargetRate,
		Skipped: eval.Skipped{NoScore: j.rows.NoScore, NoLabel: j.rows.NoLabel},
		Size: &eval.ModelSize{Parameters: int64(size.Parameters), Bytes: bytes, MultiplyAdds: int64(size.MultiplyAdds),
			RowsPerSecond: float64(j.rows.Seen) / max(took.Seconds(), 1e-9)}}
	sum, n := 0.0, 0
	for i, v := range in.Recon { // on rows that training never saw, normal ones where labels tell
		if in.Labels == nil || !in.Labels[i] {
			sum, n = sum+v, n+1
		}
	}
	if n > 0 {
		in.Gap = eval.NewGap(m.Training.TrainRecon, m.Training.Rows, sum/float64(n), int64(n))
	}
	return in
}

func (a *app) printReport(f evalFlags, r *eval.Report) error {
	if f.report != "" {
		err := durable.WriteFile(durable.OS, f.report, durable.Options{Overwrite: f.overwrite}, func(w io.Writer) error { return r.WriteHTML(w) })
		if errors.Is(err, durable.ErrExists) {
			return usage("%s; give --overwrite to replace it", err)
		}
		if err != nil {
			return err
		}
		a.say("report in %s", f.report)
	}
	if f.json {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	color := a.terminal() && os.Getenv("NO_COLOR") == ""
	return r.WriteText(a.out, eval.TextOptions{Width: a.width(), Color: color})
}
