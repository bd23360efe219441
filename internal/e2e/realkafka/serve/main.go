// Serve runs Apache Kafka for tries by hand, until quit or the end of its input;
// see kafka.sh two folders up.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/elbo-stream/elbo/internal/e2e/realkafka"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var o realkafka.Options
	flag.StringVar(&o.Version, "version", "4.1.1", "version of Kafka")
	flag.IntVar(&o.Nodes, "nodes", 1, "1 or 3")
	flag.IntVar(&o.HeapMiB, "heap", 512, "MiB of each node")
	flag.Parse()
	dir, err := os.MkdirTemp("", "kafka-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := realkafka.Launch(ctx, o, dir)
	if err != nil {
		return err
	}
	defer c.Close()
	began := time.Now()
	if err := c.Ready(ctx); err != nil {
		fmt.Println(c.Logs())
		return err
	}
	fmt.Printf("ready after %v: %s\n", time.Since(began).Round(time.Millisecond), strings.Join(c.Brokers, ","))
	lines := make(chan string)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, ok := <-lines:
			if !ok || line == "quit" {
				return nil
			}
			began := time.Now()
			if err := command(ctx, c, strings.Fields(line)); err != nil {
				fmt.Println(err)
				continue
			}
			fmt.Printf("done in %v\n", time.Since(began).Round(time.Millisecond))
		}
	}
}

// command runs one line.
func command(ctx context.Context, c *realkafka.Cluster, words []string) error {
	word, number := "", 0
	if len(words) > 0 {
		word = words[0]
	}
	if len(words) > 1 {
		number, _ = strconv.Atoi(words[len(words)-1])
	}
	node := map[string]func(int) error{"kill": c.Kill, "stop": c.Stop, "start": func(id int) error {
		if err := c.Restart(id); err != nil {
			return err
		}
		return c.Ready(ctx)
	}}
	switch {
	case node[word] != nil && number >= 1 && number <= c.Nodes():
		return node[word](number)
	case word == "topic" && len(words) == 3 && number > 0:
		return c.CreateTopic(ctx, words[1], number, nil)
	case word == "sync":
		return c.InSync(ctx)
	case word == "logs":
		fmt.Println(c.Logs())
		return nil
	}
	return fmt.Errorf("kill N, stop N, start N (nodes 1 to %d), topic NAME PARTITIONS, sync, logs, quit", c.Nodes())
}
