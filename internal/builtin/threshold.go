package builtin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/elbo-stream/elbo/operators/threshold"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/config"
	"github.com/elbo-stream/elbo/vae"
)

// Threshold is the configuration of the operator threshold.
type Threshold struct {
	TargetRate float64  `yaml:"target_rate" doc:"Share of normal rows that may be flagged: rows with elbo_p at or below it are anomalies."`
	POT        bool     `yaml:"pot" doc:"Peaks over threshold: a limit for target_rate from a generalised Pareto tail of model's calibration."`
	Quantile   float64  `yaml:"quantile" doc:"Rows above the score that this share of model's calibration rows stays below are anomalies, such as 0.999."`
	Above      *float64 `yaml:"above" doc:"Rows whose column is larger are anomalies."`
	Column     string   `yaml:"column" doc:"What above is compared with; elbo_score unless given."`
	Table      string   `yaml:"table" doc:"File with a limit for each value of by (elbo calibrate --by makes it); rows of other values have its global limit."`
	FDR        float64  `yaml:"fdr" doc:"Share of a window's flagged rows that is expected to be normal, at most, such as 0.1. The step sees rows in order, one at a time."`
	Window     int      `yaml:"window" default:"1000" doc:"Rows in a window of fdr."`
	P          string   `yaml:"p" default:"tail" enum:"tail,conformal" doc:"p-values of fdr: elbo_p with its fitted tail, or ranks among model's calibration rows."`
	Dependence string   `yaml:"dependence" default:"positive" enum:"positive,any" doc:"What fdr takes the p-values for: independent or positively dependent, or dependent in any way, which is much stricter."`
	By         string   `yaml:"by" doc:"Key column of table (the one it was made by unless given), or column whose values have fdr windows of their own."`
	Model      string   `yaml:"model" doc:"Model file of the score step, for pot, quantile and p: conformal."`
}

// Validate checks which settings go together.
func (c *Threshold) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	rules := 0
	for _, set := range []bool{c.TargetRate != 0, c.Quantile != 0, c.Above != nil, c.Table != "", c.FDR != 0} {
		if set {
			rules++
		}
	}
	check(rules < 2, "target_rate, quantile, above, table and fdr are different rules: give one")
	check(rules > 0, "no rule: give target_rate (such as 0.001), quantile, above (a score in nats), table or fdr")
	check(!c.POT || c.TargetRate != 0, "pot: goes with target_rate")
	conformal := c.FDR != 0 && c.P == "conformal"
	needs := c.POT || c.Quantile != 0 || conformal
	check(!needs || c.Model != "", "model: pot, quantile and p: conformal need the model of the score step")
	check(needs || c.Model == "", "model: goes with pot, quantile and p: conformal")
	check(c.By == "" || c.Table != "" || c.FDR != 0, "by: goes with table and fdr")
	return errors.Join(errs...)
}

func buildThreshold(_ context.Context, env config.Env, c Threshold) (pipeline.Operator, error) {
	var m *vae.Model
	if c.Model != "" {
		var err error
		if m, err = Load(c.Model); err != nil {
			return nil, err
		}
	}
	switch {
	case c.FDR != 0:
		s := threshold.StreamConfig{FDR: c.FDR, Window: c.Window, By: c.By, AnyDependence: c.Dependence == "any", Allocator: env.Allocator}
		if m != nil {
			s.Conformal, s.Model = m.Calibration, m.ID()
		}
		return threshold.NewStream(s)
	case c.Table != "":
		t, err := threshold.LoadTable(c.Table)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("table: %s: no such file; `elbo calibrate --by` makes one", c.Table)
		}
		if err != nil {
			return nil, fmt.Errorf("table: %w", err)
		}
		return threshold.New(threshold.Config{Table: t, By: c.By, Allocator: env.Allocator})
	case m == nil:
		return threshold.New(threshold.Config{TargetRate: c.TargetRate, Above: c.Above, Column: c.Column, Allocator: env.Allocator})
	}
	cal := *m.Calibration
	var err error
	if c.POT {
		var note string
		if note, err = cal.SetPareto(c.TargetRate); note != "" {
			env.Log.Warn("threshold: pot gave way to target_rate", "why", note)
		}
	} else {
		err = cal.SetQuantile(c.Quantile)
	}
	if err != nil {
		return nil, err
	}
	return threshold.New(threshold.Config{Above: &cal.Limit, Model: m.ID(), Allocator: env.Allocator})
}
