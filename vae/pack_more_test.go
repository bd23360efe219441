package vae_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
)

// TestFloat32IsWithinTwoUlps: numbers standardised in float32 stay within 2 units
// in the last place of the exact value, for large means and small spreads too.
func TestFloat32IsWithinTwoUlps(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	worst := 0.0
	for range 3000 {
		mean := float64(rng.NormFloat64() * math.Pow(10, 12*rng.Float64()-3)) // rounded: not fused into the difference below
		scale := float64(math.Abs(mean) * math.Pow(10, 3-10*rng.Float64()))   // down to less than the spacing of float32
		col := vae.Column{Name: "c", Kind: vae.Numeric, Transform: vae.Standardise, Head: vae.Gaussian,
			Mean: []float64{mean}, Scale: []float64{scale}}
		b := array.NewFloat32Builder(memory.DefaultAllocator)
		for range vae.TileRows {
			b.Append(float32(mean + scale*3*rng.NormFloat64()))
		}
		values := b.NewFloat32Array()
		rec := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "c", Type: arrow.PrimitiveTypes.Float32}}, nil), []arrow.Array{values}, -1)
		x, _, _ := packed(t, []vae.Column{col}, rec)
		for r := range x {
			want := (float64(values.Value(r)) - mean) / scale
			ulp := float64(math.Nextafter32(float32(math.Abs(want)), math.MaxFloat32)) - math.Abs(float64(float32(want)))
			if math.Abs(want) < vae.MaxAbs {
				worst = max(worst, math.Abs(float64(x[r][0])-want)/ulp)
			}
		}
	}
	if !(worst <= 2) {
		t.Errorf("off by %.2f units in the last place, want at most 2", worst)
	}
}

// TestPackAllocatesNothing, and neither does binding a record again.
func TestPackAllocatesNothing(t *testing.T) {
	for _, c := range packCases() {
		rng := rand.New(rand.NewPCG(9, 9))
		spec, rec := packTable([]packCase{c, c}, rng, 100)
		p, err := spec.NewPacker(rec.Schema())
		if err != nil {
			t.Fatal(err)
		}
		features, inputs := spec.Inputs()
		x, missing, flags := make([]float32, inputs*vae.TileRows), make([]uint64, features), make([]vae.RowFlags, vae.TileRows)
		var b vae.Packed
		if n := testing.AllocsPerRun(5, func() {
			if err := p.BindTo(&b, rec); err != nil {
				t.Fatal(err)
			}
			b.Pack(0, 64, x, vae.TileRows, 1, missing, flags)
			b.Pack(64, 7, x, 1, inputs, missing, flags)
		}); n != 0 {
			t.Errorf("%s %s: %v allocations, want 0", c.kind, c.typ, n)
		}
	}
}

// TestBindToRefusesOtherTypes: a record that is not of the packer's schema is an
// error, and leaves a Packed that can be bound again.
func TestBindToRefusesOtherTypes(t *testing.T) {
	for _, c := range packCases() {
		rng := rand.New(rand.NewPCG(9, 9))
		spec, rec := packTable([]packCase{c}, rng, 10)
		p, err := spec.NewPacker(rec.Schema())
		if err != nil {
			t.Fatal(err)
		}
		for _, typ := range []arrow.DataType{arrow.BinaryTypes.Binary, arrow.PrimitiveTypes.Float64, arrow.FixedSizeListOf(3, arrow.BinaryTypes.String)} {
			if typ.ID() == c.typ.ID() && c.kind != vae.Vector {
				continue
			}
			other := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "c0", Type: typ}}, nil),
				[]arrow.Array{array.MakeArrayOfNull(memory.DefaultAllocator, typ, 10)}, 10)
			var b vae.Packed
			if err := p.BindTo(&b, other); err == nil || !strings.Contains(err.Error(), `column "c0": `) {
				t.Errorf("%s %s bound to %s: error %v", c.kind, c.typ, typ, err)
			}
			if err := p.BindTo(&b, rec); err != nil {
				t.Fatal(err)
			}
			comparePack(t, spec, rec, &b, 0, 10)
		}
	}
}

func TestPackPanicsBeyondTheRecord(t *testing.T) {
	spec, rec := packTable(packCases()[:3], rand.New(rand.NewPCG(1, 1)), 70)
	p, err := spec.NewPacker(rec.Schema())
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Bind(rec)
	if err != nil {
		t.Fatal(err)
	}
	_, inputs := spec.Inputs()
	for _, c := range [][2]int{{0, 65}, {7, 64}, {-1, 1}, {70, 1}, {0, -1}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			b.Pack(c[0], c[1], make([]float32, inputs*vae.TileRows), vae.TileRows, 1, make([]uint64, inputs), make([]vae.RowFlags, 65))
		})
	}
}

// TestChunkedDictionaries: each record brings its own dictionary, with the same
// levels elsewhere.
func TestChunkedDictionaries(t *testing.T) {
	typ := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Uint8, ValueType: arrow.BinaryTypes.String}
	spec := &vae.Spec{MaxMissing: 0.5, Columns: []vae.Column{{Name: "c", Kind: vae.Categorical, Head: vae.CategoricalHead, Levels: []string{"a", "b", "c"}}}}
	schema := arrow.NewSchema([]arrow.Field{{Name: "c", Type: typ, Nullable: true}}, nil)
	p, err := spec.NewPacker(schema)
	if err != nil {
		t.Fatal(err)
	}
	var b vae.Packed
	for _, chunk := range []string{`["a","b",null,"c"]`, `["c","z","a"]`, `[null,null]`, `["z"]`, `[]`, `["b","a"]`} {
		a, _, err := array.FromJSON(memory.DefaultAllocator, typ, strings.NewReader(chunk))
		if err != nil {
			t.Fatal(err)
		}
		rec := array.NewRecord(schema, []arrow.Array{a}, int64(a.Len()))
		if err := p.BindTo(&b, rec); err != nil {
			t.Fatal(err)
		}
		comparePack(t, spec, rec, &b, 0, a.Len())
	}
}

// FuzzPack packs a record made from the seed: which columns, how many rows, where
// the tile begins and how long it is.
func FuzzPack(f *testing.F) {
	cases := packCases()
	f.Add(uint64(1), uint16(100), uint16(3), uint8(64), uint8(4))
	f.Add(uint64(2), uint16(1), uint16(0), uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, seed uint64, rows, from uint16, n, columns uint8) {
		rng := rand.New(rand.NewPCG(seed, 7))
		some := make([]packCase, 1+int(columns)%12)
		for i := range some {
			some[i] = cases[rng.IntN(len(cases))]
		}
		size := int(rows) % 300
		spec, rec := packTable(some, rng, size)
		p, err := spec.NewPacker(rec.Schema())
		if err != nil {
			t.Fatal(err)
		}
		b, err := p.Bind(rec)
		if err != nil {
			t.Fatal(err)
		}
		at := int(from) % (size + 1)
		comparePack(t, spec, rec, b, at, min(int(n)%(vae.TileRows+1), size-at))
	})
}
