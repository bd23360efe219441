// Package decode is the operator that turns latents into rebuilt columns with
// their standard deviations.
//
//	op := decode.New(decode.Config{Model: model})
//
// Encode then decode gives the same reconstruction as score, bit for bit.
package decode

import (
	"context"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/operators/internal/attach"
	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/vae"
)

// Config says how to decode.
type Config struct {
	Model *vae.Model
	// Column holds the latents: a list or fixed-size list of float32 with one
	// element per latent; empty means elbo_latent_mu.
	Column    string
	Allocator memory.Allocator // nil means the default one
}

// Operator adds elbo_reconstruction_NAME and elbo_sd_NAME (see
// vae.Spec.RebuiltFields). A row whose latents are missing, not finite or of
// another number is an error. It is safe for concurrent use after Bind.
type Operator struct {
	c        Config
	at       int
	out      *arrow.Schema
	decoders attach.FreeList[*vae.Scorer]
}

var _ pipeline.Operator = (*Operator)(nil)

// New returns an operator for a model.
func New(c Config) *Operator {
	if c.Column == "" {
		c.Column = score.Mu
	}
	if c.Allocator == nil {
		c.Allocator = memory.DefaultAllocator
	}
	o := &Operator{c: c}
	o.decoders.New = func() (*vae.Scorer, error) { return c.Model.NewDecoder(), nil }
	return o
}

// Bind finds the column of latents.
func (o *Operator) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	at := in.FieldIndices(o.c.Column)
	if len(at) != 1 {
		return nil, fmt.Errorf("column %q of latents: the input has %d of that name; encode first", o.c.Column, len(at))
	}
	list, ok := in.Field(at[0]).Type.(arrow.ListLikeType)
	if !ok || list.Elem().ID() != arrow.FLOAT32 {
		return nil, fmt.Errorf("column %q of latents: type %s, want a list of float32", o.c.Column, in.Field(at[0]).Type)
	}
	if t, ok := list.(*arrow.FixedSizeListType); ok && int(t.Len()) != o.c.Model.Spec.Latent {
		return nil, fmt.Errorf("column %q of latents: %d in a row, model %s has %d; decode with the model that encoded",
			o.c.Column, t.Len(), o.c.Model.Name, o.c.Model.Spec.Latent)
	}
	out, err := attach.Schema(in, o.c.Model.Spec.RebuiltFields(true))
	if err != nil {
		return nil, err
	}
	o.at, o.out = at[0], out
	return out, nil
}

// Apply decodes rec.
func (o *Operator) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	mu, err := o.latents(rec.Column(o.at))
	if err != nil {
		return nil, fmt.Errorf("column %q of latents: %w", o.c.Column, err)
	}
	d, err := o.decoders.Get()
	if err != nil {
		return nil, err
	}
	defer o.decoders.Put(d)
	return attach.Record(o.out, rec, o.c.Model.Rebuild(o.c.Allocator, d.Decode(mu), true)), nil
}

// latents returns the values of a column of lists as [rows][latent].
func (o *Operator) latents(a arrow.Array) ([]float32, error) {
	lists := a.(array.ListLike)
	values := lists.ListValues().(*array.Float32)
	n := o.c.Model.Spec.Latent
	out := make([]float32, 0, a.Len()*n)
	for i := range a.Len() {
		if a.IsNull(i) {
			return nil, fmt.Errorf("row %d of the batch is null", i)
		}
		from, to := lists.ValueOffsets(i)
		if int(to-from) != n {
			return nil, fmt.Errorf("row %d of the batch has %d latents, model %s has %d", i, to-from, o.c.Model.Name, n)
		}
		for j := int(from); j < int(to); j++ {
			v := values.Value(j)
			if values.IsNull(j) || v-v != 0 {
				return nil, fmt.Errorf("row %d of the batch: latent %d is %s, want a finite number", i, j-int(from), values.ValueStr(j))
			}
			out = append(out, v)
		}
	}
	return out, nil
}
