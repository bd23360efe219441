package builtin_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elbo-stream/elbo/internal/builtin"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/config"
)

// Settings of the threshold step that do not go together are told with their place.
func TestThresholdFaults(t *testing.T) {
	tiny := model(t)
	limits := filepath.Join(t.TempDir(), "limits.json")
	if err := os.WriteFile(limits, []byte(`{"format":"elbo-limits","version":1,"model":"other@1","by":"merchant","limit":3,"keys":[]}`), 0o666); err != nil {
		t.Fatal(err)
	}
	for step, want := range map[string]string{
		"{}":                                                        "no rule: give",
		"{target_rate: 0.1, above: 3}":                              "different rules",
		"{fdr: 0.1, table: x.json}":                                 "different rules",
		"{above: 3, pot: true, model: m.elbo}":                      "pot: goes with target_rate",
		"{target_rate: 0.1, pot: true}":                             "model: pot, quantile",
		"{target_rate: 0.1, model: m.elbo}":                         "model: goes with",
		"{above: 3, by: merchant}":                                  "by: goes with table",
		"{quantile: 0.9, model: absent.elbo}":                       "absent.elbo: no such file",
		"{table: absent.json}":                                      "calibrate --by",
		"{fdr: 2}":                                                  "fdr 2",
		fmt.Sprintf("{quantile: 0.9999, model: %q}", tiny):          "up to 0.9",
		fmt.Sprintf("{fdr: 0.1, p: conformal, model: %q}", tiny):    "calibrate on more rows",
		fmt.Sprintf("{table: %q}", limits):                          "of model other@1",
		"{fdr: 0.1, by: amount, dependence: maybe}":                 "dependence",
		"{fdr: 0.1, by: amount}":                                    "is no key",
		fmt.Sprintf("{target_rate: 3, pot: true, model: %q}", tiny): "target rate 3",
	} {
		path := filepath.Join(t.TempDir(), "elbo.yaml")
		text := document("generate: {rows: 10}", fmt.Sprintf("score: {model: %q}}, {threshold: %s", tiny, step), fmt.Sprintf("parquet: {path: %q}", filepath.Join(t.TempDir(), "x.parquet")))
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		err := check(t, path)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", step, err, want)
		}
	}
}

// check loads, builds and binds a pipeline file.
func check(t *testing.T, path string) error {
	t.Helper()
	p, faults := config.Load(path, builtin.Registry(builtin.Env{}), config.Options{})
	if err := faults.Err(); err != nil {
		return err
	}
	c, faults := p.Build(t.Context(), config.Env{})
	if err := faults.Err(); err != nil {
		return err
	}
	_, err := pipeline.Bind(t.Context(), c)
	return errors.Join(err, c.Source.Close(), c.Sinks[0].Sink.Close())
}

// Each rule binds, and judges rows when it runs.
func TestThresholdRules(t *testing.T) {
	tiny := model(t)
	m, err := builtin.Load(tiny)
	if err != nil {
		t.Fatal(err)
	}
	limits := filepath.Join(t.TempDir(), "limits.json")
	text := fmt.Sprintf(`{"format":"elbo-limits","version":1,"model":%q,"by":"merchant","limit":3,"keys":[{"key":"rail","limit":1,"rows":300}]}`, m.ID())
	if err := os.WriteFile(limits, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{
		fmt.Sprintf("{target_rate: 0.01, pot: true, model: %q}", tiny),
		fmt.Sprintf("{quantile: 0.9, model: %q}", tiny),
		"{fdr: 0.1, window: 20, by: merchant, dependence: any}",
		fmt.Sprintf("{fdr: 0.5, window: 2, p: conformal, model: %q}", tiny),
		fmt.Sprintf("{table: %q}", limits),
		fmt.Sprintf("{table: %q, by: online}", limits),
	} {
		out := fmt.Sprintf("parquet: {path: %q}", filepath.Join(t.TempDir(), "out.parquet"))
		run(t, document("generate: {rows: 200}", fmt.Sprintf("score: {model: %q}}, {threshold: %s", tiny, step), out))
	}
}
