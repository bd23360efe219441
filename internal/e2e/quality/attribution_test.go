// Package quality holds tests of what whole models find and whom they blame: against
// planted anomalies whose columns are known.
package quality

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/sources/generate"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// stream returns rows of generated payments as records.
func stream(t *testing.T, c generate.Config) (recs train.Records) {
	t.Helper()
	src, err := generate.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for b, err := range src.Batches(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, b.Record)
	}
	return recs
}

var _ pipeline.Source = (*generate.Source)(nil)

// tally counts, for one kind of anomaly, how often a guilty column is blamed.
type tally struct{ rows, first, three int }

func (s tally) share(n int) float64 { return float64(n) / float64(s.rows) }

// A column that was tampered with is the first of elbo_top in nine cases of ten,
// and among the first three in nearly all. What was tampered with is known because
// a normal row of the stream is the same row whatever anomalies are planted.
func TestGuiltyColumns(t *testing.T) {
	rows := int64(20_000)
	if os.Getenv("ELBO_TEST_FULL") != "" {
		rows = 60_000
	}
	for _, members := range []int{1, 2} {
		normal := stream(t, generate.Config{Rows: 20_000, Seed: 1})
		m, err := train.Run(t.Context(), train.Config{Members: members, Workers: 2, Ignore: []string{"id", "time"}, Seed: 1}, normal)
		if err != nil {
			t.Fatal(err)
		}
		odd := stream(t, generate.Config{Rows: rows, Seed: 2, AnomalyRate: 0.05, Label: true})
		clean := stream(t, generate.Config{Rows: rows, Seed: 2})
		s, err := m.NewScorer(odd[0].Schema(), vae.Options{Top: 3, TopAll: true})
		if err != nil {
			t.Fatal(err)
		}
		kinds, all := map[string]*tally{}, tally{}
		for i, rec := range odd {
			res, err := s.Score(rec)
			if err != nil {
				t.Fatal(err)
			}
			label := rec.Column(rec.Schema().FieldIndices("anomaly_kind")[0])
			for r := range int(rec.NumRows()) {
				kind := label.ValueStr(r)
				if kind == "" {
					continue
				}
				guilty := changed(rec, clean[i], r)
				if len(guilty) == 0 { // a swap of equals
					continue
				}
				k := kinds[kind]
				if k == nil {
					k = new(tally)
					kinds[kind] = k
				}
				sums := []*tally{k}
				if kind != generate.BrokenCorrelation { // half of the columns are guilty there
					sums = append(sums, &all)
				}
				for _, sum := range sums {
					sum.rows++
					if slices.Contains(guilty, res.Top[r][0].Column) {
						sum.first++
					}
					if slices.ContainsFunc(res.Top[r], func(b vae.Blame) bool { return slices.Contains(guilty, b.Column) }) {
						sum.three++
					}
				}
			}
		}
		for _, name := range generate.Kinds() {
			k := kinds[name]
			t.Logf("%d members, %-18s %5d rows: first %.3f, among three %.3f", members, name, k.rows, k.share(k.first), k.share(k.three))
		}
		t.Logf("%d members, all %d rows: first %.3f, among three %.3f", members, all.rows, all.share(all.first), all.share(all.three))
		if all.share(all.first) < 0.9 || all.share(all.three) < 0.98 {
			t.Errorf("%d members: the guilty column is first in %.3f and among three in %.3f of the cases, want 0.90 and 0.98",
				members, all.share(all.first), all.share(all.three))
		}
	}
}

// changed names the columns in which row r of two records differs.
func changed(a, b arrow.Record, r int) (names []string) {
	for i, f := range b.Schema().Fields() {
		if x, y := a.Column(i).ValueStr(r), b.Column(i).ValueStr(r); x != y && !strings.HasPrefix(f.Name, "elbo_") {
			names = append(names, f.Name)
		}
	}
	return names
}
