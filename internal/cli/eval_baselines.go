package cli

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/internal/bench"
	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
	"github.com/elbo-stream/elbo/vae/eval/baseline"
)

// baselineRows is the most rows that baselines are fitted to and judged on each;
// of more an even part is taken.
const baselineRows = 20_000

// A baselineTest is what detectors are judged on.
type baselineTest struct {
	rows   baseline.Matrix
	scores []float32 // of the model
	labels []bool
	cpu    float64 // seconds that the model took to score them
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

// read collects every n-th row of an input, so that no more than baselineRows are
// left, and calls each with every record it reads.
func (a *app) readFeatures(ctx context.Context, m *vae.Model, in inputFlags, each func(first int64, rec arrow.Record, keep func(int) bool) error) (rows baseline.Matrix, err error) {
	src, err := a.open(in, 0)
	if err != nil {
		return rows, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	schema, err := src.Schema(ctx)
	if err != nil {
		return rows, err
	}
	f, err := newFeatures(m, schema)
	if err != nil {
		return rows, badConfig(err)
	}
	data := &trainingData{src: src}
	units, err := data.Units(ctx)
	if err != nil {
		return rows, err
	}
	total, first := int64(0), int64(0)
	for _, n := range units {
		total += n
	}
	every := max(1, (total+baselineRows-1)/baselineRows)
	for u := range units {
		for rec, err := range data.Read(ctx, u) {
			if err != nil {
				return rows, err
			}
			keep := func(i int) bool { return (first+int64(i))%every == 0 }
			if each != nil {
				kept := keep
				if err := each(first, rec, kept); err != nil {
					return rows, err
				}
			}
			if err := f.add(&rows, rec, keep); err != nil {
				return rows, err
			}
			first += rec.NumRows()
		}
	}
	return rows, nil
}

// testRows reads the judged rows again, for the detectors and to time the model.
func (a *app) testRows(ctx context.Context, m *vae.Model, f evalFlags, j *judged) (*baselineTest, error) {
	t := &baselineTest{}
	at := map[int64]int{} // place among the judged rows
	for i, row := range j.rows.Rows {
		at[row] = i
	}
	var s *vae.Scorer
	judgedOnly := func(first int64, rec arrow.Record, keep func(int) bool) (err error) {
		if s == nil {
			if s, err = m.NewScorer(rec.Schema(), vae.Options{Top: -1}); err != nil {
				return err
			}
		}
		began := bench.CPUTime()
		res, err := s.Score(rec)
		if err != nil {
			return err
		}
		picked := 0
		for i := range int(rec.NumRows()) {
			if k, ok := at[first+int64(i)]; ok && keep(i) {
				t.scores = append(t.scores, res.Score[i])
				t.labels = append(t.labels, j.rows.Labels[k])
				picked++
			}
		}
		t.cpu += (bench.CPUTime() - began).Seconds() * float64(picked) / max(float64(rec.NumRows()), 1)
		return nil
	}
	rows, err := a.readFeatures(ctx, m, f.in, judgedOnly)
	t.rows = rows
	if err == nil && rows.Rows() != len(t.labels) { // some rows could not be judged
		err = errors.New("baselines need rows that all have a score and a label; filter the others out")
	}
	return t, err
}

// compare fits every baseline to the training rows and judges it and the model on
// the test rows.
func (a *app) compare(ctx context.Context, m *vae.Model, trainPaths []string, t *baselineTest) ([]eval.BaselineFigures, error) {
	train, err := a.readFeatures(ctx, m, inputFlags{paths: trainPaths}, nil)
	if err != nil {
		return nil, err
	}
	scale, err := baseline.FitScale(train, nil)
	if err != nil {
		return nil, err
	}
	scale.Apply(train)
	test := baseline.Matrix{Cols: t.rows.Cols, Data: slices.Clone(t.rows.Data)}
	scale.Apply(test)
	first, err := figuresOf("elbo", t.scores, t.labels)
	if err != nil {
		return nil, err
	}
	first.ScoreMicros = 1e6 * t.cpu / float64(max(test.Rows(), 1))
	out := []eval.BaselineFigures{first}
	scores := make([]float64, test.Rows())
	for _, d := range baseline.All(1) {
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
		f, err := figuresOf(d.Name(), scores, t.labels)
		if err != nil {
			return nil, err
		}
		f.FitSeconds = (fitted - began).Seconds()
		f.ScoreMicros = 1e6 * (bench.CPUTime() - fitted).Seconds() / float64(max(test.Rows(), 1))
		out = append(out, f)
	}
	return out, nil
}

func figuresOf[S eval.Float](name string, scores []S, labels []bool) (f eval.BaselineFigures, err error) {
	f.Name = name
	var errs [3]error
	f.AUROC, errs[0] = eval.AUROC(scores, labels)
	f.AP, errs[1] = eval.AveragePrecision(scores, labels)
	f.PrecisionAtK, errs[2] = eval.PrecisionAtK(scores, labels)
	return f, errors.Join(errs[:]...)
}

// plantedTest turns planted rows and the rows they were made of into a test.
func (a *app) plantedTest(m *vae.Model, k *keptRows, records []arrow.Record) (*baselineTest, error) {
	t := &baselineTest{}
	all := func(int) bool { return true }
	add := func(rec arrow.Record, odd bool) error {
		f, err := newFeatures(m, rec.Schema())
		if err != nil {
			return err
		}
		if err := f.add(&t.rows, rec, all); err != nil {
			return err
		}
		s, err := m.NewScorer(rec.Schema(), vae.Options{Top: -1})
		if err != nil {
			return err
		}
		began := bench.CPUTime()
		res, err := s.Score(rec)
		if err != nil {
			return err
		}
		t.cpu += (bench.CPUTime() - began).Seconds()
		for _, s := range res.Score {
			t.scores, t.labels = append(t.scores, s), append(t.labels, odd)
		}
		return nil
	}
	base, err := a.join(k.sample)
	if err != nil {
		return nil, err
	}
	defer base.Release()
	if err := add(base, false); err != nil {
		return nil, err
	}
	for _, rec := range records {
		if err := add(rec, true); err != nil {
			return nil, err
		}
	}
	return t, nil
}
