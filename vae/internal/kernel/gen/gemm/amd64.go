package main

import "fmt"

// x86 emits the kernels of one amd64 level. General registers:
//
//	AX  the arguments            SI  x at k         CX  steps left
//	DI  w at k, scalar 0         R11 w at k, scalar 3
//	R8  wj   R9  wk   R10 xk     BX  xs             R12 3*xs
//	DX  aheadW                   R13 aheadX, or x at k ahead if several slices
//	R15 index                    R14, R15 short-lived otherwise
//
// Sparse kernels keep x of the slice in R13 and have no wj.
type x86 struct {
	text
	reg    string // register name: Y or Z
	regs   int
	vecs   int // vectors in a slice
	unroll int
	widths func(n int) []int // slices at once, most first, down to 1
	bf16   bool
	off    int // of the entry of a list within a round
}

func (g *x86) bytes() int { return 64 / g.vecs }

// acc is the sum of scalar j in vector v of all the slices at once.
func (g *x86) acc(s, j, v int) string { return g.r(g.regs - 1 - (j*s*g.vecs + v)) }

func (g *x86) r(i int) string { return fmt.Sprintf("%s%d", g.reg, i) }

func amd64Files() error {
	avx2 := func() *x86 {
		return &x86{reg: "Y", regs: 16, vecs: 2, unroll: 4, widths: func(n int) []int {
			switch n {
			case 1:
				return []int{4, 2, 1}
			case 2, 3:
				return []int{2, 1}
			}
			return []int{1}
		}}
	}
	avx512 := func() *x86 {
		return &x86{reg: "Z", regs: 32, vecs: 1, unroll: 2, widths: func(int) []int { return []int{4, 3, 2, 1} }}
	}
	bf16 := func() *x86 {
		g := avx512()
		g.bf16 = true
		return g
	}
	families := []family{{"AVX2", "gemmAVX2x", true}, {"AVX512", "gemmAVX512x", true}, {"BF16", "gemmBF16x", false}}
	peaks := map[string]string{"AVX2": fmt.Sprint(2 * 8 * 12), "AVX512": fmt.Sprint(2 * 16 * 24), "BF16": fmt.Sprint(2 * 32 * 24)}
	files := []string{"gemm_avx2_amd64.s", "gemm_avx512_amd64.s", "gemm_bf16_amd64.s"}
	for i, g := range []*x86{avx2(), avx512(), bf16()} {
		g.note("slope is leaky relu's below zero.")
		g.WriteString("DATA slope<>(SB)/4, $0x3c23d70a\nGLOBL slope<>(SB), RODATA|NOPTR, $4\n\n")
		for _, of := range families[i].kinds() {
			for n := 1; n <= of.most(); n++ {
				g.kernel(families[i], n, of)
			}
		}
		g.peak(families[i].prefix)
		if g.bf16 {
			g.roundPairs()
		}
		if err := g.write(files[i]); err != nil {
			return err
		}
	}
	return dispatch("gemm_amd64.go", true, families, peaks)
}

// kernel emits the function for n scalars.
func (g *x86) kernel(in family, n int, of kind) {
	f := fieldOf
	g.function(in.name(n, of))
	g.p("MOVQ a+0(FP), AX")
	for _, m := range [][2]string{{"w", "atW"}, {"y", "groupY"}, {"init", "groupInit"}, {"x", "groupX"}, {"groups", "leftGroups"}} {
		g.p("MOVQ %s(AX), R14; MOVQ R14, %s(AX)", f(m[0]), f(m[1]))
	}
	g.p("MOVQ %s(AX), R8; MOVQ %s(AX), R9; MOVQ %s(AX), R10; MOVQ %s(AX), BX", f("wj"), f("wk"), f("xk"), f("xs"))
	g.p("LEAQ (BX)(BX*2), R12; MOVQ %s(AX), DX", f("aheadW"))
	if of == sparse {
		g.p("MOVQ %s(AX), R14; MOVQ R14, %s(AX); MOVQ %s(AX), R14; MOVQ R14, %s(AX)", f("index"), f("atIndex"), f("counts"), f("atCounts"))
	}
	g.label("group")
	for _, m := range [][2]string{{"groupX", "atX"}, {"groupY", "atY"}, {"groupInit", "atInit"}, {"slices", "left"}} {
		g.p("MOVQ %s(AX), R14; MOVQ R14, %s(AX)", f(m[0]), f(m[1]))
	}
	if of == sparse {
		g.p("MOVQ %s(AX), R14; MOVL (R14), R14; MOVQ R14, %s(AX)", f("atCounts"), f("k"))
	}
	widths := g.widths(n)
	for i, s := range widths {
		next := "done"
		if i+1 < len(widths) {
			next = fmt.Sprintf("wide%d", widths[i+1])
		}
		g.label(fmt.Sprintf("wide%d", s))
		g.p("CMPQ %s(AX), $%d; JLT %s", f("left"), s, next)
		g.block(n, s, of)
	}
	g.label("done")
	if of == sparse {
		g.p("MOVQ %s(AX), R14; IMULQ R14, R9; ADDQ R9, %s(AX); MOVQ %s(AX), R9", f("k"), f("atW"), f("wk"))
		g.p("SHLQ $2, R14; ADDQ R14, %s(AX); ADDQ $4, %s(AX)", f("atIndex"), f("atCounts"))
	}
	for _, m := range [][2]string{{"wg", "atW"}, {"xg", "groupX"}, {"yg", "groupY"}, {"initg", "groupInit"}} {
		g.p("MOVQ %s(AX), R14; ADDQ R14, %s(AX)", f(m[0]), f(m[1]))
	}
	g.p("DECQ %s(AX); JNZ group; VZEROUPPER; RET", f("leftGroups"))
	g.WriteString("\n")
}

// block emits the product of n scalars with s slices.
func (g *x86) block(n, s int, of kind) {
	f := fieldOf
	name := func(l string) string { return fmt.Sprintf("%s%d", l, s) }
	g.begin(n, s)
	g.p("MOVQ %s(AX), SI; MOVQ %s(AX), DI; MOVQ %s(AX), CX", f("atX"), f("atW"), f("k"))
	switch of {
	case sparse:
		g.sparseLoop(n, s)
	case indexed:
		g.p("MOVQ %s(AX), R15; TESTQ CX, CX; JZ %s; PCALIGN $32", f("index"), name("end"))
		g.label(name("one"))
		g.p("MOVL (R15), SI; MOVQ SI, DI; IMULQ R10, SI; IMULQ R9, DI")
		g.p("ADDQ %s(AX), SI; ADDQ %s(AX), DI; ADDQ $4, R15", f("atX"), f("atW"))
		g.p("LEAQ (DI)(R8*2), R11; ADDQ R8, R11")
		g.step(n, s, indexed)
		g.p("DECQ CX; JNZ %s", name("one"))
	default:
		g.p("MOVQ %s(AX), R13", f("aheadX"))
		if s > 1 {
			g.p("ADDQ SI, R13")
		}
		g.p("LEAQ (DI)(R8*2), R11; ADDQ R8, R11")
		g.p("SUBQ $%d, CX; JLT %s; PCALIGN $32", g.unroll, name("tail"))
		g.label(name("loop"))
		for range g.unroll {
			g.step(n, s, plain)
			g.advance(n, s)
		}
		g.p("SUBQ $%d, CX; JGE %s", g.unroll, name("loop"))
		g.label(name("tail"))
		g.p("ADDQ $%d, CX; JLE %s", g.unroll, name("end"))
		g.label(name("one"))
		g.step(n, s, plain)
		g.advance(n, s)
		g.p("DECQ CX; JNZ %s", name("one"))
	}
	g.label(name("end"))
	g.end(n, s)
	if s == 3 {
		g.p("MOVQ R12, R14")
	} else {
		g.p("LEAQ (BX*%d), R14", s)
	}
	g.p("ADDQ R14, %s(AX); ADDQ $%d, %s(AX)", f("atX"), 64*s, f("atY"))
	g.p("SUBQ $%d, %s(AX); JMP wide%d", s, f("left"), s)
}

// sparseLoop emits the walk over a group's own list.
func (g *x86) sparseLoop(n, s int) {
	name := func(l string) string { return fmt.Sprintf("%s%d", l, s) }
	g.p("MOVQ SI, R13; MOVQ %s(AX), R15", fieldOf("atIndex"))
	g.p("SUBQ $%d, CX; JLT %s; PCALIGN $32", sparseUnroll, name("tail"))
	g.label(name("loop"))
	g.p("PREFETCHT0 (DI)(DX*1)")
	for i := range sparseUnroll {
		g.p("MOVL %d(R15), SI; ADDQ R13, SI", 4*i)
		g.off = 4 * n * i
		g.step(n, s, sparse)
	}
	g.p("ADDQ $%d, R15; ADDQ $%d, DI; SUBQ $%d, CX; JGE %s", 4*sparseUnroll, 4*n*sparseUnroll, sparseUnroll, name("loop"))
	g.label(name("tail"))
	g.off = 0
	g.p("ADDQ $%d, CX; JLE %s", sparseUnroll, name("end"))
	g.label(name("one"))
	g.p("MOVL (R15), SI; ADDQ R13, SI; ADDQ $4, R15")
	g.step(n, s, sparse)
	g.p("ADDQ $%d, DI; DECQ CX; JNZ %s", 4*n, name("one"))
}

// sparseUnroll is how many entries of a list a round of the loop takes.
const sparseUnroll = 4

func (g *x86) advance(n, s int) {
	g.p("ADDQ R10, SI; ADDQ R9, DI")
	if n > 3 {
		g.p("ADDQ R9, R11")
	}
	if s > 1 {
		g.p("ADDQ R10, R13")
	}
}

// begin loads the sums.
func (g *x86) begin(n, s int) {
	g.p("MOVQ %s(AX), R14; CMPQ %s(AX), $0; JNE vector%d", fieldOf("atInit"), fieldOf("vector"), s)
	for j := range n {
		g.p("VBROADCASTSS %d(R14), %s", 4*j, g.acc(s, j, 0))
		for v := 1; v < s*g.vecs; v++ {
			g.p("VMOVAPS %s, %s", g.acc(s, j, 0), g.acc(s, j, v))
		}
	}
	g.p("JMP begun%d", s)
	g.label(fmt.Sprintf("vector%d", s))
	g.p("MOVQ %s(AX), R15", fieldOf("initj"))
	for j := range n {
		for v := range s * g.vecs {
			g.p("VMOVUPS %d(R14), %s", v*g.bytes(), g.acc(s, j, v))
		}
		if j < n-1 {
			g.p("ADDQ R15, R14")
		}
	}
	g.p("ADDQ $%d, %s(AX)", 64*s, fieldOf("atInit"))
	g.label(fmt.Sprintf("begun%d", s))
}

// xAt and wAt are the operands of vector v and scalar j.
func (g *x86) xAt(v int) string {
	off := ""
	if o := v % g.vecs * g.bytes(); o > 0 {
		off = fmt.Sprint(o)
	}
	return off + [4]string{"(SI)", "(SI)(BX*1)", "(SI)(BX*2)", "(SI)(R12*1)"}[v/g.vecs]
}

func (g *x86) wAt(j int, of kind) string {
	if of == sparse {
		return fmt.Sprintf("%d(DI)", g.off+4*j)
	}
	return [6]string{"(DI)", "(DI)(R8*1)", "(DI)(R8*2)", "(R11)", "(R11)(R8*1)", "(R11)(R8*2)"}[j]
}

// step emits one k.
func (g *x86) step(n, s int, of kind) {
	if of == plain {
		g.p("PREFETCHT0 (DI)(DX*1)")
		if s == 1 {
			g.p("PREFETCHT0 (SI)(R13*1)")
		} else {
			for i := range s {
				g.p("PREFETCHT0 %s", [4]string{"(R13)", "(R13)(BX*1)", "(R13)(BX*2)", "(R13)(R12*1)"}[i])
			}
		}
	}
	vecs := s * g.vecs
	free := g.regs - n*vecs
	if free >= vecs+2 { // hold x, stream the scalars
		for v := range vecs {
			g.p("VMOVUPS %s, %s", g.xAt(v), g.r(v))
		}
		for j := range n {
			w := g.r(vecs + j%(free-vecs))
			g.p("VBROADCASTSS %s, %s", g.wAt(j, of), w)
			for v := range vecs {
				g.fma(w, g.r(v), g.acc(s, j, v))
			}
		}
		return
	}
	for j := range n { // hold the scalars, stream x
		g.p("VBROADCASTSS %s, %s", g.wAt(j, of), g.r(j))
	}
	for v := range vecs {
		x := g.r(n + v%(free-n))
		g.p("VMOVUPS %s, %s", g.xAt(v), x)
		for j := range n {
			g.fma(g.r(j), x, g.acc(s, j, v))
		}
	}
}

// fma adds a*b to sum: one product, or a pair of bfloat16 ones.
func (g *x86) fma(a, b, sum string) {
	if !g.bf16 {
		g.p("VFMADD231PS %s, %s, %s", a, b, sum)
		return
	}
	var m, v, d int
	for r, to := range map[string]*int{a: &m, b: &v, sum: &d} {
		fmt.Sscanf(r, "Z%d", to)
	}
	not := func(bit int) int { return bit&1 ^ 1 }
	// EVEX.512.F3.0F38.W0 52 /r
	p0 := not(d>>3)<<7 | not(m>>4)<<6 | not(m>>3)<<5 | not(d>>4)<<4 | 2
	p1 := (^v&15)<<3 | 4 | 2
	p2 := 2<<5 | not(v>>4)<<3
	fmt.Fprintf(g, "\tLONG $0x%02x%02x%02x62; WORD $0x%02x52 // VDPBF16PS %s, %s, %s\n", p2, p1, p0, 0xc0|d&7<<3|m&7, a, b, sum)
}

// end applies the activation and stores.
func (g *x86) end(n, s int) {
	f := fieldOf
	g.p("MOVQ %s(AX), R14; MOVQ %s(AX), R15; CMPQ %s(AX), $1; JLT store%d; JGT leaky%d", f("atY"), f("yj"), f("act"), s, s)
	vecs := s * g.vecs
	// The maximum of two numbers is the second if one is NaN or both are zero.
	g.p("VXORPS %s, %s, %s", g.x(0), g.x(0), g.x(0))
	for j := range n {
		for v := range vecs {
			g.p("VMAXPS %s, %s, %s", g.acc(s, j, v), g.r(0), g.acc(s, j, v))
		}
	}
	g.p("JMP store%d", s)
	g.label(fmt.Sprintf("leaky%d", s))
	g.p("VBROADCASTSS slope<>(SB), %s", g.r(0))
	free := g.regs - n*vecs
	for j := range n {
		for v := range vecs {
			t := g.r(1 + (j*vecs+v)%(free-1))
			g.p("VMULPS %s, %s, %s; VMAXPS %s, %s, %s", g.acc(s, j, v), g.r(0), t, g.acc(s, j, v), t, g.acc(s, j, v))
		}
	}
	g.label(fmt.Sprintf("store%d", s))
	for j := range n {
		for v := range vecs {
			g.p("VMOVUPS %s, %d(R14)", g.acc(s, j, v), v*g.bytes())
		}
		if j < n-1 {
			g.p("ADDQ R15, R14")
		}
	}
}

// x is the low part of a register that a VEX instruction can name.
func (g *x86) x(i int) string { return fmt.Sprintf("X%d", i) }

// peak emits independent chains, as many as there are sums in the largest kernel.
func (g *x86) peak(prefix string) {
	g.note("func %sPeak(n int)", prefix)
	fmt.Fprintf(g, "TEXT ·%sPeak(SB), NOSPLIT, $0-8\n", prefix)
	chains := 12
	if g.reg == "Z" {
		chains = 24
	}
	g.p("MOVQ n+0(FP), CX")
	for i := range chains + 2 {
		g.p("VXORPS %s, %s, %s", g.x(i%16), g.x(i%16), g.x(i%16))
	}
	for i := 16; i < chains+2; i++ {
		g.p("VMOVAPS Z0, Z%d", i)
	}
	g.p("TESTQ CX, CX; JZ done; PCALIGN $32")
	g.label("loop")
	for i := range chains {
		g.fma(g.r(chains), g.r(chains+1), g.r(i))
	}
	g.p("DECQ CX; JNZ loop")
	g.label("done")
	g.p("VZEROUPPER; RET")
	g.WriteString("\n")
}

// roundPairs emits the rounding of two inputs at a time to bfloat16, to nearest
// even. A NaN keeps its upper half and becomes quiet.
func (g *x86) roundPairs() {
	g.note("func gemmRoundPairs(dst, x unsafe.Pointer, pairs, slices int)")
	fmt.Fprintf(g, "TEXT ·gemmRoundPairs(SB), NOSPLIT, $0-32\n")
	g.p("MOVQ dst+0(FP), DI; MOVQ x+8(FP), SI; MOVQ pairs+16(FP), CX; MOVQ slices+24(FP), DX; SHLQ $6, DX")
	for i, c := range []uint32{0x7fff, 1, 0x400000, 0xffff0000} {
		g.p("MOVL $0x%x, AX; VPBROADCASTD AX, Z%d", c, 10+i)
	}
	g.label("pair")
	g.p("XORQ BX, BX")
	g.label("slice")
	for i := range 2 { // Z0 becomes Z2, Z1 becomes Z3
		g.p("VMOVUPS %d(SI)(BX*1), Z%d; VCMPPS $3, Z%d, Z%d, K1", 256*i, i, i, i)
		g.p("VPSRLD $16, Z%d, Z%d; VPANDD Z11, Z%d, Z%d", i, 2+i, 2+i, 2+i)
		g.p("VPADDD Z%d, Z%d, Z%d; VPADDD Z10, Z%d, Z%d", i, 2+i, 2+i, 2+i, 2+i)
		g.p("VPORD Z12, Z%d, K1, Z%d", i, 2+i)
	}
	g.p("VPSRLD $16, Z2, Z2; VPANDD Z13, Z3, Z3; VPORD Z2, Z3, Z2; VMOVUPS Z2, (DI)(BX*1)")
	g.p("ADDQ $64, BX; CMPQ BX, DX; JLT slice")
	g.p("ADDQ $256, DI; ADDQ $512, SI; DECQ CX; JNZ pair; VZEROUPPER; RET")
}
