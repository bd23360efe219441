package vae

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
)

// state says what a cell holds.
type state uint8

const (
	observed  state = iota
	absent          // null, or a null row of a vector
	nonfinite       // NaN or infinity: counts as missing
	misfit          // a vector of another length
)

// A cellReader reads the cells of one column of any Arrow array that its kind
// allows, as float64 numbers or as levels: one by one, for profiles and
// explanations. Whole tiles are read by Packed.Pack.
type cellReader struct {
	column int // index in the schema
	kind   Kind
	width  int
	parts  []string
}

// cells is a cellReader bound to one array, which it borrows.
type cells struct {
	r       *cellReader
	arr     arrow.Array
	at      func(int) float64 // a valid row's number, for flat columns
	elem    func(int) float64 // a vector's element, by position in values
	values  arrow.Array
	bounds  func(int) (int, int)
	text    func(int) string
	inner   arrow.Array // the levels of a dictionary, when some are null
	instant func(int) (sec, nsec int64)
	noNulls bool
}

// A shown is a column whose cells are read now and then, to be shown.
type shown struct {
	r   *cellReader
	arr arrow.Array
}

// show prints a row's value (element j of a vector) as a person would write it.
func (s shown) show(i, j int) string {
	c, err := s.r.bind(s.arr)
	if err != nil {
		return err.Error()
	}
	return c.show(i, j)
}

func (c *cellReader) bind(a arrow.Array) (*cells, error) {
	b := &cells{r: c, arr: a, noNulls: a.NullN() == 0}
	switch c.kind {
	case Numeric, Boolean:
		b.at = numbers(a)
		if b.at == nil {
			return nil, fmt.Errorf("type %s is not a number", a.DataType())
		}
	case Categorical:
		if b.text = texts(a); b.text == nil {
			return nil, fmt.Errorf("type %s has no levels", a.DataType())
		}
		if d, ok := a.(*array.Dictionary); ok && d.Dictionary().NullN() > 0 {
			b.inner = d.Dictionary()
		}
	case Timestamp:
		if b.instant = instants(a); b.instant == nil {
			return nil, fmt.Errorf("type %s is not a time", a.DataType())
		}
	case Vector:
		l, ok := a.(array.ListLike)
		if !ok {
			return nil, fmt.Errorf("type %s is not a list", a.DataType())
		}
		b.values = l.ListValues()
		b.bounds = func(i int) (int, int) { s, e := l.ValueOffsets(i); return int(s), int(e) }
		if b.elem = numbers(b.values); b.elem == nil {
			return nil, fmt.Errorf("type %s is not a list of numbers", a.DataType())
		}
	}
	return b, nil
}

// level returns the level in row i, false when it is missing.
func (b *cells) level(i int) (string, bool) {
	if !b.noNulls && b.arr.IsNull(i) {
		return "", false
	}
	if b.inner != nil && b.inner.IsNull(b.arr.(*array.Dictionary).GetValueIndex(i)) {
		return "", false
	}
	return b.text(i), true
}

// number returns feature j of row i before any transform.
func (b *cells) number(i, j int) (float64, state) {
	if !b.noNulls && b.arr.IsNull(i) {
		return 0, absent
	}
	var v float64
	switch b.r.kind {
	case Timestamp:
		sec, nsec := b.instant(i)
		return cycle(time.Unix(sec, nsec).UTC(), b.r.parts[j/2], j&1 == 1), observed
	case Vector:
		s, e := b.bounds(i)
		if e-s != b.r.width {
			return 0, misfit
		}
		if b.values.IsNull(s + j) {
			return 0, absent
		}
		v = b.elem(s + j)
	default:
		v = b.at(i)
	}
	if v-v != 0 { // NaN or infinity
		return 0, nonfinite
	}
	return v, observed
}

// cycle returns the sine or cosine of where an instant stands in a cycle (UTC).
func cycle(t time.Time, part string, cos bool) float64 {
	day := (float64(t.Hour()*3600+t.Minute()*60+t.Second()) + float64(t.Nanosecond())/1e9) / 86400
	var x float64
	switch part {
	case "hour":
		x = day
	case "weekday":
		x = (float64(t.Weekday()) + day) / 7
	case "monthday":
		x = (float64(t.Day()-1) + day) / 31
	case "yearday":
		x = (float64(t.YearDay()-1) + day) / 366
	}
	if cos {
		return math.Cos(2 * math.Pi * x)
	}
	return math.Sin(2 * math.Pi * x)
}

func vectorWidth(a arrow.Array) int {
	if t, ok := a.DataType().(*arrow.FixedSizeListType); ok {
		return int(t.Len())
	}
	l, ok := a.(array.ListLike)
	if !ok {
		return 0
	}
	for i := range a.Len() {
		if s, e := l.ValueOffsets(i); e > s && !a.IsNull(i) {
			return int(e - s)
		}
	}
	return 0
}

// numbers returns how to read an array of numbers, nil when it is none.
func numbers(a arrow.Array) func(int) float64 {
	switch a := a.(type) {
	case *array.Float32:
		return convert(a.Float32Values())
	case *array.Float64:
		return convert(a.Float64Values())
	case *array.Int8:
		return convert(a.Int8Values())
	case *array.Int16:
		return convert(a.Int16Values())
	case *array.Int32:
		return convert(a.Int32Values())
	case *array.Int64:
		return convert(a.Int64Values())
	case *array.Uint8:
		return convert(a.Uint8Values())
	case *array.Uint16:
		return convert(a.Uint16Values())
	case *array.Uint32:
		return convert(a.Uint32Values())
	case *array.Uint64:
		return convert(a.Uint64Values())
	case *array.Boolean:
		return func(i int) float64 {
			if a.Value(i) {
				return 1
			}
			return 0
		}
	}
	return nil
}

func convert[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | float32 | float64](v []T) func(int) float64 {
	return func(i int) float64 { return float64(v[i]) }
}

// texts returns how to read an array's levels, nil when it has none.
func texts(a arrow.Array) func(int) string {
	switch a := a.(type) {
	case *array.String:
		return a.Value
	case *array.LargeString:
		return a.Value
	case *array.Dictionary:
		if inner := texts(a.Dictionary()); inner != nil {
			return func(i int) string { return inner(a.GetValueIndex(i)) }
		}
		return nil
	case *array.Boolean:
		return func(i int) string { return strconv.FormatBool(a.Value(i)) }
	}
	if arrow.IsInteger(a.DataType().ID()) {
		at := a.(interface{ ValueStr(int) string })
		return at.ValueStr
	}
	return nil
}

// instants returns how to read an array of times as seconds since 1970 UTC and
// nanoseconds within, nil when it holds none.
func instants(a arrow.Array) func(int) (sec, nsec int64) {
	switch a := a.(type) {
	case *array.Timestamp:
		nanos := int64(a.DataType().(*arrow.TimestampType).Unit.Multiplier())
		perSecond := int64(time.Second) / nanos
		return func(i int) (int64, int64) {
			v := int64(a.Value(i))
			sec, rest := v/perSecond, v%perSecond
			if rest < 0 {
				sec, rest = sec-1, rest+perSecond
			}
			return sec, rest * nanos
		}
	case *array.Date32:
		return func(i int) (int64, int64) { return int64(a.Value(i)) * 86400, 0 }
	case *array.Date64:
		return func(i int) (int64, int64) { return int64(a.Value(i)) / 1000, 0 }
	}
	return nil
}

func (b *cells) show(i, j int) string {
	if b.arr.IsNull(i) {
		return "null"
	}
	switch b.r.kind {
	case Categorical:
		level, ok := b.level(i)
		if !ok {
			return "null"
		}
		return level
	case Boolean:
		if b.arr.DataType().ID() != arrow.BOOL {
			return number(b.at(i))
		}
		return strconv.FormatBool(b.at(i) != 0)
	case Timestamp:
		sec, nsec := b.instant(i)
		return time.Unix(sec, nsec).UTC().Format("2006-01-02T15:04:05.999999Z")
	case Vector:
		s, e := b.bounds(i)
		if e-s != b.r.width {
			return fmt.Sprintf("%d elements", e-s)
		}
		if b.values.IsNull(s + j) {
			return "null"
		}
		return number(b.elem(s + j))
	}
	return number(b.at(i))
}
