package kernel

import (
	"fmt"
	"math"
)

// HeadKind is the likelihood of one block of decoder outputs.
type HeadKind uint8

// The heads. Gaussian has one learned log standard deviation per output,
// GaussianFixed a given one. Bernoulli outputs are logits and take targets in
// [0,1]. Categorical is a softmax over the outputs of one block, whose last
// output is reserved for a level never seen in training.
const (
	Gaussian HeadKind = iota
	GaussianFixed
	Bernoulli
	Categorical
)

var headNames = [...]string{"gaussian", "gaussian_fixed", "bernoulli", "categorical"}

// String returns the name used in model files and configuration.
func (h HeadKind) String() string {
	if int(h) < len(headNames) {
		return headNames[h]
	}
	return fmt.Sprintf("head(%d)", uint8(h))
}

// HeadNames lists every name that ParseHead takes.
func HeadNames() []string { return headNames[:] }

// ParseHead returns the head of that name.
func ParseHead(name string) (HeadKind, error) {
	for i, n := range headNames {
		if n == name {
			return HeadKind(i), nil
		}
	}
	return 0, fmt.Errorf("unknown head %q", name)
}

// A Block is a run of decoder outputs [From, From+N) with one head.
type Block struct {
	Kind    HeadKind
	From, N int
	// SD is the standard deviation of GaussianFixed, in the units of the
	// target; it is above 0.
	SD float64
	// Present and Missing are what it costs, in nats, that the block is there or
	// that any of it is missing: -log of how often that was so in training.
	Present, Missing float64
}

// HalfLog2Pi is the constant of a Gaussian's negative log-likelihood, in nats.
const HalfLog2Pi = 0.91893853320467274178

// Limits of a learned log standard deviation; the lower one is the Net's own.
const maxLogSD = 3

// Terms writes the negative log-likelihood of every output to s.Terms, in nats.
// A categorical block's term stands at its first output, the others are zero.
// The value of a missing cell (mask 0) gives zero; that it is missing costs the
// block's Missing. smooth moves that share of a target's mass
// to the reserved level (categorical) or to both values (Bernoulli); it is zero
// when scoring.
func (n *Net) Terms(s *Scratch[float32], params []float32) { terms(n, s, params, 0) }

func terms[F Float](n *Net, s *Scratch[F], params []F, smooth F) {
	for _, b := range n.Blocks {
		lo, hi := b.From*Rows, (b.From+b.N)*Rows
		t, y, x, mask := s.Terms[lo:hi], s.Out[lo:hi], s.wanted()[lo:hi], s.Mask[lo:hi]
		switch b.Kind {
		case Gaussian:
			for j := range b.N {
				ls := n.clampLogSD(float64(params[n.LogSD+b.From+j]))
				gaussTerms(t, y, x, mask, j, F(math.Exp(-2*ls)), F(ls+HalfLog2Pi))
			}
		case GaussianFixed:
			for j := range b.N {
				gaussTerms(t, y, x, mask, j, F(1/(b.SD*b.SD)), F(math.Log(b.SD)+HalfLog2Pi))
			}
		case Bernoulli:
			for i := range t {
				z, v := y[i], target(x[i], smooth)
				t[i] = mask[i] * (max(z, 0) - F(v*z) + F(math.Log1p(math.Exp(-math.Abs(float64(z))))))
			}
		case Categorical:
			categoricalTerms(t, y, x, mask, b.N, smooth)
		}
		presenceTerms(t[:Rows], mask, b)
	}
}

// presenceTerms adds what it costs that a block is there or missing to the terms
// of its first output. No parameter moves it.
func presenceTerms[F Float](t, mask []F, b Block) {
	if b.Present == 0 && b.Missing == 0 {
		return
	}
	for r := range t {
		cost := b.Present
		for i := r; i < len(mask); i += Rows {
			if mask[i] == 0 {
				cost = b.Missing
				break
			}
		}
		t[r] += F(cost)
	}
}

// target is a Bernoulli target moved towards 1/2 by smooth.
func target[F Float](x, smooth F) F { return x*(1-2*smooth) + smooth }

// gaussTerms fills feature j of a block: w*d*d/2 + c.
func gaussTerms[F Float](t, y, x, mask []F, j int, w, c F) {
	lo, hi := j*Rows, (j+1)*Rows
	t, y, x, mask = t[lo:hi], y[lo:hi], x[lo:hi], mask[lo:hi]
	for r := range t {
		d := y[r] - x[r]
		t[r] = mask[r] * (F(0.5*w*d*d) + c)
	}
}

func categoricalTerms[F Float](t, y, x, mask []F, n int, smooth F) {
	clear(t)
	for r := range Rows {
		if mask[r] == 0 {
			continue
		}
		top := y[r]
		for j := 1; j < n; j++ {
			top = max(top, y[j*Rows+r])
		}
		var total float64
		var picked F
		for j := range n {
			z := y[j*Rows+r]
			total += math.Exp(float64(z - top))
			picked += F(x[j*Rows+r] * z)
		}
		if smooth > 0 {
			picked += F(smooth * (y[(n-1)*Rows+r] - picked))
		}
		t[r] = top + F(math.Log(total)) - picked
	}
}

// termGradients writes the gradient of the terms with respect to the outputs to
// dy, and adds that of the log standard deviations to dlogSD. Rows count with
// weight; lanes from rows on get zero.
func termGradients[F Float](n *Net, s *Scratch[F], params, dy, dlogSD []F, weight []F, smooth F) {
	for _, b := range n.Blocks {
		lo, hi := b.From*Rows, (b.From+b.N)*Rows
		g, y, x, mask := dy[lo:hi], s.Out[lo:hi], s.wanted()[lo:hi], s.Mask[lo:hi]
		switch b.Kind {
		case Gaussian:
			for j := range b.N {
				raw := float64(params[n.LogSD+b.From+j])
				ls := n.clampLogSD(raw)
				d := gaussGradients(g, y, x, mask, weight, j, F(math.Exp(-2*ls)))
				if raw == ls || raw < ls && d < 0 || raw > ls && d > 0 { // at a limit only the way back counts
					dlogSD[b.From+j] += d
				}
			}
		case GaussianFixed:
			for j := range b.N {
				gaussGradients(g, y, x, mask, weight, j, F(1/(b.SD*b.SD)))
			}
		case Bernoulli:
			for i := range g {
				g[i] = weight[i%Rows] * mask[i] * (F(sigmoid(float64(y[i]))) - target(x[i], smooth))
			}
		case Categorical:
			categoricalGradients(g, y, x, mask, weight, b.N, smooth)
		}
	}
}

// gaussGradients fills feature j of g and returns the gradient of its log
// standard deviation: sum of 1 - w*d*d over the rows.
func gaussGradients[F Float](g, y, x, mask, weight []F, j int, w F) (dls F) {
	lo, hi := j*Rows, (j+1)*Rows
	g, y, x, mask = g[lo:hi], y[lo:hi], x[lo:hi], mask[lo:hi]
	for r := range g {
		d, m := y[r]-x[r], weight[r]*mask[r]
		g[r] = m * w * d
		dls += m * (1 - F(w*d*d))
	}
	return dls
}

func categoricalGradients[F Float](g, y, x, mask, weight []F, n int, smooth F) {
	clear(g)
	for r := range Rows {
		m := weight[r] * mask[r]
		if m == 0 {
			continue
		}
		top := y[r]
		for j := 1; j < n; j++ {
			top = max(top, y[j*Rows+r])
		}
		var total float64
		for j := range n {
			total += math.Exp(float64(y[j*Rows+r] - top))
		}
		for j := range n {
			t := x[j*Rows+r] * (1 - smooth)
			if j == n-1 {
				t += smooth
			}
			g[j*Rows+r] = m * (F(math.Exp(float64(y[j*Rows+r]-top))/total) - t)
		}
	}
}
