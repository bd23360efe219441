package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
	tellAfter  = 5 * time.Second
	tellEvery  = time.Minute

	maxErrorBytes  = 4 << 10
	maxReasonBytes = 300
)

// mediaType is what registries speak.
const mediaType = "application/vnd.schemaregistry.v1+json"

// A request is one question, which may be asked many times.
type request struct {
	what  string // in errors: "schema 17"
	path  string
	body  []byte // nil is a GET
	grace time.Duration
}

// A passing error is one that waiting may cure.
type passing struct {
	err   error
	after time.Duration // how long the registry wants to be left alone; 0 where it does not say
}

func (p *passing) Error() string { return p.err.Error() }
func (p *passing) Unwrap() error { return p.err }

// ask asks until there is an answer, writes it to out, or returns what is final:
// ErrUnknownSchema after the grace, a refusal, or the end of ctx.
func (c *Client) ask(ctx context.Context, r request, out *wireSchema) error {
	begin := time.Now()
	var unknown time.Time // when the registry first said so
	told := time.Duration(0)
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		err := c.try(ctx, r, out)
		left := time.Duration(math.MaxInt64) // of the grace
		var p *passing
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", r.what, context.Cause(ctx))
		case errors.Is(err, ErrUnknownSchema):
			if unknown.IsZero() {
				unknown, wait = time.Now(), firstPause // it is there, and may know soon
			}
			if left = r.grace - time.Since(unknown); left <= 0 {
				return fmt.Errorf("%s: %w", r.what, err)
			}
		case errors.As(err, &p):
			c.base.Add(1)
		default:
			return fmt.Errorf("%s: %w", r.what, err)
		}
		d := min(wait/2+time.Duration(c.c.jitter()*float64(wait/2)), left)
		if p != nil {
			d = max(d, min(p.after, lastPause))
		}
		if how := time.Since(begin); how >= tellAfter && (told == 0 || how-told >= tellEvery) {
			told = how
			c.tell(Wait{For: r.what, How: how, Err: err})
		}
		if err := pause(ctx, d); err != nil {
			return fmt.Errorf("%s: %w", r.what, err)
		}
	}
}

// tell says what is waited for.
func (c *Client) tell(w Wait) {
	c.c.Log.Warn("waiting for the schema registry", "for", w.For, "since", w.How.Round(time.Millisecond), "error", w.Err)
	if c.c.Waiting != nil {
		c.c.Waiting(w)
	}
}

// try asks once.
func (c *Client) try(ctx context.Context, r request, out *wireSchema) error {
	ctx, cancel := context.WithTimeout(ctx, c.c.Timeout)
	defer cancel()
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if r.body != nil {
		method, body = http.MethodPost, bytes.NewReader(r.body)
	}
	base := c.bases[int(c.base.Load())%len(c.bases)]
	req, err := http.NewRequestWithContext(ctx, method, base+r.path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", mediaType+", application/json;q=0.9")
	if r.body != nil {
		req.Header.Set("Content-Type", mediaType)
	}
	if err := c.c.login(req); err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return unreached(base, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return refused(base, res)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, int64(c.c.MaxBytes)+1))
	if err != nil {
		return &passing{err: fmt.Errorf("answer of %s: %w", base, err)}
	}
	if len(data) > c.c.MaxBytes {
		return fmt.Errorf("answer of %s: more than %d bytes", base, c.c.MaxBytes)
	}
	got := wireSchema{}
	if err := json.Unmarshal(data, &got); err != nil {
		return fmt.Errorf("answer of %s is none of a schema registry: %w", base, err)
	}
	*out = got
	return nil
}

// unreached says whether a request without an answer may get one later: a
// certificate that is not believed stays so.
func unreached(base string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the address, which stands in front
	}
	var (
		cert      *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &hostname):
		return fmt.Errorf("schema registry %s: %w: set server_name to a name of the certificate", base, err)
	case errors.As(err, &authority):
		return fmt.Errorf("schema registry %s: %w: set ca_file to the PEM file of that authority", base, err)
	case errors.As(err, &cert):
		return fmt.Errorf("schema registry %s: %w: let its certificate be made anew", base, err)
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("schema registry %s does not speak TLS: write http:// in its address", base)
	}
	return &passing{err: fmt.Errorf("schema registry %s: %w", base, err)}
}

// refused reads an answer that is not the one that was asked for.
func refused(base string, res *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes)) // half of a reason is as good
	var said struct {
		Code    int    `json:"error_code"`
		Message string `json:"message"`
	}
	isRegistry := json.Unmarshal(data, &said) == nil && said.Code != 0
	reason := said.Message
	if len(reason) > maxReasonBytes {
		reason = strings.ToValidUTF8(reason[:maxReasonBytes], "") + "..."
	}
	switch status := res.StatusCode; {
	case status == http.StatusUnauthorized:
		return &AccessError{base, status, reason, "check user and password, or the token, of the registry"}
	case status == http.StatusForbidden:
		return &AccessError{base, status, reason, "let the registry's owner give this user the right to read the schema, or to register it"}
	case status == http.StatusNotFound && isRegistry:
		return fmt.Errorf("%w (error %d: %s)", ErrUnknownSchema, said.Code, reason)
	case status == http.StatusNotFound:
		return fmt.Errorf("%s is no schema registry: it answers 404 without an error_code; check the path in its address", base)
	case status == http.StatusConflict:
		return fmt.Errorf("schema registry %s: the schema is not compatible with the ones before it (error %d: %s): "+
			"write to another subject, or change the subject's compatibility", base, said.Code, reason)
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500:
		return &passing{fmt.Errorf("schema registry %s: %d %s %s", base, status, http.StatusText(status), reason), retryAfter(res)}
	default:
		return fmt.Errorf("schema registry %s: %d %s (error %d: %s)", base, status, http.StatusText(status), said.Code, reason)
	}
}

// retryAfter reads the header in its form of seconds.
func retryAfter(res *http.Response) time.Duration {
	n, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || n < 0 || n > 3600 {
		return 0
	}
	return time.Duration(n) * time.Second
}
