package train

import (
	"errors"
	"fmt"
	"strings"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// Config says how to train. The zero value trains with the defaults, which are
// the same for every table.
type Config struct {
	Name    string // of the model; empty means "model"
	Version string // of the program, kept in the model
	// Ignore names columns that are not part of the model.
	Ignore    []string
	Overrides vae.Overrides
	// Network holds hidden layers, latent size, output activation, SD floor and
	// missing limit; zero fields take their default. Its columns are ignored.
	Network vae.Spec

	Seed    uint64
	Steps   int // 0 means DefaultSteps of the number of training rows
	Batch   int // rows in one step; 0 means 256
	Workers int // 0 means 1; the result does not depend on it

	Optimizer OptimizerConfig // default adam
	Rate      float64         // learning rate; 0 means 0.002
	Schedule  Schedule        // default cosine with 50 warm-up steps and floor 1e-5
	Beta      *float64        // weight of the KL; nil means 1
	KLWarmup  int             // steps over which beta rises from 0
	FreeBits  float64         // nats per latent and row that cost nothing
	Clip      float64         // largest norm of a step's gradient; 0 means 10

	// HeldOut is the share of rows kept for early stop and calibration; 0 means
	// 0.1. It is raised so that about 20 rows are held out, and lowered to
	// maxHeldOut rows.
	HeldOut float64
	// TimeColumn, when set, holds out the latest rows by this column instead of
	// rows chosen by a hash of their position.
	TimeColumn string
	EvalEvery  int     // steps between evaluations; 0 means a twentieth of the steps
	Patience   int     // evaluations without a better one that end training; 0 means 10, below 0 never
	TargetRate float64 // false alarms among normal rows; 0 means 0.001

	// Members is how many densities make up the score: 1 is the autoencoder alone,
	// which is fast, 2 adds a mixture. 0 means 2.
	Members int
	// Components is the most components of the mixture; 0 means 256.
	Components int
	// Contamination is the share of training rows that are anomalies, as far as it
	// is known; 0 means that none is. Above 0 the rows that an isolation forest
	// finds strangest (four times the share) are left out, each step leaves the
	// share of its rows out that fit worst, and limits allow for the share.
	Contamination float64
	// LeftOut, when set, is told the place in the table (from 0) and the isolation
	// score of each row that Contamination leaves out, strangest first.
	LeftOut func(row int64, score float64)

	// Memory bounds the packed rows kept in memory, in bytes; above it row groups
	// are read again in every epoch, in random order, through a shuffle buffer of
	// this size. 0 means 1 GiB.
	Memory int64

	// Checkpoint is a file that an interrupted run leaves and Resume continues
	// from; empty means none. It is also written every CheckpointEvery
	// evaluations; 0 means 1.
	Checkpoint      string
	CheckpointEvery int
	Resume          bool

	// Progress, when set, is told after every evaluation and every few steps.
	Progress func(Progress)

	level *kernel.Level // of the kernels, for tests; nil means the process's
	asIs  bool          // hides no values of columns with gaps, for tests
}

// Progress is where training stands.
type Progress struct {
	vae.Point
	Steps     int
	Rows      int64 // rows trained on so far, counted once per use
	Evaluated bool  // HeldOut is of this very step
}

const (
	maxHeldOut   = 50_000
	minHeldOut   = 20
	minRows      = 50
	minTrained   = 10
	fewRows      = 200
	largestSteps = 20_000
)

// DefaultSteps is the budget for a number of training rows: 1,500 steps, or ten
// passes over the rows where that is more, at most 20,000.
func DefaultSteps(rows int64, batch int) int {
	return max(1500, int(min(10*rows/int64(batch), largestSteps)))
}

func (c Config) withDefaults() Config {
	set := func(dst *int, v int) {
		if *dst == 0 {
			*dst = v
		}
	}
	setF := func(dst *float64, v float64) {
		if *dst == 0 {
			*dst = v
		}
	}
	set(&c.Batch, 256)
	set(&c.Workers, 1)
	set(&c.Patience, 10)
	set(&c.CheckpointEvery, 1)
	set(&c.Members, 2)
	set(&c.Components, defaultComponents)
	setF(&c.Rate, 2e-3)
	setF(&c.Clip, 10)
	setF(&c.HeldOut, 0.1)
	setF(&c.TargetRate, 1e-3)
	if c.Beta == nil {
		one := 1.0
		c.Beta = &one
	}
	if c.Memory == 0 {
		c.Memory = 1 << 30
	}
	if c.Name == "" {
		c.Name = "model"
	}
	if c.Optimizer.Name == "" {
		c.Optimizer.Name = "adam"
	}
	if c.Schedule.Name == "" {
		c.Schedule.Name = "cosine"
		set(&c.Schedule.Warmup, 50)
		setF(&c.Schedule.Floor, 1e-5)
	}
	return c
}

// Validate reports everything that is wrong with the settings, joined. Run calls
// it; it is for callers that want to know before they open their data.
func (c Config) Validate() error { return c.withDefaults().validate() }

func (c Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Steps >= 0 && c.Steps <= 1<<30, "steps: %d, want 1 or more", c.Steps)
	check(c.Batch >= 1 && c.Batch <= 1<<20, "batch: %d, want 1 to %d", c.Batch, 1<<20)
	check(c.Workers >= 1 && c.Workers <= 1024, "workers: %d, want 1 to 1024", c.Workers)
	check(c.Rate > 0 && c.Rate <= 100, "rate: %v, want above 0", c.Rate)
	check(*c.Beta >= 0 && *c.Beta <= 1e6, "beta: %v, want 0 or more", *c.Beta)
	check(c.Members == 1 || c.Members == 2, "members: %d, want 1 or 2", c.Members)
	check(c.Components >= 1 && c.Components <= vae.MaxComponents, "components: %d, want 1 to %d", c.Components, vae.MaxComponents)
	check(c.Contamination >= 0 && c.Contamination <= maxContamination, "contamination: %v, want a share from 0 to %v", c.Contamination, maxContamination)
	check(c.KLWarmup >= 0, "kl_warmup: %d, want 0 or more steps", c.KLWarmup)
	check(c.FreeBits >= 0 && c.FreeBits <= 1e3, "free_bits: %v, want 0 or more nats", c.FreeBits)
	check(c.Clip > 0, "clip: %v, want above 0", c.Clip)
	check(c.HeldOut > 0 && c.HeldOut <= 0.5, "held_out: %v, want a share above 0 and at most 0.5", c.HeldOut)
	check(c.TargetRate > 0 && c.TargetRate < 1, "target_rate: %v, want a share above 0 and below 1", c.TargetRate)
	check(validName(c.Name), "name: %q, want 1 to 100 of A-Z a-z 0-9 _ . -", c.Name)
	check(c.CheckpointEvery >= 1, "checkpoint_every: %d evaluations, want 1 or more", c.CheckpointEvery)
	check(c.Memory > 0, "memory: %d bytes, want more than 0", c.Memory)
	check(c.EvalEvery >= 0, "eval_every: %d, want 0 or more steps", c.EvalEvery)
	check(!c.Resume || c.Checkpoint != "", "resume: needs a checkpoint file")
	errs = append(errs, c.Optimizer.validate(), c.Schedule.Validate())
	return errors.Join(errs...)
}

// validName says whether a model may have this name: it is asked before the
// training and not after.
func validName(s string) bool {
	odd := func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-')
	}
	return s != "" && len(s) <= 100 && strings.IndexFunc(s, odd) < 0
}
