package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/compress"
	"github.com/elbo-stream/elbo/vae/eval"
	"github.com/elbo-stream/elbo/vae/train"
)

type compressFlags struct {
	in              inputFlags
	model, out      string
	test, label     string
	quantize        string
	budget, heldOut float64
	seed            uint64
	seedGiven       bool
	timeColumn      string
	memory          int64
	auto, force     bool
	overwrite, json bool
	config          compress.Config
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
	fl.IntVar(&c.Steps, "steps", 0, "steps in which a pruned network is trained to follow its parent (default 500; -1 for none)")
	fl.StringVar(&f.quantize, "quantize", "", "int8 or bf16 weights")
	fl.BoolVar(&c.Distil, "distill", false, "make one member of two: an autoencoder that ranks rows as both did")
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
		return usage("what is to be done: give --auto, or some of --prune-neurons, --prune-blocks, --prune-weights, --distill and --quantize")
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
	rows, err := a.gateRows(ctx, f, table)
	if err != nil {
		return err
	}
	defer release(rows)
	if f.auto {
		return a.compressAuto(ctx, m, table, rows, f)
	}
	small, err := compress.Run(ctx, m, table, rows, f.config)
	if err != nil {
		return err
	}
	speeds, err := compress.Speeds(rows.HeldOut, m, small)
	if err != nil {
		return err
	}
	c := &compress.Candidate{Recipe: f.config.Recipe(), Size: small.Size(), RowsPerSecond: speeds[1], ParentsPerSecond: speeds[0],
		Gate: small.Compression.Gate, Model: small}
	if f.json {
		if err := json.NewEncoder(a.out).Encode(c); err != nil {
			return err
		}
	}
	return a.writeCompressed(m, c, f)
}

// mostHeldOut is the most rows that a compressed model is judged on.
const mostHeldOut = 20_000

// gateRows gathers the rows that the gate judges by.
func (a *app) gateRows(ctx context.Context, f compressFlags, table *train.Table) (rows compress.Rows, err error) {
	if rows.HeldOut, err = table.HeldOutRows(ctx, mostHeldOut); err != nil || f.test == "" {
		return rows, err
	}
	src, err := a.open(inputFlags{paths: []string{f.test}}, 0)
	if err != nil {
		return rows, err
	}
	defer src.Close()
	var judged eval.Judged
	for batch, err := range src.Batches(ctx, nil) {
		if err != nil {
			return rows, err
		}
		rec := batch.Record
		at := rec.Schema().FieldIndices(f.label)
		if len(at) != 1 {
			return rows, usage("--label %s: %s has %d columns of that name", f.label, f.test, len(at))
		}
		zeros := array.NewFloat32Builder(memory.DefaultAllocator)
		zeros.AppendValues(make([]float32, rec.NumRows()), nil)
		none := zeros.NewArray()
		err := judged.Add(none, rec.Column(at[0]))
		none.Release()
		if err != nil {
			return rows, fmt.Errorf("%s: %w", f.test, err)
		}
		rows.Labelled = append(rows.Labelled, rec) // released at the end
	}
	if judged.NoLabel > 0 {
		return rows, usage("%s: %s rows have no label in %s; leave them out", f.test, count(judged.NoLabel), f.label)
	}
	rows.Labels = judged.Labels
	return rows, nil
}

func release(rows compress.Rows) {
	rows.HeldOut.Release()
	for _, rec := range rows.Labelled {
		rec.Release()
	}
}

// compressAuto searches, prints the frontier and writes the fastest model that
// passed.
func (a *app) compressAuto(ctx context.Context, m *vae.Model, table *train.Table, rows compress.Rows, f compressFlags) error {
	p := a.progress()
	list, err := compress.Auto(ctx, m, table, rows, f.config, func(done, all int, recipe string) {
		p.show(func(time.Duration) string { return fmt.Sprintf("%d of %d tried, now %s", done, all, recipe) })
	})
	p.done()
	if err != nil {
		return err
	}
	if f.json {
		err = json.NewEncoder(a.out).Encode(list)
	} else {
		err = a.frontier(m, list)
	}
	if err != nil {
		return err
	}
	best := compress.Fastest(list)
	if best == nil {
		return fmt.Errorf("%s is not written: of %d ways to compress %s none passed the gate and is faster; give more rows, or a larger --budget", f.out, len(list), m.ID())
	}
	return a.writeCompressed(m, best, f)
}

// frontier prints the candidates, the fastest first, as a table and a chart.
func (a *app) frontier(m *vae.Model, list []*compress.Candidate) error {
	size := m.Size()
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "TIMES\tROWS/S\tBYTES\tMULTIPLY-ADDS\tRANK CORR.\tCHANGED\tGATE\tRECIPE\t")
	row := func(times, rate float64, s vae.Size, spearman, changed, gate, recipe string) {
		fmt.Fprintf(w, "%.2f\t%s\t%.1f%%\t%.1f%%\t%s\t%s\t%s\t%s\t\n", times, count(int64(rate)), 100*float64(s.Bytes)/float64(size.Bytes),
			100*float64(s.MultiplyAdds)/float64(size.MultiplyAdds), spearman, changed, gate, recipe)
	}
	for _, c := range list {
		gate, mark := "failed", ""
		if c.Passed() {
			gate = "passed"
		} else if len(c.Gate.Failed) == 0 {
			gate = "slower"
		}
		if c.Frontier {
			mark = " *"
		}
		row(c.Times(), c.RowsPerSecond, c.Size, fmt.Sprintf("%.5f", c.Gate.Spearman), fmt.Sprintf("%.3f%%", 100*c.Gate.Changed), gate, strings.TrimPrefix(c.Recipe, "--")+mark)
	}
	row(1, list[0].ParentsPerSecond, size, "1", "0", "-", m.Name)
	if err := w.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n* no other is both faster and nearer to the parent. One core, %s held-out rows.\n\ntimes as fast, by rank correlation (frontier)\n", count(list[0].Gate.Rows))
	most := list[0].Times()
	for _, c := range list {
		if !c.Frontier {
			continue
		}
		bar, end := "█", ""
		if !c.Passed() {
			bar, end = "░", " failed"
		}
		cells := max(1, int(math.Round(c.Times()/most*float64(max(a.width()-28, 10)))))
		fmt.Fprintf(&b, "%.5f ▏%s %.2f%s\n", c.Gate.Spearman, strings.Repeat(bar, cells), c.Times(), end)
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

// writeCompressed says what came of it, and writes the model or refuses to.
func (a *app) writeCompressed(m *vae.Model, c *compress.Candidate, f compressFlags) error {
	was, g := m.Size(), c.Gate
	a.say("%s: %.2f times as fast (%s rows/s on one core, its parent %s), %.1f%% of the bytes, %.1f%% of the multiply-adds; rank correlation %.5f, %.3g%% of %s held-out rows change their alert",
		c.Recipe, c.Times(), count(int64(c.RowsPerSecond)), count(int64(c.ParentsPerSecond)), 100*float64(c.Size.Bytes)/float64(was.Bytes),
		100*float64(c.Size.MultiplyAdds)/float64(was.MultiplyAdds), g.Spearman, 100*g.Changed, count(g.Rows))
	failed := g.Failed
	if len(failed) == 0 && !c.Passed() {
		failed = []string{fmt.Sprintf("it is not faster than its parent on this machine (%s against %s rows/s)", count(int64(c.RowsPerSecond)), count(int64(c.ParentsPerSecond)))}
	}
	if len(failed) > 0 && !f.force {
		return fmt.Errorf("%s is not written: %s; compress less, or give --force to have it all the same", f.out, strings.Join(failed, "; "))
	}
	if len(failed) > 0 {
		a.warn("written by force: %s", strings.Join(failed, "; "))
	}
	if err := a.save(c.Model, f.out, f.overwrite); err != nil {
		return err
	}
	a.say("%s: %s", f.out, c.Model.ID())
	return nil
}
