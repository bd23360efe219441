//go:build linux

package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// realBroker is one node of Apache Kafka with a listener of each kind.
type realBroker struct {
	dir string
	ca  *authority
	// Addresses: TLS with a login, TLS with a client certificate, plaintext with a
	// login by PLAIN, and plaintext.
	secure, mutual, clear, open string
}

// startReal runs Kafka from the jars in ELBO_TEST_KAFKA_LIBS until the test ends.
func startReal(t *testing.T) *realBroker {
	libs := os.Getenv("ELBO_TEST_KAFKA_LIBS")
	if libs == "" {
		t.Skip("SKIPPED: TLS and SASL with Apache Kafka itself: ELBO_TEST_KAFKA_LIBS names no folder with its jars")
	}
	b := &realBroker{dir: t.TempDir(), ca: newAuthority(t, "real authority")}
	var ports [5]string
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
		l.Close()
	}
	b.secure, b.mutual, b.clear, b.open = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1], "127.0.0.1:"+ports[2], "127.0.0.1:"+ports[3]
	config := putFile(t, b.dir, "server.properties", []byte(b.properties(t, ports)))
	logging := putFile(t, b.dir, "log4j.properties", []byte("log4j.rootLogger=WARN, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\nlog4j.appender.out.layout=org.apache.log4j.PatternLayout\nlog4j.appender.out.layout.ConversionPattern=%d{HH:mm:ss.SSS} %p %c{1}: %m%n\n"))
	java := func(class string, args ...string) *exec.Cmd {
		cmd := exec.Command("java", append([]string{"-Xmx384M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j.configuration=file:" + logging, "-cp", filepath.Join(libs, "*"), class}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	out, err := java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", config,
		"--add-scram", "SCRAM-SHA-256=[name=bob,password=bob-secret]", "--add-scram", "SCRAM-SHA-512=[name=carol,password=carol-secret]").CombinedOutput()
	if err != nil {
		t.Fatalf("format: %v: %s", err, out)
	}
	runServer(t, java("kafka.Kafka", config), filepath.Join(b.dir, "log"))
	b.await(t)
	return b
}

// runServer starts a command and ends it with the test. The goroutine keeps its
// thread, since the kernel takes the thread for the parent (Pdeathsig).
func runServer(t *testing.T, cmd *exec.Cmd, log string) {
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = f, f
	started, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		defer f.Close()
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		if b, _ := os.ReadFile(log); t.Failed() {
			t.Logf("Kafka's log:\n%s", b[max(0, len(b)-6000):])
		}
	})
}

func (b *realBroker) properties(t *testing.T, ports [5]string) string {
	cert, key := b.ca.issue(nil, "localhost", "127.0.0.1")
	ca := putFile(t, b.dir, "ca.pem", b.ca.pem)
	store := putFile(t, b.dir, "store.pem", append(key, cert...))
	const login = "org.apache.kafka.common.security."
	return strings.NewReplacer("{SECURE}", ports[0], "{MUTUAL}", ports[1], "{CLEAR}", ports[2], "{OPEN}", ports[3], "{CONTROLLER}", ports[4],
		"{DIR}", b.dir, "{STORE}", store, "{CA}", ca, "{LOGIN}", login).Replace(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{CONTROLLER}
listeners=SECURE://127.0.0.1:{SECURE},MUTUAL://127.0.0.1:{MUTUAL},CLEAR://127.0.0.1:{CLEAR},OPEN://127.0.0.1:{OPEN},CONTROLLER://127.0.0.1:{CONTROLLER}
advertised.listeners=SECURE://127.0.0.1:{SECURE},MUTUAL://127.0.0.1:{MUTUAL},CLEAR://127.0.0.1:{CLEAR},OPEN://127.0.0.1:{OPEN}
listener.security.protocol.map=SECURE:SASL_SSL,MUTUAL:SSL,CLEAR:SASL_PLAINTEXT,OPEN:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=OPEN
controller.listener.names=CONTROLLER
log.dirs={DIR}/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
ssl.keystore.type=PEM
ssl.keystore.location={STORE}
ssl.truststore.type=PEM
ssl.truststore.location={CA}
listener.name.mutual.ssl.client.auth=required
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.secure.plain.sasl.jaas.config={LOGIN}plain.PlainLoginModule required user_alice="alice-secret";
listener.name.secure.scram-sha-256.sasl.jaas.config={LOGIN}scram.ScramLoginModule required;
listener.name.secure.scram-sha-512.sasl.jaas.config={LOGIN}scram.ScramLoginModule required;
listener.name.secure.scram-sha-512.connections.max.reauth.ms=1500
listener.name.secure.oauthbearer.sasl.jaas.config={LOGIN}oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.clear.sasl.enabled.mechanisms=PLAIN
listener.name.clear.plain.sasl.jaas.config={LOGIN}plain.PlainLoginModule required user_alice="alice-secret";
`)
}

// await returns when the broker answers on its plaintext port.
func (b *realBroker) await(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, _, err := dialSecure(ctx, &Security{}, "127.0.0.1", b.open)
		if conn != nil {
			conn.Close()
		}
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("Kafka did not start: %v", err)
		case <-tick.C:
		}
	}
}

func unsecured(claims string) string {
	token := jwt(claims)
	return token[:strings.LastIndexByte(token, '.')+1]
}

// TestRealKafka takes TLS and every login, right and wrong, to Apache Kafka itself.
func TestRealKafka(t *testing.T) {
	b := startReal(t)
	on := TLS{Enabled: true, CAFile: filepath.Join(b.dir, "ca.pem")}
	tokenFile := filepath.Join(b.dir, "token")
	token := func(life time.Duration) {
		now := time.Now()
		putFile(t, b.dir, "token", []byte(unsecured(fmt.Sprintf(`{"sub":"dave","iat":%d,"exp":%d}`, now.Add(-time.Hour).Unix(), now.Add(life).Unix()))))
	}
	b.addUser(t, "a=b,c", "pass wörd=,")
	word := NewCredential
	oauth := OAuth{TokenFile: tokenFile, Extensions: map[string]string{"traceId": "123"}}
	e := &endpoint{body: fmt.Sprintf(`{"access_token":%q,"expires_in":3600}`, unsecured(fmt.Sprintf(`{"sub":"erin","exp":%d}`, time.Now().Add(time.Hour).Unix())))}
	granted := *e.start(t)
	granted.TLS = on
	t.Run("right", func(t *testing.T) {
		token(time.Hour)
		for _, c := range []struct {
			name, addr string
			s          Security
		}{
			{"plain", b.secure, Security{TLS: on, Mechanism: MechanismPlain, User: "alice", Password: word("alice-secret")}},
			{"plain in the clear", b.clear, Security{Mechanism: MechanismPlain, User: "alice", Password: word("alice-secret")}},
			{"scram 256", b.secure, Security{TLS: on, Mechanism: MechanismSCRAM256, User: "bob", Password: word("bob-secret")}},
			{"scram 512", b.secure, Security{TLS: on, Mechanism: MechanismSCRAM512, User: "carol", Password: word("carol-secret")}},
			{"odd characters", b.secure, Security{TLS: on, Mechanism: MechanismSCRAM256, User: "a=b,c", Password: word("pass wörd=,")}},
			{"oauth by file", b.secure, Security{TLS: on, Mechanism: MechanismOAuthBearer, OAuth: oauth}},
			{"oauth by endpoint", b.secure, granted},
		} {
			t.Run(c.name, func(t *testing.T) {
				if _, _, err := logIn(t, &c.s, "localhost", c.addr); err != nil {
					t.Error(err)
				}
			})
		}
	})
	t.Run("wrong", func(t *testing.T) {
		token(-time.Minute)
		for _, c := range []struct {
			name string
			s    Security
			want []string
		}{
			{"plain", Security{TLS: on, Mechanism: MechanismPlain, User: "alice", Password: word("geheim")},
				[]string{` as user "alice" with PLAIN was refused: Authentication failed: Invalid username or password: check sasl.user and sasl.password`}},
			{"scram 256", Security{TLS: on, Mechanism: MechanismSCRAM256, User: "bob", Password: word("geheim")},
				[]string{` as user "bob" with SCRAM-SHA-256 was refused: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-256: check sasl.user`}},
			{"scram 512, nobody", Security{TLS: on, Mechanism: MechanismSCRAM512, User: "nobody", Password: word("geheim")},
				[]string{` as user "nobody" with SCRAM-SHA-512 was refused: Authentication failed during authentication due to invalid credentials`}},
			{"expired token", Security{TLS: on, Mechanism: MechanismOAuthBearer, OAuth: oauth},
				[]string{" with OAUTHBEARER was refused: ", "(the token expired at 2", "put a fresh token into "}},
		} {
			t.Run(c.name, func(t *testing.T) {
				_, _, err := logIn(t, &c.s, "localhost", b.secure)
				a := wantAuth(t, err, c.want...)
				if strings.Contains(a.Error(), "geheim") {
					t.Error("the password is in the error")
				}
				t.Log(err)
			})
		}
	})
	t.Run("ports", b.ports)
	t.Run("certificates", b.certificates)
	t.Run("session", b.session)
}

// addUser adds a SCRAM user by another client.
func (b *realBroker) addUser(t *testing.T, user, password string) {
	t.Helper()
	k, err := kgo.NewClient(kgo.SeedBrokers(b.open))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	r, err := kadm.NewClient(k).AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: user, Mechanism: kadm.ScramSha256, Iterations: 8192, Password: password}})
	if err == nil {
		err = r.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ports takes settings to a port of another kind: each error says which it is.
func (b *realBroker) ports(t *testing.T) {
	on := TLS{Enabled: true, CAFile: filepath.Join(b.dir, "ca.pem")}
	plain := Security{Mechanism: MechanismPlain, User: "alice", Password: NewCredential("alice-secret")}
	scram := Security{Mechanism: MechanismSCRAM512, User: "carol", Password: NewCredential("carol-secret")}
	secure := plain
	secure.TLS = on
	for _, c := range []struct {
		name, addr string
		s          Security
		want       string
	}{
		{"plaintext to TLS", b.secure, Security{}, "set tls.enabled to true"},
		{"plaintext login to TLS", b.secure, plain, "set tls.enabled to true"},
		{"TLS to plaintext", b.open, Security{TLS: on}, "this port may not speak TLS"},
		{"no login, TLS", b.secure, Security{TLS: on}, "this port may want a login: set sasl.mechanism"},
		{"no login, plaintext", b.clear, Security{}, "this port may want a login: set sasl.mechanism"},
		{"login to an open port", b.open, plain, "this port asks for no authentication"},
		{"another mechanism", b.clear, scram, "was refused: the broker offers PLAIN: set sasl.mechanism to one of them"},
		{"login to the port of certificates", b.mutual, secure, "set tls.cert_file and tls.key_file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := logIn(t, &c.s, "localhost", c.addr)
			wantWords(t, err, c.want)
			t.Log(err)
		})
	}
}

func (b *realBroker) certificates(t *testing.T) {
	on := TLS{Enabled: true, CAFile: filepath.Join(b.dir, "ca.pem")}
	cert, key := b.ca.issue(nil, "client")
	foreignCert, foreignKey := newAuthority(t, "foreign").issue(nil, "client")
	with := func(name string, cert, key []byte) Security {
		s := Security{TLS: on}
		s.TLS.CertFile, s.TLS.KeyFile = putFile(t, b.dir, name+".pem", cert), putFile(t, b.dir, name+".key", key)
		return s
	}
	good, foreign := with("good", cert, key), with("foreign", foreignCert, foreignKey)
	if _, _, err := logIn(t, &good, "localhost", b.mutual); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	_, _, err := logIn(t, &foreign, "localhost", b.mutual)
	wantWords(t, err, "TLS to localhost:", "the broker refused", "foreign.pem (tls.cert_file) is current and signed by")
	t.Log(err)
	_, _, err = logIn(t, &Security{TLS: on}, "localhost", b.mutual)
	wantWords(t, err, "TLS to localhost:", "set tls.cert_file and tls.key_file")
	t.Log(err)
	_, _, err = logIn(t, &Security{TLS: TLS{Enabled: true}}, "localhost", b.mutual)
	wantWords(t, err, `signed by "CN=real authority", which is not known here`)
	var e *TLSError
	var v *tls.CertificateVerificationError
	if !errors.As(err, &e) || !errors.As(err, &v) {
		t.Errorf("error = %T, want a *TLSError about verification", err)
	}
}

// session logs in anew on a connection before its session ends, which the broker
// then keeps, while it cuts one that does not.
func (b *realBroker) session(t *testing.T) {
	on := TLS{Enabled: true, CAFile: filepath.Join(b.dir, "ca.pem")}
	s := &Security{TLS: on, Mechanism: MechanismSCRAM512, User: "carol", Password: NewCredential("carol-secret")}
	kept, renew, err := logIn(t, s, "localhost", b.secure)
	if err != nil {
		t.Fatal(err)
	}
	lost, _, err := logIn(t, s, "localhost", b.secure)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if life := time.Until(renew); life <= 0 || life > 1500*time.Millisecond {
		t.Fatalf("renewal in %v, want before 1.5 s", life)
	}
	for time.Since(start) < 2*time.Second { // the broker's clock, not ours: nothing to wait for but time
		<-time.After(time.Until(renew))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		renew, err = s.login(ctx, kept, "localhost")
		cancel()
		if err != nil {
			t.Fatalf("renew: %v", err)
		}
		if err := askSomething(kept); err != nil {
			t.Fatalf("after a renewal: %v", err)
		}
	}
	if err := askSomething(lost); err == nil {
		t.Error("a session that ended was served, want it cut")
	}
}
