package vae_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/vae"
)

func draws(n int, seed uint64, draw func(*rand.Rand) float64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(draw(rng))
	}
	return out
}

// The limit for a rate lets about that rate of fresh rows through.
func TestLimitGivesItsRate(t *testing.T) {
	for name, draw := range map[string]func(*rand.Rand) float64{
		"exponential": func(r *rand.Rand) float64 { return 5 + 3*r.ExpFloat64() },
		"gaussian":    func(r *rand.Rand) float64 { return 100 + 10*r.NormFloat64() },
	} {
		fresh := draws(400_000, 2, draw)
		for _, rate := range []float64{0.5, 0.2, 0.1, 0.05, 0.01, 0.0075, 0.001, 0.0005} {
			c, err := vae.Calibrate(draws(20_000, 1, draw), rate)
			if err != nil {
				t.Fatal(err)
			}
			over := 0
			for _, s := range fresh {
				if float64(s) > c.Limit {
					over++
				}
			}
			// 20,000 held-out rows support every rate down to 0.001, where 20 of them
			// are above: within their scatter.
			got, within := float64(over)/float64(len(fresh)), 1.15
			if rate < 0.01 {
				within = 1.5
			}
			if got > rate*within || got < rate/within {
				t.Errorf("%s, rate %g: limit %g gives %g", name, rate, c.Limit, got)
			}
			if p := c.P(c.Limit); math.Abs(p-rate) > 2e-4+0.02*rate || rate < c.Tail && math.Abs(p-rate) > 1e-9 {
				t.Errorf("%s: P(limit) = %g, want the rate %g", name, p, rate)
			}
		}
	}
}

func TestPFallsAndStaysInRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scores := rapid.SliceOfN(rapid.Float32Range(-1e6, 1e6), vae.MinCalibration, 2500).Draw(t, "scores")
		c, err := vae.Calibrate(scores, 0.1)
		if err != nil {
			t.Fatal(err)
		}
		a, b := rapid.Float64().Draw(t, "a"), rapid.Float64Range(-2e6, 2e6).Draw(t, "b")
		lo, hi := min(a, b), max(a, b)
		pl, ph := c.P(lo), c.P(hi)
		if !(pl >= ph && ph > 0 && pl <= 1) {
			t.Fatalf("P(%g) = %g, P(%g) = %g", lo, pl, hi, ph)
		}
	})
}

func TestCalibrateOnSameScores(t *testing.T) {
	c, err := vae.Calibrate(make([]float32, 100), 0.001)
	if err != nil {
		t.Fatal(err)
	}
	if p := c.P(0); p < 0.5 {
		t.Errorf("P of the usual score = %g", p)
	}
	if p := c.P(1); !(p > 0 && p < 1e-9) || !(c.Limit >= 0 && c.Limit < 1e-6) {
		t.Errorf("P(1) = %g, limit %g", p, c.Limit)
	}
}

func TestSetLimit(t *testing.T) {
	c, err := vae.Calibrate(draws(1000, 1, (*rand.Rand).ExpFloat64), 0.01)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetLimit(2.5); err != nil || c.Limit != 2.5 || !c.Fixed || c.TargetRate != c.P(2.5) {
		t.Errorf("SetLimit: %v, %+v", err, c.Limit)
	}
	if err := c.SetTargetRate(0.02); err != nil || c.Fixed || c.TargetRate != 0.02 {
		t.Errorf("SetTargetRate after SetLimit: %v", err)
	}
	before := c.Limit
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if err := c.SetLimit(bad); err == nil {
			t.Errorf("SetLimit(%v) was taken", bad)
		}
	}
	for _, bad := range []float64{0, 1, -0.1, 2, math.NaN()} {
		if err := c.SetTargetRate(bad); err == nil || !strings.Contains(err.Error(), "0.001") {
			t.Errorf("SetTargetRate(%v): %v", bad, err)
		}
	}
	if c.Limit != before || c.TargetRate != 0.02 {
		t.Error("a refused setting changed the calibration")
	}
}

func TestCalibrateRefuses(t *testing.T) {
	bad := draws(100, 1, (*rand.Rand).ExpFloat64)
	bad[17] = float32(math.NaN())
	for want, scores := range map[string][]float32{"at least 10": make([]float32, 9), "score 17": bad, "0 rows": nil} {
		if _, err := vae.Calibrate(scores, 0.01); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	heavy := draws(1000, 1, func(r *rand.Rand) float64 { return math.Exp(min(5*math.Abs(r.NormFloat64()), 80)) })
	if c, err := vae.Calibrate(heavy, 1e-300); err == nil {
		t.Errorf("a limit beyond every number was given: %g", c.Limit)
	}
}

func TestSeverityScale(t *testing.T) {
	for p, want := range map[float64]float32{1: 0, 0.1: 10, 1e-3: 30, 1e-10: 100, 1e-300: 100, 0: 100, 2: 0} {
		if got := vae.Severity(p); math.Abs(float64(got-want)) > 1e-5 {
			t.Errorf("Severity(%g) = %g, want %g", p, got, want)
		}
	}
}

// The table that P begins with changes nothing: a calibration read from JSON has
// none until it is validated.
func TestTailProbabilityWithoutItsTable(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	scores := make([]float32, 5000)
	for i := range scores {
		scores[i] = float32(math.Exp(3*rng.NormFloat64()) - 2)
		if i%7 == 0 {
			scores[i] = float32(rng.IntN(4)) // ties
		}
	}
	fast, err := vae.Calibrate(scores, 0.01)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(fast)
	if err != nil {
		t.Fatal(err)
	}
	var slow vae.Calibration
	if err := json.Unmarshal(text, &slow); err != nil {
		t.Fatal(err)
	}
	for i := range 20000 {
		v := float64(scores[i%len(scores)])
		if i%2 == 1 {
			v += rng.NormFloat64() * 0.1
		}
		if got, want := fast.P(v), slow.P(v); got != want {
			t.Fatalf("P(%v) = %v, %v without the table", v, got, want)
		}
	}
}
