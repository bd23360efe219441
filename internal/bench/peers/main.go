// Command peers is elbo's side of a comparison with other systems: it scores or
// trains the same nets on the same inputs, in one worker, and prints lines that
// the harness of the comparison reads.
//
//	go build -o peers ./internal/bench/peers
//	./peers score    # net batch rows_per_s precision full, and one check line a net
//	./peers train    # net batch steps_per_s
//
// The harness says what to do in the environment: PEERS_NETS (A,B,C),
// PEERS_BATCHES (64,1024), PEERS_SECONDS (0.4) and, for score, PEERS_DIR, the
// folder whose nets/netA.bin holds the weights that all systems share. Rates are
// of processor time, as those of the others are. PEERS_FORMS says which compressed
// models are measured too (int8; of int8, blocks50, blocks80, blocks80int8). docs/benchmarks tells the rest.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/bench"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/compress"
	"github.com/elbo-stream/elbo/vae/train"
)

func main() {
	if err := run(os.Args[1:], os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// settings are what the harness asks for.
type settings struct {
	nets    []bench.Net
	batches []int
	long    time.Duration
	dir     string
	forms   []string
}

func run(args []string, env func(string) string, out io.Writer) error {
	job := "score"
	if len(args) > 0 {
		job = args[0]
	}
	s, err := read(env, job)
	if err != nil {
		return err
	}
	kernel, err := vae.Kernel()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "note elbo as ours, kernel %s\n", kernel)
	for _, n := range s.nets {
		switch job {
		case "score":
			err = score(n, s, out)
		case "train":
			err = steps(n, s, out)
		default:
			return fmt.Errorf("unknown job %q: want score or train", job)
		}
		if err != nil {
			return fmt.Errorf("net %s: %w", n.Name, err)
		}
	}
	return nil
}

// read takes the settings from the environment.
func read(env func(string) string, job string) (s settings, err error) {
	get := func(name, other string) string {
		if v := env(name); v != "" {
			return v
		}
		return other
	}
	nets, batches := "A,B,C", "1,64,256,1024,4096,65536"
	if job == "train" {
		nets, batches = "A,B", "128,1024"
	}
	for _, name := range strings.Split(get("PEERS_NETS", nets), ",") {
		n, err := bench.Find(name)
		if err != nil {
			return s, fmt.Errorf("PEERS_NETS: %w", err)
		}
		s.nets = append(s.nets, n)
	}
	if job != "train" { // the others train with the same two batches always
		batches = get("PEERS_BATCHES", batches)
	}
	for _, text := range strings.Split(batches, ",") {
		b, err := strconv.Atoi(text)
		if err != nil || b < 1 {
			return s, fmt.Errorf("PEERS_BATCHES: %q is not a number of rows", text)
		}
		s.batches = append(s.batches, b)
	}
	seconds, err := strconv.ParseFloat(get("PEERS_SECONDS", "0.4"), 64)
	if err != nil || !(seconds > 0) {
		return s, errors.New("PEERS_SECONDS: want a number above 0")
	}
	s.long = time.Duration(seconds * float64(time.Second))
	for _, form := range strings.FieldsFunc(get("PEERS_FORMS", "int8"), func(r rune) bool { return r == ',' }) {
		if _, ok := forms[form]; !ok {
			return s, fmt.Errorf("PEERS_FORMS: unknown form %q", form)
		}
		s.forms = append(s.forms, form)
	}
	if s.dir = env("PEERS_DIR"); s.dir == "" && job == "score" {
		return s, errors.New("PEERS_DIR: must name the folder with nets/netA.bin")
	}
	return s, nil
}

// weights reads the weights that all systems share.
func weights(dir string, n bench.Net) ([]float32, error) {
	b, err := os.ReadFile(filepath.Join(dir, "nets", "net"+n.Name+".bin"))
	if err != nil {
		return nil, err
	}
	if len(b) != 4*n.Weights() {
		return nil, fmt.Errorf("its weights have %d bytes, want %d", len(b), 4*n.Weights())
	}
	w := make([]float32, n.Weights())
	for i := range w {
		w[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return w, nil
}

// checkRows is how many rows all systems add up the scores of.
const checkRows = 64

// precisions are what this CPU can score in, under the harness's names.
func precisions() map[string]vae.Precision {
	p := map[string]vae.Precision{"fp32": vae.Float32}
	if slices.Contains(vae.KernelLevels(), "avx512bf16") {
		p["bf16"] = vae.BF16
	}
	return p
}

// score measures one net in every precision.
func score(n bench.Net, s settings, out io.Writer) error {
	w, err := weights(s.dir, n)
	if err != nil {
		return err
	}
	m, err := n.Model(w)
	if err != nil {
		return err
	}
	most := checkRows
	for _, b := range s.batches {
		if b <= n.MaxBatch {
			most = max(most, b)
		}
	}
	rec := n.Record(most)
	defer rec.Release()
	for name, p := range precisions() {
		if err := rates(n, s, m, rec, name, p, out); err != nil {
			return err
		}
	}
	for _, form := range s.forms {
		small, err := compressed(n, m, form)
		if err != nil {
			return fmt.Errorf("%s: %w", form, err)
		}
		if err := rates(n, s, small, rec, form, vae.Float32, out); err != nil {
			return err
		}
	}
	return nil
}

// forms are the compressed models that can be asked for, under the names that stand
// where others have a precision.
var forms = map[string]compress.Config{
	"int8":         {Precision: vae.Int8, Whole: true},
	"blocks50":     {Blocks: 0.5, Steps: -1},
	"blocks80":     {Blocks: 0.8, Steps: -1},
	"blocks80int8": {Blocks: 0.8, Steps: -1, Precision: vae.Int8, Whole: true},
}

// compressRows is how many rows a net is compressed on: enough for ranges and shapes.
const compressRows = 1024

// compressed makes a compressed model of a net, whatever its gate says: the weights are
// random.
func compressed(n bench.Net, m *vae.Model, form string) (*vae.Model, error) {
	rec := n.Record(compressRows)
	defer rec.Release()
	ctx := context.Background()
	table, err := train.NewTable(ctx, train.Config{}, train.Records{rec}, &m.Spec)
	if err != nil {
		return nil, err
	}
	held, err := table.HeldOutRows(ctx, compressRows)
	if err != nil {
		return nil, err
	}
	defer held.Release()
	return compress.Run(ctx, m, table, compress.Rows{HeldOut: held}, forms[form])
}

// rates measures a model at every batch, and proves that it does the same job:
// the squared error and the KL divergence of the first rows.
func rates(n bench.Net, s settings, m *vae.Model, rec arrow.Record, precision string, p vae.Precision, out io.Writer) error {
	scorer, err := m.NewScorer(rec.Schema(), vae.Options{ScoresOnly: true, Precision: p})
	if err != nil {
		return err
	}
	first := rec.NewSlice(0, checkRows)
	defer first.Release()
	res, err := scorer.Score(first)
	if err != nil {
		return err
	}
	var squares, kl float64
	for i := range checkRows {
		squares += float64(res.Recon[i]) - n.Offset()
		kl += float64(res.KL[i])
	}
	fmt.Fprintf(out, "check ours %s %s %.9g %.9g\n", precision, n.Name, squares, kl)
	for _, b := range s.batches {
		if b > n.MaxBatch {
			continue
		}
		batch := rec.NewSlice(0, int64(b))
		seconds, err := bench.CPUSeconds(func() error { _, err := scorer.Score(batch); return err }, s.long)
		batch.Release()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s %d %.6g %s full\n", n.Name, b, float64(b)/seconds, precision)
	}
	return nil
}

// steps measures training one net.
func steps(n bench.Net, s settings, out io.Writer) error {
	for _, b := range s.batches {
		rate, err := bench.TrainSteps(n, b, s.long)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s %d %.6g\n", n.Name, b, rate)
	}
	return nil
}
