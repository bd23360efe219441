package e2e_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/elbo-stream/elbo"

// A room is a package or, with /... at its end, a package and all below it.
// Rooms are looked up from the top: the first that fits is the one.
type room struct {
	path string
	// may lists rooms of this module that its code may import.
	may []string
	// libs lists prefixes of other modules that its code may import.
	libs []string
	// testsMay and testLibs are what its tests may import beyond that.
	testsMay, testLibs []string
}

const (
	arrow   = "github.com/apache/arrow/go/v15"
	gonum   = "gonum.org/v1/gonum"
	parquet = "github.com/parquet-go/parquet-go"
	yaml    = "go.yaml.in/yaml/v3"
	franz   = "github.com/twmb/franz-go"
)

// forbidden is what no package of the module may import, tests included.
var forbidden = map[string]string{
	"C":                  "cgo has no place on the default path",
	arrow + "/parquet":   "its symbols clash with those of arrow-go v18 in one binary; parquet-go reads Parquet here",
	"gopkg.in/yaml.v3":   "archived; use " + yaml,
	"github.com/go-yaml": "archived; use " + yaml,
}

// testTools is what every package's tests may import.
var testTools = []string{"pgregory.net/rapid", "go.uber.org/goleak", "github.com/google/go-cmp",
	"github.com/rogpeppe/go-internal", arrow}

// table is who may import whom: section by section, cmd -> internal ->
// sources|sinks|operators -> pipeline, and operators -> vae. A package that fits
// no row fails the test.
var table = []room{
	// The contracts and the engine know no Kafka, no YAML, no metrics library.
	{path: "pipeline", may: []string{"internal/durable"}, libs: []string{arrow},
		testsMay: []string{"pipeline/..."}},
	{path: "pipeline/config", may: []string{"pipeline", "internal/hint", "internal/durable"}, libs: []string{yaml, arrow},
		testsMay: []string{"pipeline/..."}},
	{path: "pipeline/checkpoint", may: []string{"pipeline", "internal/durable"}, testsMay: []string{"pipeline/..."}},
	{path: "pipeline/pipelinetest", may: []string{"pipeline", "internal/durable"},
		libs: []string{arrow, "go.uber.org/goleak", "pgregory.net/rapid"}, testsMay: []string{"pipeline/..."}},
	{path: "pipeline/codec/...", may: []string{"pipeline", "pipeline/codec/...", "internal/hint", "internal/slab"},
		libs: []string{arrow, "github.com/twmb/avro", "google.golang.org/protobuf", "github.com/bufbuild/protocompile", "github.com/klauspost/compress"}},

	// The model knows no pipeline.
	{path: "vae/internal/...", may: []string{"vae/internal/..."}, libs: []string{"golang.org/x/sys/cpu"}, testLibs: []string{gonum}},
	{path: "vae", may: []string{"vae/internal/...", "internal/durable", "internal/hint"}, libs: []string{arrow},
		testsMay: []string{"vae/..."}, testLibs: []string{gonum}},
	{path: "vae/train", may: []string{"vae", "vae/internal/...", "internal/durable"}, libs: []string{arrow, gonum},
		testsMay: []string{"vae/...", "sources/generate"}, testLibs: []string{gonum}},
	{path: "vae/compress", may: []string{"vae", "vae/train", "vae/eval", "vae/internal/..."}, libs: []string{arrow, gonum},
		testsMay: []string{"vae/..."}},
	{path: "vae/eval/baseline", may: []string{"vae/internal/forest"}, libs: []string{gonum}, testsMay: []string{"vae/eval"}},
	{path: "vae/eval", may: []string{"vae"}, libs: []string{arrow, gonum}},

	// Steps, columns in and columns out. encode, decode and threshold share the model
	// setting and the column names of score; score imports none of them.
	// Only tests import it: the model that they share has to be trained.
	{path: "operators/internal/optest", may: []string{"vae", "vae/train"}, libs: []string{arrow}},
	{path: "operators/...", may: []string{"pipeline", "vae", "operators/columns", "operators/score", "operators/internal/...", "internal/hint"},
		libs: []string{arrow}, testsMay: []string{"pipeline/pipelinetest", "vae/...", "sources/generate", "operators/..."}},

	// Ends. A source never imports a sink, nor a sink a source.
	{path: "sources/...", may: []string{"pipeline", "pipeline/codec/...", "internal/parquetio", "internal/kafka", "internal/hint", "internal/slab"},
		libs:     []string{arrow},
		testsMay: []string{"pipeline/...", "internal/durable", "sources/...", "internal/kafka/..."}, testLibs: []string{parquet, franz}},
	{path: "sinks/...", may: []string{"pipeline", "pipeline/codec/...", "internal/parquetio", "internal/kafka", "internal/durable", "internal/hint"},
		libs:     []string{arrow},
		testsMay: []string{"pipeline/...", "sinks/...", "internal/kafka/..."}, testLibs: []string{parquet, franz}},

	// What several rooms share.
	{path: "internal/durable", testsMay: []string{"pipeline/pipelinetest"}},
	{path: "internal/hint"},
	{path: "internal/slab", libs: []string{arrow}},
	{path: "internal/parquetio", may: []string{"internal/durable"},
		libs: []string{arrow, parquet, "github.com/klauspost/compress", "github.com/pierrec/lz4"}},
	{path: "internal/kafka", may: []string{"internal/hint"}, libs: []string{"github.com/segmentio/kafka-go", "github.com/klauspost/compress", "github.com/pierrec/lz4"},
		testsMay: []string{"internal/kafka/...", "internal/e2e/..."}, testLibs: []string{franz}},
	// Only tests import it: a broker, a proxy, a judge.
	{path: "internal/kafka/kafkatest", may: []string{"internal/kafka"}, libs: []string{franz}},
	{path: "internal/telemetry", may: []string{"pipeline"}, libs: []string{"github.com/prometheus", "go.opentelemetry.io"}},
	{path: "internal/web", may: []string{"pipeline"}},
	{path: "internal/builtin", may: []string{"pipeline/...", "operators/...", "sources/...", "sinks/...", "vae", "internal/durable", "internal/hint", "internal/kafka"},
		libs: []string{arrow}, testsMay: []string{"vae/..."}},
	// Measuring goes through the doors that users have; its tests run the engine too.
	{path: "internal/bench/...", may: []string{"vae/...", "internal/bench"}, libs: []string{arrow},
		testsMay: []string{"pipeline", "operators/score", "sources/generate"}},
	{path: "internal/cli", may: []string{"pipeline/...", "operators/...", "sources/...", "sinks/...", "vae/...", "internal/..."},
		libs: []string{arrow, "github.com/spf13", "golang.org/x/term", yaml}},
	{path: "internal/e2e/...", may: []string{"..."}, libs: []string{arrow, "github.com/spf13", "github.com/twmb/avro", "google.golang.org/protobuf", "github.com/bufbuild/protocompile", parquet, franz,
		"golang.org/x/sys/unix", "github.com/segmentio/kafka-go"}},
	{path: "cmd/elbo", may: []string{"internal/cli"}, testsMay: []string{"..."}, testLibs: []string{parquet}},
	// No part of the program: the broker of the streaming example is franz-go's fake one.
	{path: "examples/...", may: []string{"..."}, libs: []string{arrow, franz}},
}

// fits says whether a package path of the module lies in a room pattern.
func fits(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == below || strings.HasPrefix(path, below+"/")
	}
	return pattern == path
}

func fitsAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return fits(p, path) })
}

// isLib says whether an import path lies in one of the modules.
func isLib(libs []string, path string) bool {
	return slices.ContainsFunc(libs, func(l string) bool { return path == l || strings.HasPrefix(path, l+"/") })
}

// A pkg is what `go list` says of a package.
type pkg struct {
	path           string
	imports, tests []string
}

// judge returns what is wrong with a package's imports.
func judge(p pkg) (faults []string) {
	path := strings.TrimPrefix(p.path, module+"/")
	at := slices.IndexFunc(table, func(r room) bool { return fits(r.path, path) })
	if at < 0 {
		return []string{fmt.Sprintf("%s: no row of the table in internal/e2e/imports_test.go fits it; decide what it may import", path)}
	}
	r := table[at]
	look := func(imports, may, libs []string, of string) {
		for _, im := range imports {
			inner, ours := strings.CutPrefix(im, module+"/")
			first, _, _ := strings.Cut(im, "/")
			switch why, never := forbidden[longest(im)]; {
			case never:
				faults = append(faults, fmt.Sprintf("%s%s imports %s: %s", path, of, im, why))
			case ours && inner != path && !fitsAny(may, inner):
				faults = append(faults, fmt.Sprintf("%s%s imports %s, which house rules do not allow", path, of, inner))
			case !ours && strings.Contains(first, ".") && !isLib(libs, im):
				faults = append(faults, fmt.Sprintf("%s%s imports %s, which is not in its row of the table", path, of, im))
			}
		}
	}
	look(p.imports, r.may, r.libs, "")
	look(p.tests, append(slices.Clone(r.may), r.testsMay...), slices.Concat(r.libs, r.testLibs, testTools), " (tests)")
	return faults
}

// longest returns the forbidden prefix of an import path, or the path.
func longest(path string) string {
	for f := range forbidden {
		if path == f || strings.HasPrefix(path, f+"/") {
			return f
		}
	}
	return path
}

// list asks the go command for every package of the module.
func list(t *testing.T) (pkgs []pkg) {
	t.Helper()
	const format = `{{.ImportPath}}|{{join .Imports " "}}|{{join .TestImports " "}} {{join .XTestImports " "}}`
	cmd := exec.Command("go", "list", "-f", format, module+"/...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		pkgs = append(pkgs, pkg{f[0], strings.Fields(f[1]), strings.Fields(f[2])})
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list names %d packages, want the whole module", len(pkgs))
	}
	return pkgs
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range list(t) {
		for _, fault := range judge(p) {
			t.Error(fault)
		}
	}
}

// TestNothingForbiddenArrives looks at what is linked, not only at what our own
// packages name.
func TestNothingForbiddenArrives(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", module+"/cmd/...")
	cmd.Dir = root(t)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps: %v", err)
	}
	for path := range strings.FieldsSeq(string(out)) {
		if why, never := forbidden[longest(path)]; never || path == "runtime/cgo" {
			t.Errorf("cmd/elbo links %s: %s", path, why)
		}
	}
}

// TestPlantedArrows is the test of the test: each wrong import must be found.
func TestPlantedArrows(t *testing.T) {
	ours := func(p string) string { return module + "/" + p }
	for name, c := range map[string]struct {
		p    pkg
		want string
	}{
		"engine to model":   {pkg{ours("pipeline"), []string{"fmt", ours("vae")}, nil}, "pipeline imports vae"},
		"engine to YAML":    {pkg{ours("pipeline"), []string{yaml}, nil}, "not in its row"},
		"model to pipeline": {pkg{ours("vae"), []string{ours("pipeline")}, nil}, "vae imports pipeline"},
		"source to sink":    {pkg{ours("sources/parquet"), []string{ours("sinks/parquet")}, nil}, "imports sinks/parquet"},
		"test to sink":      {pkg{ours("sources/parquet"), nil, []string{ours("sinks/parquet")}}, "(tests) imports sinks/parquet"},
		"arrow's parquet":   {pkg{ours("vae"), []string{arrow + "/parquet/file"}, nil}, "symbols clash"},
		"cgo":               {pkg{ours("vae/internal/kernel"), []string{"C"}, nil}, "cgo"},
		"cgo in tests":      {pkg{ours("vae"), nil, []string{"C"}}, "cgo"},
		"unknown package":   {pkg{ours("util"), nil, nil}, "no row of the table"},
		"unknown library":   {pkg{ours("internal/hint"), []string{"example.com/x"}, nil}, "not in its row"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(judge(c.p), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("judge(%+v) = %q, want it to say %q", c.p, got, c.want)
			}
		})
	}
	fine := pkg{ours("operators/score"), []string{"context", arrow + "/arrow", ours("vae"), ours("pipeline")}, []string{"testing", "pgregory.net/rapid"}}
	if faults := judge(fine); faults != nil {
		t.Errorf("judge(%+v) = %q, want no fault", fine, faults)
	}
}
