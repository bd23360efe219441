// Package kafka writes rows to Kafka topics.
//
//	sink, err := kafka.New(kafka.Config{
//		Cluster: client, Topic: "payments.scores", Encoder: encoder, Delivery: kafka.ExactlyOnce,
//	})
//
// Each partition of the source has a producer of its own, so that the rows of one
// partition stay in order and partitions are written at the same time. With
// ExactlyOnce the rows, the dead letters and the source's offset are one
// transaction; several sinks of a pipeline are joined into one for that (Join).
//
// The mistake to avoid is to read the output without isolation.level=read_committed:
// such a consumer sees aborted rows too.
package kafka
