package vae

import (
	"fmt"
	"math"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

// A goldenRow is a row with its scores, kept in the model file: every load
// scores it again and refuses the file when the result differs. The rows are
// made by the model itself (decoded from fixed latents), so that no training row
// is stored.
type goldenRow struct {
	// Values has one value per model column: a number, a bool, a level, a list
	// of numbers, microseconds since 1970 for a timestamp, or nil for missing.
	Values []any   `json:"values"`
	Recon  float32 `json:"recon"`
	KL     float32 `json:"kl"`
	Score  float32 `json:"score"`
}

const (
	goldenDecoded = 6 // rows decoded from drawn latents
	goldenRows    = goldenDecoded + 2
	goldenSeed    = 0x656c626f // "elbo"
	// goldenTolerance is how far a golden score may move between kinds of CPU,
	// relative to 1+|score|.
	goldenTolerance = 1e-4
)

// makeGolden makes the rows, without scores: some decoded from latents drawn
// from the prior, one strange in every column, one missing in every column.
func (m *Model) makeGolden() []goldenRow {
	latent, features := m.net.Latent, m.net.Features
	z := make([]float32, goldenDecoded*latent)
	for i := range z {
		z[i] = float32(normal(stir(goldenSeed, uint64(i))))
	}
	out := m.NewDecoder().Decode(z)
	rows := make([]goldenRow, goldenRows)
	for r := range rows {
		at := 0
		for i := range m.Spec.Columns {
			c := &m.Spec.Columns[i]
			n := c.Features()
			var v any
			switch {
			case r < goldenDecoded:
				v = c.goldenValue(r, out[r*features+at:r*features+at+n])
			case r == goldenDecoded:
				v = c.strangeValue()
			}
			rows[r].Values = append(rows[r].Values, v)
			at += n
		}
	}
	return rows
}

func (c *Column) goldenValue(r int, out []float32) any {
	switch c.Kind {
	case Categorical:
		best := 0
		for j := range c.Levels {
			if out[j] > out[best] {
				best = j
			}
		}
		return c.Levels[best]
	case Boolean:
		return out[0] > 0
	case Timestamp:
		return float64(1_600_000_000_000_000 + int64(r)*11*3600*1_000_000)
	case Vector:
		list := make([]any, c.Width)
		for j := range list {
			list[j] = c.goldenNumber(j, out[j])
		}
		return list
	}
	return c.goldenNumber(0, out[0])
}

func (c *Column) goldenNumber(j int, v float32) float64 {
	x := c.unscale(j, v)
	if c.Head == Bernoulli {
		x = math.Round(1 / (1 + math.Exp(-x)))
	}
	if !finite(x) {
		return 0
	}
	return float64(float32(min(max(x, -1e30), 1e30)))
}

// strangeValue is far from anything in training.
func (c *Column) strangeValue() any {
	switch c.Kind {
	case Categorical:
		return "\x00 never seen"
	case Boolean:
		return true
	case Timestamp:
		return float64(0)
	case Vector:
		list := make([]any, c.Width)
		for j := range list {
			list[j] = c.goldenNumber(j, 50)
		}
		return list
	}
	return c.goldenNumber(0, 50)
}

// goldenRecord builds the golden rows as a record with the model's columns.
func (m *Model) goldenRecord() (arrow.Record, error) {
	var fields []arrow.Field
	for i := range m.Spec.Columns {
		c := &m.Spec.Columns[i]
		t := map[Kind]arrow.DataType{Numeric: arrow.PrimitiveTypes.Float64, Boolean: arrow.FixedWidthTypes.Boolean,
			Categorical: arrow.BinaryTypes.String, Timestamp: arrow.FixedWidthTypes.Timestamp_us,
			Vector: arrow.ListOf(arrow.PrimitiveTypes.Float64)}[c.Kind]
		fields = append(fields, arrow.Field{Name: c.Name, Type: t, Nullable: true})
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	for r, row := range m.golden {
		if len(row.Values) != len(fields) {
			return nil, fmt.Errorf("golden row %d has %d values for %d columns", r, len(row.Values), len(fields))
		}
		for i, v := range row.Values {
			if !appendGolden(b.Field(i), v, m.Spec.Columns[i].Width) {
				return nil, fmt.Errorf("golden row %d, column %q: unusable value", r, fields[i].Name)
			}
		}
	}
	return b.NewRecord(), nil
}

// appendGolden appends v to the builder, false when their types do not fit.
func appendGolden(b array.Builder, v any, width int) bool {
	if v == nil {
		b.AppendNull()
		return true
	}
	switch b := b.(type) {
	case *array.Float64Builder:
		x, ok := v.(float64)
		b.Append(x)
		return ok
	case *array.BooleanBuilder:
		x, ok := v.(bool)
		b.Append(x)
		return ok
	case *array.StringBuilder:
		x, ok := v.(string)
		b.Append(x)
		return ok
	case *array.TimestampBuilder:
		x, ok := v.(float64)
		b.Append(arrow.Timestamp(x))
		return ok
	case *array.ListBuilder:
		list, ok := v.([]any)
		if !ok || len(list) != width {
			return false
		}
		b.Append(true)
		for _, e := range list {
			if !appendGolden(b.ValueBuilder(), e, 0) {
				return false
			}
		}
		return true
	}
	return false
}

// scoreGolden scores the golden rows and keeps the scores.
func (m *Model) scoreGolden() error {
	res, release, err := m.rescoreGolden()
	if err != nil {
		return err
	}
	defer release()
	for r := range m.golden {
		m.golden[r].Recon, m.golden[r].KL, m.golden[r].Score = res.Recon[r], res.KL[r], res.Score[r]
		if s := res.Score[r]; s >= maxPart {
			return fmt.Errorf("the model scores golden row %d, made by itself, beyond %g nats: its weights are too large; train with a smaller rate", r, float64(maxPart))
		}
	}
	return nil
}

func (m *Model) rescoreGolden() (*Result, func(), error) {
	rec, err := m.goldenRecord()
	if err != nil {
		return nil, nil, err
	}
	s, err := m.NewScorer(rec.Schema(), Options{Top: -1})
	if err != nil {
		return nil, nil, err
	}
	res, err := s.Score(rec)
	return res, rec.Release, err
}

// checkGolden scores the golden rows again and compares.
func (m *Model) checkGolden() error {
	res, release, err := m.rescoreGolden()
	if err != nil {
		return err
	}
	defer release()
	for r, g := range m.golden {
		for _, v := range [][2]float32{{res.Recon[r], g.Recon}, {res.KL[r], g.KL}, {res.Score[r], g.Score}} {
			got, want := float64(v[0]), float64(v[1])
			if !(math.Abs(got-want) <= goldenTolerance*(1+math.Abs(want))) {
				return fmt.Errorf("golden row %d scores %g, the file says %g: the weights or this program differ from the ones that made it", r, got, want)
			}
		}
	}
	return nil
}
