package vae

import (
	"errors"
	"fmt"
	"math"
)

// The kinds of members.
const (
	MemberVAE     = "vae"
	MemberMixture = "mixture"
)

// A Member is how one density of a model takes part in its score. A model has the
// autoencoder, and may have a mixture beside it: what a small autoencoder smooths
// over, the mixture keeps, and the other way round.
type Member struct {
	Kind string `json:"kind"` // vae or mixture
	// Tail turns the member's negative ELBO into its surprise, so that members of
	// different spreads can be added. It is nil in a model of one member, whose
	// score is the negative ELBO itself.
	Tail *Calibration `json:"tail,omitempty"`
	// Usual is what each feature costs in usual rows (the mean over the held-out
	// rows but for the strangest tenth) and UsualKL what each latent does, in nats.
	// A mixture has one latent, the component. Contributions count from there.
	Usual   []float64 `json:"usual,omitempty"`
	UsualKL []float64 `json:"usual_kl,omitempty"`
	// DependsOn names, for each latent, the columns that move it most.
	DependsOn []string `json:"depends_on,omitempty"`
}

// total is what a usual row costs.
func (m *Member) total() float64 {
	sum := 0.0
	for _, v := range m.Usual {
		sum += v
	}
	for _, v := range m.UsualKL {
		sum += v
	}
	return sum
}

// A MixtureSpec says what a mixture is besides its parameters.
type MixtureSpec struct {
	Components int `json:"components"`
	// SD is the standard deviation of every Gaussian feature in every component, on
	// the feature's scale.
	SD float64 `json:"sd"`
}

// MaxComponents is the most components of a mixture.
const MaxComponents = 4096

func (s *MixtureSpec) validate(features int) error {
	if s.Components < 1 || s.Components > MaxComponents {
		return fmt.Errorf("mixture: %d components, want 1 to %d", s.Components, MaxComponents)
	}
	if !(s.SD > 0 && s.SD <= 1e6) {
		return fmt.Errorf("mixture: sd %v, want above 0", s.SD)
	}
	if s.Components*features > maxParams {
		return fmt.Errorf("mixture: %d numbers, want at most %d", s.Components*features, maxParams)
	}
	return nil
}

// mixtureParams is the length of the mixture's parameters, 0 without one.
func (s *Spec) mixtureParams() int {
	if s.Mixture == nil {
		return 0
	}
	features, _ := s.Inputs()
	return s.Mixture.Components * (features + 1)
}

// validateMembers checks what the model says of its members.
func (m *Model) validateMembers() error {
	want := []string{MemberVAE}
	if m.Spec.Mixture != nil {
		want = append(want, MemberMixture)
	}
	if len(m.Members) == 0 && len(want) == 1 {
		m.Members = []Member{{Kind: MemberVAE}}
	}
	if len(m.Members) != len(want) {
		return fmt.Errorf("members: %d, the specification has %d", len(m.Members), len(want))
	}
	for i := range m.Members {
		e := &m.Members[i]
		if e.Kind != want[i] {
			return fmt.Errorf("member %d is %q, want %q", i, e.Kind, want[i])
		}
		if (e.Tail != nil) != (len(want) > 1) {
			return fmt.Errorf("member %q: a tail goes with more than one member, and with each of them", e.Kind)
		}
		if e.Tail != nil {
			if err := e.Tail.validate(); err != nil {
				return fmt.Errorf("member %q: %w", e.Kind, err)
			}
		}
		latents := 1
		if e.Kind == MemberVAE {
			latents = m.net.Latent
		}
		if err := e.validateUsual(m.net.Features, latents); err != nil {
			return fmt.Errorf("member %q: %w", e.Kind, err)
		}
	}
	return nil
}

func (m *Member) validateUsual(features, latents int) error {
	for _, list := range [][]float64{m.Usual, m.UsualKL} {
		for _, v := range list {
			if !finite(v) {
				return errors.New("a usual cost is not finite")
			}
		}
	}
	if n := len(m.Usual); n != 0 && n != features {
		return fmt.Errorf("%d usual costs for %d features", n, features)
	}
	if n := len(m.UsualKL); n != 0 && n != latents {
		return fmt.Errorf("%d usual costs for %d latents", n, latents)
	}
	if n := len(m.DependsOn); n != 0 && n != latents {
		return fmt.Errorf("%d names for %d latents", n, latents)
	}
	return nil
}

// fuse is the score of a row in nats: the negative ELBO, or with several members
// the sum of their surprises, and what is new in the row.
func (m *Model) fuse(elbo, mixture, novelty float64) float64 {
	if m.Spec.Mixture == nil {
		return elbo + novelty
	}
	return m.Members[0].Tail.Surprise(elbo) + m.Members[1].Tail.Surprise(mixture) + novelty
}

// Surprise returns -log of the tail probability of a score, in nats: P without its
// floor. It never falls as the score rises. NaN gives NaN.
func (c *Calibration) Surprise(score float64) float64 {
	u := c.u(score)
	if !(u < c.edge) {
		if t := math.Log(u); t > c.Start {
			return (t-c.Start)/c.Excess - math.Log(c.Tail)
		}
	}
	if len(c.parts) == 0 || u != u {
		return -math.Log(c.P(score))
	}
	k := len(c.Knots)
	i := c.below(score, u)
	at := c.parts[i]
	if i == 0 || i == k || int64(k) == c.Rows {
		return at.surprise
	}
	// Between two knots the probability falls along a line: by the share t of what it
	// was at the lower one.
	t := (score - c.Knots[i-1]) * at.slope
	if t > seriesMost {
		return min(at.surprise-math.Log1p(-t), c.parts[k].surprise)
	}
	return min(at.surprise+t*(1+t*(1.0/2+t*(1.0/3+t*(1.0/4+t*(1.0/5+t*(1.0/6+t*(1.0/7))))))), c.parts[k].surprise)
}

// seriesMost is up to where the series of -log(1-t) in Surprise is good: its next term is
// below 1e-15.
const seriesMost = 0.01

// A bodyPart is what Surprise knows of the scores between two knots.
type bodyPart struct {
	surprise float64 // at the lower knot, or everywhere where all scores are knots
	slope    float64 // by which t grows with the score
}

// tabulate makes the table of Surprise: one part for each number of knots below.
func (c *Calibration) tabulate() {
	n, k := int(c.Rows), len(c.Knots)
	c.parts = make([]bodyPart, k+1)
	for i := range c.parts {
		below := 0
		switch {
		case k == n:
			below = i
		case i == k:
			below = n
		case i > 0:
			below = rankOf(i-1, k, n)
			c.parts[i].slope = float64(rankOf(i, k, n)-below) / float64(n-below+1) / (c.Knots[i] - c.Knots[i-1])
		}
		c.parts[i].surprise = -math.Log(max(float64(n-below+1)/float64(n+1), c.Tail))
	}
}
