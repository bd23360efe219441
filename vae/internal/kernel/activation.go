package kernel

import (
	"fmt"
	"math"
	"slices"
)

// Activation is an elementwise function after a dense layer.
type Activation uint8

// The activations. Leaky uses a slope of 0.01 below zero, ELU alpha 1, GELU the
// exact form x*Phi(x) (Hendrycks and Gimpel 2016), SiLU x*sigmoid(x).
const (
	Identity Activation = iota
	ReLU
	Leaky
	ELU
	GELU
	SiLU
	Tanh
	Sigmoid
	Softplus
)

var activationNames = [...]string{"identity", "relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus"}

// String returns the name used in model files and configuration.
func (a Activation) String() string {
	if int(a) < len(activationNames) {
		return activationNames[a]
	}
	return fmt.Sprintf("activation(%d)", uint8(a))
}

// ActivationNames lists every name that ParseActivation takes.
func ActivationNames() []string { return activationNames[:] }

// ParseActivation returns the activation of that name.
func ParseActivation(name string) (Activation, error) {
	for i, n := range activationNames {
		if n == name {
			return Activation(i), nil
		}
	}
	return 0, fmt.Errorf("unknown activation %q", name)
}

const leakySlope = 0.01

// Activate writes a(x) to y elementwise; y and x may be the same slice.
func Activate[F Float](a Activation, y, x []F) {
	y = y[:len(x)]
	switch a {
	case Identity:
		copy(y, x)
	case ReLU:
		for i, v := range x {
			y[i] = max(v, 0)
		}
	case Leaky:
		for i, v := range x {
			if v < 0 {
				v *= leakySlope
			}
			y[i] = v
		}
	default:
		for i, v := range x {
			y[i] = F(activate(a, float64(v)))
		}
	}
}

func activate(a Activation, x float64) float64 {
	switch a {
	case ELU:
		if x < 0 {
			return math.Expm1(x)
		}
		return x
	case GELU:
		return x * 0.5 * math.Erfc(-x/math.Sqrt2)
	case SiLU:
		return x * sigmoid(x)
	case Tanh:
		return math.Tanh(x)
	case Sigmoid:
		return sigmoid(x)
	case Softplus:
		return softplus(x)
	}
	panic("kernel: " + a.String() + " has its own loop")
}

// Backprop multiplies g by the derivative of a at x, in place. y is a(x).
func Backprop[F Float](a Activation, g, x, y []F) {
	x, y = x[:len(g)], y[:len(g)]
	switch a {
	case Identity:
	case ReLU:
		for i := range g {
			if x[i] <= 0 {
				g[i] = 0
			}
		}
	case Leaky:
		for i := range g {
			if x[i] < 0 {
				g[i] *= leakySlope
			}
		}
	default:
		for i := range g {
			g[i] *= F(derivative(a, float64(x[i]), float64(y[i])))
		}
	}
}

func derivative(a Activation, x, y float64) float64 {
	switch a {
	case ELU:
		if x < 0 {
			return y + 1
		}
		return 1
	case GELU:
		return 0.5*math.Erfc(-x/math.Sqrt2) + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	case SiLU:
		s := sigmoid(x)
		return s * (1 + x*(1-s))
	case Tanh:
		return 1 - y*y
	case Sigmoid:
		return y * (1 - y)
	case Softplus:
		return sigmoid(x)
	}
	panic("kernel: " + a.String() + " has its own loop")
}

func sigmoid(x float64) float64 {
	if x >= 0 {
		return 1 / (1 + math.Exp(-x))
	}
	e := math.Exp(x)
	return e / (1 + e)
}

// softplus is log(1+e^x) without overflow.
func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// Softmax turns logits into probabilities, in place.
func Softmax(v []float32) {
	top, total := slices.Max(v), 0.0
	for _, x := range v {
		total += math.Exp(float64(x - top))
	}
	for j, x := range v {
		v[j] = float32(math.Exp(float64(x-top)) / total)
	}
}
