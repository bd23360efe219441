package eval

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae"
)

// Kinds of planted anomaly.
const (
	Spike   = "spike"              // one number moves by Strength standard deviations
	Swap    = "swap"               // two numbers exchange their places
	Scale   = "scale"              // one number is multiplied by Strength, as a wrong unit would
	Broken  = "broken_correlation" // half of the columns come from another row: each is usual, together they are not
	Unseen  = "unseen_category"    // a level that its column never had
	Missing = "missing"            // half of the values vanish
)

// InjectKinds returns all kinds, in the order in which they are documented.
func InjectKinds() []string { return []string{Spike, Swap, Scale, Broken, Unseen, Missing} }

// An Injection says which anomaly to plant.
type Injection struct {
	Kind     string
	Strength float64 // of Spike (standard deviations) and Scale (factor); 0 means 8
	// Columns are the columns to tamper with, which the record must have: a model's.
	Columns []vae.Column
	Seed    uint64
	Alloc   memory.Allocator // nil means the Go allocator
}

// Injected is a record with planted anomalies. Its owner calls Release.
type Injected struct {
	Record arrow.Record
	// Changed names, for each row, the columns that were tampered with; none for a
	// row that could not be.
	Changed [][]string
}

// Release gives up the record.
func (in *Injected) Release() { in.Record.Release() }

// ErrNoSuitableColumn is returned for a kind that needs columns which there are
// not, such as a category to be unseen.
var ErrNoSuitableColumn = errors.New("no suitable column")

// Inject returns a copy of rec in which one anomaly is planted in every row where
// that is possible. It borrows rec; columns that are not the model's are shared.
// Standard deviations and other rows' values are the record's own. The same seed
// gives the same rows the same fate. Dictionaries become strings.
func Inject(rec arrow.Record, inj Injection) (*Injected, error) {
	if inj.Strength == 0 {
		inj.Strength = 8
	}
	if !slices.Contains(InjectKinds(), inj.Kind) {
		return nil, fmt.Errorf("inject: kind %q is unknown; there are %s", inj.Kind, strings.Join(InjectKinds(), ", "))
	}
	if bad(inj.Strength) || inj.Strength < 0 {
		return nil, fmt.Errorf("inject: strength %g is not a positive number", inj.Strength)
	}
	t, err := newCells(rec, inj.Columns)
	if err != nil {
		return nil, fmt.Errorf("inject: %w", err)
	}
	if !t.suits(inj.Kind) {
		return nil, fmt.Errorf("inject %s: %w", inj.Kind, ErrNoSuitableColumn)
	}
	out := &Injected{Changed: make([][]string, rec.NumRows())}
	for i := range out.Changed {
		rng := rand.New(rand.NewPCG(inj.Seed, uint64(i)))
		for _, c := range t.plant(i, inj, rng) {
			out.Changed[i] = append(out.Changed[i], t.columns[c].name)
		}
	}
	out.Record, err = t.record(rec, inj.Alloc)
	return out, err
}

// cells holds the columns to tamper with as text, which every Arrow type reads and
// writes.
type cells struct {
	columns []cellColumn
}

type cellColumn struct {
	at      int // in the record
	name    string
	kind    vae.Kind
	typ     arrow.DataType
	integer bool
	from    []string
	null    []bool
	changed map[int]change
	sd      float64 // of numbers
}

type change struct {
	text string
	null bool
}

func newCells(rec arrow.Record, columns []vae.Column) (*cells, error) {
	t := &cells{}
	var missing []string
	for i := range columns {
		at := rec.Schema().FieldIndices(columns[i].Name)
		if len(at) != 1 {
			missing = append(missing, columns[i].Name)
			continue
		}
		t.columns = append(t.columns, newCellColumn(rec.Column(at[0]), at[0], &columns[i]))
	}
	if missing != nil {
		return nil, fmt.Errorf("the record lacks the columns %s", strings.Join(missing, ", "))
	}
	return t, nil
}

func newCellColumn(a arrow.Array, at int, col *vae.Column) cellColumn {
	c := cellColumn{at: at, name: col.Name, kind: col.Kind, typ: a.DataType(), changed: map[int]change{}}
	if d, ok := c.typ.(*arrow.DictionaryType); ok {
		c.typ = d.ValueType
	}
	c.integer = arrow.IsInteger(c.typ.ID())
	var w struct{ n, mean, m2 float64 }
	for i := range a.Len() {
		null := a.IsNull(i)
		c.null = append(c.null, null)
		if null {
			c.from = append(c.from, "")
			continue
		}
		c.from = append(c.from, cellText(a, i))
		if v, ok := c.number(i); ok {
			w.n++
			d := v - w.mean
			w.mean += d / w.n
			w.m2 += d * (v - w.mean)
		}
	}
	if c.sd = math.Sqrt(w.m2 / max(w.n, 1)); !(c.sd > 0) || bad(c.sd) {
		c.sd = max(math.Abs(w.mean)*.1, 1)
	}
	return c
}

// cellText is what AppendValueFromString reads back.
func cellText(a arrow.Array, i int) string {
	switch a := a.(type) {
	case *array.Float32:
		return strconv.FormatFloat(float64(a.Value(i)), 'g', -1, 64)
	case *array.Float64:
		return strconv.FormatFloat(a.Value(i), 'g', -1, 64)
	case *array.Dictionary:
		return a.Dictionary().ValueStr(a.GetValueIndex(i))
	}
	return a.ValueStr(i)
}

// number returns a cell of a numeric column, false when it is none or not finite.
func (c *cellColumn) number(i int) (float64, bool) {
	if c.kind != vae.Numeric || c.null[i] || c.typ.ID() == arrow.BOOL {
		return 0, false
	}
	v, err := strconv.ParseFloat(c.from[i], 64)
	return v, err == nil && !bad(v)
}

// list returns a cell of a vector column.
func (c *cellColumn) list(i int) ([]float64, bool) {
	var v []float64
	if c.kind != vae.Vector || c.null[i] || json.Unmarshal([]byte(c.from[i]), &v) != nil {
		return nil, false
	}
	return v, len(v) > 0
}

// set changes a cell to a number and says whether that changed it.
func (c *cellColumn) set(i int, v float64) bool {
	if c.integer {
		v = math.Round(v)
		if strings.HasPrefix(c.typ.Name(), "u") {
			v = max(v, 0)
		}
		if width := c.typ.(arrow.FixedWidthDataType).BitWidth(); math.Abs(v) >= math.Exp2(float64(width-1)) {
			return false
		}
	}
	text := strconv.FormatFloat(v, 'f', -1, 64)
	if !c.integer {
		text = strconv.FormatFloat(v, 'g', -1, 64)
	}
	return c.put(i, change{text: text})
}

func (c *cellColumn) put(i int, to change) bool {
	if to.null == c.null[i] && (to.null || to.text == c.from[i]) {
		return false
	}
	c.changed[i] = to
	return true
}

func (t *cells) suits(kind string) bool {
	n := 0
	for i := range t.columns {
		switch c := &t.columns[i]; kind {
		case Spike, Scale:
			n += b2i(c.kind == vae.Numeric || c.kind == vae.Vector)
		case Swap:
			n += b2i(c.kind == vae.Numeric)
		case Unseen:
			n += b2i(c.unseen() != "")
		default:
			n++
		}
	}
	return n > b2i(kind == Swap || kind == Broken)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// unseen is a level that a categorical column does not have, empty where it
// cannot have another.
func (c *cellColumn) unseen() string {
	switch {
	case c.kind != vae.Categorical || c.typ.ID() == arrow.BOOL:
		return ""
	case c.integer:
		most := int64(0)
		for i, text := range c.from {
			if v, err := strconv.ParseInt(text, 10, 64); err == nil && !c.null[i] {
				most = max(most, v)
			}
		}
		if width := c.typ.(arrow.FixedWidthDataType).BitWidth(); most >= 1<<(width-2) {
			return ""
		}
		return strconv.FormatInt(most+1, 10)
	}
	return "a level never seen"
}

// plant tampers with one row and returns the columns that changed.
func (t *cells) plant(row int, inj Injection, rng *rand.Rand) []int {
	order := rng.Perm(len(t.columns))
	switch inj.Kind {
	case Spike:
		sign := float64(1 - 2*rng.IntN(2))
		return t.first(order, func(c *cellColumn) bool {
			return c.alter(row, rng, func(v, sd float64) float64 { return v + sign*inj.Strength*sd })
		})
	case Scale:
		return t.first(order, func(c *cellColumn) bool {
			return c.alter(row, rng, func(v, _ float64) float64 { return v * inj.Strength })
		})
	case Swap:
		return t.swap(row, order)
	case Unseen:
		return t.first(order, func(c *cellColumn) bool {
			level := c.unseen()
			return level != "" && !c.null[row] && c.put(row, change{text: level})
		})
	case Missing:
		var out []int
		for _, k := range order {
			if c := &t.columns[k]; len(out) < (len(order)+1)/2 && c.put(row, change{null: true}) {
				out = append(out, k)
			}
		}
		return out
	}
	return t.broken(row, order[:(len(order)+1)/2], rng)
}

// first applies f to columns until one changes.
func (t *cells) first(order []int, f func(*cellColumn) bool) []int {
	for _, k := range order {
		if f(&t.columns[k]) {
			return []int{k}
		}
	}
	return nil
}

// alter changes a number, or one element of a list.
func (c *cellColumn) alter(row int, rng *rand.Rand, to func(v, sd float64) float64) bool {
	if v, ok := c.number(row); ok {
		w := to(v, c.sd)
		return !bad(w) && w != v && c.set(row, w)
	}
	list, ok := c.list(row)
	if !ok {
		return false
	}
	j := rng.IntN(len(list))
	sd := 0.0
	for i := range c.from { // of this element in the other rows
		if other, ok := c.list(i); ok && len(other) == len(list) {
			sd = max(sd, math.Abs(other[j]-list[j])/2)
		}
	}
	w := to(list[j], max(sd, 1e-3))
	if bad(w) || w == list[j] {
		return false
	}
	list[j] = w
	text, err := json.Marshal(list)
	return err == nil && c.put(row, change{text: string(text)})
}

func (t *cells) swap(row int, order []int) []int {
	for i, a := range order {
		x, ok := t.columns[a].number(row)
		if !ok {
			continue
		}
		for _, b := range order[i+1:] {
			y, ok := t.columns[b].number(row)
			if !ok || x == y {
				continue
			}
			if t.columns[a].set(row, y) && t.columns[b].set(row, x) {
				return []int{a, b}
			}
			delete(t.columns[a].changed, row)
			delete(t.columns[b].changed, row)
		}
	}
	return nil
}

// broken gives columns of a row the values of another one.
func (t *cells) broken(row int, columns []int, rng *rand.Rand) (out []int) {
	for range 10 { // a donor may have the same values
		donor := rng.IntN(len(t.columns[0].from))
		for _, k := range columns {
			c := &t.columns[k]
			if !c.null[donor] && !c.null[row] && c.put(row, change{text: c.from[donor]}) {
				out = append(out, k)
			}
		}
		if out != nil {
			return out
		}
	}
	return nil
}

// record builds the changed record.
func (t *cells) record(rec arrow.Record, mem memory.Allocator) (arrow.Record, error) {
	if mem == nil {
		mem = memory.DefaultAllocator
	}
	columns, fields := slices.Clone(rec.Columns()), slices.Clone(rec.Schema().Fields())
	for k := range t.columns {
		c := &t.columns[k]
		a, err := c.build(mem)
		if err != nil {
			return nil, fmt.Errorf("inject: column %q: %w", c.name, err)
		}
		defer a.Release()
		columns[c.at] = a
		fields[c.at].Type, fields[c.at].Nullable = c.typ, true
	}
	meta := rec.Schema().Metadata()
	return array.NewRecord(arrow.NewSchema(fields, &meta), columns, rec.NumRows()), nil
}

func (c *cellColumn) build(mem memory.Allocator) (arrow.Array, error) {
	b := array.NewBuilder(mem, c.typ)
	defer b.Release()
	for i, text := range c.from {
		null := c.null[i]
		if to, ok := c.changed[i]; ok {
			text, null = to.text, to.null
		}
		if null {
			b.AppendNull()
		} else if err := b.AppendValueFromString(text); err != nil {
			return nil, fmt.Errorf("value %q: %w", text, err)
		}
	}
	return b.NewArray(), nil
}
