package kernel

import "math"

// The steps below are those of vae/train's optimizers: every product is rounded
// before it is added, so that all levels and all lengths give the same bits.

// whole is the part of n elements that the vector code takes; plain Go does the
// rest with the same operations.
func whole(n int) int { return n &^ (Lanes - 1) }

// AdamRates are the numbers of one step of Adam or AdamW. Rest1 and Rest2 are
// 1-Beta1 and 1-Beta2. Rate is the learning rate over 1-beta1^t, Root is
// 1/sqrt(1-beta2^t). AdamW sets Keep to 1-lr*decay and L2 to 0, Adam sets Keep
// to 1 and L2 to the factor of the penalty.
type AdamRates struct {
	Beta1, Beta2, Rest1, Rest2 float32
	Rate, Root, Eps            float32
	Keep, L2                   float32
}

// AdamStep moves params against grads and updates the running means of the
// gradients and of their squares, all of one length, any:
//
//	g += L2*p;  m = Beta1*m + Rest1*g;  v = Beta2*v + Rest2*g*g
//	p = Keep*p - Rate*m/(Root*sqrt(v) + Eps)
//
// It only reads grads. It panics when the lengths differ.
func AdamStep(l Level, params, grads, mean, square []float32, r AdamRates) {
	n := len(params)
	must(len(grads) == n && len(mean) == n && len(square) == n, "lengths of an optimizer's vectors differ")
	i := whole(n)
	if i == 0 || !nativeAdam(l, &params[0], &grads[0], &mean[0], &square[0], i, r.Beta1, r.Beta2, r.Rest1, r.Rest2, r.Rate, r.Root, r.Eps, r.Keep, r.L2) {
		i = 0
	}
	for ; i < n; i++ {
		p := params[i]
		g := grads[i] + float32(r.L2*p)
		m := float32(r.Beta1*mean[i]) + float32(r.Rest1*g)
		v := float32(r.Beta2*square[i]) + float32(float32(r.Rest2*g)*g)
		mean[i], square[i] = m, v
		params[i] = float32(r.Keep*p) - float32(r.Rate*m)/(float32(r.Root*float32(math.Sqrt(float64(v))))+r.Eps)
	}
}

// SGDRates are the numbers of a step of gradient descent: the learning rate, the
// factor of the velocity and of the L2 penalty. Nesterov looks ahead along the
// velocity.
type SGDRates struct {
	Rate, Momentum, Decay float32
	Nesterov              bool
}

// SGDStep moves params against grads, which it only reads:
//
//	g += Decay*p;  v = Momentum*v + g;  p -= Rate*v, or Rate*(g + Momentum*v) with Nesterov's
//
// Without momentum velocity is nil and p -= Rate*g. It panics when the lengths
// differ.
func SGDStep(l Level, params, grads, velocity []float32, r SGDRates) {
	n := len(params)
	must(len(grads) == n && (velocity == nil || len(velocity) == n), "lengths of an optimizer's vectors differ")
	i := whole(n)
	switch {
	case i == 0:
	case velocity == nil:
		if !nativeSGD(l, &params[0], &grads[0], i, r.Rate, r.Decay) {
			i = 0
		}
	case r.Nesterov:
		if !nativeNesterov(l, &params[0], &grads[0], &velocity[0], i, r.Rate, r.Momentum, r.Decay) {
			i = 0
		}
	default:
		if !nativeMomentum(l, &params[0], &grads[0], &velocity[0], i, r.Rate, r.Momentum, r.Decay) {
			i = 0
		}
	}
	for ; i < n; i++ {
		g := grads[i] + float32(r.Decay*params[i])
		if velocity != nil {
			v := float32(r.Momentum*velocity[i]) + g
			velocity[i] = v
			if r.Nesterov {
				g += float32(r.Momentum * v)
			} else {
				g = v
			}
		}
		params[i] -= float32(r.Rate * g)
	}
}

// RMSPropRates are the numbers of a step of RMSprop; Rest is 1-Alpha.
type RMSPropRates struct {
	Rate, Alpha, Rest, Eps, Momentum, Decay float32
}

// RMSPropStep moves params against grads, which it only reads:
//
//	g += Decay*p;  s = Alpha*s + Rest*g*g;  g /= sqrt(s) + Eps
//	v = Momentum*v + g;  p -= Rate*v
//
// Without momentum velocity is nil and p -= Rate*g. It panics when the lengths
// differ.
func RMSPropStep(l Level, params, grads, square, velocity []float32, r RMSPropRates) {
	n := len(params)
	must(len(grads) == n && len(square) == n && (velocity == nil || len(velocity) == n), "lengths of an optimizer's vectors differ")
	i := whole(n)
	switch {
	case i == 0:
	case velocity == nil:
		if !nativeRMSProp(l, &params[0], &grads[0], &square[0], i, r.Rate, r.Alpha, r.Rest, r.Eps, r.Decay) {
			i = 0
		}
	default:
		if !nativeRMSPropMomentum(l, &params[0], &grads[0], &square[0], &velocity[0], i, r.Rate, r.Alpha, r.Rest, r.Eps, r.Momentum, r.Decay) {
			i = 0
		}
	}
	for ; i < n; i++ {
		g := grads[i] + float32(r.Decay*params[i])
		s := float32(r.Alpha*square[i]) + float32(float32(r.Rest*g)*g)
		square[i] = s
		g /= float32(math.Sqrt(float64(s))) + r.Eps
		if velocity != nil {
			g += float32(r.Momentum * velocity[i])
			velocity[i] = g
		}
		params[i] -= float32(r.Rate * g)
	}
}

// Add adds src to dst, elementwise; they have one length, any, or it panics.
func Add(l Level, dst, src []float32) {
	must(len(dst) == len(src), "lengths of a sum differ")
	i := whole(len(dst))
	if i == 0 || !nativeAdd(l, &dst[0], &src[0], i) {
		i = 0
	}
	for ; i < len(dst); i++ {
		dst[i] += src[i]
	}
}

// Scale multiplies dst, of any length, by s.
func Scale(l Level, dst []float32, s float32) {
	i := whole(len(dst))
	if i == 0 || !nativeScale(l, &dst[0], i, s) {
		i = 0
	}
	for ; i < len(dst); i++ {
		dst[i] *= s
	}
}

// SumSquares returns the sum of the squares of v, of any length, in float64.
// Element i of the whole part, a multiple of Lanes, goes to lane i%Lanes; the
// lanes are added by halves, the upper to the lower; the rest follows in
// ascending order. All levels give the same bits.
func SumSquares(l Level, v []float32) float64 {
	var total float64
	n := whole(len(v))
	if n > 0 && !nativeSumSquares(l, &v[0], n, &total) {
		var s [Lanes]float64
		for i, x := range v[:n] {
			s[i%Lanes] += float64(x) * float64(x)
		}
		total = foldLanes(&s)
	}
	for _, x := range v[n:] {
		total += float64(x) * float64(x)
	}
	return total
}
