package main

import (
	"fmt"
	"math"
	"math/bits"
)

// An op is an operation of the small language that programs are written in. The
// names without a comment are those of IEEE 754, rounded to nearest even.
type op int

const (
	opNone op = iota
	opLoad
	opStore
	opStore1    // the lowest float32
	opStoreD1   // the lowest float64
	opBroadcast // one float32 from memory in all lanes
	opScalar    // a float32 parameter in all lanes
	opScalarD   // a float64 parameter in all lanes
	opConst     // a constant in all lanes
	opMove
	opAdd
	opSub
	opMul
	opDiv
	opSqrt
	opMin  // a < b ? a : b, so b where either is NaN
	opMax  // a > b ? a : b, so b where either is NaN
	opFMA  // a*b + c
	opFNMA // c - a*b
	opAnd  // of bits
	opOr   // of bits
	opXor  // of bits
	opIAdd // of 32-bit integers
	opISub // of 32-bit integers
	opShl
	opSar
	opFloat // a 32-bit integer as a float32
	opLess  // mask: a < b, false for NaN
	opLessEq
	opUnordered // mask: a is NaN
	opMaskAnd
	opMaskOr
	opSelect // a ? b : c, a a mask
	opHalves // the sum of all lanes, the upper half to the lower until one is left
	opHalvesD
	opLoadD    // float64 lanes, half as many
	opLoadWide // float32 from memory as float64
	opAddD
	opSubD
	opMulD
	opNarrow   // two vectors of float64 as one of float32
	opMaskBits // the mask's bits, from imm up, into the word that a pointer register holds
	opRelease  // ends a pinned register's life

	// Of addresses and counters.
	opArg
	opAddImm
	opAddReg
	opSubReg
	opCopyReg
	opShlImm
	opShrImm
	opAndImm
	opZero
	opStoreWord
	opPrefetch     // into the second-level cache
	opPrefetchNear // into the first-level cache
	opLabel
	opJumpZero
	opJumpNotImm
	opDecJump
	opJump
)

// A value is an operand: a virtual register, a constant, or a place in memory
// that is read once, there.
type value struct {
	reg  int // above 0: a virtual register
	mem  bool
	ptr  string
	off  int
	bits uint32
}

func (v value) isReg() bool   { return v.reg > 0 }
func (v value) isConst() bool { return v.reg == 0 && !v.mem }

type instr struct {
	op    op
	dst   int
	src   []value
	ptr   string // address or counter
	arg   string // the other one, a parameter, or a label
	imm   int
	block int
}

type vreg struct {
	mask, pinned bool
	block        int
	last         int // index of the last use; of a pinned one, of its release
}

// A program is one function on its way to assembly. Its vectors are as wide as
// the target's registers; 16 floats are pieces() of them.
type program struct {
	f     *function
	t     *target
	width int // floats in a register
	group int // pieces that are worked on at the same time
	code  []instr
	regs  []vreg // from 1
	block int
	label int
}

func (p *program) pieces() int { return 16 / p.width }

// bytes returns the size of a register.
func (p *program) bytes() int { return 4 * p.width }

func (p *program) add(i instr) {
	i.block = p.block
	p.code = append(p.code, i)
}

func (p *program) newReg(v vreg) int {
	v.block, v.last = p.block, -1
	p.regs = append(p.regs, v)
	return len(p.regs)
}

func (p *program) emit(o op, imm int, src ...value) value {
	mask := o == opLess || o == opLessEq || o == opUnordered || o == opMaskAnd || o == opMaskOr
	r := p.newReg(vreg{mask: mask})
	p.add(instr{op: o, dst: r, src: src, imm: imm})
	return value{reg: r}
}

// pin makes a register that lives across loops and may be set again, until
// release.
func (p *program) pin(v value) value {
	r := p.newReg(vreg{pinned: true})
	p.add(instr{op: opMove, dst: r, src: []value{v}})
	return value{reg: r}
}

func (p *program) release(vs ...value) {
	for _, v := range vs {
		p.add(instr{op: opRelease, src: []value{v}})
	}
}

// set runs a two-operand operation into a pinned register.
func (p *program) set(dst value, o op, src ...value) { p.add(instr{op: o, dst: dst.reg, src: src}) }

func k(f float64) value            { return kbits(math.Float32bits(float32(f))) }
func kbits(b uint32) value         { return value{bits: b} }
func at(ptr string, off int) value { return value{mem: true, ptr: ptr, off: off} }

func (p *program) load(ptr string, off int) value {
	r := p.newReg(vreg{})
	p.add(instr{op: opLoad, dst: r, ptr: ptr, imm: off})
	return value{reg: r}
}

func (p *program) loadAs(o op, ptr string, off int) value {
	r := p.newReg(vreg{})
	p.add(instr{op: o, dst: r, ptr: ptr, imm: off})
	return value{reg: r}
}

func (p *program) store(v value, ptr string, off int) {
	p.add(instr{op: opStore, src: []value{v}, ptr: ptr, imm: off})
}

// scalar pins a float32 parameter.
func (p *program) scalar(name string) value {
	r := p.newReg(vreg{pinned: true})
	p.add(instr{op: opScalar, dst: r, arg: name})
	return value{reg: r}
}

func (p *program) scalarD(name string) value {
	r := p.newReg(vreg{pinned: true})
	p.add(instr{op: opScalarD, dst: r, arg: name})
	return value{reg: r}
}

func (p *program) plus(a, b value) value            { return p.emit(opAdd, 0, a, b) }
func (p *program) minus(a, b value) value           { return p.emit(opSub, 0, a, b) }
func (p *program) times(a, b value) value           { return p.emit(opMul, 0, a, b) }
func (p *program) over(a, b value) value            { return p.emit(opDiv, 0, a, b) }
func (p *program) sqrt(a value) value               { return p.emit(opSqrt, 0, a) }
func (p *program) min(a, b value) value             { return p.emit(opMin, 0, a, b) }
func (p *program) max(a, b value) value             { return p.emit(opMax, 0, a, b) }
func (p *program) fma(a, b, c value) value          { return p.emit(opFMA, 0, a, b, c) }
func (p *program) fnma(a, b, c value) value         { return p.emit(opFNMA, 0, a, b, c) }
func (p *program) and(a, b value) value             { return p.emit(opAnd, 0, a, b) }
func (p *program) xor(a, b value) value             { return p.emit(opXor, 0, a, b) }
func (p *program) iadd(a, b value) value            { return p.emit(opIAdd, 0, a, b) }
func (p *program) isub(a, b value) value            { return p.emit(opISub, 0, a, b) }
func (p *program) shl(a value, n int) value         { return p.emit(opShl, n, a) }
func (p *program) sar(a value, n int) value         { return p.emit(opSar, n, a) }
func (p *program) float(a value) value              { return p.emit(opFloat, 0, a) }
func (p *program) less(a, b value) value            { return p.emit(opLess, 0, a, b) }
func (p *program) lessEq(a, b value) value          { return p.emit(opLessEq, 0, a, b) }
func (p *program) unordered(a value) value          { return p.emit(opUnordered, 0, a) }
func (p *program) maskAnd(a, b value) value         { return p.emit(opMaskAnd, 0, a, b) }
func (p *program) maskOr(a, b value) value          { return p.emit(opMaskOr, 0, a, b) }
func (p *program) choose(mask, yes, no value) value { return p.emit(opSelect, 0, mask, yes, no) }

// fold adds the pieces of 16 lanes, the upper half to the lower, until one lane
// is left: lane 0 of the result.
func (p *program) fold(v []value, add, halves op) value {
	for len(v) > 1 {
		h := len(v) / 2
		next := make([]value, h)
		for i := range h {
			next[i] = p.emit(add, 0, v[i], v[i+h])
		}
		v = next
	}
	return p.emit(halves, 0, v[0])
}

// ptr loads a pointer or integer parameter into a general register of its name.
func (p *program) arg(names ...string) {
	for _, n := range names {
		p.add(instr{op: opArg, ptr: n, arg: n})
	}
}

func (p *program) reg(o op, name, other string, imm int) {
	p.add(instr{op: o, ptr: name, arg: other, imm: imm})
}

func (p *program) newLabel() string {
	p.label++
	return fmt.Sprintf("l%d", p.label)
}

func (p *program) place(label string) {
	p.block++
	p.add(instr{op: opLabel, arg: label})
}

// jump ends a block; o is one of the jumps, name its counter.
func (p *program) jump(o op, name, label string, imm int) {
	p.add(instr{op: o, ptr: name, arg: label, imm: imm})
	p.block++
}

// loop runs body as often as counter says, which it counts down to 0; counter
// may be 0.
func (p *program) loop(counter string, body func()) {
	top, end := p.newLabel(), p.newLabel()
	p.jump(opJumpZero, counter, end, 0)
	p.place(top)
	body()
	p.jump(opDecJump, counter, top, 0)
	p.place(end)
}

// together runs body for the pieces 0..n-1, group of them at a time with their
// instructions in turns: one chain of dependent operations fills a core's
// scheduler, several let it run ahead.
func (p *program) together(n int, body func(piece int)) {
	for lo := 0; lo < n; lo += p.group {
		before := p.code
		var streams [][]instr
		for i := lo; i < min(lo+p.group, n); i++ {
			p.code = nil
			body(i)
			streams = append(streams, p.code)
		}
		p.code = before
		for at, left := 0, true; left; at++ {
			left = false
			for _, s := range streams {
				if at < len(s) {
					p.code = append(p.code, s[at])
					left = true
				}
			}
		}
	}
}

// flat runs body for each piece of n floats, n a multiple of 16, with the offset
// of the piece; ptrs are the vectors that advance.
func (p *program) flat(ptrs []string, body func(off int)) {
	pass := func(floats int) {
		p.loop("n", func() {
			p.together(floats/p.width, func(i int) { body(i * p.bytes()) })
			p.advance(4*floats, ptrs...)
		})
	}
	if floats := p.group * p.width; floats > 16 {
		p.reg(opCopyReg, "rest", "n", 0)
		p.reg(opShrImm, "n", "", bits.TrailingZeros(uint(floats)))
		pass(floats)
		p.reg(opCopyReg, "n", "rest", 0)
		p.reg(opAndImm, "n", "", floats-1)
	}
	p.reg(opShrImm, "n", "", 4)
	pass(16)
}

func (p *program) advance(n int, ptrs ...string) {
	for _, s := range ptrs {
		p.reg(opAddImm, s, "", n)
	}
}

// A walk is a loop over the features of tiles, slice by slice.
type walk struct {
	tiles    []string // advance by a feature
	features []string // one float32 per feature
	lanes    []string // one float32 per lane, a slice at a time
	count    string   // how many features
	slices   string   // how many slices
}

// walk runs before, then body for each feature, then after, for each slice. Each
// is given the pieces of its slice; when whole is set, a tile with all its four
// slices is one slice of 64 lanes.
func (p *program) walk(w walk, whole bool, before, body, after func(pieces int)) {
	p.reg(opCopyReg, "left", w.count, 0)
	end := p.newLabel()
	if whole {
		some := p.newLabel()
		p.jump(opJumpNotImm, w.slices, some, 4)
		p.pass(w, 4*p.pieces(), before, body, after)
		p.jump(opJump, "", end, 0)
		p.place(some)
	}
	p.reg(opCopyReg, "back", w.count, 0) // bytes of a tile
	p.reg(opShlImm, "back", "", 8)
	p.reg(opCopyReg, "back1", w.count, 0)
	p.reg(opShlImm, "back1", "", 2)
	p.loop(w.slices, func() {
		p.pass(w, p.pieces(), before, body, after)
		p.reg(opCopyReg, "left", w.count, 0)
		for _, s := range w.tiles {
			p.reg(opSubReg, s, "back", 0)
		}
		for _, s := range w.features {
			p.reg(opSubReg, s, "back1", 0)
		}
		p.advance(64, w.tiles...)
		p.advance(64, w.lanes...)
	})
	p.place(end)
}

func (p *program) pass(w walk, pieces int, before, body, after func(pieces int)) {
	before(pieces)
	p.loop("left", func() {
		body(pieces)
		p.advance(256, w.tiles...)
		p.advance(4, w.features...)
	})
	after(pieces)
}
