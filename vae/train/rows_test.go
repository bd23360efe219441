package train

import (
	"math/rand/v2"
	"testing"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// plainRow is what rows should know of a row.
type plainRow struct {
	x    []float32
	gone []bool
}

// TestRows takes random changes to rows and to a plain list and compares what
// they fill tiles with.
func TestRows(t *testing.T) {
	for _, features := range []int{1, 5, 63, 64, 65, 200} {
		inputs := features + 2
		rng := rand.New(rand.NewPCG(uint64(features), 9))
		n := kernel.NewNet(features, inputs, 1, nil, nil, kernel.Identity, []kernel.Block{{Kind: kernel.Gaussian, N: features}}, -2)
		tr := kernel.NewTrainer(n, kernel.Generic)
		s, other := &rows{inputs: inputs, features: features}, &rows{inputs: inputs, features: features}
		var want []plainRow
		tl := &tile{x: make([]float32, inputs*vae.TileRows), missing: make([]uint64, features)}
		for range 300 {
			lane := rng.IntN(vae.TileRows)
			row := plainRow{make([]float32, inputs), make([]bool, features)}
			tl.gaps = 0
			missing := rng.IntN(3) == 0
			for f := range inputs {
				row.x[f] = rng.Float32()
				tl.x[f*vae.TileRows+lane] = row.x[f]
				if f < features {
					tl.missing[f] = rng.Uint64() &^ (1 << lane)
					if missing && rng.IntN(2) == 0 {
						row.gone[f] = true
						tl.missing[f] |= 1 << lane
					}
					tl.gaps |= tl.missing[f]
				}
			}
			switch op := rng.IntN(4); {
			case op == 0 && len(want) > 0:
				i := rng.IntN(len(want))
				s.swapOut(i)
				want[i] = want[len(want)-1]
				want = want[:len(want)-1]
			case op == 1:
				other.add(tl, lane)
				s.addRow(other, other.n-1)
				want = append(want, row)
			default:
				s.add(tl, lane)
				want = append(want, row)
			}
			checkRows(t, s, want, tr, rng)
		}
	}
}

// checkRows fills a tile with random rows and compares.
func checkRows(t *testing.T, s *rows, want []plainRow, tr *kernel.Trainer, rng *rand.Rand) {
	t.Helper()
	if s.n != len(want) {
		t.Fatalf("%d rows, want %d", s.n, len(want))
	}
	if s.n == 0 {
		return
	}
	index := make([]uint32, 1+rng.IntN(vae.TileRows))
	for i := range index {
		index[i] = uint32(rng.IntN(s.n))
	}
	s.fill(index, tr)
	for lane := range vae.TileRows {
		row := plainRow{make([]float32, s.inputs), make([]bool, s.features)}
		if lane < len(index) {
			row = want[index[lane]]
		}
		for f, v := range row.x {
			if got := tr.X[f*vae.TileRows+lane]; got != v {
				t.Fatalf("input %d of lane %d = %v, want %v", f, lane, got, v)
			}
		}
		for f, gone := range row.gone {
			if got := tr.Missing[f]>>lane&1 == 1; got != gone {
				t.Fatalf("feature %d of lane %d missing: %v, want %v", f, lane, got, gone)
			}
		}
	}
}
