package main

import "fmt"

// chainARM64 is chainAMD64 with post-incremented addresses.
func chainARM64() string {
	t := &text{}
	for i, name := range []string{"acc", "q", "n", "stride", "rows"} {
		t.say("MOVD %s+%d(FP), R%d", name, 8*i, i)
	}
	t.say("LSL $2, R3, R3")
	for _, rows := range []int{8, 7, 6, 5, 4, 3, 2, 1} {
		top, done, add := fmt.Sprintf("rows%d", rows), fmt.Sprintf("done%d", rows), fmt.Sprintf("add%d", rows)
		t.label(top)
		t.say("CMP $%d, R4", rows)
		t.say("BLT %s", done)
		for i := range rows {
			t.say("MOVD R1, R%d", 6+i)
			t.say("ADD R3, R1")
			t.say("FMOVS %d(R0), F%d", 4*i, i)
		}
		t.say("MOVD R2, R5")
		t.label(add)
		for i := range rows {
			t.say("FMOVS.P 4(R%d), F%d", 6+i, 16+i)
			t.say("FADDS F%d, F%d, F%[2]d", 16+i, i)
		}
		t.say("SUB $1, R5")
		t.say("CBNZ R5, %s", add)
		for i := range rows {
			t.say("FMOVS F%d, %d(R0)", i, 4*i)
		}
		t.say("ADD $%d, R0", 4*rows)
		t.say("SUB $%d, R4", rows)
		t.say("JMP %s", top)
		t.label(done)
	}
	t.say("RET")
	return t.String()
}

// squareARM64 transposes the 4x4 floats in V0..V3 to V4..V7.
func (t *text) squareARM64() {
	for _, s := range []string{
		armTRN1.three(16, 0, 1), armTRN2.three(17, 0, 1), armTRN1.three(18, 2, 3), armTRN2.three(19, 2, 3),
		armZIP1D.three(4, 16, 18), armZIP1D.three(5, 17, 19), armZIP2D.three(6, 16, 18), armZIP2D.three(7, 17, 19),
	} {
		t.say("%s", s)
	}
}

// transposeARM64 takes four features at a time through all rows; features beyond
// n are read from a row of zeros.
func transposeARM64() string {
	t := &text{}
	t.say("MOVD dst+0(FP), R0")
	t.say("MOVD src+8(FP), R1")
	t.say("MOVD n+16(FP), R2")
	t.say("ADD $15, R2, R3")
	t.say("LSR $4, R3, R3") // blocks
	t.label("block")
	t.say("MOVD $4, R4") // fours of features in a block
	t.label("four")
	for i := range 4 {
		t.say("MOVD R1, R%d", 8+i)
		t.say("ADD $256, R1")
		t.say("CMP $%d, R2", i)
		t.say("BGT have%d", i)
		t.say("MOVD $vecZeros<>(SB), R%d", 8+i)
		t.label(fmt.Sprintf("have%d", i))
	}
	t.say("SUB $4, R2")
	t.say("MOVD $16, R5") // fours of rows
	t.label("row")
	for i := range 4 {
		t.say("FMOVQ.P 16(R%d), F%d", 8+i, i)
	}
	t.squareARM64()
	for i := range 4 {
		t.say("FMOVQ F%d, %d(R0)", 4+i, 64*i)
	}
	t.say("ADD $256, R0")
	t.say("SUB $1, R5")
	t.say("CBNZ R5, row")
	t.say("SUB $4096-16, R0")
	t.say("SUB $1, R4")
	t.say("CBNZ R4, four")
	t.say("ADD $4096-64, R0")
	t.say("SUB $1, R3")
	t.say("CBNZ R3, block")
	t.say("RET")
	return t.String()
}

// gatherARM64 takes four features of all rows at a time; the last four overlap
// those before when n is no multiple of four.
func gatherARM64() string {
	t := &text{}
	t.say("MOVD dst+0(FP), R0")
	t.say("MOVD n+16(FP), R2")
	t.say("SUB $4, R2") // where the last four begin
	t.say("MOVD $0, R3")
	t.label("four")
	t.say("MOVD rows+8(FP), R1")
	t.say("LSL $8, R3, R4")
	t.say("ADD R0, R4") // the features' lanes
	t.say("LSL $2, R3, R5")
	t.say("MOVD $16, R6")
	t.label("rows")
	for i := range 4 {
		t.say("MOVD.P 8(R1), R%d", 8+i)
		t.say("ADD R5, R%d", 8+i)
		t.say("PRFM 256(R%d), PLDL1KEEP", 8+i)
		t.say("FMOVQ (R%d), F%d", 8+i, i)
	}
	t.squareARM64()
	for i := range 4 {
		t.say("FMOVQ F%d, %d(R4)", 4+i, 256*i)
	}
	t.say("ADD $16, R4")
	t.say("SUB $1, R6")
	t.say("CBNZ R6, rows")
	t.say("CMP R2, R3")
	t.say("BEQ done")
	t.say("ADD $4, R3")
	t.say("CMP R2, R3")
	t.say("BLE four")
	t.say("MOVD R2, R3")
	t.say("JMP four")
	t.label("done")
	t.say("RET")
	return t.String()
}
