package kernel

// A Goal is what another network, of the same columns, gives for the rows of a tile:
// the outputs that the decoder is to have and the posterior. The gradients of a
// Trainer or Scratch that has one are those of
//
//	sum over outputs of the cost of the goal's output under the own one
//	+ ((mu - Mu)^2 + (lv - LogVar)^2/2)/2 summed over latents
//
// at the posterior's mean: there is no noise, and neither KL nor standard deviations
// count. What rows cost, the sums of a Trainer, is against the goal too.
type Goal[F Float] struct {
	// Out are means, or probabilities where a likelihood is Bernoulli or categorical;
	// a missing value's is not looked at.
	Out        []F // [Features][Rows]
	Mu, LogVar []F // [Latent][Rows]; the log-variance is compared before the clamp
}

// NewGoal makes an empty goal for n.
func NewGoal[F Float](n *Net) *Goal[F] {
	return &Goal[F]{Out: make([]F, n.Features*Rows), Mu: make([]F, n.Latent*Rows), LogVar: make([]F, n.Latent*Rows)}
}

// wanted returns what the outputs are to be.
func (s *Scratch[F]) wanted() []F {
	if s.Goal != nil {
		return s.Goal.Out
	}
	return s.X
}

// wanted returns what the outputs are to be.
func (t *Trainer) wanted() []float32 {
	if t.Goal != nil {
		return t.Goal.Out
	}
	return t.X
}

// latentGradients writes the gradient of the posterior, first of the means and then of
// the log-variances before the clamp: dz, that of the decoder's input, and what the
// posterior lacks of the goal's.
func (g *Goal[F]) latentGradients(dh, dz, mu, raw, weight []F) {
	n := len(dz)
	for i, d := range dz {
		w := weight[i%Rows]
		dh[i] = d + w*(mu[i]-g.Mu[i])
		dh[n+i] = 0.5 * w * (raw[i] - g.LogVar[i])
	}
}
