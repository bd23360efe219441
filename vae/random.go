package vae

import "math"

// Counter-based random numbers: each is a pure function of its key, so that no
// order of work changes them. The mixer is SplitMix64's (Steele, Lea and Flood
// 2014).

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

const golden64 = 0x9e3779b97f4a7c15

// stir takes one more word into a key.
func stir(key, word uint64) uint64 { return mix((key ^ word) + golden64) }

// uniform maps a key to (0, 1).
func uniform(key uint64) float64 { return (float64(key>>11) + 0.5) / (1 << 53) }

// normal maps a key to a standard normal number (Box and Muller 1958).
func normal(key uint64) float64 {
	u, v := uniform(mix(key+golden64)), uniform(mix(mix(key)+golden64))
	return math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)
}
