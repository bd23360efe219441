package train_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/elbo-stream/elbo/vae/train"
	"pgregory.net/rapid"
)

func TestScheduleAt(t *testing.T) {
	tests := []struct {
		name        string
		s           train.Schedule
		step, steps int
		want        float64 // for a rate of 1
	}{
		{"zero value", train.Schedule{}, 5, 10, 1},
		{"constant", train.Schedule{Name: "constant", Floor: 2}, 9, 10, 1},
		{"first warm-up step", train.Schedule{Warmup: 4}, 0, 10, 0.25},
		{"last warm-up step", train.Schedule{Warmup: 4}, 3, 10, 1},
		{"after warm-up", train.Schedule{Warmup: 4}, 4, 10, 1},
		{"step before the first drop", train.Schedule{Name: "step", StepEvery: 5, Gamma: 0.5}, 4, 100, 1},
		{"step at the first drop", train.Schedule{Name: "step", StepEvery: 5, Gamma: 0.5}, 5, 100, 0.5},
		{"step twice", train.Schedule{Name: "step", StepEvery: 5, Gamma: 0.5}, 14, 100, 0.25},
		{"step floor", train.Schedule{Name: "step", StepEvery: 5, Gamma: 0.5, Floor: 0.3}, 14, 100, 0.3},
		{"step defaults", train.Schedule{Name: "step"}, 34, 100, 0.1},
		{"step of a short training", train.Schedule{Name: "step"}, 1, 2, 0.1},
		{"floor above the rate", train.Schedule{Name: "step", StepEvery: 1, Floor: 7}, 3, 100, 1},
		{"exponential", train.Schedule{Name: "exponential", Gamma: 0.9}, 3, 100, 0.729},
		{"exponential default half way", train.Schedule{Name: "exponential"}, 50, 100, 0.1},
		{"exponential floor", train.Schedule{Name: "exponential", Gamma: 0.5, Floor: 0.2}, 30, 100, 0.2},
		{"warm-up of an exponential", train.Schedule{Name: "exponential", Gamma: 0.5, Warmup: 2}, 0, 100, 0.5},
		{"cosine starts", train.Schedule{Name: "cosine"}, 0, 100, 1},
		{"cosine half way", train.Schedule{Name: "cosine"}, 50, 100, 0.5},
		{"cosine ends", train.Schedule{Name: "cosine", Floor: 0.01}, 100, 100, 0.01},
		{"beyond the end", train.Schedule{Name: "cosine", Floor: 0.01}, 1000, 100, 0.01},
		{"no steps", train.Schedule{Name: "cosine"}, 0, 0, 0},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			if got := c.s.At(1, c.step, c.steps); math.Abs(got-c.want) > 1e-12 {
				t.Errorf("At(1, %d, %d) = %v, want %v", c.step, c.steps, got, c.want)
			}
		})
	}
}

// The recipe that the detection quality was measured with.
func TestCosineIsTheQualityRecipe(t *testing.T) {
	s := train.Schedule{Name: "cosine", Warmup: 50, Floor: 1e-5}
	for step := range 2000 {
		want := 2e-3*min(1, (float64(step)+1)/50)*0.5*(1+math.Cos(math.Pi*float64(step)/2000)) + 1e-5
		if got := s.At(2e-3, step, 2000); math.Abs(got-want) > 1e-15 {
			t.Fatalf("At(2e-3, %d, 2000) = %v, want %v", step, got, want)
		}
	}
}

func TestScheduleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := train.Schedule{
			Name:      rapid.SampledFrom(train.ScheduleNames()).Draw(t, "name"),
			Warmup:    rapid.IntRange(0, 100).Draw(t, "warmup"),
			StepEvery: rapid.IntRange(0, 100).Draw(t, "step_every"),
			Gamma:     rapid.Float64Range(0, 1).Draw(t, "gamma"),
			Floor:     rapid.Float64Range(0, 0.1).Draw(t, "floor"),
		}
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		steps := rapid.IntRange(1, 500).Draw(t, "steps")
		last := math.Inf(1)
		for step := range steps {
			lr := s.At(1, step, steps)
			if !(lr > 0 || s.Gamma > 0 && s.Floor == 0 && lr == 0) || lr > 1+s.Floor {
				t.Fatalf("At(1, %d, %d) = %v, want it above 0 and at most 1 and the floor", step, steps, lr)
			}
			if step >= s.Warmup {
				if lr > last {
					t.Fatalf("At(1, %d, %d) = %v rises after the warm-up from %v", step, steps, lr, last)
				}
				last = lr
			}
		}
	})
}

func TestScheduleValidateListsEveryFault(t *testing.T) {
	err := train.Schedule{Name: "linear", Warmup: -1, StepEvery: -2, Gamma: 1.5, Floor: math.NaN()}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range []string{`unknown name "linear"`, "warmup: -1", "step_every: -2", "gamma: 1.5", "floor: NaN"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Validate() = %v, want it to say %q", err, w)
		}
	}
}

func ExampleSchedule_At() {
	s := train.Schedule{Name: "cosine", Warmup: 50, Floor: 1e-5}
	for _, step := range []int{0, 49, 1000, 1999} {
		fmt.Printf("%.6f\n", s.At(2e-3, step, 2000))
	}
	// Output:
	// 0.000050
	// 0.002007
	// 0.001010
	// 0.000010
}
