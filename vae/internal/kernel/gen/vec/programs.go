package main

var programs = map[string]func(*program){
	"ReLU":  unary(func(p *program, x value) value { return p.max(k(0), x) }),
	"Leaky": unary(func(p *program, x value) value { return p.choose(p.less(x, k(0)), p.times(x, k(0.01)), x) }),
	"ELU":   unary((*program).elu), "GELU": unary((*program).gelu), "SiLU": unary((*program).silu),
	"Tanh": unary((*program).tanh), "Sigmoid": unary((*program).sigmoid), "Softplus": unary((*program).softplus),

	"ReLUBack": backward("x", func(p *program, g, x value) value { return p.choose(p.lessEq(x, k(0)), k(0), g) }),
	"LeakyBack": backward("x", func(p *program, g, x value) value {
		return p.choose(p.less(x, k(0)), p.times(g, k(0.01)), g)
	}),
	"ELUBack":  eluBack,
	"GELUBack": backward("x", geluBack), "SiLUBack": backward("x", siluBack),
	"TanhBack":     backward("y", func(p *program, g, y value) value { return p.times(g, p.fnma(y, y, k(1))) }),
	"SigmoidBack":  backward("y", func(p *program, g, y value) value { return p.times(g, p.times(y, p.minus(k(1), y))) }),
	"SoftplusBack": backward("x", func(p *program, g, x value) value { return p.times(g, p.sigmoid(x)) }),

	"ClampLogVar": clampLogVar, "KL": kl, "Sample": sample, "KLBack": klBack,

	"Adam": adam, "SGD": sgd, "Momentum": momentum(false), "Nesterov": momentum(true),
	"RMSProp": rmsprop(false), "RMSPropMomentum": rmsprop(true),
	"Add": add, "Scale": scale, "SumSquares": sumSquares,

	"GaussSum": sums(gaussTerm, true, false), "GaussSigmoidSum": sums(gaussSigmoidTerm, true, true), "BernSum": sums(bernTerm, false, true),
	"GaussTerms": terms(gaussTerm, true), "BernTerms": terms(bernTerm, false),
	"AddTerms": addTerms, "MaskTerms": maskTerms, "GaussRow": gaussRow, "BernRow": bernRow,
	"CatTerms": catTerms, "CatGrad": catGrad, "SumLanes": sumLanes,
	"GaussGrad": gaussGrad(false), "GaussGradMask": gaussGrad(true), "BernGrad": bernGrad(false), "BernGradMask": bernGrad(true),
	"Pack32": pack32, "Pack64": pack64, "PackRow": packRow,
}

// end writes the return.
func (p *program) end() { p.add(instr{op: opNone}) }

// unary is y = f(x). x is a place in memory, which f may read more than once.
func unary(f func(*program, value) value) func(*program) {
	return func(p *program) {
		p.arg("y", "x", "n")
		p.flat([]string{"y", "x"}, func(off int) { p.store(f(p, at("x", off)), "y", off) })
		p.end()
	}
}

// backward is g = f(g, v), with v read through the pointer of that name. g is a
// place in memory: it is read where it is used, not before.
func backward(v string, f func(p *program, g, v value) value) func(*program) {
	return func(p *program) {
		p.arg("grad", v, "n")
		p.flat([]string{"grad", v}, func(off int) { p.store(f(p, at("grad", off), p.load(v, off)), "grad", off) })
		p.end()
	}
}

func eluBack(p *program) {
	p.arg("grad", "y", "x", "n")
	p.flat([]string{"grad", "y", "x"}, func(off int) {
		g, x := p.load("grad", off), p.load("x", off)
		below := p.times(g, p.plus(at("y", off), k(1)))
		p.store(p.choose(p.less(x, k(0)), below, g), "grad", off)
	})
	p.end()
}

// geluBack multiplies by Phi(x) + x*exp(-x*x/2)/sqrt(2*pi).
func geluBack(p *program, g, x value) value {
	held, e, area := p.phi(x)
	return p.times(g, p.fma(p.times(held, e), k(0.3989422804014327), area))
}

// siluBack multiplies by s*(1 + x*(1-s)), s the sigmoid of x.
func siluBack(p *program, g, x value) value {
	held := p.min(k(-expLow), p.max(k(-expHigh), x))
	s := p.over(k(1), p.plus(p.expNegative(held), k(1)))
	return p.times(g, p.times(s, p.fma(held, p.minus(k(1), s), k(1))))
}

func clampLogVar(p *program) {
	p.arg("lv", "raw", "n")
	p.flat([]string{"lv", "raw"}, func(off int) {
		p.store(p.min(k(6), p.max(k(-12), p.load("raw", off))), "lv", off)
	})
	p.end()
}

func kl(p *program) {
	p.arg("kl", "mu", "lv", "n")
	p.flat([]string{"kl", "mu", "lv"}, func(off int) {
		mu := p.load("mu", off)
		p.store(p.times(p.fma(mu, mu, p.klTerm(p.load("lv", off))), k(0.5)), "kl", off)
	})
	p.end()
}

func sample(p *program) {
	p.arg("z", "sd", "mu", "lv", "noise", "n")
	p.flat([]string{"z", "sd", "mu", "lv", "noise"}, func(off int) {
		half := p.times(p.load("lv", off), k(0.5))
		sd := p.exp(p.min(k(expHigh), p.max(k(expLow), half)))
		p.store(sd, "sd", off)
		p.store(p.plus(p.load("mu", off), p.times(p.load("noise", off), sd)), "z", off)
	})
	p.end()
}

func klBack(p *program) {
	tiles := []string{"dmu", "dlv", "dz", "mu", "lv", "raw", "kl", "noise", "sd"}
	p.arg(append(tiles, "weight", "latents")...)
	beta, half, freeBits := p.scalar("beta"), p.scalar("half"), p.scalar("freeBits")
	p.loop("latents", func() {
		p.reg(opZero, "slice", "", 0)
		p.reg(opAddImm, "slice", "", 4)
		p.loop("slice", func() {
			p.together(p.pieces(), func(i int) { p.klBackPiece(i*p.bytes(), beta, half, freeBits) })
			p.advance(64, append(tiles, "weight")...)
		})
		p.advance(-256, "weight")
	})
	p.end()
}

func (p *program) klBackPiece(off int, beta, half, freeBits value) {
	g, w := p.load("dz", off), p.load("weight", off)
	dv := p.times(p.times(p.times(g, k(0.5)), p.load("noise", off)), p.load("sd", off))
	counts := p.less(freeBits, p.load("kl", off))
	dm := p.choose(counts, p.plus(g, p.times(p.times(w, beta), p.load("mu", off))), g)
	dv = p.choose(counts, p.plus(dv, p.times(w, p.times(half, p.expm1(p.load("lv", off))))), dv)
	raw := p.load("raw", off)
	below := p.maskAnd(p.less(raw, k(-12)), p.less(k(0), dv))
	above := p.maskAnd(p.less(k(6), raw), p.less(dv, k(0)))
	p.store(p.choose(p.maskOr(below, above), k(0), dv), "dlv", off)
	p.store(dm, "dmu", off)
}

func adam(p *program) {
	p.arg("params", "grads", "mean", "square", "n")
	beta1, beta2, rest1, rest2 := p.scalar("beta1"), p.scalar("beta2"), p.scalar("rest1"), p.scalar("rest2")
	rate, root, eps, keep, l2 := p.scalar("rate"), p.scalar("root"), p.scalar("eps"), p.scalar("keep"), p.scalar("l2")
	p.flat([]string{"params", "grads", "mean", "square"}, func(off int) {
		w := p.load("params", off)
		g := p.plus(p.times(l2, w), at("grads", off))
		m := p.plus(p.times(beta1, at("mean", off)), p.times(rest1, g))
		p.store(m, "mean", off)
		v := p.plus(p.times(beta2, at("square", off)), p.times(p.times(rest2, g), g))
		p.store(v, "square", off)
		step := p.over(p.times(rate, m), p.plus(p.times(root, p.sqrt(v)), eps))
		p.store(p.minus(p.times(keep, w), step), "params", off)
	})
	p.end()
}

func sgd(p *program) {
	p.arg("params", "grads", "n")
	rate, decay := p.scalar("rate"), p.scalar("decay")
	p.flat([]string{"params", "grads"}, func(off int) {
		w := p.load("params", off)
		g := p.plus(p.times(decay, w), at("grads", off))
		p.store(p.minus(w, p.times(rate, g)), "params", off)
	})
	p.end()
}

func momentum(nesterov bool) func(*program) {
	return func(p *program) {
		p.arg("params", "grads", "velocity", "n")
		rate, momentum, decay := p.scalar("rate"), p.scalar("momentum"), p.scalar("decay")
		p.flat([]string{"params", "grads", "velocity"}, func(off int) {
			w := p.load("params", off)
			g := p.plus(p.times(decay, w), at("grads", off))
			v := p.plus(p.times(momentum, at("velocity", off)), g)
			p.store(v, "velocity", off)
			step := v
			if nesterov {
				step = p.plus(g, p.times(momentum, v))
			}
			p.store(p.minus(w, p.times(rate, step)), "params", off)
		})
		p.end()
	}
}

func rmsprop(momentum bool) func(*program) {
	return func(p *program) {
		ptrs := []string{"params", "grads", "square"}
		var factor value
		if momentum {
			ptrs = append(ptrs, "velocity")
			factor = p.scalar("momentum")
		}
		p.arg(append(ptrs, "n")...)
		rate, alpha, rest, eps, decay := p.scalar("rate"), p.scalar("alpha"), p.scalar("rest"), p.scalar("eps"), p.scalar("decay")
		p.flat(ptrs, func(off int) {
			w := p.load("params", off)
			g := p.plus(p.times(decay, w), at("grads", off))
			s := p.plus(p.times(alpha, at("square", off)), p.times(p.times(rest, g), g))
			p.store(s, "square", off)
			g = p.over(g, p.plus(p.sqrt(s), eps))
			if momentum {
				g = p.plus(g, p.times(factor, at("velocity", off)))
				p.store(g, "velocity", off)
			}
			p.store(p.minus(w, p.times(rate, g)), "params", off)
		})
		p.end()
	}
}

func add(p *program) {
	p.arg("dst", "src", "n")
	p.flat([]string{"dst", "src"}, func(off int) { p.store(p.plus(p.load("dst", off), at("src", off)), "dst", off) })
	p.end()
}

func scale(p *program) {
	p.arg("dst", "n")
	s := p.scalar("s")
	p.flat([]string{"dst"}, func(off int) { p.store(p.times(s, at("dst", off)), "dst", off) })
	p.end()
}

func sumSquares(p *program) {
	p.arg("v", "n", "total")
	acc := make([]value, 2*p.pieces())
	for i := range acc {
		acc[i] = p.pin(k(0))
	}
	p.reg(opShrImm, "n", "", 4)
	p.loop("n", func() {
		for i, a := range acc {
			x := p.loadAs(opLoadWide, "v", i*p.bytes()/2)
			p.set(a, opAddD, a, p.emit(opMulD, 0, x, x))
		}
		p.advance(64, "v")
	})
	p.add(instr{op: opStoreD1, src: []value{p.fold(acc, opAddD, opHalvesD)}, ptr: "total"})
	p.end()
}
