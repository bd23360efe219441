package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/elbo-stream/elbo/internal/e2e/bounce"
	"github.com/elbo-stream/elbo/internal/e2e/realkafka"
)

// elboConfig copies the test's messages in transactions of 750 rows.
const elboConfig = `
source:
  kafka:
    brokers: [{brokers}]
    topics: ["{in}"]
    group: "{group}"
    instance_id: "host-{index}"
    session_timeout: 6s
    rebalance_timeout: 10s
    assignment: ASSIGNMENT
    value: {format: json, columns: [id string, n int64, x float64, y float64]}
sinks:
  - kafka: {brokers: [{brokers}], topic: "{out}", value: json, commit: {rows: 750}, transaction: {timeout: 20s}}
delivery: DELIVERY
`

// elbo is the program itself as a copier.
func elbo(t *testing.T, delivery, assignment string) bounce.Copier {
	t.Helper()
	config := strings.NewReplacer("DELIVERY", delivery, "ASSIGNMENT", assignment).Replace(elboConfig)
	return bounce.Copier{Command: []string{build(t, "cmd/elbo"), "run", "{config}"}, Config: config, Drained: 130}
}

// TestKafkaCopyByElbo is F10: elbo copies a topic in transactions of 750 rows while
// it and the brokers are killed, stopped, frozen and started again.
func TestKafkaCopyByElbo(t *testing.T) {
	for _, version := range realkafka.Versions(t) {
		for _, name := range []string{"all", "frozen copiers", "hard brokers"} {
			t.Run("version="+version+"/"+name, func(t *testing.T) {
				bounceCopy(t, version, 3, elbo(t, "exactly_once", "range"), faults()[name])
			})
		}
		t.Run("version="+version+"/cooperative", func(t *testing.T) {
			bounceCopy(t, version, 3, elbo(t, "exactly_once", "cooperative-sticky"), faults()["copiers"])
		})
		t.Run("version="+version+"/effectively once", func(t *testing.T) {
			plan := faults()["copiers"]
			plan.Kill = 2 * time.Second
			bounceCopy(t, version, 3, elbo(t, "effectively_once", "range"), plan)
		})
		t.Run("version="+version+"/effectively once and hard brokers", func(t *testing.T) {
			if testing.Short() {
				t.Skip("SKIPPED: effectively_once while brokers are killed (-short)")
			}
			bounceCopy(t, version, 3, elbo(t, "effectively_once", "range"), faults()["hard brokers"])
		})
	}
}
