package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
)

// ruleFlags choose a limit by one rule.
type ruleFlags struct {
	rate, limit, quantile          float64
	hasRate, hasLimit, hasQuantile bool
	pot                            bool
}

func (f *ruleFlags) add(fl *pflag.FlagSet, rate string) {
	fl.Float64Var(&f.rate, "target-rate", 0, rate)
	fl.Float64Var(&f.limit, "limit", 0, "a fixed limit in nats in place of a rate")
	fl.Float64Var(&f.quantile, "quantile", 0, "the score that this share of the calibration rows stays below, such as 0.999; fits no tail")
	fl.BoolVar(&f.pot, "pot", false, "peaks over threshold: fit a generalised Pareto tail for the target rate")
}

// read notes which flags were given, and reports a mix that cannot be.
func (f *ruleFlags) read(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	f.hasRate, f.hasLimit, f.hasQuantile = given("target-rate"), given("limit"), given("quantile")
	return f.check()
}

func (f *ruleFlags) check() error {
	rules := 0
	for _, set := range []bool{f.hasRate || f.pot, f.hasLimit, f.hasQuantile} {
		if set {
			rules++
		}
	}
	if rules > 1 {
		return usage("--target-rate (with or without --pot), --limit and --quantile are different rules: give one")
	}
	return nil
}

// any says whether a rule was given.
func (f *ruleFlags) any() bool { return f.hasRate || f.hasLimit || f.hasQuantile || f.pot }

// set sets the limit of c; without a rate of its own the rule is for c's. A note
// says where it had to give way to another rule.
func (f *ruleFlags) set(c *vae.Calibration) (note string, err error) {
	rate := c.TargetRate
	if f.hasRate {
		rate = f.rate
	}
	switch {
	case f.hasLimit:
		err = c.SetLimit(f.limit)
	case f.hasQuantile:
		err = c.SetQuantile(f.quantile)
	case f.pot:
		note, err = c.SetPareto(rate)
	default:
		err = c.SetTargetRate(rate)
	}
	return note, err
}

// ruleName says in a word how a limit was found.
func ruleName(c *vae.Calibration) string {
	switch {
	case c.Rule != "":
		return string(c.Rule)
	case c.Fixed:
		return "fixed"
	}
	return "rate"
}

// crossRate is the share of rows above a limit that they had no part in: each half
// of the scores (every other one) is judged by the limit of the other half. Nil
// where the halves are too small.
func crossRate(scores []float32, rate float64, f ruleFlags) *eval.AlertRate {
	var halves [2][]float32
	for i, s := range scores {
		halves[i%2] = append(halves[i%2], s)
	}
	alerts, promised := 0, rate
	for i := range halves {
		c, err := vae.Calibrate(halves[1-i], rate)
		if err != nil {
			return nil
		}
		if _, err := f.set(c); err != nil {
			return nil
		}
		promised = c.TargetRate
		for _, s := range halves[i] {
			if float64(s) > c.Limit {
				alerts++
			}
		}
	}
	return alertRate(alerts, len(scores), promised)
}

// alertRate is nil when there are no rows to tell it by.
func alertRate(alerts, rows int, promised float64) *eval.AlertRate {
	r, err := eval.Rate(alerts, rows, promised, 0.95)
	if err != nil {
		return nil
	}
	return &r
}

// percent writes a share.
func percent(share float64) string { return fmt.Sprintf("%.3g%%", 100*share) }

// achieved writes a rate against its promise.
func achieved(r *eval.AlertRate) string {
	return fmt.Sprintf("%s, promised %s, 95%% interval %s to %s", percent(r.Achieved), percent(r.Promised), percent(r.Low), percent(r.High))
}

// joinFaults joins faults of flags as a usage error, nil without any.
func joinFaults(faults ...error) error {
	if err := errors.Join(faults...); err != nil {
		return &exitError{ExitUsage, err}
	}
	return nil
}
