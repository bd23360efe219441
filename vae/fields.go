package vae

import (
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
)

// Fields returns the columns that the model reads as Arrow fields, for those who
// have to make them from bytes: numbers as float64 (float32 if they were so in
// training), categories as strings or int64, vectors as fixed-size lists of
// float32, timestamps in microseconds UTC.
func (s *Spec) Fields() []arrow.Field {
	fields := make([]arrow.Field, len(s.Columns))
	for i, c := range s.Columns {
		fields[i] = arrow.Field{Name: c.Name, Type: c.arrowType(), Nullable: true}
	}
	return fields
}

func (c *Column) arrowType() arrow.DataType {
	switch c.Kind {
	case Boolean:
		if c.Type == "bool" || c.Type == "" {
			return arrow.FixedWidthTypes.Boolean
		}
	case Categorical:
		if strings.HasPrefix(c.Type, "int") || strings.HasPrefix(c.Type, "uint") {
			return arrow.PrimitiveTypes.Int64
		}
		if c.Type == "bool" {
			return arrow.FixedWidthTypes.Boolean
		}
		return arrow.BinaryTypes.String
	case Vector:
		return arrow.FixedSizeListOf(int32(c.Width), arrow.PrimitiveTypes.Float32)
	case Timestamp:
		return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	}
	if c.Type == "float32" || c.Type == "float" {
		return arrow.PrimitiveTypes.Float32
	}
	return arrow.PrimitiveTypes.Float64
}
