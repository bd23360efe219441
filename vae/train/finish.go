package train

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// finish fits the other members to what the autoencoder left, calibrates and
// joins the model.
func (r *run) finish(warnings []string) (*vae.Model, error) {
	s := &r.state
	seen, err := r.trainSample()
	if err != nil {
		return nil, err
	}
	parts := vae.Parts{Name: r.c.Name, Spec: *r.t.spec, Params: s.best, Training: r.history(warnings)}
	if r.c.Members > 1 {
		sample, err := r.mixtureSample()
		if err != nil {
			return nil, err
		}
		parts.Spec.Mixture, parts.Mixture = r.fitMixture(sample, r.c.Components)
	}
	return r.assemble(parts, seen, func(x *rows) evaluation { return r.pool.evaluate(s.best, x, x.n) })
}

// assemble describes the members of a model, calibrates them on the held-out rows
// and on seen ones, and joins it all. evaluate is the autoencoder's.
func (r *run) assemble(p vae.Parts, seen *rows, evaluate func(*rows) evaluation) (*vae.Model, error) {
	held, fit := evaluate(r.t.held), evaluate(seen)
	p.Members = []vae.Member{r.vaeMember(held.scores, evaluate)}
	costs := [][]float32{r.withSuspects(held.scores, func(x *rows) []float32 { return evaluate(x).scores })}
	trained := [][]float32{fit.scores}
	if p.Spec.Mixture != nil {
		m, mixed, score := r.mixtureMember(p.Mixed(r.net))
		p.Members = append(p.Members, m)
		costs, trained = append(costs, mixed), append(trained, score(seen))
	}
	if err := r.calibrate(&p, costs, trained); err != nil {
		return nil, err
	}
	r.summary(&p.Training, &held, fit.recon)
	return vae.Assemble(p)
}

// history says how the parameters came to be.
func (r *run) history(warnings []string) vae.Training {
	s := &r.state
	tr := vae.Training{Version: r.c.Version, Seed: r.c.Seed, Rows: r.t.trainN, HeldOut: int64(r.t.held.n),
		Steps: s.Step, BestStep: s.AtBest, Stopped: "steps", Batch: r.pool.batch, Optimizer: r.c.Optimizer.Name,
		Rate: r.c.Rate, Schedule: r.c.Schedule.Name, Beta: *r.c.Beta, Curve: s.Curve, Warnings: warnings}
	if s.Stopped {
		tr.Stopped = "early"
	}
	r.t.split.report(&tr, r.c.Contamination)
	return tr
}

// summary says how well the model fits.
func (r *run) summary(tr *vae.Training, held *evaluation, trainRecon float64) {
	tr.HeldOutKL = round(held.kl)
	for _, n := range r.t.news[:r.t.held.n] {
		held.recon += n / float64(r.t.held.n)
	}
	tr.HeldOutRecon = round(held.recon)
	tr.TrainRecon = round(trainRecon)
	tr.LatentKL, tr.ActiveLatents, tr.Columns = nil, 0, nil
	for _, kl := range held.perLatent {
		tr.LatentKL = append(tr.LatentKL, round(kl))
	}
	for _, v := range held.muVariance {
		if v > 0.01 {
			tr.ActiveLatents++
		}
	}
	if tr.ActiveLatents == 0 && !slices.ContainsFunc(tr.Warnings, func(w string) bool { return strings.HasPrefix(w, "posterior collapse") }) {
		tr.Warnings = append(tr.Warnings, "posterior collapse: no latent varies over the held-out rows, so KL says nothing; try a lower --beta, --free-bits 0.1 or --kl-warmup")
	}
	r.columnFits(tr, held.perFeature)
}

// withSuspects adds to the costs of the held-out rows those of the held-out rows
// that were left out as likely anomalies.
func (r *run) withSuspects(costs []float32, score func(*rows) []float32) []float32 {
	if r.t.suspects == nil || r.t.suspects.n == 0 {
		return costs
	}
	return slices.Concat(costs, score(r.t.suspects))
}

// usualShare is the share of the held-out rows that usual costs are taken from:
// all but the strangest, which would drag a mean far away.
const usualShare = 0.9

// usualRows returns the held-out rows that cost no more than most do.
func (r *run) usualRows(scores []float32, most int) *rows {
	limit := slices.Sorted(slices.Values(scores))[int(usualShare*float64(len(scores)-1))]
	out := &rows{inputs: r.t.held.inputs, features: r.t.held.features}
	for i, v := range scores {
		if v <= limit && out.n < most {
			out.addRow(r.t.held, i)
		}
	}
	return out
}

// vaeMember describes the autoencoder as a member, but for its tail.
func (r *run) vaeMember(scores []float32, evaluate func(*rows) evaluation) vae.Member {
	usual := r.usualRows(scores, maxHeldOut)
	e := evaluate(usual)
	return vae.Member{Kind: vae.MemberVAE, Usual: rounded(e.perFeature), UsualKL: rounded(e.perLatent), DependsOn: r.dependsOn(usual)}
}

// rounded keeps six digits of each number.
func rounded(v []float64) []float64 {
	out := make([]float64, len(v))
	for i := range v {
		out[i] = round(v[i])
	}
	return out
}

// mixtureUsual is how many rows a mixture's usual costs are taken from.
const mixtureUsual = 2000

// mixtureMember describes the mixture as a member, but for its tail, and returns
// the costs of the held-out rows and what tells those of others.
func (r *run) mixtureMember(mix *kernel.Mixture) (vae.Member, []float32, func(*rows) []float32) {
	plan := kernel.NewMixturePlan(mix, nil, r.pool.level)
	net := kernel.NewPlan(r.net, r.state.best, nil, r.pool.level)
	t, w := net.NewTile(), plan.NewTile()
	each := func(x *rows, f func(from, n int)) {
		for from := 0; from < x.n; from += kernel.Rows {
			n := min(kernel.Rows, x.n-from)
			net.Begin(t, n, true)
			x.tile(t, from, n)
			plan.Score(t, w)
			f(from, n)
		}
	}
	score := func(x *rows) []float32 {
		costs := make([]float32, x.n)
		each(x, func(from, n int) { copy(costs[from:from+n], w.Cost[:n]) })
		return costs
	}
	held := score(r.t.held)
	usual := r.usualRows(held, mixtureUsual)
	m := vae.Member{Kind: vae.MemberMixture, Usual: make([]float64, r.net.Features), UsualKL: make([]float64, 1)}
	terms := make([]float64, r.net.Features)
	each(usual, func(_, n int) {
		for lane := range n {
			kl, _ := plan.Parts(t, w, lane, terms)
			m.UsualKL[0] += kl / float64(usual.n)
			for f, v := range terms {
				m.Usual[f] += v / float64(usual.n)
			}
		}
	})
	m.Usual, m.UsualKL = rounded(m.Usual), rounded(m.UsualKL)
	return m, r.withSuspects(held, score), score
}

// calibrate fits the members' tails and the limit to the costs of the held-out
// rows; the limit also to those of training rows that cost alike, in which nothing
// is new.
func (r *run) calibrate(p *vae.Parts, costs, trained [][]float32) (err error) {
	clean := func(v []float32) []float32 { // without the share that is known to be anomalies
		if r.c.Contamination == 0 {
			return v
		}
		v = slices.Sorted(slices.Values(v))
		return v[:max(len(v)-int(math.Round(r.c.Contamination*float64(len(v)))), vae.MinCalibration)]
	}
	scores, seen := slices.Clone(costs[0]), slices.Clone(trained[0])
	if len(costs) > 1 {
		clear(scores)
		clear(seen)
		for i := range costs {
			if p.Members[i].Tail, err = vae.Calibrate(clean(costs[i]), r.c.TargetRate); err != nil {
				return err
			}
			for k, v := range costs[i] {
				scores[k] += float32(p.Members[i].Tail.Surprise(float64(v)))
			}
			for k, v := range trained[i] {
				seen[k] += float32(p.Members[i].Tail.Surprise(float64(v)))
			}
		}
	}
	for i, n := range r.t.news {
		scores[i] += float32(n)
	}
	if r.c.Contamination > 0 { // who knows which of the training rows are anomalies
		seen = nil
	}
	p.Calibration, err = vae.CalibrateTrained(clean(scores), seen, r.c.TargetRate)
	return err
}

const (
	dependRows  = 2000 // rows that correlations are taken from
	dependMost  = 3    // columns that are named
	dependLeast = 0.1  // share of a latent's variance that a named column explains, at least
)

// dependsOn names, for each latent, the columns that its posterior mean goes with:
// those with the largest squared correlation over rows.
func (r *run) dependsOn(x *rows) []string {
	n, latents, inputs := min(x.n, dependRows), r.net.Latent, r.net.Features
	w := r.pool.workers[0]
	w.Begin(r.state.best, kernel.Objective{})
	w.begun = 0
	sumX, sumXX := make([]float64, inputs), make([]float64, inputs)
	sumM, sumMM, sumMX := make([]float64, latents), make([]float64, latents), make([]float64, latents*inputs)
	none := kernel.NewSums(r.net)
	for from := 0; from < n; from += kernel.Rows {
		rows := min(kernel.Rows, n-from)
		index := make([]uint32, rows)
		for i := range index {
			index[i] = uint32(from + i)
		}
		x.fill(index, w.Trainer)
		w.Score(none, rows)
		for lane := range rows {
			for f := range inputs {
				v := float64(w.X[f*kernel.Rows+lane])
				sumX[f] += v
				sumXX[f] += v * v
			}
			for l := range latents {
				mu := float64(w.Mu[l*kernel.Rows+lane])
				sumM[l] += mu
				sumMM[l] += mu * mu
				for f := range inputs {
					sumMX[l*inputs+f] += mu * float64(w.X[f*kernel.Rows+lane])
				}
			}
		}
	}
	out := make([]string, latents)
	for l := range out {
		explained := make([]float64, len(r.t.spec.Columns))
		f := 0
		for c := range explained {
			for range r.t.spec.Columns[c].Features() {
				cov := sumMX[l*inputs+f]/float64(n) - sumM[l]*sumX[f]/float64(n*n)
				vm := sumMM[l]/float64(n) - sumM[l]*sumM[l]/float64(n*n)
				vx := sumXX[f]/float64(n) - sumX[f]*sumX[f]/float64(n*n)
				if vm > 1e-9 && vx > 1e-9 {
					explained[c] = max(explained[c], cov*cov/(vm*vx))
				}
				f++
			}
		}
		out[l] = r.largestColumns(explained)
	}
	return out
}

func (r *run) largestColumns(explained []float64) string {
	order := make([]int, len(explained))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(explained[b], explained[a]) })
	var names []string
	for _, c := range order[:min(dependMost, len(order))] {
		if explained[c] >= dependLeast {
			names = append(names, r.t.spec.Columns[c].Name)
		}
	}
	return strings.Join(names, ", ")
}
