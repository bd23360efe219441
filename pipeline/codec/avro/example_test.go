package avro_test

import (
	"context"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec/avro"
)

func ExampleNew() {
	ctx := context.Background()
	f, err := avro.New(ctx, avro.Config{
		Framing: avro.Bare,
		Schema: `{"type": "record", "name": "Pay", "fields": [
			{"name": "amount", "type": "float"}, {"name": "country", "type": ["null", "string"]}]}`,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	d := f.NewDecoder(memory.DefaultAllocator)
	defer d.Release()
	got, err := d.Decode(ctx, binaryOf([]byte{0, 0, 0xc0, 0x3f, 2, 4, 'D', 'E'}, []byte{0, 0, 0, 0, 0}, []byte{1}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer got.Record.Release()
	fmt.Println(got.Record.Column(0), got.Record.Column(1), got.Faults)
	// Output: [1.5 0] ["DE" (null)] [decode: amount at byte 0: the bytes end]
}

func ExampleNewEncoder() {
	e, err := avro.NewEncoder(avro.EncoderConfig{Name: "shop.Scored"})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = e.Bind(arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.BinaryTypes.String},
		{Name: "elbo_score", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
	}, nil))
	fmt.Println(err)
	fmt.Println(e.Schema())
	// Output:
	// <nil>
	// {"type":"record","name":"shop.Scored","fields":[{"name":"id","type":"string"},{"name":"elbo_score","type":["null","float"],"default":null}]}
}
