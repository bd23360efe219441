package vae_test

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/vae"
)

// A refCell is what one cell of a column is to a model, read the slow way.
type refCell struct {
	x       []float64 // of each feature
	missing []bool
	flags   vae.RowFlags
}

// refRow is one packed row: every value in float64.
type refRow struct {
	x       []float64 // [inputs]
	missing []bool    // [features]
	flags   vae.RowFlags
}

// refPack says what row r of rec is to the model, cell by cell.
func refPack(s *vae.Spec, rec arrow.Record, r int) (row refRow) {
	var indicators []float64
	columns := 0
	for i := range s.Columns {
		c := &s.Columns[i]
		cell := refColumn(c, rec.Column(rec.Schema().FieldIndices(c.Name)[0]), r)
		row.x, row.missing, row.flags = append(row.x, cell.x...), append(row.missing, cell.missing...), row.flags|cell.flags
		gone := slices.Contains(cell.missing, true)
		if gone {
			columns++
		}
		if c.Indicator {
			indicators = append(indicators, map[bool]float64{true: 1}[gone])
		}
	}
	row.x = append(row.x, indicators...)
	if float64(columns) > s.MaxMissing*float64(len(s.Columns)) {
		row.flags |= vae.TooMissing
	}
	return row
}

func refColumn(c *vae.Column, a arrow.Array, r int) refCell {
	n := c.Features()
	cell := refCell{make([]float64, n), make([]bool, n), 0}
	all := func(flags vae.RowFlags) refCell {
		for j := range cell.missing {
			cell.missing[j] = true
		}
		cell.flags = flags
		return cell
	}
	if a.IsNull(r) {
		return all(0)
	}
	switch c.Kind {
	case vae.Categorical:
		level, ok := refLevel(a, r)
		if !ok {
			return all(0)
		}
		j := slices.Index(c.Levels, level)
		if j < 0 {
			j, cell.flags = n-1, vae.Unseen
		}
		cell.x[j] = 1
	case vae.Timestamp:
		t := refTime(a, r)
		for j := range n {
			cell.put(c, j, refCycle(t, c.Parts[j/2], j%2 == 1))
		}
	case vae.Vector:
		l := a.(array.ListLike)
		from, to := l.ValueOffsets(r)
		if int(to-from) != n {
			return all(vae.Misfit)
		}
		for j := range n {
			if l.ListValues().IsNull(int(from) + j) {
				cell.missing[j] = true
				continue
			}
			cell.put(c, j, refNumber(l.ListValues(), int(from)+j))
		}
	default:
		cell.put(c, 0, refNumber(a, r))
	}
	return cell
}

// put sets feature j from a number.
func (cell *refCell) put(c *vae.Column, j int, v float64) {
	bad := func(f vae.RowFlags) {
		cell.missing[j] = true
		cell.flags |= f
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		bad(vae.NonFinite)
		return
	}
	if c.Kind == vae.Boolean && v != 0 {
		v = 1
	}
	if c.Head == vae.Bernoulli && (v < 0 || v > 1) {
		bad(vae.Misfit)
		return
	}
	if c.Transform == vae.Log1p {
		v = math.Copysign(math.Log1p(math.Abs(v)), v)
	}
	if c.Mean != nil {
		v = (v - c.Mean[j]) / c.Scale[j]
	}
	cell.x[j] = min(max(v, -vae.MaxAbs), vae.MaxAbs)
}

func refNumber(a arrow.Array, i int) float64 {
	switch a := a.(type) {
	case *array.Float32:
		return float64(a.Value(i))
	case *array.Float64:
		return a.Value(i)
	case *array.Boolean:
		return map[bool]float64{true: 1}[a.Value(i)]
	case *array.Uint64:
		return float64(a.Value(i))
	}
	v, err := strconv.ParseInt(a.ValueStr(i), 10, 64)
	if err != nil {
		panic(fmt.Sprint(a.DataType(), " is no number: ", err))
	}
	return float64(v)
}

func refLevel(a arrow.Array, i int) (string, bool) {
	switch a := a.(type) {
	case *array.String:
		return a.Value(i), true
	case *array.LargeString:
		return a.Value(i), true
	case *array.Dictionary:
		k := a.GetValueIndex(i)
		if a.Dictionary().IsNull(k) {
			return "", false
		}
		return refLevel(a.Dictionary(), k)
	}
	return a.ValueStr(i), true
}

func refTime(a arrow.Array, i int) time.Time {
	switch a := a.(type) {
	case *array.Timestamp:
		return a.Value(i).ToTime(a.DataType().(*arrow.TimestampType).Unit)
	case *array.Date32:
		return time.Unix(int64(a.Value(i))*86400, 0).UTC()
	case *array.Date64:
		return time.Unix(int64(a.Value(i))/1000, 0).UTC() // days, so whole seconds
	}
	panic(a.DataType().String() + " is no time")
}

func refCycle(t time.Time, part string, cos bool) float64 {
	day := (float64(t.Hour()*3600+t.Minute()*60+t.Second()) + float64(t.Nanosecond())/1e9) / 86400
	turn := map[string]float64{
		"hour":     day,
		"weekday":  (float64(t.Weekday()) + day) / 7,
		"monthday": (float64(t.Day()-1) + day) / 31,
		"yearday":  (float64(t.YearDay()-1) + day) / 366,
	}[part]
	if cos {
		return math.Cos(2 * math.Pi * turn)
	}
	return math.Sin(2 * math.Pi * turn)
}

// near says whether a packed value is the reference to the rounding that Pack
// may do: 3 units in the last place for numbers standardised in float32.
func near(got float32, want float64) bool {
	if got == float32(want) {
		return true
	}
	return math.Abs(float64(got)-want) <= 3*0x1p-23*math.Abs(want)+1e-37
}
