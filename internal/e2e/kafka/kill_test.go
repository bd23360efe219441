package kafka_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/twmb/franz-go/pkg/kfake"
)

// TestKills is F5 and F8: three processes, of which one is killed every 0.3 s, 20
// times while 100,000 rows pass. ELBO_TEST_FULL=1, as in .ci/run, makes it 100 kills
// and a million rows, ELBO_LONG=1 1,000 and ten million.
func TestKills(t *testing.T) {
	const members, every = 3, 300 * time.Millisecond
	kills, rows := size(20, 100, 1000), size(100_000, 1_000_000, 10_000_000)
	for _, delivery := range []string{"exactly_once", "effectively_once"} {
		t.Run(delivery, func(t *testing.T) {
			_, brokers := startQuick(t)
			f := newFleet(t, brokers, delivery, members)
			writing := feed(t, brokers, rows, time.Duration(kills)*every)
			rng := rand.New(rand.NewPCG(5, 8))
			for range kills {
				time.Sleep(every)
				f.kill(rng.IntN(members))
			}
			writing.Wait()
			f.settle(rows, fmt.Sprintf("%d kills", kills))
		})
	}
}

// TestKillsToParquet is F6: as TestKills, to files. They are read by parquet-go and
// verified by elbo.
func TestKillsToParquet(t *testing.T) {
	const members, every = 3, 300 * time.Millisecond
	kills, rows := size(15, 100, 1000), size(100_000, 1_000_000, 10_000_000)
	_, brokers := startQuick(t)
	dir := filepath.Join(t.TempDir(), "out")
	f := newFleetTo(t, brokers, "parquet: {path: "+dir+", roll: {age: 300ms, rows: 20000}}", "exactly_once", members)
	writing := feed(t, brokers, rows, time.Duration(kills)*every)
	rng := rand.New(rand.NewPCG(6, 8))
	for range kills {
		time.Sleep(every)
		f.kill(rng.IntN(members))
	}
	writing.Wait()
	for last := time.Now(); time.Since(last) < 30*time.Second && len(parquetIDs(t, dir)) < rows; {
		time.Sleep(time.Second)
	}
	f.end()
	seen := map[int64]int{}
	for _, id := range parquetIDs(t, dir) {
		seen[id]++
	}
	twice := 0
	for _, n := range seen {
		twice += n - 1
	}
	if len(seen) != rows || twice > 0 {
		t.Errorf("lost %d of %d rows, doubled %d", rows-len(seen), rows, twice)
	}
	text, err := exec.Command(f.bin, "verify", dir).CombinedOutput()
	t.Logf("%d kills; elbo verify: %s", kills, text)
	if err != nil {
		t.Error(err)
	}
}

// parquetIDs reads column id of all files under a folder.
func parquetIDs(t *testing.T, dir string) (all []int64) {
	t.Helper()
	type row struct {
		ID int64 `parquet:"id"`
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		rows, err := parquet.ReadFile[row](path)
		for _, r := range rows {
			all = append(all, r.ID)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
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
