package train

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// An Optimizer moves parameters against their gradients.
//
// Step changes params in place and only reads grads; both have the length the
// optimizer was made for, or Step panics. It allocates nothing, and the same
// calls give the same bits. Infinite or NaN gradients spoil the state for good:
// the caller checks before.
//
// State returns views of everything that one step hands to the next, the number
// of steps included. To save an optimizer, copy them; to restore one, make it
// with the same configuration and write to the views. The steps after that give
// the same bits as if nothing had happened. An Optimizer is not safe for
// concurrent use.
type Optimizer interface {
	Step(params, grads []float32, lr float64)
	State() [][]float32
}

// OptimizerConfig chooses an optimizer. Zero fields take the defaults of PyTorch.
// A field that the chosen optimizer has no use for must be zero.
type OptimizerConfig struct {
	Name     string  // sgd, adam, adamw or rmsprop; empty means adam
	Momentum float64 // of sgd and rmsprop; 0 means none
	Nesterov bool    // sgd looks ahead along its momentum
	Beta1    float64 // decay of adam's mean of gradients; 0 means 0.9
	Beta2    float64 // decay of the mean of squares; 0 means 0.999, for rmsprop 0.99
	Eps      float64 // added to the root of the mean of squares; 0 means 1e-8
	// WeightDecay is, for adamw, the share of the parameters, times the learning
	// rate, that a step takes away (0 means 0.01). For the others it is the
	// factor of an L2 penalty added to the gradients (0 means none).
	WeightDecay float64
}

// OptimizerNames lists every name that an OptimizerConfig takes.
func OptimizerNames() []string { return []string{"sgd", "adam", "adamw", "rmsprop"} }

func (c OptimizerConfig) withDefaults() OptimizerConfig {
	set := func(dst *float64, v float64) {
		if *dst == 0 {
			*dst = v
		}
	}
	switch c.Name {
	case "", "adam", "adamw":
		set(&c.Beta1, 0.9)
		set(&c.Beta2, 0.999)
		set(&c.Eps, 1e-8)
		if c.Name == "adamw" {
			set(&c.WeightDecay, 0.01)
		}
	case "rmsprop":
		set(&c.Beta2, 0.99)
		set(&c.Eps, 1e-8)
	}
	return c
}

func (c OptimizerConfig) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("optimizer: "+format, args...))
		}
	}
	check(c.Name == "" || slices.Contains(OptimizerNames(), c.Name), "unknown name %q, want one of %s", c.Name, strings.Join(OptimizerNames(), ", "))
	share := func(field string, v float64) {
		check(v >= 0 && v < 1, "%s: %v, want at least 0 and below 1", field, v)
	}
	share("momentum", c.Momentum)
	share("beta1", c.Beta1)
	share("beta2", c.Beta2)
	check(c.Eps >= 0 && c.Eps <= 1, "eps: %v, want 0 (the default) to 1", c.Eps)
	check(c.WeightDecay >= 0 && c.WeightDecay <= 1e3, "weight_decay: %v, want 0 to 1000", c.WeightDecay)
	sgd, rms := c.Name == "sgd", c.Name == "rmsprop"
	check(c.Momentum == 0 || sgd || rms, "momentum: only sgd and rmsprop have one; adam's is beta1")
	check(!c.Nesterov || sgd && c.Momentum > 0, "nesterov: only for sgd with a momentum")
	check(c.Beta1 == 0 || !sgd && !rms, "beta1: only adam and adamw have one")
	check(c.Beta2 == 0 || !sgd, "beta2: sgd has none")
	check(c.Eps == 0 || !sgd, "eps: sgd has none")
	return errors.Join(errs...)
}

// NewOptimizer makes the optimizer of n parameters. The error lists all that is
// wrong with the configuration, or says that ELBO_KERNEL is wrong.
func NewOptimizer(c OptimizerConfig, n int) (Optimizer, error) {
	level, err := kernel.Active()
	if err != nil {
		return nil, err
	}
	return newOptimizer(c, n, level)
}

// An optimizer takes its steps in parts: after begin each parameter belongs to
// one part, which may be taken at once with others. grads holds the part's
// gradients alone. All levels give the same bits.
type optimizer interface {
	Optimizer
	begin(lr float64)
	part(params, grads []float32, lo, hi int)
}

func newOptimizer(c OptimizerConfig, n int, level kernel.Level) (optimizer, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	vector := func(want bool) []float32 {
		if !want {
			return nil
		}
		return make([]float32, n)
	}
	switch c.Name {
	case "sgd":
		return &sgd{level: level, n: n, velocity: vector(c.Momentum > 0),
			rates: kernel.SGDRates{Momentum: float32(c.Momentum), Decay: float32(c.WeightDecay), Nesterov: c.Nesterov}}, nil
	case "rmsprop":
		return &rmsprop{level: level, square: vector(true), velocity: vector(c.Momentum > 0),
			rates: kernel.RMSPropRates{Alpha: float32(c.Beta2), Rest: float32(1 - c.Beta2), Eps: float32(c.Eps),
				Momentum: float32(c.Momentum), Decay: float32(c.WeightDecay)}}, nil
	}
	return &adam{level: level, beta1: c.Beta1, beta2: c.Beta2, decay: c.WeightDecay, decoupled: c.Name == "adamw",
		mean: vector(true), square: vector(true), steps: make([]float32, 2),
		rates: kernel.AdamRates{Beta1: float32(c.Beta1), Beta2: float32(c.Beta2), Rest1: float32(1 - c.Beta1), Rest2: float32(1 - c.Beta2),
			Eps: float32(c.Eps), Keep: 1, L2: float32(c.WeightDecay)}}, nil
}

// step takes a whole step of an optimizer of n parameters.
func step(o optimizer, params, grads []float32, n int, lr float64) {
	if len(params) != n || len(grads) != n {
		panic("train: params or grads do not have the optimizer's length")
	}
	o.begin(lr)
	o.part(params, grads, 0, n)
}

// sgd is stochastic gradient descent with the momentum of Polyak 1964 or of
// Nesterov, in the form of Sutskever et al. 2013 that PyTorch uses:
//
//	v = momentum*v + g;  p -= lr*v, or lr*(g + momentum*v) with Nesterov's
type sgd struct {
	level    kernel.Level
	n        int
	rates    kernel.SGDRates
	velocity []float32 // nil without momentum
}

func (o *sgd) State() [][]float32 {
	if o.velocity == nil {
		return nil
	}
	return [][]float32{o.velocity}
}

func (o *sgd) Step(params, grads []float32, lr float64) { step(o, params, grads, o.n, lr) }

func (o *sgd) begin(lr float64) { o.rates.Rate = float32(lr) }

func (o *sgd) part(params, grads []float32, lo, hi int) {
	kernel.SGDStep(o.level, params[lo:hi], grads, sub(o.velocity, lo, hi), o.rates)
}

// sub is v[lo:hi], or nil where there is no v.
func sub(v []float32, lo, hi int) []float32 {
	if v == nil {
		return nil
	}
	return v[lo:hi]
}

// adam is Adam (Kingma and Ba 2015, algorithm 1):
//
//	m = beta1*m + (1-beta1)*g;  v = beta2*v + (1-beta2)*g*g
//	p -= lr * m/(1-beta1^t) / (sqrt(v/(1-beta2^t)) + eps)
//
// and AdamW (Loshchilov and Hutter 2019, algorithm 2), which takes decay out of
// the gradient: p *= 1 - lr*decay comes before the step.
type adam struct {
	level        kernel.Level
	beta1, beta2 float64
	decay        float64
	decoupled    bool
	rates        kernel.AdamRates
	mean, square []float32
	steps        []float32 // taken so far: the low 16 bits, then the others, both exact
}

func (o *adam) State() [][]float32 { return [][]float32{o.mean, o.square, o.steps} }

// count adds one step and returns how many there are.
func (o *adam) count() float64 {
	const radix = 1 << 16
	o.steps[0]++
	if o.steps[0] == radix {
		o.steps[0] = 0
		o.steps[1]++
	}
	return float64(o.steps[0]) + radix*float64(o.steps[1])
}

func (o *adam) Step(params, grads []float32, lr float64) { step(o, params, grads, len(o.mean), lr) }

func (o *adam) begin(lr float64) {
	t := o.count()
	o.rates.Rate = float32(lr / (1 - math.Pow(o.beta1, t)))
	o.rates.Root = float32(1 / math.Sqrt(1-math.Pow(o.beta2, t)))
	if o.decoupled {
		o.rates.Keep, o.rates.L2 = float32(1-lr*o.decay), 0
	}
}

func (o *adam) part(params, grads []float32, lo, hi int) {
	kernel.AdamStep(o.level, params[lo:hi], grads, o.mean[lo:hi], o.square[lo:hi], o.rates)
}

// rmsprop is RMSprop (Tieleman and Hinton 2012, lecture 6.5 of "Neural networks
// for machine learning"), eps outside the root and momentum as in PyTorch:
//
//	s = alpha*s + (1-alpha)*g*g;  v = momentum*v + g/(sqrt(s) + eps);  p -= lr*v
type rmsprop struct {
	level    kernel.Level
	rates    kernel.RMSPropRates
	square   []float32
	velocity []float32 // nil without momentum
}

func (o *rmsprop) State() [][]float32 {
	if o.velocity == nil {
		return [][]float32{o.square}
	}
	return [][]float32{o.square, o.velocity}
}

func (o *rmsprop) Step(params, grads []float32, lr float64) {
	step(o, params, grads, len(o.square), lr)
}

func (o *rmsprop) begin(lr float64) { o.rates.Rate = float32(lr) }

func (o *rmsprop) part(params, grads []float32, lo, hi int) {
	kernel.RMSPropStep(o.level, params[lo:hi], grads, o.square[lo:hi], sub(o.velocity, lo, hi), o.rates)
}
