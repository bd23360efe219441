package kafka

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// byToken is OAUTHBEARER (RFC 7628) with the token that get returns. Kept tells
// whether it was used before, so that its refusal may be cured by a new one.
func (d *dialogue) byToken(ctx context.Context, get func(context.Context) (text string, kept bool, err error), forget func()) error {
	text, kept, err := get(ctx)
	if err != nil {
		var final *AuthError
		if errors.As(err, &final) {
			final.Addr, final.Mechanism = d.addr, d.security.Mechanism
			return final
		}
		return fmt.Errorf("authentication to %s with %s: %w", d.addr, d.security.Mechanism, err)
	}
	err = d.present(text)
	var refusal *AuthError
	if !errors.As(err, &refusal) {
		return err
	}
	forget()
	if exp, _ := tokenLife(text); !exp.IsZero() && time.Now().After(exp) {
		refusal.Reason += fmt.Sprintf(" (the token expired at %s, %s ago by this machine's clock)",
			exp.UTC().Format(time.RFC3339), time.Since(exp).Round(time.Second))
	}
	if kept {
		return fmt.Errorf("%s; the next connection takes a new token", refusal.Error())
	}
	return refusal
}

// present shows a token to the broker. A broker that does not like it says why in
// a message of its own, to which RFC 7628 wants the answer ^A.
func (d *dialogue) present(text string) error {
	message := "n,,\x01auth=Bearer " + text + "\x01"
	if d.security.Mechanism == MechanismOAuthBearer {
		extensions := d.security.OAuth.Extensions
		for _, k := range slices.Sorted(maps.Keys(extensions)) {
			message += k + "=" + extensions[k] + "\x01"
		}
	}
	answer, err := d.send([]byte(message + "\x01"))
	if err != nil || len(answer) == 0 {
		return err
	}
	_, err = d.send([]byte{1})
	var refusal *AuthError
	if !errors.As(err, &refusal) {
		return d.refused("the broker says "+quoteBytes(answer), d.hint, err)
	}
	return refusal
}

// sharedState keeps what is used for more than one connection.
type sharedState struct {
	token keptValue[string]
	keys  keptValue[awsKeys]
	// proven: a broker has answered past the first words, so the settings are right
	// and an early end means nothing.
	proven atomic.Bool
}

func newSharedState() *sharedState {
	return &sharedState{token: keptValue[string]{turn: make(chan struct{}, 1)}, keys: keptValue[awsKeys]{turn: make(chan struct{}, 1)}}
}

// keptValue is a value that is good for some time. One caller at a time fetches it; the others
// wait for that.
type keptValue[T any] struct {
	turn  chan struct{} // holds one: who has put it there may use the fields
	value T
	until time.Time
}

// get returns the value, or fetches one that is good for life; old tells which.
func (k *keptValue[T]) get(ctx context.Context, fetch func(context.Context) (value T, life time.Duration, err error)) (value T, old bool, err error) {
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return value, false, ctx.Err()
	}
	defer func() { <-k.turn }()
	if time.Now().Before(k.until) {
		return k.value, true, nil
	}
	value, life, err := fetch(ctx)
	if err != nil {
		return value, false, err
	}
	k.value, k.until = value, time.Now().Add(life)
	return value, false, nil
}

// forget makes the next get fetch.
func (k *keptValue[T]) forget() {
	k.turn <- struct{}{}
	k.until = time.Time{}
	<-k.turn
}

func (o *OAuth) secret() textSource {
	return textSource{"sasl.oauth.client_secret", o.ClientSecret.Reveal(), o.ClientSecret.IsSet(), o.ClientSecretFile, o.ClientSecretEnv}
}

// asciiLetters is what RFC 7628 allows in the name of an extension.
const asciiLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// isToken tells whether text has only what RFC 6750 allows in a bearer token.
func isToken(text string) bool {
	return strings.Trim(strings.TrimRight(text, "="), asciiLetters+"0123456789._~+/-") == "" && strings.Trim(text, "=") != ""
}

// isExtension tells whether RFC 7628 allows text as the value of an extension.
func isExtension(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < ' ' && r != '\t' && r != '\r' && r != '\n') || r > '~'
	})
}

func (o *OAuth) check() []error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("sasl.oauth."+format, args...)) }
	for _, k := range slices.Sorted(maps.Keys(o.Extensions)) {
		if k == "" || strings.Trim(k, asciiLetters) != "" || k == "auth" {
			fault("extensions: %q cannot be a name: use letters, and not auth", k)
		}
		if !isExtension(o.Extensions[k]) {
			fault("extensions: the value of %q is empty or has other characters than ASCII's", k)
		}
	}
	switch {
	case o.TokenFile == "" && o.TokenURL == "":
		fault("token_file: must be set (or sasl.oauth.token_url)")
	case o.TokenFile != "" && o.TokenURL != "":
		fault("token_file: set it or sasl.oauth.token_url, not both")
	}
	if o.TokenURL == "" {
		return errs
	}
	if u, err := url.Parse(o.TokenURL); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		fault("token_url: must be an https URL")
	} else if u.User != nil {
		fault("token_url: has a user in it: use client_id and client_secret_file")
	}
	if o.ClientID == "" {
		fault("client_id: must be set, because token_url is")
	}
	return append(errs, o.secret().check(true)...)
}

// byOAuth gets a token as the settings say, and presents it.
func (d *dialogue) byOAuth(ctx context.Context) error {
	o := &d.security.OAuth
	if o.TokenFile != "" {
		d.hint = fmt.Sprintf("put a fresh token into %s (sasl.oauth.token_file)", o.TokenFile)
		return d.byToken(ctx, func(context.Context) (string, bool, error) {
			text, err := o.fromFile()
			return text, false, err
		}, func() {})
	}
	d.hint = "check sasl.oauth.client_id and sasl.oauth.scope, and what the broker expects of a token"
	shared := d.security.sharedState()
	return d.byToken(ctx, func(ctx context.Context) (string, bool, error) {
		return shared.token.get(ctx, o.fetch)
	}, shared.token.forget)
}

// sharedState returns what connections share, or something empty when s was not validated.
func (s *Security) sharedState() *sharedState {
	if s.shared == nil {
		return newSharedState()
	}
	return s.shared
}

// fromFile reads the token file. The token is in no error.
func (o *OAuth) fromFile() (string, error) {
	b, err := os.ReadFile(o.TokenFile)
	if err != nil {
		return "", fmt.Errorf("sasl.oauth.token_file: %w", err)
	}
	text := string(bytes.TrimSpace(b))
	if !isToken(text) {
		return "", fmt.Errorf("sasl.oauth.token_file: %s holds no token (%d bytes)", o.TokenFile, len(b))
	}
	return text, nil
}

// fetch asks the token endpoint (RFC 6749, section 4.4) and returns a token and
// how long it is worth keeping.
func (o *OAuth) fetch(ctx context.Context) (text string, life time.Duration, err error) {
	secret, err := o.secret().read()
	if err != nil {
		return "", 0, err
	}
	client, err := webClient("sasl.oauth.ca_file", o.CAFile)
	if err != nil {
		return "", 0, err
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if o.Scope != "" {
		form.Set("scope", o.Scope)
	}
	if o.SecretInBody {
		form.Set("client_id", o.ClientID)
		form.Set("client_secret", secret)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if !o.SecretInBody {
		req.SetBasicAuth(url.QueryEscape(o.ClientID), url.QueryEscape(secret))
	}
	status, body, err := askWeb(client, req)
	if err != nil {
		return "", 0, fmt.Errorf("sasl.oauth.token_url: %w", err)
	}
	return o.read(status, body, secret)
}

// read reads a token endpoint's answer.
func (o *OAuth) read(status int, body []byte, secret string) (string, time.Duration, error) {
	var a struct {
		Token       string      `json:"access_token"`
		Type        string      `json:"token_type"`
		ExpiresIn   json.Number `json:"expires_in"`
		Error       string      `json:"error"`
		Description string      `json:"error_description"`
	}
	bad := json.Unmarshal(body, &a)
	if status != http.StatusOK {
		text := strings.TrimSpace(a.Error + " " + a.Description)
		if bad != nil || text == "" {
			text = string(body)
		}
		reason := fmt.Sprintf("%s answered %d: %s", o.TokenURL, status, excerpt(text, secret, url.QueryEscape(secret)))
		if status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout {
			return "", 0, errors.New(reason)
		}
		return "", 0, &AuthError{User: o.ClientID, Reason: reason, Hint: "check sasl.oauth.client_id and " + o.secret().name()}
	}
	if bad != nil || !isToken(a.Token) {
		return "", 0, fmt.Errorf("%s answered without a token: is it a token endpoint? (sasl.oauth.token_url)", o.TokenURL)
	}
	if a.Type != "" && !strings.EqualFold(a.Type, "bearer") {
		return "", 0, fmt.Errorf("%s answered with a token of type %q, and only bearer tokens can be used", o.TokenURL, excerpt(a.Type, secret))
	}
	seconds, err := a.ExpiresIn.Float64()
	life := time.Duration(max(0, min(seconds, 1e6)) * float64(time.Second))
	if err != nil {
		_, life = tokenLife(a.Token)
	}
	return a.Token, life - min(life/4, time.Minute), nil
}

// tokenLife reads when a JWT expires and for how long it is good altogether; zero
// for what is no JWT or does not say. Nothing is verified: that is the broker's part.
func tokenLife(text string) (expires time.Time, life time.Duration) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return time.Time{}, 0
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return time.Time{}, 0
	}
	var c struct{ Exp, Iat float64 }
	if json.Unmarshal(b, &c) != nil || c.Exp <= 0 || c.Exp > 1e11 {
		return time.Time{}, 0
	}
	expires = time.Unix(int64(c.Exp), 0)
	if c.Iat > 0 {
		life = time.Duration(min(c.Exp-c.Iat, 1e6) * float64(time.Second))
	}
	return expires, max(life, 0)
}
