package kafka

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// jwt returns an unsigned token with the claims.
func jwt(claims string) string {
	e := base64.RawURLEncoding
	return e.EncodeToString([]byte(`{"alg":"none"}`)) + "." + e.EncodeToString([]byte(claims)) + ".c2ln"
}

// bearer is a broker that takes the tokens for which good returns true, and refuses
// the others as Kafka does: a message in JSON, then error 58.
func bearer(t *testing.T, good func(token string) bool) (addr string, messages func() []string) {
	var mu sync.Mutex
	var got []string
	addr = scripted{answer: func(i int, m []byte) ([]byte, int16, string) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(m))
		_, token, _ := strings.Cut(string(m), "auth=Bearer ")
		token, _, _ = strings.Cut(token, "\x01")
		switch {
		case i == 0 && good(token):
			return nil, 0, ""
		case i == 0:
			return []byte(`{"status":"invalid_token"}`), 0, ""
		case string(m) != "\x01":
			return nil, 58, "not RFC 7628"
		}
		return nil, 58, `{"status":"invalid_token"}`
	}}.start(t)
	return addr, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), got...)
	}
}

func TestTokenFile(t *testing.T) {
	dir := t.TempDir()
	addr, messages := bearer(t, func(token string) bool { return token == "good.token-1" })
	s := &Security{Mechanism: MechanismOAuthBearer, OAuth: OAuth{
		TokenFile:  putFile(t, dir, "token", []byte("good.token-1\n")),
		Extensions: map[string]string{"logicalCluster": "lkc-1", "identityPoolId": "pool 7"},
	}}
	if _, _, err := logIn(t, s, "localhost", addr); err != nil {
		t.Fatal(err)
	}
	if got, want := messages()[0], "n,,\x01auth=Bearer good.token-1\x01identityPoolId=pool 7\x01logicalCluster=lkc-1\x01\x01"; got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
	// F20: an expired token.
	old := jwt(fmt.Sprintf(`{"sub":"x","exp":%d}`, time.Now().Add(-3*time.Minute).Unix()))
	putFile(t, dir, "token", []byte(old))
	_, _, err := logIn(t, s, "localhost", addr)
	a := wantAuth(t, err, "authentication to localhost:", ` with OAUTHBEARER was refused: {"status":"invalid_token"} (the token expired at 2`,
		"s ago by this machine's clock): put a fresh token into "+dir+"/token (sasl.oauth.token_file)")
	if strings.Contains(a.Error(), old) {
		t.Error("the token is in the error")
	}
	for content, want := range map[string]string{"": "holds no token (0 bytes)", "a b": "holds no token (3 bytes)", "{}": "holds no token", "a\x01b": "holds no token", "===": "holds no token"} {
		putFile(t, dir, "token", []byte(content))
		_, _, err := logIn(t, s, "localhost", addr)
		wantWords(t, err, "authentication to localhost:", "sasl.oauth.token_file: "+dir+"/token "+want)
	}
	putFile(t, dir, "token", []byte("good.token-1"))
	if _, _, err := logIn(t, s, "localhost", addr); err != nil {
		t.Errorf("after the file was renewed: %v", err)
	}
	s.OAuth.TokenFile = dir + "/none"
	_, _, err = logIn(t, s, "localhost", addr)
	wantWords(t, err, "sasl.oauth.token_file: open")
}

// A broker that refuses without an error code at the end is refused as well.
func TestOddRefusal(t *testing.T) {
	addr := scripted{answer: func(int, []byte) ([]byte, int16, string) { return []byte(`{"status":"no"}`), 0, "" }}.start(t)
	s := &Security{Mechanism: MechanismOAuthBearer, OAuth: OAuth{TokenFile: putFile(t, t.TempDir(), "token", []byte("t"))}}
	_, _, err := logIn(t, s, "localhost", addr)
	wantAuth(t, err, `the broker says "{\"status\":\"no\"}"`)
}

// endpoint is a token endpoint over TLS.
type endpoint struct {
	mu     sync.Mutex
	asked  []*http.Request
	status int
	body   string // %d is how often it was asked
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, r)
	if e.status != 0 {
		w.WriteHeader(e.status)
	}
	fmt.Fprint(w, strings.ReplaceAll(e.body, "%d", fmt.Sprint(len(e.asked))))
}

func (e *endpoint) set(status int, body string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status, e.body = status, body
}

func (e *endpoint) requests() []*http.Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]*http.Request(nil), e.asked...)
}

// start returns settings that use the endpoint.
func (e *endpoint) start(t *testing.T) *Security {
	server := httptest.NewUnstartedServer(e)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	s := &Security{Mechanism: MechanismOAuthBearer, OAuth: OAuth{
		TokenURL: server.URL + "/oauth/token", ClientID: "cli:ent", ClientSecret: NewCredential("ge+heim/%"),
		CAFile: putFile(t, t.TempDir(), "ca.pem", ca),
	}}
	if err := s.validate(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestClientCredentials(t *testing.T) {
	e := &endpoint{body: `{"access_token":"token-%d","token_type":"Bearer","expires_in":3600}`}
	s := e.start(t)
	s.OAuth.Scope = "kafka read"
	addr, messages := bearer(t, func(string) bool { return true })
	var wg sync.WaitGroup
	for range 5 { // five connections at once, one question
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			conn, _, err := dialSecure(ctx, s, "localhost", addr)
			if err != nil {
				t.Error(err)
			}
			if conn != nil {
				conn.Close()
			}
		})
	}
	wg.Wait()
	r := e.requests()
	if len(r) != 1 {
		t.Fatalf("the endpoint was asked %d times, want once", len(r))
	}
	for _, m := range messages() {
		if !strings.Contains(m, "Bearer token-1\x01") {
			t.Errorf("sent %q, want token-1", m)
		}
	}
	user, password, _ := r[0].BasicAuth()
	if id, _ := url.QueryUnescape(user); id != "cli:ent" {
		t.Errorf("client id = %q, want it as a form would write it (RFC 6749, 2.3.1)", user)
	}
	if secret, _ := url.QueryUnescape(password); secret != "ge+heim/%" {
		t.Errorf("client secret = %q", password)
	}
	if r[0].Method != "POST" || r[0].PostForm.Encode() != "grant_type=client_credentials&scope=kafka+read" {
		t.Errorf("asked by %s with %q", r[0].Method, r[0].PostForm.Encode())
	}
	s.shared = newSharedState()
	s.OAuth.SecretInBody = true
	if _, _, err := logIn(t, s, "localhost", addr); err != nil {
		t.Fatal(err)
	}
	last := e.requests()[1]
	if _, _, basic := last.BasicAuth(); basic || last.PostForm.Get("client_id") != "cli:ent" || last.PostForm.Get("client_secret") != "ge+heim/%" {
		t.Errorf("with secret_in_body: basic %v, form %q", basic, last.PostForm)
	}
}

func TestTokenEndpointFaults(t *testing.T) {
	e := &endpoint{}
	s := e.start(t)
	addr, _ := bearer(t, func(string) bool { return true })
	for _, c := range []struct {
		name   string
		status int
		body   string
		final  bool
		want   string
	}{
		{"refused", 401, `{"error":"invalid_client","error_description":"Unknown client ge+heim/%"}`, true,
			"answered 401: invalid_client Unknown client ***: check sasl.oauth.client_id and sasl.oauth.client_secret"},
		{"not JSON", 403, "<html>\n\tno, ge%2Bheim%2F%25 </html>\x1b[31m" + strings.Repeat("x", 300), true, "answered 403: <html> no, *** </html> [31mxxx"},
		{"no words", 400, "", true, "answered 400: nothing: check"},
		{"broken", 503, "busy", false, "answered 503: busy"},
		{"too often", 429, "{}", false, "answered 429: {}"},
		{"moved", 302, "", true, "answered 302"},
		{"no token", 200, `{"token":"x"}`, false, "answered without a token: is it a token endpoint? (sasl.oauth.token_url)"},
		{"a page", 200, `<html>`, false, "answered without a token"},
		{"odd token", 200, `{"access_token":"a b"}`, false, "answered without a token"},
		{"other type", 200, `{"access_token":"a","token_type":"mac"}`, false, `a token of type "mac", and only bearer tokens`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.set(c.status, c.body)
			_, _, err := logIn(t, s, "localhost", addr)
			wantWords(t, err, "authentication to localhost:", c.want)
			var a *AuthError
			if final := errors.As(err, &a); final != c.final {
				t.Errorf("error %v is an AuthError: %v, want %v", err, final, c.final)
			}
			for _, secret := range []string{"ge+heim", "ge%2Bheim", "\n", "\x1b"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q is in the error %q", secret, err)
				}
			}
		})
	}
	s.OAuth.CAFile = ""
	_, _, err := logIn(t, s, "localhost", addr)
	wantWords(t, err, "sasl.oauth.token_url: Post ", "unknown authority")
	s.OAuth.CAFile = "/nowhere/at all"
	_, _, err = logIn(t, s, "localhost", addr)
	wantWords(t, err, "sasl.oauth.ca_file: open")
}

// A token that was kept may have been revoked: its refusal is worth another try,
// with a new token, while that of a new token is final.
func TestKeptTokenIsRefused(t *testing.T) {
	e := &endpoint{body: `{"access_token":"token-%d","expires_in":3600}`}
	s := e.start(t)
	var mu sync.Mutex
	want := "token-1"
	addr, _ := bearer(t, func(token string) bool {
		mu.Lock()
		defer mu.Unlock()
		return token == want
	})
	if _, _, err := logIn(t, s, "localhost", addr); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	want = "token-2"
	mu.Unlock()
	_, _, err := logIn(t, s, "localhost", addr)
	wantWords(t, err, "was refused", "the next connection takes a new token")
	var a *AuthError
	if errors.As(err, &a) {
		t.Errorf("error = %v is an AuthError, want one that may be tried again", err)
	}
	if _, _, err := logIn(t, s, "localhost", addr); err != nil {
		t.Errorf("with a new token: %v", err)
	}
	mu.Lock()
	want = "none"
	mu.Unlock()
	_, _, err = logIn(t, s, "localhost", addr)
	wantWords(t, err, "the next connection takes a new token")
	_, _, err = logIn(t, s, "localhost", addr)
	wantAuth(t, err, "check sasl.oauth.client_id and sasl.oauth.scope")
}

func TestTokenIsKeptForItsLife(t *testing.T) {
	o := &OAuth{ClientSecret: NewCredential("x")}
	now := time.Now().Unix()
	for _, c := range []struct {
		name, body string
		want       time.Duration
	}{
		{"an hour", `{"access_token":"a","expires_in":3600}`, 59 * time.Minute},
		{"a minute", `{"access_token":"a","expires_in":60}`, 45 * time.Second},
		{"text", `{"access_token":"a","expires_in":"60"}`, 45 * time.Second},
		{"fraction", `{"access_token":"a","expires_in":60.0}`, 45 * time.Second},
		{"unknown", `{"access_token":"a"}`, 0},
		{"zero", `{"access_token":"a","expires_in":0}`, 0},
		{"by the token", `{"access_token":"` + jwt(fmt.Sprintf(`{"iat":%d,"exp":%d}`, now, now+60)) + `"}`, 45 * time.Second},
		{"no beginning", `{"access_token":"` + jwt(fmt.Sprintf(`{"exp":%d}`, now+60)) + `"}`, 0},
	} {
		_, life, err := o.read(200, []byte(c.body), "x")
		if err != nil || life != c.want {
			t.Errorf("%s: kept for %v, %v, want %v", c.name, life, err, c.want)
		}
	}
}

func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &newSharedState().token
		n := 0
		fetch := func(ctx context.Context) (string, time.Duration, error) {
			time.Sleep(time.Second)
			n++
			return fmt.Sprint(n), time.Minute, ctx.Err()
		}
		get := func(want string, wantOld bool) {
			t.Helper()
			if v, old, err := k.get(t.Context(), fetch); v != want || old != wantOld || err != nil {
				t.Errorf("get() = %q, %v, %v, want %q, %v", v, old, err, want, wantOld)
			}
		}
		get("1", false)
		get("1", true)
		time.Sleep(time.Minute)
		get("2", false)
		k.forget()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if v, _, _ := k.get(t.Context(), fetch); v != "3" {
					t.Errorf("get() = %q, want 3", v)
				}
			})
		}
		wg.Wait()
		// Who waits for another's fetch may give up.
		k.forget()
		wg.Go(func() { get("4", false) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, _, err := k.get(ctx, fetch); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("get() = %v, want DeadlineExceeded", err)
		}
		wg.Wait()
	})
}

func TestTokenLife(t *testing.T) {
	for _, c := range []struct {
		text string
		exp  int64
		life time.Duration
	}{
		{jwt(`{"exp":1000,"iat":900}`), 1000, 100 * time.Second},
		{jwt(`{"exp":1000.5}`), 1000, 0},
		{jwt(`{"exp":100,"iat":900}`), 100, 0},
		{jwt(`{}`), 0, 0}, {jwt(`no`), 0, 0}, {jwt(`{"exp":1e300}`), 0, 0}, {jwt(`{"exp":-1}`), 0, 0},
		{"opaque", 0, 0}, {"a.b.c", 0, 0}, {"a.!.c", 0, 0}, {"..", 0, 0},
	} {
		exp, life := tokenLife(c.text)
		if (c.exp == 0) != exp.IsZero() || (c.exp != 0 && exp.Unix() != c.exp) || life != c.life {
			t.Errorf("tokenLife(%q) = %v, %v, want %d, %v", c.text, exp, life, c.exp, c.life)
		}
	}
}

func FuzzTokenEndpoint(f *testing.F) {
	f.Add(200, `{"access_token":"a.b.c","expires_in":"60"}`)
	f.Add(400, `{"error":"geheim"}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		o := &OAuth{TokenURL: "https://a", ClientSecret: NewCredential("geheim")}
		text, life, err := o.read(status, []byte(body), "geheim")
		if err == nil && (!isToken(text) || life < 0) {
			t.Errorf("read() = %q, %v", text, life)
		}
		if err != nil && strings.Contains(err.Error(), "geheim") {
			t.Errorf("the secret is in %q", err)
		}
	})
}
