// Package score is the operator that judges rows: encode, decode and score in
// one pass, with every elbo_ column.
//
//	op := score.New(score.Config{Model: model})
//	out, err := op.Bind(schema)          // schema plus the elbo_ columns
//	rec, err := op.Apply(ctx, in)        // borrows in, the caller owns rec
//
// One output row per input row, in order. A row that cannot be judged has its
// reason in elbo_status and null in elbo_anomaly, never a low score alone.
package score

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/operators/internal/attach"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/vae"
)

// The columns that the operator adds, always in this order.
const (
	Score    = "elbo_score"    // float32, the members' surprises and what is new; of one member its negative ELBO; nats
	Recon    = "elbo_recon"    // float32, reconstruction error of the autoencoder, nats
	KL       = "elbo_kl"       // float32, its KL divergence from the prior, nats
	P        = "elbo_p"        // float64, tail probability among held-out normal rows
	Severity = "elbo_severity" // float32, 0 to 100
	Anomaly  = "elbo_anomaly"  // bool, null = not judged
	Status   = "elbo_status"   // string: ok, missing, unseen, nonfinite, schema, error
	ModelID  = "elbo_model"    // string, name@digest
	Top      = "elbo_top"      // list of struct{column, contribution, value, expected, deviation}
	Error    = "elbo_error"    // float32, optional: mean squared error on the standardised scale
	Mu       = "elbo_latent_mu"
	LogVar   = "elbo_latent_logvar"
)

// The values of elbo_status. OK: judged. Missing: too many columns missing, not
// judged. Unseen: a level that training never saw; judged, its unlikeliness is
// in the score. NonFinite: a NaN or infinity, taken as missing; judged. Schema: a
// vector of another length or a number that the likelihood does not allow, not
// judged. Failed: the score itself is not finite, not judged.
const (
	OK        = "ok"
	Missing   = "missing"
	Unseen    = "unseen"
	NonFinite = "nonfinite"
	Misfit    = "schema"
	Failed    = "error"
)

var statuses = [...]string{OK, Missing, Unseen, NonFinite, Misfit, Failed}

// Config says what to compute.
type Config struct {
	Model *vae.Model
	// Top is how many columns to blame; 0 means 5, below 0 none.
	Top            int
	TopAll         bool // blame for every row, not only for anomalies
	Error          bool // adds elbo_error
	Latent         bool // adds elbo_latent_mu and elbo_latent_logvar
	Reconstruction bool // adds elbo_reconstruction_NAME for every model column
	Samples        int  // draws for the reconstruction probability; 0 means the posterior mean
	Seed           uint64
	Precision      vae.Precision    // empty means float32
	Allocator      memory.Allocator // nil means the default one
}

// Operator scores records. It is safe for concurrent use after Bind.
type Operator struct {
	c       Config
	mem     memory.Allocator
	out     *arrow.Schema
	scorers attach.FreeList[*vae.Scorer]
	model   arrow.Array // the one-entry dictionary of elbo_model
	status  arrow.Array
}

var _ pipeline.Operator = (*Operator)(nil)

// New returns an operator for a model.
func New(c Config) *Operator {
	if c.Allocator == nil {
		c.Allocator = memory.DefaultAllocator
	}
	return &Operator{c: c, mem: c.Allocator}
}

// Needs returns the columns that the model reads.
func (o *Operator) Needs() []arrow.Field { return o.c.Model.Spec.Fields() }

var topType = arrow.ListOf(arrow.StructOf(
	arrow.Field{Name: "column", Type: arrow.BinaryTypes.String},
	arrow.Field{Name: "contribution", Type: arrow.PrimitiveTypes.Float32},
	arrow.Field{Name: "value", Type: arrow.BinaryTypes.String},
	arrow.Field{Name: "expected", Type: arrow.BinaryTypes.String},
	arrow.Field{Name: "deviation", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
))

var labelType = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}

// Fields returns the fields that the operator adds.
func (o *Operator) Fields() []arrow.Field {
	f32, f64 := arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64
	fields := []arrow.Field{
		{Name: Score, Type: f32}, {Name: Recon, Type: f32}, {Name: KL, Type: f32}, {Name: P, Type: f64},
		{Name: Severity, Type: f32}, {Name: Anomaly, Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
		{Name: Status, Type: labelType}, {Name: ModelID, Type: labelType},
	}
	if o.c.Top >= 0 {
		fields = append(fields, arrow.Field{Name: Top, Type: topType, Nullable: true})
	}
	if o.c.Error {
		fields = append(fields, arrow.Field{Name: Error, Type: f32})
	}
	if o.c.Latent {
		fields = append(fields, LatentFields(o.c.Model)...)
	}
	if o.c.Reconstruction {
		fields = append(fields, o.c.Model.Spec.RebuiltFields(false)...)
	}
	return fields
}

// LatentFields returns the two columns of a posterior: fixed-size lists of
// float32, one element per latent.
func LatentFields(m *vae.Model) []arrow.Field {
	t := arrow.FixedSizeListOf(int32(m.Spec.Latent), arrow.PrimitiveTypes.Float32)
	return []arrow.Field{{Name: Mu, Type: t}, {Name: LogVar, Type: t}}
}

// Bind finds the model's columns in the schema; the error is a
// *vae.SchemaError that lists every fault.
func (o *Operator) Bind(in *arrow.Schema) (*arrow.Schema, error) {
	out, err := attach.Schema(in, o.Fields())
	if err != nil {
		return nil, err
	}
	opts := vae.Options{Top: o.c.Top, TopAll: o.c.TopAll, Latent: o.c.Latent, Reconstruction: o.c.Reconstruction,
		Error: o.c.Error, Samples: o.c.Samples, Seed: o.c.Seed, Precision: o.c.Precision}
	o.scorers.New = func() (*vae.Scorer, error) { return o.c.Model.NewScorer(in, opts) }
	first, err := o.scorers.New()
	var schema *vae.SchemaError
	if err != nil && !errors.As(err, &schema) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("the input does not have the columns of model %s: %w", o.c.Model.Name, err)
	}
	o.scorers.Put(first)
	o.out = o.describe(out)
	o.model, o.status = words(o.c.Model.ID()), words(statuses[:]...)
	return o.out, nil
}

// The keys of the schema's metadata that tell what judged the rows; sinks keep
// them where their format can.
const (
	MetaModel = "elbo.model" // name@digest
	MetaLimit = "elbo.limit" // nats
)

// describe adds the model and its limit to the schema's metadata.
func (o *Operator) describe(s *arrow.Schema) *arrow.Schema {
	meta := s.Metadata().ToMap()
	meta[MetaModel], meta[MetaLimit] = o.c.Model.ID(), fmt.Sprint(o.c.Model.Calibration.Limit)
	all := arrow.MetadataFrom(meta)
	return arrow.NewSchema(s.Fields(), &all)
}

// words makes a dictionary of strings outside of any checked allocator, since it
// lives as long as the operator.
func words(s ...string) arrow.Array {
	b := array.NewStringBuilder(memory.NewGoAllocator())
	defer b.Release()
	b.AppendValues(s, nil)
	return b.NewArray()
}

// Apply scores rec.
func (o *Operator) Apply(_ context.Context, rec arrow.Record) (arrow.Record, error) {
	s, err := o.scorers.Get()
	if err != nil {
		return nil, err
	}
	defer o.scorers.Put(s)
	res, err := s.Score(rec)
	if err != nil {
		return nil, err
	}
	return attach.Record(o.out, rec, o.columns(res)), nil
}

// columns turns a result into arrays in the order of Fields.
func (o *Operator) columns(r *vae.Result) []arrow.Array {
	rows := len(r.Score)
	status := make([]int32, rows)
	severity := make([]float32, rows)
	judged := array.NewBooleanBuilder(o.mem)
	defer judged.Release()
	for i := range rows {
		status[i] = statusOf(r, i)
		severity[i] = vae.Severity(r.P[i])
		switch statuses[status[i]] {
		case Missing, Misfit, Failed:
			judged.AppendNull()
		default:
			judged.Append(r.Anomaly[i])
		}
	}
	out := []arrow.Array{o.floats(r.Score), o.floats(r.Recon), o.floats(r.KL), o.doubles(r.P), o.floats(severity),
		judged.NewArray(), o.labels(status, o.status), o.labels(make([]int32, rows), o.model)}
	if o.c.Top >= 0 {
		out = append(out, o.top(r))
	}
	if o.c.Error {
		out = append(out, o.floats(r.Error))
	}
	if o.c.Latent {
		out = append(out, Lists(o.mem, o.c.Model, r.Mu), Lists(o.mem, o.c.Model, r.LogVar))
	}
	if o.c.Reconstruction {
		out = append(out, o.c.Model.Rebuild(o.mem, r.Out, false)...)
	}
	return out
}

// statusOf returns the place in statuses of the gravest thing about row i.
func statusOf(r *vae.Result, i int) int32 {
	switch f := r.Flags[i]; {
	case r.Score[i]-r.Score[i] != 0:
		return 5
	case f&vae.Misfit != 0:
		return 4
	case f&vae.TooMissing != 0:
		return 1
	case f&vae.NonFinite != 0:
		return 3
	case f&vae.Unseen != 0:
		return 2
	}
	return 0
}

func (o *Operator) floats(v []float32) arrow.Array {
	b := array.NewFloat32Builder(o.mem)
	defer b.Release()
	b.AppendValues(v, nil)
	return b.NewArray()
}

func (o *Operator) doubles(v []float64) arrow.Array {
	b := array.NewFloat64Builder(o.mem)
	defer b.Release()
	b.AppendValues(v, nil)
	return b.NewArray()
}

func (o *Operator) labels(index []int32, dict arrow.Array) arrow.Array {
	b := array.NewInt32Builder(o.mem)
	defer b.Release()
	b.AppendValues(index, nil)
	at := b.NewArray()
	defer at.Release()
	return array.NewDictionaryArray(labelType, at, dict)
}

// Lists makes a fixed-size list column of values [rows][latent].
func Lists(mem memory.Allocator, m *vae.Model, v []float32) arrow.Array {
	n := m.Spec.Latent
	b := array.NewBuilder(mem, LatentFields(m)[0].Type).(*array.FixedSizeListBuilder)
	defer b.Release()
	for range len(v) / n {
		b.Append(true)
	}
	b.ValueBuilder().(*array.Float32Builder).AppendValues(v, nil)
	return b.NewArray()
}

func (o *Operator) top(r *vae.Result) arrow.Array {
	b := array.NewListBuilder(o.mem, topType.Elem())
	defer b.Release()
	s := b.ValueBuilder().(*array.StructBuilder)
	name, part := s.FieldBuilder(0).(*array.StringBuilder), s.FieldBuilder(1).(*array.Float32Builder)
	value, want := s.FieldBuilder(2).(*array.StringBuilder), s.FieldBuilder(3).(*array.StringBuilder)
	deviation := s.FieldBuilder(4).(*array.Float64Builder)
	for _, blames := range r.Top {
		if blames == nil {
			b.AppendNull()
			continue
		}
		b.Append(true)
		for _, x := range blames {
			s.Append(true)
			name.Append(x.Column)
			part.Append(x.Contribution)
			value.Append(x.Value)
			want.Append(x.Expected)
			if math.IsNaN(x.Deviation) {
				deviation.AppendNull()
			} else {
				deviation.Append(x.Deviation)
			}
		}
	}
	return b.NewArray()
}
