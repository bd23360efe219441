package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/compress"
	"github.com/elbo-stream/elbo/vae/train"
)

type compressFlags struct {
	in                inputFlags
	model, out        string
	test, label       string
	quantize          string
	budget            float64
	seed              uint64
	seedGiven         bool
	memory            int64
	auto, force       bool
	overwrite, json   bool
	config            compress.Config
	heldOut           float64
	timeColumn        string
	contaminationDone bool
}

func (a *app) compress() *cobra.Command {
	var f compressFlags
	cmd := &cobra.Command{
		Use:   "compress -m MODEL -i ROWS -o MODEL",
		Short: "Make a model smaller and faster, and refuse one that changes its alerts",
		Example: `  elbo compress -m big.elbo -i train.parquet -o small.elbo --auto
  elbo compress -m big.elbo -i train.parquet -o small.elbo --prune-blocks 0.8 --quantize int8
  elbo compress -m big.elbo -i train.parquet -o small.elbo --auto --test test.parquet --label label`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.seedGiven = cmd.Flags().Changed("seed")
			return a.compressVerb(cmd.Context(), f)
		},
	}
	fl, c := cmd.Flags(), &f.config
	f.in.add(fl)
	fl.StringVarP(&f.model, "model", "m", "", "model file to compress")
	fl.StringVarP(&f.out, "output", "o", "", "model file to write")
	fl.Float64Var(&c.Neurons, "prune-neurons", 0, "share of each hidden layer's neurons to remove")
	fl.Float64Var(&c.Blocks, "prune-blocks", 0, "share of weights to prune in blocks of four neurons, which run at a speed of 1/density")
	fl.Float64Var(&c.Weights, "prune-weights", 0, "share of weights to prune one by one")
	fl.StringVar(&f.quantize, "quantize", "", "int8 or bf16 weights")
	fl.BoolVar(&f.auto, "auto", false, "search for the fastest model that passes the gate, and print the frontier")
	fl.Float64Var(&f.budget, "budget", compress.MaxChanged, "largest share of rows whose alert may change")
	fl.StringVar(&f.test, "test", "", "labelled rows that the gate judges by too; needs --label")
	fl.StringVar(&f.label, "label", "", "column of --test that says which rows are anomalies")
	fl.BoolVar(&f.force, "force", false, "write the model even if it fails the gate, which it will say ever after")
	fl.Uint64Var(&f.seed, "seed", 0, "of the rows held out (default: the model's, so that it meets rows that it was not trained on)")
	fl.Float64Var(&f.heldOut, "held-out", 0.1, "share of rows held out to judge by")
	fl.StringVar(&f.timeColumn, "time-column", "", "hold out the latest rows by this column")
	fl.IntVar(&c.Workers, "workers", 0, "goroutines (default: one for each core); the result does not depend on it")
	fl.Int64Var(&f.memory, "memory-mb", 1024, "memory for packed rows in MiB")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace an existing model")
	fl.BoolVar(&f.json, "json", false, "print what came of it as JSON")
	return cmd
}

// validate checks the flags and completes the configuration.
func (f *compressFlags) validate() error {
	c := &f.config
	if f.out == "" {
		return usage("no output: give -o MODEL.elbo")
	}
	if !f.overwrite {
		if _, err := os.Lstat(f.out); err == nil {
			return usage("%s %v; give --overwrite to replace it", f.out, durable.ErrExists)
		}
	}
	if (f.test == "") != (f.label == "") {
		return usage("--test and --label go together: labelled rows and the column that labels them")
	}
	c.Name, c.Precision, c.Rules.Changed = vae.NameOf(f.out), vae.Precision(f.quantize), f.budget
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if err := c.Validate(); err != nil {
		return &exitError{ExitUsage, err}
	}
	if f.auto == (c.Recipe() != "") {
		return usage("what is to be done: give --auto, or some of --prune-neurons, --prune-blocks, --prune-weights and --quantize")
	}
	return nil
}

func (a *app) compressVerb(ctx context.Context, f compressFlags) error {
	if err := f.validate(); err != nil {
		return err
	}
	m, err := a.load(f.model)
	if err != nil {
		return err
	}
	src, err := a.open(f.in, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	ctx, cancel := a.untilDrain(ctx)
	defer cancel()
	if !f.seedGiven {
		f.seed = m.Training.Seed
	}
	table, err := train.NewTable(ctx, train.Config{Seed: f.seed, HeldOut: f.heldOut, TimeColumn: f.timeColumn, Workers: f.config.Workers,
		Contamination: m.Training.Contamination, TargetRate: m.Calibration.TargetRate, Memory: f.memory << 20}, &trainingData{src: src}, &m.Spec)
	if err != nil {
		return err
	}
	rows := compress.Rows{}
	if rows.HeldOut, err = table.HeldOutRows(ctx, mostHeldOut); err != nil {
		return err
	}
	defer rows.HeldOut.Release()
	began := time.Now()
	small, err := compress.Run(ctx, m, table, rows, f.config)
	if err != nil {
		return err
	}
	speeds, err := compress.Speeds(rows.HeldOut, m, small)
	if err != nil {
		return err
	}
	return a.compressed(m, small, f, speeds, time.Since(began))
}

// mostHeldOut is the most rows that a compressed model is judged on.
const mostHeldOut = 20_000

// compressed prints what came of it, and writes the model or refuses to.
func (a *app) compressed(m, small *vae.Model, f compressFlags, speeds []float64, took time.Duration) error {
	g := &small.Compression.Gate
	failed := g.Failed
	if !(speeds[1] > speeds[0]) {
		failed = append(failed[:len(failed):len(failed)], fmt.Sprintf("%s rows/s on this machine, its parent %s: it is not faster", count(int64(speeds[1])), count(int64(speeds[0]))))
	}
	was, is := m.Size(), small.Size()
	if f.json {
		err := json.NewEncoder(a.out).Encode(struct {
			Output  string     `json:"output"`
			Recipe  string     `json:"recipe"`
			Size    [2]int     `json:"bytes"`
			MACs    [2]int     `json:"multiply_adds"`
			Speeds  [2]float64 `json:"rows_per_s"`
			Gate    vae.Gate   `json:"gate"`
			Seconds float64    `json:"seconds"`
		}{f.out, small.Compression.Recipe, [2]int{was.Bytes, is.Bytes}, [2]int{was.MultiplyAdds, is.MultiplyAdds}, [2]float64{speeds[0], speeds[1]}, *g, took.Seconds()})
		if err != nil {
			return err
		}
	}
	a.say("%s: %.1f times as fast (%s rows/s on one core, its parent %s), %.3g%% of the bytes; rank correlation %.5f, %.3g%% of %s rows change their alert",
		f.out, speeds[1]/speeds[0], count(int64(speeds[1])), count(int64(speeds[0])), 100*float64(is.Bytes)/float64(was.Bytes), g.Spearman, 100*g.Changed, count(g.Rows))
	if len(failed) > 0 && !f.force {
		return fmt.Errorf("%s is not written: %s; compress less, or give --force to have it all the same", f.out, strings.Join(failed, "; "))
	}
	return a.save(small, f.out, f.overwrite)
}

var _ arrow.Record
