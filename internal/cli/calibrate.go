package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/operators/threshold"
	"github.com/elbo-stream/elbo/pipeline"
	source "github.com/elbo-stream/elbo/sources/parquet"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
)

type calibrateFlags struct {
	in              inputFlags
	model, out      string
	label, by       string
	overwrite, json bool
	bestF1          bool
	rule            ruleFlags
}

func (a *app) calibrate() *cobra.Command {
	var f calibrateFlags
	cmd := &cobra.Command{
		Use:   "calibrate -m MODEL [-i ROWS] -o MODEL",
		Short: "Set a model's limit, or fit its tail probabilities to other normal rows",
		Example: `  elbo calibrate -m pay.elbo -o pay2.elbo --target-rate 0.0001
  elbo calibrate -m pay.elbo -i 'normal/*.parquet' -o pay2.elbo --quantile 0.999
  elbo calibrate -m pay.elbo -i rows.parquet -o pay2.elbo --label label --best-f1
  elbo calibrate -m pay.elbo -i normal.parquet -o limits.json --by merchant`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(f.rule.read(cmd), f.validate()); err != nil {
				return joinFaults(err)
			}
			return a.calibrateVerb(cmd.Context(), f)
		},
	}
	fl := cmd.Flags()
	f.in.add(fl)
	fl.StringVarP(&f.model, "model", "m", "", "model file")
	fl.StringVarP(&f.out, "output", "o", "", "model file to write; a .json file of limits with --by")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace an existing output")
	fl.BoolVar(&f.json, "json", false, "print what was found as JSON")
	f.rule.add(fl, "share of normal rows that may be flagged by mistake (default: the model's)")
	fl.StringVar(&f.label, "label", "", "column that says which rows are anomalies; these are left out, except for --best-f1")
	fl.BoolVar(&f.bestF1, "best-f1", false, "the limit with the highest F1 on labelled rows")
	fl.StringVar(&f.by, "by", "", "write a table with a limit for each value of this column")
	return cmd
}

func (f *calibrateFlags) validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	rows, table := len(f.in.paths) > 0, strings.HasSuffix(f.out, ".json")
	check(f.out != "", "no output: give -o MODEL.elbo, or -o LIMITS.json with --by")
	check(f.out == "" || table == (f.by != ""), "output %s: --by writes a table to a .json file, and without it a model is written", f.out)
	check(f.by == "" || rows, "--by needs normal rows: give -i")
	check(f.by == "" || !f.rule.hasLimit, "--by and --limit: a fixed limit is the same for all keys")
	check(f.label == "" || rows, "--label needs rows: give -i")
	check(!f.bestF1 || f.label != "", "--best-f1 needs labelled rows: give -i and --label")
	check(!f.bestF1 || !f.rule.any() && f.by == "", "--best-f1 is a rule of its own: leave the others and --by out")
	return errors.Join(faults...)
}

// calibration is what calibrate says when it is done.
type calibration struct {
	Output string  `json:"output"`
	Model  string  `json:"model"` // the one that was calibrated
	Rule   string  `json:"rule"`
	Limit  float64 `json:"limit"` // nats
	Was    float64 `json:"was"`
	Rows   int64   `json:"rows"` // normal rows behind the limit
	Note   string  `json:"note,omitempty"`
	// Rate is told by rows that had no part in the limit: halves judge each other.
	Rate   *eval.AlertRate `json:"rate,omitempty"`
	AtBest *bestF1         `json:"best_f1,omitempty"`
	Keys   []keyRate       `json:"keys,omitempty"`
	Few    int64           `json:"few_keys,omitempty"` // keys with the global limit
}

type bestF1 struct {
	eval.Confusion
	F1        float64 `json:"f1"`
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
}

// keyRate is the promised and the achieved rate of a key. Limit is absent where
// nobody knows it.
type keyRate struct {
	Key   string          `json:"key"`
	Limit float64         `json:"limit,omitempty"`
	Rate  *eval.AlertRate `json:"rate,omitempty"`
}

func (a *app) calibrateVerb(ctx context.Context, f calibrateFlags) error {
	m, err := a.load(f.model)
	if err != nil {
		return err
	}
	cal := *m.Calibration
	var rows *scoredRows
	if len(f.in.paths) > 0 {
		ctx, cancel := a.untilDrain(ctx)
		defer cancel()
		if rows, err = a.scoresOf(ctx, m, f); err != nil {
			return err
		}
		fresh, err := vae.Calibrate(rows.normal, cal.TargetRate)
		if err != nil {
			return err
		}
		cal = *fresh
	}
	c := calibration{Output: f.out, Model: m.ID(), Was: m.Calibration.Limit}
	if err := f.limit(&cal, rows, &c); err != nil {
		return joinFaults(err)
	}
	c.Rule, c.Limit, c.Rows = ruleName(&cal), cal.Limit, cal.Rows
	if f.by != "" {
		err = a.writeTable(f, m, &cal, rows, &c)
	} else {
		var out *vae.Model
		if out, err = m.Recalibrated(vae.NameOf(f.out), &cal); err == nil {
			err = a.save(out, f.out, f.overwrite)
		}
	}
	if err != nil {
		return err
	}
	return a.calibrated(c, f.json)
}

// limit sets the limit by the rule of the flags and measures what it gives.
func (f *calibrateFlags) limit(cal *vae.Calibration, rows *scoredRows, c *calibration) (err error) {
	if f.bestF1 {
		limit, at, err := eval.BestF1(rows.all, rows.labels)
		if err != nil {
			return err
		}
		if err := cal.SetLimit(limit); err != nil {
			return err
		}
		cal.Rule = vae.BestF1
		c.AtBest = &bestF1{at, at.F1(), at.Precision(), at.Recall()}
		return nil
	}
	rate := cal.TargetRate
	if c.Note, err = f.rule.set(cal); err != nil {
		return err
	}
	if rows != nil {
		c.Rate = crossRate(rows.normal, rate, f.rule)
	}
	return nil
}

// writeTable makes and writes a table of limits by key.
func (a *app) writeTable(f calibrateFlags, m *vae.Model, cal *vae.Calibration, rows *scoredRows, c *calibration) error {
	rate := m.Calibration.TargetRate
	t, err := threshold.BuildTable(threshold.Table{Model: m.ID(), By: f.by, Rule: ruleName(cal), TargetRate: cal.TargetRate, Limit: cal.Limit, Rows: cal.Rows},
		rows.groups, func(scores []float32) (float64, bool) {
			own, err := vae.Calibrate(scores, rate)
			if err != nil {
				return 0, false
			}
			_, err = f.rule.set(own)
			return own.Limit, err == nil
		})
	if err != nil {
		return err
	}
	for _, k := range t.Keys {
		c.Keys = append(c.Keys, keyRate{k.Key, k.Limit, crossRate(rows.groups[k.Key], rate, f.rule)})
	}
	c.Few = t.FewKeys
	text, err := t.Encode()
	if err != nil {
		return err
	}
	err = durable.WriteFile(durable.OS, f.out, durable.Options{Overwrite: f.overwrite}, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	if errors.Is(err, durable.ErrExists) {
		return usage("%s; give --overwrite to replace it", err)
	}
	return err
}

func (a *app) calibrated(c calibration, asJSON bool) error {
	if c.Note != "" {
		a.warn("%s", c.Note)
	}
	if asJSON {
		return json.NewEncoder(a.out).Encode(c)
	}
	a.say("%s: limit %.6g nats (was %.6g), from %s normal rows", c.Output, c.Limit, c.Was, count(c.Rows))
	if c.Rate != nil {
		a.say("flags %s; each half of the rows judged by the limit of the other", achieved(c.Rate))
	}
	if b := c.AtBest; b != nil {
		a.say("F1 %.3f, precision %.3f, recall %.3f on these very rows: the best that a limit can reach there, no promise for others", b.F1, b.Precision, b.Recall)
	}
	if c.Keys != nil || c.Few > 0 {
		a.say("%s keys have limits of their own (%s); %s with fewer than %d rows have the limit above",
			count(int64(len(c.Keys))), kept(c.Keys), count(c.Few), threshold.MinKeyRows)
	}
	return nil
}

// kept counts the keys whose promised rate lies in the interval of the achieved one.
func kept(keys []keyRate) string {
	told, ok := 0, 0
	for _, k := range keys {
		if k.Rate != nil {
			told++
			if k.Rate.Kept {
				ok++
			}
		}
	}
	return fmt.Sprintf("%d of %d keep the promised rate", ok, told)
}

// scoredRows are the scores that a calibration is made of.
type scoredRows struct {
	normal []float32            // of rows that are not labelled as anomalies
	groups map[string][]float32 // likewise, by key
	all    []float64            // with labels
	labels []bool

	key, label int // columns, -1 without
}

// add looks at one scored record.
func (r *scoredRows) add(rec arrow.Record) error {
	at := rec.Schema().FieldIndices
	judged := rec.Column(at(score.Anomaly)[0])
	scores := rec.Column(at(score.Score)[0]).(*array.Float32)
	var labels arrow.Array
	if r.label >= 0 {
		labels = rec.Column(r.label)
	}
	var one eval.Judged
	if err := one.Add(scores, labels); err != nil {
		return err
	}
	var read threshold.KeyReader
	if r.key >= 0 {
		var err error
		if read, err = threshold.Keys(rec.Column(r.key)); err != nil {
			return err
		}
	}
	var buf []byte
	for i, row := range one.Rows {
		if judged.IsNull(int(row)) {
			continue
		}
		s := scores.Value(int(row))
		if labels != nil {
			r.all, r.labels = append(r.all, float64(s)), append(r.labels, one.Labels[i])
			if one.Labels[i] {
				continue
			}
		}
		r.normal = append(r.normal, s)
		if read == nil || rec.Column(r.key).IsNull(int(row)) {
			continue
		}
		buf = read(buf[:0], int(row))
		group, ok := r.groups[string(buf)]
		if !ok && len(r.groups) >= threshold.MaxKeys {
			return fmt.Errorf("--by: the column has more than %s values; choose a coarser one", count(threshold.MaxKeys))
		}
		r.groups[string(buf)] = append(group, s)
	}
	return nil
}

// scoresOf scores every row and keeps those that could be judged.
func (a *app) scoresOf(ctx context.Context, m *vae.Model, f calibrateFlags) (*scoredRows, error) {
	src, err := a.open(f.in, 0)
	if err != nil {
		return nil, err
	}
	schema, err := src.Schema(ctx)
	if err != nil {
		return nil, err
	}
	r := &scoredRows{key: -1, label: -1, groups: map[string][]float32{}}
	err = errors.Join(findColumn(schema, "label", f.label, &r.label), findColumn(schema, "by", f.by, &r.key))
	if r.key >= 0 {
		err = errors.Join(err, wrapFlag("by", f.by, threshold.CheckKey(schema.Field(r.key).Type)))
	}
	if err != nil {
		return nil, badConfig(joinClose(err, src))
	}
	total := src.Rows()
	if err := a.scan(ctx, m, src, r.add); err != nil {
		return nil, err
	}
	if used := int64(max(len(r.normal), len(r.all))); used < total {
		a.warn("%s of %s rows could not be judged, or have no label, and were left out", count(total-used), count(total))
	}
	return r, nil
}

// findColumn finds the column that a flag names; an empty name finds none.
func findColumn(schema *arrow.Schema, flag, name string, at *int) error {
	if name == "" {
		return nil
	}
	found := schema.FieldIndices(name)
	if len(found) != 1 {
		return fmt.Errorf("--%s %q: no such column (there are: %s)", flag, name, shorten(names(schema)))
	}
	*at = found[0]
	return nil
}

func wrapFlag(flag, value string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("--%s %q: %w", flag, value, err)
}

// scan scores src and calls each with every scored record, in order; it closes
// src.
func (a *app) scan(ctx context.Context, m *vae.Model, src *source.Source, each func(arrow.Record) error) error {
	p := a.progress()
	defer p.done()
	stats, err := pipeline.Run(ctx, pipeline.Config{Source: src,
		Operators: []pipeline.NamedOperator{{Name: "score", Operator: score.New(score.Config{Model: m, Top: -1, Allocator: a.mem})}},
		Sinks:     []pipeline.NamedSink{{Name: "look", Sink: &tally{Sink: &nowhere{}, each: each}}},
		Allocator: a.mem, Hooks: a.rowHooks(p, src.Rows())})
	if err == nil && stats.Drained {
		err = fmt.Errorf("stopped: %w", context.Canceled)
	}
	return err
}
