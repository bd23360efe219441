package main

// A term computes the cost of one output from what its head needs.
type term func(p *program, y, x value, by []value) value

// gaussTerm is w*d*d, d = y-x, each product rounded; by is w.
func gaussTerm(p *program, y, x value, by []value) value {
	d := p.minus(y, x)
	return p.times(p.times(by[0], d), d)
}

func gaussSigmoidTerm(p *program, y, x value, by []value) value {
	return gaussTerm(p, p.sigmoid(y), x, by)
}

// bernTerm is max(z,0) - x*z + log1p(exp(-|z|)); by is 1-2*smooth and smooth.
func bernTerm(p *program, z, x value, by []value) value {
	log := p.log1pExp(z)
	x = p.plus(p.times(by[0], x), by[1])
	return p.plus(p.minus(p.max(k(0), z), p.times(x, z)), log)
}

// smoothing starts what a head needs: nothing for one with weights, else 1-2*smooth
// and smooth.
func (p *program) smoothing(weights bool) []value {
	if weights {
		return nil
	}
	return []value{p.scalar("keep"), p.scalar("smooth")}
}

// sums adds the terms of every feature to err. The errors stay in registers,
// but for those of a whole tile whose terms need the registers themselves.
func sums(f term, weights, heavy bool) func(*program) {
	return func(p *program) {
		w := walk{tiles: []string{"y", "x"}, lanes: []string{"err"}, count: "features", slices: "slices"}
		if weights {
			w.features = []string{"w"}
		}
		p.arg("err", "y", "x")
		p.arg(w.features...)
		p.arg("features", "slices")
		by := p.smoothing(weights)
		var acc []value
		inMemory := func(pieces int) bool { return heavy && pieces > p.pieces() }
		p.walk(w, true, func(pieces int) {
			if !inMemory(pieces) {
				acc = p.accumulators("err", pieces)
			}
		}, func(pieces int) {
			if weights {
				by = []value{p.feature("w")}
			}
			p.together(pieces, func(i int) {
				off := i * p.bytes()
				q := f(p, at("y", off), at("x", off), by)
				if inMemory(pieces) {
					p.store(p.plus(q, at("err", off)), "err", off)
				} else {
					p.set(acc[i], opAdd, acc[i], q)
				}
			})
			if weights {
				p.release(by...)
			}
		}, func(pieces int) {
			if !inMemory(pieces) {
				p.spill(acc, "err")
			}
		})
		p.end()
	}
}

// feature loads the float32 that belongs to the feature; it is released by the
// caller.
func (p *program) feature(ptr string) value {
	r := p.newReg(vreg{pinned: true})
	p.add(instr{op: opBroadcast, dst: r, ptr: ptr})
	return value{reg: r}
}

func (p *program) accumulators(ptr string, pieces int) (acc []value) {
	for i := range pieces {
		acc = append(acc, p.pin(at(ptr, i*p.bytes())))
	}
	return acc
}

// spill stores and releases accumulators.
func (p *program) spill(acc []value, ptr string) {
	for i, a := range acc {
		p.store(a, ptr, i*p.bytes())
	}
	p.release(acc...)
}

func nothing(int) {}

// terms stores the terms of every feature to t.
func terms(f term, weights bool) func(*program) {
	return func(p *program) {
		w := walk{tiles: []string{"t", "y", "x"}, count: "features", slices: "slices"}
		if weights {
			w.features = []string{"w"}
		}
		p.arg(w.tiles...)
		p.arg(w.features...)
		p.arg("features", "slices")
		by := p.smoothing(weights)
		p.walk(w, true, nothing, func(pieces int) {
			if weights {
				by = []value{p.feature("w")}
			}
			p.together(pieces, func(i int) {
				off := i * p.bytes()
				p.store(f(p, at("y", off), at("x", off), by), "t", off)
			})
			if weights {
				p.release(by...)
			}
		}, nothing)
		p.end()
	}
}

func addTerms(p *program) {
	p.arg("err", "t", "features", "slices")
	var acc []value
	p.walk(walk{tiles: []string{"t"}, lanes: []string{"err"}, count: "features", slices: "slices"}, true,
		func(pieces int) { acc = p.accumulators("err", pieces) },
		func(pieces int) {
			for i := range pieces {
				p.set(acc[i], opAdd, acc[i], at("t", i*p.bytes()))
			}
		},
		func(int) { p.spill(acc, "err") })
	p.end()
}

func maskTerms(p *program) {
	p.arg("t", "mask", "c", "features", "slices")
	p.walk(walk{tiles: []string{"t", "mask"}, features: []string{"c"}, count: "features", slices: "slices"}, true, nothing,
		func(pieces int) {
			c := p.feature("c")
			for i := range pieces {
				off := i * p.bytes()
				p.store(p.times(p.plus(c, at("t", off)), at("mask", off)), "t", off)
			}
			p.release(c)
		}, nothing)
	p.end()
}

func gaussRow(p *program) {
	p.arg("q", "y", "x", "w", "n")
	p.flat([]string{"q", "y", "x", "w"}, func(off int) {
		p.store(gaussTerm(p, p.load("y", off), at("x", off), []value{p.load("w", off)}), "q", off)
	})
	p.end()
}

func bernRow(p *program) {
	p.arg("q", "y", "x", "n")
	by := p.smoothing(false)
	p.flat([]string{"q", "y", "x"}, func(off int) {
		p.store(bernTerm(p, at("y", off), at("x", off), by), "q", off)
	})
	p.end()
}

// A softmax is worked on in slices: pointers go through the features of a slice
// several times.
func (p *program) features(count string, ptrs []string, body func()) {
	p.reg(opCopyReg, "left", count, 0)
	p.loop("left", func() {
		body()
		p.advance(256, ptrs...)
	})
	for _, s := range ptrs {
		p.reg(opSubReg, s, "back", 0)
	}
}

// top is the largest logit of each lane.
func (p *program) top(outputs string) (tops []value) {
	for i := range p.pieces() {
		tops = append(tops, p.pin(at("y", i*p.bytes())))
	}
	p.features(outputs, []string{"y"}, func() {
		for i, t := range tops {
			p.set(t, opMax, t, p.load("y", i*p.bytes()))
		}
	})
	return tops
}

// catExp returns exp(y - top), which is at most 1.
func (p *program) catExp(y, top value) value {
	return p.exp(p.max(k(expLow), p.minus(y, top)))
}

func (p *program) zeros() (acc []value) {
	for range p.pieces() {
		acc = append(acc, p.pin(k(0)))
	}
	return acc
}

func catTerms(p *program) {
	p.arg("t", "y", "x", "outputs", "slices")
	smooth := p.scalar("smooth")
	p.reg(opCopyReg, "back", "outputs", 0)
	p.reg(opShlImm, "back", "", 8)
	p.loop("slices", func() {
		tops, total, picked := p.top("outputs"), p.zeros(), p.zeros()
		p.features("outputs", []string{"y", "x"}, func() {
			p.together(len(tops), func(i int) {
				off := i * p.bytes()
				y := p.load("y", off)
				p.set(picked[i], opAdd, picked[i], p.times(y, at("x", off)))
				p.set(total[i], opAdd, total[i], p.catExp(y, tops[i]))
			})
		})
		p.reg(opAddReg, "y", "back", 0)
		for i := range tops {
			off := i * p.bytes()
			moved := p.plus(picked[i], p.times(smooth, p.minus(p.load("y", off-256), picked[i])))
			pick := p.choose(p.less(k(0), smooth), moved, picked[i])
			p.store(p.minus(p.plus(tops[i], p.log(total[i])), pick), "t", off)
		}
		p.reg(opSubReg, "y", "back", 0)
		p.release(tops...)
		p.release(total...)
		p.release(picked...)
		p.advance(64, "t", "y", "x")
	})
	p.end()
}

func catGrad(p *program) {
	p.arg("grad", "y", "x", "weight", "outputs")
	keep, smooth := p.scalar("keep"), p.scalar("smooth")
	p.reg(opCopyReg, "back", "outputs", 0)
	p.reg(opShlImm, "back", "", 8)
	p.reg(opZero, "slice", "", 0)
	p.advance(4, "slice")
	p.loop("slice", func() {
		tops, total := p.top("outputs"), p.zeros()
		p.features("outputs", []string{"y", "grad"}, func() {
			p.together(len(tops), func(i int) {
				off := i * p.bytes()
				e := p.catExp(p.load("y", off), tops[i])
				p.set(total[i], opAdd, total[i], e)
				p.store(e, "grad", off)
			})
		})
		p.release(tops...)
		last := p.pin(smooth) // what the target gets on top: 0 but for the last output
		p.set(last, opXor, last, last)
		p.reg(opAddImm, "outputs", "", -1)
		p.reg(opCopyReg, "left", "outputs", 0)
		shares := func() {
			for i := range total {
				off := i * p.bytes()
				t := p.plus(p.times(keep, at("x", off)), last)
				g := p.minus(p.over(p.load("grad", off), total[i]), t)
				p.store(p.times(g, at("weight", off)), "grad", off)
			}
		}
		p.loop("left", func() {
			shares()
			p.advance(256, "grad", "x")
		})
		p.set(last, opMove, smooth)
		shares()
		p.release(last)
		p.release(total...)
		p.advance(1, "outputs")
		p.advance(256+64, "grad", "x")
		p.reg(opSubReg, "grad", "back", 0)
		p.reg(opSubReg, "x", "back", 0)
		p.advance(64, "y", "weight")
	})
	p.end()
}

// wholeTiles runs body for each feature and each of the four slices of its tile.
func (p *program) wholeTiles(tiles, features []string, before func(), body func(off, piece int), after func()) {
	p.loop("features", func() {
		before()
		p.together(4*p.pieces(), func(i int) { body(i*p.bytes(), i%p.pieces()) })
		after()
		p.advance(256, tiles...)
		p.advance(4, features...)
	})
}

func sumLanes(p *program) {
	p.arg("db", "dy", "features")
	var s []value
	p.wholeTiles([]string{"dy"}, []string{"db"}, func() { s = nil }, func(off, piece int) {
		if off < 64 {
			s = append(s, p.load("dy", off))
		} else {
			s[piece] = p.plus(s[piece], at("dy", off))
		}
	}, func() {
		sum := p.fold(s, opAdd, opHalves)
		p.add(instr{op: opStore1, src: []value{p.plus(sum, p.loadAs(opBroadcast, "db", 0))}, ptr: "db"})
	})
	p.end()
}

func gaussGrad(mask bool) func(*program) {
	return func(p *program) {
		tiles := []string{"grad", "y", "x"}
		if mask {
			tiles = append(tiles, "mask")
		}
		p.arg(tiles...)
		p.arg("dls", "weight", "w", "features")
		var s []value
		var w value
		p.wholeTiles(tiles, []string{"dls", "w"}, func() { s, w = nil, p.feature("w") }, func(off, piece int) {
			m := p.load("weight", off)
			if mask {
				m = p.times(m, at("mask", off))
			}
			d := p.minus(p.load("y", off), at("x", off))
			p.store(p.times(p.times(m, w), d), "grad", off)
			v := p.times(m, p.minus(k(1), p.times(p.times(w, d), d)))
			if off < 64 {
				s = append(s, v)
			} else {
				s[piece] = p.plus(s[piece], v)
			}
		}, func() {
			p.add(instr{op: opStore1, src: []value{p.fold(s, opAdd, opHalves)}, ptr: "dls"})
			p.release(w)
		})
		p.end()
	}
}

func bernGrad(mask bool) func(*program) {
	return func(p *program) {
		tiles := []string{"grad", "y", "x"}
		if mask {
			tiles = append(tiles, "mask")
		}
		p.arg(tiles...)
		p.arg("weight", "features")
		keep, smooth := p.scalar("keep"), p.scalar("smooth")
		p.wholeTiles(tiles, nil, func() {}, func(off, _ int) {
			m := p.load("weight", off)
			if mask {
				m = p.times(m, at("mask", off))
			}
			d := p.minus(p.sigmoid(p.load("y", off)), p.plus(p.times(keep, at("x", off)), smooth))
			p.store(p.times(m, d), "grad", off)
		}, func() {})
		p.end()
	}
}
