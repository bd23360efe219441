package vae

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/hint"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// TileRows is how many rows are packed, scored and trained on together.
const TileRows = kernel.Rows

// RowFlags says what was unusual about a row's model columns.
type RowFlags uint8

// The flags. NonFinite: a NaN or an infinity, taken as missing. Unseen: a level
// that training never saw. TooMissing: more columns missing than the model
// allows. Misfit: a vector whose length is not the model's, taken as missing.
const (
	NonFinite RowFlags = 1 << iota
	Unseen
	TooMissing
	Misfit
)

// A Packer turns records into the tiles that a model reads. It is bound to one
// schema, holds no record and is safe for concurrent use.
type Packer struct {
	spec       *Spec
	steps      []step // one per model column
	level      kernel.Level
	blocks     []block
	norms      norms
	shift      []float32 // of each feature; nil means none
	features   int
	inputs     int
	watches    []watch
	gapWatches int  // the first so many watches are for gaps
	sparse     bool // some inputs are often zero in a whole tile
}

// NewPacker finds the model's columns in schema by name and checks their types.
// The error lists every fault.
func (s *Spec) NewPacker(schema *arrow.Schema) (*Packer, error) { return s.newPacker(schema, nil) }

// newPacker makes a packer that adds shift to the features.
func (s *Spec) newPacker(schema *arrow.Schema, shift []float32) (*Packer, error) {
	p := &Packer{spec: s, norms: s.norms(), shift: shift, sparse: shift != nil}
	p.norms.add(shift)
	p.features, p.inputs = s.Inputs()
	p.watches, p.gapWatches = s.watches()
	p.level, _ = kernel.Active() // an error is the model's to report; all levels pack the same bits
	feature, indicator := 0, p.features
	var errs []error
	for i := range s.Columns {
		c := &s.Columns[i]
		at := schema.FieldIndices(c.Name)
		switch len(at) {
		case 0:
			errs = append(errs, fmt.Errorf("column %q is missing%s", c.Name, hint.DidYouMean(c.Name, s.strangers(schema))))
			continue
		case 1:
		default:
			errs = append(errs, fmt.Errorf("column %q stands %d times in the input", c.Name, len(at)))
			continue
		}
		if _, why := kindOf(schema.Field(at[0]).Type, c.Kind); why != "" {
			errs = append(errs, fmt.Errorf("column %q: %s as in training (%s)", c.Name, why, c.Type))
			continue
		}
		st := c.step(schema.Field(at[0]).Type)
		st.index = i
		st.column, st.feature, st.indicator = at[0], feature, -1
		if c.Indicator {
			st.indicator = indicator
			indicator++
		}
		st.exact = p.norms.exact(feature, st.features)
		st.narrow = st.narrow && p.norms.narrow(feature, st.features)
		st.whole = st.how == vector && st.narrow && (!st.unit || p.norms.plain(feature, st.features))
		feature += st.features
		p.sparse = p.sparse || c.Indicator || c.Kind == Categorical || c.Kind == Boolean
		p.steps = append(p.steps, st)
	}
	if len(errs) > 0 {
		return nil, &SchemaError{Faults: errs}
	}
	p.blocks = p.blocksOf()
	return p, nil
}

// strangers lists the schema's columns that are not the model's: one of them may
// be a model column under another name.
func (s *Spec) strangers(schema *arrow.Schema) (names []string) {
	for _, f := range schema.Fields() {
		if !slices.ContainsFunc(s.Columns, func(c Column) bool { return c.Name == f.Name }) {
			names = append(names, f.Name)
		}
	}
	return names
}

// A SchemaError lists every way in which an input does not have a model's
// columns.
type SchemaError struct{ Faults []error }

// Error joins the faults, one a line when there are several.
func (e *SchemaError) Error() string { return errors.Join(e.Faults...).Error() }

// didYouMean suggests the nearest column name.
func didYouMean(name string, schema *arrow.Schema) string {
	names := make([]string, schema.NumFields())
	for i, f := range schema.Fields() {
		names[i] = f.Name
	}
	return hint.DidYouMean(name, names)
}

// Columns returns the positions in the schema of the model's columns, in model
// order.
func (p *Packer) Columns() []int {
	at := make([]int, len(p.steps))
	for i := range p.steps {
		at[i] = p.steps[i].column
	}
	return at
}

// Packed is a Packer bound to the columns of one record, which it borrows. It
// belongs to one goroutine and can be bound again, to spare its memory.
type Packed struct {
	// Active lists in ascending order the inputs that may differ from zero in the
	// tile that Pack made last; nil means that all may, or that most do. It lasts
	// until the next Pack.
	Active []uint32

	p      *Packer
	rows   int
	cells  []shown // for explanations
	bound  []bound
	base   []unsafe.Pointer // of each column: its first row's number, where flat
	nulls  []int32          // columns of runs with nulls, ascending
	codes  []uint8          // levels of dictionaries, where bound says
	active []uint32         // room for Active
	found  []finding        // what is new in the last tile
	work   work
}

// Bind prepares rec, which has the packer's schema.
func (p *Packer) Bind(rec arrow.Record) (*Packed, error) {
	b := new(Packed)
	return b, p.BindTo(b, rec)
}

// BindTo prepares rec, which has the packer's schema, in b, which may have been
// bound before, to any packer and record. It borrows rec until the next BindTo.
// After an error b must be bound again before it is used.
func (p *Packer) BindTo(b *Packed, rec arrow.Record) error {
	if b.p != p {
		n := len(p.steps)
		*b = Packed{p: p, cells: make([]shown, n), bound: make([]bound, n), base: make([]unsafe.Pointer, n)}
		for i := range p.steps {
			b.cells[i].r = &p.steps[i].cellReader
		}
		if p.sparse {
			b.active = make([]uint32, 0, p.inputs)
		}
	}
	b.nulls, b.codes = b.nulls[:0], b.codes[:0]
	b.rows = int(rec.NumRows())
	for i := range p.steps {
		if err := b.bind(i, rec.Column(p.steps[i].column)); err != nil {
			return fmt.Errorf("column %q: %w", p.spec.Columns[i].Name, err)
		}
	}
	return nil
}

// featureColumn returns, for every feature, its column and its place in it.
func (s *Spec) featureColumn() (column, place []int) {
	for i := range s.Columns {
		n := s.Columns[i].Features()
		for j := range n {
			column, place = append(column, i), append(place, j)
		}
	}
	return slices.Clip(column), slices.Clip(place)
}
