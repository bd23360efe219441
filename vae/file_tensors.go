package vae

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/elbo-stream/elbo/vae/internal/kernel"
)

// A weight matrix stands in the file as one tensor, LAYER.weight, when its pattern
// is dense: [out][in] of F32, BF16 or I8. Otherwise LAYER.weight.mask has a bit for
// each weight, row after row, or for each block, group of outputs after group and
// input after input; and LAYER.weight the numbers whose bits are set, block after
// block. An I8 matrix has LAYER.scale besides, and with inputs of bytes LAYER.low and
// LAYER.step; see Form.

// A tensor is one tensor of the file.
type tensor struct {
	name, dtype string
	shape       []int
	data        []byte
}

var dtypeSize = map[string]int{"F32": 4, "BF16": 2, "I8": 1, "U8": 1}

// tensors lists the model's tensors, wide numbers first.
func (m *Model) tensors() (list []tensor) {
	add := func(name string, v []float32, shape ...int) {
		list = append(list, tensor{name, "F32", shape, putFloats(nil, v)})
	}
	matrices := m.matrices()
	next := 0
	for _, stack := range [][]kernel.Layer{m.net.Encoder, m.net.Decoder} {
		for _, l := range stack {
			w := matrices[next]
			next++
			list = append(list, m.form(w.layer).tensors(w, w.layer+".weight")...)
			add(w.layer+".bias", m.params[l.B:l.B+l.Out], l.Out)
		}
	}
	add("log_sd", m.params[m.net.LogSD:], m.net.Features)
	if s := m.Spec.Mixture; s != nil {
		list = append(list, m.form(MemberMixture).tensors(matrices[next], "mixture.at")...)
		add("mixture.log_weight", m.mixture[s.Components*m.net.Features:], s.Components)
	}
	slices.SortStableFunc(list, func(a, b tensor) int { return dtypeSize[b.dtype] - dtypeSize[a.dtype] })
	return list
}

// tensors encodes a matrix in the form, which may be nil.
func (f *Form) tensors(of weightMatrix, name string) []tensor {
	if f == nil {
		return []tensor{{name, "F32", []int{of.out, of.in}, putFloats(nil, of.w)}}
	}
	list := []tensor{{name: name, dtype: f.dtype(), shape: []int{of.out, of.in}}}
	if f.Pattern != Dense {
		mask := f.mask(of)
		list = append(list, tensor{name + ".mask", "U8", []int{len(mask)}, mask})
	}
	for o, k := range f.order(of, func(bit int) bool { return f.Pattern == Dense || list[1].data[bit/8]>>(bit%8)&1 != 0 }) {
		w := of.w[o*of.in+k]
		switch f.Precision {
		case Int8:
			list[0].data = append(list[0].data, byte(f.Whole(w, o, k)))
		case BF16:
			list[0].data = binary.LittleEndian.AppendUint16(list[0].data, uint16(math.Float32bits(w)>>16))
		default:
			list[0].data = putFloats(list[0].data, []float32{w})
		}
	}
	if f.Pattern != Dense {
		list[0].shape = []int{len(list[0].data) / dtypeSize[list[0].dtype]}
	}
	if f.Precision == Int8 {
		layer := strings.TrimSuffix(strings.TrimSuffix(name, ".weight"), ".at")
		list = append(list, tensor{layer + ".scale", "F32", []int{of.out}, putFloats(nil, f.Scale)})
	}
	if f.bytes() {
		layer := strings.TrimSuffix(strings.TrimSuffix(name, ".weight"), ".at")
		list = append(list, tensor{layer + ".low", "BF16", []int{of.in}, putBF16(f.Low)}, tensor{layer + ".step", "BF16", []int{of.in}, putBF16(f.Step)})
	}
	return list
}

func (f *Form) dtype() string {
	switch f.Precision {
	case Int8:
		return "I8"
	case BF16:
		return "BF16"
	}
	return "F32"
}

// order walks over the weights whose bits are set, in the order of the file: it
// gives their output and input.
func (f *Form) order(of weightMatrix, set func(bit int) bool) func(yield func(o, k int) bool) {
	groups := of.groups
	if f.Pattern != Blocks {
		groups = make([][2]int, of.out)
		for o := range groups {
			groups[o] = [2]int{o, o + 1}
		}
	}
	return func(yield func(o, k int) bool) {
		for g, span := range groups {
			for k := range of.in {
				if !set(g*of.in + k) {
					continue
				}
				for o := span[0]; o < span[1]; o++ {
					if !yield(o, k) {
						return
					}
				}
			}
		}
	}
}

// bits is the length of the mask.
func (f *Form) bits(of weightMatrix) int {
	if f.Pattern == Blocks {
		return len(of.groups) * of.in
	}
	return of.out * of.in
}

// mask has a bit for each block with a weight other than zero.
func (f *Form) mask(of weightMatrix) []byte {
	mask := make([]byte, (f.bits(of)+7)/8)
	bit := -1
	last := [2]int{-1, -1}
	for o, k := range f.order(of, func(int) bool { return true }) {
		if at := [2]int{f.group(of, o), k}; at != last {
			bit, last = bit+1, at
		}
		if of.w[o*of.in+k] != 0 {
			mask[bit/8] |= 1 << (bit % 8)
		}
	}
	return mask
}

// group is the number of the run of outputs that o belongs to.
func (f *Form) group(of weightMatrix, o int) int {
	if f.Pattern != Blocks {
		return o
	}
	i, _ := slices.BinarySearchFunc(of.groups, o, func(g [2]int, o int) int { return g[1] - 1 - o })
	return i
}

// products is the number of weights that are multiplied.
func (f *Form) products(of weightMatrix) (n int) {
	if f == nil || f.Pattern == Dense {
		return of.out * of.in
	}
	mask := f.mask(of)
	for range f.order(of, func(bit int) bool { return mask[bit/8]>>(bit%8)&1 != 0 }) {
		n++
	}
	return n
}

func putFloats(b []byte, v []float32) []byte {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func putBF16(v []float32) (b []byte) {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(x)>>16))
	}
	return b
}

func readFloats(b []byte, dst []float32) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
}

func bf16s(b []byte) []float32 {
	v := make([]float32, len(b)/2)
	for i := range v {
		v[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16)
	}
	return v
}

// A tensorReader takes tensors out of a file, believing no length.
type tensorReader struct {
	infos map[string]tensorInfo
	data  []byte
	spans [][2]int64 // taken
}

// take returns the bytes of a tensor, whose shape must be the one given; -1 stands
// for any length.
func (r *tensorReader) take(name, dtype string, shape ...int) ([]byte, error) {
	info, ok := r.infos[name]
	if !ok {
		return nil, fmt.Errorf("tensor %q is missing", name)
	}
	size := int64(dtypeSize[dtype])
	fits := info.DType == dtype && len(info.Shape) == len(shape)
	for i := range shape {
		fits = fits && info.Shape[i] >= 0 && info.Shape[i] <= maxParams && (shape[i] == info.Shape[i] || shape[i] < 0)
		if fits {
			size *= int64(info.Shape[i])
		}
	}
	lo, hi := info.Offsets[0], info.Offsets[1]
	if !fits || lo < 0 || lo > hi || hi > int64(len(r.data)) || hi-lo != size {
		return nil, fmt.Errorf("tensor %q: %v, want %s of shape %v", name, info, dtype, shape)
	}
	r.spans = append(r.spans, [2]int64{lo, hi})
	return r.data[lo:hi], nil
}

// last returns the bytes of a tensor that was taken.
func (r *tensorReader) last(name string) []byte {
	info := r.infos[name]
	return r.data[info.Offsets[0]:info.Offsets[1]]
}

// done says whether the tensors that were taken are all there are and fill the data.
func (r *tensorReader) done() error {
	if len(r.spans) != len(r.infos) {
		return fmt.Errorf("%d tensors, the model has %d", len(r.infos), len(r.spans))
	}
	slices.SortFunc(r.spans, func(a, b [2]int64) int {
		if a[0] != b[0] {
			return int(a[0] - b[0])
		}
		return int(a[1] - b[1])
	})
	at := int64(0)
	for _, s := range r.spans {
		if s[0] != at {
			return errors.New("tensors overlap or leave a gap")
		}
		at = s[1]
	}
	if at != int64(len(r.data)) {
		return fmt.Errorf("%d bytes of tensors in %d: the file was cut short or has more", at, len(r.data))
	}
	return nil
}

// mostPerByte is how many weights a byte of a file can stand for: blocks of four,
// all of them zero.
const mostPerByte = 8 * 4

// readParams copies the tensors that the model has to its parameters and refuses
// any other.
func readParams(m *Model, infos map[string]tensorInfo, data []byte) error {
	m.net = m.Spec.Net()
	if total := m.net.Params + m.Spec.mixtureParams(); total > mostPerByte*len(data) {
		return fmt.Errorf("%d bytes of tensors are too few for %d parameters: the file was cut short", len(data), total)
	}
	m.params, m.mixture = make([]float32, m.net.Params), make([]float32, m.Spec.mixtureParams())
	r := &tensorReader{infos: infos, data: data}
	into := func(dst []float32, name string) error {
		b, err := r.take(name, "F32", len(dst))
		if err == nil {
			readFloats(b, dst)
		}
		return err
	}
	matrices := m.matrices()
	next := 0
	for _, stack := range [][]kernel.Layer{m.net.Encoder, m.net.Decoder} {
		for _, l := range stack {
			w := matrices[next]
			next++
			if err := m.form(w.layer).read(r, w, w.layer+".weight"); err != nil {
				return err
			}
			if err := into(m.params[l.B:l.B+l.Out], w.layer+".bias"); err != nil {
				return err
			}
		}
	}
	if err := into(m.params[m.net.LogSD:], "log_sd"); err != nil {
		return err
	}
	if s := m.Spec.Mixture; s != nil {
		if err := m.form(MemberMixture).read(r, matrices[next], "mixture.at"); err != nil {
			return err
		}
		if err := into(m.mixture[s.Components*m.net.Features:], "mixture.log_weight"); err != nil {
			return err
		}
	}
	return r.done()
}

// read fills a matrix and the form's scales from the file's tensors.
func (f *Form) read(r *tensorReader, of weightMatrix, name string) error {
	if f == nil {
		b, err := r.take(name, "F32", of.out, of.in)
		if err == nil {
			readFloats(b, of.w)
		}
		return err
	}
	set, n, err := f.readMask(r, of, name)
	if err != nil {
		return err
	}
	shape := []int{n}
	if f.Pattern == Dense {
		shape = []int{of.out, of.in}
	}
	b, err := r.take(name, f.dtype(), shape...)
	if err != nil {
		return err
	}
	if f.Precision == Int8 {
		if err := f.readScales(r, of, strings.TrimSuffix(strings.TrimSuffix(name, ".weight"), ".at")); err != nil {
			return err
		}
	}
	at := 0
	for o, k := range f.order(of, set) {
		w := &of.w[o*of.in+k]
		switch f.Precision {
		case Int8:
			if int8(b[at]) == math.MinInt8 {
				return fmt.Errorf("tensor %q: -128 is no weight", name)
			}
			*w = f.Weight(int8(b[at]), o, k)
		case BF16:
			*w = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*at:])) << 16)
		default:
			*w = math.Float32frombits(binary.LittleEndian.Uint32(b[4*at:]))
		}
		at++
	}
	if f.Pattern != Dense && !slices.Equal(f.mask(of), r.last(name+".mask")) {
		return fmt.Errorf("tensor %q: a bit stands for zeros", name+".mask")
	}
	return nil
}

// readMask returns which bits are set, and how many weights they stand for.
func (f *Form) readMask(r *tensorReader, of weightMatrix, name string) (set func(bit int) bool, n int, err error) {
	switch f.Pattern {
	case Dense:
		return func(int) bool { return true }, of.out * of.in, nil
	case Blocks, Weights:
	default:
		return nil, 0, fmt.Errorf("layer %q: unknown pattern %q", f.Layer, string(f.Pattern))
	}
	total := f.bits(of)
	mask, err := r.take(name+".mask", "U8", (total+7)/8)
	if err != nil {
		return nil, 0, err
	}
	if rest := total % 8; rest != 0 && bits.LeadingZeros8(mask[len(mask)-1]) < 8-rest {
		return nil, 0, fmt.Errorf("tensor %q: bits beyond its end are set", name+".mask")
	}
	set = func(bit int) bool { return mask[bit/8]>>(bit%8)&1 != 0 }
	for range f.order(of, set) {
		n++
	}
	return set, n, nil
}

func (f *Form) readScales(r *tensorReader, of weightMatrix, layer string) error {
	scale, err := r.take(layer+".scale", "F32", of.out)
	if err != nil {
		return err
	}
	f.Scale = make([]float32, of.out)
	readFloats(scale, f.Scale)
	if f.WeightsOnly {
		return f.validateRanges()
	}
	low, err := r.take(layer+".low", "BF16", of.in)
	if err != nil {
		return err
	}
	step, err := r.take(layer+".step", "BF16", of.in)
	if err != nil {
		return err
	}
	f.Low, f.Step = bf16s(low), bf16s(step)
	return f.validateRanges()
}
