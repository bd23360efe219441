package compress_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/compress"
	"github.com/elbo-stream/elbo/vae/train"
)

// numbers is how many numeric columns the table has.
const numbers = 20

// tableRecord makes rows of numbers that depend on four hidden ones, a flag and a
// level. strange rows have one number that does not fit the others.
func tableRecord(rows int, seed uint64, strange bool) arrow.Record {
	rng := rand.New(rand.NewPCG(seed, 9))
	mix := rand.New(rand.NewPCG(1, 1)) // the same in all tables
	var weights [numbers][4]float64
	for i := range weights {
		for k := range weights[i] {
			weights[i][k] = mix.NormFloat64()
		}
	}
	var fields []arrow.Field
	for i := range numbers {
		fields = append(fields, arrow.Field{Name: fmt.Sprintf("n%d", i), Type: arrow.PrimitiveTypes.Float64})
	}
	fields = append(fields, arrow.Field{Name: "flag", Type: arrow.FixedWidthTypes.Boolean}, arrow.Field{Name: "level", Type: arrow.BinaryTypes.String})
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	for range rows {
		var z [4]float64
		for k := range z {
			z[k] = rng.NormFloat64()
		}
		odd := -1
		if strange {
			odd = rng.IntN(numbers)
		}
		for i := range numbers {
			v := 0.3 * rng.NormFloat64()
			for k := range z {
				v += weights[i][k] * z[k]
			}
			v += 0.5 * math.Tanh(z[i%4]*z[(i+1)%4])
			if i == odd {
				v += 6
			}
			b.Field(i).(*array.Float64Builder).Append(v)
		}
		b.Field(numbers).(*array.BooleanBuilder).Append(z[0] > 0.5)
		b.Field(numbers + 1).(*array.StringBuilder).Append([]string{"a", "b", "c"}[int(max(min(z[1]+1.5, 2.9), 0))])
	}
	return b.NewRecord()
}

// A fixture is a trained model of two members and the rows that it is judged on.
type fixture struct {
	m     *vae.Model
	data  train.Records
	table *train.Table
	rows  compress.Rows
}

var trained = sync.OnceValues(func() (*fixture, error) {
	f := &fixture{data: train.Records{tableRecord(6000, 1, false)}}
	ctx := context.Background()
	c := train.Config{Name: "big", Seed: 5, Steps: 500, HeldOut: 0.3, Components: 32,
		Network: vae.Spec{Encoder: []vae.Layer{{Width: 64, Activation: "relu"}, {Width: 32, Activation: "relu"}},
			Decoder: []vae.Layer{{Width: 32, Activation: "relu"}, {Width: 64, Activation: "relu"}}, Latent: 6}}
	var err error
	if f.m, err = train.Run(ctx, c, f.data); err != nil {
		return nil, err
	}
	if f.table, err = train.NewTable(ctx, train.Config{Seed: 5, HeldOut: 0.3}, f.data, &f.m.Spec); err != nil {
		return nil, err
	}
	if f.rows.HeldOut, err = f.table.HeldOutRows(ctx, 1e6); err != nil {
		return nil, err
	}
	odd, usual := tableRecord(300, 2, true), tableRecord(900, 3, false)
	f.rows.Labelled = []arrow.Record{odd, usual}
	f.rows.Labels = slices.Concat(slices.Repeat([]bool{true}, 300), make([]bool, 900))
	return f, nil
})

func fixtureOf(t testing.TB) *fixture {
	t.Helper()
	f, err := trained()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func run(t testing.TB, f *fixture, c compress.Config) *vae.Model {
	t.Helper()
	m, err := compress.Run(context.Background(), f.m, f.table, f.rows, c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func scores(t testing.TB, m *vae.Model, rec arrow.Record) []float32 {
	t.Helper()
	s, err := m.NewScorer(rec.Schema(), vae.Options{Top: -1})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Score(rec)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(res.Score)
}

// TestRun compresses in every way and holds each model to what it says of itself: it
// comes back from its file with the same scores, and it is as small as was asked.
func TestRun(t *testing.T) {
	f := fixtureOf(t)
	was := f.m.Size()
	for _, c := range []struct {
		config  compress.Config
		bytes   float64 // share of the parent's, at most
		work    float64 // share of its multiply-adds, at most
		ranked  float64 // lowest rank correlation
		pattern vae.Pattern
	}{
		{compress.Config{Neurons: 0.5}, 0.7, 0.7, 0.99, ""},
		{compress.Config{Blocks: 0.5}, 0.8, 0.75, 0.995, vae.Blocks},
		{compress.Config{Blocks: 0.8}, 0.6, 0.6, 0.97, vae.Blocks},
		{compress.Config{Weights: 0.8}, 0.6, 0.6, 0.98, vae.Weights},
		{compress.Config{Precision: vae.Int8, Whole: true}, 0.36, 1, 0.99, vae.Dense},
		{compress.Config{Precision: vae.BF16}, 0.56, 1, 0.999, vae.Dense},
		{compress.Config{Neurons: 0.25, Blocks: 0.5, Precision: vae.Int8}, 0.5, 0.7, 0.98, vae.Blocks},
	} {
		t.Run(c.config.Recipe(), func(t *testing.T) {
			m := run(t, f, c.config)
			size, g := m.Size(), m.Compression.Gate
			t.Logf("bytes %.3f, multiply-adds %.3f, rank correlation %.5f, changed %.4f, AUROC %.4f of %.4f", float64(size.Bytes)/float64(was.Bytes),
				float64(size.MultiplyAdds)/float64(was.MultiplyAdds), g.Spearman, g.Changed, g.Labels.AUROC, g.Labels.ParentAUROC)
			if got := float64(size.Bytes) / float64(was.Bytes); got > c.bytes {
				t.Errorf("%.3f of the bytes, want %v at most", got, c.bytes)
			}
			if got := float64(size.MultiplyAdds) / float64(was.MultiplyAdds); got > c.work {
				t.Errorf("%.3f of the multiply-adds, want %v at most", got, c.work)
			}
			if g.Spearman < c.ranked {
				t.Errorf("rank correlation %v, want %v", g.Spearman, c.ranked)
			}
			if m.Compression.Parent != "big@"+f.m.Digest() || m.Compression.Recipe != c.config.Recipe() {
				t.Errorf("lineage: %q by %q", m.Compression.Parent, m.Compression.Recipe)
			}
			if c.pattern != "" && !slices.ContainsFunc(m.Compression.Forms, func(f vae.Form) bool { return f.Pattern == c.pattern }) {
				t.Errorf("no layer has the pattern %s: %+v", c.pattern, m.Compression.Forms)
			}
			b, err := m.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			back, err := vae.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			again, err := back.Bytes()
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("a model that was read writes another file (%v)", err)
			}
			if !slices.Equal(scores(t, back, f.rows.HeldOut), scores(t, m, f.rows.HeldOut)) {
				t.Error("a model that was read scores other bits")
			}
		})
	}
}

// TestScoresDependOnTheRowOnly: scores of a compressed model are the same bits for any
// batch, a few rows and one included.
func TestScoresDependOnTheRowOnly(t *testing.T) {
	f := fixtureOf(t)
	for _, c := range []compress.Config{{Blocks: 0.7}, {Precision: vae.Int8, Whole: true}, {Blocks: 0.7, Precision: vae.Int8}} {
		m := run(t, f, c)
		want := scores(t, m, f.rows.HeldOut)
		for _, size := range []int64{1, 7, 64, 1000} {
			for from := int64(0); from < 300; from += size {
				part := f.rows.HeldOut.NewSlice(from, from+size)
				if got := scores(t, m, part); !slices.Equal(got, want[from:from+size]) {
					t.Fatalf("%s: rows from %d in batches of %d score other bits", c.Recipe(), from, size)
				}
				part.Release()
			}
		}
	}
}

// TestRunRepeats: one recipe gives one file, whatever the workers.
func TestRunRepeats(t *testing.T) {
	f := fixtureOf(t)
	var want []byte
	for _, workers := range []int{1, 2, 3} {
		m := run(t, f, compress.Config{Neurons: 0.3, Blocks: 0.6, Precision: vae.Int8, Workers: workers, Steps: 50})
		b, err := m.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = b
		}
		if !bytes.Equal(b, want) {
			t.Errorf("%d workers give another file than one", workers)
		}
	}
}

// TestFollowingHelps: a pruned network that was trained to follow its parent ranks rows
// more like it.
func TestFollowingHelps(t *testing.T) {
	f := fixtureOf(t)
	without, with := run(t, f, compress.Config{Blocks: 0.8, Steps: -1}), run(t, f, compress.Config{Blocks: 0.8, Steps: 300})
	if a, b := without.Compression.Gate.Spearman, with.Compression.Gate.Spearman; !(b > a) {
		t.Errorf("rank correlation %v without following, %v with", a, b)
	}
}

// TestDistil: one member that was trained to rank as two did is nearer to them than
// the autoencoder alone was.
func TestDistil(t *testing.T) {
	f := fixtureOf(t)
	none, some := run(t, f, compress.Config{Distil: true, Steps: -1}), run(t, f, compress.Config{Distil: true, Steps: 400})
	if some.Spec.Mixture != nil || len(some.Members) != 1 {
		t.Fatalf("%d members are left", len(some.Members))
	}
	if a, b := none.Compression.Gate.Spearman, some.Compression.Gate.Spearman; !(b > a) {
		t.Errorf("rank correlation %v before, %v after", a, b)
	}
}

// TestGateCatchesBadCompressions plants faults into every layer of good compressed
// models and calibrates them anew: the gate has to refuse each of them.
func TestGateCatchesBadCompressions(t *testing.T) {
	f := fixtureOf(t)
	rows := f.rows
	rows.Labelled, rows.Labels = nil, nil // without their help
	for _, c := range []compress.Config{{Precision: vae.BF16}, {Precision: vae.Int8}} {
		good := run(t, f, c)
		if failed := good.Compression.Gate.Failed; len(failed) > 0 {
			t.Fatalf("%s: the good model fails: %v", c.Recipe(), failed)
		}
		for name, damage := range damages(good) {
			t.Run(c.Recipe()+"/"+name, func(t *testing.T) {
				p := good.Parts()
				p.Params, p.Mixture = slices.Clone(p.Params), slices.Clone(p.Mixture)
				p.Compression = nil // its forms would find the fault
				damage(&p)
				bad, err := f.table.Finish(p)
				if err != nil {
					t.Fatal(err)
				}
				g, err := compress.Compare(f.m, bad, rows, compress.Rules{})
				if err != nil {
					t.Fatal(err)
				}
				if len(g.Failed) == 0 {
					t.Errorf("passed with rank correlation %v, %v changed", g.Spearman, g.Changed)
				}
			})
		}
	}
}

// damages lists faults of a compression, each for one layer.
func damages(m *vae.Model) map[string]func(*vae.Parts) {
	out := map[string]func(*vae.Parts){}
	net := m.Spec.Net()
	add := func(layer string, at, in, n int) {
		out[layer+" scales off by 10 %"] = func(p *vae.Parts) {
			for i := range p.Params[at : at+in*n] {
				p.Params[at+i] *= 1.1
			}
		}
		out[layer+" zeroed"] = func(p *vae.Parts) { clear(p.Params[at : at+in*n]) }
		out[layer+" permuted"] = func(p *vae.Parts) { // each output has the weights of the next
			w := slices.Clone(p.Params[at : at+in*n])
			for o := range n {
				copy(p.Params[at+o*in:at+(o+1)*in], w[(o+1)%n*in:])
			}
		}
	}
	for i, l := range net.Encoder {
		add(fmt.Sprintf("encoder.%d", i), l.W, l.In, l.Out)
	}
	for i, l := range net.Decoder {
		add(fmt.Sprintf("decoder.%d", i), l.W, l.In, l.Out)
	}
	k, features := m.Spec.Mixture.Components, net.Features
	out["mixture scales off by 10 %"] = func(p *vae.Parts) {
		for i := range p.Mixture[:k*features] {
			p.Mixture[i] *= 1.1
		}
	}
	out["mixture zeroed"] = func(p *vae.Parts) { clear(p.Mixture[:k*features]) }
	out["mixture permuted"] = func(p *vae.Parts) {
		for o := range k {
			row := p.Mixture[o*features : (o+1)*features]
			first := row[0]
			copy(row, row[1:])
			row[features-1] = first
		}
	}
	return out
}

// TestConfigValidate lists every mistake at once.
func TestConfigValidate(t *testing.T) {
	err := compress.Config{Neurons: 1, Blocks: -0.1, Weights: 0.5, Precision: "int4"}.Validate()
	for _, want := range []string{"prune_neurons: 1", "prune_blocks: -0.1", `quantize: "int4"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() = %v, want it to name %q", err, want)
		}
	}
	if err := (compress.Config{Blocks: 0.5, Weights: 0.5}).Validate(); err == nil {
		t.Error("blocks and single weights at once are allowed")
	}
}

// TestAuto: the search finds a model that passes and is faster, and marks a frontier.
func TestAuto(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: tries every recipe")
	}
	f := fixtureOf(t)
	seen := 0
	list, err := compress.Auto(context.Background(), f.m, f.table, f.rows, compress.Config{Steps: 50}, func(done, all int, recipe string) { seen++ })
	if err != nil {
		t.Fatal(err)
	}
	if seen != len(list) || len(list) < 20 {
		t.Errorf("%d candidates, told of %d", len(list), seen)
	}
	best := math.Inf(-1)
	for i, c := range list {
		if i > 0 && c.Times() > list[i-1].Times() {
			t.Errorf("candidate %d is faster than the one before", i)
		}
		if c.Frontier != (c.Gate.Spearman > best) {
			t.Errorf("%s: frontier is %v", c.Recipe, c.Frontier)
		}
		best = max(best, c.Gate.Spearman)
	}
	if got := compress.Fastest(list); got != nil && !got.Passed() {
		t.Errorf("the fastest did not pass: %v", got.Gate.Failed)
	}
}

// TestLimitKeepsItsRule: a limit by quantile or by peaks over a threshold stays one.
func TestLimitKeepsItsRule(t *testing.T) {
	f := fixtureOf(t)
	for _, rule := range []vae.Rule{vae.Quantile, vae.Pareto} {
		cal := *f.m.Calibration
		if rule == vae.Quantile {
			if err := cal.SetQuantile(0.99); err != nil {
				t.Fatal(err)
			}
		} else if note, err := cal.SetPareto(0.004); err != nil || note != "" {
			t.Fatal(note, err)
		}
		parent, err := f.m.Recalibrated("ruled", &cal)
		if err != nil {
			t.Fatal(err)
		}
		m, err := compress.Run(context.Background(), parent, f.table, f.rows, compress.Config{Precision: vae.BF16})
		if err != nil {
			t.Fatal(err)
		}
		if c := m.Calibration; c.Rule != rule || math.Abs(c.TargetRate-cal.TargetRate) > 1e-9 || math.Abs(c.Limit-cal.Limit) > 0.3 {
			t.Errorf("rule %s at %v, limit %v; the parent has %s at %v, limit %v", c.Rule, c.TargetRate, c.Limit, rule, cal.TargetRate, cal.Limit)
		}
	}
}

// TestDistilNeedsTwoMembers: one member is told so, and not distilled.
func TestDistilNeedsTwoMembers(t *testing.T) {
	f := fixtureOf(t)
	one := run(t, f, compress.Config{Distil: true, Steps: -1})
	if _, err := compress.Run(context.Background(), one, f.table, f.rows, compress.Config{Distil: true}); err == nil || !strings.Contains(err.Error(), "one member already") {
		t.Errorf("Run = %v", err)
	}
}
