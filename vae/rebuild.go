package vae

import (
	"fmt"
	"math"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// cycleUnits is how long each part of a timestamp's cycle is, and where it begins.
var cycleUnits = map[string][2]float64{"hour": {24, 0}, "weekday": {7, 0}, "monthday": {31, 1}, "yearday": {366, 1}}

// part returns part p of a timestamp from its rebuilt sine and cosine, in hours,
// days of the week (Sunday 0), of the month or of the year.
func (c *Column) part(p int, out []float32) float64 {
	share := math.Atan2(c.unscale(2*p, out[2*p]), c.unscale(2*p+1, out[2*p+1])) / (2 * math.Pi)
	if share < 0 {
		share++
	}
	u := cycleUnits[c.Parts[p]]
	return share*u[0] + u[1]
}

func (c *Column) showParts(out []float32) string {
	var b strings.Builder
	for i, p := range c.Parts {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %.1f", p, c.part(i, out))
	}
	return b.String()
}

// Prefixes of the columns that Rebuild makes.
const (
	ReconstructionPrefix = "elbo_reconstruction_"
	SDPrefix             = "elbo_sd_"
)

// RebuiltFields returns the fields of the columns that Rebuild makes, each named
// by its prefix and the model column: float64 for numbers and (as probabilities)
// booleans, string for categorical columns, a fixed-size list of float64 for
// vectors, and one float64 for each part of a timestamp (NAME_hour in hours, ...).
// With sd, each number and vector is followed by its standard deviation in the
// column's own units (for log1p columns on the log scale), a boolean by
// sqrt(p(1-p)).
func (s *Spec) RebuiltFields(sd bool) []arrow.Field {
	var out []arrow.Field
	add := func(prefix, name string, t arrow.DataType) {
		out = append(out, arrow.Field{Name: prefix + name, Type: t})
	}
	f64 := arrow.PrimitiveTypes.Float64
	for i := range s.Columns {
		c := &s.Columns[i]
		switch c.Kind {
		case Categorical:
			add(ReconstructionPrefix, c.Name, arrow.BinaryTypes.String)
		case Timestamp:
			for _, p := range c.Parts {
				add(ReconstructionPrefix, c.Name+"_"+p, f64)
			}
		default:
			t := arrow.DataType(f64)
			if c.Kind == Vector {
				t = arrow.FixedSizeListOf(int32(c.Width), f64)
			}
			add(ReconstructionPrefix, c.Name, t)
			if sd {
				add(SDPrefix, c.Name, t)
			}
		}
	}
	return out
}

// Rebuild turns decoder outputs [rows][features] (Result.Out) into the columns
// of RebuiltFields. The caller releases the arrays.
func (m *Model) Rebuild(mem memory.Allocator, out []float32, sd bool) []arrow.Array {
	features := m.net.Features
	rows := len(out) / features
	var arrays []arrow.Array
	for i, b := range m.net.Blocks {
		c := &m.Spec.Columns[i]
		row := make([]float32, b.N)
		at := func(r int) []float32 {
			copy(row, out[r*features+b.From:r*features+b.From+b.N])
			toProbabilities(b.Kind, row)
			return row
		}
		switch c.Kind {
		case Categorical:
			arrays = append(arrays, rebuildLevels(mem, c, rows, at))
		case Timestamp:
			for p := range c.Parts {
				arrays = append(arrays, floats(mem, rows, 1, false, func(r, _ int) float64 { return c.part(p, at(r)) }))
			}
		default:
			vector := c.Kind == Vector
			arrays = append(arrays, floats(mem, rows, b.N, vector, func(r, j int) float64 {
				if j == 0 {
					at(r)
				}
				return c.unscale(j, row[j])
			}))
			if sd {
				arrays = append(arrays, floats(mem, rows, b.N, vector, func(r, j int) float64 {
					if j == 0 {
						at(r)
					}
					return m.outputSD(c, b, j, row[j])
				}))
			}
		}
	}
	return arrays
}

// outputSD is the standard deviation of output j of a block whose mean (or
// probability) is v, in the column's units.
func (m *Model) outputSD(c *Column, b kernel.Block, j int, v float32) float64 {
	if b.Kind == kernel.Bernoulli {
		return math.Sqrt(float64(v) * float64(1-v))
	}
	sd, _ := m.LearnedSD(b.From + j)
	if c.Scale != nil {
		sd *= c.Scale[j]
	}
	return sd
}

func rebuildLevels(mem memory.Allocator, c *Column, rows int, at func(int) []float32) arrow.Array {
	b := array.NewStringBuilder(mem)
	defer b.Release()
	for r := range rows {
		probs := at(r)
		best := 0
		for j, p := range probs[:len(c.Levels)] { // the reserved level cannot be named
			if p > probs[best] {
				best = j
			}
		}
		b.Append(c.Levels[best])
	}
	return b.NewArray()
}

// floats builds a float64 column, or with vector a fixed-size list of width n.
func floats(mem memory.Allocator, rows, n int, vector bool, at func(r, j int) float64) arrow.Array {
	if !vector {
		b := array.NewFloat64Builder(mem)
		defer b.Release()
		b.Reserve(rows)
		for r := range rows {
			b.UnsafeAppend(at(r, 0))
		}
		return b.NewArray()
	}
	b := array.NewFixedSizeListBuilder(mem, int32(n), arrow.PrimitiveTypes.Float64)
	defer b.Release()
	v := b.ValueBuilder().(*array.Float64Builder)
	v.Reserve(rows * n)
	for r := range rows {
		b.Append(true)
		for j := range n {
			v.UnsafeAppend(at(r, j))
		}
	}
	return b.NewArray()
}
