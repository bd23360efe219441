package parquet_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/parquetio"
	"github.com/elbo-stream/elbo/sinks/parquet"
)

// What operators say of the rows in the schema's metadata stands in the file; the
// file's own pairs win, and foreign keys stay out.
func TestSchemaMetadataGoesIntoTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.parquet")
	s, err := parquet.New(parquet.Config{Path: path, Metadata: map[string]string{"elbo.version": "own"}})
	if err != nil {
		t.Fatal(err)
	}
	meta := arrow.NewMetadata([]string{"elbo.model", "elbo.version", "pandas"}, []string{"pay@12", "other", "{}"})
	schema := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.PrimitiveTypes.Int32}}, &meta)
	for _, err := range []error{s.Bind(schema), s.Flush(context.Background()), s.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parquetio.Open(bytes.NewReader(b), int64(len(b)), path)
	if err != nil {
		t.Fatal(err)
	}
	got := f.Metadata()
	if got["elbo.model"] != "pay@12" || got["elbo.version"] != "own" {
		t.Errorf("Metadata() = %v", got)
	}
	if _, there := got["pandas"]; there {
		t.Errorf("Metadata() has a foreign key: %v", got)
	}
}
