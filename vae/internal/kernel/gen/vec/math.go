package main

import "math"

// The functions below take and return virtual registers. Polynomials are minimax
// fits (Remez), coefficients of rising powers; their errors are relative.

var (
	// expm1(r) = r + r*r*q(r) on [-ln2/2, ln2/2], 1.4e-8.
	expPoly = []float64{0.5, 0.1666654199, 0.04166627675, 0.008366813883, 0.001394684776}
	// log1p(u) = u*q(u) on [0, 1], 4.7e-9.
	log1pPoly = []float64{1, -0.4999990165, 0.3332996368, -0.2495413423, 0.1967594028, -0.1530559361,
		0.1060365587, -0.05695954338, 0.01985146478, -0.003244025633}
	// log1p(f) = f + f*f*q(f) on [sqrt(1/2)-1, sqrt(2)-1], 4.2e-9.
	logPoly = []float64{-0.4999998808, 0.333333075, -0.250015229, 0.2000301629, -0.1661114991, 0.1416346729,
		-0.132087931, 0.1300484091, -0.07823394984}
	// expm1(v) - v = v*v*q(v) on [-1/2, 1/2], 6.7e-10.
	klPoly = []float64{0.5, 0.1666666716, 0.04166666418, 0.008333182894, 0.001388904057, 0.0001996195642, 2.484167999e-05}
	// Phi(-a) = exp(-a*a/2)*t*q(t-3/4), t = 1/(1+tailScale*a), on [0, 13.3], 3.4e-9.
	tailPoly = []float64{0.3293991089, 0.5440547466, 0.5102286339, 0.1968366802, -0.07959220558, -0.07807603478,
		0.03367534652, 0.02878389694, -0.02672930062, -0.02058464848}
	// Phi(x) = 1/2 + x*q(x*x) on [-0.65, 0.65], 8.5e-9.
	middlePoly = []float64{0.3989421725, -0.06648661941, 0.009941200726, -0.001083266572}
)

const (
	tailScale = 0.3
	// An exponent below expLow gives 0 and one above expHigh infinity, without
	// leaving the range that one multiplication by a power of two can reach.
	expLow, expHigh = -88, 89
	// Adding magic rounds to an integer, which then stands in the low bits.
	magic = 3 << 22
)

var (
	ln2Hi = float64(float32(math.Ln2))
	ln2Lo = math.Ln2 - ln2Hi
	// Bits of float32.
	oneBits  = kbits(math.Float32bits(1))
	signBit  = kbits(1 << 31)
	restBits = kbits(1<<31 - 1)
)

// horner evaluates a polynomial of x.
func (p *program) horner(x value, c []float64) value {
	y := p.fma(k(c[len(c)-1]), x, k(c[len(c)-2]))
	for i := len(c) - 3; i >= 0; i-- {
		y = p.fma(y, x, k(c[i]))
	}
	return y
}

// reduce splits x, which is within expLow..expHigh or NaN, into n*ln2 + r; scale
// is 2^n.
func (p *program) reduce(x value) (r, scale value) {
	t := p.fma(x, k(math.Log2E), k(magic))
	n := p.minus(t, k(magic))
	r = p.fnma(n, k(ln2Hi), x)
	r = p.fnma(n, k(ln2Lo), r)
	return r, p.iadd(p.shl(t, 23), oneBits)
}

// expReduced returns exp(r)*scale.
func (p *program) expReduced(r, scale value) value {
	y := p.horner(r, expPoly)
	y = p.fma(y, r, k(1))
	y = p.fma(y, r, k(1))
	return p.times(y, scale)
}

// exp returns exp(x) for x within expLow..expHigh, or NaN.
func (p *program) exp(x value) value { return p.expReduced(p.reduce(x)) }

// expNegative returns exp(-x) for x within -expHigh..-expLow, or NaN.
func (p *program) expNegative(x value) value {
	t := p.fma(x, k(-math.Log2E), k(magic))
	n := p.minus(t, k(magic))
	r := p.fma(n, k(ln2Hi), x) // minus the remainder
	r = p.fma(n, k(ln2Lo), r)
	c := append([]float64{1, 1}, expPoly...)
	for i := 1; i < len(c); i += 2 {
		c[i] = -c[i]
	}
	return p.times(p.horner(r, c), p.iadd(p.shl(t, 23), oneBits))
}

// expm1 returns exp(x)-1 for x within expLow..expHigh, or NaN, without
// cancellation.
func (p *program) expm1(x value) value {
	r, scale := p.reduce(x)
	y := p.fma(p.times(r, r), p.horner(r, expPoly), r)
	return p.fma(y, scale, p.minus(scale, k(1)))
}

// sigmoid returns 1/(1+exp(-x)) for any x.
func (p *program) sigmoid(x value) value {
	e := p.expNegative(p.min(k(-expLow), p.max(k(-expHigh), x)))
	return p.over(k(1), p.plus(e, k(1)))
}

// tanh goes through expm1, which keeps its relative error near 0.
func (p *program) tanh(x value) value {
	x = p.min(k(10), p.max(k(-10), x))
	e := p.expm1(p.plus(x, x))
	return p.over(e, p.plus(e, k(2)))
}

func (p *program) elu(x value) value {
	e := p.expm1(p.min(k(0), p.max(k(-30), x)))
	return p.choose(p.less(x, k(0)), e, x)
}

func (p *program) silu(x value) value {
	low := p.max(k(-expHigh), x)
	e := p.expNegative(p.min(k(-expLow), low))
	return p.over(low, p.plus(e, k(1)))
}

// log1pExp returns log(1 + exp(-|z|)).
func (p *program) log1pExp(z value) value {
	u := p.expNegative(p.min(k(-expLow), p.and(z, restBits)))
	return p.times(u, p.horner(u, log1pPoly))
}

func (p *program) softplus(x value) value {
	return p.plus(p.max(k(0), x), p.log1pExp(x))
}

// phi returns x held to the range where exp(-x*x/2) is above 0, that
// exponential, and the normal distribution's Phi(x).
func (p *program) phi(x value) (held, e, area value) {
	held = p.min(k(13.26), p.max(k(-13.26), x))
	a := p.and(held, restBits)
	s := p.times(a, a)
	middle := p.fma(held, p.horner(s, middlePoly), k(0.5))
	half := p.times(s, k(-0.5))
	lost := p.fnma(a, a, s) // what rounding took from s, with its sign turned
	r, scale := p.reduce(half)
	e = p.expReduced(p.fma(lost, k(0.5), r), scale)
	u := p.over(k(1), p.fma(a, k(tailScale), k(1)))
	tail := p.times(p.times(u, p.horner(p.minus(u, k(0.75)), tailPoly)), e)
	area = p.choose(p.less(k(0), held), p.minus(k(1), tail), tail)
	return held, e, p.choose(p.less(a, k(0.65)), middle, area)
}

func (p *program) gelu(x value) value {
	held, _, area := p.phi(x)
	// Far below 0, the limit 0 instead of -Inf*0; above, x itself.
	return p.times(p.choose(p.less(k(0), held), x, held), area)
}

// log returns log(x) for a normal x above 0; infinity and NaN give NaN.
func (p *program) log(x value) value {
	i := p.sar(p.isub(x, kbits(0x3f3504f3)), 23) // the exponent of x/sqrt(1/2)
	f := p.minus(p.isub(x, p.shl(i, 23)), k(1))
	e := p.float(i)
	y := p.times(p.times(f, f), p.horner(f, logPoly))
	y = p.plus(p.fma(e, k(ln2Lo), y), f)
	y = p.fma(e, k(ln2Hi), y)
	return p.plus(y, p.minus(x, x)) // NaN
}

// klTerm returns expm1(lv) - lv.
func (p *program) klTerm(lv value) value {
	series := p.times(p.times(lv, lv), p.horner(lv, klPoly))
	whole := p.minus(p.expm1(lv), lv)
	return p.choose(p.less(p.and(lv, restBits), k(0.5)), series, whole)
}
