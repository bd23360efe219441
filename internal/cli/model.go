package cli

import (
	"fmt"

	"github.com/elbo-stream/elbo/vae"
)

// load reads a model; a bad one is a configuration error.
func (a *app) load(path string) (*vae.Model, error) {
	if path == "" {
		return nil, usage("no model: give -m MODEL.elbo (train makes one)")
	}
	m, err := vae.Load(path)
	if err != nil {
		return nil, badConfig(fmt.Errorf("model %w", err))
	}
	return m, nil
}
