package generate

import "math/bits"

// golden is 2^64 divided by the golden ratio, the step of SplitMix64.
const golden = 0x9e3779b97f4a7c15

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable
// pseudorandom number generators, 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// A stream is the SplitMix64 sequence of one row. It is a counter and a mix, so
// that a row's numbers depend on the seed and the row's index alone.
type stream struct{ state uint64 }

// streamOf returns the sequence for a row; purpose tells apart the sequences
// of one row.
func streamOf(seed, row, purpose uint64) stream {
	return stream{mix(mix(seed+golden)+row*golden) ^ mix(purpose*golden)}
}

func (s *stream) next() uint64 {
	s.state += golden
	return mix(s.state)
}

// uniform returns a number in [0, 1) with 53 random bits.
func (s *stream) uniform() float64 { return float64(s.next()>>11) / (1 << 53) }

// below returns a whole number in [0, n).
func (s *stream) below(n int) int {
	hi, _ := bits.Mul64(s.next(), uint64(n))
	return int(hi)
}

// normal returns a number that is close to normal with mean 0 and variance 1:
// the sum of twelve 16-bit uniforms. The sum is a whole number and the division
// is by a power of two, so that every machine gives the same bits, which
// logarithms and cosines do not promise. No value is beyond 6.
func (s *stream) normal() float64 {
	var sum int64
	for range 3 {
		x := s.next()
		sum += int64(x&0xffff) + int64(x>>16&0xffff) + int64(x>>32&0xffff) + int64(x>>48)
	}
	const mean = 12 * 65535 / 2
	return float64(sum-mean) / 65536
}
