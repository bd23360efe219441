package train_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// squares is a network whose loss is the squared error and the KL divergence.
func squares(encoder []int, latent int, decoder []int) *vae.Spec {
	s := &vae.Spec{Latent: latent, Output: "sigmoid", SDFloor: 0.1, MaxMissing: 1}
	for i := range encoder[0] {
		s.Columns = append(s.Columns, vae.Column{Name: fmt.Sprint("c", i), Kind: vae.Numeric, Transform: vae.Raw, Head: vae.GaussianFixed,
			SD: math.Sqrt(0.5), MissingRate: 0.01, Mean: []float64{0}, Scale: []float64{1}, Constant: []bool{false}})
	}
	hidden := func(widths []int) (layers []vae.Layer) {
		for _, w := range widths {
			layers = append(layers, vae.Layer{Width: w, Activation: "relu"})
		}
		return layers
	}
	s.Encoder, s.Decoder = hidden(encoder[1:]), hidden(decoder)
	return s
}

func uniforms(n int) []float32 {
	rng := rand.New(rand.NewPCG(5, 6))
	x := make([]float32, n)
	for i := range x {
		x[i] = rng.Float32()
	}
	return x
}

func steps(t *testing.T, c train.Config, spec *vae.Spec, x []float32, n int) (losses []float64) {
	t.Helper()
	s, err := train.NewStepper(c, spec, x)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range n {
		loss, err := s.Step()
		if err != nil {
			t.Fatal(err)
		}
		losses = append(losses, loss)
	}
	return losses
}

func TestStepperLearns(t *testing.T) {
	spec, x := squares([]int{20, 16}, 4, []int{16}), uniforms(300*20)
	for i := range x { // rows of one number
		x[i] = x[i/20*20]
	}
	losses := steps(t, train.Config{Batch: 100, Rate: 0.01}, spec, x, 300)
	if first, last := losses[0], losses[len(losses)-1]; !(last < first-0.5) {
		t.Errorf("the loss went from %v to %v, want it to fall", first, last)
	}
}

// The losses of a batch of many tiles are the same bits for any number of
// workers, and close at all levels.
func TestStepperWorkersAndLevels(t *testing.T) {
	spec, x := squares([]int{40, 24}, 3, []int{24}), uniforms(700*40)
	for _, batch := range []int{1, 64, 128, 600, 1100} {
		var first []float64
		for _, level := range train.Levels() {
			var want []float64
			for _, workers := range []int{1, 2, 3, 8, 20} {
				c := train.WithLevel(train.Config{Batch: batch, Workers: workers, Clip: 0.5}, level)
				got := steps(t, c, spec, x, 5)
				if want == nil {
					want = got
				}
				if !slices.Equal(got, want) {
					t.Errorf("batch %d, %s: %d workers: losses %v, want %v", batch, level, workers, got, want)
				}
			}
			if first == nil {
				first = want
			}
			for i, w := range first {
				if math.Abs(want[i]-w) > 1e-4*math.Abs(w) {
					t.Errorf("batch %d, %s: loss of step %d = %v, want about %v", batch, level, i, want[i], w)
				}
			}
		}
	}
}

func TestStepperErrors(t *testing.T) {
	spec := squares([]int{4}, 1, nil)
	if _, err := train.NewStepper(train.Config{}, spec, make([]float32, 5)); err == nil {
		t.Error("5 numbers in rows of 4: no error")
	}
	if _, err := train.NewStepper(train.Config{Batch: -1}, spec, make([]float32, 4)); err == nil {
		t.Error("batch -1: no error")
	}
	s, err := train.NewStepper(train.Config{}, spec, []float32{0, 1, 0, float32(math.NaN())})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var d *train.DivergedError
	if _, err := s.Step(); !errors.As(err, &d) || d.Step != 1 {
		t.Errorf("a row with NaN: error %v, want a DivergedError at step 1", err)
	}
}

func BenchmarkStep(b *testing.B) {
	nets := []struct {
		name string
		spec *vae.Spec
		flop float64 // a row
	}{
		{"A", squares([]int{784, 128, 64, 32}, 2, []int{256, 128, 64}), 2 * (3*202368 - 784*128)},
		{"B", squares([]int{32, 64, 32}, 8, []int{32, 64}), 2 * (3*8960 - 32*64)},
	}
	for _, n := range nets {
		for _, batch := range []int{128, 1024} {
			for _, workers := range []int{1, 2} {
				b.Run(fmt.Sprintf("net=%s/batch=%d/workers=%d", n.name, batch, workers), func(b *testing.B) {
					b.ReportAllocs()
					_, inputs := n.spec.Inputs()
					c := train.Config{Seed: 1, Batch: batch, Workers: workers, Rate: 1e-4, Schedule: train.Schedule{Name: "constant"}}
					s, err := train.NewStepper(c, n.spec, uniforms(4*batch*inputs))
					if err != nil {
						b.Fatal(err)
					}
					defer s.Close()
					for b.Loop() {
						if _, err := s.Step(); err != nil {
							b.Fatal(err)
						}
					}
					perStep := b.Elapsed().Seconds() / float64(b.N)
					b.ReportMetric(1/perStep, "steps/s")
					b.ReportMetric(n.flop*float64(batch)/perStep/1e9, "GFLOP/s")
				})
			}
		}
	}
}
