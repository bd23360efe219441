package kafka

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// logIn does what a connection of a cluster does: dial, TLS, ApiVersions, login,
// and then asks for metadata. Host is the name to dial, such as localhost.
func logIn(t *testing.T, s *Security, host, addr string) (*protocol.Conn, time.Time, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	start := time.Now()
	conn, renew, err := dialSecure(ctx, s, host, addr)
	if took := time.Since(start); took > 5500*time.Millisecond {
		t.Errorf("the connection took %v, want less than 5 s", took)
	}
	if conn != nil {
		t.Cleanup(func() { conn.Close() })
	}
	return conn, renew, err
}

func dialSecure(ctx context.Context, s *Security, host, addr string) (*protocol.Conn, time.Time, error) {
	_, port, _ := net.SplitHostPort(addr)
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, time.Time{}, err
	}
	wrapped, err := s.wrap(ctx, raw, net.JoinHostPort(host, port))
	if err != nil {
		return nil, time.Time{}, err
	}
	conn := protocol.NewConn(wrapped, "elbo")
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	conn.SetVersions(map[protocol.ApiKey]int16{protocol.ApiVersions: 0})
	m, err := conn.RoundTrip(&apiversions.Request{})
	if err != nil {
		return conn, time.Time{}, err
	}
	conn.SetVersions(versionsOf(m.(*apiversions.Response)))
	renew, err := s.login(ctx, conn, net.JoinHostPort(host, port))
	if err != nil {
		return conn, renew, err
	}
	return conn, renew, askSomething(conn)
}

func askSomething(conn *protocol.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, err := conn.RoundTrip(&metadata.Request{TopicNames: []string{}})
	return err
}

func versionsOf(r *apiversions.Response) map[protocol.ApiKey]int16 {
	versions := map[protocol.ApiKey]int16{}
	for _, k := range r.ApiKeys {
		key := protocol.ApiKey(k.ApiKey)
		if key < 0 || key > protocol.ApiKey(40) {
			continue
		}
		if key == protocol.SaslAuthenticate || key == protocol.SaslHandshake || key == protocol.Metadata {
			versions[key] = min(k.MaxVersion, 1)
		}
	}
	return versions
}

// secureBroker starts kfake with one broker.
func secureBroker(t *testing.T, opts ...kfake.Opt) string {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()[0]
}

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue returns a certificate and key in PEM. Names are DNS names or addresses.
func (a *authority) issue(edit func(*x509.Certificate), names ...string) (cert, key []byte) {
	a.t.Helper()
	k := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "leaf"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// server returns the TLS configuration of a broker for localhost.
func (a *authority) server(edit func(*x509.Certificate)) *tls.Config {
	a.t.Helper()
	cert, err := tls.X509KeyPair(a.issue(edit, "localhost", "127.0.0.1"))
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// putFile writes a file into the test's folder, or over it.
func putFile(t *testing.T, dir, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantWords fails unless the error has all the words and none of the secrets.
func wantWords(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("error = nil, want one")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error = %q, want it to have %q", err, w)
		}
	}
}

// wantAuth fails unless the error is an AuthError with the words.
func wantAuth(t *testing.T, err error, words ...string) *AuthError {
	t.Helper()
	wantWords(t, err, words...)
	var a *AuthError
	if !errors.As(err, &a) {
		t.Fatalf("error = %T %v, want an *AuthError", err, err)
	}
	if a.Temporary() {
		t.Error("Temporary() = true, want false")
	}
	return a
}

// listenWith accepts connections and hands each to serve until the test ends.
func listenWith(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// scripted is a broker that knows only how to let in: answer gets what the client
// sent in the i-th message of its login.
type scripted struct {
	mechanisms []string
	handshake  int16 // error code
	cut        bool  // closes the connection instead
	answer     func(i int, message []byte) (reply []byte, code int16, text string)
	lifetime   int64
}

func (s scripted) start(t *testing.T) string {
	t.Helper()
	return listenWith(t, func(c net.Conn) {
		for i := 0; ; {
			key, version, correlation, body, err := readSASLRequest(c)
			if err != nil {
				return
			}
			var resp kmsg.Response
			switch key {
			case 18:
				r := kmsg.NewPtrApiVersionsResponse()
				for _, k := range []int16{3, 17, 18, 36} {
					r.ApiKeys = append(r.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: k, MaxVersion: 1})
				}
				resp = r
			case 17:
				if i = 0; s.cut {
					return
				}
				r := kmsg.NewPtrSASLHandshakeResponse()
				r.ErrorCode, r.SupportedMechanisms = s.handshake, s.mechanisms
				resp = r
			case 36:
				req := kmsg.NewPtrSASLAuthenticateRequest()
				req.SetVersion(version)
				if req.ReadFrom(body) != nil {
					return
				}
				r := kmsg.NewPtrSASLAuthenticateResponse()
				var text string
				r.SASLAuthBytes, r.ErrorCode, text = s.answer(i, req.SASLAuthBytes)
				i++
				if r.ErrorCode != 0 {
					r.ErrorMessage = &text
				}
				r.SessionLifetimeMillis = s.lifetime
				resp = r
			case 3:
				resp = kmsg.NewPtrMetadataResponse()
			default:
				return
			}
			resp.SetVersion(version)
			if writeSASLResponse(c, correlation, resp) != nil {
				return
			}
		}
	})
}

func readSASLRequest(r io.Reader) (key, version int16, correlation int32, body []byte, err error) {
	var head [4]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err = io.ReadFull(r, b); err != nil {
		return
	}
	client := int(binary.BigEndian.Uint16(b[8:]))
	return int16(binary.BigEndian.Uint16(b)), int16(binary.BigEndian.Uint16(b[2:])), int32(binary.BigEndian.Uint32(b[4:])), b[10+client:], nil
}

func writeSASLResponse(w io.Writer, correlation int32, resp kmsg.Response) error {
	body := resp.AppendTo(nil)
	var b bytes.Buffer
	_ = binary.Write(&b, binary.BigEndian, int32(len(body)+4))
	_ = binary.Write(&b, binary.BigEndian, correlation)
	b.Write(body)
	_, err := w.Write(b.Bytes())
	return err
}
