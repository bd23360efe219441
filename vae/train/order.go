package train

import "math/bits"

// Every random number of a training is a pure function of the seed and of what
// it is for, so that neither workers nor a resumed run change it. The mixer is
// that of SplitMix64 (Steele, Lea and Flood 2014); package math/rand is not
// used, because its sequences may change with the version of Go.

const golden64 = 0x9e3779b97f4a7c15

// Streams of this file; an epoch or a step is added to them. They stay apart
// from the other streams of the package up to 2^40 epochs.
const (
	streamOrder   = 3 << 40
	streamHeldOut = 4 << 40
)

// mix is the finaliser of SplitMix64, a bijection.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// stir takes one more word into a key.
func stir(key, word uint64) uint64 { return mix((key ^ word) + golden64) }

// hash returns the nth number of a stream.
func hash(seed, stream, n uint64) uint64 { return stir(stir(mix(seed+golden64), stream), n) }

// splitMix is a sequence of random numbers; its value is the state.
type splitMix uint64

func (s *splitMix) next() uint64 {
	*s += golden64
	return mix(uint64(*s))
}

// below returns a number in [0, n), each equally likely (Lemire 2019).
func (s *splitMix) below(n uint64) uint64 {
	hi, lo := bits.Mul64(s.next(), n)
	if lo < n {
		for limit := -n % n; lo < limit; {
			hi, lo = bits.Mul64(s.next(), n)
		}
	}
	return hi
}

// Permutation returns the order in which an epoch visits n rows: a shuffle of
// 0 to n-1 (Fisher and Yates) that depends on seed and epoch alone, on every
// machine. It panics when n is negative or does not fit in 32 bits.
func Permutation(seed, epoch uint64, n int) []uint32 {
	if n < 0 || uint64(n) > 1<<32 {
		panic("train: permutation of a number of rows beyond 32 bits")
	}
	p := make([]uint32, n)
	for i := range p {
		p[i] = uint32(i)
	}
	s := splitMix(hash(seed, streamOrder+epoch, 0))
	for i := n - 1; i > 0; i-- {
		j := s.below(uint64(i) + 1)
		p[i], p[j] = p[j], p[i]
	}
	return p
}

// HeldOut says whether a row is held out of training: a hash of its position in
// the table falls below share. A share of 0 holds out nothing, 1 everything,
// and a larger share holds out what a smaller one does and more.
func HeldOut(seed uint64, row int64, share float64) bool {
	return float64(hash(seed, streamHeldOut, uint64(row))>>11)/(1<<53) < share
}
