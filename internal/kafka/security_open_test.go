package kafka_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/elbo-stream/elbo/internal/kafka"
)

// F20, through the door that everybody uses: the settings that are wrong end Open
// within five seconds and say what to do.
func TestOpenSecured(t *testing.T) {
	f, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(2, "t"), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "user", "word"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	password := filepath.Join(t.TempDir(), "password")
	put := func(text string) {
		if err := os.WriteFile(password, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	right := kafka.Security{Mechanism: "SCRAM-SHA-512", User: "user", PasswordFile: password}
	var dial time.Duration
	open := func(s kafka.Security) error {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c, err := kafka.Open(ctx, kafka.Config{Brokers: f.ListenAddrs(), Security: s, DialTimeout: dial})
		if err != nil {
			return err
		}
		defer c.Close()
		for p := range int32(2) { // both brokers
			if _, err := c.ListOffsets(ctx, []kafka.TopicPartition{{Topic: "t", Partition: p}}, -1, false); err != nil {
				t.Errorf("ListOffsets of partition %d: %v", p, err)
			}
		}
		return nil
	}
	put("word")
	if err := open(right); err != nil {
		t.Errorf("Open: %v", err)
	}
	wants := func(name string, s kafka.Security, words ...string) error {
		t.Helper()
		err := open(s)
		if err == nil {
			t.Fatalf("%s: Open = nil, want an error", name)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: error %q, want it to have %q", name, err, w)
			}
		}
		return err
	}
	plain := right
	plain.Mechanism = "GSSAPI"
	wants("unknown mechanism", plain, `sasl.mechanism: "GSSAPI" is unknown`)
	wants("no login", kafka.Security{}, "this port may want a login: set sasl.mechanism")
	secured := right
	secured.TLS.Enabled = true
	dial = 500 * time.Millisecond // kfake waits for the rest of what it takes for a long request
	var tlsError *kafka.TLSError
	if err := wants("TLS", secured, "TLS to 127.0.0.1:"); !errors.As(err, &tlsError) {
		t.Errorf("error = %v, want a *TLSError in it", err)
	}
	dial = 0
	put("geheim")
	if err := wants("password", right, "with SCRAM-SHA-512", "check sasl.user and sasl.password_file"); strings.Contains(err.Error(), "geheim") {
		t.Errorf("the password is in %v", err)
	}
	if err := os.Remove(password); err != nil {
		t.Fatal(err)
	}
	wants("no file", right, "sasl.password_file: open "+password)
}
