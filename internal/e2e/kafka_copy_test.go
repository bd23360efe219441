package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/elbo-stream/elbo/internal/e2e/bounce"
	"github.com/elbo-stream/elbo/internal/e2e/oracle"
	"github.com/elbo-stream/elbo/internal/e2e/realkafka"
)

// build builds a program of this module and returns its path.
func build(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", out, module+"/"+pkg)
	cmd.Dir = root(t)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v: %s", pkg, err, b)
	}
	return out
}

// scale returns how many messages a copy has and over what time they are written:
// Kafka's own test has 100,000. -short has a tenth of it, ELBO_LONG=1 ten times it.
func scale() (messages int, spread time.Duration) {
	switch {
	case os.Getenv("ELBO_LONG") == "1":
		return 1_000_000, 10 * time.Minute
	case testing.Short():
		return 10_000, 15 * time.Second
	}
	return 100_000, time.Minute
}

// bounceCopy runs a plan on a new cluster and has the oracles judge it.
func bounceCopy(t *testing.T, version string, nodes int, c bounce.Copier, p bounce.Plan) {
	t.Helper()
	cluster := realkafka.Start(t, realkafka.Options{Version: version, Nodes: nodes})
	p.Messages, p.Spread = scale()
	p.Seed = uint64(time.Now().UnixNano())
	ctx, cancel := context.WithTimeout(t.Context(), 2*p.Spread+5*time.Minute)
	defer cancel()
	result, err := bounce.Run(ctx, cluster, c, p, t.TempDir(), t.Logf)
	t.Logf("seed %d: %v", p.Seed, result)
	if err = errors.Join(err, result.Err()); err != nil {
		t.Fatal(err)
	}
	in, out := bounce.Output()
	want, err := oracle.Read(ctx, cluster.Brokers, in)
	must(t, err)
	got, err := oracle.Kcat(ctx, cluster.Brokers, out)
	if errors.Is(err, oracle.ErrNoKcat) {
		t.Logf("SKIPPED: %v", err)
		return
	}
	must(t, err)
	if err := oracle.Check(want, got, oracle.ByKey).Err(); err != nil {
		t.Errorf("kcat: %v", err)
	}
}

// standin is the test's own copier, by our library or by franz-go's.
func standin(t *testing.T, client string, more ...string) bounce.Copier {
	t.Helper()
	return bounce.Copier{Command: append([]string{build(t, "internal/e2e/bounce/standin"), "-client", client, "-brokers", "{brokers}",
		"-in", "{in}", "-out", "{out}", "-group", "{group}", "-index", "{index}"}, more...)}
}

// faults are the plans of fault test F10, and more: what happens to copiers, and
// to brokers.
func faults() map[string]bounce.Plan {
	return map[string]bounce.Plan{
		"copiers":        {Copiers: 3, Kill: 4 * time.Second, Term: 8 * time.Second},
		"frozen copiers": {Copiers: 2, Freeze: 6 * time.Second, FreezeFor: 13 * time.Second},
		"hard brokers":   {Copiers: 2, Brokers: bounce.Hard},
		"clean brokers":  {Copiers: 2, Brokers: bounce.Clean},
		"all":            {Copiers: 3, Kill: 6 * time.Second, Term: 12 * time.Second, Brokers: bounce.Mixed},
	}
}

// TestKafkaCopyByFranz proves the driver by a copier that is known to be right.
func TestKafkaCopyByFranz(t *testing.T) {
	for _, version := range realkafka.Versions(t) {
		t.Run("version="+version, func(t *testing.T) {
			bounceCopy(t, version, 3, standin(t, "franz"), faults()["all"])
		})
	}
}

// TestKafkaCopyByLibrary is F10 for internal/kafka alone.
func TestKafkaCopyByLibrary(t *testing.T) {
	for _, version := range realkafka.Versions(t) {
		for name, plan := range faults() {
			for _, more := range [][]string{{"-static=true"}, {"-static=false"}, {"-cooperative"}} {
				t.Run(fmt.Sprintf("version=%s/%s/%s", version, name, more[0]), func(t *testing.T) {
					bounceCopy(t, version, 3, standin(t, "ours", more...), plan)
				})
			}
		}
	}
}
