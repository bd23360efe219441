package cli_test

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/elbo-stream/elbo/internal/cli"
)

var update = flag.Bool("update", false, "rewrite the generated reference pages")

// The reference pages are printed by the program itself; `go test
// ./internal/cli -update` writes them anew.
func TestReferencePagesAreFresh(t *testing.T) {
	for path, args := range map[string][]string{
		"../../docs/reference/pipeline.md":      {"list", "--reference"},
		"../../docs/reference/elbo.schema.json": {"schema"},
	} {
		var out, errs bytes.Buffer
		if code := cli.Main(args, &out, &errs); code != cli.ExitDone {
			t.Fatalf("elbo %v: exit code %d: %s", args, code, errs.String())
		}
		if *update {
			if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s is stale: run go test ./internal/cli -update", path)
		}
	}
}
