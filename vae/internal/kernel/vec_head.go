package kernel

import "math"

// checkHead panics unless y and x are tiles of features, and slices fits a tile.
func checkHead(y, x []float32, features, slices int) {
	must(len(y) == features*Rows && len(x) == len(y), "head of lengths that do not fit")
	must(slices >= 1 && slices <= Rows/Lanes, "slices of a tile out of range")
}

// vecGaussSum adds the squared errors w[j]*d*d, d = y-x, of the first slices of a
// tile to err (Rows lanes), features ascending: first w*d, then times d, then the
// sum, each rounded. vecGaussTerms and vecAddTerms give the same bits.
func vecGaussSum(l Level, err, y, x, w []float32, slices int) {
	checkHead(y, x, len(w), slices)
	must(len(err) == Rows, "len(err) is not Rows")
	if len(w) == 0 || nativeGaussSum(l, &err[0], &y[0], &x[0], &w[0], len(w), slices) {
		return
	}
	for j, w := range w {
		for r := range slices * Lanes {
			d := y[j*Rows+r] - x[j*Rows+r]
			err[r] += float32(float32(w*d) * d)
		}
	}
}

// vecGaussSigmoidSum is vecGaussSum with sigmoid(y) in the place of y.
func vecGaussSigmoidSum(l Level, err, y, x, w []float32, slices int) {
	checkHead(y, x, len(w), slices)
	must(len(err) == Rows, "len(err) is not Rows")
	if len(w) == 0 || nativeGaussSigmoidSum(l, &err[0], &y[0], &x[0], &w[0], len(w), slices) {
		return
	}
	for j, w := range w {
		for r := range slices * Lanes {
			d := float32(sigmoid(float64(y[j*Rows+r]))) - x[j*Rows+r]
			err[r] += float32(float32(w*d) * d)
		}
	}
}

// bernTerm is the negative log-likelihood of target v under logit z, in nats.
func bernTerm(z, v float32) float32 {
	return max(z, 0) - float32(v*z) + float32(math.Log1p(math.Exp(-math.Abs(float64(z)))))
}

// vecBernSum adds the negative log-likelihoods of the targets x under the logits
// y to err (Rows lanes), features ascending, in nats. smooth moves that share of
// a target's mass to both values. vecBernTerms and vecAddTerms give the same bits.
func vecBernSum(l Level, err, y, x []float32, slices int, smooth float32) {
	n := len(y) / Rows
	checkHead(y, x, n, slices)
	must(len(err) == Rows, "len(err) is not Rows")
	if n == 0 || nativeBernSum(l, &err[0], &y[0], &x[0], n, slices, 1-2*smooth, smooth) {
		return
	}
	for j := range n {
		for r := range slices * Lanes {
			err[r] += bernTerm(y[j*Rows+r], float32(x[j*Rows+r]*(1-2*smooth))+smooth)
		}
	}
}

// vecGaussTerms writes w[j]*d*d, d = y-x, to t; see vecGaussSum.
func vecGaussTerms(l Level, t, y, x, w []float32, slices int) {
	checkHead(y, x, len(w), slices)
	must(len(t) == len(y), "head of lengths that do not fit")
	if len(w) == 0 || nativeGaussTerms(l, &t[0], &y[0], &x[0], &w[0], len(w), slices) {
		return
	}
	for j, w := range w {
		for i := j * Rows; i < j*Rows+slices*Lanes; i++ {
			d := y[i] - x[i]
			t[i] = float32(w*d) * d
		}
	}
}

// vecBernTerms writes the terms of vecBernSum to t.
func vecBernTerms(l Level, t, y, x []float32, slices int, smooth float32) {
	n := len(y) / Rows
	checkHead(y, x, n, slices)
	must(len(t) == len(y), "head of lengths that do not fit")
	if n == 0 || nativeBernTerms(l, &t[0], &y[0], &x[0], n, slices, 1-2*smooth, smooth) {
		return
	}
	for j := range n {
		for i := j * Rows; i < j*Rows+slices*Lanes; i++ {
			t[i] = bernTerm(y[i], float32(x[i]*(1-2*smooth))+smooth)
		}
	}
}

// vecAddTerms adds the features of t to err (Rows lanes) in ascending order.
func vecAddTerms(l Level, err, t []float32, slices int) {
	n := len(t) / Rows
	checkHead(t, t, n, slices)
	must(len(err) == Rows, "len(err) is not Rows")
	if n == 0 || nativeAddTerms(l, &err[0], &t[0], n, slices) {
		return
	}
	for j := range n {
		for r := range slices * Lanes {
			err[r] += t[j*Rows+r]
		}
	}
}

// vecMaskTerms makes t[j] = mask[j] * (t[j] + c[j]) of every feature.
func vecMaskTerms(l Level, t, mask, c []float32, slices int) {
	checkHead(t, mask, len(c), slices)
	if len(c) == 0 || nativeMaskTerms(l, &t[0], &mask[0], &c[0], len(c), slices) {
		return
	}
	for j, c := range c {
		for i := j * Rows; i < j*Rows+slices*Lanes; i++ {
			t[i] = mask[i] * (t[i] + c)
		}
	}
}

// vecGaussRow writes w*d*d, d = y-x, of one row with the features in the lanes
// to q: the bits of vecGaussTerms. The length is a multiple of Lanes.
func vecGaussRow(l Level, q, y, x, w []float32) {
	n := len(q)
	must(len(y) == n && len(x) == n && len(w) == n && n%Lanes == 0, "row of lengths that do not fit")
	if n == 0 || nativeGaussRow(l, &q[0], &y[0], &x[0], &w[0], n) {
		return
	}
	for i := range q {
		d := y[i] - x[i]
		q[i] = float32(w[i]*d) * d
	}
}

// vecBernRow writes the Bernoulli terms of one row with the features in the
// lanes to q: the bits of vecBernTerms. The length is a multiple of Lanes.
func vecBernRow(l Level, q, y, x []float32, smooth float32) {
	n := len(q)
	must(len(y) == n && len(x) == n && n%Lanes == 0, "row of lengths that do not fit")
	if n == 0 || nativeBernRow(l, &q[0], &y[0], &x[0], n, 1-2*smooth, smooth) {
		return
	}
	for i := range q {
		q[i] = bernTerm(y[i], float32(x[i]*(1-2*smooth))+smooth)
	}
}

// vecChain adds, for each row i of acc, the n elements that start at q[i*stride]
// to acc[i], one after the other in ascending order: the bits of vecAddTerms.
func vecChain(l Level, acc, q []float32, n, stride int) {
	must(n >= 0 && stride >= n && (len(acc) == 0 || (len(acc)-1)*stride+n <= len(q)), "rows do not fit")
	if n == 0 || len(acc) == 0 || nativeChain(l, &acc[0], &q[0], n, stride, len(acc)) {
		return
	}
	for i := range acc {
		for _, v := range q[i*stride : i*stride+n] {
			acc[i] += v
		}
	}
}

// vecCatTerms writes the negative log-likelihoods of one categorical block, in
// nats, to t (Rows lanes): logits y and targets x are tiles of its outputs.
// smooth moves that share of a target's mass to the last output.
func vecCatTerms(l Level, t, y, x []float32, slices int, smooth float32) {
	n := len(y) / Rows
	checkHead(y, x, n, slices)
	must(len(t) == Rows, "len(t) is not Rows")
	if n == 0 {
		clear(t[:slices*Lanes])
		return
	}
	if nativeCatTerms(l, &t[0], &y[0], &x[0], n, slices, smooth) {
		return
	}
	for r := range slices * Lanes {
		top := catTop(y, r, n)
		var total float64
		var picked float32
		for j := range n {
			z := y[j*Rows+r]
			total += math.Exp(float64(z - top))
			picked += float32(x[j*Rows+r] * z)
		}
		if smooth > 0 {
			picked += float32(smooth * (y[(n-1)*Rows+r] - picked))
		}
		t[r] = top + float32(math.Log(total)) - picked
	}
}

func catTop(y []float32, r, n int) float32 {
	top := y[r]
	for j := 1; j < n; j++ {
		top = max(top, y[j*Rows+r])
	}
	return top
}

// vecCatGrad writes the gradient of vecCatTerms with respect to y, times the
// lane's weight, to g, a tile of the block's outputs. All Rows lanes are done.
func vecCatGrad(l Level, g, y, x, weight []float32, smooth float32) {
	n := len(y) / Rows
	checkHead(y, x, n, 1)
	must(len(g) == len(y) && len(weight) == Rows, "head of lengths that do not fit")
	if n == 0 || nativeCatGrad(l, &g[0], &y[0], &x[0], &weight[0], n, 1-smooth, smooth) {
		return
	}
	for r, m := range weight {
		top := catTop(y, r, n)
		var total float64
		for j := range n {
			total += math.Exp(float64(y[j*Rows+r] - top))
		}
		for j := range n {
			t := x[j*Rows+r] * (1 - smooth)
			if j == n-1 {
				t += smooth
			}
			g[j*Rows+r] = m * (float32(math.Exp(float64(y[j*Rows+r]-top))/total) - t)
		}
	}
}

// vecGaussGrad writes the gradient of half the terms w[j]*d*d, d = y-x, with
// respect to y to g, a tile: m*w*d, and that of the log standard deviations to
// dls, one per feature: the sum over the lanes of m*(1 - w*d*d). m is the lane's
// weight (Rows lanes), times the cell's mask unless mask is nil. Lane l of the
// sum takes the rows l, l+16, l+32, l+48; foldLanes adds the lanes.
func vecGaussGrad(l Level, g, dls, y, x, mask, weight, w []float32) {
	n := len(w)
	checkHead(y, x, n, 1)
	must(len(g) == len(y) && len(dls) == n && len(weight) == Rows && (mask == nil || len(mask) == len(y)), "head of lengths that do not fit")
	if n == 0 {
		return
	}
	if mask == nil {
		if nativeGaussGrad(l, &g[0], &dls[0], &y[0], &x[0], &weight[0], &w[0], n) {
			return
		}
	} else if nativeGaussGradMask(l, &g[0], &dls[0], &y[0], &x[0], &mask[0], &weight[0], &w[0], n) {
		return
	}
	for j, w := range w {
		var s [Lanes]float32
		for r, m := range weight {
			i := j*Rows + r
			if mask != nil {
				m *= mask[i]
			}
			d := y[i] - x[i]
			g[i] = float32(m*w) * d
			s[r%Lanes] += float32(m * (1 - float32(float32(w*d)*d)))
		}
		dls[j] = foldLanes(&s)
	}
}

// vecBernGrad writes the gradient of vecBernSum with respect to y, times the
// lane's weight (Rows lanes) and, unless mask is nil, the cell's mask, to g, a
// tile.
func vecBernGrad(l Level, g, y, x, mask, weight []float32, smooth float32) {
	n := len(y) / Rows
	checkHead(y, x, n, 1)
	must(len(g) == len(y) && len(weight) == Rows && (mask == nil || len(mask) == len(y)), "head of lengths that do not fit")
	if n == 0 {
		return
	}
	if mask == nil {
		if nativeBernGrad(l, &g[0], &y[0], &x[0], &weight[0], n, 1-2*smooth, smooth) {
			return
		}
	} else if nativeBernGradMask(l, &g[0], &y[0], &x[0], &mask[0], &weight[0], n, 1-2*smooth, smooth) {
		return
	}
	for i := range g {
		m := weight[i%Rows]
		if mask != nil {
			m *= mask[i]
		}
		g[i] = m * (float32(sigmoid(float64(y[i]))) - (float32(x[i]*(1-2*smooth)) + smooth))
	}
}

// vecSumLanes adds the sum of the Rows lanes of each feature of the tile dy to
// db. Lane l of the sum takes the rows l, l+16, l+32, l+48; foldLanes adds the
// lanes.
func vecSumLanes(l Level, db, dy []float32) {
	must(len(dy) == len(db)*Rows, "len(dy) is not features*Rows")
	if len(db) == 0 || nativeSumLanes(l, &db[0], &dy[0], len(db)) {
		return
	}
	for j := range db {
		var s [Lanes]float32
		for r, v := range dy[j*Rows : (j+1)*Rows] {
			s[r%Lanes] += v
		}
		db[j] += foldLanes(&s)
	}
}
