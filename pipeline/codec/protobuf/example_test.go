package protobuf_test

import (
	"context"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/pipeline/codec/protobuf"
)

func ExampleNew() {
	ctx := context.Background()
	f, err := protobuf.New(ctx, protobuf.Config{
		Framing: protobuf.Bare,
		Schema:  `syntax = "proto3"; message Pay { double amount = 1; optional string country = 2; }`,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	d := f.NewDecoder(memory.DefaultAllocator)
	defer d.Release()
	got, err := d.Decode(ctx, binaryOf([]byte{9, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0x12, 2, 'D', 'E'}, []byte{}, []byte{9}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer got.Record.Release()
	fmt.Println(got.Record.Column(0), got.Record.Column(1), got.Faults)
	// Output: [1.5 0] ["DE" (null)] [decode: the message at byte 1: field 1: the bytes end, or are none of a field]
}

func ExampleNewEncoder() {
	e, err := protobuf.NewEncoder(protobuf.EncoderConfig{Name: "shop.Scored"})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = e.Bind(arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.BinaryTypes.String},
		{Name: "elbo_score", Type: arrow.PrimitiveTypes.Float32, Nullable: true},
	}, nil))
	fmt.Println(err)
	fmt.Print(e.Schema())
	// Output:
	// <nil>
	// syntax = "proto3";
	//
	// package shop;
	//
	// message Scored {
	//   string id = 1;
	//   optional float elbo_score = 2;
	// }
}
