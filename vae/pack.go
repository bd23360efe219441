package vae

import (
	"errors"
	"fmt"
	"slices"

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
	spec     *Spec
	readers  []cellReader
	levels   []map[string]int
	features int
	inputs   int
}

// NewPacker finds the model's columns in schema by name and checks their types.
// The error lists every fault.
func (s *Spec) NewPacker(schema *arrow.Schema) (*Packer, error) {
	p := &Packer{spec: s}
	p.features, p.inputs = s.Inputs()
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
		p.readers = append(p.readers, cellReader{column: at[0], kind: c.Kind, width: c.Width, parts: c.Parts})
		levels := map[string]int{}
		for j, l := range c.Levels {
			levels[l] = j
		}
		p.levels = append(p.levels, levels)
	}
	if len(errs) > 0 {
		return nil, &SchemaError{Faults: errs}
	}
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
	at := make([]int, len(p.readers))
	for i := range p.readers {
		at[i] = p.readers[i].column
	}
	return at
}

// Packed is a Packer bound to the columns of one record, which it borrows.
type Packed struct {
	p     *Packer
	cells []*cells
}

// Bind prepares rec, which has the packer's schema.
func (p *Packer) Bind(rec arrow.Record) (*Packed, error) {
	b := &Packed{p: p, cells: make([]*cells, len(p.readers))}
	for i := range p.readers {
		c, err := p.readers[i].bind(rec.Column(p.readers[i].column))
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", p.spec.Columns[i].Name, err)
		}
		b.cells[i] = c
	}
	return b, nil
}

// Tile packs rows [from, from+n), n at most TileRows, into x [inputs][TileRows]
// and mask [features][TileRows] (1 observed, 0 missing), feature-major; lanes
// from n on are zero. flags[0:n] is set.
func (b *Packed) Tile(from, n int, x, mask []float32, flags []RowFlags) {
	clear(x)
	clear(mask)
	clear(flags[:n])
	var missing [TileRows]int
	at, indicator := 0, b.p.features
	for i, c := range b.cells {
		col := &b.p.spec.Columns[i]
		width := col.Features()
		gone := b.column(i, c, from, n, x[at*TileRows:(at+width)*TileRows], mask[at*TileRows:(at+width)*TileRows], flags)
		at += width
		for r := range n {
			if gone[r] {
				missing[r]++
				if col.Indicator {
					x[indicator*TileRows+r] = 1
				}
			}
		}
		if col.Indicator {
			indicator++
		}
	}
	limit := b.p.spec.MaxMissing * float64(len(b.cells))
	for r := range n {
		if float64(missing[r]) > limit {
			flags[r] |= TooMissing
		}
	}
}

// column packs one column and says which rows miss any of it.
func (b *Packed) column(i int, c *cells, from, n int, x, mask []float32, flags []RowFlags) (gone [TileRows]bool) {
	col := &b.p.spec.Columns[i]
	width := col.Features()
	if col.Kind == Categorical {
		for r := range n {
			level, ok := c.level(from + r)
			if !ok {
				gone[r] = true
				continue
			}
			j, known := b.p.levels[i][level]
			if !known {
				j = width - 1
				flags[r] |= Unseen
			}
			x[j*TileRows+r] = 1
			for k := range width {
				mask[k*TileRows+r] = 1
			}
		}
		return gone
	}
	for j := range width {
		mean, scale := 0.0, 1.0
		if col.Mean != nil {
			mean, scale = col.Mean[j], col.Scale[j]
		}
		xs, ms := x[j*TileRows:j*TileRows+n], mask[j*TileRows:j*TileRows+n]
		for r := range xs {
			v, st := c.number(from+r, j)
			if st != observed {
				gone[r] = true
				switch st {
				case nonfinite:
					flags[r] |= NonFinite
				case misfit:
					flags[r] |= Misfit
				}
				continue
			}
			if col.Kind == Boolean && v != 0 {
				v = 1
			}
			if col.Head == Bernoulli && (v < 0 || v > 1) { // not a probability: no likelihood
				gone[r] = true
				flags[r] |= Misfit
				continue
			}
			if col.Transform == Log1p {
				v = signedLog1p(v)
			}
			v = (v - mean) / scale
			xs[r] = float32(min(max(v, -MaxAbs), MaxAbs))
			ms[r] = 1
		}
	}
	return gone
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
