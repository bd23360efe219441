package score_test

import (
	"fmt"
	"testing"

	"github.com/elbo-stream/elbo/operators/internal/optest"
	"github.com/elbo-stream/elbo/operators/score"
)

func TestSchemaSaysWhatJudgedTheRows(t *testing.T) {
	m, err := optest.Model()
	if err != nil {
		t.Fatal(err)
	}
	out, err := score.New(score.Config{Model: m}).Bind(optest.Schema())
	if err != nil {
		t.Fatal(err)
	}
	meta := out.Metadata().ToMap()
	if meta[score.MetaModel] != m.ID() || meta[score.MetaLimit] != fmt.Sprint(m.Calibration.Limit) {
		t.Errorf("metadata %v, want %s and %v", meta, m.ID(), m.Calibration.Limit)
	}
}
