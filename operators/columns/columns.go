// Package columns is the operator "select": keep, drop, rename and cast columns.
//
//	op, err := columns.New(columns.Config{Drop: []string{"label"}})
//
// The steps are applied in the order keep, drop, cast, rename; names are always
// those of the input.
package columns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
)

// Config names columns of the input.
type Config struct {
	Keep   []string          // in this order; empty keeps all
	Drop   []string          // must not be in Keep
	Rename map[string]string // from input name to output name
	// Cast gives columns another type: float32, float64, int32, int64, bool or
	// string. To float32 the nearest value is taken, and text becomes the nearest
	// number; any other value that the type cannot hold is an error that names
	// the row.
	Cast      map[string]string
	Allocator memory.Allocator // nil means the default one
}

// Operator selects columns. It is safe for concurrent use after Bind.
type Operator struct {
	c    Config
	at   []int
	cast []arrow.DataType // nil for a column that stays as it is
	out  *arrow.Schema
}

var _ pipeline.Operator = (*Operator)(nil)

var types = map[string]arrow.DataType{
	"float32": arrow.PrimitiveTypes.Float32, "float64": arrow.PrimitiveTypes.Float64,
	"int32": arrow.PrimitiveTypes.Int32, "int64": arrow.PrimitiveTypes.Int64,
	"bool": arrow.FixedWidthTypes.Boolean, "string": arrow.BinaryTypes.String,
}

// TypeNames lists what Cast takes, sorted.
func TypeNames() []string {
	names := make([]string, 0, len(types))
	for n := range types {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// New checks the configuration; the error lists every fault.
func New(c Config) (*Operator, error) {
	var errs []error
	for _, d := range c.Drop {
		if slices.Contains(c.Keep, d) {
			errs = append(errs, fmt.Errorf("column %q is both kept and dropped", d))
		}
	}
	gone := func(name string) bool {
		return slices.Contains(c.Drop, name) || len(c.Keep) > 0 && !slices.Contains(c.Keep, name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Cast)) {
		if types[c.Cast[name]] == nil {
			errs = append(errs, fmt.Errorf("cast of %q: unknown type %q (one of %s)", name, c.Cast[name], strings.Join(TypeNames(), ", ")))
		}
		if gone(name) {
			errs = append(errs, fmt.Errorf("cast of %q: the column is not kept", name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Rename)) {
		if c.Rename[name] == "" {
			errs = append(errs, fmt.Errorf("rename of %q: the new name is empty", name))
		}
		if gone(name) {
			errs = append(errs, fmt.Errorf("rename of %q: the column is not kept; names are those of the input", name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if c.Allocator == nil {
		c.Allocator = memory.DefaultAllocator
	}
	return &Operator{c: c}, nil
}

// Bind finds the columns; the error lists every name that is not there.
func (o *Operator) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	var errs []error
	must := func(what, name string) {
		if n := len(in.FieldIndices(name)); n != 1 {
			errs = append(errs, fmt.Errorf("%s %q: the input has %d columns of that name", what, name, n))
		}
	}
	for _, n := range o.c.Keep {
		must("keep", n)
	}
	for _, n := range o.c.Drop {
		must("drop", n)
	}
	for _, n := range slices.Sorted(maps.Keys(o.c.Rename)) {
		must("rename", n)
	}
	for _, n := range slices.Sorted(maps.Keys(o.c.Cast)) {
		must("cast", n)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	o.at, o.cast = nil, nil
	var fields []arrow.Field
	for _, i := range o.order(in) {
		f := in.Field(i)
		to := types[o.c.Cast[f.Name]]
		if to != nil && !castable(f.Type, to) {
			errs = append(errs, fmt.Errorf("cast of %q: %s cannot become %s", f.Name, f.Type, to))
		}
		if to != nil {
			f.Type = to
		}
		if name, ok := o.c.Rename[f.Name]; ok {
			f.Name = name
		}
		if slices.ContainsFunc(fields, func(g arrow.Field) bool { return g.Name == f.Name }) {
			errs = append(errs, fmt.Errorf("two columns would be named %q", f.Name))
		}
		o.at, o.cast, fields = append(o.at, i), append(o.cast, to), append(fields, f)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	meta := in.Metadata()
	o.out = arrow.NewSchema(fields, &meta)
	return o.out, nil
}

func (o *Operator) order(in *arrow.Schema) (at []int) {
	for _, n := range o.c.Keep {
		at = append(at, in.FieldIndices(n)[0])
	}
	if len(o.c.Keep) > 0 {
		return at
	}
	for i, f := range in.Fields() {
		if !slices.Contains(o.c.Drop, f.Name) {
			at = append(at, i)
		}
	}
	return at
}

// Apply selects from rec.
func (o *Operator) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	columns := make([]arrow.Array, len(o.at))
	defer func() {
		for i, c := range columns {
			if c != nil && o.cast[i] != nil {
				c.Release()
			}
		}
	}()
	for i, at := range o.at {
		columns[i] = rec.Column(at)
		if o.cast[i] == nil {
			continue
		}
		var err error
		if columns[i], err = convert(o.c.Allocator, rec.Column(at), o.cast[i]); err != nil {
			return nil, fmt.Errorf("cast of %q: %w", rec.ColumnName(at), err)
		}
	}
	return array.NewRecord(o.out, columns, rec.NumRows()), nil
}

func scalar(t arrow.DataType) bool {
	return arrow.IsInteger(t.ID()) || t.ID() == arrow.FLOAT32 || t.ID() == arrow.FLOAT64 || t.ID() == arrow.BOOL
}

func castable(from, to arrow.DataType) bool {
	if d, ok := from.(*arrow.DictionaryType); ok {
		from = d.ValueType
	}
	return scalar(from) || from.ID() == arrow.STRING
}

// convert casts through text for strings and through exact numbers otherwise.
func convert(mem memory.Allocator, a arrow.Array, to arrow.DataType) (arrow.Array, error) {
	b := array.NewBuilder(mem, to)
	defer b.Release()
	for i := range a.Len() {
		if a.IsNull(i) {
			b.AppendNull()
			continue
		}
		if err := appendCast(b, a, i); err != nil {
			return nil, fmt.Errorf("row %d of the batch: %w", i, err)
		}
	}
	return b.NewArray(), nil
}

func appendCast(b array.Builder, a arrow.Array, i int) error {
	text := a.ValueStr(i)
	if f, ok := a.(*array.Float32); ok { // the exact value, not the shortest text of a float32
		text = strconv.FormatFloat(float64(f.Value(i)), 'g', -1, 64)
	}
	switch b := b.(type) {
	case *array.StringBuilder:
		b.Append(text)
		return nil
	case *array.BooleanBuilder:
		v, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		b.Append(v)
		return nil
	case *array.Int64Builder:
		v, err := integer(a, text, 64)
		b.Append(v)
		return err
	case *array.Int32Builder:
		v, err := integer(a, text, 32)
		b.Append(int32(v))
		return err
	case *array.Float64Builder:
		v, err := decimal(text)
		if err == nil && arrow.IsInteger(a.DataType().ID()) && strconv.FormatFloat(v, 'f', 0, 64) != text {
			err = fmt.Errorf("%s is not a float64 exactly", text)
		}
		b.Append(v)
		return err
	case *array.Float32Builder:
		v, err := decimal(text)
		f := float32(v)
		if err == nil && math.IsInf(float64(f), 0) && !math.IsInf(v, 0) {
			err = fmt.Errorf("%s is beyond float32", text)
		}
		b.Append(f)
		return err
	}
	return fmt.Errorf("type %s cannot be built", b.Type())
}

func decimal(text string) (float64, error) {
	switch text {
	case "true":
		return 1, nil
	case "false":
		return 0, nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return v, nil
}

// integer reads a whole number. Text with a fraction or an exponent goes through
// float64, so it must lie where float64 holds every whole number.
func integer(a arrow.Array, text string, bits int) (int64, error) {
	if v, err := strconv.ParseInt(text, 10, bits); err == nil {
		return v, nil
	}
	v, err := decimal(text)
	if err != nil {
		return 0, err
	}
	limit := math.Ldexp(1, bits-1)
	if id := a.DataType().ID(); id != arrow.FLOAT32 && id != arrow.FLOAT64 {
		limit = min(limit, 1<<53)
	}
	if v != math.Trunc(v) || v < -limit || v >= limit {
		return 0, fmt.Errorf("%s is not a whole number of %d bits", text, bits)
	}
	return int64(v), nil
}
