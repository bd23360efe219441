package threshold_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/operators/threshold"
)

// scored has rows of (p, score, judged).
func scored() arrow.Record {
	b := array.NewRecordBuilder(memory.NewGoAllocator(), arrow.NewSchema([]arrow.Field{
		{Name: score.P, Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: score.Score, Type: arrow.PrimitiveTypes.Float32},
		{Name: score.Anomaly, Type: arrow.FixedWidthTypes.Boolean, Nullable: true}}, nil))
	defer b.Release()
	b.Field(0).(*array.Float64Builder).AppendValues([]float64{0.5, 0.01, 0.001, 0.001, 0, math.NaN()}, []bool{true, true, true, true, false, true})
	b.Field(1).(*array.Float32Builder).AppendValues([]float32{1, 5, 9, 9, 9, 9}, nil)
	b.Field(2).(*array.BooleanBuilder).AppendValues(make([]bool, 6), []bool{true, true, true, false, true, true})
	return b.NewRecord()
}

func TestRules(t *testing.T) {
	five := 5.0
	for want, c := range map[string]threshold.Config{
		"[false true true (null) (null) (null)]":   {TargetRate: 0.01},
		"[false false true (null) (null) (null)]":  {TargetRate: 0.005},
		"[false false true (null) true true]":      {Above: &five}, // above, not at
		"[false false false (null) (null) (null)]": {Above: &five, Column: score.P},
	} {
		op, err := threshold.New(c)
		if err != nil {
			t.Fatal(err)
		}
		in := scored()
		if out, err := op.Bind(in.Schema()); err != nil || !out.Equal(in.Schema()) {
			t.Fatalf("Bind = %v, %v; want the same schema", out, err)
		}
		out, err := op.Apply(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(out.Column(2)); got != want {
			t.Errorf("%+v: %s, want %s", c, got, want)
		}
	}
}

func TestFaults(t *testing.T) {
	nan, one := math.NaN(), 1.0
	for _, c := range []threshold.Config{{}, {TargetRate: 1}, {TargetRate: -1}, {TargetRate: nan}, {TargetRate: 0.1, Above: &one},
		{Above: &nan}, {TargetRate: 0.1, Column: "x"}} {
		if _, err := threshold.New(c); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
	op, err := threshold.New(threshold.Config{Above: &one, Column: score.Anomaly})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := op.Bind(scored().Schema()); err == nil {
		t.Error("a boolean can be compared")
	}
	if _, err := op.Bind(arrow.NewSchema(nil, nil)); err == nil {
		t.Error("Bind without columns: no error")
	}
}

func ExampleNew() {
	op, err := threshold.New(threshold.Config{TargetRate: 0.01})
	if err != nil {
		fmt.Println(err)
		return
	}
	in := scored()
	defer in.Release()
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
	fmt.Println(out.Column(2))
	// Output: [false true true (null) (null) (null)]
}
