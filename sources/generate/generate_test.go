package generate_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
	"github.com/elbo-stream/elbo/sources/generate"
)

func newSource(t testing.TB, c generate.Config) *generate.Source {
	t.Helper()
	s, err := generate.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lines reads a source to its end, or to limit rows per partition, and returns
// each partition's rows as text.
func lines(t *testing.T, s *generate.Source, from []pipeline.Mark, limit int) map[string][]string {
	t.Helper()
	got := map[string][]string{}
	for b, err := range s.Batches(context.Background(), from) {
		if err != nil {
			t.Fatal(err)
		}
		if want := b.Mark.Next - b.First; b.Rows() != want {
			t.Errorf("batch has %d rows, its mark says %d", b.Rows(), want)
		}
		for r := range int(b.Rows()) {
			got[b.Mark.Partition] = append(got[b.Mark.Partition], line(b.Record, r))
		}
		full := len(got[b.Mark.Partition]) >= limit
		b.Release()
		if full {
			break
		}
	}
	return got
}

// line is a row as text in which every bit of every value shows.
func line(rec arrow.Record, r int) string {
	var sb strings.Builder
	for _, col := range rec.Columns() {
		switch c := col.(type) {
		case *array.Float64:
			if c.IsValid(r) {
				fmt.Fprintf(&sb, "%x|", math.Float64bits(c.Value(r)))
				continue
			}
			sb.WriteString("null|")
		default:
			sb.WriteString(col.ValueStr(r) + "|")
		}
	}
	return sb.String()
}

func TestSameRowsForEveryBatchSize(t *testing.T) {
	config := generate.Config{Rows: 2500, Seed: 7, AnomalyRate: 0.1, Label: true, BatchRows: 2500}
	want := lines(t, newSource(t, config), nil, math.MaxInt)
	if n := len(want["generate-0"]); n != 2500 {
		t.Fatalf("got %d rows, want 2500", n)
	}
	for _, n := range []int{1, 7, 1000} {
		config.BatchRows = n
		got := lines(t, newSource(t, config), nil, math.MaxInt)
		if !slices.Equal(got["generate-0"], want["generate-0"]) {
			t.Errorf("batches of %d rows: other rows than one batch", n)
		}
	}
}

func TestResumeGivesExactlyTheRest(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		config := generate.Config{
			Rows:        rapid.Int64Range(1, 200).Draw(rt, "rows"),
			Seed:        rapid.Uint64().Draw(rt, "seed"),
			BatchRows:   rapid.IntRange(1, 50).Draw(rt, "batch"),
			Partitions:  rapid.IntRange(1, 4).Draw(rt, "partitions"),
			AnomalyRate: 0.2,
		}
		whole := lines(t, newSource(t, config), nil, math.MaxInt)
		var epoch int64
		for b := range newSource(t, config).Batches(context.Background(), nil) {
			epoch = b.Mark.Epoch
			b.Release()
			break
		}
		var marks []pipeline.Mark
		for p := range config.Partitions {
			name := generate.PartitionName(p)
			next := rapid.Int64Range(0, int64(len(whole[name]))).Draw(rt, "next")
			marks = append(marks, pipeline.Mark{Partition: name, Epoch: epoch, Next: next})
		}
		config.BatchRows = rapid.IntRange(1, 50).Draw(rt, "other batch")
		rest := lines(t, newSource(t, config), marks, math.MaxInt)
		for _, m := range marks {
			if !slices.Equal(rest[m.Partition], whole[m.Partition][m.Next:]) {
				rt.Fatalf("%s from %d: %d rows that differ from the rest of the whole", m.Partition, m.Next, len(rest[m.Partition]))
			}
		}
	})
}

func TestMarksOfAnotherConfiguration(t *testing.T) {
	s := newSource(t, generate.Config{Rows: 10, Seed: 1})
	got := lines(t, s, []pipeline.Mark{{Partition: "generate-0", Epoch: 12345, Next: 4}}, math.MaxInt)
	if n := len(got["generate-0"]); n != 10 {
		t.Errorf("a stale mark: %d rows, want all 10", n)
	}
}

func TestPartitionsDealTheRows(t *testing.T) {
	s := newSource(t, generate.Config{Rows: 11, Seed: 3, Partitions: 3, BatchRows: 2})
	for name, rows := range lines(t, s, nil, math.MaxInt) {
		var p int
		if _, err := fmt.Sscanf(name, "generate-%d", &p); err != nil {
			t.Fatal(err)
		}
		for k, text := range rows {
			row := s.Row(int64(k*3 + p))
			if !strings.HasPrefix(text, row.ID()+"|") {
				t.Errorf("row %d of %s is %s, want %s", k, name, text, row.ID())
			}
		}
	}
}

func TestRateAndKinds(t *testing.T) {
	const n = 100_000
	s := newSource(t, generate.Config{Seed: 5, AnomalyRate: 0.05})
	count := map[string]int{}
	for i := range int64(n) {
		count[s.Row(i).Anomaly]++
	}
	kinds := generate.Kinds()
	if got := float64(n-count[""]) / n; math.Abs(got-0.05) > 0.003 {
		t.Errorf("rate = %v, want 0.05", got)
	}
	want := 0.05 * n / float64(len(kinds))
	for _, k := range kinds {
		if got := float64(count[k]); math.Abs(got-want) > 5*math.Sqrt(want) {
			t.Errorf("%s: %v rows, want about %v", k, got, want)
		}
	}

	only := newSource(t, generate.Config{Seed: 5, AnomalyRate: 1, Kinds: []string{generate.Swap}})
	for i := range int64(100) {
		if got := only.Row(i).Anomaly; got != generate.Swap {
			t.Fatalf("row %d is %q, want a swap", i, got)
		}
	}
}

func TestNormalRowsDoNotDependOnTheAnomalies(t *testing.T) {
	clean := newSource(t, generate.Config{Seed: 9})
	planted := newSource(t, generate.Config{Seed: 9, AnomalyRate: 0.3})
	for i := range int64(1000) {
		a, b := clean.Row(i), planted.Row(i)
		if b.Anomaly == "" && a != b {
			t.Fatalf("row %d: %+v without anomalies, %+v with", i, a, b)
		}
	}
}

// families returns the numeric values of n rows by merchant.
func families(s *generate.Source, n int64) map[string][][8]float64 {
	rows := map[string][][8]float64{}
	for i := range n {
		r := s.Row(i)
		rows[r.Merchant] = append(rows[r.Merchant], r.Values)
	}
	return rows
}

func correlation(rows [][8]float64, a, b int) float64 {
	var n, sa, sb, saa, sbb, sab float64
	for _, r := range rows {
		n++
		sa, sb = sa+r[a], sb+r[b]
		saa, sbb, sab = saa+r[a]*r[a], sbb+r[b]*r[b], sab+r[a]*r[b]
	}
	return (n*sab - sa*sb) / math.Sqrt((n*saa-sa*sa)*(n*sbb-sb*sb))
}

func TestCorrelationsDependOnTheMode(t *testing.T) {
	s := newSource(t, generate.Config{Seed: 2})
	names := generate.Numerics()
	at := func(name string) int { return slices.Index(names, name) }
	rows := families(s, 20_000)
	if len(rows) != 12 {
		t.Errorf("%d merchants, want 12", len(rows))
	}
	mode := func(merchants ...string) (all [][8]float64) {
		for _, m := range merchants {
			all = append(all, rows[m]...)
		}
		return all
	}
	shop, web, travel := mode("grocery", "bakery", "pharmacy"), mode("books", "games", "electronics"), mode("airline", "hotel", "rail")
	for _, c := range []struct {
		mode     string
		rows     [][8]float64
		a, b     string
		low, hig float64
	}{
		{"shop", shop, "amount", "tax", 0.9, 1},
		{"shop", shop, "amount", "fee", 0.9, 1},
		{"shop", shop, "latency_ms", "load_pct", 0.9, 1},
		{"shop", shop, "amount", "latency_ms", -0.1, 0.1},
		{"web", web, "amount", "fee", -1, -0.9},
		{"web", web, "latency_ms", "load_pct", -1, -0.9},
		{"travel", travel, "amount", "tax", -1, -0.9},
	} {
		got := correlation(c.rows, at(c.a), at(c.b))
		if got < c.low || got > c.hig {
			t.Errorf("%s: correlation of %s and %s = %.3f, want %v to %v", c.mode, c.a, c.b, got, c.low, c.hig)
		}
	}
	if share := float64(len(shop)) / 20_000; math.Abs(share-0.4) > 0.02 {
		t.Errorf("share of the shops = %v, want 0.4", share)
	}
}

// spread returns the mean and standard deviation of every numeric column.
func spread(rows [][8]float64) (mean, sd [8]float64) {
	for c := range mean {
		var s, ss float64
		for _, r := range rows {
			s, ss = s+r[c], ss+r[c]*r[c]
		}
		n := float64(len(rows))
		mean[c] = s / n
		sd[c] = math.Sqrt(ss/n - mean[c]*mean[c])
	}
	return mean, sd
}

func TestEachKindIsWhatItsNameSays(t *testing.T) {
	clean := newSource(t, generate.Config{Seed: 4})
	mean, sd := map[string][8]float64{}, map[string][8]float64{}
	for m, rows := range families(clean, 40_000) {
		mean[m], sd[m] = spread(rows)
	}
	// far counts the values further than limit deviations from their mode's mean.
	far := func(r generate.Row, merchant string, limit float64) (n int) {
		for c, v := range r.Values {
			if math.Abs(v-mean[merchant][c]) > limit*sd[merchant][c] {
				n++
			}
		}
		return n
	}
	check := map[string]func(before, after generate.Row) bool{
		generate.Spike:             func(b, a generate.Row) bool { return far(a, b.Merchant, 8) == 1 },
		generate.BrokenCorrelation: func(b, a generate.Row) bool { return far(a, b.Merchant, 3.5) == 0 && a.Values != b.Values },
		generate.Swap: func(b, a generate.Row) bool {
			moved := 0
			for c := range a.Values {
				if a.Values[c] != b.Values[c] && slices.Contains(b.Values[:], a.Values[c]) {
					moved++
				}
			}
			return moved == 2
		},
		generate.Scale: func(b, a generate.Row) bool {
			moved := 0
			for c := range a.Values {
				if q := a.Values[c] / b.Values[c]; q > 2 || q < 0.5 {
					moved++
				}
			}
			return moved == 2 || moved == 3
		},
		generate.WrongCategory: func(b, a generate.Row) bool {
			return a.Values == b.Values && far(a, a.Merchant, 3) > 0 && far(a, b.Merchant, 6) == 0
		},
		generate.UnseenCategory: func(b, a generate.Row) bool {
			_, seen := mean[a.Merchant]
			return !seen && a.Values == b.Values
		},
		generate.Missing: func(b, a generate.Row) bool {
			n := 0
			for _, null := range a.Null {
				if null {
					n++
				}
			}
			return n == 3
		},
	}
	for _, kind := range generate.Kinds() {
		t.Run(kind, func(t *testing.T) {
			s := newSource(t, generate.Config{Seed: 4, AnomalyRate: 1, Kinds: []string{kind}})
			for i := range int64(1000) {
				if before, after := clean.Row(i), s.Row(i); !check[kind](before, after) {
					t.Fatalf("row %d is no %s:\nbefore %+v\nafter  %+v", i, kind, before, after)
				}
			}
		})
	}
}

func TestTimeRisesAndIDsAreUnique(t *testing.T) {
	s := newSource(t, generate.Config{Seed: 1})
	ids := map[string]bool{}
	last := s.Row(0)
	ids[last.ID()] = true
	if got := last.ID(); got != "pay-00000000" {
		t.Errorf("first id = %q", got)
	}
	for i := int64(1); i < 20_000; i++ {
		r := s.Row(i)
		if !r.Time.After(last.Time) {
			t.Fatalf("row %d at %v, the row before at %v", i, r.Time, last.Time)
		}
		if ids[r.ID()] {
			t.Fatalf("id %s twice", r.ID())
		}
		ids[r.ID()] = true
		last = r
	}
}

// TestPinnedRow holds the generator still: data made by one version can be made
// again by the next, on every machine.
func TestPinnedRow(t *testing.T) {
	s := newSource(t, generate.Config{Seed: 1, AnomalyRate: 0.5})
	got := ""
	for _, i := range []int64{0, 1, 123_456_789} {
		r := s.Row(i)
		got += fmt.Sprintln(r.ID(), r.Time.Format("2006-01-02T15:04:05.000000Z"), r.Merchant, r.Online, r.Values, r.Anomaly)
	}
	const want = `pay-00000000 2026-01-01T00:00:00.432744Z games true [114.463 22.661 2.412 2.291 17.586 232.195 53.814 50.991] missing
pay-00000001 2026-01-01T00:00:01.693512Z lottery true [17.735 3.63 0.292 0.619 7.301 171.747 61.231 54.883] unseen_category
pay-123456789 2029-11-29T21:33:09.213526Z lottery true [529.189 18.184 9.676 19.888 35.769 341.074 25.505 41.181] unseen_category
`
	if got != want {
		t.Errorf("rows have changed:\ngot\n%swant\n%s", got, want)
	}
}

func TestSchema(t *testing.T) {
	for _, label := range []bool{false, true} {
		s := newSource(t, generate.Config{Rows: 10, Label: label, AnomalyRate: 1})
		schema, err := s.Schema(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{false: 12, true: 14}[label]; schema.NumFields() != want {
			t.Errorf("label %v: %d columns, want %d", label, schema.NumFields(), want)
		}
		for b, err := range s.Batches(context.Background(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			if !b.Record.Schema().Equal(schema) {
				t.Errorf("record has %v, Schema says %v", b.Record.Schema(), schema)
			}
			b.Release()
		}
	}
}

func TestMemoryIsGivenBack(t *testing.T) {
	for _, label := range []bool{false, true} {
		mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
		s := newSource(t, generate.Config{Rows: 1000, BatchRows: 64, Label: label, AnomalyRate: 0.1, Allocator: mem})
		n := 0
		for b, err := range s.Batches(context.Background(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			b.Release()
			if n++; n == 5 {
				break // early: the builders must go too
			}
		}
		mem.AssertSize(t, 0)
	}
}

func TestCancelledContextIsYielded(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var last error
	n := 0
	for b, err := range newSource(t, generate.Config{BatchRows: 10}).Batches(ctx, nil) {
		if last = err; err != nil {
			continue
		}
		b.Release()
		if n++; n == 3 {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) || n != 3 {
		t.Errorf("ended after %d batches with %v, want 3 and context.Canceled", n, last)
	}
}

func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name    string
		config  generate.Config
		maxRows int64
	}{
		{"short", generate.Config{Rows: 500, BatchRows: 64, Seed: 1, AnomalyRate: 0.1, Label: true}, 0},
		{"partitions", generate.Config{Rows: 1000, BatchRows: 37, Seed: 2, Partitions: 3}, 0},
		{"one row", generate.Config{Rows: 1}, 0},
		{"endless", generate.Config{BatchRows: 100, Partitions: 2, Label: true}, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			pipelinetest.Source(t, pipelinetest.SourceTest{
				MaxRows: c.maxRows,
				New: func(t *testing.T, mem memory.Allocator) pipeline.Source {
					c.config.Allocator = mem
					return newSource(t, c.config)
				},
			})
		})
	}
}

func TestNewNamesEveryFault(t *testing.T) {
	_, err := generate.New(generate.Config{Rows: -1, BatchRows: -1, AnomalyRate: math.NaN(), Kinds: []string{"blip"}, Partitions: -2})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"rows: -1 is not between 0 (endless) and 30000000000",
		"batch_rows: -1 is not between 1 and 1048576",
		"anomaly_rate: NaN is not between 0 and 1",
		`kinds: "blip" is not one of spike, broken_correlation`,
		"partitions: -2 is not between 1 and 4096",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}

func TestUnknownPartitionOfThisConfiguration(t *testing.T) {
	s := newSource(t, generate.Config{Rows: 10, Seed: 1})
	var mark pipeline.Mark
	for b := range s.Batches(context.Background(), nil) {
		mark = b.Mark
		b.Release()
	}
	mark.Partition = "generate-9"
	for b, err := range s.Batches(context.Background(), []pipeline.Mark{mark}) {
		if b != nil || err == nil || !strings.Contains(err.Error(), `no partition "generate-9"`) {
			t.Errorf("got %v, %v", b, err)
		}
	}
}

func ExampleNew() {
	src, err := generate.New(generate.Config{Rows: 4, Seed: 1, AnomalyRate: 0.5, Label: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer src.Close()
	for b, err := range src.Batches(context.Background(), nil) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(b.Rows(), "rows of", b.Mark.Partition, "before", b.Mark.Next)
		b.Release()
	}
	// Output:
	// 4 rows of generate-0 before 4
}

func ExampleSource_Row() {
	src, err := generate.New(generate.Config{Seed: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	row := src.Row(2)
	fmt.Println(row.ID(), row.Merchant, row.Values[0])
	// Output: pay-00000002 games 80.366
}

func BenchmarkBatches(b *testing.B) {
	const rows = 8192
	src := newSource(b, generate.Config{Seed: 1, AnomalyRate: 0.01, Label: true, BatchRows: rows})
	b.ReportAllocs()
	done := 0
	for batch, err := range src.Batches(context.Background(), nil) {
		if err != nil {
			b.Fatal(err)
		}
		batch.Release()
		if done++; done >= b.N {
			break
		}
	}
	b.ReportMetric(float64(done*rows)/b.Elapsed().Seconds(), "rows/s")
}
