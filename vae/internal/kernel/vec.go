package kernel

import "math"

// The vec functions are the fast variants of everything here that is not a
// matrix product. They take a Level and run its generated assembly; at Generic,
// and where a build has none, they run plain Go. All levels but Generic give the
// same bits. A NaN stays in its lane. Lengths that do not fit panic: they are a
// mistake of the caller. No function keeps a slice or allocates.
//
// A slice, here, is Lanes neighbouring rows of a tile: a tile with n rows in use
// is worked on in ceil(n/Lanes) slices.

//go:generate go run ./gen/vec

// Lanes is the number of rows in a slice of a tile; flat vectors have a length
// that is a multiple of it unless a function says otherwise.
const Lanes = 16

func must(ok bool, what string) {
	if !ok {
		panic("kernel: " + what)
	}
}

// vecActivate writes a(x) to y elementwise; y may be x. The relative error is at
// most 2.4e-7, for GELU below -0.6 twice that, or the absolute one below 1e-36.
// SiLU and GELU of -Inf are their limit 0; at Generic they are NaN.
func vecActivate(l Level, a Activation, y, x []float32) {
	must(len(y) == len(x) && len(x)%Lanes == 0, "activation of lengths that do not fit")
	if len(x) == 0 {
		return
	}
	if a == Identity {
		copy(y, x)
		return
	}
	if !nativeActivate(l, a, &y[0], &x[0], len(x)) {
		Activate(a, y, x)
	}
}

func nativeActivate(l Level, a Activation, y, x *float32, n int) bool {
	switch a {
	case ReLU:
		return nativeReLU(l, y, x, n)
	case Leaky:
		return nativeLeaky(l, y, x, n)
	case ELU:
		return nativeELU(l, y, x, n)
	case GELU:
		return nativeGELU(l, y, x, n)
	case SiLU:
		return nativeSiLU(l, y, x, n)
	case Tanh:
		return nativeTanh(l, y, x, n)
	case Sigmoid:
		return nativeSigmoid(l, y, x, n)
	case Softplus:
		return nativeSoftplus(l, y, x, n)
	}
	return false
}

// vecBackprop multiplies g by the derivative of a at x, in place. y is a(x).
func vecBackprop(l Level, a Activation, g, x, y []float32) {
	must(len(y) == len(g) && len(x) == len(g) && len(g)%Lanes == 0, "backprop of lengths that do not fit")
	if len(g) == 0 || a == Identity {
		return
	}
	if !nativeBackprop(l, a, &g[0], &x[0], &y[0], len(g)) {
		Backprop(a, g, x, y)
	}
}

func nativeBackprop(l Level, a Activation, g, x, y *float32, n int) bool {
	switch a {
	case ReLU:
		return nativeReLUBack(l, g, x, n)
	case Leaky:
		return nativeLeakyBack(l, g, x, n)
	case ELU:
		return nativeELUBack(l, g, y, x, n)
	case GELU:
		return nativeGELUBack(l, g, x, n)
	case SiLU:
		return nativeSiLUBack(l, g, x, n)
	case Tanh:
		return nativeTanhBack(l, g, y, n)
	case Sigmoid:
		return nativeSigmoidBack(l, g, y, n)
	case Softplus:
		return nativeSoftplusBack(l, g, x, n)
	}
	return false
}

// vecClampLogVar writes raw, clamped to LogVarMin..LogVarMax, to lv, which may be
// raw.
func vecClampLogVar(l Level, lv, raw []float32) {
	must(len(lv) == len(raw) && len(lv)%Lanes == 0, "log-variances do not fit")
	if len(lv) == 0 || nativeClampLogVar(l, &lv[0], &raw[0], len(lv)) {
		return
	}
	for i, v := range raw {
		lv[i] = min(max(v, LogVarMin), LogVarMax)
	}
}

// vecKL writes (mu^2 + expm1(lv) - lv)/2, in nats, to kl, elementwise. lv is
// within LogVarMin..LogVarMax, or NaN.
func vecKL(l Level, kl, mu, lv []float32) {
	must(len(mu) == len(kl) && len(lv) == len(kl) && len(kl)%Lanes == 0, "latents do not fit")
	if len(kl) == 0 || nativeKL(l, &kl[0], &mu[0], &lv[0], len(kl)) {
		return
	}
	for i, m := range mu {
		v := float64(lv[i])
		kl[i] = float32(0.5 * (float64(m)*float64(m) + (math.Expm1(v) - v)))
	}
}

// vecSample writes exp(lv/2) to sd and mu + noise*sd to z, elementwise.
func vecSample(l Level, z, sd, mu, lv, noise []float32) {
	n := len(z)
	must(len(sd) == n && len(mu) == n && len(lv) == n && len(noise) == n && n%Lanes == 0, "latents do not fit")
	if n == 0 || nativeSample(l, &z[0], &sd[0], &mu[0], &lv[0], &noise[0], n) {
		return
	}
	for i, m := range mu {
		sd[i] = float32(math.Exp(0.5 * float64(lv[i])))
		z[i] = m + float32(noise[i]*sd[i])
	}
}

// latentTiles are the tiles of the latents, [latents][Rows], that vecKLBack
// reads: the posterior's mean, its log-variance after and before the clamp, the
// KL terms, the noise and the posterior's standard deviation.
type latentTiles struct{ mu, lv, raw, kl, noise, sd []float32 }

// vecKLBack takes dz, the gradient of the latents, through the sampling and adds
// that of the KL: where kl is above freeBits a lane's mu and lv count with its
// weight, of which there are Rows, times beta. At a limit of the log-variance
// only the way back counts. It writes dmu and dlv.
func vecKLBack(l Level, dmu, dlv, dz []float32, t latentTiles, weight []float32, beta, freeBits float32) {
	n := len(dmu)
	must(len(dlv) == n && len(dz) == n && len(t.mu) == n && len(t.lv) == n && len(t.raw) == n && len(t.kl) == n &&
		len(t.noise) == n && len(t.sd) == n && n%Rows == 0 && len(weight) == Rows, "latents do not fit")
	if n == 0 || nativeKLBack(l, &dmu[0], &dlv[0], &dz[0], &t.mu[0], &t.lv[0], &t.raw[0], &t.kl[0], &t.noise[0], &t.sd[0],
		&weight[0], n/Rows, beta, 0.5*beta, freeBits) {
		return
	}
	for i, g := range dz {
		w := weight[i%Rows]
		dm, dv := g, float32(0.5*g*t.noise[i]*t.sd[i])
		if t.kl[i] > freeBits {
			dm += float32(w * beta * t.mu[i])
			dv += float32(w * float32(float64(0.5*beta)*math.Expm1(float64(t.lv[i]))))
		}
		if c := t.raw[i]; c < LogVarMin && dv > 0 || c > LogVarMax && dv < 0 {
			dv = 0
		}
		dmu[i], dlv[i] = dm, dv
	}
}

// foldLanes adds the Lanes elements of s in the one order that all levels use
// for sums over lanes: the upper half to the lower, until one is left.
func foldLanes[F Float](s *[Lanes]F) F {
	for h := Lanes / 2; h > 0; h /= 2 {
		for i := range h {
			s[i] += s[i+h]
		}
	}
	return s[0]
}
