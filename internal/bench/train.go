package bench

import (
	"time"

	"github.com/elbo-stream/elbo/vae/train"
)

// TrainSteps returns how many training steps of that many rows one worker takes
// in a second of processor time, over about long of it. The rows are packed
// beforehand, four batches of them. A step draws its rows, runs forward and
// backward, clips the gradient and takes one step of Adam; the loss is the
// squared error and the KL divergence, z is sampled.
func TrainSteps(n Net, batch int, long time.Duration) (float64, error) {
	width := n.Encoder[0]
	x := make([]float32, 4*batch*width)
	for i := range x {
		x[i] = Value(uint32(i%width), uint32(i/width))
	}
	spec := n.Spec()
	s, err := train.NewStepper(train.Config{Seed: 1, Batch: batch, Workers: 1, Rate: 1e-4,
		Schedule: train.Schedule{Name: "constant"}}, &spec, x)
	if err != nil {
		return 0, err
	}
	seconds, err := CPUSeconds(func() error { _, err := s.Step(); return err }, long)
	return 1 / seconds, err
}
