// Package forest is an isolation forest (Liu, Ting and Zhou 2008): rows that few
// random cuts part from the others are strange. It is what training uses to find
// likely anomalies among its own rows, and a baseline of evaluations.
//
//	f := forest.Fit(len(x)/d, d, func(i int) []float32 { return x[i*d:][:d] }, seed)
//	s := f.Score(row) // 0 to 1, higher is stranger
//
// Missing values must be filled in before. All random numbers follow from the
// seed, so the same rows give the same forest.
package forest

import (
	"math"
	"math/bits"
)

const (
	trees  = 100
	sample = 256 // rows of a tree
)

// A Forest scores rows. It is immutable and safe for concurrent use.
type Forest struct {
	trees [][]node
	norm  float64 // average depth of a row in a tree of that many rows
}

// node is a cut, or a leaf whose length is what it adds to the depth.
type node struct {
	feature     int32 // -1 for a leaf
	cut         float32
	left, right int32
	length      float32
}

// Fit grows a forest on n rows of d features. row(i) is called once for each row
// of a tree's sample; what it returns is copied.
func Fit(n, d int, row func(i int) []float32, seed uint64) *Forest {
	m := min(n, sample)
	f := &Forest{norm: averageDepth(m)}
	g := grower{d: d, x: make([]float32, 0, m*d), order: make([]int32, d), index: make([]int32, m), deepest: deepest(m)}
	for t := range trees {
		g.rng = random{mix(seed+golden) ^ mix(uint64(t)+1)}
		g.x, g.nodes = g.x[:0], nil
		for i, r := range g.rng.pick(n, m) {
			g.x = append(g.x, row(int(r))[:d]...)
			g.index[i] = int32(i)
		}
		for j := range g.order {
			g.order[j] = int32(j)
		}
		g.grow(g.index, 0)
		f.trees = append(f.trees, g.nodes)
	}
	return f
}

// deepest is the depth at which trees of m rows end, the logarithm of m to base 2
// rounded up: deeper, normal rows would be told apart.
func deepest(m int) int { return bits.Len(uint(max(m, 2) - 1)) }

// Score returns how easily a row of d features is isolated: 2 to the power of
// minus its mean depth over the average one. It is near 1 for anomalies and below
// 0.5 for usual rows.
func (f *Forest) Score(row []float32) float64 {
	total := 0.0
	for _, nodes := range f.trees {
		at := int32(0)
		for nodes[at].feature >= 0 {
			if row[nodes[at].feature] < nodes[at].cut {
				at = nodes[at].left
			} else {
				at = nodes[at].right
			}
		}
		total += float64(nodes[at].length)
	}
	if f.norm == 0 {
		return 0.5
	}
	return math.Exp2(-total / float64(len(f.trees)) / f.norm)
}

// averageDepth is the average depth of a row in a random tree of n rows (the
// average path of an unsuccessful search in a binary search tree).
func averageDepth(n int) float64 {
	switch {
	case n <= 1:
		return 0
	case n == 2:
		return 1
	}
	const euler = 0.57721566490153286
	k := float64(n - 1)
	return 2*(math.Log(k)+euler) - 2*k/float64(n)
}

// grower makes one tree after another.
type grower struct {
	d       int
	x       []float32 // the tree's sample, row by row
	index   []int32   // its rows, in the order of the leaves found so far
	order   []int32   // of the features, shuffled as needed
	deepest int
	rng     random
	nodes   []node
}

func (g *grower) value(row int32, feature int) float32 { return g.x[int(row)*g.d+feature] }

// grow adds the tree of the rows in index and returns its root's place.
func (g *grower) grow(index []int32, level int) int32 {
	at := int32(len(g.nodes))
	g.nodes = append(g.nodes, node{feature: -1, length: float32(float64(level) + averageDepth(len(index)))})
	if level == g.deepest || len(index) <= 1 {
		return at
	}
	feature, cut, ok := g.choose(index)
	if !ok {
		return at
	}
	i := 0
	for j, r := range index {
		if g.value(r, feature) < cut {
			index[i], index[j] = index[j], index[i]
			i++
		}
	}
	left := g.grow(index[:i], level+1)
	right := g.grow(index[i:], level+1)
	g.nodes[at] = node{feature: int32(feature), cut: cut, left: left, right: right}
	return at
}

// choose draws a feature that varies among the rows and a cut within its range.
func (g *grower) choose(index []int32) (feature int, cut float32, ok bool) {
	for left := len(g.order); left > 0; left-- {
		k := int(g.rng.below(uint64(left)))
		g.order[k], g.order[left-1] = g.order[left-1], g.order[k]
		j := int(g.order[left-1])
		lo, hi := float32(math.Inf(1)), float32(math.Inf(-1))
		for _, r := range index {
			v := g.value(r, j)
			lo, hi = min(lo, v), max(hi, v)
		}
		if lo < hi {
			u := float32(float64(g.rng.next()>>11) / (1 << 53))
			cut = lo + u*(hi-lo)
			if !(cut > lo) { // nothing would be on the left
				cut = hi
			}
			return j, min(cut, hi), true
		}
	}
	return 0, 0, false
}

// random is SplitMix64 (Steele, Lea and Flood 2014).
type random struct{ state uint64 }

const golden = 0x9e3779b97f4a7c15

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *random) next() uint64 {
	r.state += golden
	return mix(r.state)
}

// below returns a number in [0, n); n is far below 2^32, so the remainder's bias
// is nothing.
func (r *random) below(n uint64) uint64 { return r.next() % n }

// pick draws m of n rows without repeats (Floyd's sampling).
func (r *random) pick(n, m int) []int32 {
	seen, out := make(map[int32]bool, m), make([]int32, 0, m)
	for i := n - m; i < n; i++ {
		k := int32(r.below(uint64(i + 1)))
		if seen[k] {
			k = int32(i)
		}
		seen[k] = true
		out = append(out, k)
	}
	return out
}
