package kernel

import "math"

// A Layer is dense followed by an activation. W and B are where its weights
// [Out][In] and biases [Out] stand in the flat parameter vector.
type Layer struct {
	In, Out int
	Act     Activation
	W, B    int
	Form    *Form // of the weights; nil means float32
}

// A Net is the shape of a variational autoencoder over one flat parameter
// vector. It holds no numbers and is safe for concurrent use.
type Net struct {
	Features int // columns of the likelihood: decoder outputs and first inputs
	Inputs   int // encoder inputs: the features, then the missing indicators
	Latent   int
	// Encoder ends in 2*Latent outputs: the posterior's mean, then its
	// log-variance. Decoder starts at Latent and ends in Features.
	Encoder, Decoder []Layer
	Blocks           []Block // cover the features in ascending order
	// OutAct is applied to Gaussian outputs, which then are means.
	OutAct Activation
	LogSD  int // where the features' log standard deviations stand
	Params int // length of the parameter vector
	// MinLogSD is the log of the floor of a learned standard deviation.
	MinLogSD float64
}

// LogVarMin and LogVarMax clamp the posterior's log-variance.
const (
	LogVarMin = -12
	LogVarMax = 6
)

// NewNet lays out a network. encoder and decoder are hidden widths with their
// activation; the last layer of each is linear.
func NewNet(features, inputs, latent int, encoder, decoder []Hidden, outAct Activation, blocks []Block, minLogSD float64) *Net {
	n := &Net{Features: features, Inputs: inputs, Latent: latent, Blocks: blocks, OutAct: outAct, MinLogSD: minLogSD}
	at := 0
	stack := func(in int, hidden []Hidden, out int) (layers []Layer) {
		for _, h := range append(append([]Hidden(nil), hidden...), Hidden{Width: out, Act: Identity}) {
			layers = append(layers, Layer{In: in, Out: h.Width, Act: h.Act, W: at, B: at + in*h.Width})
			at += in*h.Width + h.Width
			in = h.Width
		}
		return layers
	}
	n.Encoder = stack(inputs, encoder, 2*latent)
	n.Decoder = stack(latent, decoder, features)
	n.LogSD = at
	n.Params = at + features
	return n
}

// Hidden is one hidden layer.
type Hidden struct {
	Width int
	Act   Activation
}

// MACs returns the multiply-adds of scoring one row.
func (n *Net) MACs() int {
	total := 0
	for _, stack := range [][]Layer{n.Encoder, n.Decoder} {
		for _, l := range stack {
			total += l.In * l.Out
		}
	}
	return total
}

// bytes says whether any layer has int8 weights.
func (n *Net) bytes() bool {
	for _, stack := range [][]Layer{n.Encoder, n.Decoder} {
		for _, l := range stack {
			if l.Form.Bytes() {
				return true
			}
		}
	}
	return false
}

// Groups returns the runs of at most four outputs of a layer that share their
// inputs where weights are pruned in blocks. Those of the decoder's last layer end
// where a run of one likelihood ends.
func (n *Net) Groups(l Layer, last bool) (groups [][2]int) {
	runs := []planHead{{n: l.Out}}
	if last {
		runs = headRuns(n.Blocks)
	}
	for _, r := range runs {
		for from := r.from; from < r.from+r.n; from += blockOutputs {
			groups = append(groups, [2]int{from, min(from+blockOutputs, r.from+r.n)})
		}
	}
	return groups
}

// blockOutputs is how many neighbouring outputs share their inputs in a block.
const blockOutputs = 4

func (n *Net) clampLogSD(v float64) float64 { return min(max(v, n.MinLogSD), maxLogSD) }

// LogSDOf returns the clamped log standard deviation of feature j; it is
// meaningful for features of a Gaussian block only.
func (n *Net) LogSDOf(params []float32, j int) float64 {
	return n.clampLogSD(float64(params[n.LogSD+j]))
}

// Scratch is the working memory of one goroutine for one Net. Every tile is
// feature-major.
type Scratch[F Float] struct {
	X      []F // [Inputs][Rows], filled by the caller
	Mask   []F // [Features][Rows], 1 = observed, 0 = missing; filled by the caller
	Mu     []F // [Latent][Rows], set by Encode
	LogVar []F // [Latent][Rows], set by Encode, clamped
	Z      []F // [Latent][Rows], read by Decode
	Out    []F // [Features][Rows], set by Decode: means, or logits
	KL     []F // [Latent][Rows], set by KLTerms, in nats
	Terms  []F // [Features][Rows], set by Terms, in nats
	// Goal, unless nil, is what Gradients follow in place of the objective; the noise
	// must be zero then.
	Goal *Goal[F]

	pre, act [][]F // per layer of encoder then decoder
	ga, gb   []F   // gradients on their way back
	dz, dst  []F
	raw      []F // log-variance before the clamp
}

// NewScratch makes the working memory for n. train says whether Gradients will
// be called.
func NewScratch[F Float](n *Net, train bool) *Scratch[F] {
	tile := func(f int) []F { return make([]F, f*Rows) }
	s := &Scratch[F]{X: tile(n.Inputs), Mask: tile(n.Features), Z: tile(n.Latent),
		KL: tile(n.Latent), Terms: tile(n.Features), Mu: tile(n.Latent), LogVar: tile(n.Latent), raw: tile(n.Latent)}
	widest := n.Inputs
	for _, stack := range [][]Layer{n.Encoder, n.Decoder} {
		for _, l := range stack {
			widest = max(widest, l.Out)
			pre := tile(l.Out)
			act := pre
			if train && l.Act != Identity {
				act = tile(l.Out)
			}
			s.pre, s.act = append(s.pre, pre), append(s.act, act)
		}
	}
	s.Out = s.act[len(s.act)-1]
	if train {
		s.ga, s.gb = tile(widest), tile(widest)
		s.dz, s.dst = tile(n.Latent), tile(n.Latent)
		if n.OutAct != Identity {
			s.Out = tile(n.Features)
		}
	}
	return s
}

// Encode computes the posterior of the tile in X: Mu and LogVar.
func Encode[F Float](n *Net, s *Scratch[F], params []F) {
	x := s.X
	for i, l := range n.Encoder {
		forward(l, s.pre[i], s.act[i], x, params)
		x = s.act[i]
	}
	copy(s.Mu, x[:n.Latent*Rows])
	copy(s.raw, x[n.Latent*Rows:])
	for i, v := range s.raw {
		s.LogVar[i] = min(max(v, LogVarMin), LogVarMax)
	}
}

func forward[F Float](l Layer, pre, act, x, params []F) {
	Dense(pre, x, params[l.W:l.W+l.In*l.Out], params[l.B:l.B+l.Out], l.In, l.Out)
	if l.Act != Identity {
		Activate(l.Act, act, pre)
	}
}

// KLTerms writes KL(N(Mu, exp(LogVar)), N(0, 1)) of each latent to KL, in nats:
// (mu^2 + expm1(lv) - lv)/2 (Kingma and Welling 2013, appendix B, written with
// expm1 because exp(lv)-1-lv cancels near 0).
func KLTerms[F Float](s *Scratch[F]) {
	for i, m := range s.Mu {
		lv := float64(s.LogVar[i])
		s.KL[i] = F(0.5 * (float64(m)*float64(m) + (math.Expm1(lv) - lv)))
	}
}

// Decode computes Out from the latents in Z.
func Decode[F Float](n *Net, s *Scratch[F], params []F) {
	z := s.Z
	e := len(n.Encoder)
	for i, l := range n.Decoder {
		forward(l, s.pre[e+i], s.act[e+i], z, params)
		z = s.act[e+i]
	}
	if n.OutAct == Identity {
		return
	}
	for _, b := range n.Blocks {
		lo, hi := b.From*Rows, (b.From+b.N)*Rows
		if b.Kind == Gaussian || b.Kind == GaussianFixed {
			Activate(n.OutAct, s.Out[lo:hi], z[lo:hi])
		} else {
			copy(s.Out[lo:hi], z[lo:hi])
		}
	}
}
