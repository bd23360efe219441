package compress

import (
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// A mixture is the second member on its way from the uncompressed one.
type mixture struct {
	spec   vae.MixtureSpec
	net    *kernel.Net // for the kinds of features
	params []float32   // [components][features] numbers, then the log weights
	form   vae.Form
}

// newMixture returns nil for a model without a second member.
func newMixture(p *vae.Parts) *mixture {
	if p.Spec.Mixture == nil {
		return nil
	}
	return &mixture{spec: *p.Spec.Mixture, net: p.Spec.Net(), params: slices.Clone(p.Mixture)}
}

// clone returns a copy that can be changed alone.
func (m *mixture) clone() *mixture {
	if m == nil {
		return nil
	}
	out := *m
	out.params = slices.Clone(m.params)
	return &out
}

// slope is what a number of a feature counts in a component's logit for each unit of
// the feature: see kernel.MixturePlan.
func (m *mixture) slope(k kernel.HeadKind) float64 {
	if k == kernel.Gaussian || k == kernel.GaussianFixed {
		return 1 / (m.spec.SD * m.spec.SD)
	}
	return 1
}

// bytes makes the components' numbers int8; rows x of features tell the ranges.
func (m *mixture) bytes(x *mat.Dense) {
	n, _ := x.Dims()
	features := m.net.Features
	f := vae.Form{Layer: vae.MemberMixture, Precision: vae.Int8, Pattern: vae.Dense, Scale: make([]float32, m.spec.Components),
		Low: make([]float32, features), Step: make([]float32, features)}
	column := make([]float64, n)
	for _, b := range m.net.Blocks {
		for j := b.From; j < b.From+b.N; j++ {
			mat.Col(column, j, x)
			var step float32
			f.Low[j], step = rangeOf(column, false)
			f.Step[j] = upBF16(float64(step) * m.slope(b.Kind))
		}
	}
	quantizeRows(&f, m.params[:m.spec.Components*features], m.spec.Components, features)
	m.form = f
}

// halves rounds the components' numbers to bfloat16.
func (m *mixture) halves() {
	toBF16(m.params[:m.spec.Components*m.net.Features])
	m.form = vae.Form{Layer: vae.MemberMixture, Precision: vae.BF16, Pattern: vae.Dense}
}
