package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

func TestTLS(t *testing.T) {
	a := newAuthority(t, "right authority")
	dir := t.TempDir()
	ca := putFile(t, dir, "ca.pem", a.pem)
	addr := secureBroker(t, kfake.TLS(a.server(nil)))
	if _, _, err := logIn(t, &Security{TLS: TLS{Enabled: true, CAFile: ca}}, "localhost", addr); err != nil {
		t.Errorf("with the authority: %v", err)
	}
	if _, _, err := logIn(t, &Security{TLS: TLS{Enabled: true, CAFile: ca, ServerName: "localhost"}}, "broker.test", addr); err != nil {
		t.Errorf("with server_name: %v", err)
	}
	if _, _, err := logIn(t, &Security{TLS: TLS{Enabled: true, Insecure: true}}, "broker.test", addr); err != nil {
		t.Errorf("insecure: %v", err)
	}
}

func TestTLSFaults(t *testing.T) {
	a, other := newAuthority(t, "right authority"), newAuthority(t, "other authority")
	dir := t.TempDir()
	ca, wrong := putFile(t, dir, "ca.pem", a.pem), putFile(t, dir, "other.pem", other.pem)
	good := secureBroker(t, kfake.TLS(a.server(nil)))
	expired := secureBroker(t, kfake.TLS(a.server(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })))
	early := secureBroker(t, kfake.TLS(a.server(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })))
	client := secureBroker(t, kfake.TLS(a.server(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })))
	nameless := secureBroker(t, kfake.TLS(a.server(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil })))
	old := a.server(nil)
	old.MaxVersion = tls.VersionTLS11
	ancient := secureBroker(t, kfake.TLS(old))
	mute := listenWith(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	cut := listenWith(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 10)) })
	reset := listenWith(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 10))
		_ = c.(*net.TCPConn).SetLinger(0)
	})
	talks := listenWith(t, func(c net.Conn) { _, _ = c.Write([]byte("220 mail.test ESMTP\r\n")); _, _ = io.Copy(io.Discard, c) })
	for _, c := range []struct {
		name, addr, host, ca string
		want                 []string
	}{
		{"unknown authority", good, "localhost", "", []string{`signed by "CN=right authority", which is not known here: set tls.ca_file to the PEM file`}},
		{"other authority", good, "localhost", wrong, []string{"check whether " + wrong + " (tls.ca_file) is the right and current one"}},
		{"other name", good, "broker.test", ca, []string{"is for localhost, 127.0.0.1, not for broker.test: set tls.server_name"}},
		{"no name", nameless, "localhost", ca, []string{"is for no name at all", "not for localhost"}},
		{"expired", expired, "localhost", ca, []string{"the certificate of CN=leaf expired at 2", "renew it at the broker"}},
		{"not yet valid", early, "localhost", ca, []string{"is not valid before 2", "check this machine's clock, which says 2"}},
		{"other use", client, "localhost", ca, []string{"the broker's certificate is refused", "incompatible key usage"}},
		{"old version", ancient, "localhost", ca, []string{"protocol version", "1.2 and 1.3 are spoken here"}},
		{"kafka without tls", cut, "localhost", ca, []string{"closed in the middle of the handshake, so this port may not speak TLS: use the broker's TLS port"}},
		{"reset", reset, "localhost", ca, []string{"so this port may not speak TLS"}},
		{"plaintext answer", talks, "localhost", ca, []string{`this port does not speak TLS: it answered "220`, "set tls.enabled to false"}},
		{"no answer", mute, "localhost", ca, []string{"no answer to the handshake in time"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.addr == mute {
				t.Parallel()
			}
			s := &Security{TLS: TLS{Enabled: true, CAFile: c.ca}}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if c.addr != mute {
				ctx = t.Context()
			}
			_, _, err := dialSecure(ctx, s, c.host, c.addr)
			_, port, _ := net.SplitHostPort(c.addr)
			wantWords(t, err, append(c.want, "TLS to "+net.JoinHostPort(c.host, port)+": ")...)
			var e *TLSError
			if !errors.As(err, &e) || errors.Unwrap(e) == nil {
				t.Errorf("error = %T, want a *TLSError with a cause", err)
			}
		})
	}
}

// A broker of TLS 1.3 refuses our certificate only after the handshake, as we see it.
func TestClientCertificate(t *testing.T) {
	a, other := newAuthority(t, "right authority"), newAuthority(t, "other authority")
	dir := t.TempDir()
	ca := putFile(t, dir, "ca.pem", a.pem)
	write := func(from *authority, name string) (cert, key string) {
		c, k := from.issue(nil, "client")
		return putFile(t, dir, name+".pem", c), putFile(t, dir, name+".key", k)
	}
	goodCert, goodKey := write(a, "good")
	badCert, badKey := write(other, "bad")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			config := a.server(nil)
			config.ClientAuth, config.ClientCAs, config.MaxVersion = tls.RequireAndVerifyClientCert, x509.NewCertPool(), version
			config.ClientCAs.AddCert(a.cert)
			addr := secureBroker(t, kfake.TLS(config))
			s := &Security{TLS: TLS{Enabled: true, CAFile: ca}}
			_, _, err := logIn(t, s, "localhost", addr)
			wantWords(t, err, "TLS to localhost:", "the broker asks for a client certificate: set tls.cert_file and tls.key_file")
			s.TLS.CertFile, s.TLS.KeyFile = badCert, badKey
			_, _, err = logIn(t, s, "localhost", addr)
			wantWords(t, err, "the broker refused: ", "check that "+badCert+" (tls.cert_file) is current and signed by an authority that the broker trusts")
			s.TLS.CertFile, s.TLS.KeyFile = goodCert, goodKey
			if _, _, err = logIn(t, s, "localhost", addr); err != nil {
				t.Errorf("with a certificate: %v", err)
			}
		})
	}
}

// The files are read for each connection: an authority that changes is refused
// with a clear error, and taken once the file has followed.
func TestAuthorityChanges(t *testing.T) {
	before, after := newAuthority(t, "before"), newAuthority(t, "after")
	dir := t.TempDir()
	s := &Security{TLS: TLS{Enabled: true, CAFile: putFile(t, dir, "ca.pem", before.pem)}}
	if err := s.validate(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := logIn(t, s, "localhost", secureBroker(t, kfake.TLS(before.server(nil)))); err != nil {
		t.Fatal(err)
	}
	addr := secureBroker(t, kfake.TLS(after.server(nil)))
	_, _, err := logIn(t, s, "localhost", addr)
	wantWords(t, err, `signed by "CN=after", which is not known here: check whether `, "ca.pem (tls.ca_file) is the right and current one")
	putFile(t, dir, "ca.pem", nil)
	_, _, err = logIn(t, s, "localhost", addr)
	wantWords(t, err, "tls.ca_file: ", "has no PEM certificate")
	putFile(t, dir, "ca.pem", after.pem)
	if _, _, err = logIn(t, s, "localhost", addr); err != nil {
		t.Errorf("after the file has changed: %v", err)
	}
}

func TestPlaintextFaults(t *testing.T) {
	a := newAuthority(t, "authority")
	http := listenWith(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1000))
		_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	})
	alert := listenWith(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1000))
		_, _ = c.Write([]byte{0x15, 3, 3, 0, 2, 2, 80})
	})
	for _, c := range []struct {
		name, addr string
		want       []string
	}{
		{"tls port", secureBroker(t, kfake.TLS(a.server(nil))), []string{"TLS to localhost:", "so this port may want TLS: set tls.enabled to true"}},
		{"tls alert", alert, []string{"this port speaks TLS: set tls.enabled to true"}},
		{"web server", http, []string{`this is no Kafka broker: it answered "HTTP/1.1`}},
		{"sasl port", secureBroker(t, kfake.EnableSASL()), []string{"this port may want a login: set sasl.mechanism"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := logIn(t, &Security{}, "localhost", c.addr)
			wantWords(t, err, c.want...)
		})
	}
}

// Later ends are what they are: a broker that goes away says nothing about TLS.
func TestLaterEndsAreNotExplained(t *testing.T) {
	addr := scripted{}.start(t)
	conn, _, err := logIn(t, &Security{}, "localhost", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := askSomething(conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	server, client := net.Pipe()
	f := &firstWords{Conn: client, addr: "a:1", security: &Security{}}
	go func() {
		b := make([]byte, 8)
		for range watched + 1 {
			_, _ = server.Read(b)
			_, _ = server.Write(make([]byte, 4))
		}
		server.Close()
	}()
	for range watched + 1 {
		_, _ = f.Write([]byte("request"))
		if _, err := io.ReadFull(f, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read() after %d requests = %v, want EOF as it is", watched+1, err)
	}
}

// Once a broker has answered, a connection that it closes early, as when it
// restarts, is no reason to doubt the settings.
func TestEarlyEndOfProvenSettings(t *testing.T) {
	s := &Security{}
	if err := s.validate(); err != nil {
		t.Fatal(err)
	}
	cut := listenWith(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 10)) })
	_, _, err := logIn(t, s, "localhost", cut)
	wantWords(t, err, "this port may want TLS")
	if _, _, err := logIn(t, s, "localhost", scripted{}.start(t)); err != nil {
		t.Fatal(err)
	}
	_, _, err = logIn(t, s, "localhost", cut)
	var e *TLSError
	if err == nil || errors.As(err, &e) {
		t.Errorf("error = %v, want that of the connection", err)
	}
}

func TestAddress(t *testing.T) {
	addr := listenWith(t, func(net.Conn) {})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, port, _ := net.SplitHostPort(addr)
	for host, want := range map[string]string{"a": "a:" + port, "a:1": "a:1", "::1": "[::1]:" + port, "[::1]": "[::1]:" + port, "[::1]:7": "[::1]:7"} {
		if got := addressOf(conn, host); got != want {
			t.Errorf("addressOf(%q) = %q, want %q", host, got, want)
		}
	}
}
