package pipeline_test

import (
	"strings"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/pipeline/pipelinetest"
)

// A committing sink commits for its source, or says so.
type committing struct {
	*pipelinetest.StoreSink
	commits bool
}

func (c *committing) BindLetters(*arrow.Schema) error { return nil }
func (c *committing) Attach(pipeline.Source) error    { return nil }
func (c *committing) CommitsSource() bool             { return c.commits }

// TestCommitterStandsAlone: beside a sink that commits for the source stand only those
// that know where they are.
func TestCommitterStandsAlone(t *testing.T) {
	for _, c := range []struct {
		name    string
		commits bool
		beside  string // "", "plain" or "exact"
		letters string // "", "own" or "same"
		want    string
	}{
		{"alone", true, "", "", ""},
		{"takes dead letters", true, "", "same", ""},
		{"an exact sink", true, "exact", "same", ""},
		{"a plain sink", true, "plain", "", "sink more has no position of its own"},
		{"dead letters elsewhere", true, "", "own", "the dead letters go elsewhere"},
		{"it does not commit", false, "plain", "own", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, repeat(4, nil))
			cfg := b.config(pipelinetest.SourceOptions{BatchRows: 4}, pipelinetest.SinkOptions{})
			store, more := pipelinetest.NewStore(), pipelinetest.NewStore()
			defer store.Release()
			defer more.Release()
			plain := cfg.Sinks[0]
			plain.Name = "more"
			l := &committing{StoreSink: store.Open(pipelinetest.StoreOptions{}), commits: c.commits}
			cfg.Sinks = []pipeline.NamedSink{{Name: "out", Sink: l}}
			switch c.beside {
			case "plain":
				cfg.Sinks = append(cfg.Sinks, plain)
			case "exact":
				cfg.Sinks = append(cfg.Sinks, pipeline.NamedSink{Name: "more", Sink: more.Open(pipelinetest.StoreOptions{})})
			}
			if c.letters != "" {
				cfg = b.withDead(cfg)
			}
			if c.letters == "same" {
				cfg.DeadLetters = l
			}
			_, err := pipeline.Run(t.Context(), cfg)
			if got := err != nil && strings.Contains(err.Error(), c.want); c.want != "" && !got || c.want == "" && err != nil {
				t.Errorf("Run() = %v, want %q", err, c.want)
			}
		})
	}
}
