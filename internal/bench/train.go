package bench

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

const (
	warmSteps = 10      // before the clock starts
	manySteps = 1 << 30 // never reached
)

// TrainSteps returns how many training steps of that many rows one worker takes
// in a second of processor time, over about long of it and at least ten steps.
// A step draws its rows from a table, runs forward and backward, clips the
// gradient and takes one step of Adam. The loss is the squared error and the KL
// divergence, z is sampled.
func TrainSteps(ctx context.Context, n Net, batch int, long time.Duration) (float64, error) {
	rec := n.Record(4 * max(batch, 256))
	defer rec.Release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	spec := n.Spec()
	var began, ended time.Duration
	var first, last int
	progress := func(p train.Progress) {
		if ended != 0 || p.Step < warmSteps {
			return
		}
		now := CPUTime()
		if began == 0 {
			began, first = now, p.Step
			return
		}
		if now-began >= long && p.Step >= first+10 {
			ended, last = now, p.Step
			cancel()
		}
	}
	_, err := train.Run(ctx, train.Config{
		Network:   vae.Spec{Encoder: spec.Encoder, Decoder: spec.Decoder, Latent: spec.Latent, Output: spec.Output},
		Overrides: vae.Overrides{Transforms: map[string]vae.Transform{"": vae.Raw}, Heads: map[string]vae.Head{"": vae.GaussianFixed}, SD: math.Sqrt(0.5)},
		Seed:      1, Steps: manySteps, EvalEvery: manySteps, Batch: batch, Workers: 1,
		Rate: 1e-4, Schedule: train.Schedule{Name: "constant"}, Progress: progress,
	}, train.Records{rec})
	if ended != 0 && errors.Is(err, context.Canceled) {
		return float64(last-first) / (ended - began).Seconds(), nil
	}
	return 0, err
}
