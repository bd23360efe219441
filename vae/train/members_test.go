package train_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// dirty makes two clusters of correlated rows, of which the odd ones are far from
// both, scattered.
func dirty(n int, odd func(i int) bool) arrow.Record {
	rng := rand.New(rand.NewPCG(4, 4))
	return record(n, []arrow.Field{field("a", f64), field("b", f64), field("c", f64)}, func(i int, name string) any {
		if odd(i) {
			return 12 * (rng.Float64() - 0.5) * (1 + 2*rng.Float64())
		}
		centre := float64(4 * (i % 2))
		return centre + 0.3*rng.NormFloat64()
	})
}

func oneIn(n int) func(int) bool { return func(i int) bool { return i%n == n/2 } }

// Likely anomalies are left out, reported, and so not learned.
func TestContamination(t *testing.T) {
	rec := dirty(2000, oneIn(20))
	var rows []int64
	var scores []float64
	c := train.Config{Steps: 400, Contamination: 0.05, Workers: 2, LeftOut: func(row int64, s float64) { rows, scores = append(rows, row), append(scores, s) }}
	clean := fit(t, c, train.Records{rec})
	found := 0
	for _, r := range rows {
		if oneIn(20)(int(r)) {
			found++
		}
	}
	if len(rows) != 400 || found < 90 {
		t.Errorf("%d rows left out, %d of the 100 odd ones among them", len(rows), found)
	}
	if !slices.IsSortedFunc(scores, func(a, b float64) int { return -int(math.Copysign(1, a-b)) * b2i(a != b) }) {
		t.Errorf("rows are not told strangest first: %v ...", scores[:5])
	}
	tr := clean.Training
	if tr.LeftOut != 400 || len(tr.LeftOutRows) != 400 || tr.Contamination != 0.05 || tr.Rows+tr.HeldOut != 1600 || tr.LeftOutRows[0] != rows[0] {
		t.Errorf("reported: %d left out, %d named, contamination %v, %d + %d rows used", tr.LeftOut, len(tr.LeftOutRows), tr.Contamination, tr.Rows, tr.HeldOut)
	}
	c.Contamination, c.LeftOut = 0, nil
	trusting := fit(t, c, train.Records{rec})
	before, after := flaggedOdd(t, trusting, rec), flaggedOdd(t, clean, rec)
	if after < 0.8 || after < before {
		t.Errorf("of the odd rows a model that knows of them flags %v, one that does not %v", after, before)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// flaggedOdd is the share of every twentieth row that scores above most others.
func flaggedOdd(t *testing.T, m *vae.Model, rec arrow.Record) float64 {
	t.Helper()
	res := scored(t, m, rec)
	limit := slices.Sorted(slices.Values(res))[len(res)*94/100]
	hits, odd := 0.0, 0.0
	for i, s := range res {
		if oneIn(20)(i) {
			odd++
			if s > limit {
				hits++
			}
		}
	}
	return hits / odd
}

func scored(t *testing.T, m *vae.Model, rec arrow.Record) []float32 {
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

// A model of two members scores a row the same however the rows are cut, on both
// layouts of the kernels, and so does its file.
func TestMembersSameBits(t *testing.T) {
	data := mixed(1500)
	m := fit(t, train.Config{Steps: 100, Workers: 2}, data)
	if m.Spec.Mixture == nil || len(m.Members) != 2 {
		t.Fatalf("members: %+v", m.Members)
	}
	b, err := m.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	again, err := vae.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	want := scored(t, m, data[0])
	for _, cut := range []int64{1, 7, 12, 13, 64, 1000} {
		for from := int64(0); from < data[0].NumRows() && from < 300; from += cut {
			part := data[0].NewSlice(from, min(from+cut, data[0].NumRows()))
			got := scored(t, again, part)
			part.Release()
			if !slices.Equal(got, want[from:from+int64(len(got))]) {
				t.Fatalf("rows from %d in cuts of %d score differently", from, cut)
			}
		}
	}
}

// The fit depends on the rows and the seed, not on the number of workers.
func TestMixtureWorkers(t *testing.T) {
	data := mixed(900)
	var want []byte
	for _, workers := range []int{1, 3} {
		m := fit(t, train.Config{Steps: 30, Workers: workers, Contamination: 0.02}, data)
		got, err := m.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		} else if !bytes.Equal(got, want) {
			t.Errorf("%d workers give another model", workers)
		}
	}
}

// Every component stands for two training rows at least.
func TestMixtureComponents(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	rec := record(600, []arrow.Field{field("x", f64), field("y", f64)}, func(i int, _ string) any {
		if i%30 == 0 { // lonely rows, which k-means++ loves
			return 1000 * rng.Float64()
		}
		return rng.NormFloat64()
	})
	for _, most := range []int{0, 1, 5} {
		m := fit(t, train.Config{Steps: 20, Components: most}, train.Records{rec})
		mix := m.Spec.Mixture
		if limit := max(most, 256*b2i(most == 0)); mix.Components < 1 || mix.Components > limit {
			t.Errorf("%d components, want at most %d", mix.Components, limit)
		}
		weights := m.MixtureParams()[2*mix.Components:]
		total := 0.0
		for _, w := range weights {
			if rows := math.Exp(float64(w)) * float64(m.Training.Rows); rows < 2-1e-3 {
				t.Errorf("a component of %v rows", rows)
			}
			total += math.Exp(float64(w))
		}
		if math.Abs(total-1) > 1e-5 {
			t.Errorf("weights add up to %v", total)
		}
	}
}

// One member is the negative ELBO, as before.
func TestOneMember(t *testing.T) {
	data := mixed(600)
	m := fit(t, train.Config{Steps: 30, Members: 1}, data)
	s, err := m.NewScorer(data[0].Schema(), vae.Options{Top: -1})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Score(data[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range res.Score {
		if res.Score[i] != res.Recon[i]+res.KL[i] {
			t.Fatalf("row %d: %v is not %v + %v", i, res.Score[i], res.Recon[i], res.KL[i])
		}
	}
	if len(res.Mixture) != 0 || m.Members[0].Tail != nil {
		t.Errorf("mixture costs %v, tail %v", res.Mixture, m.Members[0].Tail)
	}
}

// The contributions of all columns, latents and the group add up to the score.
func TestContributionsAddUp(t *testing.T) {
	data := mixed(900)
	for _, members := range []int{1, 2} {
		m := fit(t, train.Config{Steps: 60, Members: members}, data)
		s, err := m.NewScorer(data[0].Schema(), vae.Options{Top: 1 << 20, TopAll: true})
		if err != nil {
			t.Fatal(err)
		}
		rec := withNews(data[0])
		res, err := s.Score(rec)
		if err != nil {
			t.Fatal(err)
		}
		for r, blames := range res.Top {
			sum, size := 0.0, 0.0
			for _, b := range blames {
				sum += float64(b.Contribution)
				size += math.Abs(float64(b.Contribution))
			}
			if d := math.Abs(sum - float64(res.Score[r])); d > 1e-5*(1+size) {
				t.Fatalf("%d members, row %d: contributions add up to %v, score %v", members, r, sum, res.Score[r])
			}
		}
		rec.Release()
	}
}

// withNews replaces the strings of a record by levels that it does not have.
func withNews(rec arrow.Record) arrow.Record {
	fields := rec.Schema().Fields()
	columns := slices.Clone(rec.Columns())
	for i, f := range fields {
		if f.Type.ID() == arrow.STRING {
			odd := record(int(rec.NumRows()), []arrow.Field{f}, func(r int, _ string) any {
				if r%3 == 0 {
					return fmt.Sprint("odd", r)
				}
				return rec.Column(i).ValueStr(r)
			})
			columns[i] = odd.Column(0)
		}
	}
	return array.NewRecord(rec.Schema(), columns, rec.NumRows())
}
