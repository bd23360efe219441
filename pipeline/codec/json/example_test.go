package json_test

import (
	"context"
	"fmt"
	"log"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/json"
)

func ExampleNew() {
	f, err := json.New(json.Config{Columns: []codec.Column{
		{Name: "amount", Type: arrow.PrimitiveTypes.Float32, Path: "payment.amount"},
		{Name: "country", Type: arrow.BinaryTypes.String},
	}})
	if err != nil {
		log.Fatal(err)
	}
	d := f.NewDecoder(memory.DefaultAllocator)
	defer d.Release()
	got, err := d.Decode(context.Background(), binaryOf(
		[]byte(`{"payment": {"amount": 12.5}, "country": "NL"}`),
		[]byte(`{"payment": {"amount": "12.5"}}`),
		[]byte(`{"country": "NL"}`),
	))
	if err != nil {
		log.Fatal(err)
	}
	defer got.Record.Release()
	fmt.Println(got.Record.Column(0), got.Record.Column(1), got.Origin)
	fmt.Println(got.Faults[0])
	// Output:
	// [12.5 (null)] ["NL" "NL"] [0 2]
	// validation: payment.amount at byte 23: the string "12.5", want float32
}

func ExampleNewEncoder() {
	e := json.NewEncoder(json.EncoderConfig{Columns: []string{"country", "elbo_score"}})
	schema := arrow.NewSchema([]arrow.Field{{Name: "elbo_score", Type: arrow.PrimitiveTypes.Float32}, {Name: "country", Type: arrow.BinaryTypes.String}}, nil)
	if err := e.Bind(schema); err != nil {
		log.Fatal(err)
	}
	f, err := json.New(json.Config{Columns: []codec.Column{{Name: "elbo_score", Type: arrow.PrimitiveTypes.Float32}, {Name: "country", Type: arrow.BinaryTypes.String}}})
	if err != nil {
		log.Fatal(err)
	}
	d := f.NewDecoder(memory.DefaultAllocator)
	defer d.Release()
	got, err := d.Decode(context.Background(), binaryOf([]byte(`{"elbo_score": 41.25, "country": "NL"}`)))
	if err != nil {
		log.Fatal(err)
	}
	defer got.Record.Release()
	if err := e.Reset(got.Record); err != nil {
		log.Fatal(err)
	}
	message, err := e.Append(nil, 0, 1)
	fmt.Println(string(message), err)
	// Output: {"country":"NL","elbo_score":41.25} <nil>
}
