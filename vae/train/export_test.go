package train

import (
	"context"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// Epoch returns the first input feature of every row in the order in which one
// epoch of a streaming training visits them.
func Epoch(ctx context.Context, c Config, d Data, epoch int64) ([]float32, error) {
	t, _, err := prepare(ctx, c.withDefaults(), d)
	if err != nil {
		return nil, err
	}
	var out []float32
	for x, err := range t.shuffled(ctx, c.withDefaults(), epoch) {
		if err != nil {
			return nil, err
		}
		out = append(out, x.rows.x[x.row*x.rows.inputs])
	}
	return out, nil
}

// Batches returns the first input feature of every row of n batches from a step
// on, and whether the table was streamed.
func Batches(ctx context.Context, c Config, d Data, step, n int) (out [][]float32, streamed bool, err error) {
	c = c.withDefaults()
	t, _, err := prepare(ctx, c, d)
	if err != nil {
		return nil, false, err
	}
	for b, err := range t.batches(ctx, c, step) {
		if err != nil {
			return nil, false, err
		}
		var firsts []float32
		for _, i := range b.index {
			firsts = append(firsts, b.rows.x[int(i)*b.rows.inputs])
		}
		if out = append(out, firsts); len(out) == n {
			break
		}
	}
	return out, t.train == nil, nil
}

// Packed returns the first input feature of the rows trained on and held out.
func Packed(ctx context.Context, c Config, d Data) (trained, held []float32, err error) {
	t, _, err := prepare(ctx, c.withDefaults(), d)
	if err != nil {
		return nil, nil, err
	}
	firsts := func(r *rows) (out []float32) {
		for i := range r.n {
			out = append(out, r.x[i*r.inputs])
		}
		return out
	}
	return firsts(t.train), firsts(t.held), nil
}

// Levels returns the kernels' levels that can train on this CPU.
func Levels() (levels []kernel.Level) {
	for _, l := range kernel.Levels() {
		if l == kernel.TrainingLevel(l) {
			levels = append(levels, l)
		}
	}
	return levels
}

// WithLevel returns c with the kernels at a level.
func WithLevel(c Config, l kernel.Level) Config {
	c.level = &l
	return c
}

// StepInParts takes one step of an optimizer at a level in parts that end at the
// cuts.
func StepInParts(o Optimizer, params, grads []float32, lr float64, cuts ...int) {
	parts := o.(optimizer)
	parts.begin(lr)
	from := 0
	for _, to := range append(cuts, len(params)) {
		parts.part(params, grads[from:to], from, to)
		from = to
	}
}

// OptimizerAt is NewOptimizer at a level.
func OptimizerAt(c OptimizerConfig, n int, l kernel.Level) (Optimizer, error) {
	return newOptimizer(c, n, l)
}
