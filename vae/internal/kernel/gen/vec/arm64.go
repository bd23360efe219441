package main

import "fmt"

// arm64 writes NEON. Go's assembler lacks most of its instructions on floats, so
// all vector arithmetic is written as words with the instruction as a comment.
type arm64 struct{}

func newARM64(*target) backend { return arm64{} }

func (arm64) width() int          { return 4 }
func (arm64) vectors() int        { return 32 }
func (arm64) masks() int          { return 0 }
func (arm64) vector(r int) string { return fmt.Sprintf("V%d", r) }

func (arm64) general() []string {
	return []string{"R0", "R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15", "R19", "R20"}
}

// Registers that no name has.
const (
	armTable   = "R21" // the constants
	armScratch = "R22"
)

func (arm64) begin(fr *frame) { fr.say("MOVD $%s(SB), %s", fr.table.name(), armTable) }

// An encoding is an instruction with three, or two, vector registers.
type encoding struct {
	word  uint32
	name  string
	lanes string
}

var armThree = map[op]encoding{
	opAdd: {0x4E20D400, "FADD", "S4"}, opSub: {0x4EA0D400, "FSUB", "S4"}, opMul: {0x6E20DC00, "FMUL", "S4"}, opDiv: {0x6E20FC00, "FDIV", "S4"},
	opAnd: {0x4E201C00, "AND", "B16"}, opOr: {0x4EA01C00, "ORR", "B16"}, opXor: {0x6E201C00, "EOR", "B16"},
	opMaskAnd: {0x4E201C00, "AND", "B16"}, opMaskOr: {0x4EA01C00, "ORR", "B16"},
	opIAdd: {0x4EA08400, "ADD", "S4"}, opISub: {0x6EA08400, "SUB", "S4"},
	opAddD: {0x4E60D400, "FADD", "D2"}, opSubD: {0x4EE0D400, "FSUB", "D2"}, opMulD: {0x6E60DC00, "FMUL", "D2"},
}

var (
	armFMLA   = encoding{0x4E20CC00, "FMLA", "S4"}
	armFMLS   = encoding{0x4EA0CC00, "FMLS", "S4"}
	armFCMGT  = encoding{0x6EA0E400, "FCMGT", "S4"}
	armFCMGE  = encoding{0x6E20E400, "FCMGE", "S4"}
	armFCMEQ  = encoding{0x4E20E400, "FCMEQ", "S4"}
	armBSL    = encoding{0x6E601C00, "BSL", "B16"}
	armFADDP  = encoding{0x6E20D400, "FADDP", "S4"}
	armFADDPD = encoding{0x6E60D400, "FADDP", "D2"}
	armEXT8   = encoding{0x6E004000, "EXT $8,", "B16"}
	armTRN1   = encoding{0x4E802800, "TRN1", "S4"}
	armTRN2   = encoding{0x4E806800, "TRN2", "S4"}
	armZIP1D  = encoding{0x4EC03800, "ZIP1", "D2"}
	armZIP2D  = encoding{0x4EC07800, "ZIP2", "D2"}

	armFSQRT  = encoding{0x6EA1F800, "FSQRT", "S4"}
	armSCVTF  = encoding{0x4E21D800, "SCVTF", "S4"}
	armNOT    = encoding{0x6E205800, "NOT", "B16"}
	armFCVTL  = encoding{0x0E617800, "FCVTL", "D2"}
	armFCVTN  = encoding{0x0E616800, "FCVTN", "S2"}
	armFCVTN2 = encoding{0x4E616800, "FCVTN2", "S4"}
	armADDV   = encoding{0x4EB1B800, "ADDV", "S"}
	armDUP    = encoding{0x4E040400, "DUP lane 0", "S4"}
	armDUPD   = encoding{0x4E080400, "DUP lane 0", "D2"}
)

// three writes d = n op m.
func (e encoding) three(d, n, m int) string {
	return fmt.Sprintf("WORD $0x%08X // %s V%d, V%d, V%d (%s)", e.word|uint32(m<<16|n<<5|d), e.name, d, n, m, e.lanes)
}

// two writes d = op n.
func (e encoding) two(d, n int) string {
	return fmt.Sprintf("WORD $0x%08X // %s V%d, V%d (%s)", e.word|uint32(n<<5|d), e.name, d, n, e.lanes)
}

// register returns v in a register, loading it if need be.
func (a arm64) register(fr *frame, v value) int {
	if r, ok := fr.src(v); ok {
		return r
	}
	r := fr.temp()
	a.fetch(fr, v, r)
	return r
}

func (a arm64) fetch(fr *frame, v value, to int) {
	if v.mem {
		fr.say("FMOVQ %d(%s), F%d", v.off, fr.general(v.ptr), to)
		return
	}
	fr.say("FMOVQ %d(%s), F%d", fr.table.index(v.bits)*fr.table.size(), armTable, to)
}

func (a arm64) copy(fr *frame, from, to int) {
	if from != to {
		fr.say("VMOV V%d.B16, V%d.B16", from, to)
	}
}

func (a arm64) emit(fr *frame, in *instr) {
	if a.address(fr, in) {
		return
	}
	if e, ok := armThree[in.op]; ok {
		n, m := a.register(fr, in.src[0]), a.register(fr, in.src[1])
		fr.say("%s", e.three(fr.dst(in, true), n, m))
		return
	}
	switch in.op {
	case opConst:
		a.fetch(fr, in.src[0], fr.dst(in, false))
	case opMove:
		v := in.src[0]
		if r, ok := fr.src(v); !ok {
			a.fetch(fr, v, fr.dst(in, false))
		} else if _, ok := fr.inherit(in, v); !ok {
			a.copy(fr, r, fr.dst(in, false))
		}
	case opLoad, opLoadD:
		fr.say("FMOVQ %d(%s), F%d", in.imm, fr.general(in.ptr), fr.dst(in, true))
	case opLoadWide:
		d := fr.dst(in, true)
		fr.say("FMOVD %d(%s), F%d", in.imm, fr.general(in.ptr), d)
		fr.say("%s", armFCVTL.two(d, d))
	case opBroadcast, opScalar, opScalarD:
		a.broadcast(fr, in)
	case opStore:
		fr.say("FMOVQ F%d, %d(%s)", a.register(fr, in.src[0]), in.imm, fr.general(in.ptr))
	case opStore1:
		fr.say("FMOVS F%d, %d(%s)", a.register(fr, in.src[0]), in.imm, fr.general(in.ptr))
	case opStoreD1:
		fr.say("FMOVD F%d, %d(%s)", a.register(fr, in.src[0]), in.imm, fr.general(in.ptr))
	case opSqrt, opFloat:
		e := map[op]encoding{opSqrt: armFSQRT, opFloat: armSCVTF}[in.op]
		n := a.register(fr, in.src[0])
		fr.say("%s", e.two(fr.dst(in, true), n))
	case opShl, opSar:
		n := a.register(fr, in.src[0])
		d := fr.dst(in, true)
		if in.op == opShl {
			fr.say("%s", encoding{0x4F005400 | uint32(32+in.imm)<<16, fmt.Sprintf("SHL $%d,", in.imm), "S4"}.two(d, n))
		} else {
			fr.say("%s", encoding{0x4F000400 | uint32(64-in.imm)<<16, fmt.Sprintf("SSHR $%d,", in.imm), "S4"}.two(d, n))
		}
	case opFMA, opFNMA:
		a.fused(fr, in)
	case opMin, opMax, opLess, opLessEq, opUnordered, opSelect, opMaskBits:
		a.masked(fr, in)
	case opHalves, opHalvesD, opNarrow:
		a.reshape(fr, in)
	default:
		panic(fmt.Sprintf("arm64: operation %d", in.op))
	}
}

func (a arm64) broadcast(fr *frame, in *instr) {
	d := fr.dst(in, true)
	switch in.op {
	case opBroadcast:
		fr.say("FMOVS %d(%s), F%d", in.imm, fr.general(in.ptr), d)
		fr.say("%s", armDUP.two(d, d))
	case opScalar:
		fr.say("FMOVS %s, F%d", fr.argument(in.arg), d)
		fr.say("%s", armDUP.two(d, d))
	case opScalarD:
		fr.say("FMOVD %s, F%d", fr.argument(in.arg), d)
		fr.say("%s", armDUPD.two(d, d))
	}
}

func (a arm64) fused(fr *frame, in *instr) {
	e := armFMLA
	if in.op == opFNMA {
		e = armFMLS
	}
	n, m := a.register(fr, in.src[0]), a.register(fr, in.src[1])
	z := in.src[2]
	d, ok := fr.inherit(in, z)
	if !ok {
		r, inReg := fr.src(z)
		d = fr.dst(in, false)
		if inReg {
			a.copy(fr, r, d)
		} else {
			a.fetch(fr, z, d)
		}
	}
	fr.say("%s", e.three(d, n, m))
}

func (a arm64) masked(fr *frame, in *instr) {
	switch in.op {
	case opMin, opMax:
		x, y := a.register(fr, in.src[0]), a.register(fr, in.src[1])
		d, set := fr.phys[in.dst] // a pinned result may be an operand, too
		t := d
		if set {
			t = fr.temp()
		} else {
			d = fr.dst(in, false)
			t = d
		}
		if in.op == opMin {
			fr.say("%s", armFCMGT.three(t, y, x))
		} else {
			fr.say("%s", armFCMGT.three(t, x, y))
		}
		fr.say("%s", armBSL.three(t, x, y))
		a.copy(fr, t, d)
	case opLess, opLessEq:
		e := map[op]encoding{opLess: armFCMGT, opLessEq: armFCMGE}[in.op]
		x, y := a.register(fr, in.src[0]), a.register(fr, in.src[1])
		fr.say("%s", e.three(fr.dst(in, true), y, x))
	case opUnordered:
		x := a.register(fr, in.src[0])
		d := fr.dst(in, true)
		fr.say("%s", armFCMEQ.three(d, x, x))
		fr.say("%s", armNOT.two(d, d))
	case opSelect:
		m, _ := fr.src(in.src[0])
		yes, no := a.register(fr, in.src[1]), a.register(fr, in.src[2])
		d, ok := fr.inherit(in, in.src[0])
		if !ok {
			d = fr.dst(in, false)
			a.copy(fr, m, d)
		}
		fr.say("%s", armBSL.three(d, yes, no))
	case opMaskBits:
		m, _ := fr.src(in.src[0])
		word, t := fr.general(in.ptr), fr.temp()
		fr.say("MOVD $vecLaneBits<>(SB), %s", armScratch)
		fr.say("FMOVQ (%s), F%d", armScratch, t)
		fr.say("%s", armThree[opAnd].three(t, t, m))
		fr.say("%s", armADDV.two(t, t))
		fr.say("FMOVS F%d, %s", t, armScratch)
		if in.imm > 0 {
			fr.say("LSL $%d, %s, %[2]s", in.imm, armScratch)
		}
		fr.say("ORR %s, %s, %[2]s", armScratch, word)
	}
}

// reshape adds the lanes of one register, the upper half to the lower, or rounds
// two of float64 to one of float32.
func (a arm64) reshape(fr *frame, in *instr) {
	s := a.register(fr, in.src[0])
	switch in.op {
	case opHalves:
		t := fr.temp()
		d := fr.dst(in, true)
		fr.say("%s", armEXT8.three(t, s, s))
		fr.say("%s", armThree[opAdd].three(d, s, t))
		fr.say("%s", armFADDP.three(d, d, d))
	case opHalvesD:
		fr.say("%s", armFADDPD.three(fr.dst(in, true), s, s))
	case opNarrow:
		hi := a.register(fr, in.src[1])
		d := fr.dst(in, false)
		fr.say("%s", armFCVTN.two(d, s))
		fr.say("%s", armFCVTN2.two(d, hi))
	}
}

// address writes the operations on addresses, counters and labels.
func (a arm64) address(fr *frame, in *instr) bool {
	switch in.op {
	case opLabel:
		fmt.Fprintf(&fr.out, "%s:\n", in.arg)
		return true
	case opJump:
		fr.say("JMP %s", in.arg)
		return true
	case opNone:
		fr.say("RET")
		return true
	}
	r := func() string { return fr.general(in.ptr) }
	switch in.op {
	case opArg:
		fr.say("MOVD %s, %s", fr.argument(in.arg), r())
	case opAddImm:
		if in.imm < 0 {
			fr.say("SUB $%d, %s", -in.imm, r())
		} else {
			fr.say("ADD $%d, %s", in.imm, r())
		}
	case opAddReg:
		fr.say("ADD %s, %s", fr.general(in.arg), r())
	case opSubReg:
		fr.say("SUB %s, %s", fr.general(in.arg), r())
	case opCopyReg:
		fr.say("MOVD %s, %s", fr.general(in.arg), r())
	case opShlImm:
		fr.say("LSL $%d, %s, %[2]s", in.imm, r())
	case opShrImm:
		fr.say("LSR $%d, %s, %[2]s", in.imm, r())
	case opAndImm:
		fr.say("AND $%d, %s, %[2]s", in.imm, r())
	case opZero:
		fr.say("MOVD $0, %s", r())
	case opStoreWord:
		fr.say("MOVD %s, (%s)", fr.general(in.arg), r())
	case opPrefetchNear:
		fr.say("PRFM %d(%s), PLDL1KEEP", in.imm, r())
	case opPrefetch:
		fr.say("PRFM %d(%s), PLDL2KEEP", in.imm, r())
	case opJumpZero:
		fr.say("CBZ %s, %s", r(), in.arg)
	case opJumpNotImm:
		fr.say("CMP $%d, %s", in.imm, r())
		fr.say("BNE %s", in.arg)
	case opDecJump:
		fr.say("SUB $1, %s", r())
		fr.say("CBNZ %s, %s", r(), in.arg)
	default:
		return false
	}
	return true
}
