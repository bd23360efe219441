package score_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/operators/decode"
	"github.com/elbo-stream/elbo/operators/encode"
	"github.com/elbo-stream/elbo/operators/internal/optest"
	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/operators/threshold"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
	"github.com/elbo-stream/elbo/vae"
)

func model(t *testing.T) *vae.Model {
	t.Helper()
	m, err := optest.Model()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// apply binds the operators one after the other and applies them to rec.
func apply(t *testing.T, rec arrow.Record, ops ...pipeline.Operator) arrow.Record {
	t.Helper()
	for _, op := range ops {
		if _, err := op.Bind(rec.Schema()); err != nil {
			t.Fatalf("Bind: %v", err)
		}
		var err error
		if rec, err = op.Apply(t.Context(), rec); err != nil {
			t.Fatalf("Apply: %v", err)
		}
		t.Cleanup(rec.Release)
	}
	return rec
}

func column(t *testing.T, rec arrow.Record, name string) arrow.Array {
	t.Helper()
	at := rec.Schema().FieldIndices(name)
	if len(at) != 1 {
		t.Fatalf("%d columns %q in %v", len(at), name, rec.Schema())
	}
	return rec.Column(at[0])
}

func TestConformance(t *testing.T) {
	m := model(t)
	configs := map[string]score.Config{
		"plain": {}, "no blame": {Top: -1}, "samples": {Samples: 3, Seed: 7},
		"everything": {Top: 100, TopAll: true, Error: true, Latent: true, Reconstruction: true},
	}
	for name, c := range configs {
		c.Model = m
		t.Run(name, func(t *testing.T) {
			pipelinetest.Operator(t, pipelinetest.OperatorTest{Inputs: optest.Inputs(),
				New: func(_ *testing.T, mem memory.Allocator) pipeline.Operator {
					c := c
					c.Allocator = mem
					return score.New(c)
				}})
		})
	}
	encoded := func() (out []arrow.Record) {
		for _, in := range optest.Inputs() {
			out = append(out, apply(t, in, encode.New(encode.Config{Model: m})))
		}
		return out
	}
	t.Run("encode", func(t *testing.T) {
		pipelinetest.Operator(t, pipelinetest.OperatorTest{Inputs: optest.Inputs(),
			New: func(_ *testing.T, mem memory.Allocator) pipeline.Operator {
				return encode.New(encode.Config{Model: m, Allocator: mem})
			}})
	})
	t.Run("decode", func(t *testing.T) {
		pipelinetest.Operator(t, pipelinetest.OperatorTest{Inputs: encoded(),
			New: func(_ *testing.T, mem memory.Allocator) pipeline.Operator {
				return decode.New(decode.Config{Model: m, Allocator: mem})
			}})
	})
	t.Run("threshold", func(t *testing.T) {
		var scored []arrow.Record
		for _, in := range optest.Inputs() {
			scored = append(scored, apply(t, in, score.New(score.Config{Model: m})))
		}
		pipelinetest.Operator(t, pipelinetest.OperatorTest{Inputs: scored,
			New: func(t *testing.T, mem memory.Allocator) pipeline.Operator {
				op, err := threshold.New(threshold.Config{TargetRate: 0.1, Allocator: mem})
				if err != nil {
					t.Fatal(err)
				}
				return op
			}})
	})
}

// Encode then decode is what score rebuilds, bit for bit; the latents are equal.
func TestEncodeThenDecode(t *testing.T) {
	m := model(t)
	in := optest.Record(append(optest.Strange(), optest.Normal(150)...)...)
	scored := apply(t, in, score.New(score.Config{Model: m, Latent: true, Reconstruction: true}))
	coded := apply(t, in, encode.New(encode.Config{Model: m}), decode.New(decode.Config{Model: m}))
	names := []string{score.Mu, score.LogVar}
	for _, f := range m.Spec.RebuiltFields(false) {
		names = append(names, f.Name)
	}
	for _, name := range names {
		if a, b := column(t, scored, name), column(t, coded, name); !array.Equal(a, b) {
			t.Errorf("column %s: score has %v, encode and decode %v", name, a, b)
		}
	}
	for _, f := range m.Spec.RebuiltFields(true) {
		if c := column(t, coded, f.Name); c.NullN() > 0 {
			t.Errorf("column %s has nulls", f.Name)
		}
	}
}

func TestStatuses(t *testing.T) {
	m := model(t)
	normal := optest.Normal(1)
	rec := apply(t, optest.Record(append(optest.Strange(), normal...)...), score.New(score.Config{Model: m}))
	status := column(t, rec, score.Status)
	anomaly := column(t, rec, score.Anomaly).(*array.Boolean)
	want := []struct {
		status string
		judged bool
	}{{score.OK, true}, {score.Unseen, true}, {score.NonFinite, true}, {score.NonFinite, true}, {score.Missing, false},
		{score.Misfit, false}, {score.Missing, false}, {score.OK, true}}
	for i, w := range want {
		if got := status.ValueStr(i); got != w.status || anomaly.IsValid(i) != w.judged {
			t.Errorf("row %d: status %s, judged %v; want %s, %v", i, got, anomaly.IsValid(i), w.status, w.judged)
		}
	}
	if !anomaly.Value(0) || anomaly.Value(7) {
		t.Errorf("the far row is an anomaly: %v, the normal one: %v", anomaly.Value(0), anomaly.Value(7))
	}
	if id := column(t, rec, score.ModelID).ValueStr(0); id != m.ID() || !strings.HasPrefix(id, "small@") {
		t.Errorf("elbo_model is %q, want %q", id, m.ID())
	}
	if p, s := column(t, rec, score.P).(*array.Float64), column(t, rec, score.Severity).(*array.Float32); p.Value(0) >= p.Value(7) || s.Value(0) != vae.Severity(p.Value(0)) {
		t.Errorf("p %v, severity %v of a far row; p %v of a normal one", p.Value(0), s.Value(0), p.Value(7))
	}
}

// Blame is sorted, and with every column and latent in it adds up to the score.
func TestTop(t *testing.T) {
	m := model(t)
	in := optest.Record(append(optest.Strange(), optest.Normal(100)...)...)
	all := apply(t, in, score.New(score.Config{Model: m, Top: 100, TopAll: true}))
	scores, recon, kl := column(t, all, score.Score).(*array.Float32), column(t, all, score.Recon).(*array.Float32), column(t, all, score.KL).(*array.Float32)
	top := column(t, all, score.Top).(*array.List)
	parts := top.ListValues().(*array.Struct).Field(1).(*array.Float32)
	for i := range top.Len() {
		lo, hi := top.ValueOffsets(i)
		sum, size, last := 0.0, 0.0, math.Inf(1)
		for j := int(lo); j < int(hi); j++ {
			v := float64(parts.Value(j))
			if v > last {
				t.Errorf("row %d: %v comes after %v", i, v, last)
			}
			sum, size, last = sum+v, size+math.Abs(v), v
		}
		if s := float64(scores.Value(i)); math.Abs(sum-s) > 1e-5*(1+size) || recon.Value(i) != recon.Value(i) || !(kl.Value(i) >= 0) {
			t.Errorf("row %d: parts add up to %v, score %v = %v + %v", i, sum, s, recon.Value(i), kl.Value(i))
		}
	}
	if name := top.ListValues().(*array.Struct).Field(0).ValueStr(0); name != "x" {
		t.Errorf("the row with x = 1e12 blames %q first", name)
	}
	flagged := apply(t, in, score.New(score.Config{Model: m, Top: 2}))
	few, anomaly := column(t, flagged, score.Top).(*array.List), column(t, flagged, score.Anomaly).(*array.Boolean)
	for i := range few.Len() {
		lo, hi := few.ValueOffsets(i)
		if anomaly.IsValid(i) && (few.IsValid(i) != anomaly.Value(i) || anomaly.Value(i) && hi-lo != 2) {
			t.Errorf("row %d: anomaly %v has %d blamed", i, anomaly.Value(i), hi-lo)
		}
	}
	if none := apply(t, in, score.New(score.Config{Model: m, Top: -1})); len(none.Schema().FieldIndices(score.Top)) > 0 {
		t.Error("Top -1 gives the column elbo_top")
	}
}

func TestBindFaults(t *testing.T) {
	m := model(t)
	with := func(names ...string) *arrow.Schema {
		fields := optest.Schema().Fields()
		for _, n := range names {
			fields = append(fields, arrow.Field{Name: n, Type: arrow.PrimitiveTypes.Float32})
		}
		return arrow.NewSchema(fields, nil)
	}
	_, err := score.New(score.Config{Model: m}).Bind(with(score.KL, "more", score.Score))
	if err == nil || !strings.Contains(err.Error(), "elbo_score, elbo_kl") {
		t.Errorf("columns that exist: error %v, want both named", err)
	}
	if _, err := encode.New(encode.Config{Model: m}).Bind(with(score.Mu)); err == nil || !strings.Contains(err.Error(), score.Mu) {
		t.Errorf("encode twice: error %v", err)
	}
	fields := slices.Delete(optest.Schema().Fields(), 0, 2)
	var faults *vae.SchemaError
	for _, op := range []pipeline.Operator{score.New(score.Config{Model: m}), encode.New(encode.Config{Model: m})} {
		if _, err := op.Bind(arrow.NewSchema(fields, nil)); !errors.As(err, &faults) || len(faults.Faults) != 2 {
			t.Errorf("%T without two columns: error %v, want a SchemaError with both", op, err)
		}
	}
}

func ExampleNew() {
	m, err := optest.Model()
	if err != nil {
		fmt.Println(err)
		return
	}
	rows := optest.Normal(2)
	rows[1].X = 1e6 // far from the 0 to 10 of training
	in := optest.Record(rows...)
	defer in.Release()

	op := score.New(score.Config{Model: m})
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
	at := out.Schema().FieldIndices(score.Anomaly)[0]
	fmt.Println(out.Column(at))
	// Output: [false true]
}
