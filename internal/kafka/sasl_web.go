package kafka

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// webTimeout bounds one request for a token or key, so that a login ends within
// handshakeTimeout even if nobody answers.
const webTimeout = 4 * time.Second

// webClient returns a client for token endpoints. It leaves no connection open and
// follows no redirection, which could carry a secret elsewhere. Key names the
// setting of caFile; "" means the system's authorities.
func webClient(key, caFile string) (*http.Client, error) {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: webTimeout,
		DisableKeepAlives:   true,
	}
	if caFile != "" {
		pool, err := readPool(key, caFile)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{
		Transport:     t,
		Timeout:       webTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// askWeb sends a request and reads its answer, at most 1 MiB of it.
func askWeb(client *http.Client, req *http.Request) (status int, body []byte, err error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return 0, nil, fmt.Errorf("read the answer of %s: %w", req.URL.Host, err)
	}
	return resp.StatusCode, body, nil
}

// excerpt returns the head of a foreign text, fit for one line of a log and without
// the secrets.
func excerpt(text string, secrets ...string) string {
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, credentialMask)
		}
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 200 {
		text = string(r[:200]) + "..."
	}
	if text == "" {
		return "nothing"
	}
	return text
}
