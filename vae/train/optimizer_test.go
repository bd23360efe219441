package train_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/elbo-stream/elbo/vae/train"
)

// reference is an optimizer in float64 for one parameter, written from the
// formulas of PyTorch's documentation.
type reference struct {
	c          train.OptimizerConfig
	t          int
	m, v, buff float64
}

func (r *reference) step(p, g, lr float64) float64 {
	c := r.c
	r.t++
	switch c.Name {
	case "sgd":
		g += c.WeightDecay * p
		if c.Momentum != 0 {
			if r.t == 1 {
				r.buff = g
			} else {
				r.buff = c.Momentum*r.buff + g
			}
			if c.Nesterov {
				g += c.Momentum * r.buff
			} else {
				g = r.buff
			}
		}
		return p - lr*g
	case "adam", "adamw":
		if c.Name == "adam" {
			g += c.WeightDecay * p
		} else {
			p -= lr * c.WeightDecay * p
		}
		r.m += (g - r.m) * (1 - c.Beta1)
		r.v = c.Beta2*r.v + (1-c.Beta2)*g*g
		mHat := r.m / (1 - math.Pow(c.Beta1, float64(r.t)))
		vHat := r.v / (1 - math.Pow(c.Beta2, float64(r.t)))
		return p - lr*mHat/(math.Sqrt(vHat)+c.Eps)
	case "rmsprop":
		g += c.WeightDecay * p
		r.v = c.Beta2*r.v + (1-c.Beta2)*g*g
		d := g / (math.Sqrt(r.v) + c.Eps)
		if c.Momentum != 0 {
			r.buff = c.Momentum*r.buff + d
			d = r.buff
		}
		return p - lr*d
	}
	panic(c.Name)
}

type optimizerCase struct {
	name      string
	asked     train.OptimizerConfig
	reference train.OptimizerConfig // with the defaults written out
}

var optimizerCases = []optimizerCase{
	{"sgd", train.OptimizerConfig{Name: "sgd"}, train.OptimizerConfig{Name: "sgd"}},
	{"sgd momentum", train.OptimizerConfig{Name: "sgd", Momentum: 0.9}, train.OptimizerConfig{Name: "sgd", Momentum: 0.9}},
	{"sgd nesterov decay", train.OptimizerConfig{Name: "sgd", Momentum: 0.8, Nesterov: true, WeightDecay: 0.1},
		train.OptimizerConfig{Name: "sgd", Momentum: 0.8, Nesterov: true, WeightDecay: 0.1}},
	{"default", train.OptimizerConfig{}, train.OptimizerConfig{Name: "adam", Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}},
	{"adam", train.OptimizerConfig{Name: "adam"}, train.OptimizerConfig{Name: "adam", Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}},
	{"adam all", train.OptimizerConfig{Name: "adam", Beta1: 0.7, Beta2: 0.95, Eps: 1e-3, WeightDecay: 0.2},
		train.OptimizerConfig{Name: "adam", Beta1: 0.7, Beta2: 0.95, Eps: 1e-3, WeightDecay: 0.2}},
	{"adamw", train.OptimizerConfig{Name: "adamw"}, train.OptimizerConfig{Name: "adamw", Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01}},
	{"adamw decay", train.OptimizerConfig{Name: "adamw", WeightDecay: 0.3}, train.OptimizerConfig{Name: "adamw", Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.3}},
	{"rmsprop", train.OptimizerConfig{Name: "rmsprop"}, train.OptimizerConfig{Name: "rmsprop", Beta2: 0.99, Eps: 1e-8}},
	{"rmsprop momentum decay", train.OptimizerConfig{Name: "rmsprop", Momentum: 0.5, Beta2: 0.9, WeightDecay: 0.1},
		train.OptimizerConfig{Name: "rmsprop", Momentum: 0.5, Beta2: 0.9, Eps: 1e-8, WeightDecay: 0.1}},
}

func newOptimizer(t *testing.T, c train.OptimizerConfig, n int) train.Optimizer {
	t.Helper()
	o, err := train.NewOptimizer(c, n)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// gradient is a made-up gradient of parameter i at a step: a bowl and a wobble.
func gradient(p float64, i, step int) float64 {
	return p*float64(i+1)/4 + 0.3*math.Sin(float64(step*(i+3)))
}

func TestOptimizersFollowTheFormulas(t *testing.T) {
	const n, steps = 7, 200
	for _, c := range optimizerCases {
		t.Run(c.name, func(t *testing.T) {
			o := newOptimizer(t, c.asked, n)
			refs := make([]reference, n)
			p, g, want := make([]float32, n), make([]float32, n), make([]float64, n)
			for i := range n {
				refs[i].c = c.reference
				want[i] = float64(i) - 2.5
				p[i] = float32(want[i])
			}
			for s := range steps {
				lr := 0.01 / (1 + float64(s)/50)
				for i := range n {
					// One gradient for both: the comparison is of the formulas, not of
					// how rounding moves a path.
					g[i] = float32(gradient(want[i], i, s))
					want[i] = refs[i].step(want[i], float64(g[i]), lr)
				}
				o.Step(p, g, lr)
			}
			for i := range n {
				if d := math.Abs(float64(p[i]) - want[i]); !(d < 2e-5*(1+math.Abs(want[i]))) {
					t.Errorf("parameter %d = %v after %d steps, want %v", i, p[i], steps, want[i])
				}
			}
		})
	}
}

func TestKnownSequences(t *testing.T) {
	tests := []struct {
		name  string
		c     train.OptimizerConfig
		grads []float32
		want  []float32 // of a parameter that starts at 1, lr 0.1
	}{
		{"sgd", train.OptimizerConfig{Name: "sgd"}, []float32{1, -2, 0}, []float32{0.9, 1.1, 1.1}},
		{"momentum", train.OptimizerConfig{Name: "sgd", Momentum: 0.5}, []float32{1, 1, 0}, []float32{0.9, 0.75, 0.675}},
		{"nesterov", train.OptimizerConfig{Name: "sgd", Momentum: 0.5, Nesterov: true}, []float32{1, 1, 0}, []float32{0.85, 0.675, 0.6375}},
		// Adam's first step is lr in size whatever the gradient's scale.
		{"adam small", train.OptimizerConfig{Name: "adam"}, []float32{1e-4, 1e-4}, []float32{0.9, 0.8}},
		{"adam large", train.OptimizerConfig{Name: "adam"}, []float32{-1e4, -1e4}, []float32{1.1, 1.2}},
		{"adamw decays without a gradient", train.OptimizerConfig{Name: "adamw", WeightDecay: 0.5}, []float32{0, 0}, []float32{0.95, 0.9025}},
		// The first mean of squares is g*g/100, its root |g|/10.
		{"rmsprop", train.OptimizerConfig{Name: "rmsprop"}, []float32{3}, []float32{0}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			o := newOptimizer(t, c.c, 1)
			p := []float32{1}
			for s, g := range c.grads {
				o.Step(p, []float32{g}, 0.1)
				if math.Abs(float64(p[0]-c.want[s])) > 2e-5 {
					t.Errorf("step %d: p = %v, want %v", s+1, p[0], c.want[s])
				}
			}
		})
	}
}

func TestRestoredOptimizerContinuesToTheSameBits(t *testing.T) {
	const n = 9
	for _, c := range optimizerCases {
		t.Run(c.name, func(t *testing.T) {
			first := newOptimizer(t, c.asked, n)
			p, g := make([]float32, n), make([]float32, n)
			step := func(o train.Optimizer, p []float32, s int) {
				for i := range g {
					g[i] = float32(gradient(float64(p[i]), i, s))
				}
				o.Step(p, g, 0.003)
			}
			for s := range 20 {
				step(first, p, s)
			}
			second := newOptimizer(t, c.asked, n)
			from, to := first.State(), second.State()
			if len(from) != len(to) {
				t.Fatalf("State() has %d vectors in a new optimizer, want %d", len(to), len(from))
			}
			for i := range from {
				copy(to[i], from[i])
			}
			q := append([]float32(nil), p...)
			for s := 20; s < 40; s++ {
				step(first, p, s)
				step(second, q, s)
			}
			for i := range p {
				if math.Float32bits(p[i]) != math.Float32bits(q[i]) {
					t.Errorf("parameter %d = %v after restoring, want %v", i, q[i], p[i])
				}
			}
		})
	}
}

// Every level, whole or in parts of any length, gives the bits of plain Go.
func TestLevelsAndPartsGiveTheSameBits(t *testing.T) {
	for _, c := range optimizerCases {
		for _, n := range []int{1, 15, 16, 33, 100} {
			var want []float32
			for _, l := range train.Levels() { // plain Go first
				for _, cuts := range [][]int{nil, {n / 3, n / 2}} {
					o, err := train.OptimizerAt(c.asked, n, l)
					if err != nil {
						t.Fatal(err)
					}
					p, g := make([]float32, n), make([]float32, n)
					for i := range p {
						p[i] = float32(i%7) - 3
					}
					for s := range 30 {
						for i := range g {
							g[i] = float32(gradient(float64(p[i]), i%9, s))
						}
						train.StepInParts(o, p, g, 0.003, cuts...)
					}
					if want == nil {
						want = p
					}
					for i := range p {
						if math.Float32bits(p[i]) != math.Float32bits(want[i]) {
							t.Fatalf("%s, %v, cuts %v: parameter %d of %d = %v, want %v", c.name, l, cuts, i, n, p[i], want[i])
						}
					}
				}
			}
		}
	}
}

func TestAdamCountsBeyondFloat32(t *testing.T) {
	// A counter in one float32 would stop at 2^24 steps, and with it the state of
	// a long training. Its parts are the last vector of the state.
	o := newOptimizer(t, train.OptimizerConfig{Name: "adam"}, 1)
	state := o.State()
	steps := state[len(state)-1]
	steps[0], steps[1] = 1<<16-1, 1<<12 // 2^28 + 2^16 - 1
	o.Step([]float32{0}, []float32{1}, 0.1)
	if steps[0] != 0 || steps[1] != 1<<12+1 {
		t.Errorf("counter = %v, want [0 %d]", steps, 1<<12+1)
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	for _, c := range optimizerCases {
		o := newOptimizer(t, c.asked, 100)
		p, g := make([]float32, 100), make([]float32, 100)
		if n := testing.AllocsPerRun(10, func() { o.Step(p, g, 0.1) }); n != 0 {
			t.Errorf("%s: %v allocations a step, want 0", c.name, n)
		}
	}
}

func TestNewOptimizerListsEveryFault(t *testing.T) {
	tests := []struct {
		c    train.OptimizerConfig
		want []string
	}{
		{train.OptimizerConfig{Name: "lion"}, []string{`unknown name "lion"`, "sgd, adam, adamw, rmsprop"}},
		{train.OptimizerConfig{Name: "adam", Momentum: 0.9, Beta2: 1}, []string{"momentum: only sgd", "beta2: 1,"}},
		{train.OptimizerConfig{Name: "sgd", Nesterov: true, Beta1: 0.9, Eps: 1e-8}, []string{"nesterov", "beta1", "eps"}},
		{train.OptimizerConfig{Name: "rmsprop", Momentum: -1, WeightDecay: math.NaN()}, []string{"momentum: -1", "weight_decay: NaN"}},
	}
	for _, c := range tests {
		_, err := train.NewOptimizer(c.c, 1)
		if err == nil {
			t.Errorf("NewOptimizer(%+v): no error", c.c)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("NewOptimizer(%+v): %v, want it to say %q", c.c, err, w)
			}
		}
	}
}

func TestStepPanicsOnAnotherLength(t *testing.T) {
	for _, c := range optimizerCases {
		o := newOptimizer(t, c.asked, 3)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", c.name)
				}
			}()
			o.Step(make([]float32, 3), make([]float32, 4), 0.1)
		}()
	}
}

func BenchmarkOptimizer(b *testing.B) {
	for _, name := range train.OptimizerNames() {
		b.Run("name="+name, func(b *testing.B) {
			b.ReportAllocs()
			const n = 1 << 16
			o, err := train.NewOptimizer(train.OptimizerConfig{Name: name}, n)
			if err != nil {
				b.Fatal(err)
			}
			p, g := make([]float32, n), make([]float32, n)
			for i := range g {
				g[i] = float32(i) / n
			}
			for b.Loop() {
				o.Step(p, g, 1e-6)
			}
			b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds()/1e6, "Mparams/s")
		})
	}
}

func ExampleNewOptimizer() {
	// Minimise (p-3)^2, whose gradient is 2(p-3).
	o, err := train.NewOptimizer(train.OptimizerConfig{Name: "sgd", Momentum: 0.5}, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	p := []float32{0}
	for range 60 {
		o.Step(p, []float32{2 * (p[0] - 3)}, 0.1)
	}
	fmt.Printf("%.3f\n", p[0])
	// Output: 3.000
}
