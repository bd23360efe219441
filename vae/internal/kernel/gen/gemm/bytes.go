package main

import (
	"fmt"
	"go/format"
	"os"
	"strings"
)

// A byteFamily is the int8 kernels of one set of instructions: functions of n = 1 to
// most neurons.
type byteFamily struct {
	name string // as the constant of the package
	most int
}

var (
	bytesAVX2 = byteFamily{"bytesAVX2", 3}
	bytesVNNI = byteFamily{"bytesVNNI", 6}
	bytesNEON = byteFamily{"bytesNEON", 6}
)

const byteParams = "y, x, w, scale, offset, init unsafe.Pointer, pairs, slices, act int"

// byteFiles writes the int8 kernels. All of them compute, for one group of n
// neurons and each slice of 16 rows,
//
//	y[j][row] = act(scale[j] * sum over k of w[j][k] * x[k][row] + offset[j])
//
// from x in pairs of quads, [pair][2][64] dwords of four inputs each, and w as
// [pair][n][2] dwords.
func byteFiles() error {
	avx2 := &x86{reg: "Y", regs: 16, vecs: 2}
	for n := 1; n <= bytesAVX2.most; n++ {
		avx2.bytesKernel(bytesAVX2, n)
	}
	avx2.quantize("quantizeQuadsAVX2")
	if err := avx2.write("bytes_avx2_amd64.s"); err != nil {
		return err
	}
	vnni := &x86{reg: "Z", regs: 32, vecs: 1}
	for n := 1; n <= bytesVNNI.most; n++ {
		vnni.bytesKernel(bytesVNNI, n)
	}
	vnni.quantize("quantizeQuadsAVX512")
	if err := vnni.write("bytes_avx512_amd64.s"); err != nil {
		return err
	}
	neon := &arm{}
	for n := 1; n <= bytesNEON.most; n++ {
		neon.bytesKernel(n)
	}
	neon.quantize()
	if err := neon.write("bytes_neon_arm64.s"); err != nil {
		return err
	}
	if err := byteDispatch("bytes_amd64.go", []byteFamily{bytesAVX2, bytesVNNI}, []string{"quantizeQuadsAVX2", "quantizeQuadsAVX512"}); err != nil {
		return err
	}
	return byteDispatch("bytes_arm64.go", []byteFamily{bytesNEON}, []string{"quantizeQuadsNEON"})
}

func byteDispatch(file string, families []byteFamily, quantizers []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%spackage kernel\n\nimport \"unsafe\"\n", header)
	fmt.Fprintf(&b, "\n// multiplyBytes runs the kernel for n neurons.\nfunc multiplyBytes(of byteSet, n int, %s) {\n\tswitch of {\n", byteParams)
	for _, f := range families {
		fmt.Fprintf(&b, "\tcase %s:\n\t\tswitch n {\n", f.name)
		for n := 1; n <= f.most; n++ {
			fmt.Fprintf(&b, "\t\tcase %d:\n\t\t\t%sx%d(y, x, w, scale, offset, init, pairs, slices, act)\n\t\t\treturn\n", n, f.name, n)
		}
		b.WriteString("\t\t}\n")
	}
	b.WriteString("\t}\n\tpanic(\"kernel: no such kernel\")\n}\n")
	for _, f := range families {
		for n := 1; n <= f.most; n++ {
			fmt.Fprintf(&b, "\n//go:noescape\nfunc %sx%d(%s)\n", f.name, n, byteParams)
		}
	}
	for _, q := range quantizers {
		fmt.Fprintf(&b, "\n//go:noescape\nfunc %s(dst, x, inverse, zero unsafe.Pointer, quads, slices int)\n", q)
	}
	src, err := format.Source([]byte(b.String()))
	if err != nil {
		return err
	}
	return os.WriteFile(file, src, 0o644)
}

// bytesKernel emits the function for n neurons. General registers:
//
//	R8 y   SI x   DX w   R9 scale   R10 offset   R11 pairs   R12 slices   R13 act
//	AX x at k   DI w at k   CX pairs left   BX x of the next slices
func (g *x86) bytesKernel(f byteFamily, n int) {
	g.note("func %sx%d(%s)", f.name, n, byteParams)
	fmt.Fprintf(g, "TEXT ·%sx%d(SB), NOSPLIT, $0-72\n", f.name, n)
	for i, r := range []string{"R8", "SI", "DX", "R9", "R10", "", "R11", "R12", "R13"} {
		if r != "" {
			g.p("MOVQ %s+%d(FP), %s", [...]string{"y", "x", "w", "scale", "offset", "init", "pairs", "slices", "act"}[i], 8*i, r)
		}
	}
	if g.reg == "Y" {
		g.p("VPCMPEQW Y15, Y15, Y15; VPSRLW $15, Y15, Y15")
		g.label("more1")
		g.bytesBlock(n, 1)
		g.p("ADDQ $64, SI; ADDQ $64, R8; DECQ R12; JNZ more1; VZEROUPPER; RET")
		g.WriteString("\n")
		return
	}
	for s := 4; s >= 1; s-- {
		if s > 1 {
			g.p("CMPQ R12, $%d; JLT more%d", s, s-1)
		}
		g.bytesBlock(n, s)
		g.p("VZEROUPPER; RET")
		if s > 1 {
			g.label(fmt.Sprintf("more%d", s-1))
		}
	}
	g.WriteString("\n")
}

// bytesBlock emits the product of n neurons with s slices.
func (g *x86) bytesBlock(n, s int) {
	vecs := s * g.vecs
	acc := func(j, v int) string { return g.r(j*vecs + v) }
	for i := range n * vecs {
		g.p("VPXOR%s %s, %s, %s", map[string]string{"Y": "", "Z": "D"}[g.reg], g.r(i), g.r(i), g.r(i))
	}
	g.p("MOVQ SI, AX; MOVQ DX, DI; MOVQ R11, CX; TESTQ CX, CX; JZ end%d; PCALIGN $32", s)
	g.label(fmt.Sprintf("loop%d", s))
	first := n * vecs
	if g.reg == "Y" { // two quads of 16 rows, and what lies between
		for q := range 2 {
			for v := range 2 {
				g.p("VMOVDQU %d(AX), Y%d", 256*q+32*v, first+2*q+v)
			}
		}
		w0, w1, t0, t1 := first+4, first+5, first+6, first+7
		for j := range n {
			g.p("VPBROADCASTD %d(DI), Y%d; VPBROADCASTD %d(DI), Y%d", 8*j, w0, 8*j+4, w1)
			for v := range 2 {
				g.p("VPMADDUBSW Y%d, Y%d, Y%d; VPMADDUBSW Y%d, Y%d, Y%d", w0, first+v, t0, w1, first+2+v, t1)
				g.p("VPADDW Y%d, Y%d, Y%d; VPMADDWD Y15, Y%d, Y%d; VPADDD Y%d, %s, %s", t1, t0, t0, t0, t0, t0, acc(j, v), acc(j, v))
			}
		}
	} else {
		for q := range 2 {
			for v := range vecs {
				g.p("VMOVDQU32 %d(AX), Z%d", 256*q+64*v, 24+v)
			}
			for j := range n {
				w := 28 + j%4
				g.p("VPBROADCASTD %d(DI), Z%d", 8*j+4*q, w)
				for v := range vecs {
					g.p("VPDPBUSD Z%d, Z%d, %s", w, 24+v, acc(j, v))
				}
			}
		}
	}
	g.p("ADDQ $512, AX; ADDQ $%d, DI; DECQ CX; JNZ loop%d", 8*n, s)
	g.label(fmt.Sprintf("end%d", s))
	t := g.r(g.regs - 2) // ones stay in the last one
	for j := range n {
		for v := range vecs {
			g.p("VCVTDQ2PS %s, %s", acc(j, v), acc(j, v))
		}
		g.p("VBROADCASTSS %d(R9), %s", 4*j, t)
		for v := range vecs {
			g.p("VMULPS %s, %s, %s", t, acc(j, v), acc(j, v))
		}
		g.p("VBROADCASTSS %d(R10), %s", 4*j, t)
		for v := range vecs {
			g.p("VADDPS %s, %s, %s", t, acc(j, v), acc(j, v))
		}
	}
	g.p("CMPQ R13, $1; JLT store%d; JGT leaky%d", s, s)
	xor := "VXORPS %s, %s, %s"
	low := fmt.Sprintf("X%d", g.regs-2)
	if g.reg == "Z" {
		xor, low = "VPXORD %s, %s, %s", t
	}
	g.p(xor, low, low, low)
	for i := range n * vecs {
		g.p("VMAXPS %s, %s, %s", g.r(i), t, g.r(i))
	}
	g.p("JMP store%d", s)
	g.label(fmt.Sprintf("leaky%d", s))
	g.p("MOVL $0x3c23d70a, CX")
	if g.reg == "Z" {
		g.p("VPBROADCASTD CX, %s", t)
	} else {
		g.p("MOVQ CX, %s; VBROADCASTSS %s, %s", low, low, t)
	}
	free := g.r(g.regs - 3)
	for i := range n * vecs {
		g.p("VMULPS %s, %s, %s; VMAXPS %s, %s, %s", g.r(i), t, free, g.r(i), free, g.r(i))
	}
	g.label(fmt.Sprintf("store%d", s))
	for j := range n {
		for v := range vecs {
			g.p("VMOVUPS %s, %d(R8)", acc(j, v), 256*j+g.bytes()*v)
		}
	}
}

// quantize emits the rounding of four inputs at a time to bytes side by side.
func (g *x86) quantize(name string) {
	g.note("func %s(dst, x, inverse, zero unsafe.Pointer, quads, slices int)", name)
	fmt.Fprintf(g, "TEXT ·%s(SB), NOSPLIT, $0-48\n", name)
	g.p("MOVQ dst+0(FP), DI; MOVQ x+8(FP), SI; MOVQ inverse+16(FP), R8; MOVQ zero+24(FP), R9; MOVQ quads+32(FP), CX; MOVQ slices+40(FP), DX; SHLQ $6, DX")
	or := "VPOR"
	if g.reg == "Y" {
		g.p("VXORPS Y8, Y8, Y8")
	} else {
		or = "VPORD"
		g.p("VPXORD Z8, Z8, Z8")
	}
	g.p("MOVL $0x437f0000, AX; MOVQ AX, X9; VBROADCASTSS X9, %s", g.r(9)) // 255
	g.label("quad")
	for i := range 4 {
		g.p("VBROADCASTSS %d(R8), %s; VBROADCASTSS %d(R9), %s", 4*i, g.r(i), 4*i, g.r(4+i))
	}
	g.p("XORQ BX, BX")
	g.label("rows")
	for i := range 4 {
		v := g.r(10 + i)
		g.p("VMULPS %d(SI)(BX*1), %s, %s; VADDPS %s, %s, %s", 256*i, g.r(i), v, g.r(4+i), v, v)
		// The maximum of two numbers is the second if one is NaN.
		g.p("VMAXPS %s, %s, %s; VMINPS %s, %s, %s; VCVTPS2DQ %s, %s", g.r(8), v, v, g.r(9), v, v, v, v)
		if i > 0 {
			g.p("VPSLLD $%d, %s, %s; %s %s, %s, %s", 8*i, v, v, or, v, g.r(10), g.r(10))
		}
	}
	move := "VMOVDQU"
	if g.reg == "Z" {
		move = "VMOVDQU32"
	}
	g.p("%s %s, (DI)(BX*1); ADDQ $%d, BX; CMPQ BX, DX; JLT rows", move, g.r(10), g.bytes())
	g.p("ADDQ $1024, SI; ADDQ $256, DI; ADDQ $16, R8; ADDQ $16, R9; DECQ CX; JNZ quad; VZEROUPPER; RET")
	g.WriteString("\n")
}

// bytesKernel emits the function for n neurons. SDOT takes signed bytes: inputs are
// moved by 128 and init makes up for it. General registers:
//
//	R0 y   R1 x   R2 w   R3 scale   R4 offset   R5 init   R6 pairs   R7 slices   R8 act
//	R9 x at k   R10 w at k   R11 pairs left   R12 y at j   R13, R14 short-lived
func (g *arm) bytesKernel(n int) {
	g.note("func bytesNEONx%d(%s)", n, byteParams)
	fmt.Fprintf(g, "TEXT ·bytesNEONx%d(SB), NOSPLIT, $0-72\n", n)
	for i, name := range [...]string{"y", "x", "w", "scale", "offset", "init", "pairs", "slices", "act"} {
		g.p("MOVD %s+%d(FP), R%d", name, 8*i, i)
	}
	g.p("MOVD $0x80, R14; VDUP R14, V28.B16")
	g.label("slice")
	for j := range n {
		g.p("ADD $%d, R5, R14; VLD1R (R14), [V%d.S4]", 4*j, 4*j)
		for v := 1; v < 4; v++ {
			g.p("VMOV V%d.B16, V%d.B16", 4*j, 4*j+v)
		}
	}
	g.p("MOVD R1, R9; MOVD R2, R10; MOVD R6, R11; CBZ R11, end")
	g.label("loop")
	for q := range 2 {
		g.p("FLDPQ %d(R9), (F24, F25); FLDPQ %d(R9), (F26, F27)", 256*q, 256*q+32)
		for v := range 4 {
			g.p("VEOR V28.B16, V%d.B16, V%d.B16", 24+v, 24+v)
		}
		for j := range n {
			w := 29 + j%3
			g.p("ADD $%d, R10, R14; VLD1R (R14), [V%d.S4]", 8*j+4*q, w)
			for v := range 4 {
				g.p("WORD $0x%08x // SDOT V%d.4S, V%d.16B, V%d.16B", 0x4e809400|w<<16|(24+v)<<5|(4*j+v), 4*j+v, 24+v, w)
			}
		}
	}
	g.p("ADD $512, R9; ADD $%d, R10; SUBS $1, R11; BNE loop", 8*n)
	g.label("end")
	for j := range n {
		g.p("ADD $%d, R3, R14; VLD1R (R14), [V29.S4]; ADD $%d, R4, R14; VLD1R (R14), [V30.S4]", 4*j, 4*j)
		for v := range 4 {
			a := 4*j + v
			g.p("WORD $0x%08x // SCVTF V%d.4S, V%d.4S", 0x4e21d800|a<<5|a, a, a)
			g.p("WORD $0x%08x // FMUL V%d.4S, V%d.4S, V29.4S", 0x6e20dc00|29<<16|a<<5|a, a, a)
			g.p("WORD $0x%08x // FADD V%d.4S, V%d.4S, V30.4S", 0x4e20d400|30<<16|a<<5|a, a, a)
		}
	}
	g.p("CMP $1, R8; BLT store; BGT leaky")
	for a := range 4 * n {
		g.p("WORD $0x%08x // FCMLT V29.4S, V%d.4S, #0.0", 0x4ea0e800|a<<5|29, a)
		g.p("WORD $0x%08x // BIC V%d.16B, V%d.16B, V29.16B", 0x4e601c00|29<<16|a<<5|a, a, a)
	}
	g.p("JMP store")
	g.label("leaky")
	g.p("MOVW $0x3c23d70a, R14; VDUP R14, V30.S4")
	for a := range 4 * n {
		g.p("WORD $0x%08x // FMUL V29.4S, V%d.4S, V30.4S", 0x6e20dc00|30<<16|a<<5|29, a)
		g.p("WORD $0x%08x // FMAX V%d.4S, V%d.4S, V29.4S", 0x4e20f400|29<<16|a<<5|a, a, a)
	}
	g.label("store")
	g.p("MOVD R0, R12")
	for j := range n {
		g.p("FSTPQ (F%d, F%d), (R12); FSTPQ (F%d, F%d), 32(R12); ADD $256, R12", 4*j, 4*j+1, 4*j+2, 4*j+3)
	}
	g.p("ADD $64, R1; ADD $64, R0; SUBS $1, R7; BNE slice; RET")
	g.WriteString("\n")
}

// quantize emits the rounding of four inputs at a time to bytes side by side.
func (g *arm) quantize() {
	g.note("func quantizeQuadsNEON(dst, x, inverse, zero unsafe.Pointer, quads, slices int)")
	fmt.Fprintf(g, "TEXT ·quantizeQuadsNEON(SB), NOSPLIT, $0-48\n")
	g.p("MOVD dst+0(FP), R0; MOVD x+8(FP), R1; MOVD inverse+16(FP), R2; MOVD zero+24(FP), R3; MOVD quads+32(FP), R4; MOVD slices+40(FP), R5; LSL $2, R5")
	g.p("VEOR V8.B16, V8.B16, V8.B16; MOVW $0x437f0000, R14; VDUP R14, V9.S4")
	g.label("quad")
	for i := range 4 {
		g.p("VLD1R.P 4(R2), [V%d.S4]; VLD1R.P 4(R3), [V%d.S4]", i, 4+i)
	}
	g.p("MOVD R1, R6; MOVD R0, R7; MOVD R5, R8")
	g.label("rows")
	for i := range 4 {
		v := 10 + i
		g.p("FMOVQ %d(R6), F%d", 256*i, v)
		g.p("WORD $0x%08x // FMUL V%d.4S, V%d.4S, V%d.4S", 0x6e20dc00|i<<16|v<<5|v, v, v, i)
		g.p("WORD $0x%08x // FADD V%d.4S, V%d.4S, V%d.4S", 0x4e20d400|(4+i)<<16|v<<5|v, v, v, 4+i)
		g.p("WORD $0x%08x // FMAXNM V%d.4S, V%d.4S, V8.4S", 0x4e20c400|8<<16|v<<5|v, v, v)
		g.p("WORD $0x%08x // FMINNM V%d.4S, V%d.4S, V9.4S", 0x4ea0c400|9<<16|v<<5|v, v, v)
		g.p("WORD $0x%08x // FCVTNU V%d.4S, V%d.4S", 0x6e21a800|v<<5|v, v, v)
		if i > 0 {
			g.p("WORD $0x%08x // SHL V%d.4S, V%d.4S, #%d", 0x4f205400|8*i<<16|v<<5|v, v, v, 8*i)
			g.p("VORR V%d.B16, V10.B16, V10.B16", v)
		}
	}
	g.p("FMOVQ F10, (R7); ADD $16, R6; ADD $16, R7; SUBS $1, R8; BNE rows")
	g.p("ADD $1024, R1; ADD $256, R0; SUBS $1, R4; BNE quad; RET")
	g.WriteString("\n")
}
