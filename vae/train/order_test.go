package train_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
	"github.com/elbo-stream/elbo/vae/train"
)

func TestPermutationIsOne(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 64, 1000, 4097} {
		p := train.Permutation(7, 3, n)
		if !slices.Equal(p, train.Permutation(7, 3, n)) {
			t.Errorf("Permutation(7, 3, %d) differs between calls", n)
		}
		if n > 3 && (slices.Equal(p, train.Permutation(7, 4, n)) || slices.Equal(p, train.Permutation(8, 3, n))) {
			t.Errorf("Permutation(7, 3, %d) is that of another epoch or seed", n)
		}
		slices.Sort(p)
		for i, v := range p {
			if int(v) != i {
				t.Fatalf("n = %d: %d stands at %d after sorting", n, v, i)
			}
		}
	}
}

// Each of the 24 orders of four rows is equally likely (chi-square, 23 degrees
// of freedom: 99.99% of fair shuffles stay below 57).
func TestPermutationIsFair(t *testing.T) {
	const trials = 24_000
	count := map[[4]uint32]int{}
	for e := range uint64(trials) {
		count[[4]uint32(train.Permutation(1, e, 4))]++
	}
	chi := 0.0
	for _, n := range count {
		d := float64(n) - trials/24
		chi += d * d / (trials / 24)
	}
	if len(count) != 24 || chi > 57 {
		t.Errorf("%d orders, chi-square %.1f, want 24 and at most 57", len(count), chi)
	}
}

func TestHeldOut(t *testing.T) {
	const n = 100_000
	for _, share := range []float64{0, 0.001, 0.1, 0.5, 1} {
		held, run := 0, 0
		for row := range int64(n) {
			h := train.HeldOut(5, row, share)
			if h {
				held++
				if train.HeldOut(5, row+1, share) {
					run++
				}
				if !train.HeldOut(5, row, min(1, share*1.5)) {
					t.Fatalf("row %d is held out at %v and not at more", row, share)
				}
			}
		}
		within := 5 * math.Sqrt(n*share*(1-share))
		if math.Abs(float64(held)-n*share) > within {
			t.Errorf("share %v: %d of %d rows held out", share, held, n)
		}
		if math.Abs(float64(run)-n*share*share) > 8*math.Sqrt(n*share*share)+within {
			t.Errorf("share %v: %d neighbours held out together, want about %v", share, run, n*share*share)
		}
	}
	same := 0
	for row := range int64(n) {
		if train.HeldOut(5, row, 0.5) == train.HeldOut(6, row, 0.5) {
			same++
		}
	}
	if math.Abs(float64(same)-n/2) > 5*math.Sqrt(n)/2 {
		t.Errorf("two seeds agree on %d of %d rows, want about half", same, n)
	}
}

func TestNormalsHaveTheMomentsOfTheNormal(t *testing.T) {
	const latents, steps = 5, 400
	dst := make([]float32, latents*kernel.Rows)
	var sum [5]float64
	beyond2, pairs, lanes := 0.0, 0.0, 0.0
	n := 0.0
	for s := range uint64(steps) {
		train.Normals(dst, 9, s, 0, latents)
		for i, x := range dst {
			v := float64(x)
			n++
			for k := range sum {
				sum[k] += math.Pow(v, float64(k))
			}
			if math.Abs(v) > 2 {
				beyond2++
			}
			if i+kernel.Rows < len(dst) {
				pairs += v * float64(dst[i+kernel.Rows]) // the next latent
			}
			if i%kernel.Rows > 0 {
				lanes += v * float64(dst[i-1]) // the row before
			}
		}
	}
	check := func(name string, got, want, sd float64) {
		t.Helper()
		if !(math.Abs(got-want) < 4.5*sd/math.Sqrt(n)) {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	check("mean", sum[1]/n, 0, 1)
	check("variance", sum[2]/n, 1, math.Sqrt2)
	check("third moment", sum[3]/n, 0, math.Sqrt(15))
	check("fourth moment", sum[4]/n, 3, math.Sqrt(96))
	tail := math.Erfc(2 / math.Sqrt2)
	check("share beyond 2", beyond2/n, tail, math.Sqrt(tail*(1-tail)))
	check("product of neighbouring latents", pairs/n, 0, 1)
	check("product of neighbouring rows", lanes/n, 0, 1)
}

func TestNormalsBelongToTheirRow(t *testing.T) {
	const latents = 3
	tile := func(seed, step uint64, from int) []float32 {
		dst := make([]float32, latents*kernel.Rows)
		train.Normals(dst, seed, step, from, latents)
		return dst
	}
	whole, shifted := tile(1, 2, 64), tile(1, 2, 74)
	for l := range latents {
		for r := 10; r < kernel.Rows; r++ {
			if a, b := whole[l*kernel.Rows+r], shifted[l*kernel.Rows+r-10]; a != b {
				t.Fatalf("latent %d of row %d = %v in one tile, %v in another", l, 64+r, a, b)
			}
		}
	}
	for name, other := range map[string][]float32{"seed": tile(2, 2, 64), "step": tile(1, 3, 64), "row": tile(1, 2, 128)} {
		same := 0
		for i := range whole {
			if whole[i] == other[i] {
				same++
			}
		}
		if same > 0 {
			t.Errorf("%d numbers of another %s are the same", same, name)
		}
	}
	// The numbers of a latent do not depend on how many there are.
	narrow := make([]float32, 2*kernel.Rows)
	train.Normals(narrow, 1, 2, 64, 2)
	if !slices.Equal(narrow, whole[:2*kernel.Rows]) {
		t.Error("two latents draw other numbers than the first two of three")
	}
}

func TestNormalsAllocateNothing(t *testing.T) {
	dst := make([]float32, 4*kernel.Rows)
	if n := testing.AllocsPerRun(10, func() { train.Normals(dst, 1, 2, 3, 4) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// The numbers decide every model that was ever trained: they must not change.
func TestGoldenNumbers(t *testing.T) {
	if got := fmt.Sprint(train.Permutation(1, 0, 10)); got != goldenPermutation {
		t.Errorf("Permutation(1, 0, 10) = %s, want %s", got, goldenPermutation)
	}
	var held []int64
	for row := range int64(60) {
		if train.HeldOut(1, row, 0.1) {
			held = append(held, row)
		}
	}
	if got := fmt.Sprint(held); got != goldenHeldOut {
		t.Errorf("HeldOut(1, ., 0.1) = %s, want %s", got, goldenHeldOut)
	}
	dst := make([]float32, 2*kernel.Rows)
	train.Normals(dst, 1, 0, 0, 2)
	if got := fmt.Sprintf("%.5f %.5f", dst[:3], dst[kernel.Rows:kernel.Rows+2]); got != goldenNormals {
		t.Errorf("Normals(1, 0, 0) = %s, want %s", got, goldenNormals)
	}
}

const (
	goldenPermutation = "[2 9 5 8 3 4 6 1 7 0]"
	goldenHeldOut     = "[12 20 40]"
	goldenNormals     = "[0.13725 0.18733 -0.46529] [0.47537 1.04394]"
)

func ExamplePermutation() {
	fmt.Println(train.Permutation(1, 0, 5))
	fmt.Println(train.Permutation(1, 1, 5))
	// Output:
	// [2 1 4 3 0]
	// [4 3 0 2 1]
}

func ExampleHeldOut() {
	held := 0
	for row := range int64(1000) {
		if train.HeldOut(1, row, 0.1) {
			held++
		}
	}
	fmt.Println(held)
	// Output: 102
}

func ExampleNormals() {
	noise := make([]float32, kernel.Rows) // one latent
	train.Normals(noise, 1, 0, 0, 1)
	fmt.Printf("%.3f\n", noise[:3])
	// Output: [0.137 0.187 -0.465]
}
