package train

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/elbo-stream/elbo/vae"
	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// Data is a table of training rows in units (row groups) that can be read in any
// order and more than once. Every reading of a unit gives the same rows.
type Data interface {
	Schema(ctx context.Context) (*arrow.Schema, error)
	// Units returns the number of rows of each unit, in the table's order.
	Units(ctx context.Context) ([]int64, error)
	// Read gives the records of one unit; each lasts until the next is asked for.
	Read(ctx context.Context, unit int) iter.Seq2[arrow.Record, error]
}

// Records is Data of records in memory, one unit each, all of one schema.
type Records []arrow.Record

// Schema returns the schema of the records; records that differ are an error.
func (r Records) Schema(context.Context) (*arrow.Schema, error) {
	if len(r) == 0 {
		return nil, fmt.Errorf("no records: %w", ErrTooFewRows)
	}
	for i, rec := range r {
		if !rec.Schema().Equal(r[0].Schema()) {
			return nil, fmt.Errorf("record %d has another schema than record 0", i)
		}
	}
	return r[0].Schema(), nil
}

// Units returns the records' numbers of rows.
func (r Records) Units(context.Context) ([]int64, error) {
	rows := make([]int64, len(r))
	for i, rec := range r {
		rows[i] = rec.NumRows()
	}
	return rows, nil
}

// Read gives one record.
func (r Records) Read(_ context.Context, unit int) iter.Seq2[arrow.Record, error] {
	return func(yield func(arrow.Record, error) bool) { yield(r[unit], nil) }
}

// rows are packed rows in memory, row-major.
type rows struct {
	inputs, features int
	x                []float32 // [n][inputs]
	// missing has a bit for every feature without a value, words() words a row;
	// the rows beyond its end are complete.
	missing []uint64
	n       int
}

func (s *rows) words() int { return (s.features + 63) / 64 }

// add appends a lane of a packed tile.
func (s *rows) add(t *tile, lane int) {
	s.n++
	at := len(s.x)
	s.x = slices.Grow(s.x, s.inputs)[:at+s.inputs]
	for f, row := 0, s.x[at:]; f < len(row); f++ {
		row[f] = t.x[f*vae.TileRows+lane]
	}
	if t.gaps>>lane&1 == 0 {
		return
	}
	words := s.gone(s.n - 1)
	for f, m := range t.missing {
		words[f/64] |= m >> lane & 1 << (f % 64)
	}
}

// addRow appends row i of other rows of the same shape.
func (s *rows) addRow(o *rows, i int) {
	s.n++
	s.x = append(s.x, o.x[i*o.inputs:(i+1)*o.inputs]...)
	if w := o.words(); (i+1)*w <= len(o.missing) {
		copy(s.gone(s.n-1), o.missing[i*w:(i+1)*w])
	}
}

// gone returns the words of row i, to be written.
func (s *rows) gone(i int) []uint64 {
	w := s.words()
	for len(s.missing) < (i+1)*w { // rows that were complete before
		s.missing = append(s.missing, 0)
	}
	return s.missing[i*w : (i+1)*w]
}

// fill copies the rows in index to the lanes of a tile and zeroes the others.
func (s *rows) fill(index []uint32, t *kernel.Trainer) {
	t.Fill(s.x, index)
	clear(t.Missing)
	w := s.words()
	for r, i := range index {
		if (int(i)+1)*w > len(s.missing) {
			continue
		}
		for k, m := range s.missing[int(i)*w : (int(i)+1)*w] {
			for ; m != 0; m &= m - 1 {
				t.Missing[64*k+bits.TrailingZeros64(m)] |= 1 << r
			}
		}
	}
}

// swapOut removes row i by putting the last row in its place.
func (s *rows) swapOut(i int) {
	j := s.n - 1
	copy(s.x[i*s.inputs:(i+1)*s.inputs], s.x[j*s.inputs:])
	s.x = s.x[:j*s.inputs]
	if s.missing != nil {
		last := s.gone(j)
		copy(s.gone(i), last)
		s.missing = s.missing[:j*s.words()]
	}
	s.n = j
}

// A split says which rows are held out and which are left out.
type split struct {
	out    []uint64 // a bit for each row that is left out; nil means none
	left   []int64  // the places of those rows, strangest first
	total  int64
	seed   uint64
	share  float64
	column int   // of the time, -1 for the hash of the position
	latest int64 // times from here on are held out
}

// newSplit chooses the held-out rows; for a time column it reads the column once.
func newSplit(ctx context.Context, c Config, d Data, total int64) (*split, error) {
	share := max(c.HeldOut, float64(minHeldOut)/float64(total))
	share = min(share, 0.5, max(float64(maxHeldOut)/float64(total), 0))
	s := &split{total: total, seed: c.Seed, share: share, column: -1}
	if c.TimeColumn == "" {
		s.atLeast(vae.MinCalibration, total)
		return s, nil
	}
	schema, err := d.Schema(ctx)
	if err != nil {
		return nil, err
	}
	at := schema.FieldIndices(c.TimeColumn)
	if len(at) != 1 {
		return nil, fmt.Errorf("time column %q: %d columns of that name", c.TimeColumn, len(at))
	}
	s.column = at[0]
	var times []int64
	err = each(ctx, d, func(_ int64, rec arrow.Record) error {
		key, err := timeKeys(rec.Column(s.column))
		if err != nil {
			return fmt.Errorf("time column %q: %w", c.TimeColumn, err)
		}
		for i := range int(rec.NumRows()) {
			times = append(times, key(i))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	sorted := slices.Sorted(slices.Values(times))
	s.latest = sorted[len(sorted)-max(1, int(math.Round(share*float64(len(sorted)))))]
	return s, nil
}

// atLeast raises the share until the hash holds out n rows of a small table,
// whatever the seed.
func (s *split) atLeast(n int, total int64) {
	for total <= 1000 && s.share < 0.5 {
		held := 0
		for i := range total {
			if HeldOut(s.seed, i, s.share) {
				held++
			}
		}
		if held >= n {
			return
		}
		s.share = min(1.2*s.share, 0.5)
	}
}

// timeKeys reads a column of times (or of numbers) as keys that sort like it;
// missing values come first.
func timeKeys(a arrow.Array) (func(int) int64, error) {
	null := func(i int, v int64) int64 {
		if a.IsNull(i) {
			return math.MinInt64
		}
		return v
	}
	switch t := a.(type) {
	case *array.Timestamp:
		return func(i int) int64 { return null(i, int64(t.Value(i))) }, nil
	case *array.Date32:
		return func(i int) int64 { return null(i, int64(t.Value(i))) }, nil
	case *array.Date64:
		return func(i int) int64 { return null(i, int64(t.Value(i))) }, nil
	case *array.Int64:
		return func(i int) int64 { return null(i, t.Value(i)) }, nil
	case *array.Int32:
		return func(i int) int64 { return null(i, int64(t.Value(i))) }, nil
	}
	return nil, fmt.Errorf("type %s is neither a time nor an integer", a.DataType())
}

// held returns, for the rows of rec, whether they are held out. first is the
// position of its first row in the table.
func (s *split) held(first int64, rec arrow.Record) (func(int) bool, error) {
	if s.column < 0 {
		return func(i int) bool { return HeldOut(s.seed, first+int64(i), s.share) }, nil
	}
	key, err := timeKeys(rec.Column(s.column))
	if err != nil {
		return nil, err
	}
	return func(i int) bool { return key(i) >= s.latest }, nil
}

// each calls f with every record in the table's order.
func each(ctx context.Context, d Data, f func(first int64, rec arrow.Record) error) error {
	units, err := d.Units(ctx)
	if err != nil {
		return err
	}
	first := int64(0)
	for u := range units {
		for rec, err := range d.Read(ctx, u) {
			if err != nil {
				return err
			}
			if err := f(first, rec); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			first += rec.NumRows()
		}
	}
	return nil
}

// pick returns the rows of rec that keep is true for, as runs [from, to).
func pick(rows int, keep func(int) bool, f func(from, to int)) {
	for i := 0; i < rows; i++ {
		if !keep(i) {
			continue
		}
		j := i + 1
		for j < rows && keep(j) {
			j++
		}
		f(i, j)
		i = j
	}
}

// table is the packed training data: all of it, or the held-out rows only with
// the rest read again in every epoch.
type table struct {
	spec     *vae.Spec
	data     Data
	split    *split
	packer   *vae.Packer
	train    *rows // nil when it does not fit in memory
	held     *rows
	suspects *rows     // held-out rows that are left out as likely anomalies
	news     []float64 // what is new in the held-out rows, then in the suspects, in nats
	firsts   []int64   // of each unit
	units    []int64
	trainN   int64
	capacity int // of the shuffle buffer, rows
}

// pack reads the data once and keeps what fits.
func pack(ctx context.Context, c Config, d Data, spec *vae.Spec, s *split, trainN int64) (*table, error) {
	schema, err := d.Schema(ctx)
	if err != nil {
		return nil, err
	}
	t := &table{spec: spec, data: d, split: s, trainN: trainN}
	if t.packer, err = spec.NewPacker(schema); err != nil {
		return nil, err
	}
	if t.units, err = d.Units(ctx); err != nil {
		return nil, err
	}
	at := int64(0)
	for _, n := range t.units {
		t.firsts = append(t.firsts, at)
		at += n
	}
	features, inputs := spec.Inputs()
	empty := func() *rows { return &rows{inputs: inputs, features: features} }
	t.held, t.suspects = empty(), empty()
	var suspectNews []float64
	bytesPerRow := int64(4*inputs + 8*t.held.words())
	t.capacity = int(min(max(c.Memory/bytesPerRow, int64(c.Batch)), math.MaxInt32))
	if trainN*bytesPerRow <= c.Memory {
		t.train = empty()
		t.train.x = make([]float32, 0, trainN*int64(inputs))
	}
	p := newTile(spec)
	err = each(ctx, d, func(first int64, rec arrow.Record) error {
		held, err := s.held(first, rec)
		if err != nil {
			return err
		}
		return p.rows(t.packer, rec, func(r, lane int) {
			switch out := s.isOut(first + int64(r)); {
			case held(r) && out:
				t.suspects.add(p, lane)
				suspectNews = append(suspectNews, p.packed.News(lane))
			case held(r):
				t.held.add(p, lane)
				t.news = append(t.news, p.packed.News(lane))
			case t.train != nil && !out:
				t.train.add(p, lane)
			}
		})
	})
	t.news = append(t.news, suspectNews...)
	return t, err
}

// tile is scratch for packing.
type tile struct {
	packed  vae.Packed
	x       []float32 // [inputs][vae.TileRows]
	missing []uint64  // [features], a bit for each lane
	gaps    uint64    // the lanes that miss anything
	flags   []vae.RowFlags
}

func newTile(spec *vae.Spec) *tile {
	features, inputs := spec.Inputs()
	return &tile{x: make([]float32, inputs*vae.TileRows), missing: make([]uint64, features), flags: make([]vae.RowFlags, vae.TileRows)}
}

// rows packs rec and calls f for every row with its lane in the tile.
func (t *tile) rows(p *vae.Packer, rec arrow.Record, f func(row, lane int)) error {
	if err := p.BindTo(&t.packed, rec); err != nil {
		return err
	}
	for from := 0; from < int(rec.NumRows()); from += vae.TileRows {
		n := min(vae.TileRows, int(rec.NumRows())-from)
		t.gaps = 0
		if t.packed.Pack(from, n, t.x, vae.TileRows, 1, t.missing, t.flags) {
			for _, m := range t.missing {
				t.gaps |= m
			}
		}
		for lane := range n {
			f(from+lane, lane)
		}
	}
	return nil
}

// batches yields batches of rows without end, from the given step on: each is a
// set of packed rows and the indexes into it. The order depends on the seed and
// the step alone.
func (t *table) batches(ctx context.Context, c Config, step int) iter.Seq2[batch, error] {
	if t.train != nil {
		return t.memoryBatches(c, step)
	}
	return t.streamBatches(ctx, c, step)
}

type batch struct {
	rows  *rows
	index []uint32
}

// memoryBatches walks permutations of the rows.
func (t *table) memoryBatches(c Config, step int) iter.Seq2[batch, error] {
	return func(yield func(batch, error) bool) {
		for w := t.walk(c, step); yield(w.next(), nil); {
		}
	}
}

// A walk goes through permutations of rows in memory. A batch that the end of an
// epoch cuts short is filled from the next one, so that every row is used.
type walk struct {
	rows  *rows
	seed  uint64
	epoch int
	at    int // in order
	order []uint32
	index []uint32 // of a batch
}

// walk starts at a step.
func (t *table) walk(c Config, step int) walk {
	n := t.train.n
	size := min(c.Batch, n)
	w := walk{rows: t.train, seed: c.Seed, epoch: step * size / n, at: step * size % n, index: make([]uint32, size)}
	w.order = Permutation(w.seed, uint64(w.epoch), n)
	return w
}

// next returns the next batch, which lasts until the one after is asked for.
func (w *walk) next() batch {
	for done := 0; done < len(w.index); {
		if w.at == len(w.order) {
			w.epoch, w.at = w.epoch+1, 0
			w.order = Permutation(w.seed, uint64(w.epoch), len(w.order))
		}
		n := copy(w.index[done:], w.order[w.at:])
		done, w.at = done+n, w.at+n
	}
	return batch{w.rows, w.index}
}

// streamBatches reads the units of each epoch in random order through a shuffle
// buffer. A batch that the end of an epoch cuts short is filled from the next one,
// as in memory. To resume it reads its epoch again from the start and drops what
// was used.
func (t *table) streamBatches(ctx context.Context, c Config, step int) iter.Seq2[batch, error] {
	return func(yield func(batch, error) bool) {
		size := int(min(int64(c.Batch), t.trainN))
		used := int64(step) * int64(size)
		skip := used % t.trainN
		out := &rows{inputs: t.held.inputs, features: t.held.features}
		out.x = make([]float32, 0, size*out.inputs)
		index := all(size)
		for epoch := used / t.trainN; ; epoch++ {
			for x, err := range t.shuffled(ctx, c, epoch) {
				if err != nil {
					yield(batch{}, err)
					return
				}
				if skip > 0 {
					skip--
					continue
				}
				if out.addRow(x.rows, x.row); out.n < size {
					continue
				}
				if !yield(batch{out, index}, nil) {
					return
				}
				out.x, out.missing, out.n = out.x[:0], out.missing[:0], 0
			}
		}
	}
}

// all returns the indexes 0 to n-1.
func all(n int) []uint32 {
	index := make([]uint32, n)
	for i := range index {
		index[i] = uint32(i)
	}
	return index
}

// place is where a packed row stands.
type place struct {
	rows *rows
	row  int
}

// shuffled yields every training row once; each lasts until the next is asked
// for.
func (t *table) shuffled(ctx context.Context, c Config, epoch int64) iter.Seq2[place, error] {
	return func(yield func(place, error) bool) {
		buffer := &rows{inputs: t.held.inputs, features: t.held.features}
		buffer.x = make([]float32, 0, int(min(int64(t.capacity), t.trainN))*buffer.inputs)
		draw := counter{seed: c.Seed, stream: uint64(epoch)}
		tile := newTile(t.spec)
		give := func() bool {
			i := int(draw.below(uint64(buffer.n)))
			defer buffer.swapOut(i)
			return yield(place{buffer, i}, nil)
		}
		for _, u := range Permutation(c.Seed, uint64(epoch), len(t.units)) {
			first, stopped := t.firsts[u], false
			for rec, err := range t.data.Read(ctx, int(u)) {
				if err == nil {
					err = t.addTo(buffer, tile, first, rec, func() bool { stopped = stopped || !give(); return !stopped })
				}
				if err != nil {
					yield(place{}, err)
					return
				}
				if stopped {
					return
				}
				first += rec.NumRows()
			}
		}
		for buffer.n > 0 {
			if !give() {
				return
			}
		}
	}
}

// addTo packs the training rows of rec into the buffer and makes room with give.
func (t *table) addTo(buffer *rows, tile *tile, first int64, rec arrow.Record, give func() bool) error {
	held, err := t.split.held(first, rec)
	if err != nil {
		return err
	}
	open := true
	return tile.rows(t.packer, rec, func(r, lane int) {
		if !open || held(r) || t.split.isOut(first+int64(r)) {
			return
		}
		if buffer.n >= t.capacity {
			open = give()
		}
		buffer.add(tile, lane)
	})
}

// counter draws numbers from a stream, one after the other.
type counter struct{ seed, stream, n uint64 }

func (c *counter) below(n uint64) uint64 {
	c.n++
	return hash(c.seed, c.stream, c.n) % n
}

// largest returns the index of the largest value, NaN above all.
func largest(v []float64) int {
	best := 0
	for i := range v {
		if math.IsNaN(v[i]) {
			return i
		}
		if cmp.Compare(v[i], v[best]) > 0 {
			best = i
		}
	}
	return best
}
