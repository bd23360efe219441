// Package compress makes models smaller and faster and holds them to what their
// parents said.
//
//	table, err := train.NewTable(ctx, train.Config{Seed: m.Training.Seed}, data, &m.Spec)
//	small, err := compress.Run(ctx, m, table, rows, compress.Config{Blocks: 0.8, Precision: vae.Int8})
//
// Weights are taken out by least squares (see fit), layer by layer: the weights that
// stay make up for those that go, on rows of the table. What people get wrong: a
// pruned model is not trained again on its own loss, but fitted to its parent, since
// it is the parent's alerts that have to be kept; and a model compressed on rows that
// are unlike those that it will see is judged on the wrong rows.
package compress

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gonum.org/v1/gonum/mat"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// Config says how to compress. What is zero is not done.
type Config struct {
	Name      string        // of the model; empty means its parent's
	Neurons   float64       // share of each hidden layer's neurons to remove
	Blocks    float64       // share of weights to prune in blocks of four outputs
	Weights   float64       // share of weights to prune one by one
	Precision vae.Precision // of the weights: int8, bf16 or empty
	// Steps is how many steps a pruned network is trained to follow its parent; 0 means
	// 500, below 0 none.
	Steps int
	// Distil makes one member of two: the mixture goes, and the autoencoder is trained
	// to rank rows as both did.
	Distil bool
	// Whole keeps every layer int8, whatever it does to the scores.
	Whole   bool
	Workers int // 0 means 1; the result does not depend on it
	Rules   Rules
}

// Recipe says in the words of the command line what is done.
func (c Config) Recipe() string {
	var words []string
	add := func(format string, v float64) {
		if v > 0 {
			words = append(words, fmt.Sprintf(format, v))
		}
	}
	add("--prune-neurons %g", c.Neurons)
	add("--prune-blocks %g", c.Blocks)
	add("--prune-weights %g", c.Weights)
	if c.Distil {
		words = append(words, "--distill")
	}
	if c.Precision != "" {
		words = append(words, "--quantize "+string(c.Precision))
	}
	return strings.Join(words, " ")
}

// Validate reports everything that is wrong with the settings, joined.
func (c Config) Validate() error {
	var errs []error
	share := func(name string, v float64) {
		if !(v >= 0 && v < 1) {
			errs = append(errs, fmt.Errorf("%s: %v, want a share from 0 to below 1", name, v))
		}
	}
	share("prune_neurons", c.Neurons)
	share("prune_blocks", c.Blocks)
	share("prune_weights", c.Weights)
	if c.Blocks > 0 && c.Weights > 0 {
		errs = append(errs, errors.New("prune_blocks and prune_weights: a layer is pruned in one way or the other"))
	}
	if c.Precision != "" && c.Precision != vae.Int8 && c.Precision != vae.BF16 {
		errs = append(errs, fmt.Errorf("quantize: %q, want int8 or bf16", string(c.Precision)))
	}
	return errors.Join(errs...)
}

// sampleRows is the most rows that layers are fitted to.
const sampleRows = 8192

// Run compresses m and compares the result with it on rows. A model that fails the
// gate is returned all the same: its Compression says what it failed.
func Run(ctx context.Context, m *vae.Model, t *train.Table, rows Rows, c Config) (*vae.Model, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Distil && m.Spec.Mixture == nil {
		return nil, fmt.Errorf("--distill: %s has one member already", m.ID())
	}
	j, err := newJudge(m, rows, c.Rules)
	if err != nil {
		return nil, err
	}
	b := newBench(m, t)
	return b.compress(ctx, c, j)
}

// A bench holds what all candidates of one parent share.
type bench struct {
	m    *vae.Model
	t    *train.Table
	x    *mat.Dense // encoder inputs of the rows that layers are fitted to
	full *trace     // of the parent
}

func newBench(m *vae.Model, t *train.Table) *bench {
	x, n := t.Inputs(sampleRows)
	_, inputs := m.Spec.Inputs()
	b := &bench{m: m, t: t, x: mat.NewDense(n, inputs, nil)}
	raw := b.x.RawMatrix().Data
	for i, v := range x {
		raw[i] = float64(v)
	}
	p := m.Parts()
	b.full = newWork(&p).run(b.x)
	return b
}

// compress makes one candidate and judges it.
func (b *bench) compress(ctx context.Context, c Config, j *judge) (*vae.Model, error) {
	w, err := b.prune(ctx, c)
	if err != nil {
		return nil, err
	}
	return b.quantize(ctx, w, c, j)
}

// prune makes the network that c asks for, its weights float32.
func (b *bench) prune(ctx context.Context, c Config) (*work, error) {
	p := b.m.Parts()
	w := newWork(&p)
	if c.Neurons > 0 {
		w.dropLatents(b.full)
		if err := w.dropNeurons(b.full, c.Neurons); err != nil {
			return nil, err
		}
	}
	var err error
	switch {
	case c.Blocks > 0:
		err = w.sparse(b.full, 1-c.Blocks, vae.Blocks, c.Workers)
	case c.Weights > 0:
		err = w.sparse(b.full, 1-c.Weights, vae.Weights, c.Workers)
	}
	if err == nil && (c.Neurons > 0 || c.Blocks > 0 || c.Weights > 0) {
		err = b.follow(ctx, w, c)
	}
	if err == nil && c.Distil {
		err = b.distil(ctx, w, c)
	}
	return w, err
}

// What an autoencoder is trained with to rank as two members did.
const (
	distilSteps = 2000
	distilRate  = 1e-3
)

// distil trains the network to rank rows as both members did.
func (b *bench) distil(ctx context.Context, w *work, c Config) error {
	if c.Steps == 0 {
		c.Steps = distilSteps
	}
	student := b.m.Parts()
	student.Compression, student.Mixture = nil, nil
	student.Spec, student.Params, _ = w.parts()
	student.Spec.Mixture = nil
	params, err := b.t.Distil(ctx, student, b.m, train.Distil{Steps: max(c.Steps, 0), Rate: distilRate, Seed: b.m.Training.Seed, Fixed: w.fixed()})
	if err == nil {
		w.take(params)
	}
	return err
}

// What a pruned network is trained with to follow its parent.
const (
	followSteps = 500
	followRate  = 1e-3
)

// follow trains a pruned network to give what its parent gives; weights that were
// pruned stay so.
func (b *bench) follow(ctx context.Context, w *work, c Config) error {
	if c.Steps == 0 {
		c.Steps = followSteps
	}
	if c.Steps < 0 {
		return nil
	}
	p := b.m.Parts()
	student := p
	student.Compression = nil
	student.Spec, student.Params, _ = w.parts()
	params, err := b.t.Follow(ctx, student, p, train.Follow{Steps: c.Steps, Rate: followRate, Seed: p.Training.Seed, Fixed: w.fixed(), Latents: w.latent})
	if err == nil {
		w.take(params)
	}
	return err
}

// quantize gives the weights of a pruned network, and of the mixture, the precision
// that c asks for, and judges the result.
func (b *bench) quantize(ctx context.Context, w *work, c Config, j *judge) (*vae.Model, error) {
	p := b.m.Parts()
	mix := newMixture(&p)
	if c.Distil {
		mix = nil
	}
	switch c.Precision {
	case vae.Int8:
		return b.toBytes(ctx, w, mix, c, j)
	case vae.BF16:
		w = w.clone()
		w.halves()
		if mix != nil {
			mix.halves()
		}
	}
	return b.finish(w, mix, c, j)
}

// fewInputs is how many inputs a layer has for which bytes save nothing.
const fewInputs = 16

// theMixture stands for the mixture among the layers.
const theMixture = -1

// toBytes makes int8 what can be without failing the gate by the ranks of the scores:
// first all, then, while that is too much, all but the layer that harms most.
func (b *bench) toBytes(ctx context.Context, w *work, mix *mixture, c Config, j *judge) (*vae.Model, error) {
	var units []int
	for i, l := range w.layers {
		if l.in >= fewInputs {
			units = append(units, i)
		}
	}
	if mix != nil && mix.net.Features >= fewInputs {
		units = append(units, theMixture)
	}
	try := func(units []int) (*vae.Model, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		w, mix := w.clone(), mix.clone()
		w.bytes(b.full, func(i int) bool { return slices.Contains(units, i) })
		if slices.Contains(units, theMixture) {
			mix.bytes(b.x)
		}
		return b.finish(w, mix, c, j)
	}
	all, err := try(units)
	if err != nil || c.Whole || b.ranked(all, j) {
		return all, err
	}
	plain, err := try(nil)
	if err != nil || !b.ranked(plain, j) {
		return all, err // it is not for the bytes
	}
	for now := all; ; {
		var best *vae.Model
		var left []int
		for at := range units {
			rest := slices.Concat(units[:at], units[at+1:])
			m, err := try(rest)
			if err != nil {
				return nil, err
			}
			if best == nil || m.Compression.Gate.Spearman > best.Compression.Gate.Spearman {
				best, left = m, rest
			}
		}
		if now, units = best, left; len(units) == 0 || b.ranked(now, j) {
			return now, nil
		}
	}
}

// ranked says whether a candidate ranks rows as its parent does.
func (b *bench) ranked(m *vae.Model, j *judge) bool {
	return m.Compression.Gate.Spearman >= j.rules.Spearman
}

// finish makes a model of the work and writes into it what the gate says.
func (b *bench) finish(w *work, mix *mixture, c Config, j *judge) (*vae.Model, error) {
	p := b.m.Parts()
	if c.Name != "" {
		p.Name = c.Name
	}
	var forms []vae.Form
	p.Spec, p.Params, forms = w.parts()
	p.Mixture, p.Spec.Mixture = nil, nil
	if mix != nil {
		p.Mixture, p.Spec.Mixture = mix.params, &mix.spec
		if mix.form.Precision != "" {
			forms = append(forms, mix.form)
		}
	}
	p.Compression = &vae.Compression{Parent: b.m.Name + "@" + b.m.Digest(), Recipe: c.Recipe(), Forms: forms}
	m, err := b.t.Finish(p)
	if err != nil {
		return nil, err
	}
	if m, err = b.limited(m); err != nil {
		return nil, err
	}
	g, err := j.gate(m)
	if err != nil {
		return nil, err
	}
	return m.WithGate(g)
}

// limited gives a model a limit by its parent's rule. A limit that was given, or chosen
// by labels, is taken for the rate of normal rows above it.
func (b *bench) limited(m *vae.Model) (*vae.Model, error) {
	was := b.m.Calibration
	cal := *m.Calibration
	var err error
	switch was.Rule {
	case vae.Quantile:
		err = cal.SetQuantile(1 - was.TargetRate)
	case vae.Pareto:
		_, err = cal.SetPareto(was.TargetRate)
	default:
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the limit by the parent's rule %s: %w", was.Rule, err)
	}
	return m.Recalibrated(m.Name, &cal)
}
