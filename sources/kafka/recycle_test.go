package kafka

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow/go/v15/arrow/memory"
)

// TestRecycler: no piece is handed out twice, bytes survive growing, and all that was
// taken from below is given back, also what returns after the end.
func TestRecycler(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer mem.AssertSize(t, 0)
	r := &recycler{mem: mem}
	rng := rand.New(rand.NewPCG(1, 1))
	type piece struct {
		b    []byte
		mark byte
	}
	var held []piece
	fill := func(b []byte, mark byte) {
		for i := range b {
			b[i] = mark
		}
	}
	check := func(p piece) {
		t.Helper()
		if n := bytes.Count(p.b, []byte{p.mark}); n != len(p.b) {
			t.Fatalf("%d of %d bytes are another's", len(p.b)-n, len(p.b))
		}
	}
	size := func() int { return 1 << rng.IntN(20) * (4 + rng.IntN(4)) / 4 }
	for i := range 3000 {
		switch k := rng.IntN(3); {
		case k == 0 || len(held) == 0:
			p := piece{r.Allocate(size()), byte(i)}
			fill(p.b, p.mark)
			held = append(held, p)
		case k == 1:
			p := &held[rng.IntN(len(held))]
			old := len(p.b)
			p.b = r.Reallocate(size(), p.b)
			check(piece{p.b[:min(old, len(p.b))], p.mark})
			fill(p.b, p.mark)
		default:
			at := rng.IntN(len(held))
			check(held[at])
			r.Free(held[at].b)
			held = append(held[:at], held[at+1:]...)
		}
	}
	kept := 0
	for _, b := range r.free {
		kept += len(b)
	}
	if kept != r.bytes || kept == 0 || kept > recycledBytes {
		t.Errorf("keeps %d bytes, says %d", kept, r.bytes)
	}
	r.close()
	for _, p := range held {
		check(p)
		r.Free(p.b)
	}
}
