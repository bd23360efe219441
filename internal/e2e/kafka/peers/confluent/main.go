// Command confluent reads a topic with confluent-kafka-go, decodes each value with
// encoding/json, and prints how many messages there were and how many microseconds of
// processor time they took. It is a module of its own: librdkafka needs cgo, which elbo
// does without.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: confluent BROKER TOPIC MESSAGES json|count")
		os.Exit(2)
	}
	want, err := strconv.Atoi(os.Args[3])
	if err == nil {
		err = read(os.Args[1], os.Args[2], want, os.Args[4] == "json")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(broker, topic string, want int, decode bool) error {
	c, err := kafka.NewConsumer(&kafka.ConfigMap{"bootstrap.servers": broker, "group.id": fmt.Sprint("confluent-", os.Getpid()),
		"auto.offset.reset": "earliest", "enable.auto.commit": false, "fetch.min.bytes": 1 << 16, "queued.min.messages": 100_000})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SubscribeTopics([]string{topic}, nil); err != nil {
		return err
	}
	n := 0
	var began int64
	for n < want {
		m, err := c.ReadMessage(20_000_000_000)
		if err != nil {
			return err
		}
		if n == 0 {
			began = cpu()
		}
		if decode {
			var v map[string]any
			if err := json.Unmarshal(m.Value, &v); err != nil {
				return err
			}
		}
		n++
	}
	fmt.Println(n, (cpu()-began)/1000)
	return nil
}

// cpu is the processor time used, in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}
