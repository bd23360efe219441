package kafka

import "github.com/elbo-stream/elbo/internal/kafka"

// Murmur2 is murmur2, for the test that compares it with another client's.
func Murmur2(p []byte) uint32 { return murmur2(p) }

// PlacesText and ParsePlaces are how places become metadata and back.
func PlacesText(p map[kafka.TopicPartition]int64) string { return places(p).String() }

// ParsePlaces reads what PlacesText gave.
func ParsePlaces(s string) map[kafka.TopicPartition]int64 { return parsePlaces(s) }

// A Done is done.
type Done struct{ d done }

// NewDone returns one of which nothing is done.
func NewDone(raised func()) *Done { return &Done{done{beyond: map[uint64]struct{}{}, raised: raised}} }

// Add and Get are done's.
func (d *Done) Add(n ...uint64) { d.d.add(n...) }

// Get returns the highest number such that it and all before are done.
func (d *Done) Get() uint64 { return d.d.get() }
