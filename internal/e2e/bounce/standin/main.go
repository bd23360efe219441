// Standin copies a topic in transactions of a few hundred rows until SIGTERM. It
// stands in for elbo in tests of internal/kafka and of the fault driver itself: by
// franz-go's transactions, which are known to be right, or by ours.
//
//	standin -client ours -brokers localhost:9092 -in a -out b -group g -index 0
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// job is what the command line says.
type job struct {
	client, in, out, group, instance string
	brokers                          []string
	rows                             int
	tick                             time.Duration
	session                          time.Duration
	cooperative                      bool
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var j job
	var brokers, index string
	var static bool
	f := flag.NewFlagSet("standin", flag.ContinueOnError)
	f.StringVar(&j.client, "client", "ours", "ours or franz")
	f.StringVar(&brokers, "brokers", "", "addresses, parted by commas")
	f.StringVar(&j.in, "in", "", "topic to read")
	f.StringVar(&j.out, "out", "", "topic to write")
	f.StringVar(&j.group, "group", "standin", "consumer group")
	f.StringVar(&index, "index", "0", "number of this process")
	f.BoolVar(&static, "static", true, "be a static member")
	f.BoolVar(&j.cooperative, "cooperative", false, "keep partitions over rebalances (ours)")
	f.IntVar(&j.rows, "rows", 750, "rows of a transaction")
	f.DurationVar(&j.tick, "tick", 100*time.Millisecond, "longest transaction")
	f.DurationVar(&j.session, "session", 6*time.Second, "session time-out")
	if err := f.Parse(args); err != nil {
		return err
	}
	j.brokers = strings.Split(brokers, ",")
	if static {
		j.instance = "standin-" + index
	}
	switch j.client {
	case "ours":
		return copyByOurs(ctx, j)
	case "franz":
		return copyByFranz(ctx, j, index)
	}
	return errors.New("-client: ours or franz")
}
