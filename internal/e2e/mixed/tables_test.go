// Package mixed holds tests of tables of numbers, booleans, levels, times and gaps:
// that a model finds in them what it finds in the same rows as numbers alone.
package mixed

import (
	"math"
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

// dataVariable names a folder of labelled Parquet files: columns f0, f1 ... of
// float32 and last label, 0 for normal rows.
const dataVariable = "ELBO_TEST_DATA"

// A set is a labelled table of numbers, column by column.
type set struct {
	columns [][]float32
	odd     []bool
}

// load reads a set; the test is skipped where it is not at hand.
func load(t *testing.T, name string) *set {
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
	s := &set{}
	for b, err := range src.Batches(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		last := int(b.Record.NumCols()) - 1
		s.columns = slices.Grow(s.columns, last)[:last]
		for j := range s.columns {
			s.columns[j] = append(s.columns[j], b.Record.Column(j).(*array.Float32).Float32Values()...)
		}
		for _, v := range b.Record.Column(last).(*array.Int32).Int32Values() {
			s.odd = append(s.odd, v != 0)
		}
		b.Release()
	}
	return s
}

// mostRows is how many rows train at most, and how many normal rows are tested.
const mostRows = 4000

// split shuffles the normal rows: half of them train, the others are tested with
// anomalies in the proportion of the set.
func (s *set) split() (trained, tested []int, labels []bool) {
	var normal, odd []int
	for r, is := range s.odd {
		if is {
			odd = append(odd, r)
		} else {
			normal = append(normal, r)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, rows := range [][]int{normal, odd} {
		rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	}
	half := len(normal) / 2
	n := min(half, mostRows)
	tested = normal[half : half+n]
	odd = odd[:min(len(odd), max(30, len(odd)*n/half))]
	labels = append(make([]bool, n), slices.Repeat([]bool{true}, len(odd))...)
	return normal[:n], slices.Concat(tested, odd), labels
}

// A maker makes a record of some rows of a set.
type maker func(s *set, rows []int) arrow.Record

// judged trains on half of the normal rows, as a maker shows them, and ranks the
// tested ones.
func (s *set) judged(t *testing.T, make maker, c train.Config) (auroc, ap float64) {
	t.Helper()
	trained, tested, labels := s.split()
	c.Workers, c.Seed = 2, 1
	rec := make(s, trained)
	defer rec.Release()
	m, err := train.Run(t.Context(), c, train.Records{rec})
	if err != nil {
		t.Fatal(err)
	}
	test := make(s, tested)
	defer test.Release()
	got := scores(t, m, test)
	if auroc, err = eval.AUROC(got, labels); err != nil {
		t.Fatal(err)
	}
	if ap, err = eval.AveragePrecision(got, labels); err != nil {
		t.Fatal(err)
	}
	return auroc, ap
}

func scores(t *testing.T, m *vae.Model, rec arrow.Record) []float32 {
	t.Helper()
	s, err := m.NewScorer(rec.Schema(), vae.Options{ScoresOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Score(rec)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(res.Score)
}

// A table grows column by column.
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

func columnName(j int) string { return "f" + strconv.Itoa(j) }

// number adds column j as it is.
func (t *table) number(s *set, rows []int, j int) {
	b := array.NewFloat32Builder(memory.DefaultAllocator)
	for _, r := range rows {
		b.Append(s.columns[j][r])
	}
	t.add(columnName(j), b)
}

func numbers(s *set, rows []int) arrow.Record {
	t := &table{}
	for j := range s.columns {
		t.number(s, rows, j)
	}
	return t.record(len(rows))
}

// A hot is a string column that a set has one-hot.
type hot struct {
	name string
	from int
	n    int
}

// connections are those of NSL-KDD.
var connections = []hot{{"protocol", 38, 3}, {"service", 41, 64}, {"flag", 105, 11}}

// level returns which of the columns is set in a row, -1 for none.
func (h hot) level(s *set, row int) int {
	for j := range h.n {
		if s.columns[h.from+j][row] != 0 {
			return j
		}
	}
	return -1
}

// strings puts NSL-KDD's one-hot columns back together.
func strings(s *set, rows []int) arrow.Record {
	t := &table{}
	for j := range connections[0].from {
		t.number(s, rows, j)
	}
	for _, h := range connections {
		b := array.NewStringBuilder(memory.DefaultAllocator)
		for _, r := range rows {
			if l := h.level(s, r); l < 0 {
				b.AppendNull()
			} else {
				b.Append(h.name + strconv.Itoa(l))
			}
		}
		t.add(h.name, b)
	}
	return t.record(len(rows))
}

// oneString joins NSL-KDD's one-hot columns to a single string column of more than
// 64 levels.
func oneString(s *set, rows []int) arrow.Record {
	t := &table{}
	for j := range connections[0].from {
		t.number(s, rows, j)
	}
	b := array.NewStringBuilder(memory.DefaultAllocator)
	for _, r := range rows {
		text := ""
		for _, h := range connections {
			text += strconv.Itoa(h.level(s, r)) + "/"
		}
		b.Append(text)
	}
	t.add("connection", b)
	return t.record(len(rows))
}

// levelsOf returns the different values of a column in order.
func (s *set) levelsOf(j int) []float32 {
	return slices.Compact(slices.Sorted(slices.Values(s.columns[j])))
}

// booleans makes booleans of the columns of zeros and ones.
func booleans(s *set, rows []int) arrow.Record {
	t := &table{}
	for j := range s.columns {
		if !slices.Equal(s.levelsOf(j), []float32{0, 1}) {
			t.number(s, rows, j)
			continue
		}
		b := array.NewBooleanBuilder(memory.DefaultAllocator)
		for _, r := range rows {
			b.Append(s.columns[j][r] != 0)
		}
		t.add(columnName(j), b)
	}
	return t.record(len(rows))
}

// coded says whether a column is one of a few different numbers.
func (s *set) coded(j int) bool {
	n := len(s.levelsOf(j))
	return n > 2 && n <= 32
}

// codes makes of the columns of 3 to 32 different numbers the int64 of the place of
// the number among them.
func codes(s *set, rows []int) arrow.Record {
	t := &table{}
	for j := range s.columns {
		if !s.coded(j) {
			t.number(s, rows, j)
			continue
		}
		levels := s.levelsOf(j)
		b := array.NewInt64Builder(memory.DefaultAllocator)
		for _, r := range rows {
			at, _ := slices.BinarySearch(levels, s.columns[j][r])
			b.Append(int64(at))
		}
		t.add(columnName(j), b)
	}
	return t.record(len(rows))
}

// raw takes back the logarithms of http.
func raw(s *set, rows []int) arrow.Record {
	t := &table{}
	for j := range s.columns {
		b := array.NewFloat64Builder(memory.DefaultAllocator)
		for _, r := range rows {
			b.Append(math.Exp(float64(s.columns[j][r])) - 0.1)
		}
		t.add(columnName(j), b)
	}
	return t.record(len(rows))
}

// withGaps takes a tenth of the cells out of what a maker makes.
func withGaps(make maker) maker {
	return func(s *set, rows []int) arrow.Record {
		rec := make(s, rows)
		defer rec.Release()
		rng := rand.New(rand.NewPCG(7, uint64(rows[0])))
		t := &table{}
		for j, a := range rec.Columns() {
			b := array.NewBuilder(memory.DefaultAllocator, a.DataType())
			for i := range a.Len() {
				if gone := rng.IntN(10) == 0; gone || a.IsNull(i) {
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
