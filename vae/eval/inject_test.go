package eval_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
)

// everyKind has a column of every kind and several Arrow types, some cells null.
func everyKind(mem memory.Allocator, rows int) (arrow.Record, []vae.Column) {
	dict := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.BinaryTypes.String}, {Name: "x", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "y", Type: arrow.PrimitiveTypes.Float32, Nullable: true}, {Name: "n", Type: arrow.PrimitiveTypes.Int16, Nullable: true},
		{Name: "u", Type: arrow.PrimitiveTypes.Uint8, Nullable: true}, {Name: "level", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "coded", Type: dict, Nullable: true}, {Name: "class", Type: arrow.PrimitiveTypes.Int64}, {Name: "flag", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
		{Name: "vec", Type: arrow.ListOf(arrow.PrimitiveTypes.Float32), Nullable: true}, {Name: "at", Type: arrow.FixedWidthTypes.Timestamp_us, Nullable: true}}, nil)
	b := array.NewRecordBuilder(mem, schema)
	defer b.Release()
	rng := rand.New(rand.NewPCG(5, 5))
	for r := range rows {
		for i := range schema.Fields() {
			if schema.Field(i).Nullable && rng.IntN(8) == 0 {
				b.Field(i).AppendNull()
				continue
			}
			switch f := b.Field(i).(type) {
			case *array.Float64Builder:
				f.Append(100 + rng.NormFloat64())
			case *array.Float32Builder:
				f.Append(float32(rng.NormFloat64()) / 3)
			case *array.Int16Builder:
				f.Append(int16(rng.IntN(100)))
			case *array.Uint8Builder:
				f.Append(uint8(rng.IntN(100)))
			case *array.Int64Builder:
				f.Append(int64(rng.IntN(4)))
			case *array.BooleanBuilder:
				f.Append(rng.IntN(2) == 0)
			case *array.StringBuilder:
				f.Append([]string{"a", "b", fmt.Sprint("row", r)}[rng.IntN(2)])
			case *array.BinaryDictionaryBuilder:
				if err := f.AppendString([]string{"p", "q"}[rng.IntN(2)]); err != nil {
					panic(err)
				}
			case *array.ListBuilder:
				f.Append(true)
				f.ValueBuilder().(*array.Float32Builder).AppendValues([]float32{rng.Float32(), rng.Float32()}, nil)
			case *array.TimestampBuilder:
				f.Append(arrow.Timestamp(1_700_000_000_000_000 + rng.Int64N(1e12)))
			}
		}
	}
	kinds := map[string]vae.Kind{"x": vae.Numeric, "y": vae.Numeric, "n": vae.Numeric, "u": vae.Numeric, "level": vae.Categorical, "coded": vae.Categorical,
		"class": vae.Categorical, "flag": vae.Boolean, "vec": vae.Vector, "at": vae.Timestamp}
	var columns []vae.Column
	for _, f := range schema.Fields()[1:] {
		columns = append(columns, vae.Column{Name: f.Name, Kind: kinds[f.Name]})
	}
	return b.NewRecord(), columns
}

// differs names the columns in which row r of two records differs.
func differs(a, b arrow.Record, r int) (names []string) {
	for i := range a.Schema().Fields() {
		x, y := a.Column(i), b.Column(i)
		text := func(c arrow.Array) string {
			if c.IsNull(r) {
				return "null"
			}
			if d, ok := c.(*array.Dictionary); ok {
				return d.Dictionary().ValueStr(d.GetValueIndex(r))
			}
			return c.ValueStr(r)
		}
		if text(x) != text(y) {
			names = append(names, a.ColumnName(i))
		}
	}
	return names
}

// Every kind changes what it says and nothing else, the same way for one seed.
func TestInject(t *testing.T) {
	mem := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer mem.AssertSize(t, 0)
	rec, columns := everyKind(mem, 200)
	defer rec.Release()
	most := map[string]int{eval.Spike: 1, eval.Scale: 1, eval.Swap: 2, eval.Unseen: 1, eval.Broken: 5, eval.Missing: 5}
	for _, kind := range eval.InjectKinds() {
		inject := func(seed uint64) *eval.Injected {
			in, err := eval.Inject(rec, eval.Injection{Kind: kind, Columns: columns, Seed: seed, Alloc: mem})
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			return in
		}
		in, again, other := inject(1), inject(1), inject(2)
		changed, same := 0, true
		for r := range 200 {
			got := differs(rec, in.Record, r)
			want := slices.Clone(in.Changed[r])
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("%s, row %d: %v differ, said %v", kind, r, got, want)
			}
			if len(got) > most[kind] {
				t.Errorf("%s, row %d: %d columns changed", kind, r, len(got))
			}
			if len(got) > 0 {
				changed++
			}
			if differs(in.Record, again.Record, r) != nil {
				t.Errorf("%s, row %d: one seed gives two rows", kind, r)
			}
			same = same && differs(in.Record, other.Record, r) == nil
		}
		if changed < 195 || same {
			t.Errorf("%s: %d of 200 rows changed; another seed changes the same: %v", kind, changed, same)
		}
		in.Release()
		again.Release()
		other.Release()
	}
}

// Sizes are what was asked for, whole numbers stay whole, unseen levels are new.
func TestInjectSizes(t *testing.T) {
	rec, columns := everyKind(memory.DefaultAllocator, 300)
	defer rec.Release()
	x := columns[:1]
	in, err := eval.Inject(rec, eval.Injection{Kind: eval.Spike, Strength: 5, Columns: x, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	before, after := rec.Column(1).(*array.Float64), in.Record.Column(1).(*array.Float64)
	for i := range in.Changed {
		if d := after.Value(i) - before.Value(i); in.Changed[i] != nil && !(d > 4 && d < 6 || d < -4 && d > -6) { // sd is about 1
			t.Fatalf("row %d moved by %v", i, d)
		}
	}
	in, err = eval.Inject(rec, eval.Injection{Kind: eval.Unseen, Columns: columns, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i, changed := range in.Changed {
		for _, name := range changed {
			at := in.Record.Schema().FieldIndices(name)[0]
			v := in.Record.Column(at).ValueStr(i)
			if name == "class" && v != "4" || name != "class" && v != "a level never seen" {
				t.Errorf("%s in row %d became %q", name, i, v)
			}
		}
	}
}

func TestInjectRefuses(t *testing.T) {
	rec, columns := everyKind(memory.DefaultAllocator, 20)
	defer rec.Release()
	numbers := columns[:2]
	if _, err := eval.Inject(rec, eval.Injection{Kind: eval.Unseen, Columns: numbers}); !errors.Is(err, eval.ErrNoSuitableColumn) {
		t.Errorf("unseen category of numbers: %v", err)
	}
	if _, err := eval.Inject(rec, eval.Injection{Kind: eval.Swap, Columns: columns[:1]}); !errors.Is(err, eval.ErrNoSuitableColumn) {
		t.Errorf("swap of one column: %v", err)
	}
	for _, inj := range []eval.Injection{{Kind: "odd", Columns: columns}, {Kind: eval.Spike, Strength: -1, Columns: columns},
		{Kind: eval.Spike, Columns: []vae.Column{{Name: "none", Kind: vae.Numeric}}}} {
		if _, err := eval.Inject(rec, inj); err == nil {
			t.Errorf("%+v was planted", inj)
		}
	}
}

// Precision at k is the share among the k highest, ties as they may fall.
func TestPrecisionAtK(t *testing.T) {
	for _, c := range []struct {
		scores []float64
		labels []bool
		want   float64
	}{
		{[]float64{5, 4, 3, 2}, []bool{true, false, true, false}, 0.5},
		{[]float64{1, 1, 1, 1}, []bool{true, false, false, false}, 0.25},
		{[]float64{9, 2, 2, 1}, []bool{true, true, false, false}, 0.75},
		{[]float64{1, 2, 3}, []bool{false, false, true}, 1},
	} {
		if got, err := eval.PrecisionAtK(c.scores, c.labels); err != nil || got != c.want {
			t.Errorf("%v %v: %v (%v), want %v", c.scores, c.labels, got, err, c.want)
		}
	}
	if _, err := eval.PrecisionAtK([]float64{1, 2}, []bool{false, false}); !errors.Is(err, eval.ErrOneClass) {
		t.Errorf("no anomaly: %v", err)
	}
}

// The verdict says who is better and what it costs.
func TestVerdict(t *testing.T) {
	f := []eval.BaselineFigures{{Name: "elbo", AUROC: .95, ScoreMicros: 1}, {Name: "kNN5", AUROC: .93, ScoreMicros: 20}, {Name: "PCA95", Note: "too many columns"}}
	for auroc, want := range map[float64]string{
		.95:  "the model earns its cost: AUROC 0.950, best baseline kNN5 0.930 (+2.0 points), scores 20x faster",
		.932: "no better than a baseline here: AUROC 0.932, best baseline kNN5 0.930 (+0.2 points), scores 20x faster",
		.9:   "kNN5 does better here: AUROC 0.900, best baseline kNN5 0.930 (-3.0 points), scores 20x faster",
	} {
		f[0].AUROC = auroc
		if got := eval.Verdict(f); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for micros, want := range map[float64]string{0: "points)", 1.02: ", scores as fast", 2.54: ", scores 2.5x faster", 123.4: ", scores 123x faster", .5: ", scores 2.0x slower"} {
		if f[1].ScoreMicros = micros; !strings.HasSuffix(eval.Verdict(f), want) {
			t.Errorf("%v us: %q, want it to end in %q", micros, eval.Verdict(f), want)
		}
	}
	f[1].ScoreMicros = 20
	for _, gap := range []float64{.02, -.02} {
		f[0].AUROC, f[1].AUROC, f[1].GapError = .9+gap, .9, .011
		if got := eval.Verdict(f); !strings.HasPrefix(got, "too close to call: AUROC ") {
			t.Errorf("2 points with an error of 1.1: %q", got)
		}
		if f[1].GapError = .009; strings.HasPrefix(eval.Verdict(f), "too close") {
			t.Errorf("2 points with an error of 0.9: %q", eval.Verdict(f))
		}
	}
	f[1].GapError = 0
	f[0].AUROC, f[1].AUROC = 1, .999
	for ap, want := range map[float64]string{
		.93: "the model earns its cost: AUROC 1.000 ties with that of kNN5, AP 0.980, best baseline kNN5 0.930 (+5.0 points), scores 20x faster",
		.97: "no better than a baseline here: AUROC 1.000, best baseline kNN5 0.999 (+0.1 points), scores 20x faster",
		.99: "no better than a baseline here: AUROC 1.000, best baseline kNN5 0.999 (+0.1 points), scores 20x faster",
	} {
		if f[0].AP, f[1].AP = .98, ap; eval.Verdict(f) != want {
			t.Errorf("AP %v: %q, want %q", ap, eval.Verdict(f), want)
		}
	}
	if f[0].AP, f[1].AP = .5, .6; !strings.HasPrefix(eval.Verdict(f), "kNN5 does better here: AUROC 1.000 ties with that of kNN5, AP 0.500, ") {
		t.Errorf("%q", eval.Verdict(f))
	}
	if got := eval.Verdict(f[:1]); got != "" {
		t.Errorf("without baselines: %q", got)
	}
}

// Figures that there are none of are null, not zero.
func TestBaselineFiguresJSON(t *testing.T) {
	b, err := json.Marshal([]eval.BaselineFigures{{Name: "kNN5", AUROC: .5}, {Name: "PCA95", Note: "too many columns"}})
	want := `[{"name":"kNN5","auroc":0.5,"gap_error":0,"ap":0,"precision_at_k":0,"fit_seconds":0,"score_micros":0},` +
		`{"name":"PCA95","note":"too many columns","auroc":null,"gap_error":null,"ap":null,"precision_at_k":null,"fit_seconds":null,"score_micros":null}]`
	if err != nil || string(b) != want {
		t.Errorf("%s (%v), want %s", b, err, want)
	}
}
