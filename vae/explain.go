package vae

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// A share is one column's (or vector element's, or latent's) part in a score.
type share struct {
	member int // of a latent; -1 for a column
	place  int // first feature, or number of the latent
	value  float64
}

// explain names the columns and latents that add most to the score of a row:
// row is its place in the record, lane in the tile, which was scored in detail.
func (s *Scorer) explain(row, lane int) []Blame {
	shares, component := s.shares(row, lane)
	slices.SortStableFunc(shares, func(a, b share) int { return cmp.Compare(b.value, a.value) })
	shares = shares[:min(len(shares), s.opts.Top)]
	out := make([]Blame, len(shares))
	for i, p := range shares {
		switch p.member {
		case -1:
			out[i] = s.blame(row, lane, p.place)
		case 0:
			mu := float64(s.t.Mu[p.place*TileRows+lane])
			out[i] = Blame{Column: s.latentName(0, p.place, fmt.Sprintf("latent %d", p.place)), Value: number(mu), Expected: "0", Deviation: mu}
		default:
			out[i] = s.m.componentBlame(component)
		}
		out[i].Contribution = float32(p.value)
	}
	return out
}

// latentName adds to a name the columns that the latent depends on.
func (s *Scorer) latentName(member, latent int, name string) string {
	if d := s.m.Members[member].DependsOn; latent < len(d) && d[latent] != "" {
		return name + " (" + d[latent] + ")"
	}
	return name
}

// componentBlame describes the component that a row belongs to: a group of training
// rows, named by the columns in which it lies furthest from the others.
func (m *Model) componentBlame(k int) Blame {
	mix := m.mixed()
	rarity := math.Exp(-float64(mix.LogWeight(k)))
	b := Blame{Column: fmt.Sprintf("group %d", k), Value: fmt.Sprintf("1 row in %.3g", rarity), Expected: "a common group", Deviation: math.NaN()}
	if names := m.groupColumns(mix.At(k)); names != "" {
		b.Column += " (" + names + ")"
	}
	return b
}

// groupColumns names the two numeric columns in which a centre lies furthest from
// the mean, on the standardised scale.
func (m *Model) groupColumns(at []float32) string {
	far, names := [2]float64{}, [2]string{}
	f := 0
	for i := range m.Spec.Columns {
		c := &m.Spec.Columns[i]
		most := 0.0
		for range c.Features() {
			most = max(most, math.Abs(float64(at[f])))
			f++
		}
		switch {
		case c.Kind != Numeric && c.Kind != Vector || c.Transform == Raw:
		case most > far[0]:
			far, names = [2]float64{most, far[0]}, [2]string{c.Name, names[0]}
		case most > far[1]:
			far[1], names[1] = most, c.Name
		}
	}
	if names[1] != "" && far[1] > 0.5*far[0] {
		return names[0] + ", " + names[1]
	}
	return names[0]
}

// shares splits the score of a row: what every column, vector element and latent
// adds to it beyond usual rows. The parts of a member are multiplied by the slope
// of its surprise between the usual cost and the row's own. What usual rows score
// is spread evenly, so that the shares add up to the score.
func (s *Scorer) shares(row, lane int) (shares []share, component int) {
	at := make([]int, len(s.column)) // the share of each feature
	for f, c := range s.column {
		if s.place[f] > 0 && s.m.Spec.Columns[c].Kind != Vector {
			at[f] = len(shares) - 1
			continue
		}
		at[f] = len(shares)
		shares = append(shares, share{-1, f, 0})
	}
	vae := &s.m.Members[0]
	for _, f := range s.packed.found {
		if f.rows>>lane&1 != 0 {
			shares[at[f.watch.input]].value += f.watch.cost
		}
	}
	slope := s.slope(0, float64(s.t.Recon[lane])+float64(s.t.KL[lane]))
	for f := range s.column {
		shares[at[f]].value += slope * (float64(s.t.Terms[f*TileRows+lane]) - usualOf(vae.Usual, f))
	}
	for l := range s.m.net.Latent {
		v := slope * (float64(s.t.LatentKL[l*TileRows+lane]) - usualOf(vae.UsualKL, l))
		shares = append(shares, share{0, l, v})
	}
	if s.w != nil {
		mix := &s.m.Members[1]
		slope = s.slope(1, float64(s.w.Cost[lane]))
		var kl float64
		kl, component = s.m.mix.Parts(s.t, s.w, lane, s.terms)
		for f, v := range s.terms {
			shares[at[f]].value += slope * (v - usualOf(mix.Usual, f))
		}
		shares = append(shares, share{1, 0, slope * (kl - usualOf(mix.UsualKL, 0))})
	}
	rest := float64(s.res.Score[row])
	for _, p := range shares {
		rest -= p.value
	}
	for i := range shares {
		shares[i].value += rest / float64(len(shares))
	}
	return shares, component
}

func usualOf(usual []float64, i int) float64 {
	if i < len(usual) {
		return usual[i]
	}
	return 0
}

// slope is how fast a member's part in the score rises with its cost in nats,
// between what usual rows cost and the cost given.
func (s *Scorer) slope(member int, cost float64) float64 {
	e := &s.m.Members[member]
	if e.Tail == nil {
		return 1
	}
	usual := e.total()
	if d := cost - usual; math.Abs(d) > 1e-6*(1+math.Abs(usual)) {
		return (e.Tail.Surprise(cost) - e.Tail.Surprise(usual)) / d
	}
	return 0
}

func (s *Scorer) blame(row, lane, feature int) Blame {
	c := s.column[feature]
	col := &s.m.Spec.Columns[c]
	j := s.place[feature]
	b := Blame{Column: col.Name, Value: s.packed.cells[c].show(row, j), Deviation: math.NaN()}
	if col.Kind == Vector {
		b.Column = fmt.Sprintf("%s[%d]", col.Name, j)
	}
	out := s.outputs(s.m.net.Blocks[c], lane)
	switch col.Kind {
	case Categorical:
		best := 0
		for j, p := range out {
			if p > out[best] {
				best = j
			}
		}
		if b.Expected = "a level never seen"; col.Others {
			b.Expected = "another level"
		}
		if best < len(col.Levels) {
			b.Expected = col.Levels[best]
		}
	case Boolean:
		yes := "true"
		if col.Type != "bool" {
			yes = "1"
		}
		b.Expected = fmt.Sprintf("%s with %.2g", yes, col.unscale(0, out[0]))
	case Timestamp:
		b.Expected = col.showParts(out)
	default:
		want := col.unscale(j, out[j])
		if col.Constant[j] {
			want = col.unscale(j, 0)
		}
		b.Expected = number(want)
		if v, ok := s.packed.cells[c].number(row, j); ok {
			b.Deviation = v - want
		}
	}
	return b
}

// number returns the number in a row (element j of a vector) as it is in the
// record, false when it is missing.
func (s shown) number(i, j int) (float64, bool) {
	c, err := s.r.bind(s.arr)
	if err != nil {
		return 0, false
	}
	v, state := c.number(i, j)
	return v, state == observed
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// unscale takes a feature back to the column's own units.
func (c *Column) unscale(j int, v float32) float64 {
	x := float64(v)
	if c.Mean != nil {
		x = x*c.Scale[j] + c.Mean[j]
	}
	if c.Transform == Log1p {
		x = math.Copysign(math.Expm1(math.Abs(x)), x)
	}
	return x
}
