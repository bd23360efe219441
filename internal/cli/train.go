package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// trainFlags are the flags of train that are not fields of train.Config.
type trainFlags struct {
	in                         inputFlags
	out                        string
	overwrite, json            bool
	encoder, decoder           []int
	activation                 string
	beta                       float64
	kinds, transforms, heads   []string
	memory                     int64
	schedule                   string
	warmup, stepEvery          int
	gamma, floor, momentum, wd float64
	workers                    int
	latent                     int
	output                     string
	sdFloor, maxMissing, fixed float64
	timeParts                  []string
	leftOut                    string
}

func (a *app) train() *cobra.Command {
	var f trainFlags
	var c train.Config
	cmd := &cobra.Command{
		Use:   "train -i INPUT -o MODEL",
		Short: "Train a model on normal rows",
		Example: `  elbo train -i 'day/*.parquet' -o pay.elbo --ignore label --seed 1
  elbo train -i day/ -o pay.elbo --kind status=categorical --transform amount=log1p`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.trainVerb(cmd.Context(), f, c) },
	}
	fl := cmd.Flags()
	f.in.add(fl)
	fl.StringVarP(&f.out, "output", "o", "", "model file to write")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace an existing model")
	fl.BoolVar(&f.json, "json", false, "print the training summary as JSON")
	fl.Uint64Var(&c.Seed, "seed", 0, "the same seed, rows and settings give the same model, byte for byte")
	fl.IntVar(&c.Steps, "steps", 0, "steps to take (default 1500, or ten passes over the rows if that is more)")
	fl.IntVar(&c.Batch, "batch", 256, "rows in one step")
	fl.IntVar(&f.workers, "workers", 0, "parallel workers; the model does not depend on it (default: processors)")
	fl.StringVar(&c.Optimizer.Name, "optimizer", "adam", "adam, adamw, rmsprop or sgd")
	fl.Float64Var(&f.momentum, "momentum", 0, "momentum of sgd and rmsprop")
	fl.Float64Var(&f.wd, "weight-decay", 0, "decoupled weight decay of adamw")
	fl.Float64Var(&c.Rate, "rate", 2e-3, "learning rate")
	fl.StringVar(&f.schedule, "schedule", "cosine", "constant, step, exponential or cosine")
	fl.IntVar(&f.warmup, "warmup", 50, "steps over which the learning rate rises from 0")
	fl.IntVar(&f.stepEvery, "step-every", 0, "steps between the drops of --schedule step")
	fl.Float64Var(&f.gamma, "gamma", 0, "factor of a drop (step), or of one step (exponential)")
	fl.Float64Var(&f.floor, "rate-floor", 1e-5, "smallest learning rate")
	fl.Float64Var(&f.beta, "beta", 1, "weight of the KL divergence")
	fl.IntVar(&c.KLWarmup, "kl-warmup", 0, "steps over which beta rises from 0")
	fl.Float64Var(&c.FreeBits, "free-bits", 0, "nats per latent and row that cost nothing")
	fl.Float64Var(&c.Clip, "clip", 10, "largest norm of a gradient")
	fl.Float64Var(&c.HeldOut, "held-out", 0.1, "share of rows kept for early stop and calibration")
	fl.StringVar(&c.TimeColumn, "time-column", "", "hold out the latest rows by this column")
	fl.IntVar(&c.Patience, "patience", 10, "evaluations without progress that end training; -1 never")
	fl.IntVar(&c.EvalEvery, "eval-every", 0, "steps between evaluations (default: a twentieth of the steps)")
	fl.IntVar(&c.Members, "members", 2, "densities that make up the score: 1 the autoencoder alone (fast), 2 with a mixture")
	fl.Float64Var(&c.Contamination, "contamination", 0, "share of anomalies among the training rows, as far as known: leaves likely ones out")
	fl.StringVar(&f.leftOut, "left-out", "", "CSV file for the rows that --contamination leaves out (row, isolation score)")
	fl.Float64Var(&c.TargetRate, "target-rate", 1e-3, "share of normal rows that may be flagged by mistake")
	fl.IntSliceVar(&f.encoder, "hidden", []int{128, 64}, "widths of the encoder's hidden layers")
	fl.IntSliceVar(&f.decoder, "decoder", nil, "widths of the decoder's hidden layers (default: --hidden reversed)")
	fl.StringVar(&f.activation, "activation", "relu", "relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, softplus or identity")
	fl.IntVar(&f.latent, "latent", 0, "latent size (default: half of the features, 2 to 16)")
	fl.StringVar(&f.output, "output-activation", "identity", "activation of Gaussian means; sigmoid for raw numbers in [0,1]")
	fl.Float64Var(&f.sdFloor, "sd-floor", 0.3, "smallest learned standard deviation, on the standardised scale")
	fl.Float64Var(&f.maxMissing, "max-missing", 0.5, "share of missing columns above which a row is not judged")
	fl.StringSliceVar(&f.kinds, "kind", nil, "COLUMN=numeric|boolean|categorical")
	fl.StringSliceVar(&f.transforms, "transform", nil, "[COLUMN=]standardise|log1p|raw")
	fl.StringSliceVar(&f.heads, "head", nil, "[COLUMN=]gaussian|gaussian_fixed|bernoulli")
	fl.Float64Var(&f.fixed, "sd", 1, "standard deviation of gaussian_fixed heads")
	fl.StringSliceVar(&f.timeParts, "time-parts", nil, "parts of timestamps: hour, weekday, monthday, yearday (default hour,weekday; of dates weekday)")
	fl.Int64Var(&f.memory, "memory-mb", 1024, "memory for packed rows in MiB; larger tables are read again in every epoch")
	fl.StringVar(&c.Checkpoint, "checkpoint", "", "checkpoint file (default: MODEL.checkpoint, removed at the end)")
	fl.BoolVar(&c.Resume, "resume", false, "continue from the checkpoint")
	return cmd
}

// config turns the flags into a training configuration.
func (f trainFlags) config(c train.Config) (train.Config, error) {
	c.Name, c.Version = vae.NameOf(f.out), Version
	if c.Workers = f.workers; c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	c.Beta, c.Memory = &f.beta, f.memory<<20
	c.Optimizer.Momentum, c.Optimizer.WeightDecay = f.momentum, f.wd
	c.Schedule = train.Schedule{Name: f.schedule, Warmup: f.warmup, StepEvery: f.stepEvery, Gamma: f.gamma, Floor: f.floor}
	layers := func(widths []int) []vae.Layer {
		out := []vae.Layer{}
		for _, w := range widths {
			out = append(out, vae.Layer{Width: w, Activation: f.activation})
		}
		return out
	}
	decoder := f.decoder
	if decoder == nil {
		for i := len(f.encoder) - 1; i >= 0; i-- {
			decoder = append(decoder, f.encoder[i])
		}
	}
	c.Network = vae.Spec{Encoder: layers(f.encoder), Decoder: layers(decoder), Latent: f.latent, Output: f.output, SDFloor: f.sdFloor, MaxMissing: f.maxMissing}
	c.Overrides = vae.Overrides{Kinds: map[string]vae.Kind{}, Transforms: map[string]vae.Transform{}, Heads: map[string]vae.Head{}, SD: f.fixed, Parts: f.timeParts}
	for _, s := range f.kinds {
		name, v, ok := strings.Cut(s, "=")
		if !ok {
			return c, usage("--kind %q: want COLUMN=KIND, as in --kind status=categorical", s)
		}
		c.Overrides.Kinds[name] = vae.Kind(v)
	}
	for _, s := range f.transforms {
		name, v := cutLast(s)
		c.Overrides.Transforms[name] = vae.Transform(v)
	}
	for _, s := range f.heads {
		name, v := cutLast(s)
		c.Overrides.Heads[name] = vae.Head(v)
	}
	return c, nil
}

// cutLast parts "COLUMN=VALUE" or "VALUE" at the last sign of equality.
func cutLast(s string) (name, value string) {
	i := strings.LastIndexByte(s, '=')
	return s[:max(i, 0)], s[i+1:]
}

func (a *app) trainVerb(ctx context.Context, f trainFlags, c train.Config) error {
	if f.out == "" {
		return usage("no output: give -o MODEL.elbo")
	}
	c, err := f.config(c)
	if err != nil {
		return err
	}
	if !f.overwrite {
		if _, err := os.Lstat(f.out); err == nil {
			return usage("%s %v; give --overwrite to replace it", f.out, durable.ErrExists)
		}
	}
	if f.leftOut != "" {
		if c.Contamination == 0 {
			return usage("--left-out: no row is left out without --contamination")
		}
	}
	var leftOut bytes.Buffer
	c.LeftOut = func(row int64, score float64) { fmt.Fprintf(&leftOut, "%d,%.4f\n", row, score) }
	keep := c.Checkpoint != ""
	if !keep {
		c.Checkpoint = f.out + ".checkpoint"
	}
	if err := c.Validate(); err != nil {
		return &exitError{ExitUsage, err}
	}
	src, err := a.open(f.in, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	ctx, cancel := a.untilDrain(ctx)
	defer cancel()
	p := a.progress()
	c.Progress = func(t train.Progress) { p.show(func(took time.Duration) string { return trainLine(t, took) }) }
	model, err := train.Run(ctx, c, &trainingData{src: src})
	p.done()
	if err != nil {
		if ctx.Err() != nil {
			a.sayCheckpoint(c.Checkpoint)
		}
		if errors.Is(err, train.ErrTooFewRows) {
			return fmt.Errorf("%s: %w: give more normal rows", strings.Join(f.in.paths, ", "), err)
		}
		return err
	}
	if err := a.save(model, f.out, f.overwrite); err != nil {
		return err
	}
	if f.leftOut != "" {
		err := durable.WriteFile(durable.OS, f.leftOut, durable.Options{Overwrite: f.overwrite}, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "row,isolation\n%s", leftOut.Bytes())
			return err
		})
		if err != nil {
			return err
		}
	}
	if !keep {
		if err := os.Remove(c.Checkpoint); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return a.trained(ctx, model, f, src.Schema, time.Since(p.started))
}

// sayCheckpoint tells an interrupted user what was left, if anything was.
func (a *app) sayCheckpoint(path string) {
	if _, err := os.Stat(path); err == nil {
		a.say("a checkpoint is in %s: the same command with --resume continues", path)
	}
}

func trainLine(t train.Progress, took time.Duration) string {
	share := float64(t.Step) / float64(t.Steps)
	return fmt.Sprintf("step %d of %d (%.0f%%)  loss %.3f  recon %.3f  KL %.3f  held out %.3f  %s  %s left",
		t.Step, t.Steps, 100*share, t.Loss, t.Recon, t.KL, t.HeldOut, rate(t.Rows, took), left(took, share))
}

// mostWarnings is how many warnings of a training are printed one by one.
const mostWarnings = 8

// warnings prints what training wondered about.
func (a *app) warnings(m *vae.Model, path string) {
	all := m.Training.Warnings
	for _, w := range all[:min(len(all), mostWarnings)] {
		a.warn("%s", w)
	}
	if more := len(all) - mostWarnings; more > 0 {
		a.warn("%d more like these: elbo inspect --json %s shows all", more, path)
	}
}

// trained prints what came of it.
func (a *app) trained(ctx context.Context, m *vae.Model, f trainFlags, schemaOf func(context.Context) (*arrow.Schema, error), took time.Duration) error {
	if f.json {
		return json.NewEncoder(a.out).Encode(struct {
			Model    string       `json:"model"`
			Path     string       `json:"path"`
			Size     vae.Size     `json:"size"`
			Limit    float64      `json:"limit"`
			Training vae.Training `json:"training"`
		}{m.ID(), f.out, m.Size(), m.Calibration.Limit, m.Training})
	}
	a.warnings(m, f.out)
	schema, err := schemaOf(ctx)
	if err != nil {
		return err
	}
	names := make([]string, len(m.Spec.Columns))
	for i := range names {
		names[i] = m.Spec.Columns[i].Name
	}
	if n := castNote(schema, names); n > 0 {
		a.say("note: %d columns are double or integer: standardised in double precision, then scored as float32", n)
	}
	t := &m.Training
	members := "the autoencoder alone"
	if mix := m.Spec.Mixture; mix != nil {
		members = fmt.Sprintf("the autoencoder and a mixture of %d groups", mix.Components)
	}
	a.say("%s: %s; %s rows, %d steps (best at %d) in %s; held-out recon %.3f + KL %.3f nats, train recon %.3f; %d of %d latents active; limit %.4g nats for a rate of %g",
		f.out, members, count(t.Rows), t.Steps, t.BestStep, took.Round(10*time.Millisecond), t.HeldOutRecon, t.HeldOutKL, t.TrainRecon,
		t.ActiveLatents, m.Spec.Latent, m.Calibration.Limit, m.Calibration.TargetRate)
	return nil
}
