package kafka

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"
)

// saslBroker is kfake with one user of each mechanism that it knows.
func saslBroker(t *testing.T, opts ...kfake.Opt) string {
	return secureBroker(t, append(opts, kfake.EnableSASL(),
		kfake.Superuser(MechanismPlain, "user", "word"),
		kfake.Superuser(MechanismSCRAM256, "user", "word"),
		kfake.Superuser(MechanismSCRAM512, "a=b,c", "pass wörd"))...)
}

func TestPassword(t *testing.T) {
	a := newAuthority(t, "authority")
	dir := t.TempDir()
	encrypted := TLS{Enabled: true, CAFile: putFile(t, dir, "ca.pem", a.pem)}
	plaintext, secured := saslBroker(t), saslBroker(t, kfake.TLS(a.server(nil)))
	for _, c := range []struct{ mechanism, user, password string }{
		{MechanismPlain, "user", "word"},
		{MechanismSCRAM256, "user", "word"},
		{MechanismSCRAM512, "a=b,c", "pass wörd"},
	} {
		t.Run(c.mechanism, func(t *testing.T) {
			s := &Security{Mechanism: c.mechanism, User: c.user, PasswordFile: putFile(t, dir, "password", []byte(c.password+"\n"))}
			_, renew, err := logIn(t, s, "localhost", plaintext)
			if err != nil || !renew.IsZero() {
				t.Errorf("login = %v, %v, want no renewal and no error", renew, err)
			}
			s.TLS = encrypted
			if _, _, err := logIn(t, s, "localhost", secured); err != nil {
				t.Errorf("over TLS: %v", err)
			}
			// kfake closes the connection, as brokers before 1.0 did; that may as well be a
			// broker that goes away, so it is no AuthError.
			putFile(t, dir, "password", []byte("geheim"))
			_, _, err = logIn(t, s, "localhost", secured)
			wantWords(t, err, "authentication to localhost:", " with "+c.mechanism+": the broker closed the connection",
				"if it always does, check sasl.user and sasl.password_file")
			if strings.Contains(err.Error(), "geheim") {
				t.Errorf("the password is in the error: %v", err)
			}
			putFile(t, dir, "password", []byte(c.password))
			if _, _, err := logIn(t, s, "localhost", secured); err != nil {
				t.Errorf("after the file was mended: %v", err)
			}
		})
	}
}

// F20: what a broker says about a wrong password reaches the user, at once and as
// an error that nobody repeats.
func TestRefusals(t *testing.T) {
	refuse := scripted{answer: func(int, []byte) ([]byte, int16, string) {
		return nil, 58, "Authentication failed: Invalid username or password"
	}}
	silent := scripted{answer: func(int, []byte) ([]byte, int16, string) { return nil, 58, "" }}
	t.Setenv("ELBO_TEST_USER", "from env")
	t.Setenv("ELBO_TEST_PASSWORD", "geheim")
	for _, c := range []struct {
		name   string
		broker scripted
		s      Security
		want   string // behind the address
		code   kafkago.Error
	}{
		{"literals", refuse, Security{Mechanism: MechanismPlain, User: "x", Password: NewCredential("geheim")},
			` as user "x" with PLAIN was refused: Authentication failed: Invalid username or password: check sasl.user and sasl.password`, 58},
		{"variables", refuse, Security{Mechanism: MechanismSCRAM256, UserEnv: "ELBO_TEST_USER", PasswordEnv: "ELBO_TEST_PASSWORD"},
			` as user "from env" with SCRAM-SHA-256 was refused: Authentication failed: Invalid username or password: check sasl.user_env and sasl.password_env`, 58},
		{"no reason", silent, Security{Mechanism: MechanismPlain, User: "x", Password: NewCredential("geheim")},
			` as user "x" with PLAIN was refused: SASL Authentication Failed: check sasl.user and sasl.password`, 58},
		{"mechanism", scripted{handshake: 33, mechanisms: []string{"SCRAM-SHA-512", "GSSAPI"}}, Security{Mechanism: MechanismPlain, User: "x", Password: NewCredential("geheim")},
			` with PLAIN was refused: the broker offers GSSAPI, SCRAM-SHA-512: set sasl.mechanism to one of them`, 33},
		{"no mechanism", scripted{handshake: 33}, Security{Mechanism: MechanismPlain, User: "x", Password: NewCredential("geheim")},
			` with PLAIN was refused: the broker offers no mechanism: use the broker's SASL port`, 33},
		{"no login here", scripted{handshake: 34}, Security{Mechanism: MechanismPlain, User: "x", Password: NewCredential("geheim")},
			` with PLAIN was refused: this port asks for no authentication: use the broker's SASL port, or set no sasl.mechanism`, 34},
		{"other code", scripted{handshake: 41}, Security{Mechanism: MechanismPlain, User: "x", Password: NewCredential("geheim")},
			` with PLAIN was refused: Not Controller: check sasl.mechanism`, 41},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := c.broker.start(t)
			_, _, err := logIn(t, &c.s, "localhost", addr)
			a := wantAuth(t, err)
			_, port, _ := net.SplitHostPort(addr)
			if want := "authentication to localhost:" + port + c.want; err.Error() != want {
				t.Errorf("error = %s\nwant    %s", err, want)
			}
			if !errors.Is(a, c.code) {
				t.Errorf("errors.Is(%v, %d) = false, want true", a, c.code)
			}
		})
	}
}

func TestLoginLocalFaults(t *testing.T) {
	addr := scripted{answer: func(int, []byte) ([]byte, int16, string) { return nil, 0, "" }}.start(t)
	_, _, err := logIn(t, &Security{Mechanism: MechanismPlain, User: "x", PasswordFile: "/nowhere/at all"}, "localhost", addr)
	wantWords(t, err, "sasl.password_file: open /nowhere/at all: no such file")
	_, _, err = logIn(t, &Security{Mechanism: MechanismPlain, UserEnv: "ELBO_TEST_UNSET", PasswordFile: "x"}, "localhost", addr)
	wantWords(t, err, "sasl.user_env: the environment variable ELBO_TEST_UNSET is not set")
	_, _, err = logIn(t, &Security{Mechanism: MechanismPlain, User: "a\x00b", Password: NewCredential("geheim")}, "localhost", addr)
	wantWords(t, err, "sasl.user or sasl.password: has a zero byte, which PLAIN cannot carry")
	_, _, err = logIn(t, &Security{Mechanism: MechanismPlain, User: "x", Password: NewCredential("geheim")}, "localhost", scripted{cut: true}.start(t))
	wantWords(t, err, "with PLAIN: the broker closed the connection; if it always does, check that this is the broker's SASL port: unexpected EOF")
}

// Connections leave nothing behind, whether they come about or not.
func TestLoginLeavesNothing(t *testing.T) {
	e := &endpoint{body: `{"access_token":"token-%d","expires_in":3600}`}
	s := e.start(t)
	good, _ := bearer(t, func(string) bool { return true })
	bad, _ := bearer(t, func(string) bool { return false })
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, addr := range []string{good, bad, bad, bad} {
		conn, _, err := dialSecure(t.Context(), s, "localhost", addr)
		if (err == nil) != (addr == good) {
			t.Errorf("login = %v", err)
		}
		conn.Close()
	}
	e.set(401, "{}")
	for range 2 {
		conn, _, err := dialSecure(t.Context(), s, "localhost", good)
		wantAuth(t, err)
		conn.Close()
	}
}

// A broker that says nothing more costs no more than the time that the caller gave.
func TestLoginEndsInTime(t *testing.T) {
	block := make(chan struct{})
	addr := scripted{answer: func(int, []byte) ([]byte, int16, string) { <-block; return nil, 0, "" }}.start(t)
	defer close(block)
	s := &Security{Mechanism: MechanismPlain, User: "x", Password: NewCredential("y")}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, _, err := dialSecure(ctx, s, "localhost", addr)
	wantWords(t, err, "authentication to localhost:", "with PLAIN", "deadline exceeded")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v, want a DeadlineExceeded", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, _, err = dialSecure(ctx, s, "localhost", addr)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want a Canceled", err)
	}
}

// KIP-368: a session that ends is renewed on the same connection.
func TestSessionLifetime(t *testing.T) {
	addr := saslBroker(t, kfake.BrokerConfigs(map[string]string{"connections.max.reauth.ms": "10000"}))
	s := &Security{Mechanism: MechanismSCRAM256, User: "user", Password: NewCredential("word")}
	start := time.Now()
	conn, renew, err := logIn(t, s, "localhost", addr)
	if err != nil {
		t.Fatal(err)
	}
	if life := renew.Sub(start); life < 8500*time.Millisecond || life > 9600*time.Millisecond {
		t.Errorf("renewal after %v, want 85 to 95 %% of 10 s", life)
	}
	for range 3 {
		if renew, err = s.login(t.Context(), conn, "localhost"); err != nil || renew.IsZero() {
			t.Fatalf("renew: %v", err)
		}
		if err := askSomething(conn); err != nil {
			t.Fatalf("after a renewal: %v", err)
		}
	}
	var none Security
	if renew, err := none.login(t.Context(), conn, "localhost"); err != nil || !renew.IsZero() {
		t.Errorf("login without a mechanism = %v, %v, want nothing", renew, err)
	}
}

func TestIsCut(t *testing.T) {
	for err, want := range map[error]bool{io.EOF: true, io.ErrUnexpectedEOF: true, &net.OpError{Op: "read", Err: io.EOF}: true, context.Canceled: false} {
		if got := isCut(err); got != want {
			t.Errorf("isCut(%v) = %v, want %v", err, got, want)
		}
	}
}
