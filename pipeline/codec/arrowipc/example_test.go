package arrowipc_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/arrowipc"
)

// Rows go into a message and come out as the columns that are asked for.
func Example() {
	schema := arrow.NewSchema([]arrow.Field{{Name: "amount", Type: arrow.PrimitiveTypes.Float64, Nullable: true}, {Name: "country", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(`[{"amount":1.5,"country":"NL"},{"amount":2.5}]`))
	if err != nil {
		log.Fatal(err)
	}
	defer rec.Release()
	e := arrowipc.NewEncoder(arrowipc.EncoderConfig{Compression: arrowipc.Zstd})
	if err := errors.Join(e.Bind(schema), e.Reset(rec)); err != nil {
		log.Fatal(err)
	}
	message, err := e.Append(nil, 0, 2)
	if err != nil {
		log.Fatal(err)
	}
	f, err := arrowipc.New(arrowipc.Config{Columns: []codec.Column{{Name: "amount", Type: arrow.PrimitiveTypes.Float32}}})
	if err != nil {
		log.Fatal(err)
	}
	d := f.NewDecoder(memory.DefaultAllocator)
	defer d.Release()
	got, err := d.Decode(context.Background(), binaryOf(message))
	if err != nil {
		log.Fatal(err)
	}
	defer got.Record.Release()
	fmt.Println(got.Record.Column(0), got.Origin)
	// Output: [1.5 2.5] [0 0]
}
