package train

import (
	"fmt"

	"github.com/elbo-stream/elbo/vae"
)

// A Stepper takes training steps on rows that are packed already, one at a time:
// what a benchmark measures. It belongs to one goroutine, which must Close it.
type Stepper struct {
	r    *run
	walk walk
	stop func()
}

// NewStepper prepares to train spec, which must be valid, on packed rows x, a
// matrix [rows][inputs] in which nothing is missing. It keeps both. Of c it reads
// what the gradient and the update depend on (Seed, Steps, Batch, Workers,
// Optimizer, Rate, Schedule, Beta, KLWarmup, FreeBits, Clip). No row is held out
// and nothing is evaluated or saved.
func NewStepper(c Config, spec *vae.Spec, x []float32) (*Stepper, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	features, inputs := spec.Inputs()
	if len(x) == 0 || len(x)%inputs != 0 {
		return nil, fmt.Errorf("%d numbers are not rows of %d inputs", len(x), inputs)
	}
	n := len(x) / inputs
	t := &table{spec: spec, trainN: int64(n), train: &rows{inputs: inputs, features: features, x: x, n: n},
		held: &rows{inputs: inputs, features: features}}
	r, err := newRun(c, t)
	if err != nil {
		return nil, err
	}
	return &Stepper{r, t.walk(c, 0), r.pool.start()}, nil
}

// Close ends the Stepper's workers; it must not be used any more.
func (s *Stepper) Close() { s.stop() }

// Step draws a batch, takes it forward and backward and updates the parameters.
// It returns the loss before the update: nats per row, beta times the KL
// included. After the last of the schedule's steps its rate stays what it was. The
// error is a *DivergedError and final.
func (s *Stepper) Step() (loss float64, err error) {
	before := s.r.state.Loss
	if err := s.r.step(s.walk.next()); err != nil {
		return 0, err
	}
	return s.r.state.Loss - before, nil
}
