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

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/elbo-stream/elbo/internal/e2e/child"
)

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

const killConfig = `
source:
  kafka: {brokers: [%s], topics: [in], group: g, instance_id: host-%d, session_timeout: 1500ms, rebalance_timeout: 3s,
          value: {format: json, columns: [id int64, x float64]}}
sinks:
  - kafka: {brokers: [%s], topic: out, value: json, columns: [id], commit: {interval: 20ms, rows: 1000}}
delivery: %s
`

// TestKills is F5 and F8: three processes, of which one is killed every 0.3 s, 20
// times while 100,000 rows pass. ELBO_TEST_FULL=1, as in .ci/run, makes it 100 kills
// and a million rows, ELBO_LONG=1 1,000 and ten million.
func TestKills(t *testing.T) {
	kills, rows := 20, 100_000
	switch {
	case os.Getenv("ELBO_TEST_FULL") == "1":
		kills, rows = 100, 1_000_000
	case os.Getenv("ELBO_LONG") == "1":
		kills, rows = 1000, 10_000_000
	}
	for _, delivery := range []string{"exactly_once", "effectively_once"} {
		t.Run(delivery, func(t *testing.T) { killed(t, delivery, kills, rows) })
	}
}

func killed(t *testing.T, delivery string, kills, rows int) {
	const members = 3
	_, brokers := start(t, kfake.GroupMinSessionTimeout(time.Second))
	bin, dir := program(t), t.TempDir()
	run := func(i int) *child.Process {
		file := filepath.Join(dir, fmt.Sprintf("%d.yaml", i))
		list := strings.Join(brokers, ", ")
		if err := os.WriteFile(file, fmt.Appendf(nil, killConfig, list, i, list, delivery), 0o666); err != nil {
			t.Fatal(err)
		}
		p, err := child.Start(exec.Command(bin, "run", "-q", file))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var writing sync.WaitGroup
	writing.Go(func() { // all along, so that there is something to interrupt
		const part = 10_000
		pause := time.Duration(kills) * 300 * time.Millisecond / time.Duration(rows/part)
		for i := 0; i < rows; i += part {
			produce(t, brokers, "in", i, part)
			time.Sleep(pause)
		}
	})
	ps := make([]*child.Process, members)
	for i := range ps {
		ps[i] = run(i)
	}
	rng := rand.New(rand.NewPCG(5, 8))
	for range kills {
		time.Sleep(300 * time.Millisecond)
		i := rng.IntN(members)
		select {
		case <-ps[i].Done():
			t.Errorf("process %d ended by itself: %v", i, ps[i].Wait())
		default:
		}
		_ = ps[i].End(syscall.SIGKILL, 0)
		ps[i] = run(i)
	}
	last := time.Now()
	writing.Wait()
	output(t, brokers, "out", rows)
	t.Logf("all rows were there %v after the last of %d kills", time.Since(last).Round(100*time.Millisecond), kills)
	for _, p := range ps {
		_ = p.End(syscall.SIGTERM, 20*time.Second)
	}
	seen := output(t, brokers, "out", rows)
	twice := 0
	for _, n := range seen {
		if n > 1 {
			twice++
		}
	}
	if len(seen) != rows || twice > 0 {
		t.Errorf("%d kills: lost %d rows, doubled %d", kills, rows-len(seen), twice)
	}
}

// TestStreamingExample runs what the README says about Kafka, with a broker of the
// test's own.
func TestStreamingExample(t *testing.T) {
	f, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "payments", "scores", "alerts", "dead"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bin, dir := program(t), t.TempDir()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"run EXAMPLES/normal.yaml",
		"train -i normal.parquet -o payments.elbo --ignore id,time --seed 1",
		"run EXAMPLES/streaming/payments.yaml",
		"run EXAMPLES/streaming/score.yaml --until-end",
		"run EXAMPLES/streaming/score.yaml --until-end",
	} {
		cmd := exec.Command(bin, strings.Fields(strings.ReplaceAll(args, "EXAMPLES", filepath.Join(root, "examples")))...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "BROKERS="+f.ListenAddrs()[0])
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("elbo %s: %v\n%s", args, err, out)
		}
	}
	once(t, output(t, f.ListenAddrs(), "scores", 20_000), 20_000)
	if n := len(output(t, f.ListenAddrs(), "alerts", 1)); n < 100 || n > 300 {
		t.Errorf("%d alerts of 20,000 payments with 200 planted anomalies", n)
	}
}
