package eval

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// Kinds of planted anomaly.
const (
	Spike   = "spike"   // one value moves by Strength standard deviations
	Swap    = "swap"    // two columns exchange their values
	Scale   = "scale"   // one value is multiplied by Strength, as a wrong unit would
	Missing = "missing" // half of the values vanish
	Broken  = "broken"  // half of the values come from another row: each is usual, together they are not
)

// InjectKinds returns all kinds, in the order in which they are documented.
func InjectKinds() []string { return []string{Spike, Swap, Scale, Missing, Broken} }

// Injection says which anomalies to plant.
type Injection struct {
	Kinds    []string // nil means all; each planted row has one, evenly by chance
	Rate     float64  // chance of a row to be changed; 0 means 0.05
	Strength float64  // for Spike and Scale; 0 means 8
	Columns  []string // float columns to change; nil means all float columns
	Skip     []string // float columns to leave alone, such as a score or a label
	Seed     uint64
	First    int64            // number of the record's first row: a row's fate depends on Seed and its number
	Alloc    memory.Allocator // nil means the Go allocator
}

// Injected is a record with planted anomalies. Its owner calls Release.
type Injected struct {
	Record arrow.Record
	Labels []bool   // true where a row was changed
	Kinds  []string // kind of change, "" for rows left alone
}

// Release gives up the record.
func (in *Injected) Release() { in.Record.Release() }

// Inject returns rec with some rows changed. It borrows rec; columns that it does
// not change are shared. The same seed gives the same rows their fate however
// the data is cut into records, but spikes (by the record's standard deviation)
// and the donors of Broken come from the record at hand. A change that would
// leave a row as it was (equal values swapped, zero scaled, a value that is
// missing already) falls back to a spike, and a row without any value is left
// alone and not labelled.
func Inject(rec arrow.Record, inj Injection) (*Injected, error) {
	inj, err := inj.filled()
	if err != nil {
		return nil, fmt.Errorf("inject: %w", err)
	}
	cols, err := inj.columns(rec)
	if err != nil {
		return nil, fmt.Errorf("inject: %w", err)
	}
	n := int(rec.NumRows())
	out := &Injected{Labels: make([]bool, n), Kinds: make([]string, n)}
	t := newTable(rec, cols)
	for i := range n {
		rng := rand.New(rand.NewPCG(inj.Seed, mix(uint64(inj.First+int64(i)))))
		if rng.Float64() >= inj.Rate {
			continue
		}
		kind := inj.Kinds[rng.IntN(len(inj.Kinds))]
		if done := t.change(i, kind, inj.Strength, rng); done != "" {
			out.Labels[i], out.Kinds[i] = true, done
		}
	}
	out.Record = t.record(rec, slices.Contains(inj.Kinds, Missing), inj.Alloc)
	return out, nil
}

func (inj Injection) filled() (Injection, error) {
	if inj.Rate == 0 {
		inj.Rate = .05
	}
	if inj.Strength == 0 {
		inj.Strength = 8
	}
	if inj.Kinds == nil {
		inj.Kinds = InjectKinds()
	}
	if inj.Alloc == nil {
		inj.Alloc = memory.DefaultAllocator
	}
	var errs []error
	if !(inj.Rate > 0 && inj.Rate <= 1) {
		errs = append(errs, fmt.Errorf("rate: %g is not within 0 and 1", inj.Rate))
	}
	if bad(inj.Strength) || inj.Strength < 0 {
		errs = append(errs, fmt.Errorf("strength: %g is not a positive number", inj.Strength))
	}
	for _, k := range inj.Kinds {
		if !slices.Contains(InjectKinds(), k) {
			errs = append(errs, fmt.Errorf("kind %q is unknown; there are %s", k, strings.Join(InjectKinds(), ", ")))
		}
	}
	if len(inj.Kinds) == 0 {
		errs = append(errs, errors.New("kinds: name at least one"))
	}
	return inj, errors.Join(errs...)
}

// columns returns the numbers of the columns to change.
func (inj Injection) columns(rec arrow.Record) ([]int, error) {
	var cols []int
	found := map[string]bool{}
	for i, f := range rec.Schema().Fields() {
		float := f.Type.ID() == arrow.FLOAT32 || f.Type.ID() == arrow.FLOAT64
		if inj.Columns != nil && slices.Contains(inj.Columns, f.Name) {
			found[f.Name] = true
			if !float {
				return nil, fmt.Errorf("column %q is %s, want float32 or float64", f.Name, f.Type)
			}
		} else if inj.Columns != nil || !float {
			continue
		}
		if !slices.Contains(inj.Skip, f.Name) {
			cols = append(cols, i)
		}
	}
	for _, name := range inj.Columns {
		if !found[name] {
			return nil, fmt.Errorf("column %q is not in the data", name)
		}
	}
	if len(cols) == 0 {
		return nil, errors.New("there is no float column to change")
	}
	return cols, nil
}

// mix spreads neighbouring row numbers over 64 bits (splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// table holds the columns to change; NaN stands for null and NaN alike.
type table struct {
	cols     []int
	from, to [][]float64 // as read, and as changed
	dirty    []map[int]bool
	sd       []float64
}

func newTable(rec arrow.Record, cols []int) *table {
	t := &table{cols: cols}
	for _, c := range cols {
		a := rec.Column(c)
		value, _ := floats(a) // columns() let floats pass only
		from := make([]float64, a.Len())
		for i := range from {
			from[i] = math.NaN()
			if !a.IsNull(i) {
				from[i] = value(i)
			}
		}
		t.from = append(t.from, from)
		t.to = append(t.to, slices.Clone(from))
		t.dirty = append(t.dirty, map[int]bool{})
		t.sd = append(t.sd, deviation(from))
	}
	return t
}

// deviation is the standard deviation of the finite values, or a size to use in
// its place where it is zero.
func deviation(values []float64) float64 {
	var n, mean, m2 float64
	for _, v := range values {
		if !bad(v) {
			n++
			d := v - mean
			mean += d / n
			m2 += d * (v - mean)
		}
	}
	if sd := math.Sqrt(m2 / max(n, 1)); sd > 0 && !bad(sd) {
		return sd
	}
	return max(math.Abs(mean)*.1, 1)
}

// present returns the changeable columns in which a row has a finite value, in
// random order.
func (t *table) present(row int, rng *rand.Rand) []int {
	var out []int
	for _, c := range rng.Perm(len(t.cols)) {
		if !bad(t.from[c][row]) {
			out = append(out, c)
		}
	}
	return out
}

func (t *table) set(c, row int, v float64) {
	t.to[c][row] = v
	t.dirty[c][row] = true
}

// change plants one anomaly and returns the kind that it became, "" for none.
func (t *table) change(row int, kind string, strength float64, rng *rand.Rand) string {
	cols := t.present(row, rng)
	if len(cols) == 0 {
		return ""
	}
	half := cols[:(len(cols)+1)/2]
	c := cols[0]
	switch kind {
	case Swap:
		for _, d := range cols[1:] {
			if t.from[c][row] != t.from[d][row] {
				a, b := t.from[c][row], t.from[d][row]
				t.set(c, row, b)
				t.set(d, row, a)
				return kind
			}
		}
	case Scale:
		for _, c := range cols {
			if v := t.from[c][row]; v != 0 && strength != 1 && !bad(v*strength) {
				t.set(c, row, v*strength)
				return kind
			}
		}
	case Missing:
		for _, c := range half {
			t.set(c, row, math.NaN())
		}
		return kind
	case Broken:
		if t.borrow(row, half, rng) {
			return kind
		}
	}
	sign := float64(1 - 2*rng.IntN(2))
	t.set(c, row, t.from[c][row]+sign*strength*t.sd[c])
	return Spike
}

// borrow gives columns of a row the values of another row.
func (t *table) borrow(row int, cols []int, rng *rand.Rand) bool {
	changed := false
	for range 10 { // a donor may lack the values, or have the same ones
		donor := rng.IntN(len(t.from[0]))
		for _, c := range cols {
			if v := t.from[c][donor]; !bad(v) && v != t.from[c][row] {
				t.set(c, row, v)
				changed = true
			}
		}
		if changed {
			break
		}
	}
	return changed
}

// record builds the changed record; cells that nobody touched keep their bits.
// Its schema depends on the kinds asked for, not on what chance planted.
func (t *table) record(rec arrow.Record, nullable bool, mem memory.Allocator) arrow.Record {
	cols := slices.Clone(rec.Columns())
	fields := slices.Clone(rec.Schema().Fields())
	for k, c := range t.cols {
		fields[c].Nullable = fields[c].Nullable || nullable
		if len(t.dirty[k]) == 0 {
			continue
		}
		cols[c] = t.column(rec.Column(c), k, mem)
		defer cols[c].Release()
	}
	meta := rec.Schema().Metadata()
	return array.NewRecord(arrow.NewSchema(fields, &meta), cols, rec.NumRows())
}

func (t *table) column(a arrow.Array, k int, mem memory.Allocator) arrow.Array {
	b := array.NewBuilder(mem, a.DataType())
	defer b.Release()
	b.Reserve(a.Len())
	for i := range a.Len() {
		v := t.to[k][i]
		switch touched := t.dirty[k][i]; {
		case a.IsNull(i) || touched && math.IsNaN(v):
			b.AppendNull()
		default:
			switch a := a.(type) {
			case *array.Float32:
				x := a.Value(i)
				if touched {
					x = float32(v)
				}
				b.(*array.Float32Builder).Append(x)
			case *array.Float64:
				x := a.Value(i)
				if touched {
					x = v
				}
				b.(*array.Float64Builder).Append(x)
			}
		}
	}
	return b.NewArray()
}
