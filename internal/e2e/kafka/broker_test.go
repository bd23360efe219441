package kafka_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/elbo-stream/elbo/internal/e2e/child"
)

// brokerEnv makes this binary a broker until the parent is gone: "bench" is one
// broker in memory for benchmarks, "disk PORT DIR" three from PORT on that keep
// everything in DIR, synced, and take short sessions. SIGTERM ends it in good order.
const brokerEnv = "ELBO_TEST_BROKER"

// TestMain becomes the broker when it is told to.
func TestMain(m *testing.M) {
	what := os.Getenv(brokerEnv)
	if what == "" {
		os.Exit(m.Run())
	}
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(4, "json", "avro", "arrow", "out", "live", "live-out")}
	var port int
	var dir string
	if n, _ := fmt.Sscanf(what, "disk %d %s", &port, &dir); n == 2 {
		opts = []kfake.Opt{kfake.Ports(port, port+1, port+2), kfake.DataDir(dir), kfake.SyncWrites(), kfake.GroupMinSessionTimeout(time.Second),
			kfake.SeedTopics(8, "in"), kfake.SeedTopics(4, "out")}
	}
	f, err := kfake.NewCluster(opts...)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		f.Close()
		os.Exit(0)
	}()
	fmt.Println(strings.Join(f.ListenAddrs(), ","))
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
}

// startBroker starts a broker process and returns its addresses.
func startBroker(what string) (*child.Process, []string, error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), brokerEnv+"="+what)
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	p, err := child.Start(cmd)
	if err != nil {
		return nil, nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line = strings.TrimSpace(line); err == nil && strings.HasPrefix(line, "error") {
		err = errors.New(line)
	}
	return p, strings.Split(line, ","), err
}

// freePorts returns the first of three ports in a row that nobody has.
func freePorts(t testing.TB) int {
	t.Helper()
	for range 100 {
		first, ok := 20_000+rand.IntN(20_000), true
		for i := range 3 {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+i))
			if ok = ok && err == nil; err == nil {
				_ = l.Close()
			}
		}
		if ok {
			return first
		}
	}
	t.Fatal("no three free ports in a row")
	return 0
}

// TestBrokerRestarts is F9: all brokers stop and start again, 3 times, 15 in .ci/run,
// and 50 with ELBO_LONG=1, while two processes copy. They stop in good order: a kfake
// that is killed forgets which sequences it has seen and what offsets a transaction
// holds, and so doubles rows by itself. Kills of brokers are for Kafka (F10).
func TestBrokerRestarts(t *testing.T) {
	t.Parallel()
	times := size(3, 15, 50)
	for _, delivery := range []string{"exactly_once", "effectively_once"} {
		t.Run(delivery, func(t *testing.T) {
			t.Parallel()
			rows := 10_000 * times
			what := fmt.Sprintf("disk %d %s", freePorts(t), t.TempDir())
			broker, brokers, err := startBroker(what)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = broker.End(syscall.SIGKILL, 0) }()
			f := newFleet(t, brokers, delivery, 2)
			writing := feed(t, brokers, rows, time.Duration(times)*time.Second)
			for range times {
				time.Sleep(time.Duration(500+rand.IntN(1000)) * time.Millisecond)
				_ = broker.End(syscall.SIGTERM, 20*time.Second)
				time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
				if broker, _, err = startBroker(what); err != nil {
					t.Fatal(err)
				}
			}
			writing.Wait()
			f.settle(rows, fmt.Sprintf("%d restarts of all brokers", times))
		})
	}
}
