package codec

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
)

// A SchemaError says that messages carry a column in a type that cannot become
// the bound one without loss. It ends the run: no single value is at fault.
type SchemaError struct {
	Column string         // the bound column's name
	Have   arrow.DataType // what the messages carry; nil where it has no such type
	Want   arrow.DataType // what the format is bound to
	Source string         // which schema says so, as in "schema 17" or "the stream's schema"; may be empty
}

// Error names the column, both types and where the schema comes from.
func (e *SchemaError) Error() string {
	have := "an unknown type"
	if e.Have != nil {
		have = e.Have.String()
	}
	msg := fmt.Sprintf("column %q: have %s, want %s", e.Column, have, e.Want)
	if e.Source != "" {
		msg = e.Source + ": " + msg
	}
	return msg
}
