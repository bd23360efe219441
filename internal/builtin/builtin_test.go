package builtin_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elbo-stream/elbo/internal/builtin"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/config"
	"github.com/elbo-stream/elbo/sources/generate"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/train"
)

func TestTableIsSound(t *testing.T) {
	if err := builtin.Registry(builtin.Env{}).Check(); err != nil {
		t.Error(err)
	}
}

// model trains a tiny model into a folder and returns its path.
func model(t *testing.T) string {
	t.Helper()
	src, err := generate.New(generate.Config{Rows: 300, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var data train.Records
	for b, err := range src.Batches(ctx, nil) {
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, b.Record)
	}
	m, err := train.Run(ctx, train.Config{Name: "tiny", Seed: 1, Steps: 5, Ignore: []string{"id", "time"},
		Network: vae.Spec{Encoder: []vae.Layer{{Width: 4, Activation: "relu"}}, Decoder: []vae.Layer{{Width: 4, Activation: "relu"}}, Latent: 2}}, data)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tiny.elbo")
	if err := m.Save(path, false); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEveryKindBuilds takes each kind of the table through what `elbo check`
// does; a kind without a case here fails.
func TestEveryKindBuilds(t *testing.T) {
	dir, tiny := t.TempDir(), model(t)
	input := filepath.Join(dir, "input.parquet")
	const (
		gen  = "generate: {rows: 100}"
		none = ""
	)
	out := fmt.Sprintf("parquet: {path: %q}", filepath.Join(dir, "output.parquet"))
	run(t, document(gen, none, fmt.Sprintf("parquet: {path: %q}", input)))
	scored := fmt.Sprintf("score: {model: %q}", tiny)
	encoded := fmt.Sprintf("encode: {model: %q}", tiny)
	cases := map[string]string{
		"source parquet":  document(fmt.Sprintf("parquet: {paths: [%q], columns: [id, fee], batch_rows: 7}", input), none, out),
		"source generate": document("generate: {rows: 5, anomaly_rate: 0.5, kinds: [spike], label: true, partitions: 2}", none, out),
		"source kafka": document("kafka: {brokers: [localhost:1], topics: [payments], group: elbo, instance_id: a, start: 2026-01-01T00:00:00Z, "+
			"value: {format: json, columns: [fee float32 payment.fee, {name: country, type: string}]}}", none, out),
		"sink kafka": "delivery: exactly_once\n" + document("kafka: {brokers: [localhost:1], topic_pattern: 'pay.*', group: elbo, value: json}", scored,
			"kafka: {brokers: [localhost:1], topic: scores, where: elbo_anomaly, compression: zstd, commit: {rows: 750}}"),
		"operator select":    document(gen, "select: {drop: [id], rename: {fee: cost}, cast: {tax: float32}}", out),
		"operator score":     document(gen, fmt.Sprintf("score: {model: %q, top: 2, explain: all, error: true, samples: 2, reconstruction: true}", tiny), out),
		"operator threshold": document(gen, scored+"}, {threshold: {above: 7, column: elbo_recon}", out),
		"operator encode":    document(gen, encoded, out),
		"operator decode":    document(gen, encoded+fmt.Sprintf("}, {decode: {model: %q}", tiny), out),
		"sink parquet":       document(gen, none, fmt.Sprintf("parquet: {path: %q, roll: {rows: 10, size: 1MiB, age: 1m}, compression: snappy, append: true}", filepath.Join(dir, "parts"))),
	}
	reg := builtin.Registry(builtin.Env{})
	seen := map[string]bool{}
	check := func(name string, planned bool) {
		if planned {
			return
		}
		seen[name] = true
		text, ok := cases[name]
		if !ok {
			t.Errorf("%s: no case in this test", name)
			return
		}
		t.Run(name, func(t *testing.T) { bind(t, text) })
	}
	for _, k := range reg.Sources {
		check("source "+k.Name, k.Planned)
	}
	for _, k := range reg.Operators {
		check("operator "+k.Name, k.Planned)
	}
	for _, k := range reg.Sinks {
		check("sink "+k.Name, k.Planned)
	}
	for name := range cases {
		if !seen[name] {
			t.Errorf("case %q: no such kind", name)
		}
	}
}

// document is a pipeline file; operators may hold several, joined by "}, {".
func document(source, operators, sink string) string {
	if operators != "" {
		operators = "operators: [{" + operators + "}]\n"
	}
	return "source: {" + source + "}\n" + operators + "sinks: [{" + sink + "}]\n"
}

func build(t *testing.T, text string) pipeline.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "elbo.yaml")
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	p, faults := config.Load(path, builtin.Registry(builtin.Env{Version: "test"}), config.Options{})
	if err := faults.Err(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	c, faults := p.Build(context.Background(), config.Env{})
	if err := faults.Err(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

func bind(t *testing.T, text string) {
	t.Helper()
	c := build(t, text)
	plan, err := pipeline.Bind(context.Background(), c)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if plan.Out().NumFields() == 0 {
		t.Errorf("%s gives no columns", text)
	}
	if err := c.Source.Close(); err != nil {
		t.Error(err)
	}
	for _, s := range c.Sinks {
		if err := s.Sink.Close(); err != nil {
			t.Error(err)
		}
	}
}

func run(t *testing.T, text string) {
	t.Helper()
	if _, err := pipeline.Run(context.Background(), build(t, text)); err != nil {
		t.Fatal(err)
	}
}

func TestFaultsOfKinds(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"top below 1", document("generate: {rows: 1}", "score: {model: absent.elbo, top: -2}", "parquet: {path: x}"), "top: -2, want 1 or more"},
		{"one file that rolls", document("generate: {rows: 1}", "", "parquet: {path: x.parquet, roll: {rows: 5}}"), "x.parquet is one file, which cannot roll"},
		{"absent model", document("generate: {rows: 1}", "encode: {model: absent.elbo}", "parquet: {path: x}"), "absent.elbo: no such file; `elbo train` makes one"},
		{"planned", document("kafka: {topic: x}", "", "parquet: {path: x}"), "kafka"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "elbo.yaml")
			if err := os.WriteFile(path, []byte(c.text), 0o666); err != nil {
				t.Fatal(err)
			}
			p, faults := config.Load(path, builtin.Registry(builtin.Env{}), config.Options{})
			if faults.Err() == nil {
				_, faults = p.Build(context.Background(), config.Env{})
			}
			if err := faults.Err(); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "elbo.yaml:") {
				t.Errorf("got %v, want a place and %q", err, c.want)
			}
		})
	}
}

func ExampleRegistry() {
	reg := builtin.Registry(builtin.Env{Version: "1.2.3"})
	for _, k := range reg.Operators {
		if !k.Planned {
			fmt.Println(k.Name)
		}
	}
	// Output:
	// select
	// score
	// threshold
	// encode
	// decode
}

func ExampleLoad() {
	_, err := builtin.Load("absent.elbo")
	fmt.Println(err)
	// Output: model: absent.elbo: no such file; `elbo train` makes one
}
