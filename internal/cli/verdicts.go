package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"github.com/spf13/pflag"

	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/operators/threshold"
	"github.com/elbo-stream/elbo/pipeline"
	source "github.com/elbo-stream/elbo/sources/parquet"
	"github.com/elbo-stream/elbo/vae"
)

// fdrFlags bound the share of false discoveries.
type fdrFlags struct {
	fdr    float64
	window int
	method string
	p      string
}

// online is the method of pipelines, which do not see a window's end.
const online = "online"

func (f *fdrFlags) add(fl *pflag.FlagSet) {
	fl.Float64Var(&f.fdr, "fdr", 0, "flag so that at most this share of a window's flagged rows is expected to be normal, such as 0.1")
	fl.IntVar(&f.window, "window", 1000, "rows in a window of --fdr")
	fl.StringVar(&f.method, "fdr-method", "bh", "bh, by (any dependence), storey, or online (as the threshold step of a pipeline)")
	fl.StringVar(&f.p, "fdr-p", "tail", "p-values of --fdr: tail (elbo_p) or conformal")
}

func (f *fdrFlags) faults() (faults []error) {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(f.fdr >= 0 && f.fdr < 1, "--fdr %v: want a share above 0 and below 1, such as 0.1", f.fdr)
	check(f.window >= 1 && f.window <= threshold.MaxWindow, "--window %d: want 1 to %d rows", f.window, threshold.MaxWindow)
	check(f.method == online || threshold.Correction(f.method).Valid() == nil, "--fdr-method %q: want bh, by, storey or online", f.method)
	check(f.p == "tail" || f.p == "conformal", "--fdr-p %q: want tail or conformal", f.p)
	return faults
}

// conformal is the calibration that p-values are read from, nil for elbo_p.
func (f *fdrFlags) conformal(m *vae.Model) *vae.Calibration {
	if f.p == "conformal" {
		return m.Calibration
	}
	return nil
}

// hold wraps a sink so that it decides by windows, where the flags ask for it.
func (f *fdrFlags) hold(to pipeline.Sink, m *vae.Model, mem memory.Allocator) pipeline.Sink {
	if f.fdr == 0 || f.method == online {
		return to
	}
	return &windowed{Sink: to, size: f.window, fdr: f.fdr, rule: threshold.Correction(f.method), conformal: f.conformal(m), mem: mem}
}

// verdicts adds the step that decides by another rule than the model's limit.
func (f *scoreFlags) verdicts(a *app, m *vae.Model, ops []pipeline.NamedOperator) ([]pipeline.NamedOperator, error) {
	add := func(op pipeline.Operator) []pipeline.NamedOperator {
		return append(ops, pipeline.NamedOperator{Name: "threshold", Operator: op})
	}
	if f.fdr.fdr != 0 && f.fdr.p == "conformal" && m.Calibration.Trained > 0 {
		a.warn("the model's normal rows include training rows, so conformal p-values are approximate; `elbo calibrate -i` with other normal rows makes them exact")
	}
	switch {
	case f.limits != "":
		t, err := threshold.LoadTable(f.limits)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("limits: %s: no such file; `elbo calibrate --by` makes one", f.limits)
		}
		if err != nil {
			return nil, badConfig(err)
		}
		f.table = t
		if f.by == "" {
			f.by = t.By
		}
		op, err := threshold.New(threshold.Config{Table: t, Allocator: a.mem})
		if err != nil {
			return nil, badConfig(err)
		}
		return add(op), nil
	case f.fdr.fdr != 0 && f.fdr.method == online:
		op, err := threshold.NewStream(threshold.StreamConfig{FDR: f.fdr.fdr, Window: f.fdr.window, Conformal: f.fdr.conformal(m), Allocator: a.mem})
		if err != nil {
			return nil, badConfig(err)
		}
		return add(op), nil
	}
	return ops, nil
}

// promise sets the achieved rates against what the rule promised.
func (f *scoreFlags) promise(s *summary, g *groups) {
	promised := 0.0
	switch {
	case f.fdr.fdr != 0:
		s.Rule = "fdr"
		return
	case f.table != nil:
		s.Rule, promised = f.table.Rule+", by "+f.table.By, f.table.TargetRate
	default:
		c := f.c.Model.Calibration
		s.Rule, promised = ruleName(c), c.TargetRate
	}
	s.Rate = alertRate(int(s.Anomalies), int(s.Rows-s.NotJudged), promised)
	s.Keys = g.rates(promised, f.table)
}

// groups counts flagged rows by the values of a column.
type groups struct {
	at     int // the column, -1 without
	counts map[string]*[2]int
}

// groups finds the column of --by, which the input must have.
func (f *scoreFlags) groups(ctx context.Context, src *source.Source) (*groups, error) {
	g := &groups{at: -1, counts: map[string]*[2]int{}}
	if f.by == "" {
		return g, nil
	}
	schema, err := src.Schema(ctx)
	if err != nil {
		return nil, err
	}
	if err := findColumn(schema, "by", f.by, &g.at); err != nil {
		return nil, err
	}
	return g, wrapFlag("by", f.by, threshold.CheckKey(schema.Field(g.at).Type))
}

// add counts the rows of a scored record.
func (g *groups) add(rec arrow.Record) error {
	if g.at < 0 {
		return nil
	}
	key, judged := rec.Column(g.at), rec.Column(rec.Schema().FieldIndices(score.Anomaly)[0]).(*array.Boolean)
	read, err := threshold.Keys(key)
	if err != nil {
		return err
	}
	var buf []byte
	for i := range judged.Len() {
		if judged.IsNull(i) || key.IsNull(i) {
			continue
		}
		buf = read(buf[:0], i)
		c, ok := g.counts[string(buf)]
		if !ok && len(g.counts) >= threshold.MaxKeys {
			continue // rows beyond so many keys are in the sum only
		}
		if !ok {
			c = new([2]int)
			g.counts[string(buf)] = c
		}
		c[1]++
		if judged.Value(i) {
			c[0]++
		}
	}
	return nil
}

// rates returns what was counted, nil without a column.
func (g *groups) rates(promised float64, t *threshold.Table) (out []keyRate) {
	for key, c := range g.counts {
		k := keyRate{Key: key, Rate: alertRate(c[0], c[1], promised)}
		if t != nil {
			k.Limit, _ = t.LimitOf([]byte(key))
		}
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b keyRate) int { return cmp.Compare(a.Key, b.Key) })
	return out
}
