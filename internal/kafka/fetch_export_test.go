package kafka

import (
	"bytes"
	"io"
)

// What the tests of package kafka_test need of the inside.

// An AbortedTxn is one of the aborted transactions that a broker names.
type AbortedTxn struct{ Producer, First int64 }

// NewChunk returns a chunk of batches as a broker sends them, asked for from an
// offset on, and what it says of a set's end.
func NewChunk(tp TopicPartition, first int64, set []byte, aborted []AbortedTxn, maxUnpacked int) (*Chunk, error) {
	f := newFetcher(nil, FetchConfig{MaxUnpacked: maxUnpacked})
	next, err := behind(set, first)
	c := &Chunk{TP: tp, First: first, Next: next, f: f, part: &fetchPart{tp: tp}, set: set}
	for _, a := range aborted {
		c.aborted = append(c.aborted, abortedTxn{a.Producer, a.First})
	}
	return c, err
}

// Compress packs as BatchWriter does.
func Compress(codec Compression, src []byte) ([]byte, error) {
	var p Compressors
	return p.appendTo(nil, codec, src)
}

// Decompress unpacks at most limit bytes, behind some that are there.
func Decompress(codec Compression, src []byte, limit int) ([]byte, error) {
	p := decompressors{limit: limit}
	there := []byte("there")
	out, err := p.get().appendTo(there, codec, src)
	if !bytes.HasPrefix(out, there) {
		panic("what was there is gone")
	}
	return out[len(there):], err
}

// A FetchedPart is what an answer says of a partition.
type FetchedPart struct {
	TP      TopicPartition
	Code    int16
	Set     []byte
	Aborted []AbortedTxn
}

// ReadFetch asks for partitions at offset 0 and reads an answer.
func ReadFetch(tps []TopicPartition, answer []byte) ([]FetchedPart, error) {
	r := &fetchRequest{pool: &buffers{}}
	for _, tp := range tps {
		r.asks = append(r.asks, fetchAsk{tp: tp})
	}
	if _, err := r.RawExchange(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(answer), io.Discard}); err != nil {
		return nil, err
	}
	var out []FetchedPart
	for _, p := range r.answer.parts {
		f := FetchedPart{TP: tps[p.ask], Code: int16(p.code), Set: p.set}
		for _, a := range p.aborted {
			f.Aborted = append(f.Aborted, AbortedTxn{a.producer, a.first})
		}
		out = append(out, f)
	}
	return out, nil
}

// FetchRequestBytes writes a request for partitions at offsets.
func FetchRequestBytes(tps []TopicPartition, offset int64, committed bool) []byte {
	r := &fetchRequest{clientID: "me", committed: committed, maxWait: 500e6, minBytes: 2, maxBytes: 3}
	for i, tp := range tps {
		r.asks = append(r.asks, fetchAsk{tp: tp, offset: offset + int64(i), maxBytes: 100 + int32(i)})
	}
	return r.appendTo(nil)
}
