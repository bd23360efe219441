package vae

import "math"

// A pareto is a generalised Pareto distribution of excesses x >= 0: they are above
// x with the probability (1 + shape x/scale)^(-1/shape), exp(-x/scale) at shape 0.
// A shape below 0 has an end, one above 0 a heavy tail.
type pareto struct{ shape, scale float64 }

// fitPareto fits the distribution to ascending excesses above 0 by the method of
// Zhang and Stephens (A new and efficient estimation method for the generalized
// Pareto distribution, Technometrics 2009): theta = -shape/scale is the mean of a
// grid under the profile likelihood, with the paper's prior. It always gives an
// answer, which maximum likelihood (Grimshaw 1993) does not.
func fitPareto(x []float64) pareto {
	n := len(x)
	m := 20 + int(math.Sqrt(float64(n)))
	quarter := x[max(int(float64(n)/4+0.5)-1, 0)]
	theta, like := make([]float64, m), make([]float64, m)
	top := math.Inf(-1)
	for j := range theta {
		theta[j] = 1/x[n-1] + (1-math.Sqrt(float64(m)/(float64(j)+0.5)))/(3*quarter)
		shape := meanLog(x, theta[j])
		like[j] = float64(n) * (math.Log(-theta[j]/shape) - shape - 1)
		if like[j] > top { // false for NaN
			top = like[j]
		}
	}
	sum, weight := 0.0, 0.0
	for j, l := range like {
		if w := math.Exp(l - top); w > 0 {
			sum, weight = sum+w*theta[j], weight+w
		}
	}
	best := sum / weight
	shape := meanLog(x, best)
	if shape == 0 || best == 0 || !finite(shape/best) {
		mean := 0.0
		for _, v := range x {
			mean += v / float64(n)
		}
		return pareto{0, mean}
	}
	return pareto{shape, -shape / best}
}

// meanLog is the shape that has the highest likelihood for a theta.
func meanLog(x []float64, theta float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += math.Log1p(-theta * v)
	}
	return sum / float64(len(x))
}

// quantile returns the excess that a share of the excesses, above 0 and at most 1,
// lies beyond.
func (d pareto) quantile(share float64) float64 {
	if math.Abs(d.shape) < 1e-9 {
		return -d.scale * math.Log(share)
	}
	return d.scale / d.shape * math.Expm1(-d.shape*math.Log(share))
}
