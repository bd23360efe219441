package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/eval"
)

const (
	sampledRows   = 2000 // rows that are kept for pictures
	plantedRows   = 1000 // rows that anomalies are planted into
	strangestRows = 10
)

// A keptRow is one row of the data, with its score.
type keptRow struct {
	row     int64
	score   float32
	flagged bool
	rec     arrow.Record
}

// keptRows collects rows of a scan that a report shows one by one: an even sample,
// and those with the highest scores.
type keptRows struct {
	every     int64 // one row in so many is part of the sample
	seen      int64
	sample    []keptRow
	strangest []keptRow // ascending by score
}

func newKept(rows int64) *keptRows { return &keptRows{every: max(1, (rows+sampledRows-1)/sampledRows)} }

// look takes rows of a scored record, which it borrows.
func (k *keptRows) look(rec arrow.Record, scores []float32, flagged func(int) bool) {
	for i, s := range scores {
		row := keptRow{row: k.seen, score: s, flagged: flagged(i)}
		take := func() keptRow {
			row.rec = rec.NewSlice(int64(i), int64(i)+1)
			return row
		}
		if k.seen%k.every == 0 {
			k.sample = append(k.sample, take())
		}
		if n := len(k.strangest); n < strangestRows || s > k.strangest[0].score {
			at, _ := slices.BinarySearchFunc(k.strangest, s, func(r keptRow, s float32) int { return cmp.Compare(r.score, s) })
			k.strangest = slices.Insert(k.strangest, at, take())
			if n == strangestRows {
				k.strangest[0].rec.Release()
				k.strangest = k.strangest[1:]
			}
		}
		k.seen++
	}
}

func (k *keptRows) release() {
	for _, r := range slices.Concat(k.sample, k.strangest) {
		r.rec.Release()
	}
}

// describe fills in what a report shows of single rows. label tells a row's label,
// and is nil without labels.
func (k *keptRows) describe(m *vae.Model, r *eval.Report, label func(row int64) bool) error {
	if len(k.sample) == 0 {
		return nil
	}
	s, err := m.NewScorer(k.sample[0].rec.Schema(), vae.Options{Top: 5, TopAll: true, Latent: true})
	if err != nil {
		return err
	}
	for i := len(k.strangest) - 1; i >= 0; i-- {
		row := k.strangest[i]
		res, err := s.Score(row.rec)
		if err != nil {
			return err
		}
		out := eval.StrangeRow{Row: row.row, Score: float64(res.Score[0]), P: res.P[0], Flagged: row.flagged, Top: eval.Shares(res.Top[0])}
		if label != nil {
			odd := label(row.row)
			out.Anomaly = &odd
		}
		r.Strangest = append(r.Strangest, out)
	}
	x, y := busiest(m)
	r.Latents = &eval.LatentMap{X: latentTitle(m, x), Y: latentTitle(m, y)}
	for _, row := range k.sample {
		res, err := s.Score(row.rec)
		if err != nil {
			return err
		}
		odd := row.flagged
		if label != nil {
			odd = label(row.row)
		}
		r.Latents.Points = append(r.Latents.Points, eval.LatentPoint{X: float64(res.Mu[x]), Y: float64(res.Mu[y]), Odd: odd, Flagged: row.flagged})
	}
	return nil
}

// busiest returns the two latents that cost most.
func busiest(m *vae.Model) (x, y int) {
	order := make([]int, m.Spec.Latent)
	for i := range order {
		order[i] = i
	}
	kl := m.Training.LatentKL
	if len(kl) == len(order) {
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(kl[b], kl[a]) })
	}
	return order[0], order[min(1, len(order)-1)]
}

func latentTitle(m *vae.Model, l int) string {
	if d := m.Members[0].DependsOn; l < len(d) && d[l] != "" {
		return fmt.Sprintf("latent %d (%s)", l, d[l])
	}
	return fmt.Sprintf("latent %d", l)
}

// plan is what is planted, in the order of the report.
var plan = []eval.Injection{{Kind: eval.Spike, Strength: 3}, {Kind: eval.Spike, Strength: 5}, {Kind: eval.Spike, Strength: 8},
	{Kind: eval.Swap}, {Kind: eval.Scale, Strength: 2}, {Kind: eval.Scale, Strength: 10}, {Kind: eval.Broken}, {Kind: eval.Unseen}, {Kind: eval.Missing}}

// plant plants anomalies into the sample, kind by kind, and says how many of them
// the model catches. keep is given what was planted, to be released.
func (a *app) plant(m *vae.Model, k *keptRows, seed uint64, keep func(kind string, in *eval.Injected)) (out []eval.PlantedFigures, err error) {
	if len(k.sample) == 0 {
		return nil, nil
	}
	base, err := a.join(k.sample[:min(len(k.sample), plantedRows)])
	if err != nil {
		return nil, err
	}
	defer base.Release()
	var before []float32
	for _, r := range k.sample {
		before = append(before, r.score)
	}
	for _, inj := range plan {
		inj.Columns, inj.Seed, inj.Alloc = m.Spec.Columns, seed, a.mem
		f := eval.PlantedFigures{Kind: inj.Kind, Strength: inj.Strength}
		in, err := eval.Inject(base, inj)
		switch {
		case errors.Is(err, eval.ErrNoSuitableColumn):
			f.Note = "no suitable column"
		case err != nil:
			return nil, err
		default:
			err := judgePlanted(m, in, before, &f)
			keep(inj.Kind, in)
			if err != nil {
				return nil, err
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// judgePlanted scores planted rows and fills in the figures.
func judgePlanted(m *vae.Model, in *eval.Injected, before []float32, f *eval.PlantedFigures) error {
	s, err := m.NewScorer(in.Record.Schema(), vae.Options{Top: 3, TopAll: true})
	if err != nil {
		return err
	}
	res, err := s.Score(in.Record)
	if err != nil {
		return err
	}
	scores, labels := slices.Clone(before), make([]bool, len(before))
	for i, changed := range in.Changed {
		if changed == nil {
			continue
		}
		f.Rows++
		scores, labels = append(scores, res.Score[i]), append(labels, true)
		blamed := func(n int) bool {
			return slices.ContainsFunc(res.Top[i][:min(n, len(res.Top[i]))], func(b vae.Blame) bool {
				return slices.ContainsFunc(changed, func(c string) bool { return isColumn(b.Column, c) })
			})
		}
		if res.Anomaly[i] {
			f.Recall++
		}
		if blamed(1) {
			f.First++
		}
		if blamed(3) {
			f.Three++
		}
	}
	if f.Rows == 0 {
		f.Note = "no row could be changed"
		return nil
	}
	n := float64(f.Rows)
	f.Recall, f.First, f.Three = f.Recall/n, f.First/n, f.Three/n
	f.AUROC, err = eval.AUROC(scores, labels)
	return err
}

// isColumn says whether a blame is about a column or an element of it.
func isColumn(blame, column string) bool {
	return blame == column || len(blame) > len(column) && blame[:len(column)+1] == column+"["
}

// join makes one record of single rows.
func (a *app) join(rows []keptRow) (arrow.Record, error) {
	schema := rows[0].rec.Schema()
	columns := make([]arrow.Array, schema.NumFields())
	for c := range columns {
		parts := make([]arrow.Array, len(rows))
		for i, r := range rows {
			parts[i] = r.rec.Column(c)
		}
		joined, err := array.Concatenate(parts, a.mem)
		if err != nil {
			return nil, err
		}
		defer joined.Release()
		columns[c] = joined
	}
	return array.NewRecord(schema, columns, int64(len(rows))), nil
}
