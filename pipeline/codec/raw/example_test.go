package raw_test

import (
	"context"
	"fmt"
	"log"

	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec"
	"github.com/elbo-stream/elbo/pipeline/codec/raw"
)

func ExampleNew() {
	f, err := raw.New(raw.Config{Columns: []codec.Column{{Name: "temperature", Type: f32}, {Name: "spectrum", Type: vec3}}})
	if err != nil {
		log.Fatal(err)
	}
	d := f.NewDecoder(memory.DefaultAllocator)
	defer d.Release()
	got, err := d.Decode(context.Background(), binaryOf(message(20.5, 1, 2, 3), message(21, 4, 5)))
	if err != nil {
		log.Fatal(err)
	}
	defer got.Record.Release()
	fmt.Println(got.Record.Column(0), got.Record.Column(1), got.Faults)
	// Output: [20.5] [[1 2 3]] [decode: 12 bytes, want 16]
}
