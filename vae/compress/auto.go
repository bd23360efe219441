package compress

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// A Candidate is one compressed model of a search.
type Candidate struct {
	Recipe string   `json:"recipe"`
	Size   vae.Size `json:"size"`
	// Rows a second on one core, and of the parent in the same rounds.
	RowsPerSecond    float64  `json:"rows_per_s"`
	ParentsPerSecond float64  `json:"parent_rows_per_s"`
	Gate             vae.Gate `json:"gate"`
	// Frontier says that no candidate is both faster and nearer to the parent.
	Frontier bool `json:"frontier"`

	Model *vae.Model `json:"-"`
}

// Times is how many times as fast as its parent a candidate is.
func (c *Candidate) Times() float64 { return c.RowsPerSecond / c.ParentsPerSecond }

// Passed says whether the candidate may take its parent's place: it keeps the rules
// and is faster.
func (c *Candidate) Passed() bool { return len(c.Gate.Failed) == 0 && c.Times() > 1 }

// tries lists what Auto tries: shares of neurons and of weights in blocks, each with
// float32 and int8 weights.
var tries = [][2]float64{{0, 0}, {0.25, 0}, {0.5, 0}, {0.75, 0}, {0.875, 0}, {0, 0.5}, {0, 0.7}, {0, 0.8}, {0, 0.9}, {0.25, 0.6}, {0.5, 0.5}, {0.5, 0.7}, {0.75, 0.5}}

// Auto compresses m in every way that it knows and returns the candidates, the
// fastest first, with the frontier marked. progress, unless nil, is told before each.
func Auto(ctx context.Context, m *vae.Model, t *train.Table, rows Rows, c Config, progress func(done, all int, recipe string)) ([]*Candidate, error) {
	if c.Recipe() != "" {
		return nil, fmt.Errorf("a search chooses by itself: %q", c.Recipe())
	}
	j, err := newJudge(m, rows, c.Rules)
	if err != nil {
		return nil, err
	}
	b := newBench(m, t)
	var list []*Candidate
	for i, try := range tries {
		c.Neurons, c.Blocks = try[0], try[1]
		var pruned *work
		for k, precision := range []vae.Precision{"", vae.Int8} {
			c.Precision = precision
			if c.Recipe() == "" {
				continue
			}
			if progress != nil {
				progress(2*i+k, 2*len(tries), c.Recipe())
			}
			if pruned == nil {
				if pruned, err = b.prune(ctx, c); err != nil {
					return nil, fmt.Errorf("%s: %w", c.Recipe(), err)
				}
			}
			small, err := b.quantize(ctx, pruned, c, j)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.Recipe(), err)
			}
			speeds, err := Speeds(rows.HeldOut, m, small)
			if err != nil {
				return nil, err
			}
			list = append(list, &Candidate{Recipe: c.Recipe(), Size: small.Size(), RowsPerSecond: speeds[1], ParentsPerSecond: speeds[0],
				Gate: small.Compression.Gate, Model: small})
		}
	}
	return frontier(list), nil
}

// frontier sorts candidates, the fastest first, and marks those of which none is
// faster and nearer to the parent.
func frontier(list []*Candidate) []*Candidate {
	slices.SortStableFunc(list, func(a, b *Candidate) int { return cmp.Compare(b.Times(), a.Times()) })
	best := math.Inf(-1)
	for _, c := range list {
		if c.Gate.Spearman > best {
			c.Frontier, best = true, c.Gate.Spearman
		}
	}
	return list
}

// Fastest returns the fastest candidate that passed, nil if none did.
func Fastest(list []*Candidate) *Candidate {
	for _, c := range list {
		if c.Passed() {
			return c
		}
	}
	return nil
}
