package cli

import (
	"context"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/pipeline"
	source "github.com/elbo-stream/elbo/sources/parquet"
	"github.com/elbo-stream/elbo/vae"
)

func (a *app) calibrate() *cobra.Command {
	var f struct {
		in         inputFlags
		model, out string
		overwrite  bool
		rate       float64
		limit      float64
	}
	cmd := &cobra.Command{
		Use:   "calibrate -m MODEL [-i NORMAL_ROWS] -o MODEL",
		Short: "Set a model's limit, or fit its tail probabilities to other normal rows",
		Example: `  elbo calibrate -m pay.elbo -o pay2.elbo --target-rate 0.0001
  elbo calibrate -m pay.elbo -i 'normal/*.parquet' -o pay2.elbo`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.out == "" {
				return usage("no output: give -o MODEL.elbo")
			}
			m, err := a.load(f.model)
			if err != nil {
				return err
			}
			cal := *m.Calibration
			rate := cal.TargetRate
			if cmd.Flags().Changed("target-rate") {
				rate = f.rate
			}
			if len(f.in.paths) > 0 {
				ctx, cancel := a.untilDrain(cmd.Context())
				defer cancel()
				scores, err := a.scoresOf(ctx, m, f.in)
				if err != nil {
					return err
				}
				fresh, err := vae.Calibrate(scores, rate)
				if err != nil {
					return err
				}
				cal = *fresh
			} else if err := cal.SetTargetRate(rate); err != nil {
				return &exitError{ExitUsage, err}
			}
			if cmd.Flags().Changed("limit") {
				if err := cal.SetLimit(f.limit); err != nil {
					return &exitError{ExitUsage, err}
				}
			}
			out, err := m.Recalibrated(vae.NameOf(f.out), &cal)
			if err != nil {
				return err
			}
			if err := a.save(out, f.out, f.overwrite); err != nil {
				return err
			}
			a.say("%s: limit %.6g nats (was %.6g), from %s normal rows", f.out, cal.Limit, m.Calibration.Limit, count(cal.Rows))
			return nil
		},
	}
	fl := cmd.Flags()
	f.in.add(fl)
	fl.StringVarP(&f.model, "model", "m", "", "model file")
	fl.StringVarP(&f.out, "output", "o", "", "model file to write")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace an existing model")
	fl.Float64Var(&f.rate, "target-rate", 1e-3, "share of normal rows that may be flagged by mistake (default: the model's)")
	fl.Float64Var(&f.limit, "limit", 0, "a fixed limit in nats in place of a rate")
	return cmd
}

// scoresOf scores every row and returns those that could be judged.
func (a *app) scoresOf(ctx context.Context, m *vae.Model, in inputFlags) ([]float32, error) {
	src, err := a.open(in, 0)
	if err != nil {
		return nil, err
	}
	var scores []float32
	err = a.scan(ctx, m, src, func(rec arrow.Record) error {
		at := rec.Schema().FieldIndices
		judged := rec.Column(at(score.Anomaly)[0])
		for i, s := range rec.Column(at(score.Score)[0]).(*array.Float32).Float32Values() {
			if judged.IsValid(i) {
				scores = append(scores, s)
			}
		}
		return nil
	})
	if err == nil && len(scores) < int(src.Rows()) {
		a.warn("%s of %s rows could not be judged and were left out", count(src.Rows()-int64(len(scores))), count(src.Rows()))
	}
	return scores, err
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
