package vae

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
)

// Overrides change what Infer would choose.
type Overrides struct {
	Kinds      map[string]Kind      // by column name
	Transforms map[string]Transform // by column name; "" is every numeric and vector column
	Heads      map[string]Head      // by column name; "" is every numeric and vector column
	SD         float64              // of gaussian_fixed heads; 0 means 1
	Parts      []string             // of timestamps; nil means hour and weekday, of days the weekday
}

// A Profile gathers, over the training rows, what preprocessing is fitted to:
// means and spreads in one numerically stable pass (Welford 1962), levels,
// missing values. Rows are added in order; the same rows in the same order give
// the same bits. A Profile belongs to one goroutine.
type Profile struct {
	schema  *arrow.Schema
	over    Overrides
	columns []columnProfile
	Rows    int64 // rows added
}

type columnProfile struct {
	col       Column // what is known before the rows are seen
	skip      string // why the column is left out, or empty
	reader    cellReader
	missing   int64
	nonfinite int64
	stats     []welford
	usuals    []usual
	levels    map[string]int64
	tooMany   bool
	previous  float64
	rising    bool // every value above the one before: a counter
	others    bool // some value is neither 0 nor 1
}

type welford struct {
	n        int64
	mean, m2 float64
}

func (w *welford) add(v float64) {
	w.n++
	d := v - w.mean
	w.mean += d / float64(w.n)
	w.m2 += d * (v - w.mean)
}

// NewProfile starts a profile of records with this schema. Columns named in
// ignore are left out. An unknown name in ignore or over is an error that lists
// every such name.
func NewProfile(schema *arrow.Schema, ignore []string, over Overrides) (*Profile, error) {
	p := &Profile{schema: schema, over: over}
	if err := p.checkNames(ignore); err != nil {
		return nil, err
	}
	for i, f := range schema.Fields() {
		c := columnProfile{rising: true, previous: math.Inf(-1)}
		c.col = Column{Name: f.Name, Type: f.Type.String()}
		if slices.Contains(ignore, f.Name) {
			c.skip = "ignored"
		} else if kind, why := kindOf(f.Type, over.Kinds[f.Name]); why != "" {
			c.skip = why
			if _, forced := over.Kinds[f.Name]; forced {
				return nil, fmt.Errorf("column %q: %s", f.Name, why)
			}
		} else {
			c.col.Kind = kind
			c.reader = cellReader{column: i, kind: kind, parts: over.Parts}
			if kind == Timestamp {
				if c.reader.parts == nil {
					c.reader.parts = partsOf(f.Type)
				}
				c.col.Parts = c.reader.parts
			}
			if kind == Categorical {
				c.levels = map[string]int64{}
			}
			if kind == Numeric || kind == Vector {
				c.col.Transform = transformFor(over, f.Name)
			}
		}
		p.columns = append(p.columns, c)
	}
	return p, nil
}

func (p *Profile) checkNames(ignore []string) error {
	var unknown []string
	check := func(name string) {
		if name != "" && len(p.schema.FieldIndices(name)) == 0 {
			unknown = append(unknown, fmt.Sprintf("%q%s", name, didYouMean(name, p.schema)))
		}
	}
	for _, n := range ignore {
		check(n)
	}
	for n := range p.over.Kinds {
		check(n)
	}
	for n := range p.over.Transforms {
		check(n)
	}
	for n := range p.over.Heads {
		check(n)
	}
	if unknown == nil {
		return nil
	}
	slices.Sort(unknown)
	return fmt.Errorf("no such column: %s", strings.Join(slices.Compact(unknown), ", "))
}

// kindOf chooses a kind for an Arrow type, or says why there is none.
func kindOf(t arrow.DataType, forced Kind) (Kind, string) {
	natural := Kind("")
	switch t := t.(type) {
	case *arrow.BooleanType:
		natural = Boolean
	case *arrow.StringType, *arrow.LargeStringType:
		natural = Categorical
	case *arrow.DictionaryType:
		if t.ValueType.ID() == arrow.STRING || t.ValueType.ID() == arrow.LARGE_STRING {
			natural = Categorical
		}
	case *arrow.TimestampType, *arrow.Date32Type, *arrow.Date64Type:
		natural = Timestamp
	case arrow.ListLikeType:
		if numericType(t.Elem()) {
			natural = Vector
		}
	default:
		if numericType(t) {
			natural = Numeric
		}
	}
	switch {
	case natural == "":
		return "", "its type " + t.String() + " has no numbers for a model"
	case forced == "" || forced == natural:
		return natural, ""
	case forced == Categorical && (arrow.IsInteger(t.ID()) || natural == Boolean),
		forced == Numeric && natural == Boolean,
		forced == Boolean && natural == Numeric:
		return forced, ""
	}
	return "", fmt.Sprintf("its type %s cannot be %s", t, forced)
}

// partsOf returns the parts of a time that a model looks at unless it is told.
func partsOf(t arrow.DataType) []string {
	if t.ID() == arrow.DATE32 {
		return []string{"weekday"} // it has no hours
	}
	return []string{"hour", "weekday"}
}

func numericType(t arrow.DataType) bool {
	return arrow.IsInteger(t.ID()) || t.ID() == arrow.FLOAT32 || t.ID() == arrow.FLOAT64
}

// Add profiles the rows of rec, which has the profile's schema; it borrows rec.
func (p *Profile) Add(rec arrow.Record) error {
	rows := int(rec.NumRows())
	for i := range p.columns {
		c := &p.columns[i]
		if c.skip != "" {
			continue
		}
		if err := c.add(rec.Column(i), rows); err != nil {
			return fmt.Errorf("column %q: %w", c.col.Name, err)
		}
	}
	p.Rows += int64(rows)
	return nil
}

func (c *columnProfile) add(a arrow.Array, rows int) error {
	if c.col.Kind == Vector && c.col.Width == 0 {
		c.col.Width = vectorWidth(a)
		c.reader.width = c.col.Width
	}
	if c.stats == nil && c.col.Kind != Categorical && c.col.Features() > 0 {
		c.stats = make([]welford, c.col.Features())
		c.usuals = make([]usual, len(c.stats))
	}
	if c.col.Kind == Vector && c.col.Width == 0 { // nothing but nulls and empty lists so far
		c.missing += int64(rows)
		return nil
	}
	read, err := c.reader.bind(a)
	if err != nil {
		return err
	}
	for r := range rows {
		if c.col.Kind == Categorical {
			level, ok := read.level(r)
			if !ok {
				c.missing++
			} else if c.levels[level]++; len(c.levels) > mostValues {
				c.tooMany = true
				delete(c.levels, level)
			}
			continue
		}
		gone := false
		for j := range c.stats {
			v, state := read.number(r, j)
			if state != observed {
				gone = true
				if state == nonfinite {
					c.nonfinite++
				}
				continue
			}
			if c.rising = c.rising && v > c.previous; c.rising {
				c.previous = v
			}
			c.others = c.others || v != 0 && v != 1
			if c.col.Transform == Log1p {
				v = signedLog1p(v)
			}
			c.stats[j].add(v)
			c.usuals[j].add(v)
		}
		if gone { // any of it, as when a row is packed
			c.missing++
		}
	}
	return nil
}

func signedLog1p(v float64) float64 { return math.Copysign(math.Log1p(math.Abs(v)), v) }

// Columns returns the model's columns, fitted, and a warning for each column
// that was left out or is unusual. Columns are left out when they are ignored,
// hold no numbers, hold only missing values, are a counter (integers that rise with
// every row), or have so many different values that they may be ids or free text.
// Of more than MaxLevels different values the most frequent are levels and the
// others count as one, as long as the levels are half of the rows or more.
func (p *Profile) Columns() (cols []Column, warnings []string) {
	for i := range p.columns {
		c := &p.columns[i]
		if c.skip == "" {
			c.skip = c.unusable(p.schema.Field(i).Type, p.Rows, p.over.Kinds[c.col.Name] != "")
		}
		if c.skip != "" {
			if c.skip != "ignored" {
				warnings = append(warnings, fmt.Sprintf("column %q is left out: %s", c.col.Name, c.skip))
			}
			continue
		}
		if c.truths(p.over) {
			c.col.Kind, c.col.Transform = Boolean, ""
		}
		c.fit(p.over, p.Rows)
		c.col.MissingRate = float64(min(c.missing, p.Rows)+1) / float64(p.Rows+2)
		if c.nonfinite > 0 {
			warnings = append(warnings, fmt.Sprintf("column %q: %d values are NaN or infinite and count as missing", c.col.Name, c.nonfinite))
		}
		if w := c.constantWarning(); w != "" {
			warnings = append(warnings, w)
		}
		if c.col.Others {
			warnings = append(warnings, fmt.Sprintf("column %q has %d different values: the %d most frequent are its levels, the others count as one", c.col.Name, len(c.levels), len(c.col.Levels)))
		}
		if c.col.Kind == Numeric && p.schema.Field(i).Type.ID() != arrow.FLOAT32 && math.Abs(c.col.Mean[0]) > 1e15 {
			warnings = append(warnings, fmt.Sprintf("column %q: values near %g lose their last digits", c.col.Name, c.col.Mean[0]))
		}
		cols = append(cols, c.col)
	}
	return cols, warnings
}

func (c *columnProfile) unusable(t arrow.DataType, rows int64, forced bool) string {
	switch {
	case c.tooMany:
		return fmt.Sprintf("more than %d different values (an id or free text?)", mostValues)
	case !forced && c.scattered() != "":
		return c.scattered()
	case c.col.Kind == Categorical && len(c.levels) == 0:
		return "every value is missing"
	case c.col.Kind == Vector && c.col.Width == 0:
		return "every value is missing or empty"
	case c.col.Kind != Categorical && !slices.ContainsFunc(c.stats, func(w welford) bool { return w.n > 0 }):
		return "every value is missing"
	case slices.ContainsFunc(c.stats, func(w welford) bool { return !finite(w.mean) || !finite(w.m2) }):
		return "its values are too large to have a spread (try transform log1p)"
	case !forced && c.col.Kind == Numeric && arrow.IsInteger(t.ID()) && c.rising && rows >= 50:
		return "it rises with every row (a counter or an id?)"
	}
	return ""
}

const (
	// mostValues is how many different values of a categorical column are counted.
	mostValues = 10_000
	// levelRows is in how many rows a level of a column with more than MaxLevels
	// different values has to be for the column to be kept unasked.
	levelRows = 10
)

// frequent returns the levels of a categorical column, at most MaxLevels, most
// frequent first, and the number of rows of those that are in enough of them.
func (c *columnProfile) frequent() (levels []string, rows int64) {
	levels = slices.SortedFunc(maps.Keys(c.levels), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.levels[b], c.levels[a]), cmp.Compare(a, b))
	})
	levels = levels[:min(len(levels), MaxLevels)]
	for _, l := range levels {
		if n := c.levels[l]; n >= levelRows {
			rows += n
		}
	}
	return levels, rows
}

// scattered says of a categorical column whose rows are mostly of values that
// hardly repeat what is wrong with it.
func (c *columnProfile) scattered() string {
	if len(c.levels) <= MaxLevels {
		return ""
	}
	total := int64(0)
	for _, n := range c.levels {
		total += n
	}
	if _, rows := c.frequent(); 2*rows < total {
		return fmt.Sprintf("%d different values, and the %d most frequent of those in %d rows or more are only %d of %d rows (an id or free text?)",
			len(c.levels), MaxLevels, levelRows, rows, total)
	}
	return ""
}

// fit turns what was gathered into the column's preprocessing.
func (c *columnProfile) fit(over Overrides, rows int64) {
	c.col.Indicator = c.missing > 0
	c.col.Levels, c.col.Mean, c.col.Scale, c.col.Constant, c.col.Rare = nil, nil, nil, nil, nil
	switch c.col.Kind {
	case Categorical:
		c.col.Head = CategoricalHead
		c.col.Levels, _ = c.frequent()
		if c.col.Others = len(c.levels) > MaxLevels; !c.col.Others {
			c.col.Rare = []float64{1 / float64(rows+2)}
		}
		slices.Sort(c.col.Levels)
		return
	case Boolean:
		c.col.Head = headFor(over, c.col.Name, Bernoulli, false)
		c.setSD(over)
		rate, nearly := c.usuals[0].rate(c.stats[0].n)
		if nearly {
			c.col.Usual = c.usuals[0].value != 0
		}
		if !c.others && c.col.Type != "bool" { // another number would be news
			c.col.Rare = []float64{rate, 1 / float64(c.stats[0].n+2)}
		} else if nearly {
			c.col.Rare = []float64{rate}
		}
		return
	}
	c.col.Head = headFor(over, c.col.Name, Gaussian, c.col.Kind != Timestamp)
	c.setSD(over)
	for j, w := range c.stats {
		c.fitFeature(w, &c.usuals[j])
	}
	if !slices.ContainsFunc(c.col.Rare, func(r float64) bool { return r > 0 }) {
		c.col.Rare = nil
	}
}

// truths says whether a numeric column is one of zeros and ones, which a Bernoulli
// describes better than a Gaussian; what the user asked for comes first.
func (c *columnProfile) truths(over Overrides) bool {
	asked := over.Kinds[c.col.Name] != ""
	for _, name := range []string{c.col.Name, ""} {
		_, head := over.Heads[name]
		_, transform := over.Transforms[name]
		asked = asked || head || transform
	}
	if asked || c.col.Kind != Numeric || c.others || c.stats[0].n == 0 {
		return false
	}
	mean := c.stats[0].mean
	return mean > 0 && mean < 1
}

// fitFeature appends what one feature is fitted to.
func (c *columnProfile) fitFeature(w welford, u *usual) {
	mean, sd, rare := w.mean, 0.0, 0.0
	if w.n > 0 {
		sd = math.Sqrt(w.m2 / float64(w.n))
	}
	constant := !(sd > 1e-9*math.Abs(mean))
	if constant {
		sd, rare = 1, 1/float64(w.n+2)
	} else if rate, nearly := u.rate(w.n); nearly && c.col.Kind != Timestamp && c.col.Transform != Raw {
		constant, mean, sd, rare = true, u.value, 1, rate
	}
	if c.col.Transform == Raw {
		mean, sd, rare = 0, 1, 0
	}
	c.col.Mean = append(c.col.Mean, mean)
	c.col.Scale = append(c.col.Scale, sd)
	c.col.Constant = append(c.col.Constant, constant)
	if c.col.Kind != Timestamp {
		c.col.Rare = append(c.col.Rare, rare)
	}
}

// constantWarning says that a numeric column hardly ever moved.
func (c *columnProfile) constantWarning() string {
	if c.col.Kind != Numeric || !c.col.Constant[0] {
		return ""
	}
	if others := c.stats[0].n - c.usuals[0].seen; others > 0 && c.stats[0].m2 > 0 {
		return fmt.Sprintf("column %q is %g in all but %d of the training rows: another value counts by how rare it was, not by how far it lies", c.col.Name, c.col.unscale(0, 0), others)
	}
	return fmt.Sprintf("column %q is constant (%g) in the training rows", c.col.Name, c.col.unscale(0, 0))
}

func (c *columnProfile) setSD(over Overrides) {
	if c.col.Head == GaussianFixed {
		if c.col.SD = over.SD; c.col.SD == 0 {
			c.col.SD = 1
		}
	}
}

func headFor(over Overrides, name string, natural Head, general bool) Head {
	if h, ok := over.Heads[name]; ok {
		return h
	}
	if h, ok := over.Heads[""]; ok && general {
		return h
	}
	return natural
}

func transformFor(over Overrides, name string) Transform {
	if t, ok := over.Transforms[name]; ok {
		return t
	}
	if t, ok := over.Transforms[""]; ok {
		return t
	}
	return Standardise
}

// DefaultNetwork fills the network of s from its columns: encoder d-128-64-2z,
// decoder z-64-128-d, relu, z a half of the features between 2 and 16, standard
// deviations no smaller than 0.3.
func (s *Spec) DefaultNetwork() {
	features, _ := s.Inputs()
	relu := func(widths ...int) (layers []Layer) {
		for _, w := range widths {
			layers = append(layers, Layer{Width: w, Activation: "relu"})
		}
		return layers
	}
	if s.Encoder == nil {
		s.Encoder = relu(128, 64)
	}
	if s.Decoder == nil {
		s.Decoder = relu(64, 128)
	}
	if s.Latent == 0 {
		s.Latent = min(features, 16, max(2, (features+1)/2))
	}
	if s.Output == "" {
		s.Output = "identity"
	}
	if s.SDFloor == 0 {
		s.SDFloor = 0.3
	}
	if s.MaxMissing == 0 {
		s.MaxMissing = 0.5
	}
}
