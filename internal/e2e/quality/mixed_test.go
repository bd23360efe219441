package quality

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/sources/parquet"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
	"github.com/elbo-stream/elbo/vae/train"
)

// dataVariable names a folder of labelled Parquet files: columns of float32 and
// label, 0 for normal rows.
const dataVariable = "ELBO_TEST_DATA"

// real reads a labelled set, at most so many rows of it: features by column, and
// which rows are anomalies.
func real(t *testing.T, name string) (columns [][]float32, odd []bool) {
	t.Helper()
	dir := os.Getenv(dataVariable)
	path := filepath.Join(dir, name+".parquet")
	if _, err := os.Stat(path); dir == "" || err != nil {
		t.Skipf("SKIPPED: set %s to a folder with %s.parquet to test on a real mixed table", dataVariable, name)
	}
	src, err := parquet.New(parquet.Config{Paths: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for b, err := range src.Batches(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		last := int(b.Record.NumCols()) - 1
		if columns == nil {
			columns = make([][]float32, last)
		}
		for j := range columns {
			columns[j] = append(columns[j], b.Record.Column(j).(*array.Float32).Float32Values()...)
		}
		for _, v := range b.Record.Column(last).(*array.Int32).Int32Values() {
			odd = append(odd, v != 0)
		}
		b.Release()
	}
	return columns, odd
}

// A maker makes a record of some rows of the columns.
type maker func(columns [][]float32, rows []int) arrow.Record

// table builds a record column by column.
type table struct {
	fields []arrow.Field
	arrays []arrow.Array
}

func (t *table) add(name string, b array.Builder) {
	a := b.NewArray()
	t.fields = append(t.fields, arrow.Field{Name: name, Type: a.DataType(), Nullable: true})
	t.arrays = append(t.arrays, a)
}

func (t *table) record(rows int) arrow.Record {
	return array.NewRecord(arrow.NewSchema(t.fields, nil), t.arrays, int64(rows))
}

func (t *table) numbers(columns [][]float32, rows []int, from, to int) {
	for j := from; j < to; j++ {
		b := array.NewFloat32Builder(memory.DefaultAllocator)
		for _, r := range rows {
			b.Append(columns[j][r])
		}
		t.add("f"+strconv.Itoa(j), b)
	}
}

func allNumbers(columns [][]float32, rows []int) arrow.Record {
	t := &table{}
	t.numbers(columns, rows, 0, len(columns))
	return t.record(len(rows))
}

// asStrings puts the one-hot columns of NSL-KDD back together.
func asStrings(columns [][]float32, rows []int) arrow.Record {
	t := &table{}
	t.numbers(columns, rows, 0, 38)
	at := 38
	for _, c := range []struct {
		name string
		n    int
	}{{"protocol", 3}, {"service", 64}, {"flag", 11}} {
		b := array.NewStringBuilder(memory.DefaultAllocator)
		for _, r := range rows {
			level := -1
			for j := range c.n {
				if columns[at+j][r] != 0 {
					level = j
				}
			}
			if level < 0 {
				b.AppendNull()
			} else {
				b.Append(c.name + strconv.Itoa(level))
			}
		}
		t.add(c.name, b)
		at += c.n
	}
	return t.record(len(rows))
}

// asBooleans makes booleans of the columns of zeros and ones.
func asBooleans(columns [][]float32, rows []int) arrow.Record {
	t := &table{}
	for j := range columns {
		if slices.ContainsFunc(columns[j], func(v float32) bool { return v != 0 && v != 1 }) {
			t.numbers(columns, rows, j, j+1)
			continue
		}
		b := array.NewBooleanBuilder(memory.DefaultAllocator)
		for _, r := range rows {
			b.Append(columns[j][r] != 0)
		}
		t.add("f"+strconv.Itoa(j), b)
	}
	return t.record(len(rows))
}

// withGaps takes a tenth of the cells out of what a maker makes.
func withGaps(make maker) maker {
	return func(columns [][]float32, rows []int) arrow.Record {
		rec := make(columns, rows)
		rng := rand.New(rand.NewPCG(7, uint64(len(rows))))
		t := &table{}
		for j := range int(rec.NumCols()) {
			a := rec.Column(j)
			b := array.NewBuilder(memory.DefaultAllocator, a.DataType())
			for i := range a.Len() {
				if a.IsNull(i) || rng.IntN(10) == 0 {
					b.AppendNull()
				} else if err := b.AppendValueFromString(a.ValueStr(i)); err != nil {
					panic(err)
				}
			}
			t.add(rec.ColumnName(j), b)
		}
		return t.record(len(rows))
	}
}

// judged trains on half of the normal rows and ranks the others with the anomalies.
func judged(t *testing.T, columns [][]float32, odd []bool, make maker, c train.Config) (auroc, ap float64) {
	t.Helper()
	var normal, strange []int
	for r, is := range odd {
		if is {
			strange = append(strange, r)
		} else {
			normal = append(normal, r)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, rows := range [][]int{normal, strange} {
		rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	}
	half := min(len(normal)/2, 4000)
	rest := normal[len(normal)/2:][:half]
	test := slices.Concat(rest, strange[:min(len(strange), half/8)])
	c.Workers, c.Seed = 2, 1
	m, err := train.Run(t.Context(), c, train.Records{make(columns, normal[:half])})
	if err != nil {
		t.Fatal(err)
	}
	rec := make(columns, test)
	s, err := m.NewScorer(rec.Schema(), vae.Options{ScoresOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Score(rec)
	if err != nil {
		t.Fatal(err)
	}
	labels := slices.Concat(slices.Repeat([]bool{false}, len(rest)), slices.Repeat([]bool{true}, len(test)-len(rest)))
	if auroc, err = eval.AUROC(res.Score, labels); err != nil {
		t.Fatal(err)
	}
	if ap, err = eval.AveragePrecision(res.Score, labels); err != nil {
		t.Fatal(err)
	}
	return auroc, ap
}

// Strings, booleans and gaps find what the same rows as numbers find.
func TestMixedTables(t *testing.T) {
	for _, c := range []struct {
		set  string
		make maker
	}{{"nslkdd", asStrings}, {"campaign", asBooleans}} {
		t.Run(c.set, func(t *testing.T) {
			columns, odd := real(t, c.set)
			for _, gaps := range []bool{false, true} {
				plain, mixed := maker(allNumbers), c.make
				if gaps {
					plain, mixed = withGaps(plain), withGaps(mixed)
				}
				a, p := judged(t, columns, odd, plain, train.Config{})
				b, q := judged(t, columns, odd, mixed, train.Config{})
				t.Logf("%s, gaps %v: numbers %.3f / %.3f, mixed %.3f / %.3f", c.set, gaps, a, p, b, q)
				if b < a-0.015 || q < p-0.04 {
					t.Errorf("%s, gaps %v: the mixed table has %.3f / %.3f, numbers alone %.3f / %.3f", c.set, gaps, b, q, a, p)
				}
			}
		})
	}
}

// A column of numbers may be taken as categories, and a heavy tail as its logarithm.
func TestKindsByHand(t *testing.T) {
	columns, odd := real(t, "http")
	a, _ := judged(t, columns, odd, allNumbers, train.Config{})
	b, _ := judged(t, columns, odd, allNumbers, train.Config{Overrides: vae.Overrides{Transforms: map[string]vae.Transform{"": vae.Log1p}}})
	t.Logf("http: as it is %.4f, logarithms %.4f", a, b)
	if a < 0.99 || b < 0.98 {
		t.Errorf("http: as it is %.4f, logarithms %.4f", a, b)
	}
}
