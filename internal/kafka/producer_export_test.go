package kafka

// SetSequence makes a partition's next record have that sequence, for tests.
func SetSequence(p *Producer, tp TopicPartition, sequence int32) { p.part(tp).sequence = sequence }

// Held returns how many bytes of memory the producer's batches have.
func Held(p *Producer) int64 { return p.held.Load() }

// NextSequence is the sequence behind n records.
func NextSequence(sequence int32, n int) int32 { return nextSequence(sequence, n) }

// ProducerIdentity returns the producer's id and epoch.
func ProducerIdentity(p *Producer) (int64, int16) { return p.id, p.epoch }
