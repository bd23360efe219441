package vae_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

// newsSchema has columns that hardly ever move, of every kind that can.
var newsSchema = arrow.NewSchema([]arrow.Field{
	{Name: "x", Type: arrow.PrimitiveTypes.Float64},
	{Name: "y", Type: arrow.PrimitiveTypes.Float64},
	{Name: "fixed", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "nearly", Type: arrow.PrimitiveTypes.Int32},
	{Name: "never", Type: arrow.FixedWidthTypes.Boolean},
	{Name: "always", Type: arrow.FixedWidthTypes.Boolean},
	{Name: "level", Type: arrow.BinaryTypes.String},
	{Name: "vec", Type: arrow.ListOf(arrow.PrimitiveTypes.Float32)},
}, nil)

// newsRow is one row of newsSchema.
type newsRow struct {
	x, y, fixed   float64
	nearly        int32
	never, always bool
	level         string
	vec           float32
}

func newsRecord(rows []newsRow) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, newsSchema)
	defer b.Release()
	for _, r := range rows {
		b.Field(0).(*array.Float64Builder).Append(r.x)
		b.Field(1).(*array.Float64Builder).Append(r.y)
		b.Field(2).(*array.Float64Builder).Append(r.fixed)
		b.Field(3).(*array.Int32Builder).Append(r.nearly)
		b.Field(4).(*array.BooleanBuilder).Append(r.never)
		b.Field(5).(*array.BooleanBuilder).Append(r.always)
		b.Field(6).(*array.StringBuilder).Append(r.level)
		l := b.Field(7).(*array.ListBuilder)
		l.Append(true)
		l.ValueBuilder().(*array.Float32Builder).AppendValues([]float32{float32(r.x), r.vec}, nil)
	}
	return b.NewRecord()
}

// usualRow is row i of the training rows; in two of 3,000 "nearly" moves.
func usualRow(i int) newsRow {
	t := float64(i)
	r := newsRow{x: math.Sin(t), y: math.Cos(1.3 * t), fixed: 7.25, nearly: 40, always: true, level: []string{"a", "b", "c"}[i%3], vec: 1}
	if i == 700 || i == 1900 {
		r.nearly = 41
	}
	return r
}

func newsModel(t *testing.T, members int) *vae.Model {
	t.Helper()
	var rows []newsRow
	for i := range 3000 {
		rows = append(rows, usualRow(i))
	}
	rec := newsRecord(rows)
	defer rec.Release()
	m, err := train.Run(t.Context(), train.Config{Steps: 200, Members: members}, train.Records{rec})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func scoreNews(t *testing.T, m *vae.Model, rows ...newsRow) *vae.Result {
	t.Helper()
	rec := newsRecord(rows)
	defer rec.Release()
	s, err := m.NewScorer(newsSchema, vae.Options{TopAll: true, Top: 3})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Score(rec)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// What training hardly ever saw counts by how rare it was, not by how far it
// lies; it is named first, and never blows up.
func TestNews(t *testing.T) {
	cases := []struct {
		name   string
		change func(r *newsRow, size float64)
		rows   float64 // of the training rows that had it
	}{
		{"fixed", func(r *newsRow, size float64) { r.fixed += size }, 0},
		{"nearly", func(r *newsRow, size float64) { r.nearly += int32(min(size, 1e6) + 1) }, 2},
		{"never", func(r *newsRow, _ float64) { r.never = true }, 0},
		{"always", func(r *newsRow, _ float64) { r.always = false }, 0},
		{"level", func(r *newsRow, size float64) { r.level = fmt.Sprint("new", size) }, 0},
		{"vec[1]", func(r *newsRow, size float64) { r.vec += float32(size) }, 0},
	}
	for _, members := range []int{1, 2} {
		m := newsModel(t, members)
		base := scoreNews(t, m, usualRow(5)).Score[0]
		n := float64(m.Training.Rows)
		for _, c := range cases {
			t.Run(fmt.Sprintf("%d members, %s", members, c.name), func(t *testing.T) {
				var last float32
				for i, size := range []float64{0.001, 1, 1e12} {
					r := usualRow(5)
					c.change(&r, size)
					res := scoreNews(t, m, r)
					rise := float64(res.Score[0] - base)
					want := math.Log((n + 2) / (c.rows + 1))
					slack := 0.01
					if c.name == "nearly" { // of its two rows one may be held out
						slack = 0.5
					}
					if c.name == "level" { // its usual share is gone
						slack = 4
					}
					if math.Abs(rise-want) > slack {
						t.Errorf("size %g: the score rises by %v, want about %v", size, rise, want)
					}
					if i > 0 && res.Score[0] != last {
						t.Errorf("size %g scores %v, another size %v", size, res.Score[0], last)
					}
					last = res.Score[0]
					if top := res.Top[0][0]; top.Column != c.name || float64(top.Contribution) < want-slack {
						t.Errorf("size %g blames %+v first", size, res.Top[0])
					}
				}
			})
		}
		same := usualRow(5)
		same.fixed *= 1 + 1e-9 // rounding of the same value is no news
		if got := scoreNews(t, m, same).Score[0]; got != base {
			t.Errorf("a value within rounding scores %v, the usual one %v", got, base)
		}
	}
}

// The rates in the file are Laplace's.
func TestNewsRates(t *testing.T) {
	m := newsModel(t, 1)
	n := float64(m.Training.Rows)
	want := map[string]float64{"fixed": 1 / (n + 2), "never": 1 / (n + 2), "always": 1 / (n + 2), "level": 1 / (n + 2)}
	for _, c := range m.Spec.Columns {
		if w, ok := want[c.Name]; ok && math.Abs(c.Rare[0]-w) > 1e-12 {
			t.Errorf("%s: rate %v, want %v", c.Name, c.Rare[0], w)
		}
		if c.Name == "nearly" && !(c.Rare[0] >= 1/(n+2) && c.Rare[0] <= 3/(n+2)+1e-12 && c.Constant[0] && c.Mean[0] == 40) {
			t.Errorf("nearly: %+v", c)
		}
		if (c.Name == "x" || c.Name == "y") && c.Rare != nil {
			t.Errorf("%s: %+v has rare values", c.Name, c)
		}
	}
}

// A gap where there never was one costs log(n+1), one in a column that often has
// gaps nothing of its own; the columns of a row add up with either.
func TestGapsAreNews(t *testing.T) {
	f64 := arrow.PrimitiveTypes.Float64
	schema := arrow.NewSchema([]arrow.Field{{Name: "x", Type: f64}, {Name: "often", Type: f64, Nullable: true},
		{Name: "seldom", Type: f64, Nullable: true}, {Name: "never", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	record := func(n int, gone func(i, column int) bool) arrow.Record {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		defer b.Release()
		for i := range n {
			u := math.Sin(float64(i))
			b.Field(0).(*array.Float64Builder).Append(u)
			b.Field(1).(*array.Float64Builder).AppendValues([]float64{-u}, []bool{!gone(i, 1)})
			b.Field(2).(*array.Float64Builder).AppendValues([]float64{u * u}, []bool{!gone(i, 2)})
			b.Field(3).(*array.StringBuilder).AppendValues([]string{[]string{"a", "b"}[i%2]}, []bool{!gone(i, 3)})
		}
		return b.NewRecord()
	}
	rec := record(3000, func(i, column int) bool { return column == 1 && i%5 == 0 || column == 2 && i == 1500 })
	defer rec.Release()
	m, err := train.Run(t.Context(), train.Config{Steps: 100, Members: 1}, train.Records{rec})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewScorer(schema, vae.Options{Contributions: true, TopAll: true, Top: 1})
	if err != nil {
		t.Fatal(err)
	}
	n := float64(m.Training.Rows)
	for column, want := range map[int]float64{1: 0, 2: math.Log((n + 1) / 2), 3: math.Log(n + 1)} {
		odd := record(40, func(_, c int) bool { return c == column })
		res, err := s.Score(odd)
		if err != nil {
			t.Fatal(err)
		}
		for r := range 40 {
			sum := 0.0
			for _, v := range res.Columns[4*r : 4*r+4] {
				sum += float64(v)
			}
			if d := sum - float64(res.Recon[r]); math.Abs(d) > 1e-4 {
				t.Fatalf("column %d missing, row %d: columns add up to %v, recon is %v", column, r, sum, res.Recon[r])
			}
			own := float64(res.Columns[4*r+column])
			if column == 2 && m.Spec.Columns[2].MissingRate < 1.5/(n+2) { // that row was held out
				want = math.Log(n + 1)
			}
			if math.Abs(own-want) > 1e-3 {
				t.Fatalf("column %d missing, row %d: the gap costs %v, want %v", column, r, own, want)
			}
			if top := res.Top[r][0]; want > 0 && (top.Column != schema.Field(column).Name || top.Value != "null") {
				t.Errorf("column %d missing, row %d: blames %+v", column, r, top)
			}
		}
		odd.Release()
	}
}
