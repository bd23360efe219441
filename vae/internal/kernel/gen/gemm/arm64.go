package main

import "fmt"

// arm emits the NEON kernels. General registers:
//
//	R0  the arguments     R1  x at k      R2  steps left
//	R3..R8  w of scalars 0..5             R9  offset of k in w
//	R10 wk   R11 xk   R12 xs              R13 x at k of the next slice
//	R14, R15, R16, R19, R20 short-lived   R21 index, R22 x of slice 0
//
// Vectors: the sums from V31 down, x in V0..V3, the scalars from V4 up.
type arm struct{ text }

const armVecs = 4 // vectors in a slice

func armWidths(n int) []int {
	switch n {
	case 1:
		return []int{4, 2, 1}
	case 2, 3:
		return []int{2, 1}
	}
	return []int{1}
}

func arm64Files() error {
	g := &arm{}
	neon := family{"NEON", "gemmNEONx", true}
	for _, of := range neon.kinds() {
		for n := 1; n <= of.most(); n++ {
			g.kernel(neon, n, of)
		}
	}
	g.peak(neon.prefix)
	if err := g.write("gemm_neon_arm64.s"); err != nil {
		return err
	}
	return dispatch("gemm_arm64.go", false, []family{neon}, map[string]string{"NEON": fmt.Sprint(2 * 4 * 24)})
}

func armAcc(s, j, v int) int { return 31 - (j*s*armVecs + v) }

// load and store move a field of the arguments.
func (g *arm) load(field, reg string)  { g.p("MOVD %s(R0), %s", fieldOf(field), reg) }
func (g *arm) store(reg, field string) { g.p("MOVD %s, %s(R0)", reg, fieldOf(field)) }

func (g *arm) add(field, to string) {
	g.load(field, "R14")
	g.load(to, "R15")
	g.p("ADD R14, R15")
	g.store("R15", to)
}

// kernel emits the function for n scalars.
func (g *arm) kernel(in family, n int, of kind) {
	g.function(in.name(n, of))
	g.p("MOVD a+0(FP), R0")
	for _, m := range [][2]string{{"w", "atW"}, {"y", "groupY"}, {"init", "groupInit"}, {"x", "groupX"}, {"groups", "leftGroups"}} {
		g.load(m[0], "R14")
		g.store("R14", m[1])
	}
	g.load("wk", "R10")
	g.load("xk", "R11")
	g.load("xs", "R12")
	if of == sparse {
		for _, m := range [][2]string{{"index", "atIndex"}, {"counts", "atCounts"}} {
			g.load(m[0], "R14")
			g.store("R14", m[1])
		}
	}
	g.label("group")
	if of == sparse {
		g.load("atCounts", "R14")
		g.p("MOVWU (R14), R14")
		g.store("R14", "k")
	}
	for _, m := range [][2]string{{"groupX", "atX"}, {"groupY", "atY"}, {"groupInit", "atInit"}, {"slices", "left"}} {
		g.load(m[0], "R14")
		g.store("R14", m[1])
	}
	g.load("atW", "R3")
	g.load("wj", "R14")
	for j := 1; j < n; j++ {
		g.p("ADD R14, R%d, R%d", 2+j, 3+j)
	}
	widths := armWidths(n)
	for i, s := range widths {
		next := "done"
		if i+1 < len(widths) {
			next = fmt.Sprintf("wide%d", widths[i+1])
		}
		g.label(fmt.Sprintf("wide%d", s))
		g.load("left", "R14")
		g.p("CMP $%d, R14; BLT %s", s, next)
		g.block(n, s, of)
	}
	g.label("done")
	if of == sparse {
		g.p("MOVD $4, R14")
		g.load("atCounts", "R15")
		g.p("ADD R14, R15")
		g.store("R15", "atCounts")
		g.load("k", "R14")
		g.load("atW", "R15")
		g.p("MADD R10, R15, R14, R15")
		g.store("R15", "atW")
		g.load("atIndex", "R15")
		g.p("ADD R14<<2, R15")
		g.store("R15", "atIndex")
	}
	for _, m := range [][2]string{{"wg", "atW"}, {"xg", "groupX"}, {"yg", "groupY"}, {"initg", "groupInit"}} {
		g.add(m[0], m[1])
	}
	g.load("leftGroups", "R14")
	g.p("SUB $1, R14")
	g.store("R14", "leftGroups")
	g.p("CBNZ R14, group; RET")
	g.WriteString("\n")
}

// block emits the product of n scalars with s slices.
func (g *arm) block(n, s int, of kind) {
	name := func(l string) string { return fmt.Sprintf("%s%d", l, s) }
	g.begin(n, s)
	g.load("atX", "R1")
	g.load("k", "R2")
	g.p("CBZ R2, %s", name("end"))
	switch of {
	case sparse:
		g.load("atIndex", "R21")
		g.p("MOVD R1, R22; MOVD $0, R9")
		g.label(name("loop"))
		g.p("MOVWU.P 4(R21), R14; ADD R22, R14, R1")
		g.step(n, s)
		g.p("ADD R10, R9")
	case indexed:
		g.load("index", "R21")
		g.p("MOVD R1, R22")
		g.label(name("loop"))
		g.p("MOVWU.P 4(R21), R14; MUL R10, R14, R9; MADD R11, R22, R14, R1")
		g.step(n, s)
	default:
		g.p("MOVD $0, R9")
		g.label(name("loop"))
		g.step(n, s)
		g.p("ADD R11, R1; ADD R10, R9")
	}
	g.p("SUBS $1, R2; BNE %s", name("loop"))
	g.label(name("end"))
	g.end(n, s)
	g.load("atX", "R14")
	for range s {
		g.p("ADD R12, R14")
	}
	g.store("R14", "atX")
	g.load("atY", "R14")
	g.p("ADD $%d, R14", 64*s)
	g.store("R14", "atY")
	g.load("left", "R14")
	g.p("SUB $%d, R14", s)
	g.store("R14", "left")
	g.p("JMP wide%d", s)
}

// begin loads the sums.
func (g *arm) begin(n, s int) {
	vecs := s * armVecs
	g.load("atInit", "R14")
	g.load("vector", "R15")
	g.p("CBNZ R15, vector%d", s)
	for j := range n {
		acc := armAcc(s, j, 0)
		if j < n-1 {
			g.p("VLD1R.P 4(R14), [V%d.S4]", acc)
		} else {
			g.p("VLD1R (R14), [V%d.S4]", acc)
		}
		for v := 1; v < vecs; v++ {
			g.p("VMOV V%d.B16, V%d.B16", acc, acc-v)
		}
	}
	g.p("JMP begun%d", s)
	g.label(fmt.Sprintf("vector%d", s))
	g.load("initj", "R15")
	for j := range n {
		for v := 0; v < vecs; v += 2 {
			g.p("FLDPQ %d(R14), (F%d, F%d)", 16*v, armAcc(s, j, v), armAcc(s, j, v+1))
		}
		if j < n-1 {
			g.p("ADD R15, R14")
		}
	}
	g.load("atInit", "R14")
	g.p("ADD $%d, R14", 64*s)
	g.store("R14", "atInit")
	g.label(fmt.Sprintf("begun%d", s))
}

// step emits one k. The scalars are loaded alone: a load that also broadcasts
// takes a turn of the units that multiply.
func (g *arm) step(n, s int) {
	free := 28 - n*s*armVecs
	scalar := func(j int) int { return 4 + j%free }
	load := func(j int) { g.p("FMOVS (R%d)(R9), F%d", 3+j, scalar(j)) }
	for j := range min(n, free) {
		load(j)
	}
	at := "R1"
	for i := range s {
		g.p("FLDPQ (%s), (F0, F1); FLDPQ 32(%s), (F2, F3)", at, at)

		for j := range n {
			for v := range armVecs {
				g.fmla(v, scalar(j), armAcc(s, j, i*armVecs+v))
			}
			if j+free < n { // one slice alone: the others leave room
				load(j + free)
			}
		}
		if i+1 < s {
			g.p("ADD R12, %s, R13", at)
			at = "R13"
		}
	}
}

// fmla adds x times the scalar to the sum, by element 0 of the scalar's register.
func (g *arm) fmla(x, scalar, sum int) {
	g.p("WORD $0x%08x // FMLA V%d.4S, V%d.4S, V%d.S[0]", 0x4f801000|scalar<<16|x<<5|sum, sum, x, scalar)
}

// end applies the activation and stores.
func (g *arm) end(n, s int) {
	vecs := s * armVecs
	g.load("act", "R14")
	g.p("CMP $1, R14; BLT store%d; BGT leaky%d", s, s)
	for j := range n {
		for v := range vecs {
			a := armAcc(s, j, v)
			g.p("WORD $0x%08x // FCMLT V0.4S, V%d.4S, #0.0", 0x4ea0e800|a<<5, a)
			g.p("WORD $0x%08x // BIC V%d.16B, V%d.16B, V0.16B", 0x4e601c00|a<<5|a, a, a)
		}
	}
	g.p("JMP store%d", s)
	g.label(fmt.Sprintf("leaky%d", s))
	g.p("MOVW $0x3c23d70a, R14; VDUP R14, V0.S4")
	for j := range n {
		for v := range vecs {
			a := armAcc(s, j, v)
			g.p("WORD $0x%08x // FMUL V1.4S, V%d.4S, V0.4S", 0x6e20dc00|a<<5|1, a)
			g.p("WORD $0x%08x // FMAX V%d.4S, V%d.4S, V1.4S", 0x4e20f400|1<<16|a<<5|a, a, a)
		}
	}
	g.label(fmt.Sprintf("store%d", s))
	g.load("atY", "R14")
	g.load("yj", "R15")
	for j := range n {
		for v := 0; v < vecs; v += 2 {
			g.p("FSTPQ (F%d, F%d), %d(R14)", armAcc(s, j, v), armAcc(s, j, v+1), 16*v)
		}
		if j < n-1 {
			g.p("ADD R15, R14")
		}
	}
}

// peak emits independent chains, as many as there are sums in the largest kernel.
func (g *arm) peak(prefix string) {
	g.note("func %sPeak(n int)", prefix)
	fmt.Fprintf(g, "TEXT ·%sPeak(SB), NOSPLIT, $0-8\n", prefix)
	g.p("MOVD n+0(FP), R2")
	for i := range 32 {
		g.p("VEOR V%d.B16, V%d.B16, V%d.B16", i, i, i)
	}
	g.p("CBZ R2, done")
	g.label("loop")
	for i := range 24 {
		g.fmla(0, 4, 31-i)
	}
	g.p("SUBS $1, R2; BNE loop")
	g.label("done")
	g.p("RET")
	g.WriteString("\n")
}
