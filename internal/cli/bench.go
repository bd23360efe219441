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
	asked            bool // for these batches, not the usual ones
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
			f.asked = cmd.Flags().Changed("batches")
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

// The rows that are made up take rowMemory at most, and are largestBatch at most.
const (
	largestBatch = 1 << 20
	rowMemory    = 1 << 30
)

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
	name  string // for people
	key   string // for programs
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
		_, inputs := m.Spec.Inputs()
		return []subject{{m.ID(), m.ID(), func() (*vae.Model, error) { return m, nil }, rows, min(largestBatch, rowMemory/(8*inputs))}}, nil
	}
	var out []subject
	for _, name := range f.nets {
		n, err := bench.Find(name)
		if err != nil {
			return nil, err
		}
		most := n.MaxBatch
		if f.asked {
			most = min(largestBatch, rowMemory/(4*n.Encoder[0]))
		}
		out = append(out, subject{"net " + name, name, func() (*vae.Model, error) { return n.Model(n.RandomWeights(1)) },
			func(_ *vae.Model, rows int) (arrow.Record, error) { return n.Record(rows), nil }, most})
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

// fitting returns the batches that a subject's rows suffice for, and notes of
// the others.
func (s *subject) fitting(batches []int) (fit []int, notes []string) {
	for _, b := range batches {
		if b <= s.most {
			fit = append(fit, b)
		} else {
			notes = append(notes, fmt.Sprintf("batch %s is left out: the largest of %s is %s rows", count(int64(b)), s.name, count(int64(s.most))))
		}
	}
	return fit, notes
}

// measure measures one model and prints its figures.
func (a *app) measure(ctx context.Context, s subject, f benchFlags, machine bench.Machine) error {
	m, err := s.model()
	if err != nil {
		return err
	}
	batches, notes := s.fitting(f.batches)
	var figures []bench.Figure
	if len(batches) > 0 {
		if figures, err = a.sweep(ctx, s, m, f, batches, machine, &notes); err != nil {
			return err
		}
	}
	if f.json {
		for _, n := range notes {
			a.say("elbo: bench: note: %s", n)
		}
		return nil
	}
	fmt.Fprintf(a.out, "\n%s: %s, %s multiply-adds a row\n\n", s.name, networkLine(&m.Spec, m.Size()), count(int64(m.Size().MultiplyAdds)))
	if len(figures) > 0 {
		if err := a.benchTable(figures, f.precision); err != nil {
			return err
		}
	}
	for _, n := range notes {
		fmt.Fprintf(a.out, "note: %s\n", n)
	}
	return a.benchChart(figures)
}

// sweep measures a model at the given batches, prints each figure at once for
// --json, and adds a note for each point that it leaves out.
func (a *app) sweep(ctx context.Context, s subject, m *vae.Model, f benchFlags, batches []int, machine bench.Machine, notes *[]string) ([]bench.Figure, error) {
	rec, err := s.rows(m, slices.Max(batches))
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	p := a.progress()
	defer p.done()
	var figures []bench.Figure
	var failed error
	points := len(batches) * len(f.workers)
	sweep := bench.Sweep{Model: m, Batches: batches, Workers: f.workers, Precision: f.precision, Peak: machine.Peak,
		Long: time.Duration(f.seconds * float64(time.Second)),
		Each: func(g bench.Figure) {
			figures = append(figures, g)
			p.show(func(time.Duration) string {
				return fmt.Sprintf("%s: %d of %d points, batch %s: %s rows/s", s.name, len(figures), points, count(int64(g.Batch)), count(int64(g.RowsPerSec)))
			})
			if f.json {
				failed = errors.Join(failed, json.NewEncoder(a.out).Encode(struct {
					Net       string        `json:"net"`
					Precision vae.Precision `json:"precision"`
					bench.Figure
					bench.Machine
				}{s.key, f.precision, g, machine}))
			}
		},
		Skipped: func(g bench.Point, why string) {
			*notes = append(*notes, fmt.Sprintf("batch %s with %s is left out: %s", count(int64(g.Batch)), workersText(g.Workers), why))
		}}
	return figures, errors.Join(sweep.Run(ctx, rec), failed)
}

func workersText(n int) string {
	if n == 1 {
		return "1 worker"
	}
	return fmt.Sprintf("%d workers", n)
}

func (a *app) benchTable(figures []bench.Figure, p vae.Precision) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "BATCH\tWORKERS\tROWS/S\tGFLOP/S\tROWS/CPU-S\t% OF PEAK\tP50 US\tP99 US\t")
	for _, f := range figures {
		byCPU, peak := "-", "-"
		if f.RowsPerCPU > 0 {
			byCPU = count(int64(f.RowsPerCPU))
		}
		if f.PercentOfPeak > 0 {
			peak = fmt.Sprintf("%.0f", f.PercentOfPeak)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%.1f\t%s\t%s\t%s\t%s\t\n", count(int64(f.Batch)), f.Workers, count(int64(f.RowsPerSec)), f.GFLOPS,
			byCPU, peak, microseconds(f.P50), microseconds(f.P99))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.out, "\n%s, %.4g bytes a row in its columns. ROWS/S and GFLOP/S: all workers, by the clock; ROWS/CPU-S and\n"+
		"%% OF PEAK: one core, by processor time, which other load moves less; P50 and P99: of one call.\n", p, figures[0].BytesPerRow)
	return err
}

// microseconds writes three figures of what is short and whole numbers of the rest.
func microseconds(us float64) string {
	switch {
	case us < 9.995:
		return fmt.Sprintf("%.2f", us)
	case us < 99.95:
		return fmt.Sprintf("%.1f", us)
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
			fmt.Fprintf(&b, "\nrows/s by batch, %s\n", workersText(f.Workers))
		}
		text := count(int64(f.RowsPerSec))
		room := a.width() - len("1,048,576 ▏ ") - len("1,000,000,000")
		cells := int(math.Round(f.RowsPerSec / most * float64(max(room, 8))))
		fmt.Fprintf(&b, "%9s ▏%s %s\n", count(int64(f.Batch)), strings.Repeat("█", cells), text)
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}
