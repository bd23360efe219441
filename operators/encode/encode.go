// Package encode is the operator that turns columns into latents: the posterior's
// mean and log-variance, as embeddings for other tools or for package decode.
//
//	op := encode.New(encode.Config{Model: model})
//
// The latents are those that package score computes, bit for bit.
package encode

import (
	"context"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/operators/internal/attach"
	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/vae"
)

// Config says how to encode.
type Config struct {
	Model     *vae.Model
	Allocator memory.Allocator // nil means the default one
}

// Operator adds elbo_latent_mu and elbo_latent_logvar, fixed-size lists of
// float32 with one element per latent. It is safe for concurrent use after Bind.
type Operator struct {
	c       Config
	out     *arrow.Schema
	scorers attach.FreeList[*vae.Scorer]
}

var _ pipeline.Operator = (*Operator)(nil)

// New returns an operator for a model.
func New(c Config) *Operator {
	if c.Allocator == nil {
		c.Allocator = memory.DefaultAllocator
	}
	return &Operator{c: c}
}

// Needs returns the columns that the model reads.
func (o *Operator) Needs() []arrow.Field { return o.c.Model.Spec.Fields() }

// Bind finds the model's columns in the schema.
func (o *Operator) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	out, err := attach.Schema(in, score.LatentFields(o.c.Model))
	if err != nil {
		return nil, err
	}
	o.scorers.New = func() (*vae.Scorer, error) {
		return o.c.Model.NewScorer(in, vae.Options{ScoresOnly: true, Latent: true})
	}
	first, err := o.scorers.New()
	if err != nil {
		return nil, fmt.Errorf("the input does not have the columns of model %s: %w", o.c.Model.Name, err)
	}
	o.scorers.Put(first)
	o.out = out
	return out, nil
}

// Apply encodes rec.
func (o *Operator) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	s, err := o.scorers.Get()
	if err != nil {
		return nil, err
	}
	defer o.scorers.Put(s)
	r, err := s.Score(rec)
	if err != nil {
		return nil, err
	}
	return attach.Record(o.out, rec, []arrow.Array{
		score.Lists(o.c.Allocator, o.c.Model, r.Mu), score.Lists(o.c.Allocator, o.c.Model, r.LogVar)}), nil
}
