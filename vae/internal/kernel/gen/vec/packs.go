package main

// held clamps x to -limit..limit and makes it 0 where bad.
func (p *program) held(x, limit, low, bad value) value {
	return p.choose(bad, k(0), p.min(limit, p.max(low, x)))
}

// slicesOf runs body for up to four slices, which it knows by number.
func (p *program) slicesOf(body func(slice int)) {
	end := p.newLabel()
	for s := range 4 {
		body(s)
		p.reg(opAddImm, "slices", "", -1)
		p.jump(opJumpZero, "slices", end, 0)
	}
	p.place(end)
}

func pack32(p *program) {
	p.arg("dst", "src", "ahead", "slices")
	p.reg(opZero, "word", "", 0)
	hi, inv, lo, limit := p.scalar("hi"), p.scalar("inv"), p.scalar("lo"), p.scalar("limit")
	minusLo := p.pin(p.xor(lo, signBit))
	low := p.pin(p.xor(limit, signBit))
	p.release(lo)
	p.slicesOf(func(s int) {
		p.reg(opPrefetchNear, "ahead", "", 64*s)
		for i := range p.pieces() {
			off := 64*s + i*p.bytes()
			v := p.load("src", off)
			bad := p.unordered(p.minus(v, v))
			p.add(instr{op: opMaskBits, src: []value{bad}, ptr: "word", imm: 16*s + i*p.width})
			x := p.fma(p.minus(v, hi), inv, minusLo)
			p.store(p.held(x, limit, low, bad), "dst", off)
		}
	})
	p.arg("bad")
	p.reg(opStoreWord, "bad", "word", 0)
	p.end()
}

func pack64(p *program) {
	p.arg("dst", "src", "slices")
	p.reg(opZero, "word", "", 0)
	mean, inv, limit := p.scalarD("mean"), p.scalarD("inv"), p.scalar("limit")
	low := p.pin(p.xor(limit, signBit))
	p.slicesOf(func(s int) {
		p.reg(opPrefetch, "src", "", 256+128*s)
		p.reg(opPrefetch, "src", "", 256+128*s+64)
		for i := range p.pieces() {
			off := 128*s + 2*i*p.bytes()
			a, b := p.loadAs(opLoadD, "src", off), p.loadAs(opLoadD, "src", off+p.bytes())
			bad := p.unordered(p.emit(opNarrow, 0, p.emit(opSubD, 0, a, a), p.emit(opSubD, 0, b, b)))
			p.add(instr{op: opMaskBits, src: []value{bad}, ptr: "word", imm: 16*s + i*p.width})
			x := p.emit(opMulD, 0, p.emit(opSubD, 0, a, mean), inv)
			y := p.emit(opMulD, 0, p.emit(opSubD, 0, b, mean), inv)
			p.store(p.held(p.emit(opNarrow, 0, x, y), limit, low, bad), "dst", off/2)
		}
	})
	p.arg("bad")
	p.reg(opStoreWord, "bad", "word", 0)
	p.end()
}

func packRow(p *program) {
	p.arg("v", "hi", "inv", "lo", "n")
	p.reg(opZero, "word", "", 0)
	limit := p.scalar("limit")
	low := p.pin(p.xor(limit, signBit))
	p.flat([]string{"v", "hi", "inv", "lo"}, func(off int) {
		v := p.load("v", off)
		bad := p.unordered(p.minus(v, v))
		p.add(instr{op: opMaskBits, src: []value{bad}, ptr: "word"})
		x := p.fma(p.minus(v, at("hi", off)), at("inv", off), p.xor(p.load("lo", off), signBit))
		p.store(p.held(x, limit, low, bad), "v", off)
	})
	p.arg("bad")
	p.reg(opStoreWord, "bad", "word", 0)
	p.end()
}
