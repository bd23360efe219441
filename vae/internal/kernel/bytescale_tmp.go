package kernel

// ByteScale is temporary.
func ByteScale(w []float32) float32 {
	top := float32(0)
	for _, v := range w {
		top = max(top, v, -v)
	}
	if top == 0 {
		return 1
	}
	return 1.7 * top / 127
}
