package kernel

import (
	"math"
	"math/bits"
	"unsafe"
)

// A Trainer takes tiles of one Net forward and backward at one level: the fast
// twin of Gradients. It reads the flat parameter vector as it is, so that nothing
// is packed between two steps. It is the memory of one worker and belongs to one
// goroutine; its methods allocate nothing.
//
// The caller fills X, Missing and Noise of a tile (Fill helps with X); lanes
// beyond the rows in use must hold zeros in X.
//
// All levels but Generic give the same bits. Generic is Gradients itself.
type Trainer struct {
	X       []float32 // [Inputs][Rows]
	Missing []uint64  // [Features], bit r: row r has no value; its X must be 0
	Noise   []float32 // [Latent][Rows], standard normal numbers; read by Gradients
	// Goal, unless nil, is what Gradients follow in place of the objective; Noise must
	// be zero then.
	Goal *Goal[float32]
	// RowWeights, unless nil, multiply what the rows count to Gradients; they may be
	// negative. The sums of such rows mean nothing.
	RowWeights *[Rows]float32

	// Set by Score.
	Mu    []float32     // [Latent][Rows], the posterior's mean
	KL    []float32     // [Latent][Rows], nats
	Recon [Rows]float32 // reconstruction error of each row, nats

	net    *Net
	level  Level
	params []float32
	o      Objective
	add    bool              // to the gradients that are there
	slow   *Scratch[float32] // at Generic, where the fields below are not used
	parts  []headPart
	costs  bool // some block has a presence cost
	// present is what it costs that a block is there, at its first feature.
	present []float64
	// learned says which features have a standard deviation to learn.
	learned []bool

	pre, act      [][]float32 // per layer of encoder then decoder, but for the last
	ga, gb        []float32   // gradients on their way back
	xt, tail      []float32   // a layer's input as DenseWeightsFast wants it, and its scratch
	gt            []float32   // the gradient of a narrow layer's outputs, transposed
	y, out, dy    []float32   // of one part of the last layer: before and after the output activation, and the gradient
	terms         []float32   // of one part
	mask          []float32   // of one part: ones, but for the feature at work
	w, half       []float32   // 1/sd^2 of each Gaussian feature, and half of it
	offset        []float32   // what a Gaussian term costs besides the error, nats
	dls           []float32   // gradients of a part's log standard deviations
	weight        [Rows]float32
	masked        [Rows]float32
	lv, sd, z, dz []float32
}

// Sums collects what the rows of one or more tiles cost, in nats.
type Sums struct {
	Terms []float64 // [Features]
	KL    []float64 // [Latent]
}

// NewSums returns sums of nothing for n.
func NewSums(n *Net) *Sums {
	return &Sums{Terms: make([]float64, n.Features), KL: make([]float64, n.Latent)}
}

// Clear makes s the sums of nothing.
func (s *Sums) Clear() {
	clear(s.Terms)
	clear(s.KL)
}

// Add adds the sums of other rows.
func (s *Sums) Add(o *Sums) {
	for i, v := range o.Terms {
		s.Terms[i] += v
	}
	for i, v := range o.KL {
		s.KL[i] += v
	}
}

// partFeatures is how many outputs of the last layer are computed before their
// likelihood is taken and they go back, so that all of it stays in the near caches;
// 24 to 192 are about as fast.
const partFeatures = 96

// A headPart is a run of outputs [from, from+n) of the last layer; no
// categorical block is cut in two.
type headPart struct {
	from, n int
	runs    []headRun
}

// A headRun is a run of a part's outputs of one kind of likelihood, of any number
// of blocks, but of one block when it is categorical.
type headRun struct {
	kind    HeadKind // Gaussian stands for both kinds
	from, n int
}

func headParts(blocks []Block) (parts []headPart) {
	var p headPart
	flush := func() {
		if p.n > 0 {
			parts = append(parts, p)
		}
		p = headPart{from: p.from + p.n}
	}
	for _, b := range blocks {
		kind := b.Kind
		if kind == GaussianFixed {
			kind = Gaussian
		}
		for left := b.N; left > 0; {
			take := left
			if kind != Categorical {
				take = min(left, partFeatures-p.n)
			} else if p.n+take > partFeatures {
				flush()
			}
			if last := len(p.runs) - 1; last >= 0 && kind != Categorical && p.runs[last].kind == kind {
				p.runs[last].n += take
			} else {
				p.runs = append(p.runs, headRun{kind, p.from + p.n, take})
			}
			p.n += take
			if left -= take; p.n >= partFeatures {
				flush()
			}
		}
	}
	flush()
	return parts
}

// NewTrainer makes the memory to train n at a level. A level that this build has
// no assembly for is taken as Generic.
func NewTrainer(n *Net, level Level) *Trainer {
	if !native(level) {
		level = Generic
	}
	tile := func(f int) []float32 { return make([]float32, f*Rows) }
	t := &Trainer{X: tile(n.Inputs), Missing: make([]uint64, n.Features), Noise: tile(n.Latent), net: n, level: level}
	if level == Generic {
		t.slow = NewScratch[float32](n, true)
		t.slow.X = t.X
		t.Mu, t.KL = t.slow.Mu, t.slow.KL
		return t
	}
	t.parts = headParts(n.Blocks)
	deepest, widest, broadest, part := n.Inputs, n.Inputs, 0, 0
	for _, stack := range [][]Layer{n.Encoder, n.Decoder} {
		for _, l := range stack {
			deepest, widest = max(deepest, l.In), max(widest, l.In, l.Out)
			if l.In < Lanes {
				broadest = max(broadest, l.Out)
			}
			pre := tile(l.Out)
			act := pre
			if !fusable(l.Act) {
				act = tile(l.Out)
			}
			t.pre, t.act = append(t.pre, pre), append(t.act, act)
		}
	}
	for _, p := range t.parts {
		part = max(part, p.n)
	}
	t.ga, t.gb = tile(widest), tile(widest)
	t.xt, t.gt, t.tail = tile(Blocks(deepest)*Lanes), tile(Blocks(broadest)*Lanes), make([]float32, Lanes*Blocks(widest)*Lanes)
	t.y, t.out, t.dy, t.terms, t.mask = tile(part), tile(part), tile(part), tile(part), tile(part)
	for i := range t.mask {
		t.mask[i] = 1
	}
	t.w, t.half, t.offset, t.dls = make([]float32, n.Features), make([]float32, n.Features), make([]float32, n.Features), make([]float32, part)
	t.Mu, t.KL, t.lv, t.sd, t.z, t.dz = tile(n.Latent), tile(n.Latent), tile(n.Latent), tile(n.Latent), tile(n.Latent), tile(n.Latent)
	t.learned, t.present = make([]bool, n.Features), make([]float64, n.Features)
	for _, b := range n.Blocks {
		for f := b.From; f < b.From+b.N; f++ {
			if t.learned[f] = b.Kind == Gaussian; b.Kind == GaussianFixed {
				t.setSD(f, 1/(b.SD*b.SD), math.Log(b.SD))
			}
		}
		t.present[b.From] = b.Present
		t.costs = t.costs || b.Present != 0 || b.Missing != 0
	}
	return t
}

// fusable says whether the product writes a(x) itself; the derivative of such an
// activation follows from a(x) alone.
func fusable(a Activation) bool { return a == Identity || a == ReLU || a == Leaky }

// Fill copies rows of a row-major store to the lanes of X and zeroes the others:
// lane i gets store[index[i]*Inputs:][:Inputs]. It panics when there are more
// than Rows, or when a row is not in the store.
func (t *Trainer) Fill(store []float32, index []uint32) {
	if len(index) > Rows {
		panic("kernel: more rows than a tile has")
	}
	n := t.net.Inputs
	if len(index) == 0 || n == 0 {
		clear(t.X)
		return
	}
	var rows [Rows]*float32
	for i := range rows {
		at := int(index[min(i, len(index)-1)]) * n
		rows[i] = &store[at : at+n][0]
	}
	vecGatherRows(t.level, t.X, &rows, n)
	if len(index) < Rows {
		for f := range n {
			clear(t.X[f*Rows+len(index) : (f+1)*Rows])
		}
	}
}

// Begin sets the parameters and the objective of the tiles that follow. It keeps
// params and must be called again whenever they have changed.
func (t *Trainer) Begin(params []float32, o Objective) {
	t.params, t.o = params, o
	for f, learned := range t.learned {
		if learned {
			ls := t.net.clampLogSD(float64(params[t.net.LogSD+f]))
			t.setSD(f, math.Exp(-2*ls), ls)
		}
	}
}

// setSD sets the standard deviation of a Gaussian feature: 1/sd^2 and log(sd).
func (t *Trainer) setSD(f int, w, ls float64) {
	t.w[f], t.half[f], t.offset[f] = float32(w), float32(0.5*w), float32(ls+HalfLog2Pi)
}

// live returns the bits of the first rows lanes.
func live(rows int) uint64 {
	if rows < 0 || rows > Rows {
		panic("kernel: rows of a tile out of range")
	}
	return 1<<rows - 1 // a shift by 64 gives 0, and so all bits
}

// Gradients writes the gradient of the objective over the first rows of the tile
// to grads (laid out as the parameters), or adds it, and adds what the rows cost
// to sums. Each row counts with weight share.
func (t *Trainer) Gradients(grads []float32, add bool, sums *Sums, rows int, share float32) {
	clear(t.weight[:])
	for r := range t.weight[:rows] {
		t.weight[r] = share
		if t.RowWeights != nil {
			t.weight[r] *= t.RowWeights[r]
		}
	}
	if t.slow != nil {
		if !add {
			clear(grads)
		}
		t.slowMask(live(rows))
		t.slow.Goal = t.Goal
		Gradients(t.net, t.slow, t.params, grads, t.Noise, t.weight[:], t.o)
		t.slowSums(sums, rows)
		return
	}
	n, l := t.net, t.level
	if t.add = add; !add {
		clear(grads[n.LogSD:])
	}
	e := len(n.Encoder)
	h := t.encode()
	raw := h[n.Latent*Rows:]
	vecSample(l, t.z, t.sd, t.Mu, t.lv, t.Noise)
	t.addKL(sums, live(rows))

	deepest := len(n.Decoder) - 1
	dh := t.dz
	if deepest > 0 {
		dh = t.ga[:n.Decoder[deepest].In*Rows]
	}
	t.lastLayer(t.hidden(), dh, grads, sums, rows, share)
	t.back(n.Decoder[:deepest], e, t.z, t.dz, grads)

	dh = t.ga[:2*n.Latent*Rows]
	if t.Goal != nil {
		t.Goal.latentGradients(dh, t.dz, t.Mu, raw, t.weight[:])
		t.back(n.Encoder, 0, t.X, nil, grads)
		clear(grads[n.LogSD:])
		return
	}
	vecKLBack(l, dh[:n.Latent*Rows], dh[n.Latent*Rows:], t.dz, latentTiles{t.Mu, t.lv, raw, t.KL, t.Noise, t.sd},
		t.weight[:], float32(t.o.Beta), float32(t.o.FreeBits))
	t.back(n.Encoder, 0, t.X, nil, grads)
}

// encode runs the encoder and returns its output; Mu, KL and the clamped
// log-variance are set.
func (t *Trainer) encode() []float32 {
	x := t.X
	for i, l := range t.net.Encoder {
		t.forward(l, i, x)
		x = t.act[i]
	}
	copy(t.Mu, x[:t.net.Latent*Rows])
	vecClampLogVar(t.level, t.lv, x[t.net.Latent*Rows:])
	vecKL(t.level, t.KL, t.Mu, t.lv)
	return x
}

// hidden runs the decoder's hidden layers from z and returns what the last layer
// reads.
func (t *Trainer) hidden() []float32 {
	x, e := t.z, len(t.net.Encoder)
	for i, l := range t.net.Decoder[:len(t.net.Decoder)-1] {
		t.forward(l, e+i, x)
		x = t.act[e+i]
	}
	return x
}

func (t *Trainer) forward(l Layer, i int, x []float32) {
	a := l.Act
	if !fusable(a) {
		a = Identity
	}
	DenseRows(t.level, t.pre[i], x, t.params[l.W:l.W+l.In*l.Out], t.params[l.B:l.B+l.Out], l.In, l.Out, a)
	if a != l.Act {
		vecActivate(t.level, l.Act, t.act[i], t.pre[i])
	}
}

// outputs computes one part of the last layer from its input h: before and after
// the output activation, which is one slice where there is none.
func (t *Trainer) outputs(p headPart, h []float32) (pre, out []float32) {
	last := t.net.Decoder[len(t.net.Decoder)-1]
	pre = t.y[:p.n*Rows]
	w := last.W + p.from*last.In
	b := last.B + p.from
	DenseRows(t.level, pre, h, t.params[w:w+p.n*last.In], t.params[b:b+p.n], last.In, p.n, Identity)
	if t.net.OutAct == Identity {
		return pre, pre
	}
	out = t.out[:p.n*Rows]
	for _, r := range p.runs {
		lo, hi := (r.from-p.from)*Rows, (r.from-p.from+r.n)*Rows
		if r.kind == Gaussian {
			vecActivate(t.level, t.net.OutAct, out[lo:hi], pre[lo:hi])
		} else {
			copy(out[lo:hi], pre[lo:hi])
		}
	}
	return pre, out
}

// lastLayer runs the last layer forward from its input h, takes its likelihoods
// and runs it back, part by part, so that nothing of a part is read twice from
// afar. dh gets the gradient of h.
func (t *Trainer) lastLayer(h, dh, grads []float32, sums *Sums, rows int, share float32) {
	last := t.net.Decoder[len(t.net.Decoder)-1]
	ht := t.transposed(h, last.In)
	for i, p := range t.parts {
		pre, out := t.outputs(p, h)
		dy := t.dy[:p.n*Rows]
		for _, r := range p.runs {
			lo, hi := (r.from-p.from)*Rows, (r.from-p.from+r.n)*Rows
			g := dy[lo:hi]
			switch r.kind {
			case Gaussian:
				t.gaussGradients(r, g, out[lo:hi], grads, sums, rows, share)
				vecBackprop(t.level, t.net.OutAct, g, pre[lo:hi], out[lo:hi])
			case Bernoulli:
				t.bernGradients(r, g, out[lo:hi], sums, rows)
			case Categorical:
				t.catGradients(r, g, out[lo:hi], sums, rows)
			}
		}
		l := Layer{In: last.In, Out: p.n, W: last.W + p.from*last.In, B: last.B + p.from}
		t.layerBack(l, dy, h, ht, grads)
		inputGradient(t.level, dh, dy, t.params[l.W:l.W+l.In*l.Out], l.In, l.Out, i > 0)
	}
	t.addCosts(sums, rows)
}

// gaussGradients does one run of Gaussian features. The sum of the terms follows
// from the gradient of the log standard deviation: sum of m*(1 - w*d*d).
func (t *Trainer) gaussGradients(r headRun, g, y, grads []float32, sums *Sums, rows int, share float32) {
	x, dls, used := t.wanted()[r.from*Rows:(r.from+r.n)*Rows], t.dls[:r.n], live(rows)
	vecGaussGrad(t.level, g, dls, y, x, nil, t.weight[:], t.w[r.from:r.from+r.n])
	for j := range dls {
		f, count := r.from+j, rows
		if gone := t.Missing[f] & used; gone != 0 {
			lo, hi := j*Rows, (j+1)*Rows
			vecGaussGrad(t.level, g[lo:hi], dls[j:j+1], y[lo:hi], x[lo:hi], nil, t.without(gone), t.w[f:f+1])
			count -= bits.OnesCount64(gone)
		}
		if count > 0 {
			sums.Terms[f] += 0.5*(float64(count)-float64(dls[j])/float64(share)) + float64(count)*float64(t.offset[f])
		}
	}
	for j, d := range dls {
		f := r.from + j
		if !t.learned[f] {
			continue
		}
		raw := float64(t.params[t.net.LogSD+f])
		ls := t.net.clampLogSD(raw)
		if raw == ls || raw < ls && d < 0 || raw > ls && d > 0 { // at a limit only the way back counts
			grads[t.net.LogSD+f] += d
		}
	}
}

func (t *Trainer) bernGradients(r headRun, g, y []float32, sums *Sums, rows int) {
	x, used, smooth := t.wanted()[r.from*Rows:(r.from+r.n)*Rows], live(rows), float32(t.o.Smooth)
	terms := t.terms[:r.n*Rows]
	vecBernGrad(t.level, g, y, x, nil, t.weight[:], smooth)
	vecBernTerms(t.level, terms, y, x, Rows/Lanes, smooth)
	for j := range r.n {
		lo, hi := j*Rows, (j+1)*Rows
		gone := t.Missing[r.from+j] & used
		if gone != 0 {
			vecBernGrad(t.level, g[lo:hi], y[lo:hi], x[lo:hi], nil, t.without(gone), smooth)
		}
		sums.Terms[r.from+j] += t.sumLanes(terms[lo:hi], used&^gone)
	}
}

func (t *Trainer) catGradients(r headRun, g, y []float32, sums *Sums, rows int) {
	x, used, smooth := t.wanted()[r.from*Rows:(r.from+r.n)*Rows], live(rows), float32(t.o.Smooth)
	weight, gone := t.weight[:], t.Missing[r.from]&used
	if gone != 0 {
		weight = t.without(gone)
	}
	vecCatGrad(t.level, g, y, x, weight, smooth)
	vecCatTerms(t.level, t.terms[:Rows], y, x, Rows/Lanes, smooth)
	sums.Terms[r.from] += t.sumLanes(t.terms[:Rows], used&^gone)
}

// without returns the lanes' weights with those of gone set to 0.
func (t *Trainer) without(gone uint64) []float32 {
	t.masked = t.weight
	for ; gone != 0; gone &= gone - 1 {
		t.masked[bits.TrailingZeros64(gone)] = 0
	}
	return t.masked[:]
}

// sumLanes adds the lanes of v that are set in used, in the order of vecSumLanes.
func (t *Trainer) sumLanes(v []float32, used uint64) float64 {
	if used == math.MaxUint64 {
		var s [1]float32
		vecSumLanes(t.level, s[:], v)
		return float64(s[0])
	}
	var s [Lanes]float32
	for ; used != 0; used &= used - 1 {
		r := bits.TrailingZeros64(used)
		s[r%Lanes] += v[r]
	}
	return float64(foldLanes(&s))
}

func (t *Trainer) addKL(sums *Sums, used uint64) {
	for k := range sums.KL {
		sums.KL[k] += t.sumLanes(t.KL[k*Rows:(k+1)*Rows], used)
	}
}

// gone returns the lanes that miss any of a block.
func (t *Trainer) gone(b Block, used uint64) (gone uint64) {
	for _, m := range t.Missing[b.From : b.From+b.N] {
		gone |= m
	}
	return gone & used
}

// addCosts adds what it costs that blocks are there or missing.
func (t *Trainer) addCosts(sums *Sums, rows int) {
	if !t.costs {
		return
	}
	gaps := uint64(0)
	for f, c := range t.present {
		sums.Terms[f] += float64(rows) * c
		gaps |= t.Missing[f]
	}
	if used := live(rows); gaps&used != 0 {
		for _, b := range t.net.Blocks {
			sums.Terms[b.From] += float64(bits.OnesCount64(t.gone(b, used))) * (b.Missing - b.Present)
		}
	}
}

// back takes the gradient of a stack's output, which stands in t.ga, through its
// layers; see the function back.
func (t *Trainer) back(layers []Layer, first int, x, dx, grads []float32) {
	for i := len(layers) - 1; i >= 0; i-- {
		l := layers[i]
		g := t.ga[:l.Out*Rows]
		vecBackprop(t.level, l.Act, g, t.pre[first+i], t.act[first+i])
		in, to := x, dx
		if i > 0 {
			in, to = t.act[first+i-1], t.gb[:l.In*Rows]
		}
		t.layerBack(l, g, in, t.transposed(in, l.In), grads)
		if to != nil {
			inputGradient(t.level, to, g, t.params[l.W:l.W+l.In*l.Out], l.In, l.Out, false)
		}
		t.ga, t.gb = t.gb, t.ga
	}
}

// transposed returns a layer's input of n features as DenseWeightsFast wants it,
// until the next call; nil for a narrow one, which is not transposed.
func (t *Trainer) transposed(x []float32, n int) []float32 {
	if n < Lanes {
		return nil
	}
	xt := t.xt[:Blocks(n)*Lanes*Rows]
	vecTranspose(t.level, xt, x, n)
	return xt
}

// layerBack takes the gradient g of a layer's outputs to that of its weights and
// biases. x is its input and xt that transposed.
func (t *Trainer) layerBack(l Layer, g, x, xt, grads []float32) {
	dw, db := grads[l.W:l.W+l.In*l.Out], grads[l.B:l.B+l.Out]
	switch {
	case l.In < Lanes:
		t.narrowWeights(dw, g, x, l.In, l.Out)
	case t.add:
		DenseWeightsFast(t.level, dw, g, xt, l.In, l.Out, t.tail)
	default:
		writeWeights(t.level, dw, g, xt, l.In, l.Out, t.tail)
	}
	if !t.add {
		clear(db)
	}
	vecSumLanes(t.level, db, g)
}

// narrowWeights does the weights of a layer with fewer inputs than a vector has
// lanes, such as the decoder's first: with the outputs in the lanes. Each weight
// is a chain over the rows that starts at zero and is then added.
func (t *Trainer) narrowWeights(dw, g, x []float32, in, out int) {
	wide := Blocks(out) * Lanes
	gt, turned := t.gt[:wide*Rows], t.tail[:wide*in]
	vecTranspose(t.level, gt, g, out)
	writeWeights(t.level, turned, x, gt, wide, in, nil)
	for j := range out {
		d := dw[j*in : (j+1)*in]
		if !t.add {
			clear(d)
		}
		for k := range d {
			d[k] += turned[k*wide+j]
		}
	}
}

// inputGradient is DenseInputFast, but can add to what dx holds: the chains then
// go on, so that a layer taken in parts gives the bits of a whole one. The level
// is a native one.
func inputGradient(level Level, dx, dy, w []float32, in, out int, add bool) {
	checkTile("dx", len(dx), in)
	checkTile("dy", len(dy), out)
	var zeros [maxGroup]float32
	a := gemmArgs{x: ptr(dy), init: unsafe.Pointer(&zeros), k: out, slices: tileSlices, xk: Rows * 4, xs: Lanes * 4,
		wk: in * 4, wj: 4, yj: Rows * 4}
	if add {
		a.vector, a.initj = 1, Rows*4
	}
	inGroups(level, &a, in, func(j, n int) {
		a.y = unsafe.Add(ptr(dx), j*Rows*4)
		a.w = unsafe.Add(ptr(w), j*4)
		a.wg, a.yg = n*4, n*Rows*4
		if add {
			a.init, a.initg = a.y, a.yg
		}
	})
}

// writeWeights is DenseWeightsFast for gradients that start at zero: what dw holds
// is neither read nor kept. The level is a native one.
func writeWeights(level Level, dw, dy, xt []float32, in, out int, tail []float32) {
	var zeros [maxGroup]float32
	rest := in % Lanes
	whole := in - rest
	slices := func(dw, xt []float32, stride, n int) {
		a := gemmArgs{x: ptr(xt), init: unsafe.Pointer(&zeros), k: Rows, slices: n, xk: Lanes * 4, xs: Rows * Lanes * 4,
			wk: 4, wj: Rows * 4, yj: stride}
		inGroups(level, &a, out, func(j, n int) {
			a.y = unsafe.Add(ptr(dw), j*stride)
			a.w = unsafe.Add(ptr(dy), j*Rows*4)
			a.wg, a.yg = n*Rows*4, n*stride
		})
	}
	if whole > 0 {
		slices(dw, xt, in*4, whole/Lanes)
	}
	if rest > 0 {
		slices(tail, xt[whole*Rows:], Lanes*4, 1)
		for j := range out {
			copy(dw[j*in+whole:(j+1)*in], tail[j*Lanes:])
		}
	}
}

// TrainingLevel returns the level that trains where l scores: l, but for BF16,
// whose products are too coarse for gradients.
func TrainingLevel(l Level) Level {
	if l == BF16 {
		return AVX512
	}
	return l
}
