// Package realkafka runs Apache Kafka itself for tests: KRaft mode, one node or
// three, from the jars that Maven Central has, with neither ZooKeeper nor a
// container. Java 17 and mvn must be there; where they are not, tests skip and say so.
//
//	for _, v := range realkafka.Versions(t) {
//		c := realkafka.Start(t, realkafka.Options{Version: v, Nodes: 3})
//		c.CreateTopic(t, "in", 4, nil)
//		c.Kill(t, 2)    // SIGKILL
//		c.Restart(t, 2) // and back, with its data
//	}
//
// The thing people get wrong is to expect these tests from a plain go test ./...:
// they run only with ELBO_TEST_REAL_KAFKA=1 (see Versions), since a cluster costs
// seconds of processor time and about 400 MiB a node.
package realkafka
