package vae_test

import (
	"testing"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/vae"
)

func TestSpecFields(t *testing.T) {
	s := vae.Spec{Columns: []vae.Column{
		{Name: "amount", Kind: vae.Numeric, Type: "float64"},
		{Name: "ratio", Kind: vae.Numeric, Type: "float32"},
		{Name: "count", Kind: vae.Numeric, Type: "int32"},
		{Name: "online", Kind: vae.Boolean, Type: "bool"},
		{Name: "country", Kind: vae.Categorical, Type: "utf8"},
		{Name: "shop", Kind: vae.Categorical, Type: "int32"},
		{Name: "embedding", Kind: vae.Vector, Width: 3},
		{Name: "at", Kind: vae.Timestamp},
	}}
	want := []string{"float64", "float32", "float64", "bool", "utf8", "int64", "fixed_size_list<item: float32, nullable>[3]", "timestamp[us, tz=UTC]"}
	got := s.Fields()
	for i, f := range got {
		if f.Type.String() != want[i] || f.Name != s.Columns[i].Name || !f.Nullable {
			t.Errorf("column %s: got %v, want %s", s.Columns[i].Name, f, want[i])
		}
	}
	if len(arrow.NewSchema(got, nil).Fields()) != len(want) {
		t.Errorf("got %d fields, want %d", len(got), len(want))
	}
}
