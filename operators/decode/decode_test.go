package decode_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"

	"github.com/elbo-stream/elbo/operators/decode"
	"github.com/elbo-stream/elbo/operators/internal/optest"
)

func latents(json string, t arrow.DataType) arrow.Record {
	schema := arrow.NewSchema([]arrow.Field{{Name: "z", Type: t, Nullable: true}}, nil)
	rec, _, err := array.RecordFromJSON(memory.NewGoAllocator(), schema, strings.NewReader(json))
	if err != nil {
		panic(err)
	}
	return rec
}

func TestBadLatents(t *testing.T) {
	m, err := optest.Model() // of three latents
	if err != nil {
		t.Fatal(err)
	}
	list := arrow.ListOf(arrow.PrimitiveTypes.Float32)
	for json, want := range map[string]string{
		`[{"z":[0,0,0]}]`:                   "",
		`[{"z":[0,0,0]},{"z":null}]`:        "row 1 of the batch is null",
		`[{"z":[0,0]}]`:                     "has 2 latents",
		`[{"z":[0,null,0]}]`:                "latent 1",
		`[{"z":[0,0,0]},{"z":[0,0,"NaN"]}]`: "row 1",
	} {
		op := decode.New(decode.Config{Model: m, Column: "z"})
		in := latents(json, list)
		if _, err := op.Bind(in.Schema()); err != nil {
			t.Fatal(err)
		}
		_, err := op.Apply(t.Context(), in)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", json, err, want)
		}
	}
	for _, typ := range []arrow.DataType{arrow.PrimitiveTypes.Float32, arrow.ListOf(arrow.PrimitiveTypes.Float64), arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32)} {
		if _, err := decode.New(decode.Config{Model: m, Column: "z"}).Bind(latents(`[]`, typ).Schema()); err == nil {
			t.Errorf("latents of type %s: no error", typ)
		}
	}
	if _, err := decode.New(decode.Config{Model: m}).Bind(latents(`[]`, list).Schema()); err == nil || !strings.Contains(err.Error(), "encode first") {
		t.Errorf("no latents: error %v", err)
	}
}

func ExampleNew() {
	m, err := optest.Model()
	if err != nil {
		fmt.Println(err)
		return
	}
	op := decode.New(decode.Config{Model: m, Column: "z"})
	in := latents(`[{"z":[0,0,0]}]`, arrow.ListOf(arrow.PrimitiveTypes.Float32))
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
	fmt.Println(out.ColumnName(1), out.ColumnName(2))
	// Output: elbo_reconstruction_x elbo_sd_x
}
