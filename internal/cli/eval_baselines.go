package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/bench"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
	"github.com/elbo-stream/elbo/vae/eval/baseline"
)

const (
	// baselineRows is about how many rows baselines are fitted to and judged on each;
	// of more a random part is taken.
	baselineRows = 20_000
	baselineSeed = 1
	// usualPerPlanted is how many usual rows stand against a planted one in average
	// precision and precision at k: planted rows are far more than real anomalies.
	usualPerPlanted = 19
)

// A baselineTest is what detectors are judged on.
type baselineTest struct {
	rows   baseline.Matrix
	scores []float32 // of the model
	labels []bool
	repeat int     // how often each usual row counts
	cpu    float64 // seconds that the model took to score them
	notes  []string
}

// features reads model columns as a detector wants them: the model's own features
// with what training hardly ever saw left in, NaN where a value is missing.
type features struct {
	packer  *vae.Packer
	packed  vae.Packed
	n       int
	inputs  int
	x       []float32
	missing []uint64
	flags   []vae.RowFlags
}

func newFeatures(m *vae.Model, schema *arrow.Schema) (*features, error) {
	spec := m.Spec
	spec.Columns = slices.Clone(spec.Columns)
	for i := range spec.Columns {
		spec.Columns[i].Rare = nil
	}
	packer, err := spec.NewPacker(schema)
	if err != nil {
		return nil, err
	}
	n, inputs := spec.Inputs()
	return &features{packer: packer, n: n, inputs: inputs, x: make([]float32, inputs*vae.TileRows), missing: make([]uint64, n), flags: make([]vae.RowFlags, vae.TileRows)}, nil
}

// add appends the rows of rec for which keep is true.
func (f *features) add(m *baseline.Matrix, rec arrow.Record, keep func(i int) bool) error {
	if err := f.packer.BindTo(&f.packed, rec); err != nil {
		return err
	}
	m.Cols = f.n
	for from := 0; from < int(rec.NumRows()); from += vae.TileRows {
		n := min(vae.TileRows, int(rec.NumRows())-from)
		f.packed.Pack(from, n, f.x, vae.TileRows, 1, f.missing, f.flags)
		for lane := range n {
			if !keep(from + lane) {
				continue
			}
			for j := range f.n {
				v := float64(f.x[j*vae.TileRows+lane])
				if f.missing[j]>>lane&1 != 0 {
					v = math.NaN()
				}
				m.Data = append(m.Data, v)
			}
		}
	}
	return nil
}

// A pick says of the records of a table, in their order, which rows to take.
type pick func(first int64, rec arrow.Record) (keep func(i int) bool, err error)

// readFeatures collects about baselineRows rows of an input, drawn at random, and of
// them those that of picks; nil picks all.
func (a *app) readFeatures(ctx context.Context, m *vae.Model, in inputFlags, of pick) (rows baseline.Matrix, total int64, err error) {
	src, err := a.open(in, 0)
	if err != nil {
		return rows, 0, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	schema, err := src.Schema(ctx)
	if err != nil {
		return rows, 0, err
	}
	f, err := newFeatures(m, schema)
	if err != nil {
		return rows, 0, badConfig(err)
	}
	data := &trainingData{src: src}
	units, err := data.Units(ctx)
	if err != nil {
		return rows, 0, err
	}
	for _, n := range units {
		total += n
	}
	first := int64(0)
	for u := range units {
		for rec, err := range data.Read(ctx, u) {
			if err != nil {
				return rows, total, err
			}
			keep := func(int) bool { return true }
			if of != nil {
				if keep, err = of(first, rec); err != nil {
					return rows, total, err
				}
			}
			drawn := func(i int) bool { return inSample(first+int64(i), total) && keep(i) }
			if err := f.add(&rows, rec, drawn); err != nil {
				return rows, total, err
			}
			first += rec.NumRows()
		}
	}
	return rows, total, nil
}

// inSample says whether a row of total ones is among the about baselineRows that
// are taken.
func inSample(row, total int64) bool {
	if total <= baselineRows {
		return true
	}
	share := float64(baselineRows) / float64(total)
	return float64(baseline.Hash(baselineSeed, row)>>11)*0x1p-53 < share
}

// scoreTimed scores rec twice and returns the CPU seconds that the faster time
// took: the first one grows memory, and few rows are done in no time.
func scoreTimed(s *vae.Scorer, rec arrow.Record) (res *vae.Result, took float64, err error) {
	took = math.Inf(1)
	for range 2 {
		began := bench.CPUTime()
		if res, err = s.Score(rec); err != nil {
			return nil, 0, err
		}
		took = min(took, (bench.CPUTime() - began).Seconds())
	}
	return res, took, nil
}

// testRows reads the judged rows again, for the detectors and to time the model.
func (a *app) testRows(ctx context.Context, m *vae.Model, f evalFlags, j *judged) (*baselineTest, error) {
	t := &baselineTest{repeat: 1}
	at := map[int64]int{} // place among the judged rows
	for i, row := range j.rows.Rows {
		at[row] = i
	}
	var s *vae.Scorer
	judgedOnly := func(first int64, rec arrow.Record) (keep func(int) bool, err error) {
		if s == nil {
			if s, err = m.NewScorer(rec.Schema(), vae.Options{Top: -1}); err != nil {
				return nil, err
			}
		}
		res, took, err := scoreTimed(s, rec)
		if err != nil {
			return nil, err
		}
		picked := 0
		keep = func(i int) bool { _, ok := at[first+int64(i)]; return ok }
		for i := range int(rec.NumRows()) {
			if keep(i) && inSample(first+int64(i), j.rows.Seen) {
				t.scores = append(t.scores, res.Score[i])
				t.labels = append(t.labels, j.rows.Labels[at[first+int64(i)]])
				picked++
			}
		}
		t.cpu += took * float64(picked) / max(float64(rec.NumRows()), 1)
		return keep, nil
	}
	rows, total, err := a.readFeatures(ctx, m, f.in, judgedOnly)
	switch t.rows = rows; {
	case err != nil:
		return nil, err
	case total != j.rows.Seen || rows.Rows() != len(t.labels):
		return nil, errors.New("the input changed while it was judged")
	case total > baselineRows:
		t.notes = append(t.notes, fmt.Sprintf("baselines, and elbo beside them, were judged on %s rows drawn from %s", count(int64(rows.Rows())), count(total)))
	}
	return t, nil
}

// compare fits every baseline to the training rows and judges it and the model on
// the test rows.
func (a *app) compare(ctx context.Context, m *vae.Model, f evalFlags, t *baselineTest) ([]eval.BaselineFigures, error) {
	train, total, err := a.readFeatures(ctx, m, inputFlags{paths: f.baselines, hive: f.in.hive}, nil)
	if err != nil {
		return nil, fmt.Errorf("training rows of baselines: %w", err)
	}
	if total > baselineRows {
		t.notes = append(t.notes, fmt.Sprintf("baselines were fitted to %s rows drawn from %s", count(int64(train.Rows())), count(total)))
	}
	if shared(f.baselines, f.in.paths) {
		t.notes = append(t.notes, "judged rows are among the training rows of the baselines, which know them: give others to one of the two")
	}
	scale, err := baseline.FitScale(train, nil)
	if err != nil {
		return nil, err
	}
	scale.Apply(train)
	test := t.rows
	scale.Apply(test)
	first, err := figuresOf("elbo", t.scores, t.labels, t.repeat)
	if err != nil {
		return nil, err
	}
	first.ScoreMicros = 1e6 * t.cpu / float64(max(test.Rows(), 1))
	out := []eval.BaselineFigures{first}
	scores := make([]float64, test.Rows())
	for _, d := range baseline.All(baselineSeed) {
		began := bench.CPUTime()
		err := d.Fit(ctx, train)
		fitted := bench.CPUTime()
		if err == nil {
			err = d.Score(ctx, test, scores)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			out = append(out, eval.BaselineFigures{Name: d.Name(), Note: err.Error()})
			continue
		}
		scored := bench.CPUTime()
		f, err := figuresOf(d.Name(), scores, t.labels, t.repeat)
		if err != nil {
			return nil, err
		}
		if f.GapError, err = eval.DifferenceError(t.scores, scores, t.labels); err != nil {
			return nil, err
		}
		f.FitSeconds = (fitted - began).Seconds()
		f.ScoreMicros = 1e6 * (scored - fitted).Seconds() / float64(max(test.Rows(), 1))
		out = append(out, f)
	}
	return out, nil
}

// shared says whether two inputs have a file in common.
func shared(paths, others []string) bool {
	for _, pattern := range paths {
		found, err := filepath.Glob(pattern)
		if err != nil || found == nil {
			found = []string{pattern}
		}
		for _, path := range found {
			if inputAt(others, path) != "" {
				return true
			}
		}
	}
	return false
}

// figuresOf judges scores, with every usual row counted repeat times.
func figuresOf[S eval.Float](name string, scores []S, labels []bool, repeat int) (f eval.BaselineFigures, err error) {
	all, odd := slices.Clone(scores), slices.Clone(labels)
	for i, s := range scores {
		if !labels[i] {
			all, odd = append(all, slices.Repeat([]S{s}, repeat-1)...), append(odd, make([]bool, repeat-1)...)
		}
	}
	f.Name = name
	var errs [3]error
	f.AUROC, errs[0] = eval.AUROC(all, odd)
	f.AP, errs[1] = eval.AveragePrecision(all, odd)
	f.PrecisionAtK, errs[2] = eval.PrecisionAtK(all, odd)
	return f, errors.Join(errs[:]...)
}

// plantedTest turns planted rows and the rows they were made of into a test.
func (a *app) plantedTest(m *vae.Model, k *keptRows, planted []*eval.Injected) (*baselineTest, error) {
	t := &baselineTest{}
	base, err := a.join(k.sample)
	if err != nil {
		return nil, err
	}
	defer base.Release()
	if err := t.add(m, base, false, func(int) bool { return true }); err != nil {
		return nil, err
	}
	usual := len(t.labels)
	for _, in := range planted {
		if err := t.add(m, in.Record, true, func(i int) bool { return in.Changed[i] != nil }); err != nil {
			return nil, err
		}
	}
	t.repeat = max(1, usualPerPlanted*(len(t.labels)-usual)/usual)
	t.notes = append(t.notes, fmt.Sprintf("baselines were judged on planted anomalies without the missing values, which they cannot see; AP and precision at k are for one of them among %d rows", usualPerPlanted+1))
	return t, nil
}

// add appends rows of a record with the model's scores.
func (t *baselineTest) add(m *vae.Model, rec arrow.Record, odd bool, keep func(int) bool) error {
	f, err := newFeatures(m, rec.Schema())
	if err != nil {
		return err
	}
	if err := f.add(&t.rows, rec, keep); err != nil {
		return err
	}
	s, err := m.NewScorer(rec.Schema(), vae.Options{Top: -1})
	if err != nil {
		return err
	}
	res, took, err := scoreTimed(s, rec)
	if err != nil {
		return err
	}
	before := len(t.scores)
	for i, s := range res.Score {
		if keep(i) {
			t.scores, t.labels = append(t.scores, s), append(t.labels, odd)
		}
	}
	t.cpu += took * float64(len(t.scores)-before) / max(float64(rec.NumRows()), 1)
	return nil
}
