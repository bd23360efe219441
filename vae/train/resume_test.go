package train_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elbo-stream/elbo/vae/train"
)

// modes are the two ways to hold a table: all of it in memory, and read again in
// every epoch through a small shuffle buffer.
var modes = map[string]int64{"memory": 0, "streaming": 2000}

func TestSameSeedSameBytes(t *testing.T) {
	data := circle(700)
	for name, limit := range modes {
		t.Run(name, func(t *testing.T) {
			for _, level := range train.Levels() {
				c := train.WithLevel(tiny(), level)
				c.Batch, c.Memory = 200, limit // four tiles, the last one cut
				want := ""
				for _, workers := range []int{1, 1, 2, 4} {
					c.Workers = workers
					got := bytesOf(t, fit(t, c, data))
					if want == "" {
						want = got
					}
					if got != want {
						t.Errorf("%v: %d workers give another model than one", level, workers)
					}
				}
				c.Seed = 2
				if bytesOf(t, fit(t, c, data)) == want {
					t.Errorf("%v: another seed gives the same model", level)
				}
			}
		})
	}
}

// A training that is interrupted after any report and then resumed ends with the
// bytes of an unbroken one.
func TestResumeSameBytes(t *testing.T) {
	data := circle(333)
	for name, limit := range modes {
		t.Run(name, func(t *testing.T) {
			c := tiny()
			c.Memory, c.KLWarmup = limit, 40
			want := bytesOf(t, fit(t, c, data))
			for _, at := range []int{10, 15, 20, 30, 45, 50, 60} {
				c := c
				c.Checkpoint = filepath.Join(t.TempDir(), "checkpoint")
				stopAt(t, c, data, at)
				c.Resume, c.Workers = true, 2
				if bytesOf(t, fit(t, c, data)) != want {
					t.Errorf("stopped at step %d and resumed: another model", at)
				}
			}
		})
	}
}

// stopAt trains and ends the context from the report of a step.
func stopAt(t *testing.T, c train.Config, d train.Data, at int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	last := 0
	c.Progress = func(p train.Progress) {
		if last = p.Step; p.Step == at {
			cancel()
		}
	}
	_, err := train.Run(ctx, c, d)
	if at < c.Steps && !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped at step %d: error %v, want that of the context", at, err)
	}
	if at == c.Steps && err != nil {
		t.Fatalf("ended at its last step: %v, want the model", err)
	}
	if last != at {
		t.Fatalf("went on to step %d after the context ended at %d", last, at)
	}
}

// Many interruptions in one training, each taking up where the last one ended.
func TestResumeAgainAndAgain(t *testing.T) {
	data, c := circle(300), tiny()
	want := bytesOf(t, fit(t, c, data))
	c.Checkpoint = filepath.Join(t.TempDir(), "checkpoint")
	for _, at := range []int{10, 20, 30, 40, 50} {
		stopAt(t, c, data, at)
		c.Resume = true
	}
	if bytesOf(t, fit(t, c, data)) != want {
		t.Error("stopped five times: another model")
	}
}

// Every optimizer and an early stop survive an interruption.
func TestResumeOptimizers(t *testing.T) {
	data := circle(200)
	for _, o := range []train.OptimizerConfig{{Name: "sgd"}, {Name: "sgd", Momentum: 0.9}, {Name: "adamw"}, {Name: "rmsprop", Momentum: 0.5}} {
		c := tiny()
		c.Steps, c.Optimizer, c.Patience, c.Rate = 40, o, 1, 0.05
		want := bytesOf(t, fit(t, c, data))
		c.Checkpoint = filepath.Join(t.TempDir(), "checkpoint")
		stopAt(t, c, data, 10)
		c.Resume = true
		if bytesOf(t, fit(t, c, data)) != want {
			t.Errorf("%+v: another model after an interruption", o)
		}
	}
}

func TestCheckpointOfAnotherTraining(t *testing.T) {
	data, c := circle(200), tiny()
	c.Checkpoint = filepath.Join(t.TempDir(), "checkpoint")
	stopAt(t, c, data, 20)
	c.Resume = true
	beta := 0.5
	for name, change := range map[string]func(*train.Config) train.Data{
		"seed":      func(c *train.Config) train.Data { c.Seed++; return data },
		"steps":     func(c *train.Config) train.Data { c.Steps++; return data },
		"batch":     func(c *train.Config) train.Data { c.Batch++; return data },
		"rate":      func(c *train.Config) train.Data { c.Rate *= 2; return data },
		"beta":      func(c *train.Config) train.Data { c.Beta = &beta; return data },
		"free bits": func(c *train.Config) train.Data { c.FreeBits = 1; return data },
		"optimizer": func(c *train.Config) train.Data { c.Optimizer.Name = "sgd"; return data },
		"schedule":  func(c *train.Config) train.Data { c.Schedule.Name = "step"; return data },
		"network":   func(c *train.Config) train.Data { c.Network.Latent = 1; return data },
		"columns":   func(c *train.Config) train.Data { c.Ignore = []string{"xy"}; return data },
		"memory":    func(c *train.Config) train.Data { c.Memory = 2000; return data },
		"version":   func(c *train.Config) train.Data { c.Version = "2"; return data },
		"rows":      func(*train.Config) train.Data { return circle(201) },
		"values":    func(*train.Config) train.Data { return circle(300)[1:] },
	} {
		c := c
		d := change(&c)
		if _, err := train.Run(t.Context(), c, d); !errors.Is(err, train.ErrOtherTraining) {
			t.Errorf("other %s: error %v, want ErrOtherTraining", name, err)
		}
	}
	c.Workers = 3
	fit(t, c, data) // the number of workers is no part of it
}

func TestDamagedCheckpoint(t *testing.T) {
	data, c := circle(200), tiny()
	c.Checkpoint = filepath.Join(t.TempDir(), "checkpoint")
	stopAt(t, c, data, 20)
	c.Resume = true
	whole, err := os.ReadFile(c.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(i int) []byte {
		b := append([]byte(nil), whole...)
		b[i] ^= 1
		return b
	}
	for name, b := range map[string][]byte{"empty": {}, "short": whole[:20], "cut": whole[:len(whole)-1], "longer": append(flip(0), 0),
		"first byte": flip(0), "middle": flip(len(whole) / 2), "last byte": flip(len(whole) - 1)} {
		if err := os.WriteFile(c.Checkpoint, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := train.Run(t.Context(), c, data); err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), c.Checkpoint) {
			t.Errorf("%s: error %v, want that %s is damaged", name, err, c.Checkpoint)
		}
	}
	c.Checkpoint += ".absent"
	if _, err := train.Run(t.Context(), c, data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no checkpoint: error %v, want ErrNotExist", err)
	}
	c.Resume, c.Checkpoint = false, filepath.Join(t.TempDir(), "file", "x")
	if err := os.WriteFile(filepath.Dir(c.Checkpoint), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := train.Run(t.Context(), c, data); err == nil || !strings.Contains(err.Error(), "write checkpoint") {
		t.Errorf("a checkpoint that cannot be written: error %v", err)
	}
}

// Batches from a step on are those of a run from the start, in both modes.
func TestBatchesFromAnyStep(t *testing.T) {
	data := circle(250)
	for name, limit := range modes {
		c := tiny()
		c.Batch, c.Memory = 70, limit
		whole, streamed, err := train.Batches(t.Context(), c, data, 0, 14)
		if err != nil || streamed != (limit > 0) {
			t.Fatalf("%s: streamed %v, error %v", name, streamed, err)
		}
		for step := range 10 {
			got, _, err := train.Batches(t.Context(), c, data, step, 3)
			if err != nil || fmt.Sprint(got) != fmt.Sprint(whole[step:step+3]) {
				t.Errorf("%s: batches from step %d differ from those of a whole run (error %v)", name, step, err)
			}
		}
	}
}
