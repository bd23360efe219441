package pipeline_test

import (
	"context"
	"errors"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline"
)

// splitSchema is what messages, whose schema is rowSchema, are decoded into: a row
// for each word in the kind of the message. "garbled" is no word; a message of that
// kind cannot be read.
var splitSchema = arrow.NewSchema(append(rowSchema.Fields(), arrow.Field{Name: "part", Type: arrow.PrimitiveTypes.Int64}), nil)

// A splitter is a Decoder that makes as many rows of a message as its kind has
// words between commas, none of "".
type splitter struct{ mem memory.Allocator }

var _ pipeline.Decoder = splitter{}

// errGarbled is what splitter says of a message that it cannot read.
type errGarbled struct{}

func (errGarbled) Error() string  { return "the message is garbled" }
func (errGarbled) Reason() string { return "decode" }

func (splitter) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	if !in.Equal(rowSchema) {
		return nil, errors.New("these are no messages")
	}
	return splitSchema, nil
}

// words returns the kinds of the rows of a message.
func words(kind string) []string {
	if kind == "" || kind == "garbled" {
		return nil
	}
	return strings.Split(kind, ",")
}

func (s splitter) Decode(_ context.Context, rec arrow.Record) (pipeline.Decoded, error) {
	b := array.NewRecordBuilder(s.mem, splitSchema)
	defer b.Release()
	d := pipeline.Decoded{Origin: []int{}}
	dict := rec.Column(0).(*array.Dictionary)
	kinds := rec.Column(2).(*array.String)
	for i := range int(rec.NumRows()) {
		if kinds.Value(i) == "garbled" {
			d.Bad = append(d.Bad, pipeline.BadMessage{Message: i, Err: errGarbled{}})
			continue
		}
		for part, word := range words(kinds.Value(i)) {
			if err := b.Field(0).(*array.BinaryDictionaryBuilder).AppendString(dict.ValueStr(i)); err != nil {
				return pipeline.Decoded{}, err
			}
			b.Field(1).(*array.Int64Builder).Append(rec.Column(1).(*array.Int64).Value(i))
			b.Field(2).(*array.StringBuilder).Append(word)
			b.Field(3).(*array.Int64Builder).Append(int64(part))
			d.Origin = append(d.Origin, i)
		}
	}
	d.Record = b.NewRecord()
	return d, nil
}
