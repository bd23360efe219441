package kernel

import "math"

// Objective says what one training step minimises: the mean over rows of
// recon + Beta * sum over latents of max(KL, FreeBits).
type Objective struct {
	Beta     float64
	FreeBits float64 // nats per latent and row below which KL costs nothing
	Smooth   float64 // share of a target's mass that unseen values get
}

// Gradients runs one tile forward and backward and adds the gradient of the
// objective to grads (laid out as params). X and Mask are filled, noise is a
// tile of standard normal numbers [Latent][Rows], weight the share of each of
// the Rows lanes in the mean (0 for lanes not in use; such lanes must hold
// zeros in X). After it KL and Terms hold the tile's parts, unweighted.
func Gradients[F Float](n *Net, s *Scratch[F], params, grads, noise, weight []F, o Objective) {
	Encode(n, s, params)
	for i, m := range s.Mu {
		s.dst[i] = F(math.Exp(0.5 * float64(s.LogVar[i]))) // the posterior's sd
		s.Z[i] = m + F(noise[i]*s.dst[i])
	}
	KLTerms(s)
	Decode(n, s, params)
	terms(n, s, params, F(o.Smooth))

	dy := s.ga[:n.Features*Rows]
	termGradients(n, s, params, dy, grads[n.LogSD:n.LogSD+n.Features], weight, F(o.Smooth))
	e := len(n.Encoder)
	if n.OutAct != Identity {
		pre := s.act[e+len(n.Decoder)-1]
		for _, b := range n.Blocks {
			lo, hi := b.From*Rows, (b.From+b.N)*Rows
			if b.Kind == Gaussian || b.Kind == GaussianFixed {
				Backprop(n.OutAct, dy[lo:hi], pre[lo:hi], s.Out[lo:hi])
			}
		}
	}
	back(s, n.Decoder, e, s.Z, s.dz, params, grads)

	dh := s.ga[:2*n.Latent*Rows]
	if s.Goal != nil {
		s.Goal.latentGradients(dh, s.dz, s.Mu, s.raw, weight)
		back(s, n.Encoder, 0, s.X, nil, params, grads)
		clear(grads[n.LogSD:])
		return
	}
	// Through the sampling z = mu + noise*sd, and the KL's own gradient.
	dmu, dlv := dh[:n.Latent*Rows], dh[n.Latent*Rows:]
	for i, g := range s.dz {
		w := weight[i%Rows]
		dm, dv := g, 0.5*g*noise[i]*s.dst[i]
		if float64(s.KL[i]) > o.FreeBits {
			dm += w * F(o.Beta) * s.Mu[i]
			dv += w * F(0.5*o.Beta*math.Expm1(float64(s.LogVar[i])))
		}
		if c := s.raw[i]; c < LogVarMin && dv > 0 || c > LogVarMax && dv < 0 {
			dv = 0 // clamped: only the way back counts
		}
		dmu[i], dlv[i] = dm, dv
	}
	back(s, n.Encoder, 0, s.X, nil, params, grads)
}

// back takes the gradient of a stack's output, which stands in s.ga, through its
// layers. first is the index of the stack's first layer in s.pre, x its input;
// the gradient of the input goes to dx unless that is nil.
func back[F Float](s *Scratch[F], layers []Layer, first int, x, dx, params, grads []F) {
	for i := len(layers) - 1; i >= 0; i-- {
		l := layers[i]
		g := s.ga[:l.Out*Rows]
		if l.Act != Identity {
			Backprop(l.Act, g, s.pre[first+i], s.act[first+i])
		}
		in := x
		if i > 0 {
			in = s.act[first+i-1]
		}
		DenseWeights(grads[l.W:l.W+l.In*l.Out], grads[l.B:l.B+l.Out], g, in, l.In, l.Out)
		to := dx
		if i > 0 {
			to = s.gb[:l.In*Rows]
		}
		if to != nil {
			DenseInput(to, g, params[l.W:l.W+l.In*l.Out], l.In, l.Out)
		}
		s.ga, s.gb = s.gb, s.ga
	}
}
