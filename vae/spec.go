package vae

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// Kind is what a model column holds.
type Kind string

// The kinds. A numeric column is one feature; a boolean one feature of 0 and 1
// (numbers that were nothing else in training count as one); a
// categorical one feature for each level plus one for other levels; a vector (list or fixed-size list of numbers) Width features; a
// timestamp the sine and cosine of each of its Parts.
const (
	Numeric     Kind = "numeric"
	Boolean     Kind = "boolean"
	Categorical Kind = "categorical"
	Vector      Kind = "vector"
	Timestamp   Kind = "timestamp"
)

// Transform is what happens to a number before it is a feature.
type Transform string

// The transforms. Standardise is (x-mean)/sd of the training rows; Log1p is
// sign(x)*log(1+|x|), then standardised; Raw changes nothing.
const (
	Standardise Transform = "standardise"
	Log1p       Transform = "log1p"
	Raw         Transform = "raw"
)

// Head names a likelihood: gaussian (one learned standard deviation per feature,
// floored), gaussian_fixed, bernoulli or categorical.
type Head string

// The heads.
const (
	Gaussian        Head = "gaussian"
	GaussianFixed   Head = "gaussian_fixed"
	Bernoulli       Head = "bernoulli"
	CategoricalHead Head = "categorical"
)

// TimeParts are the parts that a timestamp column may have, each a cycle.
var timeParts = []string{"hour", "weekday", "monthday", "yearday"}

// Limits of a specification: a model file that asks for more is refused before
// anything is allocated.
const (
	MaxColumns  = 65536
	MaxFeatures = 1 << 17
	MaxLevels   = 64 // of a categorical column
	MaxWidth    = 1 << 16
	MaxLayers   = 32
	maxParams   = 1 << 28
	// MaxAbs bounds a standardised value; beyond it a value counts as MaxAbs, so
	// that no finite input gives a score that is not finite.
	MaxAbs = 1e6
)

// A Column is one column of the model: where it comes from, how it becomes
// features and how well it must be rebuilt. Mean, Scale, Constant, Indicator and
// Levels are fitted to the training rows.
type Column struct {
	Name      string    `json:"name"`
	Kind      Kind      `json:"kind"`
	Type      string    `json:"type"` // the Arrow type in training, for messages
	Transform Transform `json:"transform,omitempty"`
	Head      Head      `json:"head"`
	SD        float64   `json:"sd,omitempty"`    // of gaussian_fixed, on the feature's scale; above 0
	Width     int       `json:"width,omitempty"` // of a vector
	Levels    []string  `json:"levels,omitempty"`
	// Others says that training saw levels beyond Levels, which all count as one;
	// without it any other level is one that was never seen.
	Others    bool     `json:"others,omitempty"`
	Parts     []string `json:"parts,omitempty"` // of a timestamp: hour, weekday, monthday, yearday
	Indicator bool     `json:"indicator,omitempty"`
	// MissingRate is how often the column was missing in training, smoothed so
	// that it is above 0 and below 1: (missing+1)/(rows+2). Where that is more than
	// one row in a thousand, a gap costs nothing; elsewhere it is news.
	MissingRate float64   `json:"missing_rate"`
	Mean        []float64 `json:"mean,omitempty"`  // per feature
	Scale       []float64 `json:"scale,omitempty"` // per feature, above 0
	// Constant marks features that were constant or nearly constant in training;
	// Mean is then the usual value and Scale 1.
	Constant []bool `json:"constant,omitempty"`
	// Rare holds smoothed rates of what training hardly ever saw, 0 for none: per
	// feature of a numeric or vector column how often a (nearly) constant one had
	// another value; of a boolean how often it was not Usual and, if its values are
	// numbers, how likely one is that is neither 0 nor 1; of a categorical how likely
	// a level is that was never seen.
	Rare  []float64 `json:"rare,omitempty"`
	Usual bool      `json:"usual,omitempty"`
}

// Features returns how many features the column has.
func (c *Column) Features() int {
	switch c.Kind {
	case Categorical:
		return len(c.Levels) + 1
	case Vector:
		return c.Width
	case Timestamp:
		return 2 * len(c.Parts)
	}
	return 1
}

// A Layer is one hidden layer.
type Layer struct {
	Width      int    `json:"width"`
	Activation string `json:"activation"`
}

// A Spec says everything about a model but its weights.
type Spec struct {
	Columns []Column `json:"columns"`
	Encoder []Layer  `json:"encoder"` // hidden layers, inputs to latents
	Decoder []Layer  `json:"decoder"` // hidden layers, latents to outputs
	Latent  int      `json:"latent"`
	// Mixture is the second member; nil for a model of one.
	Mixture *MixtureSpec `json:"mixture,omitempty"`
	// Output is the activation of Gaussian means; identity unless the columns
	// are raw numbers of a known range.
	Output string `json:"output"`
	// SDFloor is the smallest learned standard deviation, on the feature's scale:
	// it keeps an almost constant column from taking over the score.
	SDFloor float64 `json:"sd_floor"`
	// MaxMissing is the share of a row's columns above which it is not judged.
	MaxMissing float64 `json:"max_missing"`
}

// Inputs returns the number of features and of encoder inputs (the features and
// one indicator for each column that had missing values in training).
func (s *Spec) Inputs() (features, inputs int) {
	for i := range s.Columns {
		features += s.Columns[i].Features()
		if s.Columns[i].Indicator {
			inputs++
		}
	}
	return features, features + inputs
}

// Validate reports everything that is wrong with the specification, joined.
func (s *Spec) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(s.Columns) == 0 || len(s.Columns) > MaxColumns {
		bad("columns: %d, want 1 to %d", len(s.Columns), MaxColumns)
	}
	seen := map[string]bool{}
	for i := range s.Columns {
		c := &s.Columns[i]
		if seen[c.Name] {
			bad("column %q stands twice", c.Name)
		}
		seen[c.Name] = true
		errs = append(errs, c.validate()...)
	}
	if s.Latent < 1 || s.Latent > 4096 {
		bad("latent: %d, want 1 to 4096", s.Latent)
	}
	for name, layers := range map[string][]Layer{"encoder": s.Encoder, "decoder": s.Decoder} {
		if len(layers) > MaxLayers {
			bad("%s: %d layers, want at most %d", name, len(layers), MaxLayers)
		}
		for i, l := range layers {
			if l.Width < 1 || l.Width > MaxWidth {
				bad("%s layer %d: width %d, want 1 to %d", name, i, l.Width, MaxWidth)
			}
			if _, err := kernel.ParseActivation(l.Activation); err != nil {
				bad("%s layer %d: %w (one of %v)", name, i, err, kernel.ActivationNames())
			}
		}
	}
	if _, err := kernel.ParseActivation(s.Output); err != nil {
		bad("output: %w (one of %v)", err, kernel.ActivationNames())
	}
	if !(s.SDFloor > 0 && s.SDFloor <= 20) {
		bad("sd_floor: %v, want above 0 and at most 20", s.SDFloor)
	}
	if !(s.MaxMissing >= 0 && s.MaxMissing <= 1) {
		bad("max_missing: %v, want 0 to 1", s.MaxMissing)
	}
	if len(errs) == 0 {
		features, _ := s.Inputs()
		if features > MaxFeatures {
			bad("columns: %d features, want at most %d", features, MaxFeatures)
		} else if p := s.params(); p > maxParams {
			bad("network: %d parameters, want at most %d", p, maxParams)
		}
		if s.Mixture != nil {
			errs = append(errs, s.Mixture.validate(features))
		}
	}
	return errors.Join(errs...)
}

func (c *Column) validate() (errs []error) {
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("column %q: "+format, append([]any{c.Name}, args...)...))
	}
	if c.Name == "" {
		bad("has no name")
	}
	if !utf8.ValidString(c.Name) || slices.ContainsFunc(c.Levels, func(l string) bool { return !utf8.ValidString(l) }) {
		bad("its name or a level is not UTF-8, which a model file cannot hold")
	}
	heads := map[Kind][]Head{
		Numeric:     {Gaussian, GaussianFixed, Bernoulli},
		Boolean:     {Bernoulli, Gaussian, GaussianFixed},
		Categorical: {CategoricalHead},
		Vector:      {Gaussian, GaussianFixed, Bernoulli},
		Timestamp:   {Gaussian, GaussianFixed},
	}
	allowed, ok := heads[c.Kind]
	if !ok {
		bad("unknown kind %q (numeric, boolean, categorical, vector or timestamp)", c.Kind)
		return errs
	}
	if !slices.Contains(allowed, c.Head) {
		bad("a %s column cannot have the head %q (one of %v)", c.Kind, c.Head, allowed)
	}
	if !(c.MissingRate > 0 && c.MissingRate < 1) {
		bad("missing_rate: %v, want above 0 and below 1", c.MissingRate)
	}
	if c.Head == GaussianFixed && !(c.SD > 0 && c.SD <= 1e6) {
		bad("sd: %v, want above 0", c.SD)
	}
	switch c.Kind {
	case Numeric, Vector:
		if !slices.Contains([]Transform{Standardise, Log1p, Raw}, c.Transform) {
			bad("unknown transform %q (standardise, log1p or raw)", c.Transform)
		}
		if c.Head == Bernoulli && c.Transform != Raw {
			bad("the head bernoulli needs transform raw and values from 0 to 1")
		}
	case Categorical:
		if len(c.Levels) < 1 || len(c.Levels) > MaxLevels {
			bad("%d levels, want 1 to %d", len(c.Levels), MaxLevels)
		}
		for i, l := range c.Levels {
			if i > 0 && l <= c.Levels[i-1] {
				bad("levels are not sorted, or repeat")
				break
			}
		}
	case Timestamp:
		if len(c.Parts) == 0 {
			bad("a timestamp needs parts (some of %v)", timeParts)
		}
		for i, p := range c.Parts {
			if !slices.Contains(timeParts, p) || slices.Contains(c.Parts[:i], p) {
				bad("unknown or repeated part %q (some of %v)", p, timeParts)
			}
		}
	}
	if c.Kind == Vector && (c.Width < 1 || c.Width > MaxWidth) {
		bad("width %d, want 1 to %d", c.Width, MaxWidth)
		return errs
	}
	return append(errs, c.validateFit()...)
}

// validateFit checks what was fitted to the training rows.
func (c *Column) validateFit() (errs []error) {
	n := c.Features()
	if c.Kind == Categorical || c.Kind == Boolean {
		n = 0
	}
	if len(c.Mean) != n || len(c.Scale) != n || len(c.Constant) != n {
		return []error{fmt.Errorf("column %q: %d means, %d scales, %d constants for %d features", c.Name, len(c.Mean), len(c.Scale), len(c.Constant), n)}
	}
	if errs := c.validateRare(); errs != nil {
		return errs
	}
	for j := range n {
		if !finite(c.Mean[j]) || !(c.Scale[j] > 0) || !finite(c.Scale[j]) {
			return []error{fmt.Errorf("column %q: mean %v or scale %v of feature %d is unusable", c.Name, c.Mean[j], c.Scale[j], j)}
		}
	}
	return nil
}

func (c *Column) validateRare() []error {
	want := 1
	if c.Kind == Numeric || c.Kind == Vector {
		want = len(c.Mean)
	}
	if c.Kind == Boolean && len(c.Rare) == 2 {
		want = 2
	}
	if c.Others && (c.Kind != Categorical || c.Rare != nil) {
		return []error{fmt.Errorf("column %q: others are for levels, and then none is rare", c.Name)}
	}
	if n := len(c.Rare); n != 0 && (n != want || c.Kind == Timestamp) {
		return []error{fmt.Errorf("column %q: %d rates of rare values, want %d", c.Name, n, want)}
	}
	for _, r := range c.Rare {
		if !(r >= 0 && r < 1) {
			return []error{fmt.Errorf("column %q: rate %v of rare values, want 0 to 1", c.Name, r)}
		}
	}
	return nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func (s *Spec) params() int {
	features, inputs := s.Inputs()
	total, in := features, inputs
	for _, l := range s.Encoder {
		total, in = total+(in+1)*l.Width, l.Width
	}
	total, in = total+(in+1)*2*s.Latent, s.Latent
	for _, l := range s.Decoder {
		total, in = total+(in+1)*l.Width, l.Width
	}
	return total + (in+1)*features
}

// Net lays the specification out for the kernels. The spec is valid.
func (s *Spec) Net() *kernel.Net {
	features, inputs := s.Inputs()
	hidden := func(layers []Layer) []kernel.Hidden {
		out := make([]kernel.Hidden, len(layers))
		for i, l := range layers {
			act, _ := kernel.ParseActivation(l.Activation)
			out[i] = kernel.Hidden{Width: l.Width, Act: act}
		}
		return out
	}
	var blocks []kernel.Block
	at := 0
	for i := range s.Columns {
		c := &s.Columns[i]
		kind, _ := kernel.ParseHead(string(c.Head))
		blocks = append(blocks, kernel.Block{Kind: kind, From: at, N: c.Features(), SD: c.SD})
		at += c.Features()
	}
	out, _ := kernel.ParseActivation(s.Output)
	return kernel.NewNet(features, inputs, s.Latent, hidden(s.Encoder), hidden(s.Decoder), out, blocks, math.Log(s.SDFloor))
}
