package train

import (
	"context"
	"math"
	"slices"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

const (
	// defaultComponents is the most components of a mixture.
	defaultComponents = 256
	// minComponentRows is the fewest training rows that a component stands for:
	// none is a training row itself.
	minComponentRows = 2
	// mixtureFloor is the smallest standard deviation of a mixture's Gaussian
	// features, on the standardised scale.
	mixtureFloor = 0.5
	mixtureRows  = 20_000 // most rows that a mixture is fitted to
	mixtureSteps = 10     // rounds of assignment and update
	// mixturePrior is how many rows the table's own rates of a boolean or
	// categorical column weigh in every component.
	mixturePrior = 1.0
)

// A mixtureFit fits the components of a mixture to packed rows: k-means++ (Arthur
// and Vassilvitskii 2007), then rounds of hard assignment and update (Lloyd 1982;
// with booleans and categories classification EM, Celeux and Govaert 1992), then
// components of too few rows are merged into their neighbours.
type mixtureFit struct {
	net   *kernel.Net
	rows  *rows
	pool  *pool
	seed  uint64
	plan  *kernel.Plan // for its tiles
	rates []float64    // of each Bernoulli and categorical feature in the table, smoothed

	at   []float64 // [k][features], as kernel.Mixture has them
	k    int
	near []int32 // the component of each row
	n    []int   // rows of each component
}

// fitMixture fits at most k components to the first rows.
func (r *run) fitMixture(rows *rows, k int) (*vae.MixtureSpec, []float32) {
	f := &mixtureFit{net: r.net, rows: rows, pool: r.pool, seed: r.c.Seed, near: make([]int32, rows.n)}
	f.plan = kernel.NewPlan(r.net, r.params, nil, r.pool.level)
	f.tableRates()
	f.spread(min(k, max(1, rows.n/minComponentRows)))
	for range mixtureSteps {
		f.assign()
		f.update()
	}
	f.merge()
	spec := &vae.MixtureSpec{Components: f.k, SD: f.sd()}
	params := make([]float32, 0, f.k*(r.net.Features+1))
	for _, v := range f.at {
		params = append(params, float32(v))
	}
	for _, n := range f.n {
		params = append(params, float32(math.Log(float64(n)/float64(rows.n))))
	}
	return spec, params
}

func (f *mixtureFit) gaussian(b kernel.Block) bool {
	return b.Kind == kernel.Gaussian || b.Kind == kernel.GaussianFixed
}

// missing says whether row i misses feature j.
func (f *mixtureFit) missing(i, j int) bool {
	w := f.rows.words()
	at := i*w + j/64
	return at < len(f.rows.missing) && f.rows.missing[at]>>(j%64)&1 != 0
}

func (f *mixtureFit) row(i int) []float32 {
	return f.rows.x[i*f.rows.inputs : i*f.rows.inputs+f.net.Features]
}

// tableRates finds how often boolean and categorical features are set in all rows.
func (f *mixtureFit) tableRates() {
	f.rates = make([]float64, f.net.Features)
	for _, b := range f.net.Blocks {
		if f.gaussian(b) {
			continue
		}
		seen := 0
		for i := range f.rows.n {
			if f.missing(i, b.From) {
				continue
			}
			seen++
			for j, v := range f.row(i)[b.From : b.From+b.N] {
				f.rates[b.From+j] += float64(v)
			}
		}
		more := 1.0 // Laplace's rule; the share of a categorical's levels adds up to 1
		if b.Kind == kernel.Categorical {
			more = 1 / float64(b.N)
		}
		total := float64(seen) + 2*more
		if b.Kind == kernel.Categorical {
			total = float64(seen) + 1
		}
		for j := b.From; j < b.From+b.N; j++ {
			f.rates[j] = (f.rates[j] + more) / total
		}
	}
}

// spread places k components on rows that lie far from each other.
func (f *mixtureFit) spread(k int) {
	n, d := f.rows.n, f.net.Features
	draw := splitMix(hash(f.seed, streamMixture, 0))
	nearest := make([]float64, n)
	for i := range nearest {
		nearest[i] = math.Inf(1)
	}
	next := int(draw.below(uint64(n)))
	for f.k < k {
		centre := f.row(next)
		for _, v := range centre {
			f.at = append(f.at, float64(v))
		}
		f.k++
		f.pool.parallel((n+1023)/1024, func(_ *worker, part int) {
			for i := part * 1024; i < min((part+1)*1024, n); i++ {
				nearest[i] = min(nearest[i], squaredDistance(f.row(i), centre))
			}
		})
		total := 0.0
		for _, v := range nearest {
			total += v
		}
		if !(total > 1e-12*float64(n*d)) {
			break // every row stands on a component
		}
		at := float64(draw.next()>>11) / (1 << 53) * total
		next = n - 1
		for i, v := range nearest {
			if at -= v; at < 0 {
				next = i
				break
			}
		}
	}
	f.n = make([]int, f.k)
	for c := range f.k { // a number of a 0/1 feature is a logit or a log probability
		f.number(f.at[c*d:(c+1)*d], f.at[c*d:(c+1)*d], nil, 1)
	}
}

func squaredDistance(a, b []float32) float64 {
	var s [4]float32
	b = b[:len(a)]
	i := 0
	for ; i+4 <= len(a); i += 4 {
		for k := range s {
			d := a[i+k] - b[i+k]
			s[k] += d * d
		}
	}
	for ; i < len(a); i++ {
		d := a[i] - b[i]
		s[0] += d * d
	}
	return float64(s[0]) + float64(s[1]) + float64(s[2]) + float64(s[3])
}

// number turns sums over n rows of a component into its numbers: means of
// Gaussian features, logits, log probabilities. seen has the rows that have each
// feature; nil means n.
func (f *mixtureFit) number(dst, sums []float64, seen []int, n int) {
	for _, b := range f.net.Blocks {
		for j := b.From; j < b.From+b.N; j++ {
			rows := float64(n)
			if seen != nil {
				rows = float64(seen[j])
			}
			switch {
			case f.gaussian(b):
				dst[j] = sums[j] / max(rows, 1)
			case b.Kind == kernel.Bernoulli:
				p := (sums[j] + mixturePrior*f.rates[j]) / (rows + mixturePrior)
				dst[j] = math.Log(p) - math.Log1p(-p)
			default:
				dst[j] = math.Log((sums[j] + mixturePrior*f.rates[j]) / (rows + mixturePrior))
			}
		}
	}
}

// mixture is the fit so far, all components alike.
func (f *mixtureFit) mixture(sd float64) *kernel.Mixture {
	m := &kernel.Mixture{Net: f.net, K: f.k, SD: sd, Params: make([]float32, f.k*(f.net.Features+1))}
	for i, v := range f.at {
		m.Params[i] = float32(v)
	}
	return m
}

// assign finds the most likely component of each row.
func (f *mixtureFit) assign() {
	plan := kernel.NewMixturePlan(f.mixture(mixtureFloor), nil, f.pool.level)
	tiles := tilesOf(f.rows.n)
	f.pool.parallel((tiles+evaluateTiles-1)/evaluateTiles, func(_ *worker, part int) {
		t, w := f.plan.NewTile(), plan.NewTile()
		for tile := part * evaluateTiles; tile < min((part+1)*evaluateTiles, tiles); tile++ {
			from := tile * kernel.Rows
			n := min(kernel.Rows, f.rows.n-from)
			f.plan.Begin(t, n, true)
			f.rows.tile(t, from, n)
			plan.Score(t, w)
			plan.Nearest(t, w, f.near[from:from+n])
		}
	})
	clear(f.n)
	for _, c := range f.near {
		f.n[c]++
	}
}

// tile fills a tile with rows [from, from+n).
func (s *rows) tile(t *kernel.Tile, from, n int) {
	clear(t.Missing)
	t.AnyMissing = false
	w := s.words()
	for r := range n {
		for f, v := range s.x[(from+r)*s.inputs : (from+r+1)*s.inputs] {
			t.X[f*kernel.Rows+r] = v
		}
		if (from+r+1)*w > len(s.missing) {
			continue
		}
		for f := range s.features {
			gone := s.missing[(from+r)*w+f/64] >> (f % 64) & 1
			t.Missing[f] |= gone << r
			t.AnyMissing = t.AnyMissing || gone != 0
		}
	}
	if rest := n % kernel.Lanes; rest != 0 {
		for f := range s.inputs {
			clear(t.X[f*kernel.Rows+n : f*kernel.Rows+n+kernel.Lanes-rest])
		}
	}
}

// update moves every component to the rows that it was assigned; one without
// rows is dropped.
func (f *mixtureFit) update() {
	d := f.net.Features
	sums, seen := make([]float64, f.k*d), make([]int, f.k*d)
	for i, c := range f.near {
		s, n := sums[int(c)*d:(int(c)+1)*d], seen[int(c)*d:(int(c)+1)*d]
		for j, v := range f.row(i) {
			if !f.missing(i, j) {
				s[j] += float64(v)
				n[j]++
			}
		}
	}
	kept := 0
	for c := range f.k {
		if f.n[c] == 0 {
			continue
		}
		f.number(f.at[kept*d:(kept+1)*d], sums[c*d:(c+1)*d], seen[c*d:(c+1)*d], f.n[c])
		f.n[kept] = f.n[c]
		kept++
	}
	f.k, f.at, f.n = kept, f.at[:kept*d], f.n[:kept]
}

// merge dissolves components of too few rows until there is none: each round
// those whose neighbour is nearest first, and not two neighbours at once.
func (f *mixtureFit) merge() {
	f.assign()
	for slices.Min(f.n) < minComponentRows && f.k > 1 {
		type small struct {
			c, neighbour int
			distance     float64
		}
		var list []small
		for c, n := range f.n {
			if n >= minComponentRows {
				continue
			}
			s := small{c, -1, math.Inf(1)}
			for o := range f.k {
				if d := f.distance(c, o); o != c && d < s.distance {
					s.neighbour, s.distance = o, d
				}
			}
			list = append(list, s)
		}
		slices.SortStableFunc(list, func(a, b small) int {
			switch {
			case a.distance < b.distance:
				return -1
			case a.distance > b.distance:
				return 1
			}
			return a.c - b.c
		})
		gone, kept := make([]bool, f.k), make([]bool, f.k)
		for _, s := range list {
			if s.neighbour >= 0 && !gone[s.neighbour] && !kept[s.c] {
				gone[s.c], kept[s.neighbour] = true, true
			}
		}
		f.drop(gone)
		for range 2 {
			f.assign()
			f.update()
		}
		f.assign()
	}
	f.update() // the last assignment's
}

func (f *mixtureFit) distance(a, b int) (s float64) {
	d := f.net.Features
	for j := range d {
		v := f.at[a*d+j] - f.at[b*d+j]
		s += v * v
	}
	return s
}

// drop removes components.
func (f *mixtureFit) drop(gone []bool) {
	d, kept := f.net.Features, 0
	for c := range f.k {
		if !gone[c] {
			copy(f.at[kept*d:(kept+1)*d], f.at[c*d:(c+1)*d])
			f.n[kept] = f.n[c]
			kept++
		}
	}
	f.k, f.at, f.n = kept, f.at[:kept*d], f.n[:kept]
}

// sd is the standard deviation of Gaussian features within their components, no
// smaller than mixtureFloor. It goes by the last assignment.
func (f *mixtureFit) sd() float64 {
	d, sum, cells := f.net.Features, 0.0, 0
	for i, c := range f.near {
		row := f.row(i)
		for _, b := range f.net.Blocks {
			if !f.gaussian(b) {
				continue
			}
			for j := b.From; j < b.From+b.N; j++ {
				if !f.missing(i, j) {
					v := float64(row[j]) - f.at[int(c)*d+j]
					sum += v * v
					cells++
				}
			}
		}
	}
	return max(math.Sqrt(sum/float64(max(cells, 1))), mixtureFloor)
}

// mixtureSample returns the rows that the mixture is fitted to.
func (r *run) mixtureSample() (*rows, error) {
	t := r.t
	if t.train != nil && t.train.n <= mixtureRows {
		return t.train, nil
	}
	out := &rows{inputs: t.held.inputs, features: t.held.features}
	if t.train != nil {
		for _, i := range Permutation(r.c.Seed, 0, t.train.n)[:mixtureRows] {
			out.addRow(t.train, int(i))
		}
		return out, nil
	}
	for x, err := range t.shuffled(context.Background(), r.c, 0) {
		if err != nil {
			return nil, err
		}
		if out.addRow(x.rows, x.row); out.n == mixtureRows {
			break
		}
	}
	return out, nil
}
