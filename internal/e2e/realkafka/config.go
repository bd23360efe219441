package realkafka

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// properties returns a node's server.properties. Time-outs are shorter than
// Kafka's own, so that a test sees a dead node's leaders move within seconds, and
// few internal partitions keep the start short.
func (c *Cluster) properties(n *node) string {
	replicas, minISR := 1, 1
	if len(c.nodes) >= 3 {
		replicas, minISR = 3, 2
	}
	var voters []string
	for _, o := range c.nodes {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", o.id, o.controllerPort))
	}
	p := map[string]string{
		"process.roles":                            "broker,controller",
		"node.id":                                  strconv.Itoa(n.id),
		"controller.quorum.voters":                 strings.Join(voters, ","),
		"listeners":                                fmt.Sprintf("PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", n.port, n.controllerPort),
		"advertised.listeners":                     fmt.Sprintf("PLAINTEXT://127.0.0.1:%d", n.port),
		"inter.broker.listener.name":               "PLAINTEXT",
		"controller.listener.names":                "CONTROLLER",
		"listener.security.protocol.map":           "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
		"log.dirs":                                 filepath.Join(n.dir, "data"),
		"default.replication.factor":               strconv.Itoa(replicas),
		"min.insync.replicas":                      strconv.Itoa(minISR),
		"offsets.topic.replication.factor":         strconv.Itoa(replicas),
		"offsets.topic.num.partitions":             "4",
		"transaction.state.log.replication.factor": strconv.Itoa(replicas),
		"transaction.state.log.min.isr":            strconv.Itoa(minISR),
		"transaction.state.log.num.partitions":     "4",
		"auto.create.topics.enable":                "false",
		"group.initial.rebalance.delay.ms":         "0",
		"group.min.session.timeout.ms":             "500",
		"broker.heartbeat.interval.ms":             "300",
		"broker.session.timeout.ms":                "2000",
		"replica.lag.time.max.ms":                  "5000",
		// Kafka looks for transactions that ran out every 10 s.
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
		"log.retention.ms":               "-1",      // tests write old times
		"log.cleaner.dedupe.buffer.size": "4194304", // else 128 MiB of heap
		"log.index.size.max.bytes":       "1048576",
		"num.network.threads":            "2",
		"num.io.threads":                 "4",
	}
	if strings.HasPrefix(c.options.Version, "4.") {
		p["share.coordinator.state.topic.replication.factor"] = strconv.Itoa(replicas)
		p["share.coordinator.state.topic.min.isr"] = strconv.Itoa(minISR)
	}
	maps.Copy(p, c.options.Config)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", k, p[k])
	}
	return b.String()
}

// The logs of both backends: warnings and errors, to stderr. What replicas and
// clients say while a node is away is left out.
const (
	reload4j = `log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.target=System.err
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{HH:mm:ss.SSS} %p %c{1}: %m%n
log4j.logger.kafka.server.KafkaRaftServer=INFO
log4j.logger.kafka.server.ReplicaFetcherThread=ERROR
log4j.logger.org.apache.kafka.clients.NetworkClient=ERROR
`
	log4j2 = `status = error
appender.out.type = Console
appender.out.name = out
appender.out.target = SYSTEM_ERR
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.raft.name = kafka.server.KafkaRaftServer
logger.raft.level = info
logger.replica.name = kafka.server.ReplicaFetcherThread
logger.replica.level = error
logger.client.name = org.apache.kafka.clients.NetworkClient
logger.client.level = error
`
)

// logging returns the name and text of the log configuration, and the flag that
// tells java of it, given the file's path.
func logging(version string) (name, text, flag string) {
	if strings.HasPrefix(version, "3.") {
		return "log4j.properties", reload4j, "-Dlog4j.configuration=file:"
	}
	return "log4j2.properties", log4j2, "-Dlog4j2.configurationFile=file:"
}

// newClusterID returns a random id in Kafka's own form, 16 bytes in base64 without
// a minus sign at its head.
func newClusterID() string {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f // 'A' to 'f'
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// freePorts returns n ports that nobody listens on. They lie below those that
// kernels hand out by themselves, so that a port stays free while its node is down.
func freePorts(n int) (ports []int, err error) {
	const low, high, tries = 12000, 30000, 1000
	for range tries {
		if len(ports) == n {
			return ports, nil
		}
		port := low + mrand.IntN(high-low)
		if slices.Contains(ports, port) {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			ports = append(ports, port)
		}
	}
	return nil, fmt.Errorf("no %d free ports between %d and %d", n, low, high)
}
