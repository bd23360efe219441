package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/internal/parquetio"
	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/operators/threshold"
	"github.com/elbo-stream/elbo/pipeline"
	sink "github.com/elbo-stream/elbo/sinks/parquet"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
)

type scoreFlags struct {
	in              inputFlags
	model, out      string
	overwrite, json bool
	fail            bool
	workers, batch  int
	compression     string
	rule            ruleFlags
	limits, by      string
	table           *threshold.Table // of limits
	fdr             fdrFlags
	explain         string
	c               score.Config
}

func (a *app) score() *cobra.Command {
	var f scoreFlags
	cmd := &cobra.Command{
		Use:   "score -m MODEL -i INPUT -o OUTPUT",
		Short: "Score Parquet files: every row, in order, with its elbo_ columns",
		Example: `  elbo score -m pay.elbo -i 'new/*.parquet' -o scores/
  elbo score -m pay.elbo -i day.parquet -o scores.parquet --reconstruction --latent
  elbo score -m pay.elbo -i day.parquet -o scores.parquet --limits limits.json
  elbo score -m pay.elbo -i day.parquet -o scores.parquet --fdr 0.1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.rule.read(cmd); err != nil {
				return err
			}
			return a.scoreVerb(cmd.Context(), f)
		},
	}
	fl := cmd.Flags()
	f.in.add(fl)
	fl.StringVarP(&f.model, "model", "m", "", "model file")
	fl.StringVarP(&f.out, "output", "o", "", "folder, or one file when it ends in .parquet")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace an existing output")
	fl.BoolVar(&f.json, "json", false, "print the summary as JSON")
	fl.BoolVar(&f.fail, "fail-on-anomaly", false, "exit with 4 when a row is an anomaly")
	fl.IntVar(&f.workers, "workers", 0, "parallel workers (default: processors); scores do not depend on it")
	fl.IntVar(&f.batch, "batch", 0, "rows in one batch (default 8192); scores do not depend on it")
	fl.StringVar(&f.compression, "compression", "zstd", "zstd, snappy, lz4_raw, gzip or none")
	f.rule.add(fl, "flag by this rate in place of the model's")
	fl.StringVar(&f.limits, "limits", "", "flag by the limits of this table, one for each key (calibrate --by makes it)")
	fl.StringVar(&f.by, "by", "", "tell the achieved rate for each value of this column, in --json (default: the key of --limits)")
	f.fdr.add(fl)
	fl.StringVar(&f.explain, "explain", "flagged", "elbo_top for: flagged, all or off")
	fl.IntVar(&f.c.Top, "top", 5, "columns in elbo_top")
	fl.BoolVar(&f.c.Error, "error", false, "add elbo_error, the mean squared error on the standardised scale")
	fl.BoolVar(&f.c.Latent, "latent", false, "add elbo_latent_mu and elbo_latent_logvar")
	fl.BoolVar(&f.c.Reconstruction, "reconstruction", false, "add elbo_reconstruction_NAME for every model column")
	fl.IntVar(&f.c.Samples, "samples", 0, "draws for the reconstruction probability; 0 scores at the posterior mean")
	fl.Uint64Var(&f.c.Seed, "seed", 0, "of the draws")
	fl.StringVar((*string)(&f.c.Precision), "precision", "float32", "float32, or bf16 where the CPU has AVX512-BF16")
	return cmd
}

// validate reports every flag whose value cannot be.
func (f *scoreFlags) validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(f.workers >= 0, "--workers %d: want 1 or more, or 0 for one per processor", f.workers)
	check(f.batch >= 0, "--batch %d: want 1 row or more, or 0 for 8192", f.batch)
	check(f.c.Top >= 1, "--top %d: want 1 column or more; --explain off leaves elbo_top out", f.c.Top)
	check(f.c.Samples >= 0 && f.c.Samples <= 10_000, "--samples %d: want 0 to 10000", f.c.Samples)
	check(f.limits == "" || !f.rule.any(), "--limits brings its own rule: leave --target-rate, --limit, --quantile and --pot out")
	check(f.fdr.fdr == 0 || f.limits == "" && !f.rule.any(), "--fdr is a rule of its own: leave the others out")
	faults = append(faults, f.fdr.faults()...)
	if err := parquetio.Compression(f.compression).Valid(); err != nil {
		faults = append(faults, fmt.Errorf("--compression %q: want zstd, snappy, lz4_raw, gzip or none", f.compression))
	}
	if err := f.c.Precision.Valid(); err != nil {
		faults = append(faults, fmt.Errorf("--%w", err))
	}
	return errors.Join(faults...)
}

// chain makes the operators that the flags ask for.
func (f *scoreFlags) chain(a *app, m *vae.Model) ([]pipeline.NamedOperator, error) {
	switch f.explain {
	case "flagged":
	case "all":
		f.c.TopAll = true
	case "off":
		f.c.Top = -1
	default:
		return nil, usage("--explain %q: want flagged, all or off", f.explain)
	}
	if f.rule.any() { // the model's own limit decides what is explained
		cal := *m.Calibration
		note, err := f.rule.set(&cal)
		if err != nil {
			return nil, &exitError{ExitUsage, err}
		}
		if note != "" {
			a.warn("%s", note)
		}
		judged := *m
		judged.Calibration = &cal
		m = &judged
	}
	f.c.Model, f.c.Allocator = m, a.mem
	ops := []pipeline.NamedOperator{{Name: "score", Operator: score.New(f.c)}}
	return f.verdicts(a, m, ops)
}

// summary is what score says when it is done.
type summary struct {
	Rows      int64            `json:"rows"`
	Anomalies int64            `json:"anomalies"`
	NotJudged int64            `json:"not_judged"`
	Status    map[string]int64 `json:"status"`
	Model     string           `json:"model"`
	Output    string           `json:"output"`
	Seconds   float64          `json:"seconds"`
	Drained   bool             `json:"interrupted,omitempty"`
	// Rate is the share of judged rows that are flagged; without anomalies among them
	// it is to be the promised one. Absent where nobody promised any.
	Rate *eval.AlertRate `json:"rate,omitempty"`
	Rule string          `json:"rule,omitempty"`
	// Keys are the rates by the column of --by or --limits, in rising order.
	Keys []keyRate `json:"keys,omitempty"`
}

func (a *app) scoreVerb(ctx context.Context, f scoreFlags) error {
	if f.out == "" {
		return usage("no output: give -o FOLDER/ or -o FILE.parquet")
	}
	if err := f.validate(); err != nil {
		return &exitError{ExitUsage, err}
	}
	if in := inputAt(f.in.paths, f.out); in != "" {
		return usage("output %s is, or holds, the input %s: choose another output", f.out, in)
	}
	m, err := a.load(f.model)
	if err != nil {
		return err
	}
	ops, err := f.chain(a, m)
	if err != nil {
		return err
	}
	src, err := a.open(f.in, f.batch)
	if err != nil {
		return err
	}
	out, err := sink.New(sink.Config{Path: f.out, Overwrite: f.overwrite, Compression: f.compression,
		Metadata:  map[string]string{"elbo.version": Version},
		CreatedBy: CreatedBy(), Log: a.log})
	if err != nil {
		return fmt.Errorf("output %s: %w", f.out, joinClose(err, src))
	}
	groups, err := f.groups(ctx, src)
	if err != nil {
		return errors.Join(badConfig(joinClose(err, src)), out.Close())
	}
	counts := &tally{Sink: out, each: groups.add}
	p := a.progress()
	stats, err := pipeline.Run(ctx, pipeline.Config{Source: src, Operators: ops,
		Sinks: []pipeline.NamedSink{{Name: "output", Sink: f.fdr.hold(counts, m, a.mem)}}, Workers: f.workers, Drain: a.drain,
		Allocator: a.mem, Hooks: a.rowHooks(p, src.Rows())})
	p.done()
	if err != nil {
		return err
	}
	s := summary{Rows: counts.Rows, Anomalies: counts.Anomalies, NotJudged: counts.NotJudged, Status: counts.Statuses,
		Model: m.ID(), Output: f.out, Seconds: stats.Elapsed.Seconds(), Drained: stats.Drained}
	f.promise(&s, groups)
	return a.scored(s, f.json, f.fail)
}

// rowHooks shows how many rows were written; total is 0 when nobody knows it.
func (a *app) rowHooks(p *progress, total int64) pipeline.Hooks {
	var rows atomic.Int64
	return pipeline.Hooks{Written: func(_ string, n int64, _ time.Duration) {
		done := rows.Add(n)
		p.show(func(took time.Duration) string {
			if total == 0 {
				return fmt.Sprintf("%s rows  %s", count(done), rate(done, took))
			}
			share := float64(done) / float64(total)
			return fmt.Sprintf("%s of %s rows (%.0f%%)  %s  %s left", count(done), count(total), 100*share, rate(done, took), left(took, share))
		})
	}}
}

// scored prints the summary and sets the exit code.
func (a *app) scored(s summary, asJSON, fail bool) error {
	if asJSON {
		if err := json.NewEncoder(a.out).Encode(s); err != nil {
			return err
		}
	} else {
		var others []string
		for status, n := range s.Status {
			if status != score.OK && n > 0 {
				others = append(others, fmt.Sprintf("%s %s", count(n), status))
			}
		}
		slices.Sort(others)
		extra := ""
		if others != nil {
			extra = " (" + strings.Join(others, ", ") + ")"
		}
		share := percent(float64(s.Anomalies) / float64(max(s.Rows, 1)))
		if s.Rate != nil {
			share = achieved(s.Rate)
		}
		a.say("%s: %s rows%s, flagged %s of %s (%s), %s", s.Output, count(s.Rows), extra, count(s.Anomalies), count(s.Rows-s.NotJudged), share,
			rate(s.Rows, time.Duration(s.Seconds*float64(time.Second))))
		if s.Keys != nil {
			a.say("by key: %s; --json names them", kept(s.Keys))
		}
	}
	switch {
	case s.Drained:
		a.say("interrupted: the output holds the rows read until then")
		a.code = ExitInterrupted
	case fail && s.Anomalies > 0:
		a.code = ExitAnomalies
	}
	return nil
}
