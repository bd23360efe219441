package cli

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/operators/score"
	"github.com/elbo-stream/elbo/pipeline"
	"github.com/elbo-stream/elbo/sources/generate"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
	"github.com/elbo-stream/elbo/vae/train"
)

// The demo's size: small enough to end in a few seconds.
const (
	demoTrainRows = 8_000
	demoRows      = 10_000
	demoRate      = 0.002
	demoSteps     = 1500
)

func (a *app) demo() *cobra.Command {
	var seed uint64
	var shown int
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Train on a synthetic stream, score another, and show the anomalies; needs no file and no broker",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := a.untilDrain(cmd.Context())
			defer cancel()
			return a.demoVerb(ctx, seed, shown)
		},
	}
	cmd.Flags().Uint64Var(&seed, "seed", 1, "of the stream and the training")
	cmd.Flags().IntVar(&shown, "rows", 20, "rows of the table")
	return cmd
}

// demoRow is a row of the demo's table.
type demoRow struct {
	id, kind, blame string
	score, recon    float32
	kl              float32
	severity        float32
	flagged         bool
}

func (a *app) demoVerb(ctx context.Context, seed uint64, shown int) error {
	started := time.Now()
	a.say("training on %s normal payments ...", count(demoTrainRows))
	model, err := a.demoModel(ctx, seed)
	if err != nil {
		return err
	}
	a.say("scoring %s more, of which about %.1f%% are planted anomalies ...", count(demoRows), 100*demoRate)
	src, err := generate.New(generate.Config{Rows: demoRows, Seed: seed + 1, AnomalyRate: demoRate, Label: true, Allocator: a.mem})
	if err != nil {
		return err
	}
	var rows []demoRow
	counts := &tally{Sink: &nowhere{}, each: func(rec arrow.Record) error { rows = append(rows, tableRows(rec)...); return nil }}
	stats, err := pipeline.Run(ctx, pipeline.Config{Source: src, Allocator: a.mem,
		Operators: []pipeline.NamedOperator{{Name: "score", Operator: score.New(score.Config{Model: model, TopAll: true, Top: 2, Allocator: a.mem})}},
		Sinks:     []pipeline.NamedSink{{Name: "table", Sink: counts}}})
	if err != nil {
		return err
	}
	return a.printDemo(rows, model, shown, stats.Elapsed, time.Since(started))
}

// demoModel trains on normal rows.
func (a *app) demoModel(ctx context.Context, seed uint64) (*vae.Model, error) {
	src, err := generate.New(generate.Config{Rows: demoTrainRows, Seed: seed, Allocator: a.mem})
	if err != nil {
		return nil, err
	}
	var data train.Records
	defer func() {
		for _, rec := range data {
			rec.Release()
		}
	}()
	for b, err := range src.Batches(ctx, nil) {
		if err != nil {
			return nil, err
		}
		data = append(data, b.Record)
	}
	return train.Run(ctx, train.Config{Name: "demo", Version: Version, Seed: seed, Steps: demoSteps, Batch: 256,
		Workers: runtime.GOMAXPROCS(0), Ignore: []string{"id", "time"},
		Network: vae.Spec{Encoder: relu(64, 32), Decoder: relu(32, 64), Latent: 8}}, data)
}

func relu(widths ...int) (layers []vae.Layer) {
	for _, w := range widths {
		layers = append(layers, vae.Layer{Width: w, Activation: "relu"})
	}
	return layers
}

// tableRows reads what the table shows of a scored record.
func tableRows(rec arrow.Record) []demoRow {
	column := func(name string) arrow.Array { return rec.Column(rec.Schema().FieldIndices(name)[0]) }
	floats := func(name string) []float32 { return column(name).(*array.Float32).Float32Values() }
	scores, recon, kl, severity := floats(score.Score), floats(score.Recon), floats(score.KL), floats(score.Severity)
	id, kind, flagged, top := column("id"), column("anomaly_kind"), column(score.Anomaly).(*array.Boolean), column(score.Top).(*array.List)
	blame := top.ListValues().(*array.Struct)
	rows := make([]demoRow, rec.NumRows())
	for i := range rows {
		var words []string
		from, to := top.ValueOffsets(i)
		for j := int(from); j < int(to); j++ {
			words = append(words, fmt.Sprintf("%s=%s (expected %s)", blame.Field(0).ValueStr(j), blame.Field(2).ValueStr(j), blame.Field(3).ValueStr(j)))
		}
		rows[i] = demoRow{id: id.ValueStr(i), kind: kind.ValueStr(i), blame: strings.Join(words, ", "), score: scores[i],
			recon: recon[i], kl: kl[i], severity: severity[i], flagged: flagged.IsValid(i) && flagged.Value(i)}
	}
	return rows
}

func (a *app) printDemo(rows []demoRow, m *vae.Model, shown int, scoring, total time.Duration) error {
	slices.SortStableFunc(rows, func(x, y demoRow) int { return cmp.Compare(y.score, x.score) })
	scores, labels := make([]float32, len(rows)), make([]bool, len(rows))
	planted, found := 0, 0
	for i, r := range rows {
		scores[i], labels[i] = r.score, r.kind != ""
		if labels[i] {
			planted++
			if r.flagged {
				found++
			}
		}
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nID\tSCORE\tRECON\tKL\tSEVERITY\tFLAGGED\tPLANTED\tTO BLAME")
	for _, r := range rows[:min(shown, len(rows))] {
		kind, flagged := r.kind, "yes"
		if kind == "" {
			kind = "-"
		}
		if !r.flagged {
			flagged = "-"
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%.0f\t%s\t%s\t%s\n", r.id, r.score, r.recon, r.kl, r.severity, flagged, kind, r.blame)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	h, err := eval.NewHistogram(scores, labels, 16)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\nScores in nats (how much stranger the row is than normal ones, to the autoencoder and to the mixture):\n\n")
	if err := h.WriteText(a.out, a.width(), &m.Calibration.Limit); err != nil {
		return err
	}
	auroc, err := eval.AUROC(scores, labels)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\n%d of the %d planted anomalies are above the limit; AUROC %.3f. Scored %s; all took %s.\n",
		found, planted, auroc, rate(int64(len(rows)), scoring), total.Round(10*time.Millisecond))
	fmt.Fprintln(a.out, "Next: elbo train -i normal.parquet -o my.elbo, then elbo score -m my.elbo -i new.parquet -o scores.parquet")
	return nil
}
