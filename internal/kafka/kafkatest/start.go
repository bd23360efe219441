// Package kafkatest is what tests of Kafka's ends share: a broker in memory, a proxy
// that breaks connections where it is told to, and an independent reader.
//
//	f := kafkatest.Start(t, kfake.SeedTopics(4, "out"))
//	p := kafkatest.NewProxy(t)
//	c, err := kafka.Open(ctx, kafka.Config{Brokers: f.ListenAddrs(), Dial: p.Dial})
//	...
//	records := kafkatest.Oracle(t, f.ListenAddrs(), "out", true)
//
// The thing people get wrong is who judges: never let our reader judge our writer.
// Only tests import this package.
package kafkatest

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Start starts three brokers in memory, which end with the test. Opts are applied
// after that number.
func Start(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	f, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}
