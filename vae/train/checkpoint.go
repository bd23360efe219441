package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"github.com/elbo-stream/elbo/internal/durable"
)

// A checkpoint is a line of JSON (fingerprint, state, lengths), then float32
// vectors in little-endian order (parameters, best parameters, optimizer state),
// then the SHA-256 of all before it.
type checkpointHeader struct {
	Format      string `json:"format"`
	Fingerprint string `json:"fingerprint"` // of configuration, columns and rows
	State       state  `json:"state"`
	Lengths     []int  `json:"lengths"` // of the vectors
}

const checkpointFormat = "elbo checkpoint 1"

// ErrOtherTraining is returned when a checkpoint was left by another
// configuration, other rows or another version.
var ErrOtherTraining = errors.New("the checkpoint belongs to another training: other rows, columns or settings")

// fingerprint tells trainings apart: what decides the result, but not the
// number of workers.
func (r *run) fingerprint() (string, error) {
	c := r.c
	text, err := json.Marshal([]any{c.Version, c.Members, c.Components, c.Contamination, r.t.spec, c.Seed, r.steps, c.Batch, c.Optimizer, c.Rate, c.Schedule, *c.Beta,
		c.KLWarmup, c.FreeBits, c.Clip, c.HeldOut, c.TimeColumn, c.EvalEvery, c.Patience, r.t.train == nil, r.t.capacity * b2i(r.t.train == nil), r.t.units})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return fmt.Sprintf("%x", sum[:16]), nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// vectors lists what a checkpoint holds, to be written or read in place.
func (r *run) vectors() [][]float32 {
	if r.state.best == nil {
		r.state.best = append([]float32(nil), r.params...)
	}
	return append([][]float32{r.params, r.state.best}, r.opt.State()...)
}

// save writes the checkpoint, replacing the one before.
func (r *run) save(path string) error {
	fp, err := r.fingerprint()
	if err != nil {
		return err
	}
	fresh := r.state.best == nil
	h := checkpointHeader{Format: checkpointFormat, Fingerprint: fp, State: r.state}
	var body []byte
	for _, v := range r.vectors() {
		h.Lengths = append(h.Lengths, len(v))
		body = slices.Grow(body, 4*len(v))
		for _, x := range v {
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(x))
		}
	}
	if fresh {
		r.state.best = nil
	}
	head, err := json.Marshal(h)
	if err != nil {
		return err
	}
	all := append(append(head, '\n'), body...)
	sum := sha256.Sum256(all)
	err = durable.WriteFile(durable.OS, path, durable.Options{Overwrite: true}, func(w io.Writer) error {
		_, err := w.Write(append(all, sum[:]...))
		return err
	})
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}

// load continues from a checkpoint.
func (r *run) load(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	cut := len(b) - sha256.Size
	if cut < 0 || sha256.Sum256(b[:cut]) != [sha256.Size]byte(b[cut:]) {
		return errors.New("the checkpoint is damaged; train again without --resume")
	}
	head, body, _ := bytes.Cut(b[:cut], []byte{'\n'})
	var h checkpointHeader
	if err := json.Unmarshal(head, &h); err != nil {
		return err
	}
	fp, err := r.fingerprint()
	if err != nil {
		return err
	}
	if h.Format != checkpointFormat || h.Fingerprint != fp {
		return ErrOtherTraining
	}
	if h.State.Step < 0 || h.State.Step > r.steps {
		return fmt.Errorf("the checkpoint is at step %d of %d; train again without --resume", h.State.Step, r.steps)
	}
	vectors := r.vectors()
	if len(h.Lengths) != len(vectors) {
		return ErrOtherTraining
	}
	for i, v := range vectors {
		if h.Lengths[i] != len(v) || len(body) < 4*len(v) {
			return ErrOtherTraining
		}
		for j := range v {
			v[j] = math.Float32frombits(binary.LittleEndian.Uint32(body[4*j:]))
		}
		body = body[4*len(v):]
	}
	best := r.state.best
	r.state = h.State
	if len(r.state.Curve) > 0 {
		r.state.best = best
	}
	return nil
}
