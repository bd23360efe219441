package kafka_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/elbo-stream/elbo/internal/e2e/child"
)

// size picks a test's size: quick, that of .ci/run (ELBO_TEST_FULL=1), or that of the
// design (ELBO_LONG=1).
func size[T any](quick, full, long T) T {
	switch {
	case os.Getenv("ELBO_TEST_FULL") == "1":
		return full
	case os.Getenv("ELBO_LONG") == "1":
		return long
	}
	return quick
}

// program builds elbo.
func program(t testing.TB) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "elbo")
	cmd := exec.Command("go", "build", "-o", out, "github.com/elbo-stream/elbo/cmd/elbo")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, b)
	}
	return out
}

const fleetConfig = `
source:
  kafka: {brokers: [%s], topics: [in], group: g, instance_id: "%s", session_timeout: 1500ms, rebalance_timeout: 3s,
          value: {format: json, columns: [id int64, x float64]}}
sinks:
  - %s
delivery: %s
`

// A fleet is several elbo processes of one group, which copy topic in.
type fleet struct {
	t        testing.TB
	bin, dir string
	brokers  []string
	sink     string // of the configuration
	delivery string
	dynamic  bool // but for process 0, members have no instance id, and leave when they end
	window   int  // rows that may be there twice
	ps       []*child.Process
}

// newFleet copies to topic out.
func newFleet(t testing.TB, brokers []string, delivery string, members int) *fleet {
	t.Helper()
	return newFleetTo(t, brokers, "kafka: {brokers: ["+strings.Join(brokers, ", ")+"], topic: out, value: json, columns: [id], commit: {interval: 20ms, rows: 1000}}", delivery, members)
}

func newFleetTo(t testing.TB, brokers []string, sink, delivery string, members int) *fleet {
	t.Helper()
	f := &fleet{t: t, bin: program(t), dir: t.TempDir(), brokers: brokers, sink: sink, delivery: delivery, ps: make([]*child.Process, members)}
	for i := range f.ps {
		f.run(i)
	}
	return f
}

// run starts process i.
func (f *fleet) run(i int) {
	f.t.Helper()
	id := fmt.Sprint("host-", i)
	if f.dynamic && i > 0 {
		id = ""
	}
	file, list := filepath.Join(f.dir, fmt.Sprintf("%d.yaml", i)), strings.Join(f.brokers, ", ")
	if err := os.WriteFile(file, fmt.Appendf(nil, fleetConfig, list, id, f.sink, f.delivery), 0o666); err != nil {
		f.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(f.dir, fmt.Sprintf("%d.log", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	cmd := exec.Command(f.bin, "run", "-q", file)
	cmd.Stderr = log
	p, err := child.Start(cmd)
	if err != nil {
		f.t.Fatal(err)
	}
	f.ps[i] = p
}

// kill kills process i and starts it again.
func (f *fleet) kill(i int) {
	f.t.Helper()
	f.alive(i)
	_ = f.ps[i].End(syscall.SIGKILL, 0)
	f.run(i)
}

// alive complains of a process that ended by itself.
func (f *fleet) alive(i int) {
	f.t.Helper()
	if !f.ps[i].Alive() {
		log, _ := os.ReadFile(filepath.Join(f.dir, fmt.Sprintf("%d.log", i)))
		f.t.Errorf("process %d ended by itself: %v\n%s", i, f.ps[i].Wait(), log[max(0, len(log)-4000):])
	}
}

// end stops all.
func (f *fleet) end() {
	for i, p := range f.ps {
		f.alive(i)
		_ = p.End(syscall.SIGTERM, 20*time.Second)
	}
}

// feed writes rows over a time, so that there is something to interrupt. The caller
// waits for it.
func feed(t testing.TB, brokers []string, rows int, over time.Duration) *sync.WaitGroup {
	var writing sync.WaitGroup
	part := max(500, rows/100)
	writing.Go(func() {
		for i := 0; i < rows; i += part {
			produce(t, brokers, "in", i, min(part, rows-i))
			time.Sleep(over / time.Duration(rows/part+1))
		}
	})
	return &writing
}

// settle waits until all rows are there, ends the fleet, and judges what it wrote.
func (f *fleet) settle(rows int, what string) {
	f.t.Helper()
	last := time.Now()
	output(f.t, f.brokers, "out", rows)
	f.t.Logf("all %d rows were there %v after the last of %s", rows, time.Since(last).Round(100*time.Millisecond), what)
	f.end()
	onceBut(f.t, output(f.t, f.brokers, "out", rows), rows, f.window)
}

// TestFrozen is F7: processes stand still for two sessions, so that others take over,
// and then go on as if nothing had been. It happens 4 times, 20 in .ci/run, and 100
// with ELBO_LONG=1. With effectively_once a process that stops between its look at the
// clock and its write may double what it then writes: what is under way, once in a
// freeze (docs/kafka.md).
func TestFrozen(t *testing.T) {
	t.Parallel()
	const members, still = 4, 3 * time.Second
	times := size(4, 20, 100)
	for _, delivery := range []string{"exactly_once", "effectively_once"} {
		t.Run(delivery, func(t *testing.T) {
			t.Parallel()
			rows := 10_000 * times
			_, brokers := startQuick(t)
			f := newFleet(t, brokers, delivery, members)
			if delivery == "effectively_once" {
				f.window = 2000 * times
			}
			writing := feed(t, brokers, rows, time.Duration(times)*still/2)
			rng := rand.New(rand.NewPCG(7, 7))
			var thaw sync.WaitGroup
			free := make(chan int, members)
			for i := range members {
				free <- i
			}
			for range times { // at most half of them at a time
				i := <-free
				time.Sleep(time.Duration(rng.IntN(int(still / 2))))
				f.ps[i].Signal(syscall.SIGSTOP)
				thaw.Go(func() {
					time.Sleep(still)
					f.ps[i].Signal(syscall.SIGCONT)
					f.alive(i)
					free <- i
				})
			}
			thaw.Wait()
			writing.Wait()
			f.settle(rows, fmt.Sprintf("%d times that a process stood still", times))
		})
	}
}
