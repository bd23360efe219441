package encode_test

import (
	"context"
	"fmt"

	"github.com/elbo-stream/elbo/operators/encode"
	"github.com/elbo-stream/elbo/operators/internal/optest"
)

func ExampleNew() {
	m, err := optest.Model()
	if err != nil {
		fmt.Println(err)
		return
	}
	in := optest.Record(optest.Normal(2)...)
	defer in.Release()
	op := encode.New(encode.Config{Model: m})
	if _, err := op.Bind(in.Schema()); err != nil {
		fmt.Println(err)
		return
	}
	out, err := op.Apply(context.Background(), in)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer out.Release()
	fmt.Println(out.ColumnName(7), out.Column(7).Len(), "rows")
	// Output: elbo_latent_mu 2 rows
}
