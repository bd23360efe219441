package vae

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// A Model is a trained network with everything that a row needs on its way from
// Arrow columns to a judged score. It is immutable once made and safe for
// concurrent use.
type Model struct {
	Spec        Spec
	Name        string // [A-Za-z0-9_.-], for elbo_model
	Calibration *Calibration
	Training    Training
	Members     []Member     // the autoencoder, then the mixture if there is one
	Compression *Compression // nil unless the model was made from another one

	params  []float32
	mixture []float32 // of the mixture: see kernel.Mixture
	mix     *kernel.MixturePlan
	net     *kernel.Net
	plan    *kernel.Plan // for the process's level
	bf16    func() *kernel.Plan
	shift   []float32 // of the plans; see Spec.shift
	golden  []goldenRow
	digest  string // 64 hexadecimal digits, of the file
}

// Training says how a model came to be. It holds no clock time and no speed, so
// that the same training gives the same file.
type Training struct {
	Version   string  `json:"version"` // of elbo
	Seed      uint64  `json:"seed"`
	Rows      int64   `json:"rows"`     // rows trained on
	HeldOut   int64   `json:"held_out"` // rows held out, for early stop and calibration
	Steps     int     `json:"steps"`    // steps taken
	BestStep  int     `json:"best_step"`
	Stopped   string  `json:"stopped"` // "steps" or "early"
	Batch     int     `json:"batch"`
	Optimizer string  `json:"optimizer"`
	Rate      float64 `json:"rate"`
	Schedule  string  `json:"schedule"`
	Beta      float64 `json:"beta"`
	// Curve has one point per evaluation.
	Curve []Point `json:"curve"`
	// TrainRecon and HeldOutRecon are the mean reconstruction errors in nats of
	// training and of held-out rows: their gap tells how well the model
	// generalises.
	TrainRecon   float64 `json:"train_recon"`
	HeldOutRecon float64 `json:"held_out_recon"`
	HeldOutKL    float64 `json:"held_out_kl"`
	// ActiveLatents counts the latents whose posterior mean varies over held-out
	// rows (variance above 0.01; Burda, Grosse and Salakhutdinov 2015).
	ActiveLatents int         `json:"active_latents"`
	LatentKL      []float64   `json:"latent_kl"` // mean per latent, nats
	Columns       []ColumnFit `json:"columns"`
	// Contamination is the share of anomalies among the training rows that was
	// declared, LeftOut the number of rows that were left out for it, and LeftOutRows
	// the places in the table of the strangest of them (counted from 0).
	Contamination float64  `json:"contamination,omitempty"`
	LeftOut       int64    `json:"left_out,omitempty"`
	LeftOutRows   []int64  `json:"left_out_rows,omitempty"`
	Warnings      []string `json:"warnings,omitempty"`
}

// A Point of the loss curve: means per row in nats. HeldOut is the negative ELBO
// of the held-out rows at the posterior mean, with beta 1.
type Point struct {
	Step    int     `json:"step"`
	Loss    float64 `json:"loss"`
	Recon   float64 `json:"recon"`
	KL      float64 `json:"kl"`
	HeldOut float64 `json:"held_out"`
}

// ColumnFit is the mean reconstruction error of one column, in nats.
type ColumnFit struct {
	Name    string  `json:"name"`
	HeldOut float64 `json:"held_out"`
	// SD is the column's smallest learned standard deviation on the feature's
	// scale, 0 for other heads.
	SD float64 `json:"sd,omitempty"`
}

// NewModel is Assemble for a model of one member.
func NewModel(name string, spec Spec, params []float32, cal *Calibration, tr Training) (*Model, error) {
	return Assemble(Parts{Name: name, Spec: spec, Params: params, Calibration: cal, Training: tr})
}

// Parts are what a model is made of; Assemble takes them over.
type Parts struct {
	Name        string
	Spec        Spec
	Params      []float32 // of the network, laid out as Spec.Net says
	Mixture     []float32 // of the mixture, laid out as kernel.Mixture says; nil without one
	Members     []Member  // may be empty in a model of one
	Calibration *Calibration
	Training    Training
	Compression *Compression // may be nil
}

// Net lays out the network with the forms of its weights.
func (p *Parts) Net() *kernel.Net {
	net := p.Spec.Net()
	p.Compression.attach(net)
	return net
}

// Mixed lays out the mixture over net, nil without one.
func (p *Parts) Mixed(net *kernel.Net) *kernel.Mixture {
	s := p.Spec.Mixture
	if s == nil {
		return nil
	}
	return &kernel.Mixture{Net: net, K: s.Components, SD: s.SD, Params: p.Mixture, Form: p.Compression.form(MemberMixture).kernelForm()}
}

// Assemble joins the parts of a model and makes its golden rows.
func Assemble(p Parts) (*Model, error) {
	m := &Model{Spec: p.Spec, Name: p.Name, params: p.Params, mixture: p.Mixture, Members: p.Members, Calibration: p.Calibration, Training: p.Training, Compression: p.Compression}
	if err := m.prepare(); err != nil {
		return nil, err
	}
	m.golden = m.makeGolden()
	if err := m.scoreGolden(); err != nil {
		return nil, err
	}
	return m, m.seal()
}

// prepare checks the parts and lays out the network.
func (m *Model) prepare() error {
	if err := m.Spec.Validate(); err != nil {
		return err
	}
	if !validName(m.Name) {
		return fmt.Errorf("model name %q: want 1 to 100 of A-Z a-z 0-9 _ . -", m.Name)
	}
	if m.Calibration == nil {
		return errors.New("calibration is missing")
	}
	if err := m.Calibration.validate(); err != nil {
		return err
	}
	m.net = m.Spec.Net()
	if len(m.params) != m.net.Params {
		return fmt.Errorf("%d parameters, the network has %d", len(m.params), m.net.Params)
	}
	if n := m.Spec.mixtureParams(); len(m.mixture) != n {
		return fmt.Errorf("%d parameters of the mixture, want %d", len(m.mixture), n)
	}
	for i, v := range slices.Concat(m.params, m.mixture) {
		if v-v != 0 {
			return fmt.Errorf("parameter %d is %v", i, v)
		}
	}
	if err := m.validateMembers(); err != nil {
		return err
	}
	if err := m.validateForms(); err != nil {
		return err
	}
	level, err := kernel.Active()
	if err != nil {
		return err
	}
	m.shift = m.Spec.shift()
	m.plan = kernel.NewPlan(m.net, m.params, m.shift, level)
	if m.Spec.Mixture != nil {
		m.mix = kernel.NewMixturePlan(m.mixed(), m.shift, level)
		if m.mix.TilesOnly() {
			m.plan.TilesOnly()
		}
	}
	m.bf16 = sync.OnceValue(func() *kernel.Plan { return kernel.NewPlan(m.net, m.params, m.shift, kernel.BF16) })
	return nil
}

// planFor returns the model's plan for a precision.
func (m *Model) planFor(p Precision) (*kernel.Plan, error) {
	if err := p.Valid(); err != nil {
		return nil, err
	}
	if p != BF16 {
		return m.plan, nil
	}
	if !slices.Contains(kernel.Levels(), kernel.BF16) {
		return nil, errors.New("precision bf16 needs a CPU with AVX512-BF16, which this one (or this build) does not have; leave it out to score in float32")
	}
	return m.bf16(), nil
}

func validName(s string) bool {
	if s == "" || len(s) > 100 {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return true
}

// ID returns name@digest, as the column elbo_model has it.
func (m *Model) ID() string { return m.Name + "@" + m.digest[:12] }

// Digest returns the 64 hexadecimal digits of the model file's SHA-256.
func (m *Model) Digest() string { return m.digest }

// WithGate returns a copy of a compressed model that says how it compares with its
// parent; it has another digest.
func (m *Model) WithGate(g Gate) (*Model, error) {
	if m.Compression == nil {
		return nil, errors.New("a model that was not compressed has no gate")
	}
	p := m.Parts()
	c := *m.Compression
	c.Gate = g
	p.Compression = &c
	return Assemble(p)
}

// Recalibrated returns a copy of m with another name and calibration; it has
// another digest.
func (m *Model) Recalibrated(name string, c *Calibration) (*Model, error) {
	p := m.Parts()
	p.Name, p.Calibration = name, c
	return Assemble(p)
}

// Parts returns what m is made of, which the caller must not change.
func (m *Model) Parts() Parts {
	return Parts{m.Name, m.Spec, m.params, m.mixture, m.Members, m.Calibration, m.Training, m.Compression}
}

// mixed lays out the mixture.
func (m *Model) mixed() *kernel.Mixture {
	p := m.Parts()
	return p.Mixed(m.net)
}

// Size describes how large a model is.
type Size struct {
	Parameters int `json:"parameters"` // numbers that are kept
	Bytes      int `json:"bytes"`      // of the weights in the file
	// MultiplyAdds is the work of scoring one row.
	MultiplyAdds int `json:"multiply_adds"`
	Features     int `json:"features"`
	Latent       int `json:"latent"`
}

// Size returns the model's size. Weights that are pruned count for nothing.
func (m *Model) Size() Size {
	s := Size{Features: m.net.Features, Latent: m.net.Latent}
	for _, t := range m.tensors() {
		s.Bytes += len(t.data)
		if !strings.HasSuffix(t.name, ".mask") {
			s.Parameters += len(t.data) / dtypeSize[t.dtype]
		}
	}
	for _, w := range m.matrices() {
		s.MultiplyAdds += m.form(w.layer).products(w)
	}
	return s
}

// Params returns the flat parameter vector, which the caller must not change.
func (m *Model) Params() []float32 { return m.params }

// MixtureParams returns the mixture's parameters, nil without one: for each
// component a number per feature (a centre, a logit or a log probability), then
// the components' log weights. The caller must not change them.
func (m *Model) MixtureParams() []float32 { return m.mixture }

// LearnedSD returns the learned standard deviation of a feature on its own
// scale, and false when its head has none.
func (m *Model) LearnedSD(feature int) (float64, bool) {
	for _, b := range m.net.Blocks {
		if feature >= b.From && feature < b.From+b.N {
			switch b.Kind {
			case kernel.Gaussian:
				return math.Exp(m.net.LogSDOf(m.params, feature)), true
			case kernel.GaussianFixed:
				return b.SD, true
			}
		}
	}
	return 0, false
}
