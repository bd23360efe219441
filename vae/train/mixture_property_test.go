package train_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// A drawn is a way to make the values of a column, in what Arrow reads them from.
type drawn struct {
	typ  arrow.DataType
	cell func(r *rand.Rand, group int) string
}

func text64(v float64) string { return fmt.Sprintf("%.17g", v) }

// drawnColumns are columns of every kind, the awkward ones among them.
var drawnColumns = map[string]drawn{
	"cluster": {f64, func(r *rand.Rand, g int) string { return text64(float64(g) + 0.1*r.NormFloat64()) }},
	"heavy":   {f64, func(r *rand.Rand, _ int) string { return text64(math.Exp(4 * r.NormFloat64())) }},
	"huge":    {f64, func(r *rand.Rand, _ int) string { return text64(1e12 * r.NormFloat64()) }},
	"single":  {arrow.PrimitiveTypes.Float32, func(r *rand.Rand, g int) string { return text64(float64(g) / 3) }},
	"small":   {arrow.PrimitiveTypes.Int8, func(r *rand.Rand, _ int) string { return fmt.Sprint(r.IntN(4)) }},
	"fixed":   {f64, func(*rand.Rand, int) string { return "7.25" }},
	"nearly":  {i64, func(r *rand.Rand, _ int) string { return fmt.Sprint(r.IntN(200) / 199) }},
	"truth":   {arrow.PrimitiveTypes.Uint8, func(r *rand.Rand, g int) string { return fmt.Sprint((g + r.IntN(8)/7) % 2) }},
	"flag":    {flag, func(r *rand.Rand, g int) string { return fmt.Sprint(g%2 == 0) }},
	"never":   {flag, func(*rand.Rand, int) string { return "false" }},
	"seldom":  {flag, func(r *rand.Rand, _ int) string { return fmt.Sprint(r.IntN(100) == 0) }},
	"level":   {text, func(r *rand.Rand, g int) string { return fmt.Sprint("level", g) }},
	"one":     {text, func(*rand.Rand, int) string { return "one" }},
	"many":    {text, func(r *rand.Rand, _ int) string { return fmt.Sprint("level", int(40*r.ExpFloat64())) }},
	"dict": {&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String},
		func(r *rand.Rand, g int) string { return string(rune('a' + (g+r.IntN(2))%5)) }},
	"day":  {arrow.FixedWidthTypes.Date32, func(r *rand.Rand, _ int) string { return fmt.Sprintf("2024-02-%02d", 1+r.IntN(29)) }},
	"time": {when, func(r *rand.Rand, g int) string { return fmt.Sprintf("2024-02-03 %02d:10:00", (3*g+r.IntN(3))%24) }},
}

// drawTable draws a table of some of the columns; its rows fall into groups.
func drawTable(t *rapid.T) arrow.Record {
	names := slices.Sorted(func(yield func(string) bool) {
		for n := range drawnColumns {
			if !yield(n) {
				return
			}
		}
	})
	names = rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 7, rapid.ID).Draw(t, "columns")
	n := rapid.IntRange(60, 320).Draw(t, "rows")
	groups := rapid.IntRange(1, 9).Draw(t, "groups")
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	group := make([]int, n)
	for i := range group {
		group[i] = rng.IntN(groups)
	}
	var fields []arrow.Field
	var arrays []arrow.Array
	for _, name := range names {
		gaps := rapid.SampledFrom([]float64{0, 0, 0, 0.01, 0.1, 0.6, 1}).Draw(t, "gaps")
		fields = append(fields, field(name, drawnColumns[name].typ))
		arrays = append(arrays, drawnColumns[name].array(rng, group, gaps))
	}
	return array.NewRecord(arrow.NewSchema(fields, nil), arrays, int64(n))
}

func (d drawn) array(rng *rand.Rand, group []int, gaps float64) arrow.Array {
	b := array.NewBuilder(memory.DefaultAllocator, d.typ)
	defer b.Release()
	for _, g := range group {
		if rng.Float64() < gaps {
			b.AppendNull()
		} else if err := b.AppendValueFromString(d.cell(rng, g)); err != nil {
			panic(err)
		}
	}
	return b.NewArray()
}

// checkMixture says what is wrong with the mixture of a model.
func checkMixture(m *vae.Model) error {
	mix, features := m.Spec.Mixture, 0
	if mix == nil {
		return errors.New("no mixture")
	}
	for i := range m.Spec.Columns {
		features += m.Spec.Columns[i].Features()
	}
	params, total := m.MixtureParams(), 0.0
	for _, w := range params[mix.Components*features:] {
		rows := math.Exp(float64(w)) * float64(m.Training.Rows)
		if rows < 2-1e-3 && mix.Components > 1 {
			return fmt.Errorf("one of %d components has %v rows", mix.Components, rows)
		}
		total += rows / float64(m.Training.Rows)
	}
	if math.Abs(total-1) > 1e-4 {
		return fmt.Errorf("weights add up to %v", total)
	}
	for i, v := range params {
		if v-v != 0 {
			return fmt.Errorf("parameter %d is %v", i, v)
		}
	}
	return nil
}

// checkScores says what is wrong with the scores of a record: they are finite, and
// the parts of each add up to it.
func checkScores(m *vae.Model, rec arrow.Record) error {
	s, err := m.NewScorer(rec.Schema(), vae.Options{Top: 1 << 20, TopAll: true})
	if err != nil {
		return err
	}
	res, err := s.Score(rec)
	if err != nil {
		return err
	}
	for r, score := range res.Score {
		sum, size := 0.0, 0.0
		for _, b := range res.Top[r] {
			sum += float64(b.Contribution)
			size += math.Abs(float64(b.Contribution))
		}
		if score-score != 0 || res.Mixture[r]-res.Mixture[r] != 0 || math.Abs(float64(res.Mixture[r])) > 1e30 {
			return fmt.Errorf("row %d: score %v, mixture %v", r, score, res.Mixture[r])
		}
		if math.Abs(sum-float64(score)) > 1e-4*(1+size) {
			return fmt.Errorf("row %d: parts add up to %v, score %v", r, sum, score)
		}
	}
	return nil
}

// stopped trains until a step and leaves a checkpoint.
func stopped(ctx context.Context, c train.Config, d train.Data, at int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.Progress = func(p train.Progress) {
		if p.Step >= at {
			cancel()
		}
	}
	if _, err := train.Run(ctx, c, d); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("stopped at step %d: %w", at, err)
	}
	return nil
}

// Any table that has something to learn gives a sound mixture, sound scores, and the
// same bytes by any number of workers and after an interruption.
func TestMixtureOfAnyTable(t *testing.T) {
	dir := t.TempDir()
	tried, trained, mixtures := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		tried++
		rec := drawTable(rt)
		defer rec.Release()
		d := train.Records{rec}
		c := tiny()
		c.Steps, c.EvalEvery = 24, 8
		m, err := train.Run(t.Context(), c, d)
		if err != nil {
			if !refused(err) {
				rt.Fatal(err)
			}
			return
		}
		trained++
		if m.Spec.Mixture.Components > 1 {
			mixtures++
		}
		if err := errors.Join(checkMixture(m), checkScores(m, rec)); err != nil {
			rt.Fatal(err)
		}
		want, err := m.Bytes()
		if err != nil {
			rt.Fatal(err)
		}
		resumed := c
		resumed.Checkpoint = filepath.Join(dir, "checkpoint")
		if err := stopped(t.Context(), resumed, d, rapid.SampledFrom([]int{8, 16}).Draw(rt, "stop")); err != nil {
			rt.Fatal(err)
		}
		resumed.Resume = true
		two, four := c, c
		two.Workers, four.Workers = 2, 4
		for i, c := range []train.Config{resumed, two, four} {
			again, err := train.Run(t.Context(), c, d)
			if err != nil {
				rt.Fatal(err)
			}
			if got, err := again.Bytes(); err != nil || !slices.Equal(got, want) {
				rt.Fatalf("run %d of resumed, two and four workers: another model (%v)", i, err)
			}
		}
	})
	t.Logf("%d tables, %d trained, %d with several components", tried, trained, mixtures)
	if !t.Failed() && (2*trained < tried || 2*mixtures < trained) {
		t.Errorf("of %d tables %d trained, %d with several components: too few to say anything", tried, trained, mixtures)
	}
}

// refused says whether an error is one that a table with nothing to learn from may
// give: such tables are drawn now and then, and the test counts how many.
func refused(err error) bool {
	for _, why := range []string{"no column is usable", "there is nothing to learn"} {
		if strings.Contains(err.Error(), why) {
			return true
		}
	}
	return errors.Is(err, train.ErrTooFewRows)
}

// Tables with hardly anything in them train and score.
func TestDegenerateTables(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, c := range []struct {
		name   string
		rows   int
		fields []arrow.Field
		cell   func(row int, name string) any
	}{
		{"all rows equal but one", 500, []arrow.Field{field("x", f64), field("y", f64), field("level", text)}, func(r int, name string) any {
			switch {
			case name == "level":
				return "same"
			case r == 250:
				return 9.0
			}
			return 1.0
		}},
		{"one column", 200, []arrow.Field{field("x", f64)}, func(int, string) any { return rng.NormFloat64() }},
		{"one column is missing", 200, []arrow.Field{field("x", f64), field("gone", f64), field("word", text)}, func(_ int, name string) any {
			if name != "x" {
				return nil
			}
			return rng.NormFloat64()
		}},
		{"nearly all is missing", 300, []arrow.Field{field("x", f64), field("y", f64), field("flag", flag), field("level", text)}, func(r int, name string) any {
			switch {
			case rng.IntN(20) != 0:
				return nil
			case name == "flag":
				return r%2 == 0
			case name == "level":
				return "here"
			}
			return rng.NormFloat64()
		}},
		{"only booleans", 300, []arrow.Field{field("a", flag), field("b", flag), field("c", flag)}, func(r int, name string) any {
			return name != "c" && r%3 == 0
		}},
		{"one boolean, hardly ever true", 3000, []arrow.Field{field("a", flag)}, func(r int, _ string) any { return r == 7 }},
		{"only categories", 300, []arrow.Field{field("a", text), field("b", text)}, func(r int, _ string) any { return string(rune('a' + r%7)) }},
		{"only days", 300, []arrow.Field{field("a", when)}, func(r int, _ string) any { return arrow.Timestamp(int64(r) * 86400e6) }},
		{"60 rows", 60, []arrow.Field{field("x", f64), field("level", text), field("flag", flag)}, func(r int, name string) any {
			switch name {
			case "x":
				return rng.NormFloat64()
			case "level":
				return string(rune('a' + r%3))
			}
			return r%4 == 0
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := record(c.rows, c.fields, c.cell)
			for _, members := range []int{1, 2} {
				config := tiny()
				config.Members = members
				m := fit(t, config, train.Records{rec})
				if members == 1 {
					scored(t, m, rec)
					continue
				}
				if err := errors.Join(checkMixture(m), checkScores(m, rec)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
