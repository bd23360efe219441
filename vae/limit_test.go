package vae_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/vae"
)

func calibrated(t testing.TB, scores []float32) *vae.Calibration {
	t.Helper()
	c, err := vae.Calibrate(scores, 0.01)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func above(scores []float32, limit float64) (n int) {
	for _, s := range scores {
		if float64(s) > limit {
			n++
		}
	}
	return n
}

// rules are the ways to get a limit for a rate.
var rules = map[string]func(c *vae.Calibration, rate float64) error{
	"rate":     func(c *vae.Calibration, rate float64) error { return c.SetTargetRate(rate) },
	"quantile": func(c *vae.Calibration, rate float64) error { return c.SetQuantile(1 - rate) },
	"pot":      func(c *vae.Calibration, rate float64) error { _, err := c.SetPareto(rate); return err },
}

// A higher rate never gives a higher limit, whatever the scores.
func TestLimitFallsWithRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(vae.MinCalibration, 3000).Draw(t, "n")
		steps := rapid.SampledFrom([]float64{3, 50, 1e9}).Draw(t, "steps") // few: many ties
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		scores := make([]float32, n)
		for i := range scores {
			scores[i] = float32(math.Round(rng.ExpFloat64()*steps) / steps)
		}
		c, err := vae.Calibrate(scores, 0.1)
		if err != nil {
			t.Fatal(err)
		}
		a := rapid.Float64Range(1e-6, 0.999).Draw(t, "a")
		b := rapid.Float64Range(1e-6, 0.999).Draw(t, "b")
		for name, set := range rules {
			rare, common := *c, *c
			if err1, err2 := set(&rare, min(a, b)), set(&common, max(a, b)); err1 != nil || err2 != nil {
				continue // a quantile that so few rows do not tell
			}
			// Where the Pareto tail ends the other rule begins, so these may disagree.
			if rare.Rule != common.Rule {
				continue
			}
			if rare.Limit < common.Limit {
				t.Fatalf("%s: %g for rate %g, %g for rate %g", name, rare.Limit, min(a, b), common.Limit, max(a, b))
			}
		}
	})
}

func TestQuantileKeepsItsPromise(t *testing.T) {
	// The share of new rows above the conformal quantile, averaged over calibrations,
	// is at most 1-q, and no less than 1-q-1/(n+1).
	const n, q = 99, 0.95
	rng := rand.New(rand.NewPCG(3, 3))
	over, rows := 0, 0
	for range 4000 {
		scores := make([]float32, n)
		for i := range scores {
			scores[i] = rng.Float32()
		}
		c := calibrated(t, scores)
		if err := c.SetQuantile(q); err != nil {
			t.Fatal(err)
		}
		over += above([]float32{rng.Float32(), rng.Float32(), rng.Float32(), rng.Float32()}, c.Limit)
		rows += 4
	}
	if got := float64(over) / float64(rows); math.Abs(got-(1-q)) > 0.005 {
		t.Errorf("share above the quantile %g: %g", q, got)
	}
	c := calibrated(t, draws(500, 1, (*rand.Rand).Float64))
	for _, bad := range []float64{0, 1, -1, math.NaN(), 0.9999} {
		before := c.Limit
		if err := c.SetQuantile(bad); err == nil || c.Limit != before {
			t.Errorf("SetQuantile(%g): %v", bad, err)
		}
	}
	if err := c.SetQuantile(0.9999); err == nil || !strings.Contains(err.Error(), "up to 0.998") {
		t.Errorf("a quantile beyond 500 rows: %v", err)
	}
}

// The quantile of a large calibration is a score that it was made of, exactly so
// among the highest.
func TestQuantileOfManyRows(t *testing.T) {
	scores := draws(20_000, 5, (*rand.Rand).ExpFloat64)
	c := calibrated(t, scores)
	sorted := slices.Sorted(slices.Values(scores))
	for _, q := range []float64{0.5, 0.9, 0.96, 0.999, 0.9999} {
		if err := c.SetQuantile(q); err != nil {
			t.Fatal(err)
		}
		want := int(math.Ceil(q*20_001-1e-9)) - 1
		got, _ := slices.BinarySearch(sorted, float32(c.Limit))
		if got < want || got > want+20 || q > 0.95 && got != want {
			t.Errorf("quantile %g has rank %d, want %d", q, got, want)
		}
		if c.Rule != vae.Quantile || math.Abs(c.TargetRate-(1-q)) > 1e-12 {
			t.Errorf("rule %q, rate %g", c.Rule, c.TargetRate)
		}
	}
}

// Peaks over a threshold meet the true quantile of tails of every kind.
func TestParetoLimit(t *testing.T) {
	for name, d := range map[string]struct {
		draw func(*rand.Rand) float64
		tail func(p float64) float64 // the true limit
	}{
		"exponential": {(*rand.Rand).ExpFloat64, func(p float64) float64 { return -math.Log(p) }},
		"uniform":     {(*rand.Rand).Float64, func(p float64) float64 { return 1 - p }},
		"pareto": {func(r *rand.Rand) float64 { return math.Pow(1-r.Float64(), -1./3) },
			func(p float64) float64 { return math.Pow(p, -1./3) }},
	} {
		c := calibrated(t, draws(20_000, 7, d.draw))
		for _, rate := range []float64{0.01, 0.001, 0.0001} {
			note, err := c.SetPareto(rate)
			if err != nil || note != "" || c.Rule != vae.Pareto || c.TargetRate != rate {
				t.Fatalf("%s, rate %g: %q, %v, %+v", name, rate, note, err, c.Rule)
			}
			if want := d.tail(rate); math.Abs(c.Limit-want) > 0.15*want {
				t.Errorf("%s, rate %g: limit %g, want %g", name, rate, c.Limit, want)
			}
		}
	}
}

func TestParetoFallsBack(t *testing.T) {
	for name, c := range map[string]struct {
		scores []float32
		rate   float64
		want   string
	}{
		"few rows":  {draws(200, 1, (*rand.Rand).ExpFloat64), 0.001, "too few"},
		"all equal": {make([]float32, 5000), 0.001, "0 scores"},
		"no tail":   {draws(5000, 1, (*rand.Rand).ExpFloat64), 0.2, "no tail"},
	} {
		got := calibrated(t, c.scores)
		want := *got
		if err := want.SetTargetRate(c.rate); err != nil {
			t.Fatal(err)
		}
		note, err := got.SetPareto(c.rate)
		if err != nil || !strings.Contains(note, c.want) || got.Limit != want.Limit || got.Rule != "" {
			t.Errorf("%s: %q, %v, limit %g, want %g", name, note, err, got.Limit, want.Limit)
		}
	}
	c := calibrated(t, draws(5000, 1, (*rand.Rand).ExpFloat64))
	for _, bad := range []float64{0, 1, math.NaN()} {
		if _, err := c.SetPareto(bad); err == nil {
			t.Errorf("SetPareto(%g) was taken", bad)
		}
	}
}

// Conformal p-values count the calibration rows, exactly or a little too many.
func TestConformal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(vae.MinCalibration, 4000).Draw(t, "n")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		scores := make([]float32, n)
		for i := range scores {
			scores[i] = float32(rng.IntN(500))
		}
		c, err := vae.Calibrate(scores, 0.1)
		if err != nil {
			t.Fatal(err)
		}
		s := float64(rng.IntN(1100)-100) / 2
		count := 0
		for _, v := range scores {
			if float64(v) >= s {
				count++
			}
		}
		got, want := c.Conformal(s), float64(1+count)/float64(n+1)
		if got < want-1e-12 || got > want+0.0011 || (count < 1000 || n <= 1001) && got != want {
			t.Fatalf("Conformal(%g) = %g, want %g (%d of %d)", s, got, want, count, n)
		}
	})
	if got := calibrated(t, make([]float32, 50)).Conformal(math.NaN()); !math.IsNaN(got) {
		t.Errorf("Conformal(NaN) = %g", got)
	}
}

// A heap of equal scores at the limit is flagged where that is nearer the rate.
func TestLimitOnAHeap(t *testing.T) {
	scores := draws(10_000, 9, (*rand.Rand).Float64)
	for i := range 90 {
		scores[i] = 5
	}
	for i := 90; i < 100; i++ {
		scores[i] = 6
	}
	c := calibrated(t, scores)
	for rate, want := range map[float64]int{0.01: 100, 0.009: 100, 0.002: 10} {
		if err := c.SetTargetRate(rate); err != nil {
			t.Fatal(err)
		}
		if got := above(scores, c.Limit); got != want {
			t.Errorf("rate %g: %d rows above %g, want %d", rate, got, c.Limit, want)
		}
	}
}

func TestCalibrateTrained(t *testing.T) {
	normal := func(shift float64) func(*rand.Rand) float64 {
		return func(r *rand.Rand) float64 { return shift + r.NormFloat64() }
	}
	for name, c := range map[string]struct {
		held, trained []float32
		joined        bool
	}{
		"alike":            {draws(2000, 1, normal(0)), draws(18_000, 2, normal(0)), true},
		"learned by rote":  {draws(2000, 1, normal(0)), draws(18_000, 2, normal(-0.5)), false},
		"drifted":          {draws(2000, 1, normal(0.5)), draws(18_000, 2, normal(0)), false},
		"learned a little": {draws(2000, 1, normal(0)), draws(18_000, 2, normal(-0.06)), true},
		"few":              {draws(900, 1, normal(0)), draws(8100, 2, normal(0)), false},
		"none trained":     {draws(2000, 1, normal(0)), nil, false},
		"not finite":       {draws(2000, 1, normal(0)), append(draws(18_000, 2, normal(0)), float32(math.NaN())), false},
	} {
		got, err := vae.CalibrateTrained(c.held, c.trained, 0.001)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// Some rows of the body may be left out to make good a small excess.
		least, most := len(c.held), len(c.held)
		if c.joined {
			least, most = least+len(c.trained)*2/3, most+len(c.trained)
		}
		if rows := int(got.Rows); rows < least || rows > most || got.Trained != got.Rows-int64(len(c.held)) {
			t.Errorf("%s: %d rows, %d trained on; want %d to %d", name, got.Rows, got.Trained, least, most)
		}
	}
	if _, err := vae.CalibrateTrained(make([]float32, 3), nil, 0.001); err == nil {
		t.Error("three rows were enough")
	}
}

// A small excess of held-out rows is made good: the limit keeps its rate on rows
// like these.
func TestCalibrateTrainedMakesGood(t *testing.T) {
	factor, runs := 0.0, 0.0
	for seed := range uint64(30) {
		held := draws(4000, 3*seed, func(r *rand.Rand) float64 { // above 2.3, a quarter more of them
			if r.Float64() < 0.025/0.9 {
				return math.Log(10) + r.ExpFloat64()
			}
			return r.ExpFloat64()
		})
		trained := draws(36_000, 3*seed+1, (*rand.Rand).ExpFloat64)
		c, err := vae.CalibrateTrained(held, trained, 0.001)
		if err != nil {
			t.Fatal(err)
		}
		if c.Trained > 0 { // the excess may by chance look too large
			factor, runs = factor+1.25*math.Exp(-c.Limit)/0.001, runs+1 // of new rows like the held-out ones
		}
	}
	if factor /= runs; runs < 15 || factor < 0.85 || factor > 1.15 { // 1.25 without
		t.Errorf("the rate is %.2f times the promised one", factor)
	}
}

// What the rules leave in a calibration is JSON that a model file can hold.
func TestRuleInModel(t *testing.T) {
	m := mixedModel(t)
	cal := *calibrated(t, draws(5000, 1, (*rand.Rand).ExpFloat64))
	if _, err := cal.SetPareto(0.001); err != nil {
		t.Fatal(err)
	}
	re, err := m.Recalibrated("pot", &cal)
	if err != nil {
		t.Fatal(err)
	}
	b, err := re.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	back, err := vae.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if back.Calibration.Rule != vae.Pareto || len(back.Calibration.Highest) != 1000 || back.Calibration.Conformal(3) != cal.Conformal(3) {
		t.Errorf("read back: rule %q, %d highest", back.Calibration.Rule, len(back.Calibration.Highest))
	}
	for name, spoil := range map[string]func(c *vae.Calibration){
		"rule":     func(c *vae.Calibration) { c.Rule = "guess" },
		"trained":  func(c *vae.Calibration) { c.Trained = c.Rows + 1 },
		"unsorted": func(c *vae.Calibration) { c.Highest = []float32{2, 1} },
		"infinite": func(c *vae.Calibration) { c.Highest = []float32{float32(math.Inf(1))} },
		"too many": func(c *vae.Calibration) { c.Highest = make([]float32, 1001) },
	} {
		text, err := json.Marshal(cal)
		if err != nil {
			t.Fatal(err)
		}
		var bad vae.Calibration
		if err := json.Unmarshal(text, &bad); err != nil {
			t.Fatal(err)
		}
		spoil(&bad)
		if _, err := m.Recalibrated("bad", &bad); err == nil {
			t.Errorf("%s: a spoilt calibration was taken", name)
		}
	}
}
