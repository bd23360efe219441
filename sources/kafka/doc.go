// Package kafka reads the messages of Kafka topics as a member of a consumer
// group, or alone.
//
//	src, err := kafka.New(kafka.Config{
//		Cluster: client, Topics: []string{"payments"}, Group: "elbo", Format: format,
//	})
//
// A batch holds messages of one partition, undecoded: the engine decodes them in
// its workers (pipeline.Messages), and a message that cannot be read becomes a
// dead letter with its bytes. The partition of a mark is topic/partition, Next an
// offset, and Epoch the assignment.
//
// The mistake to avoid is to take the group's offset for the place where a run
// begins: sinks that own their position decide first (pipeline.Assigner).
package kafka
