package vae_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"github.com/elbo-stream/elbo/vae"
)

// A packCase is a kind of column in one Arrow type.
type packCase struct {
	kind vae.Kind
	typ  arrow.DataType
	head vae.Head
	t    vae.Transform
}

// packCases lists every kind in every type and treatment that it has.
func packCases() (cases []packCase) {
	p := arrow.PrimitiveTypes
	numbers := []arrow.DataType{p.Int8, p.Int16, p.Int32, p.Int64, p.Uint8, p.Uint16, p.Uint32, p.Uint64, p.Float32, p.Float64}
	add := func(k vae.Kind, h vae.Head, t vae.Transform, types ...arrow.DataType) {
		for _, typ := range types {
			cases = append(cases, packCase{k, typ, h, t})
		}
	}
	var lists []arrow.DataType
	for _, e := range numbers {
		lists = append(lists, arrow.ListOf(e), arrow.FixedSizeListOf(3, e), arrow.LargeListOf(e))
	}
	for _, t := range []vae.Transform{vae.Standardise, vae.Log1p, vae.Raw} {
		add(vae.Numeric, vae.Gaussian, t, numbers...)
		add(vae.Numeric, vae.Gaussian, t, arrow.FixedWidthTypes.Boolean)
		add(vae.Vector, vae.Gaussian, t, lists...)
	}
	add(vae.Numeric, vae.Bernoulli, vae.Raw, append(numbers, arrow.FixedWidthTypes.Boolean)...)
	add(vae.Vector, vae.Bernoulli, vae.Raw, lists...)
	add(vae.Boolean, vae.Bernoulli, "", append(numbers, arrow.FixedWidthTypes.Boolean)...)
	add(vae.Boolean, vae.Gaussian, "", p.Float64, arrow.FixedWidthTypes.Boolean)
	add(vae.Categorical, vae.CategoricalHead, "", arrow.BinaryTypes.String, arrow.BinaryTypes.LargeString, arrow.FixedWidthTypes.Boolean)
	add(vae.Categorical, vae.CategoricalHead, "", numbers[:8]...)
	for _, index := range numbers[:8] {
		add(vae.Categorical, vae.CategoricalHead, "", &arrow.DictionaryType{IndexType: index, ValueType: arrow.BinaryTypes.String},
			&arrow.DictionaryType{IndexType: index, ValueType: arrow.BinaryTypes.LargeString})
	}
	w := arrow.FixedWidthTypes
	add(vae.Timestamp, vae.Gaussian, "", w.Timestamp_s, w.Timestamp_ms, w.Timestamp_us, w.Timestamp_ns, w.Date32, w.Date64)
	return cases
}

// column makes a model column of the case.
func (p packCase) column(name string, rng *rand.Rand) vae.Column {
	c := vae.Column{Name: name, Kind: p.kind, Type: p.typ.String(), Head: p.head, Transform: p.t, Indicator: rng.IntN(3) == 0, MissingRate: 0.1}
	switch p.kind {
	case vae.Vector:
		c.Width = 3
	case vae.Timestamp:
		all := []string{"hour", "weekday", "monthday", "yearday"}
		rng.Shuffle(4, func(i, j int) { all[i], all[j] = all[j], all[i] })
		c.Parts = all[:1+rng.IntN(4)]
	case vae.Categorical:
		c.Levels = []string{"", "-1", "1", "3", "false", "l2", "l7", "true"}[rng.IntN(3):]
		return c
	case vae.Boolean:
		return c
	}
	for range c.Features() {
		mean, scale := 0.0, 1.0
		if p.t != vae.Raw {
			mean, scale = 30*rng.NormFloat64(), math.Exp(3*rng.NormFloat64())
		}
		if p.t != vae.Raw && rng.IntN(8) == 0 { // far from what float32 can standardise
			scale = []float64{1e-310, 1e-40, 1e-20, 1e40, 1e305}[rng.IntN(5)]
		}
		c.Mean, c.Scale, c.Constant = append(c.Mean, mean), append(c.Scale, scale), append(c.Constant, false)
	}
	return c
}

// oddFloats are numbers at the edges.
func oddFloats() []float64 {
	return []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e30, -1e30, 3.4e38, 1e-45, math.Copysign(0, -1), 0, 1, -1, 1.0000001, 0.5}
}

// array makes an array of the case, n rows long; nulls is the share of nulls.
func (p packCase) array(rng *rand.Rand, n int, nulls float64) arrow.Array {
	if d, ok := p.typ.(*arrow.DictionaryType); ok {
		return dictionary(d, rng, n, nulls)
	}
	b := array.NewBuilder(memory.DefaultAllocator, p.typ)
	defer b.Release()
	for range n {
		appendRandom(b, rng, nulls)
	}
	return b.NewArray()
}

// dictionary makes a dictionary array, whose levels repeat and may be null.
func dictionary(d *arrow.DictionaryType, rng *rand.Rand, n int, nulls float64) arrow.Array {
	values := array.NewBuilder(memory.DefaultAllocator, d.ValueType)
	defer values.Release()
	size := 1 + rng.IntN(10)
	for range size + 2 {
		appendRandom(values, rng, nulls)
	}
	whole := values.NewArray()
	dict := array.NewSlice(whole, 2, int64(size+2)) // with an offset
	index := array.NewBuilder(memory.DefaultAllocator, d.IndexType)
	defer index.Release()
	for range n {
		if rng.Float64() < nulls {
			index.AppendNull()
		} else if err := index.AppendValueFromString(fmt.Sprint(rng.IntN(size))); err != nil {
			panic(err)
		}
	}
	return array.NewDictionaryArray(d, index.NewArray(), dict)
}

func appendRandom(b array.Builder, rng *rand.Rand, nulls float64) {
	if rng.Float64() < nulls {
		b.AppendNull()
		return
	}
	number := func() float64 {
		if rng.IntN(12) == 0 {
			odd := oddFloats()
			return odd[rng.IntN(len(odd))]
		}
		if rng.IntN(2) == 0 {
			return rng.Float64()
		}
		return 40 * rng.NormFloat64()
	}
	switch b := b.(type) {
	case *array.Float64Builder:
		b.Append(number())
	case *array.Float32Builder:
		b.Append(float32(number()))
	case *array.BooleanBuilder:
		b.Append(rng.IntN(3) == 0)
	case *array.StringBuilder:
		b.Append([]string{"", "l2", "l7", "other"}[rng.IntN(4)])
	case *array.LargeStringBuilder:
		b.Append([]string{"", "l2", "l7", "other"}[rng.IntN(4)])
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(int64(rng.Uint64()) >> rng.IntN(40) / 2000))
	case *array.Date32Builder:
		b.Append(arrow.Date32(rng.Uint32() >> rng.IntN(32) >> 6))
	case *array.Date64Builder:
		b.Append(arrow.Date64(int64(rng.Uint64()>>20) - 1<<43))
	case *array.FixedSizeListBuilder:
		b.Append(true)
		for range 3 {
			appendRandom(b.ValueBuilder(), rng, nulls/3)
		}
	case array.ListLikeBuilder:
		b.Append(true)
		n := 3
		if rng.IntN(6) == 0 {
			n = rng.IntN(6)
		}
		for range n {
			appendRandom(b.ValueBuilder(), rng, nulls/3)
		}
	default: // integers of any width
		text := fmt.Sprint(rng.IntN(4))
		if rng.IntN(4) == 0 {
			text = fmt.Sprint(rng.IntN(128))
		}
		if rng.IntN(4) == 0 && arrow.IsSignedInteger(b.Type().ID()) {
			text = fmt.Sprint(-rng.IntN(128))
		}
		if err := b.AppendValueFromString(text); err != nil {
			panic(err)
		}
	}
}

// packTable makes a spec of the cases and a record for it, a slice of a longer
// one so that nothing starts at offset 0.
func packTable(cases []packCase, rng *rand.Rand, rows int) (*vae.Spec, arrow.Record) {
	spec := &vae.Spec{MaxMissing: 0.3}
	var fields []arrow.Field
	var arrays []arrow.Array
	skip := rng.IntN(70)
	for i, c := range cases {
		name := fmt.Sprint("c", i)
		spec.Columns = append(spec.Columns, c.column(name, rng))
		fields = append(fields, arrow.Field{Name: name, Type: c.typ, Nullable: true})
		nulls := []float64{0, 0, 0.1, 0.7, 1}[rng.IntN(5)]
		arrays = append(arrays, c.array(rng, skip+rows, nulls))
	}
	rec := array.NewRecord(arrow.NewSchema(fields, nil), arrays, int64(skip+rows))
	return spec, rec.NewSlice(int64(skip), int64(skip+rows))
}

// fatal is testing.T and rapid.T.
type fatal interface {
	Helper()
	Fatalf(string, ...any)
	Fatal(...any)
}

// comparePack packs rows [from, from+n) in both layouts and holds them to the
// reference.
func comparePack(t fatal, spec *vae.Spec, rec arrow.Record, b *vae.Packed, from, n int) {
	t.Helper()
	features, inputs := spec.Inputs()
	dirt := func(n int) []float32 { return slices.Repeat([]float32{-77}, n) }
	tile, rows := dirt(inputs*vae.TileRows), dirt(n*(inputs+3))
	tileMissing, rowMissing := slices.Repeat([]uint64{^uint64(0)}, features), slices.Repeat([]uint64{^uint64(0)}, features)
	flags, rowFlags := slices.Repeat([]vae.RowFlags{255}, vae.TileRows), slices.Repeat([]vae.RowFlags{255}, n)
	any := b.Pack(from, n, tile, vae.TileRows, 1, tileMissing, flags)
	active := slices.Clone(b.Active)
	if again := b.Pack(from, n, rows, 1, inputs+3, rowMissing, rowFlags); again != any {
		t.Fatalf("anyMissing %v in a tile, %v by rows", any, again)
	}
	seen := false
	for r := range n {
		want := refPack(spec, rec, from+r)
		if flags[r] != want.flags || rowFlags[r] != want.flags {
			t.Fatalf("row %d: flags %b and %b, want %b", from+r, flags[r], rowFlags[r], want.flags)
		}
		for f, w := range want.missing {
			seen = seen || w
			if m := tileMissing[f]>>r&1 == 1; m != w || rowMissing[f]>>r&1 == 1 != w {
				t.Fatalf("row %d: feature %d missing %v, want %v", from+r, f, m, w)
			}
		}
		for f, w := range want.x {
			got := tile[f*vae.TileRows+r]
			if !near(got, w) {
				t.Fatalf("row %d: input %d = %v, want %v", from+r, f, got, w)
			}
			if g := rows[r*(inputs+3)+f]; math.Float32bits(g) != math.Float32bits(got) {
				t.Fatalf("row %d: input %d = %v by rows, %v in a tile", from+r, f, g, got)
			}
		}
	}
	if any != seen {
		t.Fatalf("anyMissing = %v, want %v", any, seen)
	}
	checkEdges(t, tile, rows, tileMissing, n, inputs)
	checkActive(t, tile, active, n, inputs)
}

// checkEdges holds what lies beyond the rows: zero to the end of the slice,
// untouched after it.
func checkEdges(t fatal, tile, rows []float32, missing []uint64, n, inputs int) {
	t.Helper()
	padded := (n + 15) / 16 * 16
	for f := range inputs {
		for r := n; r < vae.TileRows; r++ {
			if got := tile[f*vae.TileRows+r]; r < padded && got != 0 {
				t.Fatalf("lane %d of input %d = %v, want 0", r, f, got)
			}
		}
	}
	for r := range n {
		for f := inputs; f < inputs+3; f++ {
			if rows[r*(inputs+3)+f] != -77 {
				t.Fatalf("row %d is written beyond its inputs", r)
			}
		}
	}
	for f, m := range missing {
		if m>>n != 0 && n < 64 {
			t.Fatalf("feature %d: missing %x has bits beyond %d rows", f, m, n)
		}
	}
}

// checkActive holds Active to what the tile has.
func checkActive(t fatal, tile []float32, active []uint32, n, inputs int) {
	t.Helper()
	if active == nil {
		return
	}
	if !slices.IsSorted(active) || 100*len(active) > 85*inputs {
		t.Fatalf("Active = %v of %d inputs", active, inputs)
	}
	for f := range inputs {
		if _, ok := slices.BinarySearch(active, uint32(f)); ok {
			continue
		}
		for r := range n {
			if tile[f*vae.TileRows+r] != 0 {
				t.Fatalf("input %d is %v in row %d and not in Active %v", f, tile[f*vae.TileRows+r], r, active)
			}
		}
	}
}

// TestPackEveryType packs each kind of column alone, in every size of a tile.
func TestPackEveryType(t *testing.T) {
	for i, c := range packCases() {
		t.Run(fmt.Sprintf("%s/%s/%s%s", c.kind, c.typ, c.t, c.head), func(t *testing.T) {
			for seed := range uint64(6) {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				spec, rec := packTable([]packCase{c}, rng, 150)
				p, err := spec.NewPacker(rec.Schema())
				if err != nil {
					t.Fatal(err)
				}
				b, err := p.Bind(rec)
				if err != nil {
					t.Fatal(err)
				}
				for n := range vae.TileRows + 1 {
					comparePack(t, spec, rec, b, rng.IntN(150-n), n)
				}
			}
		})
	}
}

// TestPackProperty packs records of many columns, of one Packed that is bound
// again and again.
func TestPackProperty(t *testing.T) {
	cases := packCases()
	var b vae.Packed
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		some := rapid.SliceOfN(rapid.SampledFrom(cases), 1, 12).Draw(t, "columns")
		rows := rapid.IntRange(0, 200).Draw(t, "rows")
		spec, rec := packTable(some, rng, rows)
		p, err := spec.NewPacker(rec.Schema())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.BindTo(&b, rec); err != nil {
				t.Fatal(err)
			}
			for from := 0; from < rows; {
				n := min(rows-from, rapid.IntRange(1, vae.TileRows).Draw(t, "n"))
				comparePack(t, spec, rec, &b, from, n)
				from += n
			}
			arrays := make([]arrow.Array, len(some)) // the next record of the stream
			for i, c := range some {
				arrays[i] = c.array(rng, rows, 0.2)
			}
			rec = array.NewRecord(rec.Schema(), arrays, int64(rows))
		}
	})
}
