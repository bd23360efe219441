package realkafka_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/elbo-stream/elbo/internal/e2e/realkafka"
)

// resident returns a node's resident memory in MiB, 0 where the system does not say.
func resident(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	kib := 0
	fmt.Sscan(after, &kib)
	return kib / 1024
}

func TestNodesComeAndGo(t *testing.T) {
	for _, version := range realkafka.Versions(t) {
		for _, nodes := range []int{1, 3} {
			t.Run(fmt.Sprintf("version=%s/nodes=%d", version, nodes), func(t *testing.T) {
				began := time.Now()
				c := realkafka.Start(t, realkafka.Options{Version: version, Nodes: nodes})
				t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))
				ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
				defer cancel()
				if err := c.CreateTopic(ctx, "t", 3, nil); err != nil {
					t.Fatal(err)
				}
				for name, end := range map[string]func(int) error{"stop": c.Stop, "kill": c.Kill} {
					before := c.Pid(nodes)
					began = time.Now()
					if err := end(nodes); err != nil {
						t.Fatal(err)
					}
					gone := time.Since(began)
					if pid := c.Pid(nodes); pid != 0 || before == 0 {
						t.Errorf("%s: process %d before, %d after, want none after", name, before, pid)
					}
					began = time.Now()
					if err := c.Restart(nodes); err != nil {
						t.Fatal(err)
					}
					if err := c.Ready(ctx); err != nil {
						t.Fatal(err)
					}
					if err := c.InSync(ctx); err != nil {
						t.Fatal(err)
					}
					t.Logf("%s: gone after %v, back in sync after %v more", name, gone.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
				}
				for id := 1; id <= nodes; id++ {
					t.Logf("node %d: %d MiB resident", id, resident(c.Pid(id)))
				}
			})
		}
	}
}
