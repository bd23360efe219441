package main

import (
	"fmt"
	"strings"
)

// moves holds the functions that are written per architecture, by name and
// level: what only moves data, and sums in scalar registers.
var moves = map[string]map[string]string{
	"Chain":     {"avx2": chainAMD64(), "neon": chainARM64()},
	"Transpose": {"avx2": transposeAMD64(), "neon": transposeARM64()},
	"Gather":    {"avx2": gatherAMD64(), "neon": gatherARM64()},
}

type text struct{ strings.Builder }

func (t *text) say(format string, args ...any) { fmt.Fprintf(t, "\t"+format+"\n", args...) }
func (t *text) label(name string)              { fmt.Fprintf(t, "%s:\n", name) }

// chainAMD64 adds rows one element after the other, up to eight rows at a time:
// the additions of a row wait for each other, those of several do not.
func chainAMD64() string {
	t := &text{}
	for i, name := range []string{"acc", "q", "n", "stride", "rows"} {
		t.say("MOVQ %s+%d(FP), %s", name, 8*i, []string{"AX", "BX", "CX", "DX", "SI"}[i])
	}
	t.say("SHLQ $2, DX")
	for _, rows := range []int{8, 7, 6, 5, 4, 3, 2, 1} {
		top, done, add := fmt.Sprintf("rows%d", rows), fmt.Sprintf("done%d", rows), fmt.Sprintf("add%d", rows)
		t.label(top)
		t.say("CMPQ SI, $%d", rows)
		t.say("JLT %s", done)
		regs := []string{"R8", "R9", "R10", "R11", "R12", "R13", "R15", "DI"}[:rows]
		for i, r := range regs {
			if i == 0 {
				t.say("MOVQ BX, %s", r)
			} else {
				t.say("LEAQ (%s)(DX*1), %s", regs[i-1], r)
			}
			t.say("VMOVSS %d(AX), X%d", 4*i, i)
		}
		t.say("LEAQ (%s)(DX*1), BX", regs[rows-1])
		t.say("XORL R14, R14")
		t.label(add)
		for i, r := range regs {
			t.say("VADDSS (%s)(R14*4), X%d, X%[2]d", r, i)
		}
		t.say("INCQ R14")
		t.say("CMPQ R14, CX")
		t.say("JLT %s", add)
		for i := range rows {
			t.say("VMOVSS X%d, %d(AX)", i, 4*i)
		}
		t.say("ADDQ $%d, AX", 4*rows)
		t.say("SUBQ $%d, SI", rows)
		t.say("JMP %s", top)
		t.label(done)
	}
	t.say("RET")
	return t.String()
}

var eightAMD64 = []string{"R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"}

// squareAMD64 transposes 8x8 floats: row i is read at the i-th register plus
// off, column j written to to[j].
func (t *text) squareAMD64(off string, to func(j int) string) {
	for i := range 4 {
		// Rows i and i+4 share a register: halves of four columns each.
		t.say("VMOVUPS 0%s, X%d", fmt.Sprintf(off, eightAMD64[i]), i)
		t.say("VINSERTF128 $1, 0%s, Y%d, Y%[2]d", fmt.Sprintf(off, eightAMD64[i+4]), i)
		t.say("VMOVUPS 16%s, X%d", fmt.Sprintf(off, eightAMD64[i]), i+4)
		t.say("VINSERTF128 $1, 16%s, Y%d, Y%[2]d", fmt.Sprintf(off, eightAMD64[i+4]), i+4)
	}
	for h := range 2 { // columns 0-3, then 4-7
		a, b := 4*h, 8
		t.say("VUNPCKLPS Y%d, Y%d, Y%d", a+1, a, b)
		t.say("VUNPCKHPS Y%d, Y%d, Y%d", a+1, a, b+1)
		t.say("VUNPCKLPS Y%d, Y%d, Y%d", a+3, a+2, b+2)
		t.say("VUNPCKHPS Y%d, Y%d, Y%d", a+3, a+2, b+3)
		t.say("VUNPCKLPD Y%d, Y%d, Y12", b+2, b)
		t.say("VUNPCKHPD Y%d, Y%d, Y13", b+2, b)
		t.say("VUNPCKLPD Y%d, Y%d, Y14", b+3, b+1)
		t.say("VUNPCKHPD Y%d, Y%d, Y15", b+3, b+1)
		for j := range 4 {
			t.say("VMOVUPS Y%d, %s", 12+j, to(4*h+j))
		}
	}
}

// transposeAMD64 takes eight features at a time through all rows; features
// beyond n are read from a row of zeros.
func transposeAMD64() string {
	t := &text{}
	t.say("MOVQ dst+0(FP), DI")
	t.say("MOVQ src+8(FP), SI")
	t.say("MOVQ n+16(FP), CX")
	t.say("LEAQ vecZeros<>(SB), DX")
	t.say("ADDQ $15, CX")
	t.say("ANDQ $~15, CX") // features with the padding
	t.say("XORL AX, AX")   // the feature
	t.label("eight")
	t.say("MOVQ n+16(FP), BX")
	t.say("SUBQ AX, BX") // features left, the padding not counted
	for i, r := range eightAMD64 {
		t.say("LEAQ %d(SI), %s", 256*i, r)
		t.say("CMPQ BX, $%d", i)
		t.say("CMOVQLE DX, %s", r)
	}
	t.say("XORL BX, BX")
	t.label("row")
	t.squareAMD64("(%s)(BX*1)", func(j int) string { return fmt.Sprintf("%d(DI)", 64*j) })
	t.say("ADDQ $512, DI")
	t.say("ADDQ $32, BX")
	t.say("CMPQ BX, $256")
	t.say("JLT row")
	t.say("ADDQ $%d, SI", 8*256)
	t.say("ADDQ $8, AX")
	// The second half of a block begins 32 bytes behind the first.
	t.say("LEAQ 32(DI), R8")
	t.say("SUBQ $4096, R8")
	t.say("MOVQ DI, R9")
	t.say("SUBQ $32, R9")
	t.say("TESTQ $8, AX")
	t.say("MOVQ R8, DI")
	t.say("CMOVQEQ R9, DI")
	t.say("CMPQ AX, CX")
	t.say("JLT eight")
	t.say("VZEROUPPER")
	t.say("RET")
	return t.String()
}

// gatherAMD64 takes eight features of all rows at a time; the last eight overlap
// those before when n is no multiple of eight.
func gatherAMD64() string {
	t := &text{}
	t.say("MOVQ dst+0(FP), DI")
	t.say("MOVQ n+16(FP), CX")
	t.say("SUBQ $8, CX") // where the last eight begin
	t.say("XORL AX, AX")
	t.label("eight")
	t.say("MOVQ rows+8(FP), SI")
	t.say("MOVQ AX, DX")
	t.say("SHLQ $8, DX")
	t.say("ADDQ DI, DX") // the eight features' rows 0
	t.say("MOVQ $8, BX")
	t.label("rows")
	for i, r := range eightAMD64 {
		t.say("MOVQ %d(SI), %s", 8*i, r)
		t.say("PREFETCHT0 256(%s)(AX*4)", r)
	}
	t.squareAMD64("(%s)(AX*4)", func(j int) string { return fmt.Sprintf("%d(DX)", 256*j) })
	t.say("ADDQ $64, SI")
	t.say("ADDQ $32, DX")
	t.say("DECQ BX")
	t.say("JNZ rows")
	t.say("CMPQ AX, CX")
	t.say("JEQ done")
	t.say("ADDQ $8, AX")
	t.say("CMPQ AX, CX")
	t.say("CMOVQGT CX, AX")
	t.say("JMP eight")
	t.label("done")
	t.say("VZEROUPPER")
	t.say("RET")
	return t.String()
}

// tables are the constants of the functions above.
func tables(t *target) string {
	switch t.level {
	case "avx2":
		return "GLOBL vecZeros<>(SB), RODATA|NOPTR, $256\n"
	case "neon":
		s := "GLOBL vecZeros<>(SB), RODATA|NOPTR, $256\n"
		for i := range 4 {
			s += fmt.Sprintf("DATA vecLaneBits<>+%d(SB)/4, $%d\n", 4*i, 1<<i)
		}
		return s + "GLOBL vecLaneBits<>(SB), RODATA|NOPTR, $16\n"
	}
	return ""
}
