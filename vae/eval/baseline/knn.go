package baseline

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
)

// KNN scores by the Euclidean distance to the K-th nearest training row. It is
// exact: a tree of boxes leaves out what cannot be near.
type KNN struct {
	K     int // 0 means 5; of fewer training rows the farthest counts
	Limit int // the most training rows kept, drawn by Seed; 0 means 20,000
	Seed  uint64

	k     int
	kept  Matrix // in the order of the leaves
	boxes []box
	ends  []float64 // [box][2][columns]: smallest and largest value
}

// A box is a node of the tree: rows [from, to) of those kept.
type box struct {
	from, to    int
	left, right int // boxes; 0 in a leaf
}

// leafRows is the most rows of a leaf; measured on 5,000 rows of 20 columns.
const leafRows = 24

// Name is kNN and the number of the neighbour.
func (d *KNN) Name() string { return fmt.Sprintf("kNN%d", d.neighbour()) }

func (d *KNN) neighbour() int {
	if d.K == 0 {
		return 5
	}
	return d.K
}

// Fit keeps training rows and puts them in boxes.
func (d *KNN) Fit(ctx context.Context, m Matrix) error {
	if err := fit(m); err != nil {
		return err
	}
	limit := d.Limit
	if limit == 0 {
		limit = 20_000
	}
	rows := sample(d.Seed, m.Rows(), limit)
	d.k = min(d.neighbour(), len(rows))
	d.boxes, d.ends = nil, nil
	if err := d.split(ctx, m, rows, 0); err != nil {
		return err
	}
	d.kept = Matrix{m.Cols, make([]float64, 0, len(rows)*m.Cols)}
	for _, r := range rows {
		d.kept.Data = append(d.kept.Data, m.Row(r)...)
	}
	return nil
}

// split adds the box of rows, which it reorders, and all boxes within; first is
// the place of rows[0] among all.
func (d *KNN) split(ctx context.Context, m Matrix, rows []int, first int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	at := len(d.boxes)
	d.boxes = append(d.boxes, box{from: first, to: first + len(rows)})
	widest := d.bound(m, rows)
	if low, high := d.box(at); low[widest] == high[widest] {
		// Copies of one row: as many as there are neighbours do for all.
		d.boxes[at].to = first + min(len(rows), d.k)
		return nil
	}
	if len(rows) <= leafRows {
		return nil
	}
	slices.SortFunc(rows, func(a, b int) int {
		return cmp.Or(cmp.Compare(m.Row(a)[widest], m.Row(b)[widest]), a-b)
	})
	half := len(rows) / 2
	d.boxes[at].left = len(d.boxes)
	if err := d.split(ctx, m, rows[:half], first); err != nil {
		return err
	}
	d.boxes[at].right = len(d.boxes)
	return d.split(ctx, m, rows[half:], first+half)
}

// bound adds the ends of the rows and returns the column in which they are widest.
func (d *KNN) bound(m Matrix, rows []int) (widest int) {
	low, high := slices.Clone(m.Row(rows[0])), slices.Clone(m.Row(rows[0]))
	for _, r := range rows[1:] {
		for j, v := range m.Row(r) {
			low[j], high[j] = min(low[j], v), max(high[j], v)
		}
	}
	for j := range low {
		if high[j]-low[j] > high[widest]-low[widest] {
			widest = j
		}
	}
	d.ends = append(append(d.ends, low...), high...)
	return widest
}

// box returns the ends of a box.
func (d *KNN) box(i int) (low, high []float64) {
	n := len(d.ends) / len(d.boxes) / 2
	if len(d.ends) == 0 {
		return nil, nil
	}
	e := d.ends[2*n*i : 2*n*(i+1)]
	return e[:n], e[n:]
}

// Score looks for the neighbours of each row.
func (d *KNN) Score(ctx context.Context, m Matrix, dst []float64) error {
	near := make([]float64, d.k) // squared distances, ascending
	return blocks(ctx, m, d.kept.Cols, dst, func(m Matrix, dst []float64) {
		for i := range dst {
			for j := range near {
				near[j] = math.Inf(1)
			}
			d.visit(0, m.Row(i), near)
			dst[i] = math.Sqrt(near[len(near)-1])
		}
		finite(dst)
	})
}

// visit puts the distances from x to the rows of a box in near, where they are
// smaller than what is there.
func (d *KNN) visit(at int, x, near []float64) {
	b := d.boxes[at]
	if b.left == 0 {
		for r := b.from; r < b.to; r++ {
			if s := distance(x, d.kept.Row(r), near[len(near)-1]); s < near[len(near)-1] {
				insert(near, s)
			}
		}
		return
	}
	first, second := b.left, b.right
	s, t := d.outside(first, x), d.outside(second, x)
	if t < s {
		first, second, s, t = second, first, t, s
	}
	if s < near[len(near)-1] {
		d.visit(first, x, near)
	}
	if t < near[len(near)-1] {
		d.visit(second, x, near)
	}
}

// outside returns the squared distance from x to a box, less a little for
// rounding: 0 within.
func (d *KNN) outside(at int, x []float64) float64 {
	low, high := d.box(at)
	low, high = low[:len(x)], high[:len(x)]
	sum := 0.0
	for j, v := range x {
		if o := max(low[j]-v, v-high[j]); o > 0 {
			sum += o * o
		}
	}
	return sum * (1 - 1e-9)
}

// distance returns the squared distance from a to b, or anything larger than
// enough when it is. The sum has one order whatever enough is.
func distance(a, b []float64, enough float64) float64 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float64
	for len(a) >= 8 {
		x, y := a[:8], b[:8]
		d0, d1, d2, d3 := x[0]-y[0], x[1]-y[1], x[2]-y[2], x[3]-y[3]
		d4, d5, d6, d7 := x[4]-y[4], x[5]-y[5], x[6]-y[6], x[7]-y[7]
		s0 += d0*d0 + d4*d4
		s1 += d1*d1 + d5*d5
		s2 += d2*d2 + d6*d6
		s3 += d3*d3 + d7*d7
		if s0+s1+(s2+s3) > enough {
			return math.Inf(1)
		}
		a, b = a[8:], b[8:]
	}
	for j, v := range a {
		s0 += (v - b[j]) * (v - b[j])
	}
	return s0 + s1 + (s2 + s3)
}

// insert puts s into ascending distances, of which the last goes.
func insert(near []float64, s float64) {
	i := len(near) - 1
	for ; i > 0 && near[i-1] > s; i-- {
		near[i] = near[i-1]
	}
	near[i] = s
}
