package cli

import (
	"errors"

	"github.com/elbo-stream/elbo/internal/builtin"
	"github.com/elbo-stream/elbo/internal/durable"
	"github.com/elbo-stream/elbo/vae"
)

// load reads a model; a bad one is a configuration error.
func (a *app) load(path string) (*vae.Model, error) {
	if path == "" {
		return nil, usage("no model: give -m MODEL.elbo (train makes one)")
	}
	m, err := builtin.Load(path)
	if err != nil {
		return nil, badConfig(err)
	}
	return m, nil
}

// save writes a model, whole or not at all.
func (a *app) save(m *vae.Model, path string, overwrite bool) error {
	err := m.Save(path, overwrite)
	if errors.Is(err, durable.ErrExists) {
		return usage("%s %v; give --overwrite to replace it", path, durable.ErrExists)
	}
	return err
}
