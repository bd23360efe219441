package registry_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/elbo-stream/elbo/pipeline/codec/registry"
	"github.com/elbo-stream/elbo/pipeline/codec/registry/registrytest"
)

func ExampleClient_Schema() {
	server := registrytest.New()
	server.Add("payments-value", registry.Schema{Text: `"double"`})
	c, err := registry.New(registry.Config{URLs: []string{"http://registry"}, Transport: server, Grace: -1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	s, err := c.Schema(context.Background(), 1)
	fmt.Println(s.Type, s.Text, err)
	_, err = c.Schema(context.Background(), 2)
	fmt.Println(errors.Is(err, registry.ErrUnknownSchema))
	// Output:
	// AVRO "double" <nil>
	// true
}
