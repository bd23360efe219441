package kernel

import (
	"math"
	"slices"
	"testing"
)

// stepped is what a step works on.
type stepped struct{ params, grads, a, b []float32 }

func (s stepped) clone() stepped {
	return stepped{slices.Clone(s.params), slices.Clone(s.grads), slices.Clone(s.a), slices.Clone(s.b)}
}

func f(x float64) float32 { return float32(x) }

// The loops of vae/train/optimizer.go, with every product rounded.

func adamSpec(s stepped, r AdamRates) {
	for i, g := range s.grads {
		p := s.params[i]
		g += f(float64(float32(r.L2 * p)))
		m := float32(r.Beta1*s.a[i]) + float32(r.Rest1*g)
		v := float32(r.Beta2*s.b[i]) + float32(r.Rest2*g*g)
		s.a[i], s.b[i] = m, v
		s.params[i] = float32(r.Keep*p) - r.Rate*m/(float32(r.Root*float32(math.Sqrt(float64(v))))+r.Eps)
	}
}

func sgdSpec(s stepped, r SGDRates, velocity bool) {
	for i, g := range s.grads {
		g += float32(r.Decay * s.params[i])
		if velocity {
			v := float32(r.Momentum*s.a[i]) + g
			s.a[i] = v
			if r.Nesterov {
				g += float32(r.Momentum * v)
			} else {
				g = v
			}
		}
		s.params[i] -= float32(r.Rate * g)
	}
}

func rmspropSpec(s stepped, r RMSPropRates, velocity bool) {
	for i, g := range s.grads {
		g += float32(r.Decay * s.params[i])
		q := float32(r.Alpha*s.b[i]) + float32(r.Rest*g*g)
		s.b[i] = q
		g /= float32(math.Sqrt(float64(q))) + r.Eps
		if velocity {
			g += float32(r.Momentum * s.a[i])
			s.a[i] = g
		}
		s.params[i] -= float32(r.Rate * g)
	}
}

// TestSteps demands the bits of the plain loops at every level and length.
func TestVecSteps(t *testing.T) {
	adam := AdamRates{Beta1: 0.9, Beta2: 0.999, Rest1: f(1 - 0.9), Rest2: f(1 - 0.999), Rate: 0.0123, Root: 3.3, Eps: 1e-8, Keep: 1, L2: 0.01}
	adamw := adam
	adamw.Keep, adamw.L2 = 1-1e-5, 0
	sgd := SGDRates{Rate: 0.1, Momentum: 0.9, Decay: 0.01}
	nesterov := sgd
	nesterov.Nesterov = true
	rms := RMSPropRates{Rate: 0.01, Alpha: 0.99, Rest: f(1 - 0.99), Eps: 1e-8, Momentum: 0.8, Decay: 0.02}
	steps := map[string]struct {
		run  func(Level, stepped)
		spec func(stepped)
	}{
		"adam":     {func(l Level, s stepped) { AdamStep(l, s.params, s.grads, s.a, s.b, adam) }, func(s stepped) { adamSpec(s, adam) }},
		"adamw":    {func(l Level, s stepped) { AdamStep(l, s.params, s.grads, s.a, s.b, adamw) }, func(s stepped) { adamSpec(s, adamw) }},
		"sgd":      {func(l Level, s stepped) { SGDStep(l, s.params, s.grads, nil, sgd) }, func(s stepped) { sgdSpec(s, sgd, false) }},
		"momentum": {func(l Level, s stepped) { SGDStep(l, s.params, s.grads, s.a, sgd) }, func(s stepped) { sgdSpec(s, sgd, true) }},
		"nesterov": {func(l Level, s stepped) { SGDStep(l, s.params, s.grads, s.a, nesterov) }, func(s stepped) { sgdSpec(s, nesterov, true) }},
		"rmsprop":  {func(l Level, s stepped) { RMSPropStep(l, s.params, s.grads, s.b, nil, rms) }, func(s stepped) { rmspropSpec(s, rms, false) }},
		"rmsprop momentum": {func(l Level, s stepped) { RMSPropStep(l, s.params, s.grads, s.b, s.a, rms) },
			func(s stepped) { rmspropSpec(s, rms, true) }},
		"add": {func(l Level, s stepped) { Add(l, s.params, s.grads) }, func(s stepped) {
			for i, g := range s.grads {
				s.params[i] += g
			}
		}},
		"scale": {func(l Level, s stepped) { Scale(l, s.params, 0.3) }, func(s stepped) {
			for i := range s.params {
				s.params[i] *= 0.3
			}
		}},
	}
	rnd := newRand()
	for name, c := range steps {
		t.Run(name, func(t *testing.T) {
			for n := range 150 {
				start := stepped{normals(rnd, n), normals(rnd, n), normals(rnd, n), normals(rnd, n)}
				for i := range start.b {
					start.b[i] *= start.b[i]
					if rnd.IntN(10) == 0 {
						start.b[i], start.a[i], start.grads[i] = 0, 0, 0
					}
					if rnd.IntN(10) == 0 {
						start.grads[i] *= 1e-25 // its square is denormal
					}
				}
				want := start.clone()
				c.spec(want)
				for _, l := range Levels() {
					got := start.clone()
					c.run(l, got)
					if !same(got.params, want.params) || !same(got.a, want.a) || !same(got.b, want.b) || !same(got.grads, start.grads) {
						i := differs(got.params, want.params)
						t.Fatalf("%v: %d elements differ from plain Go, parameters first at %d", l, n, i)
					}
				}
			}
		})
	}
}

func TestVecSumSquares(t *testing.T) {
	rnd := newRand()
	for n := range 200 {
		v := normals(rnd, n)
		var plain float64
		for _, x := range v {
			plain += float64(x) * float64(x)
		}
		want := SumSquares(Generic, v)
		if math.Abs(want-plain) > 1e-13*plain {
			t.Fatalf("%d elements: %v, want about %v", n, want, plain)
		}
		for _, l := range natives() {
			if got := SumSquares(l, v); got != want {
				t.Fatalf("%v: %d elements: %v, want %v", l, n, got, want)
			}
		}
	}
}
