package vae

import (
	"math"
	"math/bits"
	"unsafe"

	"github.com/apache/arrow/go/v15/arrow"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// work is the state of one call of Pack, with room for values on their way.
type work struct {
	from, n   int
	x         []float32
	fs, rs    int
	tile      bool // lanes of a feature stand next to each other, and are padded
	padded    int  // lanes to write, in a tile
	missing   []uint64
	all       uint64 // a bit for every row
	nonfinite uint64 // rows with such a value, and so on
	misfit    uint64
	unseen    uint64
	any       bool
	odd       map[int]uint64 // rows of a column of truths that are neither 0 nor 1
	planes    [planes]uint64 // bit r of plane i is bit i of row r's missing columns

	lanes  [TileRows]float32
	f32    [blockWidth * TileRows]float32
	f64    [blockWidth * TileRows]float64
	starts [TileRows]int
}

const (
	planes     = 17 // bits of MaxColumns
	blockWidth = 16 // features of a vector that are read together
)

// Pack packs rows [from, from+n), n at most TileRows, into x: input f of row r
// goes to x[f*fs+r*rs]. With fs = TileRows and rs = 1 that is a tile, whose lanes
// from n to the next multiple of 16 become zero; fs = 1 is row-major, meant for
// few rows. missing has one element per feature, whose bit r says that the
// feature is missing in row r, and then its value is 0; anyMissing says whether
// any bit is set. flags[0:n] is set.
func (b *Packed) Pack(from, n int, x []float32, fs, rs int, missing []uint64, flags []RowFlags) (anyMissing bool) {
	w := &b.work
	if from < 0 || n < 0 || n > TileRows || from+n > b.rows {
		panic("vae: Pack of rows that the record does not have")
	}
	w.from, w.n, w.x, w.fs, w.rs = from, n, x, fs, rs
	w.tile = fs == TileRows && rs == 1
	w.padded = (n + sliceRows - 1) / sliceRows * sliceRows
	w.missing, w.all = missing[:b.p.features], firstBits(n)
	w.nonfinite, w.misfit, w.unseen, w.any = 0, 0, 0, false
	w.planes = [planes]uint64{}
	nulls, rows := b.nulls, fs == 1 && !w.tile
	for i := range b.p.blocks {
		k := &b.p.blocks[i]
		switch {
		case k.run == single:
			b.column(k.first)
			continue
		case k.run == others && !rows:
			for i := range k.n {
				b.column(k.first + i)
			}
			continue
		case k.run == others:
			b.otherRows(k)
		case rows:
			b.runRows(k)
		default:
			b.runLanes(k)
		}
		for ; len(nulls) > 0 && int(nulls[0]) < k.first+k.n; nulls = nulls[1:] {
			if c := int(nulls[0]); c >= k.first {
				b.runNulls(c, k.feature+c-k.first)
			}
		}
	}
	b.indicators()
	b.flag(flags[:n])
	b.fillShifts()
	b.findNews()
	b.findActive()
	w.x, w.missing = nil, nil
	return w.any
}

// flag sets the rows' flags.
func (b *Packed) flag(flags []RowFlags) {
	w := &b.work
	clear(flags)
	if w.nonfinite|w.misfit|w.unseen == 0 && !w.any {
		return
	}
	limit := b.p.spec.MaxMissing * float64(len(b.p.steps))
	for r := range flags {
		f := RowFlags(w.nonfinite>>r&1)*NonFinite | RowFlags(w.misfit>>r&1)*Misfit | RowFlags(w.unseen>>r&1)*Unseen
		columns := 0
		for i, p := range w.planes {
			columns |= int(p>>r&1) << i
		}
		if float64(columns) > limit {
			f |= TooMissing
		}
		flags[r] = f
	}
}

// gone counts a column as missing in the rows whose bit is set.
func (w *work) gone(rows uint64) {
	w.any = w.any || rows != 0
	for i := 0; rows != 0; i++ {
		w.planes[i], rows = w.planes[i]^rows, w.planes[i]&rows
	}
}

// fillShifts gives missing cells of shifted features their shift.
func (b *Packed) fillShifts() {
	w := &b.work
	if !w.any || b.p.shift == nil {
		return
	}
	for f, rows := range w.missing {
		if shift := b.p.shift[f]; shift != 0 {
			for ; rows != 0; rows &= rows - 1 {
				w.x[f*w.fs+bits.TrailingZeros64(rows)*w.rs] = shift
			}
		}
	}
}

// findActive lists the inputs that differ from zero somewhere in the tile, unless
// nearly all do: then the list costs more than it spares.
func (b *Packed) findActive() {
	w, p := &b.work, b.p
	b.Active = nil
	if !w.tile || !p.sparse {
		return
	}
	active := b.active[:0]
	for f := range p.inputs {
		lanes := (*[TileRows]float32)(w.x[f*TileRows:])
		if lanes[0] != 0 || lanes[w.padded/2] != 0 || !allZero(lanes[:w.padded]) {
			active = append(active, uint32(f))
		}
	}
	if 100*len(active) <= 85*p.inputs {
		b.Active = active
	}
}

// allZero says whether every lane is 0 or -0; their number is a multiple of 16.
func allZero(lanes []float32) bool {
	for ; len(lanes) >= 16; lanes = lanes[16:] {
		words := (*[8]uint64)(unsafe.Pointer(unsafe.SliceData(lanes)))
		if (words[0]|words[1]|words[2]|words[3]|words[4]|words[5]|words[6]|words[7])<<1&^(1<<32) != 0 {
			return false
		}
	}
	return true
}

// lanesOf returns where the values of feature f are to be written, for put to
// take them from.
func (w *work) lanesOf(f int) []float32 {
	if w.tile {
		return w.x[f*TileRows:][:w.padded]
	}
	return w.lanes[:w.n]
}

// put brings the values that lanesOf made room for to their place.
func (w *work) put(f int, lanes []float32) {
	if w.tile {
		clear(lanes[w.n:])
		return
	}
	for r, v := range lanes {
		w.x[f*w.fs+r*w.rs] = v
	}
}

// indicators writes which columns are missing, for those that have an input.
func (b *Packed) indicators() {
	if b.p.inputs == b.p.features {
		return
	}
	w := &b.work
	for i := range b.p.steps {
		s := &b.p.steps[i]
		if s.indicator < 0 {
			continue
		}
		var gone uint64
		for _, m := range w.missing[s.feature : s.feature+s.features] {
			gone |= m
		}
		lanes := w.lanesOf(s.indicator)
		expand(lanes, gone)
		w.put(s.indicator, lanes)
	}
}

// packAhead is how many columns ahead the memory is asked for the same rows. The
// columns stand far from each other, so nothing else foresees them.
const packAhead = 8

// runLanes packs a run of float32 columns feature by feature, as if no value
// were null.
func (b *Packed) runLanes(k *block) {
	w, norms := &b.work, &b.p.norms
	clear(w.missing[k.feature : k.feature+k.n])
	base := b.base[k.first:][:k.n]
	at := uintptr(w.from) * 4
	for i, column := range base {
		f := k.feature + i
		src := unsafe.Slice((*float32)(unsafe.Add(column, at)), w.n)
		dst := w.lanesOf(f)
		ahead := (*float32)(unsafe.Add(base[min(i+packAhead, k.n-1)], at))
		bad := kernel.Pack32(b.p.level, dst, src, ahead, norms.hi[f], norms.inv[f], norms.lo[f], MaxAbs)
		if k.run == unitRange && notUnit(dst[:w.n]) {
			b.strangers(k.first+i, f, src, dst)
		} else if bad != 0 {
			b.strange(k.first+i, f, bad, 0)
		}
		w.put(f, dst)
	}
}

// runRows packs a run of float32 columns row by row.
func (b *Packed) runRows(k *block) {
	w, norms := &b.work, &b.p.norms
	hi, inv, lo := norms.hi[k.feature:][:k.n], norms.inv[k.feature:][:k.n], norms.lo[k.feature:][:k.n]
	base := b.base[k.first:][:k.n]
	clear(w.missing[k.feature : k.feature+k.n])
	for r := range w.n {
		at := uintptr(w.from+r) * 4
		dst := w.x[k.feature+r*w.rs:][:k.n]
		odd := readRow(dst, base, at)
		if k.run != unitRange {
			odd = !kernel.PackRow(b.p.level, dst, hi, inv, lo, MaxAbs)
		}
		if odd {
			b.oddRow(k, r)
		}
	}
}

// readRow reads one value of each column and says whether any may lie outside
// [0,1].
func readRow(dst []float32, base []unsafe.Pointer, at uintptr) bool {
	dst = dst[:len(base)]
	var odd uint32
	for i, p := range base {
		v := *(*float32)(unsafe.Add(p, at))
		dst[i] = v
		b := math.Float32bits(v)
		odd |= b | (b&^signBit + overOne)
	}
	return odd&signBit != 0
}

// oddRow marks what is missing in row r of a run.
func (b *Packed) oddRow(k *block, r int) {
	w := &b.work
	for i := range k.n {
		off, nonfinite := outside(unsafe.Slice((*float32)(b.base[k.first+i]), w.from+r+1)[w.from+r:])
		if k.run != unitRange {
			off = 0
		}
		if off|nonfinite != 0 {
			f := k.feature + i
			b.strange(k.first+i, f, nonfinite<<r, off<<r)
			w.x[f*w.fs+r*w.rs] = 0
		}
	}
}

// strangers looks at a column of numbers that should lie within [0,1].
func (b *Packed) strangers(i, f int, src, dst []float32) {
	off, nonfinite := outside(src)
	b.strange(i, f, nonfinite, off)
	zero(dst[:len(src)], off)
}

// strange marks rows of a column of a run as missing, unless they are null.
func (b *Packed) strange(i, f int, nonfinite, misfit uint64) {
	if nonfinite|misfit == 0 {
		return
	}
	w := &b.work
	valid := b.valid(&b.bound[i])
	w.nonfinite |= nonfinite & valid
	w.misfit |= misfit & valid
	w.missing[f] |= (nonfinite | misfit) & valid
	w.gone((nonfinite | misfit) & valid)
}

// valid returns the rows of a column that are not null.
func (b *Packed) valid(c *bound) uint64 {
	if c.valid == nil {
		return b.work.all
	}
	return bitsAt(c.valid, c.offset+b.work.from, b.work.n)
}

// runNulls marks the null rows of column i of a run, which is feature f.
func (b *Packed) runNulls(i, f int) {
	w := &b.work
	null := w.all &^ b.valid(&b.bound[i])
	if null == 0 {
		return
	}
	w.missing[f] |= null
	w.gone(null)
	for m := null; m != 0; m &= m - 1 {
		w.x[f*w.fs+bits.TrailingZeros64(m)*w.rs] = 0
	}
}

// column packs one column that is not part of a run.
func (b *Packed) column(i int) {
	s, c, w := &b.p.steps[i], &b.bound[i], &b.work
	valid := b.valid(c)
	var gone uint64
	switch s.how {
	case bitmap:
		set := valid & bitsAt(numbersOf[byte](c), c.innerAt+w.from, w.n)
		lanes := w.lanesOf(s.feature)
		expand(lanes, set)
		w.put(s.feature, lanes)
		gone = w.all &^ valid
		w.missing[s.feature] = gone
	case flat:
		if s.truth && valid == w.all && b.truths(s, c) {
			return
		}
		v := w.f64[:w.n]
		if s.num == arrow.FLOAT64 && !s.unit && !s.log1p && !s.truth {
			v = numbersOf[float64](c)[w.from : w.from+w.n]
		} else {
			widen(v, s.num, c, w.from)
		}
		gone = b.wide(s, s.feature, v, valid)
	case vector:
		gone = b.vector(s, c, valid)
	case instant:
		b.instants(s, c)
		for j := range s.features {
			gone |= b.wide(s, s.feature+j, w.f64[j*TileRows:][:w.n], valid)
		}
	case level, coded:
		gone = b.levels(i, s, c, valid)
	}
	w.gone(gone)
}

// wide packs the float64 values of feature f and returns the rows that miss it.
// Where the numbers change before they are standardised, it changes v.
func (b *Packed) wide(s *step, f int, v []float64, valid uint64) (gone uint64) {
	w, norms := &b.work, &b.p.norms
	lanes := w.lanesOf(f)
	var off, bad uint64
	if s.unit {
		off, _ = outside(v)
	}
	if s.truth {
		var odd uint64
		for r, x := range v {
			if x != 0 && x != 1 && x-x == 0 {
				odd |= 1 << r
			}
		}
		if odd &= valid; odd != 0 || len(w.odd) > 0 {
			w.setOdd(s.index, odd)
		}
	}
	if s.log1p || s.truth {
		for r, x := range v {
			if x-x == 0 { // what is not finite stays so
				if s.log1p {
					v[r] = signedLog1p(x)
				} else if x != 0 {
					v[r] = 1
				}
			}
		}
	}
	if s.exact {
		bad = packExact(lanes, v, norms.mean[f], norms.scale[f])
	} else {
		bad = kernel.Pack64(b.p.level, lanes, v, norms.mean[f], norms.inv64[f], MaxAbs)
	}
	w.nonfinite |= bad & valid
	w.misfit |= off & valid
	if gone = w.all&^valid | off | bad; gone != 0 {
		zero(lanes[:w.n], gone)
	}
	w.put(f, lanes)
	w.missing[f] = gone
	return gone
}

// setOdd notes rows of a column whose number is neither 0 nor 1.
func (w *work) setOdd(column int, rows uint64) {
	if w.odd == nil {
		w.odd = map[int]uint64{}
	}
	w.odd[column] = rows
}

// widen reads rows of numbers as float64.
func widen(dst []float64, t arrow.Type, c *bound, from int) {
	switch t {
	case arrow.FLOAT32:
		widenFrom(dst, numbersOf[float32](c), from)
	case arrow.FLOAT64:
		copy(dst, numbersOf[float64](c)[from:from+len(dst)])
	case arrow.INT8:
		widenFrom(dst, numbersOf[int8](c), from)
	case arrow.INT16:
		widenFrom(dst, numbersOf[int16](c), from)
	case arrow.INT32:
		widenFrom(dst, numbersOf[int32](c), from)
	case arrow.INT64:
		widenFrom(dst, numbersOf[int64](c), from)
	case arrow.UINT8:
		widenFrom(dst, numbersOf[uint8](c), from)
	case arrow.UINT16:
		widenFrom(dst, numbersOf[uint16](c), from)
	case arrow.UINT32:
		widenFrom(dst, numbersOf[uint32](c), from)
	case arrow.UINT64:
		widenFrom(dst, numbersOf[uint64](c), from)
	case arrow.BOOL:
		set := bitsAt(numbersOf[byte](c), c.innerAt+from, len(dst))
		for r := range dst {
			dst[r] = float64(set >> r & 1)
		}
	}
}

type integer interface {
	int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64
}

func widenFrom[T integer | float32](dst []float64, src []T, from int) {
	src = src[from : from+len(dst)]
	for r, v := range src {
		dst[r] = float64(v)
	}
}
