package generate

import (
	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

func merchantType() *arrow.DictionaryType {
	return &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
}

func schemaOf(label bool) *arrow.Schema {
	fields := []arrow.Field{
		{Name: "id", Type: arrow.BinaryTypes.String},
		{Name: "time", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}},
		{Name: "merchant", Type: merchantType()},
		{Name: "online", Type: arrow.FixedWidthTypes.Boolean},
	}
	for _, name := range numericNames {
		fields = append(fields, arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Float64, Nullable: true})
	}
	if label {
		fields = append(fields,
			arrow.Field{Name: "label", Type: arrow.PrimitiveTypes.Int32},
			arrow.Field{Name: "anomaly_kind", Type: arrow.BinaryTypes.String})
	}
	return arrow.NewSchema(fields, nil)
}

// A filler builds the records of one sequence; its builders are used again for
// every batch.
type filler struct {
	source   *Source
	row      Row
	idText   []byte
	codes    map[string]int32
	levels   arrow.Array
	id       *array.StringBuilder
	time     *array.TimestampBuilder
	merchant *array.Int32Builder
	online   *array.BooleanBuilder
	numeric  [numerics]*array.Float64Builder
	label    *array.Int32Builder
	kind     *array.StringBuilder
}

func newFiller(s *Source) *filler {
	mem := s.config.Allocator
	f := &filler{
		source:   s,
		codes:    make(map[string]int32, len(s.levels)),
		levels:   stringArray(mem, s.levels),
		id:       array.NewStringBuilder(mem),
		time:     array.NewTimestampBuilder(mem, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}),
		merchant: array.NewInt32Builder(mem),
		online:   array.NewBooleanBuilder(mem),
		label:    array.NewInt32Builder(mem),
		kind:     array.NewStringBuilder(mem),
	}
	for i, level := range s.levels {
		f.codes[level] = int32(i)
	}
	for c := range f.numeric {
		f.numeric[c] = array.NewFloat64Builder(mem)
	}
	return f
}

func stringArray(mem memory.Allocator, values []string) arrow.Array {
	b := array.NewStringBuilder(mem)
	defer b.Release()
	b.AppendValues(values, nil)
	return b.NewArray()
}

func (f *filler) release() {
	f.levels.Release()
	for _, b := range f.builders() {
		b.Release()
	}
	f.label.Release()
	f.kind.Release()
}

// builders lists the builders in column order, the label's aside.
func (f *filler) builders() []array.Builder {
	all := []array.Builder{f.id, f.time, f.merchant, f.online}
	for _, b := range f.numeric {
		all = append(all, b)
	}
	return all
}

// record makes rows [first, first+n) of partition p. The caller owns it.
func (f *filler) record(p int, first, n int64) arrow.Record {
	for _, b := range f.builders() {
		b.Reserve(int(n))
	}
	parts := int64(f.source.config.Partitions)
	for k := first; k < first+n; k++ {
		f.source.rows.at(k*parts+int64(p), &f.row)
		f.append()
	}
	var cols []arrow.Array
	for i, b := range f.builders() {
		col := b.NewArray()
		if i == 2 {
			codes := col
			col = array.NewDictionaryArray(merchantType(), codes, f.levels)
			codes.Release()
		}
		cols = append(cols, col)
	}
	if f.source.config.Label {
		cols = append(cols, f.label.NewArray(), f.kind.NewArray())
	}
	rec := array.NewRecord(f.source.schema, cols, n)
	for _, col := range cols {
		col.Release()
	}
	return rec
}

func (f *filler) append() {
	r := &f.row
	f.idText = r.appendID(f.idText[:0])
	f.id.BinaryBuilder.Append(f.idText)
	f.time.Append(arrow.Timestamp(r.Time.UnixMicro()))
	f.merchant.Append(f.codes[r.Merchant])
	f.online.Append(r.Online)
	for c, b := range f.numeric {
		if r.Null[c] {
			b.AppendNull()
		} else {
			b.Append(r.Values[c])
		}
	}
	if f.source.config.Label {
		var truth int32
		if r.Anomaly != "" {
			truth = 1
		}
		f.label.Append(truth)
		f.kind.Append(r.Anomaly)
	}
}
