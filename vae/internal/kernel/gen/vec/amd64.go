package main

import "fmt"

// amd64 writes AVX2 with FMA, or AVX-512 F, DQ and VL.
type amd64 struct{ wide bool }

func newAMD64(t *target) backend { return &amd64{wide: t.level == "avx512"} }

func (a *amd64) width() int {
	if a.wide {
		return 16
	}
	return 8
}

func (a *amd64) vectors() int {
	if a.wide {
		return 32
	}
	return 16
}

func (a *amd64) masks() int {
	if a.wide {
		return 7
	}
	return 0
}

func (a *amd64) general() []string {
	return []string{"AX", "BX", "CX", "DX", "SI", "DI", "R8", "R9", "R10", "R11", "R12", "R13", "R15"}
}

// scratch is a general register that no name has.
const scratch = "R14"

func (a *amd64) vector(r int) string {
	if a.wide {
		return fmt.Sprintf("Z%d", r)
	}
	return fmt.Sprintf("Y%d", r)
}

func (a *amd64) begin(*frame) {}

var amd64Binary = map[op]string{
	opAdd: "VADDPS", opSub: "VSUBPS", opMul: "VMULPS", opDiv: "VDIVPS", opMin: "VMINPS", opMax: "VMAXPS",
	opAnd: "VANDPS", opOr: "VORPS", opXor: "VXORPS", opIAdd: "VPADDD", opISub: "VPSUBD",
	opAddD: "VADDPD", opSubD: "VSUBPD", opMulD: "VMULPD",
}

var amd64Shift = map[op]string{opShl: "VPSLLD", opSar: "VPSRAD"}

// Predicates of comparisons, quiet; in Go's order of operands the second one is
// the left side.
var amd64Compare = map[op]int{opLess: 17, opLessEq: 18, opUnordered: 3}

func commutes(o op) bool {
	switch o {
	case opAdd, opMul, opAnd, opOr, opXor, opIAdd, opAddD, opMulD:
		return true
	}
	return false
}

// operand returns v as the operand that may stand in memory, and the suffix that
// the instruction then needs.
func (a *amd64) operand(fr *frame, v value) (text, suffix string) {
	if r, ok := fr.src(v); ok {
		return a.vector(r), ""
	}
	if v.mem {
		return fmt.Sprintf("%d(%s)", v.off, fr.general(v.ptr)), ""
	}
	text = fmt.Sprintf("%s+%d(SB)", fr.table.name(), fr.table.index(v.bits)*fr.table.size())
	if a.wide {
		suffix = ".BCST"
	}
	return text, suffix
}

// register returns v in a register, loading it if need be.
func (a *amd64) register(fr *frame, v value) string {
	if r, ok := fr.src(v); ok {
		return a.vector(r)
	}
	r := a.vector(fr.temp())
	a.fetch(fr, v, r)
	return r
}

func (a *amd64) fetch(fr *frame, v value, to string) {
	text, suffix := a.operandMemory(fr, v)
	if suffix != "" {
		fr.say("VBROADCASTSS %s, %s", text, to)
	} else {
		fr.say("VMOVUPS %s, %s", text, to)
	}
}

// operandMemory is operand for what is not in a register, pinned or not.
func (a *amd64) operandMemory(fr *frame, v value) (text, suffix string) {
	pinned := fr.pinned
	fr.pinned = nil
	text, suffix = a.operand(fr, v)
	fr.pinned = pinned
	return text, suffix
}

func (a *amd64) emit(fr *frame, in *instr) {
	if a.address(fr, in) {
		return
	}
	if name := amd64Binary[in.op]; name != "" {
		x, y := in.src[0], in.src[1]
		if commutes(in.op) {
			if _, ok := fr.src(x); !ok {
				x, y = y, x
			}
		}
		l := a.register(fr, x)
		r, suffix := a.operand(fr, y)
		fr.say("%s%s %s, %s, %s", name, suffix, r, l, a.vector(fr.dst(in, true)))
		return
	}
	if name := amd64Shift[in.op]; name != "" {
		s := a.register(fr, in.src[0])
		fr.say("%s $%d, %s, %s", name, in.imm, s, a.vector(fr.dst(in, true)))
		return
	}
	switch in.op {
	case opConst:
		a.fetch(fr, in.src[0], a.vector(fr.dst(in, false)))
	case opMove:
		a.move(fr, in)
	case opLoad, opLoadD:
		fr.say("VMOVUPS %d(%s), %s", in.imm, fr.general(in.ptr), a.vector(fr.dst(in, true)))
	case opLoadWide:
		fr.say("VCVTPS2PD %d(%s), %s", in.imm, fr.general(in.ptr), a.vector(fr.dst(in, true)))
	case opBroadcast:
		fr.say("VBROADCASTSS %d(%s), %s", in.imm, fr.general(in.ptr), a.vector(fr.dst(in, true)))
	case opScalar:
		fr.say("VBROADCASTSS %s, %s", fr.argument(in.arg), a.vector(fr.dst(in, true)))
	case opScalarD:
		fr.say("VBROADCASTSD %s, %s", fr.argument(in.arg), a.vector(fr.dst(in, true)))
	case opStore:
		fr.say("VMOVUPS %s, %d(%s)", a.register(fr, in.src[0]), in.imm, fr.general(in.ptr))
	case opStore1:
		fr.say("VMOVSS X%s, %d(%s)", a.register(fr, in.src[0])[1:], in.imm, fr.general(in.ptr))
	case opStoreD1:
		fr.say("VMOVSD X%s, %d(%s)", a.register(fr, in.src[0])[1:], in.imm, fr.general(in.ptr))
	case opSqrt, opFloat:
		name := map[op]string{opSqrt: "VSQRTPS", opFloat: "VCVTDQ2PS"}[in.op]
		s, suffix := a.operand(fr, in.src[0])
		fr.say("%s%s %s, %s", name, suffix, s, a.vector(fr.dst(in, true)))
	case opFMA, opFNMA:
		a.fused(fr, in)
	case opLess, opLessEq, opUnordered, opMaskAnd, opMaskOr, opSelect, opMaskBits:
		a.masked(fr, in)
	case opHalves, opHalvesD:
		a.halves(fr, in)
	case opNarrow:
		a.narrow(fr, in)
	default:
		panic(fmt.Sprintf("amd64: operation %d", in.op))
	}
}

func (a *amd64) move(fr *frame, in *instr) {
	v := in.src[0]
	if r, ok := fr.src(v); ok {
		if _, ok := fr.inherit(in, v); !ok {
			fr.say("VMOVAPS %s, %s", a.vector(r), a.vector(fr.dst(in, false)))
		}
		return
	}
	d := a.vector(fr.dst(in, false))
	if v.isConst() && v.bits == 0 {
		fr.say("VPXOR X%s, X%[1]s, X%[1]s", d[1:])
		return
	}
	a.fetch(fr, v, d)
}

// fused writes a*b + c, or c - a*b, in the form that destroys a register that
// nobody needs any more.
func (a *amd64) fused(fr *frame, in *instr) {
	name := "VFMADD"
	if in.op == opFNMA {
		name = "VFNMADD"
	}
	x, y, z := in.src[0], in.src[1], in.src[2]
	if _, ok := fr.src(x); !ok {
		x, y = y, x // the one in memory second
	}
	xr := a.register(fr, x)
	zr, inReg := fr.src(z)
	if inReg {
		yr, suffix := a.operand(fr, y)
		if d, ok := fr.inherit(in, z); ok {
			fr.say("%s231PS%s %s, %s, %s", name, suffix, yr, xr, a.vector(d))
			return
		}
		if d, ok := fr.inherit(in, x); ok && x.reg != in.dst { // x*y + z
			fr.say("%s132PS%s %s, %s, %s", name, suffix, yr, a.vector(zr), a.vector(d))
			return
		}
		if d, ok := fr.inherit(in, y); ok && y.reg != in.dst {
			fr.say("%s132PS %s, %s, %s", name, xr, a.vector(zr), a.vector(d))
			return
		}
		d := a.vector(fr.dst(in, false))
		fr.say("VMOVAPS %s, %s", a.vector(zr), d)
		fr.say("%s231PS%s %s, %s, %s", name, suffix, yr, xr, d)
		return
	}
	yr := a.register(fr, y)
	zt, suffix := a.operand(fr, z)
	if d, ok := fr.inherit(in, x); ok {
		fr.say("%s213PS%s %s, %s, %s", name, suffix, zt, yr, a.vector(d))
		return
	}
	if d, ok := fr.inherit(in, y); ok {
		fr.say("%s213PS%s %s, %s, %s", name, suffix, zt, xr, a.vector(d))
		return
	}
	d := a.vector(fr.dst(in, false))
	a.fetch(fr, z, d)
	fr.say("%s231PS %s, %s, %s", name, yr, xr, d)
}

func (a *amd64) maskName(r int) string {
	if a.wide {
		return fmt.Sprintf("K%d", r)
	}
	return a.vector(r)
}

func (a *amd64) masked(fr *frame, in *instr) {
	switch in.op {
	case opLess, opLessEq, opUnordered:
		x, y := in.src[0], in.src[0]
		if in.op != opUnordered {
			y = in.src[1]
		}
		l := a.register(fr, x)
		r, suffix := a.operand(fr, y)
		fr.say("VCMPPS%s $%d, %s, %s, %s", suffix, amd64Compare[in.op], r, l, a.maskName(fr.dst(in, true)))
	case opMaskAnd, opMaskOr:
		x, _ := fr.src(in.src[0])
		y, _ := fr.src(in.src[1])
		name := map[op][2]string{opMaskAnd: {"VANDPS", "KANDW"}, opMaskOr: {"VORPS", "KORW"}}[in.op]
		d := fr.dst(in, true)
		if a.wide {
			fr.say("%s K%d, K%d, K%d", name[1], y, x, d)
		} else {
			fr.say("%s Y%d, Y%d, Y%d", name[0], y, x, d)
		}
	case opSelect:
		m, _ := fr.src(in.src[0])
		no := a.register(fr, in.src[2])
		yes, suffix := a.operand(fr, in.src[1])
		d := a.vector(fr.dst(in, true))
		if a.wide {
			fr.say("VBLENDMPS%s %s, %s, K%d, %s", suffix, yes, no, m, d)
		} else {
			fr.say("VBLENDVPS Y%d, %s, %s, %s", m, yes, no, d)
		}
	case opMaskBits:
		m, _ := fr.src(in.src[0])
		word := fr.general(in.ptr)
		if a.wide {
			fr.say("KMOVW K%d, %s", m, scratch)
		} else {
			fr.say("VMOVMSKPS Y%d, %s", m, scratch)
		}
		if in.imm > 0 {
			fr.say("SHLQ $%d, %s", in.imm, scratch)
		}
		fr.say("ORQ %s, %s", scratch, word)
	}
}

// halves adds the lanes of one register, the upper half to the lower.
func (a *amd64) halves(fr *frame, in *instr) {
	s := a.register(fr, in.src[0])[1:]
	t := fmt.Sprint(fr.temp())
	d := fmt.Sprint(fr.dst(in, true))
	add, swap := "VADDPS", "$0x4E"
	if in.op == opHalvesD {
		add = "VADDPD"
	}
	if a.wide {
		fr.say("VEXTRACTF64X4 $1, Z%s, Y%s", s, t)
		fr.say("%s Y%s, Y%s, Y%s", add, t, s, d)
		fr.say("VEXTRACTF32X4 $1, Y%s, X%s", d, t)
	} else {
		fr.say("VEXTRACTF128 $1, Y%s, X%s", s, t)
	}
	if !a.wide {
		fr.say("%s X%s, X%s, X%s", add, t, s, d)
	} else {
		fr.say("%s X%s, X%s, X%s", add, t, d, d)
	}
	fr.say("VPERMILPS %s, X%s, X%s", swap, d, t)
	fr.say("%s X%s, X%s, X%s", add, t, d, d)
	if in.op == opHalves {
		fr.say("VPERMILPS $0xB1, X%s, X%s", d, t)
		fr.say("VADDPS X%s, X%s, X%s", t, d, d)
	}
}

// narrow rounds two vectors of float64 to one of float32.
func (a *amd64) narrow(fr *frame, in *instr) {
	lo, hi := a.register(fr, in.src[0]), a.register(fr, in.src[1])
	t := fr.temp()
	d := fr.dst(in, false)
	if a.wide {
		fr.say("VCVTPD2PS %s, Y%d", lo, d)
		fr.say("VCVTPD2PS %s, Y%d", hi, t)
		fr.say("VINSERTF64X4 $1, Y%d, Z%d, Z%d", t, d, d)
		return
	}
	fr.say("VCVTPD2PSY %s, X%d", lo, d)
	fr.say("VCVTPD2PSY %s, X%d", hi, t)
	fr.say("VINSERTF128 $1, X%d, Y%d, Y%d", t, d, d)
}

// address writes the operations on addresses, counters and labels.
func (a *amd64) address(fr *frame, in *instr) bool {
	switch in.op {
	case opLabel:
		fmt.Fprintf(&fr.out, "%s:\n", in.arg)
		return true
	case opJump:
		if in.arg == "" {
			fr.say("VZEROUPPER")
			fr.say("RET")
		} else {
			fr.say("JMP %s", in.arg)
		}
		return true
	case opNone:
		fr.say("VZEROUPPER")
		fr.say("RET")
		return true
	}
	r := func() string { return fr.general(in.ptr) }
	switch in.op {
	case opArg:
		fr.say("MOVQ %s, %s", fr.argument(in.arg), r())
	case opAddImm:
		fr.say("ADDQ $%d, %s", in.imm, r())
	case opAddReg:
		fr.say("ADDQ %s, %s", fr.general(in.arg), r())
	case opSubReg:
		fr.say("SUBQ %s, %s", fr.general(in.arg), r())
	case opCopyReg:
		fr.say("MOVQ %s, %s", fr.general(in.arg), r())
	case opShlImm:
		fr.say("SHLQ $%d, %s", in.imm, r())
	case opShrImm:
		fr.say("SHRQ $%d, %s", in.imm, r())
	case opAndImm:
		fr.say("ANDQ $%d, %s", in.imm, r())
	case opZero:
		fr.say("XORL %s, %s", r(), r())
	case opStoreWord:
		fr.say("MOVQ %s, (%s)", fr.general(in.arg), r())
	case opPrefetchNear:
		fr.say("PREFETCHT0 %d(%s)", in.imm, r())
	case opPrefetch:
		fr.say("PREFETCHT1 %d(%s)", in.imm, r())
	case opJumpZero:
		fr.say("TESTQ %s, %s", r(), r())
		fr.say("JZ %s", in.arg)
	case opJumpNotImm:
		fr.say("CMPQ %s, $%d", r(), in.imm)
		fr.say("JNE %s", in.arg)
	case opDecJump:
		fr.say("DECQ %s", r())
		fr.say("JNZ %s", in.arg)
	default:
		return false
	}
	return true
}
