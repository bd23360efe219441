package kafka_test

import (
	"github.com/apache/arrow/go/v15/arrow"
)

// An idEncoder writes the first column alone: enough where only the number of rows
// and their places are judged.
type idEncoder struct{ rec arrow.Record }

func (e *idEncoder) Bind(*arrow.Schema) error     { return nil }
func (e *idEncoder) Reset(rec arrow.Record) error { e.rec = rec; return nil }
func (e *idEncoder) MaxRows() int                 { return 1 }
func (e *idEncoder) SchemaID() (int32, bool)      { return 0, false }
func (e *idEncoder) Append(dst []byte, lo, _ int) ([]byte, error) {
	return append(dst, e.rec.Column(0).ValueStr(lo)...), nil
}
