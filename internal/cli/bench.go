package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/spf13/cobra"

	"github.com/elbo-stream/elbo/internal/bench"
	"github.com/elbo-stream/elbo/vae"
)

type benchFlags struct {
	model            string
	nets             []string
	batches, workers []int
	seconds          float64
	precision        vae.Precision
	json             bool
}

func (a *app) bench() *cobra.Command {
	var f benchFlags
	workers := []int{1}
	if n := runtime.GOMAXPROCS(0); n > 1 {
		workers = append(workers, n)
	}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast rows are scored here: a model, or three nets of known size",
		Example: `  elbo bench
  elbo bench -m pay.elbo --batches 1,64,8192 --workers 1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.model != "" && cmd.Flags().Changed("nets") {
				return usage("--nets are the nets without a model: give --model or --nets")
			}
			if err := f.validate(); err != nil {
				return &exitError{ExitUsage, err}
			}
			ctx, cancel := a.untilDrain(cmd.Context())
			defer cancel()
			return a.benchVerb(ctx, f)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.model, "model", "m", "", "model file; its rows are drawn from what it knows of its columns")
	fl.StringSliceVar(&f.nets, "nets", []string{"A", "B", "C"}, "nets to measure when there is no model")
	fl.IntSliceVar(&f.batches, "batches", []int{1, 6, 64, 256, 1024, 4096, 65536}, "rows in one call")
	fl.IntSliceVar(&f.workers, "workers", workers, "goroutines that score at the same time")
	fl.Float64Var(&f.seconds, "seconds", 0.3, "how long each point is measured, about")
	fl.StringVar((*string)(&f.precision), "precision", "float32", "float32, or bf16 where the CPU has AVX512-BF16")
	fl.BoolVar(&f.json, "json", false, "print one JSON object a line for each point")
	return cmd
}

// peakTime is how long the core's ceiling is looked for.
const peakTime = 200 * time.Millisecond

// largestBatch bounds the memory of the rows that are made up.
const largestBatch = 1 << 20

// validate reports every flag whose value cannot be.
func (f *benchFlags) validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(len(f.batches) > 0, "--batches: want numbers of rows, such as 1,64,1024")
	for _, b := range f.batches {
		check(b >= 1 && b <= largestBatch, "--batches %d: want 1 to %d rows", b, largestBatch)
	}
	check(len(f.workers) > 0, "--workers: want numbers of workers, such as 1,2")
	for _, w := range f.workers {
		check(w >= 1 && w <= 1024, "--workers %d: want 1 to 1024", w)
	}
	check(f.seconds > 0 && f.seconds <= 3600, "--seconds %g: want above 0 and at most 3600", f.seconds)
	if err := f.precision.Valid(); err != nil {
		faults = append(faults, fmt.Errorf("--%w", err))
	}
	for _, n := range f.nets {
		if _, err := bench.Find(n); err != nil {
			faults = append(faults, fmt.Errorf("--nets: %w", err))
		}
	}
	return errors.Join(faults...)
}

// A subject is a model to measure and what makes its rows.
type subject struct {
	name  string
	model func() (*vae.Model, error)
	rows  func(m *vae.Model, n int) (arrow.Record, error)
	most  int // largest batch
}

func (a *app) subjects(f benchFlags) ([]subject, error) {
	if f.model != "" {
		m, err := a.load(f.model)
		if err != nil {
			return nil, err
		}
		rows := func(m *vae.Model, n int) (arrow.Record, error) { return bench.Rows(&m.Spec, n, 1) }
		return []subject{{m.ID(), func() (*vae.Model, error) { return m, nil }, rows, largestBatch}}, nil
	}
	var out []subject
	for _, name := range f.nets {
		n, err := bench.Find(name)
		if err != nil {
			return nil, err
		}
		out = append(out, subject{"net " + name, func() (*vae.Model, error) { return n.Model(n.RandomWeights(1)) },
			func(_ *vae.Model, rows int) (arrow.Record, error) { return n.Record(rows), nil }, n.MaxBatch})
	}
	return out, nil
}

func (a *app) benchVerb(ctx context.Context, f benchFlags) error {
	subjects, err := a.subjects(f)
	if err != nil {
		return err
	}
	machine, err := bench.ThisMachine()
	if err != nil {
		return &exitError{ExitUsage, err}
	}
	machine.Peak = bench.MeasurePeak(peakTime)
	if !f.json {
		fmt.Fprintf(a.out, "cpu      %s\ncores    %d for this process\nkernel   %s: %s\n", machine.CPU, machine.Cores, machine.Kernel, machine.Why)
		fmt.Fprintf(a.out, "peak     %.3g GFLOP/s on one core at this level in float32, measured now\n", machine.Peak)
	}
	for _, s := range subjects {
		if err := a.measure(ctx, s, f, machine); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// measure measures one model and prints its figures.
func (a *app) measure(ctx context.Context, s subject, f benchFlags, machine bench.Machine) error {
	m, err := s.model()
	if err != nil {
		return err
	}
	most := 1
	for _, b := range f.batches {
		if b <= s.most {
			most = max(most, b)
		}
	}
	rec, err := s.rows(m, most)
	if err != nil {
		return err
	}
	defer rec.Release()
	p := a.progress()
	defer p.done()
	var figures []bench.Figure
	var notes []string
	var failed error
	points := len(f.batches) * len(f.workers)
	sweep := bench.Sweep{Model: m, Batches: f.batches, Workers: f.workers, Precision: f.precision, Peak: machine.Peak,
		Long: time.Duration(f.seconds * float64(time.Second)),
		Each: func(g bench.Figure) {
			figures = append(figures, g)
			p.show(func(time.Duration) string {
				return fmt.Sprintf("%s: %d of %d points, batch %d: %s rows/s", s.name, len(figures), points, g.Batch, count(int64(g.RowsPerSec)))
			})
			if f.json {
				failed = errors.Join(failed, json.NewEncoder(a.out).Encode(struct {
					Net       string        `json:"net"`
					Precision vae.Precision `json:"precision"`
					bench.Figure
					bench.Machine
				}{s.name, f.precision, g, machine}))
			}
		},
		Skipped: func(g bench.Point, why string) {
			notes = append(notes, fmt.Sprintf("batch %d with %d workers is left out: %s", g.Batch, g.Workers, why))
		}}
	if err := sweep.Run(ctx, rec); err != nil {
		return err
	}
	p.done()
	if f.json {
		return failed
	}
	fmt.Fprintf(a.out, "\n%s: %s, %s multiply-adds a row\n\n", s.name, networkLine(&m.Spec, m.Size()), count(int64(m.Size().MultiplyAdds)))
	if err := a.benchTable(figures); err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintf(a.out, "note: %s\n", n)
	}
	return a.benchChart(figures)
}

func (a *app) benchTable(figures []bench.Figure) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "BATCH\tWORKERS\tROWS/S\tGFLOP/S\t% OF PEAK\tBYTES/ROW\tP50 US\tP99 US\t")
	for _, f := range figures {
		fmt.Fprintf(w, "%d\t%d\t%s\t%.1f\t%.0f\t%.0f\t%s\t%s\t\n", f.Batch, f.Workers, count(int64(f.RowsPerSec)), f.GFLOPS, f.PercentOfPeak,
			f.BytesPerRow, microseconds(f.P50), microseconds(f.P99))
	}
	return w.Flush()
}

// microseconds writes three figures of what is short and whole numbers of the rest.
func microseconds(us float64) string {
	if us < 100 {
		return fmt.Sprintf("%.3g", us)
	}
	return count(int64(math.Round(us)))
}

// benchChart draws rows/s by batch, for each number of workers.
func (a *app) benchChart(figures []bench.Figure) error {
	if len(figures) < 2 {
		return nil
	}
	most := slices.MaxFunc(figures, func(x, y bench.Figure) int { return cmp.Compare(x.RowsPerSec, y.RowsPerSec) }).RowsPerSec
	var b strings.Builder
	last := 0
	for _, f := range figures {
		if f.Workers != last {
			last = f.Workers
			fmt.Fprintf(&b, "\nrows/s by batch, %d workers\n", f.Workers)
		}
		text := count(int64(f.RowsPerSec))
		room := a.width() - len("1048576 ▏ ") - len("1,000,000,000")
		cells := int(math.Round(f.RowsPerSec / most * float64(max(room, 8))))
		fmt.Fprintf(&b, "%7d ▏%s %s\n", f.Batch, strings.Repeat("█", cells), text)
	}
	_, err := fmt.Fprint(a.out, strings.ReplaceAll(b.String(), ", 1 workers", ", 1 worker"))
	return err
}
