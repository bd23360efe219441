package train_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

func number(v float64) *float64 { return &v }

func TestEveryRowOncePerEpoch(t *testing.T) {
	data, c := circle(730), tiny()
	trained, held, err := train.Packed(t.Context(), c, data)
	if err != nil || len(trained)+len(held) != 730 || len(held) < 40 {
		t.Fatalf("%d rows trained on and %d held out of 730, error %v", len(trained), len(held), err)
	}
	want := slices.Sorted(slices.Values(trained))
	c.Memory = 2000
	var orders [2][]float32
	for e := range orders {
		if orders[e], err = train.Epoch(t.Context(), c, data, int64(e)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(slices.Sorted(slices.Values(orders[e])), want) {
			t.Errorf("epoch %d does not have each training row once", e)
		}
	}
	if slices.Equal(orders[0], orders[1]) {
		t.Error("two epochs have the same order")
	}
	c.Steps = 400
	m := fit(t, c, data)
	if first, best := m.Training.Curve[0].HeldOut, m.Training.HeldOutRecon+m.Training.HeldOutKL; !(best < first-0.3) {
		t.Errorf("streaming: held-out loss went from %v to %v, want it to fall", first, best)
	}
}

func TestTimeColumnHoldsOutTheLatest(t *testing.T) {
	data := train.Records{record(400, []arrow.Field{field("x", f64), field("t", i64)}, func(r int, name string) any {
		at := (r * 171) % 400 // in no order
		if name == "t" {
			if at == 0 {
				return nil
			}
			return int64(at)
		}
		return float64(at)
	})}
	c := tiny()
	c.TimeColumn, c.Ignore = "t", []string{"t"}
	trained, held, err := train.Packed(t.Context(), c, data)
	if err != nil || len(held) != 40 || len(trained) != 360 || slices.Max(trained) >= slices.Min(held) {
		t.Errorf("%d held out and %d trained on (error %v), want the latest 40 held out", len(held), len(trained), err)
	}
	fit(t, c, data)
	for _, name := range []string{"absent", "x"} {
		if c.TimeColumn = name; true {
			if _, err := train.Run(t.Context(), c, data); err == nil || !strings.Contains(err.Error(), `time column "`+name+`"`) {
				t.Errorf("time column %q: error %v", name, err)
			}
		}
	}
}

func TestEarlyStopKeepsTheBest(t *testing.T) {
	c := tiny()
	c.Steps, c.EvalEvery, c.Patience, c.Rate = 3000, 5, 3, 0.2
	c.Schedule.Name = "constant"
	m := fit(t, c, circle(200))
	tr := m.Training
	if tr.Stopped != "early" || tr.Steps >= 3000 || tr.BestStep != tr.Steps-3*5 {
		t.Errorf("stopped %q at step %d, best at %d; want 3 evaluations after the best", tr.Stopped, tr.Steps, tr.BestStep)
	}
	for _, p := range tr.Curve {
		if best := tr.HeldOutRecon + tr.HeldOutKL; p.HeldOut < best-1e-4*math.Abs(best) {
			t.Errorf("step %d had %v, the model has %v", p.Step, p.HeldOut, best)
		}
	}
}

func TestDiverged(t *testing.T) {
	data := circle(200)
	c := tiny()
	c.Rate, c.Optimizer.Name, c.Clip = 100, "sgd", 1e30
	c.Network.Encoder = []vae.Layer{{Width: 8, Activation: "relu"}}
	c.Network.Decoder = c.Network.Encoder
	_, err := train.Run(t.Context(), c, data)
	var d *train.DivergedError
	if !errors.As(err, &d) || d.Step < 1 || !slices.Contains([]string{"x", "y", "xy"}, d.Column) || !strings.Contains(err.Error(), "--rate") {
		t.Fatalf("error %v, want a DivergedError with step and column", err)
	}
}

func TestSmallTables(t *testing.T) {
	c := tiny()
	c.Steps = 2
	for _, rows := range []int{0, 1, 49} {
		if _, err := train.Run(t.Context(), c, circle(rows)); !errors.Is(err, train.ErrTooFewRows) {
			t.Errorf("%d rows: error %v, want ErrTooFewRows", rows, err)
		}
	}
	for seed := range uint64(100) { // whatever the hash holds out
		c.Seed = seed
		m := fit(t, c, circle(50))
		if seed == 0 && !strings.Contains(strings.Join(m.Training.Warnings, "\n"), "only 50 rows") {
			t.Errorf("warnings %q, want one about 50 rows", m.Training.Warnings)
		}
	}
	if m := fit(t, c, circle(200)); len(m.Training.Warnings) > 1 || strings.Contains(strings.Join(m.Training.Warnings, ""), "only") {
		t.Errorf("200 rows: warnings %q, want none about rows", m.Training.Warnings)
	}
}

func TestUselessTables(t *testing.T) {
	same := func(v any, typ arrow.DataType) train.Records {
		return train.Records{record(100, []arrow.Field{field("c", typ)}, func(int, string) any { return v })}
	}
	for name, d := range map[string]train.Records{
		"constant number": same(3.0, f64), "constant level": same("a", text), "all null": same(nil, f64), "empty vectors": same([]float64{}, list)} {
		if m, err := train.Run(t.Context(), tiny(), d); err == nil {
			t.Errorf("%s: trained %v, want an error", name, m.Training.Columns)
		}
	}
	two := train.Records{circle(100)[0], same(1.0, f64)[0]}
	if _, err := train.Run(t.Context(), tiny(), two); err == nil || !strings.Contains(err.Error(), "record 1") {
		t.Errorf("records of two schemas: error %v", err)
	}
}

func TestBetaMovesKL(t *testing.T) {
	kl := func(change func(*train.Config)) float64 {
		c := tiny()
		c.Steps = 400
		change(&c)
		return fit(t, c, circle(400)).Training.HeldOutKL
	}
	one := kl(func(*train.Config) {})
	low := kl(func(c *train.Config) { c.Beta = number(0.1) })
	high := kl(func(c *train.Config) { c.Beta = number(4) })
	if !(low > one && one > high) {
		t.Errorf("KL is %v with beta 0.1, %v with 1, %v with 4; want it to fall", low, one, high)
	}
	free := kl(func(c *train.Config) { c.Beta, c.FreeBits = number(4), 1 })
	if !(free > high+0.2) {
		t.Errorf("KL is %v with a free nat per latent and %v without, want more", free, high)
	}
	warm := kl(func(c *train.Config) { c.Beta, c.KLWarmup = number(4), 100_000 })
	if !(warm > high) {
		t.Errorf("KL is %v during the warm-up of beta 4 and %v without, want more", warm, high)
	}
}

func TestCollapseWarning(t *testing.T) {
	c := tiny()
	c.Steps, c.Beta = 300, number(1000)
	tr := fit(t, c, circle(300)).Training
	if tr.ActiveLatents != 0 || !strings.Contains(strings.Join(tr.Warnings, "\n"), "posterior collapse") {
		t.Errorf("%d active latents, warnings %q; want a collapse", tr.ActiveLatents, tr.Warnings)
	}
	c.Beta = nil
	c.Steps = 600
	if tr := fit(t, c, circle(300)).Training; tr.ActiveLatents == 0 {
		t.Errorf("beta 1: no active latent, KL %v", tr.LatentKL)
	}
}

func TestEveryOptimizerAndScheduleLearns(t *testing.T) {
	data := circle(300)
	learns := func(name string, change func(*train.Config)) {
		c := tiny()
		c.Steps, c.EvalEvery, c.Patience = 150, 2, -1
		change(&c)
		tr := fit(t, c, data).Training
		if first, best := tr.Curve[0].HeldOut, tr.HeldOutRecon+tr.HeldOutKL; !(best < first-0.1) {
			t.Errorf("%s: held-out loss went from %v to %v, want it to fall", name, first, best)
		}
	}
	for _, name := range train.OptimizerNames() {
		learns(name, func(c *train.Config) { c.Optimizer.Name = name })
	}
	for _, name := range train.ScheduleNames() {
		learns(name, func(c *train.Config) { c.Schedule.Name = name })
	}
}

func TestEveryKindTrains(t *testing.T) {
	for name, limit := range modes {
		c := tiny()
		c.Steps, c.Memory = 200, limit
		c.Overrides = vae.Overrides{Heads: map[string]vae.Head{"share": vae.Bernoulli}, Transforms: map[string]vae.Transform{"share": vae.Raw}}
		tr := fit(t, c, mixed(400)).Training
		var names []string
		for _, col := range tr.Columns {
			names = append(names, col.Name)
		}
		if want := []string{"number", "gap", "flag", "level", "vector", "time", "share", "always"}; !slices.Equal(names, want) {
			t.Errorf("%s: columns %v, want %v", name, names, want)
		}
		warned := strings.Join(tr.Warnings, "\n")
		if !strings.Contains(warned, `"never" is left out`) || !strings.Contains(warned, `"always" is constant`) {
			t.Errorf("%s: warnings %q", name, tr.Warnings)
		}
		if first, best := tr.Curve[0].HeldOut, tr.HeldOutRecon+tr.HeldOutKL; !(best < first) {
			t.Errorf("%s: held-out loss went from %v to %v", name, first, best)
		}
	}
}

// Plain Go and the fast kernels learn the same: every head, missing values, the
// table in memory and streamed.
func TestLevelsLearnTheSame(t *testing.T) {
	for name, limit := range modes {
		var first vae.Training
		for _, level := range train.Levels() {
			c := train.WithLevel(tiny(), level)
			c.Steps, c.Memory, c.Batch, c.Clip = 200, limit, 150, 2
			c.Overrides = vae.Overrides{Heads: map[string]vae.Head{"share": vae.Bernoulli}, Transforms: map[string]vae.Transform{"share": vae.Raw}}
			tr := fit(t, c, mixed(700)).Training
			if first.Curve == nil {
				first = tr
			}
			for i, p := range tr.Curve {
				if w := first.Curve[i]; math.Abs(p.HeldOut-w.HeldOut) > 0.02 || math.Abs(p.Loss-w.Loss) > 0.02 {
					t.Errorf("%s, %v: step %d has loss %v and held-out loss %v, in plain Go %v and %v", name, level, p.Step, p.Loss, p.HeldOut, w.Loss, w.HeldOut)
				}
			}
			for i, col := range tr.Columns {
				if w := first.Columns[i]; math.Abs(col.HeldOut-w.HeldOut) > 0.02 {
					t.Errorf("%s, %v: column %q costs %v, in plain Go %v", name, level, col.Name, col.HeldOut, w.HeldOut)
				}
			}
		}
	}
}

// The held-out figures are those of scoring the held-out rows.
func TestHeldOutFiguresAreScores(t *testing.T) {
	data := mixed(1500)
	c := tiny()
	m := fit(t, c, data)
	s, err := m.NewScorer(data[0].Schema(), vae.Options{Top: -1})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Score(data[0])
	if err != nil {
		t.Fatal(err)
	}
	var recon, kl, n float64
	for r := range res.Score {
		if train.HeldOut(c.Seed, int64(r), 0.1) {
			recon, kl, n = recon+float64(res.Recon[r]), kl+float64(res.KL[r]), n+1
		}
	}
	tr := m.Training
	if int64(n) != tr.HeldOut || math.Abs(recon/n-tr.HeldOutRecon) > 1e-4 || math.Abs(kl/n-tr.HeldOutKL) > 1e-4 {
		t.Errorf("%v held-out rows score %v + %v, the training said %d rows and %v + %v", n, recon/n, kl/n, tr.HeldOut, tr.HeldOutRecon, tr.HeldOutKL)
	}
}

func TestConfigListsEveryFault(t *testing.T) {
	nan := math.NaN()
	c := train.Config{Name: "a b", Steps: -1, Batch: -1, Workers: -1, Rate: nan, Beta: &nan, KLWarmup: -1, FreeBits: -1, Clip: -1,
		HeldOut: 0.6, TargetRate: 1, Memory: -1, EvalEvery: -1, CheckpointEvery: -1, Resume: true,
		Optimizer: train.OptimizerConfig{Name: "adamm"}, Schedule: train.Schedule{Name: "cosin"}}
	_, err := train.Run(t.Context(), c, nil) // before the data is looked at
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"name:", "steps:", "batch:", "workers:", "rate:", "beta:", "kl_warmup:", "free_bits:", "clip:", "held_out:",
		"target_rate:", "memory:", "eval_every:", "checkpoint_every:", "resume:", "optimizer:", "schedule:"} {
		if !strings.Contains("\n"+err.Error(), "\n"+want) {
			t.Errorf("the error does not name %q: %v", want, err)
		}
	}
	if err := (train.Config{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}

func TestProgress(t *testing.T) {
	c := tiny()
	var steps, evaluated []int
	c.Progress = func(p train.Progress) {
		steps = append(steps, p.Step)
		if p.Evaluated {
			evaluated = append(evaluated, p.Step)
		}
		if p.Steps != 60 || p.Rows != int64(p.Step)*64 || p.Loss != p.Loss || p.Step > 15 && p.HeldOut == 0 {
			t.Errorf("report %+v", p)
		}
	}
	fit(t, c, circle(200))
	if want := []int{10, 15, 20, 30, 40, 45, 50, 60}; !slices.Equal(steps, want) || !slices.Equal(evaluated, []int{15, 30, 45, 60}) {
		t.Errorf("reports at %v, evaluations at %v; want %v", steps, evaluated, want)
	}
}
