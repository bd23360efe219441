package train

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Schedule says how the learning rate moves over a training. The zero value
// keeps it constant.
type Schedule struct {
	Name string // constant, step, exponential or cosine; empty means constant
	// Warmup is the number of steps over which the rate rises linearly to its
	// full value; 0 means none.
	Warmup int
	// StepEvery is the number of steps between the drops of "step"; 0 means a
	// third of the training.
	StepEvery int
	// Gamma is the factor of one drop of "step" (0 means 0.1), or of every step
	// of "exponential" (0 means what ends at a hundredth of the rate).
	Gamma float64
	// Floor is the learning rate under which "step" and "exponential" do not
	// fall (nor raise a rate that is lower from the start), and which "cosine"
	// adds to its curve, so that it ends there. "constant" ignores it.
	Floor float64
}

// ScheduleNames lists every name that a Schedule takes.
func ScheduleNames() []string { return []string{"constant", "step", "exponential", "cosine"} }

// Validate reports everything that is wrong with s at once.
func (s Schedule) Validate() error {
	var errs []error
	if s.Name != "" && !slices.Contains(ScheduleNames(), s.Name) {
		errs = append(errs, fmt.Errorf("schedule: unknown name %q, want one of %s", s.Name, strings.Join(ScheduleNames(), ", ")))
	}
	if s.Warmup < 0 {
		errs = append(errs, fmt.Errorf("schedule: warmup: %d steps, want 0 or more", s.Warmup))
	}
	if s.StepEvery < 0 {
		errs = append(errs, fmt.Errorf("schedule: step_every: %d steps, want 0 or more", s.StepEvery))
	}
	if !(s.Gamma >= 0 && s.Gamma <= 1) {
		errs = append(errs, fmt.Errorf("schedule: gamma: %v, want a factor of at most 1, or 0 for the default", s.Gamma))
	}
	if !(s.Floor >= 0 && s.Floor <= math.MaxFloat32) {
		errs = append(errs, fmt.Errorf("schedule: floor: %v, want a learning rate of 0 or more", s.Floor))
	}
	return errors.Join(errs...)
}

// At returns the learning rate of a step, counted from 0, in a training of a
// number of steps whose full rate is rate. It is a pure function. s must be
// valid; steps beyond the last get the last one's rate of a curve that ends.
func (s Schedule) At(rate float64, step, steps int) float64 {
	warm := 1.0
	if step < s.Warmup {
		warm = float64(step+1) / float64(s.Warmup)
	}
	switch s.Name {
	case "step":
		gamma, every := s.Gamma, s.StepEvery
		if gamma == 0 {
			gamma = 0.1
		}
		if every == 0 {
			every = max(1, steps/3)
		}
		return warm * max(rate*math.Pow(gamma, float64(step/every)), min(s.Floor, rate))
	case "exponential":
		factor := math.Pow(s.Gamma, float64(step))
		if s.Gamma == 0 {
			factor = math.Pow(0.01, done(step, steps))
		}
		return warm * max(rate*factor, min(s.Floor, rate))
	case "cosine": // Loshchilov and Hutter 2017, without restarts
		return rate*warm*0.5*(1+math.Cos(math.Pi*done(step, steps))) + s.Floor
	}
	return warm * rate
}

// done is the share of a training that lies behind a step.
func done(step, steps int) float64 {
	if step >= steps {
		return 1
	}
	return float64(step) / float64(steps)
}
