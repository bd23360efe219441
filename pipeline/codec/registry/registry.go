// Package registry is a client of a schema registry: Confluent's, and those that
// answer as it does (Karapace, Apicurio, Redpanda).
//
//	c, err := registry.New(registry.Config{URLs: []string{"http://localhost:8081"}})
//	defer c.Close()
//	s, err := c.Schema(ctx, 17) // asked once, kept for ever
//
// The thing people get wrong is what to make of a registry that does not answer: it
// is no reason to call a message poison. Every call waits, until its context ends,
// for a registry that is down, slow or overloaded; Config.Log and Config.Waiting
// tell that it does. Only an answer that there is no such schema becomes
// ErrUnknownSchema, and only after Config.Grace, because registries replicate. An
// AccessError or any other error ends the run.
package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// Type is the language of a schema.
type Type string

// The languages that registries know.
const (
	Avro     Type = "AVRO"
	Protobuf Type = "PROTOBUF"
	JSON     Type = "JSON"
)

// A Schema is one schema with all that it refers to. It is not changed once it is
// made and safe for concurrent use.
type Schema struct {
	ID   int32 // 0 where the registry does not tell
	Type Type
	Text string
	// References are the other schemas that Text names.
	References []Reference
}

// A Reference is a schema that another one names.
type Reference struct {
	// Name is how the text calls it: the full name of an Avro type, the path in an
	// import of Protobuf.
	Name    string
	Subject string
	Version int
	// Schema is what stands there; Register does not look at it.
	Schema *Schema
}

// Imports returns all references, also those of references, each name once and
// each behind those that it needs.
func (s *Schema) Imports() []Reference {
	var all []Reference
	var walk func(s *Schema)
	walk = func(s *Schema) {
		for _, r := range s.References {
			if r.Schema == nil || slices.ContainsFunc(all, func(o Reference) bool { return o.Name == r.Name }) {
				continue
			}
			walk(r.Schema)
			all = append(all, r)
		}
	}
	walk(s)
	return all
}

// ErrUnknownSchema says that the registry answered that there is no such schema. It
// is final for the message that names it.
var ErrUnknownSchema = errors.New("the registry has no such schema")

// An AccessError says that the registry refused who asked. It ends the run.
type AccessError struct {
	URL    string // without a password
	Status int    // 401 or 403
	Reason string // what the registry says; may be empty
	Hint   string // the next step
}

// Error returns one sentence with the address, the fact and the next step.
func (e *AccessError) Error() string {
	msg := fmt.Sprintf("schema registry %s: %d %s", e.URL, e.Status, http.StatusText(e.Status))
	if e.Reason != "" {
		msg += " (" + e.Reason + ")"
	}
	return msg + ": " + e.Hint
}

// Config says where the registry is and who asks. Either URLs or Dir is set. Files
// with secrets and our own certificate are read for each request or connection, so
// that renewing them needs no restart; CAFile is read once.
type Config struct {
	// URLs are addresses of one registry, tried in turn when one does not answer.
	URLs []string
	// Dir is a folder of schemas for networks without a registry: 17.avsc, 17.proto
	// or 17.json for id 17, payments-value.avsc for the latest of a subject, and
	// beside either, in 17.references.json, what a registry would answer as its
	// references. Imports of Protobuf are found by their path without that.
	Dir string

	// User logs in with a password, by HTTP's basic authentication.
	User                      string
	Password                  Secret
	PasswordFile, PasswordEnv string
	// Token is sent as a bearer token, in place of User.
	Token               Secret
	TokenFile, TokenEnv string

	CAFile            string // PEM certificates of who may sign the registry's; "" means the system's
	CertFile, KeyFile string // our own certificate in PEM; both or neither
	ServerName        string // what the certificate must be for; "" means the host of the URL
	Insecure          bool   // do not check the certificate; for tests

	Timeout time.Duration // of one request; 0 means 10 s
	// Grace is how long a schema may be unknown before it counts as such; 0 means 5 s,
	// below 0 none.
	Grace    time.Duration
	MaxBytes int // size of the largest answer, and schema; 0 means 8 MiB

	Log *slog.Logger // nil means silence
	// Waiting is called when a call has waited for 5 s, and then each minute; nil is
	// nobody. It must return soon.
	Waiting func(Wait)
	// Transport replaces HTTP itself, for tests; nil means one of the client's own.
	Transport http.RoundTripper

	jitter func() float64 // in [0, 1)
}

// A Wait is a call that has been waiting.
type Wait struct {
	For string        // what is asked for, as in "schema 17"
	How time.Duration // since the call began
	Err error         // what came of the last try
}

// New checks c, reports everything wrong with it, and asks nobody.
func New(c Config) (*Client, error) {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Grace == 0 {
		c.Grace = 5 * time.Second
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 8 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.jitter == nil {
		c.jitter = rand.Float64
	}
	errs := c.check()
	client := &Client{c: c, ids: table[int32]{}, versions: map[version]*Schema{}, registered: table[registration]{}}
	for _, text := range c.URLs {
		u, err := url.Parse(text)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			errs = append(errs, fmt.Errorf("url: %q is no address such as http://localhost:8081", redacted(text)))
			continue
		}
		if u.User != nil {
			errs = append(errs, fmt.Errorf("url: %s holds a login; write it as user and password", u.Redacted()))
			continue
		}
		client.bases = append(client.bases, strings.TrimSuffix(u.String(), "/"))
	}
	client.http.Transport = c.Transport
	if c.Transport == nil {
		t, err := c.transport()
		if err != nil {
			errs = append(errs, err)
		} else {
			client.http.Transport, client.idle = t, t.CloseIdleConnections
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return client, nil
}

// redacted takes the login out of what may be an address.
func redacted(text string) string {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		scheme, rest = "", text
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = "***" + rest[i:]
	}
	if ok {
		rest = scheme + "://" + rest
	}
	return rest
}

// check returns what is wrong without a look at files and addresses.
func (c *Config) check() []error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if (len(c.URLs) == 0) == (c.Dir == "") {
		fault("url: must be set, or dir, and not both")
	}
	password := count(c.Password.IsSet(), c.PasswordFile != "", c.PasswordEnv != "")
	token := count(c.Token.IsSet(), c.TokenFile != "", c.TokenEnv != "")
	switch {
	case password > 1:
		fault("password: is set in more than one place")
	case token > 1:
		fault("token: is set in more than one place")
	case token == 1 && (password == 1 || c.User != ""):
		fault("token: user or password is set too; choose one")
	case c.User == "" && password == 1:
		fault("user: must be set, because a password is")
	case c.User != "" && password == 0:
		fault("password: must be set, because user is")
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		fault("cert_file: goes with key_file")
	}
	if c.Timeout < 0 || c.MaxBytes < 0 {
		fault("timeout and max bytes must not be negative")
	}
	return errs
}

func count(set ...bool) int {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}

// transport returns HTTP with the settings of TLS.
func (c *Config) transport() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: c.Insecure}
	t.MaxIdleConnsPerHost, t.MaxResponseHeaderBytes = 4, 1<<20
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s has no PEM certificate (one begins with -----BEGIN CERTIFICATE-----)", c.CAFile)
		}
	}
	if c.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("cert_file %s with key_file %s: %w", c.CertFile, c.KeyFile, err)
			}
			return &cert, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		t.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return t, nil
}

// login adds who we are to a request.
func (c *Config) login(r *http.Request) error {
	token, err := secretFrom("token", c.Token, c.TokenFile, c.TokenEnv)
	if err != nil {
		return err
	}
	password, err := secretFrom("password", c.Password, c.PasswordFile, c.PasswordEnv)
	if err != nil {
		return err
	}
	switch {
	case token != "":
		r.Header.Set("Authorization", "Bearer "+token)
	case c.User != "":
		r.SetBasicAuth(c.User, password)
	}
	return nil
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
