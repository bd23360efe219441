package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// handshakeTimeout bounds each of the TLS handshake and the authentication when
// the caller's context has no deadline.
const handshakeTimeout = 5 * time.Second

// A TLSError says that no encrypted connection came about, and what to do. The
// files are read for each connection, so that trying again helps once they are
// mended.
type TLSError struct {
	Addr   string // host:port
	Reason string // what is wrong
	Hint   string // the next step
	Err    error  // the cause
}

// Error returns one sentence: the address, the fact and the next step.
func (e *TLSError) Error() string {
	return fmt.Sprintf("TLS to %s: %s: %s", e.Addr, e.Reason, e.Hint)
}

// Unwrap returns the cause.
func (e *TLSError) Unwrap() error { return e.Err }

// wrap returns conn ready for the protocol: encrypted, if TLS is enabled, and with
// errors of its first exchanges that say what is wrong with the settings. Host is
// the name that was dialled, with or without a port. It owns conn: on an error it is closed.
func (s *Security) wrap(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	addr := addressOf(conn, host)
	if !s.TLS.Enabled {
		return &firstWords{Conn: conn, addr: addr, security: s}, nil
	}
	name, _, _ := net.SplitHostPort(addr)
	config, err := s.TLS.config(name)
	if err != nil {
		conn.Close()
		return nil, err
	}
	asked := false
	if config.GetClientCertificate == nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return new(tls.Certificate), nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, untilDeadline(ctx))
	defer cancel()
	t := tls.Client(conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, s.TLS.explain(addr, config.ServerName, asked, err)
	}
	return &firstWords{Conn: t, addr: addr, security: s, asked: asked}, nil
}

// untilDeadline is how long ctx has, or handshakeTimeout if it has for ever.
func untilDeadline(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return time.Until(d)
	}
	return handshakeTimeout
}

// addressOf returns host with a port, which is that of conn's other end if host has none.
func addressOf(conn net.Conn, host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	port := "?"
	if a := conn.RemoteAddr(); a != nil {
		if _, p, err := net.SplitHostPort(a.String()); err == nil {
			port = p
		}
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// config reads the files and returns what to speak TLS with.
func (t *TLS) config(host string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: t.Insecure}
	if t.ServerName != "" {
		c.ServerName = t.ServerName
	}
	var errs []error
	if t.CAFile != "" {
		pool, err := readPool("tls.ca_file", t.CAFile)
		if err != nil {
			errs = append(errs, err)
		}
		c.RootCAs = pool
	}
	if t.CertFile != "" {
		cert, err := t.certificate()
		if err != nil {
			errs = append(errs, err)
		} else {
			// Not Certificates: of those a client sends none when the broker's list of
			// authorities has no match, and the broker's refusal then misleads.
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		}
	}
	return c, errors.Join(errs...)
}

// readPool reads a file of PEM certificates.
func readPool(key, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s has no PEM certificate (one begins with -----BEGIN CERTIFICATE-----)", key, file)
	}
	return pool, nil
}

// certificate reads our own certificate and key.
func (t *TLS) certificate() (tls.Certificate, error) {
	var cert tls.Certificate
	c, err := os.ReadFile(t.CertFile)
	if err != nil {
		return cert, fmt.Errorf("tls.cert_file: %w", err)
	}
	k, err := os.ReadFile(t.KeyFile)
	if err != nil {
		return cert, fmt.Errorf("tls.key_file: %w", err)
	}
	cert, err = tls.X509KeyPair(c, k)
	if err != nil {
		return cert, fmt.Errorf("tls.cert_file %s with tls.key_file %s: %s", t.CertFile, t.KeyFile, strings.TrimPrefix(err.Error(), "tls: "))
	}
	return cert, nil
}

// explain says what a failed handshake means.
func (t *TLS) explain(addr, name string, asked bool, err error) error {
	e := &TLSError{Addr: addr, Err: err, Reason: err.Error(), Hint: "check the tls settings and that the port is the broker's TLS port"}
	var (
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		hostname  x509.HostnameError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &hostname):
		e.Reason = fmt.Sprintf("the broker's certificate is for %s, not for %s", certNames(hostname.Certificate), name)
		e.Hint = "set tls.server_name to a name of the certificate, or let the broker advertise one"
	case errors.As(err, &authority):
		e.Reason = fmt.Sprintf("the broker's certificate is signed by %s, which is not known here", certIssuer(authority.Cert))
		e.Hint = "set tls.ca_file to the PEM file of that authority"
		if t.CAFile != "" {
			e.Hint = fmt.Sprintf("check whether %s (tls.ca_file) is the right and current one", t.CAFile)
		}
	case errors.As(err, &invalid):
		t.explainInvalid(e, invalid)
	case errors.As(err, &record):
		e.Reason = "this port does not speak TLS: it answered " + quoteBytes(record.RecordHeader[:])
		e.Hint = "set tls.enabled to false, or use the broker's TLS port"
	case isRemote(err):
		t.explainAlert(e, asked)
	case isCut(err):
		e.Reason = "the connection was closed in the middle of the handshake, so this port may not speak TLS"
		e.Hint = "use the broker's TLS port, or set tls.enabled to false"
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		e.Reason = "no answer to the handshake in time, so this port may not speak TLS"
		e.Hint = "use the broker's TLS port, or set tls.enabled to false"
	}
	return e
}

// explainInvalid is about a broker's certificate that its authority cannot help.
func (t *TLS) explainInvalid(e *TLSError, invalid x509.CertificateInvalidError) {
	if invalid.Reason != x509.Expired || invalid.Cert == nil {
		e.Reason = "the broker's certificate is refused: " + strings.TrimPrefix(invalid.Error(), "x509: ")
		e.Hint = "let the broker's certificate be made anew"
		return
	}
	c := invalid.Cert
	if now := time.Now(); now.Before(c.NotBefore) {
		e.Reason = fmt.Sprintf("the certificate of %s is not valid before %s", c.Subject, c.NotBefore.Format(time.RFC3339))
		e.Hint = fmt.Sprintf("check this machine's clock, which says %s", now.UTC().Format(time.RFC3339))
		return
	}
	e.Reason = fmt.Sprintf("the certificate of %s expired at %s", c.Subject, c.NotAfter.Format(time.RFC3339))
	e.Hint = "renew it at the broker, and check this machine's clock"
}

// explainAlert is about a broker that ended the handshake and said why.
func (t *TLS) explainAlert(e *TLSError, asked bool) {
	e.Reason = "the broker refused: " + alertText(e.Err)
	switch {
	case t.CertFile != "":
		e.Hint = fmt.Sprintf("check that %s (tls.cert_file) is current and signed by an authority that the broker trusts", t.CertFile)
	case asked:
		e.Hint = "the broker asks for a client certificate: set tls.cert_file and tls.key_file"
	default:
		e.Hint = "check which TLS versions and ciphers the broker allows (1.2 and 1.3 are spoken here)"
	}
}

func certNames(c *x509.Certificate) string {
	if c == nil {
		return "another name"
	}
	all := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name at all (its subject is " + c.Subject.String() + ")"
	}
	return strings.Join(all, ", ")
}

func certIssuer(c *x509.Certificate) string {
	if c == nil {
		return "an authority"
	}
	return fmt.Sprintf("%q", c.Issuer.String())
}

// isRemote tells whether the other end sent a TLS alert.
func isRemote(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// alertText returns the text of what isRemote.
func alertText(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return strings.TrimPrefix(op.Err.Error(), "tls: ")
	}
	return err.Error()
}

// isCut tells whether the other end closed the connection without a word.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// quoteBytes shows the first bytes of what somebody sent.
func quoteBytes(b []byte) string {
	if len(b) > 24 {
		b = b[:24]
	}
	return fmt.Sprintf("%q", b)
}

// firstWords is a connection whose early errors say what the broker's silence
// means: a broker that wants TLS or a login closes the connection without a word.
type firstWords struct {
	net.Conn
	addr     string
	security *Security
	asked    bool // for a client certificate that we have not

	requests atomic.Int32 // how many were begun, up to watched
	reading  atomic.Bool  // the latest one was written
}

// watched is how many requests say something about the settings: the first shows
// TLS, the second, without a login before it, that one is wanted.
const watched = 2

// Write counts the requests, of which one is under way at a time.
func (f *firstWords) Write(b []byte) (int, error) {
	if f.requests.Load() <= watched && (f.reading.Swap(false) || f.requests.Load() == 0) {
		f.requests.Add(1)
	}
	return f.Conn.Write(b)
}

// Read explains an early end.
func (f *firstWords) Read(b []byte) (int, error) {
	request := f.requests.Load()
	if request > watched {
		return f.Conn.Read(b)
	}
	first := !f.reading.Swap(true)
	n, err := f.Conn.Read(b)
	switch {
	case err != nil && n == 0:
		return 0, f.explain(request, err)
	case request == watched:
		f.security.sharedState().proven.Store(true)
	case first && !f.security.TLS.Enabled:
		if err := f.stranger(b[:n]); err != nil {
			return 0, err
		}
	}
	return n, err
}

// explain says what a connection's end means after so many requests.
func (f *firstWords) explain(request int32, err error) error {
	cause := err
	if errors.Is(err, io.EOF) {
		cause = io.ErrUnexpectedEOF // kafka-go makes it of whatever is an io.EOF, and the words would be lost
	}
	e := &TLSError{Addr: f.addr, Err: cause}
	t := &f.security.TLS
	switch {
	case isRemote(err):
		t.explainAlert(e, f.asked)
	case !isCut(err) || f.security.sharedState().proven.Load():
		return err
	case request == 1 && !t.Enabled:
		e.Reason = "the connection was closed right after the first request, so this port may want TLS"
		e.Hint = "set tls.enabled to true, or use the broker's plaintext port"
	case request == 1 && f.asked:
		e.Reason = "the connection was closed right after the handshake, in which the broker asked for a client certificate"
		e.Hint = "set tls.cert_file and tls.key_file"
	case request == 2 && f.security.Mechanism == "":
		return fmt.Errorf("%s: the connection was closed at the first request, so this port may want a login: set sasl.mechanism: %w", f.addr, cause)
	default:
		return err
	}
	return e
}

// stranger looks at the first bytes that came: an answer begins with its length, a
// few thousand at most.
func (f *firstWords) stranger(b []byte) error {
	switch {
	case len(b) >= 2 && b[0] == 0x15 && b[1] == 3: // a TLS alert
		return &TLSError{Addr: f.addr, Reason: "this port speaks TLS", Hint: "set tls.enabled to true, or use the broker's plaintext port"}
	case len(b) > 0 && b[0] != 0:
		return fmt.Errorf("%s: this is no Kafka broker: it answered %s", f.addr, quoteBytes(b))
	}
	return nil
}
