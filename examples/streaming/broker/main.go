// Command broker is a Kafka broker in memory, for trying elbo's streaming without
// one. It is franz-go's fake broker, which is for tests: it keeps nothing, and it is
// no part of elbo's program.
//
//	go run ./examples/streaming/broker              # localhost:9092, until Ctrl-C
//
// The mistake to avoid is to think that what works here is proven for production:
// elbo's tests run on Apache Kafka too.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

func main() {
	port := flag.Int("port", 9092, "port on localhost")
	topics := flag.String("topics", "payments,scores,alerts,dead", "topics to make, parted by commas")
	partitions := flag.Int("partitions", 4, "partitions of each topic")
	flag.Parse()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(*port), kfake.SeedTopics(int32(*partitions), strings.Split(*topics, ",")...))
	if err != nil {
		fmt.Fprintf(os.Stderr, "broker: %v\n", err)
		os.Exit(1)
	}
	defer c.Close()
	fmt.Printf("a broker in memory listens on %s with the topics %s; Ctrl-C ends it\n", strings.Join(c.ListenAddrs(), ","), *topics)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
}
