package main

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// A backend writes one instruction. It asks the frame for registers.
type backend interface {
	width() int
	vectors() int // registers for vectors
	masks() int   // registers for masks, 0 where vectors hold them
	general() []string
	vector(r int) string
	emit(fr *frame, i *instr)
	begin(fr *frame) // before the first instruction
}

// outOfRegisters is what the allocator panics with; lower then tries again with
// fewer constants in registers.
type outOfRegisters struct{ what string }

// A frame is the state of one function while it is written: which physical
// register each virtual one has.
type frame struct {
	p      *program
	b      backend
	table  *constants
	at     int // the instruction being written
	phys   map[int]int
	free   []int
	freeK  []int
	temps  []int
	pinned map[uint32]int // constants that stay in a register
	gpr    map[string]string
	out    strings.Builder
	gone   []int // virtual registers released early in this instruction
	shared []shared
}

// lower writes the body of f for t, with as many pieces at a time as registers
// allow, and then with as many constants in registers as are left.
func lower(f *function, t *target, table *constants) string {
	b := t.make(t)
	for group := 4; group > 0; group /= 2 {
		p := &program{f: f, t: t, width: b.width(), group: group}
		f.build(p)
		p.check()
		consts := p.constants()
		for n := len(consts); n >= 0; n-- {
			if body, ok := try(p, b, table, consts[:n]); ok {
				return body
			}
		}
	}
	panic(fmt.Sprintf("%s for %s: out of registers", f.name, t.suffix))
}

// check computes the lives of virtual registers and finds programs that are wrong.
func (p *program) check() {
	for i, in := range p.code {
		for _, s := range in.src {
			if !s.isReg() {
				continue
			}
			v := &p.regs[s.reg-1]
			if in.op != opRelease && !v.pinned && v.block != in.block {
				panic(fmt.Sprintf("%s: instruction %d uses a register of another block that is not pinned", p.f.name, i))
			}
			v.last = i
		}
	}
	for r, v := range p.regs {
		if v.last < 0 {
			panic(fmt.Sprintf("%s: register %d is never used", p.f.name, r+1))
		}
		if v.pinned && p.code[v.last].op != opRelease {
			p.regs[r].last = len(p.code) // to the end
		}
	}
}

// constants lists the constants that vectors use, the most used first.
func (p *program) constants() []uint32 {
	count := map[uint32]int{}
	var list []uint32
	for _, in := range p.code {
		for _, s := range in.src {
			if s.isConst() {
				if count[s.bits] == 0 {
					list = append(list, s.bits)
				}
				count[s.bits]++
			}
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return count[list[i]] > count[list[j]] })
	return list
}

func try(p *program, b backend, table *constants, pin []uint32) (body string, ok bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, out := r.(outOfRegisters); !out {
				panic(r)
			}
			ok = false
		}
	}()
	fr := &frame{p: p, b: b, table: table, phys: map[int]int{}, pinned: map[uint32]int{}, gpr: map[string]string{}}
	for r := b.vectors() - 1; r >= 0; r-- {
		fr.free = append(fr.free, r)
	}
	for r := b.masks(); r >= 1; r-- {
		fr.freeK = append(fr.freeK, r)
	}
	b.begin(fr)
	for _, bits := range pin {
		r := fr.take()
		fr.pinned[bits] = r
		b.emit(fr, &instr{op: opConst, dst: -r - 1, src: []value{{bits: bits}}})
	}
	for i := range p.code {
		fr.at = i
		in := &p.code[i]
		if in.op == opRelease {
			fr.drop(in.src[0].reg)
			continue
		}
		fr.gone = fr.gone[:0]
		fr.share(in)
		b.emit(fr, in)
		fr.dropDying(in)
		fr.free = append(fr.free, fr.temps...)
		fr.temps = fr.temps[:0]
		fr.unshare()
	}
	return fr.out.String(), true
}

// A shared constant is in a register for a run of instructions that use it.
type shared struct {
	bits uint32
	end  int // the last of them
}

// share loads a constant that this instruction and the next ones use: the pieces
// of a group do the same in turns.
func (fr *frame) share(in *instr) {
	for _, s := range in.src {
		if !s.isConst() || len(fr.free) < 3 || in.op == opMove {
			continue
		}
		if _, ok := fr.pinned[s.bits]; ok {
			continue
		}
		end := fr.at
		for end+1 < len(fr.p.code) && fr.p.code[end+1].op == in.op && slices.Contains(fr.p.code[end+1].src, s) {
			end++
		}
		if end == fr.at {
			continue
		}
		r := fr.take()
		fr.b.emit(fr, &instr{op: opConst, dst: -r - 1, src: []value{s}})
		fr.pinned[s.bits] = r
		fr.shared = append(fr.shared, shared{s.bits, end})
	}
}

func (fr *frame) unshare() {
	keep := fr.shared[:0]
	for _, s := range fr.shared {
		if s.end > fr.at {
			keep = append(keep, s)
			continue
		}
		fr.free = append(fr.free, fr.pinned[s.bits])
		delete(fr.pinned, s.bits)
	}
	fr.shared = keep
}

func (fr *frame) say(format string, args ...any) { fmt.Fprintf(&fr.out, "\t"+format+"\n", args...) }

func (fr *frame) take() int {
	if len(fr.free) == 0 {
		panic(outOfRegisters{"vectors"})
	}
	slices.SortFunc(fr.free, func(a, b int) int { return b - a })
	r := fr.free[len(fr.free)-1]
	fr.free = fr.free[:len(fr.free)-1]
	return r
}

// temp takes a vector register for the time of this instruction.
func (fr *frame) temp() int {
	r := fr.take()
	fr.temps = append(fr.temps, r)
	return r
}

func (fr *frame) isMask(reg int) bool { return fr.b.masks() > 0 && fr.p.regs[reg-1].mask }

func (fr *frame) drop(reg int) {
	r, ok := fr.phys[reg]
	if !ok {
		panic(fmt.Sprintf("%s: register %d released twice", fr.p.f.name, reg))
	}
	delete(fr.phys, reg)
	if fr.isMask(reg) {
		fr.freeK = append(fr.freeK, r)
	} else {
		fr.free = append(fr.free, r)
	}
}

// dies tells whether operand v has no use after this instruction.
func (fr *frame) dies(v value) bool {
	return v.isReg() && fr.p.regs[v.reg-1].last == fr.at
}

func (fr *frame) dropDying(in *instr) {
	for _, s := range in.src {
		if fr.dies(s) && !slices.Contains(fr.gone, s.reg) {
			fr.gone = append(fr.gone, s.reg)
			fr.drop(s.reg)
		}
	}
}

// src returns the physical register of a value that is in one: a register or a
// pinned constant.
func (fr *frame) src(v value) (int, bool) {
	if v.isReg() {
		r, ok := fr.phys[v.reg]
		if !ok {
			panic(fmt.Sprintf("%s: instruction %d uses register %d before it is set", fr.p.f.name, fr.at, v.reg))
		}
		return r, true
	}
	if v.isConst() {
		r, ok := fr.pinned[v.bits]
		return r, ok
	}
	return 0, false
}

// dst returns the physical register of the result. Unless share is set it is
// none of the operands'.
func (fr *frame) dst(in *instr, share bool) int {
	if in.dst < 0 { // a pinned constant
		return -in.dst - 1
	}
	if r, ok := fr.phys[in.dst]; ok {
		return r
	}
	if share {
		fr.dropDying(in)
	}
	var r int
	if fr.isMask(in.dst) {
		if len(fr.freeK) == 0 {
			panic(outOfRegisters{"masks"})
		}
		r = fr.freeK[len(fr.freeK)-1]
		fr.freeK = fr.freeK[:len(fr.freeK)-1]
	} else {
		r = fr.take()
	}
	fr.phys[in.dst] = r
	return r
}

// inherit makes the result take the register of operand v, when v dies here or
// is the result itself.
func (fr *frame) inherit(in *instr, v value) (int, bool) {
	if !v.isReg() {
		return 0, false
	}
	if v.reg == in.dst {
		return fr.phys[v.reg], true
	}
	if _, set := fr.phys[in.dst]; set || in.dst < 0 || !fr.dies(v) || slices.Contains(fr.gone, v.reg) || fr.isMask(v.reg) != fr.isMask(in.dst) {
		return 0, false
	}
	r := fr.phys[v.reg]
	delete(fr.phys, v.reg)
	fr.gone = append(fr.gone, v.reg)
	fr.phys[in.dst] = r
	return r, true
}

// general returns the register of an address or counter.
func (fr *frame) general(name string) string {
	if r := fr.gpr[name]; r != "" {
		return r
	}
	list := fr.b.general()
	if len(fr.gpr) == len(list) {
		panic(fr.p.f.name + ": out of general registers")
	}
	fr.gpr[name] = list[len(fr.gpr)]
	return fr.gpr[name]
}

// argument returns where a parameter stands in the frame.
func (fr *frame) argument(name string) string {
	at, _ := fr.p.f.offset(name)
	if at < 0 {
		panic(fr.p.f.name + ": no parameter " + name)
	}
	return fmt.Sprintf("%s+%d(FP)", name, at)
}

// constants is the table of one target's constants, in memory.
type constants struct {
	target *target
	order  []uint32
}

// index returns the place of a constant in the table.
func (c *constants) index(bits uint32) int {
	i := slices.Index(c.order, bits)
	if i < 0 {
		i = len(c.order)
		c.order = append(c.order, bits)
	}
	return i
}

// size is how many bytes a constant takes: what one instruction reads.
func (c *constants) size() int {
	switch c.target.level {
	case "avx2":
		return 32
	case "neon":
		return 16
	}
	return 4
}

func (c *constants) name() string { return "vecConst" + c.target.suffix + "<>" }

func (c *constants) data() string {
	if len(c.order) == 0 {
		return ""
	}
	var b strings.Builder
	for i, bits := range c.order {
		for at := 0; at < c.size(); at += 4 {
			fmt.Fprintf(&b, "DATA %s+%d(SB)/4, $0x%08x\n", c.name(), i*c.size()+at, bits)
		}
	}
	fmt.Fprintf(&b, "GLOBL %s(SB), RODATA|NOPTR, $%d\n", c.name(), len(c.order)*c.size())
	return b.String()
}
